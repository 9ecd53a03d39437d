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
// +kubebuilder:validation:XValidation:rule="!has(self.resources) || !has(self.resourcesFromApp) || ['cpu', 'memory', 'ephemeral-storage'].all(r, !((has(self.resources.requests) && r in self.resources.requests) || (has(self.resources.limits) && r in self.resources.limits)) || !((has(self.resourcesFromApp.requests) && r in self.resourcesFromApp.requests) || (has(self.resourcesFromApp.limits) && r in self.resourcesFromApp.limits)))",message="a resource is either in resources or in resourcesFromApp: a constant can be written there too, like memory: quantity('64Mi')"
type InitContainer struct {
	corev1.Container `json:",inline"`

	// order is Before (default), before the app's init containers and the native sidecars of the
	// same order, or After, after the app's init containers and before the native sidecars of the same order.
	// +optional
	Order InitOrder `json:"order,omitempty"`

	FromApp `json:",inline"`
}

// FromApp is what a container that is added takes over from the app's containers, as they are when
// the pod is created. Init containers, native sidecars and the sidecars of policies are not the app's.
// A pod that lacks something of it is left as it is.
type FromApp struct {
	// shareVolumeMounts gives the container what the app's containers have mounted, at the same
	// paths, and their raw devices. Write {} for all of it.
	// +optional
	ShareVolumeMounts *SharedVolumeMounts `json:"shareVolumeMounts,omitempty"`

	// envFromApp are variables of the app's containers that the container gets as well. They stand before
	// its own env, which can refer to them as $(NAME).
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	// +optional
	EnvFromApp []AppEnv `json:"envFromApp,omitempty"`

	// resourcesFromApp computes requests and limits of the container from those of the app. A resource is
	// written either here or in resources. A pod for which one can't be computed is left as it is. A
	// change needs a new pod, and what the app is given later does not count.
	// +optional
	ResourcesFromApp *AppResources `json:"resourcesFromApp,omitempty"`
}

// ResourceExpression is a number in CEL: cores of cpu, bytes of the others.
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=512
type ResourceExpression string

// AppResources computes resources, each by an expression in CEL.
//
// Its variables are maps of numbers by the name of the resource: app.requests is what the
// app's containers request together (a limit without a request is one; what none requests is 0), app.limits what they are
// limited to together, without those resources of which one of them has no limit. Ask for these by
// has(app.limits.memory). quantity("64Mi") is a number, and so are math.greatest(a, b) and
// math.least(a, b). Numbers are written with a point: app.requests.cpu * 0.1.
//
// The result is rounded up, cpu to 1m and the others to whole bytes; 0 leaves the request or limit out.
// +kubebuilder:validation:XValidation:rule="has(self.requests) || has(self.limits)",message="says nothing: write requests or limits, like requests: {cpu: app.requests.cpu * 0.1}"
type AppResources struct {
	// requests are expressions for cpu, memory or ephemeral-storage.
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=3
	// +kubebuilder:validation:XValidation:rule="self.all(name, name in ['cpu', 'memory', 'ephemeral-storage'])",message="only cpu, memory and ephemeral-storage can be computed: write other resources in resources"
	// +optional
	Requests map[corev1.ResourceName]ResourceExpression `json:"requests,omitempty"`

	// limits are expressions for cpu, memory or ephemeral-storage.
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=3
	// +kubebuilder:validation:XValidation:rule="self.all(name, name in ['cpu', 'memory', 'ephemeral-storage'])",message="only cpu, memory and ephemeral-storage can be computed: write other resources in resources"
	// +optional
	Limits map[corev1.ResourceName]ResourceExpression `json:"limits,omitempty"`
}

// SharedVolumeMounts says which mounts of the app a container shares. The mount of the
// service account's token is never among them: the API server gives each container its own. Where the
// container has a mount of its own, that one stays. A pod of which two containers have different
// volumes at one path is left as it is.
type SharedVolumeMounts struct {
	// container is the name of the app's container whose mounts are shared, or "*" (default) for all of them.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$`
	// +optional
	Container string `json:"container,omitempty"`

	// readOnly mounts everything read-only, and leaves out raw devices, which can't be. Defaults to
	// false: as the app has it.
	// +optional
	ReadOnly bool `json:"readOnly,omitempty"`

	// excludePaths are left out, with all that is mounted below them.
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=1024
	// +kubebuilder:validation:items:Pattern=`^/`
	// +optional
	ExcludePaths []string `json:"excludePaths,omitempty"`
}

// AppEnv names variables of one container of the app.
// +kubebuilder:validation:XValidation:rule="has(self.names) || (has(self.envFrom) && self.envFrom)",message="says nothing: write names of variables, or envFrom: true"
type AppEnv struct {
	// container is the name of the app's container. Defaults to the first one of the app.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +optional
	Container string `json:"container,omitempty"`

	// names are the variables of the container's env that are taken over, from wherever they get
	// their values. The first entry that finds a variable brings it.
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +optional
	Names []string `json:"names,omitempty"`

	// envFrom takes over the container's envFrom: all variables of the ConfigMaps and Secrets that it
	// names. Defaults to false.
	// +optional
	EnvFrom bool `json:"envFrom,omitempty"`

	// optional gives the sidecar to pods that lack the container or a variable too. Defaults to
	// false, which leaves such a pod as it is.
	// +optional
	Optional bool `json:"optional,omitempty"`
}

// AllowedOverride is what owners of pods may change of one container of the template. Its values come from the
// pod's annotation override.fleet.sidecar.dev/<policy>, in YAML, by the name of the container:
//
//	log-agent:
//	  env: {LOG_LEVEL: debug}
//	  resources: {limits: {memory: 256Mi}}
//
// An annotation that can't be read, or asks for anything else too, is reported, and its pod gets the
// template unchanged. What a pod was given stays its own: a new value in the template reaches pods
// that override it only where they are created anew without the annotation.
// +kubebuilder:validation:XValidation:rule="has(self.env) || has(self.resources)",message="allows nothing: write names of variables in env, or of resources in resources"
type AllowedOverride struct {
	// container is the name of a sidecar or an init container of the template.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +required
	Container string `json:"container,omitempty"`

	// env are the names of variables that may be given another value, or one at all.
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:items:Pattern=`^[-._a-zA-Z][-._a-zA-Z0-9]*$`
	// +optional
	Env []string `json:"env,omitempty"`

	// resources are cpu, memory and ephemeral-storage, as far as their requests and limits may be others.
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=3
	// +kubebuilder:validation:items:Enum=cpu;memory;ephemeral-storage
	// +optional
	Resources []corev1.ResourceName `json:"resources,omitempty"`
}
