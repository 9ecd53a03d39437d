// Package rollout decides what to do now. It is pure: the same input gives the same plan,
// for the manager, for simulations and for benchmarks.
package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
)

// maxUpgradesPerPass bounds one pass, so that policies take turns and settings that
// change in the middle are seen soon.
const maxUpgradesPerPass = 500

// retryBlocked is when a roll-out that waits for something outside looks again, though
// nothing told it to.
const retryBlocked = time.Minute

// seeAnswers is when the pass after one that starts upgrades comes at the latest: an upgrade
// that the API server refuses changes no pod, and so wakes nobody.
const seeAnswers = time.Second

// Input is everything that a plan depends on.
type Input struct {
	// Spec is the policy's roll-out settings.
	Spec *v1alpha1.RolloutSpec
	// Target is the revision that pods should get.
	Target *revision.Revision
	// Pods is the fleet as fleet.Judge returns it.
	Pods []fleet.PodState
	// Disruptions are the PodDisruptionBudgets of the fleet's namespaces.
	Disruptions []fleet.Disruption
	// Stable is the name of the last revision that finished; empty before the first.
	Stable string
	// Step is the step that was reached before; nil at the beginning of a roll-out.
	Step *v1alpha1.StepStatus
	// Failed is the revision that is remembered to have failed, and FailureMessage why.
	Failed, FailureMessage string
	// Approved, Promoted and Aborted are what people said: see the annotations of the API.
	Approved, Promoted, Aborted string
	// Now is the time of the decision.
	Now time.Time
}

// Plan is what to do now, and where the roll-out stands before it is done.
type Plan struct {
	// Upgrades are to be sent, one PATCH each, in any order.
	Upgrades []Upgrade
	// Summary is where the roll-out stands.
	Summary Summary
	// Step is the step that is reached now; nil where nothing is rolled out by steps.
	Step *v1alpha1.StepStatus
	// Requeue is when to look again even if nothing changes. Zero: never.
	Requeue time.Duration
}

// Upgrade moves one pod to the target revision in place.
type Upgrade struct {
	// Pod is the pod as it was seen. It is only read.
	Pod *fleet.PodState
	// Revision is the target's name.
	Revision string
	// Label says whether the pod gets the target's label: a pod that stays stale
	// in other parts keeps its own.
	Label bool
}

// Make decides what to do now.
func Make(in Input) Plan {
	plan := Plan{Summary: summarize(in)}
	s := &plan.Summary
	s.Hold = holdReason(in.Spec, s)
	if s.Rolling {
		plan.Step = walk(&in, s)
	}
	if s.Hold == "" {
		plan.Upgrades, s.Blocked = choose(in, s, newGate(&in, plan.Step))
	}
	s.Starting = len(plan.Upgrades)
	plan.Requeue = requeue(in, &plan)
	return plan
}

// holdReason says why no upgrade may be started at all; empty when they may.
func holdReason(spec *v1alpha1.RolloutSpec, s *Summary) v1alpha1.Reason {
	switch {
	case s.FailedRevision != "":
		return v1alpha1.ReasonUpgradeFailed
	case s.Outdated == 0:
		return ""
	case spec.Paused:
		return v1alpha1.ReasonPaused
	case spec.Method == v1alpha1.MethodOnDelete:
		return v1alpha1.ReasonOnDelete
	}
	return ""
}

// choose picks the pods to upgrade, as many as the budgets allow, and says what
// holds up the first of the others.
func choose(in Input, s *Summary, gate *gate) ([]Upgrade, string) {
	ledger := newLedger(in)
	var upgrades []Upgrade
	blocked := ""
	for _, pod := range candidates(in) {
		if len(upgrades) == maxUpgradesPerPass {
			break
		}
		if !gate.admits(pod) || (pod.Available && !s.Rolling && s.Counts.Failed > 0) {
			continue // pods that fail on the stable revision say that something else is wrong
		}
		if refusal := ledger.reserve(pod); refusal != "" {
			if blocked == "" {
				blocked = refusal
			}
			continue
		}
		gate.take()
		upgrades = append(upgrades, Upgrade{Pod: pod, Revision: in.Target.Hash, Label: pod.Stale == ""})
	}
	return upgrades, blocked
}

// candidates are the pods that may be upgraded now: those that are down first, since
// they cost nothing, then by name.
func candidates(in Input) []*fleet.PodState {
	var pods []*fleet.PodState
	for i := range in.Pods {
		if pod := &in.Pods[i]; startable(pod, in) {
			pods = append(pods, pod)
		}
	}
	slices.SortStableFunc(pods, func(a, b *fleet.PodState) int {
		return cmp.Compare(rank(a), rank(b))
	})
	return pods
}

func rank(pod *fleet.PodState) int {
	if pod.Available {
		return 1
	}
	return 0
}

func startable(pod *fleet.PodState, in Input) bool {
	return pod.Injected && pod.Outdated() && !pod.Busy &&
		(pod.Refusal == nil || !in.Now.Before(pod.Refusal.Until))
}

// requeue is the time until the first moment at which time alone changes the plan.
func requeue(in Input, plan *Plan) time.Duration {
	if len(plan.Upgrades) == maxUpgradesPerPass {
		return time.Millisecond
	}
	var next time.Time
	earlier := func(t time.Time) {
		if t.After(in.Now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	if len(plan.Upgrades) > 0 {
		earlier(in.Now.Add(seeAnswers))
	}
	for i := range in.Pods {
		earlier(in.Pods[i].Verdict.Recheck)
		earlier(in.Pods[i].Recheck)
		if refusal := in.Pods[i].Refusal; refusal != nil {
			earlier(refusal.Until)
		}
	}
	if plan.Summary.Blocked != "" {
		earlier(in.Now.Add(retryBlocked))
	}
	earlier(plan.Summary.SoakingUntil)
	if next.IsZero() {
		return 0
	}
	return max(next.Sub(in.Now), 50*time.Millisecond)
}

// String names the upgrade, for logs and notes.
func (u Upgrade) String() string {
	return fmt.Sprintf("%s/%s -> %s", u.Pod.Pod.Namespace, u.Pod.Pod.Name, u.Revision)
}
