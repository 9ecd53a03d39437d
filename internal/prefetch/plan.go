package prefetch

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Want is a pod that needs images before it can be upgraded.
type Want struct {
	Pod    *corev1.Pod
	Images []Image
}

// Plan is what to do about prefetch pods.
type Plan struct {
	// Create and Delete are whole pods.
	Create, Delete []*corev1.Pod
	// Requeue is when time alone changes something; zero when nothing but an event does.
	Requeue time.Duration
}

// Plan decides which prefetch pods there should be. Wants are all pods of the current step that
// have not been upgraded yet, also those whose images are present, since what nothing wants
// is deleted. Those at the front are served first.
func (v *View) Plan(wants []Want) Plan {
	plan := Plan{}
	pulling := v.pulling()
	wanted := map[types.NamespacedName]bool{}
	for _, w := range wants {
		if !v.prefetchable(w) {
			continue
		}
		key := v.key(w.Pod, w.Images)
		if wanted[key] {
			continue
		}
		wanted[key] = true
		if v.prefetches[key] != nil || v.refused(w.Pod.Namespace) || v.runsOnNode(w.Pod, w.Images) {
			continue
		}
		if pulling[w.Pod.Spec.NodeName] || len(pulling) < MaxNodes {
			pulling[w.Pod.Spec.NodeName] = true
			plan.Create = append(plan.Create, v.render(w.Pod, w.Images))
		}
	}
	plan.Delete = v.unneeded(wanted)
	plan.Requeue = v.requeue(wanted)
	return plan
}

// prefetchable says whether a prefetch pod can do something for a pod now.
func (v *View) prefetchable(w Want) bool {
	node := v.nodes[w.Pod.Spec.NodeName]
	return v.in.Mode != Never && len(w.Images) > 0 && node != nil && ready(node) && v.unable(node) == ""
}

func (v *View) refused(namespace string) bool {
	refusal, ok := v.in.Refusals[namespace]
	return ok && v.in.Now.Before(refusal.Until)
}

// pulling are the nodes that pull now, for whatever revision of the policy. A kubelet goes on
// trying what has failed.
func (v *View) pulling() map[string]bool {
	nodes := map[string]bool{}
	for _, p := range v.prefetches {
		ended := p.verdict.presence == Present || p.pod.Status.Phase == corev1.PodFailed
		if !ended && p.pod.DeletionTimestamp == nil {
			nodes[p.pod.Spec.NodeName] = true
		}
	}
	return nodes
}

// unneeded are the prefetch pods that nothing wants, and those that another one should replace.
func (v *View) unneeded(wanted map[types.NamespacedName]bool) []*corev1.Pod {
	var pods []*corev1.Pod
	for key, p := range v.prefetches {
		if p.pod.DeletionTimestamp == nil && (!wanted[key] || p.verdict.spent) {
			pods = append(pods, p.pod)
		}
	}
	slices.SortFunc(pods, func(a, b *corev1.Pod) int {
		if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	return pods
}

// requeue is the time until the first deadline or retry of something wanted.
func (v *View) requeue(wanted map[types.NamespacedName]bool) time.Duration {
	var first time.Time
	at := func(t time.Time) {
		if t.After(v.in.Now) && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	for key := range wanted {
		if p := v.prefetches[key]; p != nil {
			at(p.verdict.recheck)
		} else if refusal, ok := v.in.Refusals[key.Namespace]; ok {
			at(refusal.Until)
		}
	}
	if first.IsZero() {
		return 0
	}
	return first.Sub(v.in.Now)
}
