package rollout_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

// aimAt is what a pass aims at with a status, for the goal r2.
func aimAt(status v1alpha1.SidecarPolicyStatus, change func(*v1alpha1.SidecarPolicy)) (*v1alpha1.SidecarPolicy, rollout.Aim) {
	p := &v1alpha1.SidecarPolicy{}
	p.Spec.Rollout, p.Status = *builders.Rollout().Obj(), status
	if change != nil {
		change(p)
	}
	return p, rollout.TakeAim(p, r2, []revision.Revision{*r1, *r2, *r3})
}

func annotated(key, value string) func(*v1alpha1.SidecarPolicy) {
	return func(p *v1alpha1.SidecarPolicy) { p.Annotations = map[string]string{key: value} }
}

func TestAimGoesBackFromWhatHasFailed(t *testing.T) {
	failed := v1alpha1.SidecarPolicyStatus{StableRevision: r1.Hash, TargetRevision: r2.Hash, FailedRevision: r2.Hash}
	type answer struct {
		Target, Failed string
		Back, Rolling  bool
	}
	goal := answer{Target: r2.Hash, Rolling: true}
	back := answer{Target: r1.Hash, Failed: r2.Hash, Back: true}
	stays := answer{Target: r2.Hash, Failed: r2.Hash, Rolling: true}
	for _, tc := range []struct {
		name   string
		status v1alpha1.SidecarPolicyStatus
		change func(*v1alpha1.SidecarPolicy)
		want   answer
	}{
		{"the first revision", v1alpha1.SidecarPolicyStatus{}, nil, goal},
		{"rolling out", v1alpha1.SidecarPolicyStatus{StableRevision: r1.Hash, TargetRevision: r2.Hash}, nil, goal},
		{"complete", v1alpha1.SidecarPolicyStatus{StableRevision: r2.Hash, TargetRevision: r2.Hash}, nil, answer{Target: r2.Hash}},
		{"failed", failed, nil, back},
		{"failed, and told to wait", failed, func(p *v1alpha1.SidecarPolicy) { p.Spec.Rollout.OnFailure = v1alpha1.FailurePause }, stays},
		{"failed, and there is nothing older", v1alpha1.SidecarPolicyStatus{TargetRevision: r2.Hash, FailedRevision: r2.Hash}, nil, stays},
		{"failed, and the stable one is gone", v1alpha1.SidecarPolicyStatus{StableRevision: "gone", TargetRevision: r2.Hash, FailedRevision: r2.Hash}, nil, stays},
		{"another one has failed", v1alpha1.SidecarPolicyStatus{StableRevision: r1.Hash, TargetRevision: r3.Hash, FailedRevision: r3.Hash}, nil, goal},
		{"tried again", failed, annotated(v1alpha1.RetryAnnotation, r2.Hash), goal},
		{"tried another time", failed, annotated(v1alpha1.RetryAnnotation, r2.Hash+"/again"), goal},
		{"a retry of what is aborted: that comes first", failed, func(p *v1alpha1.SidecarPolicy) {
			p.Annotations = map[string]string{v1alpha1.RetryAnnotation: r2.Hash, v1alpha1.AbortAnnotation: r2.Hash}
		}, back},
		{"a retry of another revision", failed, annotated(v1alpha1.RetryAnnotation, r3.Hash), back},
		{"a retry that was acted on", v1alpha1.SidecarPolicyStatus{StableRevision: r1.Hash, TargetRevision: r2.Hash, FailedRevision: r2.Hash, HandledRetry: r2.Hash},
			annotated(v1alpha1.RetryAnnotation, r2.Hash), back},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, aim := aimAt(tc.status, tc.change)
			got := answer{Target: aim.Target.Hash, Failed: aim.Failed, Back: aim.RollingBack(), Rolling: aim.Rolling()}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestAimGoesOnFromTheStepOfItsGoalAlone(t *testing.T) {
	step := at(1, "half", 10)
	for _, tc := range []struct {
		name   string
		status v1alpha1.SidecarPolicyStatus
		change func(*v1alpha1.SidecarPolicy)
		want   *v1alpha1.StepStatus
	}{
		{"of the goal", v1alpha1.SidecarPolicyStatus{StableRevision: r1.Hash, TargetRevision: r2.Hash, Step: step}, nil, step},
		{"of another goal", v1alpha1.SidecarPolicyStatus{StableRevision: r1.Hash, TargetRevision: r3.Hash, Step: step}, nil, nil},
		{"a retry begins anew", v1alpha1.SidecarPolicyStatus{StableRevision: r1.Hash, TargetRevision: r2.Hash, FailedRevision: r2.Hash, Step: step},
			annotated(v1alpha1.RetryAnnotation, r2.Hash), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, aim := aimAt(tc.status, tc.change)
			if diff := cmp.Diff(tc.want, aim.Input(nil, nil, builders.At(100)).Step); diff != "" {
				t.Errorf("step (-want +got):\n%s", diff)
			}
		})
	}
}

// What a revision's pods went through before a retry is not held against it, nor what they did before an undo.
func TestAimWatchesSinceTheRolloutBegan(t *testing.T) {
	began := metav1.NewTime(builders.At(10))
	step := at(1, "half", 20)
	step.RolloutStartedAt = &began
	running := v1alpha1.SidecarPolicyStatus{StableRevision: r1.Hash, TargetRevision: r2.Hash, Step: step}
	failed, another, older := running, running, running
	failed.FailedRevision, another.TargetRevision, older.Step = r2.Hash, r3.Hash, at(1, "half", 20)
	now := builders.At(100).Add(300 * time.Millisecond)
	for _, tc := range []struct {
		name   string
		status v1alpha1.SidecarPolicyStatus
		change func(*v1alpha1.SidecarPolicy)
		want   time.Time
	}{
		{"in the middle", running, nil, builders.At(10)},
		{"another goal", another, nil, builders.At(100)},
		{"a retry", failed, annotated(v1alpha1.RetryAnnotation, r2.Hash), builders.At(100)},
		{"a status of an older operator", older, nil, time.Time{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, aim := aimAt(tc.status, tc.change)
			if got := aim.View(nil, now).WatchedSince; !got.Equal(tc.want) {
				t.Errorf("watched since %s, want %s", got, tc.want)
			}
		})
	}
	_, atRest := aimAt(v1alpha1.SidecarPolicyStatus{StableRevision: r2.Hash, TargetRevision: r2.Hash}, nil)
	if since := atRest.View(nil, now).WatchedSince; !since.IsZero() {
		t.Errorf("a fleet at rest is judged anew each second: watched since %s", since)
	}
	next := rollout.Make(rolling(threeSteps(), at(0, "one", 0), some("cart", 1, 4))).Step
	first := rollout.Make(inputAt(100, threeSteps(), deployment("cart", 4))).Step
	if next.RolloutStartedAt != nil || first.RolloutStartedAt == nil {
		t.Errorf("began at %s in the next step and %s in the first, want no time that is not known, and now", next.RolloutStartedAt, first.RolloutStartedAt)
	}
}

// The status says where the roll-out stands, by what was planned from the pods.
func TestReportSaysWhereTheRolloutStands(t *testing.T) {
	running := v1alpha1.SidecarPolicyStatus{StableRevision: r1.Hash, TargetRevision: r2.Hash}
	begun := v1alpha1.SidecarPolicyStatus{StableRevision: r1.Hash, TargetRevision: r2.Hash, Step: at(0, "fleet", -1)}
	failed := v1alpha1.SidecarPolicyStatus{StableRevision: r1.Hash, TargetRevision: r2.Hash, FailedRevision: r2.Hash, FailureMessage: "1 pods failed"}
	broken := in("cart", pod("cart", 9).Upgraded(policy, r2, builders.At(0)).NotReady(builders.At(1)))
	soaking := v1alpha1.SidecarPolicyStatus{StableRevision: r1.Hash, TargetRevision: r2.Hash, Step: at(0, "one", 90)}
	withSteps := func(p *v1alpha1.SidecarPolicy) { p.Spec.Rollout.Steps = threeSteps().Obj().Steps }
	for _, tc := range []struct {
		name    string
		status  v1alpha1.SidecarPolicyStatus
		change  func(*v1alpha1.SidecarPolicy)
		members []fleet.Member
		phase   v1alpha1.Phase
		stable  string
		failed  string
		step    string
	}{
		{name: "under way", status: running, members: deployment("cart", 2), phase: v1alpha1.PhaseProgressing, stable: r1.Hash, step: "fleet"},
		{name: "soaking", status: soaking, change: withSteps, members: some("cart", 1, 2), phase: v1alpha1.PhaseSoaking, stable: r1.Hash, step: "one"},
		{name: "awaiting approval", status: soaking, change: func(p *v1alpha1.SidecarPolicy) {
			withSteps(p)
			p.Spec.Rollout.Steps[0].Soak, p.Spec.Rollout.Steps[0].Approval = nil, v1alpha1.ApprovalRequired
		}, members: some("cart", 1, 2), phase: v1alpha1.PhaseAwaitingApproval, stable: r1.Hash, step: "one"},
		{name: "paused", status: begun, change: func(p *v1alpha1.SidecarPolicy) { p.Spec.Rollout.Paused = true }, members: deployment("cart", 2),
			phase: v1alpha1.PhasePaused, stable: r1.Hash, step: "fleet"},
		{name: "paused before it began", status: running, change: func(p *v1alpha1.SidecarPolicy) { p.Spec.Rollout.Paused = true }, members: deployment("cart", 2),
			phase: v1alpha1.PhasePaused, stable: r1.Hash},
		{name: "no window", status: begun, change: func(p *v1alpha1.SidecarPolicy) {
			p.Spec.Rollout = *builders.Rollout().Window("0 22 * * *", time.Hour).Obj()
		}, members: deployment("cart", 2), phase: v1alpha1.PhaseFrozen, stable: r1.Hash, step: "fleet"},
		{name: "complete", status: running, members: some("cart", 2, 2), phase: v1alpha1.PhaseComplete, stable: r2.Hash},
		{name: "no pods", status: running, phase: v1alpha1.PhaseComplete, stable: r2.Hash},
		{name: "a pod fails", status: begun, members: append(deployment("cart", 1), broken), phase: v1alpha1.PhaseRollingBack, stable: r1.Hash, failed: r2.Hash, step: "fleet"},
		{name: "a pod fails, and there is no way back", status: v1alpha1.SidecarPolicyStatus{TargetRevision: r2.Hash, Step: at(0, "fleet", -1)}, members: append(deployment("cart", 1), broken),
			phase: v1alpha1.PhasePaused, failed: r2.Hash, step: "fleet"},
		{name: "on the way back", status: failed, members: []fleet.Member{broken}, phase: v1alpha1.PhaseRollingBack, stable: r1.Hash, failed: r2.Hash},
		{name: "back", status: failed, members: deployment("cart", 2), phase: v1alpha1.PhaseRolledBack, stable: r1.Hash, failed: r2.Hash},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, aim := aimAt(tc.status, tc.change)
			view := viewAt(100, aim.Target)
			view.Watching = aim.Rolling()
			plan := rollout.Make(aim.Input(fleet.Judge(tc.members, view), nil, builders.At(100)))
			status := p.Status.DeepCopy()
			aim.Report(status, &plan)
			step := ""
			if status.Step != nil {
				step = status.Step.Name
			}
			if status.Phase != tc.phase || status.StableRevision != tc.stable || status.FailedRevision != tc.failed || step != tc.step {
				t.Errorf("phase %s, stable %s, failed %s, step %q; want %s, %s, %s, %q",
					status.Phase, status.StableRevision, status.FailedRevision, step, tc.phase, tc.stable, tc.failed, tc.step)
			}
			if (status.FailureMessage != "") != (tc.failed != "") {
				t.Errorf("failureMessage %q", status.FailureMessage)
			}
		})
	}
}

// Another goal forgets what was known of the one before; without a plan that is all.
func TestReportOfANewGoalBeginsAnew(t *testing.T) {
	p, aim := aimAt(v1alpha1.SidecarPolicyStatus{StableRevision: r1.Hash, TargetRevision: r3.Hash, FailedRevision: r3.Hash, FailureMessage: "why",
		Phase: v1alpha1.PhaseRolledBack, Step: at(1, "half", 10)}, nil)
	aim.Report(&p.Status, nil)
	want := v1alpha1.SidecarPolicyStatus{StableRevision: r1.Hash, TargetRevision: r2.Hash, Phase: v1alpha1.PhaseRolledBack}
	if diff := cmp.Diff(want, p.Status); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}

func TestReportRoundsDowntimeUp(t *testing.T) {
	for downtime, want := range map[time.Duration]*int32{0: nil, time.Second: ptr.To[int32](1), 1500 * time.Millisecond: ptr.To[int32](2)} {
		p, aim := aimAt(v1alpha1.SidecarPolicyStatus{StableRevision: r1.Hash, TargetRevision: r2.Hash}, nil)
		aim.Report(&p.Status, &rollout.Plan{Summary: rollout.Summary{Downtime: downtime}})
		if diff := cmp.Diff(want, p.Status.MaxSidecarDowntimeSeconds); diff != "" {
			t.Errorf("%s (-want +got):\n%s", downtime, diff)
		}
	}
}

// The stable template in the middle of a roll-out is a rollback: no window holds it, also for a manager that starts anew, and
// it is over when no pod has to be put back any more.
func TestARolloutThatIsTakenBackIsARollback(t *testing.T) {
	onNewer := in("cart", pod("cart", 0).Upgraded(policy, r3, builders.At(0)).Restarted("agent", builders.At(1)))
	rolling := v1alpha1.SidecarPolicyStatus{StableRevision: r2.Hash, TargetRevision: r3.Hash, Step: at(0, "one", 10)}
	failed := rolling
	failed.FailedRevision, failed.Step = r3.Hash, nil
	complete := v1alpha1.SidecarPolicyStatus{StableRevision: r2.Hash, TargetRevision: r2.Hash}
	closed := func(p *v1alpha1.SidecarPolicy) {
		p.Spec.Rollout = *builders.Rollout().Window("0 22 * * *", time.Hour).Obj()
	}
	for _, tc := range []struct {
		name      string
		status    v1alpha1.SidecarPolicyStatus
		upgrades  int
		phase     v1alpha1.Phase
		withdrawn string
	}{
		{"in the middle", rolling, 1, v1alpha1.PhaseProgressing, r3.Hash},
		{"after it failed", failed, 1, v1alpha1.PhaseProgressing, r3.Hash},
		{"what comes late to the stable revision is none", complete, 0, v1alpha1.PhaseFrozen, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, _ := aimAt(tc.status, closed)
			for range 2 { // what the first pass writes, the second goes by
				aim := rollout.TakeAim(p, r2, []revision.Revision{*r1, *r2, *r3})
				plan := rollout.Make(aim.Input(fleet.Judge([]fleet.Member{onNewer}, viewAt(100, r2)), nil, builders.At(100)))
				aim.Report(&p.Status, &plan)
				if len(plan.Upgrades) != tc.upgrades || p.Status.Phase != tc.phase || p.Status.WithdrawnRevision != tc.withdrawn {
					t.Fatalf("%d upgrades, phase %s, withdrawn %q; want %d, %s, %q", len(plan.Upgrades), p.Status.Phase, p.Status.WithdrawnRevision, tc.upgrades, tc.phase, tc.withdrawn)
				}
			}
			aim := rollout.TakeAim(p, r2, []revision.Revision{*r1, *r2, *r3})
			plan := rollout.Make(aim.Input(fleet.Judge(some("cart", 2, 2), viewAt(100, r2)), nil, builders.At(100)))
			if aim.Report(&p.Status, &plan); p.Status.Phase != v1alpha1.PhaseComplete || p.Status.WithdrawnRevision != "" {
				t.Errorf("phase %s, withdrawn %q when all pods are back", p.Status.Phase, p.Status.WithdrawnRevision)
			}
		})
	}
}

// Somewhere in a large fleet a sidecar always crashes: that must not keep a bad version in all the other pods.
func TestAPodThatFailsOnTheStableRevisionHoldsUpNoRollback(t *testing.T) {
	crashing := in("till", builders.Pod("shop", "till-0").Injected(policy, r1).Status("agent", func(s *corev1.ContainerStatus) {
		s.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
	}))
	failed := v1alpha1.SidecarPolicyStatus{StableRevision: r1.Hash, TargetRevision: r2.Hash, FailedRevision: r2.Hash, FailureMessage: "1 pods failed"}
	p, aim := aimAt(failed, nil)
	plan := rollout.Make(aim.Input(fleet.Judge(append(some("cart", 1, 2), crashing), viewAt(100, r1)), nil, builders.At(100)))
	if diff := cmp.Diff([]string{"cart-00"}, names(plan)); diff != "" {
		t.Errorf("put back (-want +got):\n%s", diff)
	}
	plan = rollout.Make(aim.Input(fleet.Judge(append(deployment("cart", 2), crashing), viewAt(100, r1)), nil, builders.At(100)))
	if aim.Report(&p.Status, &plan); p.Status.Phase != v1alpha1.PhaseRolledBack {
		t.Errorf("phase %s when no pod runs the failed revision, want %s", p.Status.Phase, v1alpha1.PhaseRolledBack)
	}
}

// What comes late to the stable revision (an exemption ended) waits where others that did so fail.
func TestPodsThatCameLateAndFailHoldUpOthersThatDo(t *testing.T) {
	late := in("cart", pod("cart", 9).Upgraded(policy, r2, builders.At(0)).NotReady(builders.At(1)))
	_, aim := aimAt(v1alpha1.SidecarPolicyStatus{StableRevision: r2.Hash, TargetRevision: r2.Hash}, nil)
	if got := names(rollout.Make(aim.Input(fleet.Judge(append(deployment("cart", 2), late), viewAt(100, r2)), nil, builders.At(100)))); len(got) > 0 {
		t.Errorf("upgrades %v, want none", got)
	}
}
