// Package podsecurity knows whether sidecars would keep a pod out of its namespace: whether they break the Pod
// Security Standard that the namespace enforces (https://kubernetes.io/docs/concepts/security/pod-security-admission/)
// and the pod alone does not.
package podsecurity

import (
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/inject"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
)

// evaluator has the checks of the newest version that it knows. It is safe for concurrent use.
var evaluator = sync.OnceValue(func() policy.Evaluator {
	e, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		panic(err) // the library's own checks are valid
	}
	return e
})

// enforced is what a namespace with these labels enforces; false where it is nothing. What the API server
// enforces by its own configuration where no label says so can't be known.
func enforced(namespace map[string]string) (api.LevelVersion, bool) {
	label, labelled := namespace[api.EnforceLevelLabel]
	level, err := api.ParseLevel(label) // what can't be read counts as restricted, as for the API server
	if !labelled || (err == nil && level == api.LevelPrivileged) {
		return api.LevelVersion{}, false
	}
	version := api.LatestVersion()
	if label, labelled := namespace[api.EnforceVersionLabel]; labelled {
		version, _ = api.ParseVersion(label) // latest, where it can't be read
	}
	return api.LevelVersion{Level: level, Version: version}, true
}

// Check says which conflict the sidecars have with what the namespace enforces; nil where there is none. After is
// the pod with the sidecars. A pod that is not allowed by itself is not the sidecars' fault.
func Check(namespace map[string]string, before, after *corev1.Pod) *inject.Conflict {
	standard, some := enforced(namespace)
	if !some {
		return nil
	}
	broken := evaluate(standard, after)
	if broken.Allowed || !evaluate(standard, before).Allowed {
		return nil
	}
	return conflict(standard, broken)
}

// Templates checks a revision against what namespaces enforce, each standard once.
type Templates struct {
	Policy   string
	Revision *revision.Revision
	// Alone judges the sidecars without what pods say for all of their containers.
	Alone bool
	memo  map[api.LevelVersion]*inject.Conflict
}

// Check says which conflict the revision has with what the namespace enforces, in whatever pod; nil where there
// is a pod in which it has none.
func (t *Templates) Check(namespace map[string]string) *inject.Conflict {
	standard, some := enforced(namespace)
	if !some {
		return nil
	}
	found, known := t.memo[standard]
	if !known {
		found = t.check(standard)
		if t.memo == nil {
			t.memo = map[api.LevelVersion]*inject.Conflict{}
		}
		t.memo[standard] = found
	}
	return found
}

func (t *Templates) check(standard api.LevelVersion) *inject.Conflict {
	if t.Alone {
		return brokenAlone(&t.Revision.Template, standard.Level)
	}
	pod := willing(t.Revision)
	additions, conflicts := inject.Render(pod, t.Policy, t.Revision)
	if len(conflicts) > 0 {
		return nil // it asks for more of a pod than this one has
	}
	additions.Apply(pod)
	if broken := evaluate(standard, pod); !broken.Allowed {
		return conflict(standard, broken)
	}
	return nil
}

func evaluate(standard api.LevelVersion, pod *corev1.Pod) policy.AggregateCheckResult {
	return policy.AggregateCheckResults(evaluator().EvaluatePod(standard, &pod.ObjectMeta, &pod.Spec))
}

func conflict(standard api.LevelVersion, broken policy.AggregateCheckResult) *inject.Conflict {
	return &inject.Conflict{Reason: v1alpha1.ReasonPodSecurityConflict, Message: fmt.Sprintf(
		"the sidecars break the Pod Security Standard %q, which the namespace enforces and the pod keeps: %s", standard, broken.ForbiddenDetail())}
}

// willing is a pod that keeps every standard, and does for the template all that a pod can.
func willing(r *revision.Revision) *corev1.Pod {
	strict := &corev1.SecurityContext{AllowPrivilegeEscalation: ptr.To(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "any"},
		Spec: corev1.PodSpec{
			SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: ptr.To(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
		},
	}
	names := []string{"app"}
	for _, c := range r.Template.AppContainers {
		if c.Selector != "*" {
			names = append(names, c.Selector)
		}
	}
	for _, name := range names {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: name, Image: "app", SecurityContext: strict})
	}
	return pod
}
