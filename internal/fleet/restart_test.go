package fleet_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

func TestRestartedAt(t *testing.T) {
	const id = "repo/agent@sha256:aaaa"
	at := func(seconds int) func(*v1alpha1.SidecarTemplate) {
		return func(t *v1alpha1.SidecarTemplate) { t.RestartedAt = &metav1.Time{Time: builders.At(seconds)} }
	}
	later := agent.Clone().With(at(50)).Revision(5)
	latest := agent.Clone().With(at(70)).Revision(6)
	running := func(imageID string) *builders.PodBuilder {
		return builders.Pod("shop", "cart-1").Injected(policy, r1).Restarted("agent", builders.At(10)).
			Status("agent", func(s *corev1.ContainerStatus) { s.ImageID = imageID })
	}
	respelled := running(id).Upgraded(policy, later, builders.At(55)).
		With(func(p *corev1.Pod) { builders.SpecOf(p, "agent").Image = "agent:1@sha256:aaaa" })
	for _, tc := range []struct {
		name   string
		pod    *builders.PodBuilder
		want   string // the image that the pod is to get; empty for none
		target int
		stale  string
	}{
		{"started before it", running(id), "agent:1@sha256:aaaa", 50, ""},
		{"started after it", running(id).Restarted("agent", builders.At(60)).Status("agent", func(s *corev1.ContainerStatus) { s.ImageID = id }), "", 50, ""},
		{"given to the pod already, whatever its node's clock says", respelled, "", 50, ""},
		{"asked for once more", respelled, "agent:1", 70, ""},
		{"no digest to spell", running(""), "", 50, "restartedAt (image agent:1 has no digest"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			target := later
			if tc.target == 70 {
				target = latest
			}
			view := viewAt(100, target, r1, later)
			view.RestartedAt = target.Template.RestartedAt
			got := judgeOne(tc.pod, view)
			images := []string{}
			for _, change := range got.Images {
				images = append(images, change.Image)
			}
			if strings.Join(images, " ") != tc.want {
				t.Errorf("images %v, want %q", images, tc.want)
			}
			if !strings.HasPrefix(got.Stale, tc.stale) || (tc.stale == "" && got.Stale != "") {
				t.Errorf("stale %q, want %q", got.Stale, tc.stale)
			}
		})
	}
}

// Configuration is its namespace's: what changed elsewhere restarts nothing here.
func TestChangedContentRestartsItsNamespaceAlone(t *testing.T) {
	pod := builders.Pod("shop", "cart-1").Injected(policy, r1).Restarted("agent", builders.At(10)).
		Status("agent", func(s *corev1.ContainerStatus) { s.ImageID = "repo/agent@sha256:aaaa" })
	target := agent.Clone().With(func(t *v1alpha1.SidecarTemplate) { t.RestartedAt = &metav1.Time{Time: builders.At(50)} }).Revision(5)
	for _, tc := range []struct {
		name    string
		changed map[string]fleet.Content
		want    int
	}{
		{"here", map[string]fleet.Content{"shop": {ChangedAt: builders.At(50)}}, 1},
		{"elsewhere", map[string]fleet.Content{"office": {ChangedAt: builders.At(50)}, "shop": {}}, 0},
		{"before the sidecar was started", map[string]fleet.Content{"shop": {ChangedAt: builders.At(5)}}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			view := viewAt(100, target, r1)
			view.Contents = tc.changed
			if got := judgeOne(pod, view); len(got.Images) != tc.want {
				t.Errorf("restarts %v, want %d", got.Images, tc.want)
			}
		})
	}
}

func TestNoteContent(t *testing.T) {
	now := builders.At(100)
	known := map[string]fleet.Content{"shop": {Hash: "a"}, "gone": {Hash: "b", ChangedAt: builders.At(1)}}
	for _, tc := range []struct {
		name    string
		seen    map[string]string
		want    map[string]fleet.Content
		changed bool
	}{
		{"the same", map[string]string{"shop": "a"}, known, false},
		{"nothing", nil, known, false},
		{"another", map[string]string{"shop": "c"}, map[string]fleet.Content{"shop": {Hash: "c", ChangedAt: now}, "gone": known["gone"]}, true},
		{"a new namespace has not changed", map[string]string{"shop": "a", "till": "d"},
			map[string]fleet.Content{"shop": {Hash: "a"}, "gone": known["gone"], "till": {Hash: "d"}}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, changed := fleet.NoteContent(known, tc.seen, now)
			if diff := cmp.Diff(tc.want, got); diff != "" || changed != tc.changed {
				t.Errorf("changed %t, remembered (-want +got):\n%s", changed, diff)
			}
		})
	}
	if last := fleet.LastChange(known); !last.Equal(builders.At(1)) {
		t.Errorf("the last change was at %s", last)
	}
}
