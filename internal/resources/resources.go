// Package resources knows what of a container's requests and limits can be changed while it runs:
// the rules of the API server's resize subresource. It is pure.
package resources

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/version"
)

// resizable are the resources that a resize changes.
var resizable = []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory}

// MinVersion is the first Kubernetes of which an API server and a kubelet resize containers, native
// sidecars too, without anything to switch on or off.
var MinVersion = version.MajorMinor(1, 35)

// Effective is what the API server makes of the resources when a pod is created: a limit
// without a request is the request too.
func Effective(r corev1.ResourceRequirements) corev1.ResourceRequirements {
	effective := *r.DeepCopy()
	for name, limit := range effective.Limits {
		if _, ok := effective.Requests[name]; ok {
			continue
		}
		if effective.Requests == nil {
			effective.Requests = corev1.ResourceList{}
		}
		effective.Requests[name] = limit
	}
	return effective
}

// Resizable says whether a resize leads from one to the other, and back again: a request or a limit
// that is taken away is refused, so one that is added could not be rolled back.
func Resizable(from, to corev1.ResourceRequirements) bool {
	from, to = Effective(from), Effective(to)
	return resizableList(from.Requests, to.Requests) && resizableList(from.Limits, to.Limits) &&
		equality.Semantic.DeepEqual(from.Claims, to.Claims)
}

func resizableList(from, to corev1.ResourceList) bool {
	if len(from) != len(to) {
		return false
	}
	for name, before := range from {
		after, ok := to[name]
		if !ok || (!slices.Contains(resizable, name) && !before.Equal(after)) {
			return false
		}
	}
	return true
}

// Equal says whether both mean the same to a container.
func Equal(a, b corev1.ResourceRequirements) bool {
	return equality.Semantic.DeepEqual(Effective(a), Effective(b))
}

// Change is one quantity of a container that differs.
type Change struct {
	// List is "requests" or "limits".
	List string
	Name corev1.ResourceName
	// Have is the container's, Want what it should be.
	Have, Want resource.Quantity
}

// Changes are what of cpu and memory differs, in a fixed order. Only what both name is
// compared: a namespace's LimitRange may have added to what the template says.
func Changes(have, want corev1.ResourceRequirements) []Change {
	return append(changesOf("requests", have.Requests, want.Requests), changesOf("limits", have.Limits, want.Limits)...)
}

func changesOf(list string, have, want corev1.ResourceList) []Change {
	var changes []Change
	for _, name := range resizable {
		before, has := have[name]
		after, wanted := want[name]
		if has && wanted && !before.Equal(after) {
			changes = append(changes, Change{List: list, Name: name, Have: before, Want: after})
		}
	}
	return changes
}

// Apply is the resources after the changes.
func Apply(to corev1.ResourceRequirements, changes []Change) corev1.ResourceRequirements {
	after := *to.DeepCopy()
	for _, change := range changes {
		if change.List == "limits" {
			after.Limits[change.Name] = change.Want
		} else {
			after.Requests[change.Name] = change.Want
		}
	}
	return after
}

// Restarts says whether the container asks to be restarted for one of the changes.
func Restarts(policies []corev1.ContainerResizePolicy, changes []Change) bool {
	return slices.ContainsFunc(policies, func(p corev1.ContainerResizePolicy) bool {
		return p.RestartPolicy == corev1.RestartContainer &&
			slices.ContainsFunc(changes, func(c Change) bool { return c.Name == p.ResourceName })
	})
}
