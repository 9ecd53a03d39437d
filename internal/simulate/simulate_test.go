package simulate_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"pgregory.net/rapid"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/simulate"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

var (
	agent   = builders.Template("agent", "agent:1").Probe()
	r1      = agent.Revision(1)
	image   = agent.Clone().Image("agent:2").Revision(2)
	env     = agent.Clone().Image("agent:2").Env("LEVEL", "debug").Revision(3)
	another = agent.Clone().Sidecar("exporter", "exporter:1").Revision(4)
)

func deployment(name string, size int, changes ...func(*builders.PodBuilder)) []fleet.Member {
	return deploymentOf(r1, name, size, changes...)
}

func deploymentOf(r *revision.Revision, name string, size int, changes ...func(*builders.PodBuilder)) []fleet.Member {
	var members []fleet.Member
	for i := range size {
		pod := builders.Pod("shop", fmt.Sprintf("%s-%02d", name, i)).Label("app", name).Injected("logs", r)
		for _, change := range changes {
			change(pod)
		}
		members = append(members, fleet.Member{Pod: pod.Obj(), Workload: fleet.Workload{Kind: "Deployment", Namespace: "shop", Name: name},
			Owner: fleet.Owner{UID: name, Settled: true, Wanted: int32(size)}})
	}
	return members
}

func input(goal *revision.Revision, settings *builders.RolloutBuilder, members []fleet.Member) simulate.Input {
	policy := &v1alpha1.SidecarPolicy{}
	policy.Name, policy.Spec.Rollout = "logs", *settings.Obj()
	policy.Status.StableRevision, policy.Status.TargetRevision = r1.Hash, r1.Hash
	return simulate.Input{Policy: policy, Goal: goal, Revisions: []revision.Revision{*r1, *image, *env, *another}, Members: members,
		Health: map[string]*v1alpha1.HealthSpec{"logs": &policy.Spec.Rollout.Health},
		Pace:   simulate.Pace{Restart: 5 * time.Second, Recreate: 20 * time.Second}, Now: builders.At(1000)}
}

// told is a story in lines.
func told(s simulate.Story) string {
	var lines []string
	for _, stage := range s.Stages {
		line := fmt.Sprintf("%s: %d in place, %d recreated in %d waves, %d updated", stage.Name, stage.InPlace, stage.Recreated, stage.Waves, stage.Updated)
		if !stage.Ended.IsZero() {
			line += ", " + stage.Ended.Sub(stage.Began).String()
		}
		if stage.Approved {
			line += ", approved"
		}
		lines = append(lines, line)
	}
	return strings.Join(append(lines, s.Stuck), "\n")
}

func TestStories(t *testing.T) {
	settings := func() *builders.RolloutBuilder { return builders.Rollout().Health(10, 60) }
	steps := func() *builders.RolloutBuilder {
		return settings().Steps(builders.Step("one", "1", time.Minute), builders.Step("fleet", "100%", 0))
	}
	pdb := func(desired, allowed int32) []policyv1.PodDisruptionBudget {
		return []policyv1.PodDisruptionBudget{*builders.PDB("shop", "cart", desired, allowed).Obj()}
	}
	for _, tc := range []struct {
		name  string
		input simulate.Input
		with  func(*simulate.Input)
		want  string
	}{
		{"all at once", input(image, settings(), deployment("cart", 4)), nil, "fleet: 4 in place, 0 recreated in 1 waves, 4 updated, 16s\n"},
		{"waves", input(image, settings().Budget(v1alpha1.PerFleet, "2"), deployment("cart", 6)), nil, "fleet: 6 in place, 0 recreated in 3 waves, 6 updated, 46s\n"},
		{"steps with an approval", input(image, steps().With(func(r *v1alpha1.RolloutSpec) { r.Steps[0].Approval = v1alpha1.ApprovalRequired }), deployment("cart", 4)), nil,
			"one: 1 in place, 0 recreated in 1 waves, 1 updated, 1m17s, approved\nfleet: 3 in place, 0 recreated in 1 waves, 4 updated, 15s\n"},
		{"stale pods stay", input(env, settings(), deployment("cart", 4)), nil, "fleet: 4 in place, 0 recreated in 1 waves, 0 updated, 16s\n"},
		{"recreation", input(env, settings().Method(v1alpha1.MethodInPlaceOrRecreate).Budget(v1alpha1.PerFleet, "1"), deployment("cart", 3)), nil,
			"fleet: 0 in place, 3 recreated in 3 waves, 3 updated, 1m1s\n"},
		{"recreation in steps", input(another, steps().Method(v1alpha1.MethodRecreate), deployment("cart", 3)), nil,
			"one: 0 in place, 1 recreated in 1 waves, 1 updated, 1m22s\nfleet: 0 in place, 2 recreated in 1 waves, 3 updated, 21s\n"},
		{"a PodDisruptionBudget holds it back", input(image, settings(), deployment("cart", 3)), func(in *simulate.Input) { in.Budgets = pdb(2, 1) },
			"fleet: 3 in place, 0 recreated in 3 waves, 3 updated, 46s\n"},
		{"a PodDisruptionBudget holds it up", input(image, settings(), deployment("cart", 3)), func(in *simulate.Input) { in.Budgets = pdb(3, 0) },
			"fleet: 0 in place, 0 recreated in 0 waves, 0 updated\nPodDisruptionBudget shop/cart allows no disruption now"},
		{"paused", input(image, settings(), deployment("cart", 3)), func(in *simulate.Input) { in.Policy.Spec.Rollout.Paused = true },
			"fleet: 0 in place, 0 recreated in 0 waves, 0 updated\nspec.rollout.paused is true"},
		{"a window that opens at 09:00", input(image, settings().Window("0 9 * * *", time.Hour), deployment("cart", 3)), nil, "fleet: 3 in place, 0 recreated in 1 waves, 3 updated, 43m36s\n"},
		{"drained first", input(image, settings().Drain(30), deployment("cart", 2, func(p *builders.PodBuilder) { p.Gated("logs").Open("logs", builders.Epoch) })), nil,
			"fleet: 2 in place, 0 recreated in 1 waves, 2 updated, 47s\n"},
		{"nothing to do", input(r1, settings(), deployment("cart", 2)), nil, "rollout: 0 in place, 0 recreated in 0 waves, 2 updated, 0s\n"},
		{"a resize", input(sized("100m", 6), settings(), deploymentOf(sized("50m", 5), "cart", 2)), func(in *simulate.Input) {
			in.Revisions = append(in.Revisions, *sized("50m", 5), *sized("100m", 6))
		}, "fleet: 2 in place, 0 recreated in 1 waves, 2 updated, 11s\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.with != nil {
				tc.with(&tc.input)
			}
			before, err := json.Marshal(tc.input)
			if err != nil {
				t.Fatal(err)
			}
			got := told(simulate.Run(tc.input))
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if after, _ := json.Marshal(tc.input); string(before) != string(after) {
				t.Error("the simulation changed its input")
			}
		})
	}
}

func sized(cpu string, number int64) *revision.Revision {
	return agent.Clone().First(func(s *v1alpha1.Sidecar) {
		s.Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}
	}).Revision(number)
}

// Every story ends, and one that is not stuck has moved all pods that the method can move.
func TestEveryStoryEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		settings := builders.Rollout().Health(5, 60).
			Budget(v1alpha1.PerFleet, rapid.SampledFrom([]string{"1", "3", "20%", "100%"}).Draw(t, "fleet")).
			Budget(v1alpha1.PerWorkload, rapid.SampledFrom([]string{"1", "25%", "100%"}).Draw(t, "workload")).
			Method(rapid.SampledFrom([]v1alpha1.RolloutMethod{v1alpha1.MethodInPlace, v1alpha1.MethodRecreate, v1alpha1.MethodInPlaceOrRecreate}).Draw(t, "method")).
			Drain(rapid.SampledFrom([]int32{0, 7}).Draw(t, "drain"))
		if rapid.Bool().Draw(t, "default steps") {
			settings.With(func(r *v1alpha1.RolloutSpec) { r.Steps = nil })
		}
		var members []fleet.Member
		for i := range rapid.IntRange(1, 3).Draw(t, "workloads") {
			members = append(members, deployment(fmt.Sprintf("w%d", i), rapid.IntRange(1, 12).Draw(t, "size"))...)
		}
		goal := rapid.SampledFrom([]*revision.Revision{image, env, another}).Draw(t, "goal")
		in := input(goal, settings, members)
		story := simulate.Run(in)
		last := story.Stages[len(story.Stages)-1]
		moves := goal == image || in.Policy.Spec.Rollout.Method != v1alpha1.MethodInPlace
		if story.Stuck != "" || (moves && last.Updated != len(members)) {
			t.Fatalf("%d pods: %s", len(members), told(story))
		}
	})
}
