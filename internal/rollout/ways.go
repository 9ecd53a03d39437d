package rollout

import (
	"slices"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
)

// way is how a pod gets what it lacks of the target.
type way int

const (
	// none: it can't, or has all of it.
	none way = iota
	// inPlace: by a PATCH of the pod.
	inPlace
	// evict: by a new pod.
	evict
)

// wayOf is the mildest way that the method allows for a pod.
func wayOf(pod *fleet.PodState, spec *v1alpha1.RolloutSpec) way {
	evictable := mayEvict(pod, spec)
	switch {
	case evictable && pod.Stale != "":
		return evict
	case evictable && spec.Method == v1alpha1.MethodRecreate && pod.Changes():
		return evict
	case pod.Outdated():
		return inPlace
	}
	return none
}

// mayEvict says whether the method, or the wish to take containers out, lets the pod be evicted for what it lacks.
func mayEvict(pod *fleet.PodState, spec *v1alpha1.RolloutSpec) bool {
	wanted := recreates(spec) || (pod.TakeOut && spec.Method != v1alpha1.MethodOnDelete)
	return wanted && (spec.EvictUnmanaged || !pod.Owner.Unmanaged)
}

func recreates(spec *v1alpha1.RolloutSpec) bool {
	return spec.Method == v1alpha1.MethodRecreate || spec.Method == v1alpha1.MethodInPlaceOrRecreate
}

// irreplaceable: the method evicts the pod, and nothing comes in its place that could run the target. A
// step that is counted has no use for it; the last one takes it.
func irreplaceable(pod *fleet.PodState, spec *v1alpha1.RolloutSpec) bool {
	return pod.Owner.UID == "" && wayOf(pod, spec) == evict
}

// maxRecreating is how many owners a step recreates pods of at once.
const maxRecreating = 50

// ways chooses between them. A pod that is evicted comes back under another name, so a step that is
// counted names the owners of which the new pods get the target; only those may lose pods. The step is
// stored before the first of them does.
type ways struct {
	in   *Input
	step *v1alpha1.StepStatus
	gate *gate
	// open: new pods of all owners get the target.
	open bool
}

func newWays(in *Input, step *v1alpha1.StepStatus, gate *gate) *ways {
	w := &ways{in: in, step: step, gate: gate, open: step == nil}
	if step != nil {
		w.open = int(*step.Index) == len(in.Spec.EffectiveSteps())-1
	}
	return w
}

// of is the pod's way, or says why it can't go it now.
func (w *ways) of(pod *fleet.PodState) (way, string) {
	way := wayOf(pod, w.in.Spec)
	if way != evict {
		return way, ""
	}
	switch {
	case pod.Owner.UID != "" && !pod.Owner.Settled:
		return none, pod.Workload.String() + " is in the middle of a roll-out of its own, or lacks pods"
	case w.in.Leaving[pod.Owner.UID] > 0 && !w.open:
		return none, "a pod of " + pod.Workload.String() + " is still being deleted"
	case irreplaceable(pod, w.in.Spec) && !w.covers(pod):
		return none, pod.Workload.String() + " is not replaced by anybody, and evicted in the last step"
	case !w.listed(pod):
		return none, pod.Workload.String() + " is about to be recreated"
	case w.in.Behind:
		return none, "the API server does not give new pods of " + pod.Workload.String() + " the target yet"
	}
	return evict, ""
}

// listed says whether new pods in this pod's place get the target, and sees to it that they will. No more
// owners are named than the step has room for pods: what is born of theirs for other reasons gets
// the target too.
func (w *ways) listed(pod *fleet.PodState) bool {
	if w.covers(pod) {
		return w.stored()
	}
	named := slices.Contains(w.step.Recreating, pod.Owner.UID)
	if named && w.stored() && slices.Contains(w.in.Step.Recreating, pod.Owner.UID) {
		return true
	}
	if !named && len(w.step.Recreating) < maxRecreating {
		w.step.Recreating = append(w.step.Recreating, pod.Owner.UID)
	}
	w.gate.take(pod)
	return false
}

// covers says whether the step is about all pods with the pod's labels, new ones too.
func (w *ways) covers(pod *fleet.PodState) bool {
	return w.open || newCourse(w.in.Spec.EffectiveSteps(), int(*w.step.Index)).selects(pod.Pod.Labels, pod.NamespaceLabels)
}

// stored says whether the step is the one that admission goes by.
func (w *ways) stored() bool {
	return w.step == nil || (w.in.Step != nil && w.in.Step.Name == w.step.Name)
}
