package fleet_test

import (
	stdcmp "cmp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

// watching is the view of a roll-out, with other settings.
func watching(seconds int, change func(*v1alpha1.HealthSpec)) *fleet.View {
	view := viewAt(seconds, r2, r1)
	view.Watching = true
	if change != nil {
		change(view.Health[policy])
	}
	return view
}

func restartCount(n int32) func(*corev1.ContainerStatus) {
	return func(s *corev1.ContainerStatus) { s.RestartCount = n }
}

// downFor says that the container before ran until so many seconds before the one that runs.
func downFor(seconds int) func(*corev1.ContainerStatus) {
	return func(s *corev1.ContainerStatus) {
		s.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ContainerID: "containerd://shop/cart-1/agent-1",
			FinishedAt: metav1.NewTime(s.State.Running.StartedAt.Add(-time.Duration(seconds) * time.Second))}
	}
}

// stillDown says that the container before ended then, and that none has followed.
func stillDown(at int) func(*corev1.ContainerStatus) {
	return func(s *corev1.ContainerStatus) {
		id := s.ContainerID
		terminated(at)(s)
		s.State.Terminated.ContainerID = id
	}
}

// restartedAt says that a container restarted so often, the last time then, after a short run.
func restartedAt(n int32, at int) func(*corev1.ContainerStatus) {
	return func(s *corev1.ContainerStatus) {
		s.RestartCount = n
		s.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{StartedAt: metav1.NewTime(builders.At(at - 5)), FinishedAt: metav1.NewTime(builders.At(at))}
	}
}

// newborn is a pod that was created with the revision that is rolled out.
func newborn() *builders.PodBuilder { return builders.Pod("shop", "cart-1").Injected(policy, r2) }

// What looks healthy is held to more while its revision is rolled out.
func TestWatchFindsWhatHarmsAfterAPodGotReady(t *testing.T) {
	// ran is a pod that had 5 restarts of the sidecar and 3 of its app before its upgrade.
	ran := builders.Pod("shop", "cart-1").Injected(policy, r1).Status("agent", restartCount(5)).Status("app", restartCount(3)).
		With(func(p *corev1.Pod) { recordRestarts(p, map[string]int32{"agent": 5, "app": 3}) })
	noGuard := func(h *v1alpha1.HealthSpec) { h.GuardApp = ptr.To(false) }
	atMost10s := func(h *v1alpha1.HealthSpec) { h.MaxSidecarDowntimeSeconds = ptr.To[int32](10) }
	for _, tc := range []struct {
		name    string
		pod     *builders.PodBuilder
		now     int
		change  func(*v1alpha1.HealthSpec)
		guard   int
		state   fleet.State
		reason  v1alpha1.Reason
		message string
		recheck int
		// before is what is said where nobody watches, if not that the pod is settled.
		before fleet.State
	}{
		{name: "healthy", pod: restarted(), now: 120, state: fleet.Settled},
		{name: "the restart of the upgrade itself is none", pod: restarted().Status("agent", restartCount(1)), now: 120, state: fleet.Settled},
		{name: "as many by itself as allowed", pod: restarted().Status("agent", restartCount(3)), now: 120, state: fleet.Settled},
		{name: "one more", pod: restarted().Status("agent", restartCount(4)), now: 120, state: fleet.Failed, reason: v1alpha1.ReasonRestarts,
			message: `sidecar "agent" restarted 3 times by itself, maxRestarts is 2`},
		{name: "none allowed", pod: restarted().Status("agent", restartCount(2)), now: 120,
			change: func(h *v1alpha1.HealthSpec) { h.MaxRestarts = ptr.To[int32](0) }, state: fleet.Failed, reason: v1alpha1.ReasonRestarts},
		{name: "restarts before the upgrade don't count", pod: ran.Clone().Status("agent", restartCount(8)), now: 120, state: fleet.Settled},
		{name: "those after it do", pod: ran.Clone().Status("agent", restartCount(9)), now: 120, state: fleet.Failed, reason: v1alpha1.ReasonRestarts},
		{name: "of a pod that was created with the revision", pod: builders.Pod("shop", "cart-1").Injected(policy, r2).Status("agent", restartCount(3)), now: 120,
			state: fleet.Failed, reason: v1alpha1.ReasonRestarts},
		{name: "of a pod that has an older revision", pod: builders.Pod("shop", "cart-1").Injected(policy, r1).Status("agent", restartCount(9)), now: 120, state: fleet.Settled},
		{name: "the app restarted", pod: restarted().Status("app", restartCount(1)), now: 120, state: fleet.Failed, reason: v1alpha1.ReasonAppRestarted,
			message: `container "app" of the app restarted`},
		{name: "the app restarted before", pod: ran, now: 120, state: fleet.Settled},
		{name: "the app that crashed before crashes on", pod: restarted().Status("app", restartCount(9)).With(func(p *corev1.Pod) {
			record, err := v1alpha1.ParseUpgradeRecord(p.Annotations, policy)
			if err != nil {
				panic(err)
			}
			record.Crashing = []string{"app"}
			p.Annotations[v1alpha1.UpgradeAnnotation(policy)] = record.Encode()
		}), now: 120, state: fleet.Settled},
		{name: "the app is not guarded", pod: restarted().Status("app", restartCount(1)), now: 120, change: noGuard, state: fleet.Settled},
		{name: "readiness lost a moment ago", pod: restarted().NotReady(builders.At(195)), now: 200, state: fleet.Settled, recheck: 205},
		{name: "readiness lost for longer than minReadySeconds", pod: restarted().NotReady(builders.At(195)), now: 205, state: fleet.Failed, reason: v1alpha1.ReasonAppNotReady},
		{name: "readiness that it did not have before", pod: builders.Pod("shop", "cart-1").NotReady(builders.At(50)).Injected(policy, r1).
			Upgraded(policy, r2, builders.At(100)).Restarted("agent", builders.At(102)), now: 205, state: fleet.Settled},
		{name: "readiness lost, and not guarded", pod: restarted().NotReady(builders.At(195)), now: 205, change: noGuard, state: fleet.Settled},
		{name: "down for as long as allowed", pod: restarted().Status("agent", downFor(10)), now: 120, change: atMost10s, state: fleet.Settled},
		{name: "down for longer", pod: restarted().Status("agent", downFor(11)), now: 120, change: atMost10s, state: fleet.Failed, reason: v1alpha1.ReasonDowntime,
			message: "down for 11s"},
		{name: "down, and not followed yet", pod: upgraded().Status("agent", stillDown(104)), now: 114, change: atMost10s, state: fleet.Updating, recheck: 115,
			message: "has not seen the change"},
		{name: "down for longer, and not followed yet", pod: upgraded().Status("agent", stillDown(104)), now: 115, change: atMost10s, state: fleet.Failed, reason: v1alpha1.ReasonDowntime,
			message: "down for 11s", before: fleet.Updating},
		{name: "the app restarted long after the upgrade", pod: restarted().Status("app", restartedAt(1, 401)), now: 500, guard: 300, state: fleet.Settled},
		{name: "the app restarted while it was guarded", pod: restarted().Status("app", restartedAt(1, 400)), now: 500, guard: 300, state: fleet.Failed, reason: v1alpha1.ReasonAppRestarted},
		{name: "readiness lost long after the upgrade", pod: restarted().NotReady(builders.At(401)), now: 500, guard: 300, state: fleet.Settled},
		{name: "the app of a pod that was created with the revision crashes", pod: newborn().Status("app", restartedAt(3, 90)), now: 120, state: fleet.Failed, reason: v1alpha1.ReasonAppRestarted},
		{name: "it took a few restarts to start", pod: newborn().Status("app", restartedAt(2, 90)), now: 120, state: fleet.Settled},
		{name: "down for longer, and nobody minds", pod: restarted().Status("agent", downFor(100)), now: 120, state: fleet.Settled},
	} {
		t.Run(tc.name, func(t *testing.T) {
			view := watching(tc.now, tc.change)
			view.GuardTime = time.Duration(tc.guard) * time.Second
			v := fleet.Judge([]fleet.Member{{Pod: tc.pod.Obj(), Owner: fleet.Owner{Settled: true}}}, view)[0].Verdict
			want := fleet.Verdict{State: tc.state, Reason: tc.reason, Message: v.Message}
			if tc.recheck != 0 {
				want.Recheck = builders.At(tc.recheck)
			}
			if diff := cmp.Diff(want, v, cmpopts.IgnoreFields(fleet.Verdict{}, "HealthySince")); diff != "" || !strings.Contains(v.Message, tc.message) {
				t.Errorf("verdict (-want +got):\n%s\nmessage %q, want %q", diff, v.Message, tc.message)
			}
			if tc.reason == "" {
				return
			}
			if state, want := judgeOne(tc.pod, viewAt(tc.now, r2, r1)).Verdict.State, stdcmp.Or(tc.before, fleet.Settled); state != want {
				t.Errorf("%s where nobody watches, want %s", state, want)
			}
		})
	}
}

// A revision that is tried again (or an older one, to which some pods never got another) is not held responsible for what
// became of its pods before.
func TestWatchBeginsWithTheRollout(t *testing.T) {
	old := builders.Pod("shop", "cart-1").Injected(policy, r2).With(func(p *corev1.Pod) { p.CreationTimestamp = metav1.NewTime(builders.At(1)) })
	for _, tc := range []struct {
		name       string
		pod        *builders.PodBuilder
		since, now int
		want       fleet.Verdict
	}{
		{"the app restarted after an upgrade before", restarted().Status("app", restartCount(9)), 101, 500, fleet.Verdict{State: fleet.Settled}},
		{"after one in the roll-out", restarted().Status("app", restartCount(9)), 100, 500, fleet.Verdict{State: fleet.Failed, Reason: v1alpha1.ReasonAppRestarted}},
		{"the sidecar restarted in a pod that has long had the revision", old.Clone().Status("agent", restartCount(9)), 100, 500, fleet.Verdict{State: fleet.Settled}},
		{"the pod lost readiness before", restarted().NotReady(builders.At(195)), 400, 500, fleet.Verdict{State: fleet.Settled}},
		{"what fails has the time of an upgrade", old.Clone().Status("agent", waiting("CrashLoopBackOff")), 400, 459, fleet.Verdict{State: fleet.Updating, Recheck: builders.At(460)}},
		{"and no longer", old.Clone().Status("agent", waiting("CrashLoopBackOff")), 400, 460, fleet.Verdict{State: fleet.Failed, Reason: v1alpha1.ReasonCrashLoop}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			view := watching(tc.now, nil)
			view.WatchedSince = builders.At(tc.since)
			if diff := cmp.Diff(tc.want, judgeOne(tc.pod, view).Verdict, cmpopts.IgnoreFields(fleet.Verdict{}, "HealthySince", "Message")); diff != "" {
				t.Errorf("verdict (-want +got):\n%s", diff)
			}
		})
	}
}

// ran says that a container's last run took so many seconds, and ended so many before 1,000 s.
func ran(seconds, ago int) func(*corev1.ContainerStatus) {
	return func(s *corev1.ContainerStatus) {
		s.RestartCount++
		s.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{
			StartedAt: metav1.NewTime(builders.At(1000 - ago - seconds)), FinishedAt: metav1.NewTime(builders.At(1000 - ago))}
	}
}

func TestCrashingAppsAreThoseThatCrashAgainAndAgain(t *testing.T) {
	for _, tc := range []struct {
		name   string
		status func(*corev1.ContainerStatus)
		want   []string
	}{
		{"never restarted", func(*corev1.ContainerStatus) {}, nil},
		{"restarted some time ago", restartCount(3), nil},
		{"crashed after a short run", ran(30, 60), []string{"app"}},
		{"within the kubelet's delay", ran(30, 599), []string{"app"}},
		{"long ago", ran(30, 600), nil},
		{"once, after a long run: by a bad version perhaps", ran(600, 60), nil},
		{"of which it is not known how long it ran", func(s *corev1.ContainerStatus) {
			ran(30, 60)(s)
			s.LastTerminationState.Terminated.StartedAt = metav1.Time{}
		}, nil},
		{"that is down", func(s *corev1.ContainerStatus) {
			ran(30, 1)(s)
			s.State = corev1.ContainerState{Terminated: s.LastTerminationState.Terminated}
			s.LastTerminationState = corev1.ContainerState{}
		}, []string{"app"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pod := builders.Pod("shop", "cart-1").Injected(policy, r1).Injected("mesh", builders.Template("proxy", "proxy:1").Classic("proxy-2", "proxy:1").Revision(1)).
				Status("app", tc.status).Status("agent", ran(1, 1)).Status("proxy-2", ran(1, 1)).Obj()
			if diff := cmp.Diff(tc.want, fleet.Crashing(pod, builders.At(1000))); diff != "" {
				t.Errorf("Crashing() (-want +got):\n%s", diff)
			}
		})
	}
}

// recordRestarts makes the pod one that was upgraded at 100 s, when its containers had restarted that often.
func recordRestarts(pod *corev1.Pod, restarts map[string]int32) {
	record := v1alpha1.UpgradeRecord{Revision: r2.Hash, At: metav1.NewTime(builders.At(100)), WasReady: true, Restarts: restarts,
		Before: map[string]string{"agent": "containerd://before"}, Ran: map[string]string{"agent": "agent:1"}}
	builders.SpecOf(pod, "agent").Image = "agent:2"
	pod.Labels[v1alpha1.RevisionLabel(policy)] = r2.Hash
	pod.Annotations[v1alpha1.UpgradeAnnotation(policy)] = record.Encode()
}

// Two containers that restart too often: the same one is named each time.
func TestWatchNamesTheSameContainerEachTime(t *testing.T) {
	two := builders.Template("zeta", "zeta:1").Sidecar("alpha", "alpha:1").Revision(1)
	pod := builders.Pod("shop", "cart-1").Injected(policy, two).Status("zeta", restartCount(9)).Status("alpha", restartCount(9))
	view := viewAt(100, two)
	view.Watching = true
	for range 50 {
		if got := judgeOne(pod, view).Verdict.Message; !strings.Contains(got, `"zeta"`) {
			t.Fatalf("%q, want the first sidecar", got)
		}
	}
}

// A pod that was created with a revision on trial has the deadline that an upgrade has.
func TestWatchHoldsNewPodsToTheDeadline(t *testing.T) {
	born := func(pod *builders.PodBuilder) *builders.PodBuilder {
		return pod.With(func(p *corev1.Pod) { p.CreationTimestamp = metav1.NewTime(builders.At(100)) })
	}
	unready := func() *builders.PodBuilder {
		return born(builders.Pod("shop", "cart-1").Injected(policy, r2).NotReady(builders.At(100)))
	}
	starting := func() *builders.PodBuilder {
		return unready().Status("agent", func(s *corev1.ContainerStatus) { waiting("PodInitializing")(s); s.ContainerID = "" })
	}
	settledOwner := fleet.Owner{UID: "rs", Settled: true}
	for _, tc := range []struct {
		name    string
		pod     *builders.PodBuilder
		owner   fleet.Owner
		now     int
		change  func(*v1alpha1.HealthSpec)
		state   fleet.State
		message string
	}{
		{name: "ready", pod: born(builders.Pod("shop", "cart-1").Injected(policy, r2)), owner: settledOwner, now: 101, state: fleet.Settled},
		{name: "not ready yet", pod: unready(), owner: settledOwner, now: 159, state: fleet.Updating, message: "not ready yet"},
		{name: "not ready at the deadline", pod: unready(), owner: settledOwner, now: 160, state: fleet.Failed, message: "is not ready after 1m0s"},
		{name: "its sidecars don't run at the deadline", pod: starting(), owner: settledOwner, now: 160, state: fleet.Failed, message: "sidecars don't run after 1m0s"},
		{name: "its owner is in the middle of a roll-out of its own", pod: unready(), owner: fleet.Owner{UID: "rs"}, now: 160, state: fleet.Settled},
		{name: "nobody guards", pod: unready(), owner: settledOwner, now: 160, change: func(h *v1alpha1.HealthSpec) { h.GuardApp = ptr.To(false) }, state: fleet.Settled},
		{name: "created with the stable revision", pod: born(builders.Pod("shop", "cart-1").Injected(policy, r1).NotReady(builders.At(100))),
			owner: settledOwner, now: 160, state: fleet.Settled},
		{name: "its gate alone is closed", pod: born(builders.Pod("shop", "cart-1").Injected(policy, r2).Gated(policy)), owner: settledOwner, now: 160, state: fleet.Settled},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := fleet.Judge([]fleet.Member{{Pod: tc.pod.Obj(), Owner: tc.owner}}, watching(tc.now, tc.change))[0].Verdict
			if got.State != tc.state || !strings.Contains(got.Message, tc.message) {
				t.Errorf("verdict %s %q, want %s %q", got.State, got.Message, tc.state, tc.message)
			}
			if tc.state == fleet.Updating && !got.Recheck.Equal(builders.At(160)) {
				t.Errorf("looked at again at %s, want the deadline", got.Recheck)
			}
		})
	}
}

// The kubelet's times are whole seconds; what is less than one counts as one.
func TestDowntimeIsWhatTheKubeletReports(t *testing.T) {
	for _, tc := range []struct {
		name string
		pod  *builders.PodBuilder
		want time.Duration
	}{
		{"never upgraded", builders.Pod("shop", "cart-1").Injected(policy, r2), 0},
		{"not restarted yet", upgraded(), 0},
		{"the kubelet does not tell", restarted(), 0},
		{"4 s", restarted().Status("agent", downFor(4)), 4 * time.Second},
		{"less than one", restarted().Status("agent", downFor(0)), time.Second},
		{"of another container", restarted().Status("agent", downFor(4)).Status("agent", func(s *corev1.ContainerStatus) {
			s.LastTerminationState.Terminated.ContainerID = "containerd://another"
		}), 0},
		{"of an upgrade to another revision", builders.Pod("shop", "cart-1").Injected(policy, r2).Upgraded(policy, r1, builders.At(100)).
			Restarted("agent", builders.At(102)).Status("agent", downFor(4)), 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := judgeOne(tc.pod, viewAt(120, r2, r1)).Downtime; got != tc.want {
				t.Errorf("Downtime = %s, want %s", got, tc.want)
			}
		})
	}
}

// Two policies on one pod that is not ready: the earlier upgrade is excused while the later one is under way.
func TestAnUpgradeIsExcusedForALaterOneOnlyWhileThatIsUnderWay(t *testing.T) {
	p1, p2 := builders.Template("proxy", "proxy:1").Revision(1), builders.Template("proxy", "proxy:2").Revision(2)
	pod := builders.Pod("shop", "cart-1").Injected(policy, r1).Injected("mesh", p1).
		Upgraded(policy, r2, builders.At(100)).Restarted("agent", builders.At(102)).
		Upgraded("mesh", p2, builders.At(110)).Restarted("proxy", builders.At(112)).NotReady(builders.At(111))
	for _, tc := range []struct {
		name    string
		now     int
		excused bool
		state   fleet.State
	}{
		{"the later one is under way", 115, true, fleet.Settled},
		{"until its deadline", 169, true, fleet.Settled},
		{"it has failed too", 170, false, fleet.Failed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			view := watching(tc.now, nil)
			view.Health["mesh"] = builders.Health(10, 60)
			got := judgeOne(pod, view)
			if got.Excused != tc.excused || got.Verdict.State != tc.state {
				t.Errorf("excused %t, %s, want %t, %s", got.Excused, got.Verdict.State, tc.excused, tc.state)
			}
		})
	}
}
