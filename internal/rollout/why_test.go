package rollout_test

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/prefetch"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

// The last pod of each fleet is asked about.
func TestWhyAPodWaits(t *testing.T) {
	all := builders.Rollout()
	with := func(input rollout.Input, change func(*rollout.Input)) rollout.Input {
		change(&input)
		return input
	}
	exempt := deployment("cart", 2)
	exempt[1].Exempt, exempt[1].ExemptUntil = true, builders.At(500)
	refused := deployment("cart", 2)
	refused[1].Refusal = &fleet.Refusal{Message: "quota", Until: builders.At(500)}
	for _, tc := range []struct {
		name   string
		input  rollout.Input
		reason v1alpha1.Reason
		want   string
	}{
		{"its turn", rolling(all, nil, deployment("cart", 2)), v1alpha1.ReasonRollingOut, "it is its turn now"},
		{"budget", rolling(builders.Rollout().Budget(v1alpha1.PerFleet, "1"), nil, deployment("cart", 2)), v1alpha1.ReasonRollingOut,
			"1 of 2 pods of the fleet are unavailable, the budget allows 1"},
		{"PodDisruptionBudget", with(rolling(all, nil, deployment("cart", 2)), func(in *rollout.Input) {
			pods := []*corev1.Pod{in.Pods[0].Pod, in.Pods[1].Pod}
			in.Disruptions = []fleet.Disruption{fleet.Allowance(builders.PDB("shop", "cart", 1, 1).Obj(), pods, viewAt(100, r2))}
		}), v1alpha1.ReasonRollingOut, "PodDisruptionBudget shop/cart allows no disruption now"},
		{"paused", with(rolling(all, nil, deployment("cart", 2)), func(in *rollout.Input) { in.Spec.Paused = true }), v1alpha1.ReasonPaused, "spec.rollout.paused is true"},
		{"on delete", rolling(builders.Rollout().Method(v1alpha1.MethodOnDelete), nil, deployment("cart", 2)), v1alpha1.ReasonOnDelete,
			"spec.rollout.method is OnDelete: it gets the target when it is recreated"},
		{"window", rolling(builders.Rollout().Window("0 9 * * *", 3600e9), nil, deployment("cart", 2)), v1alpha1.ReasonFrozen, "the next window opens at 2026-01-05T09:00:00Z"},
		{"not accepted", with(rolling(all, nil, deployment("cart", 2)), func(in *rollout.Input) { in.NotAccepted = true }), v1alpha1.ReasonNotAccepted, "the spec is not accepted"},
		{"aborted", with(rolling(all, nil, deployment("cart", 2)), func(in *rollout.Input) { in.Aborted = r2.Hash }), v1alpha1.ReasonUpgradeFailed,
			"revision " + r2.Hash + " has failed: aborted by the annotation fleet.sidecar.dev/abort"},
		{"exempt", rolling(all, nil, exempt), v1alpha1.ReasonExempt, "it is exempt by the annotation fleet.sidecar.dev/exempt-until until 2026-01-05T08:08:20Z"},
		{"refused", rolling(all, nil, refused), v1alpha1.ReasonUpdateRefused, "quota"},
		{"dry runs", inputAtStart(deployment("cart", 2)), v1alpha1.ReasonRollingOut, "one pod of each workload is tried as a dry run first"},
		{"step", rolling(threeSteps(), nil, deployment("cart", 4)), v1alpha1.ReasonRollingOut, "step one has not reached it (0 of 4 pods run it)"},
		{"soak", rolling(threeSteps(), at(0, "one", 90), some("cart", 1, 4)), v1alpha1.ReasonSoaking, "step one has not reached it (1 of 4 pods run it), and soaks until 2026-01-05T08:02:30Z"},
		{"approval", rolling(threeSteps().With(func(s *v1alpha1.RolloutSpec) { s.Steps[0].Approval = v1alpha1.ApprovalRequired }), at(0, "one", 10), some("cart", 1, 4)),
			v1alpha1.ReasonAwaitingApproval, "step one has not reached it (1 of 4 pods run it), and awaits approval"},
		{"image", with(rolling(all, nil, deployment("cart", 2)), func(in *rollout.Input) {
			in.Images = func(pod *corev1.Pod, _ []prefetch.Image) (prefetch.Presence, string) {
				if pod.Name == "cart-01" {
					return prefetch.Absent, "agent:2 is being pulled"
				}
				return prefetch.Present, ""
			}
		}), v1alpha1.ReasonPrefetching, "agent:2 is being pulled"},
		{"stale", recreation(all, in("cart", stale)), v1alpha1.ReasonStale, "the method InPlace can't bring it sidecars[agent].env: that takes a new pod"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			plan := rollout.Make(tc.input)
			reason, got := plan.Why(tc.input, &tc.input.Pods[len(tc.input.Pods)-1])
			if reason != tc.reason || got != tc.want {
				t.Errorf("Why() = %s: %s\nwant %s: %s", reason, got, tc.reason, tc.want)
			}
		})
	}
}

func inputAtStart(members []fleet.Member) rollout.Input {
	input := inputAt(100, builders.Rollout(), members)
	input.Stable = r1.Hash
	return input
}

// checkWhy asks about every pod, after which the plan has to be the same: who is moved is told so,
// and who is not is told why.
func (w *world) checkWhy(input rollout.Input, plan *rollout.Plan) {
	before := plan.Step.DeepCopy()
	for i := range input.Pods {
		pod := &input.Pods[i]
		if pod.Updated() || !pod.Injected {
			continue
		}
		_, why := plan.Why(input, pod)
		moved := slices.ContainsFunc(plan.Upgrades, func(u rollout.Upgrade) bool { return u.Pod == pod }) ||
			slices.Contains(plan.Evictions, pod) || slices.Contains(plan.Drains, pod)
		if why == "" || moved != (why == "it is its turn now") {
			w.broken("pod %s is moved: %t, and is told: %q", pod.Pod.Name, moved, why)
		}
	}
	if before != nil && !slices.Equal(before.Recreating, plan.Step.Recreating) {
		w.broken("asking why changed the step from %v to %v", before, plan.Step)
	}
}
