package limits

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/inject"
)

// Alone says what the sidecars of a template break by themselves, so that the namespace would refuse every pod with them:
// what a LimitRange asks of each container, and what a ResourceQuota wants every container to say. Nil where that is nothing.
// What pods ask for as a whole, and what a quota has left, is another matter with each pod.
//
// Whether a quota counts a pod depends on the pod: one with a scope is taken to count them all, for a pod without
// sidecars is better than none.
func (n *Namespace) Alone(t *v1alpha1.SidecarTemplate) *inject.Conflict {
	if len(n.Ranges) == 0 && len(n.Quotas) == 0 {
		return nil
	}
	refusal := n.refusesEach(n.defaulted(podOf(t)))
	if refusal != nil {
		refusal.Message = "with the sidecars every pod would be refused by " + refusal.Message + ": write resources that fit into the template"
	}
	return refusal
}

// refusesEach is refuses for what is asked of each container.
func (n *Namespace) refusesEach(pod *corev1.Pod) *inject.Conflict {
	for i := range n.Ranges {
		for j := range n.Ranges[i].Spec.Limits {
			if why := containerOutOfRange(&n.Ranges[i].Spec.Limits[j], pod); why != "" {
				return refusedByRange(&n.Ranges[i], why)
			}
		}
	}
	for i := range n.Quotas {
		if why := wantsWritten(&n.Quotas[i], pod); why != "" {
			return refusedByQuota(&n.Quotas[i], why)
		}
	}
	return nil
}

// wantsWritten says which container does not write what a quota wants. The status, by which the API server goes, has what
// the spec says a moment later.
func wantsWritten(quota *corev1.ResourceQuota, pod *corev1.Pod) string {
	for _, name := range slices.Sorted(maps.Keys(quota.Spec.Hard)) {
		if of, list := tracked(name, nil, nil); list != nil {
			if why := unwritten(name, of, pod); why != "" {
				return why
			}
		}
	}
	return ""
}

// podOf is a pod of the sidecars alone.
func podOf(t *v1alpha1.SidecarTemplate) *corev1.Pod {
	pod := &corev1.Pod{}
	for i := range t.InitContainers {
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, t.InitContainers[i].Container)
	}
	for i := range t.Sidecars {
		pod.Spec.Containers = append(pod.Spec.Containers, t.Sidecars[i].Container)
	}
	return pod
}
