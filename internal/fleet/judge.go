package fleet

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

// minSettle is the least time that a container with a startup or readiness probe
// must have been ready, and that a resize must have held. For about a second after a restart the kubelet still
// shows the readiness of the container before it.
const minSettle = 3 * time.Second

// State is what became of a pod's last in-place upgrade.
type State string

// The states of an upgrade.
const (
	// Settled: there was none, or it has been judged healthy.
	Settled State = "Settled"
	// Starting: the pod is new, and its sidecars don't run yet. Nothing was taken from
	// it, so it may take its time.
	Starting State = "Starting"
	// Updating: it has not been judged yet.
	Updating State = "Updating"
	// Failed: the sidecars did not get healthy.
	Failed State = "Failed"
)

// Verdict is a judgement of a pod's sidecars.
type Verdict struct {
	State   State
	Reason  v1alpha1.Reason
	Message string
	// Recheck is when time alone changes the verdict. Zero where only a change of the pod does.
	Recheck time.Time
	// HealthySince is when the last thing that an upgrade waited for came true; set where it is
	// settled, and there was one.
	HealthySince time.Time
}

// badWaiting maps the kubelet's reasons for a waiting container to ours. Other reasons
// (ContainerCreating, PodInitializing) are a normal part of a start.
var badWaiting = map[string]v1alpha1.Reason{
	"ErrImagePull":               v1alpha1.ReasonImagePull,
	"ImagePullBackOff":           v1alpha1.ReasonImagePull,
	"InvalidImageName":           v1alpha1.ReasonImagePull,
	"ErrImageNeverPull":          v1alpha1.ReasonImagePull,
	"ImageInspectError":          v1alpha1.ReasonImagePull,
	"RegistryUnavailable":        v1alpha1.ReasonImagePull,
	"SignatureValidationFailed":  v1alpha1.ReasonImagePull,
	"CrashLoopBackOff":           v1alpha1.ReasonCrashLoop,
	"CreateContainerConfigError": v1alpha1.ReasonCannotStart,
	"CreateContainerError":       v1alpha1.ReasonCannotStart,
	"RunContainerError":          v1alpha1.ReasonCannotStart,
	"PostStartHookError":         v1alpha1.ReasonCannotStart,
}

// judge says how a pod's sidecars do. What the kubelet itself calls bad is a
// failure at once; whether an upgrade takes too long is judged by its record.
func judge(pod *corev1.Pod, policy string, sidecars []string, record *v1alpha1.UpgradeRecord, view *View) Verdict {
	now := view.Now
	for _, name := range sidecars {
		if v, bad := judgeWaiting(name, statusOf(pod, name)); bad && observed(pod) {
			return graced(v, record, now)
		}
	}
	if neverStarted(pod, sidecars, record) {
		return Verdict{State: Starting, Message: "the sidecars don't run yet"}
	}
	if record == nil || len(record.Before)+len(record.Resizes) == 0 {
		return Verdict{State: Settled}
	}
	return judgeUpgrade(pod, readiness(pod, policy), record, view.health(policy), now)
}

// graced waits with a failure right after an upgrade: the kubelet may still show what it
// thought of the image before.
func graced(v Verdict, record *v1alpha1.UpgradeRecord, now time.Time) Verdict {
	if record == nil {
		return v
	}
	if end := record.At.Add(minSettle); now.Before(end) {
		return Verdict{State: Updating, Message: v.Message, Recheck: end}
	}
	return v
}

// neverStarted says whether a sidecar has no container, and had none before the last upgrade.
func neverStarted(pod *corev1.Pod, sidecars []string, record *v1alpha1.UpgradeRecord) bool {
	return slices.ContainsFunc(sidecars, func(name string) bool {
		return containerID(pod, name) == "" && (record == nil || record.Before[name] == "")
	})
}

func judgeWaiting(name string, status *corev1.ContainerStatus) (Verdict, bool) {
	if status == nil || status.State.Waiting == nil {
		return Verdict{}, false
	}
	reason, bad := badWaiting[status.State.Waiting.Reason]
	if !bad {
		return Verdict{}, false
	}
	message := fmt.Sprintf("sidecar %q is waiting: %s", name, status.State.Waiting.Reason)
	if status.State.Waiting.Message != "" {
		message += ": " + status.State.Waiting.Message
	}
	return Verdict{State: Failed, Reason: reason, Message: message}, true
}

// observed says whether the kubelet has seen the pod's current spec. Kubelets
// older than 1.33 don't say; there the containerIDs alone have to tell.
func observed(pod *corev1.Pod) bool {
	return pod.Status.ObservedGeneration == 0 || pod.Status.ObservedGeneration >= pod.Generation
}

func judgeUpgrade(pod *corev1.Pod, ready *corev1.PodCondition, record *v1alpha1.UpgradeRecord, health *v1alpha1.HealthSpec, now time.Time) Verdict {
	p := progress{since: record.At.Time, begun: record.At.Time, deadline: record.At.Add(health.ProgressDeadline())}
	if !observed(pod) && now.Before(p.deadline) { // later it is another change that the kubelet has not seen
		p.waitFor("the kubelet has not seen the change yet")
	}
	upgraded := make([]string, 0, 4) // stays on the stack
	for name := range record.Before {
		upgraded = append(upgraded, name)
	}
	slices.Sort(upgraded)
	for _, name := range upgraded {
		p.container(name, statusOf(pod, name), restartDue(pod, name, record))
	}
	for _, name := range slices.Sorted(maps.Keys(record.Resizes)) {
		p.resized(pod, name, statusOf(pod, name), record.Resizes[name])
	}
	if record.WasReady {
		p.pod(ready)
	}
	if p.waiting == "" {
		return p.held(settleTime(pod, record, health), now)
	}
	deadline := p.begun.Add(health.ProgressDeadline())
	if now.Before(deadline) {
		return Verdict{State: Updating, Message: p.waiting, Recheck: deadline}
	}
	return Verdict{State: Failed, Reason: cmp.Or(p.reason, v1alpha1.ReasonDeadlineExceeded),
		Message: fmt.Sprintf("%s for longer than %s", p.waiting, health.ProgressDeadline())}
}

// restartDue is the containerID that an upgrade has to leave behind; empty when the
// container runs the image of the spec without a restart, because an upgrade was taken back
// before the kubelet acted on it.
func restartDue(pod *corev1.Pod, name string, record *v1alpha1.UpgradeRecord) string {
	if container, _, _ := find(pod, name); container != nil && container.Image == record.Ran[name] {
		return ""
	}
	return record.Before[name]
}

// progress gathers what an upgrade still waits for.
type progress struct {
	waiting string
	// reason is what it has failed with when it takes too long; empty for DeadlineExceeded.
	reason v1alpha1.Reason
	// since is when the last of what holds began to.
	since time.Time
	// begun is when the time to get healthy began, deadline the end of it for the upgrade itself.
	begun, deadline time.Time
}

func (p *progress) waitFor(format string, args ...any) {
	if p.waiting == "" {
		p.waiting = fmt.Sprintf(format, args...)
	}
}

func (p *progress) after(t time.Time) {
	if t.After(p.since) {
		p.since = t
	}
}

// again gives a container that went down after the upgrade's deadline (its node went away
// and came back) the time to get healthy anew. Before that, restarts win nothing.
func (p *progress) again(t time.Time) {
	if t.After(p.deadline) && t.After(p.begun) {
		p.begun = t
	}
}

// container looks at one upgraded container.
func (p *progress) container(name string, status *corev1.ContainerStatus, before string) {
	switch {
	case status == nil:
		p.waitFor("sidecar %q has no status", name)
	case before != "" && status.ContainerID == before:
		p.waitFor("sidecar %q was not restarted", name)
	case status.State.Running == nil:
		p.ended(name, status, before)
	case !ptr.Deref(status.Started, false) || !status.Ready:
		p.again(status.State.Running.StartedAt.Time)
		p.waitFor("sidecar %q is not ready", name)
	default:
		p.after(status.State.Running.StartedAt.Time)
	}
}

// ended tells a container that runs no more from one whose successor does not start: a native
// sidecar with an image that can't be pulled has no other sign (see judgeWaiting for the others).
func (p *progress) ended(name string, status *corev1.ContainerStatus, before string) {
	end := status.State.Terminated
	switch {
	case end == nil:
		p.waitFor("sidecar %q is not running", name)
		return
	case before != "" && end.ContainerID == before:
		p.waitFor("sidecar %q was stopped, and its new image has not started: can it be pulled?", name)
	default:
		p.waitFor("sidecar %q exited with code %d (%s), restartCount %d", name, end.ExitCode, end.Reason, status.RestartCount)
	}
	p.again(end.FinishedAt.Time)
}

// pod looks at the pod's own readiness. One that was lost after the upgrade's
// deadline is not the upgrade's doing.
func (p *progress) pod(ready *corev1.PodCondition) {
	switch {
	case ready == nil:
		p.waitFor("the pod is not ready")
	case ready.Status == corev1.ConditionTrue:
		p.after(ready.LastTransitionTime.Time)
	case !ready.LastTransitionTime.After(p.deadline):
		p.waitFor("the pod is not ready")
	}
}

// held judges an upgrade where everything is as it should be.
func (p *progress) held(settle time.Duration, now time.Time) Verdict {
	if end := p.since.Add(settle); now.Before(end) {
		return Verdict{State: Updating, Message: "has not been ready for long enough", Recheck: end}
	}
	return Verdict{State: Settled, HealthySince: p.since}
}

func settleTime(pod *corev1.Pod, record *v1alpha1.UpgradeRecord, health *v1alpha1.HealthSpec) time.Duration {
	if len(record.Resizes) > 0 {
		return max(health.MinReady(), minSettle) // the kubelet's conditions may come a little later
	}
	for name := range record.Before {
		if c, _, _ := find(pod, name); c != nil && (c.StartupProbe != nil || c.ReadinessProbe != nil) {
			return max(health.MinReady(), minSettle)
		}
	}
	return health.MinReady()
}

// Restarts are the restartCounts, by name, of the pod's containers that have restarted.
func Restarts(pod *corev1.Pod) map[string]int32 {
	var counts map[string]int32
	for _, status := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if status.RestartCount == 0 {
			continue
		}
		if counts == nil {
			counts = map[string]int32{}
		}
		counts[status.Name] = status.RestartCount
	}
	return counts
}
