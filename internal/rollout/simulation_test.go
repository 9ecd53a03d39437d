package rollout_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

// newWorld draws a fleet that runs version 1 of everything. The dynamics come from one seed,
// which is drawn too, so that a failure can be replayed.
func newWorld(t *rapid.T, policies ...*simPolicy) *world {
	seed := rapid.Uint64().Draw(t, "seed")
	w := &world{t: t, rand: rand.New(rand.NewPCG(seed, 0)), now: builders.At(1000), policies: policies,
		bad: func(string, *simPod) bool { return false }}
	for i := range rapid.IntRange(1, 5).Draw(t, "workloads") {
		w.addWorkload(i)
	}
	return w
}

func (w *world) addWorkload(i int) {
	kind := rapid.SampledFrom([]string{"Deployment", "StatefulSet", "DaemonSet", "Job", "Pod"}).Draw(w.t, "kind")
	size := 1
	if kind != "Pod" {
		size = rapid.IntRange(1, 7).Draw(w.t, "size")
	}
	workload := fleet.Workload{Kind: kind, Namespace: rapid.SampledFrom([]string{"shop", "office"}).Draw(w.t, "namespace"), Name: fmt.Sprintf("app%d", i)}
	var injected []*simPolicy
	for _, policy := range w.policies {
		if rapid.IntRange(0, 9).Draw(w.t, "injected by "+policy.name) < 8 {
			injected = append(injected, policy)
		}
	}
	for range size {
		p := w.born(workload, injected)
		if w.chance(10) {
			p.downUntil = w.now.Add(w.seconds(1, 30))
		}
	}
	if rapid.Bool().Draw(w.t, "PDB") {
		// By minAvailable or maxUnavailable: the controller makes the same number of both.
		desired := rapid.IntRange(0, size-1).Draw(w.t, "healthy pods desired")
		w.pdbs = append(w.pdbs, builders.PDB(workload.Namespace, workload.Name, int32(desired), 0).
			With(func(p *policyv1.PodDisruptionBudget) { p.Status.ObservedGeneration = 0 }).Obj())
	}
}

// newPolicy draws a policy that has finished rolling out its first revision.
func newPolicy(t *rapid.T, name string) *simPolicy {
	template := builders.Template(name+"-agent", name+"-agent:1")
	if rapid.Bool().Draw(t, name+" with a probe") {
		template.Probe()
	}
	if rapid.Bool().Draw(t, name+" with a classic sidecar") {
		template.Classic(name+"-proxy", name+"-proxy:1")
	}
	first := template.Revision(1)
	budget := rapid.SampledFrom([]string{"1", "2", "5", "1%", "10%", "25%", "50%", "100%"})
	settings := builders.Rollout().Budget(v1alpha1.PerFleet, budget.Draw(t, name+" per fleet")).
		Budget(v1alpha1.PerWorkload, budget.Draw(t, name+" per workload")).
		Health(rapid.Int32Range(0, 5).Draw(t, name+" minReadySeconds"), 60)
	settings.With(func(r *v1alpha1.RolloutSpec) { r.Health.GuardApp = ptr.To(false) }) // pods go down for reasons of their own
	p := &simPolicy{name: name, revisions: []revision.Revision{*first}, target: first}
	p.object.Name, p.object.Spec.Rollout = name, *settings.Obj()
	p.object.Status.StableRevision, p.object.Status.TargetRevision = first.Hash, first.Hash
	return p
}

// steps is how many a roll-out may take: every pod by itself, and some for the troubles before.
func (w *world) steps() int { return 150 + 40*len(w.pods)*len(w.policies) }

// Two policies share pods; pods go down, are recreated and refuse; targets change on the way. The promises
// about budgets, PodDisruptionBudgets and app containers are checked with every single upgrade.
func TestNeverExceedsBudgetsAndConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		logs, mesh := newPolicy(t, "logs"), newPolicy(t, "mesh")
		w := newWorld(t, logs, mesh)
		w.target(logs, "2")
		for range rapid.IntRange(0, 30).Draw(t, "steps before the second policy") {
			w.step()
		}
		w.target(mesh, "2")
		for range rapid.IntRange(0, 30).Draw(t, "steps before another target") {
			w.step()
		}
		w.target(logs, "3")
		for range 20 {
			w.step()
		}
		w.quiet = true
		w.runUntil("all pods run the targets", w.steps(), func() bool {
			w.retryFailed()
			return w.settled()
		})
	})
}

// retryFailed asks for another try where the troubles of a pod were taken for those of its sidecars.
func (w *world) retryFailed() {
	for _, policy := range w.policies {
		if policy.object.Status.FailedRevision == policy.target.Hash {
			metav1.SetMetaDataAnnotation(&policy.object.ObjectMeta, v1alpha1.RetryAnnotation, fmt.Sprintf("%s/%d", policy.target.Hash, w.serial))
			policy.woken = true
		}
	}
}

// Nothing rolls again after a roll-out has finished, whatever happens to pods.
func TestFinishedFleetIsLeftAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		logs := newPolicy(t, "logs")
		w := newWorld(t, logs)
		logs.woken = true
		for range 40 {
			w.step()
		}
		if logs.patches > 0 {
			t.Fatalf("%d upgrades of a fleet that runs the target", logs.patches)
		}
	})
}

// An image that can't be pulled, everywhere or for some workloads, harms no more pods than the budgets allow.
// The roll-out stops, and the way back mends everything.
func TestBadVersionStopsWithinTheBudgetsAndTheWayBackConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		logs := newPolicy(t, "logs")
		w := newWorld(t, logs)
		w.quiet = true
		everywhere := rapid.Bool().Draw(t, "bad everywhere")
		w.bad = func(image string, p *simPod) bool {
			return strings.HasSuffix(image, ":bad") && (everywhere || p.workload.Name == "app0")
		}
		logs.object.Spec.Rollout.OnFailure = v1alpha1.FailurePause
		w.target(logs, "bad")
		w.runUntil("the roll-out stops or finishes", w.steps(), func() bool {
			w.checkHarm(logs)
			return logs.last.Counts.Failed > 0 || logs.object.Status.StableRevision == logs.target.Hash
		})
		if logs.last.Counts.Failed > 0 {
			w.checkStopped(logs)
		}
		w.target(logs, "1")
		w.runUntil("all pods run the good image again", w.steps(), w.settled)
		w.checkUp()
	})
}

// The same without anybody watching: the fleet is back on the stable revision by itself, the failed
// one is remembered, and no more than the first step was ever harmed.
func TestBadVersionIsRolledBackFromTheStepThatItBroke(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		logs, mesh := newPolicy(t, "logs"), newPolicy(t, "mesh")
		w := newWorld(t, logs, mesh)
		w.quiet = true
		w.bad = func(image string, _ *simPod) bool { return strings.HasSuffix(image, ":bad") }
		logs.object.Spec.Rollout.Steps = drawSteps(t)
		w.target(logs, "bad")
		w.target(mesh, "2")
		carriers := w.carriers(logs)
		first := logs.object.Spec.Rollout.Steps[0].Quota(carriers)
		w.runUntil("the bad version is rolled back", w.steps(), func() bool {
			w.checkHarm(logs)
			if harmed := w.down(); harmed > first {
				t.Fatalf("%d of %d pods were harmed, the first step has %d", harmed, carriers, first)
			}
			return logs.object.Status.Phase == v1alpha1.PhaseRolledBack || carriers == 0
		})
		if carriers == 0 {
			return
		}
		if logs.object.Status.FailedRevision != logs.target.Hash || logs.object.Status.StableRevision == logs.target.Hash {
			t.Fatalf("the status does not say that %s failed: %+v", logs.target.Hash, logs.object.Status)
		}
		w.checkUp()
		before := logs.patches
		for range 30 {
			w.step()
		}
		if logs.patches != before {
			t.Fatalf("%d upgrades after the rollback", logs.patches-before)
		}
		w.target(logs, "3")
		w.runUntil("a good version is rolled out", w.steps(), w.settled)
	})
}

// drawSteps draws one or two partial steps and the last one.
func drawSteps(t *rapid.T) []v1alpha1.Step {
	part := rapid.SampledFrom([]intstr.IntOrString{intstr.FromInt32(1), intstr.FromInt32(2), intstr.FromString("1%"), intstr.FromString("30%"), intstr.FromString("50%")})
	soak := rapid.SampledFrom([]time.Duration{0, 5 * time.Second, 20 * time.Second})
	var steps []v1alpha1.Step
	for i := range rapid.IntRange(1, 2).Draw(t, "partial steps") {
		steps = append(steps, v1alpha1.Step{Name: fmt.Sprintf("step-%d", i), UpTo: ptr.To(part.Draw(t, "upTo")),
			Soak: &metav1.Duration{Duration: soak.Draw(t, "soak")}})
	}
	return append(steps, v1alpha1.Step{Name: "fleet", UpTo: ptr.To(intstr.FromString("100%"))})
}

// carriers counts the pods that carry a policy's sidecars.
func (w *world) carriers(policy *simPolicy) int {
	n := 0
	for _, p := range w.pods {
		if p.pod.Labels[v1alpha1.RevisionLabel(policy.name)] != "" {
			n++
		}
	}
	return n
}

// down counts the pods with a sidecar that a bad image took down.
func (w *world) down() int {
	n := 0
	for _, p := range w.pods {
		for _, s := range p.sidecars {
			if s.down {
				n++
				break
			}
		}
	}
	return n
}

func (w *world) checkUp() {
	if n := w.down(); n > 0 {
		w.t.Fatalf("%d pods are still down", n)
	}
}

// checkStopped: after the first failure nothing is started any more, and the status says so.
func (w *world) checkStopped(policy *simPolicy) {
	patches := policy.patches
	for range 60 {
		w.step()
		w.checkHarm(policy)
	}
	if policy.patches != patches {
		w.t.Fatalf("%d upgrades were started after a pod had failed", policy.patches-patches)
	}
	if policy.object.Status.FailedRevision != policy.target.Hash || policy.object.Status.StableRevision == policy.target.Hash {
		w.t.Fatalf("the status does not say that %s failed: %+v", policy.target.Hash, policy.object.Status)
	}
}

// checkHarm: the pods whose sidecar a bad image took down are within the budgets.
func (w *world) checkHarm(policy *simPolicy) {
	harmed, size := map[fleet.Workload]int{}, map[fleet.Workload]int{}
	all := 0
	for _, p := range w.pods {
		size[p.workload]++
		for _, s := range p.sidecars {
			if s.down {
				harmed[p.workload]++
				all++
				break
			}
		}
	}
	spec := &policy.object.Spec.Rollout
	if limit := spec.MaxUnavailable(v1alpha1.PerFleet, len(w.pods)); all > limit {
		w.t.Fatalf("%d of %d pods were harmed, the budget allows %d", all, len(w.pods), limit)
	}
	for workload, n := range harmed {
		if limit := spec.MaxUnavailable(v1alpha1.PerWorkload, size[workload]); n > limit {
			w.t.Fatalf("%d of %d pods of %s were harmed, the budget allows %d", n, size[workload], workload, limit)
		}
	}
}
