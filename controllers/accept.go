package controllers

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/admissionpolicy"
	"github.com/sidecar-dev/sidecar-operator/internal/analysis"
	"github.com/sidecar-dev/sidecar-operator/internal/inject"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
	"github.com/sidecar-dev/sidecar-operator/internal/schedule"
	"github.com/sidecar-dev/sidecar-operator/internal/selection"
)

// +kubebuilder:rbac:groups="",namespace=system,resources=pods,verbs=create
// +kubebuilder:rbac:groups=apps,namespace=system,resources=controllerrevisions,verbs=list;watch;create;delete

// accept finds the revision of the spec's template, or makes it once the API server has
// accepted a pod with it. Where the spec is not accepted, the pass has no target,
// and all that was accepted before stays in force.
func (r *SidecarPolicyReconciler) accept(ctx context.Context, p *pass) error {
	var err error
	if p.revisions, err = r.listRevisions(ctx, p.policy.Name); err != nil {
		p.accepted = finding{unknown, v1alpha1.ReasonNotChecked, err.Error()}
		return err
	}
	if problems := validate(p.policy, r.Namespace); len(problems) > 0 {
		p.accepted = finding{no, v1alpha1.ReasonInvalidSpec, strings.Join(problems, "; ")}
		p.keepGoal()
		return nil
	}
	if name := p.policy.Spec.Rollout.Revision; name != "" {
		p.acceptNamed(name)
		return nil
	}
	if err := r.lookAround(ctx, p); err != nil {
		p.accepted = finding{unknown, v1alpha1.ReasonNotChecked, err.Error()}
		p.keepGoal()
		return nil
	}
	if p.goal = revision.Find(p.revisions, p.template()); p.goal == nil {
		return r.acceptNew(ctx, p)
	}
	p.accepted = accepted(p.policy)
	return nil
}

// keepGoal leaves in force what was accepted before, so that the fleet is still looked at.
func (p *pass) keepGoal() {
	p.goal = revision.Get(p.revisions, p.policy.Status.TargetRevision)
}

// acceptNamed takes a revision of the history instead of the template.
func (p *pass) acceptNamed(name string) {
	if p.goal = revision.Get(p.revisions, name); p.goal != nil {
		p.accepted = accepted(p.policy)
		return
	}
	var names []string
	for _, r := range p.revisions {
		names = append(names, r.Hash)
	}
	p.accepted = finding{no, v1alpha1.ReasonInvalidSpec, fmt.Sprintf(
		"spec.rollout.revision: the policy has no revision %q: write one of %s, or remove the field to roll out the template", name, strings.Join(names, ", "))}
	p.keepGoal()
}

func accepted(policy *v1alpha1.SidecarPolicy) finding {
	message := "the spec can be carried out"
	if warnings := warn(policy); len(warnings) > 0 {
		message = "warning: " + strings.Join(warnings, "; ")
	}
	return finding{yes, v1alpha1.ReasonValid, message}
}

// acceptNew asks the API server about a template that it has not seen, and keeps it.
func (r *SidecarPolicyReconciler) acceptNew(ctx context.Context, p *pass) error {
	next := revision.Next(p.revisions, p.template())
	err := r.dryRun(ctx, samplePod(p.policy, &next, r.Namespace))
	switch {
	case apierrors.IsInvalid(err) || apierrors.IsBadRequest(err):
		p.accepted = finding{no, v1alpha1.ReasonPodRefused,
			"the API server refuses a pod with this template: " + sampleWords(err)}
		p.keepGoal()
		return nil
	case err != nil:
		p.accepted = finding{unknown, v1alpha1.ReasonNotChecked, "the API server could not be asked: " + err.Error()}
		return err
	}
	object, err := revision.Encode(p.policy.Name, r.Namespace, next)
	if err != nil {
		return err
	}
	object.OwnerReferences = ownedBy(p.policy)
	if err := r.Create(ctx, object); err != nil {
		p.accepted = finding{unknown, v1alpha1.ReasonNotChecked, err.Error()}
		return fmt.Errorf("creating revision %s: %w", next.Hash, err)
	}
	ctrl.LoggerFrom(ctx).Info("accepted a new template", "revision", next.Hash)
	r.event(p.policy, corev1.EventTypeNormal, v1alpha1.ReasonRevisionCreated, "Accept", "accepted the template as revision %s", next.Hash)
	p.revisions = append(p.revisions, next)
	p.goal, p.accepted = &next, accepted(p.policy)
	return nil
}

func (r *SidecarPolicyReconciler) listRevisions(ctx context.Context, policy string) ([]revision.Revision, error) {
	list := &appsv1.ControllerRevisionList{}
	if err := r.List(ctx, list, client.InNamespace(r.Namespace), client.MatchingLabels{v1alpha1.PolicyLabel: policy}); err != nil {
		return nil, fmt.Errorf("listing revisions: %w", err)
	}
	var revisions []revision.Revision
	for i := range list.Items {
		decoded, err := revision.Decode(&list.Items[i])
		if err != nil {
			return nil, err
		}
		revisions = append(revisions, decoded)
	}
	return revisions, nil
}

// dryRun asks the API server whether it would take the pod. It validates a pod before
// admission plugins may forbid it, so a Forbidden (Pod Security, quota) speaks of this
// namespace alone and means that the pod is valid.
func (r *SidecarPolicyReconciler) dryRun(ctx context.Context, pod *corev1.Pod, opts ...client.CreateOption) error {
	err := r.Create(ctx, pod, append(opts, client.DryRunAll, client.DisableReadYourWritesConsistency)...)
	if apierrors.IsForbidden(err) {
		return nil
	}
	return err
}

const sampleContainer = "sample-app"

// samplePod is a minimal app with the template's sidecars.
func samplePod(policy *v1alpha1.SidecarPolicy, r *revision.Revision, namespace string) *corev1.Pod {
	pod := sampleApp(&r.Template)
	pod.GenerateName, pod.Namespace = "template-check-", namespace
	additions, _ := inject.Render(pod, policy.Name, r) // validate has seen to it that nothing clashes
	additions.Apply(pod)
	return pod
}

// appVolumes names the volumes that the template mounts and does not bring.
func appVolumes(t *v1alpha1.SidecarTemplate) []string {
	known := map[string]bool{}
	for _, v := range t.Volumes {
		known[v.Name] = true
	}
	var names []string
	add := func(mounts []corev1.VolumeMount) {
		for _, m := range mounts {
			if !known[m.Name] {
				known[m.Name] = true
				names = append(names, m.Name)
			}
		}
	}
	for _, s := range t.Sidecars {
		add(s.VolumeMounts)
	}
	for _, c := range t.InitContainers {
		add(c.VolumeMounts)
	}
	for _, a := range t.AppContainers {
		add(a.VolumeMounts)
	}
	return names
}

// sampleWords are the API server's words without the name of the sample pod.
func sampleWords(err error) string {
	words := err.Error()
	if _, rest, found := strings.Cut(words, " is invalid: "); found {
		return rest
	}
	return words
}

// validate finds what the schema can't: the message says what to write instead.
func validate(policy *v1alpha1.SidecarPolicy, namespace string) []string {
	if policy.Spec.Template.Unreadable != "" {
		return []string{"spec.template can't be read: " + policy.Spec.Template.Unreadable}
	}
	var problems []string
	if _, err := selection.New(&policy.Spec.Selector, namespace); err != nil {
		problems = append(problems, err.Error())
	}
	if policy.Spec.Injection.Engine == v1alpha1.EngineAdmissionPolicy {
		problems = append(problems, admissionpolicy.Unsupported(&policy.Spec.Template, "spec.template")...)
	}
	problems = append(problems, invalidSteps(policy.Spec.Rollout.Steps)...)
	problems = append(problems, invalidWindows(policy.Spec.Rollout.Windows)...)
	for i, query := range rollout.Queries(&policy.Spec.Rollout) {
		if err := analysis.Validate(query); err != nil {
			problems = append(problems, fmt.Sprintf("spec.rollout.analysis[%d]: %s", i, strings.ReplaceAll(err.Error(), "\n", "; ")))
		}
	}
	problems = append(problems, invalidOverrides(policy)...)
	if found := invalidTemplate(&policy.Spec.Template); len(found) > 0 {
		return slices.Compact(append(problems, found...))
	}
	return append(problems, selfConflicts(policy)...)
}

func invalidSteps(steps []v1alpha1.Step) []string {
	var problems []string
	for _, step := range steps {
		for field, selector := range map[string]*metav1.LabelSelector{"namespaceSelector": step.NamespaceSelector, "podSelector": step.PodSelector} {
			if _, err := metav1.LabelSelectorAsSelector(selector); err != nil {
				problems = append(problems, fmt.Sprintf("spec.rollout.steps[%s].%s: %v", step.Name, field, err))
			}
		}
	}
	slices.Sort(problems)
	return append(problems, shrinkingSteps(steps)...)
}

// shrinkingSteps finds percentages that are lower than one before: such a step could reach nothing.
func shrinkingSteps(steps []v1alpha1.Step) []string {
	var problems []string
	reached, by := 0, ""
	for _, step := range steps {
		if step.UpTo == nil || step.UpTo.Type != intstr.String {
			continue
		}
		percent, err := strconv.Atoi(strings.TrimSuffix(step.UpTo.StrVal, "%"))
		switch {
		case err != nil: // the schema refuses it
		case percent < reached:
			problems = append(problems, fmt.Sprintf("spec.rollout.steps[%s].upTo: %d%% is less than the %d%% of step %s before it, and steps add up: write them in growing order", step.Name, percent, reached, by))
		default:
			reached, by = percent, step.Name
		}
	}
	return problems
}

func invalidWindows(windows []v1alpha1.Window) []string {
	var problems []string
	for i, w := range windows {
		err := schedule.Validate(schedule.Window{Schedule: w.Schedule, Duration: w.Duration.Duration, TimeZone: w.TimeZone})
		if err != nil {
			problems = append(problems, fmt.Sprintf("spec.rollout.windows[%d]: %v", i, err))
		}
	}
	return problems
}

// selfConflicts finds what in a template clashes with itself in every pod.
func selfConflicts(policy *v1alpha1.SidecarPolicy) []string {
	next := revision.Next(nil, policy.Spec.Template)
	_, conflicts := inject.Render(sampleApp(&next.Template), policy.Name, &next)
	if len(conflicts) == 0 {
		return nil
	}
	return []string{"spec.template clashes with itself: " + inject.Explain(conflicts)}
}

// warn finds what will work, but hardly as meant.
func warn(policy *v1alpha1.SidecarPolicy) []string {
	var warnings []string
	deadline := policy.Spec.Rollout.Health.ProgressDeadline()
	for _, s := range policy.Spec.Template.Sidecars {
		if budget := startupBudget(s.StartupProbe); budget > deadline {
			warnings = append(warnings, fmt.Sprintf("sidecar %q may spend %s in its startup probe, longer than progressDeadlineSeconds (%s), and the kubelet acts on no other change meanwhile: lower failureThreshold or periodSeconds", s.Name, budget, deadline))
		}
	}
	if policy.Spec.Injection.Engine == v1alpha1.EngineAdmissionPolicy && policy.Spec.Rollout.Drain.Seconds > 0 {
		warnings = append(warnings, "with engine AdmissionPolicy and rollout.drain, pods that are created while the operator is away get ready when it is back, since nobody else opens their readiness gate: remove drain where that is not wanted")
	}
	return warnings
}

// startupBudget is how long the kubelet waits for a startup probe; its fields' defaults are
// the API server's.
func startupBudget(probe *corev1.Probe) time.Duration {
	if probe == nil {
		return 0
	}
	period, threshold := max(probe.PeriodSeconds, 0), max(probe.FailureThreshold, 0)
	if period == 0 {
		period = 10
	}
	if threshold == 0 {
		threshold = 3
	}
	return time.Duration(probe.InitialDelaySeconds+period*threshold) * time.Second
}

// ownedBy makes an object go with its policy. It does not block the policy's deletion,
// which would need a right on the policy's finalizers.
func ownedBy(policy *v1alpha1.SidecarPolicy) []metav1.OwnerReference {
	owner := metav1.NewControllerRef(policy, v1alpha1.GroupVersion.WithKind("SidecarPolicy"))
	owner.BlockOwnerDeletion = nil
	return []metav1.OwnerReference{*owner}
}
