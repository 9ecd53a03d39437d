package controllers

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/inject"
)

// replacePod evicts a pod that lacks the sidecars, once a dry run has shown that a new one would have them:
// the webhook may not be reachable, and the pod would be lost for nothing.
func (r *SidecarPolicyReconciler) replacePod(ctx context.Context, p *pass, state *fleet.PodState) error {
	pod, err := r.successor(ctx, state.Pod)
	if err != nil {
		return err
	}
	if pod != nil {
		complete, err := r.tryCreate(ctx, pod)
		if err != nil {
			return err
		}
		if complete && !inject.Injected(pod, p.policy.Name) {
			return apierrors.NewForbidden(corev1.Resource("pods"), state.Pod.Name, errors.New("a new pod of its owner would not get the sidecars either, as a dry run shows: "+
				"see whether the API server reaches the webhook, and whether the owner's template has the labels that the policy selects"))
		}
	}
	return r.evictPod(ctx, state)
}

// missingMessage says how many selected pods lack the sidecars, and what becomes of them; empty where none does.
func missingMessage(p *pass) string {
	counts, m := &p.plan.Summary.Counts, &p.plan.Summary.Missing
	count := counts.Missing - counts.Held
	switch {
	case count == 0:
		return ""
	case p.policy.Spec.Missing != v1alpha1.MissingRecreate || m.Replaceable == 0:
		return fmt.Sprintf("%d selected pods don't have the sidecars and get them when they are recreated", count)
	case m.Message != "":
		return fmt.Sprintf("%d selected pods don't have the sidecars, and none is replaced now: %s", count, m.Message)
	case m.Blocked != "":
		return fmt.Sprintf("%d selected pods don't have the sidecars, and are replaced as far as that is allowed: %s", count, m.Blocked)
	}
	return fmt.Sprintf("%d selected pods don't have the sidecars and are being replaced", count)
}

// missingTrouble is what a person has to look at before pods that lack the sidecars are replaced any further.
func missingTrouble(p *pass) (finding, bool) {
	m := &p.plan.Summary.Missing
	switch {
	case m.Hold == v1alpha1.ReasonTooManyMissing:
		return finding{yes, v1alpha1.ReasonTooManyMissing, m.Message}, true
	case m.InVainCount > 0:
		return finding{yes, v1alpha1.ReasonReplacedInVain, fmt.Sprintf(
			"pods of %s (workloads like this: %d) were replaced, and the new ones lack the sidecars too: see whether the API server reaches the webhook, and whether another webhook takes the sidecars out; "+
				"it is tried again later, one pod of a workload at a time", m.InVain, m.InVainCount)}, true
	}
	return finding{}, false
}

// announceMissing tells the owners of workloads whose pods lack the sidecars, and those of which pods begin to be replaced.
func (r *SidecarPolicyReconciler) announceMissing(p *pass, before, after *v1alpha1.SidecarPolicyStatus) {
	known := map[string]bool{}
	for _, group := range before.Unhealthy {
		known[group.Workload] = known[group.Workload] || group.Reason == v1alpha1.ReasonMissing
	}
	for _, group := range after.Unhealthy {
		if group.Reason == v1alpha1.ReasonMissing && !known[group.Workload] {
			r.tellWorkload(p, group.Workload, corev1.EventTypeWarning, v1alpha1.ReasonMissing,
				"SidecarPolicy %s: %d pods don't have its sidecars: %s", p.policy.Name, group.Pods, group.Message)
		}
	}
	begun := map[string]bool{}
	for _, entry := range before.Replacements {
		begun[entry.Workload] = true
	}
	for _, entry := range after.Replacements {
		if !begun[entry.Workload] {
			r.tellWorkload(p, entry.Workload, corev1.EventTypeNormal, v1alpha1.ReasonReplacing,
				"SidecarPolicy %s: pods that don't have its sidecars are evicted, one first, to be made anew", p.policy.Name)
		}
	}
}

// tellWorkload sends an event about a workload of the fleet; about a bare pod where that is its own.
func (r *SidecarPolicyReconciler) tellWorkload(p *pass, workload, kind string, reason v1alpha1.Reason, note string, args ...any) {
	for i := range p.pods {
		pod := &p.pods[i]
		if pod.Injected || pod.Workload.String() != workload {
			continue
		}
		regarding := &corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: pod.Pod.Namespace, Name: pod.Pod.Name, UID: pod.Pod.UID}
		if top := pod.Top; top != nil {
			regarding = &corev1.ObjectReference{APIVersion: top.APIVersion, Kind: top.Kind, Namespace: pod.Pod.Namespace, Name: top.Name, UID: top.UID}
		}
		r.Recorder.Eventf(regarding, p.policy, kind, string(reason), "Inject", note, args...)
		return
	}
}
