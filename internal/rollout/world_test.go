package rollout_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

// world is a cluster in memory: pods, kubelets that act on images late and lie about readiness
// for a second, a disruption controller that lags, and policies that are looked at only when an event or
// their own Requeue wakes them. After everything that a policy does, the promises are checked
// against the truth, which the product can't see.
type world struct {
	t        *rapid.T
	rand     *rand.Rand
	now      time.Time
	pods     []*simPod
	pdbs     []*policyv1.PodDisruptionBudget
	policies []*simPolicy
	// bad says whether an image can't be pulled for a pod.
	bad func(image string, pod *simPod) bool
	// quiet: nobody but the policies and the kubelets does anything any more.
	quiet  bool
	serial int
}

// simPolicy is a policy as the manager would know it from the API.
type simPolicy struct {
	name      string
	object    v1alpha1.SidecarPolicy
	revisions []revision.Revision
	target    *revision.Revision
	aim       rollout.Aim
	// last is what the last plan said; patches counts the upgrades that were taken.
	last    rollout.Summary
	patches int
	woken   bool
	wakeAt  time.Time
}

// simPod is a pod, and the truth about it.
type simPod struct {
	pod      *corev1.Pod
	workload fleet.Workload
	sidecars map[string]*simSidecar
	// downUntil is how long the app itself is not ready.
	downUntil time.Time
	// seeAt is when the kubelet says that it has seen a change, actAt when it acts on it.
	seeAt, actAt time.Time
	// refusals is how many upgrades the API server still refuses, refusal the last of them.
	refusals int
	refusal  *fleet.Refusal
	// takenDown: an upgrade took the pod down while it was available.
	takenDown bool
}

// simSidecar is what a kubelet knows of a container.
type simSidecar struct {
	image            string
	lieUntil, upFrom time.Time
	down             bool
}

func (p *simPod) ready(now time.Time) bool { return !now.Before(p.downUntil) }

// available is the truth: everything that the spec asks for runs and is ready.
func (p *simPod) available(now time.Time) bool {
	for name, s := range p.sidecars {
		if s.down || s.image != builders.SpecOf(p.pod, name).Image || now.Before(s.upFrom) {
			return false
		}
	}
	return p.ready(now)
}

func (w *world) chance(percent int) bool { return w.rand.IntN(100) < percent }

func (w *world) seconds(low, high int) time.Duration {
	return time.Duration(1000*low+w.rand.IntN(1000*(high-low)+1)) * time.Millisecond
}

// born adds a pod of a workload that the named policies inject.
func (w *world) born(workload fleet.Workload, policies []*simPolicy) *simPod {
	w.serial++
	name := fmt.Sprintf("%s-%03d", workload.Name, w.serial)
	pod := builders.Pod(workload.Namespace, name).Label("app", workload.Name)
	p := &simPod{workload: workload, sidecars: map[string]*simSidecar{}}
	for _, policy := range policies {
		r := revision.Get(policy.revisions, rollout.RevisionFor(&policy.object, rollout.Place{Labels: pod.Obj().Labels}))
		pod.Injected(policy.name, r)
		for _, sidecar := range r.Template.Sidecars {
			p.sidecars[sidecar.Name] = &simSidecar{image: sidecar.Image}
		}
	}
	p.pod = pod.Obj()
	w.pods = append(w.pods, p)
	w.wake(p)
	return p
}

// wake tells the policies that a pod has changed.
func (w *world) wake(p *simPod) {
	w.serial++
	p.pod.ResourceVersion = strconv.Itoa(w.serial)
	for _, policy := range w.policies {
		policy.woken = true
	}
}

// step lets time pass, and everybody act once.
func (w *world) step() {
	w.now = w.now.Add(w.seconds(0, 2) + 500*time.Millisecond)
	if !w.quiet {
		w.trouble()
	}
	for _, p := range w.pods {
		w.kubelet(p)
	}
	for _, pdb := range w.pdbs {
		if w.chance(50) {
			w.disruptionController(pdb)
		}
	}
	for _, i := range w.rand.Perm(len(w.policies)) {
		w.pass(w.policies[i])
	}
}

// trouble is what happens to a fleet without us.
func (w *world) trouble() {
	for _, p := range slices.Clone(w.pods) {
		switch n := w.rand.IntN(1000); {
		case n < 15:
			p.downUntil = w.now.Add(w.seconds(1, 15))
		case n < 25:
			p.refusals++
		case n < 35 && p.workload.Kind != "Pod":
			w.recreate(p)
		}
	}
}

func (w *world) recreate(p *simPod) {
	w.pods = slices.DeleteFunc(w.pods, func(other *simPod) bool { return other == p })
	var policies []*simPolicy
	for _, policy := range w.policies {
		if p.pod.Labels[v1alpha1.RevisionLabel(policy.name)] != "" {
			policies = append(policies, policy)
		}
	}
	fresh := w.born(p.workload, policies)
	fresh.downUntil = w.now.Add(w.seconds(1, 10))
}

// kubelet acts on new images and writes status.
func (w *world) kubelet(p *simPod) {
	before := p.pod.Status.DeepCopy()
	if !w.now.Before(p.seeAt) {
		p.pod.Status.ObservedGeneration = p.pod.Generation
	}
	if !w.now.Before(p.actAt) {
		for name, s := range p.sidecars {
			if s.image != builders.SpecOf(p.pod, name).Image {
				w.restart(p, name, s)
			}
		}
	}
	ready := p.ready(w.now)
	for name, s := range p.sidecars {
		status := builders.StatusOf(p.pod, name)
		if !s.down {
			status.Ready = w.now.Before(s.lieUntil) || !w.now.Before(s.upFrom)
			status.Started = ptr.To(status.Ready)
		}
		ready = ready && status.Ready
	}
	if ready != fleet.Ready(p.pod) {
		condition := corev1.ConditionFalse
		if ready {
			condition = corev1.ConditionTrue
		}
		builders.SetReady(p.pod, condition, w.now.Truncate(time.Second))
	}
	if p.available(w.now) {
		p.takenDown = false
	}
	if !equality.Semantic.DeepEqual(before, &p.pod.Status) {
		w.wake(p)
	}
}

// restart stops one container and starts it with its new image, or fails to pull that, which a
// native sidecar's status does not say.
func (w *world) restart(p *simPod, name string, s *simSidecar) {
	container, status := builders.SpecOf(p.pod, name), builders.StatusOf(p.pod, name)
	native := ptr.Deref(container.RestartPolicy, "") == corev1.ContainerRestartPolicyAlways
	wasReady := status.Ready
	s.image, s.down = container.Image, w.bad(container.Image, p)
	status.Ready, status.Started = false, ptr.To(false)
	switch {
	case s.down && native:
		status.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{FinishedAt: metav1.NewTime(w.now.Truncate(time.Second))}}
		return
	case s.down:
		status.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull"}}
		return
	}
	w.serial++
	*status = builders.RunningStatus(name, container.Image, fmt.Sprintf("containerd://%d", w.serial), w.now.Truncate(time.Second))
	s.upFrom, s.lieUntil = w.now, w.now
	if container.StartupProbe != nil {
		s.upFrom = w.now.Add(w.seconds(1, 8))
		if wasReady {
			s.lieUntil = w.now.Add(time.Second)
		}
	}
}

// disruptionController brings a PodDisruptionBudget's status up to date with the pods' status.
func (w *world) disruptionController(pdb *policyv1.PodDisruptionBudget) {
	before := pdb.Status.DeepCopy()
	healthy := int32(0)
	for _, p := range w.covered(pdb) {
		if fleet.Ready(p.pod) {
			healthy++
		}
	}
	pdb.Status.ObservedGeneration, pdb.Status.CurrentHealthy = pdb.Generation, healthy
	pdb.Status.DisruptionsAllowed = max(0, healthy-pdb.Status.DesiredHealthy)
	if !equality.Semantic.DeepEqual(before, &pdb.Status) {
		for _, policy := range w.policies {
			policy.woken = true
		}
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

// pass is what the manager does when a policy was woken. It remembers nothing, so that each
// pass is also the first one of a manager that has just been started.
func (w *world) pass(policy *simPolicy) {
	if !policy.woken && (policy.wakeAt.IsZero() || w.now.Before(policy.wakeAt)) {
		return
	}
	policy.woken, policy.wakeAt = false, time.Time{}
	plan := w.plan(policy)
	if one, two := describe(policy, plan, w.now), describe(policy, w.plan(policy), w.now); one != two {
		w.t.Fatalf("same input, another plan:\n%s", cmp.Diff(one, two))
	}
	policy.last = plan.Summary
	before := policy.object.Status.DeepCopy()
	policy.aim.Report(&policy.object.Status, &plan)
	policy.woken = !equality.Semantic.DeepEqual(before, &policy.object.Status) // the manager watches policies too
	for i := range plan.Upgrades {
		w.upgrade(policy, &plan.Upgrades[i])
	}
	if plan.Requeue > 0 {
		policy.wakeAt = w.now.Add(plan.Requeue)
	}
}

// plan looks at the fleet in a random order.
func (w *world) plan(policy *simPolicy) rollout.Plan {
	policy.aim = rollout.TakeAim(&policy.object, policy.target, policy.revisions)
	view := &fleet.View{Policy: policy.name, Target: policy.aim.Target, Revisions: policy.revisions, Watching: policy.aim.Watching(),
		Health: map[string]*v1alpha1.HealthSpec{}, Now: w.now}
	for _, other := range w.policies {
		view.Health[other.name] = &other.object.Spec.Rollout.Health
	}
	members := make([]fleet.Member, 0, len(w.pods))
	all := make([]*corev1.Pod, 0, len(w.pods))
	for _, i := range w.rand.Perm(len(w.pods)) {
		p := w.pods[i]
		members = append(members, fleet.Member{Pod: p.pod, Workload: p.workload, Refusal: p.refusal})
		all = append(all, p.pod)
	}
	input := policy.aim.Input(fleet.Judge(members, view), nil, w.now)
	for _, pdb := range w.pdbs {
		input.Disruptions = append(input.Disruptions, fleet.Allowance(pdb, all, view))
	}
	return rollout.Make(input)
}

// describe is everything that a plan would do and say.
func describe(policy *simPolicy, plan rollout.Plan, now time.Time) string {
	text := fmt.Sprintf("%+v requeue %s\n", plan.Summary, plan.Requeue)
	for i := range plan.Upgrades {
		text += fmt.Sprintf("%s %v\n", plan.Upgrades[i], plan.Upgrades[i].Patch(policy.name, now))
	}
	return text
}

// upgrade sends one PATCH, and checks the promises.
func (w *world) upgrade(policy *simPolicy, u *rollout.Upgrade) {
	p := w.find(u.Pod.Pod)
	if p.refusals > 0 {
		p.refusals--
		p.refusal = &fleet.Refusal{Message: "no", Until: w.now.Add(10 * time.Second)}
		return
	}
	p.refusal = nil
	wasAvailable := p.available(w.now)
	w.patch(policy, p, u)
	policy.patches++
	if wasAvailable && !p.available(w.now) {
		p.takenDown = true
		w.checkBudgets(policy, p)
	}
}

func (w *world) find(pod *corev1.Pod) *simPod {
	i := slices.IndexFunc(w.pods, func(p *simPod) bool { return p.pod == pod })
	if i < 0 {
		w.t.Fatalf("an upgrade of pod %s/%s, which is not there", pod.Namespace, pod.Name)
	}
	return w.pods[i]
}

// patch is the API server: it applies a JSON patch to the pod.
func (w *world) patch(policy *simPolicy, p *simPod, u *rollout.Upgrade) {
	before := p.pod
	after := &corev1.Pod{}
	must(w.t, json.Unmarshal(applyPatch(w.t, mustMarshal(w.t, before), u.Patch(policy.name, w.now)), after))
	if after.ResourceVersion != before.ResourceVersion {
		w.t.Fatalf("the patch of %s/%s names resourceVersion %s, the pod has %s", before.Namespace, before.Name, after.ResourceVersion, before.ResourceVersion)
	}
	w.checkTouched(policy, before, after)
	if !equality.Semantic.DeepEqual(before.Spec, after.Spec) {
		after.Generation++
		p.seeAt = w.now.Add(w.seconds(0, 2))
		p.actAt = p.seeAt.Add(w.seconds(0, 3))
	}
	p.pod = after
	w.wake(p)
}

// checkTouched: an upgrade changes images of the policy's own sidecars, in pods that carry
// them, and its own label and annotation. Nothing else.
func (w *world) checkTouched(policy *simPolicy, before, after *corev1.Pod) {
	if before.Annotations[v1alpha1.InjectedAnnotation(policy.name)] == "" {
		w.t.Fatalf("pod %s/%s was patched, and was never injected", before.Namespace, before.Name)
	}
	expected := after.DeepCopy()
	for i := range policy.target.Template.Sidecars {
		name := policy.target.Template.Sidecars[i].Name
		builders.SpecOf(expected, name).Image = builders.SpecOf(before, name).Image
	}
	restore(expected.Labels, before.Labels, v1alpha1.RevisionLabel(policy.name))
	restore(expected.Annotations, before.Annotations, v1alpha1.UpgradeAnnotation(policy.name))
	// Times lose what is less than a second in JSON; the patch has no say in status.
	expected.Status = before.Status
	if !equality.Semantic.DeepEqual(before, expected) {
		w.t.Fatalf("an upgrade changed more of pod %s/%s than its sidecars:\n%s", before.Namespace, before.Name, cmp.Diff(before, expected))
	}
}

func restore(to, from map[string]string, key string) {
	if value, ok := from[key]; ok {
		to[key] = value
		return
	}
	delete(to, key)
}

// checkBudgets: after an available pod was taken down, no budget is exceeded, whatever took the
// other pods down.
func (w *world) checkBudgets(policy *simPolicy, taken *simPod) {
	fleetSize, fleetDown, size, down := 0, 0, 0, 0
	for _, p := range w.pods {
		isDown := 0
		if !p.available(w.now) {
			isDown = 1
		}
		fleetSize, fleetDown = fleetSize+1, fleetDown+isDown
		if p.workload == taken.workload {
			size, down = size+1, down+isDown
		}
	}
	spec := &policy.object.Spec.Rollout
	if limit := spec.MaxUnavailable(v1alpha1.PerFleet, fleetSize); fleetDown > limit {
		w.t.Fatalf("%s took %s down: %d of the fleet's %d pods are, its budget allows %d", policy.name, taken.pod.Name, fleetDown, fleetSize, limit)
	}
	if limit := spec.MaxUnavailable(v1alpha1.PerWorkload, size); down > limit {
		w.t.Fatalf("%s took %s down: %d of the workload's %d pods are, its budget allows %d", policy.name, taken.pod.Name, down, size, limit)
	}
	for _, pdb := range w.pdbs {
		w.checkDisruptionBudget(policy, taken, pdb)
	}
}

func (w *world) checkDisruptionBudget(policy *simPolicy, taken *simPod, pdb *policyv1.PodDisruptionBudget) {
	covered := w.covered(pdb)
	if !slices.Contains(covered, taken) {
		return
	}
	healthy := 0
	for _, p := range covered {
		if p.available(w.now) {
			healthy++
		}
	}
	if healthy < int(pdb.Status.DesiredHealthy) {
		w.t.Fatalf("%s took %s down: %d pods of PodDisruptionBudget %s/%s are healthy, it wants %d",
			policy.name, taken.pod.Name, healthy, pdb.Namespace, pdb.Name, pdb.Status.DesiredHealthy)
	}
}

// target gives a policy another image for all of its sidecars.
func (w *world) target(policy *simPolicy, tag string) {
	template := policy.target.Template.DeepCopy()
	for i := range template.Sidecars {
		template.Sidecars[i].Image = template.Sidecars[i].Name + ":" + tag
	}
	found := revision.Find(policy.revisions, *template)
	if found == nil {
		policy.revisions = append(policy.revisions, revision.Next(policy.revisions, *template))
		found = &policy.revisions[len(policy.revisions)-1]
	}
	policy.target = ptr.To(*found)
	policy.woken = true
}

// runUntil makes steps until something holds, and fails where it does not within so many.
func (w *world) runUntil(what string, steps int, holds func() bool) {
	for range steps {
		if holds() {
			return
		}
		w.step()
	}
	for _, policy := range w.policies {
		w.t.Logf("%s -> %s: %+v\nstatus: %+v", policy.name, policy.target.Hash, policy.last, policy.object.Status)
	}
	w.t.Fatalf("not within %d steps: %s", steps, what)
}

// settled: the product says that it has finished, and the truth agrees.
func (w *world) settled() bool {
	for _, policy := range w.policies {
		if !policy.last.Finished() || policy.object.Status.StableRevision != policy.target.Hash {
			return false
		}
		for _, p := range w.pods {
			if p.pod.Annotations[v1alpha1.InjectedAnnotation(policy.name)] == "" {
				continue
			}
			for i := range policy.target.Template.Sidecars {
				sidecar := &policy.target.Template.Sidecars[i]
				if got := p.sidecars[sidecar.Name]; got.image != sidecar.Image || got.down {
					w.t.Fatalf("%s says it has finished, but %s of pod %s runs %s", policy.name, sidecar.Name, p.pod.Name, got.image)
				}
			}
		}
	}
	return true
}

func must(t *rapid.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustMarshal(t *rapid.T, value any) []byte {
	t.Helper()
	data, err := json.Marshal(value)
	must(t, err)
	return data
}

// applyPatch applies a JSON patch the way the API server does.
func applyPatch(t *rapid.T, document []byte, ops any) []byte {
	t.Helper()
	patch, err := jsonpatch.DecodePatch(mustMarshal(t, ops))
	must(t, err)
	patched, err := patch.Apply(document)
	must(t, err)
	return patched
}
