package inject

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/sizing"
)

// size gives a container the resources that are computed from the app's.
func (a app) size(c *corev1.Container, from *v1alpha1.AppResources) []Conflict {
	containers := make([]corev1.ResourceRequirements, len(a))
	for i := range a {
		containers[i] = a[i].Resources
	}
	sum := sizing.Sum(containers)
	conflicts := compute(&c.Resources.Requests, "request", c.Name, from.Requests, sum)
	return append(conflicts, compute(&c.Resources.Limits, "limit", c.Name, from.Limits, sum)...)
}

// compute adds what the expressions give for the app to a list of resources; 0 is left out.
func compute(list *corev1.ResourceList, what, container string, expressions map[corev1.ResourceName]v1alpha1.ResourceExpression, app sizing.App) []Conflict {
	var conflicts []Conflict
	for _, name := range slices.Sorted(maps.Keys(expressions)) {
		quantity, err := sizing.Evaluate(string(expressions[name]), name, app)
		switch {
		case err != nil:
			conflicts = append(conflicts, conflict(v1alpha1.ReasonResourcesConflict,
				"the %s of %q for %s can't be computed: %s: %v", what, container, name, expressions[name], err))
		case !quantity.IsZero():
			if *list == nil {
				*list = corev1.ResourceList{}
			}
			(*list)[name] = quantity
		}
	}
	return conflicts
}

// overLimit finds what was computed, or overridden, so that the API server would refuse it. What the
// template itself says is refused when the policy is applied.
func overLimit(c *corev1.Container) []Conflict {
	var conflicts []Conflict
	for _, name := range slices.Sorted(maps.Keys(c.Resources.Limits)) {
		request, limit := c.Resources.Requests[name], c.Resources.Limits[name]
		if request.Cmp(limit) > 0 {
			conflicts = append(conflicts, conflict(v1alpha1.ReasonResourcesConflict,
				"%q would request %s of %s, more than its limit of %s", c.Name, request.String(), name, limit.String()))
		}
	}
	return conflicts
}
