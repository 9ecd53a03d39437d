package resources

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// QOSClass is the class that the API server gives a pod of these containers, which has no resources
// of its own: BestEffort where none says anything of cpu or memory, Guaranteed where each
// limits both and requests just that, else Burstable. A resize may not change it.
func QOSClass(containers []corev1.Container) corev1.PodQOSClass {
	var class corev1.PodQOSClass
	for i := range containers {
		r := &containers[i].Resources
		for _, name := range resizable {
			of := quantityClass(r.Requests[name], r.Limits[name])
			if class == "" {
				class = of
			}
			if of != class {
				return corev1.PodQOSBurstable
			}
		}
	}
	if class == "" {
		return corev1.PodQOSBestEffort
	}
	return class
}

func quantityClass(request, limit resource.Quantity) corev1.PodQOSClass {
	switch {
	case !request.Equal(limit):
		return corev1.PodQOSBurstable
	case request.IsZero():
		return corev1.PodQOSBestEffort
	}
	return corev1.PodQOSGuaranteed
}
