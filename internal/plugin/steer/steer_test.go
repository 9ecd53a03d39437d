package steer_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/plugin/steer"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
)

var now = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)

type policy = v1alpha1.SidecarPolicy

// rollingOut is a policy in the middle of a roll-out from r1 to r2, at its first step of two.
func rollingOut(changes ...func(*policy)) *policy {
	p := &policy{ObjectMeta: metav1.ObjectMeta{Name: "logs", Generation: 2, Annotations: map[string]string{"own": "kept"}}}
	p.Spec.Rollout.Steps = []v1alpha1.Step{{Name: "canary", UpTo: ptr.To(intstr.FromInt32(1))}, {Name: "fleet", UpTo: ptr.To(intstr.FromString("100%"))}}
	p.Status = v1alpha1.SidecarPolicyStatus{ObservedGeneration: 2, Phase: v1alpha1.PhaseProgressing, StableRevision: "r1", TargetRevision: "r2",
		Step: &v1alpha1.StepStatus{Index: ptr.To[int32](0), Name: "canary"}}
	for _, change := range changes {
		change(p)
	}
	return p
}

func phase(phase v1alpha1.Phase) func(*policy) { return func(p *policy) { p.Status.Phase = phase } }

func failed(p *policy) { p.Status.FailedRevision, p.Status.Phase = "r2", v1alpha1.PhaseRolledBack }

func paused(p *policy) { p.Spec.Rollout.Paused = true }

func complete(p *policy) {
	p.Status.StableRevision, p.Status.Step, p.Status.Phase = "r2", nil, v1alpha1.PhaseComplete
}

func unseen(p *policy) { p.Generation++ }

func annotated(key, value string) func(*policy) {
	return func(p *policy) { metav1.SetMetaDataAnnotation(&p.ObjectMeta, key, value) }
}

func revisions() []revision.Revision {
	return []revision.Revision{{Hash: "r2", Number: 2}, {Hash: "r1", Number: 1}, {Hash: "abc1", Number: 3}, {Hash: "abd2", Number: 4}}
}

func TestVerbs(t *testing.T) {
	for _, tc := range []struct {
		name   string
		verb   steer.Verb
		before []func(*policy)
		// after is what the verb changes; nil where it refuses.
		after func(*policy)
		// says are words of what it says.
		says []string
	}{
		{"pause", steer.Pause, nil, paused, []string{"paused the roll-out", "new pods get revision r1", "kubectl sidecar resume logs"}},
		{"pause at rest", steer.Pause, []func(*policy){complete}, paused, []string{"a new template waits"}},
		{"pause twice", steer.Pause, []func(*policy){paused}, nil, []string{"paused already", "kubectl sidecar resume logs"}},
		{"resume", steer.Resume, []func(*policy){paused}, func(p *policy) { p.Spec.Rollout.Paused = false }, []string{"status logs --watch"}},
		{"resume what goes on", steer.Resume, nil, nil, []string{"not paused", "phase is Progressing", "at step canary", "r2 is being rolled out"}},

		{"approve", steer.Approve, []func(*policy){phase(v1alpha1.PhaseAwaitingApproval)}, annotated(v1alpha1.ApproveAnnotation, "r2/canary"), []string{"approved step canary of revision r2", "step fleet comes next"}},
		{"approve too early", steer.Approve, []func(*policy){phase(v1alpha1.PhaseSoaking)}, nil, []string{"nothing of policy logs awaits approval", "phase is Soaking"}},
		{"approve what has changed", steer.Approve, []func(*policy){phase(v1alpha1.PhaseAwaitingApproval), unseen}, nil, []string{"has not looked at the last change", "try again"}},

		{"promote", steer.Promote, []func(*policy){phase(v1alpha1.PhaseSoaking)}, annotated(v1alpha1.PromoteAnnotation, "r2/canary"), []string{"promoted step canary", "step fleet comes next"}},
		{"promote the last step", steer.Promote, []func(*policy){func(p *policy) { p.Status.Step.Name = "fleet" }}, annotated(v1alpha1.PromoteAnnotation, "r2/fleet"), []string{"it was the last one"}},
		{"promote twice", steer.Promote, []func(*policy){annotated(v1alpha1.PromoteAnnotation, "r2/canary")}, nil, []string{"promoted already"}},
		{"promote nothing", steer.Promote, []func(*policy){complete}, nil, []string{"at no step", "phase is Complete"}},
		{"promote a failure", steer.Promote, []func(*policy){failed}, nil, []string{"r2 has failed", "kubectl sidecar retry logs"}},

		{"abort", steer.Abort, nil, annotated(v1alpha1.AbortAnnotation, "r2"), []string{"aborted revision r2", "put back to revision r1", "retry logs"}},
		{"abort with onFailure Pause", steer.Abort, []func(*policy){func(p *policy) { p.Spec.Rollout.OnFailure = v1alpha1.FailurePause }}, annotated(v1alpha1.AbortAnnotation, "r2"), []string{"nothing is put back"}},
		{"abort the first", steer.Abort, []func(*policy){func(p *policy) { p.Status.StableRevision = "" }}, annotated(v1alpha1.AbortAnnotation, "r2"), []string{"no earlier revision"}},
		{"abort nothing", steer.Abort, []func(*policy){complete}, nil, []string{"rolls nothing out", "phase is Complete"}},
		{"abort a failure", steer.Abort, []func(*policy){failed}, nil, []string{"rolls nothing out", "r2 has failed"}},

		{"retry", steer.Retry, []func(*policy){failed}, annotated(v1alpha1.RetryAnnotation, "r2"), []string{"another try of revision r2", "first step"}},
		{"retry once more", steer.Retry, []func(*policy){failed, func(p *policy) { p.Status.HandledRetry = "r2" }}, annotated(v1alpha1.RetryAnnotation, "r2/2026-03-01T09:00:00Z"), []string{"another try"}},
		{"retry what was aborted", steer.Retry, []func(*policy){failed, annotated(v1alpha1.AbortAnnotation, "r2")}, func(p *policy) {
			delete(p.Annotations, v1alpha1.AbortAnnotation)
			annotated(v1alpha1.RetryAnnotation, "r2")(p)
		}, []string{"another try"}},
		{"retry without a failure", steer.Retry, nil, nil, []string{"no revision of policy logs has failed"}},

		{"restart", steer.Restart, []func(*policy){complete}, func(p *policy) { p.Spec.Template.RestartedAt = &metav1.Time{Time: now} }, []string{"restart of the sidecars of policy logs", "steps and budgets"}},
		{"restart while paused", steer.Restart, []func(*policy){paused}, func(p *policy) { p.Spec.Template.RestartedAt = &metav1.Time{Time: now} }, []string{"kubectl sidecar resume logs"}},
		{"restart twice", steer.Restart, []func(*policy){func(p *policy) { p.Spec.Template.RestartedAt = &metav1.Time{Time: now} }}, nil, []string{"already"}},
		{"restart on delete", steer.Restart, []func(*policy){func(p *policy) { p.Spec.Rollout.Method = v1alpha1.MethodOnDelete }}, nil, []string{"OnDelete", "delete the pods"}},
		{"restart an undone template", steer.Restart, []func(*policy){func(p *policy) { p.Spec.Rollout.Revision = "r1" }}, nil, []string{"instead of its template", "--to-template"}},
		{"restart what can't be read", steer.Restart, []func(*policy){func(p *policy) { p.Spec.Template.Unreadable = "quantity" }}, nil, []string{"can't be read: quantity"}},

		{"undo a roll-out", steer.Undo, nil, func(p *policy) { p.Spec.Rollout.Revision = "r1" }, []string{"rolls out revision r1", "--to-template"}},
		{"undo what is rolled out", steer.Undo, []func(*policy){complete}, func(p *policy) { p.Spec.Rollout.Revision = "r1" }, []string{"rolls out revision r1"}},
		{"undo while paused", steer.Undo, []func(*policy){paused}, func(p *policy) { p.Spec.Rollout.Revision = "r1" }, []string{"kubectl sidecar resume logs"}},
		{"undo the first", steer.Undo, []func(*policy){complete, func(p *policy) { p.Status.TargetRevision, p.Status.StableRevision = "r1", "r1" }}, nil, []string{"no revision before r1", "abd2 (number 4), abc1 (number 3), r2 (number 2)"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := rollingOut(tc.before...)
			want := got.DeepCopy()
			outcome, err := tc.verb(steer.Request{Policy: got, Revisions: revisions(), Now: now})
			text := outcome.Done + "; " + outcome.Next
			if tc.after == nil {
				if err == nil {
					t.Fatalf("did it: %s", text)
				}
				text = err.Error()
			} else {
				if err != nil {
					t.Fatal(err)
				}
				tc.after(want)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("changed (-want +got):\n%s", diff)
			}
			for _, words := range tc.says {
				if !strings.Contains(text, words) {
					t.Errorf("says %q, want %q in it", text, words)
				}
			}
		})
	}
}

func TestUndoFindsRevisions(t *testing.T) {
	for _, tc := range []struct {
		to, want, refusal string
		before            []func(*policy)
	}{
		{to: "abc1", want: "abc1"},
		{to: "3", want: "abc1"},
		{to: "abd", want: "abd2"},
		{to: "ab", refusal: `policy logs has no revision "ab": write one of abd2 (number 4), abc1 (number 3), r2 (number 2), r1 (number 1)`},
		{to: "9", refusal: `has no revision "9"`},
		{to: "r2", refusal: "asks for already"},
		{to: "r1", refusal: "asks for already", before: []func(*policy){func(p *policy) { p.Spec.Rollout.Revision = "r1" }}},
	} {
		t.Run(tc.to, func(t *testing.T) {
			p := rollingOut(tc.before...)
			_, err := steer.Undo(steer.Request{Policy: p, Revisions: revisions(), To: tc.to})
			if tc.refusal != "" {
				if err == nil || !strings.Contains(err.Error(), tc.refusal) {
					t.Errorf("says %v, want %q", err, tc.refusal)
				}
				return
			}
			if err != nil || p.Spec.Rollout.Revision != tc.want {
				t.Errorf("asks for %q (%v), want %s", p.Spec.Rollout.Revision, err, tc.want)
			}
		})
	}
}

func TestUndoGoesBackToTheTemplate(t *testing.T) {
	p := rollingOut(func(p *policy) { p.Spec.Rollout.Revision = "r1" })
	if _, err := steer.Undo(steer.Request{Policy: p, ToTemplate: true}); err != nil || p.Spec.Rollout.Revision != "" {
		t.Errorf("asks for %q (%v)", p.Spec.Rollout.Revision, err)
	}
	if _, err := steer.Undo(steer.Request{Policy: p, ToTemplate: true}); err == nil || !strings.Contains(err.Error(), "rolls out its template already") {
		t.Errorf("a second time: %v", err)
	}
}
