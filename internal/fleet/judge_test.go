package fleet_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

const policy = "logs"

var (
	agent = builders.Template("agent", "agent:1")
	r1    = agent.Revision(1)
	r2    = agent.Clone().Image("agent:2").Revision(2)
)

// viewAt is the policy's view with minReadySeconds 10 and progressDeadlineSeconds 60.
func viewAt(seconds int, target *revision.Revision, others ...*revision.Revision) *fleet.View {
	view := &fleet.View{Policy: policy, Target: target, Now: builders.At(seconds),
		Health: map[string]*v1alpha1.HealthSpec{policy: builders.Health(10, 60)}}
	for _, r := range append(others, target) {
		view.Revisions = append(view.Revisions, *r)
	}
	return view
}

func judgeOne(pod *builders.PodBuilder, view *fleet.View) fleet.PodState {
	return fleet.Judge([]fleet.Member{{Pod: pod.Obj()}}, view)[0]
}

// upgraded is a pod that was patched at 100 s.
func upgraded() *builders.PodBuilder {
	return builders.Pod("shop", "cart-1").Injected(policy, r1).Upgraded(policy, r2, builders.At(100))
}

// restarted is a pod whose sidecar was restarted at 102 s.
func restarted() *builders.PodBuilder { return upgraded().Restarted("agent", builders.At(102)) }

func terminated(at int) func(*corev1.ContainerStatus) {
	return func(s *corev1.ContainerStatus) {
		s.Ready, s.Started = false, ptr.To(false)
		s.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{FinishedAt: metav1.NewTime(builders.At(at))}}
	}
}

func waiting(reason string) func(*corev1.ContainerStatus) {
	return func(s *corev1.ContainerStatus) {
		s.Ready, s.Started = false, ptr.To(false)
		s.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: "the kubelet's words"}}
	}
}

func TestPromise6UpdatedIsWhatThePodRunsNotWhatWasWritten(t *testing.T) {
	for _, tc := range []struct {
		name      string
		pod       *builders.PodBuilder
		now       int
		state     fleet.State
		reason    v1alpha1.Reason
		message   string
		recheck   int
		available bool
	}{
		{name: "never upgraded", pod: builders.Pod("shop", "cart-1").Injected(policy, r2), now: 100,
			state: fleet.Settled, available: true},
		{name: "patched, the kubelet has not seen it", pod: upgraded(), now: 101,
			state: fleet.Updating, message: "not seen the change", recheck: 160},
		{name: "seen, but the container is the old one",
			pod: upgraded().With(func(p *corev1.Pod) { p.Status.ObservedGeneration = 2 }), now: 115,
			state: fleet.Updating, message: "was not restarted", recheck: 160},
		{name: "never restarted within the deadline",
			pod: upgraded().With(func(p *corev1.Pod) { p.Status.ObservedGeneration = 2 }), now: 160,
			state: fleet.Failed, reason: v1alpha1.ReasonDeadlineExceeded, message: "for longer than 1m0s"},
		{name: "restarted, status of the generation before",
			pod: restarted().With(func(p *corev1.Pod) { p.Status.ObservedGeneration = 1 }), now: 120,
			state: fleet.Updating, message: "not seen the change", recheck: 160},
		{name: "a kubelet that does not report generations",
			pod: restarted().With(func(p *corev1.Pod) { p.Status.ObservedGeneration = 0 }), now: 120,
			state: fleet.Settled, available: true},
		{name: "running, not started", pod: restarted().Status("agent", func(s *corev1.ContainerStatus) { s.Started = ptr.To(false) }),
			now: 120, state: fleet.Updating, message: "is not ready", recheck: 160},
		{name: "started unknown", pod: restarted().Status("agent", func(s *corev1.ContainerStatus) { s.Started = nil }),
			now: 120, state: fleet.Updating, message: "is not ready", recheck: 160},
		{name: "started, not ready", pod: restarted().Status("agent", func(s *corev1.ContainerStatus) { s.Ready = false }),
			now: 120, state: fleet.Updating, message: "is not ready", recheck: 160},
		{name: "ready, the pod is not", pod: restarted().NotReady(builders.At(103)),
			now: 120, state: fleet.Updating, message: "the pod is not ready", recheck: 160},
		{name: "ready, the pod's condition is missing", pod: restarted().With(func(p *corev1.Pod) { p.Status.Conditions = nil }),
			now: 120, state: fleet.Updating, message: "the pod is not ready", recheck: 160},
		{name: "no status of the container", pod: restarted().With(func(p *corev1.Pod) { p.Status.InitContainerStatuses = nil }),
			now: 120, state: fleet.Updating, message: "has no status", recheck: 160},
		{name: "ready, a moment ago", pod: restarted(), now: 111,
			state: fleet.Updating, message: "long enough", recheck: 112},
		{name: "ready for long enough since the restart", pod: restarted(), now: 112, state: fleet.Settled, available: true},
		{name: "readiness came back later", pod: restarted().Ready(builders.At(120)), now: 129,
			state: fleet.Updating, message: "long enough", recheck: 130},
		{name: "readiness came back and held", pod: restarted().Ready(builders.At(120)), now: 130, state: fleet.Settled, available: true},
		{name: "not healthy by the deadline", pod: restarted().NotReady(builders.At(103)), now: 162,
			state: fleet.Failed, reason: v1alpha1.ReasonDeadlineExceeded},
		{name: "readiness lost long after the upgrade is not its failure", pod: restarted().NotReady(builders.At(500)), now: 600,
			state: fleet.Settled},
		{name: "readiness lost at the deadline is", pod: restarted().NotReady(builders.At(160)), now: 600,
			state: fleet.Failed, reason: v1alpha1.ReasonDeadlineExceeded},
		{name: "native sidecar down without a word, before the deadline", pod: upgraded().
			With(func(p *corev1.Pod) { p.Status.ObservedGeneration = 2 }).Status("agent", terminated(101)).NotReady(builders.At(101)), now: 130,
			state: fleet.Updating, message: "was not restarted", recheck: 160},
		{name: "native sidecar down without a word, after it", pod: upgraded().
			With(func(p *corev1.Pod) { p.Status.ObservedGeneration = 2 }).Status("agent", terminated(101)).NotReady(builders.At(101)), now: 160,
			state: fleet.Failed, reason: v1alpha1.ReasonDeadlineExceeded},
		{name: "restarted and down again, before the deadline", pod: restarted().Status("agent", terminated(105)).NotReady(builders.At(105)),
			now: 159, state: fleet.Updating, message: "exited with code", recheck: 160},
		{name: "restarted and down again, after it", pod: restarted().Status("agent", terminated(105)).NotReady(builders.At(105)),
			now: 160, state: fleet.Failed, reason: v1alpha1.ReasonDeadlineExceeded},
		{name: "went down after the deadline, and has the time anew", pod: restarted().Status("agent", terminated(500)).NotReady(builders.At(500)),
			now: 559, state: fleet.Updating, message: "exited with code", recheck: 560},
		{name: "starting is no failure", pod: restarted().Status("agent", waiting("PodInitializing")).NotReady(builders.At(102)),
			now: 120, state: fleet.Updating, message: "is not running", recheck: 160},
		{name: "the image can't be pulled", pod: restarted().Status("agent", waiting("ErrImagePull")).NotReady(builders.At(102)),
			now: 103, state: fleet.Failed, reason: v1alpha1.ReasonImagePull, message: "the kubelet's words"},
		{name: "what waits is of the generation before", pod: upgraded().Status("agent", waiting("ErrImagePull")).NotReady(builders.At(90)),
			now: 103, state: fleet.Updating, message: "not seen the change", recheck: 160},
		{name: "crash loop of a pod that was never upgraded",
			pod: builders.Pod("shop", "cart-1").Injected(policy, r2).Status("agent", waiting("CrashLoopBackOff")).NotReady(builders.At(50)),
			now: 103, state: fleet.Failed, reason: v1alpha1.ReasonCrashLoop},
		{name: "a new pod may take its time",
			pod: builders.Pod("shop", "cart-1").Injected(policy, r2).Status("agent", waiting("ContainerCreating")).NotReady(builders.At(0)),
			now: 9999, state: fleet.Settled},
		{name: "a pod that was down need not come up", pod: builders.Pod("shop", "cart-1").NotReady(builders.At(50)).Injected(policy, r1).
			Upgraded(policy, r2, builders.At(100)).Restarted("agent", builders.At(102)), now: 112,
			state: fleet.Settled},
		{name: "a new pod that has not started a sidecar", pod: builders.Pod("shop", "cart-1").Injected(policy, r2).
			Status("agent", func(s *corev1.ContainerStatus) { waiting("PodInitializing")(s); s.ContainerID = "" }).NotReady(builders.At(99)), now: 100,
			state: fleet.Starting},
		{name: "a new pod whose sidecar can't be pulled", pod: builders.Pod("shop", "cart-1").Injected(policy, r2).
			Status("agent", func(s *corev1.ContainerStatus) { waiting("ErrImagePull")(s); s.ContainerID = "" }).NotReady(builders.At(99)), now: 100,
			state: fleet.Failed, reason: v1alpha1.ReasonImagePull},
		{name: "right after an upgrade the kubelet may still mean the image before",
			pod: restarted().Status("agent", waiting("ErrImagePull")).NotReady(builders.At(102)),
			now: 102, state: fleet.Updating, message: "ErrImagePull", recheck: 103},
		{name: "a record that can't be read is none", pod: builders.Pod("shop", "cart-1").Injected(policy, r2).
			Annotation(v1alpha1.UpgradeAnnotation(policy), "{"), now: 100, state: fleet.Settled, available: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := judgeOne(tc.pod, viewAt(tc.now, r2, r1))
			v := got.Verdict
			if v.State != tc.state || v.Reason != tc.reason || !strings.Contains(v.Message, tc.message) {
				t.Errorf("verdict %s %s %q, want %s %s %q", v.State, v.Reason, v.Message, tc.state, tc.reason, tc.message)
			}
			var recheck time.Time
			if tc.recheck != 0 {
				recheck = builders.At(tc.recheck)
			}
			if !v.Recheck.Equal(recheck) {
				t.Errorf("recheck at %s, want %s", v.Recheck, recheck)
			}
			if got.Available != tc.available {
				t.Errorf("available %t, want %t", got.Available, tc.available)
			}
			if want := tc.state == fleet.Settled; got.Updated() != want {
				t.Errorf("Updated() = %t, want %t", got.Updated(), want)
			}
		})
	}
}

// Restarts within the deadline win no time: a sidecar that exits at once again and again has failed.
func TestRestartsDoNotMoveTheDeadline(t *testing.T) {
	pod := upgraded().Restarted("agent", builders.At(102)).Restarted("agent", builders.At(150)).Status("agent", terminated(155))
	if state := judgeOne(pod, viewAt(159, r2)).Verdict.State; state != fleet.Updating {
		t.Errorf("before the deadline: %s, want %s", state, fleet.Updating)
	}
	if state := judgeOne(pod, viewAt(161, r2)).Verdict.State; state != fleet.Failed {
		t.Errorf("after the deadline: %s, want %s", state, fleet.Failed)
	}
}

// An upgrade that is taken back before the kubelet acted leaves nothing to wait for.
func TestTakenBackBeforeTheKubeletActedNeedsNoRestart(t *testing.T) {
	back := upgraded().Upgraded(policy, r1, builders.At(101))
	record, err := v1alpha1.ParseUpgradeRecord(back.Obj().Annotations, policy)
	if err != nil {
		t.Fatal(err)
	}
	if state := judgeOne(upgraded(), viewAt(101, r1, r2)); state.Images[0].Running != "agent:1" {
		t.Errorf("runs %s while the kubelet has not acted, want agent:1", state.Images[0].Running)
	}
	record.Ran = map[string]string{"agent": "agent:1"}
	back.Annotation(v1alpha1.UpgradeAnnotation(policy), record.Encode())
	back.With(func(p *corev1.Pod) { p.Status.ObservedGeneration = p.Generation })
	if state := judgeOne(back, viewAt(200, r1, r2)).Verdict.State; state != fleet.Settled {
		t.Errorf("the verdict is %s, want %s", state, fleet.Settled)
	}
}

func TestEveryBadWaitingReasonHasAName(t *testing.T) {
	for reason, want := range map[string]v1alpha1.Reason{
		"ErrImagePull": v1alpha1.ReasonImagePull, "ImagePullBackOff": v1alpha1.ReasonImagePull,
		"InvalidImageName": v1alpha1.ReasonImagePull, "ErrImageNeverPull": v1alpha1.ReasonImagePull,
		"CrashLoopBackOff": v1alpha1.ReasonCrashLoop, "RunContainerError": v1alpha1.ReasonCannotStart,
		"CreateContainerConfigError": v1alpha1.ReasonCannotStart, "CreateContainerError": v1alpha1.ReasonCannotStart,
	} {
		got := judgeOne(restarted().Status("agent", waiting(reason)), viewAt(103, r2, r1)).Verdict
		if got.State != fleet.Failed || got.Reason != want {
			t.Errorf("%s: %s %s, want %s %s", reason, got.State, got.Reason, fleet.Failed, want)
		}
	}
}

// For about a second after a restart the kubelet shows the readiness of the container before.
func TestPromise6ReadinessThatLiesIsNotBelieved(t *testing.T) {
	for _, tc := range []struct {
		name     string
		template *builders.TemplateBuilder
		minReady int32
		want     int // seconds after the restart
	}{
		{"a probe needs 3 s, whatever the policy says", agent.Clone().Probe(), 0, 3},
		{"a readiness probe too", agent.Clone().First(func(s *v1alpha1.Sidecar) { s.ReadinessProbe = &corev1.Probe{} }), 1, 3},
		{"the policy may ask for more", agent.Clone().Probe(), 20, 20},
		{"without a probe there is nothing to lie about", agent.Clone(), 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			from, to := tc.template.Revision(1), tc.template.Clone().Image("agent:2").Revision(2)
			pod := builders.Pod("shop", "cart-1").Injected(policy, from).
				Upgraded(policy, to, builders.At(100)).Restarted("agent", builders.At(102))
			for after := 0; after <= tc.want+1; after++ {
				view := viewAt(102+after, to, from)
				view.Health[policy] = builders.Health(tc.minReady, 60)
				want := fleet.Updating
				if after >= tc.want {
					want = fleet.Settled
				}
				if got := judgeOne(pod, view); got.Verdict.State != want {
					t.Errorf("%d s after the restart: %s, want %s", after, got.Verdict.State, want)
				}
			}
		})
	}
}

func TestAnotherPolicysUpgradeMakesBusy(t *testing.T) {
	const other = "mesh"
	p1, p2 := builders.Template("proxy", "proxy:1").Revision(1), builders.Template("proxy", "proxy:2").Revision(2)
	pod := builders.Pod("shop", "cart-1").Injected(policy, r1).Injected(other, p1).Upgraded(other, p2, builders.At(100))
	for _, tc := range []struct {
		name      string
		pod       *builders.PodBuilder
		now       int
		busy      bool
		available bool
		recheck   time.Time
	}{
		{"just patched", pod, 101, true, false, builders.At(160)},
		{"restarted", pod.Clone().Restarted("proxy", builders.At(102)), 103, true, false, builders.At(132)},
		{"by the other policy's settings", pod.Clone().Restarted("proxy", builders.At(102)), 131, true, false, builders.At(132)},
		{"settled", pod.Clone().Restarted("proxy", builders.At(102)), 132, false, true, time.Time{}},
		{"failed", pod.Clone().NotReady(builders.At(103)), 160, false, false, time.Time{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			view := viewAt(tc.now, r2, r1)
			view.Health[other] = builders.Health(30, 60)
			got := judgeOne(tc.pod, view)
			if got.Busy != tc.busy || got.Available != tc.available || !got.Recheck.Equal(tc.recheck) {
				t.Errorf("busy %t, available %t, recheck %s; want %t, %t, %s", got.Busy, got.Available, got.Recheck, tc.busy, tc.available, tc.recheck)
			}
			if got.Verdict.State != fleet.Settled {
				t.Errorf("our own verdict is %s, want %s", got.Verdict.State, fleet.Settled)
			}
		})
	}
}

func TestJudgeComparesWithTheTarget(t *testing.T) {
	withEnv := agent.Clone().Image("agent:3").Env("LEVEL", "debug").Revision(3)
	sameImage := agent.Clone().Env("LEVEL", "debug").Revision(4)
	backAgain := agent.Clone().With(func(t *v1alpha1.SidecarTemplate) { t.Sidecars[0].Args = []string{} }).Revision(5)
	backAgain.Hash = "backagain"
	pod := builders.Pod("shop", "cart-1").Injected(policy, r1)
	byHand := func(image string) *builders.PodBuilder {
		return pod.Clone().With(func(p *corev1.Pod) { builders.SpecOf(p, "agent").Image = image })
	}
	type answer struct {
		Images                    []fleet.ImageChange
		Stale                     string
		Drifted, Relabel, Updated bool
	}
	change := func(image string) []fleet.ImageChange {
		return []fleet.ImageChange{{Container: "agent", Native: true, Image: image, Running: "agent:1", ContainerID: "containerd://shop/cart-1/agent-1"}}
	}
	evil := change("agent:1")
	evil[0].Running = "agent:evil"
	for _, tc := range []struct {
		name string
		pod  *builders.PodBuilder
		view *fleet.View
		want answer
	}{
		{"has it", pod, viewAt(100, r1), answer{Updated: true}},
		{"another image", pod, viewAt(100, r2, r1), answer{Images: change("agent:2")}},
		{"another image and stale", pod, viewAt(100, withEnv, r1), answer{Images: change("agent:3"), Stale: "sidecars[agent].env"}},
		{"stale alone", pod, viewAt(100, sameImage, r1), answer{Stale: "sidecars[agent].env"}},
		{"the same under another name", pod, viewAt(100, backAgain, r1), answer{Relabel: true}},
		{"born with a revision that is gone", pod, viewAt(100, r2),
			answer{Images: change("agent:2"), Stale: "revision " + r1.Hash + ", which the pod was created with, is gone"}},
		{"drifted", byHand("agent:evil"), viewAt(100, r1), answer{Images: evil, Drifted: true}},
		{"drifted to the target", byHand("agent:2"), viewAt(100, r2, r1), answer{Relabel: true, Drifted: true}},
		{"upgraded is not drifted", pod.Clone().Upgraded(policy, r2, builders.At(10)).Restarted("agent", builders.At(11)),
			viewAt(100, r2, r1), answer{Updated: true}},
		{"an upgraded pod that stays stale keeps its label and is not drifted",
			pod.Clone().Upgraded(policy, withEnv, builders.At(10)).Restarted("agent", builders.At(11)).
				Label(v1alpha1.RevisionLabel(policy), r1.Hash), viewAt(100, withEnv, r1), answer{Stale: "sidecars[agent].env"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := judgeOne(tc.pod, tc.view)
			got := answer{Images: s.Images, Stale: s.Stale, Drifted: s.Drifted, Relabel: s.Relabel, Updated: s.Updated()}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("Judge() (-want +got):\n%s", diff)
			}
		})
	}
}

func TestJudgeFindsContainersOfBothKinds(t *testing.T) {
	both := builders.Template("agent", "agent:1").Classic("proxy", "proxy:1")
	next := both.Clone().With(func(t *v1alpha1.SidecarTemplate) { t.Sidecars[0].Image, t.Sidecars[1].Image = "agent:2", "proxy:2" })
	pod := builders.Pod("shop", "cart-1").InitContainer(corev1.Container{Name: "setup"}).Injected(policy, both.Revision(1))
	got := judgeOne(pod, viewAt(100, next.Revision(2), both.Revision(1)))
	want := []fleet.ImageChange{
		{Container: "agent", Native: true, Index: 0, Image: "agent:2", Running: "agent:1", ContainerID: "containerd://shop/cart-1/agent-1"},
		{Container: "proxy", Native: false, Index: 1, Image: "proxy:2", Running: "proxy:1", ContainerID: "containerd://shop/cart-1/proxy-1"},
	}
	if diff := cmp.Diff(want, got.Images); diff != "" {
		t.Errorf("Images (-want +got):\n%s", diff)
	}
}

func TestMissingPods(t *testing.T) {
	for _, tc := range []struct {
		name      string
		pod       *builders.PodBuilder
		available bool
		want      []v1alpha1.Reason
	}{
		{"not injected", builders.Pod("shop", "cart-1"), true, nil},
		{"not injected and down", builders.Pod("shop", "cart-1").NotReady(builders.At(50)), false, nil},
		{"a container of that name", builders.Pod("shop", "cart-1").Container(corev1.Container{Name: "agent"}), true,
			[]v1alpha1.Reason{v1alpha1.ReasonContainerNameConflict}},
		{"a label without a record", builders.Pod("shop", "cart-1").Label(v1alpha1.RevisionLabel(policy), r1.Hash), true, nil},
		{"a record that can't be read", builders.Pod("shop", "cart-1").Label(v1alpha1.RevisionLabel(policy), r1.Hash).
			Annotation(v1alpha1.InjectedAnnotation(policy), "{"), true, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := judgeOne(tc.pod, viewAt(100, r2, r1))
			if got.Injected || got.Outdated() || got.Updated() {
				t.Errorf("injected %t, outdated %t, updated %t; want none", got.Injected, got.Outdated(), got.Updated())
			}
			if got.Available != tc.available {
				t.Errorf("available %t, want %t", got.Available, tc.available)
			}
			var reasons []v1alpha1.Reason
			for _, c := range got.Conflicts {
				reasons = append(reasons, c.Reason)
			}
			if diff := cmp.Diff(tc.want, reasons); diff != "" {
				t.Errorf("conflicts (-want +got):\n%s", diff)
			}
		})
	}
}

func TestJudgeOrdersByNamespaceAndName(t *testing.T) {
	var members []fleet.Member
	for _, name := range [][2]string{{"b", "2"}, {"a", "3"}, {"b", "1"}, {"a", "1"}} {
		members = append(members, fleet.Member{Pod: builders.Pod(name[0], name[1]).Obj()})
	}
	var got []string
	for _, state := range fleet.Judge(members, viewAt(0, r1)) {
		got = append(got, state.Pod.Namespace+"/"+state.Pod.Name)
	}
	if diff := cmp.Diff([]string{"a/1", "a/3", "b/1", "b/2"}, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestHealthySinceTheLastThingThatAnUpgradeWaitedFor(t *testing.T) {
	for _, c := range []struct {
		name string
		pod  *builders.PodBuilder
		want time.Time
	}{
		{"the restart", restarted(), builders.At(102)},
		{"the pod's readiness", restarted().Ready(builders.At(107)), builders.At(107)},
		{"no upgrade", builders.Pod("shop", "cart-1").Injected(policy, r2), time.Time{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := judgeOne(c.pod, viewAt(150, r2, r1)).Verdict
			if got.State != fleet.Settled || !got.HealthySince.Equal(c.want) {
				t.Errorf("%s, healthy since %s; want %s", got.State, got.HealthySince, c.want)
			}
		})
	}
}
