package simulate

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
)

// world is a cluster in memory.
type world struct {
	in      Input
	policy  *v1alpha1.SidecarPolicy
	aim     rollout.Aim
	pods    []*pod
	byUID   map[types.UID]*pod
	budgets []policyv1.PodDisruptionBudget
	records fleet.Records
	settled bool
	serial  int
	now     time.Time
	story   Story
}

// pod is one of the fleet. What was read from the API is shared until it is changed.
type pod struct {
	fleet.Member
	// readyAt is when its kubelet has done what it was asked to, reborn when another one is in its place;
	// zero where nothing is under way.
	readyAt, rebornAt time.Time
}

func newWorld(in Input) *world {
	w := &world{in: in, policy: in.Policy.DeepCopy(), now: in.Now, byUID: map[types.UID]*pod{}}
	w.policy.Spec.Rollout.Analysis = nil // it passes
	for _, member := range in.Members {
		w.add(&pod{Member: member})
	}
	for i := range in.Budgets {
		w.budgets = append(w.budgets, *in.Budgets[i].DeepCopy())
	}
	return w
}

func (w *world) add(p *pod) {
	w.pods = append(w.pods, p)
	w.byUID[p.Pod.UID] = p
}

// members are the pods of the fleet that stay, and those that are being deleted. Owners know at once what
// they lack.
func (w *world) members() (members, leaving []fleet.Member) {
	lacks := map[string]int32{}
	for _, p := range w.pods {
		if !p.rebornAt.IsZero() {
			lacks[p.Owner.UID]++
		}
	}
	for _, p := range w.pods {
		m := p.Member
		if n := lacks[m.Owner.UID]; n > 0 && m.Owner.UID != "" {
			m.Owner.Lacks, m.Owner.Settled = m.Owner.Lacks+n, false
		}
		m.Exempt = m.Exempt && (m.ExemptUntil.IsZero() || w.now.Before(m.ExemptUntil))
		if p.rebornAt.IsZero() {
			members = append(members, m)
		} else {
			leaving = append(leaving, m)
		}
	}
	return members, leaving
}

// covered are all pods that PodDisruptionBudgets look at.
func (w *world) covered(members, leaving []fleet.Member) []*corev1.Pod {
	all := slices.Clone(w.in.Others)
	for _, list := range [][]fleet.Member{members, leaving} {
		for i := range list {
			all = append(all, list[i].Pod)
		}
	}
	return all
}

// countHealthy is the disruption controller.
func (w *world) countHealthy(pdb *policyv1.PodDisruptionBudget, pods []*corev1.Pod) {
	selector, err := metav1.LabelSelectorAsSelector(pdb.Spec.Selector)
	if err != nil || pdb.Status.ObservedGeneration < pdb.Generation {
		return
	}
	healthy := int32(0)
	for _, p := range pods {
		if p.Namespace == pdb.Namespace && selector.Matches(labels.Set(p.Labels)) && fleet.Ready(p) && p.DeletionTimestamp == nil {
			healthy++
		}
	}
	pdb.Status.CurrentHealthy, pdb.Status.DisruptedPods = healthy, nil
	pdb.Status.DisruptionsAllowed = max(0, healthy-pdb.Status.DesiredHealthy)
}

// settleFirst lets the kubelets finish what was under way when the simulation began.
func (w *world) settleFirst(states []fleet.PodState) {
	if w.settled {
		return
	}
	w.settled = true
	for i := range states {
		if state := &states[i]; state.Injected && (state.Underway() || state.Verdict.State == fleet.Starting) {
			w.byUID[state.Pod.UID].readyAt = w.now.Add(w.in.Pace.Restart)
		}
	}
}

// act carries a plan out, and says whether there was something to do.
func (w *world) act(plan *rollout.Plan) bool {
	for i := range plan.Upgrades {
		w.upgrade(&plan.Upgrades[i])
	}
	for _, state := range plan.Evictions {
		p := w.change(state.Pod)
		p.Pod.DeletionTimestamp = ptr.To(metav1.NewTime(w.now))
		p.rebornAt = w.now.Add(w.in.Pace.Recreate)
	}
	for _, state := range plan.Drains {
		w.setGate(state, corev1.ConditionFalse)
	}
	for _, state := range plan.Undrains {
		w.setGate(state, corev1.ConditionTrue)
	}
	return len(plan.Upgrades)+len(plan.Evictions)+len(plan.Drains)+len(plan.Undrains)+len(plan.Tries) > 0
}

// change gives the world a copy of its own of a pod.
func (w *world) change(seen *corev1.Pod) *pod {
	p := w.byUID[seen.UID]
	p.Pod = p.Pod.DeepCopy()
	return p
}

// upgrade is the API server: it applies the very patches that the manager would send.
func (w *world) upgrade(u *rollout.Upgrade) {
	p := w.byUID[u.Pod.Pod.UID]
	p.Pod = patched(patched(p.Pod, u.Patch(w.policy.Name, w.now)), u.ResizePatch())
	p.Pod.Generation++
	p.readyAt = w.now
	if u.Pod.Restarts() {
		setReady(p.Pod, corev1.ConditionFalse, w.now)
		p.readyAt = w.now.Add(w.in.Pace.Restart)
	}
}

// patched is the pod after a JSON patch. One that can't be applied would be a mistake of ours.
func patched[T any](before *corev1.Pod, operations []T) *corev1.Pod {
	if len(operations) == 0 {
		return before
	}
	after := &corev1.Pod{}
	if err := apply(before, operations, after); err != nil {
		panic(fmt.Sprintf("simulating a patch of pod %s/%s: %v", before.Namespace, before.Name, err))
	}
	return after
}

func apply(before *corev1.Pod, operations any, after *corev1.Pod) error {
	document, err := json.Marshal(before)
	if err != nil {
		return err
	}
	data, err := json.Marshal(operations)
	if err != nil {
		return err
	}
	patch, err := jsonpatch.DecodePatch(data)
	if err != nil {
		return err
	}
	changed, err := patch.Apply(document)
	if err != nil {
		return err
	}
	return json.Unmarshal(changed, after)
}

func (w *world) setGate(state *fleet.PodState, status corev1.ConditionStatus) {
	p := w.change(state.Pod)
	setCondition(p.Pod, v1alpha1.DrainCondition(w.policy.Name), status, w.now)
	if status == corev1.ConditionFalse || fleet.Sound(p.Pod, w.policy.Name) {
		setCondition(p.Pod, corev1.PodReady, status, w.now)
	}
}

// advance lets time pass until something happens, or the plan wants to be looked at again. It says false
// where neither will ever be.
func (w *world) advance(requeue time.Duration) bool {
	next := w.next(requeue)
	if next.IsZero() {
		return false
	}
	if next.After(w.now) {
		w.now = next.Add(time.Second - 1).Truncate(time.Second) // the API counts in seconds
	}
	due := func(t time.Time) bool { return !t.IsZero() && !t.After(w.now) }
	for _, p := range slices.Clone(w.pods) {
		if due(p.rebornAt) {
			w.reborn(p)
		} else if due(p.readyAt) {
			w.started(p)
		}
	}
	return true
}

// next is when something happens; zero where nothing will.
func (w *world) next(requeue time.Duration) time.Time {
	var next time.Time
	if requeue > 0 {
		next = w.now.Add(requeue)
	}
	for _, p := range w.pods {
		for _, t := range []time.Time{p.readyAt, p.rebornAt} {
			if !t.IsZero() && (next.IsZero() || t.Before(next)) {
				next = t
			}
		}
	}
	return next
}

// started is a kubelet that has restarted containers whose image has changed, and has resized others.
func (w *world) started(p *pod) {
	p.readyAt = time.Time{}
	p.Pod = p.Pod.DeepCopy()
	p.Pod.Status.ObservedGeneration = p.Pod.Generation
	p.Pod.Status.InitContainerStatuses = w.run(p.Pod, p.Pod.Spec.InitContainers, p.Pod.Status.InitContainerStatuses)
	p.Pod.Status.ContainerStatuses = w.run(p.Pod, p.Pod.Spec.Containers, p.Pod.Status.ContainerStatuses)
	setReady(p.Pod, corev1.ConditionTrue, w.now)
}

// run gives every sidecar that was to be restarted, or has never run, a container that runs. The kubelet counts
// in whole seconds.
func (w *world) run(on *corev1.Pod, containers []corev1.Container, before []corev1.ContainerStatus) []corev1.ContainerStatus {
	record, _ := v1alpha1.ParseUpgradeRecord(on.Annotations, w.policy.Name)
	var after []corev1.ContainerStatus
	for i := range containers {
		c := &containers[i]
		status := corev1.ContainerStatus{Name: c.Name}
		if found := slices.IndexFunc(before, func(s corev1.ContainerStatus) bool { return s.Name == c.Name }); found >= 0 {
			status = before[found]
		}
		restart := status.ContainerID == "" || status.State.Running == nil
		if record != nil {
			id, due := record.Before[c.Name]
			restart = restart || (due && id == status.ContainerID)
		}
		if restart && (c.RestartPolicy != nil || !isInit(on, c.Name)) {
			w.serial++
			status.ContainerID, status.Image, status.RestartCount = fmt.Sprintf("simulated://%d", w.serial), c.Image, status.RestartCount+one(status.ContainerID != "")
			status.State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(w.now)}}
			status.Ready, status.Started = true, ptr.To(true)
		}
		status.Resources = c.Resources.DeepCopy()
		after = append(after, status)
	}
	return after
}

func isInit(on *corev1.Pod, name string) bool {
	return slices.ContainsFunc(on.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == name })
}

func one(b bool) int32 {
	if b {
		return 1
	}
	return 0
}

// reborn puts another pod in the place of one that was evicted, with what admission would give it now.
func (w *world) reborn(p *pod) {
	i := slices.Index(w.pods, p)
	delete(w.byUID, p.Pod.UID)
	if p.Owner.UID == "" { // nobody makes it anew
		w.pods = slices.Delete(w.pods, i, i+1)
		return
	}
	w.serial++
	place := rollout.Place{Labels: p.Pod.Labels, NamespaceLabels: p.NamespaceLabels, Owner: p.Owner.UID}
	next := &pod{Member: p.Member}
	next.Pod = p.Pod.DeepCopy()
	next.Pod.Name = fmt.Sprintf("%s-%d", p.Workload.Name, w.serial)
	next.Pod.UID = types.UID(fmt.Sprintf("simulated-%d", w.serial))
	next.Pod.DeletionTimestamp, next.Pod.CreationTimestamp = nil, metav1.NewTime(w.now)
	if r := revision.Get(w.in.Revisions, rollout.RevisionFor(w.policy, place)); r != nil {
		plugIn(next.Pod, w.policy.Name, r)
	}
	w.pods[i] = next
	w.byUID[next.Pod.UID] = next
	next.Pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, QOSClass: p.Pod.Status.QOSClass}
	w.started(next)
}

// plugIn exchanges the sidecars that a policy has put into a pod for those of a revision. Only what a
// judgement looks at is exchanged: names, images and resources.
func plugIn(on *corev1.Pod, policy string, r *revision.Revision) {
	before, _ := v1alpha1.ParseInjectionRecord(on.Annotations, policy)
	if before != nil {
		ours := func(c corev1.Container) bool { return slices.Contains(before.Sidecars, c.Name) }
		on.Spec.InitContainers = slices.DeleteFunc(on.Spec.InitContainers, ours)
		on.Spec.Containers = slices.DeleteFunc(on.Spec.Containers, ours)
	}
	record := v1alpha1.InjectionRecord{Revision: r.Hash}
	for _, sidecar := range r.Template.Sidecars {
		record.Sidecars = append(record.Sidecars, sidecar.Name)
		container := corev1.Container{Name: sidecar.Name, Image: sidecar.Image, Resources: sidecar.Resources}
		if sidecar.Mode == v1alpha1.ModeContainer {
			on.Spec.Containers = append(on.Spec.Containers, container)
			continue
		}
		container.RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
		on.Spec.InitContainers = append(on.Spec.InitContainers, container)
	}
	delete(on.Annotations, v1alpha1.UpgradeAnnotation(policy))
	metav1.SetMetaDataAnnotation(&on.ObjectMeta, v1alpha1.InjectedAnnotation(policy), record.Encode())
	metav1.SetMetaDataLabel(&on.ObjectMeta, v1alpha1.RevisionLabel(policy), r.Hash)
}

// setReady writes readiness as a kubelet does: a gate that is closed keeps the pod from being Ready.
func setReady(on *corev1.Pod, status corev1.ConditionStatus, now time.Time) {
	setCondition(on, corev1.ContainersReady, status, now)
	if status == corev1.ConditionTrue && !gatesOpen(on) {
		status = corev1.ConditionFalse
	}
	setCondition(on, corev1.PodReady, status, now)
}

func gatesOpen(on *corev1.Pod) bool {
	for _, gate := range on.Spec.ReadinessGates {
		open := slices.ContainsFunc(on.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == gate.ConditionType && c.Status == corev1.ConditionTrue
		})
		if !open {
			return false
		}
	}
	return true
}

func setCondition(on *corev1.Pod, kind corev1.PodConditionType, status corev1.ConditionStatus, now time.Time) {
	for i := range on.Status.Conditions {
		if c := &on.Status.Conditions[i]; c.Type == kind {
			if c.Status != status {
				c.Status, c.LastTransitionTime = status, metav1.NewTime(now)
			}
			return
		}
	}
	on.Status.Conditions = append(on.Status.Conditions, corev1.PodCondition{Type: kind, Status: status, LastTransitionTime: metav1.NewTime(now)})
}
