// Package rollout decides what to do now. It is pure: the same input gives the same plan,
// for the manager, for simulations and for benchmarks.
package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/analysis"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/prefetch"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/schedule"
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
	// Policy is its name.
	Policy string
	// Spec is the policy's roll-out settings.
	Spec *v1alpha1.RolloutSpec
	// NotAccepted: the spec can't be carried out, and nothing new is started.
	NotAccepted bool
	// Target is the revision that pods should get.
	Target *revision.Revision
	// Pods is the fleet as fleet.Judge returns it.
	Pods []fleet.PodState
	// Leaving counts pods of the fleet that are being deleted, by the UID of their owner.
	Leaving map[string]int
	// Vacancies are the places of pods that owners want and don't have.
	Vacancies []fleet.Vacancy
	// Disruptions are the PodDisruptionBudgets of the fleet's namespaces.
	Disruptions []fleet.Disruption
	// Stable is the name of the last revision that finished; empty before the first.
	Stable string
	// RollingBack: the target is the stable revision because another one has failed, or was taken back.
	RollingBack bool
	// Step is the step that was reached before; nil at the beginning of a roll-out.
	Step *v1alpha1.StepStatus
	// Failed is the revision that is remembered to have failed, and FailureMessage why.
	Failed, FailureMessage string
	// Approved, Promoted and Aborted are what people said: see the annotations of the API.
	Approved, Promoted, Aborted string
	// Images says whether the new images of a pod are on its node. Where it is nil, nobody looks.
	Images func(pod *corev1.Pod, images []prefetch.Image) (prefetch.Presence, string)
	// Missing is what becomes of pods that lack the sidecars, MaxMissing how many may lack them for that.
	Missing    v1alpha1.MissingAction
	MaxMissing int
	// Injecting: new pods get the sidecars. Behind: not yet those that the step says.
	Injecting, Behind bool
	// Holding: new pods wait for the sidecars where the operator can't be reached.
	Holding bool
	// Replacements is what is stored of pods that lack the sidecars and are replaced.
	Replacements []v1alpha1.Replacement
	// OnRemoval is what becomes of pods that are to lose the sidecars. Removing: the policy is being
	// deleted, and all of them are.
	OnRemoval v1alpha1.RemovalAction
	Removing  bool
	// Deselected are pods that the policy does not select, of which those that are injected still carry its
	// sidecars. Companions are other pods of workloads that lose sidecars.
	Deselected, Companions []fleet.PodState
	// Unplugging is what is stored of the workloads of which deselected pods are recreated.
	Unplugging []string
	// Measurements are those that were made since the last pass.
	Measurements []analysis.Measurement
	// Now is the time of the decision.
	Now time.Time
}

// Plan is what to do now, and where the roll-out stands before it is done.
type Plan struct {
	// Target is the name of the revision that pods should get; RollingBack: another one has failed.
	Target      string
	RollingBack bool
	// Upgrades are to be sent, one PATCH each and one more where the pod is resized, in any order.
	Upgrades []Upgrade
	// Evictions are pods that are to be recreated.
	Evictions []*fleet.PodState
	// Replaced are pods that lack the sidecars and are to be evicted for others that have them.
	Replaced []*fleet.PodState
	// Replacements is to be stored before any pod that it names is evicted.
	Replacements []v1alpha1.Replacement
	// Held are pods that wait for the sidecars and are to be evicted for others that have them, once those would not wait, too.
	// Released are pods that need not wait any more.
	Held, Released []*fleet.PodState
	// Unplugged are pods that are to be evicted to lose the sidecars.
	Unplugged []*fleet.PodState
	// Unplugging is to be stored before any pod of the workloads that it names is evicted.
	Unplugging []string
	// Drains are pods that are to leave their endpoints before they are upgraded, Undrains
	// those that may come back.
	Drains, Undrains []*fleet.PodState
	// Tries are one pod of each workload, which are to be tried as dry runs before a roll-out
	// begins. Nothing else is to be done then.
	Tries []Upgrade
	// Prefetches are the pods of the current step whose new images must be on their nodes.
	Prefetches []prefetch.Want
	// Summary is where the roll-out stands.
	Summary Summary
	// Step is the step that is reached now; nil where nothing is rolled out by steps.
	Step *v1alpha1.StepStatus
	// Requeue is when to look again even if nothing changes. Zero: never.
	Requeue time.Duration
}

// actions is how many pods the plan moves.
func (p *Plan) actions() int {
	return len(p.Upgrades) + len(p.Evictions) + len(p.Drains) + len(p.Replaced) + len(p.Unplugged)
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
	// Recreate: the pod is evicted for it. Only a try says so; see Plan.Evictions.
	Recreate bool
	// WasFailing: the pod's sidecars fail on the stable revision.
	WasFailing bool
}

// Make decides what to do now.
func Make(in Input) Plan {
	if in.Removing {
		return removal(&in)
	}
	plan := Plan{Target: in.Target.Hash, RollingBack: in.RollingBack, Summary: summarize(in)}
	s := &plan.Summary
	s.Hold, s.OpensAt = holdReason(&in, s)
	plan.Step = reach(&in, s)
	if s.FailedRevision != "" { // the analysis may have found that
		s.Hold = v1alpha1.ReasonUpgradeFailed
	}
	staysDrained, books := map[*fleet.PodState]bool{}, &books{in: &in}
	switch {
	case s.Hold != "":
	case s.Rolling && in.Step == nil && in.Stable != "" && s.Waiting() > 0:
		plan.Tries = tries(&in)
	default:
		gate := newGate(&in, plan.Step)
		c := &chooser{in: &in, plan: &plan, gate: gate, ways: newWays(&in, plan.Step, gate), books: books, staysDrained: staysDrained}
		c.choose()
		s.waitForNodes()
		s.prefetchFailed(&in, &plan)
	}
	replaceHeld(&in, &plan)
	replaceMissing(&in, &plan, books)
	unplug(&in, &plan, books)
	plan.Undrains = undrains(in.everything(), staysDrained)
	s.Starting = plan.actions()
	plan.Requeue = requeue(in, &plan)
	return plan
}

// tries are the upgrades of the first waiting pod of each workload.
func tries(in *Input) []Upgrade {
	var list []Upgrade
	seen := map[fleet.Workload]bool{}
	for i := range in.Pods {
		pod := &in.Pods[i]
		if startable(pod, in) && !seen[pod.Workload] {
			seen[pod.Workload] = true
			list = append(list, in.upgrade(pod))
		}
	}
	return list
}

func (in *Input) upgrade(pod *fleet.PodState) Upgrade {
	return Upgrade{Pod: pod, Revision: in.Target.Hash, Label: pod.Stale == "", Recreate: wayOf(pod, in.Spec) == evict, WasFailing: in.failsOnStable(pod)}
}

// failsOnStable says whether a pod fails by itself, and not because of a version that is being rolled out.
func (in *Input) failsOnStable(pod *fleet.PodState) bool {
	return pod.Verdict.State == fleet.Failed && pod.Given == in.Stable && in.Target.Hash != in.Stable
}

// holdReason says why no upgrade may be started at all, and until when where that is
// known; empty when they may.
func holdReason(in *Input, s *Summary) (v1alpha1.Reason, time.Time) {
	switch {
	case s.FailedRevision != "":
		return v1alpha1.ReasonUpgradeFailed, time.Time{}
	case in.NotAccepted && !in.RollingBack:
		return v1alpha1.ReasonNotAccepted, time.Time{}
	case in.Spec.Paused && s.pausable(in):
		return v1alpha1.ReasonPaused, time.Time{}
	case s.Waiting() == 0:
		return "", time.Time{}
	case in.Spec.Method == v1alpha1.MethodOnDelete:
		return v1alpha1.ReasonOnDelete, time.Time{}
	case in.RollingBack:
		return "", time.Time{} // what is broken does not wait for a window
	}
	if open, changes := schedule.At(windows(in.Spec), in.Now); !open {
		return v1alpha1.ReasonFrozen, changes
	}
	return "", time.Time{}
}

// pausable says whether there is something to pause: pods to be moved, or a roll-out of which all have been moved, and are watched.
func (s *Summary) pausable(in *Input) bool { return s.Waiting() > 0 || (s.Rolling && in.Step != nil) }

// held says whether the roll-out may not go on. With OnDelete it does, though not by us.
func (s *Summary) held() bool { return s.Hold != "" && s.Hold != v1alpha1.ReasonOnDelete }

func windows(spec *v1alpha1.RolloutSpec) []schedule.Window {
	list := make([]schedule.Window, len(spec.Windows))
	for i, w := range spec.Windows {
		list[i] = schedule.Window{Schedule: w.Schedule, Duration: w.Duration.Duration, TimeZone: w.TimeZone}
	}
	return list
}

// chooser picks the pods to move, as many as steps and budgets allow.
type chooser struct {
	in           *Input
	plan         *Plan
	gate         *gate
	ways         *ways
	books        *books
	staysDrained map[*fleet.PodState]bool
}

func (c *chooser) choose() {
	for _, pod := range c.candidates() {
		full := c.plan.actions() == maxUpgradesPerPass
		if full {
			c.staysDrained[pod] = true // its turn comes in the next pass
		}
		if full && c.in.Images == nil {
			continue
		}
		if !c.gate.admits(pod) || c.othersFail(pod) || !c.fetched(pod) || full {
			continue
		}
		if refusal := c.take(pod); refusal != "" {
			c.plan.Summary.blocked(refusal)
		}
	}
}

// othersFail: pods that were brought to the stable revision and fail there say that something else is wrong. What is taken
// back must go all the same, from healthy pods too; there the budgets are what bounds the harm.
func (c *chooser) othersFail(pod *fleet.PodState) bool {
	s := &c.plan.Summary
	return pod.Available && !s.Rolling && !c.in.RollingBack && s.broughtToFail > 0
}

// take moves one pod the next bit of its way, or says what does not allow it.
func (c *chooser) take(pod *fleet.PodState) string {
	way, refusal := c.ways.of(pod)
	if refusal != "" {
		return refusal
	}
	if refusal := c.books.open().reserve(pod); refusal != "" {
		return refusal
	}
	c.gate.take(pod)
	if way == evict {
		c.plan.Evictions = append(c.plan.Evictions, pod)
		return ""
	}
	c.upgrade(pod)
	return ""
}

// upgrade drains the pod first where it has a gate for that.
func (c *chooser) upgrade(pod *fleet.PodState) {
	if pod.Gate.Open && c.in.Spec.Drain.Seconds > 0 && pod.Restarts() {
		c.plan.Drains = append(c.plan.Drains, pod)
		return
	}
	c.staysDrained[pod] = true
	if pod.Gate.Draining() && c.in.Now.Before(c.drainedAt(pod)) {
		return
	}
	c.plan.Upgrades = append(c.plan.Upgrades, c.in.upgrade(pod))
}

// fetched says whether a pod can be upgraded without its sidecars waiting for an image. What
// does not run has nothing to wait with.
func (c *chooser) fetched(pod *fleet.PodState) bool {
	if c.in.Images == nil || wayOf(pod, c.in.Spec) != inPlace || len(pod.Images) == 0 || pod.Verdict.State == fleet.Failed {
		return true
	}
	images := newImages(pod)
	presence, message := c.in.Images(pod.Pod, images)
	s := &c.plan.Summary
	switch presence {
	case prefetch.Present:
		return c.want(pod, images)
	case prefetch.Unknown:
		s.NotPrefetched = message
		return true
	case prefetch.Failed:
		s.ImagesFailed = message
	case prefetch.Refused:
		s.blocked("prefetch refused in namespace " + pod.Pod.Namespace + ": " + message)
	default:
		s.Prefetching++
	}
	c.want(pod, images)
	return false
}

// want asks for the images of a pod that is in the step, and says whether it is: no more pods are
// than the step has.
func (c *chooser) want(pod *fleet.PodState, images []prefetch.Image) bool {
	if !c.gate.wants(pod) {
		return false
	}
	c.plan.Prefetches = append(c.plan.Prefetches, prefetch.Want{Pod: pod.Pod, Images: images})
	return true
}

func newImages(pod *fleet.PodState) []prefetch.Image {
	byContainer := make(map[string]string, len(pod.Images))
	for _, change := range pod.Images {
		byContainer[change.Container] = change.Image
	}
	return prefetch.Images(pod.Pod, byContainer)
}

// drainedAt is when the pod has been out of its endpoints for long enough. One that failed has
// been for long.
func (c *chooser) drainedAt(pod *fleet.PodState) time.Time {
	if pod.Verdict.State == fleet.Failed {
		return time.Time{}
	}
	return pod.Gate.ClosedAt.Add(time.Duration(c.in.Spec.Drain.Seconds) * time.Second)
}

// candidates are the pods that may be moved now, in the order of their rank, then by name.
func (c *chooser) candidates() []*fleet.PodState {
	var pods []*fleet.PodState
	for i := range c.in.Pods {
		if pod := &c.in.Pods[i]; startable(pod, c.in) {
			pods = append(pods, pod)
		}
	}
	slices.SortStableFunc(pods, func(a, b *fleet.PodState) int {
		return cmp.Compare(c.rank(a), c.rank(b))
	})
	return pods
}

// rank puts pods first that are down, since they cost nothing. On trial, those that are down
// for reasons of their own come later: they need not get ready, and so prove nothing. Those that
// were refused come last: one after the other they would take the budget from all that are not. What only gets another label (other
// pods are restarted for their configuration) proves nothing, either.
func (c *chooser) rank(pod *fleet.PodState) int {
	switch {
	case pod.Refusal != nil:
		return 3
	case c.gate.trial && pod.Relabel:
		return 2
	case pod.Available:
		return 1
	case c.gate.trial && !pod.Underway() && (pod.Verdict.State != fleet.Failed || c.in.failsOnStable(pod)):
		return 2
	}
	return 0
}

func startable(pod *fleet.PodState, in *Input) bool {
	return pod.Injected && !pod.Exempt && !pod.Node.Down && wayOf(pod, in.Spec) != none && !pod.Busy &&
		(pod.Refusal == nil || !in.Now.Before(pod.Refusal.Until))
}

// undrains are the pods that may come back into their endpoints: new ones, those that were
// upgraded, and those that were drained for an upgrade which does not come.
func undrains(pods []fleet.PodState, stay map[*fleet.PodState]bool) []*fleet.PodState {
	var list []*fleet.PodState
	for i := range pods {
		pod := &pods[i]
		if pod.Gate.Exists && !pod.Gate.Open && !stay[pod] && pod.Verdict.State != fleet.Updating {
			list = append(list, pod)
		}
	}
	return list
}

// requeue is the time until the first moment at which time alone changes the plan.
func requeue(in Input, plan *Plan) time.Duration {
	if plan.actions() == maxUpgradesPerPass || len(plan.Tries) > 0 {
		return time.Millisecond
	}
	var next time.Time
	earlier := func(t time.Time) {
		if t.After(in.Now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	if plan.actions()+len(plan.Undrains) > 0 {
		earlier(in.Now.Add(seeAnswers))
	}
	for i := range in.Pods {
		wakeFor(&in.Pods[i], in.Spec, earlier)
	}
	plan.Summary.wake(in.Now, earlier)
	if next.IsZero() {
		return 0
	}
	return max(next.Sub(in.Now), 50*time.Millisecond)
}

// wake names the moments at which time alone changes what the summary waits for.
func (s *Summary) wake(now time.Time, at func(time.Time)) {
	for _, t := range []time.Time{s.OpensAt, s.MeasureAt, s.SoakingUntil, s.Missing.NextAt, s.Held.NextAt, s.Unplug.NextAt} {
		at(t)
	}
	if s.Blocked+s.Missing.Blocked+s.Unplug.Blocked != "" {
		at(now.Add(retryBlocked))
	}
}

// wakeFor names the moments at which time alone changes what is to be done with a pod.
func wakeFor(pod *fleet.PodState, spec *v1alpha1.RolloutSpec, at func(time.Time)) {
	at(pod.Verdict.Recheck)
	at(pod.Recheck)
	at(pod.ExemptUntil)
	if pod.Refusal != nil {
		at(pod.Refusal.Until)
	}
	if pod.Gate.Draining() {
		at(pod.Gate.ClosedAt.Add(time.Duration(spec.Drain.Seconds) * time.Second))
	}
}

// String names the upgrade, for logs and notes.
func (u Upgrade) String() string {
	return fmt.Sprintf("%s/%s -> %s", u.Pod.Pod.Namespace, u.Pod.Pod.Name, u.Revision)
}
