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
	if bound := health.MaxSidecarDowntimeSeconds; bound != nil && state.Downtime > time.Duration(*bound)*time.Second {
		return failed(v1alpha1.ReasonDowntime, "a sidecar was down for %s, longer than maxSidecarDowntimeSeconds", state.Downtime)
	}
	if !ptr.Deref(health.GuardApp, true) {
		return state.Verdict
	}
	return watchApp(state, view.Policy, upgrade, health, view.Now)
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
	if !state.OnTarget || state.Stale != "" || !state.Owner.Settled || !ptr.Deref(health.GuardApp, true) || isTrue(podCondition(state.Pod, corev1.ContainersReady)) {
		return state.Verdict
	}
	if end := state.Node.since(state.Pod.CreationTimestamp.Time).Add(health.ProgressDeadline()); now.Before(end) {
		return Verdict{State: Updating, Message: "the pod was created with the revision, and is not ready yet", Recheck: end}
	}
	if state.Verdict.State == Starting {
		return failed(v1alpha1.ReasonDeadlineExceeded, "the pod was created with the revision, and its sidecars don't run after %s", health.ProgressDeadline())
	}
	return failed(v1alpha1.ReasonDeadlineExceeded, "the pod was created with the revision, and is not ready after %s", health.ProgressDeadline())
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
func watchApp(state *PodState, policy string, upgrade *v1alpha1.UpgradeRecord, health *v1alpha1.HealthSpec, now time.Time) Verdict {
	for i := range state.Pod.Status.ContainerStatuses {
		if status := &state.Pod.Status.ContainerStatuses[i]; appRestarted(state, status, upgrade) {
			return failed(v1alpha1.ReasonAppRestarted, "container %q of the app restarted after the upgrade of its sidecar", status.Name)
		}
	}
	ready := readiness(state.Pod, policy)
	if !upgrade.WasReady || state.Verdict.State != Settled || ready == nil || isTrue(ready) {
		return state.Verdict
	}
	end := ready.LastTransitionTime.Add(health.MinReady())
	if lost := ready.LastTransitionTime.Time; state.Node.since(lost).After(lost) { // its app has to start again
		end = state.Node.UpSince.Add(health.ProgressDeadline())
	}
	if now.Before(end) {
		return Verdict{State: Settled, Recheck: end}
	}
	return failed(v1alpha1.ReasonAppNotReady, "the pod lost readiness after the upgrade of its sidecar")
}

// appRestarted says whether a container is the app's, and restarted since the upgrade for no reason that is known.
func appRestarted(state *PodState, status *corev1.ContainerStatus, upgrade *v1alpha1.UpgradeRecord) bool {
	switch {
	case status.RestartCount <= upgrade.Restarts[status.Name] || slices.Contains(upgrade.Crashing, status.Name):
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
