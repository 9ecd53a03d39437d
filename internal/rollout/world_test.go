package rollout_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
)

// world is a cluster in memory: pods, kubelets that act on images late and lie about readiness
// for a second, owners that replace their pods late, a disruption controller that lags, and policies that
// are looked at only when an event or their own Requeue wakes them. After everything that a policy
// does, the promises are checked against the truth, which the product can't see.
type world struct {
	t        rapid.TB
	rand     *rand.Rand
	now      time.Time
	pods     []*simPod
	owners   []*simOwner
	pdbs     []*policyv1.PodDisruptionBudget
	policies []*simPolicy
	// fault is what is wrong with an image for a pod.
	fault func(image string, pod *simPod) fault
	// kills is how many passes of a hundred the manager does not survive.
	kills int
	// quiet: nobody but the policies, the kubelets and the owners does anything any more.
	quiet bool
	// steady: a second a step, and everything takes as long each time.
	steady bool
	// noted is called with every plan.
	noted  func(policy *simPolicy, plan *rollout.Plan)
	serial int
	// events are the last things that happened.
	events []string
}

// happened remembers an event, to be told when a promise is broken.
func (w *world) happened(format string, args ...any) {
	w.events = append(w.events, w.now.Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
	w.events = w.events[max(0, len(w.events)-80):]
}

// broken ends the test.
func (w *world) broken(format string, args ...any) {
	w.t.Helper()
	w.t.Logf("at %s, after\n%s", w.now.Format("15:04:05.000"), strings.Join(w.events, "\n"))
	w.t.Fatalf(format, args...)
}

// fault is what is wrong with a version. The zero value is a good one.
type fault struct {
	// pull: the image can't be pulled.
	pull bool
	// crash is how long after it got ready the sidecar exits, again and again; zero is never.
	crash time.Duration
	// poison is how long after the sidecar's start the app's container restarts; zero is never.
	poison time.Duration
	// deafen is how long after the sidecar's start the app loses its readiness; zero is never.
	deafen time.Duration
}

// simPolicy is a policy as the manager would know it from the API.
type simPolicy struct {
	name      string
	object    v1alpha1.SidecarPolicy
	revisions []revision.Revision
	target    *revision.Revision
	// away: nobody injects it into new pods, which start without it.
	away bool
	aim  rollout.Aim
	// judgement is the last one of the fleet.
	judgement *fleet.Judgement
	// last is what the last plan said; writes counts what was taken of them.
	last   rollout.Summary
	writes int
	// replaced counts the evictions of pods that lacked the sidecars.
	replaced int
	woken    bool
	wakeAt   time.Time
}

func (w *world) chance(percent int) bool { return !w.steady && w.rand.IntN(100) < percent }

func (w *world) seconds(low, high int) time.Duration {
	if w.steady {
		return time.Duration(low+high) * time.Second / 2
	}
	return time.Duration(1000*low+w.rand.IntN(1000*(high-low)+1)) * time.Millisecond
}

// order is one of n things: random, or the natural one of a steady world.
func (w *world) order(n int) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	if !w.steady {
		w.rand.Shuffle(n, func(i, j int) { order[i], order[j] = order[j], order[i] })
	}
	return order
}

func (w *world) wakeAll() {
	for _, policy := range w.policies {
		policy.woken = true
	}
}

// step lets time pass, and everybody act once.
func (w *world) step() {
	w.now = w.now.Add(w.seconds(0, 2) + 500*time.Millisecond)
	if w.steady {
		w.now = w.now.Truncate(time.Second)
	}
	if !w.quiet {
		w.trouble()
	}
	for _, p := range slices.Clone(w.pods) {
		w.kubelet(p)
	}
	for _, owner := range w.owners {
		w.replace(owner)
	}
	for _, pdb := range w.pdbs {
		if w.steady || w.chance(50) {
			w.disruptionController(pdb)
		}
	}
	for _, i := range w.order(len(w.policies)) {
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
		case n < 35 && p.owner != nil && p.deleted.IsZero():
			w.remove(p)
			w.born(p.owner.workload, p.owner, p.zone).downUntil = w.now.Add(w.seconds(1, 10))
		}
	}
}

// pass is what the manager does when a policy was woken. It remembers nothing, so that each
// pass is also the first one of a manager that has just been started. One that is killed in the middle
// has done a part of what it planned, and written no status.
func (w *world) pass(policy *simPolicy) {
	if !policy.woken && (policy.wakeAt.IsZero() || w.now.Before(policy.wakeAt)) {
		return
	}
	policy.woken, policy.wakeAt = false, time.Time{}
	plan := w.plan(policy)
	if w.chance(20) {
		w.checkSamePlan(policy, plan)
	}
	policy.last = plan.Summary
	if w.noted != nil {
		w.noted(policy, &plan)
	}
	killed := w.chance(w.kills)
	w.act(policy, &plan, killed)
	if killed {
		policy.woken = true // the manager is started again, and looks at everything
		return
	}
	before := policy.object.Status.DeepCopy()
	policy.aim.Report(&policy.object.Status, &plan)
	policy.woken = policy.woken || !equality.Semantic.DeepEqual(before, &policy.object.Status) // the manager watches policies too
	if plan.Requeue > 0 {
		policy.wakeAt = w.now.Add(plan.Requeue)
	}
}

// checkSamePlan: the same input, in whatever order, makes the same plan.
func (w *world) checkSamePlan(policy *simPolicy, plan rollout.Plan) {
	if one, two := describe(policy, plan, w.now), describe(policy, w.plan(policy), w.now); one != two {
		w.broken("same input, another plan:\n%s", cmp.Diff(one, two))
	}
}

// act carries a plan out, or a random part of it.
func (w *world) act(policy *simPolicy, plan *rollout.Plan, partly bool) {
	var writes []func()
	for i := range plan.Upgrades {
		writes = append(writes, func() { w.upgrade(policy, &plan.Upgrades[i]) })
	}
	for _, pod := range plan.Evictions {
		writes = append(writes, func() { w.evict(policy, pod) })
	}
	for _, pod := range plan.Unplugged {
		writes = append(writes, func() { w.evict(policy, pod) })
	}
	for _, pod := range plan.Replaced {
		writes = append(writes, func() { w.replaceMissing(policy, pod) })
	}
	for _, pod := range plan.Drains {
		writes = append(writes, func() { w.setGate(policy, pod, corev1.ConditionFalse) })
	}
	for _, pod := range plan.Undrains {
		writes = append(writes, func() { w.setGate(policy, pod, corev1.ConditionTrue) })
	}
	for _, i := range w.order(len(writes)) {
		if !partly || w.chance(50) {
			writes[i]()
		}
	}
}

// plan looks at the fleet in a random order.
func (w *world) plan(policy *simPolicy) rollout.Plan {
	policy.aim = rollout.TakeAim(&policy.object, policy.target, policy.revisions)
	view := policy.aim.View(policy.revisions, w.now)
	view.Health = map[string]*v1alpha1.HealthSpec{}
	for _, other := range w.policies {
		view.Health[other.name] = &other.object.Spec.Rollout.Health
	}
	members := make([]fleet.Member, 0, len(w.pods))
	all := make([]*corev1.Pod, 0, len(w.pods))
	leaving := map[string]int{}
	var leavers []fleet.Member
	for _, i := range w.order(len(w.pods)) {
		p := w.pods[i]
		all = append(all, p.pod)
		if p.deleted.IsZero() {
			members = append(members, w.member(p))
		} else if p.owner != nil {
			leavers = append(leavers, w.member(p))
			if p.pod.Labels[v1alpha1.RevisionLabel(policy.name)] != "" {
				leaving[p.owner.uid]++
			}
		}
	}
	input := policy.aim.Input(w.judge(policy, members, view), nil, w.now)
	input.Injecting = policy.object.DeletionTimestamp == nil // as far as the operator knows
	input.Leaving, input.Vacancies = leaving, fleet.Vacancies(members, leavers)
	for _, pdb := range w.pdbs {
		input.Disruptions = append(input.Disruptions, fleet.Allowance(pdb, all, view))
	}
	plan := rollout.Make(input)
	if w.chance(5) {
		w.checkWhy(input, &plan)
	}
	return plan
}

// judge does as the manager, and holds it to a judgement that takes nothing over from the last one.
func (w *world) judge(policy *simPolicy, members []fleet.Member, view *fleet.View) []fleet.PodState {
	policy.judgement = fleet.Rejudge(policy.judgement, members, view)
	if anew := fleet.Judge(members, view); !reflect.DeepEqual(anew, policy.judgement.Pods) {
		w.broken("%s: pods were judged by what they were: %s", policy.name, cmp.Diff(anew, policy.judgement.Pods))
	}
	return policy.judgement.Pods
}

func (w *world) member(p *simPod) fleet.Member {
	seen := *p.pod // a cache shows a pod as it was; ours goes on to change
	m := fleet.Member{Pod: &seen, Workload: p.workload, Owner: fleet.Owner{Unmanaged: true}, Refusal: p.refusal,
		Node: fleet.Node{Labels: map[string]string{zoneLabel: p.zone}}}
	if p.owner != nil {
		m.Owner = fleet.Owner{UID: p.owner.uid, Unmanaged: p.workload.Kind == "Job", Settled: p.owner.has >= p.owner.wanted,
			Wanted: int32(p.owner.wanted), Lacks: int32(max(0, p.owner.wanted-p.owner.has))}
	}
	if w.now.Before(p.exemptUntil) {
		m.Exempt, m.ExemptUntil = true, p.exemptUntil
	}
	return m
}

// describe is everything that a plan would do and say.
func describe(policy *simPolicy, plan rollout.Plan, now time.Time) string {
	step, err := json.Marshal(plan.Step)
	if err != nil {
		panic(err)
	}
	text := fmt.Sprintf("%+v step %s requeue %s\n%s\n", plan.Summary, step, plan.Requeue, strings.Join(plan.Notes(), "\n"))
	for i := range plan.Upgrades {
		text += fmt.Sprintf("%s %v\n", plan.Upgrades[i], plan.Upgrades[i].Patch(policy.name, now))
	}
	for what, pods := range [][]*fleet.PodState{plan.Evictions, plan.Replaced, plan.Unplugged, plan.Drains, plan.Undrains} {
		for _, pod := range pods {
			text += fmt.Sprintf("%d %s/%s\n", what, pod.Pod.Namespace, pod.Pod.Name)
		}
	}
	return text
}

// target gives a policy another image for all of its sidecars.
func (w *world) target(policy *simPolicy, tag string) {
	w.change(policy, func(t *v1alpha1.SidecarTemplate) {
		for i := range t.Sidecars {
			t.Sidecars[i].Image = t.Sidecars[i].Name + ":" + tag
		}
	})
}

// env gives a policy's first sidecar another variable, which takes a new pod.
func (w *world) env(policy *simPolicy, value string) {
	w.change(policy, func(t *v1alpha1.SidecarTemplate) {
		t.Sidecars[0].Env = []corev1.EnvVar{{Name: "LEVEL", Value: value}}
	})
}

func (w *world) change(policy *simPolicy, change func(*v1alpha1.SidecarTemplate)) {
	template := policy.target.Template.DeepCopy()
	change(template)
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
	w.t.Helper()
	for range steps {
		if holds() {
			return
		}
		w.step()
	}
	for _, policy := range w.policies {
		w.t.Logf("%s -> %s: %+v\nstatus: %+v\nstep: %+v", policy.name, policy.target.Hash, policy.last, policy.object.Status, policy.object.Status.Step)
	}
	w.broken("not within %d steps: %s", steps, what)
}

// settled: the product says that it has finished, and the truth agrees.
func (w *world) settled() bool {
	for _, policy := range w.policies {
		if !policy.last.Finished() || policy.object.Status.StableRevision != policy.target.Hash {
			return false
		}
		for _, p := range w.pods {
			if p.deleted.IsZero() && p.pod.Annotations[v1alpha1.InjectedAnnotation(policy.name)] != "" && !w.now.Before(p.exemptUntil) {
				w.checkRuns(policy, p)
			}
		}
	}
	return true
}

func must(t rapid.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustMarshal(t rapid.TB, value any) []byte {
	t.Helper()
	data, err := json.Marshal(value)
	must(t, err)
	return data
}

// applyPatch applies a JSON patch the way the API server does.
func applyPatch(t rapid.TB, document []byte, ops any) []byte {
	t.Helper()
	patch, err := jsonpatch.DecodePatch(mustMarshal(t, ops))
	must(t, err)
	patched, err := patch.Apply(document)
	must(t, err)
	return patched
}
