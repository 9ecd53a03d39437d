package rollout_test

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

// simPod is a pod, and the truth about it.
type simPod struct {
	pod      *corev1.Pod
	workload fleet.Workload
	// owner is nil for a bare pod.
	owner    *simOwner
	zone     string
	sidecars map[string]*simSidecar
	// downUntil is how long the app itself is not ready.
	downUntil time.Time
	// seeAt is when the kubelet says that it has seen a change, actAt when it acts on it, gateAt when it
	// shows what a readiness gate says.
	seeAt, actAt, gateAt time.Time
	// deleted is when the pod was deleted; goneAt when it will have stopped.
	deleted, goneAt time.Time
	exemptUntil     time.Time
	// refusals is how many changes the API server still refuses, refusal the last of them.
	refusals int
	refusal  *fleet.Refusal
	// harmed: a bad version has done its harm to the pod.
	harmed bool
}

// simSidecar is what a kubelet knows of a container.
type simSidecar struct {
	image            string
	lieUntil, upFrom time.Time
	// down: it does not run, from startAt on it does again; zero is never.
	down    bool
	startAt time.Time
	// crashes is how often it exited by itself since its image was started.
	crashes int
	// crashAt, poisonAt and deafAt are when it does its harm; zero is never.
	crashAt, poisonAt, deafAt time.Time
	deaf                      bool
}

// due says whether a moment has come; the zero time never does.
func (w *world) due(t time.Time) bool { return !t.IsZero() && !w.now.Before(t) }

// running is the truth about the containers, without the gates.
func (p *simPod) running(now time.Time) bool {
	for name, s := range p.sidecars {
		if s.down || s.deaf || s.image != builders.SpecOf(p.pod, name).Image || now.Before(s.upFrom) {
			return false
		}
	}
	return !now.Before(p.downUntil)
}

// available is the truth: everything that the spec asks for runs and is ready, and the pod is in its
// endpoints, of which it goes when a gate is closed, and to which it comes when the kubelet says so.
func (p *simPod) available(now time.Time) bool {
	return p.deleted.IsZero() && p.gatesOpen() && fleet.Ready(p.pod) && p.running(now)
}

func (p *simPod) gatesOpen() bool {
	for _, gate := range p.pod.Spec.ReadinessGates {
		if conditionOf(p.pod, gate.ConditionType) != corev1.ConditionTrue {
			return false
		}
	}
	return true
}

func conditionOf(pod *corev1.Pod, kind corev1.PodConditionType) corev1.ConditionStatus {
	for _, c := range pod.Status.Conditions {
		if c.Type == kind {
			return c.Status
		}
	}
	return corev1.ConditionUnknown
}

// kubelet acts on new images and on deletions, and writes status.
func (w *world) kubelet(p *simPod) {
	if w.due(p.goneAt) {
		w.remove(p)
		return
	}
	before := p.pod.Status.DeepCopy()
	if !w.now.Before(p.seeAt) {
		p.pod.Status.ObservedGeneration = p.pod.Generation
	}
	for _, name := range w.namesOf(p) {
		s := p.sidecars[name]
		if !w.now.Before(p.actAt) && s.image != builders.SpecOf(p.pod, name).Image {
			w.exchange(p, name, s)
		}
		w.live(p, name, s)
	}
	w.writeReadiness(p)
	if !equality.Semantic.DeepEqual(before, &p.pod.Status) {
		w.touch(p)
	}
}

// namesOf are the pod's sidecars in the order of its spec.
func (w *world) namesOf(p *simPod) []string {
	var names []string
	for _, list := range [][]corev1.Container{p.pod.Spec.InitContainers, p.pod.Spec.Containers} {
		for i := range list {
			if p.sidecars[list[i].Name] != nil {
				names = append(names, list[i].Name)
			}
		}
	}
	return names
}

// exchange stops a container, to start it with its new image.
func (w *world) exchange(p *simPod, name string, s *simSidecar) {
	status := builders.StatusOf(p.pod, name)
	w.happened("the kubelet exchanges %s of %s", name, p.pod.Name)
	if !s.down {
		ended(status, 0, w.now)
	}
	s.image, s.down, s.startAt, s.crashes, s.deaf = builders.SpecOf(p.pod, name).Image, true, w.now, 0, false
	s.crashAt, s.poisonAt, s.deafAt = time.Time{}, time.Time{}, time.Time{}
}

// live is what happens to a container by itself.
func (w *world) live(p *simPod, name string, s *simSidecar) {
	switch {
	case s.down && w.due(s.startAt):
		w.start(p, name, s)
	case !s.down && w.due(s.crashAt):
		w.crash(p, name, s)
	case !s.down && w.due(s.poisonAt):
		w.happened("%s takes the app of %s down", name, p.pod.Name)
		s.poisonAt, p.harmed = time.Time{}, true
		status := builders.StatusOf(p.pod, "app")
		status.RestartCount++
		p.downUntil = w.now.Add(w.seconds(1, 3))
	case !s.down && w.due(s.deafAt):
		s.deafAt, s.deaf, p.harmed = time.Time{}, true, true
		w.happened("%s takes the readiness of %s", name, p.pod.Name)
	}
}

// start runs a container, or fails to pull its image, which a native sidecar's status does not say
// where it has run before.
func (w *world) start(p *simPod, name string, s *simSidecar) {
	container, status := builders.SpecOf(p.pod, name), builders.StatusOf(p.pod, name)
	native := ptr.Deref(container.RestartPolicy, "") == corev1.ContainerRestartPolicyAlways
	wrong := w.fault(container.Image, p)
	s.startAt, s.image = time.Time{}, container.Image
	if wrong.pull {
		p.harmed = true
		w.happened("%s of %s can't be pulled", name, p.pod.Name)
		if !native || status.ContainerID == "" {
			status.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull"}}
		}
		return
	}
	w.serial++
	last, restarts, again := status.State.Terminated, status.RestartCount, status.ContainerID != ""
	*status = builders.RunningStatus(name, container.Image, fmt.Sprintf("containerd://%d", w.serial), w.now.Truncate(time.Second))
	if last == nil {
		last = &corev1.ContainerStateTerminated{}
	}
	if again {
		status.LastTerminationState.Terminated, status.RestartCount = last, restarts+1
	}
	s.down, s.upFrom, s.lieUntil = false, w.now, w.now
	if container.StartupProbe != nil {
		s.upFrom = w.now.Add(w.seconds(1, 8))
		if again && s.crashes == 0 {
			s.lieUntil = w.now.Add(time.Second)
		}
	}
	s.crashAt, s.poisonAt, s.deafAt = after(s.upFrom, wrong.crash), after(w.now, wrong.poison), after(w.now, wrong.deafen)
}

func after(t time.Time, d time.Duration) time.Time {
	if d == 0 {
		return time.Time{}
	}
	return t.Add(d)
}

// crash: the first restart is immediate, those after it wait for twice as long each time.
func (w *world) crash(p *simPod, name string, s *simSidecar) {
	status := builders.StatusOf(p.pod, name)
	w.happened("%s of %s crashes", name, p.pod.Name)
	ended(status, 1, w.now)
	s.down, s.startAt, s.crashAt, p.harmed = true, w.now.Add(time.Second), time.Time{}, true
	if s.crashes > 0 {
		s.startAt = w.now.Add(min(10*time.Second<<(s.crashes-1), 5*time.Minute))
		status.LastTerminationState = status.State
		status.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
	}
	s.crashes++
}

func ended(status *corev1.ContainerStatus, code int32, at time.Time) {
	status.Ready, status.Started = false, ptr.To(false)
	status.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code,
		ContainerID: status.ContainerID, FinishedAt: metav1.NewTime(at.Truncate(time.Second))}}
}

// writeReadiness writes the readiness of containers and pod, which lies for a second after a restart.
func (w *world) writeReadiness(p *simPod) {
	ready := !w.now.Before(p.downUntil)
	for name, s := range p.sidecars {
		status := builders.StatusOf(p.pod, name)
		if !s.down {
			status.Ready = w.now.Before(s.lieUntil) || !w.now.Before(s.upFrom)
			status.Started = ptr.To(status.Ready)
		}
		ready = ready && status.Ready && !s.deaf
	}
	w.writeCondition(p, corev1.ContainersReady, ready)
	if len(p.pod.Spec.ReadinessGates) == 0 || !w.now.Before(p.gateAt) {
		w.writeCondition(p, corev1.PodReady, ready && p.gatesOpen())
	}
}

func (w *world) writeCondition(p *simPod, kind corev1.PodConditionType, value bool) {
	status := corev1.ConditionFalse
	if value {
		status = corev1.ConditionTrue
	}
	if conditionOf(p.pod, kind) != status {
		w.happened("%s of %s is %s", kind, p.pod.Name, status)
		builders.SetCondition(p.pod, kind, status, w.now.Truncate(time.Second))
	}
}
