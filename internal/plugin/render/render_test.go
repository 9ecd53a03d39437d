package render_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/plugin/render"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

var (
	update = flag.Bool("update", false, "write the golden files anew")
	now    = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
)

// golden compares a text with the one that is kept.
func golden(t *testing.T, got string) {
	t.Helper()
	file := filepath.Join("testdata", strings.ReplaceAll(strings.TrimPrefix(t.Name(), "Test"), "/", "-")+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got), -update writes it anew:\n%s", file, diff)
	}
}

func ago(d time.Duration) metav1.Time { return metav1.NewTime(now.Add(-d)) }

func condition(kind string, status metav1.ConditionStatus, reason v1alpha1.Reason, message string) metav1.Condition {
	return metav1.Condition{Type: kind, Status: status, Reason: string(reason), Message: message}
}

func at(index int32, name string) *v1alpha1.StepStatus {
	return &v1alpha1.StepStatus{Index: &index, Name: name, StartedAt: ago(5 * time.Minute)}
}

// policies are one in each of the situations that matter.
func policies() map[string]*v1alpha1.SidecarPolicy {
	steps := []v1alpha1.Step{
		{Name: "canary", PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"canary": "true"}}, Soak: &metav1.Duration{Duration: 10 * time.Minute}},
		{Name: "early", UpTo: ptr.To(intstr.FromString("10%")), Soak: &metav1.Duration{Duration: 30 * time.Minute}, Approval: v1alpha1.ApprovalRequired},
		{Name: "fleet", UpTo: ptr.To(intstr.FromString("100%"))},
	}
	with := func(name string, status v1alpha1.SidecarPolicyStatus) *v1alpha1.SidecarPolicy {
		status.ObservedGeneration = 3
		p := &v1alpha1.SidecarPolicy{ObjectMeta: metav1.ObjectMeta{Name: name, Generation: 3, CreationTimestamp: ago(50 * time.Hour)}, Status: status}
		p.Spec.Rollout.Steps = steps
		return p
	}
	rolling := with("log-agent", v1alpha1.SidecarPolicyStatus{Phase: v1alpha1.PhaseProgressing, StableRevision: "4be31a0c7d", TargetRevision: "9e73231278", Step: at(2, "fleet"),
		Pods: &v1alpha1.PodCounts{Selected: 33, Injected: 30, Updated: 12, Ready: 27, Unavailable: 3, Missing: 3, Conflicting: 1},
		Unhealthy: []v1alpha1.UnhealthyPods{
			{Workload: "Deployment/shop/cart", Pods: 1, Reason: v1alpha1.ReasonPortConflict, Message: "pod cart-7: not injected: container \"app\" has port 2020/TCP"},
		},
		Conditions: []metav1.Condition{
			condition(v1alpha1.ConditionProgressing, metav1.ConditionTrue, v1alpha1.ReasonRollingOut, "step fleet: 12 of 30 injected pods run the target revision, 3 are being upgraded, 15 wait: 3 of 33 pods of the fleet are unavailable, the budget allows 3"),
			condition(v1alpha1.ConditionDegraded, metav1.ConditionTrue, v1alpha1.ReasonConflict, "1 pods were left as they are, because the sidecars clash with what they have, or are not allowed there (see status.unhealthy)"),
		}})
	approval := with("mesh", v1alpha1.SidecarPolicyStatus{Phase: v1alpha1.PhaseAwaitingApproval, StableRevision: "1111111111", TargetRevision: "2222222222", Step: at(1, "early"),
		Pods:       &v1alpha1.PodCounts{Selected: 200, Injected: 200, Updated: 20, Ready: 200},
		Conditions: []metav1.Condition{condition(v1alpha1.ConditionProgressing, metav1.ConditionTrue, v1alpha1.ReasonAwaitingApproval, "step early: waits for approval: kubectl annotate ...")}})
	approval.Status.Step.Analysis = []v1alpha1.AnalysisStatus{{Name: "errors", Successful: 4, LastValue: "[0.002]"}}
	broken := with("auth", v1alpha1.SidecarPolicyStatus{Phase: v1alpha1.PhaseRolledBack, StableRevision: "aaaaaaaaaa", TargetRevision: "bbbbbbbbbb", FailedRevision: "bbbbbbbbbb",
		Pods: &v1alpha1.PodCounts{Selected: 10, Injected: 10, Updated: 10, Ready: 10},
		Conditions: []metav1.Condition{
			condition(v1alpha1.ConditionProgressing, metav1.ConditionFalse, v1alpha1.ReasonRolledBack, "revision bbbbbbbbbb failed (1 pods failed, maxFailed is 0)"),
			condition(v1alpha1.ConditionDegraded, metav1.ConditionTrue, v1alpha1.ReasonUpgradeFailed, "revision bbbbbbbbbb failed (1 pods failed, maxFailed is 0)"),
		}})
	done := with("metrics", v1alpha1.SidecarPolicyStatus{Phase: v1alpha1.PhaseComplete, StableRevision: "cccccccccc", TargetRevision: "cccccccccc",
		Pods:       &v1alpha1.PodCounts{Selected: 5, Injected: 5, Updated: 5, Ready: 5},
		Conditions: []metav1.Condition{condition(v1alpha1.ConditionProgressing, metav1.ConditionFalse, v1alpha1.ReasonComplete, "5 of 5 injected pods run the target revision")}})
	refused := with("vault", v1alpha1.SidecarPolicyStatus{Phase: v1alpha1.PhaseIdle, Conditions: []metav1.Condition{
		condition(v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonInvalidSpec, "spec.rollout.windows[0]: write five fields"),
		condition(v1alpha1.ConditionProgressing, metav1.ConditionFalse, v1alpha1.ReasonNotAccepted, "the spec is not accepted; what was accepted before stays in force"),
	}})
	unseen := with("young", v1alpha1.SidecarPolicyStatus{})
	unseen.Generation = 4
	soaking := with("proxy", v1alpha1.SidecarPolicyStatus{Phase: v1alpha1.PhaseSoaking, StableRevision: "1111111111", TargetRevision: "2222222222", Step: at(0, "canary"),
		Pods:       &v1alpha1.PodCounts{Selected: 200, Injected: 200, Updated: 2, Ready: 200, Stale: 4, Exempt: 3},
		Conditions: []metav1.Condition{condition(v1alpha1.ConditionProgressing, metav1.ConditionTrue, v1alpha1.ReasonSoaking, "step canary: 2 pods run the target revision and are watched until 09:08")}})
	return map[string]*v1alpha1.SidecarPolicy{"rolling": rolling, "approval": approval, "broken": broken, "done": done, "refused": refused, "unseen": unseen, "soaking": soaking}
}

func TestPolicy(t *testing.T) {
	for name, policy := range policies() {
		t.Run(name, func(t *testing.T) {
			s := render.StatusOf(policy, now)
			golden(t, render.Policy(&s)+"\n"+render.Line(&s)+"\n")
		})
	}
}

func TestFleet(t *testing.T) {
	all := policies()
	var list []render.Status
	for _, name := range []string{"broken", "rolling", "approval", "done", "soaking", "refused", "unseen"} {
		list = append(list, render.StatusOf(all[name], now))
	}
	t.Run("narrow", func(t *testing.T) { golden(t, render.Fleet(list, false, now)) })
	t.Run("wide", func(t *testing.T) { golden(t, render.Fleet(list, true, now)) })
}

func TestDoneAndFailed(t *testing.T) {
	type answer struct{ Done, Failed bool }
	want := map[string]answer{
		"rolling": {}, "approval": {}, "soaking": {}, "unseen": {},
		"broken": {true, true}, "refused": {true, true}, "done": {true, false},
	}
	got := map[string]answer{}
	for name, policy := range policies() {
		s := render.StatusOf(policy, now)
		got[name] = answer{s.Done, s.Failed}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A pipeline asks for another try and watches: it does not see the end of the last one.
func TestAnotherTryIsNotDone(t *testing.T) {
	const failed = "bbbbbbbbbb"
	for _, tc := range []struct {
		name                  string
		phase                 v1alpha1.Phase
		retry, handled, abort string
		done                  bool
	}{
		{"nobody asked", v1alpha1.PhaseRolledBack, "", "", "", true},
		{"asked", v1alpha1.PhaseRolledBack, failed, "", "", false},
		{"asked once more", v1alpha1.PhaseRolledBack, failed + "/2026-03-01T09:00:00Z", failed, "", false},
		{"asked after a pause", v1alpha1.PhasePaused, failed, "", "", false},
		{"tried, and failed again", v1alpha1.PhaseRolledBack, failed, failed, "", true},
		{"asked for another revision", v1alpha1.PhaseRolledBack, "aaaaaaaaaa", "", "", true},
		{"aborted still", v1alpha1.PhaseRolledBack, failed, "", failed, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			policy := policies()["broken"]
			policy.Status.Phase, policy.Status.HandledRetry = tc.phase, tc.handled
			policy.Annotations = map[string]string{v1alpha1.RetryAnnotation: tc.retry, v1alpha1.AbortAnnotation: tc.abort}
			s := render.StatusOf(policy, now)
			if s.Done != tc.done || s.Failed != tc.done {
				t.Errorf("done %t, failed %t, want %t", s.Done, s.Failed, tc.done)
			}
			if waits := s.WaitsFor == "the operator to try revision bbbbbbbbbb again"; waits == tc.done {
				t.Errorf("waits for %q", s.WaitsFor)
			}
		})
	}
}

func TestTempoTellsHowMuchIsLeft(t *testing.T) {
	policy := policies()["approval"]
	policy.Status.Step = at(0, "canary")
	policy.Status.Pods.Updated = 0
	tempo := &render.Tempo{}
	look := func(after time.Duration, updated int32) *int64 {
		policy.Status.Pods.Updated = updated
		s := render.StatusOf(policy, now.Add(after))
		tempo.Note(&s, now.Add(after))
		return s.Left
	}
	if left := look(0, 0); left != nil {
		t.Errorf("%d s are left before anything moved", *left)
	}
	// 10 pods in 10 s, 190 to go, and soaks of 10 and 30 minutes to come.
	if left := look(10*time.Second, 10); left == nil || *left != 190+40*60 {
		t.Errorf("%v s are left, want 2590", ptr.Deref(left, -1))
	}
	policy.Status.TargetRevision = "other"
	if left := look(20*time.Second, 20); left != nil {
		t.Errorf("%d s are left of another roll-out that was just begun", *left)
	}
}

func revisions() []revision.Revision {
	one := builders.Template("agent", "agent:1")
	two := one.Clone().Image("agent:2")
	three := two.Clone().Env("LEVEL", "debug").Sidecar("exporter", "exporter:1")
	return []revision.Revision{*three.Revision(3), *two.Revision(2), *one.Revision(1)}
}

func TestHistory(t *testing.T) {
	all := revisions()
	policy := policies()["rolling"]
	policy.Status.StableRevision, policy.Status.TargetRevision, policy.Status.FailedRevision = all[1].Hash, all[0].Hash, all[0].Hash
	created := []time.Time{now.Add(-5 * time.Minute), now.Add(-26 * time.Hour), now.Add(-90 * 24 * time.Hour)}
	list := render.HistoryOf(policy, all, created, map[string]int{all[0].Hash: 12, all[1].Hash: 18})
	t.Run("narrow", func(t *testing.T) { golden(t, render.History(list, false, now)) })
	t.Run("wide", func(t *testing.T) { golden(t, render.History(list, true, now)) })
}

func TestDiff(t *testing.T) {
	all := revisions()
	for name, pair := range map[string][2]int{"image": {2, 1}, "recreate": {1, 0}, "same": {0, 0}} {
		t.Run(name, func(t *testing.T) {
			d, err := render.DifferenceOf(&all[pair[0]], &all[pair[1]])
			if err != nil {
				t.Fatal(err)
			}
			golden(t, render.Diff(d))
		})
	}
}
