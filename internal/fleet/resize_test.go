package fleet_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/resources"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

func cpu(quantity string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(quantity)}
}

// sized is the agent with requests of cpu.
func sized(quantity string) *builders.TemplateBuilder {
	return agent.Clone().First(func(s *v1alpha1.Sidecar) { s.Resources.Requests = cpu(quantity) })
}

// requests changes what a container of a pod asks for.
func requests(container, quantity string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { builders.SpecOf(p, container).Resources.Requests = cpu(quantity) }
}

var (
	small = sized("50m").Revision(1)
	large = sized("100m").Revision(2)
)

// burstable is a pod that carries a revision, and whose app asks for something.
func burstable(carries *builders.TemplateBuilder) *builders.PodBuilder {
	return builders.Pod("shop", "cart-1").Injected(policy, carries.Revision(1)).With(requests("app", "10m"))
}

func TestResizes(t *testing.T) {
	limited := sized("50m").First(func(s *v1alpha1.Sidecar) { s.Resources.Limits = cpu("50m") })
	debug := sized("100m").Env("LEVEL", "debug").Revision(3)
	newImage := sized("100m").Image("agent:2").Revision(4)
	onlyLimit := agent.Clone().First(func(s *v1alpha1.Sidecar) { s.Resources.Limits = cpu("50m") })
	given := func(hash string, resizes map[string]corev1.ResourceRequirements) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			record := v1alpha1.UpgradeRecord{Revision: hash, At: metav1.NewTime(builders.At(50)), Resizes: resizes}
			p.Annotations[v1alpha1.UpgradeAnnotation(policy)] = record.Encode()
		}
	}
	hadSmall := map[string]corev1.ResourceRequirements{"agent": {Requests: cpu("50m")}}
	change := func(have, want string) []resources.Change {
		return []resources.Change{{List: "requests", Name: "cpu", Have: resource.MustParse(have), Want: resource.MustParse(want)}}
	}
	for _, tc := range []struct {
		name string
		pod  *builders.PodBuilder
		node fleet.Node
		view *fleet.View
		want []resources.Change
		// stale is why the resize, or all of the difference, needs a new pod.
		stale string
	}{
		{name: "has it", pod: burstable(sized("100m")), view: viewAt(100, large)},
		{name: "another quantity", pod: burstable(sized("50m")), view: viewAt(100, large, small), want: change("50m", "100m")},
		{name: "another image and quantity", pod: burstable(sized("50m")), view: viewAt(100, newImage, small), want: change("50m", "100m")},
		{name: "and stale in another part", pod: burstable(sized("50m")), view: viewAt(100, debug, small), want: change("50m", "100m"),
			stale: "sidecars[agent].env"},
		{name: "back", pod: burstable(sized("50m")).With(requests("agent", "100m")).With(given(large.Hash, hadSmall)),
			view: viewAt(100, small, large), want: change("100m", "50m")},
		{name: "a limit stands for the request", pod: burstable(onlyLimit), view: viewAt(100, sized("50m").With(func(t *v1alpha1.SidecarTemplate) {
			t.Sidecars[0].Resources.Limits = cpu("50m")
		}).Revision(2), onlyLimit.Revision(1))},
		{name: "what was computed from the app stays, and is not stale", pod: burstable(computed("50m", `quantity("64Mi")`)),
			view: viewAt(100, computed("100m", `quantity("64Mi")`).Revision(2), computed("50m", `quantity("64Mi")`).Revision(1)), want: change("50m", "100m")},
		{name: "it is computed otherwise", pod: burstable(computed("50m", `quantity("64Mi")`)),
			view: viewAt(100, computed("50m", `quantity("65Mi")`).Revision(2), computed("50m", `quantity("64Mi")`).Revision(1)), stale: "sidecars[agent].resourcesFromApp"},
		{name: "it is computed no more", pod: burstable(computed("50m", `quantity("64Mi")`)),
			view: viewAt(100, sized("50m").With(func(t *v1alpha1.SidecarTemplate) {
				t.Sidecars[0].Resources.Requests["memory"] = resource.MustParse("1Gi")
			}).Revision(2), computed("50m", `quantity("64Mi")`).Revision(1)),
			stale: "sidecars[agent].resources, sidecars[agent].resourcesFromApp"},
		{name: "what the pod's owner overrides stays, and is not stale", pod: burstable(sized("50m")).Clone().With(func(p *corev1.Pod) {
			p.Spec.InitContainers, p.Labels, p.Annotations = nil, nil, map[string]string{v1alpha1.OverrideAnnotation(policy): `{"agent": {"resources": {"limits": {"cpu": "1"}}}}`}
		}).Injected(policy, sized("50m").Revision(1), v1alpha1.AllowedOverride{Container: "agent", Resources: []corev1.ResourceName{"cpu"}}),
			view: viewAt(100, large, small)},
		{name: "a limit is added", pod: burstable(sized("50m")), view: viewAt(100, limited.Revision(2), small), stale: "sidecars[agent].resources"},
		{name: "a limit is removed, and the request changed", pod: burstable(limited), view: viewAt(100, large, limited.Revision(1)), stale: "sidecars[agent].resources"},
		{name: "the record was written, the resize not sent", pod: burstable(sized("50m")).With(given(large.Hash, hadSmall)), view: viewAt(100, large, small),
			want: change("50m", "100m")},
		{name: "resized by somebody else since", pod: burstable(sized("50m")).With(requests("agent", "70m")).With(given(large.Hash, hadSmall)), view: viewAt(100, large, small)},
		{name: "admission gave it more than the template says", pod: burstable(sized("50m")).With(requests("agent", "250m")), view: viewAt(100, small)},
		{name: "and the template changes then", pod: burstable(sized("50m")).With(requests("agent", "250m")), view: viewAt(100, large, small), want: change("250m", "100m")},
		{name: "the kubelet is too old", pod: burstable(sized("50m")), node: fleet.Node{NoResize: "its node's kubelet 1.34.1 is older than 1.35"}, view: viewAt(100, large, small),
			stale: "sidecars[agent].resources (its node's kubelet 1.34.1 is older than 1.35)"},
		{name: "Windows", pod: burstable(sized("50m")), node: fleet.Node{Labels: map[string]string{corev1.LabelOSStable: "windows"}}, view: viewAt(100, large, small),
			stale: "sidecars[agent].resources (a pod on Windows can't be resized)"},
		{name: "resources of the pod", pod: burstable(sized("50m")).With(func(p *corev1.Pod) { p.Spec.Resources = &corev1.ResourceRequirements{Requests: cpu("1")} }),
			view: viewAt(100, large, small), stale: "sidecars[agent].resources (the pod has resources of its own)"},
		{name: "the QoS class would change", pod: builders.Pod("shop", "cart-1").Injected(policy, sized("50m").Revision(1)), view: viewAt(100, sized("0").Revision(2), small),
			stale: "sidecars[agent].resources (a resize may not change the pod's QoS class from Burstable to BestEffort)"},
		{name: "what could not be resized is still said after a later image", pod: burstable(sized("50m")).With(given(large.Hash, hadSmall)),
			node: fleet.Node{NoResize: "no"}, view: viewAt(100, newImage, small, large), stale: "sidecars[agent].resources (no)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := fleet.Judge([]fleet.Member{{Pod: tc.pod.Obj(), Node: tc.node}}, tc.view)[0]
			var changes []resources.Change
			for _, resize := range got.Resizes {
				changes = append(changes, resize.Changes...)
			}
			if diff := cmp.Diff(tc.want, changes); diff != "" {
				t.Errorf("Resizes (-want +got):\n%s", diff)
			}
			if got.Stale != tc.stale {
				t.Errorf("stale %q, want %q", got.Stale, tc.stale)
			}
			if len(tc.want) > 0 && (!got.Outdated() || got.Updated()) {
				t.Errorf("outdated %t, updated %t; want an outdated pod", got.Outdated(), got.Updated())
			}
			if got.OnTarget && len(got.Images) > 0 {
				t.Error("the pod lacks an image, and is called on target")
			}
		})
	}
}

// computed is a sidecar that requests so much cpu, and memory by an expression.
func computed(quantity string, memory v1alpha1.ResourceExpression) *builders.TemplateBuilder {
	return builders.Template("agent", "agent:1").First(func(s *v1alpha1.Sidecar) {
		s.Resources.Requests = cpu(quantity)
		s.ResourcesFromApp = &v1alpha1.AppResources{Requests: map[corev1.ResourceName]v1alpha1.ResourceExpression{"memory": memory},
			Limits: map[corev1.ResourceName]v1alpha1.ResourceExpression{"memory": memory + " * 2.0"}}
	})
}

func TestResizeFindsContainersOfBothKinds(t *testing.T) {
	template := func(quantity string) *builders.TemplateBuilder {
		return builders.Template("agent", "agent:1").Classic("proxy", "proxy:1").With(func(t *v1alpha1.SidecarTemplate) {
			for i := range t.Sidecars {
				t.Sidecars[i].Resources.Requests = cpu(quantity)
			}
			t.Sidecars[1].ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: corev1.ResourceCPU, RestartPolicy: corev1.RestartContainer}}
		})
	}
	pod := builders.Pod("shop", "cart-1").InitContainer(corev1.Container{Name: "setup"}).Injected(policy, template("50m").Revision(1))
	got := judgeOne(pod, viewAt(100, template("1").Revision(2), template("50m").Revision(1)))
	changes := []resources.Change{{List: "requests", Name: "cpu", Have: resource.MustParse("50m"), Want: resource.MustParse("1")}}
	had := corev1.ResourceRequirements{Requests: cpu("50m")}
	want := []fleet.Resize{
		{Container: "agent", Native: true, Index: 0, Had: had, Changes: changes, Image: "agent:1", ContainerID: "containerd://shop/cart-1/agent-1"},
		{Container: "proxy", Index: 1, Had: had, Changes: changes, Restarts: true, Image: "proxy:1", ContainerID: "containerd://shop/cart-1/proxy-1"},
	}
	if diff := cmp.Diff(want, got.Resizes); diff != "" {
		t.Errorf("Resizes (-want +got):\n%s", diff)
	}
	if !got.Restarts() {
		t.Error("Restarts() is false, want true for the proxy's resizePolicy")
	}
}

func TestJudgeResize(t *testing.T) {
	// resized is the pod after the second request, at 50 s.
	resized := burstable(sized("50m")).With(requests("agent", "100m")).With(func(p *corev1.Pod) {
		record := v1alpha1.UpgradeRecord{Revision: large.Hash, At: metav1.NewTime(builders.At(50)), WasReady: true,
			Resizes: map[string]corev1.ResourceRequirements{"agent": {Requests: cpu("50m")}}}
		p.Annotations[v1alpha1.UpgradeAnnotation(policy)] = record.Encode()
		p.Labels[v1alpha1.RevisionLabel(policy)] = large.Hash
		p.Generation++
	})
	says := func(quantity string, conditions ...corev1.PodCondition) *builders.PodBuilder {
		return resized.Clone().With(func(p *corev1.Pod) {
			p.Status.ObservedGeneration = p.Generation
			p.Status.Conditions = append(p.Status.Conditions, conditions...)
		}).Status("agent", func(s *corev1.ContainerStatus) { s.Resources = &corev1.ResourceRequirements{Requests: cpu(quantity)} })
	}
	pending := corev1.PodCondition{Type: corev1.PodResizePending, Status: corev1.ConditionTrue, Reason: corev1.PodReasonDeferred, Message: "the node is full"}
	working := corev1.PodCondition{Type: corev1.PodResizeInProgress, Status: corev1.ConditionTrue}
	for _, tc := range []struct {
		name string
		pod  *builders.PodBuilder
		now  int
		want fleet.Verdict
	}{
		{"not seen", resized, 51, fleet.Verdict{State: fleet.Updating, Message: "the kubelet has not seen the change yet", Recheck: builders.At(110)}},
		{"done, and not for long", says("100m"), 51, fleet.Verdict{State: fleet.Updating, Message: "has not been ready for long enough", Recheck: builders.At(60)}},
		{"done", says("100m"), 60, fleet.Verdict{State: fleet.Settled}},
		{"in progress", says("50m", working), 70, fleet.Verdict{State: fleet.Updating, Recheck: builders.At(110),
			Message: `the kubelet has not resized sidecar "agent" (PodResizeInProgress)`}},
		{"somebody else's is in progress", says("100m", working), 70, fleet.Verdict{State: fleet.Settled}},
		{"deferred", says("50m", pending), 109, fleet.Verdict{State: fleet.Updating, Recheck: builders.At(110),
			Message: `the kubelet has not resized sidecar "agent" (PodResizePending: Deferred: the node is full)`}},
		{"deferred for too long", says("50m", pending), 110, fleet.Verdict{State: fleet.Failed, Reason: v1alpha1.ReasonResizeFailed,
			Message: `the kubelet has not resized sidecar "agent" (PodResizePending: Deferred: the node is full) for longer than 1m0s`}},
		{"done, and rounded", says("99m"), 60, fleet.Verdict{State: fleet.Settled}},
		{"not sent yet", resized.Clone().With(requests("agent", "50m")).With(func(p *corev1.Pod) { p.Status.ObservedGeneration = p.Generation }), 60,
			fleet.Verdict{State: fleet.Settled}},
		{"the pod is not ready", says("100m").NotReady(builders.At(55)), 70,
			fleet.Verdict{State: fleet.Updating, Message: "the pod is not ready", Recheck: builders.At(110)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := judgeOne(tc.pod, viewAt(tc.now, large, small))
			if diff := cmp.Diff(tc.want, got.Verdict, cmpopts.IgnoreFields(fleet.Verdict{}, "HealthySince")); diff != "" {
				t.Errorf("Verdict (-want +got):\n%s", diff)
			}
		})
	}
}
