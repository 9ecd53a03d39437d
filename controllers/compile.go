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
	"github.com/sidecar-dev/sidecar-operator/internal/inject"
	"github.com/sidecar-dev/sidecar-operator/internal/limits"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
)

// compile is what the API server has to know to inject by itself, besides what it selects.
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
	ahead, err := r.ahead(ctx, p, births)
	if err != nil {
		return nil, err
	}
	return admissionpolicy.Compile(&admissionpolicy.Input{Policy: p.policy, Births: births, Revisions: p.revisions, Namespace: r.Namespace, Limits: limited, Ahead: ahead})
}

// ahead are the policies that bring what this one brings, too, and whose names come first.
func (r *SidecarPolicyReconciler) ahead(ctx context.Context, p *pass, births rollout.Births) ([]*v1alpha1.SidecarPolicy, error) {
	list := &v1alpha1.SidecarPolicyList{}
	if err := r.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing policies: %w", err)
	}
	var ahead []*v1alpha1.SidecarPolicy
	for i := range list.Items {
		other := &list.Items[i]
		injects := other.DeletionTimestamp == nil && !other.Spec.Injection.Paused
		if other.Name < p.policy.Name && injects && p.clashesWith(other, births) {
			ahead = append(ahead, other)
		}
	}
	slices.SortFunc(ahead, func(a, b *v1alpha1.SidecarPolicy) int { return strings.Compare(a.Name, b.Name) })
	return ahead, nil
}

// clashesWith says whether a pod that has what another policy brings can't have what new pods get from this one.
func (p *pass) clashesWith(other *v1alpha1.SidecarPolicy, births rollout.Births) bool {
	theirs := revision.Next(nil, other.Spec.Template)
	return slices.ContainsFunc(births.Revisions(), func(name string) bool {
		ours := revision.Get(p.revisions, name)
		if ours == nil {
			return false // which is said when it is compiled
		}
		pod := sampleApp(&ours.Template)
		additions, _ := inject.Render(pod, other.Name, &theirs)
		additions.Apply(pod)
		_, conflicts := inject.Render(pod, p.policy.Name, ours)
		return slices.ContainsFunc(conflicts, func(c inject.Conflict) bool { return c.Policy == other.Name })
	})
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
