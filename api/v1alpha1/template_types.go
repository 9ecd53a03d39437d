package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
)

// InitOrder is a place among the init containers of a pod.
// +kubebuilder:validation:Enum=Before;After
type InitOrder string

const (
	// OrderBefore is before the app's init containers, so that they can use what was added.
	OrderBefore InitOrder = "Before"
	// OrderAfter is after the app's init containers.
	OrderAfter InitOrder = "After"
)

// InitContainer is one container that is added to pods and runs to its end before the app starts.
// +kubebuilder:validation:XValidation:rule="has(self.image) && size(self.image) > 0",message="an init container needs an image: write image: registry/repository:tag"
// +kubebuilder:validation:XValidation:rule="!has(self.restartPolicy) && !has(self.restartPolicyRules)",message="an init container runs once: remove restartPolicy and restartPolicyRules, or write it under sidecars if it is to run as long as the app"
// +kubebuilder:validation:XValidation:rule="!has(self.lifecycle) && !has(self.livenessProbe) && !has(self.readinessProbe) && !has(self.startupProbe)",message="an init container runs once: remove its lifecycle and probes, or write it under sidecars if it is to run as long as the app"
type InitContainer struct {
	corev1.Container `json:",inline"`

	// order is Before (default), before the app's init containers and the native sidecars of the
	// same order, or After, after the app's init containers and before the native sidecars of the same order.
	// +optional
	Order InitOrder `json:"order,omitempty"`
}
