package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// ReportState is how the sidecars of a workload do, in one word.
// +kubebuilder:validation:Enum=Current;Waiting;Updating;Stale;Missing;Failed
type ReportState string

const (
	// ReportCurrent means that every pod runs what the policy asks for.
	ReportCurrent ReportState = "Current"
	// ReportWaiting means that the roll-out of the policy has not come to the workload yet.
	ReportWaiting ReportState = "Waiting"
	// ReportUpdating means that pods of the workload are being brought to the wanted revision.
	ReportUpdating ReportState = "Updating"
	// ReportStale means that pods lack what only a new pod can bring.
	ReportStale ReportState = "Stale"
	// ReportMissing means that pods should have the sidecars, and don't.
	ReportMissing ReportState = "Missing"
	// ReportFailed means that the sidecars of a pod are not healthy, or can't be updated.
	ReportFailed ReportState = "Failed"
)

// WorkloadReference names the top controller of pods, or a bare pod.
type WorkloadReference struct {
	// apiVersion is the workload's, like apps/v1.
	// +kubebuilder:validation:MaxLength=316
	// +required
	APIVersion string `json:"apiVersion,omitempty"`
	// kind is the workload's, like Deployment.
	// +kubebuilder:validation:MaxLength=63
	// +required
	Kind string `json:"kind,omitempty"`
	// name is the workload's. Its namespace is the report's.
	// +kubebuilder:validation:MaxLength=253
	// +required
	Name string `json:"name,omitempty"`
}

// ReportCounts counts pods of one workload. Pods that have finished or are being deleted are left out.
type ReportCounts struct {
	// selected is how many pods policies select.
	Selected int32 `json:"selected"`
	// updated is how many run the wanted revision and have been judged healthy on it.
	Updated int32 `json:"updated"`
	// ready is how many carry the sidecars, are Ready and not in the middle of an upgrade.
	Ready int32 `json:"ready"`
	// failed is how many did not get healthy, or can't be updated.
	Failed int32 `json:"failed"`
	// missing is how many don't carry the sidecars.
	Missing int32 `json:"missing"`
}

// RunningImage is an image that a sidecar runs in some of the pods.
type RunningImage struct {
	// image is as the pods name it.
	// +kubebuilder:validation:MaxLength=1024
	// +required
	Image string `json:"image,omitempty"`
	// pods is how many have it.
	// +kubebuilder:validation:Minimum=1
	// +required
	Pods int32 `json:"pods,omitempty"`
}

// ReportedSidecar is one sidecar of a workload's pods.
type ReportedSidecar struct {
	// name is the container's.
	// +kubebuilder:validation:MaxLength=63
	// +required
	Name string `json:"name,omitempty"`
	// wanted is the image that the policy asks for.
	// +kubebuilder:validation:MaxLength=1024
	// +required
	Wanted string `json:"wanted,omitempty"`
	// running are the images that pods have, the one of most pods first. At most 8.
	// +listType=map
	// +listMapKey=image
	// +kubebuilder:validation:MaxItems=8
	// +optional
	Running []RunningImage `json:"running,omitempty"`
}

// ReportedPolicy is how the sidecars of one policy do in the pods of a workload.
type ReportedPolicy struct {
	// policy is its name.
	// +kubebuilder:validation:MaxLength=63
	// +required
	Policy string `json:"policy,omitempty"`
	// state is one word for it.
	// +required
	State ReportState `json:"state,omitempty"`
	// since is when the state, or its reason, became that.
	// +required
	Since metav1.Time `json:"since,omitzero"`
	// reason is one word for the worst trouble; absent where there is none. See status.unhealthy of
	// policies, which has the same words.
	// +kubebuilder:validation:MaxLength=64
	// +optional
	Reason Reason `json:"reason,omitempty"`
	// message describes it for a person.
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	Message string `json:"message,omitempty"`
	// revision is the one that is wanted.
	// +kubebuilder:validation:MaxLength=63
	// +required
	Revision string `json:"revision,omitempty"`
	// sidecars are the policy's.
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=16
	// +optional
	Sidecars []ReportedSidecar `json:"sidecars,omitempty"`
	// pods counts the workload's pods that the policy selects.
	// +required
	Pods ReportCounts `json:"pods,omitzero"`
	// lastChangeTime is when a pod was last upgraded in place. Absent where none was.
	// +optional
	LastChangeTime *metav1.Time `json:"lastChangeTime,omitempty"`
}

// SidecarReport says how the sidecars of one workload do: what they should run and what they run. The
// operator writes it for the team that owns the workload, beside the workload, and removes it when
// no policy selects the workload's pods any more. What is written into it is overwritten.
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=scr,categories={fleet,sidecars}
// +kubebuilder:printcolumn:name="STATE",type=string,JSONPath=`.state`
// +kubebuilder:printcolumn:name="PODS",type=integer,JSONPath=`.pods.selected`
// +kubebuilder:printcolumn:name="UPDATED",type=integer,JSONPath=`.pods.updated`
// +kubebuilder:printcolumn:name="READY",type=integer,JSONPath=`.pods.ready`
// +kubebuilder:printcolumn:name="FAILED",type=integer,priority=1,JSONPath=`.pods.failed`
// +kubebuilder:printcolumn:name="MISSING",type=integer,priority=1,JSONPath=`.pods.missing`
// +kubebuilder:printcolumn:name="SINCE",type=date,JSONPath=`.since`
// +kubebuilder:printcolumn:name="REASON",type=string,JSONPath=`.reason`
// +kubebuilder:printcolumn:name="MESSAGE",type=string,priority=1,JSONPath=`.message`
type SidecarReport struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard object's metadata. The name is the workload's kind and name, like
	// deployment-cart.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty,omitzero"`

	// workload is what the report is about.
	// +required
	Workload WorkloadReference `json:"workload,omitzero"`
	// state is the worst of the policies'; since, reason and message are of the same policy.
	// +required
	State ReportState `json:"state,omitempty"`
	// since is when the state, or its reason, became that.
	// +required
	Since metav1.Time `json:"since,omitzero"`
	// reason is one word for the worst trouble; absent where there is none.
	// +kubebuilder:validation:MaxLength=64
	// +optional
	Reason Reason `json:"reason,omitempty"`
	// message describes it for a person.
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	Message string `json:"message,omitempty"`
	// pods has of each number that of the policy which does worst by it.
	// +required
	Pods ReportCounts `json:"pods,omitzero"`
	// policies are those that select the workload's pods.
	// +listType=map
	// +listMapKey=policy
	// +kubebuilder:validation:MaxItems=64
	// +required
	Policies []ReportedPolicy `json:"policies,omitempty"`
	// writtenAt is when the report was last written. It is written at once when a state, a reason or
	// a wanted revision changes; numbers alone are gathered for some time.
	// +required
	WrittenAt metav1.Time `json:"writtenAt,omitzero"`
}

// SidecarReportList is a list of SidecarReports.
// +kubebuilder:object:root=true
type SidecarReportList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// Items are the reports.
	Items []SidecarReport `json:"items"`
}
