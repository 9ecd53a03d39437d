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
	// waiting are the pods that go on waiting, rested is when all of a workload are old enough.
	waiting []*fleet.PodState
	rested  map[fleet.Workload]time.Time
}

// free lets pods go that wait for nothing: they have the sidecars, or are not to wait for them any more. While the spec is not
// accepted, what was accepted before stays in force, whatever that is.
func (h *holder) free() {
	in := h.in
	released := in.Removing || !in.NotAccepted
	for i := range in.Deselected {
		if pod := &in.Deselected[i]; pod.Held && released {
			h.plan.Released = append(h.plan.Released, pod)
		}
	}
	for i := range in.Pods {
		if pod := &in.Pods[i]; pod.Held {
			h.freeOrRest(pod, in.Removing || (released && !in.Holding))
		}
	}
}

func (h *holder) freeOrRest(pod *fleet.PodState, released bool) {
	if released || pod.Injected {
		h.plan.Released = append(h.plan.Released, pod)
		return
	}
	h.waiting = append(h.waiting, pod)
	h.rested[pod.Workload] = later(h.rested[pod.Workload], pod.Pod.CreationTimestamp.Add(holdRest))
}

// replace names the pods that may go. A bare one would be lost, whatever the author says of those.
func (h *holder) replace() {
	s := &h.plan.Summary.Held
	for _, pod := range h.waiting {
		rested := h.rested[pod.Workload]
		switch {
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
