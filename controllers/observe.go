package controllers

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/version"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/podsecurity"
	"github.com/sidecar-dev/sidecar-operator/internal/resources"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
	"github.com/sidecar-dev/sidecar-operator/internal/selection"
	"github.com/sidecar-dev/sidecar-operator/internal/workload"
)

// +kubebuilder:rbac:groups="",resources=pods;namespaces;nodes,verbs=list;watch
// +kubebuilder:rbac:groups=policy,resources=poddisruptionbudgets,verbs=list;watch

// observe reads the fleet and decides what to do. What it reads is shared with the
// cache and never changed.
func (r *SidecarPolicyReconciler) observe(ctx context.Context, p *pass) error {
	view := &fleet.View{Policy: p.policy.Name, Target: p.aim.Target, Revisions: p.revisions, Records: &r.records, Now: p.now,
		Since: p.policy.CreationTimestamp.Time, RestartedAt: p.policy.Spec.Template.RestartedAt, Contents: p.contents, Watching: p.aim.Watching()}
	var err error
	if view.Health, err = r.healthOfAll(ctx); err != nil {
		return err
	}
	namespaces, err := r.namespaces(ctx, p.policy)
	if err != nil {
		return err
	}
	members, err := r.members(ctx, p, namespaces)
	if err != nil {
		return err
	}
	if p.disruptions, err = r.disruptions(ctx, members, view); err != nil {
		return err
	}
	p.pods = r.judge(members, view)
	input := p.aim.Input(p.pods, p.disruptions, p.now)
	input.Leaving, input.Vacancies = p.countLeaving(), fleet.Vacancies(members, p.leaving)
	input.Measurements = r.measurements.take(p.policy.Name)
	input.NotAccepted = p.accepted.holds != yes
	input.Injecting = p.injecting.holds == yes
	input.Images = r.presence(ctx, p)
	plan := rollout.Make(input)
	p.plan = &plan
	return nil
}

func (r *SidecarPolicyReconciler) judge(members []fleet.Member, view *fleet.View) []fleet.PodState {
	if r.judgements == nil {
		r.judgements = map[string]*fleet.Judgement{}
	}
	judgement := fleet.Rejudge(r.judgements[view.Policy], members, view)
	r.judgements[view.Policy] = judgement
	return judgement.Pods
}

func (r *SidecarPolicyReconciler) healthOfAll(ctx context.Context) (map[string]*v1alpha1.HealthSpec, error) {
	list := &v1alpha1.SidecarPolicyList{}
	if err := r.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing policies: %w", err)
	}
	health := make(map[string]*v1alpha1.HealthSpec, len(list.Items))
	for i := range list.Items {
		health[list.Items[i].Name] = &list.Items[i].Spec.Rollout.Health
	}
	return health, nil
}

// namespaces are those that the policy selects, in the order of their names.
func (r *SidecarPolicyReconciler) namespaces(ctx context.Context, policy *v1alpha1.SidecarPolicy) ([]corev1.Namespace, error) {
	selector, err := selection.New(&policy.Spec.Selector, r.Namespace)
	if err != nil {
		return nil, err
	}
	list := &corev1.NamespaceList{}
	if err := r.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing namespaces: %w", err)
	}
	selected := slices.DeleteFunc(list.Items, func(n corev1.Namespace) bool { return selector.In(n.Labels) == nil })
	slices.SortFunc(selected, func(a, b corev1.Namespace) int { return strings.Compare(a.Name, b.Name) })
	return selected, nil
}

// members are the pods of the fleet with their workloads.
func (r *SidecarPolicyReconciler) members(ctx context.Context, p *pass, namespaces []corev1.Namespace) ([]fleet.Member, error) {
	selector, err := selection.New(&p.policy.Spec.Selector, r.Namespace)
	if err != nil {
		return nil, err
	}
	nodes, err := r.nodes(ctx)
	if err != nil {
		return nil, err
	}
	resolver := workload.NewResolver(r.Client)
	refusals := r.refusals.of(p.policy.Name)
	members := r.room[:0]
	security := podsecurity.Templates{Policy: p.policy.Name, Revision: p.aim.Target}
	for i := range namespaces {
		namespace := &namespaces[i]
		forbidden := security.Check(namespace.Labels)
		pods, err := r.selected(ctx, namespace.Name, selector.In(namespace.Labels))
		if err != nil {
			return nil, err
		}
		for _, pod := range pods {
			info, err := resolver.Of(ctx, namespace.Name, pod)
			if err != nil {
				return nil, err
			}
			member := fleet.Member{Pod: pod, Workload: workloadOf(pod, info.Owner), Top: info.Owner, Owner: ownerOf(pod, &info),
				NamespaceLabels: namespace.Labels, Forbidden: forbidden, Node: nodes[pod.Spec.NodeName], Refusal: refusals.fresh(pod)}
			if leaving(pod) {
				p.leaving = append(p.leaving, member)
				continue
			}
			member.ExemptUntil, member.Exempt = p.exempt(namespace.Annotations, info.Annotations, pod.Annotations)
			members = append(members, member)
		}
	}
	refusals.keepOnly(members)
	r.room = members
	return members, nil
}

// selected are the pods of a namespace that are in the fleet, or are leaving it. They are in the order of
// their names, so that those of one owner come together: looking up their owners is cheap then.
func (r *SidecarPolicyReconciler) selected(ctx context.Context, namespace string, selector labels.Selector) ([]*corev1.Pod, error) {
	pods, err := r.Pods.InNamespace(ctx, namespace)
	if err != nil {
		return nil, fmt.Errorf("listing pods of namespace %s: %w", namespace, err)
	}
	pods = slices.DeleteFunc(pods, func(pod *corev1.Pod) bool {
		return !selector.Matches(labels.Set(pod.Labels)) || (!selection.Active(pod) && !leaving(pod))
	})
	slices.SortFunc(pods, func(a, b *corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	return pods, nil
}

// leaving says whether a pod of the fleet is being deleted.
func leaving(pod *corev1.Pod) bool { return selection.Injectable(pod) && pod.DeletionTimestamp != nil }

// exempt says whether a pod with these annotations around it is to be left alone, and until when.
func (p *pass) exempt(annotations ...map[string]string) (until time.Time, exempt bool) {
	if p.policy.Spec.Rollout.Exemptions != v1alpha1.ExemptionsIgnore {
		until, exempt, _ = selection.Exempt(p.now, annotations...)
	}
	return until, exempt
}

// countLeaving counts the pods with the policy's sidecars that are being deleted, by the UID of their owner.
func (p *pass) countLeaving() map[string]int {
	leaving := map[string]int{}
	for i := range p.leaving {
		pod := &p.leaving[i]
		if pod.Owner.UID != "" && pod.Pod.Labels[v1alpha1.RevisionLabel(p.policy.Name)] != "" {
			leaving[pod.Owner.UID]++
		}
	}
	return leaving
}

// ownerOf is what replaces the pod when it goes.
func ownerOf(pod *corev1.Pod, info *workload.Info) fleet.Owner {
	direct := metav1.GetControllerOfNoCopy(pod)
	if direct == nil {
		return fleet.Owner{Unmanaged: true}
	}
	return fleet.Owner{
		UID:       string(direct.UID),
		Unmanaged: direct.Kind == "Job",
		Settled:   info.Current && info.Has >= info.Wanted,
		Wanted:    info.Wanted,
		Lacks:     max(0, info.Wanted-info.Has),
	}
}

// firstKubelet is the first version of which a kubelet restarts a native sidecar for a new
// image.
var firstKubelet = version.MajorMinor(1, 32)

// nodes is what is known of the cluster's nodes, by name.
func (r *SidecarPolicyReconciler) nodes(ctx context.Context) (map[string]fleet.Node, error) {
	list := &corev1.NodeList{}
	if err := r.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing nodes: %w", err)
	}
	server, err := r.ServerVersion()
	if err != nil {
		return nil, fmt.Errorf("asking the API server for its version: %w", err)
	}
	nodes := make(map[string]fleet.Node, len(list.Items))
	for i := range list.Items {
		node := fleet.Node{Labels: list.Items[i].Labels, NoResize: noResize("the API server", server)}
		running := list.Items[i].Status.NodeInfo.KubeletVersion
		kubelet, err := version.ParseGeneric(running)
		if err == nil && kubelet.LessThan(firstKubelet) {
			node.OldKubelet = kubelet.String()
		}
		if node.NoResize == "" {
			node.NoResize = noResize("its node's kubelet", running)
		}
		nodes[list.Items[i].Name] = node
	}
	return nodes, nil
}

// noResize says that a component is too old to resize containers; empty where it is not, or can't be told.
func noResize(what, running string) string {
	parsed, err := version.ParseGeneric(running)
	if err != nil || version.MajorMinor(parsed.Major(), parsed.Minor()).AtLeast(resources.MinVersion) {
		return ""
	}
	return fmt.Sprintf("%s %s is older than %s", what, parsed, resources.MinVersion)
}

// workloadOf names a pod's workload; a bare pod is its own.
func workloadOf(pod *corev1.Pod, owner *metav1.OwnerReference) fleet.Workload {
	if owner == nil {
		return fleet.Workload{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name}
	}
	return fleet.Workload{Kind: owner.Kind, Namespace: pod.Namespace, Name: owner.Name}
}

// disruptions are what the PodDisruptionBudgets of the fleet's namespaces allow. They
// cover pods of the namespace that other policies select, or none.
func (r *SidecarPolicyReconciler) disruptions(ctx context.Context, members []fleet.Member, view *fleet.View) ([]fleet.Disruption, error) {
	var disruptions []fleet.Disruption
	seen := map[string]bool{}
	for _, member := range members {
		namespace := member.Pod.Namespace
		if seen[namespace] {
			continue
		}
		seen[namespace] = true
		budgets := &policyv1.PodDisruptionBudgetList{}
		if err := r.List(ctx, budgets, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
			return nil, fmt.Errorf("listing PodDisruptionBudgets of namespace %s: %w", namespace, err)
		}
		if len(budgets.Items) == 0 {
			continue
		}
		pods, err := r.Pods.InNamespace(ctx, namespace)
		if err != nil {
			return nil, fmt.Errorf("listing pods of namespace %s: %w", namespace, err)
		}
		for i := range budgets.Items {
			disruptions = append(disruptions, fleet.Allowance(&budgets.Items[i], pods, view))
		}
	}
	return disruptions, nil
}
