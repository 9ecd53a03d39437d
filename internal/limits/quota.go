package limits

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	helper "k8s.io/component-helpers/resource"
)

// amount is a quantity that may not be written.
type amount struct {
	resource.Quantity
	set bool
}

func amountOf(list corev1.ResourceList, name corev1.ResourceName) amount {
	quantity, set := list[name]
	return amount{quantity, set}
}

const (
	requestsPrefix = "requests."
	limitsPrefix   = "limits."
)

// overQuota says what a ResourceQuota has against a pod; empty where it has nothing, or counts no such pods.
func overQuota(quota *corev1.ResourceQuota, pod *corev1.Pod) string {
	if !counts(quota, pod) {
		return ""
	}
	requests, limits := helper.PodRequests(pod, helper.PodResourcesOptions{}), helper.PodLimits(pod, helper.PodResourcesOptions{})
	hard := quota.Status.Hard
	for _, name := range slices.Sorted(maps.Keys(hard)) {
		of, list := tracked(name, requests, limits)
		if list == nil {
			continue
		}
		if why := unwritten(name, of, pod); why != "" {
			return why
		}
		asked, used := (*list)[of], quota.Status.Used[name]
		total := asked.DeepCopy()
		total.Add(used)
		if most := hard[name]; !asked.IsZero() && total.Cmp(most) > 0 {
			return fmt.Sprintf("%s: the pod asks for %s, %s of %s are used", name, &asked, &used, &most)
		}
	}
	return ""
}

// tracked says which resource of which list a quota's name means; no list where it means something else than what
// containers ask for.
func tracked(name corev1.ResourceName, requests, limits corev1.ResourceList) (corev1.ResourceName, *corev1.ResourceList) {
	if of, is := strings.CutPrefix(string(name), limitsPrefix); is {
		return corev1.ResourceName(of), &limits
	}
	if of, is := strings.CutPrefix(string(name), requestsPrefix); is {
		return corev1.ResourceName(of), &requests
	}
	if name == corev1.ResourceCPU || name == corev1.ResourceMemory || name == corev1.ResourceEphemeralStorage || strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix) {
		return name, &requests
	}
	return "", nil
}

// unwritten says which container does not write what a quota wants of every container: CPU and memory, where it counts
// them.
func unwritten(name, of corev1.ResourceName, pod *corev1.Pod) string {
	if (of != corev1.ResourceCPU && of != corev1.ResourceMemory) || helper.IsPodLevelResourcesSet(pod) {
		return ""
	}
	why := ""
	each(pod, func(c *corev1.Container) {
		list := c.Resources.Requests
		if strings.HasPrefix(string(name), limitsPrefix) {
			list = c.Resources.Limits
		}
		if _, set := list[of]; !set && why == "" {
			why = fmt.Sprintf("container %q must say %s", c.Name, name)
		}
	})
	return why
}

// counts says whether a quota counts the pod. One with a scope that is not known here is left out.
func counts(quota *corev1.ResourceQuota, pod *corev1.Pod) bool {
	for _, scope := range quota.Spec.Scopes {
		if !inScope(corev1.ScopedResourceSelectorRequirement{ScopeName: scope, Operator: corev1.ScopeSelectorOpExists}, pod) {
			return false
		}
	}
	if quota.Spec.ScopeSelector == nil {
		return true
	}
	for _, requirement := range quota.Spec.ScopeSelector.MatchExpressions {
		if !inScope(requirement, pod) {
			return false
		}
	}
	return true
}

func inScope(requirement corev1.ScopedResourceSelectorRequirement, pod *corev1.Pod) bool {
	terminating := pod.Spec.ActiveDeadlineSeconds != nil && *pod.Spec.ActiveDeadlineSeconds >= 0
	switch requirement.ScopeName {
	case corev1.ResourceQuotaScopeTerminating:
		return terminating
	case corev1.ResourceQuotaScopeNotTerminating:
		return !terminating
	case corev1.ResourceQuotaScopeBestEffort:
		return bestEffort(pod)
	case corev1.ResourceQuotaScopeNotBestEffort:
		return !bestEffort(pod)
	case corev1.ResourceQuotaScopePriorityClass:
		return ofPriority(requirement, pod.Spec.PriorityClassName)
	}
	return false
}

func ofPriority(requirement corev1.ScopedResourceSelectorRequirement, class string) bool {
	switch requirement.Operator {
	case corev1.ScopeSelectorOpIn:
		return slices.Contains(requirement.Values, class)
	case corev1.ScopeSelectorOpNotIn:
		return !slices.Contains(requirement.Values, class)
	case corev1.ScopeSelectorOpExists:
		return class != ""
	case corev1.ScopeSelectorOpDoesNotExist:
		return class == ""
	}
	return false
}

// bestEffort says whether no container asks for CPU or memory (the QoS class BestEffort).
func bestEffort(pod *corev1.Pod) bool {
	asks := helper.IsPodLevelResourcesSet(pod)
	each(pod, func(c *corev1.Container) {
		for _, list := range []corev1.ResourceList{c.Resources.Requests, c.Resources.Limits} {
			for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
				quantity := list[name]
				asks = asks || !quantity.IsZero()
			}
		}
	})
	return !asks
}
