package controllers

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/metrics"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
)

type conditionStatus = metav1.ConditionStatus

const (
	yes     = metav1.ConditionTrue
	no      = metav1.ConditionFalse
	unknown = metav1.ConditionUnknown
)

// writeStatus reports the pass: one write, and only when something changed; counts that go on
// changing, as while pods come and go, are gathered. Events follow a write that succeeded.
func (r *SidecarPolicyReconciler) writeStatus(ctx context.Context, p *pass, failure error) error {
	before := p.policy.Status
	after := nextStatus(p, failure)
	metrics.SetStatus(p.policy.Name, &after)
	if equality.Semantic.DeepEqual(before, after) {
		return nil
	}
	if wait := r.reported[p.policy.Name].Add(r.CountsEvery).Sub(p.now); wait > 0 && countsAlone(&before, &after) {
		p.lookAgain(wait)
		return nil
	}
	updated := p.policy.DeepCopy()
	updated.Status = after
	if err := r.Status().Update(ctx, updated); err != nil {
		return fmt.Errorf("writing the status: %w", err)
	}
	if r.reported == nil {
		r.reported = map[string]time.Time{}
	}
	r.reported[p.policy.Name] = p.now
	r.announce(p.policy, &before, &after)
	r.announceMissing(p, &before, &after)
	return nil
}

// countsAlone says whether two statuses differ in numbers, and in words about them, that nothing is decided by.
func countsAlone(before, after *v1alpha1.SidecarPolicyStatus) bool {
	return equality.Semantic.DeepEqual(withoutCounts(before), withoutCounts(after))
}

func withoutCounts(status *v1alpha1.SidecarPolicyStatus) v1alpha1.SidecarPolicyStatus {
	rest := *status
	rest.Pods, rest.MaxSidecarDowntimeSeconds = nil, nil
	rest.Conditions = slices.Clone(rest.Conditions)
	for i := range rest.Conditions {
		rest.Conditions[i].Message = ""
	}
	return rest
}

// nextStatus computes the status from what the pass found.
func nextStatus(p *pass, failure error) v1alpha1.SidecarPolicyStatus {
	status := *p.policy.Status.DeepCopy()
	status.ObservedGeneration = p.policy.Generation
	if p.goal == nil && status.Phase == "" {
		status.Phase = v1alpha1.PhaseIdle
	}
	if p.goal != nil {
		p.aim.Report(&status, p.plan)
	}
	p.noteBirths(&status)
	for _, c := range conditions(p, failure) {
		c.ObservedGeneration = p.policy.Generation
		meta.SetStatusCondition(&status.Conditions, c)
	}
	return status
}

// conditions are all of the policy's, each by its own function.
func conditions(p *pass, failure error) []metav1.Condition {
	if p.removing {
		return removalConditions(p, failure)
	}
	list := []metav1.Condition{
		condition(v1alpha1.ConditionAccepted, p.accepted),
	}
	if p.accepted.holds != yes {
		return append(list, conditionsUnaccepted(p)...)
	}
	list = append(list, condition(v1alpha1.ConditionInjecting, p.injecting))
	if p.plan == nil {
		blind := finding{unknown, v1alpha1.ReasonObserveFailed, "the fleet could not be looked at: " + words(failure)}
		return append(list,
			condition(v1alpha1.ConditionProgressing, blind),
			condition(v1alpha1.ConditionAvailable, blind),
			condition(v1alpha1.ConditionDegraded, blind),
			condition(v1alpha1.ConditionReady, blind))
	}
	s := &p.plan.Summary
	return append(list,
		condition(v1alpha1.ConditionProgressing, progressing(p)),
		condition(v1alpha1.ConditionAvailable, available(s)),
		condition(v1alpha1.ConditionDegraded, degraded(p)),
		condition(v1alpha1.ConditionReady, isReady(p)))
}

// conditionsUnaccepted are those of a policy of which the spec is not accepted; Injecting stays as it is.
func conditionsUnaccepted(p *pass) []metav1.Condition {
	held := finding{no, v1alpha1.ReasonNotAccepted, "the spec is not accepted; what was accepted before stays in force"}
	if p.accepted.holds == unknown {
		held = finding{unknown, v1alpha1.ReasonNotChecked, p.accepted.message}
	}
	list := []metav1.Condition{condition(v1alpha1.ConditionProgressing, held), condition(v1alpha1.ConditionReady, held)}
	if p.plan != nil {
		list = append(list,
			condition(v1alpha1.ConditionAvailable, available(&p.plan.Summary)),
			condition(v1alpha1.ConditionDegraded, degraded(p)))
	}
	return list
}

func words(err error) string {
	if err == nil {
		return "not tried"
	}
	return err.Error()
}

func condition(kind string, f finding) metav1.Condition {
	if f.reason == "" {
		f = finding{unknown, v1alpha1.ReasonNotChecked, "not looked at yet"}
	}
	return metav1.Condition{Type: kind, Status: f.holds, Reason: string(f.reason), Message: f.message}
}

func progressing(p *pass) finding {
	s := &p.plan.Summary
	c := &s.Counts
	switch {
	case p.aim.RollingBack() && s.Finished():
		return finding{no, v1alpha1.ReasonRolledBack, stopped(p)}
	case p.aim.GoingBack() && !s.Finished():
		return finding{yes, v1alpha1.ReasonRollingBack, fmt.Sprintf("%d pods wait to be put back to revision %s, %d are being upgraded", s.Waiting()-s.Starting, p.aim.Target.Hash, s.Updating+s.Starting) + heldUp(s)}
	case s.Finished():
		return finding{no, v1alpha1.ReasonComplete, fmt.Sprintf("%d of %d injected pods run the target revision", c.Updated, c.Injected)}
	case s.Hold == v1alpha1.ReasonUpgradeFailed:
		return finding{no, v1alpha1.ReasonUpgradeFailed, stopped(p)}
	case s.Hold == v1alpha1.ReasonPaused:
		return finding{no, v1alpha1.ReasonPaused, fmt.Sprintf("%d pods lack the target revision; spec.rollout.paused is true", s.Waiting())}
	case s.Hold == v1alpha1.ReasonOnDelete:
		return finding{no, v1alpha1.ReasonOnDelete, fmt.Sprintf("%d pods get the target revision when they are recreated, as spec.rollout.method is OnDelete", s.Waiting())}
	case s.Hold == v1alpha1.ReasonFrozen:
		return finding{no, v1alpha1.ReasonFrozen, frozen(s)}
	}
	return rollingOut(p)
}

func frozen(s *rollout.Summary) string {
	message := fmt.Sprintf("%d pods lack the target revision; no window of spec.rollout.windows is open", s.Waiting())
	if s.OpensAt.IsZero() {
		return message
	}
	return message + ", the next one opens at " + s.OpensAt.UTC().Format(time.RFC3339)
}

// rollingOut says which step a roll-out is at, and what it waits for.
func rollingOut(p *pass) finding {
	s := &p.plan.Summary
	at := ""
	if p.plan.Step != nil {
		at = fmt.Sprintf("step %s: ", p.plan.Step.Name)
	}
	switch {
	case s.Prefetching > 0 && s.Starting == 0 && s.Updating == 0 && s.Blocked == "":
		return finding{yes, v1alpha1.ReasonPrefetching, fmt.Sprintf("%s%d pods wait for their images to be on their nodes", at, s.Prefetching)}
	case s.AwaitingApproval != "":
		return finding{yes, v1alpha1.ReasonAwaitingApproval, fmt.Sprintf("%swaits for approval: kubectl annotate --overwrite sidecarpolicy/%s %s=%s", at, p.policy.Name, v1alpha1.ApproveAnnotation, s.AwaitingApproval)}
	case !s.SoakingUntil.IsZero():
		return finding{yes, v1alpha1.ReasonSoaking, fmt.Sprintf("%s%d pods run the target revision and are watched until %s", at, s.Counts.Updated, s.SoakingUntil.UTC().Format(time.RFC3339))}
	case s.Analyzing != "":
		return finding{yes, v1alpha1.ReasonAnalyzing, at + "waits for its analysis: " + s.Analyzing}
	}
	message := fmt.Sprintf("%s%d of %d injected pods run the target revision, %d are being upgraded, %d wait", at, s.Counts.Updated, s.Counts.Injected, s.Updating+s.Starting, s.Waiting()-s.Starting)
	return finding{yes, v1alpha1.ReasonRollingOut, message + holdups(s)}
}

// heldUp says why pods are not put back.
func heldUp(s *rollout.Summary) string {
	if s.Hold != "" {
		return ": " + s.HeldBy()
	}
	return holdups(s)
}

// holdups says what pods wait for.
func holdups(s *rollout.Summary) string {
	text := ""
	if s.Blocked != "" {
		text += ": " + s.Blocked
	}
	if s.Prefetching > 0 {
		text += fmt.Sprintf("; %d wait for their images", s.Prefetching)
	}
	if s.NotPrefetched != "" {
		text += "; images are not prefetched: " + s.NotPrefetched
	}
	return text
}

// stopped says which revision failed, why, and what to do.
func stopped(p *pass) string {
	revision, why := p.aim.Failed, p.policy.Status.FailureMessage
	if revision == "" {
		revision, why = p.plan.Summary.FailedRevision, p.plan.Summary.FailureMessage
	}
	again := v1alpha1.RetryAnnotation + "=" + revision
	if p.policy.Annotations[v1alpha1.AbortAnnotation] == revision {
		again += " " + v1alpha1.AbortAnnotation + "-"
	}
	return fmt.Sprintf("revision %s failed (%s); write a good image, or the previous one, into spec.template, or try it again: kubectl annotate --overwrite sidecarpolicy/%s %s",
		revision, why, p.policy.Name, again)
}

func available(s *rollout.Summary) finding {
	message := fmt.Sprintf("%d of %d selected pods are unavailable", s.Counts.Unavailable, s.Counts.Selected)
	if s.WithinBudget {
		return finding{yes, v1alpha1.ReasonWithinBudget, message}
	}
	return finding{no, v1alpha1.ReasonBudgetExceeded, message + ", more than the fleet budget allows"}
}

func degraded(p *pass) finding {
	s := &p.plan.Summary
	c := &s.Counts
	switch {
	case s.FailedRevision != "" || p.aim.Failed != "":
		return finding{yes, v1alpha1.ReasonUpgradeFailed, stopped(p)}
	case c.Failed > 0:
		return finding{yes, v1alpha1.ReasonUpgradeFailed, fmt.Sprintf("%d pods are not healthy on the revision that they should have (see status.unhealthy)", c.Failed)}
	case s.Refused > 0:
		return finding{yes, v1alpha1.ReasonUpdateRefused, fmt.Sprintf("the API server refuses to update %d pods (see status.unhealthy); the others go on", s.Refused)}
	}
	for _, look := range []func(*pass) (finding, bool){unplugTrouble, heldTrouble, missingTrouble} {
		if trouble, found := look(p); found {
			return trouble
		}
	}
	if c.Conflicting > 0 {
		return finding{yes, v1alpha1.ReasonConflict, fmt.Sprintf("%d pods were left as they are, because the sidecars clash with what they have, or are not allowed there (see status.unhealthy)", c.Conflicting)}
	}
	return finding{no, v1alpha1.ReasonHealthy, "nothing needs a person"}
}

// isReady is the summary: True when nothing that carries the sidecars lacks any of the
// target revision, and new pods get it.
func isReady(p *pass) finding {
	s := &p.plan.Summary
	c := &s.Counts
	switch {
	case !s.Finished() || p.aim.RollingBack():
		why := progressing(p)
		return finding{no, why.reason, why.message}
	case c.Stale > 0:
		return finding{no, v1alpha1.ReasonStalePods, staleMessage(s)}
	}
	if trouble, found := newPodsTrouble(p); found {
		return trouble
	}
	message := fmt.Sprintf("%d pods run the target revision", c.Updated)
	if c.Exempt > 0 {
		message += fmt.Sprintf("; %d are exempt by the annotation %s", c.Exempt, v1alpha1.ExemptUntilAnnotation)
	}
	for _, more := range []string{heldMessage(p), missingMessage(p), deselectedMessage(p)} {
		if more != "" {
			message += "; " + more
		}
	}
	return finding{yes, v1alpha1.ReasonComplete, message}
}

// newPodsTrouble is what keeps new pods from getting what they should, as far as the author wants that.
func newPodsTrouble(p *pass) (finding, bool) {
	switch {
	case p.policy.Spec.Injection.Paused:
		return finding{}, false
	case p.injecting.holds != yes || p.injecting.reason == v1alpha1.ReasonWaitingForAPIServer:
		return finding{no, p.injecting.reason, p.injecting.message}, true
	case p.injectsOther:
		return finding{no, v1alpha1.ReasonWaitingForAPIServer, "new pods get what they got before the last change, until the API server acts on it"}, true
	}
	return finding{}, false
}

// staleMessage says how many pods need a person, or their owners, to be recreated.
func staleMessage(s *rollout.Summary) string {
	message := fmt.Sprintf("%d pods lack template changes that can't be made in a running pod: recreate them (kubectl rollout restart) to bring them up to date", s.Counts.Stale)
	if s.Surplus > 0 {
		message += fmt.Sprintf("; %d of them still carry containers that the template has no more, which onRemoval: Recreate takes out", s.Surplus)
	}
	return message
}

// announce sends an event for each thing that the write made known.
func (r *SidecarPolicyReconciler) announce(policy *v1alpha1.SidecarPolicy, before, after *v1alpha1.SidecarPolicyStatus) {
	r.announceSteering(policy, before, after)
	r.announceRollout(policy, before, after)
	for _, kind := range []string{v1alpha1.ConditionAccepted, v1alpha1.ConditionDegraded} {
		was, is := meta.FindStatusCondition(before.Conditions, kind), meta.FindStatusCondition(after.Conditions, kind)
		good := kind == v1alpha1.ConditionAccepted
		if is == nil || (was != nil && was.Status == is.Status && was.Reason == is.Reason) {
			continue
		}
		if (is.Status == yes) != good && is.Status != unknown {
			r.event(policy, corev1.EventTypeWarning, v1alpha1.Reason(is.Reason), kind, "%s", is.Message)
		}
	}
}

// phaseReasons are the phases that are worth an event, with its reason.
var phaseReasons = map[v1alpha1.Phase]v1alpha1.Reason{
	v1alpha1.PhaseAwaitingApproval: v1alpha1.ReasonAwaitingApproval,
	v1alpha1.PhasePaused:           v1alpha1.ReasonPaused,
	v1alpha1.PhaseRollingBack:      v1alpha1.ReasonRollingBack,
	v1alpha1.PhaseRolledBack:       v1alpha1.ReasonRolledBack,
}

// announceSteering tells of what people said to a roll-out.
func (r *SidecarPolicyReconciler) announceSteering(policy *v1alpha1.SidecarPolicy, before, after *v1alpha1.SidecarPolicyStatus) {
	sameTarget, resumed := after.TargetRevision == before.TargetRevision, before.Phase == v1alpha1.PhasePaused && after.Phase != v1alpha1.PhasePaused
	if after.HandledRetry != before.HandledRetry {
		r.tell(policy, v1alpha1.ReasonRetried, "revision %s is tried again, as the annotation %s asks", after.TargetRevision, v1alpha1.RetryAnnotation)
	}
	if !sameTarget && policy.Spec.Rollout.Revision != "" {
		r.tell(policy, v1alpha1.ReasonUndone, "revision %s is the target, as spec.rollout.revision asks", after.TargetRevision)
	}
	if sameTarget && resumed && !policy.Spec.Rollout.Paused {
		r.tell(policy, v1alpha1.ReasonResumed, "revision %s: the roll-out goes on", after.TargetRevision)
	}
}

// tell sends an event about a roll-out.
func (r *SidecarPolicyReconciler) tell(policy *v1alpha1.SidecarPolicy, reason v1alpha1.Reason, note string, args ...any) {
	r.event(policy, corev1.EventTypeNormal, reason, "RollOut", note, args...)
}

// announceRollout tells of the target, its steps and its end.
func (r *SidecarPolicyReconciler) announceRollout(policy *v1alpha1.SidecarPolicy, before, after *v1alpha1.SidecarPolicyStatus) {
	if begun := after.Step; begun != nil && !sameStep(before, after) {
		r.tell(policy, v1alpha1.ReasonStepStarted, "revision %s: step %s%s", after.TargetRevision, begun.Name, byHand(policy, before))
	}
	if reason := phaseReasons[after.Phase]; reason != "" && after.Phase != before.Phase {
		progressing := meta.FindStatusCondition(after.Conditions, v1alpha1.ConditionProgressing)
		r.tell(policy, reason, "%s", progressing.Message)
	}
	if after.StableRevision != before.StableRevision {
		r.tell(policy, v1alpha1.ReasonRolloutComplete, "revision %s is the stable one%s", after.StableRevision, byHand(policy, before))
	}
}

func sameStep(before, after *v1alpha1.SidecarPolicyStatus) bool {
	return before.Step != nil && before.Step.Name == after.Step.Name && before.TargetRevision == after.TargetRevision
}

// byHand says who let a step end that waited for it.
func byHand(policy *v1alpha1.SidecarPolicy, before *v1alpha1.SidecarPolicyStatus) string {
	if before.Step == nil {
		return ""
	}
	switch before.TargetRevision + "/" + before.Step.Name {
	case policy.Annotations[v1alpha1.PromoteAnnotation]:
		return ", as " + before.Step.Name + " was promoted"
	case policy.Annotations[v1alpha1.ApproveAnnotation]:
		return ", as " + before.Step.Name + " was approved"
	}
	return ""
}

func (r *SidecarPolicyReconciler) event(regarding runtime.Object, kind string, reason v1alpha1.Reason, action, note string, args ...any) {
	r.Recorder.Eventf(regarding, nil, kind, string(reason), action, note, args...)
}
