package report_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/report"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

const policy = "logs"

var (
	agent = builders.Template("agent", "agent:1")
	r1    = agent.Revision(1)
	r2    = agent.Clone().Image("agent:2").Revision(2)
	r3    = agent.Clone().Image("agent:2").With(func(t *v1alpha1.SidecarTemplate) {
		t.Sidecars[0].Env = []corev1.EnvVar{{Name: "LEVEL", Value: "debug"}}
	}).Revision(3)
	cart    = fleet.Workload{Kind: "Deployment", Namespace: "shop", Name: "cart"}
	cartKey = types.NamespacedName{Namespace: "shop", Name: "deployment-cart"}
	owner   = &metav1.OwnerReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "cart", UID: "cart-uid", Controller: ptr.To(true)}
)

// entryOf is what the policy says about the workload cart of these pods, 200 s after the epoch.
func entryOf(t *testing.T, target *revision.Revision, pods ...*builders.PodBuilder) report.Entry {
	t.Helper()
	return entryAt(t, target, builders.At(200), pods...)
}

func entryAt(t *testing.T, target *revision.Revision, now time.Time, pods ...*builders.PodBuilder) report.Entry {
	t.Helper()
	view := &fleet.View{Policy: policy, Target: target, Now: now, Revisions: []revision.Revision{*r1, *r2, *r3},
		Health: map[string]*v1alpha1.HealthSpec{policy: builders.Health(10, 60)}}
	var members []fleet.Member
	for _, pod := range pods {
		members = append(members, fleet.Member{Pod: pod.Obj(), Workload: cart, Top: owner})
	}
	entries := report.Entries(policy, target, fleet.Judge(members, view))
	if len(entries) != 1 {
		t.Fatalf("%d entries, want one: %v", len(entries), entries)
	}
	return entries[cartKey]
}

func old(name string) *builders.PodBuilder { return builders.Pod("shop", name).Injected(policy, r1) }

// upgraded was patched at 100 s; its sidecar runs again since the given time, or never.
func upgraded(name string, restarted int) *builders.PodBuilder {
	pod := old(name).Upgraded(policy, r2, builders.At(100))
	if restarted > 0 {
		pod.Restarted("agent", builders.At(restarted))
	}
	return pod
}

func bare(name string) *builders.PodBuilder { return builders.Pod("shop", name) }

func TestStateIsTheWorstOfTheWorkloadsPods(t *testing.T) {
	for _, c := range []struct {
		name   string
		target *revision.Revision
		pods   []*builders.PodBuilder
		want   v1alpha1.ReportedPolicy
	}{
		{"all run what is wanted", r1, []*builders.PodBuilder{old("a"), old("b")},
			v1alpha1.ReportedPolicy{State: v1alpha1.ReportCurrent, Pods: v1alpha1.ReportCounts{Selected: 2, Updated: 2, Ready: 2}}},
		{"the roll-out has not come here", r2, []*builders.PodBuilder{old("a"), old("b")},
			v1alpha1.ReportedPolicy{State: v1alpha1.ReportWaiting, Pods: v1alpha1.ReportCounts{Selected: 2, Ready: 2}}},
		{"the first is being upgraded", r2, []*builders.PodBuilder{upgraded("a", 195), old("b")},
			v1alpha1.ReportedPolicy{State: v1alpha1.ReportUpdating, Pods: v1alpha1.ReportCounts{Selected: 2, Ready: 1}}},
		{"the first was, and nothing moves at the moment", r2, []*builders.PodBuilder{upgraded("a", 102), old("b")},
			v1alpha1.ReportedPolicy{State: v1alpha1.ReportUpdating, Pods: v1alpha1.ReportCounts{Selected: 2, Updated: 1, Ready: 2}}},
		{"one failed", r2, []*builders.PodBuilder{upgraded("a", 0), upgraded("b", 102)},
			v1alpha1.ReportedPolicy{State: v1alpha1.ReportFailed, Reason: v1alpha1.ReasonDeadlineExceeded, Pods: v1alpha1.ReportCounts{Selected: 2, Updated: 1, Ready: 1, Failed: 1}}},
		{"one was missed", r1, []*builders.PodBuilder{old("a"), bare("b")},
			v1alpha1.ReportedPolicy{State: v1alpha1.ReportMissing, Reason: v1alpha1.ReasonMissing, Pods: v1alpha1.ReportCounts{Selected: 2, Updated: 1, Ready: 1, Missing: 1}}},
		{"one needs a new pod", r3, []*builders.PodBuilder{upgraded("a", 102)},
			v1alpha1.ReportedPolicy{State: v1alpha1.ReportStale, Reason: v1alpha1.ReasonStale, Pods: v1alpha1.ReportCounts{Selected: 1, Ready: 1}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := entryOf(t, c.target, c.pods...).Report
			got = v1alpha1.ReportedPolicy{State: got.State, Reason: got.Reason, Pods: got.Pods, Message: got.Message}
			if c.want.Reason != "" {
				if got.Message == "" {
					t.Error("a reason without a message")
				}
				got.Message = ""
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestVersionsWantedAndRunning(t *testing.T) {
	got := entryOf(t, r2, old("a"), upgraded("b", 102), upgraded("c", 102), bare("d")).Report
	want := []v1alpha1.ReportedSidecar{{Name: "agent", Wanted: "agent:2", Running: []v1alpha1.RunningImage{{Image: "agent:2", Pods: 2}, {Image: "agent:1", Pods: 1}}}}
	if diff := cmp.Diff(want, got.Sidecars); diff != "" {
		t.Error(diff)
	}
	if got.Revision != r2.Hash || !got.LastChangeTime.Time.Equal(builders.At(100)) {
		t.Errorf("revision %s, last change %s", got.Revision, got.LastChangeTime)
	}
}

func TestOwner(t *testing.T) {
	got := entryOf(t, r1, old("a")).Workload
	if diff := cmp.Diff(metav1.OwnerReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "cart", UID: "cart-uid"}, got); diff != "" {
		t.Errorf("an owner, and not its controller: %s", diff)
	}
	pod := old("lonely").Obj()
	pod.UID = "pod-uid"
	lonely := fleet.Workload{Kind: "Pod", Namespace: "shop", Name: "lonely"}
	entries := report.Entries(policy, r1, fleet.Judge([]fleet.Member{{Pod: pod, Workload: lonely}}, &fleet.View{Policy: policy, Target: r1}))
	entry, ok := entries[types.NamespacedName{Namespace: "shop", Name: "pod-lonely"}]
	if diff := cmp.Diff(metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: "lonely", UID: "pod-uid"}, entry.Workload); !ok || diff != "" {
		t.Error("a bare pod is its own workload:", diff)
	}
}

func TestKeyOfALongNameFitsAndTellsWorkloadsApart(t *testing.T) {
	long := fleet.Workload{Kind: "StatefulSet", Namespace: "shop", Name: strings.Repeat("a", 252)}
	first, other := report.KeyOf(long), long
	other.Name = strings.Repeat("a", 251) + "b"
	if len(first.Name) > 253 || first == report.KeyOf(other) {
		t.Errorf("%d characters: %s", len(first.Name), first.Name)
	}
}
