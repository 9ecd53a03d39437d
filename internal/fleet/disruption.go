package fleet

import (
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Disruption is what a PodDisruptionBudget still allows.
type Disruption struct {
	// Namespace and Name are the PodDisruptionBudget's.
	Namespace, Name string
	// Allowed is how many more of its pods may become unavailable now. Negative where too
	// many are, or are about to be: then not even one that is reserved may be taken down again.
	Allowed  int
	selector labels.Selector
}

// Covers says whether the PodDisruptionBudget is about that pod.
func (d *Disruption) Covers(pod *corev1.Pod) bool {
	return d.Namespace == pod.Namespace && d.selector.Matches(labels.Set(pod.Labels))
}

// Allowance computes what a PodDisruptionBudget still allows, given all pods of
// its namespace. The API server applies it to evictions alone, so restarts in place are
// reserved here: the controller's count is taken down by the upgrades that it
// can't see, and held against our own view of the pods, which may be newer than its
// status. What can't be computed allows nothing.
func Allowance(pdb *policyv1.PodDisruptionBudget, pods []*corev1.Pod, view *View) Disruption {
	d := Disruption{Namespace: pdb.Namespace, Name: pdb.Name, selector: labels.Nothing()}
	selector, err := metav1.LabelSelectorAsSelector(pdb.Spec.Selector)
	if err != nil {
		return d
	}
	d.selector = selector
	if pdb.Status.ObservedGeneration < pdb.Generation {
		return d
	}
	healthy, unseen := 0, 0
	for _, pod := range pods {
		if !d.Covers(pod) || !Ready(pod) || pod.DeletionTimestamp != nil {
			continue
		}
		_, evicted := pdb.Status.DisruptedPods[pod.Name]
		switch {
		case evicted:
		case unsettled(pod, view):
			unseen++
		default:
			healthy++
		}
	}
	d.Allowed = min(int(pdb.Status.DisruptionsAllowed)-unseen, healthy-int(pdb.Status.DesiredHealthy))
	return d
}

// unsettled says whether any policy is in the middle of upgrading or draining the pod.
func unsettled(pod *corev1.Pod, view *View) bool {
	found, _ := busy(pod, view, "")
	return found
}
