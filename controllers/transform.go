package controllers

import (
	"slices"
	"strings"
	"unique"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidecar-dev/sidecar-operator/internal/prefetch"
)

// StripPod is a cache transform: it drops what no decision looks at, and keeps what many pods have in
// common once. Cached pods are never written back; upgrades name only the fields that they change.
func StripPod(object any) (any, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return object, nil
	}
	stripMeta(&pod.ObjectMeta)
	stripSpec(&pod.Spec)
	stripStatus(&pod.Status)
	return pod, nil
}

// shared is the same string, which is kept once however many pods have it. A pod that is decoded has
// some fifty strings of its own, most of which its siblings have too.
func shared[S ~string](s S) S { return unique.Make(s).Value() }

func stripMeta(m *metav1.ObjectMeta) {
	m.ManagedFields, m.GenerateName = nil, ""
	delete(m.Annotations, corev1.LastAppliedConfigAnnotation)
	m.Namespace = shared(m.Namespace)
	m.Labels = withSharedKeys(m.Labels)
	for key, value := range m.Labels {
		m.Labels[key] = shared(value)
	}
	m.Annotations = withSharedKeys(m.Annotations)
	for i := range m.OwnerReferences {
		o := &m.OwnerReferences[i]
		o.APIVersion, o.Kind, o.Name, o.UID = shared(o.APIVersion), shared(o.Kind), shared(o.Name), shared(o.UID)
	}
}

// withSharedKeys is a map of the same content.
func withSharedKeys(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	copied := make(map[string]string, len(m))
	for key, value := range m {
		copied[shared(key)] = value
	}
	return copied
}

func stripSpec(spec *corev1.PodSpec) {
	spec.Affinity, spec.Tolerations, spec.TopologySpreadConstraints, spec.NodeSelector = nil, nil, nil, nil
	spec.SecurityContext, spec.DNSConfig, spec.HostAliases = nil, nil, nil
	spec.DeprecatedServiceAccount, spec.SchedulerName, spec.PriorityClassName, spec.Hostname, spec.Subdomain = "", "", "", "", ""
	spec.NodeName, spec.ServiceAccountName = shared(spec.NodeName), shared(spec.ServiceAccountName)
	spec.RestartPolicy, spec.DNSPolicy = shared(spec.RestartPolicy), ""
	for i := range spec.Volumes {
		spec.Volumes[i] = corev1.Volume{Name: shared(spec.Volumes[i].Name)}
	}
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			stripContainer(&list[i])
		}
	}
}

// aProbe stands for any: whether there is one is all that is asked.
var aProbe = &corev1.Probe{}

func stripContainer(c *corev1.Container) {
	c.Command, c.Args, c.EnvFrom, c.Lifecycle, c.SecurityContext, c.LivenessProbe = nil, nil, nil, nil, nil, nil
	c.WorkingDir, c.TerminationMessagePath, c.TerminationMessagePolicy = "", "", ""
	c.Name, c.Image, c.ImagePullPolicy = shared(c.Name), shared(c.Image), shared(c.ImagePullPolicy)
	if c.StartupProbe != nil {
		c.StartupProbe = aProbe
	}
	if c.ReadinessProbe != nil {
		c.ReadinessProbe = aProbe
	}
	for i := range c.Env {
		v := corev1.EnvVar{Name: shared(c.Env[i].Name)}
		if strings.Contains(c.Env[i].Value, "$(") {
			v.Value = c.Env[i].Value // a sidecar can take it over only with what it refers to
		}
		c.Env[i] = v
	}
	for i := range c.VolumeMounts {
		m := &c.VolumeMounts[i]
		m.Name, m.MountPath = shared(m.Name), shared(m.MountPath)
	}
}

// idleConditions are those of a pod that nobody asks for.
var idleConditions = []corev1.PodConditionType{corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodScheduled}

func stripStatus(status *corev1.PodStatus) {
	status.HostIP, status.HostIPs, status.PodIP, status.PodIPs, status.StartTime = "", nil, "", nil, nil
	status.Phase, status.QOSClass = shared(status.Phase), shared(status.QOSClass)
	kept := make([]corev1.PodCondition, 0, 2) // decoding leaves a slice of eight
	for _, c := range status.Conditions {
		if !slices.Contains(idleConditions, c.Type) {
			c.Type, c.Status, c.Reason = shared(c.Type), shared(c.Status), shared(c.Reason)
			kept = append(kept, c)
		}
	}
	status.Conditions = kept
	for _, list := range [][]corev1.ContainerStatus{status.InitContainerStatuses, status.ContainerStatuses} {
		for i := range list {
			stripContainerStatus(&list[i])
		}
	}
}

func stripContainerStatus(c *corev1.ContainerStatus) {
	c.Name, c.Image, c.ImageID = shared(c.Name), shared(c.Image), shared(c.ImageID)
	c.VolumeMounts, c.User = nil, nil
	if end := c.LastTerminationState.Terminated; end != nil {
		end.Reason, end.Message = shared(end.Reason), ""
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
