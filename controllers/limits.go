package controllers

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/admissionpolicy"
	"github.com/sidecar-dev/sidecar-operator/internal/limits"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
)

// compile is what the API server has to know to inject by itself.
func (r *SidecarPolicyReconciler) compile(ctx context.Context, p *pass, births rollout.Births) (*admissionpolicy.Registration, error) {
	selector, err := r.selector(ctx, p)
	if err != nil {
		return nil, err
	}
	namespaces, err := r.namespaces(ctx, selector)
	if err != nil {
		return nil, err
	}
	limited, err := r.limitsOf(ctx, p, namespaces)
	if err != nil {
		return nil, err
	}
	return admissionpolicy.Compile(&admissionpolicy.Input{Policy: p.policy, Births: births, Revisions: p.revisions, Namespace: r.Namespace, Limits: limited})
}

// limitsOf is what limits the pods of namespaces, by their names. The webhook asks for each pod, and nobody beforehand. It is
// read once a pass, so that what is reported is what was compiled.
func (r *SidecarPolicyReconciler) limitsOf(ctx context.Context, p *pass, namespaces []corev1.Namespace) (map[string]limits.Namespace, error) {
	if p.limits != nil || p.policy.Spec.Injection.Engine != v1alpha1.EngineAdmissionPolicy {
		return p.limits, nil
	}
	var ranges corev1.LimitRangeList
	var quotas corev1.ResourceQuotaList
	for _, list := range []client.ObjectList{&ranges, &quotas} {
		if err := r.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			return nil, fmt.Errorf("listing the limits of namespaces: %w", err)
		}
	}
	// In the order of their names, so that each pass names the same one.
	slices.SortFunc(ranges.Items, func(a, b corev1.LimitRange) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(quotas.Items, func(a, b corev1.ResourceQuota) int { return strings.Compare(a.Name, b.Name) })
	all := map[string]limits.Namespace{}
	for _, limit := range ranges.Items {
		of := all[limit.Namespace]
		of.Ranges = append(of.Ranges, limit)
		all[limit.Namespace] = of
	}
	for _, quota := range quotas.Items {
		of := all[quota.Namespace]
		of.Quotas = append(of.Quotas, quota)
		all[quota.Namespace] = of
	}
	p.limits = map[string]limits.Namespace{}
	for i := range namespaces {
		if of, limited := all[namespaces[i].Name]; limited {
			p.limits[namespaces[i].Name] = of
		}
	}
	return p.limits, nil
}
