package v1alpha1

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Keys that the operator writes on pods. A '<policy>' stands for the name of a
// SidecarPolicy, which is at most 63 characters long so that it fits.
const (
	// RevisionLabelPrefix followed by the policy's name is a pod label. Its value
	// is the revision that the pod was given, at creation or by the last in-place
	// upgrade, so that `kubectl get pods -L revision.fleet.sidecar.dev/<policy>`
	// shows versions.
	RevisionLabelPrefix = "revision.fleet.sidecar.dev/"

	// InjectedAnnotationPrefix followed by the policy's name is a pod annotation,
	// written once at creation: a JSON InjectionRecord of what was plugged in.
	InjectedAnnotationPrefix = "injected.fleet.sidecar.dev/"

	// UpgradeAnnotationPrefix followed by the policy's name is a pod annotation,
	// written together with the images of an in-place upgrade: a JSON
	// UpgradeRecord of what ran before it.
	UpgradeAnnotationPrefix = "upgrade.fleet.sidecar.dev/"

	// OverrideAnnotationPrefix followed by the policy's name is a pod annotation that the pod's owner
	// writes: what its sidecars are to have otherwise, as far as spec.injection.overrides allows it.
	OverrideAnnotationPrefix = "override.fleet.sidecar.dev/"

	// RetryAnnotation on a policy names a failed revision that is to be tried again, from its
	// first step on. Each value is acted on once: to try again another time, write
	// <revision>/<anything else>. A revision that was aborted needs the abort annotation removed first.
	RetryAnnotation = "fleet.sidecar.dev/retry"

	// ApproveAnnotation on a policy, with the value <revision>/<step>, lets the roll-out of that
	// revision leave that step, which requires approval.
	ApproveAnnotation = "fleet.sidecar.dev/approve"

	// PromoteAnnotation on a policy, with the value <revision>/<step>, ends that step of that
	// revision: without the rest of its soak and analysis, and as if it was approved. Failures of
	// pods still stop the roll-out.
	PromoteAnnotation = "fleet.sidecar.dev/promote"

	// AbortAnnotation on a policy names a revision that is to count as failed: its roll-out
	// stops, and is rolled back where spec.rollout.onFailure says so.
	AbortAnnotation = "fleet.sidecar.dev/abort"

	// PolicyLabel is on every object that the operator creates for one policy
	// (ControllerRevisions, admission registrations, prefetch pods). Its value is the
	// policy's name.
	PolicyLabel = "fleet.sidecar.dev/policy"

	// PrefetchLabel is on every pod that brings images onto a node before an upgrade. Its
	// value is the revision that the images are of. No policy selects such a pod.
	PrefetchLabel = "fleet.sidecar.dev/prefetch"

	// HashVersionLabel is on every ControllerRevision: the version of the hash
	// function that named it.
	HashVersionLabel = "fleet.sidecar.dev/hash-version"

	// InjectLabel on a pod or a namespace is written by its owner. The value "false" keeps the sidecars of all policies
	// out, except of those whose selector has the mode Mandatory; "true" asks for those of policies of the mode
	// OptIn. Where pod and namespace differ, "false" counts. Another value says nothing.
	InjectLabel = "fleet.sidecar.dev/inject"

	// ExemptUntilAnnotation on a namespace, a workload or a bare pod keeps roll-outs away
	// from its pods until the end of a day in UTC (2026-12-31) or a time in RFC 3339
	// (2026-12-31T18:00:00Z). Its owner writes it. A value that can't be read exempts
	// until it is corrected.
	ExemptUntilAnnotation = "fleet.sidecar.dev/exempt-until"
)

// UnplugFinalizer is on policies with onRemoval: Recreate, until no pod carries their sidecars or
// onRemoval has become Keep. No other policy has a finalizer.
const UnplugFinalizer = "fleet.sidecar.dev/unplug"

// DrainConditionPrefix followed by the policy's name is a readiness gate of pods. Its condition
// is True except while the pod is drained for an upgrade.
const DrainConditionPrefix = "drain.fleet.sidecar.dev/"

// DrainCondition is the readiness gate of a policy.
func DrainCondition(policy string) corev1.PodConditionType {
	return corev1.PodConditionType(DrainConditionPrefix + policy)
}

// HoldGatePrefix followed by the policy's name is a scheduling gate of pods that wait for the policy's sidecars; see HoldGate.
const HoldGatePrefix = "hold.fleet.sidecar.dev/"

// HoldGate is the scheduling gate (KEP-3521) of a policy with failurePolicy Hold. The API server gives it to every new pod
// that the policy selects, and the webhook takes it off when it has answered for the policy.
func HoldGate(policy string) string { return HoldGatePrefix + policy }

// HoldGateIndex is the place of a policy's HoldGate among a pod's scheduling gates; -1 where the pod does not have it.
func HoldGateIndex(pod *corev1.Pod, policy string) int {
	return slices.IndexFunc(pod.Spec.SchedulingGates, func(gate corev1.PodSchedulingGate) bool { return gate.Name == HoldGate(policy) })
}

// HeldBy names the policies whose sidecars a pod waits for.
func HeldBy(pod *corev1.Pod) []string {
	var policies []string
	for _, gate := range pod.Spec.SchedulingGates {
		if policy, ours := strings.CutPrefix(gate.Name, HoldGatePrefix); ours {
			policies = append(policies, policy)
		}
	}
	return policies
}

// RevisionLabel is the key of the pod label that carries a policy's revision.
func RevisionLabel(policy string) string { return RevisionLabelPrefix + policy }

// InjectedAnnotation is the key of the pod annotation that says what a policy injected.
func InjectedAnnotation(policy string) string { return InjectedAnnotationPrefix + policy }

// UpgradeAnnotation is the key of the pod annotation that records a policy's last in-place upgrade.
func UpgradeAnnotation(policy string) string { return UpgradeAnnotationPrefix + policy }

// OverrideAnnotation is the key of the pod annotation that overrides parts of a policy's template.
func OverrideAnnotation(policy string) string { return OverrideAnnotationPrefix + policy }

// PoliciesOf names the policies that a pod with these labels carries a revision of.
// The order is not defined.
func PoliciesOf(labels map[string]string) []string {
	var policies []string
	for key := range labels {
		if policy, ok := strings.CutPrefix(key, RevisionLabelPrefix); ok {
			policies = append(policies, policy)
		}
	}
	return policies
}
