package rollout_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
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
	w := &world{t: t, rand: rand.New(rand.NewPCG(seed, 0)), now: builders.At(1000), policies: policies, kills: 10,
		fault: func(string, *simPod) fault { return fault{} }}
	for i := range rapid.IntRange(1, 5).Draw(t, "workloads") {
		w.drawWorkload(t, i)
	}
	return w
}

func (w *world) drawWorkload(t *rapid.T, i int) {
	kind := rapid.SampledFrom([]string{"Deployment", "StatefulSet", "DaemonSet", "Job", "Pod"}).Draw(t, "kind")
	size := 1
	if kind != "Pod" {
		size = rapid.IntRange(1, 7).Draw(t, "size")
	}
	workload := fleet.Workload{Kind: kind, Namespace: rapid.SampledFrom([]string{"shop", "office"}).Draw(t, "namespace"), Name: fmt.Sprintf("app%d", i)}
	var injected []*simPolicy
	for _, policy := range w.policies {
		if rapid.IntRange(0, 9).Draw(t, "injected by "+policy.name) < 8 {
			injected = append(injected, policy)
		}
	}
	w.addWorkload(workload, size, injected)
	if rapid.Bool().Draw(t, "PDB") {
		// By minAvailable or maxUnavailable: the controller makes the same number of both.
		desired := rapid.IntRange(0, size-1).Draw(t, "healthy pods desired")
		w.addPDB(workload, int32(desired))
	}
}

// addWorkload adds pods that have run for long.
func (w *world) addWorkload(workload fleet.Workload, size int, injected []*simPolicy) *simOwner {
	w.serial++
	owner := &simOwner{workload: workload, uid: fmt.Sprintf("uid-%d", w.serial), wanted: size, has: size, policies: injected}
	w.owners = append(w.owners, owner)
	for i := range size {
		p := w.born(workload, owner, fmt.Sprintf("zone-%d", i%3))
		w.old(p)
		if workload.Kind == "Pod" {
			p.owner = nil
		}
		if w.chance(10) {
			p.downUntil = w.now.Add(w.seconds(1, 30))
		}
	}
	return owner
}

func (w *world) addPDB(workload fleet.Workload, desired int32) {
	w.pdbs = append(w.pdbs, builders.PDB(workload.Namespace, workload.Name, desired, 0).
		With(func(p *policyv1.PodDisruptionBudget) { p.Status.ObservedGeneration = 0 }).Obj())
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
	budget := rapid.SampledFrom([]string{"1", "2", "5", "1%", "10%", "25%", "50%", "100%"})
	settings := builders.Rollout().Budget(v1alpha1.PerFleet, budget.Draw(t, name+" per fleet")).
		Budget(v1alpha1.PerWorkload, budget.Draw(t, name+" per workload")).
		Health(rapid.Int32Range(0, 5).Draw(t, name+" minReadySeconds"), 60)
	if rapid.Bool().Draw(t, name+" has a budget per namespace") {
		settings.Budget(v1alpha1.PerNamespace, budget.Draw(t, name+" per namespace"))
	}
	if rapid.Bool().Draw(t, name+" has a budget per zone") {
		settings.Topology(zoneLabel, budget.Draw(t, name+" per zone"))
	}
	settings.With(func(r *v1alpha1.RolloutSpec) { r.Health.GuardApp = ptr.To(false) }) // pods go down for reasons of their own
	return simulated(name, template, settings)
}

// simulated is a policy that has finished rolling out its first revision.
func simulated(name string, template *builders.TemplateBuilder, settings *builders.RolloutBuilder) *simPolicy {
	first := template.Revision(1)
	p := &simPolicy{name: name, revisions: []revision.Revision{*first}, target: first}
	p.object.Name, p.object.Spec.Rollout = name, *settings.Obj()
	p.object.Status.StableRevision, p.object.Status.TargetRevision = first.Hash, first.Hash
	return p
}

func (p *simPolicy) spec() *v1alpha1.RolloutSpec { return &p.object.Spec.Rollout }

// steps is how many a roll-out may take: every pod by itself, and some for the troubles before.
func (w *world) steps() int { return 200 + 60*len(w.pods)*len(w.policies) }

// isBad says whether an image is a bad version.
func isBad(image string) bool { return strings.HasSuffix(image, ":bad") }

// Two policies share pods; pods go down, are recreated and refuse; the manager is killed in the middle of
// passes; targets change on the way. The promises about budgets, PodDisruptionBudgets and app
// containers are checked with every single upgrade.
func TestPromise3NoBudgetIsExceededByPoliciesTogetherNorByCrashes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		logs, mesh := newPolicy(t, "logs"), newPolicy(t, "mesh")
		w := newWorld(t, logs, mesh)
		w.stormOfTargets(t, logs, mesh)
	})
}

// stormOfTargets changes targets in the middle of roll-outs, and then waits until all have got there.
func (w *world) stormOfTargets(t *rapid.T, logs, mesh *simPolicy) {
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
}

// The same with pods that are drained before each upgrade: whoever is drained counts as unavailable,
// and nobody is left drained.
func TestPromise3DrainedPodsCountAndComeBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		logs, mesh := newPolicy(t, "logs"), newPolicy(t, "mesh")
		logs.spec().Drain.Seconds = rapid.Int32Range(1, 15).Draw(t, "logs drains for")
		mesh.spec().Drain.Seconds = rapid.Int32Range(0, 5).Draw(t, "mesh drains for")
		w := newWorld(t, logs, mesh)
		w.stormOfTargets(t, logs, mesh)
		w.rest()
		w.checkInService()
	})
}

// A roll-out that is stopped in the middle, by whatever, leaves no pod drained either.
func TestStoppedRolloutLeavesNoPodDrained(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		logs := newPolicy(t, "logs")
		logs.spec().Drain.Seconds = rapid.Int32Range(1, 30).Draw(t, "drains for")
		w := newWorld(t, logs)
		w.target(logs, "2")
		for range rapid.IntRange(0, 30).Draw(t, "steps before it is stopped") {
			w.step()
		}
		switch rapid.SampledFrom([]string{"pause", "window", "abort", "exempt", "no drain"}).Draw(t, "stopped by") {
		case "pause":
			logs.spec().Paused = true
		case "window":
			logs.spec().Windows = builders.Rollout().Window("0 0 30 2 *", time.Hour).Obj().Windows
		case "abort":
			metav1.SetMetaDataAnnotation(&logs.object.ObjectMeta, v1alpha1.AbortAnnotation, logs.target.Hash)
		case "exempt":
			for _, p := range w.pods {
				p.exemptUntil = w.now.Add(time.Hour)
			}
		case "no drain":
			logs.spec().Drain.Seconds = 0
		}
		w.quiet, logs.woken = true, true
		for range 100 {
			w.step()
		}
		w.rest()
		w.checkInService()
	})
}

// rest is some time in which nothing happens.
func (w *world) rest() {
	for range 30 {
		w.step()
	}
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

// drawRecreation lets a policy recreate pods.
func drawRecreation(t *rapid.T, policy *simPolicy) {
	methods := []v1alpha1.RolloutMethod{v1alpha1.MethodInPlaceOrRecreate, v1alpha1.MethodRecreate}
	policy.spec().Method = rapid.SampledFrom(methods).Draw(t, "method")
	policy.spec().EvictUnmanaged = rapid.Bool().Draw(t, "evicts unmanaged pods")
	if rapid.Bool().Draw(t, "in steps") {
		policy.spec().Steps = drawSteps(t)
	}
}

// Pods that are recreated count until their owner has another one that is ready.
func TestPromise3RecreatedPodsCountUntilTheyAreReplaced(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		logs, mesh := newPolicy(t, "logs"), newPolicy(t, "mesh")
		drawRecreation(t, logs)
		w := newWorld(t, logs, mesh)
		w.env(logs, "debug")
		for range rapid.IntRange(0, 30).Draw(t, "steps before the second policy") {
			w.step()
		}
		w.target(mesh, "2")
		for range rapid.IntRange(0, 30).Draw(t, "steps before another target") {
			w.step()
		}
		w.target(logs, "2")
		for range 20 {
			w.step()
		}
		w.quiet = true
		w.runUntil("all pods run the targets", 2*w.steps(), func() bool {
			w.retryFailed()
			return w.settled()
		})
		w.rest()
		w.checkRecreated(logs)
	})
}

// checkRecreated: no pod that may be recreated lacks what only a new pod brings.
func (w *world) checkRecreated(policy *simPolicy) {
	for _, p := range w.pods {
		record, err := v1alpha1.ParseInjectionRecord(p.pod.Annotations, policy.name)
		must(w.t, err)
		unmanaged := p.owner == nil || p.workload.Kind == "Job"
		if record == nil || (unmanaged && !policy.spec().EvictUnmanaged) {
			continue
		}
		if born := revision.Get(policy.revisions, record.Revision); len(revision.Compare(&born.Template, &policy.target.Template).Fixed) > 0 {
			w.broken("pod %s was created with %s and never recreated", p.pod.Name, record.Revision)
		}
	}
}

// drawMissing lets a policy replace pods that lack its sidecars, and some pods lack them: those of
// workloads that came while nobody injected them, and those that were replaced meanwhile.
func (w *world) drawMissing(t *rapid.T, policy *simPolicy) {
	policy.object.Spec.Missing, policy.object.Spec.MaxMissing = v1alpha1.MissingRecreate, ptr.To(intstr.FromString("100%"))
	policy.spec().EvictUnmanaged = rapid.Bool().Draw(t, "evicts unmanaged pods")
	policy.away = true
	for i := range rapid.IntRange(1, 3).Draw(t, "workloads without the sidecars") {
		workload := fleet.Workload{Kind: rapid.SampledFrom([]string{"Deployment", "StatefulSet", "Job"}).Draw(t, "kind"), Namespace: "shop", Name: fmt.Sprintf("bare%d", i)}
		w.addWorkload(workload, rapid.IntRange(1, 5).Draw(t, "size"), w.policies)
		if rapid.Bool().Draw(t, "PDB") {
			w.addPDB(workload, 0)
		}
	}
	policy.woken = true
}

// lacking counts the pods that lack a policy's sidecars and may be replaced for that.
func (w *world) lacking(policy *simPolicy) int {
	n := 0
	for _, p := range w.pods {
		unmanaged := p.owner == nil || p.workload.Kind == "Job"
		wanted := p.owner == nil || slices.Contains(p.owner.policies, policy)
		n += count(p.deleted.IsZero() && wanted && !policy.carriedBy(p) && (!unmanaged || policy.spec().EvictUnmanaged))
	}
	return n
}

func (p *simPolicy) carriedBy(pod *simPod) bool {
	return pod.pod.Annotations[v1alpha1.InjectedAnnotation(p.name)] != ""
}

// Pods that lack the sidecars are replaced within all budgets, while another policy rolls out,
// pods go down and the manager is killed; in the end none is left.
func TestPromise3ReplacingPodsThatLackTheSidecarsKeepsTheBudgets(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		logs, mesh := newPolicy(t, "logs"), newPolicy(t, "mesh")
		w := newWorld(t, logs, mesh)
		w.everybodySelected()
		w.drawMissing(t, logs)
		for range rapid.IntRange(0, 20).Draw(t, "steps before injection works again") {
			w.step()
		}
		logs.away = false
		w.target(mesh, "2")
		for range 20 {
			w.step()
		}
		w.quiet = true
		w.runUntil("no pod lacks the sidecars", 4*w.steps(), func() bool {
			w.retryFailed()
			return w.lacking(logs) == 0
		})
		w.rest()
		w.runUntil("nothing is stored of it any more", w.steps(), func() bool { return len(logs.object.Status.Replacements) == 0 })
	})
}

// everybodySelected lets the policies select every pod: who does not carry a policy's sidecars lacks them.
func (w *world) everybodySelected() {
	for _, owner := range w.owners {
		owner.policies = w.policies
	}
}

// While replacing does not help, each workload loses one pod each time that it is tried, and that
// ever less often.
func TestReplacingInVainStops(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		logs := newPolicy(t, "logs")
		w := newWorld(t, logs)
		w.everybodySelected()
		w.quiet = true
		w.drawMissing(t, logs)
		for begun := w.now; w.now.Before(begun.Add(30 * time.Minute)); {
			w.step()
		}
		// Six tries, after 0, 1, 3, 7, 15 and 31 minutes, and a manager that was killed before it wrote down what came of one.
		if most := 6 * len(w.owners); logs.replaced > most {
			w.broken("%d pods of %d workloads were evicted in half an hour, none of which helped", logs.replaced, len(w.owners))
		}
		logs.away = false
		w.runUntil("no pod lacks the sidecars", 10*w.steps(), func() bool { return w.lacking(logs) == 0 })
	})
}

// A deleted policy takes its sidecars out within all budgets, while another one rolls out and the
// manager is killed; in the end nobody carries them.
func TestPromise3UnpluggingKeepsTheBudgets(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		logs, mesh := newPolicy(t, "logs"), newPolicy(t, "mesh")
		logs.spec().EvictUnmanaged, logs.object.Spec.OnRemoval = true, v1alpha1.RemovalRecreate
		w := newWorld(t, logs, mesh)
		w.target(logs, "2")
		for range rapid.IntRange(0, 20).Draw(t, "steps before the deletion") {
			w.step()
		}
		logs.object.DeletionTimestamp, logs.away, logs.woken = &metav1.Time{Time: w.now}, true, true
		w.target(mesh, "2")
		for range 20 {
			w.step()
		}
		w.quiet = true
		w.runUntil("no pod carries the sidecars", 4*w.steps(), func() bool {
			w.retryFailed()
			return w.carriers(logs) == 0
		})
	})
}

// Nothing is started outside of a window or in a pod that is exempt; everything gets there in the end.
func TestWindowsAndExemptionsAreKept(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		logs, mesh := newPolicy(t, "logs"), newPolicy(t, "mesh")
		logs.spec().Windows = builders.Rollout().Window("*/3 * * * *", time.Minute).Obj().Windows
		mesh.spec().Drain.Seconds = 5
		mesh.spec().Windows = builders.Rollout().Window("*/2 * * * *", time.Minute).Obj().Windows
		w := newWorld(t, logs, mesh)
		for _, p := range w.pods {
			if w.chance(30) {
				p.exemptUntil = w.now.Add(w.seconds(0, 300))
			}
		}
		w.target(logs, "2")
		w.target(mesh, "2")
		for range 100 {
			w.step()
		}
		w.quiet = true
		w.runUntil("all pods run the targets", 4*w.steps(), func() bool {
			w.retryFailed()
			return w.settled()
		})
		w.runUntil("exempt pods too, when that has ended", 4*w.steps(), func() bool { return w.now.After(builders.At(1300)) && w.settled() })
		w.rest()
		w.checkInService()
	})
}

// A manager that is killed in most of its passes, with a part of its writes sent and nothing written down,
// gets there all the same, and upgrades no pod twice.
func TestPromise8NothingIsLostOrDoneTwiceWhenTheManagerIsKilled(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		logs := newPolicy(t, "logs")
		logs.spec().Steps = []v1alpha1.Step{builders.Step("one", "1", 10*time.Second), builders.Step("half", "50%", 0), builders.Step("fleet", "100%", 0)}
		w := newWorld(t, logs)
		w.quiet, w.kills = true, 70
		w.target(logs, "2")
		w.runUntil("all pods run the target", 4*w.steps(), w.settled)
		w.rest()
		if carriers := w.carriers(logs); logs.writes != carriers {
			t.Fatalf("%d upgrades of %d pods", logs.writes, carriers)
		}
	})
}

// A pod that refuses every change holds up nobody: all others get there, step by step.
func TestPromise7PodsThatRefuseForEverHoldUpNoOther(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		logs := newPolicy(t, "logs")
		logs.spec().Steps = drawSteps(t)
		w := newWorld(t, logs)
		w.quiet = true
		able := 0
		for _, p := range w.pods {
			if w.chance(30) {
				p.refusals = 1 << 30
			} else {
				able += count(p.pod.Labels[v1alpha1.RevisionLabel(logs.name)] != "")
			}
		}
		w.target(logs, "2")
		w.runUntil("all pods that can run the target", w.steps(), func() bool { return able == 0 || int(logs.last.Counts.Updated) == able })
	})
}

// Nothing rolls again after a roll-out has finished, whatever happens to pods.
func TestFinishedFleetIsLeftAlone(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		logs := newPolicy(t, "logs")
		logs.spec().Method = v1alpha1.MethodInPlaceOrRecreate
		w := newWorld(t, logs)
		logs.woken = true
		for range 40 {
			w.step()
		}
		if logs.writes > 0 {
			t.Fatalf("%d writes to a fleet that runs the target", logs.writes)
		}
	})
}

// An image that can't be pulled, everywhere or for some workloads, harms no more pods than the budgets allow.
// The roll-out stops, and the way back mends everything.
func TestPromise4BadVersionStopsWithinTheBudgetsAndTheWayBackConverges(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		logs := newPolicy(t, "logs")
		w := newWorld(t, logs)
		w.quiet = true
		everywhere := rapid.Bool().Draw(t, "bad everywhere")
		w.fault = func(image string, p *simPod) fault {
			return fault{pull: isBad(image) && (everywhere || p.workload.Name == "app0")}
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

// drawFault draws what is wrong with a bad version.
func drawFault(t *rapid.T, kinds ...string) fault {
	after := time.Duration(rapid.IntRange(1, 15).Draw(t, "seconds until it does harm")) * time.Second
	switch rapid.SampledFrom(kinds).Draw(t, "fault") {
	case "crash":
		return fault{crash: after}
	case "poison":
		return fault{poison: after}
	case "deafen":
		return fault{deafen: after}
	}
	return fault{pull: true}
}

// The same without anybody watching: whatever is wrong with a version, the fleet is back on the stable
// revision by itself, the failed one is remembered, and no more than the first step was ever harmed.
func TestPromise4BadVersionIsRolledBackFromTheStepThatItBroke(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		logs, mesh := newPolicy(t, "logs"), newPolicy(t, "mesh")
		logs.spec().Health.GuardApp, logs.spec().Steps = nil, drawSteps(t)
		logs.spec().Drain.Seconds = rapid.SampledFrom([]int32{0, 0, 5}).Draw(t, "drains for")
		w := newWorld(t, logs, mesh)
		w.quiet = true
		w.allUp()
		wrong := drawFault(t, "pull", "crash", "poison", "deafen")
		w.fault = func(image string, _ *simPod) fault {
			if isBad(image) {
				return wrong
			}
			return fault{}
		}
		w.target(logs, "bad")
		w.target(mesh, "2")
		w.checkRollback(logs)
	})
}

// The same with a version that takes new pods.
func TestPromise4BadVersionIsRolledBackByRecreation(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		logs := newPolicy(t, "logs")
		drawRecreation(t, logs)
		logs.spec().Health.GuardApp, logs.spec().Steps = nil, drawSteps(t)
		w := newWorld(t, logs)
		w.quiet = true
		w.allUp()
		wrong := drawFault(t, "pull", "crash", "deafen")
		w.fault = func(image string, _ *simPod) fault {
			if isBad(image) {
				return wrong
			}
			return fault{}
		}
		for _, p := range w.pods {
			if p.owner == nil || p.workload.Kind == "Job" {
				p.exemptUntil = w.now.Add(24 * time.Hour) // nothing of it would ever run the bad version, or all of it in place
			}
		}
		w.env(logs, "debug")
		w.target(logs, "bad")
		if w.replaceable(logs) > 0 {
			w.checkRollback(logs)
		}
	})
}

// replaceable counts the pods with a policy's sidecars that may be moved by recreation.
func (w *world) replaceable(policy *simPolicy) int {
	n := 0
	for _, p := range w.pods {
		n += count(p.pod.Labels[v1alpha1.RevisionLabel(policy.name)] != "" && p.owner != nil && p.workload.Kind != "Job")
	}
	return n
}

// allUp ends what keeps apps down: a pod that was down before its upgrade need not get ready by it, so that
// it can't show that a version keeps its app down.
func (w *world) allUp() {
	for _, p := range w.pods {
		p.downUntil = w.now
	}
}

// A version that crashes 30 s after it got ready, or takes the readiness of its pod shortly before the end of the soak, harms 1%
// of 1,000 pods with the default steps, and no pod is left on it.
func TestPromise4ACrashAfter30SecondsHarmsOnePercentOfAThousandPods(t *testing.T) {
	t.Parallel()
	for name, wrong := range map[string]fault{"a crash": {crash: 30 * time.Second}, "readiness lost": {deafen: 50 * time.Second}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			harmsOnePercent(t, wrong)
		})
	}
}

func harmsOnePercent(t *testing.T, wrong fault) {
	settings := (&builders.RolloutBuilder{}).With(func(s *v1alpha1.RolloutSpec) { s.Health.ProgressDeadlineSeconds = ptr.To[int32](100) })
	policy := simulated("logs", builders.Template("logs-agent", "logs-agent:1"), settings)
	w := &world{t: t, rand: rand.New(rand.NewPCG(1, 0)), quiet: true, now: builders.At(1000), policies: []*simPolicy{policy}}
	w.fault = func(image string, _ *simPod) fault {
		if isBad(image) {
			return wrong
		}
		return fault{}
	}
	for i := range 50 {
		w.addWorkload(fleet.Workload{Kind: "Deployment", Namespace: "shop", Name: fmt.Sprintf("app%d", i)}, 20, w.policies)
	}
	w.allUp()
	w.target(policy, "bad")
	w.runUntil("the bad version is rolled back", 1000, func() bool { return policy.object.Status.Phase == v1alpha1.PhaseRolledBack })
	if harmed := w.harmed(); harmed == 0 || harmed > 10 {
		t.Errorf("%d of 1000 pods were harmed, want 1 to 10", harmed)
	}
	for _, p := range w.pods {
		if image := p.sidecars["logs-agent"].image; isBad(image) {
			t.Errorf("pod %s is left with %s", p.pod.Name, image)
		}
	}
	if name := policy.object.Status.FailedRevision; name != policy.target.Hash {
		t.Errorf("failedRevision is %q, want %q", name, policy.target.Hash)
	}
}

// checkRollback: a bad version is taken back, and no more than the first step was ever harmed. Then it
// is left alone, until a good one comes.
func (w *world) checkRollback(policy *simPolicy) {
	carriers := w.carriers(policy)
	first := policy.spec().Steps[0].Quota(carriers)
	w.runUntil("the bad version is rolled back", 2*w.steps(), func() bool {
		if harmed := w.harmed(); harmed > first {
			w.broken("%d of %d pods were harmed, the first step has %d", harmed, carriers, first)
		}
		return policy.object.Status.Phase == v1alpha1.PhaseRolledBack || carriers == 0
	})
	if carriers == 0 {
		return
	}
	if policy.object.Status.FailedRevision != policy.target.Hash || policy.object.Status.StableRevision == policy.target.Hash {
		w.broken("the status does not say that %s failed: %+v", policy.target.Hash, policy.object.Status)
	}
	w.rest()
	w.checkUp()
	w.checkInService()
	before := policy.writes
	w.rest()
	if policy.writes != before {
		w.broken("%d writes after the rollback", policy.writes-before)
	}
	w.target(policy, "3")
	w.runUntil("a good version is rolled out", 2*w.steps(), func() bool {
		w.retryFailed() // what the bad version did to a pod is held against other policies too
		return w.settled()
	})
}

// drawSteps draws one or two partial steps and the last one. Each is watched for long enough to see
// what drawFault draws.
func drawSteps(t *rapid.T) []v1alpha1.Step {
	part := rapid.SampledFrom([]string{"1", "2", "1%", "30%", "50%"})
	// Longer than it takes a version to do its harm; shorter, too, than the time in which a pod may get over it.
	soak := rapid.SampledFrom([]time.Duration{40 * time.Second, 90 * time.Second}).Draw(t, "soak")
	var steps []v1alpha1.Step
	for i := range rapid.IntRange(1, 2).Draw(t, "partial steps") {
		steps = append(steps, builders.Step(fmt.Sprintf("step-%d", i), part.Draw(t, "upTo"), soak))
	}
	return append(steps, builders.Step("fleet", "100%", 0))
}

// checkStopped: after the first failure nothing is started any more, and the status says so.
func (w *world) checkStopped(policy *simPolicy) {
	writes := policy.writes
	for range 60 {
		w.step()
		w.checkHarm(policy)
	}
	if policy.writes != writes {
		w.broken("%d upgrades were started after a pod had failed", policy.writes-writes)
	}
	if policy.object.Status.FailedRevision != policy.target.Hash || policy.object.Status.StableRevision == policy.target.Hash {
		w.broken("the status does not say that %s failed: %+v", policy.target.Hash, policy.object.Status)
	}
}
