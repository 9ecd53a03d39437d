// Package steer decides how people steer the roll-out of a policy: each verb sets the one field or
// annotation of the API that is meant for it, or refuses where that makes no sense, and says what to
// do instead. It is pure: it changes the policy that it is given, and somebody else writes it.
package steer

import (
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
)

// Request is what a verb is about.
type Request struct {
	// Policy is changed in place.
	Policy *v1alpha1.SidecarPolicy
	// Revisions are the policy's. Only Undo looks at them.
	Revisions []revision.Revision
	// To names the revision that is wanted by Undo: by its name, the beginning of it, or its
	// number. Empty: the one before.
	To string
	// ToTemplate ends an Undo: the template is rolled out again.
	ToTemplate bool
	// Now is the time of the request.
	Now time.Time
}

// Outcome tells what has been done.
type Outcome struct {
	// Done says what the verb did, Next what comes of it and what a person may do then.
	Done, Next string
}

// Verb changes a policy, or says why it does not and what to do instead.
type Verb func(Request) (Outcome, error)

// Pause stops a roll-out where it is.
func Pause(r Request) (Outcome, error) {
	p := r.Policy
	if p.Spec.Rollout.Paused {
		return Outcome{}, fmt.Errorf("policy %s is paused already: kubectl sidecar resume %[1]s lets it go on", p.Name)
	}
	p.Spec.Rollout.Paused = true
	next := "a new template waits until you write"
	if rolling(p) {
		next = "what has been started is watched to its end, and new pods get " + orNothing(p.Status.StableRevision) + "; to go on"
	}
	return Outcome{"paused the roll-out of policy " + p.Name, fmt.Sprintf("%s: kubectl sidecar resume %s", next, p.Name)}, nil
}

// Resume lets a paused roll-out go on.
func Resume(r Request) (Outcome, error) {
	p := r.Policy
	if !p.Spec.Rollout.Paused {
		return Outcome{}, fmt.Errorf("policy %s is not paused: %s", p.Name, Standing(p))
	}
	p.Spec.Rollout.Paused = false
	return Outcome{"resumed the roll-out of policy " + p.Name, watchIt(p)}, nil
}

// Approve lets a roll-out leave a step that awaits approval.
func Approve(r Request) (Outcome, error) {
	p := r.Policy
	if err := seen(p); err != nil {
		return Outcome{}, err
	}
	if p.Status.Phase != v1alpha1.PhaseAwaitingApproval || p.Status.Step == nil {
		return Outcome{}, fmt.Errorf("nothing of policy %s awaits approval: %s", p.Name, Standing(p))
	}
	annotate(p, v1alpha1.ApproveAnnotation, at(p))
	return Outcome{fmt.Sprintf("approved step %s of revision %s", p.Status.Step.Name, p.Status.TargetRevision), nextStep(p)}, nil
}

// Promote ends the step that a roll-out is at, without the rest of its soak and analysis.
func Promote(r Request) (Outcome, error) {
	p := r.Policy
	if err := seen(p); err != nil {
		return Outcome{}, err
	}
	if p.Status.Step == nil || p.Status.FailedRevision != "" {
		return Outcome{}, fmt.Errorf("policy %s is at no step that could be promoted: %s", p.Name, Standing(p))
	}
	if p.Annotations[v1alpha1.PromoteAnnotation] == at(p) {
		return Outcome{}, fmt.Errorf("step %s of revision %s is promoted already; it ends when its pods are healthy: %s", p.Status.Step.Name, p.Status.TargetRevision, Standing(p))
	}
	annotate(p, v1alpha1.PromoteAnnotation, at(p))
	return Outcome{fmt.Sprintf("promoted step %s of revision %s", p.Status.Step.Name, p.Status.TargetRevision),
		"its soak, analysis and approval are not waited for; " + nextStep(p)}, nil
}

// Abort lets the target count as failed.
func Abort(r Request) (Outcome, error) {
	p := r.Policy
	if err := seen(p); err != nil {
		return Outcome{}, err
	}
	target, stable := p.Status.TargetRevision, p.Status.StableRevision
	if !rolling(p) || p.Status.FailedRevision != "" {
		return Outcome{}, fmt.Errorf("policy %s rolls nothing out that could be aborted: %s", p.Name, Standing(p))
	}
	annotate(p, v1alpha1.AbortAnnotation, target)
	next := "no further pod gets it, and nothing is put back, as spec.rollout.onFailure is Pause"
	switch {
	case stable == "":
		next = "no further running pod gets it; there is no earlier revision to go back to"
	case p.Spec.Rollout.OnFailure != v1alpha1.FailurePause:
		next = "its pods are put back to revision " + stable
	}
	return Outcome{"aborted revision " + target, fmt.Sprintf("%s; to try it again: kubectl sidecar retry %s", next, p.Name)}, nil
}

// Retry tries a failed revision again.
func Retry(r Request) (Outcome, error) {
	p := r.Policy
	if err := seen(p); err != nil {
		return Outcome{}, err
	}
	failed := p.Status.FailedRevision
	if failed == "" {
		return Outcome{}, fmt.Errorf("no revision of policy %s has failed: %s", p.Name, Standing(p))
	}
	value := failed
	if p.Status.HandledRetry == failed || p.Annotations[v1alpha1.RetryAnnotation] == failed {
		value += "/" + r.Now.UTC().Format(time.RFC3339) // each value is acted on once
	}
	annotate(p, v1alpha1.RetryAnnotation, value)
	if p.Annotations[v1alpha1.AbortAnnotation] == failed {
		delete(p.Annotations, v1alpha1.AbortAnnotation)
	}
	return Outcome{"asked for another try of revision " + failed, "it begins with the first step; " + watchIt(p)}, nil
}

// Restart restarts the sidecars of all pods, with the images that they have.
func Restart(r Request) (Outcome, error) {
	p := r.Policy
	now := metav1.NewTime(r.Now.UTC().Truncate(time.Second))
	last := p.Spec.Template.RestartedAt
	switch {
	case p.Spec.Template.Unreadable != "":
		return Outcome{}, fmt.Errorf("spec.template of policy %s can't be read: %s", p.Name, p.Spec.Template.Unreadable)
	case p.Spec.Rollout.Revision != "":
		return Outcome{}, fmt.Errorf("policy %s rolls out revision %s instead of its template, which a restart is a change of: go back to the template first (kubectl sidecar undo %[1]s --to-template)", p.Name, p.Spec.Rollout.Revision)
	case p.Spec.Rollout.Method == v1alpha1.MethodOnDelete:
		return Outcome{}, fmt.Errorf("policy %s touches no running pod, as spec.rollout.method is OnDelete: delete the pods, or write another method", p.Name)
	case last != nil && !last.Before(&now):
		return Outcome{}, fmt.Errorf("policy %s is to be restarted as of %s already: wait until then", p.Name, last.UTC().Format(time.RFC3339))
	}
	p.Spec.Template.RestartedAt = &now
	next := "all sidecars that were started before are restarted, by the steps and budgets of a roll-out; " + watchIt(p)
	if p.Spec.Rollout.Paused {
		next = "it begins when the roll-out goes on: kubectl sidecar resume " + p.Name
	}
	return Outcome{"asked for a restart of the sidecars of policy " + p.Name, next}, nil
}

// seen: what a status says of an older spec is nothing to act on.
func seen(p *v1alpha1.SidecarPolicy) error {
	if p.Status.ObservedGeneration == p.Generation {
		return nil
	}
	return fmt.Errorf("the operator has not looked at the last change of policy %s yet: try again in a moment, and where that does not help, see kubectl sidecar doctor", p.Name)
}

func rolling(p *v1alpha1.SidecarPolicy) bool {
	return p.Status.TargetRevision != "" && p.Status.TargetRevision != p.Status.StableRevision
}

// at names the step that the roll-out is at, as the annotations do.
func at(p *v1alpha1.SidecarPolicy) string { return p.Status.TargetRevision + "/" + p.Status.Step.Name }

func annotate(p *v1alpha1.SidecarPolicy, key, value string) {
	metav1.SetMetaDataAnnotation(&p.ObjectMeta, key, value)
}

// nextStep says what comes after the step that the roll-out is at.
func nextStep(p *v1alpha1.SidecarPolicy) string {
	steps := p.Spec.Rollout.EffectiveSteps()
	for i := range steps[:len(steps)-1] {
		if steps[i].Name == p.Status.Step.Name {
			return fmt.Sprintf("step %s comes next; %s", steps[i+1].Name, watchIt(p))
		}
	}
	return "it was the last one: the roll-out ends when all pods are healthy; " + watchIt(p)
}

func watchIt(p *v1alpha1.SidecarPolicy) string {
	return fmt.Sprintf("watch it: kubectl sidecar status %s --watch", p.Name)
}

func orNothing(revision string) string {
	if revision == "" {
		return "what the policy asks for"
	}
	return "revision " + revision
}

// Standing says in a sentence where a policy stands, for whom a verb makes no sense.
func Standing(p *v1alpha1.SidecarPolicy) string {
	parts := []string{"its phase is " + phase(p)}
	if step := p.Status.Step; step != nil {
		parts = append(parts, "at step "+step.Name)
	}
	if failed := p.Status.FailedRevision; failed != "" {
		parts = append(parts, fmt.Sprintf("revision %s has failed (kubectl sidecar retry %s tries it again, undo goes back)", failed, p.Name))
	} else if rolling(p) {
		parts = append(parts, "revision "+p.Status.TargetRevision+" is being rolled out")
	} else if p.Status.TargetRevision != "" {
		parts = append(parts, "revision "+p.Status.TargetRevision+" is rolled out")
	}
	return strings.Join(parts, ", ")
}

func phase(p *v1alpha1.SidecarPolicy) string {
	if p.Status.Phase == "" {
		return "not known, as the operator has not looked at it yet"
	}
	return string(p.Status.Phase)
}
