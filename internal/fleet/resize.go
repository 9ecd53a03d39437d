package fleet

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/resources"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
)

// Resize is one container of a pod that lacks the target's resources.
type Resize struct {
	// Container is the name of the container.
	Container string
	// Native and Index are its place, as in ImageChange.
	Native bool
	Index  int
	// Had is what the container has of cpu and memory, Changes what is to become of it.
	Had     corev1.ResourceRequirements
	Changes []resources.Change
	// Restarts: the container's resizePolicy makes the kubelet restart it for them. Image and
	// ContainerID are then what runs before.
	Restarts           bool
	Image, ContainerID string
}

// sizes says which resources the target asks for. A policy of which no sidecar names any costs nothing.
type sizes struct {
	view *View
	// wanted are the effective resources of the target's sidecars, by name.
	wanted map[string]corev1.ResourceRequirements
}

func newSizes(view *View) sizes {
	s := sizes{view: view, wanted: map[string]corev1.ResourceRequirements{}}
	for i := range view.Target.Template.Sidecars {
		sidecar := &view.Target.Template.Sidecars[i]
		if len(sidecar.Resources.Requests)+len(sidecar.Resources.Limits) > 0 {
			s.wanted[sidecar.Name] = resources.Effective(sidecar.Resources)
		}
	}
	return s
}

// due are the sidecars in the pod of which a change of the template is to change the resources. What
// somebody else gave them (a LimitRange, a vertical autoscaler, a person) stays until then: the
// operator's own upgrade must not resize a fleet.
func (s sizes) due(pod *corev1.Pod, injected *v1alpha1.InjectionRecord, given string, upgrade *v1alpha1.UpgradeRecord) []Resize {
	if len(s.wanted) == 0 {
		return nil
	}
	var due []Resize
	for i := range s.view.Target.Template.Sidecars {
		name := s.view.Target.Template.Sidecars[i].Name
		want, named := s.wanted[name]
		container, native, index := find(pod, name)
		if !named || container == nil || !slices.Contains(injected.Sidecars, name) {
			continue
		}
		changes := slices.DeleteFunc(resources.Changes(container.Resources, want), func(c resources.Change) bool {
			return injected.Overrides[name].Resources.Names(c.Name) // they are the owner's
		})
		if len(changes) == 0 || !s.reachable(injected.Revision, name) || !s.asked(container, given, upgrade) {
			continue
		}
		due = append(due, Resize{Container: name, Native: native, Index: index, Had: had(changes), Changes: changes,
			Restarts: resources.Restarts(container.ResizePolicy, changes), Image: container.Image, ContainerID: containerID(pod, name)})
	}
	return due
}

// reachable says whether a resize leads from what the pod was created with to the target. Where it
// does not, the pod is stale for it, and none of it is changed.
func (s sizes) reachable(born, name string) bool {
	before, known := s.resourcesIn(born, name)
	return !known || resources.Resizable(before, s.wanted[name])
}

// asked says whether the template has changed since the pod was given a revision, or the container
// still has what the change then begun found.
func (s sizes) asked(container *corev1.Container, given string, upgrade *v1alpha1.UpgradeRecord) bool {
	before, known := s.resourcesIn(given, container.Name)
	if !known || !resources.Equal(before, s.wanted[container.Name]) {
		return true
	}
	return upgrade != nil && unsent(container, upgrade.Resizes)
}

// unsent says whether the container still has the resources that a resize was to change.
func unsent(container *corev1.Container, resizes map[string]corev1.ResourceRequirements) bool {
	had, noted := resizes[container.Name]
	return noted && len(resources.Changes(container.Resources, had)) == 0
}

// resourcesIn are those of a sidecar in one of the policy's revisions.
func (s sizes) resourcesIn(hash, name string) (corev1.ResourceRequirements, bool) {
	r := revision.Get(s.view.Revisions, hash)
	if r == nil {
		return corev1.ResourceRequirements{}, false
	}
	for i := range r.Template.Sidecars {
		if r.Template.Sidecars[i].Name == name {
			return r.Template.Sidecars[i].Resources, true
		}
	}
	return corev1.ResourceRequirements{}, false
}

// had is what the changes start from.
func had(changes []resources.Change) corev1.ResourceRequirements {
	r := corev1.ResourceRequirements{}
	for _, change := range changes {
		list := &r.Requests
		if change.List == "limits" {
			list = &r.Limits
		}
		if *list == nil {
			*list = corev1.ResourceList{}
		}
		(*list)[change.Name] = change.Have
	}
	return r
}

// resize takes over what is due where pod and node can, and calls the pod stale where they can't.
func (p *PodState) resize(due []Resize) {
	if len(due) == 0 {
		return
	}
	why := p.unresizable(due)
	if why == "" {
		p.Resizes = due
		return
	}
	p.Unresized = due
	for _, r := range due {
		p.addStale(fmt.Sprintf("sidecars[%s].resources (%s)", r.Container, why))
	}
}

// unresizable says why the pod can't be resized; empty when it can.
func (p *PodState) unresizable(due []Resize) string {
	spec := &p.Pod.Spec
	switch {
	case p.Node.NoResize != "":
		return p.Node.NoResize
	case p.Node.Labels[corev1.LabelOSStable] == string(corev1.Windows) || (spec.OS != nil && spec.OS.Name == corev1.Windows):
		return "a pod on Windows can't be resized"
	case spec.Resources != nil && len(spec.Resources.Requests)+len(spec.Resources.Limits) > 0:
		return "the pod has resources of its own"
	}
	containers := slices.Concat(spec.InitContainers, spec.Containers)
	class := p.Pod.Status.QOSClass
	if class == "" {
		class = resources.QOSClass(containers)
	}
	for _, r := range due {
		i := slices.IndexFunc(containers, func(c corev1.Container) bool { return c.Name == r.Container })
		containers[i].Resources = resources.Apply(containers[i].Resources, r.Changes)
	}
	if after := resources.QOSClass(containers); after != class {
		return fmt.Sprintf("a resize may not change the pod's QoS class from %s to %s", class, after)
	}
	return ""
}

// resized looks at one resized container. What the kubelet does not report as done and has no
// condition about is as it rounds it.
func (p *progress) resized(pod *corev1.Pod, name string, status *corev1.ContainerStatus, had corev1.ResourceRequirements) {
	container, _, _ := find(pod, name)
	if container == nil || status == nil || len(resources.Changes(container.Resources, had)) == 0 {
		return // the request is still to come
	}
	if status.Resources != nil && len(resources.Changes(*status.Resources, container.Resources)) == 0 {
		return
	}
	for _, kind := range []corev1.PodConditionType{corev1.PodResizePending, corev1.PodResizeInProgress} {
		condition := podCondition(pod, kind)
		if !isTrue(condition) {
			continue
		}
		if p.waiting == "" {
			p.reason = v1alpha1.ReasonResizeFailed
		}
		p.waitFor("the kubelet has not resized sidecar %q (%s)", name, words(condition))
	}
}

// words are the kubelet's.
func words(condition *corev1.PodCondition) string {
	text := string(condition.Type)
	for _, word := range []string{condition.Reason, condition.Message} {
		if word != "" {
			text += ": " + word
		}
	}
	return text
}
