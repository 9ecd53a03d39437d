package fleet

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/image"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
)

// restart adds the sidecars that have run since before the target's restartedAt: the image in another
// spelling. Once the pod was given the target that is done, whatever the clocks of nodes say.
func (p *PodState) restart(sidecars []string, given string, view *View) {
	token := view.Target.Template.RestartedAt
	if token == nil || restartedBy(given, token, view.Revisions) {
		return
	}
	at := view.restartFor(p.Pod.Namespace)
	for i := range view.Target.Template.Sidecars {
		sidecar := &view.Target.Template.Sidecars[i]
		if slices.Contains(sidecars, sidecar.Name) && !p.changes(sidecar.Name) {
			p.restartOne(sidecar, at)
		}
	}
}

func (p *PodState) restartOne(sidecar *v1alpha1.Sidecar, at *metav1.Time) {
	container, native, index := find(p.Pod, sidecar.Name)
	status := statusOf(p.Pod, sidecar.Name)
	if container == nil || status == nil || status.State.Running == nil || !status.State.Running.StartedAt.Before(at) {
		return
	}
	spelled, err := image.Respell(container.Image, sidecar.Image, status.ImageID)
	if err != nil {
		p.addStale(fmt.Sprintf("restartedAt (%v)", err))
		return
	}
	p.Images = append(p.Images, ImageChange{Container: sidecar.Name, Native: native, Index: index,
		Image: spelled, Running: container.Image, ContainerID: status.ContainerID})
}

// restartFor is the time before which sidecars of a namespace must not have been started: the
// author's or, where the target is for changed configuration, that of the namespace's.
func (v *View) restartFor(namespace string) *metav1.Time {
	at := v.RestartedAt
	if content, ok := v.Contents[namespace]; ok && (at == nil || content.ChangedAt.After(at.Time)) {
		at = &metav1.Time{Time: content.ChangedAt}
	}
	if at == nil {
		at = &metav1.Time{}
	}
	return at
}

// changes says whether the container gets another image anyway, which restarts it.
func (p *PodState) changes(container string) bool {
	return slices.ContainsFunc(p.Images, func(c ImageChange) bool { return c.Container == container })
}

func restartedBy(given string, at *metav1.Time, revisions []revision.Revision) bool {
	r := revision.Get(revisions, given)
	return r != nil && r.Template.RestartedAt != nil && !r.Template.RestartedAt.Before(at)
}
