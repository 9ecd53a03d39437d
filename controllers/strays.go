package controllers

import (
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
)

// strays are the pods that carry the policy's sidecars and that it does not select: their labels or those of
// their namespace were changed. Where they are recreated, their companions are what else belongs to their workloads.
func (s *scout) strays(ctx context.Context) (deselected, companions []fleet.Member, err error) {
	namespaces, err := s.namespaces(ctx)
	if err != nil {
		return nil, nil, err
	}
	carrying, err := s.r.Pods.Carrying(ctx, s.p.policy.Name)
	if err != nil {
		return nil, nil, fmt.Errorf("listing pods that carry the sidecars: %w", err)
	}
	for _, pod := range inOrder(carrying, func(pod *corev1.Pod) bool { return !s.selects(namespaces[pod.Namespace], pod) }) {
		if deselected, err = s.add(ctx, deselected, namespaces[pod.Namespace], pod, nil); err != nil {
			return nil, nil, err
		}
	}
	if s.p.policy.Spec.OnRemoval != v1alpha1.RemovalRecreate {
		return deselected, nil, nil
	}
	companions, err = s.companions(ctx, namespaces, deselected)
	return deselected, companions, err
}

// namespaces are all of the cluster, by name.
func (s *scout) namespaces(ctx context.Context) (map[string]*corev1.Namespace, error) {
	list := &corev1.NamespaceList{}
	if err := s.r.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing namespaces: %w", err)
	}
	namespaces := make(map[string]*corev1.Namespace, len(list.Items))
	for i := range list.Items {
		namespaces[list.Items[i].Name] = &list.Items[i]
	}
	return namespaces, nil
}

// selects says whether the policy selects the pod. One of a namespace that is not known yet is not looked at.
func (s *scout) selects(namespace *corev1.Namespace, pod *corev1.Pod) bool {
	if namespace == nil {
		return true
	}
	selector := s.selector.In(namespace.Labels)
	return selector != nil && selector.Matches(labels.Set(pod.Labels))
}

// companions are the pods of workloads that lose sidecars, besides those that do. Those that the policy selects are of the fleet.
func (s *scout) companions(ctx context.Context, namespaces map[string]*corev1.Namespace, deselected []fleet.Member) ([]fleet.Member, error) {
	known := map[types.UID]bool{}
	for _, member := range slices.Concat(deselected, s.p.leaving) {
		known[member.Pod.UID] = true
	}
	workloads, homes := s.unplugged(deselected)
	var companions []fleet.Member
	for _, home := range homes {
		namespace := namespaces[home]
		pods, err := s.r.present(ctx, home, func(pod *corev1.Pod) bool { return !known[pod.UID] && !s.selects(namespace, pod) })
		if err != nil {
			return nil, err
		}
		for _, pod := range pods {
			info, err := s.resolver.Of(ctx, home, pod)
			if err != nil {
				return nil, err
			}
			if !workloads[workloadOf(pod, info.Owner).String()] {
				continue
			}
			if companions, err = s.add(ctx, companions, namespace, pod, nil); err != nil {
				return nil, err
			}
		}
	}
	return companions, nil
}

// unplugged are the workloads that lose sidecars, by name, and their namespaces.
func (s *scout) unplugged(deselected []fleet.Member) (workloads map[string]bool, homes []string) {
	workloads = map[string]bool{}
	for _, workload := range s.p.policy.Status.Unplugging {
		workloads[workload] = true
	}
	for i := range deselected {
		workloads[deselected[i].Workload.String()] = true
	}
	seen := map[string]bool{}
	for name := range workloads {
		seen[fleet.NamespaceOf(name)] = true
	}
	return workloads, slices.Sorted(maps.Keys(seen))
}

// stillCarrying counts the pods with the policy's sidecars that have not stopped yet.
func (p *pass) stillCarrying() int {
	n := 0
	for i := range p.leaving {
		if p.leaving[i].Pod.Labels[v1alpha1.RevisionLabel(p.policy.Name)] != "" {
			n++
		}
	}
	return n + p.plan.Summary.Unplug.Carrying
}

// held are the pods that wait for the sidecars of a policy that is gone.
func held(pods []*corev1.Pod, policy string) []*fleet.PodState {
	return statesOf(pods, func(pod *corev1.Pod) bool { return v1alpha1.HoldGateIndex(pod, policy) >= 0 })
}

// shut are the pods of a policy that is gone which its readiness gate keeps out of their endpoints.
func shut(pods []*corev1.Pod, policy string) []*fleet.PodState {
	return statesOf(pods, func(pod *corev1.Pod) bool { return pod.DeletionTimestamp == nil && fleet.Shut(pod, policy) })
}

// statesOf wraps the pods that are wanted, for writes that need no judgement.
func statesOf(pods []*corev1.Pod, wanted func(*corev1.Pod) bool) []*fleet.PodState {
	var states []*fleet.PodState
	for _, pod := range pods {
		if wanted(pod) {
			states = append(states, &fleet.PodState{Member: fleet.Member{Pod: pod}})
		}
	}
	return states
}
