package rollout_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/analysis"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/prefetch"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

// upgraded is a pod of a Deployment that has been healthy on r2 for long.
func upgraded(deployment string, i int) fleet.Member {
	return in(deployment, pod(deployment, i).Upgraded(policy, r2, builders.At(0)).Restarted("agent", builders.At(1)))
}

// some is a Deployment of which the first few pods have been upgraded.
func some(name string, done, size int) []fleet.Member {
	members := deployment(name, size)
	for i := range done {
		members[i] = upgraded(name, i)
	}
	return members
}

// at is the step that was reached; it has been updated since then, or not yet where that is negative.
func at(index int32, name string, updated int) *v1alpha1.StepStatus {
	step := &v1alpha1.StepStatus{Index: &index, Name: name, StartedAt: metav1.NewTime(builders.At(0))}
	if updated >= 0 {
		step.UpdatedAt = &metav1.Time{Time: builders.At(updated)}
	}
	return step
}

func threeSteps() *builders.RolloutBuilder {
	return builders.Rollout().Steps(builders.Step("one", "1", time.Minute), builders.Step("half", "50%", 0), builders.Step("fleet", "100%", 0))
}

// rolling is a roll-out from r1 to r2 at 100 s.
func rolling(spec *builders.RolloutBuilder, step *v1alpha1.StepStatus, members []fleet.Member) rollout.Input {
	if step == nil { // the dry runs have been made
		step = at(0, spec.Obj().EffectiveSteps()[0].Name, -1)
	}
	input := inputAt(100, spec, members)
	input.Stable, input.Step = r1.Hash, step
	return input
}

func TestRolloutWalksAlongItsSteps(t *testing.T) {
	needsApproval := func() *builders.RolloutBuilder {
		return threeSteps().With(func(s *v1alpha1.RolloutSpec) { s.Steps[0].Approval = v1alpha1.ApprovalRequired })
	}
	paused := func(s *v1alpha1.RolloutSpec) { s.Paused = true }
	inFlight := in("cart", pod("cart", 0).Upgraded(policy, r2, builders.At(99)))
	refused := member("cart", 0)
	refused.Refusal = &fleet.Refusal{Until: builders.At(900)}
	exempt := member("cart", 0)
	exempt.Exempt = true
	starting := in("cart", pod("cart", 0).With(func(p *corev1.Pod) { p.Status = corev1.PodStatus{Phase: corev1.PodPending} }))
	unready := in("cart", pod("cart", 0).Upgraded(policy, r2, builders.At(60)).Restarted("agent", builders.At(61)).NotReady(builders.At(80)))
	away := in("cart", pod("cart", 0).Upgraded(policy, r2, builders.At(95)))
	away.Node.Down = true
	lost := in("cart", builders.Pod("shop", "cart-00").Label("app", "cart").Injected(policy, r1).Upgraded(policy, r3, builders.At(0)).
		Restarted("agent", builders.At(1)).NotReady(builders.At(50)).Status("agent", func(s *corev1.ContainerStatus) {
		s.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
	}))
	name := r2.Hash + "/one"
	begins := func(in *rollout.Input) { in.Step = nil }
	for _, tc := range []struct {
		name    string
		spec    *builders.RolloutBuilder
		step    *v1alpha1.StepStatus
		members []fleet.Member
		change  func(*rollout.Input)
		// want is the step afterwards; upgrades how many pods start.
		want     string
		upgrades int
		soak     int
		approval string
		done     bool
		anew     bool
	}{
		{name: "the first pod", spec: threeSteps(), members: deployment("cart", 4), want: "one", upgrades: 1},
		{name: "it is on its way", spec: threeSteps(), step: at(0, "one", -1), members: append(deployment("till", 3), inFlight), want: "one"},
		{name: "it is healthy: the soak begins", spec: threeSteps(), step: at(0, "one", -1), members: some("cart", 1, 4), want: "one", soak: 160},
		{name: "it soaks", spec: threeSteps(), step: at(0, "one", 41), members: some("cart", 1, 4), want: "one", soak: 101},
		{name: "it has soaked", spec: threeSteps(), step: at(0, "one", 40), members: some("cart", 1, 4), want: "half", upgrades: 1},
		{name: "a step without a soak is left at once", spec: threeSteps(), step: at(1, "half", -1), members: some("cart", 2, 4), want: "fleet", upgrades: 2},
		{name: "the last one ends with the last pod", spec: threeSteps(), step: at(2, "fleet", -1), members: some("cart", 4, 4), want: "fleet", done: true},
		{name: "one of its pods went away", spec: threeSteps(), step: at(1, "half", 0), members: some("cart", 1, 4), want: "fleet", upgrades: 3},
		{name: "all of its pods went away: nothing was watched to the end", spec: threeSteps(), step: at(0, "one", 10), members: deployment("cart", 4), want: "one", upgrades: 1, anew: true},
		{name: "paused", spec: threeSteps().With(paused), step: at(0, "one", 40), members: some("cart", 1, 4), want: "one"},
		{name: "paused after the last pod", spec: threeSteps().With(paused), step: at(2, "fleet", 40), members: some("cart", 4, 4), want: "fleet"},
		{name: "a pod is not healthy at the end of the soak", spec: threeSteps(), step: at(0, "one", 40), members: append(deployment("till", 3), unready), want: "one"},
		{name: "nor one that was moved for a step that has grown", spec: threeSteps(), step: at(0, "one", 40), members: append(some("till", 1, 3), inFlight), want: "one"},
		{name: "promoted all the same", spec: threeSteps(), step: at(0, "one", 40), members: append(deployment("till", 3), unready),
			change: func(in *rollout.Input) { in.Promoted = name }, want: "half", upgrades: 1},
		{name: "a pod that does not run yet takes no place", spec: threeSteps(), members: append(deployment("till", 1), starting), want: "one", upgrades: 1},
		{name: "and is no canary by itself", spec: threeSteps(), members: []fleet.Member{starting}, want: "one"},
		{name: "the canary's node is away: no other pod takes its place", spec: threeSteps(), step: at(0, "one", -1), members: append(deployment("till", 3), away), want: "one"},
		{name: "unless somebody promotes the step", spec: threeSteps(), step: at(0, "one", -1), members: append(deployment("till", 3), away),
			change: func(in *rollout.Input) { in.Promoted = name }, want: "half", upgrades: 1},
		{name: "a pod that is down on a revision that failed before does not wait for its step", spec: threeSteps(), step: at(0, "one", 41), members: append(some("till", 1, 3), lost), want: "one", soak: 101, upgrades: 1},
		{name: "an approval is missing", spec: needsApproval(), step: at(0, "one", 40), members: some("cart", 1, 4), want: "one", approval: name},
		{name: "it is not asked for before the end of the soak", spec: needsApproval(), step: at(0, "one", 41), members: some("cart", 1, 4), want: "one", soak: 101},
		{name: "it is there", spec: needsApproval(), step: at(0, "one", 40), members: some("cart", 1, 4),
			change: func(in *rollout.Input) { in.Approved = name }, want: "half", upgrades: 1},
		{name: "of another step", spec: needsApproval(), step: at(0, "one", 40), members: some("cart", 1, 4),
			change: func(in *rollout.Input) { in.Approved = r2.Hash + "/half" }, want: "one", approval: name},
		{name: "of another revision", spec: needsApproval(), step: at(0, "one", 40), members: some("cart", 1, 4),
			change: func(in *rollout.Input) { in.Approved = r3.Hash + "/one" }, want: "one", approval: name},
		{name: "an approval does not shorten the soak", spec: needsApproval(), step: at(0, "one", 41), members: some("cart", 1, 4),
			change: func(in *rollout.Input) { in.Approved = name }, want: "one", soak: 101},
		{name: "promoted: soak and approval", spec: needsApproval(), step: at(0, "one", 41), members: some("cart", 1, 4),
			change: func(in *rollout.Input) { in.Promoted = name }, want: "half", upgrades: 1},
		{name: "promoted, and no pod is healthy yet", spec: needsApproval(), step: at(0, "one", -1), members: append(deployment("till", 3), inFlight),
			change: func(in *rollout.Input) { in.Promoted = name }, want: "one"},
		{name: "aborted", spec: threeSteps(), step: at(0, "one", 40), members: some("cart", 1, 4),
			change: func(in *rollout.Input) { in.Aborted = r2.Hash }, want: "one"},
		{name: "a pod that refuses is not waited for", spec: threeSteps(), step: at(1, "half", -1), members: append(some("till", 1, 2), refused), want: "fleet", upgrades: 1},
		{name: "something has to run it", spec: threeSteps(), step: at(0, "one", -1), members: []fleet.Member{refused}, want: "one"},
		{name: "an exempt pod is not waited for", spec: threeSteps(), members: []fleet.Member{exempt}, change: begins, want: "fleet", done: true},
		{name: "no pods", spec: threeSteps(), change: begins, want: "fleet", done: true},
		{name: "default steps of 1,000 pods: 1%", spec: builders.Rollout().Steps(), members: deployment("cart", 1000), want: "one-percent", upgrades: 10},
		{name: "default steps of 5 pods: 1% is one of them", spec: builders.Rollout().Steps(), members: deployment("cart", 5), want: "one-percent", upgrades: 1},
		{name: "10% of 5 pods is one of them", spec: builders.Rollout().Steps(), step: at(1, "ten-percent", -1), members: deployment("cart", 5), want: "ten-percent", upgrades: 1},
		{name: "10% of 19 pods is one of them", spec: builders.Rollout().Steps(), step: at(1, "ten-percent", -1), members: deployment("cart", 19), want: "ten-percent", upgrades: 1},
		{name: "10% of 20 pods is two", spec: builders.Rollout().Steps(), step: at(1, "ten-percent", -1), members: some("cart", 1, 20), want: "ten-percent", upgrades: 1},
		{name: "the stable revision has no steps", spec: threeSteps(), step: at(0, "one", -1), members: deployment("cart", 4),
			change: func(in *rollout.Input) { in.Stable = r2.Hash }, upgrades: 4},
	} {
		t.Run(tc.name, func(t *testing.T) {
			input := rolling(tc.spec, tc.step, tc.members)
			if tc.change != nil {
				tc.change(&input)
			}
			plan := rollout.Make(input)
			s := &plan.Summary
			got := ""
			if plan.Step != nil {
				got = plan.Step.Name
			}
			if got != tc.want || len(plan.Upgrades) != tc.upgrades || s.AwaitingApproval != tc.approval || s.StepsDone != tc.done {
				t.Errorf("step %q, %d upgrades, approval %q, done %t; want %q, %d, %q, %t",
					got, len(plan.Upgrades), s.AwaitingApproval, s.StepsDone, tc.want, tc.upgrades, tc.approval, tc.done)
			}
			if tc.anew && plan.Step.UpdatedAt != nil {
				t.Errorf("the soak that nothing was left of goes on: %s", plan.Step.UpdatedAt)
			}
			if (tc.soak == 0) != s.SoakingUntil.IsZero() || (tc.soak != 0 && !s.SoakingUntil.Equal(builders.At(tc.soak))) {
				t.Errorf("soaks until %s, want %d s", s.SoakingUntil, tc.soak)
			}
		})
	}
}

// Steps that change in the middle take effect at once, and never begin again.
func TestStepsThatChangeInTheMiddle(t *testing.T) {
	for _, tc := range []struct {
		name  string
		steps []v1alpha1.Step
		index int32
		want  string
		// kept: the step is the same one, and goes on soaking.
		kept bool
	}{
		{"nothing changed", threeSteps().Obj().Steps, 1, "half", true},
		{"one was put before it", []v1alpha1.Step{builders.Step("canary", "1", 0), builders.Step("one", "1", 0), builders.Step("half", "50%", time.Hour), builders.Step("fleet", "100%", 0)}, 2, "half", true},
		{"one before it is gone", []v1alpha1.Step{builders.Step("half", "50%", time.Hour), builders.Step("fleet", "100%", 0)}, 0, "half", true},
		{"it was renamed", []v1alpha1.Step{builders.Step("one", "1", 0), builders.Step("middle", "75%", time.Hour), builders.Step("fleet", "100%", 0)}, 1, "middle", false},
		{"it and all after it are gone", []v1alpha1.Step{builders.Step("fleet", "100%", 0)}, 0, "fleet", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			step := at(1, "half", 99)
			spec := builders.Rollout().Steps(tc.steps...).With(func(s *v1alpha1.RolloutSpec) {
				for i := range s.Steps {
					s.Steps[i].Soak = &metav1.Duration{Duration: time.Hour}
				}
			})
			plan := rollout.Make(rolling(spec, step, some("cart", 2, 4)))
			if *plan.Step.Index != tc.index || plan.Step.Name != tc.want {
				t.Errorf("step %d %s, want %d %s", *plan.Step.Index, plan.Step.Name, tc.index, tc.want)
			}
			if kept := plan.Step.UpdatedAt != nil && plan.Step.UpdatedAt.Time.Equal(builders.At(99)); kept != tc.kept {
				t.Errorf("goes on soaking: %t, want %t", kept, tc.kept)
			}
			if *step.Index != 1 || step.Name != "half" {
				t.Error("the input was changed")
			}
		})
	}
}

// Steps by labels reach their pods and no others, and what earlier steps reached.
func TestStepsBySelectors(t *testing.T) {
	canary := v1alpha1.Step{Name: "canary", PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"canary": "true"}}}
	staging := v1alpha1.Step{Name: "staging", NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"stage": "test"}}}
	both := v1alpha1.Step{Name: "both", PodSelector: canary.PodSelector, NamespaceSelector: staging.NamespaceSelector}
	unreadable := v1alpha1.Step{Name: "unreadable", PodSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Like"}}}}
	fleetStep := builders.Step("fleet", "100%", 0)
	labelled := in("cart", pod("cart", 0).Label("canary", "true"))
	inStaging, labelledInStaging := member("cart", 1), in("cart", pod("cart", 2).Label("canary", "true"))
	inStaging.NamespaceLabels, labelledInStaging.NamespaceLabels = map[string]string{"stage": "test"}, map[string]string{"stage": "test"}
	members := []fleet.Member{labelled, inStaging, labelledInStaging, member("cart", 3)}
	for _, tc := range []struct {
		name  string
		steps []v1alpha1.Step
		step  *v1alpha1.StepStatus
		want  []string
	}{
		{"by the pod's labels", []v1alpha1.Step{canary, fleetStep}, nil, []string{"cart-00", "cart-02"}},
		{"by the namespace's", []v1alpha1.Step{staging, fleetStep}, nil, []string{"cart-01", "cart-02"}},
		{"by both", []v1alpha1.Step{both, fleetStep}, nil, []string{"cart-02"}},
		{"after another", []v1alpha1.Step{both, canary, fleetStep}, at(1, "canary", -1), []string{"cart-00", "cart-02"}},
		{"and by count", []v1alpha1.Step{both, builders.Step("two", "2", 0), fleetStep}, at(1, "two", -1), []string{"cart-00", "cart-01", "cart-02"}},
		{"what can't be read is nobody", []v1alpha1.Step{unreadable, fleetStep}, nil, nil},
		{"the last one is all", []v1alpha1.Step{both, fleetStep}, at(1, "fleet", -1), []string{"cart-00", "cart-01", "cart-02", "cart-03"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := names(rollout.Make(rolling(builders.Rollout().Steps(tc.steps...), tc.step, members)))
			slices.Sort(got)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("upgrades (-want +got):\n%s", diff)
			}
		})
	}
}

// On trial a pod that is down by itself proves nothing; to go back or to finish it costs nothing.
func TestTrialsAreMadeOnPodsThatCanTell(t *testing.T) {
	down := in("cart", pod("cart", 0).NotReady(builders.At(50)))
	failed := in("cart", pod("cart", 2).Upgraded(policy, r3, builders.At(0)).NotReady(builders.At(1)))
	for _, tc := range []struct {
		name    string
		step    *v1alpha1.StepStatus
		stable  string
		members []fleet.Member
		want    string
	}{
		{"a healthy one first", nil, r1.Hash, []fleet.Member{down, member("cart", 1)}, "cart-01"},
		{"one that another version broke even before", nil, r1.Hash, []fleet.Member{down, member("cart", 1), failed}, "cart-02"},
		{"there is no other", nil, r1.Hash, []fleet.Member{down}, "cart-00"},
		{"in the last step what is down first", at(1, "fleet", -1), r1.Hash, []fleet.Member{down, member("cart", 1)}, "cart-00"},
		{"back to the stable one too", nil, r2.Hash, []fleet.Member{down, member("cart", 1)}, "cart-00"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			spec := builders.Rollout().Steps(builders.Step("one", "1", 0), builders.Step("fleet", "100%", 0))
			input := rolling(spec, tc.step, tc.members)
			input.Stable = tc.stable
			if got := names(rollout.Make(input)); len(got) == 0 || got[0] != tc.want {
				t.Errorf("upgrades %v, want %s first", got, tc.want)
			}
		})
	}
}

// A pod that is not ready, and nobody knows why yet, is no proof either.
func TestStepIsNotLeftWhileItsPodsAreInDispute(t *testing.T) {
	input := rolling(threeSteps(), at(0, "one", 0), some("cart", 1, 4))
	input.Pods[0].Excused = true
	if plan := rollout.Make(input); plan.Step.Name != "one" || len(plan.Upgrades) > 0 {
		t.Errorf("step %s with %d upgrades, want none in the first", plan.Step.Name, len(plan.Upgrades))
	}
}

// The truth table of which revision new pods get in the middle of a roll-out.
func TestPromise4NewPodsDoNotLeakPastTheStep(t *testing.T) {
	canary := v1alpha1.Step{Name: "canary", PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"canary": "true"}}}
	ring := v1alpha1.Step{Name: "ring", NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"ring": "0"}}}
	steps := []v1alpha1.Step{canary, ring, builders.Step("half", "50%", 0), builders.Step("fleet", "100%", 0)}
	labelled := rollout.Place{Labels: map[string]string{"canary": "true"}}
	ringed := rollout.Place{NamespaceLabels: map[string]string{"ring": "0"}}
	plain := rollout.Place{Labels: map[string]string{"app": "cart"}, Owner: "rs-1"}
	for _, tc := range []struct {
		name  string
		step  *v1alpha1.StepStatus
		place rollout.Place
		want  string
	}{
		{"before the first step", nil, labelled, "r1"},
		{"its labels are reached", at(0, "canary", -1), labelled, "r2"},
		{"its namespace is not yet", at(0, "canary", -1), ringed, "r1"},
		{"its namespace is reached", at(1, "ring", -1), ringed, "r2"},
		{"a reached pod stays reached", at(1, "ring", -1), labelled, "r2"},
		{"nothing reaches it", at(1, "ring", -1), plain, "r1"},
		{"a percentage reaches no new pod", at(2, "half", -1), plain, "r1"},
		{"its owner's pods are recreated", recreating(at(2, "half", -1), "rs-1"), plain, "r2"},
		{"another owner's are", recreating(at(2, "half", -1), "rs-2"), plain, "r1"},
		{"a bare pod has no owner", recreating(at(2, "half", -1), ""), rollout.Place{}, "r1"},
		{"the last step is for all", at(3, "fleet", -1), plain, "r2"},
		{"a step that is no more counts as the last", at(9, "gone", -1), plain, "r2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := &v1alpha1.SidecarPolicy{}
			p.Spec.Rollout.Steps = steps
			p.Status = v1alpha1.SidecarPolicyStatus{StableRevision: "r1", TargetRevision: "r2", Step: tc.step}
			if got := rollout.RevisionFor(p, tc.place); got != tc.want {
				t.Errorf("RevisionFor() = %s, want %s", got, tc.want)
			}
			p.Status.FailedRevision = "r2"
			if got := rollout.RevisionFor(p, tc.place); got != "r1" {
				t.Errorf("RevisionFor() after the failure = %s, want r1", got)
			}
		})
	}
}

func recreating(step *v1alpha1.StepStatus, owners ...string) *v1alpha1.StepStatus {
	step.Recreating = owners
	return step
}

// Nothing is started outside of the windows, except the way back.
func TestWindowsHoldARolloutButNotARollback(t *testing.T) {
	// It is 08:01:40 on a Monday.
	for _, tc := range []struct {
		name  string
		spec  *builders.RolloutBuilder
		back  bool
		hold  v1alpha1.Reason
		opens time.Time
	}{
		{name: "none", spec: builders.Rollout()},
		{name: "open", spec: builders.Rollout().Window("0 8 * * *", time.Hour)},
		{name: "closed", spec: builders.Rollout().Window("0 22 * * *", time.Hour), hold: v1alpha1.ReasonFrozen, opens: builders.Epoch.Add(14 * time.Hour)},
		{name: "one of two is open", spec: builders.Rollout().Window("0 22 * * *", time.Hour).Window("0 8 * * mon", time.Hour)},
		{name: "the one that opens first", spec: builders.Rollout().Window("0 22 * * *", time.Hour).Window("30 8 * * *", time.Hour), hold: v1alpha1.ReasonFrozen, opens: builders.Epoch.Add(30 * time.Minute)},
		{name: "never", spec: builders.Rollout().Window("0 0 30 2 *", time.Hour), hold: v1alpha1.ReasonFrozen},
		{name: "what can't be read never opens", spec: builders.Rollout().Window("at night", time.Hour), hold: v1alpha1.ReasonFrozen},
		{name: "closed, on the way back", spec: builders.Rollout().Window("0 22 * * *", time.Hour), back: true},
		{name: "paused comes first", spec: builders.Rollout().Window("0 22 * * *", time.Hour).With(func(s *v1alpha1.RolloutSpec) { s.Paused = true }), hold: v1alpha1.ReasonPaused},
	} {
		t.Run(tc.name, func(t *testing.T) {
			input := inputAt(100, tc.spec, deployment("cart", 1))
			input.RollingBack = tc.back
			plan := rollout.Make(input)
			if plan.Summary.Hold != tc.hold || !plan.Summary.OpensAt.Equal(tc.opens) || (len(plan.Upgrades) == 0) != (tc.hold != "") {
				t.Errorf("hold %q until %s with %d upgrades, want %q until %s", plan.Summary.Hold, plan.Summary.OpensAt, len(plan.Upgrades), tc.hold, tc.opens)
			}
			if want := tc.opens.Sub(builders.At(100)); !tc.opens.IsZero() && plan.Requeue != want {
				t.Errorf("looks again in %s, want %s", plan.Requeue, want)
			}
		})
	}
}

// Exempt pods are counted, left alone, and not waited for.
func TestExemptPodsAreLeftAlone(t *testing.T) {
	members := deployment("cart", 3)
	members[1].Exempt, members[1].ExemptUntil = true, builders.At(500)
	plan := rollout.Make(rolling(builders.Rollout(), nil, members))
	if diff := cmp.Diff([]string{"cart-00", "cart-02"}, names(plan)); diff != "" {
		t.Errorf("upgrades (-want +got):\n%s", diff)
	}
	if plan.Summary.Counts.Exempt != 1 || plan.Summary.Outdated != 2 {
		t.Errorf("exempt %d, outdated %d, want 1, 2", plan.Summary.Counts.Exempt, plan.Summary.Outdated)
	}
	only := rollout.Make(rolling(builders.Rollout(), at(0, "fleet", 0), []fleet.Member{members[1], upgraded("cart", 0)}))
	if !only.Summary.Finished() || only.Requeue != 400*time.Second {
		t.Errorf("finished %t, looks again in %s, want true, when the exemption ends", only.Summary.Finished(), only.Requeue)
	}
}

// A running sidecar is stopped only for an image that is on its node.
func TestPromise5NoSidecarIsStoppedForAnImageThatItsNodeDoesNotHave(t *testing.T) {
	for _, tc := range []struct {
		presence prefetch.Presence
		upgrades int
		failed   bool
	}{
		{prefetch.Present, 1, false},
		{prefetch.Absent, 0, false},
		{prefetch.Refused, 0, false},
		{prefetch.Failed, 0, true},
		{prefetch.Unknown, 1, false}, // nobody can tell: the steps bound what happens
	} {
		t.Run(string(tc.presence), func(t *testing.T) {
			// The others' nodes have it: they must not be moved either, once it is known to fail somewhere.
			input := rolling(threeSteps(), nil, deployment("cart", 4))
			input.Images = func(pod *corev1.Pod, _ []prefetch.Image) (prefetch.Presence, string) {
				if pod.Name == "cart-00" {
					return tc.presence, "why"
				}
				return prefetch.Present, ""
			}
			plan := rollout.Make(input)
			if got := slices.Contains(names(plan), "cart-00"); got != (tc.upgrades > 0) {
				t.Errorf("upgraded %t, want %t", got, tc.upgrades > 0)
			}
			if got := plan.Summary.FailedRevision != ""; got != tc.failed || (tc.failed && len(plan.Upgrades) > 0) {
				t.Errorf("failed %t with upgrades %v, want %t", got, names(plan), tc.failed)
			}
		})
	}
}

func TestNotesSayWhatAPlanDoesAndWhy(t *testing.T) {
	members := some("cart", 1, 12)
	input := rolling(threeSteps().Budget(v1alpha1.PerFleet, "8"), at(2, "fleet", -1), members)
	plan := rollout.Make(input)
	got := strings.Join(plan.Notes(), "\n")
	want := fmt.Sprintf("step fleet of revision %s: 1 of 12 pods run it\nupgrade in place: shop/cart-01, shop/cart-02, shop/cart-03, shop/cart-04, shop/cart-05, shop/cart-06, and 2 more\n"+
		"wait: 8 of 12 pods of the fleet are unavailable, the budget allows 8", r2.Hash)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Notes() (-want +got):\n%s", diff)
	}
}

// A roll-out begins with dry runs, one for each workload, and moves nothing before their answers.
func TestARolloutBeginsWithDryRuns(t *testing.T) {
	input := inputAt(100, threeSteps(), append(deployment("cart", 3), deployment("till", 2)...))
	input.Stable = r1.Hash
	plan := rollout.Make(input)
	var tried []string
	for i := range plan.Tries {
		tried = append(tried, plan.Tries[i].Pod.Pod.Name)
	}
	if diff := cmp.Diff([]string{"cart-00", "till-00"}, tried); diff != "" {
		t.Errorf("tried (-want +got):\n%s", diff)
	}
	if len(plan.Upgrades) > 0 || plan.Requeue > time.Second {
		t.Errorf("%d upgrades, requeue %s; want none, at once", len(plan.Upgrades), plan.Requeue)
	}
}

// A roll-out that was held from its beginning (a template that was applied at noon, with a window at night) has not
// begun: its dry runs are still to come.
func TestARolloutThatIsHeldBeginsWithDryRunsToo(t *testing.T) {
	for name, hold := range map[string]func(*v1alpha1.RolloutSpec){
		"paused": func(s *v1alpha1.RolloutSpec) { s.Paused = true },
		"frozen": func(s *v1alpha1.RolloutSpec) {
			s.Windows = []v1alpha1.Window{{Schedule: "0 22 * * *", Duration: metav1.Duration{Duration: time.Hour}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			input := inputAt(100, threeSteps().With(hold), deployment("cart", 3))
			input.Stable = r1.Hash
			held := rollout.Make(input)
			if held.Step != nil || len(held.Tries) > 0 {
				t.Errorf("step %+v with %d dry runs while it is held, want none", held.Step, len(held.Tries))
			}
			input.Spec, input.Step = threeSteps().Obj(), held.Step
			if plan := rollout.Make(input); len(plan.Tries) == 0 || len(plan.Upgrades) > 0 {
				t.Errorf("%d dry runs and %d upgrades after that, want dry runs first", len(plan.Tries), len(plan.Upgrades))
			}
		})
	}
}

// With OnDelete nobody but the one who deletes them chooses pods: a step by a number could not be filled, and new pods would
// get the stable revision for ever. Steps by labels hold as ever.
func TestOnDeleteGivesNewPodsTheTarget(t *testing.T) {
	canary := v1alpha1.Step{Name: "canary", PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"canary": "true"}}}
	labelled := rollout.Place{Labels: map[string]string{"canary": "true"}}
	for _, tc := range []struct {
		name           string
		steps          []v1alpha1.Step
		members        []fleet.Member
		canary, others string
	}{
		{"by default", nil, deployment("cart", 200), r2.Hash, r2.Hash},
		{"a step by a number", threeSteps().Obj().Steps, deployment("cart", 3), r2.Hash, r2.Hash},
		{"a step by labels", []v1alpha1.Step{canary, builders.Step("half", "50%", 0), builders.Step("fleet", "100%", 0)},
			append(deployment("cart", 3), in("cart", pod("cart", 9).Label("canary", "true"))), r2.Hash, r1.Hash},
		{"after it", []v1alpha1.Step{canary, builders.Step("half", "50%", 0), builders.Step("fleet", "100%", 0)},
			append(deployment("cart", 3), in("cart", builders.Pod("shop", "cart-09").Label("canary", "true").Injected(policy, r2))), r2.Hash, r2.Hash},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := &v1alpha1.SidecarPolicy{}
			p.Spec.Rollout = *builders.Rollout().Method(v1alpha1.MethodOnDelete).Steps(tc.steps...).Obj()
			p.Status = v1alpha1.SidecarPolicyStatus{StableRevision: r1.Hash, TargetRevision: r2.Hash}
			aim := rollout.TakeAim(p, r2, []revision.Revision{*r1, *r2})
			plan := rollout.Make(aim.Input(fleet.Judge(tc.members, viewAt(100, r2)), nil, builders.At(100)))
			aim.Report(&p.Status, &plan)
			if len(plan.Upgrades)+len(plan.Tries) > 0 || p.Status.Phase != v1alpha1.PhasePaused {
				t.Errorf("phase %s with %d upgrades and %d dry runs, want %s with none", p.Status.Phase, len(plan.Upgrades), len(plan.Tries), v1alpha1.PhasePaused)
			}
			if got := rollout.RevisionFor(p, labelled); got != tc.canary {
				t.Errorf("a new canary gets %s, want %s", got, tc.canary)
			}
			if got := rollout.RevisionFor(p, rollout.Place{}); got != tc.others {
				t.Errorf("another new pod gets %s, want %s", got, tc.others)
			}
		})
	}
}

// What runs the target while the roll-out is held is watched and measured, and nothing new is begun.
func TestAHeldRolloutIsStillMeasured(t *testing.T) {
	for name, hold := range map[string]func(*v1alpha1.RolloutSpec){
		"paused": func(s *v1alpha1.RolloutSpec) { s.Paused = true },
		"frozen": func(s *v1alpha1.RolloutSpec) {
			s.Windows = []v1alpha1.Window{{Schedule: "0 22 * * *", Duration: metav1.Duration{Duration: time.Hour}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			spec := threeSteps().With(hold)
			plan := rollout.Make(rolling(spec, at(0, "one", 0), some("cart", 1, 4)))
			if plan.Step.Name != "one" || len(plan.Upgrades) > 0 {
				t.Errorf("step %s with %d upgrades after the soak, want one with none", plan.Step.Name, len(plan.Upgrades))
			}
			spec.With(func(s *v1alpha1.RolloutSpec) {
				s.Analysis = []v1alpha1.AnalysisQuery{{Name: "errors", SuccessCondition: "result < 1",
					Prometheus: v1alpha1.PrometheusQuery{Address: "http://prometheus", Query: "scalar(errors)"}}}
			})
			plan = rollout.Make(rolling(spec, at(0, "one", 90), some("cart", 1, 4)))
			if len(plan.Summary.Analysis.Due) != 1 {
				t.Fatalf("%d queries are due, want 1", len(plan.Summary.Analysis.Due))
			}
			input := rolling(spec, plan.Step, some("cart", 1, 4))
			input.Measurements = []analysis.Measurement{{Subject: plan.Step.Analysis[0].Subject, Result: analysis.ResultFailed, At: builders.At(100)}}
			if failed := rollout.Make(input).Summary.FailedRevision; failed != r2.Hash {
				t.Errorf("the failed revision is %q, want %s", failed, r2.Hash)
			}
		})
	}
}

// Whoever writes something that can't be carried out while a bad version is taken back must not keep it in the fleet.
func TestASpecThatIsNotAcceptedHoldsARolloutButNotARollback(t *testing.T) {
	for back, want := range map[bool]v1alpha1.Reason{false: v1alpha1.ReasonNotAccepted, true: ""} {
		input := inputAt(100, builders.Rollout(), deployment("cart", 1))
		input.NotAccepted, input.RollingBack = true, back
		if plan := rollout.Make(input); plan.Summary.Hold != want || (len(plan.Upgrades) > 0) != back {
			t.Errorf("on the way back %t: hold %q with %d upgrades, want %q", back, plan.Summary.Hold, len(plan.Upgrades), want)
		}
	}
}

// A pod on a node that is away can't be upgraded: it is not touched, said, and waited for at the very end alone.
func TestPodsOnNodesThatAreAwayAreLeftAlone(t *testing.T) {
	members := some("cart", 1, 3)
	members[2].Node.Down = true
	step := v1alpha1.Step{Name: "cart", PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "cart"}}}
	spec := builders.Rollout().Steps(step, builders.Step("fleet", "100%", 0))
	plan := rollout.Make(rolling(spec, nil, members))
	if diff := cmp.Diff([]string{"cart-01"}, names(plan)); diff != "" {
		t.Errorf("upgrades (-want +got):\n%s", diff)
	}
	if !strings.Contains(plan.Summary.Blocked, "1 pods are on nodes that are not ready") || plan.Requeue == 0 {
		t.Errorf("blocked %q, looks again in %s", plan.Summary.Blocked, plan.Requeue)
	}
	members[1] = upgraded("cart", 1)
	plan = rollout.Make(rolling(spec, nil, members))
	if plan.Step.Name != "fleet" || plan.Summary.Finished() {
		t.Errorf("step %s, finished %t; want the last one, and not finished", plan.Step.Name, plan.Summary.Finished())
	}
}

// A fleet that is scaled to nothing in the middle of a roll-out, for the night perhaps, must not find in the morning that the
// revision is the stable one.
func TestARolloutIsNotCompleteBecauseItsPodsAreGone(t *testing.T) {
	begun := inputAt(100, threeSteps(), nil)
	begun.Stable = r1.Hash
	if plan := rollout.Make(begun); !plan.Summary.Finished() {
		t.Errorf("a roll-out over a fleet that never had pods is not complete: %+v", plan.Summary)
	}
	input := rolling(threeSteps(), at(0, "one", 90), nil)
	plan := rollout.Make(input)
	if plan.Summary.Finished() || plan.Step.Name != "one" || plan.Step.UpdatedAt != nil || !strings.Contains(plan.Summary.Blocked, "has no pod left") {
		t.Errorf("finished %t at step %s, blocked %q", plan.Summary.Finished(), plan.Step.Name, plan.Summary.Blocked)
	}
	if again := rollout.Make(rolling(threeSteps(), plan.Step, deployment("cart", 4))); len(again.Upgrades) != 1 || again.Step.Name != "one" {
		t.Errorf("%d upgrades in step %s when there are pods again, want 1 in the first", len(again.Upgrades), again.Step.Name)
	}
	input.Promoted = r2.Hash + "/one"
	if plan := rollout.Make(input); plan.Step.Name != "half" {
		t.Errorf("step %s after a promotion, want the next", plan.Step.Name)
	}
}

// What only gets another label, as pods do whose configuration has not changed when that of others has, proves nothing: it is no canary.
func TestWhatIsNotRestartedIsNoCanary(t *testing.T) {
	relabeled := in("cart", pod("cart", 0).With(func(p *corev1.Pod) { p.Spec.InitContainers[0].Image = r2.Template.Sidecars[0].Image }))
	plan := rollout.Make(rolling(threeSteps(), nil, []fleet.Member{relabeled, member("till", 0), member("till", 1)}))
	if got := names(plan); !slices.Equal(got, []string{"till-00"}) {
		t.Errorf("%v go first, want till-00", got)
	}
}
