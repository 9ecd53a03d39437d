package rollout_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

// waiting is a pod of a Deployment that waits for the sidecars.
func waiting(deployment string, i int) fleet.Member {
	m := bare(deployment, i, 0)
	m.Pod.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: v1alpha1.HoldGate("logs")}}
	m.Pod.Status = corev1.PodStatus{Phase: corev1.PodPending}
	return m
}

func TestPodsThatWaitForTheSidecarsAreReplacedOrNeedNotWait(t *testing.T) {
	bareOne := func(m *fleet.Member) { m.Owner = fleet.Owner{Unmanaged: true} }
	ofJob := func(m *fleet.Member) { m.Owner = fleet.Owner{UID: "job", Unmanaged: true} }
	evictUnmanaged := func(in *rollout.Input) { in.Spec.EvictUnmanaged = true }
	for _, tc := range []struct {
		name           string
		pod            fleet.Member
		change         func(*rollout.Input)
		held, released int
		rest           rollout.Held
	}{
		{name: "it is replaced", pod: waiting("cart", 0), held: 1},
		{name: "whatever missing says", pod: waiting("cart", 0), change: func(in *rollout.Input) { in.Missing = v1alpha1.MissingReport }, held: 1},
		{name: "though its owner lacks pods", pod: changed(waiting("cart", 0), func(m *fleet.Member) { m.Owner.Settled = false }), held: 1},
		{name: "and outside of windows and budgets, while the roll-out is paused", pod: waiting("cart", 0), change: func(in *rollout.Input) {
			in.Spec.Paused, in.MaxMissing = true, 0
			in.Spec.Windows = []v1alpha1.Window{{Schedule: "0 0 1 1 *", TimeZone: "UTC"}}
		}, held: 1},
		{name: "an exemption keeps no pod waiting", pod: changed(waiting("cart", 0), func(m *fleet.Member) { m.Exempt = true }), held: 1},
		{name: "nobody makes it anew", pod: changed(waiting("cart", 0), bareOne), change: evictUnmanaged, rest: rollout.Held{Unmanaged: 1}},
		{name: "its Job would count it as failed", pod: changed(waiting("cart", 0), ofJob), rest: rollout.Held{Unmanaged: 1}},
		{name: "unless the author asks for that", pod: changed(waiting("cart", 0), ofJob), change: evictUnmanaged, held: 1},
		{name: "one that has just come rests", pod: changed(waiting("cart", 0), func(m *fleet.Member) { createdAt(*m, 995) }), rest: rollout.Held{NextAt: builders.At(1005)}},
		{name: "one that refuses is tried later", pod: changed(waiting("cart", 0), func(m *fleet.Member) { m.Refusal = &fleet.Refusal{Message: "no", Until: builders.At(2000)} }),
			rest: rollout.Held{Refused: "no", NextAt: builders.At(2000)}},
		{name: "the policy holds no more", pod: waiting("cart", 0), change: func(in *rollout.Input) { in.Holding = false }, released: 1},
		{name: "a spec that is not accepted says nothing of that", pod: waiting("cart", 0), change: func(in *rollout.Input) { in.Holding, in.NotAccepted = false, true }, held: 1},
		{name: "the policy is being deleted", pod: waiting("cart", 0), change: func(in *rollout.Input) { in.Removing = true }, released: 1},
		{name: "the webhook says of its successor whether the sidecars clash with it", pod: changed(waiting("cart", 0), func(m *fleet.Member) { m.Pod.Spec.Containers[0].Name = "agent" }), held: 1},
		{name: "it has them", pod: changed(whole("cart", 0, 0), func(m *fleet.Member) { m.Pod.Spec.SchedulingGates = waiting("cart", 0).Pod.Spec.SchedulingGates }), released: 1},
		{name: "another policy's gate is not ours", pod: changed(waiting("cart", 0), func(m *fleet.Member) { m.Pod.Spec.SchedulingGates[0].Name = v1alpha1.HoldGate("mesh") })},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := lackingInput(nil, tc.pod)
			in.Holding = true
			if tc.change != nil {
				tc.change(&in)
			}
			plan := rollout.Make(in)
			if len(plan.Held) != tc.held || len(plan.Released) != tc.released {
				t.Errorf("%d are replaced and %d released, want %d and %d", len(plan.Held), len(plan.Released), tc.held, tc.released)
			}
			if diff := cmp.Diff(tc.rest, plan.Summary.Held); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if tc.held > 0 && len(plan.Replaced) > 0 {
				t.Error("it is replaced twice")
			}
		})
	}
}

// A pod that is not selected any more waits for nothing.
func TestDeselectedPodsDoNotWait(t *testing.T) {
	in := lackingInput(nil, whole("cart", 0, 0))
	in.Holding, in.Deselected = true, fleet.Judge([]fleet.Member{waiting("shop", 0)}, viewAt(1000, r1))
	if plan := rollout.Make(in); len(plan.Released) != 1 || plan.Summary.Counts.Deselected != 0 {
		t.Errorf("%d are released, and %d count as deselected", len(plan.Released), plan.Summary.Counts.Deselected)
	}
}
