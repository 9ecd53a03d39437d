package rollout

import (
	"time"

	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
)

// holdRest is how old all held pods of a workload are before they are replaced: where only some of the API servers reach the
// operator, what comes in their place may be held, too.
const holdRest = 10 * time.Second

// Held says what becomes of the pods that wait for the sidecars; see v1alpha1.FailurePolicyHold.
type Held struct {
	// Unmanaged are those that nobody would make anew: a person has to decide.
	Unmanaged int
	// Refused says why the first of those is not evicted that the API server does not let go; empty where there is none.
	Refused string
	// NextAt is when time alone lets the next ones go; zero where it does not.
	NextAt time.Time
}

// replaceHeld plans what becomes of the pods that wait for the sidecars. None of them has run yet, so that no budget, no
// window and no exemption plays a part: they are replaced by pods that have the sidecars, or need not wait any more. Whether a
// pod can have the sidecars at all, the webhook says when the new one is created.
func replaceHeld(in *Input, plan *Plan) {
	if plan.Summary.gated > 0 || len(in.Deselected) > 0 {
		h := &holder{in: in, plan: plan, rested: map[fleet.Workload]time.Time{}}
		h.free()
		h.replace()
	}
}

type holder struct {
	in   *Input
	plan *Plan
	// rested is when all held pods of a workload are old enough.
	rested map[fleet.Workload]time.Time
}

// free lets pods go that wait for nothing: they have the sidecars, or are not to wait for them any more. While the spec is not
// accepted, what was accepted before stays in force, whatever that is.
func (h *holder) free() {
	in := h.in
	for i := range in.Deselected {
		if pod := &in.Deselected[i]; pod.Held && (in.Removing || !in.NotAccepted) {
			h.plan.Released = append(h.plan.Released, pod)
		}
	}
	for i := range in.Pods {
		pod := &in.Pods[i]
		switch {
		case !pod.Held:
		case in.Removing || pod.Injected || (!in.Holding && !in.NotAccepted):
			h.plan.Released = append(h.plan.Released, pod)
		default:
			h.rested[pod.Workload] = later(h.rested[pod.Workload], pod.Pod.CreationTimestamp.Add(holdRest))
		}
	}
}

// replace names the pods that may go. A bare one would be lost, whatever the author says of those.
func (h *holder) replace() {
	s := &h.plan.Summary.Held
	for i := range h.in.Pods {
		pod := &h.in.Pods[i]
		rested, waits := h.rested[pod.Workload]
		switch {
		case !pod.Held || !waits || pod.Injected:
		case pod.Owner.UID == "" || (pod.Owner.Unmanaged && !h.in.Spec.EvictUnmanaged):
			s.Unmanaged++
		case h.in.Now.Before(rested):
			s.wakeAt(rested)
		case pod.Refusal != nil && h.in.Now.Before(pod.Refusal.Until):
			s.Refused = pod.Refusal.Message
			s.wakeAt(pod.Refusal.Until)
		case len(h.plan.Held) < maxUpgradesPerPass:
			h.plan.Held = append(h.plan.Held, pod)
		}
	}
}

func (h *Held) wakeAt(t time.Time) {
	if h.NextAt.IsZero() || t.Before(h.NextAt) {
		h.NextAt = t
	}
}
