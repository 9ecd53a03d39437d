package rollout_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

// removing is a policy that is being deleted with these pods, at 1000 s.
func removing(members ...fleet.Member) rollout.Input {
	in := lackingInput(nil, members...)
	in.Missing, in.Injecting, in.OnRemoval, in.Removing = "", false, v1alpha1.RemovalRecreate, true
	return in
}

// deselecting is a policy at rest that does not select these pods any more.
func deselecting(stored []string, members ...fleet.Member) rollout.Input {
	in := lackingInput(nil)
	in.Missing, in.OnRemoval, in.Unplugging = "", v1alpha1.RemovalRecreate, stored
	in.Deselected = fleet.Judge(members, viewAt(1000, r1))
	return in
}

// unplugged is what a plan evicts, and what it stores.
func unplugged(plan rollout.Plan) string {
	var names []string
	for _, pod := range plan.Unplugged {
		names = append(names, pod.Pod.Name)
	}
	return strings.TrimSpace(strings.Join(names, " ") + " | " + strings.Join(plan.Unplugging, " "))
}

func TestADeletedPolicyTakesItsSidecarsOut(t *testing.T) {
	carriers := []fleet.Member{whole("cart", 0, 0), whole("cart", 1, 0), bare("cart", 2, 0)}
	for _, tc := range []struct {
		name   string
		change func(*rollout.Input)
		want   string
		reason v1alpha1.Reason
		stuck  bool
	}{
		{"all that carry them", func(*rollout.Input) {}, "cart-00 cart-01 |", "", false},
		{"within the budget", func(in *rollout.Input) { in.Spec = builders.Rollout().Budget(v1alpha1.PerWorkload, "1").Obj() }, "cart-00 |", "", false},
		{"not while they are to be kept", func(in *rollout.Input) { in.OnRemoval = v1alpha1.RemovalKeep }, "|", "", false},
		{"not before injection has stopped", func(in *rollout.Input) { in.Injecting = true }, "|", v1alpha1.ReasonUnplugging, false},
		{"not while the roll-out is paused", func(in *rollout.Input) { in.Spec.Paused = true }, "|", v1alpha1.ReasonPaused, true},
		{"not outside of the windows", func(in *rollout.Input) {
			in.Spec.Windows = builders.Rollout().Window("0 0 30 2 *", time.Hour).Obj().Windows
		}, "|", v1alpha1.ReasonFrozen, false},
		{"not bare pods", func(in *rollout.Input) {
			in.Pods[0].Owner, in.Pods[1].Owner = fleet.Owner{Unmanaged: true}, fleet.Owner{Unmanaged: true}
		}, "|", "", true},
		{"not exempt pods", func(in *rollout.Input) { in.Pods[0].Exempt = true }, "cart-01 |", "", false},
		{"bare pods where that is asked for", func(in *rollout.Input) {
			in.Spec.EvictUnmanaged, in.Pods[0].Owner = true, fleet.Owner{Unmanaged: true}
		}, "cart-00 cart-01 |", "", false},
		{"not against a PodDisruptionBudget", func(in *rollout.Input) {
			in.Disruptions = []fleet.Disruption{fleet.Allowance(builders.PDB("shop", "cart", 3, 0).Obj(),
				[]*corev1.Pod{carriers[0].Pod, carriers[1].Pod, carriers[2].Pod}, viewAt(1000, r1))}
		}, "|", "", true},
		{"but that may end by itself while others are on their way", func(in *rollout.Input) {
			in.Spec = builders.Rollout().Budget(v1alpha1.PerWorkload, "1").Obj()
			in.Vacancies = []fleet.Vacancy{{Workload: carriers[0].Workload, Owner: "rs/cart"}}
		}, "|", "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := removing(carriers...)
			tc.change(&in)
			plan := rollout.Make(in)
			if diff := cmp.Diff(tc.want, unplugged(plan)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if u := &plan.Summary.Unplug; u.Hold != tc.reason || u.Stuck() != tc.stuck {
				t.Errorf("hold %q, stuck %t, want %q, %t: %+v", u.Hold, u.Stuck(), tc.reason, tc.stuck, u)
			}
			if len(plan.Upgrades)+len(plan.Evictions)+len(plan.Replaced)+len(plan.Drains) > 0 {
				t.Error("something else is begun")
			}
		})
	}
}

func TestPodsThatAreNotSelectedAnyMoreLoseTheSidecars(t *testing.T) {
	const cart = "Deployment/shop/cart"
	down := func(m *fleet.Member) { builders.SetReady(m.Pod, corev1.ConditionFalse, builders.At(900)) }
	one := builders.Rollout().Budget(v1alpha1.PerFleet, "1").Obj()
	for _, tc := range []struct {
		name       string
		stored     []string
		pods       []fleet.Member
		companions []fleet.Member
		want       string
	}{
		{"the workload is named before a pod is touched", nil, []fleet.Member{whole("cart", 0, 0)}, nil, "| " + cart},
		{"then they go", []string{cart}, []fleet.Member{whole("cart", 0, 0)}, nil, "cart-00 | " + cart},
		{"new pods that are not ready count", []string{cart}, []fleet.Member{whole("cart", 0, 0)}, []fleet.Member{changed(bare("cart", 1, 990), down)}, "| " + cart},
		{"those of a workload that is done too", []string{cart, "Deployment/shop/done"}, []fleet.Member{whole("cart", 0, 0)},
			[]fleet.Member{changed(bare("done", 0, 990), down)}, "| " + cart + " Deployment/shop/done"},
		{"until they are ready", []string{cart, "Deployment/shop/done"}, []fleet.Member{whole("cart", 0, 0)}, []fleet.Member{bare("done", 0, 990)}, "cart-00 | " + cart},
		{"nothing is left", []string{cart}, nil, []fleet.Member{bare("cart", 0, 0)}, "|"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := deselecting(tc.stored, tc.pods...)
			in.Spec, in.Companions = one, fleet.Judge(tc.companions, viewAt(1000, r1))
			plan := rollout.Make(in)
			if diff := cmp.Diff(tc.want, unplugged(plan)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if c := plan.Summary.Counts; int(c.Deselected) != len(tc.pods) || c.Selected != 0 || c.Injected != 0 {
				t.Errorf("counts %+v", c)
			}
		})
	}
	in := deselecting(nil, whole("cart", 0, 0))
	in.OnRemoval = v1alpha1.RemovalKeep
	if plan := rollout.Make(in); unplugged(plan) != "|" || plan.Summary.Counts.Deselected != 1 {
		t.Errorf("with Keep they are counted alone: %s", unplugged(plan))
	}
}

// A sidecar that is taken out of the template needs new pods, as any other fixed part does; where the author wants sidecars
// to be taken out of running pods, also with the method InPlace.
func TestASidecarThatIsTakenOutOfTheTemplate(t *testing.T) {
	two := agent.Clone().Sidecar("exporter", "exporter:1").Revision(4)
	const evicted = "evict cart-00"
	for _, tc := range []struct {
		method    v1alpha1.RolloutMethod
		onRemoval v1alpha1.RemovalAction
		want      string
	}{
		{v1alpha1.MethodInPlace, v1alpha1.RemovalKeep, ""},
		{v1alpha1.MethodInPlaceOrRecreate, v1alpha1.RemovalKeep, evicted},
		{v1alpha1.MethodRecreate, v1alpha1.RemovalKeep, evicted},
		{v1alpha1.MethodOnDelete, v1alpha1.RemovalKeep, ""},
		{v1alpha1.MethodInPlace, v1alpha1.RemovalRecreate, evicted},
		{v1alpha1.MethodOnDelete, v1alpha1.RemovalRecreate, ""},
	} {
		view := viewAt(1000, r1)
		view.Revisions, view.TakesOut = append(view.Revisions, *two), tc.onRemoval == v1alpha1.RemovalRecreate
		m := createdAt(in("cart", builders.Pod("shop", "cart-00").Injected(policy, two)), 0)
		input := lackingInput(nil)
		input.Spec, input.OnRemoval, input.Pods = builders.Rollout().Method(tc.method).Obj(), tc.onRemoval, fleet.Judge([]fleet.Member{m}, view)
		plan := rollout.Make(input)
		if got := strings.Join(sent(plan), " "); got != tc.want || plan.Summary.Counts.Stale != 1 || plan.Summary.Surplus != 1 {
			t.Errorf("%s, %s: %q, %d stale, %d with more than the template, want %q, 1, 1", tc.method, tc.onRemoval, got, plan.Summary.Counts.Stale, plan.Summary.Surplus, tc.want)
		}
	}
}
