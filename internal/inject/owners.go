package inject

import (
	"fmt"
	"path"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

// owners tells, for a policy that wants to add to a pod, what of the pod other policies have added, by their records. Records
// of older builds name containers alone: the rest counts as the pod's own then.
type owners struct {
	policy string
	// others are in the order of their names.
	others []owner
}

type owner struct {
	policy string
	record *v1alpha1.InjectionRecord
}

func ownersOf(pod *corev1.Pod, policy string) owners {
	o := owners{policy: policy}
	names := v1alpha1.PoliciesOf(pod.Labels)
	slices.Sort(names)
	for _, name := range names {
		if record, err := v1alpha1.ParseInjectionRecord(pod.Annotations, name); name != policy && err == nil && record != nil {
			o.others = append(o.others, owner{name, record})
		}
	}
	return o
}

// first is the first other policy of which it is true; empty where there is none.
func (o *owners) first(added func(*v1alpha1.InjectionRecord) bool) string {
	for i := range o.others {
		if added(o.others[i].record) {
			return o.others[i].policy
		}
	}
	return ""
}

func (o *owners) ofContainer(name string) string {
	return o.first(func(r *v1alpha1.InjectionRecord) bool { return slices.Contains(r.Containers(), name) })
}

func (o *owners) ofVolume(name string) string {
	return o.first(func(r *v1alpha1.InjectionRecord) bool { return slices.Contains(r.Volumes, name) })
}

func (o *owners) ofLabel(key string) string {
	return o.first(func(r *v1alpha1.InjectionRecord) bool { return slices.Contains(r.Labels, key) })
}

func (o *owners) ofAnnotation(key string) string {
	return o.first(func(r *v1alpha1.InjectionRecord) bool { return slices.Contains(r.Annotations, key) })
}

func (o *owners) ofMount(container, at string) string {
	return o.first(func(r *v1alpha1.InjectionRecord) bool {
		return slices.ContainsFunc(broughtTo(container, r).MountPaths, func(p string) bool { return path.Clean(p) == path.Clean(at) })
	})
}

func (o *owners) ofEnv(container, name string) string {
	return o.first(func(r *v1alpha1.InjectionRecord) bool { return slices.Contains(broughtTo(container, r).Env, name) })
}

// broughtTo is what a policy brought for one container of the app.
func broughtTo(container string, r *v1alpha1.InjectionRecord) v1alpha1.AppRecord {
	all, one := r.App["*"], r.App[container]
	return v1alpha1.AppRecord{Env: slices.Concat(all.Env, one.Env), MountPaths: slices.Concat(all.MountPaths, one.MountPaths)}
}

// clash is about something that the pod has and the policy wants to add: own says so where the holder is no other
// policy. Of two policies the one whose name comes first has it, since that is the order in which they are asked.
func (o *owners) clash(reason v1alpha1.Reason, holder, what, own string) Conflict {
	if holder == "" {
		return Conflict{Reason: reason, Message: own}
	}
	why := holder + " has it, since its name comes first"
	if holder > o.policy {
		why = fmt.Sprintf("in this pod %s has it, in a new one %s does, since its name comes first", holder, o.policy)
	}
	both := [...]string{min(holder, o.policy), max(holder, o.policy)}
	return Conflict{Reason: reason, Policy: holder,
		Message: fmt.Sprintf("SidecarPolicies %s and %s both bring %s: %s", both[0], both[1], what, why)}
}
