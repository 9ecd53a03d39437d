package fleet_test

import (
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

// Each case changes one thing by which the pod is judged otherwise.
func TestRejudgeSeesWhatHasChanged(t *testing.T) {
	restart := agent.Clone().With(func(t *v1alpha1.SidecarTemplate) { t.RestartedAt = &metav1.Time{Time: builders.At(50)} }).Revision(5)
	debug := agent.Clone().Env("LEVEL", "debug").Revision(3)
	running := builders.Pod("shop", "cart-1").Injected(policy, r1).Restarted("agent", builders.At(10)).
		Status("agent", func(s *corev1.ContainerStatus) { s.ImageID = "repo/agent@sha256:aaaa" })
	newborn := builders.Pod("shop", "cart-1").Injected(policy, r2).NotReady(builders.At(100))
	late := func(v *fleet.View) { v.Now = builders.At(500) }
	rollout := func(v *fleet.View) { late(v); v.Watching = true }
	contents := func(seconds int) map[string]fleet.Content {
		return map[string]fleet.Content{"shop": {ChangedAt: builders.At(seconds)}}
	}
	for _, tc := range []struct {
		name   string
		pod    *builders.PodBuilder
		view   *fleet.View
		before func(*fleet.View)
		change func(*fleet.View, *fleet.Member)
	}{
		{"the pod", upgraded(), viewAt(500, r2, r1), late, func(_ *fleet.View, m *fleet.Member) {
			m.Pod = restarted().With(func(p *corev1.Pod) { p.ResourceVersion = "2" }).Obj()
		}},
		{"another pod of the name", upgraded(), viewAt(500, r2, r1), late, func(_ *fleet.View, m *fleet.Member) {
			m.Pod = restarted().With(func(p *corev1.Pod) { p.UID = "another" }).Obj()
		}},
		{"the time", upgraded(), viewAt(101, r2, r1), nil, func(v *fleet.View, _ *fleet.Member) { late(v) }},
		{"the target", running, viewAt(100, r1, r2), nil, func(v *fleet.View, _ *fleet.Member) { v.Target = r2 }},
		{"the revision of birth is gone", running, viewAt(100, debug, r1), nil, func(v *fleet.View, _ *fleet.Member) { v.Revisions = v.Revisions[1:] }},
		{"the deadline", upgraded(), viewAt(500, r2, r1), nil, func(v *fleet.View, _ *fleet.Member) {
			v.Health = map[string]*v1alpha1.HealthSpec{policy: builders.Health(10, 900)}
		}},
		{"restartedAt", running, viewAt(100, restart, r1), func(v *fleet.View) { v.RestartedAt = &metav1.Time{Time: builders.At(5)} },
			func(v *fleet.View, _ *fleet.Member) { v.RestartedAt = &metav1.Time{Time: builders.At(50)} }},
		{"the configuration", running, viewAt(100, restart, r1), func(v *fleet.View) { v.Contents = contents(5) },
			func(v *fleet.View, _ *fleet.Member) { v.Contents = contents(50) }},
		{"a roll-out begins", newborn, viewAt(500, r2, r1), late, func(v *fleet.View, _ *fleet.Member) { v.Watching = true }},
		{"a roll-out is tried again", newborn.Clone().With(func(p *corev1.Pod) { p.CreationTimestamp = metav1.NewTime(builders.At(1)) }), viewAt(500, r2, r1), rollout,
			func(v *fleet.View, _ *fleet.Member) { v.WatchedSince = builders.At(490) }},
		{"the node is away", upgraded(), viewAt(500, r2, r1), late, func(_ *fleet.View, m *fleet.Member) { m.Node.Down = true }},
		{"the node is back", upgraded(), viewAt(500, r2, r1), late, func(_ *fleet.View, m *fleet.Member) { m.Node.UpSince = builders.At(490) }},
		{"the owner is at rest", newborn, viewAt(500, r2, r1), rollout, func(_ *fleet.View, m *fleet.Member) { m.Owner.Settled = false }},
		{"the kubelet", running, viewAt(100, r2, r1), nil, func(_ *fleet.View, m *fleet.Member) { m.Node.OldKubelet = "1.31" }},
		{"resizes", burstable(sized("50m")), viewAt(100, large, small), nil, func(_ *fleet.View, m *fleet.Member) { m.Node.NoResize = "no" }},
		{"the operating system", burstable(sized("50m")), viewAt(100, large, small), nil, func(_ *fleet.View, m *fleet.Member) {
			m.Node.Labels = map[string]string{corev1.LabelOSStable: "windows"}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			view := *tc.view
			if tc.before != nil {
				tc.before(&view)
			}
			member := fleet.Member{Pod: tc.pod.Obj(), Owner: fleet.Owner{UID: "rs", Settled: true}}
			last := fleet.Rejudge(nil, []fleet.Member{member}, &view)
			tc.change(&view, &member)
			want := fleet.Judge([]fleet.Member{member}, &view)
			ignoreMember := cmpopts.IgnoreFields(fleet.PodState{}, "Member")
			if cmp.Equal(last.Pods, want, ignoreMember) {
				t.Fatal("the change changes nothing: this case can't fail")
			}
			if diff := cmp.Diff(want, fleet.Rejudge(last, []fleet.Member{member}, &view).Pods, ignoreMember); diff != "" {
				t.Errorf("Rejudge (-Judge +Rejudge):\n%s", diff)
			}
		})
	}
}

// What the pod's team and the API server say is not judged, and always taken from the member.
func TestRejudgeKeepsTheMemberOfNow(t *testing.T) {
	member := fleet.Member{Pod: builders.Pod("shop", "cart-1").Injected(policy, r1).Obj()}
	gone := fleet.Member{Pod: builders.Pod("shop", "a").Injected(policy, r1).Obj()}
	last := fleet.Rejudge(nil, []fleet.Member{gone, member}, viewAt(100, r1))
	member.Exempt, member.Refusal = true, &fleet.Refusal{Message: "no"}
	fresh := fleet.Member{Pod: builders.Pod("shop", "b").Injected(policy, r1).Obj()}
	got := fleet.Rejudge(last, []fleet.Member{member, fresh}, viewAt(100, r1)).Pods
	if !reflect.DeepEqual([]fleet.Member{got[0].Member, got[1].Member}, []fleet.Member{fresh, member}) {
		t.Errorf("members %v, want b and cart-1, as they are", got)
	}
}
