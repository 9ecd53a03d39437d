package rollout

import (
	"fmt"
	"slices"
	"time"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/schedule"
)

// maxUnplugging is how many workloads lose sidecars at once, of pods that are not selected any more;
// the status holds as many.
const maxUnplugging = 50

// Unplug says how far pods have lost the sidecars that they are to lose.
type Unplug struct {
	// Carrying is how many still have them.
	Carrying int
	// Hold says why no pod is evicted, Message the same for a person; empty where they may be.
	Hold    v1alpha1.Reason
	Message string
	// Blocked says what holds up the first of them; empty when nothing does.
	Blocked string
	// Moving: some are on their way, so that what is blocked may go on by itself.
	Moving bool
	// NextAt is when time alone lets the next one go; zero where it does not.
	NextAt time.Time
}

// Stuck says whether nothing goes on until somebody does something.
func (u *Unplug) Stuck() bool {
	return u.Carrying > 0 && !u.Moving && (u.Hold == v1alpha1.ReasonPaused || u.Blocked != "")
}

// unplugger evicts pods that are to lose the sidecars: those that are not selected any more and, where the policy
// is being deleted, all. The new pods of the former are in no fleet, so that their workload is stored
// before a pod of it is touched: they are counted for as long as it is.
type unplugger struct {
	in   *Input
	plan *Plan
	// strays are the pods that are not selected any more.
	strays map[*fleet.PodState]bool
}

// unplug plans which pods are evicted to lose the sidecars.
func unplug(in *Input, plan *Plan, books *books) {
	if in.OnRemoval != v1alpha1.RemovalRecreate {
		return
	}
	u, d := &plan.Summary.Unplug, &unplugger{in: in, plan: plan, strays: map[*fleet.PodState]bool{}}
	carriers := d.carriers()
	u.Carrying = len(carriers)
	plan.Unplugging = d.unfinished()
	u.Moving = len(plan.Unplugging) > 0 || (in.Removing && len(in.Vacancies) > 0)
	if len(carriers) == 0 {
		return
	}
	if u.Hold, u.Message, u.NextAt = in.holdUnplug(); u.Hold != "" {
		return
	}
	d.evict(carriers, books.open())
	u.Moving = u.Moving || len(plan.Unplugged) > 0
}

// evict takes as many of the pods as the budgets allow, those that are down first.
func (d *unplugger) evict(pods []*fleet.PodState, ledger *ledger) {
	u := &d.plan.Summary.Unplug
	for _, pod := range downFirst(pods) {
		if d.plan.actions() >= maxUpgradesPerPass {
			return
		}
		if why := d.take(pod, ledger); why != "" && u.Blocked == "" {
			u.Blocked = why
		}
	}
}

// carriers are the pods that are to lose the sidecars.
func (d *unplugger) carriers() []*fleet.PodState {
	var carriers []*fleet.PodState
	for i := range d.in.Deselected {
		if pod := &d.in.Deselected[i]; pod.Injected {
			carriers, d.strays[pod] = append(carriers, pod), true
		}
	}
	for i := range d.in.Pods {
		if pod := &d.in.Pods[i]; d.in.Removing && pod.Injected {
			carriers = append(carriers, pod)
		}
	}
	return carriers
}

// holdUnplug says why no pod is evicted now, and until when where that is known.
func (in *Input) holdUnplug() (v1alpha1.Reason, string, time.Time) {
	switch {
	case in.Removing && in.Injecting:
		return v1alpha1.ReasonUnplugging, "injection into new pods is being stopped", time.Time{}
	case in.NotAccepted && !in.Removing:
		return v1alpha1.ReasonNotAccepted, "the spec is not accepted", time.Time{}
	case in.Spec.Paused:
		return v1alpha1.ReasonPaused, "spec.rollout.paused is true", time.Time{}
	}
	if open, changes := schedule.At(windows(in.Spec), in.Now); !open {
		return v1alpha1.ReasonFrozen, "no window of spec.rollout.windows is open", changes
	}
	return "", "", time.Time{}
}

// take has a pod evicted, or says what does not allow it.
func (d *unplugger) take(pod *fleet.PodState, ledger *ledger) string {
	why, until := d.in.notNow(pod)
	if until.After(d.in.Now) {
		d.wakeAt(until)
	}
	if why != "" {
		return why
	}
	if d.strays[pod] && !d.listed(pod.Workload.String()) {
		return pod.Workload.String() + " is about to be recreated"
	}
	if why := ledger.reserve(pod); why != "" {
		return why
	}
	d.plan.Unplugged = append(d.plan.Unplugged, pod)
	return ""
}

func (d *unplugger) wakeAt(t time.Time) {
	if u := &d.plan.Summary.Unplug; u.NextAt.IsZero() || t.Before(u.NextAt) {
		u.NextAt = t
	}
}

// listed says whether the workload is stored as one that loses sidecars, and sees to it that it will be.
func (d *unplugger) listed(workload string) bool {
	if slices.Contains(d.in.Unplugging, workload) {
		return true
	}
	if len(d.plan.Unplugging) < maxUnplugging && !slices.Contains(d.plan.Unplugging, workload) {
		d.plan.Unplugging = append(d.plan.Unplugging, workload)
	}
	return false
}

// unfinished are the stored workloads of which pods still carry the sidecars, or new ones are not there or not ready.
func (d *unplugger) unfinished() []string {
	open := map[string]bool{}
	for i := range d.in.Deselected {
		open[d.in.Deselected[i].Workload.String()] = true
	}
	for i := range d.in.Companions {
		if pod := &d.in.Companions[i]; !pod.Available {
			open[pod.Workload.String()] = true
		}
	}
	for i := range d.in.Vacancies {
		open[d.in.Vacancies[i].Workload.String()] = true
	}
	return slices.DeleteFunc(slices.Clone(d.in.Unplugging), func(workload string) bool { return !open[workload] })
}

// notNow says why a pod can't be evicted now, whatever the budgets say, and until when where that is known.
func (in *Input) notNow(pod *fleet.PodState) (why string, until time.Time) {
	name := pod.Pod.Namespace + "/" + pod.Pod.Name
	switch {
	case pod.Owner.Unmanaged && !in.Spec.EvictUnmanaged:
		return fmt.Sprintf("nobody makes pod %s anew: delete it, or write rollout.evictUnmanaged: true", name), time.Time{}
	case pod.Exempt:
		return fmt.Sprintf("pod %s is exempt by the annotation %s", name, v1alpha1.ExemptUntilAnnotation), pod.ExemptUntil
	case pod.Refusal != nil && in.Now.Before(pod.Refusal.Until):
		return fmt.Sprintf("pod %s can't be evicted: %s", name, pod.Refusal.Message), pod.Refusal.Until
	case pod.Busy:
		return fmt.Sprintf("another policy upgrades pod %s", name), pod.Recheck
	case pod.Owner.UID != "" && !pod.Owner.Settled:
		return pod.Workload.String() + " is in the middle of a roll-out of its own, or lacks pods", time.Time{}
	}
	return "", time.Time{}
}

// removal plans what is done while the policy is being deleted: nothing is upgraded any more.
func removal(in *Input) Plan {
	plan := Plan{Target: in.Target.Hash, Summary: summarize(*in)}
	replaceHeld(in, &plan)
	unplug(in, &plan, &books{in: in})
	plan.Undrains = undrains(in.everything(), nil)
	plan.Summary.Starting = plan.actions()
	plan.Requeue = requeue(*in, &plan)
	return plan
}

// everything is all pods that the policy may have to do something with.
func (in *Input) everything() []fleet.PodState {
	if len(in.Deselected) == 0 {
		return in.Pods
	}
	return slices.Concat(in.Pods, in.Deselected)
}
