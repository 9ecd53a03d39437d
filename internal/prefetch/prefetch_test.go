package prefetch_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/prefetch"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

const (
	deadline = 5 * time.Minute
	newImage = "registry.example/agent:2"
	idle     = "ghcr.io/sidecar-dev/sidecar-operator:v0.1.0"
)

// newNode is a ready node that can prefetch.
func newNode(name string, changes ...func(*corev1.Node)) *corev1.Node {
	node := &corev1.Node{}
	node.Name, node.Labels = name, map[string]string{corev1.LabelOSStable: "linux"}
	node.Status.NodeInfo.KubeletVersion = "v1.37.2"
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	for _, change := range changes {
		change(node)
	}
	return node
}

func kubelet(version string) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Status.NodeInfo.KubeletVersion = version }
}

func notReady(n *corev1.Node) { n.Status.Conditions[0].Status = corev1.ConditionUnknown }

func has(names ...string) func(*corev1.Node) {
	return func(n *corev1.Node) {
		n.Status.Images = append(n.Status.Images, corev1.ContainerImage{Names: names})
	}
}

// newInput is of a cluster with these nodes and nothing else.
func newInput(nodes ...*corev1.Node) prefetch.Input {
	return prefetch.Input{
		Owner: metav1.OwnerReference{
			APIVersion: "fleet.sidecar.dev/v1alpha1", Kind: "SidecarPolicy", Name: "log-agent", UID: "1", Controller: ptr.To(true),
		},
		Revision: "5d9c1f3b2a", IdleImage: idle, ServerVersion: "v1.37.2", Nodes: nodes, Now: builders.Epoch, Deadline: deadline,
	}
}

// newPod is a pod on a node, with a sidecar that is to be upgraded.
func newPod(namespace, name, node string) *builders.PodBuilder {
	return builders.Pod(namespace, name).
		InitContainer(corev1.Container{Name: "agent", Image: "registry.example/agent:1", ImagePullPolicy: corev1.PullIfNotPresent}).
		With(func(p *corev1.Pod) { p.Spec.NodeName = node })
}

func secret(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.ImagePullSecrets = append(p.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
	}
}

func wantOf(pod *corev1.Pod, image string) prefetch.Want {
	return prefetch.Want{Pod: pod, Images: prefetch.Images(pod, map[string]string{"agent": image})}
}

// asked adds to the input the prefetch pod that the want gets, with that status.
func asked(in *prefetch.Input, w prefetch.Want, status corev1.PodStatus) *corev1.Pod {
	pod := prefetch.NewView(*in).Plan([]prefetch.Want{w}).Create[0]
	pod.CreationTimestamp, pod.Status = metav1.NewTime(in.Now), status
	in.Prefetches = append(in.Prefetches, pod)
	return pod
}

func waiting(reason, message string) corev1.PodStatus {
	return corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{{
		Name: "idle", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}},
	}}}
}

func TestPresenceWithoutAPrefetchPod(t *testing.T) {
	pod := newPod("shop", "cart", "n1")
	always := pod.Clone().With(func(p *corev1.Pod) { p.Spec.InitContainers[0].ImagePullPolicy = corev1.PullAlways })
	sibling := func(changes ...func(*corev1.Pod)) *corev1.Pod {
		b := newPod("shop", "other", "n1").Status("agent", func(s *corev1.ContainerStatus) { s.Image = newImage })
		for _, change := range changes {
			b.With(change)
		}
		return b.Obj()
	}
	old := kubelet("v1.34.3")
	for _, tc := range []struct {
		name   string
		node   *corev1.Node
		change func(*prefetch.Input)
		pod    *builders.PodBuilder
		image  string
		want   prefetch.Presence
		words  string
	}{
		{name: "nothing is known", pod: pod, want: prefetch.Absent, words: "has not been asked for on node n1 yet"},
		{name: "the pod is on no node", pod: newPod("shop", "cart", ""), want: prefetch.Present},
		{name: "mode Never", change: func(in *prefetch.Input) { in.Mode = prefetch.Never }, pod: pod,
			want: prefetch.Unknown, words: "spec.rollout.prefetch.mode is Never"},
		{name: "the node is not ready", node: newNode("n1", notReady), pod: pod, want: prefetch.Absent, words: "node n1 is not ready"},
		{name: "the node is gone", node: newNode("n2"), pod: pod, want: prefetch.Absent, words: "node n1 is not ready"},
		{name: "the kubelet is too old", node: newNode("n1", old), pod: pod,
			want: prefetch.Unknown, words: "the kubelet of node n1 is v1.34.3: image volumes need 1.35"},
		{name: "the kubelet's version can't be read", node: newNode("n1", kubelet("kwok-v0.8.0")), pod: pod,
			want: prefetch.Unknown, words: "kwok-v0.8.0"},
		{name: "a provider's version is read", node: newNode("n1", kubelet("v1.35.1-gke.1234000")), pod: pod, want: prefetch.Absent},
		{name: "the API server is too old", change: func(in *prefetch.Input) { in.ServerVersion = "v1.34.0" }, pod: pod,
			want: prefetch.Unknown, words: "the API server is v1.34.0: image volumes need 1.35"},
		{name: "Windows", node: newNode("n1", func(n *corev1.Node) { n.Labels[corev1.LabelOSStable] = "windows" }), pod: pod,
			want: prefetch.Unknown, words: "node n1 runs Windows"},
		{name: "the operator's image is not known", change: func(in *prefetch.Input) { in.IdleImage = "" }, pod: pod,
			want: prefetch.Unknown, words: "--prefetch-image"},
		{name: "the namespace refused", change: func(in *prefetch.Input) {
			in.Refusals = map[string]prefetch.Refusal{"shop": {Message: "exceeded quota", Until: in.Now}}
		}, pod: pod, want: prefetch.Refused, words: "exceeded quota"},

		{name: "an old node lists it", node: newNode("n1", old, has(newImage)), pod: pod, want: prefetch.Present},
		{name: "an old node lists it, and it is asked for anew", node: newNode("n1", old, has(newImage)), pod: always, want: prefetch.Unknown},
		{name: "short names are completed", node: newNode("n1", old, has("docker.io/library/nginx:1.25")), pod: pod, image: "nginx:1.25", want: prefetch.Present},
		{name: "no tag is latest", node: newNode("n1", old, has("docker.io/library/nginx:latest")), pod: pod, image: "nginx", want: prefetch.Present},
		{name: "of tag and digest the digest counts",
			node: newNode("n1", old, has("docker.io/library/nginx@sha256:"+strings.Repeat("a", 64))), pod: pod,
			image: "nginx:1.25@sha256:" + strings.Repeat("a", 64), want: prefetch.Present},
		{name: "the tag alone is not the digest", node: newNode("n1", old, has("docker.io/library/nginx:1.25")), pod: pod,
			image: "nginx:1.25@sha256:" + strings.Repeat("a", 64), want: prefetch.Unknown},
		{name: "what is no reference equals nothing", node: newNode("n1", old, has("<none>:<none>")), pod: pod, image: "Agent:2", want: prefetch.Unknown},
		{name: "a kubelet that asks for credentials: its list proves nothing", node: newNode("n1", has(newImage)), pod: pod, want: prefetch.Absent},

		{name: "another pod runs it", change: running(sibling()), pod: pod, want: prefetch.Present, words: "runs on node n1"},
		{name: "another pod runs it, and it is asked for anew", change: running(sibling()), pod: always, want: prefetch.Absent},
		{name: "a pod with another secret runs it", change: running(sibling(secret("registry"))), pod: pod, want: prefetch.Absent},
		{name: "a pod of another namespace runs it", change: running(sibling(func(p *corev1.Pod) { p.Namespace = "bank" })), pod: pod, want: prefetch.Absent},
		{name: "a pod on another node runs it", change: running(sibling(func(p *corev1.Pod) { p.Spec.NodeName = "n2" })), pod: pod, want: prefetch.Absent},
		{name: "another pod has it in its spec and does not run it yet", change: running(sibling(func(p *corev1.Pod) {
			p.Spec.InitContainers[0].Image = newImage
			p.Status.InitContainerStatuses[0].Image = "registry.example/agent:1"
		})), pod: pod, want: prefetch.Absent},
		{name: "it does not run any more", change: running(sibling(func(p *corev1.Pod) {
			p.Status.InitContainerStatuses[0].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}
		})), pod: pod, want: prefetch.Absent},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.node == nil {
				tc.node = newNode("n1")
			}
			if tc.image == "" {
				tc.image = newImage
			}
			in := newInput(tc.node)
			if tc.change != nil {
				tc.change(&in)
			}
			w := wantOf(tc.pod.Obj(), tc.image)
			got, message := prefetch.NewView(in).Presence(w.Pod, w.Images)
			if got != tc.want || !strings.Contains(message, tc.words) {
				t.Errorf("Presence() = %s, %q, want %s, %q", got, message, tc.want, tc.words)
			}
		})
	}
}

func running(pods ...*corev1.Pod) func(*prefetch.Input) {
	return func(in *prefetch.Input) { in.Running = pods }
}

func TestImages(t *testing.T) {
	pod := newPod("shop", "cart", "n1").
		Container(corev1.Container{Name: "proxy", Image: "proxy:1", ImagePullPolicy: corev1.PullAlways}).
		Container(corev1.Container{Name: "twin", Image: "agent:1", ImagePullPolicy: corev1.PullIfNotPresent}).Obj()
	got := prefetch.Images(pod, map[string]string{"agent": newImage, "twin": newImage, "proxy": "proxy:2", "gone": "gone:2"})
	want := []prefetch.Image{{Ref: "proxy:2", Policy: corev1.PullAlways}, {Ref: newImage, Policy: corev1.PullIfNotPresent}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Images() (-want +got):\n%s", diff)
	}
}

// The prefetch pod as the API server gets it.
func TestThePrefetchPod(t *testing.T) {
	w := wantOf(newPod("shop", "cart", "n1").With(secret("registry")).
		With(func(p *corev1.Pod) { p.Spec.ServiceAccountName = "cart" }).Obj(), newImage)
	pod := prefetch.NewView(newInput(newNode("n1"))).Plan([]prefetch.Want{w}).Create[0]
	spec := pod.Spec
	for what, ok := range map[string]bool{
		"namespace":            pod.Namespace == "shop",
		"node":                 spec.NodeName == "n1",
		"pull secrets":         cmp.Equal(spec.ImagePullSecrets, w.Pod.Spec.ImagePullSecrets),
		"account":              spec.ServiceAccountName == "cart" && !*spec.AutomountServiceAccountToken,
		"labels":               cmp.Equal(pod.Labels, map[string]string{v1alpha1.PolicyLabel: "log-agent", v1alpha1.PrefetchLabel: "5d9c1f3b2a"}),
		"owner, no controller": len(pod.OwnerReferences) == 1 && pod.OwnerReferences[0].UID == "1" && pod.OwnerReferences[0].Controller == nil,
		"restart policy":       spec.RestartPolicy == corev1.RestartPolicyNever,
		"deadline":             *spec.ActiveDeadlineSeconds > int64(deadline.Seconds()),
		"volume": cmp.Equal(spec.Volumes, []corev1.Volume{{Name: "image-0", VolumeSource: corev1.VolumeSource{
			Image: &corev1.ImageVolumeSource{Reference: newImage, PullPolicy: corev1.PullIfNotPresent}}}}),
		"mount":     cmp.Equal(spec.Containers[0].VolumeMounts, []corev1.VolumeMount{{Name: "image-0", MountPath: "/image-0"}}),
		"container": len(spec.Containers) == 1 && spec.Containers[0].Image == idle && cmp.Equal(spec.Containers[0].Args, []string{prefetch.IdleArgument}),
	} {
		if !ok {
			t.Errorf("%s is not as it should be in %+v", what, pod)
		}
	}
}
