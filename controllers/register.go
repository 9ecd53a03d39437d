package controllers

import (
	"context"
	"fmt"
	"slices"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/admission"
	"github.com/sidecar-dev/sidecar-operator/internal/admissionpolicy"
	"github.com/sidecar-dev/sidecar-operator/internal/certs"
	"github.com/sidecar-dev/sidecar-operator/internal/selection"
)

// webhookTimeoutSeconds is how long the API server waits for an answer that takes
// about a millisecond.
const webhookTimeoutSeconds = 5

// +kubebuilder:rbac:groups=admissionregistration.k8s.io,resources=mutatingwebhookconfigurations,verbs=list;watch;create;update;delete

// register has new pods injected that the policy selects, and no others. It waits until
// the status names a revision, from which the pods are injected.
func (r *SidecarPolicyReconciler) register(ctx context.Context, p *pass) error {
	switch {
	case p.accepted.holds != yes: // what was registered stays in force, also where it is not what the status by now says of new pods
		compiled, err := r.compiledPolicy(ctx, admissionpolicy.Name(p.policy.Name))
		p.behind = compiled != nil || err != nil
		return err
	case p.policy.Spec.Injection.Paused:
		p.injecting = finding{no, v1alpha1.ReasonInjectionPaused, "spec.injection.paused is true: new pods are created without the sidecars"}
		_, err := r.unregister(ctx, p.policy.Name)
		return err
	case p.policy.Status.TargetRevision == "":
		p.injecting = finding{no, v1alpha1.ReasonNotRegistered, "the first revision is being recorded"}
		return nil
	case p.policy.Spec.Injection.Engine == v1alpha1.EngineAdmissionPolicy:
		return r.registerAdmissionPolicy(ctx, p)
	}
	return r.registerWebhook(ctx, p)
}

// overlap is how long both engines are registered when the engine changes: API servers other than the one that
// was asked may be behind it. A pod that both of them get is injected once.
const overlap = 5 * time.Second

// registerWebhook has the API server call the operator.
func (r *SidecarPolicyReconciler) registerWebhook(ctx context.Context, p *pass) error {
	secret := &corev1.Secret{}
	err := r.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: r.Webhook.Secret}, secret)
	if client.IgnoreNotFound(err) != nil {
		p.injecting = finding{unknown, v1alpha1.ReasonWaitingForCertificate, err.Error()}
		return fmt.Errorf("reading the webhook's certificate: %w", err)
	}
	if len(certs.CABundle(secret)) == 0 {
		p.injecting = finding{no, v1alpha1.ReasonWaitingForCertificate, "the webhook's certificate is not there yet"}
		return nil
	}
	registration := r.registration(p.policy, certs.CABundle(secret))
	if registration.OwnerReferences, err = r.ownerOfRegistration(ctx, p.policy); err != nil {
		return err
	}
	registered, err := r.applyWebhook(ctx, registration)
	if err != nil {
		p.injecting = finding{unknown, v1alpha1.ReasonNotRegistered, err.Error()}
		return err
	}
	p.injecting = finding{yes, v1alpha1.ReasonRegistered, "new pods get the sidecars"}
	if err := r.registerHold(ctx, p); err != nil {
		return err
	}
	return r.takeOver(ctx, p, registered.CreationTimestamp.Time)
}

// applyWebhook returns the registration as it is now.
func (r *SidecarPolicyReconciler) applyWebhook(ctx context.Context, want *admissionregistrationv1.MutatingWebhookConfiguration) (*admissionregistrationv1.MutatingWebhookConfiguration, error) {
	current := &admissionregistrationv1.MutatingWebhookConfiguration{}
	err := r.Get(ctx, client.ObjectKeyFromObject(want), current)
	switch {
	case apierrors.IsNotFound(err):
		err = r.Create(ctx, want)
	case err == nil && !sameRegistration(current, want):
		want.ResourceVersion = current.ResourceVersion
		err = r.Update(ctx, want)
	case err == nil:
		return current, nil
	}
	if err != nil {
		return nil, fmt.Errorf("registering injection: %w", err)
	}
	return want, nil
}

func sameRegistration(a, b *admissionregistrationv1.MutatingWebhookConfiguration) bool {
	return equality.Semantic.DeepEqual(a.Webhooks, b.Webhooks) &&
		equality.Semantic.DeepEqual(a.Labels, b.Labels) &&
		equality.Semantic.DeepEqual(a.OwnerReferences, b.OwnerReferences)
}

// ownerOfRegistration is whose end the registration does not outlive, also where no operator is there to remove it: the policy
// or, where a finalizer keeps that until an operator has removed both, the operator's own namespace.
func (r *SidecarPolicyReconciler) ownerOfRegistration(ctx context.Context, policy *v1alpha1.SidecarPolicy) ([]metav1.OwnerReference, error) {
	if !slices.Contains(policy.Finalizers, v1alpha1.UnplugFinalizer) {
		return ownedBy(policy), nil
	}
	home := &corev1.Namespace{}
	if err := r.Get(ctx, client.ObjectKey{Name: r.Namespace}, home); err != nil {
		return nil, fmt.Errorf("reading the operator's namespace: %w", err)
	}
	return []metav1.OwnerReference{{APIVersion: "v1", Kind: "Namespace", Name: home.Name, UID: home.UID}}, nil
}

// unregister stops injection by both engines, and says whether new pods were injected, or held for it, till now.
func (r *SidecarPolicyReconciler) unregister(ctx context.Context, policy string) (found bool, err error) {
	for _, stop := range []func() (bool, error){
		func() (bool, error) { return r.unregisterAdmissionPolicy(ctx, admissionpolicy.HoldName(policy)) },
		func() (bool, error) { return r.unregisterWebhook(ctx, policy) },
		func() (bool, error) { return r.unregisterAdmissionPolicy(ctx, admissionpolicy.Name(policy)) },
	} {
		acted, err := stop()
		if found = found || acted; err != nil {
			return found, err
		}
	}
	return found, nil
}

func (r *SidecarPolicyReconciler) unregisterWebhook(ctx context.Context, policy string) (found bool, err error) {
	current := &admissionregistrationv1.MutatingWebhookConfiguration{}
	err = r.Get(ctx, client.ObjectKey{Name: admission.RegistrationName(policy)}, current)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err == nil {
		err = r.Delete(ctx, current)
	}
	if client.IgnoreNotFound(err) != nil {
		return true, fmt.Errorf("removing the registration: %w", err)
	}
	return true, nil
}

// registration is what the API server should know of a policy. Every field that the
// API server would fill in is written, so that it compares equal.
func (r *SidecarPolicyReconciler) registration(policy *v1alpha1.SidecarPolicy, caBundle []byte) *admissionregistrationv1.MutatingWebhookConfiguration {
	configuration := &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{
			Name:   admission.RegistrationName(policy.Name),
			Labels: map[string]string{v1alpha1.PolicyLabel: policy.Name},
		},
	}
	add := func(name string, pods selection.Pair, conditions ...admissionregistrationv1.MatchCondition) {
		webhook := r.webhook(policy, caBundle)
		webhook.Name, webhook.MatchConditions = name+".fleet.sidecar.dev", conditions
		webhook.NamespaceSelector, webhook.ObjectSelector = pods.Namespaces, pods.Pods
		configuration.Webhooks = append(configuration.Webhooks, webhook)
	}
	for i, pair := range selection.Pairs(&policy.Spec.Selector, r.Namespace) {
		// First those that the answer for another policy may have given the sidecars, then those that surely have none: the API
		// server goes from entry to entry with the pod as it is by then.
		labelled, others := pair.Split(v1alpha1.RevisionLabel(policy.Name))
		add(webhookNames[i]+"-labelled", labelled, admissionpolicy.WithoutSidecars(policy))
		add(webhookNames[i], others)
	}
	return configuration
}

// webhookNames begin the names of the entries of a registration, of which a pod matches at most one.
var webhookNames = [...]string{"inject", "inject-opted-in-pods"}

// webhook is an entry of a registration, for pods still to be named.
func (r *SidecarPolicyReconciler) webhook(policy *v1alpha1.SidecarPolicy, caBundle []byte) admissionregistrationv1.MutatingWebhook {
	failurePolicy := admissionregistrationv1.Ignore
	if policy.Spec.Injection.FailurePolicy == v1alpha1.FailurePolicyFail {
		failurePolicy = admissionregistrationv1.Fail
	}
	return admissionregistrationv1.MutatingWebhook{
		ClientConfig:  r.Webhook.clientConfig(policy.Spec.Injection.FailurePolicy, caBundle),
		FailurePolicy: &failurePolicy,
		MatchPolicy:   ptr.To(admissionregistrationv1.Equivalent),
		SideEffects:   ptr.To(admissionregistrationv1.SideEffectClassNoneOnDryRun),
		// Asked again, we would say the same: a pod that has the sidecars gets nothing more.
		ReinvocationPolicy:      ptr.To(admissionregistrationv1.NeverReinvocationPolicy),
		TimeoutSeconds:          ptr.To[int32](webhookTimeoutSeconds),
		AdmissionReviewVersions: []string{"v1"},
		Rules: []admissionregistrationv1.RuleWithOperations{{
			Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
			Rule: admissionregistrationv1.Rule{
				APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"},
				Scope: ptr.To(admissionregistrationv1.NamespacedScope),
			},
		}},
	}
}
