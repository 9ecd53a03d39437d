package controllers

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/version"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/admission"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/inject"
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
	view := p.aim.View(p.revisions, p.now)
	view.Records, view.Contents = &r.records, p.contents
	var err error
	if view.Health, err = r.healthOfAll(ctx); err != nil {
		return err
	}
	selector, err := r.selector(ctx, p)
	if err != nil {
		return err
	}
	namespaces, err := r.namespaces(ctx, selector)
	if err != nil {
		return err
	}
	scout, err := r.scout(ctx, p, selector)
	if err != nil {
		return err
	}
	members, err := scout.fleet(ctx, namespaces)
	if err != nil {
		return err
	}
	deselected, companions, err := scout.strays(ctx)
	if err != nil {
		return err
	}
	scout.refusals.keepOnly(members, deselected)
	all := append(append(slices.Clip(members), deselected...), companions...) // mostly just the members, and no copy
	if p.disruptions, err = r.disruptions(ctx, all, view); err != nil {
		return err
	}
	p.pods, p.deselected = r.judge(members, view), fleet.Judge(deselected, view)
	input := p.aim.Input(p.pods, p.disruptions, p.now)
	input.Deselected, input.Companions = p.deselected, fleet.Judge(companions, view)
	input.Leaving, input.Vacancies = p.countLeaving(), fleet.Vacancies(all, p.leaving)
	input.Measurements = r.measurements.take(p.policy.Name)
	input.NotAccepted = p.accepted.holds != yes
	input.Injecting, input.Behind = p.injecting.holds == yes, p.behind
	input.Images = r.presence(ctx, p)
	plan := rollout.Make(input)
	p.input, p.plan = input, &plan
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

// selector is what the policy selects: where its spec is not accepted, what it did when it last was, which is registered. One that
// is being deleted and can't be read selects nothing; pods that carry its sidecars are found all the same.
func (r *SidecarPolicyReconciler) selector(ctx context.Context, p *pass) (selection.Selector, error) {
	if p.accepted.holds != yes && !p.removing {
		registration := &admissionregistrationv1.MutatingWebhookConfiguration{}
		err := r.Get(ctx, client.ObjectKey{Name: admission.RegistrationName(p.policy.Name)}, registration)
		if err == nil {
			return r.selectors.OfRegistration(registration)
		}
		if !apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("reading the registration: %w", err)
		}
	}
	selector, err := r.selectors.OfPolicy(p.policy, r.Namespace)
	if p.removing {
		err = nil
	}
	return selector, err
}

// namespaces are those in which pods are selected, in the order of their names.
func (r *SidecarPolicyReconciler) namespaces(ctx context.Context, selector selection.Selector) ([]corev1.Namespace, error) {
	list := &corev1.NamespaceList{}
	if err := r.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing namespaces: %w", err)
	}
	selected := slices.DeleteFunc(list.Items, func(n corev1.Namespace) bool { return selector.In(n.Labels) == nil })
	slices.SortFunc(selected, func(a, b corev1.Namespace) int { return strings.Compare(a.Name, b.Name) })
	return selected, nil
}

// scout makes members of pods.
type scout struct {
	r        *SidecarPolicyReconciler
	p        *pass
	selector selection.Selector
	resolver *workload.Resolver
	nodes    map[string]fleet.Node
	refusals *policyRefusals
}

func (r *SidecarPolicyReconciler) scout(ctx context.Context, p *pass, selector selection.Selector) (*scout, error) {
	nodes, err := r.nodes(ctx)
	if err != nil {
		return nil, err
	}
	return &scout{r: r, p: p, selector: selector, resolver: workload.NewResolver(r.Client), nodes: nodes, refusals: r.refusals.of(p.policy.Name)}, nil
}

// fleet are the pods that the policy selects with their workloads. Those that are being deleted are noted.
func (s *scout) fleet(ctx context.Context, namespaces []corev1.Namespace) ([]fleet.Member, error) {
	members := s.r.room[:0]
	security := podsecurity.Templates{Policy: s.p.policy.Name, Revision: s.p.aim.Target,
		Alone: s.p.policy.Spec.Injection.Engine == v1alpha1.EngineAdmissionPolicy}
	limited, err := s.r.limitsOf(ctx, s.p, namespaces)
	if err != nil {
		return nil, err
	}
	for i := range namespaces {
		namespace := &namespaces[i]
		selector := s.selector.In(namespace.Labels)
		pods, err := s.r.present(ctx, namespace.Name, func(pod *corev1.Pod) bool { return selector.Matches(labels.Set(pod.Labels)) })
		if err != nil {
			return nil, err
		}
		forbidden := security.Check(namespace.Labels)
		if limits := limited[namespace.Name]; forbidden == nil {
			forbidden = limits.Alone(&s.p.aim.Target.Template)
		}
		for _, pod := range pods {
			if members, err = s.add(ctx, members, namespace, pod, forbidden); err != nil {
				return nil, err
			}
		}
	}
	s.r.room = members
	return members, nil
}

// add makes a member of a pod. One that is being deleted is noted apart.
func (s *scout) add(ctx context.Context, members []fleet.Member, namespace *corev1.Namespace, pod *corev1.Pod, forbidden *inject.Conflict) ([]fleet.Member, error) {
	info, err := s.resolver.Of(ctx, namespace.Name, pod)
	if err != nil {
		return nil, err
	}
	member := fleet.Member{Pod: pod, Workload: workloadOf(pod, info.Owner), Top: info.Owner, Owner: ownerOf(pod, &info),
		NamespaceLabels: namespace.Labels, Forbidden: forbidden, Node: s.nodes[pod.Spec.NodeName], Refusal: s.refusals.fresh(pod)}
	if leaving(pod) {
		s.p.leaving = append(s.p.leaving, member)
		return members, nil
	}
	s.p.exempt(&member, namespace.Annotations, info.Annotations, pod.Annotations)
	return append(members, member), nil
}

// present are the pods of a namespace that are wanted, and have not finished. They are in the order of
// their names, so that those of one owner come together: looking up their owners is cheap then.
func (r *SidecarPolicyReconciler) present(ctx context.Context, namespace string, wanted func(*corev1.Pod) bool) ([]*corev1.Pod, error) {
	pods, err := r.Pods.InNamespace(ctx, namespace)
	if err != nil {
		return nil, fmt.Errorf("listing pods of namespace %s: %w", namespace, err)
	}
	return inOrder(pods, wanted), nil
}

// inOrder are the pods that are wanted, and have not finished, by namespace and name.
func inOrder(pods []*corev1.Pod, wanted func(*corev1.Pod) bool) []*corev1.Pod {
	pods = slices.DeleteFunc(pods, func(pod *corev1.Pod) bool { return !wanted(pod) || (!selection.Active(pod) && !leaving(pod)) })
	slices.SortFunc(pods, fleet.CompareNames)
	return pods
}

// leaving says whether a pod of the fleet is being deleted.
func leaving(pod *corev1.Pod) bool { return pod.DeletionTimestamp != nil && selection.Injectable(pod) }

// exempt says whether a pod with these annotations around it is to be left alone, and until when. Not with what has failed: nobody asked
// for that.
func (p *pass) exempt(member *fleet.Member, annotations ...map[string]string) {
	if p.policy.Spec.Rollout.Exemptions == v1alpha1.ExemptionsIgnore {
		return
	}
	member.ExemptUntil, member.Exempt, member.ExemptProblem = selection.Exempt(p.now, annotations...)
	if member.Exempt && p.aim.LeavesBehind(fleet.GivenTo(member.Pod, p.policy.Name)) {
		member.ExemptUntil, member.Exempt, member.ExemptProblem = time.Time{}, false, ""
	}
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
		if ready := readiness(&list.Items[i]); ready != nil {
			node.Down, node.UpSince = ready.Status != corev1.ConditionTrue, ready.LastTransitionTime.Time
		}
		nodes[list.Items[i].Name] = node
	}
	return nodes, nil
}

// readiness is what a node's kubelet says of it, and the node controller where the kubelet says nothing; nil where neither does yet.
func readiness(node *corev1.Node) *corev1.NodeCondition {
	for i := range node.Status.Conditions {
		if node.Status.Conditions[i].Type == corev1.NodeReady {
			return &node.Status.Conditions[i]
		}
	}
	return nil
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
