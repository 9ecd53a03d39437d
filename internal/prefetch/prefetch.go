// Package prefetch brings a sidecar's new image onto a node before the running sidecar
// is stopped for it. A kubelet stops the old container first and pulls afterwards, so that an
// image that can't be pulled would leave the pod without its sidecar.
//
// A prefetch pod has the new images as image volumes: the kubelet pulls them with the
// credentials of the app's pod and runs nothing of them. What became of it is read from the
// pod itself; the package holds no client, no clock and no memory.
package prefetch

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Mode says whether images are prefetched.
type Mode string

const (
	// Auto prefetches where the cluster and the node can.
	Auto Mode = "Auto"
	// Never does not.
	Never Mode = "Never"
)

// MaxNodes is how many nodes pull for one policy at once: a registry serves
// a few nodes well, and a whole fleet badly.
const MaxNodes = 10

// Presence says whether a pod's new images are on its node.
type Presence string

// The answers of View.Presence.
const (
	// Present: the kubelet has the images, and lets this pod use them.
	Present Presence = "Present"
	// Absent: not yet, or it can't be asked now.
	Absent Presence = "Absent"
	// Failed: they can't be had. The message is the registry's.
	Failed Presence = "Failed"
	// Unknown: nobody can tell beforehand; the message says why.
	Unknown Presence = "Unknown"
	// Refused: the API server or the kubelet did not take the prefetch pod. It is tried again.
	Refused Presence = "Refused"
)

// Image is an image as a kubelet is asked for it.
type Image struct {
	// Ref is the reference as the template has it.
	Ref string
	// Policy is the pull policy of the container that will run it.
	Policy corev1.PullPolicy
}

// Images are the new images of a pod's containers, by the container's name. The pull policy is
// the one that the container in the pod has, which an upgrade in place does not change.
func Images(pod *corev1.Pod, byContainer map[string]string) []Image {
	var images []Image
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if ref, ok := byContainer[list[i].Name]; ok {
				images = append(images, Image{Ref: ref, Policy: list[i].ImagePullPolicy})
			}
		}
	}
	return sorted(images)
}

// sorted brings images in an order that depends on nothing else, each once.
func sorted(images []Image) []Image {
	images = slices.Clone(images)
	slices.SortFunc(images, func(a, b Image) int {
		if c := strings.Compare(a.Ref, b.Ref); c != 0 {
			return c
		}
		return strings.Compare(string(a.Policy), string(b.Policy))
	})
	return slices.Compact(images)
}

// Refusal is a prefetch pod that the API server did not take.
type Refusal struct {
	// Message is the API server's.
	Message string
	// Until is when the next one is sent to that namespace.
	Until time.Time
}

// Input is what a View is made of. Objects may come from a cache; they are only read.
type Input struct {
	// Mode is Auto where it is empty.
	Mode Mode
	// Owner is the policy.
	Owner metav1.OwnerReference
	// Revision names what the images are for.
	Revision string
	// IdleImage is the operator's own image: it knows IdleArgument. Nothing can be prefetched
	// where it is not known.
	IdleImage string
	// ServerVersion is the API server's, like v1.36.1.
	ServerVersion string
	// Nodes are all nodes of the cluster.
	Nodes []*corev1.Node
	// Prefetches are all prefetch pods of the policy.
	Prefetches []*corev1.Pod
	// Running are pods that may run the images already, like the rest of the fleet.
	Running []*corev1.Pod
	// Refusals are those of the last tries, by namespace.
	Refusals map[string]Refusal
	Now      time.Time
	// Deadline is how long a prefetch may take.
	Deadline time.Duration
}

// View is what can be said about images on nodes.
type View struct {
	in         Input
	nodes      map[string]*corev1.Node
	prefetches map[types.NamespacedName]*prefetched
	running    runningImages
	names      normalizer
}

// NewView looks at nodes and prefetch pods.
func NewView(in Input) *View {
	v := &View{in: in, nodes: make(map[string]*corev1.Node, len(in.Nodes)), names: normalizer{},
		prefetches: make(map[types.NamespacedName]*prefetched, len(in.Prefetches))}
	for _, node := range in.Nodes {
		v.nodes[node.Name] = node
	}
	for _, pod := range in.Prefetches {
		v.prefetches[types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}] =
			&prefetched{pod: pod, verdict: judge(pod, &in, v.names)}
	}
	return v
}

// Presence says whether the images are on the pod's node, and why not.
func (v *View) Presence(pod *corev1.Pod, images []Image) (Presence, string) {
	switch {
	case len(images) == 0 || pod.Spec.NodeName == "":
		return Present, "nothing runs that could be stopped"
	case v.in.Mode == Never:
		return Unknown, "spec.rollout.prefetch.mode is Never"
	}
	node := v.nodes[pod.Spec.NodeName]
	if node == nil || !ready(node) {
		return Absent, "node " + pod.Spec.NodeName + " is not ready"
	}
	if v.runsOnNode(pod, images) {
		return Present, "runs on node " + node.Name
	}
	if reason := v.unable(node); reason != "" {
		if v.listedOnNode(node, images) {
			return Present, "is on node " + node.Name
		}
		return Unknown, reason
	}
	return v.told(pod, images)
}

// told is what a prefetch pod says.
func (v *View) told(pod *corev1.Pod, images []Image) (Presence, string) {
	if p := v.prefetches[v.key(pod, images)]; p != nil && p.pod.DeletionTimestamp == nil {
		return p.verdict.presence, naming(images, p.verdict.message)
	}
	if refusal, ok := v.in.Refusals[pod.Namespace]; ok {
		return Refused, refusal.Message
	}
	return Absent, "has not been asked for on node " + pod.Spec.NodeName + " yet"
}

// naming puts the images before a message that names none of them: not all that a
// container runtime says does.
func naming(images []Image, message string) string {
	refs := make([]string, len(images))
	for i, image := range images {
		if strings.Contains(message, image.Ref) {
			return message
		}
		refs[i] = image.Ref
	}
	return strings.Join(refs, ", ") + " " + message
}
