package controllers

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidecar-dev/sidecar-operator/internal/inject"
	"github.com/sidecar-dev/sidecar-operator/internal/prefetch"
)

// PodStripper makes cache transforms for pods. What many pods have in common it keeps once: nearly all of a
// pod's containers, labels and owner are those of its siblings, too.
type PodStripper struct {
	containers pool[[]corev1.Container]
	owners     pool[[]metav1.OwnerReference]
	labels     pool[map[string]string]
	resources  pool[*corev1.ResourceRequirements]
}

// Strip is a cache transform: it drops what no decision looks at. Cached pods are never written back, and
// what is in them is never changed; upgrades name only the fields that they change.
func (s *PodStripper) Strip(object any) (any, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return object, nil
	}
	s.stripMeta(&pod.ObjectMeta)
	s.stripSpec(&pod.Spec)
	s.stripStatus(&pod.Status)
	return pod, nil
}

func (s *PodStripper) stripMeta(m *metav1.ObjectMeta) {
	m.ManagedFields, m.GenerateName = nil, ""
	delete(m.Annotations, corev1.LastAppliedConfigAnnotation)
	m.Namespace = shared(m.Namespace)
	m.Annotations = withSharedKeys(m.Annotations)
	m.Labels = s.labels.share(keyOfMap(m.Labels), m.Labels)
	m.OwnerReferences = s.owners.share(keyOf(m.OwnerReferences, (*metav1.OwnerReference).Marshal), m.OwnerReferences)
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

func (s *PodStripper) stripSpec(spec *corev1.PodSpec) {
	spec.Affinity, spec.Tolerations, spec.TopologySpreadConstraints, spec.NodeSelector = nil, nil, nil, nil
	spec.SecurityContext, spec.DNSConfig, spec.HostAliases = nil, nil, nil
	spec.DeprecatedServiceAccount, spec.SchedulerName, spec.PriorityClassName, spec.Hostname, spec.Subdomain = "", "", "", "", ""
	spec.NodeName, spec.ServiceAccountName = shared(spec.NodeName), shared(spec.ServiceAccountName)
	spec.RestartPolicy, spec.DNSPolicy = shared(spec.RestartPolicy), ""
	for i := range spec.Volumes {
		v := &spec.Volumes[i]
		*v = corev1.Volume{Name: shared(v.Name), VolumeSource: inject.StripSource(&v.VolumeSource)}
	}
	for _, list := range []*[]corev1.Container{&spec.InitContainers, &spec.Containers} {
		for i := range *list {
			stripContainer(&(*list)[i])
		}
		*list = s.containers.share(keyOf(*list, (*corev1.Container).Marshal), *list)
	}
}

// aProbe and anEnvFrom stand for any: whether there is one is all that is asked.
var (
	aProbe    = &corev1.Probe{}
	anEnvFrom = []corev1.EnvFromSource{{}}
)

func stripContainer(c *corev1.Container) {
	c.Command, c.Args, c.Lifecycle, c.SecurityContext, c.LivenessProbe = nil, nil, nil, nil, nil
	c.WorkingDir, c.TerminationMessagePath, c.TerminationMessagePolicy = "", "", ""
	if c.StartupProbe != nil {
		c.StartupProbe = aProbe
	}
	if c.ReadinessProbe != nil {
		c.ReadinessProbe = aProbe
	}
	if len(c.EnvFrom) > 0 {
		c.EnvFrom = anEnvFrom
	}
	for i := range c.Env {
		v := corev1.EnvVar{Name: c.Env[i].Name}
		if strings.Contains(c.Env[i].Value, "$(") {
			v.Value = c.Env[i].Value // a sidecar can take it over only with what it refers to
		}
		c.Env[i] = v
	}
	for i := range c.VolumeMounts {
		if c.VolumeMounts[i].MountPath == inject.TokenPath {
			c.VolumeMounts[i].Name = "" // no sidecar shares it, and each pod has another one
		}
	}
}

// idleConditions are those of a pod that nobody asks for.
var idleConditions = []corev1.PodConditionType{corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodScheduled}

func (s *PodStripper) stripStatus(status *corev1.PodStatus) {
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
			s.stripContainerStatus(&list[i])
		}
	}
}

func (s *PodStripper) stripContainerStatus(c *corev1.ContainerStatus) {
	c.Name, c.Image, c.ImageID = shared(c.Name), shared(c.Image), shared(c.ImageID)
	c.VolumeMounts, c.User, c.AllocatedResources, c.AllocatedResourcesStatus = nil, nil, nil, nil
	if c.Resources != nil {
		c.Resources = s.resources.share(keyOf([]corev1.ResourceRequirements{*c.Resources}, (*corev1.ResourceRequirements).Marshal), c.Resources)
	}
	if end := c.LastTerminationState.Terminated; end != nil {
		end.Reason, end.Message = shared(end.Reason), ""
	}
}

// StripNode is a cache transform: of a node it leaves what prefetching and judging pods look at. Images
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
			stripped.Status.Conditions = []corev1.NodeCondition{{Type: c.Type, Status: c.Status, LastTransitionTime: c.LastTransitionTime}}
		}
	}
	if !prefetch.Supports(kubelet) {
		for i := range node.Status.Images {
			stripped.Status.Images = append(stripped.Status.Images, corev1.ContainerImage{Names: node.Status.Images[i].Names})
		}
	}
	return stripped, nil
}
