package rollout

import (
	"slices"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

// Births says which revisions new pods get: of any pod at once what RevisionFor says of one.
type Births struct {
	// Otherwise is the revision of the pods that the roll-out has not reached; empty while there is none.
	Otherwise string
	// Reached is the revision of those that it has reached: in the middle of a roll-out, and else empty.
	Reached string
	// Steps select the reached pods, each by a podSelector and a namespaceSelector of which one may be nil.
	Steps []v1alpha1.Step
	// Owners are the UIDs of direct owners whose new pods are reached.
	Owners []string
}

// BirthsOf reads from a policy's status which revisions new pods get. In the middle of a roll-out a
// pod gets the target where a step has reached its labels or recreates its owner's pods, and from the
// last step on; else the stable revision. A percentage reaches no other new pods: the planner upgrades
// as many as it is short of.
func BirthsOf(policy *v1alpha1.SidecarPolicy) Births {
	status := &policy.Status
	switch {
	case status.StableRevision == "" || status.StableRevision == status.TargetRevision:
		return Births{Otherwise: status.TargetRevision}
	case status.FailedRevision == status.TargetRevision || policy.Spec.Rollout.Paused,
		status.Step == nil || status.Step.Index == nil:
		return Births{Otherwise: status.StableRevision}
	}
	steps := policy.Spec.Rollout.EffectiveSteps()
	index := min(int(*status.Step.Index), len(steps)-1)
	if index == len(steps)-1 {
		return Births{Otherwise: status.TargetRevision}
	}
	births := Births{Otherwise: status.StableRevision, Owners: status.Step.Recreating}
	for _, step := range steps[:index+1] {
		if step.UpTo == nil {
			births.Steps = append(births.Steps, step)
		}
	}
	if len(births.Steps)+len(births.Owners) > 0 {
		births.Reached = status.TargetRevision
	}
	return births
}

// Revisions names those that any pod can get.
func (b *Births) Revisions() []string {
	var names []string
	for _, name := range []string{b.Otherwise, b.Reached} {
		if name != "" {
			names = append(names, name)
		}
	}
	return names
}

// revision is the name of the one that a pod gets.
func (b *Births) revision(place Place) string {
	if b.Reached != "" && b.reach(place) {
		return b.Reached
	}
	return b.Otherwise
}

func (b *Births) reach(place Place) bool {
	return (place.Owner != "" && slices.Contains(b.Owners, place.Owner)) ||
		slices.ContainsFunc(b.Steps, func(step v1alpha1.Step) bool {
			return selector(step.PodSelector).Matches(labels.Set(place.Labels)) &&
				selector(step.NamespaceSelector).Matches(labels.Set(place.NamespaceLabels))
		})
}
