package fleet

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

// Gate is a policy's readiness gate of a pod, by which the pod is drained.
type Gate struct {
	// Exists: the pod was created with the gate.
	Exists bool
	// Open: the gate lets the pod be Ready.
	Open bool
	// ClosedAt is when the pod was drained; zero where it was not, also for a new pod of which
	// the gate was never opened.
	ClosedAt time.Time
}

// Draining says whether the pod was taken out of its endpoints.
func (g *Gate) Draining() bool { return g.Exists && !g.Open && !g.ClosedAt.IsZero() }

func gateOf(pod *corev1.Pod, policy string) Gate {
	if len(pod.Spec.ReadinessGates) == 0 {
		return Gate{}
	}
	kind := v1alpha1.DrainCondition(policy)
	gate := Gate{Exists: gated(pod, kind)}
	condition := podCondition(pod, kind)
	switch {
	case condition == nil:
	case condition.Status == corev1.ConditionTrue:
		gate.Open = true
	default:
		gate.ClosedAt = condition.LastTransitionTime.Time
	}
	return gate
}

func gated(pod *corev1.Pod, kind corev1.PodConditionType) bool {
	return slices.Contains(pod.Spec.ReadinessGates, corev1.PodReadinessGate{ConditionType: kind})
}

// drained says whether a policy other than the given one has taken the pod out of its endpoints.
func drained(pod *corev1.Pod, except string) bool {
	for _, gate := range pod.Spec.ReadinessGates {
		policy, ours := strings.CutPrefix(string(gate.ConditionType), v1alpha1.DrainConditionPrefix)
		if !ours || policy == except {
			continue
		}
		if g := gateOf(pod, policy); g.Draining() {
			return true
		}
	}
	return false
}

// readiness is the condition that a policy judges a pod by: Ready or, where the pod has the
// policy's gate, ContainersReady, which is the same without what the gate says.
func readiness(pod *corev1.Pod, policy string) *corev1.PodCondition {
	if len(pod.Spec.ReadinessGates) > 0 && gated(pod, v1alpha1.DrainCondition(policy)) {
		return podCondition(pod, corev1.ContainersReady)
	}
	return podCondition(pod, corev1.PodReady)
}

// Sound says whether the pod is ready as far as the policy's own gate is left out.
func Sound(pod *corev1.Pod, policy string) bool { return isTrue(readiness(pod, policy)) }

// Ready says whether the pod has the condition Ready.
func Ready(pod *corev1.Pod) bool { return isTrue(podCondition(pod, corev1.PodReady)) }

func isTrue(condition *corev1.PodCondition) bool {
	return condition != nil && condition.Status == corev1.ConditionTrue
}

func podCondition(pod *corev1.Pod, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == kind {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

// Shut says whether the policy's readiness gate keeps the pod from being Ready.
func Shut(pod *corev1.Pod, policy string) bool {
	gate := gateOf(pod, policy)
	return gate.Exists && !gate.Open
}
