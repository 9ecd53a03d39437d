// Package admission answers the API server when a pod is created that a policy
// selects. The decision is inject.Render's; this is its I/O.
package admission

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"gomodules.xyz/jsonpatch/v2"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/inject"
	"github.com/sidecar-dev/sidecar-operator/internal/limits"
	"github.com/sidecar-dev/sidecar-operator/internal/memo"
	"github.com/sidecar-dev/sidecar-operator/internal/metrics"
	"github.com/sidecar-dev/sidecar-operator/internal/podsecurity"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
	"github.com/sidecar-dev/sidecar-operator/internal/selection"
	"github.com/sidecar-dev/sidecar-operator/internal/workload"
)

// Path is where the API server sends the pods of all policies with a failure policy. A path for each policy would cost
// a TLS handshake for each call: the API server keeps clients of five different webhooks, other operators' included.
func Path(failurePolicy v1alpha1.InjectionFailurePolicy) string {
	if failurePolicy == v1alpha1.FailurePolicyFail {
		return "/inject/fail"
	}
	return "/inject/ignore"
}

// RegistrationName is the name of a policy's MutatingWebhookConfiguration.
func RegistrationName(policy string) string { return "sidecar-operator-" + policy }

// Register serves all policies on one server. It reads at most 7 MiB of a request, which is more than the largest pod
// that an API server takes. What is logged names the pod, and has nothing of its content.
func Register(server webhook.Server, injector *Injector) {
	for _, asked := range []v1alpha1.InjectionFailurePolicy{v1alpha1.FailurePolicyIgnore, v1alpha1.FailurePolicyFail} {
		handle := func(ctx context.Context, req admission.Request) admission.Response {
			return injector.Handle(ctx, req, asked)
		}
		server.Register(Path(asked), &admission.Webhook{Handler: admission.HandlerFunc(handle), LogConstructor: plainLogger})
	}
}

// plainLogger says nothing of the request in lines that nobody writes: it would take a tenth of the time of an answer.
func plainLogger(base logr.Logger, _ *admission.Request) logr.Logger { return base }

// Injector plugs sidecars into new pods.
type Injector struct {
	// Reader reads policies, revisions and namespaces, from a cache.
	Reader client.Reader
	// Live reads from the API server.
	Live client.Reader
	// Recorder sends events to the owners of pods that were left as they are.
	Recorder events.EventRecorder
	// Namespace is the operator's own, where revisions are.
	Namespace string

	selectors selection.Cache
	decoded   memo.Memo[stored, *revision.Revision]
}

// stored is one version of a ControllerRevision.
type stored struct {
	uid             types.UID
	resourceVersion string
}

// maxDecoded is how many revisions are remembered.
const maxDecoded = 100

// review is about one pod: what is asked, and what is answered so far.
type review struct {
	request admission.Request
	// reader is what the answer is read from.
	reader client.Reader
	// pod is as the policies so far have left it.
	pod *corev1.Pod
	// namespace is the labels of its namespace, limits what else limits its pods.
	namespace map[string]string
	limits    limits.Namespace
	patch     []jsonpatch.Operation
	warnings  []string
	// unchanged names the policies of which the pod has all there is to have.
	unchanged []string
}

// Handle answers for one pod and every policy that selects it, in the order of their names; each meets the pod as those
// before it have left it. The API server asks for one of them, of which it tells the failure policy, and for the others
// only if they could not inject: registrations exclude pods that have the sidecars. So there is something to say; where the
// cache knows of nothing, it is behind.
//
// A pod is refused only where a policy's author asked for that (failurePolicy Fail) and the answer could not be
// found; a clash never refuses it. One that waits for the sidecars of a policy (failurePolicy Hold) waits no more when the answer was
// found, whatever it is.
func (i *Injector) Handle(ctx context.Context, req admission.Request, asked v1alpha1.InjectionFailurePolicy) admission.Response {
	v := &review{request: req, reader: i.Reader}
	err := i.review(ctx, v)
	if apierrors.IsNotFound(err) || (err == nil && len(v.patch)+len(v.warnings) == 0) {
		v = &review{request: req, reader: i.Live}
		err = i.review(ctx, v)
	}
	if err != nil {
		return v.failed(err, asked)
	}
	for _, policy := range v.unchanged {
		metrics.ObserveInjection(policy, metrics.Unchanged, "")
	}
	return admission.Patched("", v.patch...).WithWarnings(v.warnings...)
}

// refusal is of a policy whose author asked for that.
type refusal struct{ error }

// failed answers where there is no other answer.
func (v *review) failed(err error, asked v1alpha1.InjectionFailurePolicy) admission.Response {
	if refused := (refusal{}); errors.As(err, &refused) {
		return admission.Errored(http.StatusInternalServerError, refused.error)
	}
	v.log().Error(err, "could not answer", "failurePolicy", asked)
	if asked == v1alpha1.FailurePolicyFail {
		return admission.Errored(http.StatusInternalServerError, fmt.Errorf("a SidecarPolicy (failurePolicy Fail) can't inject its sidecars: %w", err))
	}
	return admission.Allowed("").WithWarnings("SidecarPolicies: " + withoutSidecars + err.Error())
}

// log names the pod, which may have no name of its own yet.
func (v *review) log() logr.Logger {
	name := v.request.Name
	if name == "" {
		name = v.pod.GenerateName + "*"
	}
	return ctrl.Log.WithName("admission").WithValues("namespace", v.request.Namespace, "pod", name)
}

// review asks the policies in turn. A refusal is an error.
func (i *Injector) review(ctx context.Context, v *review) error {
	var policies []*v1alpha1.SidecarPolicy
	err := v.guard(func() (err error) {
		if err = i.read(ctx, v); err == nil {
			policies, err = i.selecting(ctx, v)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, policy := range policies {
		if err := i.answer(ctx, policy, v); err != nil {
			return refusal{err}
		}
	}
	return nil
}

// guard turns a panic into an error: the API server would take what the library answers to one as a refusal, also
// where no policy's author asked for that.
func (v *review) guard(answer func() error) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("panic: %v", cause)
			v.log().Error(err, "a panic", "stack", string(debug.Stack()))
		}
	}()
	return answer()
}

func (i *Injector) read(ctx context.Context, v *review) error {
	v.pod = &corev1.Pod{}
	if err := json.Unmarshal(v.request.Object.Raw, v.pod); err != nil {
		return fmt.Errorf("decoding the pod: %w", err)
	}
	return i.readLimits(ctx, v)
}

// +kubebuilder:rbac:groups="",resources=limitranges;resourcequotas,verbs=list;watch

func (i *Injector) readLimits(ctx context.Context, v *review) error {
	var ranges corev1.LimitRangeList
	var quotas corev1.ResourceQuotaList
	for _, list := range []client.ObjectList{&ranges, &quotas} {
		if err := v.reader.List(ctx, list, client.InNamespace(v.request.Namespace), client.UnsafeDisableDeepCopy); err != nil {
			return fmt.Errorf("reading the limits of namespace %s: %w", v.request.Namespace, err)
		}
	}
	v.limits = limits.Namespace{Ranges: ranges.Items, Quotas: quotas.Items}
	return nil
}

// +kubebuilder:rbac:groups="",resources=namespaces,verbs=get

// selecting are the policies that select the pod, by name. It goes by what is registered: a change of a policy that is not
// accepted changes nothing for new pods.
func (i *Injector) selecting(ctx context.Context, v *review) ([]*v1alpha1.SidecarPolicy, error) {
	namespace := &corev1.Namespace{}
	if err := v.reader.Get(ctx, client.ObjectKey{Name: v.request.Namespace}, namespace); err != nil {
		return nil, fmt.Errorf("reading namespace %s: %w", v.request.Namespace, err)
	}
	v.namespace = namespace.Labels
	selected, err := i.registered(ctx, v)
	if err != nil {
		return nil, err
	}
	list := &v1alpha1.SidecarPolicyList{}
	if err := v.reader.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("reading the policies: %w", err)
	}
	var policies []*v1alpha1.SidecarPolicy
	for j := range list.Items {
		if policy := &list.Items[j]; selected[policy.Name] && policy.Status.TargetRevision != "" {
			policies = append(policies, policy)
		}
	}
	slices.SortFunc(policies, func(a, b *v1alpha1.SidecarPolicy) int { return strings.Compare(a.Name, b.Name) })
	return policies, nil
}

// registered names the policies of which a registration selects the pod.
func (i *Injector) registered(ctx context.Context, v *review) (map[string]bool, error) {
	registrations := &admissionregistrationv1.MutatingWebhookConfigurationList{}
	if err := v.reader.List(ctx, registrations, client.HasLabels{v1alpha1.PolicyLabel}, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("reading the registrations: %w", err)
	}
	selected := map[string]bool{}
	for j := range registrations.Items {
		selector, err := i.selectors.OfRegistration(&registrations.Items[j])
		if err != nil {
			return nil, fmt.Errorf("reading the registration %s: %w", registrations.Items[j].Name, err)
		}
		if pods := selector.In(v.namespace); pods != nil && pods.Matches(labels.Set(v.pod.Labels)) {
			selected[registrations.Items[j].Labels[v1alpha1.PolicyLabel]] = true
		}
	}
	return selected, nil
}

// answer adds what one policy has to say. The error refuses the pod.
func (i *Injector) answer(ctx context.Context, policy *v1alpha1.SidecarPolicy, v *review) error {
	defer func(began time.Time) { metrics.ObserveAdmission(policy.Name, time.Since(began)) }(time.Now())
	err := v.guard(func() error { return i.inject(ctx, policy, v) })
	if err == nil {
		v.release(policy.Name)
		return nil
	}
	failurePolicy := policy.Spec.Injection.FailurePolicy
	v.log().Error(err, "could not answer", "policy", policy.Name, "failurePolicy", failurePolicy)
	if failurePolicy == v1alpha1.FailurePolicyFail {
		return fmt.Errorf("SidecarPolicy %s (failurePolicy Fail) can't inject its sidecars: %w", policy.Name, err)
	}
	v.skip(policy.Name, v1alpha1.ReasonNoRevision, err.Error())
	return nil
}

// release takes the policy's gate off the pod.
func (v *review) release(policy string) {
	at := v1alpha1.HoldGateIndex(v.pod, policy)
	if at < 0 {
		return
	}
	v.patch = append(v.patch, jsonpatch.NewOperation("remove", fmt.Sprintf("/spec/schedulingGates/%d", at), nil))
	v.pod.Spec.SchedulingGates = slices.Delete(v.pod.Spec.SchedulingGates, at, at+1)
}

func (i *Injector) inject(ctx context.Context, policy *v1alpha1.SidecarPolicy, v *review) error {
	switch {
	case policy.DeletionTimestamp != nil:
		v.skip(policy.Name, v1alpha1.ReasonUnplugging, "the policy is being deleted")
		return nil
	case !selection.Injectable(v.pod):
		v.skip(policy.Name, v1alpha1.ReasonMirrorPod, "a mirror pod can't be changed")
		return nil
	}
	r, err := i.revision(ctx, policy, v)
	if err != nil {
		return err
	}
	additions, after, conflicts := v.render(policy, r)
	if len(conflicts) > 0 {
		i.report(ctx, policy, v, v1alpha1.ReasonInjectionSkipped, withoutSidecars+inject.Explain(conflicts))
		v.skip(policy.Name, conflicts[0].Reason, inject.Explain(conflicts))
		return nil
	}
	patch := additions.Patch(v.pod)
	v.patch, v.pod = append(v.patch, patch...), after
	switch {
	case len(patch) == 0:
		v.unchanged = append(v.unchanged, policy.Name)
	case len(additions.Ignored) > 0:
		metrics.ObserveInjection(policy.Name, metrics.Injected, additions.Ignored[0].Reason)
		message := withoutOverride + inject.Explain(additions.Ignored)
		i.report(ctx, policy, v, v1alpha1.ReasonOverrideIgnored, message)
		v.warn(policy.Name, message)
	default:
		metrics.ObserveInjection(policy.Name, metrics.Injected, "")
	}
	return nil
}

// What becomes of a pod that does not get what its owner or the policy's author meant.
const (
	withoutSidecars = "created without its sidecars: "
	withoutOverride = "created without the override of its template: "
)

func (v *review) warn(policy, message string) {
	v.warnings = append(v.warnings, "SidecarPolicy "+policy+": "+message)
}

// skip leaves the pod as it is.
func (v *review) skip(policy string, reason v1alpha1.Reason, message string) {
	metrics.ObserveInjection(policy, metrics.Skipped, reason)
	v.warn(policy, withoutSidecars+message)
}

// render says what the pod gets and how it is then, or why it is left as it is: for its own sake, or because its namespace
// would not take it with the sidecars.
func (v *review) render(policy *v1alpha1.SidecarPolicy, r *revision.Revision) (inject.Additions, *corev1.Pod, []inject.Conflict) {
	additions, conflicts := inject.Render(v.pod, policy.Name, r, policy.Spec.Injection.Overrides...)
	if len(conflicts) > 0 {
		return additions, nil, conflicts
	}
	if policy.Spec.Rollout.Drain.Seconds > 0 {
		additions.AddDrainGate(v.pod, policy.Name)
	}
	after := v.pod.DeepCopy()
	additions.Apply(after)
	broken := podsecurity.Check(v.namespace, v.pod, after)
	if broken == nil {
		broken = v.limits.Check(v.pod, after)
	}
	if broken != nil {
		return additions, nil, []inject.Conflict{*broken}
	}
	return additions, after, nil
}

// +kubebuilder:rbac:groups=apps,namespace=system,resources=controllerrevisions,verbs=get

func (i *Injector) revision(ctx context.Context, policy *v1alpha1.SidecarPolicy, v *review) (*revision.Revision, error) {
	place := rollout.Place{Labels: v.pod.Labels, NamespaceLabels: v.namespace}
	if owner := metav1.GetControllerOfNoCopy(v.pod); owner != nil {
		place.Owner = string(owner.UID)
	}
	hash := rollout.RevisionFor(policy, place)
	object := &appsv1.ControllerRevision{}
	key := client.ObjectKey{Namespace: i.Namespace, Name: revision.ObjectName(policy.Name, hash)}
	err := v.reader.Get(ctx, key, object)
	if apierrors.IsNotFound(err) { // the cache may know the status, and the revision a moment later
		err = i.Live.Get(ctx, key, object)
	}
	if err != nil {
		return nil, fmt.Errorf("reading revision %s: %w", hash, err)
	}
	return i.decoded.Get(stored{object.UID, object.ResourceVersion}, maxDecoded, func() (*revision.Revision, error) {
		r, err := revision.Decode(object)
		return &r, err
	})
}

// report tells the pod's owner what its pods lack: nobody sees the warnings
// that a controller gets. A dry run has no side effects.
func (i *Injector) report(ctx context.Context, policy *v1alpha1.SidecarPolicy, v *review, reason v1alpha1.Reason, message string) {
	req := v.request
	if req.DryRun != nil && *req.DryRun {
		return
	}
	info, err := workload.NewResolver(i.Reader).Of(ctx, req.Namespace, v.pod)
	if err != nil || info.Owner == nil {
		return // a bare pod's owner is the one who gets the warning
	}
	owner := info.Owner
	regarding := &corev1.ObjectReference{APIVersion: owner.APIVersion, Kind: owner.Kind,
		Namespace: req.Namespace, Name: owner.Name, UID: owner.UID}
	i.Recorder.Eventf(regarding, policy, corev1.EventTypeWarning, string(reason), "Inject",
		"SidecarPolicy %s: pods are %s", policy.Name, message)
	ctrl.LoggerFrom(ctx).Info("told a pod's owner", "policy", policy.Name, "namespace", req.Namespace,
		"owner", owner.Kind+"/"+owner.Name, "reason", reason)
}
