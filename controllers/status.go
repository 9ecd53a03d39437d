package controllers

import (
	"context"
	"fmt"

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

// writeStatus reports the pass: one write, and only when something changed. Events follow
// a write that succeeded.
func (r *SidecarPolicyReconciler) writeStatus(ctx context.Context, p *pass, failure error) error {
	before := p.policy.Status
	after := nextStatus(p, failure)
	if after.Pods != nil {
		metrics.SetPods(p.policy.Name, after.Pods)
	}
	if equality.Semantic.DeepEqual(before, after) {
		return nil
	}
	updated := p.policy.DeepCopy()
	updated.Status = after
	if err := r.Status().Update(ctx, updated); err != nil {
		return fmt.Errorf("writing the status: %w", err)
	}
	r.announce(p.policy, &before, &after)
	return nil
}

// nextStatus computes the status from what the pass found.
func nextStatus(p *pass, failure error) v1alpha1.SidecarPolicyStatus {
	status := *p.policy.Status.DeepCopy()
	status.ObservedGeneration = p.policy.Generation
	if p.target != nil {
		status.TargetRevision = p.target.Hash
	}
	if p.plan != nil {
		s := &p.plan.Summary
		status.Pods = &s.Counts
		status.Unhealthy = s.Unhealthy
		status.FailedRevision = s.FailedRevision
		if s.Finished() {
			status.StableRevision = p.target.Hash
		}
		status.Phase = phase(s)
	}
	if p.target == nil && status.Phase == "" {
		status.Phase = v1alpha1.PhaseIdle
	}
	for _, c := range conditions(p, failure) {
		c.ObservedGeneration = p.policy.Generation
		meta.SetStatusCondition(&status.Conditions, c)
	}
	return status
}

func phase(s *rollout.Summary) v1alpha1.Phase {
	switch {
	case s.Finished():
		return v1alpha1.PhaseComplete
	case s.Hold == v1alpha1.ReasonPaused || s.Hold == v1alpha1.ReasonOnDelete:
		return v1alpha1.PhasePaused
	}
	return v1alpha1.PhaseProgressing
}

// conditions are all of the policy's, each by its own function.
func conditions(p *pass, failure error) []metav1.Condition {
	list := []metav1.Condition{
		condition(v1alpha1.ConditionAccepted, p.accepted),
	}
	if p.target == nil {
		held := finding{no, v1alpha1.ReasonNotAccepted, "the spec is not accepted; what was accepted before stays in force"}
		if p.accepted.holds == unknown {
			held = finding{unknown, v1alpha1.ReasonNotChecked, p.accepted.message}
		}
		return append(list,
			condition(v1alpha1.ConditionProgressing, held),
			condition(v1alpha1.ConditionReady, held))
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
		condition(v1alpha1.ConditionProgressing, progressing(s)),
		condition(v1alpha1.ConditionAvailable, available(s)),
		condition(v1alpha1.ConditionDegraded, degraded(s)),
		condition(v1alpha1.ConditionReady, isReady(p, s)))
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

func progressing(s *rollout.Summary) finding {
	c := &s.Counts
	switch {
	case s.Finished():
		return finding{no, v1alpha1.ReasonComplete, fmt.Sprintf("%d of %d injected pods run the target revision", c.Updated, c.Injected)}
	case s.FailedRevision != "":
		return finding{no, v1alpha1.ReasonUpgradeFailed, stopped(s)}
	case s.Hold == v1alpha1.ReasonPaused:
		return finding{no, v1alpha1.ReasonPaused, fmt.Sprintf("%d pods lack the target revision; spec.rollout.paused is true", s.Outdated)}
	case s.Hold == v1alpha1.ReasonOnDelete:
		return finding{no, v1alpha1.ReasonOnDelete, fmt.Sprintf("%d pods get the target revision when they are recreated, as spec.rollout.method is OnDelete", s.Outdated)}
	}
	message := fmt.Sprintf("%d of %d injected pods run the target revision, %d are being upgraded, %d wait", c.Updated, c.Injected, s.Updating+s.Starting, s.Outdated-s.Starting)
	if s.Blocked != "" {
		message += ": " + s.Blocked
	}
	return finding{yes, v1alpha1.ReasonRollingOut, message}
}

func stopped(s *rollout.Summary) string {
	return fmt.Sprintf("stopped: pods did not get healthy on revision %[1]s (%[2]d now, see status.unhealthy); write a good image, or the previous one, into spec.template, or annotate the policy with %[3]s=%[1]s to try it again",
		s.FailedRevision, s.Counts.Failed, v1alpha1.RetryAnnotation)
}

func available(s *rollout.Summary) finding {
	message := fmt.Sprintf("%d of %d selected pods are unavailable", s.Counts.Unavailable, s.Counts.Selected)
	if s.WithinBudget {
		return finding{yes, v1alpha1.ReasonWithinBudget, message}
	}
	return finding{no, v1alpha1.ReasonBudgetExceeded, message + ", more than the fleet budget allows"}
}

func degraded(s *rollout.Summary) finding {
	c := &s.Counts
	switch {
	case s.FailedRevision != "":
		return finding{yes, v1alpha1.ReasonUpgradeFailed, stopped(s)}
	case s.Refused > 0:
		return finding{yes, v1alpha1.ReasonUpdateRefused, fmt.Sprintf("the API server refuses to update %d pods (see status.unhealthy); the others go on", s.Refused)}
	case c.Conflicting > 0:
		return finding{yes, v1alpha1.ReasonConflict, fmt.Sprintf("%d pods were left as they are, because the sidecars clash with their own parts (see status.unhealthy)", c.Conflicting)}
	}
	return finding{no, v1alpha1.ReasonHealthy, "nothing needs a person"}
}

// isReady is the summary: True when nothing that carries the sidecars lacks any of the
// target revision, and new pods get it.
func isReady(p *pass, s *rollout.Summary) finding {
	c := &s.Counts
	switch {
	case !s.Finished():
		return finding{no, progressing(s).reason, progressing(s).message}
	case c.Stale > 0:
		return finding{no, v1alpha1.ReasonStalePods, fmt.Sprintf("%d pods lack template changes that can't be made in a running pod: recreate them (kubectl rollout restart) to bring them up to date", c.Stale)}
	case p.injecting.holds != yes && !p.policy.Spec.Injection.Paused:
		return finding{no, p.injecting.reason, p.injecting.message}
	}
	message := fmt.Sprintf("%d pods run the target revision", c.Updated)
	if c.Missing > 0 {
		message += fmt.Sprintf("; %d selected pods don't have the sidecars and get them when they are recreated", c.Missing)
	}
	return finding{yes, v1alpha1.ReasonComplete, message}
}

// announce sends an event for each thing that the write made known.
func (r *SidecarPolicyReconciler) announce(policy *v1alpha1.SidecarPolicy, before, after *v1alpha1.SidecarPolicyStatus) {
	if after.StableRevision != before.StableRevision {
		r.event(policy, corev1.EventTypeNormal, v1alpha1.ReasonRolloutComplete, "RollOut", "revision %s is the stable one", after.StableRevision)
	}
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

func (r *SidecarPolicyReconciler) event(regarding runtime.Object, kind string, reason v1alpha1.Reason, action, note string, args ...any) {
	r.Recorder.Eventf(regarding, nil, kind, string(reason), action, note, args...)
}
