package rollout_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

var update = flag.Bool("update", false, "write the golden files anew")

// story is a roll-out told by the notes of its plans: each when it is said first.
type story struct {
	*world
	policy *simPolicy
	before []string
	text   strings.Builder
}

// newStory is a steady world with one policy.
func newStory(t *testing.T, settings *builders.RolloutBuilder) *story {
	policy := simulated("logs", builders.Template("logs-agent", "logs-agent:1").Probe(), settings)
	s := &story{policy: policy, world: &world{t: t, steady: true, quiet: true, now: builders.At(1000), policies: []*simPolicy{policy},
		fault: func(string, *simPod) fault { return fault{} }}}
	s.noted = func(_ *simPolicy, plan *rollout.Plan) {
		notes := plan.Notes()
		for _, note := range notes {
			if !slices.Contains(s.before, note) {
				s.tell("%s", note)
			}
		}
		s.before = notes
	}
	return s
}

func (s *story) deployment(namespace, name string, size int) {
	s.addWorkload(fleet.Workload{Kind: "Deployment", Namespace: namespace, Name: name}, size, s.policies)
}

// tell writes a line.
func (s *story) tell(format string, args ...any) {
	fmt.Fprintf(&s.text, "%s  %s\n", s.now.Format(time.TimeOnly), fmt.Sprintf(format, args...))
}

// until runs the world until the policy is in a phase.
func (s *story) until(phase v1alpha1.Phase) {
	s.t.Helper()
	s.runUntil("phase "+string(phase), 20000, func() bool { return s.policy.object.Status.Phase == phase })
}

// check compares the story with the one that is kept.
func (s *story) check(t *testing.T) {
	t.Helper()
	file := filepath.Join("testdata", strings.TrimPrefix(t.Name(), "TestStoryOf")+".golden")
	if *update {
		must(s.t, os.MkdirAll("testdata", 0o755))
		must(s.t, os.WriteFile(file, []byte(s.text.String()), 0o644))
	}
	want, err := os.ReadFile(file)
	must(s.t, err)
	if diff := cmp.Diff(string(want), s.text.String()); diff != "" {
		t.Errorf("%s (-want +got), -update writes it anew:\n%s", file, diff)
	}
}

// The default steps, with an approval before the whole fleet.
func TestStoryOfAnApprovedRollout(t *testing.T) {
	settings := builders.Rollout().Health(10, 60).With(func(r *v1alpha1.RolloutSpec) {
		r.Steps, r.Budgets = nil, nil
		r.Steps = r.EffectiveSteps()
		r.Steps[1].Approval = v1alpha1.ApprovalRequired
	})
	s := newStory(t, settings)
	s.deployment("shop", "cart", 20)
	s.deployment("office", "mail", 10)
	s.tell("# a new image for 30 pods of two Deployments")
	s.target(s.policy, "2")
	s.until(v1alpha1.PhaseAwaitingApproval)
	for range 90 {
		s.step()
	}
	s.tell("# a person approves")
	metav1.SetMetaDataAnnotation(&s.policy.object.ObjectMeta, v1alpha1.ApproveAnnotation, s.policy.target.Hash+"/ten-percent")
	s.policy.woken = true
	s.until(v1alpha1.PhaseComplete)
	s.check(t)
}

// A version that gets ready, crashes 20 s later, and drags on.
func TestStoryOfABadVersion(t *testing.T) {
	s := newStory(t, builders.Rollout().Health(10, 60).With(func(r *v1alpha1.RolloutSpec) { r.Steps, r.Budgets = nil, nil }))
	s.deployment("shop", "cart", 20)
	s.deployment("office", "mail", 10)
	s.fault = func(image string, _ *simPod) fault {
		if isBad(image) {
			return fault{crash: 20 * time.Second}
		}
		return fault{}
	}
	s.tell("# a new image for 30 pods of two Deployments: it crashes 20 s after it got ready")
	s.target(s.policy, "bad")
	s.until(v1alpha1.PhaseRolledBack)
	if harmed := s.harmed(); harmed != 1 {
		t.Errorf("%d pods were harmed, want 1", harmed)
	}
	s.tell("# a good image")
	s.target(s.policy, "3")
	s.until(v1alpha1.PhaseComplete)
	s.check(t)
}

// A change that takes new pods, under a PodDisruptionBudget, inside of windows.
func TestStoryOfARecreation(t *testing.T) {
	settings := builders.Rollout().Health(10, 60).Budget(v1alpha1.PerFleet, "3").Method(v1alpha1.MethodInPlaceOrRecreate).
		Window("30 8 * * *", 2*time.Minute).Window("0 9 * * *", time.Hour).
		Steps(builders.Step("one", "1", 30*time.Second), builders.Step("fleet", "100%", 0))
	s := newStory(t, settings)
	s.deployment("shop", "cart", 4)
	s.addWorkload(fleet.Workload{Kind: "StatefulSet", Namespace: "shop", Name: "till"}, 3, s.policies)
	s.addPDB(fleet.Workload{Namespace: "shop", Name: "till"}, 2)
	s.tell("# another variable and another image for 7 pods; windows at 08:30 for 2 minutes and at 09:00")
	s.env(s.policy, "debug")
	s.target(s.policy, "2")
	s.until(v1alpha1.PhaseComplete)
	s.check(t)
}
