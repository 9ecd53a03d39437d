package v1alpha1

// Condition types of a SidecarPolicy. Each carries the generation that it was
// judged at. Ready is the summary that kstatus, `kubectl wait`, Argo CD and Flux read.
const (
	// ConditionAccepted is False when the spec can't be carried out; the message
	// says what to write instead. While it is False the operator goes on with what
	// it accepted last for new pods, and changes no running pod.
	ConditionAccepted = "Accepted"

	// ConditionInjecting is True while new pods that the policy selects get its sidecars.
	ConditionInjecting = "Injecting"

	// ConditionProgressing is True while running pods are being moved to the target revision.
	ConditionProgressing = "Progressing"

	// ConditionAvailable is True while no more pods with the policy's sidecars are
	// unavailable than the fleet budget allows.
	ConditionAvailable = "Available"

	// ConditionDegraded is True while something needs a person: an upgrade that
	// failed or was refused, or a pod that the sidecars clash with.
	ConditionDegraded = "Degraded"

	// ConditionReady is True when every pod that carries the policy's sidecars runs
	// the target revision of them and has been judged healthy. Selected pods
	// without the sidecars don't make it False: see status.pods.missing.
	ConditionReady = "Ready"
)

// Reason is one word of the vocabulary that condition reasons, event reasons,
// metric labels and status.unhealthy share.
type Reason string

// Reasons for the condition Accepted.
const (
	// ReasonValid: the spec can be carried out.
	ReasonValid Reason = "Valid"
	// ReasonInvalidSpec: the spec contradicts itself or Kubernetes' rules.
	ReasonInvalidSpec Reason = "InvalidSpec"
	// ReasonPodRefused: the API server refuses a pod with this template.
	ReasonPodRefused Reason = "PodRefused"
	// ReasonNotChecked: the API server could not be asked; it is asked again.
	ReasonNotChecked Reason = "NotChecked"
)

// Reasons for the condition Injecting.
const (
	// ReasonRegistered: the API server injects into pods that the policy selects, or calls the operator for it.
	ReasonRegistered Reason = "Registered"
	// ReasonInjectionPaused: spec.injection.paused is true.
	ReasonInjectionPaused Reason = "InjectionPaused"
	// ReasonWaitingForCertificate: the serving certificate is not there yet.
	ReasonWaitingForCertificate Reason = "WaitingForCertificate"
	// ReasonWaitingForAPIServer: the API server does not act on what was registered yet.
	ReasonWaitingForAPIServer Reason = "WaitingForAPIServer"
	// ReasonNotRegistered: there is no accepted revision, or writing the registration failed.
	ReasonNotRegistered Reason = "NotRegistered"
)

// Reasons for the conditions Progressing, Available, Degraded and Ready.
const (
	// ReasonRollingOut: pods are being upgraded, or will be when a budget allows.
	ReasonRollingOut Reason = "RollingOut"
	// ReasonComplete: every pod that can be moved runs the target revision.
	ReasonComplete Reason = "Complete"
	// ReasonPaused: spec.rollout.paused is true.
	ReasonPaused Reason = "Paused"
	// ReasonFrozen: no window of the policy is open.
	ReasonFrozen Reason = "Frozen"
	// ReasonPrefetching: images are brought onto nodes before a pod is touched.
	ReasonPrefetching Reason = "Prefetching"
	// ReasonSoaking: the pods of a step are being watched.
	ReasonSoaking Reason = "Soaking"
	// ReasonAnalyzing: the step waits for its analysis.
	ReasonAnalyzing Reason = "Analyzing"
	// ReasonAwaitingApproval: a person has to let the roll-out go on.
	ReasonAwaitingApproval Reason = "AwaitingApproval"
	// ReasonRollingBack: pods are being put back to the stable revision.
	ReasonRollingBack Reason = "RollingBack"
	// ReasonRolledBack: the target revision failed, and no pod runs it any more.
	ReasonRolledBack Reason = "RolledBack"
	// ReasonNotAccepted: see the condition Accepted.
	ReasonNotAccepted Reason = "NotAccepted"
	// ReasonOnDelete: pods run an older revision and get the target when they are
	// recreated, because spec.rollout.method is OnDelete.
	ReasonOnDelete Reason = "OnDelete"
	// ReasonStalePods: pods lack a template change that can't be made in a running pod.
	ReasonStalePods Reason = "StalePods"
	// ReasonUpgradeFailed: a pod did not get healthy on the target revision; the roll-out stopped.
	ReasonUpgradeFailed Reason = "UpgradeFailed"
	// ReasonUpdateRefused: the API server refused to update a pod; others go on.
	ReasonUpdateRefused Reason = "UpdateRefused"
	// ReasonConflict: the sidecars clash with what a pod has, or are not allowed in its namespace; the pod was left as it is.
	ReasonConflict Reason = "Conflict"
	// ReasonWithinBudget: no more pods are unavailable than the fleet budget allows.
	ReasonWithinBudget Reason = "WithinBudget"
	// ReasonBudgetExceeded: more pods are unavailable than the fleet budget allows.
	ReasonBudgetExceeded Reason = "BudgetExceeded"
	// ReasonTooManyMissing: more pods lack the sidecars than spec.maxMissing lets be replaced.
	ReasonTooManyMissing Reason = "TooManyMissing"
	// ReasonReplacedInVain: pods that lacked the sidecars were replaced, and the new ones lack them too.
	ReasonReplacedInVain Reason = "ReplacedInVain"
	// ReasonHeld: a pod waits unscheduled for the sidecars, since it was created while the operator could not be
	// reached and injection.failurePolicy is Hold. As a reason of Degraded: nobody makes such pods anew.
	ReasonHeld Reason = "Held"
	// ReasonUnplugging: pods are to lose the sidecars, since the policy is being deleted.
	ReasonUnplugging Reason = "Unplugging"
	// ReasonUnplugStuck: pods are to lose the sidecars, and none of them can be recreated now; the message says why.
	ReasonUnplugStuck Reason = "UnplugStuck"
	// ReasonHealthy: nothing needs a person.
	ReasonHealthy Reason = "Healthy"
	// ReasonObserveFailed: the cluster could not be read; it is tried again.
	ReasonObserveFailed Reason = "ObserveFailed"
)

// Reasons for one pod, in status.unhealthy, events and metrics.
const (
	// ReasonImagePull: a sidecar's image can't be pulled.
	ReasonImagePull Reason = "ImagePull"
	// ReasonCrashLoop: a sidecar exits again and again.
	ReasonCrashLoop Reason = "CrashLoop"
	// ReasonCannotStart: the kubelet can't create a sidecar's container.
	ReasonCannotStart Reason = "CannotStart"
	// ReasonDeadlineExceeded: a sidecar did not get healthy within progressDeadlineSeconds.
	ReasonDeadlineExceeded Reason = "DeadlineExceeded"
	// ReasonResizeFailed: the kubelet did not give a sidecar its resources within progressDeadlineSeconds.
	ReasonResizeFailed Reason = "ResizeFailed"
	// ReasonRestarts: a sidecar restarted by itself more often than maxRestarts after its upgrade.
	ReasonRestarts Reason = "Restarts"
	// ReasonAppRestarted: a container of the app restarted after its sidecar's upgrade.
	ReasonAppRestarted Reason = "AppRestarted"
	// ReasonAppNotReady: the pod lost readiness after its sidecar's upgrade.
	ReasonAppNotReady Reason = "AppNotReady"
	// ReasonDowntime: a sidecar was down for longer than maxSidecarDowntimeSeconds.
	ReasonDowntime Reason = "Downtime"
	// ReasonStale: the pod lacks a template change that can't be made in a running pod.
	ReasonStale Reason = "Stale"
	// ReasonDrifted: somebody changed a sidecar's image by hand.
	ReasonDrifted Reason = "Drifted"
	// ReasonMissing: the pod should have the sidecars, and was created without.
	ReasonMissing Reason = "Missing"
	// ReasonExempt: the pod's team asked to be left alone.
	ReasonExempt Reason = "Exempt"
)

// Reasons why a selected pod was not injected.
const (
	// ReasonContainerNameConflict: the pod has a container of a sidecar's name.
	ReasonContainerNameConflict Reason = "ContainerNameConflict"
	// ReasonVolumeConflict: the pod has a volume of the same name.
	ReasonVolumeConflict Reason = "VolumeConflict"
	// ReasonMountPathConflict: a container has a mount at the same path, or would have one in a
	// read-only mount, where the runtime can't make what it is mounted on.
	ReasonMountPathConflict Reason = "MountPathConflict"
	// ReasonPortConflict: a container of the pod declares the same port, in the pod or on the host.
	ReasonPortConflict Reason = "PortConflict"
	// ReasonEnvConflict: an app container has a variable of the same name.
	ReasonEnvConflict Reason = "EnvConflict"
	// ReasonMetadataConflict: the pod has a label or annotation of the same key and another value.
	ReasonMetadataConflict Reason = "MetadataConflict"
	// ReasonVolumeMissing: a mount names a volume that neither the template nor the pod has.
	ReasonVolumeMissing Reason = "VolumeMissing"
	// ReasonPodResourcesConflict: the pod's own pod-level resources leave no room.
	ReasonPodResourcesConflict Reason = "PodResourcesConflict"
	// ReasonPodSettingsConflict: the pod's restartPolicy or os does not allow what a sidecar asks for.
	ReasonPodSettingsConflict Reason = "PodSettingsConflict"
	// ReasonAppContainerMissing: the pod has no container of a name from which a sidecar takes something over.
	ReasonAppContainerMissing Reason = "AppContainerMissing"
	// ReasonAppEnvMissing: an app container lacks a variable that a sidecar takes over, or it would
	// not mean the same in the sidecar.
	ReasonAppEnvMissing Reason = "AppEnvMissing"
	// ReasonResourcesConflict: the resources of a sidecar can't be computed from those of the app, or
	// it would request more than its limit.
	ReasonResourcesConflict Reason = "ResourcesConflict"
	// ReasonPodSecurityConflict: the sidecars break the Pod Security Standard that the namespace enforces.
	ReasonPodSecurityConflict Reason = "PodSecurityConflict"
	// ReasonLimitRangeConflict: a LimitRange of the namespace would refuse the pod with the sidecars.
	ReasonLimitRangeConflict Reason = "LimitRangeConflict"
	// ReasonQuotaConflict: a ResourceQuota of the namespace would refuse the pod with the sidecars.
	ReasonQuotaConflict Reason = "QuotaConflict"
	// ReasonNoRevision: the policy has no accepted revision yet.
	ReasonNoRevision Reason = "NoRevision"
	// ReasonMirrorPod: the pod stands for a static pod, which the API server can't change.
	ReasonMirrorPod Reason = "MirrorPod"
)

// Reasons why a pod got the template unchanged, though its owner overrides it.
const (
	// ReasonOverrideInvalid: the override can't be read, or the pod would not fit with it.
	ReasonOverrideInvalid Reason = "OverrideInvalid"
	// ReasonOverrideNotAllowed: it asks for what spec.injection.overrides does not allow.
	ReasonOverrideNotAllowed Reason = "OverrideNotAllowed"
)

// Reasons of events that are not also reasons of conditions.
const (
	// ReasonRevisionCreated: a new template was accepted.
	ReasonRevisionCreated Reason = "RevisionCreated"
	// ReasonRolloutComplete: the target revision became the stable one.
	ReasonRolloutComplete Reason = "RolloutComplete"
	// ReasonRetried: a failed revision is tried again, because a person asked for it.
	ReasonRetried Reason = "Retried"
	// ReasonResumed: a roll-out that was paused goes on.
	ReasonResumed Reason = "Resumed"
	// ReasonUndone: a revision named by spec.rollout.revision is the target.
	ReasonUndone Reason = "Undone"
	// ReasonStepStarted: a roll-out reached a step.
	ReasonStepStarted Reason = "StepStarted"
	// ReasonReplacing: pods of a workload that lack the sidecars are being replaced.
	ReasonReplacing Reason = "Replacing"
	// ReasonUnplugged: no pod carries the sidecars of a deleted policy any more.
	ReasonUnplugged Reason = "Unplugged"
	// ReasonSidecarsKept: a policy was deleted, and pods still carry its sidecars.
	ReasonSidecarsKept Reason = "SidecarsKept"
	// ReasonInjectionSkipped: a pod was created without the policy's sidecars.
	ReasonInjectionSkipped Reason = "InjectionSkipped"
	// ReasonOverrideIgnored: a pod was created with the policy's template, and without the override that its owner wrote.
	ReasonOverrideIgnored Reason = "OverrideIgnored"
)
