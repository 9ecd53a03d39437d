package inject

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
)

// Conflict is one reason why a pod is left as it is.
type Conflict struct {
	Reason v1alpha1.Reason
	// Message says what clashes with what, for a person.
	Message string
	// Policy is the other one, where two policies clash.
	Policy string
}

// Explain joins conflicts into one line.
func Explain(conflicts []Conflict) string {
	messages := make([]string, len(conflicts))
	for i, c := range conflicts {
		messages[i] = c.Message
	}
	return strings.Join(messages, "; ")
}

// check compares a pod with what it would get.
type check func(pod *corev1.Pod, r *revision.Revision, a Additions, o owners) []Conflict

// checks stand in the order in which conflicts are reported.
var checks = []check{
	checkContainerNames,
	checkVolumeNames,
	checkVolumesExist,
	checkMountPaths,
	checkNestedMounts,
	checkEnv,
	checkPorts,
	checkMetadata,
	checkPodResources,
	checkHostPorts,
	checkDevices,
	checkRestartPolicy,
	checkProcessNamespace,
	checkOS,
	checkAnnotationSize,
}

func findConflicts(pod *corev1.Pod, r *revision.Revision, a Additions, o owners) []Conflict {
	var conflicts []Conflict
	for _, c := range checks {
		conflicts = append(conflicts, c(pod, r, a, o)...)
	}
	return conflicts
}

func conflict(reason v1alpha1.Reason, format string, args ...any) Conflict {
	return Conflict{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

func containerNames(pod *corev1.Pod) map[string]bool {
	names := map[string]bool{}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		names[c.Name] = true
	}
	for _, c := range pod.Spec.EphemeralContainers {
		names[c.Name] = true
	}
	return names
}

// A container's name is unique over all kinds of containers of a pod.
func checkContainerNames(pod *corev1.Pod, _ *revision.Revision, a Additions, o owners) []Conflict {
	names := containerNames(pod)
	var conflicts []Conflict
	for _, c := range a.added() {
		if names[c.Name] {
			conflicts = append(conflicts, o.clash(v1alpha1.ReasonContainerNameConflict, o.ofContainer(c.Name),
				fmt.Sprintf("a container %q", c.Name), fmt.Sprintf("the pod has a container %q of its own", c.Name)))
		}
		names[c.Name] = true
	}
	return conflicts
}

func volumeNames(volumes []corev1.Volume) map[string]bool {
	names := map[string]bool{}
	for _, v := range volumes {
		names[v.Name] = true
	}
	return names
}

func checkVolumeNames(pod *corev1.Pod, _ *revision.Revision, a Additions, o owners) []Conflict {
	names := volumeNames(pod.Spec.Volumes)
	var conflicts []Conflict
	for _, v := range a.Volumes {
		if names[v.Name] {
			conflicts = append(conflicts, o.clash(v1alpha1.ReasonVolumeConflict, o.ofVolume(v.Name),
				fmt.Sprintf("a volume %q", v.Name), fmt.Sprintf("the pod has a volume %q of its own", v.Name)))
		}
	}
	return conflicts
}

// A mount may use a volume of the template or of the pod. One that is in neither
// would make the API server refuse the pod.
func checkVolumesExist(pod *corev1.Pod, _ *revision.Revision, a Additions, _ owners) []Conflict {
	known := volumeNames(slices.Concat(pod.Spec.Volumes, a.Volumes))
	var conflicts []Conflict
	missing := func(container string, mounts []corev1.VolumeMount) {
		for _, m := range mounts {
			if !known[m.Name] {
				conflicts = append(conflicts, conflict(v1alpha1.ReasonVolumeMissing,
					"container %q mounts volume %q, which neither the template nor the pod has", container, m.Name))
			}
		}
	}
	for _, c := range a.added() {
		missing(c.Name, c.VolumeMounts)
		for _, d := range c.VolumeDevices {
			missing(c.Name, []corev1.VolumeMount{{Name: d.Name}})
		}
	}
	for _, i := range slices.Sorted(maps.Keys(a.App)) {
		missing(pod.Spec.Containers[i].Name, a.App[i].VolumeMounts)
	}
	return conflicts
}

func checkMountPaths(pod *corev1.Pod, _ *revision.Revision, a Additions, o owners) []Conflict {
	var conflicts []Conflict
	for _, i := range slices.Sorted(maps.Keys(a.App)) {
		container := &pod.Spec.Containers[i]
		if len(a.App[i].VolumeMounts) == 0 {
			continue
		}
		taken := map[string]bool{}
		for _, used := range pathsOf(container) {
			if slices.Contains(strings.Split(used, "/"), "..") {
				conflicts = append(conflicts, conflict(v1alpha1.ReasonMountPathConflict,
					"container %q has something mounted at %s, and a path with .. in it can't be compared with others", container.Name, used))
			}
			taken[path.Clean(used)] = true
		}
		for _, m := range a.App[i].VolumeMounts {
			if taken[path.Clean(m.MountPath)] {
				conflicts = append(conflicts, o.clash(v1alpha1.ReasonMountPathConflict, o.ofMount(container.Name, m.MountPath),
					fmt.Sprintf("a mount at %s of container %q", m.MountPath, container.Name),
					fmt.Sprintf("container %q has something mounted at %s", container.Name, m.MountPath)))
			}
			taken[path.Clean(m.MountPath)] = true
		}
	}
	return conflicts
}

// pathsOf are the paths that a container has something at.
func pathsOf(c *corev1.Container) []string {
	var paths []string
	for _, m := range c.VolumeMounts {
		paths = append(paths, m.MountPath)
	}
	for _, d := range c.VolumeDevices {
		paths = append(paths, d.DevicePath)
	}
	return paths
}

func checkEnv(pod *corev1.Pod, _ *revision.Revision, a Additions, o owners) []Conflict {
	var conflicts []Conflict
	for _, i := range slices.Sorted(maps.Keys(a.App)) {
		container := &pod.Spec.Containers[i]
		taken := map[string]bool{}
		for _, e := range container.Env {
			taken[e.Name] = true
		}
		for _, e := range a.App[i].Env {
			if taken[e.Name] {
				conflicts = append(conflicts, o.clash(v1alpha1.ReasonEnvConflict, o.ofEnv(container.Name, e.Name),
					fmt.Sprintf("a variable %s of container %q", e.Name, container.Name),
					fmt.Sprintf("container %q has a variable %s of its own", container.Name, e.Name)))
			}
			taken[e.Name] = true
		}
	}
	return conflicts
}

// usedPort is a port that a container declares: in the pod's network, or on its node.
type usedPort struct {
	number   int32
	protocol corev1.Protocol
	// onHost is a hostPort, at the node's address hostIP.
	onHost bool
	hostIP string
}

// portsOf are the ports of a container. On the host's network the container's port is the host's, and says all.
func portsOf(c *corev1.Container, hostNetwork bool) []usedPort {
	var ports []usedPort
	for _, p := range c.Ports {
		protocol := cmp.Or(p.Protocol, corev1.ProtocolTCP)
		ports = append(ports, usedPort{number: p.ContainerPort, protocol: protocol})
		if p.HostPort != 0 && !hostNetwork {
			ports = append(ports, usedPort{p.HostPort, protocol, true, p.HostIP})
		}
	}
	return ports
}

// meets says whether both can't be had. A port of the pod's network and one of its node are never the same.
func (p usedPort) meets(o usedPort) bool {
	if p.number != o.number || p.protocol != o.protocol || p.onHost != o.onHost {
		return false
	}
	return !p.onHost || p.hostIP == o.hostIP || EveryAddress(p.hostIP) || EveryAddress(o.hostIP)
}

// EveryAddress says whether a hostIP means all addresses of the node.
func EveryAddress(hostIP string) bool { return slices.Contains(EveryAddresses, hostIP) }

// EveryAddresses are the ways to write it.
var EveryAddresses = []string{"", "0.0.0.0", "::"}

func (p usedPort) String() string {
	where := ""
	if p.onHost {
		where = " of the host"
	}
	return fmt.Sprintf("port %d/%s%s", p.number, p.protocol, where)
}

// heldPort is a port with the name of the container that has it.
type heldPort struct {
	usedPort
	container string
}

// The containers of a pod share one network: a port belongs to one of them. Plain init
// containers count too: native sidecars start before them.
func checkPorts(pod *corev1.Pod, _ *revision.Revision, a Additions, o owners) []Conflict {
	var held []heldPort
	hold := func(c *corev1.Container) {
		for _, p := range portsOf(c, pod.Spec.HostNetwork) {
			held = append(held, heldPort{p, c.Name})
		}
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		hold(&c)
	}
	var conflicts []Conflict
	for _, c := range a.added() {
		for _, p := range portsOf(&c, pod.Spec.HostNetwork) {
			i := slices.IndexFunc(held, func(h heldPort) bool { return h.meets(p) })
			if i < 0 {
				continue
			}
			holder := held[i].container
			conflicts = append(conflicts, o.clash(v1alpha1.ReasonPortConflict, o.ofContainer(holder),
				fmt.Sprintf("%s, in containers %q and %q", p, holder, c.Name),
				fmt.Sprintf("sidecar %q and container %q both use %s", c.Name, holder, p)))
		}
		hold(&c)
	}
	return conflicts
}

func checkMetadata(pod *corev1.Pod, r *revision.Revision, _ Additions, o owners) []Conflict {
	var conflicts []Conflict
	differing := func(kind string, own, added map[string]string, holder func(key string) string) {
		for _, key := range slices.Sorted(maps.Keys(added)) {
			if value, ok := own[key]; ok && value != added[key] {
				conflicts = append(conflicts, o.clash(v1alpha1.ReasonMetadataConflict, holder(key),
					fmt.Sprintf("the %s %s, with different values", kind, key), fmt.Sprintf("the pod has the %s %s with another value", kind, key)))
			}
		}
	}
	differing("label", pod.Labels, r.Template.Metadata.Labels, o.ofLabel)
	differing("annotation", pod.Annotations, r.Template.Metadata.Annotations, o.ofAnnotation)
	return conflicts
}

// Pod-level resources (KEP-2837) cap what the containers ask for together; the
// API server refuses a pod where they ask for more.
func checkPodResources(pod *corev1.Pod, _ *revision.Revision, a Additions, _ owners) []Conflict {
	if pod.Spec.Resources == nil {
		return nil
	}
	var conflicts []Conflict
	caps := requestCaps(pod.Spec.Resources)
	for _, name := range slices.Sorted(maps.Keys(caps)) {
		if over := checkLimit(pod, a, name); len(over) > 0 {
			conflicts = append(conflicts, over...)
			continue
		}
		allowed := caps[name]
		if sum := requested(pod, a, name); requests(a, name) && sum.Cmp(allowed) > 0 {
			conflicts = append(conflicts, conflict(v1alpha1.ReasonPodResourcesConflict,
				"the pod asks for %s of %s in all, its containers with the sidecars for %s", allowed.String(), name, sum.String()))
		}
	}
	return conflicts
}

// requestCaps is what the containers may request together: what the pod requests, or else
// its limit.
func requestCaps(r *corev1.ResourceRequirements) corev1.ResourceList {
	caps := corev1.ResourceList{}
	maps.Copy(caps, r.Limits)
	maps.Copy(caps, r.Requests)
	return caps
}

// checkLimit finds sidecars with a limit over the pod's.
func checkLimit(pod *corev1.Pod, a Additions, name corev1.ResourceName) []Conflict {
	limit, ok := pod.Spec.Resources.Limits[name]
	if !ok {
		return nil
	}
	var conflicts []Conflict
	for _, c := range a.added() {
		if own, ok := c.Resources.Limits[name]; ok && own.Cmp(limit) > 0 {
			conflicts = append(conflicts, conflict(v1alpha1.ReasonPodResourcesConflict,
				"the pod is limited to %s of %s, sidecar %q to %s", limit.String(), name, c.Name, own.String()))
		}
	}
	return conflicts
}

// requests says whether the additions request any of a resource.
func requests(a Additions, name corev1.ResourceName) bool {
	return slices.ContainsFunc(a.added(), func(c corev1.Container) bool {
		request := RequestOf(&c, name)
		return !request.IsZero()
	})
}

// requested is the most that containers which run together request of a resource, with
// the additions: a plain init container runs beside the native sidecars before it, and
// the app beside all of them.
func requested(pod *corev1.Pod, a Additions, name corev1.ResourceName) resource.Quantity {
	var together, peak resource.Quantity
	for _, c := range a.initContainers(pod) {
		if ptr.Deref(c.RestartPolicy, "") == corev1.ContainerRestartPolicyAlways {
			together.Add(RequestOf(&c, name))
			continue
		}
		beside := together.DeepCopy()
		beside.Add(RequestOf(&c, name))
		if beside.Cmp(peak) > 0 {
			peak = beside
		}
	}
	for _, c := range slices.Concat(pod.Spec.Containers, a.Containers) {
		together.Add(RequestOf(&c, name))
	}
	if peak.Cmp(together) > 0 {
		return peak
	}
	return together
}

// RequestOf is what a container requests: a limit without a request is one.
func RequestOf(c *corev1.Container, name corev1.ResourceName) resource.Quantity {
	if request, ok := c.Resources.Requests[name]; ok {
		return request
	}
	return c.Resources.Limits[name]
}
