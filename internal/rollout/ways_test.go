package rollout_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

// stale was created with what a PATCH can't make of r2; oldImage has an older image besides.
var (
	stale    = builders.Pod("shop", "cart-00").Injected(policy, agent.Clone().Image("agent:2").Env("A", "b").Revision(4))
	oldImage = builders.Pod("shop", "cart-00").Injected(policy, agent.Clone().Env("A", "b").Revision(4))
)

// owned is a pod of an owner that is at rest.
func owned(uid string, pod *builders.PodBuilder) fleet.Member {
	m := in("cart", pod)
	m.Owner = fleet.Owner{UID: uid, Settled: true, Wanted: 1}
	return m
}

// sent names what a plan does, and to which pods.
func sent(plan rollout.Plan) []string {
	var all []string
	for _, u := range plan.Upgrades {
		all = append(all, "upgrade "+u.Pod.Pod.Name)
	}
	for what, pods := range map[string][]*fleet.PodState{"evict": plan.Evictions, "drain": plan.Drains, "undrain": plan.Undrains} {
		for _, pod := range pods {
			all = append(all, what+" "+pod.Pod.Name)
		}
	}
	return all
}

// The mildest way that the method allows.
func TestEachMethodGoesItsWay(t *testing.T) {
	bare := fleet.Owner{Unmanaged: true}
	job := fleet.Owner{UID: "job", Unmanaged: true, Settled: true}
	rs := fleet.Owner{UID: "rs", Settled: true}
	outdated := pod("cart", 0)
	for _, tc := range []struct {
		pod   *builders.PodBuilder
		what  string
		owner fleet.Owner
		// The answers by method: InPlace, Recreate, InPlaceOrRecreate, OnDelete.
		want string
	}{
		{outdated, "another image", rs, "upgrade evict upgrade -"},
		{stale, "stale", rs, "- evict evict -"},
		{oldImage, "another image and stale", rs, "upgrade evict evict -"},
		{outdated, "another image, a pod of a Job", job, "upgrade upgrade upgrade -"},
		{stale, "stale, a pod of a Job", job, "- - - -"},
		{oldImage, "both, a bare pod", bare, "upgrade upgrade upgrade -"},
		{stale, "stale, a bare pod", bare, "- - - -"},
		{upgradedPod(), "nothing", rs, "- - - -"},
		{outdated.Clone().Upgraded(policy, r2, builders.At(0)).Restarted("agent", builders.At(1)).Label(v1alpha1.RevisionLabel(policy), r1.Hash),
			"another label", rs, "upgrade upgrade upgrade -"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			var got []string
			for _, method := range []v1alpha1.RolloutMethod{v1alpha1.MethodInPlace, v1alpha1.MethodRecreate, v1alpha1.MethodInPlaceOrRecreate, v1alpha1.MethodOnDelete} {
				m := in("cart", tc.pod)
				m.Owner = tc.owner
				answer := "-"
				if done := sent(planOf(builders.Rollout().Method(method), m)); len(done) > 0 {
					answer, _, _ = strings.Cut(done[0], " ")
				}
				got = append(got, answer)
			}
			if diff := cmp.Diff(tc.want, strings.Join(got, " ")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func upgradedPod() *builders.PodBuilder {
	return pod("cart", 0).Upgraded(policy, r2, builders.At(0)).Restarted("agent", builders.At(1))
}

// planOf plans for pods whose target is the stable revision: nothing but budgets and owners bounds it.
func planOf(spec *builders.RolloutBuilder, members ...fleet.Member) rollout.Plan {
	return rollout.Make(recreation(spec, members...))
}

func recreation(spec *builders.RolloutBuilder, members ...fleet.Member) rollout.Input {
	view := viewAt(100, r2)
	view.Revisions = append(view.Revisions, *agent.Clone().Env("A", "b").Revision(4), *agent.Clone().Image("agent:2").Env("A", "b").Revision(4))
	return rollout.Input{Spec: spec.Obj(), Target: r2, Stable: r2.Hash, Pods: fleet.Judge(members, view), Now: view.Now}
}

func TestEvictUnmanagedEvictsWhatNobodyMakesAnew(t *testing.T) {
	spec := builders.Rollout().Method(v1alpha1.MethodInPlaceOrRecreate).With(func(s *v1alpha1.RolloutSpec) { s.EvictUnmanaged = true })
	for name, owner := range map[string]fleet.Owner{"a bare pod": {Unmanaged: true}, "a pod of a Job": {UID: "job", Unmanaged: true, Settled: true}} {
		m := in("cart", stale)
		m.Owner = owner
		if diff := cmp.Diff([]string{"evict cart-00"}, sent(planOf(spec, m))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// In a step that is counted an owner is named first, and loses pods when that has been stored.
func TestEvictionsInAStepWaitUntilNewPodsGetTheTarget(t *testing.T) {
	counted := builders.Rollout().Method(v1alpha1.MethodRecreate).Steps(builders.Step("two", "2", 0), builders.Step("fleet", "100%", 0))
	pods := []fleet.Member{owned("a", pod("cart", 0)), owned("a", pod("cart", 1)), owned("b", pod("cart", 2)), owned("c", pod("cart", 3))}
	unsettled := owned("a", pod("cart", 0))
	unsettled.Owner.Settled = false
	bare := in("cart", pod("cart", 0))
	bare.Owner = fleet.Owner{Unmanaged: true}
	evictUnmanaged := counted.Clone().With(func(s *v1alpha1.RolloutSpec) { s.EvictUnmanaged = true })
	for _, tc := range []struct {
		name      string
		spec      *builders.RolloutBuilder
		step      *v1alpha1.StepStatus
		members   []fleet.Member
		leaving   map[string]int
		vacancies []fleet.Vacancy
		sent      []string
		listed    []string
		blocked   string
	}{
		{name: "named first, no more than the step has room for", spec: counted, step: at(0, "two", -1), members: pods, listed: []string{"a"}, blocked: "is about to be recreated"},
		{name: "named in a plan that was not stored", spec: counted, step: at(0, "two", -1), members: pods[1:], listed: []string{"a", "b"}, blocked: "is about to be recreated"},
		{name: "named and stored", spec: counted, step: recreating(at(0, "two", -1), "a", "b"), members: pods,
			sent: []string{"evict cart-00", "evict cart-01"}, listed: []string{"a", "b"}},
		{name: "stored with a step that was renamed", spec: counted, step: recreating(at(0, "other", -1), "a", "b"), members: pods,
			listed: []string{"a", "b"}, blocked: "is about to be recreated"},
		{name: "one leaves: what comes in its place counts", spec: counted, step: recreating(at(0, "two", -1), "a", "b"), members: pods[1:],
			leaving: map[string]int{"a": 1}, sent: []string{"evict cart-02"}, listed: []string{"a", "b"}, blocked: "still being deleted"},
		{name: "one is gone, and not there again", spec: counted, step: recreating(at(0, "two", -1), "a", "b"), members: pods[2:],
			vacancies: []fleet.Vacancy{{Owner: "a"}, {Owner: "a"}}, listed: []string{"a", "b"}},
		{name: "its owner is not at rest", spec: counted, step: at(0, "two", -1), members: []fleet.Member{unsettled}, blocked: "in the middle of a roll-out of its own"},
		{name: "the last step names nobody", spec: counted, step: at(1, "fleet", -1), members: pods[:2], sent: []string{"evict cart-00", "evict cart-01"}},
		{name: "and is stored first too", spec: builders.Rollout().Method(v1alpha1.MethodRecreate), step: at(0, "other", -1), members: pods[:1], blocked: "is about to be recreated"},
		{name: "a bare pod is left to the last step", spec: evictUnmanaged, step: at(0, "two", -1), members: []fleet.Member{bare, pods[3]}, listed: []string{"c"}, blocked: "not replaced by anybody"},
		{name: "bare pods alone hold up no step", spec: evictUnmanaged, step: at(0, "two", -1), members: []fleet.Member{bare}, blocked: "is about to be recreated"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			input := recreation(tc.spec, tc.members...)
			input.Stable, input.Step, input.Leaving, input.Vacancies = r1.Hash, tc.step, tc.leaving, tc.vacancies
			plan := rollout.Make(input)
			if diff := cmp.Diff(tc.sent, sent(plan)); diff != "" {
				t.Errorf("sent (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.listed, plan.Step.Recreating); diff != "" {
				t.Errorf("named (-want +got):\n%s", diff)
			}
			if !strings.Contains(plan.Summary.Blocked, tc.blocked) || (tc.blocked == "") != (plan.Summary.Blocked == "") {
				t.Errorf("blocked %q, want %q", plan.Summary.Blocked, tc.blocked)
			}
		})
	}
}

// A roll-out whose only pods are being recreated has proved nothing, and is not complete.
func TestRolloutIsNotCompleteWhileItsPodsAreBeingMade(t *testing.T) {
	spec := builders.Rollout().Method(v1alpha1.MethodRecreate)
	new2 := owned("a", builders.Pod("shop", "cart-00").Injected(policy, r2))
	for _, tc := range []struct {
		name   string
		change func(*rollout.Input)
		want   bool
	}{
		{"all are there", func(*rollout.Input) {}, true},
		{"one is missing", func(in *rollout.Input) { in.Vacancies = []fleet.Vacancy{{Owner: "a"}} }, false},
		{"the only one is being deleted", func(in *rollout.Input) { in.Pods, in.Leaving = nil, map[string]int{"a": 1} }, false},
		{"the only one of a step was evicted", func(in *rollout.Input) { in.Pods, in.Step = nil, recreating(in.Step, "a") }, false},
		{"there are none", func(in *rollout.Input) { in.Pods = nil }, true},
		{"one is missing, and nothing is rolled out", func(in *rollout.Input) {
			in.Stable, in.Vacancies = r2.Hash, []fleet.Vacancy{{Owner: "a"}}
		}, true},
		{"one is missing on the way back", func(in *rollout.Input) {
			in.Stable, in.RollingBack, in.Vacancies = r2.Hash, true, []fleet.Vacancy{{Owner: "a"}}
		}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			input := recreation(spec, new2)
			input.Stable, input.Step = r1.Hash, at(0, "fleet", -1)
			tc.change(&input)
			if got := rollout.Make(input).Summary; got.Finished() != tc.want {
				t.Errorf("finished %t, want %t: %+v", got.Finished(), tc.want, got)
			}
		})
	}
}

// A pod is drained, waits, is upgraded, and comes back.
func TestDrainedPodsGoTheirWay(t *testing.T) {
	gated := func(i int) *builders.PodBuilder { return pod("cart", i).Gated(policy).Open(policy, builders.At(1)) }
	drained := func(at int) *builders.PodBuilder { return gated(0).Drained(policy, builders.At(at)) }
	upgradedAt := func(at int) *builders.PodBuilder {
		return drained(50).Upgraded(policy, r2, builders.At(at)).Restarted("agent", builders.At(at+1))
	}
	drain := func(seconds int32) *builders.RolloutBuilder { return builders.Rollout().Drain(seconds) }
	refused := in("cart", drained(50))
	refused.Refusal = &fleet.Refusal{Until: builders.At(200)}
	exempt := in("cart", drained(50))
	exempt.Exempt = true
	for _, tc := range []struct {
		name   string
		spec   *builders.RolloutBuilder
		member fleet.Member
		want   []string
	}{
		{"drained first", drain(10), in("cart", gated(0)), []string{"drain cart-00"}},
		{"nobody asked for it", drain(0), in("cart", gated(0)), []string{"upgrade cart-00"}},
		{"it has no gate", drain(10), member("cart", 0), []string{"upgrade cart-00"}},
		{"nobody has opened its gate yet: it serves nobody", drain(10), in("cart", pod("cart", 0).Gated(policy)), []string{"upgrade cart-00"}},
		{"a change of the label alone restarts nothing", drain(10), in("cart", upgradedAt(10).Open(policy, builders.At(30)).
			Label(v1alpha1.RevisionLabel(policy), r1.Hash)), []string{"upgrade cart-00"}},
		{"not for long enough", drain(10), in("cart", drained(91)), nil},
		{"for long enough", drain(10), in("cart", drained(90)), []string{"upgrade cart-00"}},
		{"one that has failed has been down for long", drain(60), in("cart", gated(0).Upgraded(policy, r3, builders.At(0)).Drained(policy, builders.At(99)).NotReady(builders.At(1))), []string{"upgrade cart-00"}},
		{"upgraded, and not healthy yet", drain(10), in("cart", upgradedAt(95)), nil},
		{"upgraded", drain(10), in("cart", upgradedAt(60)), []string{"undrain cart-00"}},
		{"upgraded and failed", drain(10), in("cart", drained(10).Upgraded(policy, r2, builders.At(20)).NotReady(builders.At(21))), []string{"undrain cart-00"}},
		{"new, and up to date", drain(10), in("cart", builders.Pod("shop", "cart-00").Injected(policy, r2).Gated(policy)), []string{"undrain cart-00"}},
		{"no upgrade comes: paused", drain(10).With(func(s *v1alpha1.RolloutSpec) { s.Paused = true }), in("cart", drained(50)), []string{"undrain cart-00"}},
		{"no upgrade comes: refused", drain(10), refused, []string{"undrain cart-00"}},
		{"no upgrade comes: exempt", drain(10), exempt, []string{"undrain cart-00"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			input := inputAt(100, tc.spec, []fleet.Member{tc.member})
			input.Stable = r2.Hash
			plan := rollout.Make(input)
			if diff := cmp.Diff(tc.want, sent(plan)); diff != "" {
				t.Errorf("sent (-want +got):\n%s", diff)
			}
			if len(plan.Undrains) > 0 && (plan.Requeue == 0 || plan.Requeue.Seconds() > 1) {
				t.Errorf("looks again in %s: a refused undrain would never be tried again", plan.Requeue)
			}
		})
	}
}

// Pods beyond the limit of a pass stay drained until their turn comes.
func TestDrainedPodsBeyondAPassStayDrained(t *testing.T) {
	base := pod("cart", 0).Gated(policy).Drained(policy, builders.At(1))
	var members []fleet.Member
	for i := range 501 {
		members = append(members, in("cart", base.Clone().Named(fmt.Sprintf("cart-%03d", i))))
	}
	plan := rollout.Make(inputAt(100, builders.Rollout().Drain(5), members))
	if len(plan.Upgrades) != 500 || len(plan.Undrains) > 0 {
		t.Errorf("%d upgrades and %d undrains, want 500 and none", len(plan.Upgrades), len(plan.Undrains))
	}
}
