package controllers

import (
	"context"
	"maps"
	"slices"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

// gather is how long events about a policy's fleet are gathered before a pass looks
// at them all: a storm of pod updates costs one pass.
const gather = 200 * time.Millisecond

// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

func setupSidecarPolicy(mgr ctrl.Manager, o Options) error {
	pods, err := NewCachedPods(context.Background(), mgr.GetClient(), mgr.GetCache())
	if err != nil {
		return err
	}
	r := &SidecarPolicyReconciler{
		Client:        mgr.GetClient(),
		Live:          mgr.GetAPIReader(),
		Pods:          pods,
		Recorder:      mgr.GetEventRecorder("sidecar-operator"),
		Clock:         o.Clock,
		Namespace:     o.Namespace,
		Webhook:       o.Webhook,
		ServerVersion: o.ServerVersion,
		Reports:       o.Reports,
		CountsEvery:   time.Second,
		Prefetcher:    &Prefetcher{Client: mgr.GetClient(), Pods: pods, IdleImage: o.PrefetchImage, ServerVersion: o.ServerVersion},
	}
	r.measurements.answered = make(chan event.TypedGenericEvent[*v1alpha1.SidecarPolicy])
	b := ctrl.NewControllerManagedBy(mgr)
	if served, err := r.servesAdmissionPolicies(); err != nil {
		return err
	} else if served { // an API server that does not serve them can't be watched for them
		b.Watches(&admissionregistrationv1.MutatingAdmissionPolicy{}, gathered(policyOfLabel)).
			Watches(&admissionregistrationv1.MutatingAdmissionPolicyBinding{}, gathered(policyOfLabel))
	}
	return b.For(&v1alpha1.SidecarPolicy{}).
		// What is compiled of a policy depends on those that bring the same.
		Watches(&v1alpha1.SidecarPolicy{}, gathered(r.admissionPolicies), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&corev1.Pod{}, gathered(r.policiesOfPod)).
		Watches(&corev1.Namespace{}, gathered(r.allPolicies), builder.WithPredicates(predicate.Or(predicate.LabelChangedPredicate{}, predicate.AnnotationChangedPredicate{}))).
		// Teams exempt their workloads by an annotation.
		Watches(&appsv1.Deployment{}, gathered(r.allPolicies), builder.WithPredicates(predicate.AnnotationChangedPredicate{})).
		Watches(&appsv1.StatefulSet{}, gathered(r.allPolicies), builder.WithPredicates(predicate.AnnotationChangedPredicate{})).
		Watches(&appsv1.DaemonSet{}, gathered(r.allPolicies), builder.WithPredicates(predicate.AnnotationChangedPredicate{})).
		Watches(&corev1.Node{}, gathered(r.allPolicies), builder.WithPredicates(predicate.Funcs{UpdateFunc: nodeWentOrCame})).
		Watches(&corev1.LimitRange{}, gathered(r.admissionPolicies)).
		Watches(&corev1.ResourceQuota{}, gathered(r.admissionPolicies), builder.WithPredicates(predicate.Funcs{UpdateFunc: quotaWantsOther})).
		Watches(&policyv1.PodDisruptionBudget{}, gathered(r.allPolicies)).
		Watches(&corev1.Secret{}, gathered(r.allPolicies), builder.WithPredicates(only(o.secretKey()))).
		Watches(&appsv1.ControllerRevision{}, gathered(policyOfLabel)).
		Watches(&admissionregistrationv1.MutatingWebhookConfiguration{}, gathered(policyOfLabel)).
		WatchesRawSource(source.Channel(r.measurements.answered, &handler.TypedEnqueueRequestForObject[*v1alpha1.SidecarPolicy]{})).
		// One pass at a time: budgets are shared between policies, and each pass sees what
		// the one before it wrote.
		WithOptions(controller.Options{MaxConcurrentReconciles: 1}).
		Complete(r)
}

// nodeWentOrCame says whether an update of a node is more than its heartbeat.
func nodeWentOrCame(e event.UpdateEvent) bool {
	before, one := e.ObjectOld.(*corev1.Node)
	after, two := e.ObjectNew.(*corev1.Node)
	return one && two && !equality.Semantic.DeepEqual(readiness(before), readiness(after))
}

// quotaWantsOther says whether an update of a quota is more than what is used of it.
func quotaWantsOther(e event.UpdateEvent) bool {
	before, one := e.ObjectOld.(*corev1.ResourceQuota)
	after, two := e.ObjectNew.(*corev1.ResourceQuota)
	return one && two && !equality.Semantic.DeepEqual(before.Spec, after.Spec)
}

// toPolicies names the policies that an object matters to.
type toPolicies func(context.Context, client.Object) []string

// gathered enqueues the policies of an object, and of what it was before, a little later.
func gathered(policies toPolicies) handler.EventHandler {
	enqueue := func(ctx context.Context, q workqueue.TypedRateLimitingInterface[reconcile.Request], objects ...client.Object) {
		for _, object := range objects {
			for _, name := range policies(ctx, object) {
				q.AddAfter(reconcile.Request{NamespacedName: types.NamespacedName{Name: name}}, gather)
			}
		}
	}
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	return handler.Funcs{
		CreateFunc:  func(ctx context.Context, e event.CreateEvent, q queue) { enqueue(ctx, q, e.Object) },
		UpdateFunc:  func(ctx context.Context, e event.UpdateEvent, q queue) { enqueue(ctx, q, e.ObjectOld, e.ObjectNew) },
		DeleteFunc:  func(ctx context.Context, e event.DeleteEvent, q queue) { enqueue(ctx, q, e.Object) },
		GenericFunc: func(ctx context.Context, e event.GenericEvent, q queue) { enqueue(ctx, q, e.Object) },
	}
}

func policyOfLabel(_ context.Context, object client.Object) []string {
	if policy := object.GetLabels()[v1alpha1.PolicyLabel]; policy != "" {
		return []string{policy}
	}
	return nil
}

func (r *SidecarPolicyReconciler) allPolicies(ctx context.Context, _ client.Object) []string {
	return r.policyNames(ctx, func(*v1alpha1.SidecarPolicy) bool { return true })
}

// admissionPolicies are those that the API server carries out by itself, knowing what is compiled of limits.
func (r *SidecarPolicyReconciler) admissionPolicies(ctx context.Context, _ client.Object) []string {
	return r.policyNames(ctx, func(policy *v1alpha1.SidecarPolicy) bool {
		return policy.Spec.Injection.Engine == v1alpha1.EngineAdmissionPolicy
	})
}

// policiesOfPod are the policies that the pod carries sidecars of, or waits for, and those whose
// pod selector matches it. Whether its namespace matches too is left to the pass. A
// prefetch pod matters to the policy that it is of.
func (r *SidecarPolicyReconciler) policiesOfPod(ctx context.Context, pod client.Object) []string {
	if _, prefetches := pod.GetLabels()[v1alpha1.PrefetchLabel]; prefetches {
		return policyOfLabel(ctx, pod)
	}
	names := map[string]bool{}
	for _, name := range carried(pod.(*corev1.Pod)) {
		names[name] = true
	}
	for _, name := range r.policyNames(ctx, func(policy *v1alpha1.SidecarPolicy) bool {
		selector, err := r.selectors.OfPolicy(policy, r.Namespace)
		return err == nil && selector.Anywhere(pod.GetLabels())
	}) {
		names[name] = true
	}
	return slices.Collect(maps.Keys(names))
}

func (r *SidecarPolicyReconciler) policyNames(ctx context.Context, matches func(*v1alpha1.SidecarPolicy) bool) []string {
	list := &v1alpha1.SidecarPolicyList{}
	if err := r.List(ctx, list, client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "listing policies")
		return nil
	}
	var names []string
	for i := range list.Items {
		if matches(&list.Items[i]) {
			names = append(names, list.Items[i].Name)
		}
	}
	return names
}
