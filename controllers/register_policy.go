package controllers

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/admission"
	"github.com/sidecar-dev/sidecar-operator/internal/admissionpolicy"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
)

// +kubebuilder:rbac:groups=admissionregistration.k8s.io,resources=mutatingadmissionpolicies;mutatingadmissionpolicybindings,verbs=list;watch;create;update;delete

// askAgain is when an API server is asked again whether it acts on what was registered, which takes it a second or two.
const askAgain = 500 * time.Millisecond

// engines remembers what the API server acts on, by the names of MutatingAdmissionPolicies; an operator that
// starts anew asks again.
type engines struct {
	inForce map[string]inForce
	// removed is the digest of what the API server acted on, and may still.
	removed map[string]string
	// checked is the digest of each policy that the API server said it would take.
	checked map[string]string
	// unservedUntil is how long an API server that knows no MutatingAdmissionPolicies is not asked again.
	unservedUntil time.Time
}

// inForce is a registration that the API server acts on, since it was first seen to.
type inForce struct {
	digest string
	since  time.Time
}

func (e *engines) note(name, digest string, now time.Time) inForce {
	if e.inForce == nil {
		e.inForce = map[string]inForce{}
	}
	e.inForce[name] = inForce{digest, now}
	return e.inForce[name]
}

func (e *engines) noteRemoval(name string) {
	known, acted := e.inForce[name]
	if !acted {
		return
	}
	delete(e.inForce, name)
	if e.removed == nil {
		e.removed = map[string]string{}
	}
	e.removed[name] = known.digest
}

func (e *engines) noteChecked(policy, digest string) {
	if e.checked == nil {
		e.checked = map[string]string{}
	}
	e.checked[policy] = digest
}

func (e *engines) forget(policy string) {
	for _, name := range []string{admissionpolicy.Name(policy), admissionpolicy.HoldName(policy)} {
		delete(e.inForce, name)
		delete(e.removed, name)
	}
	delete(e.checked, policy)
}

// registerAdmissionPolicy has the API server inject by itself. What the webhook registered stays until then.
func (r *SidecarPolicyReconciler) registerAdmissionPolicy(ctx context.Context, p *pass) error {
	if err := r.registerHold(ctx, p); err != nil {
		return err
	}
	births := rollout.BirthsOf(p.policy)
	want, err := r.compile(ctx, p, births)
	wrote := false
	if err == nil {
		wrote, err = r.applyAdmissionPolicy(ctx, p, want)
	}
	if err != nil {
		p.behind = true
		p.injecting = finding{no, v1alpha1.ReasonNotRegistered, err.Error()}
		return err
	}
	_, acted := r.engines.inForce[want.Policy.Name]
	switch since, err := r.actsOn(ctx, p, want, wrote); {
	case err != nil:
		p.behind = true
		p.injecting = finding{unknown, v1alpha1.ReasonWaitingForAPIServer, err.Error()}
		return err
	case since.IsZero():
		p.behind = true
		return r.stillBehind(ctx, p, acted)
	default:
		p.births = &births
		p.injecting = finding{yes, v1alpha1.ReasonRegistered, "the API server gives new pods the sidecars"}
		if age := p.now.Sub(since); age < overlap {
			p.lookAgain(overlap - age)
			return nil
		}
	}
	_, err = r.unregisterWebhook(ctx, p.policy.Name)
	return err
}

// actsOn says since when the API server is known to act on what is registered. Zero: it does not yet, and is asked again.
func (r *SidecarPolicyReconciler) actsOn(ctx context.Context, p *pass, want *admissionpolicy.Registration, wrote bool) (since time.Time, err error) {
	known := r.engines.inForce[want.Policy.Name]
	if !wrote && known.digest == want.Digest {
		return known.since, nil
	}
	now, err := r.inForce(ctx, want.Digest)
	if err != nil {
		return time.Time{}, err
	}
	if !now {
		p.lookAgain(askAgain)
		return time.Time{}, nil
	}
	return r.engines.note(want.Policy.Name, want.Digest, p.now).since, nil
}

// stillBehind says what becomes of pods until the API server acts on the registration: they get what was
// registered before, if anything was.
func (r *SidecarPolicyReconciler) stillBehind(ctx context.Context, p *pass, acted bool) error {
	const waits = "the API server does not act on the MutatingAdmissionPolicy yet"
	err := r.Get(ctx, client.ObjectKey{Name: admission.RegistrationName(p.policy.Name)}, &admissionregistrationv1.MutatingWebhookConfiguration{})
	switch {
	case client.IgnoreNotFound(err) != nil:
		p.injecting = finding{unknown, v1alpha1.ReasonWaitingForAPIServer, err.Error()}
		return fmt.Errorf("reading the webhook's registration: %w", err)
	case err == nil:
		p.injecting = finding{yes, v1alpha1.ReasonWaitingForAPIServer, "new pods get the sidecars from the webhook: " + waits}
	case acted:
		p.injecting = finding{yes, v1alpha1.ReasonWaitingForAPIServer, "new pods get the sidecars as before the last change: " + waits}
	default:
		p.injecting = finding{no, v1alpha1.ReasonWaitingForAPIServer, waits}
	}
	return nil
}

// inForce asks the API server, by the dry run of a pod, whether it acts on what has this digest.
func (r *SidecarPolicyReconciler) inForce(ctx context.Context, digest string) (bool, error) {
	pod := admissionpolicy.CheckPod(r.Namespace, digest)
	if err := r.Create(ctx, pod, client.DryRunAll, client.DisableReadYourWritesConsistency); err != nil {
		return false, fmt.Errorf("asking the API server what it injects: %w", err)
	}
	return admissionpolicy.InForce(pod, digest), nil
}

// applyAdmissionPolicy writes what differs, in the order in which it has to be known, and takes away
// bindings of before. It says whether anything was written.
func (r *SidecarPolicyReconciler) applyAdmissionPolicy(ctx context.Context, p *pass, want *admissionpolicy.Registration) (wrote bool, err error) {
	owners, err := r.ownerOfRegistration(ctx, p.policy)
	if err != nil {
		return false, err
	}
	policy := &admissionregistrationv1.MutatingAdmissionPolicy{}
	wrote, err = r.applyOwned(ctx, owners, want.Policy, policy, func() bool { return equality.Semantic.DeepEqual(policy.Spec, want.Policy.Spec) })
	if err != nil {
		return wrote, err
	}
	for _, binding := range want.Bindings {
		current := &admissionregistrationv1.MutatingAdmissionPolicyBinding{}
		written, err := r.applyOwned(ctx, owners, binding, current, func() bool { return equality.Semantic.DeepEqual(current.Spec, binding.Spec) })
		if err != nil {
			return true, err
		}
		wrote = wrote || written
	}
	return wrote, r.deleteBindings(ctx, want.Policy, func(name string) bool {
		return !slices.ContainsFunc(want.Bindings, func(b *admissionregistrationv1.MutatingAdmissionPolicyBinding) bool { return b.Name == name })
	})
}

// applyOwned writes an object of the policy's where the current one, which it reads, is not the same.
func (r *SidecarPolicyReconciler) applyOwned(ctx context.Context, owners []metav1.OwnerReference, want, current client.Object, same func() bool) (wrote bool, err error) {
	want.SetOwnerReferences(owners)
	err = r.Get(ctx, client.ObjectKeyFromObject(want), current)
	switch {
	case apierrors.IsNotFound(err):
		err = r.Create(ctx, want)
	case err == nil && same() && equality.Semantic.DeepEqual(current.GetLabels(), want.GetLabels()) &&
		equality.Semantic.DeepEqual(current.GetOwnerReferences(), want.GetOwnerReferences()):
		return false, nil
	case err == nil:
		want.SetResourceVersion(current.GetResourceVersion())
		err = r.Update(ctx, want)
	}
	if err != nil {
		return false, fmt.Errorf("registering injection: %w", err)
	}
	return true, nil
}

// takeOver takes away what the API server injected by, a while after the webhook was registered.
func (r *SidecarPolicyReconciler) takeOver(ctx context.Context, p *pass, registered time.Time) error {
	name := admissionpolicy.Name(p.policy.Name)
	compiled, err := r.compiledPolicy(ctx, name)
	if err != nil || compiled == nil {
		return err
	}
	if age := p.now.Sub(registered); age < overlap {
		p.lookAgain(overlap - age)
		return nil
	}
	_, err = r.unregisterAdmissionPolicy(ctx, name)
	return err
}

// unregisterAdmissionPolicy takes away a MutatingAdmissionPolicy, and says whether the API server acted on it till now.
func (r *SidecarPolicyReconciler) unregisterAdmissionPolicy(ctx context.Context, name string) (found bool, err error) {
	compiled, err := r.compiledPolicy(ctx, name)
	if err != nil {
		return false, err
	}
	if compiled == nil {
		return r.stillActs(ctx, name)
	}
	r.engines.noteRemoval(name)
	if err := r.deleteBindings(ctx, compiled, func(string) bool { return true }); err != nil {
		return true, err
	}
	if err := r.Delete(ctx, compiled); client.IgnoreNotFound(err) != nil {
		return true, fmt.Errorf("removing the MutatingAdmissionPolicy: %w", err)
	}
	return true, nil
}

// stillActs says whether the API server acts on what was removed.
func (r *SidecarPolicyReconciler) stillActs(ctx context.Context, name string) (bool, error) {
	digest, acted := r.engines.removed[name]
	if !acted {
		return false, nil
	}
	acts, err := r.inForce(ctx, digest)
	if err == nil && !acts {
		delete(r.engines.removed, name)
	}
	return acts, err
}

// compiledPolicy is a MutatingAdmissionPolicy that the operator wrote; nil where there is none.
func (r *SidecarPolicyReconciler) compiledPolicy(ctx context.Context, name string) (*admissionregistrationv1.MutatingAdmissionPolicy, error) {
	served, err := r.servesAdmissionPolicies()
	if err != nil || !served {
		return nil, err
	}
	current := &admissionregistrationv1.MutatingAdmissionPolicy{}
	err = r.Get(ctx, client.ObjectKey{Name: name}, current)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the MutatingAdmissionPolicy: %w", err)
	}
	return current, nil
}

// deleteBindings removes the surplus ones. That by which the API server is asked goes last: when it
// is not known any more, none is.
func (r *SidecarPolicyReconciler) deleteBindings(ctx context.Context, of *admissionregistrationv1.MutatingAdmissionPolicy, surplus func(name string) bool) error {
	bindings := &admissionregistrationv1.MutatingAdmissionPolicyBindingList{}
	if err := r.List(ctx, bindings, client.MatchingLabels(of.Labels)); err != nil {
		return fmt.Errorf("listing bindings: %w", err)
	}
	slices.SortFunc(bindings.Items, func(a, b admissionregistrationv1.MutatingAdmissionPolicyBinding) int {
		return cmp.Compare(admissionpolicy.Rank(a.Name), admissionpolicy.Rank(b.Name))
	})
	for i := range bindings.Items {
		binding := &bindings.Items[i]
		if !surplus(binding.Name) || binding.Spec.PolicyName != of.Name {
			continue
		}
		if err := r.Delete(ctx, binding); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("removing binding %s: %w", binding.Name, err)
		}
	}
	return nil
}

// servesAdmissionPolicies says whether the API server knows MutatingAdmissionPolicies, which it does from 1.36 on.
// One that does not is asked again every minute: it may be upgraded.
func (r *SidecarPolicyReconciler) servesAdmissionPolicies() (bool, error) {
	if r.Clock.Now().Before(r.engines.unservedUntil) {
		return false, nil
	}
	kind := admissionregistrationv1.SchemeGroupVersion.WithKind("MutatingAdmissionPolicy")
	_, err := r.RESTMapper().RESTMapping(kind.GroupKind(), kind.Version)
	if meta.IsNoMatchError(err) {
		r.engines.unservedUntil = r.Clock.Now().Add(time.Minute)
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("asking the API server for %s: %w", kind.Kind, err)
	}
	return true, nil
}

// noteBirths holds back readiness while what the status now says of new pods is not what the API server
// gives them: that is compiled by the next pass.
func (p *pass) noteBirths(status *v1alpha1.SidecarPolicyStatus) {
	if p.policy.Spec.Injection.Engine != v1alpha1.EngineAdmissionPolicy || p.injecting.holds != yes {
		return
	}
	after := p.policy.DeepCopy()
	after.Status = *status
	p.injectsOther = p.births == nil || !equality.Semantic.DeepEqual(*p.births, rollout.BirthsOf(after))
}

// acceptEngine refuses what the engine can't do: what can't be compiled, and what the API server does not take.
func (r *SidecarPolicyReconciler) acceptEngine(ctx context.Context, p *pass) {
	injection := &p.policy.Spec.Injection
	compiles, holds := injection.Engine == v1alpha1.EngineAdmissionPolicy, injection.FailurePolicy == v1alpha1.FailurePolicyHold
	if p.accepted.holds != yes || (!compiles && !holds) {
		return
	}
	served, err := r.servesAdmissionPolicies()
	if err != nil {
		p.accepted = finding{unknown, v1alpha1.ReasonNotChecked, err.Error()}
		p.keepGoal()
		return
	}
	if !served {
		const needs = " needs an API server that serves MutatingAdmissionPolicies of admissionregistration.k8s.io/v1 (Kubernetes 1.36 or newer), and this one does not: write "
		if holds {
			p.refuse("spec.injection.failurePolicy: Hold" + needs + "failurePolicy: Ignore or Fail")
		} else {
			p.refuse("spec.injection.engine: AdmissionPolicy" + needs + "engine: Webhook")
		}
		return
	}
	if !compiles {
		return
	}
	if problems := p.notCompilable(); len(problems) > 0 {
		p.refuse(strings.Join(problems, "; "))
		return
	}
	r.tryAdmissionPolicy(ctx, p)
}

// refuse leaves in force what was accepted before.
func (p *pass) refuse(message string) {
	p.accepted = finding{no, v1alpha1.ReasonInvalidSpec, message}
	p.keepGoal()
}

// notCompilable are the parts of revisions that can't be said in CEL: of the goal, and of the one that new pods
// get until it is reached.
func (p *pass) notCompilable() []string {
	births := rollout.BirthsOf(p.policy)
	var problems []string
	for _, name := range append(births.Revisions(), p.goal.Hash) {
		if r := revision.Get(p.revisions, name); r != nil {
			problems = append(problems, admissionpolicy.Unsupported(&r.Template, "revision "+name)...)
		}
	}
	return slices.Compact(problems)
}

// tryAdmissionPolicy asks the API server, once for each registration, whether it takes it. A field of a
// pod that it does not know would be left out by the webhook's way, and refuse every pod by this one.
func (r *SidecarPolicyReconciler) tryAdmissionPolicy(ctx context.Context, p *pass) {
	want, err := admissionpolicy.Compile(&admissionpolicy.Input{Policy: p.policy, Births: rollout.Births{Otherwise: p.goal.Hash},
		Revisions: p.revisions, Namespace: r.Namespace})
	if err != nil {
		p.refuse("spec.template: " + err.Error())
		return
	}
	if r.engines.checked[p.policy.Name] == want.Digest {
		return
	}
	want.Policy.Name = "dry-run." + want.Policy.Name
	err = r.dryRun(ctx, samplePod(p.policy, p.goal, r.Namespace), client.FieldValidation(metav1.FieldValidationStrict))
	if err == nil {
		err = r.Create(ctx, want.Policy, client.DryRunAll, client.DisableReadYourWritesConsistency)
	}
	switch {
	case err == nil:
		r.engines.noteChecked(p.policy.Name, want.Digest)
	case apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsRequestEntityTooLargeError(err):
		p.refuse("spec.injection.engine: the API server does not take the template in a MutatingAdmissionPolicy: write engine: Webhook: " + shortened(sampleWords(err)))
	default:
		p.accepted = finding{unknown, v1alpha1.ReasonNotChecked, "the API server could not be asked: " + err.Error()}
		p.keepGoal()
	}
}

// shortened keeps the beginning of a text: an API server repeats in its answer what it was sent.
func shortened(text string) string {
	const most = 500
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + " ..."
}
