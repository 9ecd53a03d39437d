package controllers_test

import (
	"fmt"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gcustom"
	gomegatypes "github.com/onsi/gomega/types"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	testclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

// digest is that of all images.
const digest = "sha256:0123456789abcdef"

// kubelet writes the status of pods as a kubelet does. A container whose image changed is
// restarted, alone; images with "bad" in their name can't be pulled, and what ran before
// them is gone by then.
type kubelet struct {
	clock *testclock.FakeClock
	// images are those that containers were started with, by pod and container.
	images map[string]string
	// mended: the bad images can be pulled by now.
	mended bool
	// broken is a pod on whose node nothing can be pulled any more.
	broken string
	// full: there is no room on the node to resize anything.
	full   bool
	starts int
}

func (k *kubelet) sync(pods []corev1.Pod) {
	GinkgoHelper()
	for i := range pods {
		pod := &pods[i]
		before := pod.Status.DeepCopy()
		pod.Status.Phase = corev1.PodRunning
		pod.Status.ObservedGeneration = pod.Generation
		pod.Status.InitContainerStatuses = k.containers(pod, pod.Spec.InitContainers, before.InitContainerStatuses)
		pod.Status.ContainerStatuses = k.containers(pod, pod.Spec.Containers, before.ContainerStatuses)
		k.setReady(pod)
		k.setResizePending(pod)
		Expect(server.Client.Status().Update(ctx, pod)).To(Succeed())
	}
}

func (k *kubelet) containers(pod *corev1.Pod, containers []corev1.Container, before []corev1.ContainerStatus) []corev1.ContainerStatus {
	var after []corev1.ContainerStatus
	for _, c := range containers {
		status := corev1.ContainerStatus{Name: c.Name, RestartCount: -1}
		for _, old := range before {
			if old.Name == c.Name {
				status = old
			}
		}
		key := string(pod.UID) + "/" + c.Name
		if k.images[key] != c.Image {
			k.images[key] = c.Image
			k.start(&status, c.Image, pod.Name)
		}
		if !k.full {
			status.Resources = c.Resources.DeepCopy()
		}
		after = append(after, status)
	}
	return after
}

func (k *kubelet) start(status *corev1.ContainerStatus, image, pod string) {
	now := metav1.NewTime(k.clock.Now())
	status.Image = image
	status.ImageID = "registry/" + strings.Split(image, ":")[0] + "@" + digest
	if (strings.Contains(image, "bad") && !k.mended) || (pod == k.broken && status.ContainerID != "") {
		// As measured on a native sidecar: no waiting reason, no restart counted.
		status.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 137, FinishedAt: now}}
		status.Ready, status.Started = false, ptr.To(false)
		status.RestartCount = max(status.RestartCount, 0)
		return
	}
	k.starts++
	status.ContainerID = fmt.Sprintf("containerd://%d", k.starts)
	status.RestartCount++
	status.State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}
	status.Ready, status.Started = true, ptr.To(true)
}

func (k *kubelet) setReady(pod *corev1.Pod) {
	ready := corev1.ConditionTrue
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for _, s := range statuses {
			if !s.Ready {
				ready = corev1.ConditionFalse
			}
		}
	}
	now := metav1.NewTime(k.clock.Now())
	setCondition(pod, corev1.ContainersReady, ready, now)
	for _, gate := range pod.Spec.ReadinessGates {
		if !hasCondition(pod, gate.ConditionType) {
			ready = corev1.ConditionFalse
		}
	}
	setCondition(pod, corev1.PodReady, ready, now)
}

func (k *kubelet) setResizePending(pod *corev1.Pod) {
	pod.Status.Conditions = slices.DeleteFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodResizePending })
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if has := container(pod, c.Name).Resources; has != nil && !equality.Semantic.DeepEqual(*has, c.Resources) {
			pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{
				Type: corev1.PodResizePending, Status: corev1.ConditionTrue, Reason: corev1.PodReasonDeferred, Message: "Node didn't have enough resource"})
			return
		}
	}
}

func hasCondition(pod *corev1.Pod, kind corev1.PodConditionType) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == kind {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func setCondition(pod *corev1.Pod, kind corev1.PodConditionType, status corev1.ConditionStatus, now metav1.Time) {
	for i := range pod.Status.Conditions {
		c := &pod.Status.Conditions[i]
		if c.Type != kind {
			continue
		}
		if c.Status != status {
			c.Status, c.LastTransitionTime = status, now
		}
		return
	}
	pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: kind, Status: status, LastTransitionTime: now})
}

// container is the status of one container of a pod.
func container(pod *corev1.Pod, name string) corev1.ContainerStatus {
	GinkgoHelper()
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for _, s := range statuses {
			if s.Name == name {
				return s
			}
		}
	}
	Fail("pod " + pod.Name + " has no status of container " + name)
	return corev1.ContainerStatus{}
}

// haveStatus matches a condition by status and reason.
func haveStatus(status metav1.ConditionStatus, reason v1alpha1.Reason) gomegatypes.GomegaMatcher {
	want := fmt.Sprintf("%s %s", status, reason)
	return gcustom.MakeMatcher(func(c metav1.Condition) (bool, error) {
		return fmt.Sprintf("%s %s", c.Status, c.Reason) == want, nil
	}).WithTemplate("Expected\n{{.FormattedActual}}\n{{.To}} be " + want)
}
