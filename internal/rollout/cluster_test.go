package rollout_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

const zoneLabel = "topology.kubernetes.io/zone"

// simOwner is what replaces pods: a ReplicaSet at once, all others when the pod has gone.
type simOwner struct {
	workload fleet.Workload
	uid      string
	wanted   int
	// has is how many its controller has counted, which lags.
	has      int
	policies []*simPolicy
	// zones are those of the pods that are still to be replaced.
	zones []string
	// replaceAt is when the next of them is.
	replaceAt time.Time
}

func (o *simOwner) eager() bool { return o.workload.Kind == "Deployment" }

// born adds a pod of an owner, or a bare one: it has just been created, with what admission gives it.
func (w *world) born(workload fleet.Workload, owner *simOwner, zone string) *simPod {
	w.serial++
	name := fmt.Sprintf("%s-%03d", workload.Name, w.serial)
	pod := builders.Pod(workload.Namespace, name).Label("app", workload.Name)
	p := &simPod{workload: workload, owner: owner, zone: zone, sidecars: map[string]*simSidecar{}}
	place := rollout.Place{Labels: pod.Obj().Labels}
	if owner != nil {
		place.Owner = owner.uid
	}
	for _, policy := range w.injecting(p) {
		r := revision.Get(policy.revisions, rollout.RevisionFor(&policy.object, place))
		pod.Injected(policy.name, r)
		if policy.object.Spec.Rollout.Drain.Seconds > 0 {
			pod.Gated(policy.name)
		}
		for _, sidecar := range r.Template.Sidecars {
			p.sidecars[sidecar.Name] = &simSidecar{image: sidecar.Image, down: true, startAt: w.now.Add(w.seconds(1, 5))}
		}
	}
	p.pod = pod.With(func(pod *corev1.Pod) { pod.CreationTimestamp = metav1.NewTime(w.now.Truncate(time.Second)) }).Obj()
	for name := range p.sidecars {
		status := builders.StatusOf(p.pod, name)
		*status = corev1.ContainerStatus{Name: name, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "PodInitializing"}}}
	}
	if len(p.sidecars) > 0 {
		builders.SetReady(p.pod, corev1.ConditionFalse, w.now.Truncate(time.Second))
	}
	w.pods = append(w.pods, p)
	w.touch(p)
	w.happened("%s is born", name)
	return p
}

// injecting are the policies that select the pod, and can be reached.
func (w *world) injecting(p *simPod) []*simPolicy {
	selecting := w.policies
	if p.owner != nil {
		selecting = p.owner.policies
	}
	return slices.DeleteFunc(slices.Clone(selecting), func(policy *simPolicy) bool { return policy.away })
}

// old makes a pod one that has been running since the beginning.
func (w *world) old(p *simPod) {
	p.pod.CreationTimestamp = metav1.NewTime(builders.Epoch)
	for _, name := range w.namesOf(p) {
		*builders.StatusOf(p.pod, name) = builders.RunningStatus(name, builders.SpecOf(p.pod, name).Image, builders.ContainerID(p.pod, name), builders.Epoch)
		p.sidecars[name] = &simSidecar{image: builders.SpecOf(p.pod, name).Image}
	}
	for _, gate := range p.pod.Spec.ReadinessGates {
		builders.SetCondition(p.pod, gate.ConditionType, corev1.ConditionTrue, builders.Epoch)
	}
	builders.SetReady(p.pod, corev1.ConditionTrue, builders.Epoch)
}

// touch tells the policies that a pod has changed.
func (w *world) touch(p *simPod) {
	w.serial++
	p.pod.ResourceVersion = strconv.Itoa(w.serial)
	w.wakeAll()
}

// remove takes a pod away that has stopped.
func (w *world) remove(p *simPod) {
	w.pods = slices.DeleteFunc(w.pods, func(other *simPod) bool { return other == p })
	if o := p.owner; o != nil {
		o.has = min(o.has, w.present(o))
		if !o.eager() && !p.deleted.IsZero() {
			w.vacant(o, p.zone)
		}
	}
	w.wakeAll()
}

func (w *world) vacant(o *simOwner, zone string) {
	if len(o.zones) == 0 {
		o.replaceAt = w.now.Add(w.seconds(0, 4))
	}
	if !slices.ContainsFunc(w.pods, func(p *simPod) bool { return p.owner == o }) {
		o.replaceAt = w.now // nothing of it is in sight until then: see places
	}
	o.zones = append(o.zones, zone)
}

// present counts the pods of an owner that are not being deleted.
func (w *world) present(o *simOwner) int {
	n := 0
	for _, p := range w.pods {
		if p.owner == o && p.deleted.IsZero() {
			n++
		}
	}
	return n
}

// replace is an owner's controller.
func (w *world) replace(o *simOwner) {
	if len(o.zones) > 0 && !w.now.Before(o.replaceAt) {
		for _, zone := range o.zones {
			w.born(o.workload, o, zone)
		}
		o.zones = nil
	}
	if has := w.present(o); has != o.has && (w.steady || w.chance(70)) {
		o.has = has
		w.wakeAll()
	}
}

// disruptionController brings a PodDisruptionBudget's status up to date with the pods' status.
func (w *world) disruptionController(pdb *policyv1.PodDisruptionBudget) {
	before := pdb.Status.DeepCopy()
	healthy := int32(0)
	for _, p := range w.covered(pdb) {
		if fleet.Ready(p.pod) && p.deleted.IsZero() {
			healthy++
		}
	}
	pdb.Status.ObservedGeneration, pdb.Status.CurrentHealthy, pdb.Status.DisruptedPods = pdb.Generation, healthy, nil
	pdb.Status.DisruptionsAllowed = max(0, healthy-pdb.Status.DesiredHealthy)
	if !equality.Semantic.DeepEqual(before, &pdb.Status) {
		w.wakeAll()
	}
}

func (w *world) covered(pdb *policyv1.PodDisruptionBudget) []*simPod {
	var pods []*simPod
	for _, p := range w.pods {
		if p.pod.Namespace == pdb.Namespace && p.pod.Labels["app"] == pdb.Name {
			pods = append(pods, p)
		}
	}
	return pods
}

func (w *world) find(pod *corev1.Pod) *simPod {
	i := slices.IndexFunc(w.pods, func(p *simPod) bool { return p.pod.UID == pod.UID })
	if i < 0 {
		w.broken("a write to pod %s/%s, which is not there", pod.Namespace, pod.Name)
	}
	return w.pods[i]
}

// answer is what the API server says to a write: a conflict where the pod has changed since it was
// seen, and a refusal where one is due.
func (w *world) answer(p *simPod, seen *corev1.Pod) bool {
	if p.pod.ResourceVersion != seen.ResourceVersion {
		return false
	}
	if p.refusals > 0 {
		p.refusals--
		p.refusal = &fleet.Refusal{Message: "no", Until: w.now.Add(10 * time.Second)}
		return false
	}
	p.refusal = nil
	return true
}

// upgrade sends one PATCH, and checks the promises.
func (w *world) upgrade(policy *simPolicy, u *rollout.Upgrade) {
	p := w.find(u.Pod.Pod)
	if !w.answer(p, u.Pod.Pod) {
		return
	}
	w.checkMayMove(policy, p)
	w.takeDown(policy, "upgrades", p, func() { w.patch(policy, p, u) })
}

// takeDown does something to a pod, after which no budget may be exceeded where it took the pod down.
func (w *world) takeDown(policy *simPolicy, what string, p *simPod, do func()) {
	wasAvailable := p.available(w.now)
	do()
	policy.writes++
	w.happened("%s: %s %s (available %t, then %t)", policy.name, what, p.pod.Name, wasAvailable, p.available(w.now))
	if wasAvailable && !p.available(w.now) {
		w.checkBudgets(policy, p)
	}
}

// patch is the API server: it applies a JSON patch to the pod.
func (w *world) patch(policy *simPolicy, p *simPod, u *rollout.Upgrade) {
	before := p.pod
	after := &corev1.Pod{}
	must(w.t, json.Unmarshal(applyPatch(w.t, mustMarshal(w.t, before), u.Patch(policy.name, w.now)), after))
	if after.ResourceVersion != before.ResourceVersion {
		w.broken("the patch of %s/%s names resourceVersion %s, the pod has %s", before.Namespace, before.Name, after.ResourceVersion, before.ResourceVersion)
	}
	w.checkTouched(policy, before, after)
	if !equality.Semantic.DeepEqual(before.Spec, after.Spec) {
		after.Generation++
		p.seeAt = w.now.Add(w.seconds(0, 2))
		p.actAt = p.seeAt.Add(w.seconds(0, 3))
	}
	p.pod = after
	w.touch(p)
}

// evict is the Eviction API: it applies PodDisruptionBudgets by what their controller has counted.
func (w *world) evict(policy *simPolicy, state *fleet.PodState) {
	p := w.find(state.Pod)
	if !w.answer(p, state.Pod) {
		return
	}
	if !w.disruptable(p) {
		p.refusal = &fleet.Refusal{Message: "would violate the disruption budget", Until: w.now.Add(10 * time.Second)}
		return
	}
	w.checkMayMove(policy, p)
	w.takeDown(policy, "evicts", p, func() {
		p.pod = p.pod.DeepCopy()
		p.deleted, p.goneAt = w.now, w.now.Add(w.seconds(0, 10))
		p.pod.DeletionTimestamp = &metav1.Time{Time: w.now}
		if p.owner != nil && p.owner.eager() {
			w.vacant(p.owner, p.zone)
		}
		w.touch(p)
	})
}

// replaceMissing evicts a pod, which must be one that has never had the policy's sidecars.
func (w *world) replaceMissing(policy *simPolicy, state *fleet.PodState) {
	if policy.carriedBy(w.find(state.Pod)) {
		w.broken("%s replaces pod %s, which has its sidecars", policy.name, state.Pod.Name)
	}
	policy.replaced++
	w.evict(policy, state)
}

func (w *world) disruptable(p *simPod) bool {
	for _, pdb := range w.pdbs {
		if !slices.Contains(w.covered(pdb), p) {
			continue
		}
		switch {
		case !fleet.Ready(p.pod): // as with unhealthyPodEvictionPolicy AlwaysAllow; else a bad version can make itself irremovable
		case pdb.Status.DisruptionsAllowed <= 0 || pdb.Status.ObservedGeneration < pdb.Generation:
			return false
		default:
			pdb.Status.DisruptionsAllowed--
			if pdb.Status.DisruptedPods == nil {
				pdb.Status.DisruptedPods = map[string]metav1.Time{}
			}
			pdb.Status.DisruptedPods[p.pod.Name] = metav1.NewTime(w.now)
		}
	}
	return true
}

// setGate is a PATCH of the pod's status: it opens or closes a policy's readiness gate.
func (w *world) setGate(policy *simPolicy, state *fleet.PodState, status corev1.ConditionStatus) {
	p := w.find(state.Pod)
	if !w.answer(p, state.Pod) {
		return
	}
	if status == corev1.ConditionFalse {
		w.checkMayMove(policy, p)
	}
	w.takeDown(policy, "sets the gate to "+string(status)+" of", p, func() {
		p.pod = p.pod.DeepCopy()
		builders.SetCondition(p.pod, v1alpha1.DrainCondition(policy.name), status, w.now)
		p.gateAt = w.now.Add(w.seconds(0, 2))
		w.touch(p)
	})
}
