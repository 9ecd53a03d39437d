package fleet_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

// gated is a pod that was created with the policy's readiness gate, which is open.
func gated() *builders.PodBuilder {
	return builders.Pod("shop", "cart-1").Injected(policy, r1).Gated(policy).Open(policy, builders.At(1))
}

func TestGateSaysWhetherAPodIsDrained(t *testing.T) {
	type answer struct {
		Gate                fleet.Gate
		Draining, Available bool
		State               fleet.State
	}
	drainedAt := fleet.Gate{Exists: true, ClosedAt: builders.At(90)}
	upgraded := gated().Drained(policy, builders.At(90)).Upgraded(policy, r2, builders.At(100)).
		Restarted("agent", builders.At(102))
	for _, tc := range []struct {
		name string
		pod  *builders.PodBuilder
		now  int
		want answer
	}{
		{"no gate", builders.Pod("shop", "cart-1").Injected(policy, r2), 100, answer{Available: true, State: fleet.Settled}},
		{"another policy's gate", builders.Pod("shop", "cart-1").Injected(policy, r2).Gated("mesh").Open("mesh", builders.At(1)), 100,
			answer{Available: true, State: fleet.Settled}},
		{"new: nobody has opened it yet", builders.Pod("shop", "cart-1").Injected(policy, r2).Gated(policy), 100,
			answer{Gate: fleet.Gate{Exists: true}, State: fleet.Settled}},
		{"open", gated(), 100, answer{Gate: fleet.Gate{Exists: true, Open: true}, Available: true, State: fleet.Settled}},
		{"drained", gated().Drained(policy, builders.At(90)), 100, answer{Gate: drainedAt, Draining: true, State: fleet.Settled}},
		{"drained, and the kubelet still says Ready", gated().Drained(policy, builders.At(90)).Ready(builders.At(1)), 100,
			answer{Gate: drainedAt, Draining: true, State: fleet.Settled}},
		{"drained and upgraded: judged by its containers, which are not ready for long enough", upgraded, 105,
			answer{Gate: drainedAt, Draining: true, State: fleet.Updating}},
		{"drained and upgraded: good, though not in its endpoints yet", upgraded, 112, answer{Gate: drainedAt, Draining: true, State: fleet.Settled}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := judgeOne(tc.pod, viewAt(tc.now, r2, r1))
			got := answer{Gate: s.Gate, Draining: s.Gate.Draining(), Available: s.Available, State: s.Verdict.State}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if s.Underway() != (tc.want.Draining || tc.want.State == fleet.Updating) {
				t.Errorf("Underway() = %t", s.Underway())
			}
		})
	}
}

// A pod that one policy has drained is another policy's business too: it is down, and not to be touched.
func TestAnotherPolicysDrainMakesBusy(t *testing.T) {
	for _, tc := range []struct {
		name string
		pod  *builders.PodBuilder
		want bool
	}{
		{"drained", builders.Pod("shop", "cart-1").Injected(policy, r1).Gated("mesh").Drained("mesh", builders.At(90)), true},
		{"new: not drained", builders.Pod("shop", "cart-1").Injected(policy, r1).Gated("mesh"), false},
		{"open", builders.Pod("shop", "cart-1").Injected(policy, r1).Gated("mesh").Open("mesh", builders.At(1)), false},
		{"by ourselves", gated().Drained(policy, builders.At(90)), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := judgeOne(tc.pod, viewAt(100, r1)).Busy; got != tc.want {
				t.Errorf("Busy = %t, want %t", got, tc.want)
			}
		})
	}
}

// A node whose kubelet would not restart a native sidecar needs a new pod for a new image.
func TestOldKubeletMakesImagesStale(t *testing.T) {
	classic := (&builders.TemplateBuilder{}).Classic("proxy", "proxy:1")
	classic2 := classic.Clone().Image("proxy:2")
	for _, tc := range []struct {
		name    string
		pod     *builders.PodBuilder
		view    *fleet.View
		kubelet string
		stale   string
		images  int
	}{
		{"a new one", builders.Pod("shop", "a").Injected(policy, r1), viewAt(100, r2, r1), "", "", 1},
		{"an old one", builders.Pod("shop", "a").Injected(policy, r1), viewAt(100, r2, r1), "1.31.4", "image (its node's kubelet 1.31.4 is older than 1.32)", 0},
		{"an old one, and nothing to do", builders.Pod("shop", "a").Injected(policy, r2), viewAt(100, r2, r1), "1.31.4", "", 0},
		{"an old one, and a sidecar of mode Container", builders.Pod("shop", "a").Injected(policy, classic.Revision(1)),
			viewAt(100, classic2.Revision(2), classic.Revision(1)), "1.31.4", "", 1},
		{"an old one, and stale in other parts", builders.Pod("shop", "a").Injected(policy, r1), viewAt(100, agent.Clone().Image("agent:3").Env("A", "b").Revision(3), r1),
			"1.30.0", "sidecars[agent].env, image (its node's kubelet 1.30.0 is older than 1.32)", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := fleet.Judge([]fleet.Member{{Pod: tc.pod.Obj(), Node: fleet.Node{OldKubelet: tc.kubelet}}}, tc.view)[0]
			if got.Stale != tc.stale || len(got.Images) != tc.images {
				t.Errorf("stale %q with %d images, want %q with %d", got.Stale, len(got.Images), tc.stale, tc.images)
			}
		})
	}
}
