package fleet

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

// judgeByNode corrects a failure that may be the doing of the pod's node. While that is away, what the pod's
// status says is from before, and nobody knows what became of the pod. One that was being upgraded when its node went
// has the time to get healthy anew when it is back.
func (p *PodState) judgeByNode(sidecars []string, upgrade *v1alpha1.UpgradeRecord, view *View) {
	switch {
	case p.Verdict.State != Failed:
	case p.Node.Down:
		p.Verdict = Verdict{State: Updating, Message: "its node is not ready; before that: " + p.Verdict.Message}
	case upgrade != nil && p.Node.UpSince.After(upgrade.At.Time):
		again := *upgrade
		again.At.Time = p.Node.UpSince
		p.Verdict = judge(p.Pod, view.Policy, sidecars, &again, view)
	}
}

// restartedByNode says whether a container was last stopped when its node went away, after a moment: nobody's doing.
func (n *Node) restartedByNode(status *corev1.ContainerStatus, after time.Time) bool {
	end := status.LastTerminationState.Terminated
	return n.UpSince.After(after) && end != nil && !end.FinishedAt.After(n.UpSince)
}

// since is a moment or, where the node came back later, that one: what a deadline is counted from.
func (n *Node) since(t time.Time) time.Time {
	if n.UpSince.After(t) {
		return n.UpSince
	}
	return t
}
