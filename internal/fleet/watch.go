package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/inject"
	"github.com/sidecar-dev/sidecar-operator/internal/resources"
)

// watch holds a pod that looks healthy to what must not happen while its revision is
// rolled out: a version that gets ready and crashes some seconds later, or takes its app
// down, has failed.
func watch(state *PodState, sidecars []string, upgrade *v1alpha1.UpgradeRecord, view *View) Verdict {
	health := view.health(view.Policy)
	switch {
	case state.Node.Down || (state.Outdated() && !state.OnTarget):
		return state.Verdict
	case state.OnTarget && gotTarget(state, upgrade, view).Before(view.WatchedSince):
		return triedAgain(state.Verdict, view.WatchedSince.Add(health.ProgressDeadline()), view.Now)
	case state.Verdict.State == Failed:
		return state.Verdict
	}
	if v, bad := watchRestarts(state.Pod, sidecars, upgrade, health); bad {
		return v
	}
	switch {
	case upgrade == nil:
		return watchNewborn(state, health, view.Now)
	case upgrade.Revision != view.Target.Hash:
		return state.Verdict
	}
	return watchUpgraded(state, upgrade, health, view)
}

// watchUpgraded holds a pod to how long its sidecars were down for the upgrade, and to how its app does since.
func watchUpgraded(state *PodState, upgrade *v1alpha1.UpgradeRecord, health *v1alpha1.HealthSpec, view *View) Verdict {
	if bound := health.MaxSidecarDowntimeSeconds; bound != nil {
		verdict, bad := watchDowntime(state, upgrade, time.Duration(*bound)*time.Second, view.Now)
		if state.Verdict = verdict; bad {
			return verdict
		}
	}
	if !ptr.Deref(health.GuardApp, true) {
		return state.Verdict
	}
	return watchApp(state, upgrade, health, view)
}

// watchDowntime holds a pod to how long its sidecars were down, or are by now.
func watchDowntime(state *PodState, upgrade *v1alpha1.UpgradeRecord, bound time.Duration, now time.Time) (v Verdict, bad bool) {
	v = state.Verdict
	down, since := state.Downtime, downSince(state.Pod, upgrade)
	if !since.IsZero() {
		down = max(down, now.Sub(since))
		if end := since.Add(bound + time.Second); v.Recheck.IsZero() || end.Before(v.Recheck) {
			v.Recheck = end
		}
	}
	if down > bound {
		return failed(v1alpha1.ReasonDowntime, "a sidecar was down for %s, longer than maxSidecarDowntimeSeconds", down.Truncate(time.Second)), true
	}
	return v, false
}

// downSince is when the first of the containers ended that the upgrade stopped and that have not been followed by another one; zero
// where there is none.
func downSince(pod *corev1.Pod, upgrade *v1alpha1.UpgradeRecord) time.Time {
	var first time.Time
	for name, before := range upgrade.Before {
		status := statusOf(pod, name)
		if status == nil || before == "" || status.State.Running != nil {
			continue
		}
		end := cmp.Or(status.State.Terminated, status.LastTerminationState.Terminated)
		if end != nil && end.ContainerID == before && (first.IsZero() || end.FinishedAt.Time.Before(first)) {
			first = end.FinishedAt.Time
		}
	}
	return first
}

// gotTarget is when a pod got the target.
func gotTarget(state *PodState, upgrade *v1alpha1.UpgradeRecord, view *View) time.Time {
	if upgrade != nil && upgrade.Revision == view.Target.Hash {
		return upgrade.At.Time
	}
	return state.Pod.CreationTimestamp.Time
}

// triedAgain judges a pod that had the target before the roll-out began: the target was tried before, or is an older revision that
// never left the pod. What its restarts and those of its app were meanwhile, nobody has written down. One that fails has the time
// of an upgrade to get over it.
func triedAgain(v Verdict, deadline, now time.Time) Verdict {
	if v.State != Failed || !now.Before(deadline) {
		return v
	}
	return Verdict{State: Updating, Message: v.Message, Recheck: deadline}
}

// watchNewborn holds a pod that was created with the target to the deadline that an upgrade has. Whose
// owner is in the middle of a roll-out of its own, that may be the app's doing.
func watchNewborn(state *PodState, health *v1alpha1.HealthSpec, now time.Time) Verdict {
	if !state.OnTarget || state.Stale != "" || !state.Owner.Settled || !ptr.Deref(health.GuardApp, true) {
		return state.Verdict
	}
	if v, bad := watchNewbornApp(state, health, now); bad || isTrue(podCondition(state.Pod, corev1.ContainersReady)) {
		return v
	}
	if end := state.Node.since(state.Pod.CreationTimestamp.Time).Add(health.ProgressDeadline()); now.Before(end) {
		return Verdict{State: Updating, Message: "the pod was created with the revision, and is not ready yet", Recheck: end}
	}
	if state.Verdict.State == Starting {
		return failed(v1alpha1.ReasonDeadlineExceeded, "the pod was created with the revision, and its sidecars don't run after %s", health.ProgressDeadline())
	}
	return failed(v1alpha1.ReasonDeadlineExceeded, "the pod was created with the revision, and is not ready after %s", health.ProgressDeadline())
}

// watchNewbornApp finds containers of the app that crash again and again. What they did in the pod before, nobody has
// written down, and a few restarts are a normal part of a start.
func watchNewbornApp(state *PodState, health *v1alpha1.HealthSpec, now time.Time) (v Verdict, bad bool) {
	allowed := max(1, ptr.Deref(health.MaxRestarts, v1alpha1.DefaultMaxRestarts))
	for _, name := range Crashing(state.Pod, now) {
		status := statusOf(state.Pod, name)
		if status.RestartCount > allowed && !state.Node.restartedByNode(status, state.Pod.CreationTimestamp.Time) {
			return failed(v1alpha1.ReasonAppRestarted, "the pod was created with the revision, and container %q of the app restarted %d times", name, status.RestartCount), true
		}
	}
	return state.Verdict, false
}

func failed(reason v1alpha1.Reason, format string, args ...any) Verdict {
	return Verdict{State: Failed, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// watchRestarts counts the restarts of sidecars that the upgrade did not make itself.
func watchRestarts(pod *corev1.Pod, sidecars []string, upgrade *v1alpha1.UpgradeRecord, health *v1alpha1.HealthSpec) (Verdict, bool) {
	allowed := ptr.Deref(health.MaxRestarts, v1alpha1.DefaultMaxRestarts)
	for _, name := range sidecars { // in their order: the first is named
		status := statusOf(pod, name)
		if status == nil {
			continue
		}
		restarts := status.RestartCount
		if upgrade != nil {
			restarts -= upgrade.Restarts[name] + upgradeRestarts(pod, name, upgrade)
		}
		if restarts > allowed {
			return failed(v1alpha1.ReasonRestarts, "sidecar %q restarted %d times by itself, maxRestarts is %d", name, restarts, allowed), true
		}
	}
	return Verdict{}, false
}

// upgradeRestarts is how many restarts of a container may be the upgrade's own: one for its image, and
// one for its resources where the container asks for that.
func upgradeRestarts(pod *corev1.Pod, name string, upgrade *v1alpha1.UpgradeRecord) int32 {
	restarts := int32(0)
	if upgrade.Before[name] != "" {
		restarts++
	}
	had, resized := upgrade.Resizes[name]
	container, _, _ := find(pod, name)
	if resized && container != nil && restarts > 0 && container.Image != upgrade.Ran[name] &&
		resources.Restarts(container.ResizePolicy, resources.Changes(had, container.Resources)) {
		restarts++
	}
	return restarts
}

// watchApp guards the app: its containers must not restart, and the pod must not lose the
// readiness that it had.
func watchApp(state *PodState, upgrade *v1alpha1.UpgradeRecord, health *v1alpha1.HealthSpec, view *View) Verdict {
	for i := range state.Pod.Status.ContainerStatuses {
		if status := &state.Pod.Status.ContainerStatuses[i]; appRestarted(state, status, upgrade, view) {
			return failed(v1alpha1.ReasonAppRestarted, "container %q of the app restarted after the upgrade of its sidecar", status.Name)
		}
	}
	ready := readiness(state.Pod, view.Policy)
	if !upgrade.WasReady || state.Verdict.State != Settled || ready == nil || isTrue(ready) || !view.guards(upgrade, ready.LastTransitionTime.Time) {
		return state.Verdict
	}
	end := ready.LastTransitionTime.Add(health.MinReady())
	if lost := ready.LastTransitionTime.Time; state.Node.since(lost).After(lost) { // its app has to start again
		end = state.Node.UpSince.Add(health.ProgressDeadline())
	}
	if view.Now.Before(end) {
		return Verdict{State: Settled, Recheck: end}
	}
	return failed(v1alpha1.ReasonAppNotReady, "the pod lost readiness after the upgrade of its sidecar")
}

// guards says whether what became of an app then is held against the upgrade.
func (v *View) guards(upgrade *v1alpha1.UpgradeRecord, then time.Time) bool {
	return v.GuardTime == 0 || !then.After(upgrade.At.Add(v.GuardTime))
}

// appRestarted says whether a container is the app's, and restarted since the upgrade for no reason that is known.
func appRestarted(state *PodState, status *corev1.ContainerStatus, upgrade *v1alpha1.UpgradeRecord, view *View) bool {
	end := status.LastTerminationState.Terminated
	switch {
	case status.RestartCount <= upgrade.Restarts[status.Name] || slices.Contains(upgrade.Crashing, status.Name):
		return false
	case end != nil && !view.guards(upgrade, end.FinishedAt.Time):
		return false
	case state.Node.restartedByNode(status, upgrade.At.Time):
		return false
	}
	return !inject.InjectedNames(state.Pod)[status.Name]
}

// crashLoop is how short a container's run is, and how long ago at most it ended, for it to crash again and again: a kubelet
// starts one that ran for longer without a delay, and delays the others for up to half of it.
const crashLoop = 10 * time.Minute

// Crashing names the containers of the app that crash again and again.
func Crashing(pod *corev1.Pod, now time.Time) []string {
	var names []string
	for i := range pod.Status.ContainerStatuses {
		status := &pod.Status.ContainerStatuses[i]
		end := cmp.Or(status.State.Terminated, status.LastTerminationState.Terminated)
		if status.RestartCount == 0 || end == nil || inject.InjectedNames(pod)[status.Name] {
			continue
		}
		if end.FinishedAt.Add(crashLoop).After(now) && end.FinishedAt.Sub(end.StartedAt.Time) < crashLoop {
			names = append(names, status.Name)
		}
	}
	return names
}

// downtime is the longest time between the end of a container that the upgrade to a revision
// replaced and the start of the next one. The kubelet's times are whole seconds, so that what was too short
// for them counts as one; zero means that nothing is known yet.
func downtime(pod *corev1.Pod, upgrade *v1alpha1.UpgradeRecord, hash string) time.Duration {
	if upgrade == nil || upgrade.Revision != hash {
		return 0
	}
	longest := time.Duration(0)
	for name, before := range upgrade.Before {
		status := statusOf(pod, name)
		if status == nil || status.LastTerminationState.Terminated == nil {
			continue
		}
		old := status.LastTerminationState.Terminated
		if before == "" || old.ContainerID != before || status.State.Running == nil {
			continue
		}
		longest = max(longest, status.State.Running.StartedAt.Sub(old.FinishedAt.Time), time.Second)
	}
	return longest
}
