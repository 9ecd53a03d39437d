package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/schedule"
)

const (
	// retryReplacing is how long a workload rests of which a pod was replaced in vain, doubled each time.
	retryReplacing    = time.Minute
	maxRetryReplacing = time.Hour
	// maxInVain is how many workloads may have pods that were replaced in vain, while no new pod of the
	// fleet gets the sidecars, before no other workload is tried.
	maxInVain = 3
	// maxReplacements is how many workloads are replaced at once; the status holds as many.
	maxReplacements = 50
)

// Missing says what becomes of the pods that lack the sidecars.
type Missing struct {
	// Replaceable is how many could be replaced.
	Replaceable int
	// Hold says why none is, Message the same for a person; empty where they may be.
	Hold    v1alpha1.Reason
	Message string
	// InVain names the first workload of which a pod was replaced in vain; InVainCount counts them.
	InVain      string
	InVainCount int
	// Blocked says what holds up the first of them; empty when nothing does.
	Blocked string
	// NextAt is when time alone lets the next one go; zero where it does not.
	NextAt time.Time
}

// replaceable says whether a pod that lacks the sidecars can get them by a new pod.
func replaceable(pod *fleet.PodState, spec *v1alpha1.RolloutSpec) bool {
	return !pod.Injected && !pod.Held && len(pod.Conflicts) == 0 && !pod.Exempt && (spec.EvictUnmanaged || !pod.Owner.Unmanaged)
}

// lacking are the pods of one workload.
type lacking struct {
	name string
	// pods are those that can be replaced, by name.
	pods []*fleet.PodState
	// newest is when the newest pod was created, bare and injected those without and with the sidecars.
	newest, bare, injected time.Time
	// entry is what is stored of the workload; nil where nothing is.
	entry *v1alpha1.Replacement
}

// helped: the last try brought a pod with the sidecars.
func (l *lacking) helped() bool { return l.injected.After(l.entry.NewestPodTime.Time) }

// first is the pod that goes first; nil where it has gone.
func (l *lacking) first() *fleet.PodState {
	for _, pod := range l.pods {
		if pod.Pod.UID == types.UID(l.entry.PodUID) {
			return pod
		}
	}
	return nil
}

// replacer has pods that lack the sidecars replaced. One pod of each workload goes first: the others follow
// when the pod that came in its place has the sidecars. What is being tried is stored before a pod is
// touched, so that a manager that is started anew knows what it is to judge.
type replacer struct {
	in     *Input
	plan   *Plan
	ledger *ledger
	// workloads are in the order of their first pods.
	workloads []*lacking
	// injected is when the newest pod of the fleet that has the sidecars was created.
	injected time.Time
}

// replaceMissing plans which pods that lack the sidecars are replaced.
func replaceMissing(in *Input, plan *Plan, books *books) {
	s := &plan.Summary
	if in.Missing != v1alpha1.MissingRecreate || (s.Counts.Missing == s.Counts.Conflicting && len(in.Replacements) == 0) {
		return
	}
	r := &replacer{in: in, plan: plan}
	r.gather()
	r.judge()
	m := &s.Missing
	failed := r.inVain()
	for _, l := range r.workloads {
		m.Replaceable += len(l.pods)
	}
	if m.Replaceable > 0 {
		m.Hold, m.Message, m.NextAt = in.holdMissing(s)
	}
	if m.Hold == "" {
		r.ledger = books.open()
		r.replace(r.broken(failed))
	}
	for _, l := range r.workloads {
		if l.entry != nil {
			plan.Replacements = append(plan.Replacements, *l.entry)
		}
	}
	slices.SortFunc(plan.Replacements, func(a, b v1alpha1.Replacement) int { return cmp.Compare(a.Workload, b.Workload) })
}

// holdMissing says why no pod is replaced now, and until when where that is known. Roll-outs go first:
// a pod that is made in the middle of one might have to be moved at once again.
func (in *Input) holdMissing(s *Summary) (v1alpha1.Reason, string, time.Time) {
	if lack, limit := s.Missing.Replaceable, in.MaxMissing; lack > limit {
		return v1alpha1.ReasonTooManyMissing, fmt.Sprintf("%d of %d selected pods lack the sidecars, and spec.maxMissing lets at most %d be replaced: "+
			"find out why they do, then restart their workloads, or have them replaced all the same: write maxMissing: 100%%", lack, s.Counts.Selected, limit), time.Time{}
	}
	switch {
	case in.NotAccepted:
		return v1alpha1.ReasonNotAccepted, "the spec is not accepted", time.Time{}
	case !in.Injecting:
		return v1alpha1.ReasonNotRegistered, "new pods don't get the sidecars now, see the condition " + v1alpha1.ConditionInjecting, time.Time{}
	case s.failing() || in.RollingBack:
		return v1alpha1.ReasonUpgradeFailed, "pods that have the sidecars are not healthy", time.Time{}
	case s.Rolling && in.Stable != "":
		return v1alpha1.ReasonRollingOut, "they wait for the end of the roll-out", time.Time{}
	case in.Spec.Paused:
		return v1alpha1.ReasonPaused, "spec.rollout.paused is true", time.Time{}
	}
	if open, changes := schedule.At(windows(in.Spec), in.Now); !open {
		return v1alpha1.ReasonFrozen, "no window of spec.rollout.windows is open", changes
	}
	return "", "", time.Time{}
}

// failing says whether pods with the sidecars are not healthy.
func (s *Summary) failing() bool { return s.FailedRevision != "" || s.Counts.Failed > 0 }

// gather groups the fleet by workload.
func (r *replacer) gather() {
	byWorkload := map[fleet.Workload]*lacking{}
	for i := range r.in.Pods {
		pod := &r.in.Pods[i]
		l := byWorkload[pod.Workload]
		if l == nil {
			l = &lacking{name: pod.Workload.String()}
			byWorkload[pod.Workload] = l
			r.workloads = append(r.workloads, l)
		}
		created := pod.Pod.CreationTimestamp.Time
		l.newest = later(l.newest, created)
		if pod.Injected {
			l.injected, r.injected = later(l.injected, created), later(r.injected, created)
		} else if replaceable(pod, r.in.Spec) {
			l.bare = later(l.bare, created)
			l.pods = append(l.pods, pod)
		}
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// judge finds out what came of the tries that are stored, and forgets those of workloads that are done.
func (r *replacer) judge() {
	byName := make(map[string]*lacking, len(r.workloads))
	for _, l := range r.workloads {
		byName[l.name] = l
	}
	for _, stored := range r.in.Replacements {
		l := byName[stored.Workload]
		if l == nil { // its only pod may be on its way
			l = &lacking{name: stored.Workload}
			r.workloads = append(r.workloads, l)
		}
		l.entry = r.outcome(l, stored)
	}
}

// outcome is what is stored of a workload from now on; nil where it is done.
func (r *replacer) outcome(l *lacking, entry v1alpha1.Replacement) *v1alpha1.Replacement {
	l.entry = &entry
	switch {
	case l.bare.After(entry.NewestPodTime.Time):
		entry.Failures++
		entry.PodUID, entry.NewestPodTime.Time, entry.LastTime.Time = "", l.newest, r.in.Now
	case len(l.pods) == 0 && (l.helped() || !r.in.Now.Before(r.overdue(&entry))):
		return nil
	case l.helped():
		entry.Failures = 0
	}
	return &entry
}

// overdue is when a pod that was evicted has not been replaced for so long that it won't be.
func (r *replacer) overdue(entry *v1alpha1.Replacement) time.Time {
	return entry.LastTime.Add(r.in.Spec.Health.ProgressDeadline())
}

// inVain are the workloads of which the last try was.
func (r *replacer) inVain() []*lacking {
	var failed []*lacking
	for _, l := range r.workloads {
		if l.entry != nil && l.entry.Failures > 0 && !l.helped() {
			failed = append(failed, l)
		}
	}
	if m := &r.plan.Summary.Missing; len(failed) > 0 {
		m.InVain, m.InVainCount = failed[0].name, len(failed)
	}
	return failed
}

// replace goes through the workloads.
func (r *replacer) replace(broken bool) {
	for _, l := range r.workloads {
		if len(l.pods) > 0 {
			r.workload(l, broken)
		} else if l.entry != nil {
			r.wakeAt(r.overdue(l.entry))
		}
	}
}

// broken says whether injection looks broken for the whole fleet: several workloads were tried in vain,
// and no pod that is newer has got the sidecars.
func (r *replacer) broken(failed []*lacking) bool {
	if len(failed) < maxInVain {
		return false
	}
	var last time.Time
	for _, l := range failed {
		last = later(last, l.entry.NewestPodTime.Time)
	}
	return !r.injected.After(last)
}

// workload takes a workload one bit further.
func (r *replacer) workload(l *lacking, broken bool) {
	switch entry := l.entry; {
	case entry == nil && broken:
		r.blocked("none of other workloads is replaced while that does not help those")
	case entry == nil:
		r.begin(l)
	case l.helped():
		r.evict(l.pods...)
	case entry.PodUID == "":
		r.retry(l)
	default:
		r.goOn(l)
	}
}

// retry tries a workload again that was tried in vain, when it has rested.
func (r *replacer) retry(l *lacking) {
	if at := retryAt(l.entry); r.in.Now.Before(at) {
		r.wakeAt(at)
		return
	}
	r.begin(l)
}

// goOn evicts the pod that goes first, or waits for what comes in its place. Another one is named where it
// refuses, and where nothing comes.
func (r *replacer) goOn(l *lacking) {
	first, end := l.first(), r.overdue(l.entry)
	switch {
	case first != nil && (first.Refusal == nil || !r.in.Now.Before(first.Refusal.Until)):
		r.evict(first)
	case first == nil && r.in.Now.Before(end):
		r.wakeAt(end)
	default:
		r.begin(l)
	}
}

// retryAt is when a workload that was tried in vain is tried again.
func retryAt(entry *v1alpha1.Replacement) time.Time {
	wait := maxRetryReplacing
	if n := entry.Failures - 1; n < 6 { // more would be longer than that
		wait = min(retryReplacing<<max(n, 0), maxRetryReplacing)
	}
	return entry.LastTime.Add(wait)
}

// begin names the pod that goes first. It goes when that has been stored.
func (r *replacer) begin(l *lacking) {
	if l.entry == nil && r.stored() >= maxReplacements {
		r.blocked(fmt.Sprintf("%d workloads are being replaced, as many as at once", maxReplacements))
		return
	}
	for _, pod := range l.pods {
		why, until := r.in.notNow(pod)
		if why != "" {
			r.blocked(why)
			r.wakeAt(until)
			continue
		}
		entry := v1alpha1.Replacement{Workload: l.name, PodUID: string(pod.Pod.UID)}
		if l.entry != nil {
			entry.Failures = l.entry.Failures
		}
		entry.LastTime.Time, entry.NewestPodTime.Time = r.in.Now, l.newest
		l.entry = &entry
		return
	}
}

func (r *replacer) stored() int {
	n := 0
	for _, l := range r.workloads {
		n += int(one(l.entry != nil))
	}
	return n
}

// evict takes as many of the pods as the budgets allow, those that are down first.
func (r *replacer) evict(pods ...*fleet.PodState) {
	for _, pod := range downFirst(pods) {
		if r.plan.actions() >= maxUpgradesPerPass {
			return
		}
		why, until := r.in.notNow(pod)
		if why == "" {
			why = r.ledger.reserve(pod)
		}
		if why != "" {
			r.blocked(why)
			r.wakeAt(until)
			continue
		}
		r.plan.Replaced = append(r.plan.Replaced, pod)
	}
}

func downFirst(pods []*fleet.PodState) []*fleet.PodState {
	pods = slices.Clone(pods)
	slices.SortStableFunc(pods, func(a, b *fleet.PodState) int { return cmp.Compare(one(a.Available), one(b.Available)) })
	return pods
}

func (r *replacer) blocked(why string) {
	if m := &r.plan.Summary.Missing; m.Blocked == "" {
		m.Blocked = why
	}
}

func (r *replacer) wakeAt(t time.Time) {
	if m := &r.plan.Summary.Missing; t.After(r.in.Now) && (m.NextAt.IsZero() || t.Before(m.NextAt)) {
		m.NextAt = t
	}
}
