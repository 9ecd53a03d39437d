package rollout

import (
	"strings"
	"time"

	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
)

// Aim is what a pass over a policy is to reach, and what was said about it before.
type Aim struct {
	// Goal is the revision that the spec asks for.
	Goal *revision.Revision
	// Target is what pods should get now: the goal or, after it has failed and where the author
	// wants that, the stable revision.
	Target *revision.Revision
	// Failed is the goal's name when it is remembered to have failed; else empty.
	Failed string
	// stable is what is gone back to when the goal fails; nil where nothing is.
	stable *revision.Revision
	// retry is the request to try a failed goal again that this pass acts on.
	retry string
	// withdrawn is the target of a roll-out that the author took back by the stable template, before it was over.
	withdrawn string
	policy    *v1alpha1.SidecarPolicy
}

// TakeAim decides what a pass is to reach.
func TakeAim(policy *v1alpha1.SidecarPolicy, goal *revision.Revision, revisions []revision.Revision) Aim {
	status := &policy.Status
	aim := Aim{Goal: goal, Target: goal, withdrawn: withdrawn(status, goal.Hash), policy: policy}
	if policy.Spec.Rollout.OnFailure != v1alpha1.FailurePause {
		aim.stable = revision.Get(revisions, status.StableRevision)
	}
	if status.FailedRevision != goal.Hash {
		return aim
	}
	aborted := policy.Annotations[v1alpha1.AbortAnnotation] == goal.Hash // a retry waits until that is removed
	if retry := policy.Annotations[v1alpha1.RetryAnnotation]; retry != status.HandledRetry && !aborted {
		if name, _, _ := strings.Cut(retry, "/"); name == goal.Hash {
			aim.retry = retry
			return aim
		}
	}
	aim.Failed = goal.Hash
	if aim.stable != nil {
		aim.Target = aim.stable
	}
	return aim
}

// withdrawn is what the author took back by making the stable revision the goal; empty where it was not so, or is over.
func withdrawn(status *v1alpha1.SidecarPolicyStatus, goal string) string {
	switch {
	case goal != status.StableRevision:
		return ""
	case status.TargetRevision != goal:
		return status.TargetRevision
	}
	return status.WithdrawnRevision
}

// RollingBack says whether pods are put back to the stable revision because the goal has failed.
func (a *Aim) RollingBack() bool { return a.Target.Hash != a.Goal.Hash }

// GoingBack says whether pods are put back to the stable revision, because the goal has failed or was taken back.
func (a *Aim) GoingBack() bool { return a.RollingBack() || a.withdrawn != "" }

// LeavesBehind says whether pods are taken back from a revision, since it failed or was withdrawn.
func (a *Aim) LeavesBehind(revision string) bool {
	return revision != "" && revision != a.Target.Hash && (revision == a.Failed || revision == a.withdrawn)
}

// Rolling says whether the target is new, and so has to prove itself.
func (a *Aim) Rolling() bool { return a.Target.Hash != a.policy.Status.StableRevision }

// Watching says whether pods on the target are watched for what the target does to them. The first
// revision is not: there is nothing to go back to.
func (a *Aim) Watching() bool { return a.Rolling() && a.policy.Status.StableRevision != "" }

// watchedSince is when the roll-out began, in whole seconds like the times of pods; zero where that is not known.
func (a *Aim) watchedSince(now time.Time) time.Time {
	step := a.step()
	switch {
	case step == nil:
		return now.Truncate(time.Second)
	case step.RolloutStartedAt == nil:
		return time.Time{}
	}
	return step.RolloutStartedAt.Truncate(time.Second)
}

// step is the one that the way to the goal has reached; nil where that begins now.
func (a *Aim) step() *v1alpha1.StepStatus {
	if a.policy.Status.TargetRevision != a.Goal.Hash || a.retry != "" {
		return nil
	}
	return a.policy.Status.Step
}

// View is the policy's point of view on its fleet.
func (a *Aim) View(revisions []revision.Revision, now time.Time) *fleet.View {
	spec := &a.policy.Spec
	view := &fleet.View{Policy: a.policy.Name, Target: a.Target, Revisions: revisions, Now: now,
		Since: a.policy.CreationTimestamp.Time, RestartedAt: spec.Template.RestartedAt,
		TakesOut: spec.OnRemoval == v1alpha1.RemovalRecreate}
	if a.Watching() { // else nothing of it changes with the time
		view.Watching, view.WatchedSince, view.GuardTime = true, a.watchedSince(now), spec.Rollout.GuardTime()
	}
	return view
}

// Input is what the planner has to know.
func (a *Aim) Input(pods []fleet.PodState, disruptions []fleet.Disruption, now time.Time) Input {
	status, annotations := &a.policy.Status, a.policy.Annotations
	return Input{
		Policy:         a.policy.Name,
		Spec:           &a.policy.Spec.Rollout,
		Stable:         status.StableRevision,
		Target:         a.Target,
		Pods:           pods,
		Disruptions:    disruptions,
		RollingBack:    a.GoingBack(),
		Failed:         a.Failed,
		FailureMessage: status.FailureMessage,
		Approved:       annotations[v1alpha1.ApproveAnnotation],
		Promoted:       annotations[v1alpha1.PromoteAnnotation],
		Aborted:        annotations[v1alpha1.AbortAnnotation],
		Missing:        a.policy.Spec.Missing,
		MaxMissing:     a.policy.Spec.MissingLimit(len(pods)),
		Replacements:   status.Replacements,
		OnRemoval:      a.policy.Spec.OnRemoval,
		Removing:       a.policy.DeletionTimestamp != nil,
		Holding:        a.policy.Spec.Injection.Holds(),
		Unplugging:     status.Unplugging,
		Step:           a.step(),
		Now:            now,
	}
}

// Report writes into a status where the roll-out stands. Without a plan that is its beginning.
func (a *Aim) Report(status *v1alpha1.SidecarPolicyStatus, plan *Plan) {
	if status.TargetRevision != a.Goal.Hash {
		status.TargetRevision, status.FailedRevision, status.FailureMessage, status.Step = a.Goal.Hash, "", "", nil
	}
	status.WithdrawnRevision = a.withdrawn
	if plan == nil {
		return
	}
	s := &plan.Summary
	if a.retry != "" {
		status.HandledRetry = a.retry
	}
	status.Pods, status.Unhealthy, status.Step = &s.Counts, s.Unhealthy, plan.Step
	status.Replacements, status.Unplugging = plan.Replacements, plan.Unplugging
	if a.policy.DeletionTimestamp != nil {
		status.Phase = v1alpha1.PhaseUnplugging
		return // revisions play no part any more
	}
	status.MaxSidecarDowntimeSeconds = seconds(s.Downtime)
	status.Phase = a.phase(s)
	if a.RollingBack() {
		return // what failed stays written until the goal changes
	}
	status.FailedRevision, status.FailureMessage = s.FailedRevision, s.FailureMessage
	if s.Finished() {
		status.StableRevision, status.WithdrawnRevision, status.Step = a.Target.Hash, "", nil
	}
}

func (a *Aim) phase(s *Summary) v1alpha1.Phase {
	switch {
	case a.RollingBack() && s.Finished():
		return v1alpha1.PhaseRolledBack
	case a.RollingBack() || (s.FailedRevision != "" && a.stable != nil):
		return v1alpha1.PhaseRollingBack
	case s.Finished():
		return v1alpha1.PhaseComplete
	}
	return s.phase()
}

// phase is what a roll-out that goes on waits for.
func (s *Summary) phase() v1alpha1.Phase {
	switch {
	case s.Hold == v1alpha1.ReasonFrozen:
		return v1alpha1.PhaseFrozen
	case s.Hold != "":
		return v1alpha1.PhasePaused
	case s.Prefetching > 0 && s.Starting == 0 && s.Updating == 0:
		return v1alpha1.PhasePrefetching
	case s.AwaitingApproval != "":
		return v1alpha1.PhaseAwaitingApproval
	case !s.SoakingUntil.IsZero() || s.Analyzing != "":
		return v1alpha1.PhaseSoaking
	}
	return v1alpha1.PhaseProgressing
}

// seconds is nil for nothing, and rounds up.
func seconds(d time.Duration) *int32 {
	if d <= 0 {
		return nil
	}
	return ptr.To(int32((d + time.Second - 1) / time.Second))
}
