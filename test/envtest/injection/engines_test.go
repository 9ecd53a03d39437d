package injection

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/admissionpolicy"
	"github.com/sidecar-dev/sidecar-operator/internal/inject"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
	"github.com/sidecar-dev/sidecar-operator/internal/selection"
)

// How many random templates are compiled, and how many random pods each of them meets.
const (
	randomTemplates = 24
	podsPerTemplate = 40
)

// engine is a policy that the API server carries out by itself, in a namespace of its own.
type engine struct {
	policy    *v1alpha1.SidecarPolicy
	revisions []revision.Revision
	namespace *corev1.Namespace
}

// newEngine compiles a policy with one revision for each template. The last one is the target.
func newEngine(t *testing.T, name string, change func(*v1alpha1.SidecarPolicy), templates ...v1alpha1.SidecarTemplate) *engine {
	t.Helper()
	e := &engine{policy: &v1alpha1.SidecarPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}},
		namespace: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}}
	for _, template := range templates {
		e.revisions = append(e.revisions, revision.Next(e.revisions, template))
	}
	e.policy.Spec.Selector.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: name}}
	e.policy.Status.StableRevision, e.policy.Status.TargetRevision = e.revisions[0].Hash, e.revisions[len(e.revisions)-1].Hash
	if change != nil {
		change(e.policy)
	}
	if err := client.IgnoreAlreadyExists(server.Client.Create(t.Context(), e.namespace)); err != nil {
		t.Fatal(err)
	}
	registration, err := admissionpolicy.Compile(&admissionpolicy.Input{Policy: e.policy, Births: rollout.BirthsOf(e.policy),
		Revisions: e.revisions, Namespace: metav1.NamespaceDefault})
	if err != nil {
		t.Fatal(err)
	}
	register(t, registration)
	return e
}

// register writes a registration, and removes it after the test.
func register(t *testing.T, registration *admissionpolicy.Registration) {
	t.Helper()
	objects := []client.Object{registration.Policy}
	for _, binding := range registration.Bindings {
		objects = append(objects, binding)
	}
	for _, object := range objects {
		if err := server.Client.Create(t.Context(), object); err != nil {
			t.Fatalf("the API server refuses what was compiled: %v", err)
		}
		t.Cleanup(func() { _ = server.Client.Delete(context.WithoutCancel(t.Context()), object) })
	}
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		answer := admissionpolicy.CheckPod(metav1.NamespaceDefault, registration.Digest)
		err := server.Client.Create(ctx, answer, client.DryRunAll)
		return admissionpolicy.InForce(answer, registration.Digest), err
	})
	if err != nil {
		t.Fatalf("the API server does not act on %s: %v", registration.Policy.Name, err)
	}
}

// compare creates a pod as a dry run, in the engine's namespace and by internal/inject, and says how
// they differ. The reason is why the pod was left as it is; empty where it was injected.
func (e *engine) compare(pod *corev1.Pod) (diff string, reason v1alpha1.Reason, err error) {
	bare, err := dryRun(in(metav1.NamespaceDefault, pod))
	if err != nil {
		return "", "", err
	}
	want := asSent(bare)
	want.Spec.Resources = pod.Spec.Resources.DeepCopy() // which the API server fills in after admission
	if reason = e.inject(want); len(reason) == 0 {
		if want, err = dryRun(want); err != nil {
			return "", reason, fmt.Errorf("with the sidecars: %w", err)
		}
	} else {
		want = bare
	}
	got, err := dryRun(in(e.namespace.Name, pod))
	if err != nil {
		return "", reason, fmt.Errorf("by the API server: %w", err)
	}
	return cmp.Diff(in("", asSent(want)), in("", asSent(got))), reason, nil
}

// inject does with a pod what the webhook does.
func (e *engine) inject(pod *corev1.Pod) v1alpha1.Reason {
	if !selection.Injectable(pod) {
		return v1alpha1.ReasonMirrorPod
	}
	place := rollout.Place{Labels: pod.Labels, NamespaceLabels: e.namespace.Labels}
	if owner := metav1.GetControllerOfNoCopy(pod); owner != nil {
		place.Owner = string(owner.UID)
	}
	r := revision.Get(e.revisions, rollout.RevisionFor(e.policy, place))
	additions, conflicts := inject.Render(pod, e.policy.Name, r)
	if len(conflicts) > 0 {
		return conflicts[0].Reason
	}
	if e.policy.Spec.Rollout.Drain.Seconds > 0 {
		additions.AddDrainGate(pod, e.policy.Name)
	}
	additions.Apply(pod)
	return ""
}

// in is the pod in another namespace.
func in(namespace string, pod *corev1.Pod) *corev1.Pod {
	moved := pod.DeepCopy()
	moved.Namespace, moved.CreationTimestamp, moved.Generation = namespace, metav1.Time{}, 0
	return moved
}

// withoutFromApp is the template without what can't be said in CEL.
func withoutFromApp(template v1alpha1.SidecarTemplate) v1alpha1.SidecarTemplate {
	for i := range template.Sidecars {
		template.Sidecars[i].FromApp = v1alpha1.FromApp{}
	}
	for i := range template.InitContainers {
		template.InitContainers[i].FromApp = v1alpha1.FromApp{}
	}
	return template
}

// acceptable is the first random template after a seed with which a policy would be accepted: the API server takes
// it, and it does not clash with itself.
func acceptable(seed *int) v1alpha1.SidecarTemplate {
	for {
		*seed++
		template := withoutFromApp(templates().Example(*seed))
		if _, err := dryRun(sample(template)); err != nil {
			continue
		}
		r := revision.Next(nil, template)
		if _, conflicts := inject.Render(willing(&template), policyName, &r); len(conflicts) == 0 {
			return template
		}
	}
}

// willing is a pod with the containers and the volumes that a template asks for, and no more.
func willing(template *v1alpha1.SidecarTemplate) *corev1.Pod {
	full := sample(*template)
	pod := &corev1.Pod{Spec: corev1.PodSpec{Volumes: slices.DeleteFunc(full.Spec.Volumes, func(v corev1.Volume) bool {
		return slices.ContainsFunc(template.Volumes, func(own corev1.Volume) bool { return own.Name == v.Name })
	})}}
	for _, name := range []string{"app", "worker"} {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: name, Image: name})
	}
	return pod
}

// inTheMiddle is a roll-out that has reached some pods by their labels, their namespace or their owner.
func inTheMiddle(t *rapid.T) func(*v1alpha1.SidecarPolicy) {
	requirement := rapid.Custom(func(t *rapid.T) metav1.LabelSelectorRequirement {
		r := metav1.LabelSelectorRequirement{Key: oneOf("logs", corev1.LabelMetadataName).Draw(t, "key"),
			Operator: oneOf(metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn, metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist).Draw(t, "operator")}
		if r.Operator == metav1.LabelSelectorOpIn || r.Operator == metav1.LabelSelectorOpNotIn {
			r.Values = rapid.SliceOfN(oneOf("on", "off", "engine-1"), 1, 2).Draw(t, "values")
		}
		return r
	})
	selector := rapid.Custom(func(t *rapid.T) metav1.LabelSelector {
		s := metav1.LabelSelector{MatchExpressions: rapid.SliceOfN(requirement, 0, 2).Draw(t, "expressions")}
		if rapid.Bool().Draw(t, "labels") {
			s.MatchLabels = map[string]string{"logs": "on"}
		}
		return s
	})
	steps := []v1alpha1.Step{{Name: "part", UpTo: ptr.To(intstr.FromString("10%"))}}
	for i := range rapid.IntRange(0, 2).Draw(t, "steps") {
		steps = append(steps, v1alpha1.Step{Name: fmt.Sprintf("step-%d", i), PodSelector: maybe(selector).Draw(t, "pods"), NamespaceSelector: maybe(selector).Draw(t, "namespaces")})
	}
	steps = append(steps, v1alpha1.Step{Name: "all", UpTo: ptr.To(intstr.FromString("100%"))})
	step := &v1alpha1.StepStatus{Index: ptr.To(int32(rapid.IntRange(0, len(steps)-1).Draw(t, "step"))), Recreating: []string{"owner-2", "owner-3"}}
	return func(p *v1alpha1.SidecarPolicy) {
		p.Spec.Rollout.Steps, p.Status.Step = steps, step
		p.Spec.Rollout.Drain.Seconds = rapid.Int32Range(0, 1).Draw(t, "drain")
	}
}

// owned are random pods of random owners.
func owned() *rapid.Generator[*corev1.Pod] {
	return rapid.Custom(func(t *rapid.T) *corev1.Pod {
		pod := pods().Draw(t, "pod")
		if owner := maybe(oneOf("owner-1", "owner-2")).Draw(t, "owner"); owner != nil {
			pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: *owner, UID: types.UID(*owner), Controller: ptr.To(true)}}
		}
		return pod
	})
}

func TestBothEnginesGiveRandomPodsTheSame(t *testing.T) {
	seed := int(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	injected, skipped := 0, map[v1alpha1.Reason]int{}
	for n := range randomTemplates {
		stable, target := acceptable(&seed), acceptable(&seed)
		e := newEngine(t, fmt.Sprintf("engine-%d", n), rapid.Custom(inTheMiddle).Example(seed), stable, target)
		for i := range podsPerTemplate {
			pod := owned().Example(seed + i)
			if _, err := dryRun(in(metav1.NamespaceDefault, pod)); err != nil {
				continue // the API server does not take this pod
			}
			diff, reason, err := e.compare(pod)
			switch {
			case err != nil:
				t.Fatalf("template %d, pod %d: %v", seed, seed+i, err)
			case diff != "":
				t.Fatalf("template %d, pod %d, conflict %q: the webhook's pod (-) is not the API server's (+):\n%s", seed, seed+i, reason, diff)
			case reason != "":
				skipped[reason]++
			default:
				injected++
			}
		}
	}
	t.Logf("%d pods were injected; these clashed: %v", injected, skipped)
	if injected < 50 || len(skipped) < 5 {
		t.Errorf("%d pods were injected, %v clashed: that proves little", injected, skipped)
	}
}

// nestable are volumes that differ in what can be mounted in them.
var nestable = []corev1.Volume{
	{Name: "empty", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
	{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "conf"}}}},
	{Name: "archive", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "archive", ReadOnly: true}}},
	{Name: "export", VolumeSource: corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{Server: "nfs", Path: "/", ReadOnly: true}}},
	{Name: "driver", VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: "example.com", ReadOnly: ptr.To(true)}}},
	{Name: "image", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "conf:v1"}}},
}

// everyMount are mounts of all volumes, as a whole and in part, read-only and not.
func everyMount(volumes []corev1.Volume, path string) []corev1.VolumeMount {
	var all []corev1.VolumeMount
	for _, v := range volumes {
		for _, subPath := range []string{"", "part"} {
			all = append(all, corev1.VolumeMount{Name: v.Name, MountPath: path, SubPath: subPath}, corev1.VolumeMount{Name: v.Name, MountPath: path, SubPath: subPath, ReadOnly: true})
		}
	}
	return all
}

// Everything that can be around or in another mount, and something between the two.
func TestBothEnginesJudgeMountsInEachOtherAlike(t *testing.T) {
	own := []corev1.Volume{{Name: "logs"}, {Name: "settings", VolumeSource: nestable[1].VolumeSource}, {Name: "program", VolumeSource: nestable[5].VolumeSource}}
	all := slices.Concat(everyMount(own, "/a/b"), []corev1.VolumeMount{{Name: "config", MountPath: "/a/b"}, {Name: "archive", MountPath: "/a/b", SubPath: "part"}, {Name: "empty", MountPath: "/a/b", ReadOnly: true}})
	got := map[v1alpha1.Reason]int{}
	for n, mount := range all {
		template := v1alpha1.SidecarTemplate{Volumes: own, Sidecars: []v1alpha1.Sidecar{{Container: corev1.Container{Name: "agent", Image: "agent:v1"}}},
			AppContainers: []v1alpha1.AppContainer{{Selector: "*", VolumeMounts: []corev1.VolumeMount{mount, {Name: "logs", MountPath: "/beside/"}}}}}
		e := newEngine(t, fmt.Sprintf("nested-%d", n), nil, template)
		for _, mounts := range nestings() {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "nested"}, Spec: corev1.PodSpec{Volumes: nestable,
				Containers: []corev1.Container{{Name: "app", Image: "app:v1", VolumeMounts: mounts}}}}
			diff, reason, err := e.compare(pod)
			if err != nil || diff != "" {
				t.Fatalf("%+v with %+v, conflict %q: %v: the webhook's pod (-) is not the API server's (+):\n%s", mounts, mount, reason, err, diff)
			}
			got[reason]++
		}
	}
	t.Logf("%v", got)
	if got[""] < 50 || got[v1alpha1.ReasonMountPathConflict] < 50 {
		t.Errorf("%v: that proves little", got)
	}
}

// nestings are what a container of the app may have around, in and beside /a/b.
func nestings() [][]corev1.VolumeMount {
	var all [][]corev1.VolumeMount
	for _, outer := range everyMount(nestable, "/a") {
		all = append(all, []corev1.VolumeMount{outer})
	}
	return append(all, [][]corev1.VolumeMount{
		{{Name: "empty", MountPath: "/a//b/c/"}}, {{Name: "empty", MountPath: "/a/b/c", SubPath: "part"}}, {{Name: "empty", MountPath: "/a/b/c", SubPathExpr: "part"}},
		{{Name: "image", MountPath: "/a/b/c"}, {Name: "empty", MountPath: "/a/b/c/d", SubPath: "part"}},
		{{Name: "image", MountPath: "/a/b-c"}}, {{Name: "image", MountPath: "/a/b/./"}}, {{Name: "image", MountPath: "/a"}, {Name: "empty", MountPath: "/a/b/c"}},
		{{Name: "image", MountPath: "/"}}, {{Name: "archive", MountPath: "/beside"}},
	}...)
}

// Every port, with every other one.
func TestBothEnginesJudgePortsAlike(t *testing.T) {
	ports := everyPort()
	got := map[v1alpha1.Reason]int{}
	for n, port := range ports {
		sidecar := corev1.Container{Name: "agent", Image: "agent:v1", Ports: []corev1.ContainerPort{port}}
		e := newEngine(t, fmt.Sprintf("ports-%d", n), nil, v1alpha1.SidecarTemplate{Sidecars: []v1alpha1.Sidecar{{Container: sidecar}}})
		for _, own := range ports {
			for _, hostNetwork := range []bool{false, own.HostPort == own.ContainerPort} {
				pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "ports"}, Spec: corev1.PodSpec{HostNetwork: hostNetwork,
					Containers: []corev1.Container{{Name: "app", Image: "app:v1", Ports: []corev1.ContainerPort{own}}}}}
				diff, reason, err := e.compare(pod)
				if err != nil || diff != "" {
					t.Fatalf("%+v with %+v, conflict %q: %v: the webhook's pod (-) is not the API server's (+):\n%s", own, port, reason, err, diff)
				}
				got[reason]++
			}
		}
	}
	t.Logf("%v", got)
	if got[""] < 50 || got[v1alpha1.ReasonPortConflict] < 50 {
		t.Errorf("%v: that proves little", got)
	}
}

// everyPort are ports of which two clash in the pod, on the host, at one address of it, or not at all.
func everyPort() []corev1.ContainerPort {
	ports := []corev1.ContainerPort{{ContainerPort: 80}, {ContainerPort: 80, Protocol: corev1.ProtocolUDP}, {ContainerPort: 8080}, {ContainerPort: 8080, HostPort: 8080}}
	for _, address := range []string{"", "0.0.0.0", "::", "10.0.0.1", "127.0.0.1"} {
		ports = append(ports, corev1.ContainerPort{ContainerPort: 80, HostPort: 8080, HostIP: address}, corev1.ContainerPort{ContainerPort: 81, HostPort: 8080, HostIP: address})
	}
	return append(ports, corev1.ContainerPort{ContainerPort: 82, HostPort: 8080, Protocol: corev1.ProtocolUDP})
}
