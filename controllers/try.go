package controllers

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/inject"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
)

// +kubebuilder:rbac:groups=apps,resources=replicasets;statefulsets;daemonsets,verbs=get

// try asks the API server what it would say to an upgrade, before anything moves: Pod Security,
// a quota or a webhook may refuse it.
func (r *SidecarPolicyReconciler) try(ctx context.Context, p *pass, u *rollout.Upgrade) error {
	if u.Recreate {
		return r.tryAnew(ctx, p, u.Pod)
	}
	patch, err := json.Marshal(u.Patch(p.policy.Name, p.now))
	if err != nil {
		return err
	}
	if err := r.Patch(ctx, named(u.Pod), client.RawPatch(types.JSONPatchType, patch), client.DryRunAll, client.DisableReadYourWritesConsistency); err != nil {
		return err
	}
	return r.resizePod(ctx, u, client.DryRunAll, client.DisableReadYourWritesConsistency)
}

// tryAnew tries a new pod of the owner's template with the target's sidecars.
func (r *SidecarPolicyReconciler) tryAnew(ctx context.Context, p *pass, state *fleet.PodState) error {
	pod, err := r.successor(ctx, state.Pod)
	if err != nil || pod == nil {
		return err
	}
	additions, conflicts := inject.Render(pod, p.policy.Name, p.aim.Target, p.policy.Spec.Injection.Overrides...)
	if len(conflicts) > 0 {
		return apierrors.NewForbidden(corev1.Resource("pods"), state.Pod.Name, fmt.Errorf("the sidecars clash with what the pod has: %s", inject.Explain(conflicts)))
	}
	additions.Apply(pod)
	_, err = r.tryCreate(ctx, pod)
	return err
}

// successor is the pod that comes in a pod's place, as its owner makes it; nil where that is not known.
func (r *SidecarPolicyReconciler) successor(ctx context.Context, of *corev1.Pod) (*corev1.Pod, error) {
	template, err := r.templateOf(ctx, of)
	if err != nil || template == nil {
		return nil, err
	}
	pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
	pod.GenerateName, pod.Namespace, pod.OwnerReferences = "template-check-", of.Namespace, of.OwnerReferences
	return pod, nil
}

// tryCreate tries a pod as a dry run, and says whether the pod then is as it would be. A quota that is used up
// is none to worry about: the eviction makes room.
func (r *SidecarPolicyReconciler) tryCreate(ctx context.Context, pod *corev1.Pod) (complete bool, err error) {
	err = r.Create(ctx, pod, client.DryRunAll, client.DisableReadYourWritesConsistency)
	if apierrors.IsForbidden(err) && strings.Contains(err.Error(), "exceeded quota") {
		return false, nil
	}
	return err == nil, err
}

// templateOf reads what the pod's owner makes pods of; nil where it is of a kind that is not known.
func (r *SidecarPolicyReconciler) templateOf(ctx context.Context, pod *corev1.Pod) (*corev1.PodTemplateSpec, error) {
	owner := metav1.GetControllerOfNoCopy(pod)
	if owner == nil || !strings.HasPrefix(owner.APIVersion, "apps/") {
		return nil, nil
	}
	object := &unstructured.Unstructured{}
	object.SetAPIVersion(owner.APIVersion)
	object.SetKind(owner.Kind)
	if err := r.Live.Get(ctx, client.ObjectKey{Namespace: pod.Namespace, Name: owner.Name}, object); err != nil {
		return nil, err
	}
	content, found, err := unstructured.NestedMap(object.Object, "spec", "template")
	if err != nil || !found {
		return nil, err
	}
	template := &corev1.PodTemplateSpec{}
	return template, runtime.DefaultUnstructuredConverter.FromUnstructured(content, template)
}

// refuseWorkload takes the answer about one pod for all of its workload.
func (r *SidecarPolicyReconciler) refuseWorkload(p *pass, tried *fleet.PodState) {
	refusals := r.refusals.of(p.policy.Name)
	refusal := refusals.fresh(tried.Pod)
	if refusal == nil {
		return
	}
	for i := range p.pods {
		if pod := &p.pods[i]; pod.Workload == tried.Workload && pod.Pod.UID != tried.Pod.UID {
			refusals.add(pod.Pod, fmt.Errorf("%s", refusal.Message), p.now)
		}
	}
}
