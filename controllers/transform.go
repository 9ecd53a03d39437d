package controllers

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidecar-dev/sidecar-operator/internal/prefetch"
)

// StripPod is a cache transform: it drops what no decision looks at. Cached pods are
// never written back; upgrades name only the fields that they change.
func StripPod(object any) (any, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return object, nil
	}
	pod.ManagedFields = nil
	delete(pod.Annotations, corev1.LastAppliedConfigAnnotation)
	spec := &pod.Spec
	spec.Affinity, spec.Tolerations, spec.TopologySpreadConstraints = nil, nil, nil
	spec.SecurityContext, spec.DNSConfig, spec.HostAliases = nil, nil, nil
	for i := range spec.Volumes {
		spec.Volumes[i].VolumeSource = corev1.VolumeSource{}
	}
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			stripContainer(&list[i])
		}
	}
	return pod, nil
}

func stripContainer(c *corev1.Container) {
	c.Command, c.Args, c.EnvFrom, c.Lifecycle, c.SecurityContext, c.LivenessProbe = nil, nil, nil, nil, nil, nil
	for i := range c.Env {
		c.Env[i] = corev1.EnvVar{Name: c.Env[i].Name}
	}
}

// StripNode is a cache transform: of a node it leaves what prefetching looks at. Images
// are kept only where they prove something, since they are the bulk of it.
func StripNode(object any) (any, error) {
	node, ok := object.(*corev1.Node)
	if !ok {
		return object, nil
	}
	kubelet := node.Status.NodeInfo.KubeletVersion
	stripped := &corev1.Node{
		TypeMeta:   node.TypeMeta,
		ObjectMeta: metav1.ObjectMeta{Name: node.Name, UID: node.UID, ResourceVersion: node.ResourceVersion, Labels: node.Labels},
		Status:     corev1.NodeStatus{NodeInfo: corev1.NodeSystemInfo{KubeletVersion: kubelet}},
	}
	for i := range node.Status.Conditions {
		if c := &node.Status.Conditions[i]; c.Type == corev1.NodeReady {
			stripped.Status.Conditions = []corev1.NodeCondition{{Type: c.Type, Status: c.Status}}
		}
	}
	if !prefetch.Supports(kubelet) {
		for i := range node.Status.Images {
			stripped.Status.Images = append(stripped.Status.Images, corev1.ContainerImage{Names: node.Status.Images[i].Names})
		}
	}
	return stripped, nil
}
