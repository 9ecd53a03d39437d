package render_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/plugin/render"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
	"github.com/sidecar-dev/sidecar-operator/internal/simulate"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

// plannedFleet is 20 pods of two Deployments that are to get the newest of the revisions, one that the
// sidecars clash with, one that lacks them, and one that is exempt.
func plannedFleet() []fleet.Member {
	all := revisions()
	var members []fleet.Member
	add := func(name string, pod *builders.PodBuilder) *fleet.Member {
		members = append(members, fleet.Member{Pod: pod.Label("app", name).Obj(), Workload: fleet.Workload{Kind: "Deployment", Namespace: "shop", Name: name},
			Owner: fleet.Owner{UID: name, Settled: true, Wanted: 10}})
		return &members[len(members)-1]
	}
	for i := range 10 {
		add("cart", builders.Pod("shop", fmt.Sprintf("cart-%d", i)).Injected("logs", &all[2]))
		add("till", builders.Pod("shop", fmt.Sprintf("till-%d", i)).Injected("logs", &all[1]))
	}
	add("odd", builders.Pod("shop", "odd-1").Container(corev1.Container{Name: "agent", Image: "own:1"}))
	add("old", builders.Pod("shop", "old-1"))
	add("rest", builders.Pod("shop", "rest-1").Injected("logs", &all[2])).Exempt = true
	return members
}

func planned(t *testing.T, method v1alpha1.RolloutMethod) *render.Plan {
	t.Helper()
	all := revisions()
	settings := builders.Rollout().Method(method).Budget(v1alpha1.PerFleet, "25%").Steps(builders.Step("canary", "1", time.Minute), builders.Step("fleet", "100%", 0)).
		With(func(r *v1alpha1.RolloutSpec) { r.Steps[0].Approval = v1alpha1.ApprovalRequired })
	policy := &v1alpha1.SidecarPolicy{}
	policy.Name, policy.Spec.Rollout = "logs", *settings.Obj()
	policy.Status.StableRevision, policy.Status.TargetRevision = all[1].Hash, all[1].Hash
	aim := rollout.TakeAim(policy, &all[0], all)
	view := &fleet.View{Policy: "logs", Target: &all[0], Revisions: all, Watching: true, Now: builders.At(100)}
	members := plannedFleet()
	pods := fleet.Judge(members, view)
	difference, err := render.DifferenceOf(&all[1], &all[0])
	if err != nil {
		t.Fatal(err)
	}
	input := aim.Input(pods, nil, view.Now)
	managers := rollout.Make(input)
	plan := &render.Plan{Policy: "logs", Changes: []string{"spec.template.sidecars"}, Selected: len(pods), Gained: 1, Template: &difference,
		Workloads: render.Groups(input, &managers), Assumed: []string{"a restart takes 5s", "nothing fails"}}
	pdb := builders.PDB("shop", "till", 9, 1).Obj()
	plan.Allowed(rollout.Allowances(input), []fleet.Disruption{fleet.Allowance(pdb, podsOf(pods), view)})
	plan.Simulated(simulate.Run(simulate.Input{Policy: policy, Goal: &all[0], Revisions: all, Members: members,
		Pace: simulate.Pace{Restart: 5 * time.Second, Recreate: 30 * time.Second}, Now: view.Now}), view.Now)
	return plan
}

func podsOf(states []fleet.PodState) []*corev1.Pod {
	var pods []*corev1.Pod
	for i := range states {
		pods = append(pods, states[i].Pod)
	}
	return pods
}

func TestPlanText(t *testing.T) {
	t.Run("in place", func(t *testing.T) { golden(t, render.PlanText(planned(t, v1alpha1.MethodInPlace))) })
	t.Run("recreate", func(t *testing.T) { golden(t, render.PlanText(planned(t, v1alpha1.MethodInPlaceOrRecreate))) })
	t.Run("on delete", func(t *testing.T) { golden(t, render.PlanText(planned(t, v1alpha1.MethodOnDelete))) })
	t.Run("no change", func(t *testing.T) { golden(t, render.PlanText(&render.Plan{Policy: "logs"})) })
	t.Run("refused", func(t *testing.T) {
		golden(t, render.PlanText(&render.Plan{Policy: "logs", Creates: true, Selected: 3, Problem: "spec.rollout.windows[0]: write five fields"}))
	})
	t.Run("many workloads", func(t *testing.T) {
		plan := &render.Plan{Policy: "logs", Changes: []string{"spec.template.sidecars"}, Seconds: ptr.To[int64](90)}
		for i := range 20 {
			plan.Workloads = append(plan.Workloads, render.Group{Workload: fmt.Sprintf("Deployment/shop/app-%02d", i), Pods: 20 - i, Fate: render.FateInPlace, Why: "image of agent"})
		}
		golden(t, render.PlanText(plan))
	})
}

// groups are what becomes of three pods of cart that lack the sidecars, and two that have them.
func groups(t *testing.T, change func(*v1alpha1.SidecarPolicySpec, *rollout.Input)) []render.Group {
	t.Helper()
	all := revisions()
	policy := &v1alpha1.SidecarPolicy{}
	policy.Name, policy.Spec.Rollout = "logs", *builders.Rollout().Obj()
	policy.Status.StableRevision, policy.Status.TargetRevision = all[1].Hash, all[1].Hash
	view := &fleet.View{Policy: "logs", Target: &all[1], Revisions: all, Now: builders.At(100)}
	member := func(pod *builders.PodBuilder) fleet.Member {
		return fleet.Member{Pod: pod.Obj(), Workload: fleet.Workload{Kind: "Deployment", Namespace: "shop", Name: "cart"}, Owner: fleet.Owner{UID: "cart", Settled: true, Wanted: 5}}
	}
	var lack, have []fleet.Member
	for i := range 3 {
		lack = append(lack, member(builders.Pod("shop", fmt.Sprintf("bare-%d", i))))
	}
	for i := range 2 {
		have = append(have, member(builders.Pod("shop", fmt.Sprintf("cart-%d", i)).Injected("logs", &all[1])))
	}
	input := rollout.Input{Pods: fleet.Judge(lack, view), Deselected: fleet.Judge(have, view), Injecting: true}
	change(&policy.Spec, &input)
	aim := rollout.TakeAim(policy, &all[1], all)
	decided := aim.Input(input.Pods, nil, view.Now)
	decided.Deselected, decided.Injecting = input.Deselected, input.Injecting
	plan := rollout.Make(decided)
	return render.Groups(decided, &plan)
}

// The plan says of pods that lack the sidecars what the operator would say of them.
func TestMissing(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*v1alpha1.SidecarPolicySpec)
		want   string
	}{
		{"reported", func(*v1alpha1.SidecarPolicySpec) {}, "it gets the sidecars when it is recreated"},
		{"too many", func(s *v1alpha1.SidecarPolicySpec) {
			s.Missing, s.MaxMissing = v1alpha1.MissingRecreate, ptr.To(intstr.FromInt32(2))
		}, "it is not replaced: 3 of 3 selected pods lack the sidecars, and spec.maxMissing lets at most 2 be replaced"},
		{"not too many", func(s *v1alpha1.SidecarPolicySpec) {
			s.Missing, s.MaxMissing = v1alpha1.MissingRecreate, ptr.To(intstr.FromInt32(3))
		}, "it is replaced when others of its workload have been"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := groups(t, func(s *v1alpha1.SidecarPolicySpec, in *rollout.Input) { in.Deselected = nil; tc.change(s) })
			if len(got) != 1 || got[0].Fate != render.FateMissing || got[0].Pods != 3 || !strings.HasPrefix(got[0].Why, tc.want) {
				t.Errorf("%+v, want 3 pods missing: %s", got, tc.want)
			}
		})
	}
}

// A selector that gets narrower evicts pods, or leaves them with sidecars that nobody upgrades any more.
func TestDeselected(t *testing.T) {
	recreate := func(s *v1alpha1.SidecarPolicySpec) { s.OnRemoval = v1alpha1.RemovalRecreate }
	for _, tc := range []struct {
		name   string
		change func(*v1alpha1.SidecarPolicySpec, *fleet.PodState)
		fate   render.Fate
		why    string
	}{
		{"kept", func(*v1alpha1.SidecarPolicySpec, *fleet.PodState) {}, render.FateKeeps, "until it is recreated"},
		{"evicted", func(s *v1alpha1.SidecarPolicySpec, _ *fleet.PodState) { recreate(s) }, render.FateUnplugged, "spec.onRemoval is Recreate"},
		{"nobody's", func(s *v1alpha1.SidecarPolicySpec, p *fleet.PodState) { recreate(s); p.Owner.Unmanaged = true }, render.FateKeeps, "rollout.evictUnmanaged: true"},
		{"nobody's, and evicted", func(s *v1alpha1.SidecarPolicySpec, p *fleet.PodState) {
			recreate(s)
			s.Rollout.EvictUnmanaged, p.Owner.Unmanaged = true, true
		}, render.FateUnplugged, "spec.onRemoval is Recreate"},
		{"exempt", func(s *v1alpha1.SidecarPolicySpec, p *fleet.PodState) { recreate(s); p.Exempt = true }, render.FateExempt, "not until its annotation is corrected"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := groups(t, func(s *v1alpha1.SidecarPolicySpec, in *rollout.Input) {
				in.Pods = nil
				for i := range in.Deselected {
					tc.change(s, &in.Deselected[i])
				}
			})
			if len(got) != 1 || got[0].Fate != tc.fate || got[0].Pods != 2 || !strings.Contains(got[0].Why, tc.why) {
				t.Errorf("%+v, want 2 pods %s: %s", got, tc.fate, tc.why)
			}
			if text := render.PlanText(&render.Plan{Policy: "logs", Changes: []string{"spec.selector"}, Workloads: got}); !strings.Contains(text, "Pods: 2 "+string(tc.fate)) {
				t.Errorf("does not say how many pods are %s:\n%s", tc.fate, text)
			}
		})
	}
	none := groups(t, func(_ *v1alpha1.SidecarPolicySpec, in *rollout.Input) {
		in.Pods = nil
		for i := range in.Deselected {
			in.Deselected[i].Injected = false
		}
	})
	if len(none) > 0 {
		t.Errorf("%+v, though none of the pods carries the sidecars", none)
	}
}

func TestChangedFields(t *testing.T) {
	before := &v1alpha1.SidecarPolicySpec{}
	before.Template = builders.Template("agent", "agent:1").Obj()
	for _, tc := range []struct {
		change func(*v1alpha1.SidecarPolicySpec)
		want   []string
	}{
		{func(*v1alpha1.SidecarPolicySpec) {}, nil},
		{func(s *v1alpha1.SidecarPolicySpec) { s.Template.Sidecars[0].Image = "agent:2" }, []string{"spec.template.sidecars"}},
		{func(s *v1alpha1.SidecarPolicySpec) {
			s.Rollout.Paused = true
			s.Rollout.Budgets = []v1alpha1.Budget{{Per: v1alpha1.PerFleet, MaxUnavailable: ptr.To(intstr.FromInt32(1))}}
		}, []string{"spec.rollout"}},
		{func(s *v1alpha1.SidecarPolicySpec) { s.RevisionHistoryLimit = ptr.To[int32](3) }, []string{"spec.revisionHistoryLimit"}},
	} {
		after := before.DeepCopy()
		tc.change(after)
		if diff := cmp.Diff(tc.want, render.ChangedFields(before, after)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}
