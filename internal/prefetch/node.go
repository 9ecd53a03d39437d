package prefetch

import (
	"fmt"
	"slices"

	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/version"
)

// minVersion is the first Kubernetes with image volumes that nobody has to switch on.
//
// It is also the first whose kubelet asks whether a pod may use an image that another pod's
// credentials pulled. From then on the node's list of images proves nothing for a pod, and a
// prefetch pod with the same credentials does.
var minVersion = version.MajorMinor(1, 35)

// Supports says whether a kubelet or an API server of that version takes image volumes. One that
// can't be read does not.
func Supports(v string) bool {
	parsed, err := version.ParseGeneric(v)
	return err == nil && version.MajorMinor(parsed.Major(), parsed.Minor()).AtLeast(minVersion)
}

// unable says why nothing can be prefetched on a node; empty when it can.
func (v *View) unable(node *corev1.Node) string {
	kubelet := node.Status.NodeInfo.KubeletVersion
	switch {
	case v.in.IdleImage == "":
		return "the operator does not know its own image: start it with --prefetch-image"
	case !Supports(v.in.ServerVersion):
		return fmt.Sprintf("the API server is %s: image volumes need %s", v.in.ServerVersion, minVersion)
	case !Supports(kubelet):
		return fmt.Sprintf("the kubelet of node %s is %s: image volumes need %s", node.Name, kubelet, minVersion)
	case node.Labels[corev1.LabelOSStable] == "windows":
		return fmt.Sprintf("node %s runs Windows, which has no image volumes", node.Name)
	}
	return ""
}

func ready(node *corev1.Node) bool {
	for i := range node.Status.Conditions {
		if node.Status.Conditions[i].Type == corev1.NodeReady {
			return node.Status.Conditions[i].Status == corev1.ConditionTrue
		}
	}
	return false
}

// listedOnNode says whether the node's status lists all of the images. It lists only the
// biggest ones, so that one that is missing there may still be on the node.
func (v *View) listedOnNode(node *corev1.Node, images []Image) bool {
	listed := map[string]bool{}
	for i := range node.Status.Images {
		for _, name := range node.Status.Images[i].Names {
			listed[v.names.of(name)] = true
		}
	}
	return v.all(images, func(name string) bool { return listed[name] })
}

// all says whether something holds for every image by its full name. It never does for one that the
// kubelet asks the registry about anew, nor for what is no reference.
func (v *View) all(images []Image, holds func(name string) bool) bool {
	return !slices.ContainsFunc(images, func(image Image) bool {
		name := v.names.of(image.Ref)
		return image.Policy == corev1.PullAlways || name == "" || !holds(name)
	})
}

// normalizer completes references the way that container runtimes do, each once: nginx is
// docker.io/library/nginx:latest. Of one with a tag and a digest, the digest counts.
type normalizer map[string]string

// of is empty for what is no reference.
func (n normalizer) of(ref string) string {
	full, known := n[ref]
	if !known {
		full = normalize(ref)
		n[ref] = full
	}
	return full
}

func normalize(ref string) string {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ""
	}
	if digested, ok := named.(reference.Digested); ok {
		return reference.TrimNamed(named).String() + "@" + digested.Digest().String()
	}
	return reference.TagNameOnly(named).String()
}

// placed is an image that a pod with these credentials may use on a node.
type placed struct{ node, credentials, image string }

type runningImages map[placed]bool

// runsOnNode says whether pods on the same node that pull with the same credentials run all of
// the images.
func (v *View) runsOnNode(pod *corev1.Pod, images []Image) bool {
	if v.running == nil {
		v.running = v.lookAround()
	}
	who := credentials(pod)
	return v.all(images, func(name string) bool { return v.running[placed{pod.Spec.NodeName, who, name}] })
}

// lookAround reads from the kubelet's own status what runs: the spec may be ahead of it.
func (v *View) lookAround() runningImages {
	running := runningImages{}
	for _, pod := range v.in.Running {
		who := credentials(pod)
		for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
			for i := range list {
				if list[i].State.Running != nil && list[i].Image != "" {
					running[placed{pod.Spec.NodeName, who, v.names.of(list[i].Image)}] = true
				}
			}
		}
	}
	return running
}
