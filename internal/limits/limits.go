// Package limits says whether sidecars would make a namespace's LimitRanges or ResourceQuotas refuse a pod that they take
// without. The rules are those of the admission plugins LimitRanger and ResourceQuota. It is pure.
package limits

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/inject"
)

// Namespace is what limits the pods of one namespace.
type Namespace struct {
	Ranges []corev1.LimitRange
	Quotas []corev1.ResourceQuota
}

// Check says why the namespace would refuse the pod after the injection, where it takes the pod before it; nil where it does
// not. What a quota has used is as old as its status.
func (n *Namespace) Check(before, after *corev1.Pod) *inject.Conflict {
	if len(n.Ranges) == 0 && len(n.Quotas) == 0 {
		return nil
	}
	refusal := n.refuses(n.defaulted(after))
	if refusal == nil || n.refuses(before) != nil {
		return nil
	}
	refusal.Message = "with the sidecars the pod would be refused by " + refusal.Message
	return refusal
}

func (n *Namespace) refuses(pod *corev1.Pod) *inject.Conflict {
	for i := range n.Ranges {
		if why := outOfRange(&n.Ranges[i], pod); why != "" {
			return refusedByRange(&n.Ranges[i], why)
		}
	}
	for i := range n.Quotas {
		if why := overQuota(&n.Quotas[i], pod); why != "" {
			return refusedByQuota(&n.Quotas[i], why)
		}
	}
	return nil
}

func refusedByRange(r *corev1.LimitRange, why string) *inject.Conflict {
	return &inject.Conflict{Reason: v1alpha1.ReasonLimitRangeConflict, Message: "LimitRange " + r.Name + ": " + why}
}

func refusedByQuota(q *corev1.ResourceQuota, why string) *inject.Conflict {
	return &inject.Conflict{Reason: v1alpha1.ReasonQuotaConflict, Message: "ResourceQuota " + q.Name + ": " + why}
}

// defaulted is a copy of the pod as it is when it is validated: a request that is not written is the limit, and LimitRanger
// runs again after webhooks and fills in the rest.
func (n *Namespace) defaulted(pod *corev1.Pod) *corev1.Pod {
	pod = pod.DeepCopy()
	each(pod, func(c *corev1.Container) {
		fill(&c.Resources.Requests, c.Resources.Limits)
		for i := range n.Ranges {
			for j := range n.Ranges[i].Spec.Limits {
				if item := &n.Ranges[i].Spec.Limits[j]; item.Type == corev1.LimitTypeContainer {
					fill(&c.Resources.Limits, item.Default)
					fill(&c.Resources.Requests, item.DefaultRequest)
				}
			}
		}
	})
	return pod
}

// fill adds what a list lacks.
func fill(list *corev1.ResourceList, from corev1.ResourceList) {
	for name, quantity := range from {
		if _, has := (*list)[name]; has {
			continue
		}
		if *list == nil {
			*list = corev1.ResourceList{}
		}
		(*list)[name] = quantity
	}
}

// each visits all containers that a pod is created with.
func each(pod *corev1.Pod, visit func(*corev1.Container)) {
	for i := range pod.Spec.InitContainers {
		visit(&pod.Spec.InitContainers[i])
	}
	for i := range pod.Spec.Containers {
		visit(&pod.Spec.Containers[i])
	}
}
