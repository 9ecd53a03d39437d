package rollout

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
)

// Place is where a pod is among the steps.
type Place struct {
	// Labels are the pod's, NamespaceLabels its namespace's.
	Labels, NamespaceLabels map[string]string
	// Owner is the UID of its direct owner; empty for a bare pod.
	Owner string
}

// RevisionFor is the name of the revision that a pod should have when it is created
// now; empty when there is none. See BirthsOf.
func RevisionFor(policy *v1alpha1.SidecarPolicy, place Place) string {
	births := BirthsOf(policy)
	return births.revision(place)
}

// course is the part of the steps that a roll-out has reached.
type course struct {
	// selected match the pods of steps that are given by selectors.
	selected []podsOf
	// upTo are the steps that are given by a part of the fleet.
	upTo []*v1alpha1.Step
	// whole: the last step has been reached.
	whole bool
}

// podsOf matches pods by their labels and their namespace's.
type podsOf struct{ pods, namespaces labels.Selector }

// newCourse takes the steps up to and with the one of that index.
func newCourse(steps []v1alpha1.Step, index int) *course {
	index = min(index, len(steps)-1)
	c := &course{whole: index == len(steps)-1}
	for i := range steps[:index+1] {
		if step := &steps[i]; step.UpTo != nil {
			c.upTo = append(c.upTo, step)
		} else {
			c.selected = append(c.selected, podsOf{selector(step.PodSelector), selector(step.NamespaceSelector)})
		}
	}
	return c
}

// selector matches everything where nothing is written, and nothing where it can't be read.
func selector(s *metav1.LabelSelector) labels.Selector {
	if s == nil {
		return labels.Everything()
	}
	parsed, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return labels.Nothing()
	}
	return parsed
}

// reaches says whether any pod with these labels has been reached.
func (c *course) reaches(pod, namespace map[string]string) bool {
	return c.whole || c.selects(pod, namespace)
}

func (c *course) selects(pod, namespace map[string]string) bool {
	for _, s := range c.selected {
		if s.pods.Matches(labels.Set(pod)) && s.namespaces.Matches(labels.Set(namespace)) {
			return true
		}
	}
	return false
}

// quota is how many of total pods have been reached by count.
func (c *course) quota(total int) int {
	quota := 0
	for _, step := range c.upTo {
		quota = max(quota, step.Quota(total))
	}
	return quota
}

// gate lets the pods pass that the reached steps are about.
type gate struct {
	course *course
	// trial: the target has to prove itself before it reaches everything.
	trial bool
	// open is how many pods may still pass by count, unasked how many may still ask for images.
	open, unasked int
	stable        string
}

// newGate lets everything pass where the target is the stable revision.
func newGate(in *Input, step *v1alpha1.StepStatus) *gate {
	if step == nil {
		return &gate{course: &course{whole: true}}
	}
	c := newCourse(in.Spec.EffectiveSteps(), int(*step.Index))
	total, onTarget := 0, 0
	for i := range in.Pods {
		if pod := &in.Pods[i]; pod.Injected {
			total++
			onTarget += int(one(pod.OnTarget))
		}
	}
	for _, leaving := range in.Leaving {
		onTarget += leaving // what comes in its place may get the target
	}
	for i := range in.Vacancies {
		v := &in.Vacancies[i]
		onTarget += int(one(!v.Leaving && slices.Contains(step.Recreating, v.Owner)))
	}
	open := c.quota(total) - onTarget
	return &gate{course: c, trial: !c.whole, open: open, unasked: open, stable: in.Stable}
}

// admits says whether a pod is reached. One that does not run yet proves nothing, and takes no place in a count.
func (g *gate) admits(pod *fleet.PodState) bool {
	counted := g.open > 0 && (!g.trial || pod.Verdict.State != fleet.Starting)
	return counted || pod.OnTarget || g.abandoned(pod) || g.course.reaches(pod.Pod.Labels, pod.NamespaceLabels)
}

// abandoned says whether a pod is down on a revision that failed before, and that another target has taken the place of: there is
// nothing to lose in it.
func (g *gate) abandoned(pod *fleet.PodState) bool {
	return pod.Verdict.State == fleet.Failed && !pod.Available && pod.Given != g.stable && !pod.OnTarget
}

// take counts a pod that passed. One that was given the target before, and lacks the rest of it, is counted.
func (g *gate) take(pod *fleet.PodState) {
	if !pod.OnTarget {
		g.open--
	}
}

// wants says whether the images of one more pod are needed in the step.
func (g *gate) wants(pod *fleet.PodState) bool {
	g.unasked--
	return g.unasked >= 0 || g.abandoned(pod) || g.course.reaches(pod.Pod.Labels, pod.NamespaceLabels)
}

// reach is the step that a roll-out reaches; nil where there is none, or it has not begun: what is held from the beginning
// begins later, with its dry runs.
func reach(in *Input, s *Summary) *v1alpha1.StepStatus {
	if !s.Rolling || (in.Step == nil && s.held()) {
		return nil
	}
	return walk(in, s)
}

// walk moves a roll-out along its steps, as far as it may go now. It returns the step that is
// reached, and notes in the summary what the step waits for. One that is held is still watched and
// measured: what was started may turn out to be bad at any time.
func walk(in *Input, s *Summary) *v1alpha1.StepStatus {
	steps := in.Spec.EffectiveSteps()
	if len(in.Spec.Steps) == 0 {
		dropIdleSoaks(steps, int(s.Counts.Injected))
	}
	at := position(in, steps)
	for {
		step := &steps[*at.Index]
		last := int(*at.Index) == len(steps)-1
		if s.FailedRevision != "" || !reached(in, s, steps, at, last) {
			return at
		}
		if at.UpdatedAt == nil && s.exposed > 0 {
			at.UpdatedAt = &metav1.Time{Time: in.Now}
		}
		if !s.mayLeave(in, step, at) {
			return at
		}
		if last {
			s.StepsDone = true
			return at
		}
		next := *at.Index + 1
		at = &v1alpha1.StepStatus{Index: &next, Name: steps[next].Name, StartedAt: metav1.Time{Time: in.Now}, RolloutStartedAt: at.RolloutStartedAt}
	}
}

// dropIdleSoaks: in a small fleet the second of the default steps reaches no more pods than the
// first, which have soaked already.
func dropIdleSoaks(steps []v1alpha1.Step, injected int) {
	for i := 1; i < len(steps); i++ {
		if steps[i].Quota(injected) == steps[i-1].Quota(injected) {
			steps[i].Soak = nil
		}
	}
}

// position is the step that was reached before, found again by its name where the steps
// have changed.
func position(in *Input, steps []v1alpha1.Step) *v1alpha1.StepStatus {
	if in.Step == nil || in.Step.Index == nil {
		first, now := int32(0), metav1.Time{Time: in.Now}
		return &v1alpha1.StepStatus{Index: &first, Name: steps[0].Name, StartedAt: now, RolloutStartedAt: &now}
	}
	at := in.Step.DeepCopy()
	for i := range steps {
		if steps[i].Name == at.Name {
			index := int32(i)
			at.Index = &index
			return at
		}
	}
	index := min(*at.Index, int32(len(steps)-1))
	at.Index, at.Name, at.UpdatedAt = &index, steps[index].Name, nil
	return at
}

// reached says whether the step's part of the fleet runs the target. What can't (a pod that is
// refused, or has never started) is not waited for, but something has to run it. A step
// that was reached stays reached, except for the last: there all pods count until the end.
func reached(in *Input, s *Summary, steps []v1alpha1.Step, at *v1alpha1.StepStatus, last bool) bool {
	if s.exposed == 0 {
		at.UpdatedAt = nil // what was watched is gone
	}
	if at.UpdatedAt != nil && !last {
		return true
	}
	step := &steps[*at.Index]
	if step.UpTo == nil && s.Waiting() > 0 && emptyStep(in, step) {
		return s.mayPass(in, step, "selects no pod that can be upgraded: correct its selectors")
	}
	if s.exposed == 0 {
		return nothingToProve(in, s, step, at, last)
	}
	return moved(in, s, steps, at, last)
}

// moved says whether the pods of the step that can have been moved and judged.
func moved(in *Input, s *Summary, steps []v1alpha1.Step, at *v1alpha1.StepStatus, last bool) bool {
	if last && s.Waiting() == s.RefusedOutdated && s.Updating == 0 {
		return true
	}
	if !last && newCourse(steps, int(*at.Index)).done(in, int(s.Counts.Injected)) {
		return true
	}
	if s.awayOnTarget > 0 { // no other pods take their place: a version that takes nodes down would walk on
		return s.mayPass(in, &steps[*at.Index], fmt.Sprintf("waits for %d pods that were moved and are on nodes that are not ready: wait for the nodes", s.awayOnTarget))
	}
	return false
}

// emptyStep says whether a step that is given by labels has no pod that could prove anything.
func emptyStep(in *Input, step *v1alpha1.Step) bool {
	pods, namespaces := selector(step.PodSelector), selector(step.NamespaceSelector)
	return !slices.ContainsFunc(in.Pods, func(pod fleet.PodState) bool {
		return able(&pod, in.Spec, true) && pods.Matches(labels.Set(pod.Pod.Labels)) && namespaces.Matches(labels.Set(pod.NamespaceLabels))
	})
}

// mayPass: an author who wrote a canary and misspelled its label must not get a fleet without one, nor one whose canary was
// scaled away.
func (s *Summary) mayPass(in *Input, step *v1alpha1.Step, why string) bool {
	name := in.Target.Hash + "/" + step.Name
	if in.Promoted == name {
		return true
	}
	s.blocked(fmt.Sprintf("step %s %s, or go on without it: kubectl annotate --overwrite sidecarpolicy/%s %s=%s",
		step.Name, why, in.Policy, v1alpha1.PromoteAnnotation, name))
	return false
}

// nothingToProve says whether a step that no pod runs has none that will, and may be left for that. A roll-out that began
// with pods waits for new ones when they are gone: a fleet that is scaled to nothing for the night proves nothing.
func nothingToProve(in *Input, s *Summary, step *v1alpha1.Step, at *v1alpha1.StepStatus, last bool) bool {
	switch {
	case len(in.Leaving) > 0 || len(at.Recreating) > 0:
		return false // the first pods to run it are about to be made
	case s.Waiting() > 0:
		return !last && s.Waiting() == s.irreplaceable
	case in.Step == nil || last:
		return true
	}
	return s.mayPass(in, step, "has no pod left that could show whether the revision is good: wait for new pods")
}

// done says whether the pods that the course is about run the target and have been judged. What
// can't (a pod that refuses, is exempt, does not run yet, is on a node that is away, or would not be replaced) is not waited for.
func (c *course) done(in *Input, injected int) bool {
	settled, total := 0, 0
	for i := range in.Pods {
		pod := &in.Pods[i]
		selected := c.selects(pod.Pod.Labels, pod.NamespaceLabels)
		if !able(pod, in.Spec, selected) {
			continue
		}
		total++
		if wayOf(pod, in.Spec) == none && !pod.Underway() {
			settled++
		} else if selected {
			return false
		}
	}
	return settled >= min(c.quota(injected), total)
}

// able says whether a pod can do its part for a step.
func able(pod *fleet.PodState, spec *v1alpha1.RolloutSpec, selected bool) bool {
	switch {
	case !pod.Injected || pod.Verdict.State == fleet.Starting:
		return false
	case irreplaceable(pod, spec) && !selected:
		return false
	}
	return wayOf(pod, spec) == none || (pod.Refusal == nil && !pod.Exempt && !pod.Node.Down)
}

// mayLeave says whether the step has soaked and has the approval that it needs, and notes
// what is missing.
func (s *Summary) mayLeave(in *Input, step *v1alpha1.Step, at *v1alpha1.StepStatus) bool {
	if s.exposed == 0 {
		return !s.held()
	}
	name := in.Target.Hash + "/" + step.Name
	if in.Promoted == name {
		return !s.held()
	}
	passed := analyse(in, s, step, at)
	if s.FailedRevision != "" {
		return false
	}
	if end := at.UpdatedAt.Add(step.SoakTime()); in.Now.Before(end) {
		s.SoakingUntil = end
		return false
	}
	if !passed || s.excused > 0 { // of those that are excused it is not known yet whose doing it is
		return false
	}
	if s.unsure > 0 { // the soak may be shorter than the time in which an upgrade that went wrong is known to have failed
		s.blocked(fmt.Sprintf("step %s: %d pods that run the target are not healthy now, and may recover", step.Name, s.unsure))
		return false
	}
	if step.Approval == v1alpha1.ApprovalRequired && in.Approved != name {
		s.AwaitingApproval = name
		return false
	}
	return !s.held()
}
