package podsecurity_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/inject"
	"github.com/sidecar-dev/sidecar-operator/internal/podsecurity"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

const policy = "logs"

func secured(context *corev1.SecurityContext) *revision.Revision {
	return builders.Template("agent", "agent:1").First(func(s *v1alpha1.Sidecar) { s.SecurityContext = context }).Revision(1)
}

var (
	privileged = secured(&corev1.SecurityContext{Privileged: ptr.To(true)})
	plain      = secured(nil)
	strict     = secured(&corev1.SecurityContext{AllowPrivilegeEscalation: ptr.To(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}})
	strictest  = secured(&corev1.SecurityContext{AllowPrivilegeEscalation: ptr.To(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		RunAsNonRoot: ptr.To(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}})
)

func enforce(level string) map[string]string {
	return map[string]string{"pod-security.kubernetes.io/enforce": level}
}

func TestOnlyWhatTheSidecarsBreakIsAConflict(t *testing.T) {
	app := builders.Pod("shop", "cart").With(func(p *corev1.Pod) {
		p.Spec.Containers[0].SecurityContext = strict.Template.Sidecars[0].SecurityContext
	})
	podLevel := app.Clone().With(func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: ptr.To(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}
	})
	containerLevel := builders.Pod("shop", "cart").With(func(p *corev1.Pod) {
		p.Spec.Containers[0].SecurityContext = strictest.Template.Sidecars[0].SecurityContext
	})
	for _, c := range []struct {
		name      string
		namespace map[string]string
		pod       *builders.PodBuilder
		revision  *revision.Revision
		// inPod and anywhere say what the conflict with this pod, and with any pod, has to mention; empty: there is none.
		inPod, anywhere string
	}{
		{"nothing is enforced", nil, app, privileged, "", ""},
		{"privileged is", enforce("privileged"), app, privileged, "", ""},
		{"a privileged sidecar in a baseline namespace", enforce("baseline"), app, privileged, `container "agent" must not set securityContext.privileged=true`, "privileged"},
		{"a plain one in a baseline namespace", enforce("baseline"), app, plain, "", ""},
		{"a plain one in a restricted namespace", enforce("restricted"), podLevel, plain, "allowPrivilegeEscalation", "allowPrivilegeEscalation"},
		{"the pod's settings are the sidecar's too", enforce("restricted"), podLevel, strict, "", ""},
		{"another container's are not", enforce("restricted"), containerLevel, strict, "runAsNonRoot", ""},
		{"a strict sidecar needs none of them", enforce("restricted"), containerLevel, strictest, "", ""},
		{"the pod is not allowed by itself", enforce("restricted"), builders.Pod("shop", "cart"), privileged, "", "privileged"},
		{"an unknown level counts as restricted", enforce("strong"), podLevel, plain, "allowPrivilegeEscalation", "allowPrivilegeEscalation"},
		{"an old version of the standard", map[string]string{"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "v1.0"},
			podLevel, secured(&corev1.SecurityContext{}), "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := c.pod.Obj()
			additions, conflicts := inject.Render(before, policy, c.revision)
			if len(conflicts) > 0 {
				t.Fatal(conflicts)
			}
			after := before.DeepCopy()
			additions.Apply(after)
			expect(t, "in the pod", c.inPod, podsecurity.Check(c.namespace, before, after))
			templates := podsecurity.Templates{Policy: policy, Revision: c.revision}
			expect(t, "in any pod", c.anywhere, templates.Check(c.namespace))
			expect(t, "in any pod, remembered", c.anywhere, templates.Check(c.namespace))
		})
	}
}

func expect(t *testing.T, where, want string, got *inject.Conflict) {
	t.Helper()
	switch {
	case want == "" && got != nil:
		t.Errorf("%s: %s", where, got.Message)
	case want != "" && (got == nil || got.Reason != v1alpha1.ReasonPodSecurityConflict || !strings.Contains(got.Message, want)):
		t.Errorf("%s: %v; want %q", where, got, want)
	}
}

// What a pod says for all of its containers does not count, nor does which version of a standard is enforced.
func TestKeptAlone(t *testing.T) {
	for _, c := range []struct {
		name     string
		revision *revision.Revision
		want     []string
	}{
		{"privileged", privileged, []string{"privileged"}},
		{"nothing said", plain, []string{"privileged", "baseline"}},
		{"no more than a pod can add", strict, []string{"privileged", "baseline"}},
		{"everything said", strictest, []string{"privileged", "baseline", "restricted"}},
		{"a SELinux type that only old versions forbid", secured(&corev1.SecurityContext{SELinuxOptions: &corev1.SELinuxOptions{Type: "container_engine_t"}}), []string{"privileged"}},
		{"a volume of the host", builders.Template("agent", "agent:1").With(func(t *v1alpha1.SidecarTemplate) {
			t.Volumes = []corev1.Volume{{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}}}
		}).Revision(1), []string{"privileged"}},
		{"a privileged init container", builders.Template("agent", "agent:1").With(func(t *v1alpha1.SidecarTemplate) {
			t.InitContainers = []v1alpha1.InitContainer{{Container: corev1.Container{Name: "setup", SecurityContext: &corev1.SecurityContext{Privileged: ptr.To(true)}}}}
		}).Revision(1), []string{"privileged"}},
		{"an annotation that unconfines it", builders.Template("agent", "agent:1").With(func(t *v1alpha1.SidecarTemplate) {
			t.Metadata.Annotations = map[string]string{"container.apparmor.security.beta.kubernetes.io/agent": "unconfined"}
		}).Revision(1), []string{"privileged"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, all := podsecurity.KeptAlone(&c.revision.Template)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("levels (-want +got):\n%s", diff)
			}
			if all != (len(c.want) == 3) {
				t.Errorf("all is %t", all)
			}
			for level, kept := range map[string]bool{"baseline": len(c.want) > 1, "restricted": all, "strong": all} {
				alone := podsecurity.Templates{Policy: policy, Revision: c.revision, Alone: true}
				if conflict := alone.Check(enforce(level)); (conflict == nil) != kept {
					t.Errorf("in a namespace that enforces %s: %v", level, conflict)
				}
			}
		})
	}
}
