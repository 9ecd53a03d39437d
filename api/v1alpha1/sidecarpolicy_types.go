package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// SidecarPolicySpec says which pods get which sidecars, and how a new version
// of them reaches the pods that run already.
// +kubebuilder:validation:XValidation:rule="!has(self.maxMissing) || (has(self.missing) && self.missing == 'Recreate')",message="maxMissing bounds what missing: Recreate replaces: write missing: Recreate, or remove maxMissing"
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

	// missing is what becomes of pods that should have the sidecars and don't, since they were
	// created before the policy, before their labels, or while the operator could not be
	// reached: Report (default) counts and names them, Recreate also has them evicted,
	// by the budgets and windows of the roll-out, so that their owners make new ones. Pods that the sidecars
	// clash with, exempt pods and, without rollout.evictUnmanaged, bare pods and pods of
	// Jobs are never replaced.
	// +kubebuilder:default=Report
	// +optional
	Missing MissingAction `json:"missing,omitempty"`

	// maxMissing is how many pods may lack the sidecars for missing: Recreate to act: a count (5)
	// or a percentage ("33%") of the selected pods. Where more lack them, something is wrong with more
	// than those pods, or the policy has just come to a running fleet: none is replaced until a person has
	// looked. A percentage is rounded down, but never below 3 pods. Defaults to 33%.
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=10
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self >= 1 && self <= 2147483647 : string(self).matches('^([1-9][0-9]?|100)%$')",message="must be a count of at least 1 (5) or a percentage from \"1%\" to \"100%\"; to replace none write missing: Report"
	// +optional
	MaxMissing *intstr.IntOrString `json:"maxMissing,omitempty"`

	// onRemoval is what becomes of running pods when they are to lose the sidecars, since the policy is
	// deleted, or selects them no more: Keep (default) leaves the sidecars in until the pods
	// are recreated by others, Recreate has the pods evicted, by the budgets and windows of the
	// roll-out. A policy that is deleted with Recreate stays, with a finalizer, until the last pod has lost the
	// sidecars; to give that up, write Keep while it is being deleted. Exempt pods and, without
	// rollout.evictUnmanaged, bare pods and pods of Jobs are not evicted.
	// +kubebuilder:default=Keep
	// +optional
	OnRemoval RemovalAction `json:"onRemoval,omitempty"`

	// revisionHistoryLimit is how many old revisions are kept, besides the stable
	// one, the target, and those that pods still carry. Defaults to 10.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000
	// +kubebuilder:default=10
	// +optional
	RevisionHistoryLimit *int32 `json:"revisionHistoryLimit,omitempty"`
}

// MissingAction is what becomes of pods that should have the sidecars and don't.
// +kubebuilder:validation:Enum=Report;Recreate
type MissingAction string

const (
	// MissingReport counts them and says where they are.
	MissingReport MissingAction = "Report"
	// MissingRecreate has them evicted, and their owners make new ones.
	MissingRecreate MissingAction = "Recreate"
)

// RemovalAction is what becomes of running pods that are to lose the sidecars.
// +kubebuilder:validation:Enum=Keep;Recreate
type RemovalAction string

const (
	// RemovalKeep leaves the sidecars in until the pods are recreated by others.
	RemovalKeep RemovalAction = "Keep"
	// RemovalRecreate has the pods evicted, and their owners make new ones.
	RemovalRecreate RemovalAction = "Recreate"
)

// PodSelection selects pods by their labels and by the labels of their namespace.
// A pod must match both; one that is left out matches everything. The label
// fleet.sidecar.dev/inject with the value "false", on a pod or on its namespace, keeps the pod
// out, except where the mode is Mandatory.
// +kubebuilder:validation:XValidation:rule="(has(self.mode) && self.mode == 'OptIn') || (has(self.namespaceSelector) && ((has(self.namespaceSelector.matchLabels) && size(self.namespaceSelector.matchLabels) > 0) || (has(self.namespaceSelector.matchExpressions) && size(self.namespaceSelector.matchExpressions) > 0))) || (has(self.podSelector) && ((has(self.podSelector.matchLabels) && size(self.podSelector.matchLabels) > 0) || (has(self.podSelector.matchExpressions) && size(self.podSelector.matchExpressions) > 0)))",message="an empty selector would select every pod of the cluster: write a namespaceSelector or a podSelector, or mode: OptIn; to select every pod on purpose write namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: Exists}]}"
type PodSelection struct {
	// namespaceSelector selects by the labels of the pod's namespace.
	// +optional
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`

	// podSelector selects by the labels of the pod.
	// +optional
	PodSelector *metav1.LabelSelector `json:"podSelector,omitempty"`

	// mode is OptOut (default), which selects all these pods but those whose owners say "false" by the label
	// fleet.sidecar.dev/inject; OptIn, which selects those of them alone that have the label with
	// the value "true", or whose namespace has it; or Mandatory, which asks no owner.
	// +kubebuilder:default=OptOut
	// +optional
	Mode SelectionMode `json:"mode,omitempty"`
}

// SelectionMode says what owners have to say by the label fleet.sidecar.dev/inject.
// +kubebuilder:validation:Enum=OptOut;OptIn;Mandatory
type SelectionMode string

const (
	// SelectOptOut selects pods whose owners don't refuse.
	SelectOptOut SelectionMode = "OptOut"
	// SelectOptIn selects pods whose owners agree.
	SelectOptIn SelectionMode = "OptIn"
	// SelectMandatory selects pods whatever their owners say: for sidecars that security rests on.
	SelectMandatory SelectionMode = "Mandatory"
)

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

	// initContainers are containers that are added and run to their end before the app starts, in
	// this order: what prepares the pod for the sidecars, like rules of iptables. A change of one
	// needs a new pod.
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=16
	// +optional
	InitContainers []InitContainer `json:"initContainers,omitempty"`

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

	// shareProcessNamespace lets all containers of the pod see each other's processes, so that a sidecar
	// can signal or inspect the app. The app's own process is then not process 1 any more. A pod
	// that says false itself is left as it is. Defaults to false, which leaves it to the pod.
	// +optional
	ShareProcessNamespace bool `json:"shareProcessNamespace,omitempty"`

	// restartedAt restarts the sidecars of all pods, by the steps and budgets of a roll-out, where they
	// were started before that time: with the same image, in place, without the app. Write the time
	// of now, like 2026-07-01T12:00:00Z.
	// +optional
	RestartedAt *metav1.Time `json:"restartedAt,omitempty"`

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
// +kubebuilder:validation:XValidation:rule="!has(self.order) || !has(self.mode) || self.mode == 'Native'",message="order is a place among init containers, and a sidecar of mode Container is none: remove order, or write mode: Native"
// +kubebuilder:validation:XValidation:rule="!has(self.resources) || !has(self.resourcesFromApp) || ['cpu', 'memory', 'ephemeral-storage'].all(r, !((has(self.resources.requests) && r in self.resources.requests) || (has(self.resources.limits) && r in self.resources.limits)) || !((has(self.resourcesFromApp.requests) && r in self.resourcesFromApp.requests) || (has(self.resourcesFromApp.limits) && r in self.resourcesFromApp.limits)))",message="a resource is either in resources or in resourcesFromApp: a constant can be written there too, like memory: quantity('64Mi')"
type Sidecar struct {
	corev1.Container `json:",inline"`

	// mode is Native (default), an init container that runs as long as the pod, or
	// Container, a container beside the app's own.
	// +kubebuilder:default=Native
	// +optional
	Mode SidecarMode `json:"mode,omitempty"`

	// order is where a native sidecar starts: Before (default) the app's init containers, so that
	// they can use it, or After them. The app's containers start after it in any case.
	// +optional
	Order InitOrder `json:"order,omitempty"`

	FromApp `json:",inline"`
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
// +kubebuilder:validation:Enum=Ignore;Fail;Hold
type InjectionFailurePolicy string

const (
	// FailurePolicyIgnore lets the pod start without the sidecars.
	FailurePolicyIgnore InjectionFailurePolicy = "Ignore"
	// FailurePolicyFail refuses the pod. Only pods that the policy selects are refused.
	FailurePolicyFail InjectionFailurePolicy = "Fail"
	// FailurePolicyHold creates the pod and keeps it from being scheduled, until the operator is back and
	// replaces it by one with the sidecars. It needs engine Webhook and Kubernetes 1.36. See HoldGate.
	FailurePolicyHold InjectionFailurePolicy = "Hold"
)

// InjectionEngine is what injects into new pods.
// +kubebuilder:validation:Enum=Webhook;AdmissionPolicy
type InjectionEngine string

const (
	// EngineWebhook has the API server call the operator for each selected pod.
	EngineWebhook InjectionEngine = "Webhook"
	// EngineAdmissionPolicy compiles the policy into a MutatingAdmissionPolicy (Kubernetes 1.36), which
	// the API server carries out by itself, also while the operator is away. It can't do all that the
	// webhook can; what it can't is not accepted.
	EngineAdmissionPolicy InjectionEngine = "AdmissionPolicy"
)

// InjectionSpec says how new pods get the template.
// +kubebuilder:validation:XValidation:rule="!has(self.failurePolicy) || self.failurePolicy != 'Hold' || !has(self.engine) || self.engine != 'AdmissionPolicy'",message="failurePolicy Hold is for engine Webhook: the API server, which injects with engine AdmissionPolicy, is never away when a pod is created: write failurePolicy: Ignore or Fail"
// +kubebuilder:validation:XValidation:rule="!has(self.engine) || self.engine != 'AdmissionPolicy' || !has(self.overrides) || size(self.overrides) == 0",message="engine AdmissionPolicy can't read what owners of pods override: remove overrides, or write engine: Webhook"
type InjectionSpec struct {
	// engine is Webhook (default) or AdmissionPolicy, which needs Kubernetes 1.36. Both give a pod the same.
	// When it changes, the new one is in force before the old one is removed.
	// +kubebuilder:default=Webhook
	// +optional
	Engine InjectionEngine `json:"engine,omitempty"`

	// failurePolicy is what happens to a selected pod that is created while the
	// operator can't be reached: Ignore (default) creates it without the sidecars, Fail
	// refuses it, Hold creates it and lets it wait unscheduled; when the operator is back it evicts the pod,
	// for its owner to make one with the sidecars. With engine AdmissionPolicy it is about the API server
	// itself failing to inject, and Hold is not possible.
	// +kubebuilder:default=Ignore
	// +optional
	FailurePolicy InjectionFailurePolicy `json:"failurePolicy,omitempty"`

	// paused stops injection into new pods. Running pods keep their sidecars and
	// are still upgraded. Defaults to false.
	// +optional
	Paused bool `json:"paused,omitempty"`

	// overrides are what owners of pods may change of the containers that are added to them, by the
	// annotation override.fleet.sidecar.dev/<policy>; see AllowedOverride. Nothing by default, and an image never.
	// A change here matters to pods that are created from then on.
	// +listType=map
	// +listMapKey=container
	// +kubebuilder:validation:MaxItems=32
	// +optional
	Overrides []AllowedOverride `json:"overrides,omitempty"`
}

// RolloutMethod is the way running pods get a new revision.
// +kubebuilder:validation:Enum=InPlace;Recreate;InPlaceOrRecreate;OnDelete
type RolloutMethod string

const (
	// MethodInPlace changes images in running pods. A template change that needs a
	// new pod leaves the pod stale until its owner recreates it.
	MethodInPlace RolloutMethod = "InPlace"
	// MethodRecreate evicts pods through the Eviction API, and lets their owners make new ones.
	MethodRecreate RolloutMethod = "Recreate"
	// MethodInPlaceOrRecreate takes the mildest way for each pod: in place where that brings
	// all of the revision, else by eviction.
	MethodInPlaceOrRecreate RolloutMethod = "InPlaceOrRecreate"
	// MethodOnDelete never touches a running pod: pods get the revision when somebody else recreates
	// them. Steps by upTo hold nothing then, except for the last one.
	MethodOnDelete RolloutMethod = "OnDelete"
)

// RolloutSpec says how running pods get from one revision to the next.
type RolloutSpec struct {
	// method is InPlace (default), Recreate, InPlaceOrRecreate or OnDelete.
	// +kubebuilder:default=InPlace
	// +optional
	Method RolloutMethod `json:"method,omitempty"`

	// evictUnmanaged lets the methods that recreate also evict bare pods, which nobody makes
	// anew, and pods of Jobs, which begin again. Defaults to false.
	// +optional
	EvictUnmanaged bool `json:"evictUnmanaged,omitempty"`

	// paused stops the roll-out where it is, a rollback too: no running pod is touched. Upgrades that have been started are
	// still watched to their end, and new pods get the stable revision. Defaults to false.
	// +optional
	Paused bool `json:"paused,omitempty"`

	// steps are the stages in which a new revision reaches the fleet; the last one must be
	// upTo: 100%. Where none are written, these hold: 1% with a soak of 1m, 10% with a soak
	// of 1m, then all. Who wants none writes a single step with upTo: 100%.
	// Steps that change in the middle take effect at once, and never restart the roll-out.
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="size(self) == 0 || (has(self[size(self) - 1].upTo) && self[size(self) - 1].upTo == '100%')",message="the last step must reach the whole fleet: add {name: fleet, upTo: 100%}"
	// +optional
	Steps []Step `json:"steps,omitempty"`

	// onFailure is what happens when a revision fails: Rollback (default) puts the pods back
	// to the stable revision, Pause stops where the roll-out is.
	// +kubebuilder:default=Rollback
	// +optional
	OnFailure FailureAction `json:"onFailure,omitempty"`

	// revision names an older revision of the policy that is to be rolled out instead of the
	// template: an undo. The template is rolled out again when this is removed.
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Revision string `json:"revision,omitempty"`

	// budgets bound how many pods may be unavailable at once. All of them hold
	// together with every PodDisruptionBudget. Where none is written for Fleet, 10%
	// holds; where none is written for Workload, 25%; the others hold only where written.
	// +listType=map
	// +listMapKey=per
	// +kubebuilder:validation:MaxItems=4
	// +optional
	Budgets []Budget `json:"budgets,omitempty"`

	// windows are the times in which a roll-out may act; with none it always may. Outside of
	// them what was started is watched to its end, and a rollback goes on all the same.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	// +optional
	Windows []Window `json:"windows,omitempty"`

	// restartOn names ConfigMaps and Secrets in the namespaces of the fleet: when the content of one
	// changes, the sidecars in its namespace are restarted in place, by the steps and budgets of a
	// roll-out. They are looked at every 30 s. Secrets need the ClusterRole
	// sidecar-operator-restart-on-secrets bound to the operator.
	// +listType=map
	// +listMapKey=kind
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=8
	// +optional
	RestartOn []RestartTrigger `json:"restartOn,omitempty"`

	// exemptions says whether namespaces and workloads can exempt themselves by the annotation
	// fleet.sidecar.dev/exempt-until: Honor (default) or Ignore.
	// +kubebuilder:default=Honor
	// +optional
	Exemptions ExemptionPolicy `json:"exemptions,omitempty"`

	// prefetch brings the new images onto a pod's node before its running sidecars are touched.
	// +optional
	Prefetch PrefetchSpec `json:"prefetch,omitempty,omitzero"`

	// analysis are Prometheus queries that every step is judged by, after its pods run the target.
	// The step ends no sooner than all of them have passed.
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=8
	// +optional
	Analysis []AnalysisQuery `json:"analysis,omitempty"`

	// drain takes a pod out of its endpoints before its sidecars are restarted.
	// +optional
	Drain DrainSpec `json:"drain,omitempty,omitzero"`

	// health says when an upgraded pod is good, and when it has failed.
	// +optional
	Health HealthSpec `json:"health,omitempty,omitzero"`
}

// FailureAction is what happens when a revision fails.
// +kubebuilder:validation:Enum=Rollback;Pause
type FailureAction string

const (
	// FailureRollback puts the pods back to the stable revision, the failed ones first.
	FailureRollback FailureAction = "Rollback"
	// FailurePause leaves everything as it is and waits for a person.
	FailurePause FailureAction = "Pause"
)

// Approval says whether a person has to let a roll-out go on.
// +kubebuilder:validation:Enum=Required;NotRequired
type Approval string

const (
	// ApprovalRequired holds the roll-out at the end of the step until the policy's
	// annotation fleet.sidecar.dev/approve names the revision and the step.
	ApprovalRequired Approval = "Required"
	// ApprovalNotRequired lets the roll-out go on by itself.
	ApprovalNotRequired Approval = "NotRequired"
)

// Step is one stage of a roll-out. A pod that a step has reached stays reached.
// +kubebuilder:validation:XValidation:rule="has(self.upTo) != (has(self.podSelector) || has(self.namespaceSelector))",message="says which part of the fleet it is in one way: write upTo, or a podSelector or namespaceSelector"
type Step struct {
	// name tells the step in status, events and approvals.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +required
	Name string `json:"name,omitempty"`

	// upTo is how much of the fleet has the target at the end of the step: a count (5) or a
	// percentage ("10%") of the pods that carry the sidecars. A percentage is rounded
	// down, but never below one pod. Which pods they are is the operator's choice.
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=10
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self >= 1 && self <= 2147483647 : string(self).matches('^([1-9][0-9]?|100)%$')",message="must be a count of at least 1 (5) or a percentage from \"1%\" to \"100%\""
	// +optional
	UpTo *intstr.IntOrString `json:"upTo,omitempty"`

	// podSelector makes the step all pods with these labels, besides what earlier steps reached.
	// +optional
	PodSelector *metav1.LabelSelector `json:"podSelector,omitempty"`

	// namespaceSelector makes the step all pods in namespaces with these labels. With a
	// podSelector a pod must match both.
	// +optional
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`

	// soak is how long the step is watched after its last pod was upgraded, before the next
	// one begins, like 30s, 10m or 1h30m. Defaults to 0s.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(s|m|h))+$`
	// +optional
	Soak *metav1.Duration `json:"soak,omitempty"`

	// approval is Required where a person has to let the roll-out go on after the
	// soak. Defaults to NotRequired.
	// +optional
	Approval Approval `json:"approval,omitempty"`
}

// Window is a time in which a roll-out may act.
type Window struct {
	// schedule is when the window opens, as five cron fields: minute, hour, day of the month,
	// month, day of the week.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +required
	Schedule string `json:"schedule,omitempty"`

	// duration is how long it stays open, like 6h or 90m; at most 168h.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(s|m|h))+$`
	// +required
	Duration metav1.Duration `json:"duration,omitzero"`

	// timeZone is the schedule's, by its name in the IANA database, like Europe/Berlin. Defaults to UTC.
	// +kubebuilder:validation:MaxLength=64
	// +optional
	TimeZone string `json:"timeZone,omitempty"`
}

// RestartTriggerKind is the kind of an object that sidecars are restarted for.
// +kubebuilder:validation:Enum=ConfigMap;Secret
type RestartTriggerKind string

const (
	// TriggerConfigMap is a ConfigMap.
	TriggerConfigMap RestartTriggerKind = "ConfigMap"
	// TriggerSecret is a Secret.
	TriggerSecret RestartTriggerKind = "Secret"
)

// RestartTrigger is an object that sidecars read at their start.
type RestartTrigger struct {
	// kind is ConfigMap or Secret.
	// +required
	Kind RestartTriggerKind `json:"kind,omitempty"`

	// name is the object's, in each namespace of the fleet that has it.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +required
	Name string `json:"name,omitempty"`
}

// ExemptionPolicy says what the annotation fleet.sidecar.dev/exempt-until does.
// +kubebuilder:validation:Enum=Honor;Ignore
type ExemptionPolicy string

const (
	// ExemptionsHonor leaves exempted pods alone until their exemption expires.
	ExemptionsHonor ExemptionPolicy = "Honor"
	// ExemptionsIgnore rolls out to them all the same.
	ExemptionsIgnore ExemptionPolicy = "Ignore"
)

// DrainSpec says how a pod leaves its endpoints before its sidecars are restarted.
type DrainSpec struct {
	// seconds is how long a pod has been out of its endpoints before its sidecars are
	// restarted. Above 0, pods that are injected from then on get a readiness gate for it; pods
	// without the gate are upgraded without a drain. Defaults to 0: no drain.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=3600
	// +optional
	Seconds int32 `json:"seconds,omitempty"`
}

// PrefetchMode says whether images are prefetched.
// +kubebuilder:validation:Enum=Auto;Never
type PrefetchMode string

const (
	// PrefetchAuto prefetches where the cluster and the node can: a kubelet from 1.35 on.
	PrefetchAuto PrefetchMode = "Auto"
	// PrefetchNever does not: a kubelet stops the running sidecar, and pulls then.
	PrefetchNever PrefetchMode = "Never"
)

// PrefetchSpec says how images come onto nodes.
type PrefetchSpec struct {
	// mode is Auto (default) or Never. Auto starts short-lived pods with image volumes in the
	// namespaces of the fleet, a few nodes at a time, and says when it can't.
	// +kubebuilder:default=Auto
	// +optional
	Mode PrefetchMode `json:"mode,omitempty"`
}

// AnalysisQuery is a question to a Prometheus server, and how its answers are judged. What can't be
// judged (no answer, an empty one, NaN) holds the step, and never passes it.
type AnalysisQuery struct {
	// name tells the query in status and messages.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +required
	Name string `json:"name,omitempty"`

	// prometheus is where to ask, and what.
	// +required
	Prometheus PrometheusQuery `json:"prometheus,omitzero"`

	// successCondition is CEL over result that is true of a successful measurement. result is a list
	// of doubles for a vector (result[0] < 0.01), and one double for a scalar.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +required
	SuccessCondition string `json:"successCondition,omitempty"`

	// failureCondition is CEL over result that is true of a failed measurement; one that is neither
	// is inconclusive. Without it, a measurement that is not successful has failed.
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	FailureCondition string `json:"failureCondition,omitempty"`

	// initialDelay is the time from the step's last upgrade to the first measurement. Defaults to 0s.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(s|m|h))+$`
	// +optional
	InitialDelay *metav1.Duration `json:"initialDelay,omitempty"`

	// interval is the time from one measurement to the next. Defaults to 1m.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(s|m|h))+$`
	// +optional
	Interval *metav1.Duration `json:"interval,omitempty"`

	// timeoutSeconds is how long one measurement may take. Defaults to 10, at most 60.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=60
	// +optional
	TimeoutSeconds *int32 `json:"timeoutSeconds,omitempty"`

	// count is how many successful measurements a step needs. Without it, one is needed, and the
	// query is measured as long as the step soaks.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	// +optional
	Count *int32 `json:"count,omitempty"`

	// failureLimit is how many failed measurements are tolerated. Defaults to 0.
	// +kubebuilder:validation:Minimum=0
	// +optional
	FailureLimit *int32 `json:"failureLimit,omitempty"`

	// inconclusiveLimit is how many inconclusive measurements in a row are tolerated before the
	// step fails. Without it the step is held as long as it takes.
	// +kubebuilder:validation:Minimum=0
	// +optional
	InconclusiveLimit *int32 `json:"inconclusiveLimit,omitempty"`
}

// PrometheusQuery is where to ask, and what.
type PrometheusQuery struct {
	// address is the server's URL, like http://prometheus.monitoring.svc:9090.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +required
	Address string `json:"address,omitempty"`

	// query is PromQL. {{.Policy}}, {{.Revision}}, {{.Step}} and {{.Namespaces}}, a regular expression of
	// the fleet's namespaces, stand for what is rolled out.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	// +required
	Query string `json:"query,omitempty"`
}

// BudgetScope is the group of pods that a budget is counted over.
// +kubebuilder:validation:Enum=Fleet;Workload;Namespace;Topology
type BudgetScope string

const (
	// PerFleet counts all pods that the policy selects.
	PerFleet BudgetScope = "Fleet"
	// PerWorkload counts the pods of each workload by itself.
	PerWorkload BudgetScope = "Workload"
	// PerNamespace counts the pods of each namespace by itself.
	PerNamespace BudgetScope = "Namespace"
	// PerTopology counts the pods on nodes with the same value of a label by themselves.
	PerTopology BudgetScope = "Topology"
)

// Budget bounds how many pods of a group may be unavailable at once. A pod is
// unavailable while it is not Ready, for whatever reason, or while an in-place upgrade
// of it, by whatever policy, has not been judged healthy.
// +kubebuilder:validation:XValidation:rule="(self.per == 'Topology') == has(self.topologyKey)",message="a budget per Topology, and no other, needs a topologyKey: write the label of nodes that tells the groups, like topology.kubernetes.io/zone"
type Budget struct {
	// per is the group that is counted: Fleet, Workload, Namespace or Topology.
	// +required
	Per BudgetScope `json:"per,omitempty"`

	// topologyKey is the label of nodes of which each value is a group, where per is Topology.
	// Pods on nodes without it, and pods without a node, are one group more.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=316
	// +optional
	TopologyKey string `json:"topologyKey,omitempty"`

	// maxUnavailable is a count (5) or a percentage ("10%") of the group's pods. A
	// percentage is rounded down, but never below one pod.
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=10
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

	// maxFailed is how many pods may fail on a revision before the revision has failed. A roll-out
	// with no more than that many ends; the condition Degraded tells of them. Defaults to 0.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:default=0
	// +optional
	MaxFailed *int32 `json:"maxFailed,omitempty"`

	// maxRestarts is how often a sidecar may restart by itself after its upgrade, while the
	// roll-out goes on, before its pod has failed. Defaults to 2.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:default=2
	// +optional
	MaxRestarts *int32 `json:"maxRestarts,omitempty"`

	// guardApp counts a pod as failed when, after its upgrade and while the roll-out
	// goes on, a container of the app restarts, or the pod loses readiness for longer than
	// minReadySeconds; for as long after its upgrade as the longest soak of the steps, but no less than
	// progressDeadlineSeconds. A pod that loses readiness within progressDeadlineSeconds of its upgrade has until
	// then to get it back, and no step ends before. Of a pod that was recreated, a container of the app may restart
	// maxRestarts times. Defaults to true.
	// +kubebuilder:default=true
	// +optional
	GuardApp *bool `json:"guardApp,omitempty"`

	// maxSidecarDowntimeSeconds is how long a sidecar may be down for its upgrade, from the
	// end of the old container, as the kubelet reports it, to the start of the new one or till now, before
	// its pod has failed. Not bounded by default.
	// +kubebuilder:validation:Minimum=1
	// +optional
	MaxSidecarDowntimeSeconds *int32 `json:"maxSidecarDowntimeSeconds,omitempty"`
}

// Phase is where a roll-out stands, in one word for people. Programs read the conditions.
// +kubebuilder:validation:Enum=Idle;Prefetching;Progressing;Soaking;AwaitingApproval;Paused;Frozen;RollingBack;RolledBack;Complete;Unplugging
type Phase string

const (
	// PhaseIdle means that nothing can be rolled out; the spec is not accepted.
	PhaseIdle Phase = "Idle"
	// PhaseProgressing means that pods are being moved to the target revision.
	PhaseProgressing Phase = "Progressing"
	// PhasePrefetching means that images are brought onto nodes before a pod is touched.
	PhasePrefetching Phase = "Prefetching"
	// PhaseFrozen means that the roll-out waits for its next window.
	PhaseFrozen Phase = "Frozen"
	// PhaseSoaking means that the pods of the step run the target revision and are watched.
	PhaseSoaking Phase = "Soaking"
	// PhaseAwaitingApproval means that a person has to let the roll-out go on.
	PhaseAwaitingApproval Phase = "AwaitingApproval"
	// PhasePaused means that pods lack the target revision, and the policy says to wait.
	PhasePaused Phase = "Paused"
	// PhaseRollingBack means that the target has failed and pods are put back to the stable revision.
	PhaseRollingBack Phase = "RollingBack"
	// PhaseRolledBack means that the target has failed and no pod runs it any more.
	PhaseRolledBack Phase = "RolledBack"
	// PhaseComplete means that the target revision is the stable one, and nothing is left to do.
	PhaseComplete Phase = "Complete"
	// PhaseUnplugging means that the policy is being deleted, and pods still carry its sidecars.
	PhaseUnplugging Phase = "Unplugging"
)

// Phases are all of them.
var Phases = []Phase{PhaseIdle, PhasePrefetching, PhaseProgressing, PhaseSoaking, PhaseAwaitingApproval,
	PhasePaused, PhaseFrozen, PhaseRollingBack, PhaseRolledBack, PhaseComplete, PhaseUnplugging}

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

	// failureMessage says why failedRevision failed.
	// +kubebuilder:validation:MaxLength=2048
	// +optional
	FailureMessage string `json:"failureMessage,omitempty"`

	// withdrawnRevision is the target of a roll-out that was taken back by the stable template, or by naming
	// the stable revision, before it was over. Absent when no pod has to be put back for it any more.
	// +kubebuilder:validation:MaxLength=63
	// +optional
	WithdrawnRevision string `json:"withdrawnRevision,omitempty"`

	// handledRetry is the value of the annotation fleet.sidecar.dev/retry that was acted on last.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	HandledRetry string `json:"handledRetry,omitempty"`

	// step is the step that the roll-out has reached. Absent while nothing is rolled out.
	// +optional
	Step *StepStatus `json:"step,omitempty"`

	// maxSidecarDowntimeSeconds is the longest that a sidecar was down for its upgrade to the
	// target revision, over the pods that run it, in seconds as the kubelet reports them; less
	// than one counts as one. Absent while it is not known.
	// +optional
	MaxSidecarDowntimeSeconds *int32 `json:"maxSidecarDowntimeSeconds,omitempty"`

	// pods counts the pods of the fleet.
	// +optional
	Pods *PodCounts `json:"pods,omitempty"`

	// replacements are the workloads of which pods that lack the sidecars are being replaced, or were
	// in vain.
	// +listType=map
	// +listMapKey=workload
	// +kubebuilder:validation:MaxItems=50
	// +optional
	Replacements []Replacement `json:"replacements,omitempty"`

	// unplugging names the workloads, like Deployment/shop/cart, of which pods that the policy selects no more
	// are being recreated: their new pods count for the budgets until they are ready.
	// +listType=set
	// +kubebuilder:validation:MaxItems=50
	// +kubebuilder:validation:items:MaxLength=400
	// +optional
	Unplugging []string `json:"unplugging,omitempty"`

	// unhealthy names the worst few groups of pods, the worst first. At most 10.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	// +optional
	Unhealthy []UnhealthyPods `json:"unhealthy,omitempty"`
}

// Replacement is how far a workload's pods that lack the sidecars have been replaced. One of them
// goes first, and the others follow when the new pod has the sidecars.
type Replacement struct {
	// workload is the kind, namespace and name of the workload, like Deployment/shop/cart.
	// +kubebuilder:validation:MaxLength=400
	// +required
	Workload string `json:"workload,omitempty"`
	// lastTime is when the last try began, or was found to be in vain.
	// +required
	LastTime metav1.Time `json:"lastTime,omitzero"`
	// newestPodTime is when the newest of the workload's pods had been created then: what came of the
	// try is told by the pods that are newer.
	// +required
	NewestPodTime metav1.Time `json:"newestPodTime,omitzero"`
	// podUID is the UID of the pod that goes first. Empty while none does.
	// +kubebuilder:validation:MaxLength=64
	// +optional
	PodUID string `json:"podUID,omitempty"`
	// failures is how many tries in a row brought a pod without the sidecars. The next one comes
	// 1, 2, 4, ... and at last every 60 minutes after the last.
	// +kubebuilder:validation:Minimum=0
	// +optional
	Failures int32 `json:"failures,omitempty"`
}

// StepStatus is where a roll-out is among its steps.
type StepStatus struct {
	// index is the place of the step among the steps, from 0.
	// +kubebuilder:validation:Minimum=0
	// +required
	Index *int32 `json:"index,omitempty"`
	// name is the step's.
	// +kubebuilder:validation:MaxLength=63
	// +required
	Name string `json:"name,omitempty"`
	// startedAt is when the step began.
	// +required
	StartedAt metav1.Time `json:"startedAt,omitzero"`
	// rolloutStartedAt is when the roll-out began, or was tried again. What became before of pods that had the
	// target already is not held against it.
	// +optional
	RolloutStartedAt *metav1.Time `json:"rolloutStartedAt,omitempty"`
	// updatedAt is when the last pod of the step had been judged healthy, and the soak began.
	// +optional
	UpdatedAt *metav1.Time `json:"updatedAt,omitempty"`
	// recreating names the UIDs of the owners (a ReplicaSet, not its Deployment) of which pods
	// are recreated now: their new pods get the target revision.
	// +listType=set
	// +kubebuilder:validation:MaxItems=50
	// +kubebuilder:validation:items:MaxLength=64
	// +optional
	Recreating []string `json:"recreating,omitempty"`
	// analysis is what was measured in this step.
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=8
	// +optional
	Analysis []AnalysisStatus `json:"analysis,omitempty"`
}

// AnalysisStatus is what was measured of one query in a step.
type AnalysisStatus struct {
	// name is the query's.
	// +kubebuilder:validation:MaxLength=63
	// +required
	Name string `json:"name,omitempty"`
	// subject is a hash of what was measured: when the query is edited, it is measured anew.
	// +kubebuilder:validation:MaxLength=63
	// +required
	Subject string `json:"subject,omitempty"`
	// startedAt is when the step was ready to be measured.
	// +required
	StartedAt metav1.Time `json:"startedAt,omitzero"`
	// successful counts the measurements that were.
	// +optional
	Successful int32 `json:"successful,omitempty"`
	// failed counts the measurements that did.
	// +optional
	Failed int32 `json:"failed,omitempty"`
	// inconclusive counts the measurements that said nothing.
	// +optional
	Inconclusive int32 `json:"inconclusive,omitempty"`
	// inconclusiveInARow counts those since the last one that said something.
	// +optional
	InconclusiveInARow int32 `json:"inconclusiveInARow,omitempty"`
	// lastAt is when the last measurement was made.
	// +optional
	LastAt *metav1.Time `json:"lastAt,omitempty"`
	// lastValue is what the server answered to it.
	// +kubebuilder:validation:MaxLength=128
	// +optional
	LastValue string `json:"lastValue,omitempty"`
	// message is what was made of it.
	// +kubebuilder:validation:MaxLength=512
	// +optional
	Message string `json:"message,omitempty"`
}

// PodCounts counts the pods of a fleet. Pods that have finished or are being deleted
// are left out. A pod can count in several of the fields.
type PodCounts struct {
	// selected is how many pods the policy selects.
	Selected int32 `json:"selected"`
	// injected is how many of them carry the policy's sidecars.
	Injected int32 `json:"injected"`
	// updated is how many run the target revision and have been judged healthy on it;
	// during a rollback and after it, the stable revision.
	Updated int32 `json:"updated"`
	// ready is how many injected pods are Ready and not in the middle of an upgrade.
	Ready int32 `json:"ready"`
	// unavailable is how many injected pods are not Ready or in the middle of an upgrade.
	Unavailable int32 `json:"unavailable"`
	// failed is how many did not get healthy on the target revision.
	Failed int32 `json:"failed"`
	// missing is how many selected pods don't carry the sidecars.
	Missing int32 `json:"missing"`
	// held is how many of the missing ones wait for the sidecars and are not scheduled until they have them, since
	// injection.failurePolicy is Hold.
	Held int32 `json:"held"`
	// drifted is how many have a sidecar image that no revision of theirs asks for.
	Drifted int32 `json:"drifted"`
	// stale is how many lack a template change that can't be made in a running pod.
	Stale int32 `json:"stale"`
	// conflicting is how many of the missing ones the sidecars clash with.
	Conflicting int32 `json:"conflicting"`
	// exempt is how many injected pods are left alone because of the annotation
	// fleet.sidecar.dev/exempt-until.
	Exempt int32 `json:"exempt"`
	// deselected is how many pods that the policy does not select any more still carry its
	// sidecars. They count in no other field.
	Deselected int32 `json:"deselected"`
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
