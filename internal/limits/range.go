package limits

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"
)

// outOfRange says what a LimitRange has against a pod; empty where it has nothing.
func outOfRange(limits *corev1.LimitRange, pod *corev1.Pod) string {
	for i := range limits.Spec.Limits {
		item := &limits.Spec.Limits[i]
		why := containerOutOfRange(item, pod)
		if item.Type == corev1.LimitTypePod {
			why = broken(item, "the pod", resource.PodRequests(pod, resource.PodResourcesOptions{}), resource.PodLimits(pod, resource.PodResourcesOptions{}))
		}
		if why != "" {
			return why
		}
	}
	return ""
}

// containerOutOfRange says what an item has against a container of the pod.
func containerOutOfRange(item *corev1.LimitRangeItem, pod *corev1.Pod) string {
	why := ""
	if item.Type != corev1.LimitTypeContainer {
		return why
	}
	each(pod, func(c *corev1.Container) {
		if why == "" {
			why = broken(item, fmt.Sprintf("container %q", c.Name), c.Resources.Requests, c.Resources.Limits)
		}
	})
	return why
}

// broken says which rule of an item is broken by what asks for these resources.
func broken(item *corev1.LimitRangeItem, who string, requests, limits corev1.ResourceList) string {
	for _, rule := range []struct {
		bounds corev1.ResourceList
		check  func(name corev1.ResourceName, bound, request, limit amount) string
	}{{item.Min, tooLittle}, {item.Max, tooMuch}, {item.MaxLimitRequestRatio, tooUneven}} {
		for _, name := range slices.Sorted(maps.Keys(rule.bounds)) {
			if why := rule.check(name, amountOf(rule.bounds, name), amountOf(requests, name), amountOf(limits, name)); why != "" {
				return who + " " + why
			}
		}
	}
	return ""
}

func tooLittle(name corev1.ResourceName, least, request, limit amount) string {
	switch {
	case !request.set:
		return fmt.Sprintf("has no request for %s, of which %s is the least", name, &least.Quantity)
	case request.Cmp(least.Quantity) < 0:
		return fmt.Sprintf("requests %s of %s, and %s is the least", &request.Quantity, name, &least.Quantity)
	case limit.set && limit.Cmp(least.Quantity) < 0:
		return fmt.Sprintf("has the limit %s for %s, and %s is the least", &limit.Quantity, name, &least.Quantity)
	}
	return ""
}

func tooMuch(name corev1.ResourceName, most, request, limit amount) string {
	switch {
	case !limit.set:
		return fmt.Sprintf("has no limit for %s, of which %s is the most", name, &most.Quantity)
	case limit.Cmp(most.Quantity) > 0:
		return fmt.Sprintf("has the limit %s for %s, and %s is the most", &limit.Quantity, name, &most.Quantity)
	case request.set && request.Cmp(most.Quantity) > 0:
		return fmt.Sprintf("requests %s of %s, and %s is the most", &request.Quantity, name, &most.Quantity)
	}
	return ""
}

func tooUneven(name corev1.ResourceName, most, request, limit amount) string {
	switch {
	case request.IsZero():
		return fmt.Sprintf("has no request for %s, of which the limit may be %s times as much", name, &most.Quantity)
	case limit.IsZero():
		return fmt.Sprintf("has no limit for %s, which may be %s times the request", name, &most.Quantity)
	case limit.AsApproximateFloat64()/request.AsApproximateFloat64() > most.AsApproximateFloat64():
		return fmt.Sprintf("has the limit %s for %s, more than %s times the request of %s", &limit.Quantity, name, &most.Quantity, &request.Quantity)
	}
	return ""
}
