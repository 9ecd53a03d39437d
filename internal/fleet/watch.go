package fleet

import (
	"fmt"
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
	if state.Verdict.State == Failed || state.Node.Down || (state.Outdated() && !state.OnTarget) {
		return state.Verdict
	}
	health := view.health(view.Policy)
	if v, bad := watchRestarts(state.Pod, sidecars, upgrade, health); bad {
		return v
	}
	if upgrade == nil {
		return watchNewborn(state, health, view.Now)
	}
	if upgrade.Revision != view.Target.Hash {
		return state.Verdict
	}
	if bound := health.MaxSidecarDowntimeSeconds; bound != nil && state.Downtime > time.Duration(*bound)*time.Second {
		return failed(v1alpha1.ReasonDowntime, "a sidecar was down for %s, longer than maxSidecarDowntimeSeconds", state.Downtime)
	}
	if !ptr.Deref(health.GuardApp, true) {
		return state.Verdict
	}
	return watchApp(state, view.Policy, upgrade, health, view.Now)
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
		status := &state.Pod.Status.ContainerStatuses[i]
		restarted := status.RestartCount > upgrade.Restarts[status.Name] && !state.Node.restartedByNode(status, upgrade.At.Time)
		if restarted && !inject.InjectedNames(state.Pod)[status.Name] {
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
