package fleet_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

// rebooted says that the container was last stopped then, once.
func rebooted(at int) func(*corev1.ContainerStatus) {
	return func(s *corev1.ContainerStatus) {
		s.RestartCount++
		s.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: 255, FinishedAt: metav1.NewTime(builders.At(at))}
	}
}

// A node that goes away takes down what runs there: that is no revision's doing.
func TestANodeThatGoesAwayFailsNoRevision(t *testing.T) {
	born := builders.Pod("shop", "cart-1").Injected(policy, r2).NotReady(builders.At(150)).
		With(func(p *corev1.Pod) { p.CreationTimestamp = metav1.NewTime(builders.At(100)) })
	for _, tc := range []struct {
		name string
		pod  *builders.PodBuilder
		node fleet.Node
		now  int
		// state is what is said with that node, without what is said of the same pod on a node of which nothing is known.
		state, without fleet.State
	}{
		{"it went before the upgrade was acted on", upgraded().NotReady(builders.At(140)), fleet.Node{Down: true}, 160, fleet.Updating, fleet.Failed},
		{"it is back, and has not acted yet", upgraded().NotReady(builders.At(140)), fleet.Node{UpSince: builders.At(400)}, 459, fleet.Updating, fleet.Failed},
		{"it is back for longer than the deadline", upgraded().NotReady(builders.At(140)), fleet.Node{UpSince: builders.At(400)}, 460, fleet.Failed, fleet.Failed},
		{"it was back before the upgrade", upgraded().NotReady(builders.At(140)), fleet.Node{UpSince: builders.At(90)}, 160, fleet.Failed, fleet.Failed},
		{"the pod loses readiness with it", restarted().NotReady(builders.At(195)), fleet.Node{Down: true}, 300, fleet.Settled, fleet.Failed},
		{"the pod starts again", restarted().NotReady(builders.At(195)), fleet.Node{UpSince: builders.At(300)}, 359, fleet.Settled, fleet.Failed},
		{"the pod does not start again", restarted().NotReady(builders.At(195)), fleet.Node{UpSince: builders.At(300)}, 360, fleet.Failed, fleet.Failed},
		{"the app restarts with it", restarted().Status("app", rebooted(290)), fleet.Node{UpSince: builders.At(300)}, 310, fleet.Settled, fleet.Failed},
		{"the app restarts again after that", restarted().Status("app", rebooted(301)), fleet.Node{UpSince: builders.At(300)}, 310, fleet.Failed, fleet.Failed},
		{"the app had restarted before the upgrade", restarted().Status("app", rebooted(50)), fleet.Node{UpSince: builders.At(60)}, 310, fleet.Failed, fleet.Failed},
		{"a new pod on it", born, fleet.Node{Down: true}, 300, fleet.Settled, fleet.Failed},
		{"a new pod when it is back", born, fleet.Node{UpSince: builders.At(300)}, 359, fleet.Updating, fleet.Failed},
		{"a sidecar that crashes goes on to fail", restarted().Status("agent", waiting("CrashLoopBackOff")), fleet.Node{UpSince: builders.At(200)}, 300, fleet.Failed, fleet.Failed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			view := watching(tc.now, func(h *v1alpha1.HealthSpec) { h.GuardApp = ptr.To(true) })
			member := fleet.Member{Pod: tc.pod.Obj(), Owner: fleet.Owner{UID: "rs", Settled: true}, Node: tc.node}
			if got := fleet.Judge([]fleet.Member{member}, view)[0].Verdict; got.State != tc.state {
				t.Errorf("%s (%s), want %s", got.State, got.Message, tc.state)
			}
			member.Node = fleet.Node{}
			if got := fleet.Judge([]fleet.Member{member}, view)[0].Verdict; got.State != tc.without {
				t.Errorf("%s (%s) where nothing is known of the node, want %s", got.State, got.Message, tc.without)
			}
		})
	}
}
