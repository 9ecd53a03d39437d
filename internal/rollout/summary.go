package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/inject"
)

// maxUnhealthy is how many groups status.unhealthy holds.
const maxUnhealthy = 10

// maxMessage is the length that a message of status.unhealthy is cut to.
const maxMessage = 1024

// Summary is where a roll-out stands.
type Summary struct {
	Counts v1alpha1.PodCounts
	// Outdated pods can be brought nearer to the target by a PATCH.
	Outdated int
	// Evictable pods can be brought to the target by recreating them, as the method says.
	Evictable int
	// irreplaceable are those of them that nobody makes anew.
	irreplaceable int
	// OpensAt is when the next window opens; zero where none is waited for.
	OpensAt time.Time
	// Replacing is how many pods, while a roll-out recreates some, are still to be made anew by their owners.
	Replacing int
	// Updating pods have been sent one and are not judged yet.
	Updating int
	// RefusedOutdated pods are refused, and would otherwise be upgraded.
	RefusedOutdated int
	// exposed pods have the target; of the excused ones nobody knows yet what it does to them.
	exposed, excused int
	// failingBefore pods fail on the target, and did so on the stable revision.
	failingBefore int
	// away are pods that wait for their nodes to be ready; awayOnTarget have the target, and are not judged before.
	away, awayOnTarget int
	// unsure pods have the target, and are not healthy now: they may recover, or turn out to have failed.
	unsure int
	// maxFailed is how many pods may fail.
	maxFailed int
	// broughtToFail pods were upgraded to the target, and fail there.
	broughtToFail int
	// goalFailed: the target is the stable revision because the goal has failed.
	goalFailed bool
	// Refused pods are those whose update the API server does not take.
	Refused int
	// Starting is how many upgrades the plan starts.
	Starting int
	// FailedRevision is the target when it has failed; see Input.
	FailedRevision string
	// FailureMessage says why the target failed.
	FailureMessage string
	// Rolling: the target is not the stable revision, and is rolled out by steps.
	Rolling bool
	// StepsDone: the last step has been left.
	StepsDone bool
	// SoakingUntil is when the soak of the step ends; zero while it does not soak.
	SoakingUntil time.Time
	// Analyzing says what the analysis of the step waits for; empty where it has passed.
	Analyzing string
	// Analysis is what is to be measured now, MeasureAt when the next measurement is due.
	Analysis  Analysis
	MeasureAt time.Time
	// AwaitingApproval is what the approval has to name; empty where none is waited for.
	AwaitingApproval string
	// Downtime is the longest that a sidecar was down for its upgrade to the target.
	Downtime time.Duration
	// Hold says why no upgrade may be started; empty when they may.
	Hold v1alpha1.Reason
	// Prefetching pods wait for their images; ImagesFailed says why some can't be had, NotPrefetched
	// why nobody could look.
	Prefetching                 int
	ImagesFailed, NotPrefetched string
	// Blocked says which budget holds up an upgrade; empty when none does.
	Blocked string
	// Missing says what becomes of the pods that lack the sidecars, Held of those that wait for them.
	Missing Missing
	Held    Held
	// Surplus pods carry containers that the target has no more.
	Surplus int
	// gated pods wait for the sidecars, whether they have them by now or not.
	gated int
	// Unplug says how far pods have lost the sidecars that they are to lose.
	Unplug Unplug
	// WithinBudget says whether no more pods are unavailable than the fleet budget allows.
	WithinBudget bool
	// Unhealthy are the worst groups of pods.
	Unhealthy []v1alpha1.UnhealthyPods
}

// Finished says whether nothing is left to do for the method.
func (s *Summary) Finished() bool {
	if s.Waiting() > 0 || s.Replacing > 0 || s.Updating > 0 || s.FailedRevision != "" {
		return false
	}
	if s.Rolling {
		return s.StepsDone
	}
	return int(s.Counts.Failed) <= s.maxFailed || s.goalFailed // with what fails on the stable revision, the failed one has nothing to do
}

func summarize(in Input) Summary {
	s := Summary{maxFailed: int(ptr.Deref(in.Spec.Health.MaxFailed, 0))}
	troubles := map[troubleKey]*v1alpha1.UnhealthyPods{}
	for i := range in.Pods {
		s.count(&in.Pods[i], in.Spec)
		note(troubles, &in.Pods[i])
	}
	s.countDeselected(&in, troubles)
	s.WithinBudget = int(s.Counts.Unavailable) <= in.Spec.MaxUnavailable(v1alpha1.PerFleet, int(s.Counts.Selected))
	s.Unhealthy = worst(troubles)
	s.Rolling = in.Target.Hash != in.Stable
	s.goalFailed = in.Failed != "" && in.Failed != in.Target.Hash
	if (recreates(in.Spec) || in.OnRemoval == v1alpha1.RemovalRecreate) && (s.Rolling || in.RollingBack) {
		s.Replacing = len(in.Vacancies)
	}
	s.judgeRevision(&in)
	return s
}

// countDeselected counts pods that are not selected any more, of which nothing is said but what keeps
// them from losing the sidecars.
func (s *Summary) countDeselected(in *Input, troubles map[troubleKey]*v1alpha1.UnhealthyPods) {
	for i := range in.Deselected {
		pod := &in.Deselected[i]
		s.Counts.Deselected += one(pod.Injected)
		if pod.Refusal != nil {
			note(troubles, pod)
		}
	}
}

// judgeRevision says whether the target has failed, now or before. The stable revision
// can't: where its pods fail, something else is wrong.
func (s *Summary) judgeRevision(in *Input) {
	switch {
	case !s.Rolling:
	case in.Failed == in.Target.Hash:
		s.FailedRevision, s.FailureMessage = in.Failed, in.FailureMessage
	case in.Aborted == in.Target.Hash:
		s.FailedRevision, s.FailureMessage = in.Target.Hash, "aborted by the annotation "+v1alpha1.AbortAnnotation
	case s.blamed() > s.maxFailed:
		s.FailedRevision = in.Target.Hash
		s.FailureMessage = fmt.Sprintf("%d pods failed, maxFailed is %d", s.blamed(), s.maxFailed)
		if len(s.Unhealthy) > 0 {
			worst := &s.Unhealthy[0]
			s.FailureMessage = Cut(s.FailureMessage + fmt.Sprintf(": %s, %s, %s", worst.Workload, worst.Reason, worst.Message))
		}
	}
}

// blamed is how many pods the target has failed. Those that failed on the stable revision too are no proof against it,
// unless nothing else runs it.
func (s *Summary) blamed() int {
	failed := int(s.Counts.Failed)
	if failed >= s.exposed {
		return failed
	}
	return failed - s.failingBefore
}

// blocked notes what holds up the first of the pods.
func (s *Summary) blocked(why string) {
	if s.Blocked == "" {
		s.Blocked = why
	}
}

// prefetchFailed: a revision of which an image can't be had has failed before it harmed a pod. On
// the way back to the stable one, its pods are left as they run.
func (s *Summary) prefetchFailed(in *Input, plan *Plan) {
	if s.ImagesFailed == "" {
		return
	}
	if !s.Rolling {
		s.blocked("prefetch failed: " + s.ImagesFailed)
		return
	}
	s.FailedRevision, s.FailureMessage = in.Target.Hash, Cut("prefetch failed, and no running sidecar was touched for it: "+s.ImagesFailed)
	s.Hold = v1alpha1.ReasonUpgradeFailed
	plan.Upgrades, plan.Evictions, plan.Drains = nil, nil, nil
}

func (s *Summary) count(pod *fleet.PodState, spec *v1alpha1.RolloutSpec) {
	c := &s.Counts
	c.Selected++
	c.Unavailable += one(!pod.Available)
	s.gated += int(one(pod.Held))
	if !pod.Injected {
		c.Missing++
		c.Held += one(pod.Held)
		c.Conflicting += one(len(pod.Conflicts) > 0)
		return
	}
	c.Injected++
	c.Ready += one(pod.Available)
	c.Updated += one(pod.Updated())
	s.countFailure(pod)
	c.Drifted += one(pod.Drifted)
	c.Stale += one(pod.Stale != "")
	s.Surplus += int(one(len(pod.Surplus) > 0))
	c.Exempt += one(pod.Exempt)
	way := wayOf(pod, spec)
	s.Outdated += int(one(!pod.Exempt && way == inPlace))
	s.Evictable += int(one(!pod.Exempt && way == evict))
	s.irreplaceable += int(one(!pod.Exempt && irreplaceable(pod, spec)))
	s.away += int(one(!pod.Exempt && way != none && pod.Node.Down))
	s.countExposed(pod)
	s.RefusedOutdated += int(one(!pod.Exempt && way != none && pod.Refusal != nil))
	s.Downtime = max(s.Downtime, pod.Downtime)
	s.Updating += int(one(pod.Underway()))
	s.Refused += int(one(pod.Refusal != nil))
}

// countExposed counts what is known of the target by a pod that has it.
func (s *Summary) countExposed(pod *fleet.PodState) {
	if !pod.OnTarget {
		return
	}
	s.exposed++
	s.excused += int(one(pod.Excused))
	switch v := &pod.Verdict; {
	case pod.Node.Down:
		s.awayOnTarget += int(one(v.State == fleet.Updating))
	case v.State == fleet.Updating, v.State == fleet.Settled && !v.Recheck.IsZero():
		s.unsure++
	}
}

func (s *Summary) countFailure(pod *fleet.PodState) {
	if !FailedOnTarget(pod) {
		return
	}
	s.Counts.Failed++
	s.failingBefore += int(one(pod.WasFailing))
	s.broughtToFail += int(one(!pod.UpgradedAt.IsZero()))
}

// waitForNodes says that pods can't be moved where their nodes are away.
func (s *Summary) waitForNodes() {
	if s.away > 0 {
		s.blocked(fmt.Sprintf("%d pods are on nodes that are not ready", s.away))
	}
}

// Waiting is how many pods are still to be moved.
func (s *Summary) Waiting() int { return s.Outdated + s.Evictable }

// FailedOnTarget says whether a pod is not healthy on the target: a pod that failed on an older revision is only outdated. One that was given the
// target and still lacks its resources is not.
func FailedOnTarget(pod *fleet.PodState) bool {
	return pod.Verdict.State == fleet.Failed && (pod.OnTarget || !pod.Outdated())
}

func one(b bool) int32 {
	if b {
		return 1
	}
	return 0
}

type troubleKey struct {
	workload fleet.Workload
	reason   v1alpha1.Reason
}

// Severity orders the reasons of status.unhealthy and of reports: the lower, the worse. What is not
// listed is a failure of a pod, the worst.
func Severity(reason v1alpha1.Reason) int { return severity[reason] }

var severity = map[v1alpha1.Reason]int{
	v1alpha1.ReasonUpdateRefused: 1,
	v1alpha1.ReasonHeld:          1,

	v1alpha1.ReasonContainerNameConflict: 2,
	v1alpha1.ReasonVolumeConflict:        2,
	v1alpha1.ReasonVolumeMissing:         2,
	v1alpha1.ReasonMountPathConflict:     2,
	v1alpha1.ReasonEnvConflict:           2,
	v1alpha1.ReasonPortConflict:          2,
	v1alpha1.ReasonMetadataConflict:      2,
	v1alpha1.ReasonPodResourcesConflict:  2,
	v1alpha1.ReasonPodSettingsConflict:   2,
	v1alpha1.ReasonPodSecurityConflict:   2,
	v1alpha1.ReasonLimitRangeConflict:    2,
	v1alpha1.ReasonQuotaConflict:         2,

	v1alpha1.ReasonMissing: 3,
	v1alpha1.ReasonExempt:  3,
	v1alpha1.ReasonDrifted: 4,
	v1alpha1.ReasonStale:   5,
}

func note(troubles map[troubleKey]*v1alpha1.UnhealthyPods, pod *fleet.PodState) {
	reason, message := Trouble(pod)
	if reason == "" {
		return
	}
	key := troubleKey{pod.Workload, reason}
	entry := troubles[key]
	if entry == nil {
		entry = &v1alpha1.UnhealthyPods{Workload: pod.Workload.String(), Reason: reason,
			Message: Cut("pod " + pod.Pod.Name + ": " + message)}
		troubles[key] = entry
	}
	entry.Pods++
}

// Trouble is the worst that there is to say of a pod; empty when there is nothing.
func Trouble(pod *fleet.PodState) (v1alpha1.Reason, string) {
	switch {
	case pod.Verdict.State == fleet.Failed:
		return pod.Verdict.Reason, pod.Verdict.Message
	case pod.Refusal != nil:
		return v1alpha1.ReasonUpdateRefused, pod.Refusal.Message
	case len(pod.Conflicts) > 0:
		return pod.Conflicts[0].Reason, "not injected: " + inject.Explain(pod.Conflicts)
	case pod.Held:
		return v1alpha1.ReasonHeld, pod.Missed
	case !pod.Injected:
		return v1alpha1.ReasonMissing, pod.Missed
	case pod.ExemptProblem != "":
		return v1alpha1.ReasonExempt, pod.ExemptProblem
	case pod.Drifted:
		return v1alpha1.ReasonDrifted, "a sidecar's image was changed by hand"
	case pod.Stale != "":
		return v1alpha1.ReasonStale, "needs to be recreated for the template's " + pod.Stale
	}
	return "", ""
}

func worst(troubles map[troubleKey]*v1alpha1.UnhealthyPods) []v1alpha1.UnhealthyPods {
	var all []v1alpha1.UnhealthyPods
	for _, entry := range troubles {
		all = append(all, *entry)
	}
	slices.SortFunc(all, func(a, b v1alpha1.UnhealthyPods) int {
		return cmp.Or(
			cmp.Compare(Severity(a.Reason), Severity(b.Reason)),
			cmp.Compare(b.Pods, a.Pods),
			cmp.Compare(a.Workload, b.Workload),
			cmp.Compare(a.Reason, b.Reason),
		)
	})
	return all[:min(len(all), maxUnhealthy)]
}

// Cut shortens a message to what statuses and reports hold.
func Cut(message string) string {
	if len(message) <= maxMessage {
		return message
	}
	return strings.ToValidUTF8(message[:maxMessage-3], "") + "..."
}
