package rollout_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

func of(name corev1.ResourceName, quantity string) corev1.ResourceList {
	return corev1.ResourceList{name: resource.MustParse(quantity)}
}

// sized is a native and a classic sidecar with their requests and limits of memory.
func sized(request, limit string) *builders.TemplateBuilder {
	return builders.Template("agent", "agent:1").Classic("proxy", "proxy:1").With(func(t *v1alpha1.SidecarTemplate) {
		for i := range t.Sidecars {
			t.Sidecars[i].Resources = corev1.ResourceRequirements{Requests: of("memory", request), Limits: of("memory", limit)}
		}
	})
}

func TestResizePatchTouchesQuantitiesOfSidecarsAlone(t *testing.T) {
	from := sized("32Mi", "64Mi").Revision(1)
	carrying := builders.Pod("shop", "cart-0").InitContainer(corev1.Container{Name: "setup"}).Injected(policy, from)
	for _, tc := range []struct {
		name string
		to   *builders.TemplateBuilder
		want []string
	}{
		{"images alone", sized("32Mi", "64Mi").Image("agent:2"), nil},
		{"all", sized("40Mi", "80Mi"), []string{"test /metadata/uid shop/cart-0",
			"test /spec/initContainers/0/name agent", "replace /spec/initContainers/0/resources/requests/memory 40Mi", "replace /spec/initContainers/0/resources/limits/memory 80Mi",
			"test /spec/containers/1/name proxy", "replace /spec/containers/1/resources/requests/memory 40Mi", "replace /spec/containers/1/resources/limits/memory 80Mi"}},
		{"the limits of one", sized("32Mi", "64Mi").First(func(s *v1alpha1.Sidecar) { s.Resources.Limits = of("memory", "1Gi") }), []string{"test /metadata/uid shop/cart-0",
			"test /spec/initContainers/0/name agent", "replace /spec/initContainers/0/resources/limits/memory 1Gi"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			upgrade := upgradeOf(t, carrying, tc.to.Revision(2), 100, from)
			var got []string
			for _, op := range upgrade.ResizePatch() {
				got = append(got, fmt.Sprintf("%s %s %v", op.Operation, op.Path, op.Value))
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("ResizePatch() (-want +got):\n%s", diff)
			}
		})
	}
}

// The record is written before the resize, and says all that the upgrade is judged by.
func TestRecordOfAResize(t *testing.T) {
	from, to := sized("32Mi", "64Mi"), sized("40Mi", "64Mi")
	restarting := func(b *builders.TemplateBuilder) *builders.TemplateBuilder {
		return b.Clone().First(func(s *v1alpha1.Sidecar) {
			s.ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: corev1.ResourceMemory, RestartPolicy: corev1.RestartContainer}}
		})
	}
	carrying := func(b *builders.TemplateBuilder) *builders.PodBuilder {
		return builders.Pod("shop", "cart-0").Injected(policy, b.Revision(1))
	}
	had := corev1.ResourceRequirements{Requests: of("memory", "32Mi")}
	both := map[string]corev1.ResourceRequirements{"agent": had, "proxy": had}
	id, ran := map[string]string{"agent": "containerd://shop/cart-0/agent-1"}, map[string]string{"agent": "agent:1"}
	none := map[string]string{}
	// unsent was upgraded at 95 s, and its resize was not accepted.
	unsent := carrying(from).With(func(p *corev1.Pod) {
		record := v1alpha1.UpgradeRecord{Revision: to.Revision(2).Hash, At: metav1.NewTime(builders.At(95)), Before: id, Ran: map[string]string{"agent": "agent:0"}, Resizes: both}
		p.Annotations[v1alpha1.UpgradeAnnotation(policy)] = record.Encode()
	})
	for _, tc := range []struct {
		name     string
		pod      *builders.PodBuilder
		from, to *builders.TemplateBuilder
		at       int
		want     v1alpha1.UpgradeRecord
	}{
		{"nothing restarts", carrying(from), from, to, 100, v1alpha1.UpgradeRecord{Before: none, Resizes: both, WasReady: true}},
		{"a container that asks for it restarts", carrying(restarting(from)), restarting(from), restarting(to), 100,
			v1alpha1.UpgradeRecord{Before: id, Ran: ran, Resizes: both, WasReady: true}},
		{"with a new image", carrying(from), from, to.Clone().Image("agent:2"), 100,
			v1alpha1.UpgradeRecord{Before: id, Ran: ran, Resizes: both, WasReady: true}},
		{"once more: it wins no time", unsent, from, to, 95,
			v1alpha1.UpgradeRecord{Before: id, Ran: map[string]string{"agent": "agent:0"}, Resizes: both, WasReady: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := recordOf(t, upgradeOf(t, tc.pod, tc.to.Revision(2), 100, tc.from.Revision(1)), 100)
			tc.want.Revision, tc.want.At = tc.to.Revision(2).Hash, metav1.NewTime(builders.At(tc.at))
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("record (-want +got):\n%s", diff)
			}
		})
	}
}

// halfway is a pod that was given the target's image, and still lacks its resources.
func halfway(i int) (*builders.PodBuilder, *revision.Revision, *revision.Revision) {
	from, to := sized("32Mi", "64Mi").Revision(1), sized("40Mi", "64Mi").Image("agent:2").Revision(2)
	pod := builders.Pod("shop", fmt.Sprintf("cart-%02d", i)).Injected(policy, from).Upgraded(policy, to, builders.At(10))
	return pod.With(func(p *corev1.Pod) {
		record, _ := v1alpha1.ParseUpgradeRecord(p.Annotations, policy)
		record.Resizes = map[string]corev1.ResourceRequirements{"agent": {Requests: of("memory", "32Mi")}, "proxy": {Requests: of("memory", "32Mi")}}
		p.Annotations[v1alpha1.UpgradeAnnotation(policy)] = record.Encode()
	}), from, to
}

func TestAPodThatLacksTheResizeCountsForItsStep(t *testing.T) {
	pod, from, to := halfway(0)
	other := builders.Pod("shop", "cart-01").Injected(policy, from)
	spec := builders.Rollout().With(func(s *v1alpha1.RolloutSpec) {
		s.Steps = []v1alpha1.Step{{Name: "one", UpTo: ptr.To(intstr.FromInt32(1))}, {Name: "fleet", UpTo: ptr.To(intstr.FromString("100%"))}}
	})
	view := viewAt(100, to)
	view.Revisions = []revision.Revision{*from, *to}
	first := int32(0)
	plan := rollout.Make(rollout.Input{Spec: spec.Obj(), Target: to, Stable: from.Hash, Now: builders.At(100),
		Step: &v1alpha1.StepStatus{Index: &first, Name: "one", StartedAt: metav1.NewTime(builders.At(9))},
		Pods: fleet.Judge([]fleet.Member{in("cart", pod.Restarted("agent", builders.At(11))), in("cart", other)}, view)})
	if diff := cmp.Diff([]string{"cart-00"}, names(plan)); diff != "" {
		t.Errorf("upgrades (-want +got):\n%s", diff)
	}
}

func TestAFailureCountsBeforeTheResizeIsSent(t *testing.T) {
	pod, from, to := halfway(0)
	view := viewAt(100, to)
	view.Revisions = []revision.Revision{*from, *to}
	plan := rollout.Make(rollout.Input{Spec: builders.Rollout().Obj(), Target: to, Stable: from.Hash, Now: builders.At(100),
		Pods: fleet.Judge([]fleet.Member{in("cart", pod)}, view)})
	if plan.Summary.FailedRevision != to.Hash || len(plan.Upgrades) > 0 {
		t.Errorf("failed revision %q and %d upgrades, want %s and none: the pod's new image did not start", plan.Summary.FailedRevision, len(plan.Upgrades), to.Hash)
	}
}

// A change of resources that restarts nothing drains nothing.
func TestOnlyWhatRestartsIsDrained(t *testing.T) {
	from, to := sized("32Mi", "64Mi"), sized("40Mi", "64Mi")
	for name, restarts := range map[string]bool{"restarts": true, "does not": false} {
		t.Run(name, func(t *testing.T) {
			policyOf := func(b *builders.TemplateBuilder) *revision.Revision {
				return b.Clone().First(func(s *v1alpha1.Sidecar) {
					if restarts {
						s.ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: corev1.ResourceMemory, RestartPolicy: corev1.RestartContainer}}
					}
				}).Revision(1)
			}
			pod := builders.Pod("shop", "cart-0").Injected(policy, policyOf(from)).With(func(p *corev1.Pod) {
				gate := v1alpha1.DrainCondition(policy)
				p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: gate}}
				p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: gate, Status: corev1.ConditionTrue},
					corev1.PodCondition{Type: corev1.ContainersReady, Status: corev1.ConditionTrue})
			})
			view := viewAt(100, policyOf(to))
			view.Revisions = []revision.Revision{*policyOf(from), *policyOf(to)}
			plan := rollout.Make(rollout.Input{Spec: builders.Rollout().With(func(s *v1alpha1.RolloutSpec) { s.Drain.Seconds = 5 }).Obj(),
				Target: policyOf(to), Now: builders.At(100), Pods: fleet.Judge([]fleet.Member{in("cart", pod)}, view)})
			if got := len(plan.Drains) == 1; got != restarts {
				t.Errorf("drained %t, want %t: %d upgrades", got, restarts, len(plan.Upgrades))
			}
		})
	}
}
