package controllers

import (
	corev1 "k8s.io/api/core/v1"
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

// StripNode is a cache transform: it keeps what says where a node is and what runs it.
func StripNode(object any) (any, error) {
	node, ok := object.(*corev1.Node)
	if !ok {
		return object, nil
	}
	node.ManagedFields, node.Annotations, node.Spec = nil, nil, corev1.NodeSpec{}
	node.Status = corev1.NodeStatus{NodeInfo: corev1.NodeSystemInfo{KubeletVersion: node.Status.NodeInfo.KubeletVersion}}
	return node, nil
}

func stripContainer(c *corev1.Container) {
	c.Command, c.Args, c.EnvFrom, c.Lifecycle, c.SecurityContext, c.LivenessProbe = nil, nil, nil, nil, nil, nil
	for i := range c.Env {
		c.Env[i] = corev1.EnvVar{Name: c.Env[i].Name}
	}
}
