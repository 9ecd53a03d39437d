package rollout

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/prefetch"
)

// Why says why a pod of the input that lacks some of the target is not moved by the plan that was made
// of it, or that it is. The order is the planner's own.
func (p *Plan) Why(in Input, pod *fleet.PodState) (v1alpha1.Reason, string) {
	s := &p.Summary
	switch {
	case p.moves(pod):
		return v1alpha1.ReasonRollingOut, "it is its turn now"
	case pod.Exempt:
		return v1alpha1.ReasonExempt, exempt(pod)
	case pod.Refusal != nil && in.Now.Before(pod.Refusal.Until):
		return v1alpha1.ReasonUpdateRefused, pod.Refusal.Message
	case wayOf(pod, in.Spec) == none:
		return v1alpha1.ReasonStale, fmt.Sprintf("the method %s can't bring it %s: that takes a new pod", method(in.Spec), pod.Stale)
	case s.Hold != "":
		return s.Hold, s.HeldBy()
	case pod.Busy:
		return v1alpha1.ReasonRollingOut, "another policy is in the middle of upgrading it"
	case pod.Node.Down:
		return v1alpha1.ReasonRollingOut, "its node is not ready"
	case len(p.Tries) > 0:
		return v1alpha1.ReasonRollingOut, "one pod of each workload is tried as a dry run first"
	}
	return p.whyNot(in, pod)
}

func method(spec *v1alpha1.RolloutSpec) v1alpha1.RolloutMethod {
	if spec.Method == "" {
		return v1alpha1.MethodInPlace
	}
	return spec.Method
}

func exempt(pod *fleet.PodState) string {
	if pod.ExemptUntil.IsZero() {
		return "it is exempt by the annotation " + v1alpha1.ExemptUntilAnnotation + ", without an end that can be read"
	}
	return "it is exempt by the annotation " + v1alpha1.ExemptUntilAnnotation + " until " + clock(pod.ExemptUntil)
}

// HeldBy says why nothing may be started, where Hold does.
func (s *Summary) HeldBy() string {
	switch s.Hold {
	case v1alpha1.ReasonUpgradeFailed:
		return "revision " + s.FailedRevision + " has failed: " + s.FailureMessage
	case v1alpha1.ReasonPaused:
		return "spec.rollout.paused is true"
	case v1alpha1.ReasonOnDelete:
		return "spec.rollout.method is OnDelete: it gets the target when it is recreated"
	case v1alpha1.ReasonNotAccepted:
		return "the spec is not accepted"
	}
	if s.OpensAt.IsZero() {
		return "no window opens any more"
	}
	return "the next window opens at " + clock(s.OpensAt)
}

// moves says whether the plan does something with the pod.
func (p *Plan) moves(pod *fleet.PodState) bool {
	return slices.Contains(p.moved(), pod)
}

func (p *Plan) moved() []*fleet.PodState {
	return slices.Concat(upgraded(p.Upgrades), p.Evictions, p.Drains, p.Replaced)
}

// whyNot asks the step, the images and the budgets, after the pods that the plan moves have passed.
func (p *Plan) whyNot(in Input, pod *fleet.PodState) (v1alpha1.Reason, string) {
	step := p.Step.DeepCopy()
	gate := newGate(&in, step)
	ledger := newLedger(in)
	for _, moved := range p.moved() {
		gate.take(moved)
		_ = ledger.reserve(moved) // it was allowed
	}
	if !gate.admits(pod) {
		return p.whyStep()
	}
	c := &chooser{in: &in, plan: p}
	if c.othersFail(pod) {
		return v1alpha1.ReasonUpgradeFailed, "pods fail on the stable revision, so that something else is wrong"
	}
	if lacks := c.lacksImages(pod); lacks != "" {
		return v1alpha1.ReasonPrefetching, lacks
	}
	_, refusal := newWays(&in, step, gate).of(pod)
	if refusal == "" {
		refusal = ledger.reserve(pod)
	}
	if refusal == "" {
		refusal = "its turn comes in one of the next passes"
	}
	return v1alpha1.ReasonRollingOut, refusal
}

// lacksImages says which images a pod waits for on its node; empty where it waits for none.
func (c *chooser) lacksImages(pod *fleet.PodState) string {
	if c.in.Images == nil || wayOf(pod, c.in.Spec) != inPlace || len(pod.Images) == 0 || pod.Verdict.State == fleet.Failed {
		return ""
	}
	presence, message := c.in.Images(pod.Pod, newImages(pod))
	if presence == prefetch.Present || presence == prefetch.Unknown {
		return ""
	}
	return message
}

// whyStep says what keeps the roll-out at its step.
func (p *Plan) whyStep() (v1alpha1.Reason, string) {
	s := &p.Summary
	at := fmt.Sprintf("step %s has not reached it (%s)", p.Step.Name, progress(s))
	switch {
	case s.AwaitingApproval != "":
		return v1alpha1.ReasonAwaitingApproval, at + ", and awaits approval"
	case !s.SoakingUntil.IsZero():
		return v1alpha1.ReasonSoaking, at + ", and soaks until " + clock(s.SoakingUntil)
	case s.Analyzing != "":
		return v1alpha1.ReasonAnalyzing, at + ", and waits for its analysis: " + s.Analyzing
	case s.Blocked != "":
		return v1alpha1.ReasonRollingOut, at + ", and waits: " + s.Blocked
	}
	return v1alpha1.ReasonRollingOut, at
}

// Intent is what a method is going to do with a pod.
type Intent string

// What becomes of a pod.
const (
	// IntentNone: it has all of the target, or can't be brought nearer to it.
	IntentNone Intent = "None"
	// IntentInPlace: it is changed where it is.
	IntentInPlace Intent = "InPlace"
	// IntentRecreate: it is evicted, and its owner makes another.
	IntentRecreate Intent = "Recreate"
)

// WhyMissing says what becomes of a pod of the input that lacks the sidecars and could have them.
func (p *Plan) WhyMissing(in Input, pod *fleet.PodState) string {
	m := &p.Summary.Missing
	switch {
	case in.Missing != v1alpha1.MissingRecreate:
		return "it gets the sidecars when it is recreated"
	case p.moves(pod):
		return "it is its turn to be replaced"
	case pod.Exempt:
		return exempt(pod)
	case !replaceable(pod, in.Spec):
		return "nobody would make it anew, and spec.rollout.evictUnmanaged is false"
	case m.Message != "":
		return "it is not replaced: " + m.Message
	case m.Blocked != "":
		return "it waits to be replaced: " + m.Blocked
	}
	return "it is replaced when others of its workload have been"
}

// IntentFor says what the method is going to do with a pod.
func IntentFor(pod *fleet.PodState, spec *v1alpha1.RolloutSpec) Intent {
	switch wayOf(pod, spec) {
	case inPlace:
		return IntentInPlace
	case evict:
		return IntentRecreate
	}
	return IntentNone
}

// Allowance is what a budget allows of one group of pods.
type Allowance struct {
	// Per is what the group is counted over, Group its name.
	Per   v1alpha1.BudgetScope
	Group string
	// Limit of the Total pods may be unavailable, and Unavailable are now.
	Total, Unavailable, Limit int
}

// Allowances are what each of the policy's budgets allows now, the fleet's first, then by group.
func Allowances(in Input) []Allowance {
	l := newLedger(in)
	list := make([]Allowance, 0, len(l.accounts))
	for g, a := range l.accounts {
		list = append(list, Allowance{Per: g.per, Group: a.name, Total: a.total, Unavailable: a.unavailable, Limit: a.limit})
	}
	slices.SortFunc(list, func(a, b Allowance) int {
		return cmp.Or(cmp.Compare(slices.Index(l.scopes, a.Per), slices.Index(l.scopes, b.Per)), cmp.Compare(a.Group, b.Group))
	})
	return list
}
