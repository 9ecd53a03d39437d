package prefetch_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidecar-dev/sidecar-operator/internal/prefetch"
)

// rejected is what a full node makes of a pod.
var rejected = corev1.PodStatus{Phase: corev1.PodFailed, Reason: "OutOfpods", Message: "Node didn't have enough resource: pods"}

// The longer words are those of kubelet 1.37.2 with containerd 2.4.2.
func TestPresenceByAPrefetchPod(t *testing.T) {
	pod := newPod("shop", "cart", "n1")
	private := pod.Clone().With(secret("registry"))
	for _, tc := range []struct {
		name  string
		pod   corev1.PodStatus
		of    *corev1.Pod
		after time.Duration
		want  prefetch.Presence
		words string
	}{
		{name: "new", want: prefetch.Absent, words: "being pulled"},
		{name: "being pulled", pod: waiting("ContainerCreating", ""), want: prefetch.Absent, words: "being pulled"},
		{name: "being pulled for too long", pod: waiting("ContainerCreating", ""), after: deadline,
			want: prefetch.Failed, words: "not pulled within 5m0s: being pulled"},
		{name: "succeeded", pod: corev1.PodStatus{Phase: corev1.PodSucceeded}, after: time.Hour, want: prefetch.Present, words: "done"},
		{name: "runs", pod: idleStatus(corev1.ContainerStatus{ContainerID: "containerd://1"}), want: prefetch.Present, words: "done"},
		{name: "the idle container failed", pod: failedWith(corev1.ContainerStatus{ContainerID: "containerd://1"}), want: prefetch.Present, words: "done"},
		{name: "a runtime that can't mount images has pulled them", pod: waiting("CreateContainerError", "no such file or directory"),
			want: prefetch.Present, words: "done"},
		{name: "the operator's own image is not there", pod: waiting("ErrImagePull",
			`failed to pull and unpack image "`+idle+`": failed to resolve image: `+idle+`: not found`), want: prefetch.Present, words: "done"},
		{name: "a longer tag than the operator's", pod: waiting("ErrImagePull", idle+"0: not found"), want: prefetch.Failed, words: idle + "0: not found"},

		{name: "no such tag", pod: waiting("ErrImagePull", `rpc error: code = NotFound desc = failed to pull and unpack image "r.io/agent:none": failed to resolve image: r.io/agent:none: not found`),
			want: prefetch.Failed, words: `failed to pull and unpack image "r.io/agent:none": failed to resolve image: r.io/agent:none: not found`},
		{name: "no such tag, tried again later", pod: waiting("ImagePullBackOff", `Back-off pulling image "r.io/agent:none": ErrImagePull: rpc error: code = NotFound desc = failed to pull and unpack image "r.io/agent:none": failed to resolve image: r.io/agent:none: not found`),
			want: prefetch.Failed, words: `failed to pull and unpack image "r.io/agent:none": failed to resolve image: r.io/agent:none: not found`},
		{name: "no credentials", pod: waiting("ErrImagePull", `failed to pull and unpack image "r.io/agent:2": failed to resolve image: pull access denied, repository does not exist or may require authorization: authorization failed: no basic auth credentials`),
			want: prefetch.Failed, words: `failed to pull and unpack image "r.io/agent:2": failed to resolve image: pull access denied, repository does not exist or may require authorization: authorization failed: no basic auth credentials (the pod has no pull secrets)`},
		{name: "a missing secret", of: private.Obj(), pod: waiting("ErrImagePull", "pull access denied"),
			want: prefetch.Failed, words: "pull access denied (pull secrets of the pod: registry)"},
		{name: "no reference", pod: waiting("InvalidImageName", `Failed to apply default image tag "r.io/Agent:2": couldn't parse image name "r.io/Agent:2": invalid reference format: repository name (Agent) must be lowercase`),
			want: prefetch.Failed, words: `Failed to apply default image tag "r.io/Agent:2": couldn't parse image name "r.io/Agent:2": invalid reference format: repository name (Agent) must be lowercase`},
		{name: "may not be pulled", pod: waiting("ErrImageNeverPull", `Container image "r.io/agent:2" is not present with pull policy of Never`),
			want: prefetch.Failed, words: `Container image "r.io/agent:2" is not present with pull policy of Never`},
		{name: "a wrong password", of: private.Obj(), pod: waiting("ErrImagePull", `failed to pull and unpack image "r.io/agent:2": failed to resolve image: unexpected status from HEAD request to http://r.io/v2/agent/manifests/v1: 401 Unauthorized`),
			want: prefetch.Failed, words: `failed to pull and unpack image "r.io/agent:2": failed to resolve image: unexpected status from HEAD request to http://r.io/v2/agent/manifests/v1: 401 Unauthorized (pull secrets of the pod: registry)`},
		{name: "not for this platform", pod: waiting("ErrImagePull", "rpc error: code = NotFound desc = get image config descriptor: no match for platform in manifest sha256:7281: not found"),
			want: prefetch.Failed, words: "get image config descriptor: no match for platform in manifest sha256:7281: not found"},
		{name: "CRI-O: no such tag", pod: waiting("ErrImagePull", "reading manifest 2 in r.io/agent: manifest unknown"),
			want: prefetch.Failed, words: "reading manifest 2 in r.io/agent: manifest unknown"},

		{name: "connection refused", pod: waiting("ErrImagePull", "dial tcp 127.0.0.1:1: connect: connection refused"),
			want: prefetch.Absent, words: "dial tcp 127.0.0.1:1: connect: connection refused"},
		{name: "connection refused for too long", pod: waiting("ErrImagePull", "connection refused"), after: deadline,
			want: prefetch.Failed, words: "not pulled within 5m0s: connection refused"},
		{name: "too many requests is no denial", pod: waiting("ErrImagePull", "429 Too Many Requests: access denied for now"),
			want: prefetch.Absent, words: "429 Too Many Requests: access denied for now"},
		{name: "the registry is down", pod: waiting("RegistryUnavailable", "image pull failed for r.io/agent:2 because the registry is unavailable"),
			want: prefetch.Absent, words: "image pull failed for r.io/agent:2 because the registry is unavailable"},
		{name: "what nobody knows gets its time", pod: waiting("ErrImagePull", "x509: certificate signed by unknown authority"),
			want: prefetch.Absent, words: "x509: certificate signed by unknown authority"},

		{name: "the node is full", pod: rejected,
			want: prefetch.Refused, words: "the kubelet rejected the prefetch pod: OutOfpods: Node didn't have enough resource: pods"},
		{name: "ended by the kubelet at its deadline", after: time.Second, want: prefetch.Failed, words: "not pulled within 5m0s: being pulled",
			pod: corev1.PodStatus{Phase: corev1.PodFailed, Reason: "DeadlineExceeded", ContainerStatuses: []corev1.ContainerStatus{{Name: "idle",
				State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "ContainerStatusUnknown", ExitCode: 137}}}}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.of == nil {
				tc.of = pod.Obj()
			}
			in := newInput(newNode("n1"))
			w := wantOf(tc.of, newImage)
			asked(&in, w, tc.pod)
			in.Now = in.Now.Add(tc.after)
			got, message := prefetch.NewView(in).Presence(w.Pod, w.Images)
			want := newImage + " on node n1: " + tc.words
			if got != tc.want || message != want {
				t.Errorf("Presence() = %s, %q\nwant %s, %q", got, message, tc.want, want)
			}
		})
	}
}

func idleStatus(status corev1.ContainerStatus) corev1.PodStatus {
	status.Name = "idle"
	return corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{status}}
}

func failedWith(status corev1.ContainerStatus) corev1.PodStatus {
	failed := idleStatus(status)
	failed.Phase = corev1.PodFailed
	return failed
}

func TestTheImageIsNamedOnce(t *testing.T) {
	in := newInput(newNode("n1"))
	w := wantOf(newPod("shop", "cart", "n1").Obj(), newImage)
	asked(&in, w, waiting("ErrImagePull", newImage+": not found"))
	_, message := prefetch.NewView(in).Presence(w.Pod, w.Images)
	if want := "on node n1: " + newImage + ": not found"; message != want {
		t.Errorf("Presence() says %q, want %q", message, want)
	}
}

func TestOneFailureIsNotAnotherPodsFailure(t *testing.T) {
	in := newInput(newNode("n1"))
	cart := wantOf(newPod("shop", "cart", "n1").Obj(), newImage)
	asked(&in, cart, waiting("ErrImagePull", "not found"))
	for _, other := range []prefetch.Want{
		wantOf(newPod("bank", "till", "n1").Obj(), newImage),
		wantOf(newPod("shop", "cart", "n1").With(secret("registry")).Obj(), newImage),
		wantOf(newPod("shop", "cart", "n1").Obj(), "registry.example/agent:3"),
	} {
		if got, message := prefetch.NewView(in).Presence(other.Pod, other.Images); got != prefetch.Absent {
			t.Errorf("Presence() = %s, %q, want %s", got, message, prefetch.Absent)
		}
	}
	if got, _ := prefetch.NewView(in).Presence(newPod("shop", "twin", "n1").Obj(), cart.Images); got != prefetch.Failed {
		t.Errorf("the same image in the same namespace: %s, want %s", got, prefetch.Failed)
	}
}
