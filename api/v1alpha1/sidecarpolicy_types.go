package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// SidecarPolicySpec says which pods get which sidecars, and how a new version
// of them reaches the pods that run already.
type SidecarPolicySpec struct {
	// selector says which pods get the sidecars. Pods in kube-system, in the
	// operator's own namespace and the operator's own pods are never selected.
	// +required
	Selector PodSelection `json:"selector,omitzero"`

	// template is what a selected pod gets.
	// +required
	Template SidecarTemplate `json:"template,omitzero"`

	// injection says how new pods get the template.
	// +optional
	Injection InjectionSpec `json:"injection,omitempty,omitzero"`

	// rollout says how running pods get from one template to the next.
	// +optional
	Rollout RolloutSpec `json:"rollout,omitempty,omitzero"`

	// revisionHistoryLimit is how many old revisions are kept, besides the stable
	// one, the target, and those that pods still carry. Defaults to 10.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000
	// +kubebuilder:default=10
	// +optional
	RevisionHistoryLimit *int32 `json:"revisionHistoryLimit,omitempty"`
}

// PodSelection selects pods by their labels and by the labels of their namespace.
// A pod must match both; one that is left out matches everything.
// +kubebuilder:validation:XValidation:rule="(has(self.namespaceSelector) && ((has(self.namespaceSelector.matchLabels) && size(self.namespaceSelector.matchLabels) > 0) || (has(self.namespaceSelector.matchExpressions) && size(self.namespaceSelector.matchExpressions) > 0))) || (has(self.podSelector) && ((has(self.podSelector.matchLabels) && size(self.podSelector.matchLabels) > 0) || (has(self.podSelector.matchExpressions) && size(self.podSelector.matchExpressions) > 0)))",message="an empty selector would select every pod of the cluster: write a namespaceSelector or a podSelector; to select every pod on purpose write namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: Exists}]}"
type PodSelection struct {
	// namespaceSelector selects by the labels of the pod's namespace.
	// +optional
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`

	// podSelector selects by the labels of the pod.
	// +optional
	PodSelector *metav1.LabelSelector `json:"podSelector,omitempty"`
}

// SidecarTemplate is the part of a policy that ends up in pods. Each distinct
// template is one revision.
type SidecarTemplate struct {
	// metadata is added to the pods.
	// +optional
	Metadata TemplateMetadata `json:"metadata,omitempty,omitzero"`

	// sidecars are the containers that are added, in this order.
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +required
	Sidecars []Sidecar `json:"sidecars,omitempty"`

	// appContainers is what the app's own containers get. Their images,
	// commands and resources are never changed.
	// +listType=map
	// +listMapKey=selector
	// +kubebuilder:validation:MaxItems=16
	// +optional
	AppContainers []AppContainer `json:"appContainers,omitempty"`

	// volumes are added to the pod.
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=32
	// +optional
	Volumes []corev1.Volume `json:"volumes,omitempty"`

	// imagePullSecrets are added to the pod's own. The secrets must be in the pod's namespace.
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=16
	// +optional
	ImagePullSecrets []corev1.LocalObjectReference `json:"imagePullSecrets,omitempty"`

	// Unreadable says why the template could not be read; the rest of it is empty then. See UnmarshalJSON.
	Unreadable string `json:"-"`
}

// TemplateMetadata is labels and annotations that pods get.
type TemplateMetadata struct {
	// labels are added to the pod. A pod that has one of the keys with another value is left as it is.
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(key, !key.contains('fleet.sidecar.dev/'))",message="keys under fleet.sidecar.dev are written by the operator: choose a key of your own"
	// +optional
	Labels map[string]string `json:"labels,omitempty"`

	// annotations are added to the pod. A pod that has one of the keys with another value is left as it is.
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(key, !key.contains('fleet.sidecar.dev/'))",message="keys under fleet.sidecar.dev are written by the operator: choose a key of your own"
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`
}

// SidecarMode is the kind of container that a sidecar becomes.
// +kubebuilder:validation:Enum=Native;Container
type SidecarMode string

const (
	// ModeNative is an init container with restartPolicy Always (KEP-753): it starts
	// before the app, stops after it, and does not keep a Job from completing.
	ModeNative SidecarMode = "Native"
	// ModeContainer is a container beside the app's own.
	ModeContainer SidecarMode = "Container"
)

// Sidecar is one container that is added to pods.
// +kubebuilder:validation:XValidation:rule="has(self.image) && size(self.image) > 0",message="a sidecar needs an image: write image: registry/repository:tag"
// +kubebuilder:validation:XValidation:rule="!has(self.restartPolicy)",message="restartPolicy follows from the mode (Native: an init container with restartPolicy Always; Container: the pod's own): remove it"
// +kubebuilder:validation:XValidation:rule="!has(self.restartPolicyRules)",message="a sidecar always restarts: remove restartPolicyRules"
type Sidecar struct {
	corev1.Container `json:",inline"`

	// mode is Native (default), an init container that runs as long as the pod, or
	// Container, a container beside the app's own.
	// +kubebuilder:default=Native
	// +optional
	Mode SidecarMode `json:"mode,omitempty"`
}

// AppContainer is what containers of the app get.
// +kubebuilder:validation:XValidation:rule="has(self.volumeMounts) || has(self.env)",message="says nothing: write volumeMounts or env"
type AppContainer struct {
	// selector is the name of a container of the app, or "*" for all of them.
	// Native sidecars, init containers and the sidecars of policies are not meant by it.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$`
	// +required
	Selector string `json:"selector,omitempty"`

	// volumeMounts are added to the container. A pod with a container that has a
	// mount at one of the paths is left as it is.
	// +listType=map
	// +listMapKey=mountPath
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +optional
	VolumeMounts []corev1.VolumeMount `json:"volumeMounts,omitempty"`

	// env is added to the container. A pod with a container that has one of the
	// variables is left as it is.
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +optional
	Env []corev1.EnvVar `json:"env,omitempty"`
}

// InjectionFailurePolicy says what becomes of a pod while the operator can't be reached.
// +kubebuilder:validation:Enum=Ignore;Fail
type InjectionFailurePolicy string

const (
	// FailurePolicyIgnore lets the pod start without the sidecars.
	FailurePolicyIgnore InjectionFailurePolicy = "Ignore"
	// FailurePolicyFail refuses the pod. Only pods that the policy selects are refused.
	FailurePolicyFail InjectionFailurePolicy = "Fail"
)

// InjectionSpec says how new pods get the template.
type InjectionSpec struct {
	// failurePolicy is what happens to a selected pod that is created while the
	// operator can't be reached: Ignore (default) creates it without the sidecars, Fail
	// refuses it.
	// +kubebuilder:default=Ignore
	// +optional
	FailurePolicy InjectionFailurePolicy `json:"failurePolicy,omitempty"`

	// paused stops injection into new pods. Running pods keep their sidecars and
	// are still upgraded. Defaults to false.
	// +optional
	Paused bool `json:"paused,omitempty"`
}

// RolloutMethod is the way running pods get a new revision.
// +kubebuilder:validation:Enum=InPlace;OnDelete
type RolloutMethod string

const (
	// MethodInPlace changes images in running pods. A template change that needs a
	// new pod leaves the pod stale until its owner recreates it.
	MethodInPlace RolloutMethod = "InPlace"
	// MethodOnDelete never touches a running pod.
	MethodOnDelete RolloutMethod = "OnDelete"
)

// RolloutSpec says how running pods get from one revision to the next.
type RolloutSpec struct {
	// method is InPlace (default) or OnDelete.
	// +kubebuilder:default=InPlace
	// +optional
	Method RolloutMethod `json:"method,omitempty"`

	// paused stops the roll-out where it is. Upgrades that have been started are
	// still watched to their end, and new pods get the stable revision. Defaults to false.
	// +optional
	Paused bool `json:"paused,omitempty"`

	// budgets bound how many pods may be unavailable at once. All of them hold
	// together with every PodDisruptionBudget. Where none is written for Fleet, 10%
	// holds; where none is written for Workload, 25%.
	// +listType=map
	// +listMapKey=per
	// +kubebuilder:validation:MaxItems=2
	// +optional
	Budgets []Budget `json:"budgets,omitempty"`

	// health says when an upgraded pod is good, and when it has failed.
	// +optional
	Health HealthSpec `json:"health,omitempty,omitzero"`
}

// BudgetScope is the group of pods that a budget is counted over.
// +kubebuilder:validation:Enum=Fleet;Workload
type BudgetScope string

const (
	// PerFleet counts all pods that the policy selects.
	PerFleet BudgetScope = "Fleet"
	// PerWorkload counts the pods of each workload by itself.
	PerWorkload BudgetScope = "Workload"
)

// Budget bounds how many pods of a group may be unavailable at once. A pod is
// unavailable while it is not Ready, for whatever reason, or while an in-place upgrade
// of it, by whatever policy, has not been judged healthy.
type Budget struct {
	// per is the group that is counted: Fleet or Workload.
	// +required
	Per BudgetScope `json:"per,omitempty"`

	// maxUnavailable is a count (5) or a percentage ("10%") of the group's pods. A
	// percentage is rounded down, but never below one pod.
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self >= 1 && self <= 2147483647 : string(self).matches('^([1-9][0-9]?|100)%$')",message="must be a count of at least 1 (5) or a percentage from \"1%\" to \"100%\"; to stop a roll-out write paused: true"
	// +required
	MaxUnavailable *intstr.IntOrString `json:"maxUnavailable,omitempty"`
}

// HealthSpec says when an upgraded pod is good, and when it has failed.
// +kubebuilder:validation:XValidation:rule="!has(self.minReadySeconds) || !has(self.progressDeadlineSeconds) || self.progressDeadlineSeconds > self.minReadySeconds",message="progressDeadlineSeconds must be greater than minReadySeconds, or no upgrade could ever succeed"
type HealthSpec struct {
	// minReadySeconds is how long an upgraded pod must have been ready without a
	// break before it counts as updated. In seconds, defaults to 10.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=86400
	// +kubebuilder:default=10
	// +optional
	MinReadySeconds *int32 `json:"minReadySeconds,omitempty"`

	// progressDeadlineSeconds is how long an upgraded pod may take to get healthy
	// before it counts as failed, and the roll-out stops. In seconds, defaults to 300.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=86400
	// +kubebuilder:default=300
	// +optional
	ProgressDeadlineSeconds *int32 `json:"progressDeadlineSeconds,omitempty"`
}

// Phase is where a roll-out stands, in one word for people. Programs read the conditions.
// +kubebuilder:validation:Enum=Idle;Progressing;Paused;Complete
type Phase string

const (
	// PhaseIdle means that nothing can be rolled out; the spec is not accepted.
	PhaseIdle Phase = "Idle"
	// PhaseProgressing means that pods are being moved to the target revision.
	PhaseProgressing Phase = "Progressing"
	// PhasePaused means that pods lack the target revision, and the policy says to wait.
	PhasePaused Phase = "Paused"
	// PhaseComplete means that the target revision is the stable one, and nothing is left to do.
	PhaseComplete Phase = "Complete"
)

// SidecarPolicyStatus is what the operator saw at the end of its last pass.
// +kubebuilder:validation:MinProperties=1
type SidecarPolicyStatus struct {
	// conditions are Accepted, Injecting, Progressing, Available, Degraded and Ready.
	// +listType=map
	// +listMapKey=type
	// +patchStrategy=merge
	// +patchMergeKey=type
	// +kubebuilder:validation:MaxItems=16
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty" patchStrategy:"merge" patchMergeKey:"type"`

	// observedGeneration is the generation of the spec that this status is about.
	// +kubebuilder:validation:Minimum=0
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// phase is where the roll-out stands.
	// +optional
	Phase Phase `json:"phase,omitempty"`

	// stableRevision is the last revision that finished its roll-out.
	// +kubebuilder:validation:MaxLength=63
	// +optional
	StableRevision string `json:"stableRevision,omitempty"`

	// targetRevision is the revision that the spec asks for.
	// +kubebuilder:validation:MaxLength=63
	// +optional
	TargetRevision string `json:"targetRevision,omitempty"`

	// failedRevision is the target revision once a pod has failed on it. It is remembered,
	// and no further pod gets it, until the template changes or the policy's annotation
	// fleet.sidecar.dev/retry names it.
	// +kubebuilder:validation:MaxLength=63
	// +optional
	FailedRevision string `json:"failedRevision,omitempty"`

	// pods counts the pods of the fleet.
	// +optional
	Pods *PodCounts `json:"pods,omitempty"`

	// unhealthy names the worst few groups of pods, the worst first. At most 10.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	// +optional
	Unhealthy []UnhealthyPods `json:"unhealthy,omitempty"`
}

// PodCounts counts the pods of a fleet. Pods that have finished or are being deleted
// are left out. A pod can count in several of the fields.
type PodCounts struct {
	// selected is how many pods the policy selects.
	Selected int32 `json:"selected"`
	// injected is how many of them carry the policy's sidecars.
	Injected int32 `json:"injected"`
	// updated is how many run the target revision and have been judged healthy on it.
	Updated int32 `json:"updated"`
	// ready is how many injected pods are Ready and not in the middle of an upgrade.
	Ready int32 `json:"ready"`
	// unavailable is how many injected pods are not Ready or in the middle of an upgrade.
	Unavailable int32 `json:"unavailable"`
	// failed is how many did not get healthy on the target revision.
	Failed int32 `json:"failed"`
	// missing is how many selected pods don't carry the sidecars.
	Missing int32 `json:"missing"`
	// drifted is how many have a sidecar image that no revision of theirs asks for.
	Drifted int32 `json:"drifted"`
	// stale is how many lack a template change that can't be made in a running pod.
	Stale int32 `json:"stale"`
	// conflicting is how many of the missing ones the sidecars clash with.
	Conflicting int32 `json:"conflicting"`
}

// UnhealthyPods is a group of pods of one workload with the same trouble.
type UnhealthyPods struct {
	// workload is the kind, namespace and name of the workload, like Deployment/shop/cart.
	// +kubebuilder:validation:MaxLength=400
	// +required
	Workload string `json:"workload,omitempty"`
	// pods is how many pods of the workload have this trouble.
	// +kubebuilder:validation:Minimum=1
	// +required
	Pods int32 `json:"pods,omitempty"`
	// reason is one word for the trouble.
	// +kubebuilder:validation:MaxLength=64
	// +required
	Reason Reason `json:"reason,omitempty"`
	// message describes the trouble of the first of the pods, for a person.
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	Message string `json:"message,omitempty"`
}

// SidecarPolicy plugs sidecars into the pods that it selects, and moves them from
// version to version without restarting the app.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=scp,categories={all,fleet,sidecars}
// +kubebuilder:printcolumn:name="PHASE",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="SELECTED",type=integer,JSONPath=`.status.pods.selected`
// +kubebuilder:printcolumn:name="UPDATED",type=integer,JSONPath=`.status.pods.updated`
// +kubebuilder:printcolumn:name="READY",type=integer,JSONPath=`.status.pods.ready`
// +kubebuilder:printcolumn:name="UNAVAILABLE",type=integer,JSONPath=`.status.pods.unavailable`
// +kubebuilder:printcolumn:name="STABLE",type=string,JSONPath=`.status.stableRevision`
// +kubebuilder:printcolumn:name="TARGET",type=string,JSONPath=`.status.targetRevision`
// +kubebuilder:printcolumn:name="AGE",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 63",message="the name becomes part of a pod label: use at most 63 characters"
type SidecarPolicy struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard object's metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty,omitzero"`

	// spec is what the platform team wants.
	// +required
	Spec SidecarPolicySpec `json:"spec,omitzero"`

	// status is what the operator saw.
	// +optional
	Status SidecarPolicyStatus `json:"status,omitempty,omitzero"`
}

// SidecarPolicyList is a list of SidecarPolicies.
// +kubebuilder:object:root=true
type SidecarPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// Items are the policies.
	Items []SidecarPolicy `json:"items"`
}
