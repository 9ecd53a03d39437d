// Package explain answers why a pod has, lacks or waits for the sidecars of a policy: one answer, in the
// words of events and status, by the functions that the manager decides by. It is pure.
package explain

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/fleet"
	"github.com/sidecar-dev/sidecar-operator/internal/inject"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
	"github.com/sidecar-dev/sidecar-operator/internal/selection"
)

// Has says whether a pod has the sidecars.
type Has string

// The answers to whether a pod has the sidecars.
const (
	// HasIt: all that it should have, and healthy.
	HasIt Has = "has it"
	// WaitsForIt: it has them, and waits for some of the revision that it should have.
	WaitsForIt Has = "waits"
	// LacksIt: it has none of them.
	LacksIt Has = "lacks it"
	// FailsOnIt: it has them, and they don't do well.
	FailsOnIt Has = "fails"
)

// Reasons that no status and no event has: nothing is wrong there.
const (
	// ReasonNotSelected: the policy does not select the pod.
	ReasonNotSelected v1alpha1.Reason = "NotSelected"
	// ReasonDeselected: the policy does not select the pod any more.
	ReasonDeselected v1alpha1.Reason = "Deselected"
	// ReasonFinished: the pod has run to its end.
	ReasonFinished v1alpha1.Reason = "Finished"
	// ReasonLeaving: the pod is being deleted.
	ReasonLeaving v1alpha1.Reason = "Leaving"
	// ReasonMissing: the pod was created without the sidecars.
	ReasonMissing v1alpha1.Reason = "Missing"
	// ReasonStarting: the sidecars don't run yet.
	ReasonStarting v1alpha1.Reason = "Starting"
)

// Answer is about a pod and a policy.
type Answer struct {
	Policy string `json:"policy"`
	Has    Has    `json:"has"`
	// Revision is the one whose images the pod was given last, Target the one that it should have.
	Revision string          `json:"revision,omitempty"`
	Target   string          `json:"target,omitempty"`
	Reason   v1alpha1.Reason `json:"reason"`
	Message  string          `json:"message"`
	// Next is what a person may do.
	Next string `json:"next,omitempty"`
}

// Subject is a pod with what its selection depends on.
type Subject struct {
	Pod *corev1.Pod
	// NamespaceLabels are those of its namespace.
	NamespaceLabels map[string]string
	// OperatorNamespace is the operator's own.
	OperatorNamespace string
}

// NotSelected answers for a policy that does not select the pod. It says false where it does.
func NotSelected(s Subject, policy *v1alpha1.SidecarPolicy) (Answer, bool) {
	why := s.unselected(policy)
	if why == "" {
		return Answer{}, false
	}
	a := Answer{Policy: policy.Name, Has: LacksIt, Reason: ReasonNotSelected, Message: why}
	if inject.Injected(s.Pod, policy.Name) {
		a.Has, a.Reason = HasIt, ReasonDeselected
		a.Revision = s.Pod.Labels[v1alpha1.RevisionLabel(policy.Name)]
		a.Message = "the policy does not select it any more, and leaves it as it is: " + why
		a.Next = "recreate it to take the sidecars out"
		if policy.Spec.OnRemoval == v1alpha1.RemovalRecreate {
			a.Message = "the policy does not select it any more, and has it evicted, as spec.onRemoval is Recreate: " + why
			a.Next = "wait, or see what holds it up: kubectl sidecar status " + policy.Name
		}
	}
	return a, true
}

// unselected says why the policy does not select the pod; empty where it does.
func (s Subject) unselected(policy *v1alpha1.SidecarPolicy) string {
	selector, err := selection.New(&policy.Spec.Selector, s.OperatorNamespace)
	pod := s.Pod
	switch {
	case err != nil:
		return err.Error()
	case pod.Namespace == metav1.NamespaceSystem || pod.Namespace == s.OperatorNamespace:
		return "pods in namespace " + pod.Namespace + " are never selected"
	case s.NamespaceLabels[v1alpha1.InjectLabel] == "false" || pod.Labels[v1alpha1.InjectLabel] == "false":
		if policy.Spec.Selector.Mode != v1alpha1.SelectMandatory {
			return "its owner has opted out by the label " + v1alpha1.InjectLabel + ": \"false\""
		}
	}
	if in := selector.In(s.NamespaceLabels); in != nil && in.Matches(labels.Set(pod.Labels)) {
		return ""
	}
	wanted := fmt.Sprintf("spec.selector (namespaces %s, pods %s)",
		metav1.FormatLabelSelector(policy.Spec.Selector.NamespaceSelector), metav1.FormatLabelSelector(policy.Spec.Selector.PodSelector))
	if policy.Spec.Selector.Mode == v1alpha1.SelectOptIn {
		wanted += ", which asks for the label " + v1alpha1.InjectLabel + ": \"true\" besides"
	}
	return "its labels and those of its namespace do not match " + wanted
}

// Sight is what was seen of the policy.
type Sight struct {
	Policy *v1alpha1.SidecarPolicy
	// Problem says why its spec is not accepted.
	Problem string
	// Input and Plan are the manager's; Plan is nil where the policy has no revision.
	Input rollout.Input
	Plan  *rollout.Plan
}

// Selected answers for a policy that selects the pod.
func Selected(s Subject, sight Sight) Answer {
	a := Answer{Policy: sight.Policy.Name, Revision: s.Pod.Labels[v1alpha1.RevisionLabel(sight.Policy.Name)]}
	a.Has = LacksIt
	if inject.Injected(s.Pod, a.Policy) {
		a.Has = HasIt
	}
	switch {
	case !selection.Injectable(s.Pod):
		return a.because(v1alpha1.ReasonMirrorPod, "it stands for a static pod of its node, which the API server can't change")
	case s.Pod.DeletionTimestamp != nil:
		return a.because(ReasonLeaving, "it is being deleted")
	case !selection.Active(s.Pod):
		return a.because(ReasonFinished, "it has run to its end ("+string(s.Pod.Status.Phase)+")")
	case sight.Plan == nil:
		return a.because(v1alpha1.ReasonNoRevision, "the policy has no accepted revision: "+sight.Problem)
	}
	a.Target = sight.Plan.Target
	state := find(sight.Input.Pods, s.Pod.UID)
	switch {
	case state == nil:
		return a.because(ReasonMissing, "it came or went while it was looked at: ask again")
	case !state.Injected:
		return a.missing(state, sight)
	}
	a.Revision = state.Given
	return a.carries(state, sight)
}

func find(pods []fleet.PodState, uid types.UID) *fleet.PodState {
	for i := range pods {
		if pods[i].Pod.UID == uid {
			return &pods[i]
		}
	}
	return nil
}

func (a Answer) because(reason v1alpha1.Reason, message string) Answer {
	a.Reason, a.Message = reason, message
	return a
}

func (a Answer) then(next string) Answer {
	a.Next = next
	return a
}

// missing says why a pod has none of the sidecars.
func (a Answer) missing(pod *fleet.PodState, sight Sight) Answer {
	policy := sight.Policy
	a.Has = LacksIt
	if len(pod.Conflicts) > 0 {
		worst := &pod.Conflicts[0]
		return a.because(worst.Reason, "it was left as it is: "+inject.Explain(pod.Conflicts)).then(settle(worst) + ", and recreate the pod")
	}
	if pod.Held {
		a.Has = WaitsForIt
		return a.because(v1alpha1.ReasonHeld, "it is not scheduled before it has the sidecars (failurePolicy Hold): it "+pod.Missed).
			then("see whether the operator is up and reached: kubectl sidecar doctor")
	}
	why := "it was created while the operator could not be asked, or before the policy selected it"
	switch {
	case pod.Pod.CreationTimestamp.Before(&policy.CreationTimestamp):
		why = "it is older than the policy"
	case policy.Spec.Injection.Paused:
		why = "spec.injection.paused is true"
	}
	return a.because(ReasonMissing, why+"; "+sight.Plan.WhyMissing(sight.Input, pod)).then(recreate(pod))
}

// settle is how a person can end a conflict.
func settle(conflict *inject.Conflict) string {
	switch {
	case conflict.Policy != "":
		return "rename the part in one of the two policies, or make a selector narrower"
	case conflict.Reason == v1alpha1.ReasonPodSecurityConflict:
		return "let the template keep the standard, or the namespace enforce another"
	}
	return "rename the part in the workload or in the template"
}

// recreate is how a person has a pod made anew.
func recreate(pod *fleet.PodState) string {
	w := pod.Workload
	switch w.Kind {
	case "Deployment", "StatefulSet", "DaemonSet":
		return fmt.Sprintf("kubectl rollout restart -n %s %s/%s", w.Namespace, strings.ToLower(w.Kind), w.Name)
	}
	return fmt.Sprintf("kubectl delete pod -n %s %s", pod.Pod.Namespace, pod.Pod.Name)
}

// carries says how a pod with the sidecars stands to the target.
func (a Answer) carries(pod *fleet.PodState, sight Sight) Answer {
	switch {
	case pod.Verdict.State == fleet.Failed:
		a.Has = FailsOnIt
		return a.because(pod.Verdict.Reason, pod.Verdict.Message).then("kubectl describe pod -n " + pod.Pod.Namespace + " " + pod.Pod.Name)
	case pod.Underway():
		a.Has = WaitsForIt
		return a.because(v1alpha1.ReasonRollingOut, underway(pod))
	case pod.Verdict.State == fleet.Starting:
		a.Has = WaitsForIt
		return a.because(ReasonStarting, pod.Verdict.Message)
	case pod.Updated():
		return a.because(v1alpha1.ReasonComplete, "it runs all of the revision that it should have, and is healthy on it")
	}
	a.Has = WaitsForIt
	if refused := refusal(sight.Policy, pod.Workload); refused != "" {
		return a.because(v1alpha1.ReasonUpdateRefused, refused).then("ask whose admission, quota or budget that is; the operator tries again by itself")
	}
	reason, message := sight.Plan.Why(sight.Input, pod)
	if lacks := lacks(pod); lacks != "" {
		message = "it lacks " + lacks + ": " + message
	}
	return a.because(reason, message).then(next(reason, pod, a.Policy))
}

func underway(pod *fleet.PodState) string {
	if pod.Gate.Draining() {
		return "it is drained before its sidecars are restarted"
	}
	if pod.Verdict.Message != "" {
		return "its upgrade is under way: " + pod.Verdict.Message
	}
	return "its upgrade is under way"
}

// lacks names what the pod lacks of the target.
func lacks(pod *fleet.PodState) string {
	var parts []string
	for _, change := range pod.Images {
		parts = append(parts, fmt.Sprintf("image %s of %s", change.Image, change.Container))
	}
	for _, resize := range pod.Resizes {
		parts = append(parts, "resources of "+resize.Container)
	}
	if pod.Stale != "" {
		parts = append(parts, pod.Stale)
	}
	return strings.Join(parts, ", ")
}

// refusal is what the status tells of refused updates of a workload: the manager remembers the rest.
func refusal(policy *v1alpha1.SidecarPolicy, workload fleet.Workload) string {
	for _, u := range policy.Status.Unhealthy {
		if u.Reason == v1alpha1.ReasonUpdateRefused && u.Workload == workload.String() {
			return fmt.Sprintf("the API server refuses to update %d pods of %s: %s", u.Pods, u.Workload, u.Message)
		}
	}
	return ""
}

func next(reason v1alpha1.Reason, pod *fleet.PodState, policy string) string {
	switch reason {
	case v1alpha1.ReasonStale, v1alpha1.ReasonOnDelete:
		return recreate(pod)
	case v1alpha1.ReasonPaused:
		return "kubectl sidecar resume " + policy
	case v1alpha1.ReasonAwaitingApproval:
		return "kubectl sidecar approve " + policy
	case v1alpha1.ReasonSoaking, v1alpha1.ReasonAnalyzing:
		return "wait, or kubectl sidecar promote " + policy
	case v1alpha1.ReasonUpgradeFailed:
		return "kubectl sidecar status " + policy
	}
	return ""
}

// Text is the answers for people. Policies that do not select the pod are told apart, in a line each.
func Text(pod *corev1.Pod, answers []Answer) string {
	var out, others strings.Builder
	fmt.Fprintf(&out, "Pod %s/%s", pod.Namespace, pod.Name)
	if pod.Spec.NodeName != "" {
		fmt.Fprintf(&out, " on node %s", pod.Spec.NodeName)
	}
	out.WriteString("\n")
	if len(answers) == 0 {
		out.WriteString("There are no policies.\n")
	}
	for _, a := range answers {
		if a.Reason == ReasonNotSelected {
			fmt.Fprintf(&others, "%s %s (%s): %s\n", a.Policy, a.Has, a.Reason, a.Message)
			continue
		}
		fmt.Fprintf(&out, "\n%s: %s (%s)\n  %s\n", a.Policy, a.Has, a.Reason, a.Message)
		if a.Revision != "" || a.Target != "" {
			fmt.Fprintf(&out, "  revision: %s, should have: %s\n", or(a.Revision), or(a.Target))
		}
		if a.Next != "" {
			fmt.Fprintf(&out, "  next: %s\n", a.Next)
		}
	}
	if others.Len() > 0 {
		out.WriteString("\n" + others.String())
	}
	return out.String()
}

func or(text string) string {
	if text == "" {
		return "none"
	}
	return text
}
