package prefetch

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// retryRejected is how long a prefetch pod that the kubelet rejected is kept, before another is tried.
const retryRejected = time.Minute

// prefetched is a prefetch pod and what it says.
type prefetched struct {
	pod     *corev1.Pod
	verdict verdict
}

// verdict is what a prefetch pod says about the images of its volumes.
type verdict struct {
	presence Presence
	message  string
	// recheck is when time alone changes the verdict; zero where only a change of the pod does.
	recheck time.Time
	// spent: the pod says nothing more, and another one may.
	spent bool
}

// pullTrouble are the kubelet's reasons for a container whose image, or the image of whose
// volume, it can't get. The words are in the message.
var pullTrouble = []string{
	"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError",
	"RegistryUnavailable", "SignatureValidationFailed",
}

// afterPull are the kubelet's reasons for a container that it can't start, having pulled
// everything: it gets the volumes' images first, then the container's, and then creates it.
var afterPull = []string{
	"CreateContainerConfigError", "CreateContainerError", "PreCreateHookError", "PreStartHookError",
	"RunContainerError", "PostStartHookError",
}

// judge says what a prefetch pod tells about its images.
func judge(pod *corev1.Pod, in *Input, names normalizer) verdict {
	status := idleStatus(pod)
	waiting := status.State.Waiting
	if waiting == nil {
		waiting = &corev1.ContainerStateWaiting{}
	}
	trouble := slices.Contains(pullTrouble, waiting.Reason)
	switch {
	case pod.Status.Phase == corev1.PodSucceeded, status.ContainerID != "", slices.Contains(afterPull, waiting.Reason):
		return verdict{presence: Present, message: onNode(pod, "done")}
	case trouble && mentions(waiting.Message, names.of(in.IdleImage)):
		// The volumes' images come before the container's own, which nobody needs here.
		return verdict{presence: Present, message: onNode(pod, "done")}
	case pod.Status.Phase == corev1.PodFailed && pod.Status.Reason != "DeadlineExceeded":
		return rejected(pod, in.Now)
	case trouble && final(waiting):
		return verdict{presence: Failed, message: onNode(pod, words(waiting)+secretsHint(pod, waiting))}
	}
	return pending(pod, waiting, in)
}

func idleStatus(pod *corev1.Pod) corev1.ContainerStatus {
	for i := range pod.Status.ContainerStatuses {
		if pod.Status.ContainerStatuses[i].Name == container {
			return pod.Status.ContainerStatuses[i]
		}
	}
	return corev1.ContainerStatus{}
}

// rejected is a pod that the kubelet did not take or took down: the node is full, or shuts down.
func rejected(pod *corev1.Pod, now time.Time) verdict {
	again := pod.CreationTimestamp.Add(retryRejected)
	message := onNode(pod, fmt.Sprintf("the kubelet rejected the prefetch pod: %s: %s", pod.Status.Reason, pod.Status.Message))
	return verdict{presence: Refused, message: message, recheck: again, spent: !now.Before(again)}
}

// pending is a pod that may still succeed, until its deadline.
func pending(pod *corev1.Pod, waiting *corev1.ContainerStateWaiting, in *Input) verdict {
	deadline := pod.CreationTimestamp.Add(in.Deadline)
	said := words(waiting)
	if said == "" {
		said = "being pulled"
	}
	if in.Now.Before(deadline) && pod.Status.Phase != corev1.PodFailed {
		return verdict{presence: Absent, message: onNode(pod, said), recheck: deadline}
	}
	return verdict{presence: Failed, message: onNode(pod, fmt.Sprintf("not pulled within %s: %s", in.Deadline, said))}
}

func onNode(pod *corev1.Pod, said string) string { return "on node " + pod.Spec.NodeName + ": " + said }

// words are what the registry or the runtime said, without what the kubelet puts around it.
func words(waiting *corev1.ContainerStateWaiting) string {
	said := waiting.Message
	for _, reason := range pullTrouble {
		if _, inner, found := strings.Cut(said, `": `+reason+": "); found && strings.HasPrefix(said, "Back-off pulling image ") {
			said = inner
			break
		}
	}
	if _, inner, found := strings.Cut(said, " desc = "); found && strings.HasPrefix(said, "rpc error: ") {
		said = inner
	}
	return said
}

// mentions says whether a message is about an image: its full reference, and not the
// beginning of a longer one.
func mentions(message, ref string) bool {
	if ref == "" {
		return false
	}
	for rest := message; ; {
		_, after, found := strings.Cut(rest, ref)
		if !found {
			return false
		}
		if after == "" || strings.ContainsAny(after[:1], "\"',; ") || strings.HasPrefix(after, ": ") {
			return true
		}
		rest = after
	}
}

// passing are words, in lower case, of trouble that may be over the next time.
var passing = []string{
	"i/o timeout", "timeout awaiting", "timeout exceeded", "timed out", "deadline exceeded", "connection refused", "connection reset", "no such host", "no route to host",
	"server misbehaving", "unexpected eof", "too many requests", "toomanyrequests", "429 ", "registry is unavailable",
	"500 internal", "502 bad gateway", "503 service unavailable", "504 gateway",
}

// denied are words, in lower case, of a registry that wants other credentials or none at all.
// Many answer like that for what they don't have.
var denied = []string{
	"unauthorized", "authorization failed", "authentication required", "no basic auth credentials",
	"forbidden", "access denied", "is denied", "denied:", "insufficient_scope",
}

// lasting are other words, in lower case, of what no second try changes.
var lasting = []string{
	"not found", "manifest unknown", "name unknown", "name invalid", "does not exist",
	"no match for platform", "no image found in", "invalid reference",
}

// final says whether the trouble won't pass by itself. What is not known as lasting
// gets its time.
func final(waiting *corev1.ContainerStateWaiting) bool {
	if slices.Contains([]string{"InvalidImageName", "ErrImageNeverPull", "SignatureValidationFailed"}, waiting.Reason) {
		return true
	}
	return !says(waiting, passing) && (says(waiting, denied) || says(waiting, lasting))
}

func says(waiting *corev1.ContainerStateWaiting, oneOf []string) bool {
	said := strings.ToLower(words(waiting))
	return slices.ContainsFunc(oneOf, func(part string) bool { return strings.Contains(said, part) })
}

// secretsHint names the secrets where the registry denied the image. A kubelet pulls without a word
// about one that is not there.
func secretsHint(pod *corev1.Pod, waiting *corev1.ContainerStateWaiting) string {
	if !says(waiting, denied) {
		return ""
	}
	names := make([]string, len(pod.Spec.ImagePullSecrets))
	for i, secret := range pod.Spec.ImagePullSecrets {
		names[i] = secret.Name
	}
	if len(names) == 0 {
		return " (the pod has no pull secrets)"
	}
	return " (pull secrets of the pod: " + strings.Join(names, ", ") + ")"
}
