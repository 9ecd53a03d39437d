//go:build e2e

package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"github.com/sidecar-dev/sidecar-operator/hack/cluster/images"
)

// harness is one cluster and what the tests ask it.
type harness struct {
	*testing.T
	cluster *Cluster
	client  kubernetes.Interface
}

func start(t *testing.T, opts Options) harness {
	t.Helper()
	opts.Log = t.Output()
	c, err := Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	client, err := kubernetes.NewForConfig(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	return harness{t, c, client}
}

// eventually retries until check returns nil.
func (h harness) eventually(check func() error) {
	h.Helper()
	last := errors.New("never checked")
	err := wait.PollUntilContextTimeout(h.Context(), 50*time.Millisecond, time.Minute, true, func(context.Context) (bool, error) {
		last = check()
		return last == nil, nil
	})
	if err != nil {
		h.Fatal(last)
	}
}

const podName = "p"

func (h harness) create(image string) {
	h.Helper()
	always := corev1.ContainerRestartPolicyAlways
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: podName},
		Spec: corev1.PodSpec{
			InitContainers: []corev1.Container{{Name: "sidecar", Image: image, Args: []string{"--port=9000"}, RestartPolicy: &always}},
			Containers:     []corev1.Container{{Name: "app", Image: image}},
		},
	}
	if _, err := h.client.CoreV1().Pods("default").Create(h.Context(), pod, metav1.CreateOptions{}); err != nil {
		h.Fatal(err)
	}
}

func (h harness) get() *corev1.Pod {
	h.Helper()
	pod, err := h.client.CoreV1().Pods("default").Get(h.Context(), podName, metav1.GetOptions{})
	if err != nil {
		h.Fatal(err)
	}
	return pod
}

func (h harness) patchSidecar(image string) {
	h.Helper()
	patch := fmt.Sprintf(`{"spec":{"initContainers":[{"name":"sidecar","image":%q}]}}`, image)
	_, err := h.client.CoreV1().Pods("default").Patch(h.Context(), podName, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
	if err != nil {
		h.Fatal(err)
	}
}

// settled waits until the node has seen the spec and the pod is ready, or not.
func (h harness) settled(ready bool) *corev1.Pod {
	h.Helper()
	var pod *corev1.Pod
	h.eventually(func() error {
		pod = h.get()
		status := pod.Status
		sidecar := len(status.InitContainerStatuses) == 1 && status.InitContainerStatuses[0].Ready
		if status.ObservedGeneration != pod.Generation || sidecar != ready || condition(pod, corev1.PodReady) != ready {
			return fmt.Errorf("generation %d, want sidecar ready %v, status %+v", pod.Generation, ready, status)
		}
		return nil
	})
	return pod
}

func condition(pod *corev1.Pod, kind corev1.PodConditionType) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == kind {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func (h harness) upgraded(before, after *corev1.Pod) {
	h.Helper()
	was, is := before.Status.InitContainerStatuses[0], after.Status.InitContainerStatuses[0]
	if was.ContainerID == is.ContainerID || is.RestartCount != was.RestartCount+1 || is.State.Running == nil {
		h.Errorf("sidecar: was %+v, is %+v", was, is)
	}
	wasApp, isApp := before.Status.ContainerStatuses[0], after.Status.ContainerStatuses[0]
	if wasApp.ContainerID != isApp.ContainerID || isApp.RestartCount != wasApp.RestartCount {
		h.Errorf("the app was touched: was %+v, is %+v", wasApp, isApp)
	}
}

func TestSimulatedKubelet(t *testing.T) {
	h := start(t, Options{Kind: Simulated, Nodes: 3})
	h.create("example.test/app:v1")
	first := h.settled(true)

	h.patchSidecar("example.test/app:v2")
	var second *corev1.Pod
	h.eventually(func() error {
		second = h.settled(true)
		if second.Status.InitContainerStatuses[0].Image != "example.test/app:v2" {
			return errors.New("not upgraded yet")
		}
		return nil
	})
	h.upgraded(first, second)

	h.patchSidecar("example.test/app:v3-unpullable")
	state := h.settled(false).Status.InitContainerStatuses[0]
	if state.State.Terminated == nil || state.RestartCount != second.Status.InitContainerStatuses[0].RestartCount {
		t.Errorf("a native sidecar that can't be pulled is terminated, got %+v", state)
	}
	h.patchSidecar("example.test/app:v2")
	back := h.settled(true)
	h.upgraded(second, back)

	h.patchSidecar("example.test/app:v4-crash")
	state = h.settled(false).Status.InitContainerStatuses[0]
	if state.State.Waiting == nil || state.State.Waiting.Reason != "CrashLoopBackOff" || state.RestartCount == 0 {
		t.Errorf("a crashing sidecar waits, got %+v", state)
	}
}

func TestControlPlaneAlone(t *testing.T) {
	h := start(t, Options{})
	if _, err := h.client.CoreV1().Namespaces().Get(t.Context(), "default", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
}

func TestRealNode(t *testing.T) {
	if err := RealNodeSupported(); err != nil {
		t.Skip(err)
	}
	// Twice, because the second start meets what the first one left.
	for _, name := range []string{"first start", "second start"} {
		t.Run(name, testRealNode)
	}
	data, err := os.ReadFile("/proc/mounts")
	if err != nil || strings.Contains(string(data), runRoot()) {
		t.Errorf("mounts are left (%v):\n%s", err, data)
	}
	if _, err := os.Stat(filepath.Join("/sys/class/net", bridge)); err == nil {
		t.Error("the bridge is left")
	}
}

func testRealNode(t *testing.T) {
	h := start(t, Options{Kind: RealNode})
	ref := func(tag string) string { return h.cluster.Registry() + "/testpod:" + tag }
	for _, tag := range []string{"v1", "v2"} {
		spec := images.Spec{Package: "../../test/images/testpod", Args: []string{"--version=" + tag}}
		if _, err := images.Push(t.Context(), ref(tag), spec); err != nil {
			t.Fatal(err)
		}
	}
	h.create(ref("v1"))
	first := h.settled(true)
	host := first.Status.PodIP
	h.answers("http://"+host+":9000/", "testpod v1")
	h.answers("http://"+host+":8080/apiserver", "https://10.96.0.1:443: 200 OK")

	h.patchSidecar(ref("v2"))
	h.answers("http://"+host+":9000/", "testpod v2")
	h.upgraded(first, h.settled(true))
}

func (h harness) answers(url, want string) {
	h.Helper()
	// The pod is next door: no proxy knows the way.
	client := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	h.eventually(func() error {
		response, err := client.Get(url)
		if err != nil {
			return err
		}
		defer func() { _ = response.Body.Close() }()
		body, err := io.ReadAll(response.Body)
		if got := strings.TrimSpace(string(body)); err != nil || got != want {
			return fmt.Errorf("%s: got %q (%w), want %q", url, got, err, want)
		}
		return nil
	})
}
