package inject_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/inject"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

func TestOfTwoPoliciesThatClashTheLaterIsLeftOutAndBothAreNamed(t *testing.T) {
	type change = func(*v1alpha1.SidecarTemplate)
	app := func(c v1alpha1.AppContainer) change {
		return func(t *v1alpha1.SidecarTemplate) { t.AppContainers = []v1alpha1.AppContainer{c} }
	}
	port := func(number int32) change {
		return func(t *v1alpha1.SidecarTemplate) {
			t.Sidecars[0].Ports = []corev1.ContainerPort{{ContainerPort: number}}
		}
	}
	volume := func(t *v1alpha1.SidecarTemplate) { t.Volumes = []corev1.Volume{builders.EmptyDir("spool")} }
	mount := app(v1alpha1.AppContainer{Selector: "app", VolumeMounts: []corev1.VolumeMount{{Name: "own", MountPath: "/spool"}}})
	mountAgain := app(v1alpha1.AppContainer{Selector: "*", VolumeMounts: []corev1.VolumeMount{{Name: "own", MountPath: "/spool/"}}})
	env := app(v1alpha1.AppContainer{Selector: "*", Env: []corev1.EnvVar{{Name: "MODE"}}})
	noted := func(value string) change {
		return func(t *v1alpha1.SidecarTemplate) {
			t.Metadata = v1alpha1.TemplateMetadata{Labels: map[string]string{"mode": value}, Annotations: map[string]string{"note": value}}
		}
	}
	named := func(name string) change { return func(t *v1alpha1.SidecarTemplate) { t.Sidecars[0].Name = name } }
	starting := func(t *v1alpha1.SidecarTemplate) {
		t.InitContainers = []v1alpha1.InitContainer{{Container: corev1.Container{Name: "setup", Image: "setup:1"}}}
	}
	for _, tc := range []struct {
		name          string
		first, second change
		want          v1alpha1.Reason
		what          string
	}{
		{"a sidecar's name", named("agent"), named("agent"), v1alpha1.ReasonContainerNameConflict, `a container "agent"`},
		{"an init container's name", starting, starting, v1alpha1.ReasonContainerNameConflict, `a container "setup"`},
		{"a volume's name", volume, volume, v1alpha1.ReasonVolumeConflict, `a volume "spool"`},
		{"a mount path", mount, mountAgain, v1alpha1.ReasonMountPathConflict, `a mount at /spool/ of container "app"`},
		{"a variable", env, env, v1alpha1.ReasonEnvConflict, `a variable MODE of container "app"`},
		{"a port", port(15001), port(15001), v1alpha1.ReasonPortConflict, `port 15001/TCP, in containers "alpha-agent" and "beta-agent"`},
		{"metadata", noted("a"), noted("b"), v1alpha1.ReasonMetadataConflict, `the label mode, with different values`},
	} {
		alpha := builders.Template("alpha-agent", "agent:1").With(tc.first)
		beta := builders.Template("beta-agent", "agent:1").With(tc.second)
		base := builders.Pod("shop", "cart").Volume("own")
		for _, order := range []struct {
			name                  string
			holder, late          string
			holding, lateTemplate *builders.TemplateBuilder
			because               string
		}{
			{"in order", "alpha", "beta", alpha, beta, ": alpha has it, since its name comes first"},
			{"in a pod that was there before the policy", "beta", "alpha", beta, alpha, ": in this pod beta has it, in a new one alpha does, since its name comes first"},
		} {
			t.Run(tc.name+", "+order.name, func(t *testing.T) {
				pod := base.Clone().Obj()
				additions, conflicts := inject.Render(pod, order.holder, order.holding.Revision(1))
				if len(conflicts) > 0 {
					t.Fatal(inject.Explain(conflicts))
				}
				additions.Apply(pod)
				left, conflicts := inject.Render(pod, order.late, order.lateTemplate.Revision(1))
				if diff := cmp.Diff(inject.Additions{}, left); diff != "" {
					t.Errorf("the later policy adds something:\n%s", diff)
				}
				if len(conflicts) == 0 {
					t.Fatal("no conflict")
				}
				got := conflicts[0]
				if got.Reason != tc.want || got.Policy != order.holder {
					t.Errorf("conflict %s with policy %q, want %s with %q", got.Reason, got.Policy, tc.want, order.holder)
				}
				if order.holder == "alpha" {
					if diff := cmp.Diff("SidecarPolicies alpha and beta both bring "+tc.what+order.because, got.Message); diff != "" {
						t.Errorf("message (-want +got):\n%s", diff)
					}
				} else if !strings.HasPrefix(got.Message, "SidecarPolicies alpha and beta both bring ") || !strings.HasSuffix(got.Message, order.because) {
					t.Errorf("message %q", got.Message)
				}
			})
		}
	}
}

func TestWhatOlderBuildsDidNotRecordCountsAsThePodsOwn(t *testing.T) {
	template := builders.Template("alpha-agent", "agent:1").Volume("spool")
	pod := builders.Pod("shop", "cart").Obj()
	additions, _ := inject.Render(pod, "alpha", template.Revision(1))
	additions.Apply(pod)
	old := v1alpha1.InjectionRecord{Revision: template.Revision(1).Hash, Sidecars: []string{"alpha-agent"}}
	pod.Annotations[v1alpha1.InjectedAnnotation("alpha")] = old.Encode()
	_, conflicts := inject.Render(pod, "beta", builders.Template("alpha-agent", "agent:1").Volume("spool").Revision(1))
	want := []inject.Conflict{
		{Reason: v1alpha1.ReasonContainerNameConflict, Policy: "alpha",
			Message: `SidecarPolicies alpha and beta both bring a container "alpha-agent": alpha has it, since its name comes first`},
		{Reason: v1alpha1.ReasonVolumeConflict, Message: `the pod has a volume "spool" of its own`},
	}
	if diff := cmp.Diff(want, conflicts); diff != "" {
		t.Errorf("conflicts (-want +got):\n%s", diff)
	}
}

// Whatever the pod has, init containers of policies start in the order of the policies: before the app's and after them.
func TestInitContainersOfPoliciesStartInTheirOrder(t *testing.T) {
	both := func(name string) *builders.TemplateBuilder {
		return builders.Template(name, "agent:1").With(func(t *v1alpha1.SidecarTemplate) {
			late := t.Sidecars[0]
			late.Name, late.Order = name+"-late", v1alpha1.OrderAfter
			t.Sidecars = append(t.Sidecars, late)
			t.InitContainers = []v1alpha1.InitContainer{{Container: corev1.Container{Name: name + "-setup", Image: "setup:1"}}}
		})
	}
	for _, own := range [][]string{nil, {"own-1", "own-2"}} {
		pod := builders.Pod("shop", "cart").Obj()
		for _, name := range own {
			pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{Name: name})
		}
		for _, name := range []string{"a", "b", "c"} {
			additions, conflicts := inject.Render(pod, name, both(name).Revision(1))
			if len(conflicts) > 0 {
				t.Fatal(inject.Explain(conflicts))
			}
			byPatch := &corev1.Pod{}
			must(t, json.Unmarshal(patched(t, mustMarshal(t, pod), additions, pod), byPatch))
			additions.Apply(pod)
			if diff := cmp.Diff(containerNames(pod.Spec.InitContainers), containerNames(byPatch.Spec.InitContainers)); diff != "" {
				t.Errorf("the patch differs (-applied +patched):\n%s", diff)
			}
		}
		want := slices.Concat([]string{"a-setup", "a", "b-setup", "b", "c-setup", "c"}, own, []string{"a-late", "b-late", "c-late"})
		if diff := cmp.Diff(want, containerNames(pod.Spec.InitContainers)); diff != "" {
			t.Errorf("init containers (-want +got):\n%s", diff)
		}
	}
}

func containerNames(containers []corev1.Container) []string {
	var list []string
	for i := range containers {
		list = append(list, containers[i].Name)
	}
	return list
}
