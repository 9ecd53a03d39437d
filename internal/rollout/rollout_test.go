package rollout_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

const policy = "logs"

var (
	agent = builders.Template("agent", "agent:1")
	r1    = agent.Revision(1)
	r2    = agent.Clone().Image("agent:2").Revision(2)
	r3    = agent.Clone().Image("agent:3").Revision(3)
)

// member is a pod of a Deployment that carries r1.
func member(deployment string, i int) fleet.Member { return in(deployment, pod(deployment, i)) }

func pod(deployment string, i int) *builders.PodBuilder {
	return builders.Pod("shop", fmt.Sprintf("%s-%02d", deployment, i)).Label("app", deployment).Injected(policy, r1)
}

func in(deployment string, pod *builders.PodBuilder) fleet.Member {
	return fleet.Member{Pod: pod.Obj(), Workload: fleet.Workload{Kind: "Deployment", Namespace: "shop", Name: deployment}}
}

func deployment(name string, size int) []fleet.Member {
	var members []fleet.Member
	for i := range size {
		members = append(members, member(name, i))
	}
	return members
}

// viewAt is the policy's view, with minReadySeconds 10 and progressDeadlineSeconds 60.
func viewAt(seconds int, target *revision.Revision) *fleet.View {
	return &fleet.View{Policy: policy, Target: target, Revisions: []revision.Revision{*r1, *r2, *r3},
		Health: map[string]*v1alpha1.HealthSpec{policy: builders.Health(10, 60)}, Now: builders.At(seconds)}
}

// inputAt is a roll-out to r2.
func inputAt(seconds int, spec *builders.RolloutBuilder, members []fleet.Member) rollout.Input {
	return rollout.Input{Spec: spec.Obj(), Target: r2, Pods: fleet.Judge(members, viewAt(seconds, r2)), Now: builders.At(seconds)}
}

func names(plan rollout.Plan) []string {
	var names []string
	for _, u := range plan.Upgrades {
		names = append(names, u.Pod.Pod.Name)
	}
	return names
}

func TestRevisionForNewPods(t *testing.T) {
	for _, tc := range []struct {
		name                   string
		stable, target, failed string
		paused                 bool
		want                   string
	}{
		{"nothing accepted yet", "", "", "", false, ""},
		{"the first", "", "r1", "", false, "r1"},
		{"the first, paused: there is nothing older", "", "r1", "", true, "r1"},
		{"the first, failed: there is nothing older", "", "r1", "r1", false, "r1"},
		{"complete", "r1", "r1", "", false, "r1"},
		{"rolling out, before the first step", "r1", "r2", "", false, "r1"},
		{"paused", "r1", "r2", "", true, "r1"},
		{"failed", "r1", "r2", "r2", false, "r1"},
		{"paused and failed", "r1", "r2", "r2", true, "r1"},
		{"the stable one fails", "r1", "r1", "r1", false, "r1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := &v1alpha1.SidecarPolicy{}
			p.Spec.Rollout.Paused = tc.paused
			p.Status.StableRevision, p.Status.TargetRevision, p.Status.FailedRevision = tc.stable, tc.target, tc.failed
			if got := rollout.RevisionFor(p, rollout.Place{}); got != tc.want {
				t.Errorf("RevisionFor() = %q, want %q", got, tc.want)
			}
		})
	}
}

func TestMaxUnavailableRoundsDownButNeverToNothing(t *testing.T) {
	for _, tc := range []struct {
		per    v1alpha1.BudgetScope
		budget string
		total  int
		want   int
	}{
		{v1alpha1.PerFleet, "", 5, 1}, {v1alpha1.PerFleet, "", 19, 1}, {v1alpha1.PerFleet, "", 20, 2},
		{v1alpha1.PerWorkload, "", 3, 1}, {v1alpha1.PerWorkload, "", 7, 1}, {v1alpha1.PerWorkload, "", 8, 2},
		{v1alpha1.PerFleet, "1%", 10000, 100}, {v1alpha1.PerFleet, "1%", 5, 1}, {v1alpha1.PerFleet, "100%", 7, 7},
		{v1alpha1.PerFleet, "99%", 100, 99}, {v1alpha1.PerWorkload, "50%", 1, 1}, {v1alpha1.PerFleet, "3", 2, 3},
		{v1alpha1.PerFleet, "10%", 0, 1}, {v1alpha1.PerFleet, "ten", 100, 0}, {v1alpha1.PerFleet, "5.5%", 100, 0},
	} {
		spec := &v1alpha1.RolloutSpec{}
		if tc.budget != "" {
			spec = builders.Rollout().Budget(tc.per, tc.budget).Obj()
		}
		if got := spec.MaxUnavailable(tc.per, tc.total); got != tc.want {
			t.Errorf("%s %q of %d = %d, want %d", tc.per, tc.budget, tc.total, got, tc.want)
		}
	}
}

func TestPromise3BudgetsHoldTogether(t *testing.T) {
	twoWorkloads := slices.Concat(deployment("cart", 8), deployment("till", 8))
	down := func(i int) fleet.Member { return in("cart", pod("cart", i).NotReady(builders.At(50))) }
	inFlight := func(i int) fleet.Member { return in("cart", pod("cart", i).Upgraded(policy, r2, builders.At(99))) }
	// serving was upgraded to what is not the target any more, and is ready, but not for long enough.
	serving := func(i int) fleet.Member {
		return in("cart", pod("cart", i).Upgraded(policy, r3, builders.At(90)).Restarted("agent", builders.At(95)))
	}
	for _, tc := range []struct {
		name    string
		spec    *builders.RolloutBuilder
		members []fleet.Member
		pdbs    []*builders.PDBBuilder
		want    []string
		blocked string
	}{
		{name: "nothing bounds", spec: builders.Rollout(), members: deployment("cart", 3), want: []string{"cart-00", "cart-01", "cart-02"}},
		{name: "defaults: 10% of the fleet", spec: builders.Rollout().With(func(s *v1alpha1.RolloutSpec) { s.Budgets = nil }),
			members: twoWorkloads, want: []string{"cart-00"}, blocked: "1 of 16 pods of the fleet are unavailable, the budget allows 1"},
		{name: "per fleet", spec: builders.Rollout().Budget(v1alpha1.PerFleet, "3"), members: twoWorkloads,
			want: []string{"cart-00", "cart-01", "cart-02"}, blocked: "the budget allows 3"},
		{name: "per workload", spec: builders.Rollout().Budget(v1alpha1.PerWorkload, "25%"), members: twoWorkloads,
			want: []string{"cart-00", "cart-01", "till-00", "till-01"}, blocked: "pods of Deployment/shop/cart are unavailable, the budget allows 2"},
		{name: "both", spec: builders.Rollout().Budget(v1alpha1.PerWorkload, "2").Budget(v1alpha1.PerFleet, "3"), members: twoWorkloads,
			want: []string{"cart-00", "cart-01", "till-00"}, blocked: "Deployment/shop/cart"},
		{name: "a PDB holds up its own pods alone", spec: builders.Rollout().Budget(v1alpha1.PerWorkload, "2"), members: twoWorkloads,
			pdbs: []*builders.PDBBuilder{builders.PDB("shop", "cart", 7, 1)}, want: []string{"cart-00", "till-00", "till-01"},
			blocked: "PodDisruptionBudget shop/cart allows no disruption now"},
		{name: "what a PDB refuses is not taken from the other budgets", spec: builders.Rollout().Budget(v1alpha1.PerFleet, "2"), members: twoWorkloads,
			pdbs: []*builders.PDBBuilder{builders.PDB("shop", "cart", 8, 0)}, want: []string{"till-00", "till-01"}, blocked: "PodDisruptionBudget"},
		{name: "pods that are down for other reasons count", spec: builders.Rollout().Budget(v1alpha1.PerFleet, "3"),
			members: []fleet.Member{member("cart", 0), member("cart", 1), down(2), down(3)},
			want:    []string{"cart-02", "cart-03", "cart-00"}, blocked: "the fleet"},
		{name: "no more of those that are down than the budget either", spec: builders.Rollout().Budget(v1alpha1.PerFleet, "2"),
			members: []fleet.Member{down(0), down(1), down(2), down(3), member("cart", 4)},
			want:    []string{"cart-00", "cart-01"}, blocked: "2 pods of the fleet are being upgraded, the budget allows 2"},
		{name: "upgrades under way count", spec: builders.Rollout().Budget(v1alpha1.PerFleet, "2"),
			members: []fleet.Member{inFlight(0), member("cart", 1), member("cart", 2)}, want: []string{"cart-01"}, blocked: "the fleet"},
		{name: "upgrades under way count for those that are down", spec: builders.Rollout().Budget(v1alpha1.PerFleet, "2"),
			members: []fleet.Member{inFlight(0), inFlight(1), down(2)}, blocked: "2 pods of the fleet are being upgraded"},
		{name: "a PDB is not asked for a pod that is down", spec: builders.Rollout(), members: []fleet.Member{down(0), member("cart", 1)},
			pdbs: []*builders.PDBBuilder{builders.PDB("shop", "cart", 1, 0)}, want: []string{"cart-00"}, blocked: "PodDisruptionBudget"},
		{name: "an upgrade may be taken over", spec: builders.Rollout().Budget(v1alpha1.PerFleet, "1"),
			members: []fleet.Member{serving(0), member("cart", 1)}, want: []string{"cart-00"}, blocked: "the fleet"},
		{name: "not of a pod that serves, while too many others are down", spec: builders.Rollout().Budget(v1alpha1.PerFleet, "1"),
			members: []fleet.Member{serving(0), in("cart", builders.Pod("shop", "cart-01").NotReady(builders.At(50)))}, blocked: "2 of 2 pods of the fleet are unavailable"},
		{name: "an upgrade that is taken over is not reserved twice", spec: builders.Rollout(), members: []fleet.Member{serving(0), member("cart", 1)},
			pdbs: []*builders.PDBBuilder{builders.PDB("shop", "cart", 1, 1)}, want: []string{"cart-00"}, blocked: "PodDisruptionBudget"},
		{name: "not of a pod that a PDB needs by now", spec: builders.Rollout(), members: []fleet.Member{serving(0), down(1)},
			pdbs: []*builders.PDBBuilder{builders.PDB("shop", "cart", 1, 0)}, want: []string{"cart-01"}, blocked: "PodDisruptionBudget"},
		{name: "every PDB over a pod is asked", spec: builders.Rollout(), members: deployment("cart", 3),
			pdbs: []*builders.PDBBuilder{builders.PDB("shop", "cart", 0, 3), builders.PDB("shop", "cart", 2, 1)}, want: []string{"cart-00"},
			blocked: "PodDisruptionBudget"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			input := inputAt(100, tc.spec, tc.members)
			for _, pdb := range tc.pdbs {
				input.Disruptions = append(input.Disruptions, fleet.Allowance(pdb.Obj(), podsOf(tc.members), viewAt(100, r2)))
			}
			plan := rollout.Make(input)
			if diff := cmp.Diff(tc.want, names(plan)); diff != "" {
				t.Errorf("upgrades (-want +got):\n%s", diff)
			}
			if tc.blocked == "" && plan.Summary.Blocked != "" || !strings.Contains(plan.Summary.Blocked, tc.blocked) {
				t.Errorf("blocked %q, want %q", plan.Summary.Blocked, tc.blocked)
			}
		})
	}
}

func podsOf(members []fleet.Member) []*corev1.Pod {
	var pods []*corev1.Pod
	for _, m := range members {
		pods = append(pods, m.Pod)
	}
	return pods
}

// The kubelet of a node that was away restarts the sidecar when it is back: until then the pod serves.
func TestReadyPodWhoseUpgradeFailedIsStillCoveredByItsPDB(t *testing.T) {
	members := []fleet.Member{member("cart", 1), in("cart", pod("cart", 0).Upgraded(policy, r3, builders.At(0)))}
	input := inputAt(100, builders.Rollout(), members)
	if got := input.Pods[0].Verdict.State; got != fleet.Failed {
		t.Fatalf("the verdict is %s, want %s", got, fleet.Failed)
	}
	input.Disruptions = []fleet.Disruption{fleet.Allowance(builders.PDB("shop", "cart", 2, 0).Obj(), podsOf(members), viewAt(100, r2))}
	if got := names(rollout.Make(input)); len(got) > 0 {
		t.Errorf("upgrades %v, though the PodDisruptionBudget allows none", got)
	}
}

func TestPromise7OneRefusingPodHoldsUpNoOther(t *testing.T) {
	members := deployment("cart", 3)
	members[0].Refusal = &fleet.Refusal{Message: "exceeded quota", Until: builders.At(110)}
	spec := builders.Rollout().Budget(v1alpha1.PerFleet, "1")
	plan := rollout.Make(inputAt(100, spec, members))
	if diff := cmp.Diff([]string{"cart-01"}, names(plan)); diff != "" {
		t.Errorf("before its time (-want +got):\n%s", diff)
	}
	if plan.Summary.Refused != 1 || plan.Summary.Unhealthy[0].Reason != v1alpha1.ReasonUpdateRefused {
		t.Errorf("the refusal is not reported: %+v", plan.Summary)
	}
	if diff := cmp.Diff([]string{"cart-01"}, names(rollout.Make(inputAt(110, spec, members)))); diff != "" {
		t.Errorf("at its time, after the others (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"cart-00"}, names(rollout.Make(inputAt(110, spec, members[:1])))); diff != "" {
		t.Errorf("when it is the last (-want +got):\n%s", diff)
	}
}

func TestHolds(t *testing.T) {
	failed := in("cart", pod("cart", 9).Upgraded(policy, r2, builders.At(0)).NotReady(builders.At(1)))
	failedBefore := in("cart", pod("cart", 9).Upgraded(policy, r3, builders.At(0)).NotReady(builders.At(1)))
	busy := in("cart", pod("cart", 9).Injected("mesh", builders.Template("proxy", "proxy:1").Revision(1)).
		Upgraded("mesh", builders.Template("proxy", "proxy:2").Revision(2), builders.At(99)))
	stale := in("cart", builders.Pod("shop", "cart-09").Injected(policy, agent.Clone().Env("A", "b").Revision(4)))
	paused := func(s *v1alpha1.RolloutSpec) { s.Paused = true }
	onDelete := func(s *v1alpha1.RolloutSpec) { s.Method = v1alpha1.MethodOnDelete }
	for _, tc := range []struct {
		name    string
		change  func(*v1alpha1.RolloutSpec)
		members []fleet.Member
		want    []string
		hold    v1alpha1.Reason
	}{
		{"nothing to do", nil, []fleet.Member{in("cart", pod("cart", 0).Upgraded(policy, r2, builders.At(0)).Restarted("agent", builders.At(1)))}, nil, ""},
		{"no pods", nil, nil, nil, ""},
		{"paused", paused, deployment("cart", 2), nil, v1alpha1.ReasonPaused},
		{"OnDelete", onDelete, deployment("cart", 2), nil, v1alpha1.ReasonOnDelete},
		{"a pod failed", nil, append(deployment("cart", 2), failed), nil, v1alpha1.ReasonUpgradeFailed},
		{"a pod failed on another revision: the way back", nil, append(deployment("cart", 1), failedBefore), []string{"cart-09", "cart-00"}, ""},
		{"another policy's upgrade", nil, append(deployment("cart", 1), busy), []string{"cart-00"}, ""},
		{"not injected", nil, append(deployment("cart", 1), in("cart", builders.Pod("shop", "cart-09"))), []string{"cart-00"}, ""},
		{"stale pods get the image all the same", nil, []fleet.Member{stale}, []string{"cart-09"}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			spec := builders.Rollout()
			if tc.change != nil {
				spec.With(tc.change)
			}
			plan := rollout.Make(inputAt(100, spec, tc.members))
			if diff := cmp.Diff(tc.want, names(plan)); diff != "" {
				t.Errorf("upgrades (-want +got):\n%s", diff)
			}
			if plan.Summary.Hold != tc.hold {
				t.Errorf("hold %q, want %q", plan.Summary.Hold, tc.hold)
			}
			if plan.Summary.Starting != len(tc.want) {
				t.Errorf("starting %d, want %d", plan.Summary.Starting, len(tc.want))
			}
		})
	}
}

// upgradeOf plans the upgrade of a single pod to a target.
func upgradeOf(t *testing.T, pod *builders.PodBuilder, target *revision.Revision, seconds int, others ...*revision.Revision) rollout.Upgrade {
	t.Helper()
	view := viewAt(seconds, target)
	for _, r := range append(others, target) {
		view.Revisions = append(view.Revisions, *r)
	}
	plan := rollout.Make(rollout.Input{Spec: builders.Rollout().Obj(), Target: target, Now: view.Now,
		Pods: fleet.Judge([]fleet.Member{in("cart", pod)}, view)})
	if len(plan.Upgrades) != 1 {
		t.Fatalf("%d upgrades, want 1: %+v", len(plan.Upgrades), plan.Summary)
	}
	return plan.Upgrades[0]
}

func TestPromise1PatchTouchesImagesAndOurMetadataAlone(t *testing.T) {
	both := builders.Template("agent", "agent:1").Classic("proxy", "proxy:1")
	next := both.Clone().With(func(t *v1alpha1.SidecarTemplate) { t.Sidecars[0].Image, t.Sidecars[1].Image = "agent:2", "proxy:2" }).Revision(2)
	carrying := builders.Pod("shop", "cart-0").InitContainer(corev1.Container{Name: "setup"}).Injected(policy, both.Revision(1))
	stale := builders.Pod("shop", "cart-0").InitContainer(corev1.Container{Name: "setup"}).Injected(policy, both.Clone().Env("A", "b").Revision(1))
	label, annotation := "/metadata/labels/revision.fleet.sidecar.dev~1logs", "/metadata/annotations/upgrade.fleet.sidecar.dev~1logs"
	images := []string{
		"test /spec/initContainers/0/name agent", "replace /spec/initContainers/0/image agent:2",
		"test /spec/containers/1/name proxy", "replace /spec/containers/1/image proxy:2",
	}
	record := func(revision string) string {
		return "add " + annotation + ` {"revision":"` + revision + `","at":"2026-01-05T08:01:40Z",` +
			`"before":{"agent":"containerd://shop/cart-0/agent-1","proxy":"containerd://shop/cart-0/proxy-1"},` +
			`"ran":{"agent":"agent:1","proxy":"proxy:1"},"wasReady":true}`
	}
	for _, tc := range []struct {
		name string
		pod  *builders.PodBuilder
		want []string
	}{
		{"both kinds of sidecars", carrying, slices.Concat([]string{"replace /metadata/resourceVersion 1"}, images,
			[]string{"add " + label + " " + next.Hash, record(next.Hash)})},
		{"a stale pod keeps its label", stale.With(func(p *corev1.Pod) { p.ResourceVersion = "7" }), slices.Concat(
			[]string{"replace /metadata/resourceVersion 7"}, images, []string{record(next.Hash)})},
	} {
		t.Run(tc.name, func(t *testing.T) {
			upgrade := upgradeOf(t, tc.pod, next, 100, both.Revision(1))
			var got []string
			for _, op := range upgrade.Patch(policy, builders.At(100)) {
				got = append(got, fmt.Sprintf("%s %s %s", op.Operation, op.Path, op.Value))
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("Patch() (-want +got):\n%s", diff)
			}
		})
	}
}

// recordOf is the record that an upgrade writes.
func recordOf(t *testing.T, upgrade rollout.Upgrade, seconds int) v1alpha1.UpgradeRecord {
	t.Helper()
	ops := upgrade.Patch(policy, builders.At(seconds))
	value, _ := ops[len(ops)-1].Value.(string)
	record, err := v1alpha1.ParseUpgradeRecord(map[string]string{v1alpha1.UpgradeAnnotation(policy): value}, policy)
	if err != nil || record == nil {
		t.Fatalf("the last operation %v is no record: %v", ops[len(ops)-1], err)
	}
	return *record
}

func TestTakeoverInheritsTheDutiesOfAnUnsettledUpgrade(t *testing.T) {
	const id = "containerd://shop/cart-00/agent-1"
	proxyID := "containerd://shop/cart-00/proxy-1"
	ran1 := map[string]string{"agent": "agent:1"}
	two := builders.Template("agent", "agent:1").Sidecar("proxy", "proxy:1")
	agent2 := two.Clone().Image("agent:2")
	agent2proxy2 := agent2.Clone().With(func(t *v1alpha1.SidecarTemplate) { t.Sidecars[1].Image = "proxy:2" })
	withTwo := builders.Pod("shop", "cart-00").Injected(policy, two.Revision(1)).Upgraded(policy, agent2.Revision(2), builders.At(90))
	for _, tc := range []struct {
		name string
		pod  *builders.PodBuilder
		to   *revision.Revision
		want v1alpha1.UpgradeRecord
	}{
		{"was ready", pod("cart", 0), r2, v1alpha1.UpgradeRecord{Before: map[string]string{"agent": id}, Ran: ran1, WasReady: true}},
		{"was not ready", pod("cart", 0).NotReady(builders.At(50)), r2, v1alpha1.UpgradeRecord{Before: map[string]string{"agent": id}, Ran: ran1}},
		{"an upgrade took readiness", pod("cart", 0).Upgraded(policy, r3, builders.At(90)).NotReady(builders.At(91)), r2,
			v1alpha1.UpgradeRecord{Before: map[string]string{"agent": id}, Ran: ran1, WasReady: true}},
		{"a failed upgrade took readiness", pod("cart", 0).Upgraded(policy, r3, builders.At(0)).NotReady(builders.At(1)), r2,
			v1alpha1.UpgradeRecord{Before: map[string]string{"agent": id}, Ran: ran1, WasReady: true}},
		{"it settled, and readiness was lost later",
			pod("cart", 0).Upgraded(policy, r3, builders.At(0)).Restarted("agent", builders.At(2)).NotReady(builders.At(90)), r2,
			v1alpha1.UpgradeRecord{Before: map[string]string{"agent": id + "'"}, Ran: map[string]string{"agent": "agent:3"}}},
		{"nothing ran", pod("cart", 0).Status("agent", func(s *corev1.ContainerStatus) { s.ContainerID = "" }), r2,
			v1alpha1.UpgradeRecord{Before: map[string]string{"agent": ""}, Ran: ran1, WasReady: true}},
		{"a container of the upgrade before is still judged", withTwo, agent2proxy2.Revision(3),
			v1alpha1.UpgradeRecord{Before: map[string]string{"agent": id, "proxy": proxyID}, Ran: map[string]string{"agent": "agent:1", "proxy": "proxy:1"}, WasReady: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := recordOf(t, upgradeOf(t, tc.pod, tc.to, 100), 100)
			tc.want.Revision, tc.want.At = tc.to.Hash, got.At
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("record (-want +got):\n%s", diff)
			}
			if !got.At.Time.Equal(builders.At(100)) {
				t.Errorf("at %s, want %s", got.At, builders.At(100))
			}
		})
	}
}

// Somewhere in a large fleet a sidecar always crashes, and an app does: no version could reach the others if that were held
// against it.
func TestWhatWasBrokenBeforeIsNoProofAgainstAVersion(t *testing.T) {
	crashes := func(s *corev1.ContainerStatus) {
		s.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
	}
	broken := in("cart", pod("cart", 0).Status("agent", crashes))
	spec := builders.Rollout().Steps(builders.Step("one", "1", 0), builders.Step("fleet", "100%", 0))
	if got := names(rollout.Make(rolling(spec, nil, []fleet.Member{broken, member("cart", 1)}))); len(got) != 1 || got[0] != "cart-01" {
		t.Errorf("the first step is made on %v, want cart-01", got)
	}
	last := rollout.Make(rolling(spec, at(1, "fleet", -1), []fleet.Member{broken, upgraded("cart", 1)}))
	if len(last.Upgrades) != 1 {
		t.Fatalf("%d upgrades in the last step, want 1", len(last.Upgrades))
	}
	record := recordOf(t, last.Upgrades[0], 50)
	if !record.WasFailing {
		t.Fatalf("the record %+v does not say that the sidecar failed before", record)
	}
	still := in("cart", pod("cart", 0).Upgraded(policy, r2, builders.At(50)).Status("agent", crashes).
		With(func(p *corev1.Pod) { p.Status.ObservedGeneration = p.Generation }).Annotation(v1alpha1.UpgradeAnnotation(policy), record.Encode()))
	other := in("cart", pod("cart", 2).Upgraded(policy, r2, builders.At(0)).NotReady(builders.At(1)))
	for name, tc := range map[string]struct {
		members []fleet.Member
		failed  string
	}{
		"the others are healthy":         {[]fleet.Member{still, upgraded("cart", 1)}, ""},
		"there are no others":            {[]fleet.Member{still, member("cart", 1)}, r2.Hash},
		"another one fails since then":   {[]fleet.Member{still, upgraded("cart", 1), other}, r2.Hash},
		"it is not on the target at all": {[]fleet.Member{broken, upgraded("cart", 1)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := rollout.Make(rolling(spec, at(1, "fleet", -1), tc.members)).Summary; got.FailedRevision != tc.failed {
				t.Errorf("the failed revision is %q (%s), want %q", got.FailedRevision, got.FailureMessage, tc.failed)
			}
		})
	}
	if onward := recordOf(t, upgradeOf(t, pod("cart", 0).Upgraded(policy, r2, builders.At(50)).Status("agent", crashes).
		With(func(p *corev1.Pod) { p.Status.ObservedGeneration = p.Generation }).Annotation(v1alpha1.UpgradeAnnotation(policy), record.Encode()), r3, 100), 100); !onward.WasFailing {
		t.Errorf("the next upgrade forgets it: %+v", onward)
	}
}

// What a bad version did to an app is not mistaken for what the app did before.
func TestRecordSaysWhichAppsCrashedBefore(t *testing.T) {
	crash := func(s *corev1.ContainerStatus) {
		s.RestartCount = 7
		s.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{StartedAt: metav1.NewTime(builders.At(80)), FinishedAt: metav1.NewTime(builders.At(85))}
	}
	if got := recordOf(t, upgradeOf(t, pod("cart", 0).Status("app", crash), r2, 100), 100); got.WasReady || len(got.Crashing) != 1 || got.Crashing[0] != "app" {
		t.Errorf("the record of an app that crashes %+v", got)
	}
	byUs := pod("cart", 0).Upgraded(policy, r3, builders.At(20)).NotReady(builders.At(21)).Status("app", crash)
	if got := recordOf(t, upgradeOf(t, byUs, r2, 100), 100); !got.WasReady || len(got.Crashing) != 0 {
		t.Errorf("the record after an upgrade that failed %+v", got)
	}
}

// A version that gets healthy between two crashes must not walk on in that moment.
func TestAFailureIsRememberedUntilTheTemplateChangesOrARetryIsAskedFor(t *testing.T) {
	in := inputAt(100, builders.Rollout(), deployment("cart", 2))
	in.Failed = r2.Hash
	plan := rollout.Make(in)
	if len(plan.Upgrades) > 0 || plan.Summary.Hold != v1alpha1.ReasonUpgradeFailed || plan.Summary.FailedRevision != r2.Hash {
		t.Errorf("a revision that has failed goes on: %+v", plan)
	}
	in.Failed = r3.Hash
	if plan := rollout.Make(in); len(plan.Upgrades) == 0 {
		t.Errorf("the failure of another revision holds this one: %+v", plan.Summary)
	}
}

// Otherwise a sidecar that is down would count as updated, because its pod got another label.
func TestRelabelDoesNotSettleAnUpgrade(t *testing.T) {
	born := builders.Template("agent", "agent:1")
	withEnv := born.Clone().Image("agent:2").Env("A", "b").Revision(2) // the pod stays stale, and keeps its label
	without := born.Clone().Image("agent:2").Revision(3)
	pod := builders.Pod("shop", "cart-00").Injected(policy, born.Revision(1)).
		Upgraded(policy, withEnv, builders.At(90)).Label(v1alpha1.RevisionLabel(policy), born.Revision(1).Hash)
	upgrade := upgradeOf(t, pod, without, 100)
	if len(upgrade.Pod.Images) > 0 || !upgrade.Pod.Relabel {
		t.Fatalf("want a change of the label alone, got %+v", upgrade.Pod)
	}
	got := recordOf(t, upgrade, 100)
	if !got.At.Time.Equal(builders.At(90)) || got.Before["agent"] != "containerd://shop/cart-00/agent-1" || !got.WasReady {
		t.Errorf("the record %+v forgets the upgrade before", got)
	}
	relabelled := pod.Annotation(v1alpha1.UpgradeAnnotation(policy), got.Encode()).Label(v1alpha1.RevisionLabel(policy), without.Hash)
	view := viewAt(151, without)
	view.Revisions = []revision.Revision{*born.Revision(1), *withEnv, *without}
	if state := fleet.Judge([]fleet.Member{in("cart", relabelled)}, view)[0].Verdict.State; state != fleet.Failed {
		t.Errorf("the verdict after the deadline is %s, want %s", state, fleet.Failed)
	}
}

func TestPromise6CountsSayWhatThePodsAre(t *testing.T) {
	members := []fleet.Member{
		in("cart", pod("cart", 0).Upgraded(policy, r2, builders.At(0)).Restarted("agent", builders.At(1))), // updated
		in("cart", pod("cart", 1).Upgraded(policy, r2, builders.At(90))),                                   // updating
		in("cart", pod("cart", 2).Upgraded(policy, r2, builders.At(0)).NotReady(builders.At(1))),           // failed
		in("cart", pod("cart", 3)),                           // outdated
		in("cart", pod("cart", 4).NotReady(builders.At(50))), // outdated and down
		in("cart", pod("cart", 5).With(func(p *corev1.Pod) { builders.SpecOf(p, "agent").Image = "evil" })),                            // drifted
		in("cart", builders.Pod("shop", "cart-06")),                                                                                    // missing
		in("cart", builders.Pod("shop", "cart-07").Container(corev1.Container{Name: "agent"})),                                         // conflicting
		in("cart", builders.Pod("shop", "cart-08").Injected(policy, agent.Clone().Image("agent:2").Env("A", "b").Revision(4))),         // stale
		in("cart", builders.Pod("shop", "cart-09").NotReady(builders.At(50)).Container(corev1.Container{Name: "agent", Image: "own"})), // conflicting and down
	}
	got := rollout.Make(inputAt(100, builders.Rollout(), members)).Summary
	want := v1alpha1.PodCounts{Selected: 10, Injected: 7, Updated: 1, Ready: 4, Unavailable: 4, Failed: 1, Missing: 3,
		Drifted: 1, Stale: 1, Conflicting: 2}
	if diff := cmp.Diff(want, got.Counts); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	if got.Updating != 1 || got.Outdated != 3 || got.Finished() {
		t.Errorf("updating %d, outdated %d, finished %t; want 1, 3, false", got.Updating, got.Outdated, got.Finished())
	}
}

func TestWithinBudget(t *testing.T) {
	members := append(deployment("cart", 8), in("cart", pod("cart", 8).NotReady(builders.At(1))), in("cart", pod("cart", 9).NotReady(builders.At(1))))
	for budget, want := range map[string]bool{"1": false, "2": true, "10%": false, "20%": true} {
		got := rollout.Make(inputAt(100, builders.Rollout().Budget(v1alpha1.PerFleet, budget), members)).Summary.WithinBudget
		if got != want {
			t.Errorf("2 of 10 down, budget %s: %t, want %t", budget, got, want)
		}
	}
}

func TestUnhealthyNamesTheWorstFirst(t *testing.T) {
	var members []fleet.Member
	for i := range 15 {
		name := fmt.Sprintf("app%02d", i)
		members = append(members, in(name, builders.Pod("shop", name).Container(corev1.Container{Name: "agent"})))
	}
	members = append(members,
		in("many", builders.Pod("shop", "many-0").Container(corev1.Container{Name: "agent"})),
		in("many", builders.Pod("shop", "many-1").Container(corev1.Container{Name: "agent"})),
		in("stale", builders.Pod("shop", "stale-0").Injected(policy, agent.Clone().Env("A", "b").Revision(4))),
		in("down", pod("down", 0).Upgraded(policy, r2, builders.At(0)).NotReady(builders.At(1))))
	refused := member("refused", 0)
	refused.Refusal = &fleet.Refusal{Message: strings.Repeat("é", 1024), Until: builders.At(200)}
	got := rollout.Make(inputAt(100, builders.Rollout(), append(members, refused))).Summary.Unhealthy
	if len(got) != 10 {
		t.Fatalf("%d entries, want 10", len(got))
	}
	var order []string
	for _, entry := range got {
		order = append(order, fmt.Sprintf("%s %s %d", entry.Workload, entry.Reason, entry.Pods))
		if len(entry.Message) > 1024 || !utf8.ValidString(entry.Message) {
			t.Errorf("%s: a message of %d bytes, valid UTF-8: %t", entry.Workload, len(entry.Message), utf8.ValidString(entry.Message))
		}
	}
	want := []string{"Deployment/shop/down DeadlineExceeded 1", "Deployment/shop/refused UpdateRefused 1",
		"Deployment/shop/many ContainerNameConflict 2"}
	for i := range 7 {
		want = append(want, fmt.Sprintf("Deployment/shop/app%02d ContainerNameConflict 1", i))
	}
	if diff := cmp.Diff(want, order); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestRequeue(t *testing.T) {
	refusing := func(until int) []fleet.Member {
		members := deployment("cart", 1)
		members[0].Refusal = &fleet.Refusal{Until: builders.At(until)}
		return members
	}
	inFlight := in("cart", pod("cart", 9).Upgraded(policy, r2, builders.At(90)))
	settling := in("cart", pod("cart", 8).Upgraded(policy, r2, builders.At(90)).Restarted("agent", builders.At(95)))
	done := in("cart", pod("cart", 7).Upgraded(policy, r2, builders.At(0)).Restarted("agent", builders.At(5)))
	busy := in("cart", pod("cart", 6).Injected("mesh", builders.Template("proxy", "proxy:1").Revision(1)).
		Upgraded("mesh", builders.Template("proxy", "proxy:2").Revision(2), builders.At(90)).Restarted("proxy", builders.At(97)))
	paused := builders.Rollout().With(func(s *v1alpha1.RolloutSpec) { s.Paused = true })
	for _, tc := range []struct {
		name    string
		spec    *builders.RolloutBuilder
		members []fleet.Member
		want    time.Duration
	}{
		{"nothing to wait for", builders.Rollout(), []fleet.Member{done}, 0},
		{"paused: only a change of the spec matters", paused, deployment("cart", 2), 0},
		{"the deadline", builders.Rollout(), []fleet.Member{inFlight}, 50 * time.Second},
		{"the end of the minimum time, which is sooner", builders.Rollout(), []fleet.Member{inFlight, settling}, 5 * time.Second},
		{"watched while paused", paused, append(deployment("cart", 2), settling), 5 * time.Second},
		{"what the API server answers", builders.Rollout(), deployment("cart", 1), time.Second},
		{"a refusal's time", builders.Rollout(), refusing(130), 30 * time.Second},
		{"a refusal whose time has come is no reason to spin", paused, refusing(90), 0},
		{"another policy's upgrade that time alone settles", builders.Rollout(), []fleet.Member{busy}, 7 * time.Second},
		{"a budget that is used up", builders.Rollout().Budget(v1alpha1.PerFleet, "1"),
			append(deployment("cart", 1), in("cart", builders.Pod("shop", "cart-09").NotReady(builders.At(1)))), time.Minute},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := rollout.Make(inputAt(100, tc.spec, tc.members)).Requeue; got != tc.want {
				t.Errorf("Requeue = %s, want %s", got, tc.want)
			}
		})
	}
}

func TestOnePassIsBounded(t *testing.T) {
	var members []fleet.Member
	base := pod("cart", 0)
	for i := range 501 {
		members = append(members, in("cart", base.Clone().With(func(p *corev1.Pod) { p.Name = fmt.Sprintf("cart-%03d", i) })))
	}
	plan := rollout.Make(inputAt(100, builders.Rollout(), members))
	if len(plan.Upgrades) != 500 || plan.Requeue > time.Second {
		t.Errorf("%d upgrades, requeue %s; want 500, at once", len(plan.Upgrades), plan.Requeue)
	}
}

// A budget that can't be read must not be read as no budget.
func TestUnreadableBudgetAllowsNothing(t *testing.T) {
	spec := builders.Rollout().With(func(s *v1alpha1.RolloutSpec) {
		s.Budgets[0].MaxUnavailable = &intstr.IntOrString{Type: intstr.String, StrVal: "many"}
	})
	if got := names(rollout.Make(inputAt(100, spec, deployment("cart", 3)))); len(got) > 0 {
		t.Errorf("upgrades %v, want none", got)
	}
}
