// Package admission answers the API server when a pod is created that a policy
// selects. The decision is inject.Render's; this is its I/O.
package admission

import (
	"context"
	"fmt"
	"net/http"
	"path"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/inject"
	"github.com/sidecar-dev/sidecar-operator/internal/metrics"
	"github.com/sidecar-dev/sidecar-operator/internal/podsecurity"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
	"github.com/sidecar-dev/sidecar-operator/internal/selection"
	"github.com/sidecar-dev/sidecar-operator/internal/workload"
)

// PathPrefix followed by the policy's name is where the API server sends pods.
const PathPrefix = "/inject/"

// Path is where the API server sends the pods of a policy.
func Path(policy string) string { return PathPrefix + policy }

// Register serves all policies on one server.
func Register(server webhook.Server, injector *Injector) {
	server.Register(PathPrefix, &admission.Webhook{Handler: injector, WithContextFunc: withPolicy})
}

type policyKey struct{}

func withPolicy(ctx context.Context, r *http.Request) context.Context {
	return context.WithValue(ctx, policyKey{}, path.Base(r.URL.Path))
}

// Injector plugs sidecars into new pods.
type Injector struct {
	// Reader reads policies and revisions, from a cache.
	Reader client.Reader
	// Decoder reads pods.
	Decoder admission.Decoder
	// Recorder sends events to the owners of pods that were left as they are.
	Recorder events.EventRecorder
	// Namespace is the operator's own, where revisions are.
	Namespace string
}

// Handle answers for one pod. A pod is refused only where its policy's author asked
// for that (failurePolicy Fail) and the answer could not be found; a clash never refuses it.
func (i *Injector) Handle(ctx context.Context, req admission.Request) admission.Response {
	name, _ := ctx.Value(policyKey{}).(string)
	policy := &v1alpha1.SidecarPolicy{}
	if err := i.Reader.Get(ctx, client.ObjectKey{Name: name}, policy); err != nil {
		// Whoever reaches the port can name what is no policy: metrics don't.
		return i.unanswered(name, "", v1alpha1.FailurePolicyIgnore, fmt.Errorf("reading the policy: %w", err))
	}
	defer func(began time.Time) { metrics.ObserveAdmission(name, time.Since(began)) }(time.Now())
	if policy.DeletionTimestamp != nil {
		return skip(name, v1alpha1.ReasonUnplugging, "the policy is being deleted")
	}
	response, err := i.inject(ctx, policy, req)
	if err != nil {
		return i.unanswered(name, name, policy.Spec.Injection.FailurePolicy, err)
	}
	return response
}

func (i *Injector) inject(ctx context.Context, policy *v1alpha1.SidecarPolicy, req admission.Request) (admission.Response, error) {
	pod := &corev1.Pod{}
	if err := i.Decoder.Decode(req, pod); err != nil {
		return admission.Response{}, fmt.Errorf("decoding the pod: %w", err)
	}
	if !selection.Injectable(pod) {
		return skip(policy.Name, v1alpha1.ReasonMirrorPod, "a mirror pod can't be changed"), nil
	}
	namespace := &corev1.Namespace{}
	if err := i.Reader.Get(ctx, client.ObjectKey{Name: req.Namespace}, namespace); err != nil {
		return admission.Response{}, fmt.Errorf("reading namespace %s: %w", req.Namespace, err)
	}
	r, err := i.revision(ctx, policy, pod, namespace.Labels)
	if err != nil {
		return admission.Response{}, err
	}
	additions, conflicts := render(pod, policy, r, namespace.Labels)
	if len(conflicts) > 0 {
		i.report(ctx, policy, pod, req, v1alpha1.ReasonInjectionSkipped, withoutSidecars+inject.Explain(conflicts))
		return skip(policy.Name, conflicts[0].Reason, inject.Explain(conflicts)), nil
	}
	if policy.Spec.Rollout.Drain.Seconds > 0 {
		additions.AddDrainGate(pod, policy.Name)
	}
	patch := additions.Patch(pod)
	response := admission.Patched("", patch...)
	switch {
	case len(patch) == 0:
		metrics.ObserveInjection(policy.Name, metrics.Unchanged, "")
	case len(additions.Ignored) > 0:
		metrics.ObserveInjection(policy.Name, metrics.Injected, additions.Ignored[0].Reason)
		message := withoutOverride + inject.Explain(additions.Ignored)
		i.report(ctx, policy, pod, req, v1alpha1.ReasonOverrideIgnored, message)
		response = response.WithWarnings(warning(policy.Name, message))
	default:
		metrics.ObserveInjection(policy.Name, metrics.Injected, "")
	}
	return response, nil
}

// What becomes of a pod that does not get what its owner or the policy's author meant.
const (
	withoutSidecars = "created without its sidecars: "
	withoutOverride = "created without the override of its template: "
)

func warning(policy, message string) string { return "SidecarPolicy " + policy + ": " + message }

// render says what the pod gets, or why it is left as it is: for its own sake, or because its namespace would
// not take it with the sidecars.
func render(pod *corev1.Pod, policy *v1alpha1.SidecarPolicy, r *revision.Revision, namespace map[string]string) (inject.Additions, []inject.Conflict) {
	additions, conflicts := inject.Render(pod, policy.Name, r, policy.Spec.Injection.Overrides...)
	if len(conflicts) > 0 {
		return additions, conflicts
	}
	after := pod.DeepCopy()
	additions.Apply(after)
	if broken := podsecurity.Check(namespace, pod, after); broken != nil {
		return inject.Additions{}, []inject.Conflict{*broken}
	}
	return additions, nil
}

func (i *Injector) revision(ctx context.Context, policy *v1alpha1.SidecarPolicy, pod *corev1.Pod, namespace map[string]string) (*revision.Revision, error) {
	place := rollout.Place{Labels: pod.Labels, NamespaceLabels: namespace}
	if owner := metav1.GetControllerOfNoCopy(pod); owner != nil {
		place.Owner = string(owner.UID)
	}
	hash := rollout.RevisionFor(policy, place)
	if hash == "" {
		return nil, fmt.Errorf("policy %s has no accepted revision yet", policy.Name)
	}
	object := &appsv1.ControllerRevision{}
	key := client.ObjectKey{Namespace: i.Namespace, Name: revision.ObjectName(policy.Name, hash)}
	if err := i.Reader.Get(ctx, key, object); err != nil {
		return nil, fmt.Errorf("reading revision %s: %w", hash, err)
	}
	r, err := revision.Decode(object)
	return &r, err
}

// skip lets the pod in as its owner wrote it.
func skip(policy string, reason v1alpha1.Reason, message string) admission.Response {
	metrics.ObserveInjection(policy, metrics.Skipped, reason)
	return skipped(policy, message)
}

func skipped(policy, message string) admission.Response {
	return admission.Allowed("").WithWarnings(warning(policy, withoutSidecars+message))
}

// unanswered follows the author's failure policy. The API server itself does so only
// for calls that don't come back. The metrics know the policy by its label.
func (i *Injector) unanswered(policy, label string, failurePolicy v1alpha1.InjectionFailurePolicy, err error) admission.Response {
	ctrl.Log.WithName("admission").Error(err, "could not answer", "policy", policy, "failurePolicy", failurePolicy)
	if failurePolicy == v1alpha1.FailurePolicyFail {
		return admission.Errored(http.StatusInternalServerError,
			fmt.Errorf("SidecarPolicy %s (failurePolicy Fail) can't inject its sidecars: %w", policy, err))
	}
	metrics.ObserveInjection(label, metrics.Skipped, v1alpha1.ReasonNoRevision)
	return skipped(policy, err.Error())
}

// report tells the pod's owner what its pods lack: nobody sees the warnings
// that a controller gets. A dry run has no side effects.
func (i *Injector) report(ctx context.Context, policy *v1alpha1.SidecarPolicy, pod *corev1.Pod, req admission.Request, reason v1alpha1.Reason, message string) {
	if req.DryRun != nil && *req.DryRun {
		return
	}
	info, err := workload.NewResolver(i.Reader).Of(ctx, req.Namespace, pod)
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
