package report_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/report"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

func entry(policy string, state v1alpha1.ReportState, updated int32) report.Entry {
	return report.Entry{Updating: state == v1alpha1.ReportUpdating, Workload: metav1.OwnerReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "cart", UID: "cart-uid"},
		Report: v1alpha1.ReportedPolicy{Policy: policy, State: state, Revision: "r", Pods: v1alpha1.ReportCounts{Selected: 50, Updated: updated, Ready: 50}}}
}

func ready(e report.Entry, pods int32) report.Entry {
	e.Report.Pods.Ready = pods
	return e
}

// updating is the entry with a roll-out under way, whatever its state.
func updating(e report.Entry) report.Entry {
	e.Updating = true
	return e
}

// entryOfKind is an entry of a workload of another kind, whose first pod was born some seconds after the start.
func entryOfKind(kind string, born int) report.Entry {
	e := entry("a", v1alpha1.ReportCurrent, 1)
	e.Workload.Kind, e.Born = kind, builders.At(born)
	return e
}

func TestMakeSaysTheWorstOfThePoliciesAndSinceWhen(t *testing.T) {
	before := report.Make(cartKey, []report.Entry{entry("b", v1alpha1.ReportCurrent, 50), entry("a", v1alpha1.ReportWaiting, 0)}, nil, builders.At(0))
	after := report.Make(cartKey, []report.Entry{entry("b", v1alpha1.ReportFailed, 40), entry("a", v1alpha1.ReportWaiting, 10)}, before, builders.At(60))
	if after.State != v1alpha1.ReportFailed || !after.Since.Time.Equal(builders.At(60)) {
		t.Errorf("state %s since %s", after.State, after.Since)
	}
	if diff := cmp.Diff(v1alpha1.ReportCounts{Selected: 50, Updated: 10, Ready: 50}, after.Pods); diff != "" {
		t.Error(diff)
	}
	if a := after.Policies[0]; a.Policy != "a" || !a.Since.Time.Equal(builders.At(0)) {
		t.Errorf("policy %s waits since %s", a.Policy, a.Since)
	}
	if diff := cmp.Diff(v1alpha1.WorkloadReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "cart"}, after.Workload); diff != "" {
		t.Error(diff)
	}
}

func TestWaitGathersNumbersAndNotStates(t *testing.T) {
	written := report.Make(cartKey, []report.Entry{entry("a", v1alpha1.ReportUpdating, 1)}, nil, builders.At(0))
	begun := report.Make(cartKey, []report.Entry{entry("a", v1alpha1.ReportUpdating, 0)}, nil, builders.At(0))
	missed := report.Make(cartKey, []report.Entry{entry("a", v1alpha1.ReportMissing, 0)}, nil, builders.At(0))
	fresh := report.Make(cartKey, []report.Entry{entry("a", v1alpha1.ReportCurrent, 50)}, nil, builders.At(0))
	fresh.CreationTimestamp = fresh.WrittenAt
	late := report.Make(cartKey, []report.Entry{entry("a", v1alpha1.ReportUpdating, 20)}, written, builders.At(60))
	current := report.Make(cartKey, []report.Entry{entry("a", v1alpha1.ReportCurrent, 50)}, nil, builders.At(0))
	for _, c := range []struct {
		name   string
		before *v1alpha1.SidecarReport
		entry  report.Entry
		now    int
		wait   time.Duration
		due    bool
	}{
		{"there is none", nil, entry("a", v1alpha1.ReportCurrent, 50), 0, 0, true},
		{"there is none, of a bare pod", nil, entryOfKind("Pod", 10), 20, 20 * time.Second, true},
		{"there is none, of a Job", nil, entryOfKind("Job", 10), 20, 20 * time.Second, true},
		{"there is none, of a bare pod that lives on", nil, entryOfKind("Pod", 10), 50, 0, true},
		{"nothing changed", written, entry("a", v1alpha1.ReportUpdating, 1), 500, 0, false},
		{"a state, right after the last write", written, entry("a", v1alpha1.ReportCurrent, 50), 1, 4 * time.Second, true},
		{"a state, later", written, entry("a", v1alpha1.ReportCurrent, 50), 7, 0, true},
		{"no progress", begun, ready(entry("a", v1alpha1.ReportUpdating, 0), 48), 500, 0, false},
		{"some progress", begun, entry("a", v1alpha1.ReportUpdating, 1), 60, 59 * time.Minute, true},
		{"half of it", begun, entry("a", v1alpha1.ReportUpdating, 25), 60, 0, true},
		{"half of it, right after the last write", begun, entry("a", v1alpha1.ReportUpdating, 25), 1, 4 * time.Second, true},
		{"progress, the second time", late, entry("a", v1alpha1.ReportUpdating, 49), 7000, 0, false},
		{"a failure in the middle", late, entry("a", v1alpha1.ReportFailed, 20), 70, 0, true},
		{"progress beside a pod that lacks the sidecars", missed, updating(entry("a", v1alpha1.ReportMissing, 1)), 60, 59 * time.Minute, true},
		{"numbers of trouble", missed, entry("a", v1alpha1.ReportMissing, 1), 10, 20 * time.Second, true},
		{"numbers right after a roll-out", current, entry("a", v1alpha1.ReportCurrent, 49), 10, 110 * time.Second, true},
		{"numbers of a new workload", fresh, entry("a", v1alpha1.ReportCurrent, 49), 10, 20 * time.Second, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := builders.At(c.now)
			wait, due := report.Wait(c.before, report.Make(cartKey, []report.Entry{c.entry}, c.before, now), []report.Entry{c.entry}, now)
			if wait != c.wait || due != c.due {
				t.Errorf("wait %s, due %t; want %s, %t", wait, due, c.wait, c.due)
			}
		})
	}
}

// A roll-out takes pods one by one, in each the sidecar is down for 2 s and is judged good after minReadySeconds, and the
// app of one pod is ready again some time after the end.
func TestARollOutOf50PodsCostsAtMost5Writes(t *testing.T) {
	for _, c := range []struct {
		name        string
		pace, trail int
		more        []*builders.PodBuilder
	}{
		{"15 s a pod", 15, 0, nil},
		{"10 min a pod", 600, 0, nil},
		{"a pod that is ready later", 60, 60, nil},
		{"a pod that is ready much later", 60, 3600, nil},
		{"a pod without the sidecars", 60, 60, []*builders.PodBuilder{bare("missed")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before *v1alpha1.SidecarReport
			var said []string
			end := 1000 + 50*c.pace
			for now := 0; now <= end+c.trail+600; now += c.pace / 2 {
				after := atWork(t, c.pace, now, c.more)
				if now >= 600 && now < end+c.trail {
					after.Report.Pods.Ready--
				}
				made := report.Make(cartKey, []report.Entry{after}, before, builders.At(now))
				wait, due := report.Wait(before, made, []report.Entry{after}, builders.At(now))
				if !due || wait > 0 {
					continue
				}
				if before = made; now >= 600 {
					said = append(said, fmt.Sprintf("%s: %d updated, %d ready", made.State, made.Pods.Updated, made.Pods.Ready))
				}
			}
			if len(said) > 5 {
				t.Errorf("%d writes: %s", len(said), strings.Join(said, "; "))
			}
			if p := before.Pods; p.Updated != 50 || p.Ready != 50 {
				t.Errorf("in the end the report says %d updated, %d ready: %s", p.Updated, p.Ready, strings.Join(said, "; "))
			}
		})
	}
}

// atWork is the entry of 50 pods some time after the epoch. From 600 s on another revision is wanted, from 1000 s on the
// pods are upgraded, one each pace.
func atWork(t *testing.T, pace, now int, more []*builders.PodBuilder) report.Entry {
	t.Helper()
	pods, target := slices.Clone(more), r1
	if now >= 600 {
		target = r2
	}
	for i := range 50 {
		pod := old(fmt.Sprintf("cart-%02d", i))
		if at := 1000 + i*pace; now >= at {
			pod.Upgraded(policy, r2, builders.At(at))
			if now >= at+2 {
				pod.Restarted("agent", builders.At(at+2))
			}
		}
		pods = append(pods, pod)
	}
	return entryAt(t, target, builders.At(now), pods...)
}

func TestBoardTellsOfWhatChanged(t *testing.T) {
	var board report.Board
	other := types.NamespacedName{Namespace: "shop", Name: "deployment-other"}
	board.Post("a", map[types.NamespacedName]report.Entry{cartKey: entry("a", v1alpha1.ReportCurrent, 50)}, builders.At(0))
	var told []string
	board.Watch(func(key types.NamespacedName) { told = append(told, key.Name) })
	expect := func(what string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, told); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
		told = nil
	}
	expect("what was posted before", "deployment-cart")
	board.Post("a", map[types.NamespacedName]report.Entry{cartKey: entry("a", v1alpha1.ReportCurrent, 50)}, builders.At(1))
	expect("the same again")
	board.Post("b", map[types.NamespacedName]report.Entry{other: entry("b", v1alpha1.ReportCurrent, 50)}, builders.At(2))
	expect("another workload", "deployment-other")
	board.Post("a", map[types.NamespacedName]report.Entry{cartKey: entry("a", v1alpha1.ReportFailed, 40)}, builders.At(3))
	expect("a change", "deployment-cart")
	board.Withdraw("a", builders.At(4))
	expect("the policy is gone", "deployment-cart")
	if entries, left := board.Of(cartKey); len(entries) != 0 || !left.Equal(builders.At(4)) {
		t.Errorf("%d entries, left at %s", len(entries), left)
	}
	if board.Knows("a") || !board.Knows("b") {
		t.Error("a policy that is gone is known, or one that is there is not")
	}
}
