package controllers

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/metrics"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
)

// outcomes remembers the pods that were being upgraded, and those that had failed, so that metrics count
// what becomes of them once. A manager that is started anew misses what ended while none was there.
type outcomes struct {
	policies map[string]lastSeen
}

// lastSeen is what the last pass over a policy saw.
type lastSeen struct {
	at               time.Time
	underway, failed map[types.UID]bool
}

// note publishes what the pass found of upgrades and budgets.
func (o *outcomes) note(p *pass) {
	if p.plan == nil {
		return
	}
	before, known := o.policies[p.policy.Name]
	if !known {
		before.at = p.now
	}
	now := lastSeen{at: p.now, underway: map[types.UID]bool{}, failed: map[types.UID]bool{}}
	for i := range p.pods {
		now.see(p.policy.Name, &p.pods[i], &before)
	}
	if o.policies == nil {
		o.policies = map[string]lastSeen{}
	}
	o.policies[p.policy.Name] = now
	metrics.SetBudgetUse(p.policy.Name, budgetUse(p))
}

func (s *lastSeen) see(policy string, pod *fleet.PodState, before *lastSeen) {
	uid := pod.Pod.UID
	switch {
	case pod.Verdict.State == fleet.Updating:
		s.underway[uid] = true
	case rollout.FailedOnTarget(pod):
		s.failed[uid] = true
		if !before.failed[uid] {
			metrics.ObserveFailure(policy, pod.Verdict.Reason)
		}
	case !pod.Verdict.HealthySince.IsZero() && (before.underway[uid] || pod.UpgradedAt.After(before.at)):
		metrics.ObserveUpgrade(policy, pod.Verdict.HealthySince.Sub(pod.UpgradedAt))
	}
}

// budgetUse is nothing where every pod is available: no need to count groups.
func budgetUse(p *pass) map[v1alpha1.BudgetScope]float64 {
	if p.plan.Summary.Counts.Unavailable > 0 || p.plan.Summary.Replacing > 0 {
		return rollout.BudgetUse(p.aim.Input(p.pods, nil, p.now))
	}
	none := map[v1alpha1.BudgetScope]float64{v1alpha1.PerFleet: 0, v1alpha1.PerWorkload: 0}
	for _, budget := range p.policy.Spec.Rollout.Budgets {
		none[budget.Per] = 0
	}
	return none
}

func (o *outcomes) forget(policy string) { delete(o.policies, policy) }
