package rollout_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

// bare is a pod of a Deployment at rest that was created then, without the sidecars.
func bare(deployment string, i, created int) fleet.Member {
	return createdAt(in(deployment, builders.Pod("shop", fmt.Sprintf("%s-%02d", deployment, i)).Label("app", deployment)), created)
}

// whole is the same with the sidecars.
func whole(deployment string, i, created int) fleet.Member {
	return createdAt(member(deployment, i), created)
}

func createdAt(m fleet.Member, seconds int) fleet.Member {
	m.Pod.CreationTimestamp = metav1.NewTime(builders.At(seconds))
	m.Owner = fleet.Owner{UID: "rs/" + m.Workload.Name, Settled: true, Wanted: -1}
	return m
}

// changed is the same member with something changed.
func changed(m fleet.Member, change func(*fleet.Member)) fleet.Member {
	change(&m)
	return m
}

// tried is what is stored of a Deployment: when the last try was, how old its newest pod was then, and
// which pod goes first.
func tried(deployment string, last, newest int, pod string, failures int32) v1alpha1.Replacement {
	if pod != "" {
		pod = "shop/" + pod // as the builder's UIDs are
	}
	return v1alpha1.Replacement{Workload: "Deployment/shop/" + deployment, LastTime: metav1.NewTime(builders.At(last)),
		NewestPodTime: metav1.NewTime(builders.At(newest)), PodUID: pod, Failures: failures}
}

// lackingInput is a policy at rest, at 1000 s, which replaces pods.
func lackingInput(stored []v1alpha1.Replacement, members ...fleet.Member) rollout.Input {
	in := inputAt(1000, builders.Rollout(), nil)
	in.Pods, in.Target, in.Stable = fleet.Judge(members, viewAt(1000, r1)), r1, r1.Hash
	in.Missing, in.MaxMissing, in.Injecting, in.Replacements = v1alpha1.MissingRecreate, len(members), true, stored
	return in
}

// told is what a plan does with the pods that lack the sidecars, and what it stores, in short.
func told(plan rollout.Plan) string {
	var parts []string
	for _, pod := range plan.Replaced {
		parts = append(parts, "evict "+pod.Pod.Name)
	}
	for _, entry := range plan.Replacements {
		_, pod, _ := strings.Cut(entry.PodUID, "/")
		parts = append(parts, fmt.Sprintf("%s: first %q, failures %d", strings.TrimPrefix(entry.Workload, "Deployment/shop/"), pod, entry.Failures))
	}
	return strings.Join(parts, "; ")
}

func TestPodsThatLackTheSidecarsAreReplacedOneFirst(t *testing.T) {
	type stored = []v1alpha1.Replacement
	refused := func(m *fleet.Member) { m.Refusal = &fleet.Refusal{Message: "no", Until: builders.At(2000)} }
	for _, tc := range []struct {
		name   string
		stored stored
		pods   []fleet.Member
		want   string
	}{
		{"nothing is missing", nil, []fleet.Member{whole("cart", 0, 0)}, ""},
		{"the first is named before it is touched", nil, []fleet.Member{bare("cart", 0, 0), bare("cart", 1, 0)}, `cart: first "cart-00", failures 0`},
		{"each workload has its own", nil, []fleet.Member{bare("cart", 0, 0), bare("shop", 0, 0)}, `cart: first "cart-00", failures 0; shop: first "shop-00", failures 0`},
		{"then it alone goes", stored{tried("cart", 999, 0, "cart-00", 0)}, []fleet.Member{bare("cart", 0, 0), bare("cart", 1, 0)},
			`evict cart-00; cart: first "cart-00", failures 0`},
		{"the others wait for what comes in its place", stored{tried("cart", 999, 0, "cart-09", 0)}, []fleet.Member{bare("cart", 0, 0)},
			`cart: first "cart-09", failures 0`},
		{"it has the sidecars: the others follow", stored{tried("cart", 990, 0, "cart-09", 0)}, []fleet.Member{whole("cart", 9, 995), bare("cart", 0, 0), bare("cart", 1, 0)},
			`evict cart-00; evict cart-01; cart: first "cart-09", failures 0`},
		{"a pod that was there before proves nothing", stored{tried("cart", 990, 0, "cart-09", 0)}, []fleet.Member{whole("cart", 8, 0), bare("cart", 0, 0)},
			`cart: first "cart-09", failures 0`},
		{"it lacks them too: that was in vain", stored{tried("cart", 990, 0, "cart-09", 0)}, []fleet.Member{bare("cart", 9, 995), bare("cart", 0, 0)},
			`cart: first "", failures 1`},
		{"once more in vain", stored{tried("cart", 990, 0, "cart-09", 3)}, []fleet.Member{bare("cart", 9, 995)}, `cart: first "", failures 4`},
		{"a workload that was tried in vain rests", stored{tried("cart", 941, 900, "", 1)}, []fleet.Member{bare("cart", 0, 0)}, `cart: first "", failures 1`},
		{"and is tried again after a minute", stored{tried("cart", 940, 900, "", 1)}, []fleet.Member{bare("cart", 0, 0)}, `cart: first "cart-00", failures 1`},
		{"the second time after two", stored{tried("cart", 900, 900, "", 2)}, []fleet.Member{bare("cart", 0, 0)}, `cart: first "", failures 2`},
		{"what was tried in vain, and then helped, is forgotten", stored{tried("cart", 990, 900, "cart-09", 2)}, []fleet.Member{whole("cart", 9, 995), bare("cart", 0, 0)},
			`evict cart-00; cart: first "cart-09", failures 0`},
		{"a workload that is done is forgotten", stored{tried("cart", 990, 0, "cart-09", 0)}, []fleet.Member{whole("cart", 9, 995)}, ""},
		{"a workload whose only pod is on its way is not", stored{tried("cart", 990, 0, "cart-09", 0)}, []fleet.Member{whole("shop", 0, 0)}, `cart: first "cart-09", failures 0`},
		{"until nobody makes it any more", stored{tried("cart", 700, 0, "cart-09", 0)}, []fleet.Member{whole("shop", 0, 0)}, ""},
		{"a pod that refuses is not the first", nil, []fleet.Member{changed(bare("cart", 0, 0), refused), bare("cart", 1, 0)}, `cart: first "cart-01", failures 0`},
		{"nor does it stay the first", stored{tried("cart", 990, 0, "cart-00", 0)}, []fleet.Member{changed(bare("cart", 0, 0), refused), bare("cart", 1, 0)}, `cart: first "cart-01", failures 0`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, told(rollout.Make(lackingInput(tc.stored, tc.pods...)))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhatIsNotReplaced(t *testing.T) {
	clash := corev1.ContainerRestartPolicyAlways
	for name, m := range map[string]fleet.Member{
		"a clash with a container": createdAt(in("cart", builders.Pod("shop", "cart-00").Container(corev1.Container{Name: "agent"})), 0),
		"a clash with a native sidecar of the owner's": createdAt(in("cart", builders.Pod("shop", "cart-00").
			InitContainer(corev1.Container{Name: "agent", Image: "own", RestartPolicy: &clash})), 0),
		"an exempt pod":   changed(bare("cart", 0, 0), func(m *fleet.Member) { m.Exempt = true }),
		"a bare pod":      changed(bare("cart", 0, 0), func(m *fleet.Member) { m.Owner = fleet.Owner{Unmanaged: true} }),
		"a pod of a Job":  changed(bare("cart", 0, 0), func(m *fleet.Member) { m.Owner.Unmanaged = true }),
		"in a roll-out":   changed(bare("cart", 0, 0), func(m *fleet.Member) { m.Owner.Settled = false }),
		"has them":        whole("cart", 0, 0),
		"refused just so": changed(bare("cart", 0, 0), func(m *fleet.Member) { m.Refusal = &fleet.Refusal{Until: builders.At(1001)} }),
	} {
		t.Run(name, func(t *testing.T) {
			if got := told(rollout.Make(lackingInput(nil, m))); got != "" {
				t.Errorf("want nothing, got %s", got)
			}
		})
	}
	in := lackingInput(nil, changed(bare("cart", 0, 0), func(m *fleet.Member) { m.Owner.Unmanaged = true }))
	in.Spec.EvictUnmanaged = true
	if got := told(rollout.Make(in)); got == "" {
		t.Error("with evictUnmanaged a pod of a Job is replaced")
	}
}

func TestReplacingWaits(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*rollout.Input)
		want   v1alpha1.Reason
	}{
		{"where it is only reported", func(in *rollout.Input) { in.Missing = v1alpha1.MissingReport }, ""},
		{"while new pods don't get the sidecars", func(in *rollout.Input) { in.Injecting = false }, v1alpha1.ReasonNotRegistered},
		{"while the spec is not accepted", func(in *rollout.Input) { in.NotAccepted = true }, v1alpha1.ReasonNotAccepted},
		{"for a roll-out", func(in *rollout.Input) { in.Stable = r3.Hash }, v1alpha1.ReasonRollingOut},
		{"for a rollback", func(in *rollout.Input) { in.RollingBack = true }, v1alpha1.ReasonUpgradeFailed},
		{"while the roll-out is paused", func(in *rollout.Input) { in.Spec.Paused = true }, v1alpha1.ReasonPaused},
		{"for a window", func(in *rollout.Input) {
			in.Spec.Windows = builders.Rollout().Window("0 0 30 2 *", time.Hour).Obj().Windows
		}, v1alpha1.ReasonFrozen},
		{"for a person, where too many are missing", func(in *rollout.Input) { in.MaxMissing = 1 }, v1alpha1.ReasonTooManyMissing},
		{"while pods with the sidecars fail", func(in *rollout.Input) {
			in.Pods = append(in.Pods, fleet.Judge([]fleet.Member{changed(whole("down", 0, 0), func(m *fleet.Member) {
				builders.StatusOf(m.Pod, "agent").State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
			})}, viewAt(1000, r1))...)
		}, v1alpha1.ReasonUpgradeFailed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := lackingInput([]v1alpha1.Replacement{tried("cart", 999, 0, "cart-00", 0)}, bare("cart", 0, 0), bare("cart", 1, 0))
			tc.change(&in)
			plan := rollout.Make(in)
			if len(plan.Replaced) > 0 || plan.Summary.Missing.Hold != tc.want {
				t.Errorf("%s, on hold for %q, want nothing for %q", told(plan), plan.Summary.Missing.Hold, tc.want)
			}
		})
	}
}

// The first pod is asked about.
func TestWhyAPodStaysWithoutSidecars(t *testing.T) {
	stored := []v1alpha1.Replacement{tried("cart", 999, 0, "cart-00", 0)}
	exempt := changed(bare("cart", 0, 0), func(m *fleet.Member) { m.Exempt = true })
	job := changed(bare("cart", 0, 0), func(m *fleet.Member) { m.Owner.Unmanaged = true })
	report := lackingInput(nil, bare("cart", 0, 0))
	report.Missing = v1alpha1.MissingReport
	held := lackingInput(stored, bare("cart", 0, 0))
	held.Injecting = false
	inVain := []v1alpha1.Replacement{tried("a", 990, 500, "", 1), tried("b", 990, 600, "", 1), tried("c", 990, 400, "", 1)}
	for _, tc := range []struct {
		name string
		in   rollout.Input
		want string
	}{
		{"only reported", report, "it gets the sidecars when it is recreated"},
		{"its turn", lackingInput(stored, bare("cart", 0, 0)), "it is its turn to be replaced"},
		{"exempt", lackingInput(nil, exempt), "it is exempt by the annotation"},
		{"of a Job", lackingInput(nil, job), "spec.rollout.evictUnmanaged is false"},
		{"on hold", held, "it is not replaced: "},
		{"while replacing does not help", lackingInput(inVain, bare("d", 0, 0), bare("a", 0, 500), bare("b", 0, 600), bare("c", 0, 400)), "it waits to be replaced: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			plan := rollout.Make(tc.in)
			if got := plan.WhyMissing(tc.in, &tc.in.Pods[0]); !strings.Contains(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestTooManyMissingSaysWhatToWrite(t *testing.T) {
	in := lackingInput(nil, bare("cart", 0, 0), bare("cart", 1, 0), whole("cart", 2, 0))
	in.MaxMissing = 1
	got := rollout.Make(in).Summary.Missing.Message
	if !strings.HasPrefix(got, "2 of 3 selected pods lack the sidecars") || !strings.Contains(got, "write maxMissing: 100%") {
		t.Errorf("the message is %q", got)
	}
}

// What does not help three workloads is not tried on any other, until a new pod gets the sidecars.
func TestReplacingStopsWhereItDoesNotHelp(t *testing.T) {
	failed := []v1alpha1.Replacement{tried("a", 990, 500, "", 1), tried("b", 990, 600, "", 1), tried("c", 990, 400, "", 1)}
	pods := []fleet.Member{bare("a", 0, 500), bare("b", 0, 600), bare("c", 0, 400), bare("d", 0, 0)}
	plan := rollout.Make(lackingInput(failed, pods...))
	if len(plan.Replacements) != 3 || plan.Summary.Missing.InVainCount != 3 || plan.Summary.Missing.Blocked == "" {
		t.Errorf("after three in vain: %s, %+v", told(plan), plan.Summary.Missing)
	}
	if want := builders.At(1050); !plan.Summary.Missing.NextAt.Equal(want) {
		t.Errorf("the next try is at %s, want %s", plan.Summary.Missing.NextAt, want)
	}
	plan = rollout.Make(lackingInput(failed, append(pods, whole("e", 0, 500))...))
	if len(plan.Replacements) != 3 {
		t.Errorf("a pod that is older than the last failure proves nothing: %s", told(plan))
	}
	plan = rollout.Make(lackingInput(failed, append(pods, whole("e", 0, 601))...))
	if len(plan.Replacements) != 4 {
		t.Errorf("a new pod got the sidecars, and the others are not tried: %s", told(plan))
	}
	plan = rollout.Make(lackingInput(failed[:2], pods...))
	if len(plan.Replacements) < 4 {
		t.Errorf("after two in vain the others are tried: %s", told(plan))
	}
}

func TestReplacingKeepsTheBudgetsOfTheRollOut(t *testing.T) {
	helped := []v1alpha1.Replacement{tried("cart", 990, 0, "cart-09", 0)}
	pods := []fleet.Member{whole("cart", 9, 995)}
	for i := range 9 {
		pods = append(pods, bare("cart", i, 0))
	}
	for _, tc := range []struct {
		name   string
		change func(*rollout.Input)
		want   int
	}{
		{"no bound", func(*rollout.Input) {}, 9},
		{"the fleet's", func(in *rollout.Input) { in.Spec = builders.Rollout().Budget(v1alpha1.PerFleet, "30%").Obj() }, 3},
		{"the workload's", func(in *rollout.Input) { in.Spec = builders.Rollout().Budget(v1alpha1.PerWorkload, "2").Obj() }, 2},
		{"a PodDisruptionBudget", func(in *rollout.Input) {
			var all []*corev1.Pod
			for i := range pods {
				all = append(all, pods[i].Pod)
			}
			in.Disruptions = []fleet.Disruption{fleet.Allowance(builders.PDB("shop", "cart", 9, 1).Obj(), all, viewAt(1000, r1))}
		}, 1},
		{"places of pods that are on their way", func(in *rollout.Input) {
			in.Spec = builders.Rollout().Budget(v1alpha1.PerWorkload, "2").Obj()
			in.Vacancies = []fleet.Vacancy{{Workload: pods[0].Workload, Owner: "rs/cart"}}
		}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := lackingInput(helped, pods...)
			tc.change(&in)
			if got := len(rollout.Make(in).Replaced); got != tc.want {
				t.Errorf("%d pods are evicted, want %d", got, tc.want)
			}
		})
	}
}
