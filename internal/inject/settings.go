package inject

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
)

// The checks here are about settings of the pod with which the API server would refuse a
// sidecar that is good in other pods: it would refuse the whole pod.

// On the host's network a container's port is the host's.
func checkHostPorts(pod *corev1.Pod, _ *revision.Revision, a Additions, _ owners) []Conflict {
	if !pod.Spec.HostNetwork {
		return nil
	}
	var conflicts []Conflict
	for _, c := range a.added() {
		for _, p := range c.Ports {
			if p.HostPort != 0 && p.HostPort != p.ContainerPort {
				conflicts = append(conflicts, conflict(v1alpha1.ReasonPortConflict,
					"the pod is on the host's network, and sidecar %q maps port %d to %d of the host", c.Name, p.ContainerPort, p.HostPort))
			}
		}
	}
	return conflicts
}

// A container has a volume either mounted or as a raw device.
func checkDevices(pod *corev1.Pod, _ *revision.Revision, a Additions, _ owners) []Conflict {
	var conflicts []Conflict
	for _, i := range slices.Sorted(maps.Keys(a.App)) {
		container := &pod.Spec.Containers[i]
		devices := map[string]bool{}
		for _, d := range container.VolumeDevices {
			devices[d.Name] = true
		}
		for _, m := range a.App[i].VolumeMounts {
			if devices[m.Name] {
				conflicts = append(conflicts, conflict(v1alpha1.ReasonVolumeConflict,
					"container %q has volume %q as a raw device", container.Name, m.Name))
			}
		}
	}
	return conflicts
}

func checkRestartPolicy(pod *corev1.Pod, _ *revision.Revision, a Additions, _ owners) []Conflict {
	if pod.Spec.RestartPolicy != corev1.RestartPolicyNever {
		return nil
	}
	var conflicts []Conflict
	for _, c := range a.added() {
		if slices.ContainsFunc(c.ResizePolicy, func(p corev1.ContainerResizePolicy) bool { return p.RestartPolicy != corev1.NotRequired }) {
			conflicts = append(conflicts, conflict(v1alpha1.ReasonPodSettingsConflict,
				"the pod's restartPolicy is Never, and the resizePolicy of sidecar %q restarts it", c.Name))
		}
	}
	return conflicts
}

// A pod can share the processes of its containers with each other, or those of the host with all of them.
func checkProcessNamespace(pod *corev1.Pod, _ *revision.Revision, a Additions, _ owners) []Conflict {
	var why string
	switch {
	case !a.ShareProcessNamespace:
		return nil
	case pod.Spec.ShareProcessNamespace != nil:
		why = "the pod says shareProcessNamespace: false"
	case pod.Spec.HostPID:
		why = "the pod has hostPID: true"
	case pod.Spec.OS != nil && pod.Spec.OS.Name == corev1.Windows:
		why = "the pod is for Windows"
	default:
		return nil
	}
	return []Conflict{conflict(v1alpha1.ReasonPodSettingsConflict, "%s, and the template asks for shareProcessNamespace: true", why)}
}

func checkOS(pod *corev1.Pod, _ *revision.Revision, a Additions, _ owners) []Conflict {
	if pod.Spec.OS == nil {
		return nil
	}
	var conflicts []Conflict
	for _, c := range a.added() {
		if ForeignTo(pod.Spec.OS.Name, c.SecurityContext) {
			conflicts = append(conflicts, conflict(v1alpha1.ReasonPodSettingsConflict,
				"the pod's os is %s, and the securityContext of sidecar %q is for another", pod.Spec.OS.Name, c.Name))
		}
	}
	return conflicts
}

// ForeignTo says whether a security context has what the API server refuses on that system.
func ForeignTo(os corev1.OSName, s *corev1.SecurityContext) bool {
	if s == nil {
		return false
	}
	if os != corev1.Windows {
		return s.WindowsOptions != nil
	}
	both := corev1.SecurityContext{RunAsNonRoot: s.RunAsNonRoot, WindowsOptions: s.WindowsOptions}
	return *s != both
}

// MaxAnnotations is how many bytes the keys and values of annotations may have together.
const MaxAnnotations = 256 * 1024

func checkAnnotationSize(pod *corev1.Pod, _ *revision.Revision, a Additions, _ owners) []Conflict {
	size := 0
	for key, value := range merged(pod.Annotations, a.Annotations) {
		size += len(key) + len(value)
	}
	if size <= MaxAnnotations {
		return nil
	}
	return []Conflict{conflict(v1alpha1.ReasonMetadataConflict,
		"the pod's annotations leave no room: with the policy's they have %d bytes, and %d are allowed", size, MaxAnnotations)}
}
