// Package builders makes the objects that tests start from: each is complete and healthy, and a
// test says only in what it differs.
package builders

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/inject"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
)

// Epoch is when the world of the tests begins. Pods have been ready since.
var Epoch = time.Date(2026, time.January, 5, 8, 0, 0, 0, time.UTC)

// At is a moment, in seconds after Epoch.
func At(seconds int) time.Time { return Epoch.Add(time.Duration(seconds) * time.Second) }

// PodBuilder builds a pod.
type PodBuilder struct{ pod *corev1.Pod }

// Pod is a running, ready pod with one container "app".
func Pod(namespace, name string) *PodBuilder {
	b := &PodBuilder{pod: &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name, UID: types.UID(namespace + "/" + name),
			ResourceVersion: "1", Generation: 1,
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, ObservedGeneration: 1},
	}}
	return b.Container(corev1.Container{Name: "app", Image: "app:1"}).Ready(Epoch)
}

// Clone is an independent copy.
func (b *PodBuilder) Clone() *PodBuilder { return &PodBuilder{pod: b.pod.DeepCopy()} }

// Obj is the pod.
func (b *PodBuilder) Obj() *corev1.Pod { return b.pod.DeepCopy() }

// Named gives the pod another name.
func (b *PodBuilder) Named(name string) *PodBuilder {
	b.pod.Name = name
	return b
}

// With changes the pod in a way that no other method does.
func (b *PodBuilder) With(change func(*corev1.Pod)) *PodBuilder {
	change(b.pod)
	return b
}

// Label adds a label.
func (b *PodBuilder) Label(key, value string) *PodBuilder {
	metav1.SetMetaDataLabel(&b.pod.ObjectMeta, key, value)
	return b
}

// Annotation adds an annotation.
func (b *PodBuilder) Annotation(key, value string) *PodBuilder {
	metav1.SetMetaDataAnnotation(&b.pod.ObjectMeta, key, value)
	return b
}

// Container adds a container that runs, or replaces the one of its name.
func (b *PodBuilder) Container(c corev1.Container) *PodBuilder {
	b.pod.Spec.Containers = put(b.pod.Spec.Containers, c)
	return b.runAll()
}

// InitContainer adds an init container that runs.
func (b *PodBuilder) InitContainer(c corev1.Container) *PodBuilder {
	b.pod.Spec.InitContainers = put(b.pod.Spec.InitContainers, c)
	return b.runAll()
}

func put(list []corev1.Container, c corev1.Container) []corev1.Container {
	for i := range list {
		if list[i].Name == c.Name {
			list[i] = c
			return list
		}
	}
	return append(list, c)
}

// Volume adds an emptyDir.
func (b *PodBuilder) Volume(name string) *PodBuilder {
	b.pod.Spec.Volumes = append(b.pod.Spec.Volumes, EmptyDir(name))
	return b
}

// Injected plugs a policy's sidecars in, with what the pod may override, and lets them run. It panics
// where they clash with the pod.
func (b *PodBuilder) Injected(policy string, r *revision.Revision, allowed ...v1alpha1.AllowedOverride) *PodBuilder {
	additions, conflicts := inject.Render(b.pod, policy, r, allowed...)
	if len(conflicts) > 0 {
		panic(inject.Explain(conflicts))
	}
	additions.Apply(b.pod)
	return b.runAll()
}

// runAll gives every container that has no status one that runs and is ready.
func (b *PodBuilder) runAll() *PodBuilder {
	b.pod.Status.InitContainerStatuses = running(b.pod, b.pod.Spec.InitContainers, b.pod.Status.InitContainerStatuses)
	b.pod.Status.ContainerStatuses = running(b.pod, b.pod.Spec.Containers, b.pod.Status.ContainerStatuses)
	return b
}

func running(pod *corev1.Pod, containers []corev1.Container, have []corev1.ContainerStatus) []corev1.ContainerStatus {
	known := map[string]corev1.ContainerStatus{}
	for _, status := range have {
		known[status.Name] = status
	}
	var statuses []corev1.ContainerStatus
	for _, c := range containers {
		status, ok := known[c.Name]
		if !ok {
			status = RunningStatus(c.Name, c.Image, ContainerID(pod, c.Name), Epoch)
		}
		statuses = append(statuses, status)
	}
	return statuses
}

// ContainerID is the ID of the first run of a pod's container.
func ContainerID(pod *corev1.Pod, container string) string {
	return fmt.Sprintf("containerd://%s/%s/%s-1", pod.Namespace, pod.Name, container)
}

// RunningStatus is the status of a container that runs and is ready.
func RunningStatus(name, image, id string, since time.Time) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: name, Image: image, ContainerID: id, Ready: true, Started: ptr.To(true),
		State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(since)}}}
}

// Ready makes the pod ready since then.
func (b *PodBuilder) Ready(since time.Time) *PodBuilder {
	SetReady(b.pod, corev1.ConditionTrue, since)
	return b
}

// NotReady takes readiness away then.
func (b *PodBuilder) NotReady(since time.Time) *PodBuilder {
	SetReady(b.pod, corev1.ConditionFalse, since)
	return b
}

// SetReady writes a pod's conditions ContainersReady and Ready.
func SetReady(pod *corev1.Pod, status corev1.ConditionStatus, since time.Time) {
	SetCondition(pod, corev1.ContainersReady, status, since)
	SetCondition(pod, corev1.PodReady, status, since)
}

// SetCondition writes one of a pod's conditions.
func SetCondition(pod *corev1.Pod, kind corev1.PodConditionType, status corev1.ConditionStatus, since time.Time) {
	condition := corev1.PodCondition{Type: kind, Status: status, LastTransitionTime: metav1.NewTime(since)}
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == kind {
			pod.Status.Conditions[i] = condition
			return
		}
	}
	pod.Status.Conditions = append(pod.Status.Conditions, condition)
}

// Gated gives the pod a policy's readiness gate, which nobody has opened yet: only its containers are ready.
func (b *PodBuilder) Gated(policy string) *PodBuilder {
	b.pod.Spec.ReadinessGates = append(b.pod.Spec.ReadinessGates, corev1.PodReadinessGate{ConditionType: v1alpha1.DrainCondition(policy)})
	SetCondition(b.pod, corev1.PodReady, corev1.ConditionFalse, Epoch)
	return b
}

// Open opens a policy's readiness gate, and the pod is ready.
func (b *PodBuilder) Open(policy string, since time.Time) *PodBuilder {
	SetCondition(b.pod, v1alpha1.DrainCondition(policy), corev1.ConditionTrue, since)
	return b.Ready(since)
}

// Drained is the pod after a policy has closed its gate, and the kubelet has seen it.
func (b *PodBuilder) Drained(policy string, since time.Time) *PodBuilder {
	SetCondition(b.pod, v1alpha1.DrainCondition(policy), corev1.ConditionFalse, since)
	SetCondition(b.pod, corev1.PodReady, corev1.ConditionFalse, since)
	return b
}

// Status changes the status of a container.
func (b *PodBuilder) Status(container string, change func(*corev1.ContainerStatus)) *PodBuilder {
	change(StatusOf(b.pod, container))
	return b
}

// StatusOf is the status of a pod's container; nil when it has none.
func StatusOf(pod *corev1.Pod, container string) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for i := range list {
			if list[i].Name == container {
				return &list[i]
			}
		}
	}
	return nil
}

// SpecOf is a pod's container; nil when it has none of that name.
func SpecOf(pod *corev1.Pod, container string) *corev1.Container {
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if list[i].Name == container {
				return &list[i]
			}
		}
	}
	return nil
}

// Upgraded is the pod just after the PATCH of an upgrade to the revision: the kubelet has not acted yet.
func (b *PodBuilder) Upgraded(policy string, to *revision.Revision, at time.Time) *PodBuilder {
	record := v1alpha1.UpgradeRecord{Revision: to.Hash, At: metav1.NewTime(at), Before: map[string]string{}, Ran: map[string]string{}}
	for _, sidecar := range to.Template.Sidecars {
		container := SpecOf(b.pod, sidecar.Name)
		if container == nil || container.Image == sidecar.Image {
			continue
		}
		record.Ran[sidecar.Name] = container.Image
		container.Image = sidecar.Image
		record.Before[sidecar.Name] = StatusOf(b.pod, sidecar.Name).ContainerID
	}
	for _, condition := range b.pod.Status.Conditions {
		record.WasReady = record.WasReady || (condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue)
	}
	b.pod.Generation++
	return b.Label(v1alpha1.RevisionLabel(policy), to.Hash).Annotation(v1alpha1.UpgradeAnnotation(policy), record.Encode())
}

// Restarted is the pod after the kubelet has restarted a container, which runs and is ready since then.
func (b *PodBuilder) Restarted(container string, at time.Time) *PodBuilder {
	b.pod.Status.ObservedGeneration = b.pod.Generation
	status := StatusOf(b.pod, container)
	*status = RunningStatus(container, SpecOf(b.pod, container).Image, status.ContainerID+"'", at)
	return b
}
