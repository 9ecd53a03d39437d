package rollout

import (
	"cmp"
	"slices"
	"strings"

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
	// Updating pods have been sent one and are not judged yet.
	Updating int
	// Refused pods are those whose update the API server does not take.
	Refused int
	// Starting is how many upgrades the plan starts.
	Starting int
	// FailedRevision is the target when it has failed; see Input.
	FailedRevision string
	// Hold says why no upgrade may be started; empty when they may.
	Hold v1alpha1.Reason
	// Blocked says which budget holds up an upgrade; empty when none does.
	Blocked string
	// WithinBudget says whether no more pods are unavailable than the fleet budget allows.
	WithinBudget bool
	// Unhealthy are the worst groups of pods.
	Unhealthy []v1alpha1.UnhealthyPods
}

// Finished says whether nothing is left to do for the method.
func (s *Summary) Finished() bool {
	return s.Outdated == 0 && s.Updating == 0 && s.Counts.Failed == 0
}

func summarize(in Input) Summary {
	var s Summary
	troubles := map[troubleKey]*v1alpha1.UnhealthyPods{}
	for i := range in.Pods {
		s.count(&in.Pods[i])
		note(troubles, &in.Pods[i])
	}
	s.WithinBudget = int(s.Counts.Unavailable) <= in.Spec.MaxUnavailable(v1alpha1.PerFleet, int(s.Counts.Selected))
	s.Unhealthy = worst(troubles)
	if s.Counts.Failed > 0 || (in.Failed == in.Target.Hash && in.Retry != in.Target.Hash && !s.Finished()) {
		s.FailedRevision = in.Target.Hash
	}
	return s
}

func (s *Summary) count(pod *fleet.PodState) {
	c := &s.Counts
	c.Selected++
	c.Unavailable += one(!pod.Available)
	if !pod.Injected {
		c.Missing++
		c.Conflicting += one(len(pod.Conflicts) > 0)
		return
	}
	c.Injected++
	c.Ready += one(pod.Available)
	c.Updated += one(pod.Updated())
	c.Failed += one(failedOnTarget(pod))
	c.Drifted += one(pod.Drifted)
	c.Stale += one(pod.Stale != "")
	s.Outdated += int(one(pod.Outdated()))
	s.Updating += int(one(pod.Verdict.State == fleet.Updating))
	s.Refused += int(one(pod.Refusal != nil))
}

// failedOnTarget: a pod that failed on an older revision is only outdated.
func failedOnTarget(pod *fleet.PodState) bool {
	return pod.Verdict.State == fleet.Failed && !pod.Outdated()
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

// severity orders the reasons of status.unhealthy, the worst first. What is not
// listed is a failure of a pod, the worst.
var severity = map[v1alpha1.Reason]int{
	v1alpha1.ReasonUpdateRefused: 1,

	v1alpha1.ReasonContainerNameConflict: 2,
	v1alpha1.ReasonVolumeConflict:        2,
	v1alpha1.ReasonVolumeMissing:         2,
	v1alpha1.ReasonMountPathConflict:     2,
	v1alpha1.ReasonEnvConflict:           2,
	v1alpha1.ReasonPortConflict:          2,
	v1alpha1.ReasonMetadataConflict:      2,
	v1alpha1.ReasonPodResourcesConflict:  2,
	v1alpha1.ReasonPodSettingsConflict:   2,

	v1alpha1.ReasonDrifted: 3,
	v1alpha1.ReasonStale:   4,
}

func note(troubles map[troubleKey]*v1alpha1.UnhealthyPods, pod *fleet.PodState) {
	reason, message := trouble(pod)
	if reason == "" {
		return
	}
	key := troubleKey{pod.Workload, reason}
	entry := troubles[key]
	if entry == nil {
		entry = &v1alpha1.UnhealthyPods{Workload: pod.Workload.String(), Reason: reason,
			Message: cut("pod " + pod.Pod.Name + ": " + message)}
		troubles[key] = entry
	}
	entry.Pods++
}

// trouble is the worst that there is to say of a pod; empty when there is nothing.
func trouble(pod *fleet.PodState) (v1alpha1.Reason, string) {
	switch {
	case pod.Verdict.State == fleet.Failed:
		return pod.Verdict.Reason, pod.Verdict.Message
	case pod.Refusal != nil:
		return v1alpha1.ReasonUpdateRefused, pod.Refusal.Message
	case len(pod.Conflicts) > 0:
		return pod.Conflicts[0].Reason, "not injected: " + inject.Explain(pod.Conflicts)
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
			cmp.Compare(severity[a.Reason], severity[b.Reason]),
			cmp.Compare(b.Pods, a.Pods),
			cmp.Compare(a.Workload, b.Workload),
			cmp.Compare(a.Reason, b.Reason),
		)
	})
	return all[:min(len(all), maxUnhealthy)]
}

func cut(message string) string {
	if len(message) <= maxMessage {
		return message
	}
	return strings.ToValidUTF8(message[:maxMessage-3], "") + "..."
}
