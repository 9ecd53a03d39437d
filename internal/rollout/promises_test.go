package rollout_test

import (
	"slices"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/schedule"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

// checkTouched: an upgrade changes images of the policy's own sidecars, in pods that carry
// them, and its own label and annotation. Nothing else.
func (w *world) checkTouched(policy *simPolicy, before, after *corev1.Pod) {
	if before.Annotations[v1alpha1.InjectedAnnotation(policy.name)] == "" {
		w.broken("pod %s/%s was patched, and was never injected", before.Namespace, before.Name)
	}
	expected := after.DeepCopy()
	for i := range policy.target.Template.Sidecars {
		name := policy.target.Template.Sidecars[i].Name
		builders.SpecOf(expected, name).Image = builders.SpecOf(before, name).Image
	}
	restore(expected.Labels, before.Labels, v1alpha1.RevisionLabel(policy.name))
	restore(expected.Annotations, before.Annotations, v1alpha1.UpgradeAnnotation(policy.name))
	// Times lose what is less than a second in JSON; the patch has no say in status.
	expected.Status, expected.CreationTimestamp = before.Status, before.CreationTimestamp
	if !equality.Semantic.DeepEqual(before, expected) {
		w.broken("an upgrade changed more of pod %s/%s than its sidecars:\n%s", before.Namespace, before.Name, cmp.Diff(before, expected))
	}
}

func restore(to, from map[string]string, key string) {
	if value, ok := from[key]; ok {
		to[key] = value
		return
	}
	delete(to, key)
}

// checkMayMove: nothing is started outside of the windows, except to go back, and nothing of a pod
// whose team wants to be left alone.
func (w *world) checkMayMove(policy *simPolicy, p *simPod) {
	var windows []schedule.Window
	for _, window := range policy.object.Spec.Rollout.Windows {
		windows = append(windows, schedule.Window{Schedule: window.Schedule, Duration: window.Duration.Duration, TimeZone: window.TimeZone})
	}
	if open, _ := schedule.At(windows, w.now); !open && !policy.aim.GoingBack() {
		w.broken("%s moves pod %s at %s, when no window is open", policy.name, p.pod.Name, w.now)
	}
	if w.now.Before(p.exemptUntil) {
		w.broken("%s moves pod %s at %s, which is exempt until %s", policy.name, p.pod.Name, w.now, p.exemptUntil)
	}
}

// place is where a pod is, or where one is missing.
type place struct {
	workload fleet.Workload
	zone     string
	down     bool
}

// places are all pods, and the places of those that owners have lost and not got back: where they are
// while they stop, and nowhere when they are gone; those that went first were replaced first. Owners that have no pod left at all are out of
// sight: nothing of them is in the fleet.
func (w *world) places() []place {
	var places []place
	lost := map[*simOwner]int{}
	for _, o := range w.owners {
		if slices.ContainsFunc(w.pods, func(p *simPod) bool { return p.owner == o }) {
			lost[o] = o.wanted - w.present(o)
		}
	}
	for _, p := range slices.SortedStableFunc(slices.Values(w.pods), func(a, b *simPod) int { return b.deleted.Compare(a.deleted) }) {
		switch {
		case p.deleted.IsZero():
			places = append(places, place{p.workload, p.zone, !p.available(w.now)})
		case p.owner != nil && lost[p.owner] > 0:
			lost[p.owner]--
			places = append(places, place{p.workload, p.zone, true})
		}
	}
	for _, o := range w.owners {
		for range lost[o] {
			places = append(places, place{o.workload, "", true})
		}
	}
	return places
}

// checkBudgets: after an available pod was taken down, no budget is exceeded, whatever took the
// other pods down.
func (w *world) checkBudgets(policy *simPolicy, taken *simPod) {
	spec := &policy.object.Spec.Rollout
	places := w.places()
	for per, same := range map[v1alpha1.BudgetScope]func(place) bool{
		v1alpha1.PerFleet:     func(place) bool { return true },
		v1alpha1.PerWorkload:  func(p place) bool { return p.workload == taken.workload },
		v1alpha1.PerNamespace: func(p place) bool { return p.workload.Namespace == taken.workload.Namespace },
		v1alpha1.PerTopology:  func(p place) bool { return p.zone == taken.zone },
	} {
		size, down := 0, 0
		for _, p := range places {
			if same(p) {
				size++
				down += count(p.down)
			}
		}
		if limit := spec.MaxUnavailable(per, size); down > limit {
			w.broken("%s took %s down at %s: %d of %d pods of its %s are, the budget allows %d", policy.name, taken.pod.Name, w.now, down, size, per, limit)
		}
	}
	for _, pdb := range w.pdbs {
		w.checkDisruptionBudget(policy, taken, pdb)
	}
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (w *world) checkDisruptionBudget(policy *simPolicy, taken *simPod, pdb *policyv1.PodDisruptionBudget) {
	covered := w.covered(pdb)
	if !slices.Contains(covered, taken) {
		return
	}
	healthy := 0
	for _, p := range covered {
		healthy += count(p.available(w.now))
	}
	if healthy < int(pdb.Status.DesiredHealthy) {
		w.broken("%s took %s down: %d pods of PodDisruptionBudget %s/%s are healthy, it wants %d",
			policy.name, taken.pod.Name, healthy, pdb.Namespace, pdb.Name, pdb.Status.DesiredHealthy)
	}
}

// checkRuns: a pod runs the target of a roll-out that says it has finished.
func (w *world) checkRuns(policy *simPolicy, p *simPod) {
	for i := range policy.target.Template.Sidecars {
		sidecar := &policy.target.Template.Sidecars[i]
		started := builders.StatusOf(p.pod, sidecar.Name).ContainerID != "" // a new pod may take its time
		if got := p.sidecars[sidecar.Name]; got.image != sidecar.Image || (got.down && started) {
			w.broken("%s says it has finished, but %s of pod %s runs %s (down: %t)", policy.name, sidecar.Name, p.pod.Name, got.image, got.down)
		}
	}
}

// harmed counts the pods that a bad version has done its harm to.
func (w *world) harmed() int {
	n := 0
	for _, p := range w.pods {
		n += count(p.harmed)
	}
	return n
}

// checkHarm: the pods that a bad version harmed are within the budgets.
func (w *world) checkHarm(policy *simPolicy) {
	harmed, size := map[fleet.Workload]int{}, map[fleet.Workload]int{}
	all := 0
	for _, p := range w.pods {
		size[p.workload]++
		harmed[p.workload] += count(p.harmed)
		all += count(p.harmed)
	}
	spec := &policy.object.Spec.Rollout
	if limit := spec.MaxUnavailable(v1alpha1.PerFleet, len(w.pods)); all > limit {
		w.broken("%d of %d pods were harmed, the budget allows %d", all, len(w.pods), limit)
	}
	for workload, n := range harmed {
		if limit := spec.MaxUnavailable(v1alpha1.PerWorkload, size[workload]); n > limit {
			w.broken("%d of %d pods of %s were harmed, the budget allows %d", n, size[workload], workload, limit)
		}
	}
}

// checkUp: every sidecar runs.
func (w *world) checkUp() {
	for _, p := range w.pods {
		for name, s := range p.sidecars {
			if s.down && p.deleted.IsZero() && !w.due(s.startAt) && s.startAt.IsZero() {
				w.broken("sidecar %s of pod %s is still down", name, p.pod.Name)
			}
		}
	}
}

// checkInService: nothing that carries a gate is kept out of its endpoints.
func (w *world) checkInService() {
	for _, p := range w.pods {
		if p.deleted.IsZero() && !p.gatesOpen() {
			w.broken("pod %s is left out of its endpoints: %+v", p.pod.Name, p.pod.Status.Conditions)
		}
	}
}

// carriers counts the pods that carry a policy's sidecars.
func (w *world) carriers(policy *simPolicy) int {
	n := 0
	for _, p := range w.pods {
		n += count(p.deleted.IsZero() && p.pod.Labels[v1alpha1.RevisionLabel(policy.name)] != "")
	}
	return n
}
