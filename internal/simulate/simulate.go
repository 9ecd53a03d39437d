// Package simulate plays a roll-out in memory to its end: the manager's planner, with kubelets and owners
// that do what they are asked to after a fixed time, and a clock that jumps to whatever comes next. It
// says in which waves pods would move, how long that would take, and what would hold it up for ever.
//
// Nothing goes wrong in it: every image can be had, every pod gets ready, every analysis passes,
// and a person approves at once. Pods that lack the sidecars are left as they are.
package simulate

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
)

// Pace is how long things take.
type Pace struct {
	// Restart is from the change of a pod to its sidecars being ready, Recreate from an eviction to
	// another pod that is.
	Restart, Recreate time.Duration
}

// The bounds of a simulation: it has to end, also where the roll-out would not.
const (
	maxPasses = 20000
	// maxIdle is how many passes in a row may bring nothing about.
	maxIdle = 20
)

// Input is what a simulation begins with. Nothing of it is changed.
type Input struct {
	Policy *v1alpha1.SidecarPolicy
	// Goal is what the policy asks for; Revisions are all that it has, with the goal.
	Goal      *revision.Revision
	Revisions []revision.Revision
	// Members are the pods of the fleet, Others those that PodDisruptionBudgets cover besides.
	Members []fleet.Member
	Others  []*corev1.Pod
	Budgets []policyv1.PodDisruptionBudget
	// Health, RestartedAt and Contents are as in fleet.View.
	Health      map[string]*v1alpha1.HealthSpec
	RestartedAt *metav1.Time
	Contents    map[string]fleet.Content
	Pace        Pace
	Now         time.Time
}

// Stage is one step as it was played.
type Stage struct {
	Name string
	// Began and Ended are its times; Ended is zero where it did not.
	Began, Ended time.Time
	// InPlace and Recreated are the pods that it moved, in that many waves.
	InPlace, Recreated, Waves int
	// Updated is how many pods ran the target at its end.
	Updated int
	// Approved: it waited for an approval, and got it at once.
	Approved bool
}

// Story is how a roll-out would go.
type Story struct {
	Stages []Stage
	// Ended is when nothing was left to do, or would be any more.
	Ended time.Time
	// Stuck says what holds it up for ever; empty where it would complete.
	Stuck string
}

// Run plays the roll-out.
func Run(in Input) Story {
	w := newWorld(in)
	idle := 0
	for range maxPasses {
		plan := w.plan()
		acted := w.act(&plan)
		before := w.policy.Status.DeepCopy()
		w.note(&plan)
		w.aim.Report(&w.policy.Status, &plan)
		if plan.Summary.Finished() {
			return w.end("")
		}
		requeue := plan.Requeue
		if idle++; acted || plan.Summary.AwaitingApproval != "" || !equality.Semantic.DeepEqual(before, &w.policy.Status) {
			idle, requeue = 0, time.Second // the manager watches policies too
		}
		if !w.advance(requeue) || idle > maxIdle {
			return w.end(held(&plan))
		}
	}
	return w.end(fmt.Sprintf("it is not at its end after %d passes of the manager", maxPasses))
}

// held says what a plan that stands still waits for.
func held(plan *rollout.Plan) string {
	s := &plan.Summary
	switch {
	case s.Hold != "":
		return s.HeldBy()
	case s.Blocked != "":
		return s.Blocked
	}
	return strings.Join(plan.Notes(), "; ")
}

// plan is what the manager would do now.
func (w *world) plan() rollout.Plan {
	w.aim = rollout.TakeAim(w.policy, w.in.Goal, w.in.Revisions)
	view := w.aim.View(w.in.Revisions, w.now)
	view.Records, view.Health, view.RestartedAt, view.Contents = &w.records, w.in.Health, w.in.RestartedAt, w.in.Contents
	members, leaving := w.members()
	input := w.aim.Input(fleet.Judge(members, view), nil, w.now)
	input.Vacancies, input.Leaving = fleet.Vacancies(members, leaving), map[string]int{}
	for i := range leaving {
		input.Leaving[leaving[i].Owner.UID]++
	}
	all := w.covered(members, leaving)
	for i := range w.budgets {
		w.countHealthy(&w.budgets[i], all)
		input.Disruptions = append(input.Disruptions, fleet.Allowance(&w.budgets[i], all, view))
	}
	w.settleFirst(input.Pods)
	return rollout.Make(input)
}

// note writes down what the plan does in its step, and approves where that is waited for.
func (w *world) note(plan *rollout.Plan) {
	name := "rollout" // what has no steps is put right at once
	switch {
	case plan.Step != nil:
		name = plan.Step.Name
	case plan.Summary.Rolling: // it is held, and begins with the first
		name = w.policy.Spec.Rollout.EffectiveSteps()[0].Name
	}
	stages := w.story.Stages
	if len(stages) == 0 || stages[len(stages)-1].Name != name {
		if plan.Step == nil && len(stages) > 0 {
			return
		}
		w.closeStage(plan)
		w.story.Stages = append(w.story.Stages, Stage{Name: name, Began: w.now})
	}
	stage := &w.story.Stages[len(w.story.Stages)-1]
	stage.InPlace += len(plan.Upgrades)
	stage.Recreated += len(plan.Evictions)
	if len(plan.Upgrades)+len(plan.Evictions) > 0 {
		stage.Waves++
	}
	stage.Updated = int(plan.Summary.Counts.Updated)
	if plan.Summary.AwaitingApproval != "" {
		stage.Approved = true
		metav1.SetMetaDataAnnotation(&w.policy.ObjectMeta, v1alpha1.ApproveAnnotation, plan.Summary.AwaitingApproval)
	}
	if plan.Summary.Finished() {
		w.closeStage(plan)
	}
}

func (w *world) closeStage(plan *rollout.Plan) {
	if n := len(w.story.Stages); n > 0 {
		w.story.Stages[n-1].Ended = w.now
		w.story.Stages[n-1].Updated = int(plan.Summary.Counts.Updated)
	}
}

func (w *world) end(stuck string) Story {
	w.story.Ended, w.story.Stuck = w.now, stuck
	return w.story
}
