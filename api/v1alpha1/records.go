package v1alpha1

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// InjectionRecord is the value of a pod's injected annotation. It is written
// when the pod is created and never changed: it says which revision's fixed parts
// (env, command, volumes, ...) the pod has for as long as it lives.
// +kubebuilder:object:generate=false
type InjectionRecord struct {
	// Revision is the revision that the pod was created with.
	Revision string `json:"revision"`
	// Sidecars names the containers that were added, native or not.
	Sidecars []string `json:"sidecars"`
	// InitContainers names those that were added and run to their end.
	InitContainers []string `json:"initContainers,omitempty"`
	// After names those of both that start after the app's init containers.
	After []string `json:"after,omitempty"`
	// Overrides are those that the pod's owner asked for and got, by the name of the container.
	Overrides map[string]Override `json:"overrides,omitempty"`
	// Volumes, Labels and Annotations name what else the template brings, by which a clash between policies can be told from
	// one with the pod's own parts. Older builds did not write them, nor After and App.
	Volumes     []string `json:"volumes,omitempty"`
	Labels      []string `json:"labels,omitempty"`
	Annotations []string `json:"annotations,omitempty"`
	// App is what the template brings for the app's containers, by their names or * for all.
	App map[string]AppRecord `json:"app,omitempty"`
}

// AppRecord names what containers of the app got.
// +kubebuilder:object:generate=false
type AppRecord struct {
	Env        []string `json:"env,omitempty"`
	MountPaths []string `json:"mountPaths,omitempty"`
}

// Note writes down what a template brings besides containers. It is the same for every pod.
func (r *InjectionRecord) Note(t *SidecarTemplate) {
	for i := range t.InitContainers {
		if c := &t.InitContainers[i]; c.Order == OrderAfter {
			r.After = append(r.After, c.Name)
		}
	}
	for i := range t.Sidecars {
		if s := &t.Sidecars[i]; s.Order == OrderAfter && s.Mode != ModeContainer {
			r.After = append(r.After, s.Name)
		}
	}
	for i := range t.Volumes {
		r.Volumes = append(r.Volumes, t.Volumes[i].Name)
	}
	r.Labels, r.Annotations = slices.Sorted(maps.Keys(t.Metadata.Labels)), slices.Sorted(maps.Keys(t.Metadata.Annotations))
	for i := range t.AppContainers {
		r.noteApp(&t.AppContainers[i])
	}
}

func (r *InjectionRecord) noteApp(a *AppContainer) {
	var app AppRecord
	for i := range a.VolumeMounts {
		app.MountPaths = append(app.MountPaths, a.VolumeMounts[i].MountPath)
	}
	for i := range a.Env {
		app.Env = append(app.Env, a.Env[i].Name)
	}
	if r.App == nil {
		r.App = map[string]AppRecord{}
	}
	r.App[a.Selector] = app
}

// Containers names all that was added.
func (r *InjectionRecord) Containers() []string {
	if len(r.InitContainers) == 0 {
		return r.Sidecars // is asked for every pod of a fleet
	}
	return slices.Concat(r.Sidecars, r.InitContainers)
}

// Override is what a pod's owner wants one container that is added to have otherwise.
// +kubebuilder:object:generate=false
type Override struct {
	// Env maps names of variables to their values.
	Env map[string]string `json:"env,omitempty"`
	// Resources are added to the container's, or replace them.
	Resources OverriddenResources `json:"resources,omitzero"`
}

// OverriddenResources are requests and limits.
// +kubebuilder:object:generate=false
type OverriddenResources struct {
	Requests corev1.ResourceList `json:"requests,omitempty"`
	Limits   corev1.ResourceList `json:"limits,omitempty"`
}

// Names says whether a request or a limit of the resource is overridden.
func (r OverriddenResources) Names(resource corev1.ResourceName) bool {
	_, request := r.Requests[resource]
	_, limit := r.Limits[resource]
	return request || limit
}

// UpgradeRecord is the value of a pod's upgrade annotation. It is written in the
// same PATCH as the images, so that an upgrade can be judged from the API alone,
// also by a manager that was started after it.
// +kubebuilder:object:generate=false
type UpgradeRecord struct {
	// Revision is the revision that the pod was moved to.
	Revision string `json:"revision"`
	// At is when the PATCH was sent.
	At metav1.Time `json:"at"`
	// Before maps the name of each sidecar whose image was changed to the
	// containerID that it had. Empty where it had none.
	Before map[string]string `json:"before"`
	// Ran maps the same names to the image that the container of Before was started
	// with. Where the spec names that image again, no restart is due.
	Ran map[string]string `json:"ran,omitempty"`
	// Resizes maps the name of each sidecar that lacked the revision's resources to those that
	// it had. They are changed by a second request, after this record: where the spec still
	// says the same, that request is still to come.
	Resizes map[string]corev1.ResourceRequirements `json:"resizes,omitempty"`
	// Restarts maps the names of the pod's containers to the restartCount that they had.
	// Those that had none are left out.
	Restarts map[string]int32 `json:"restarts,omitempty"`
	// WasReady says whether the pod was Ready before the upgrade. One that was
	// not, or whose app was crashing, is not required to get Ready by it.
	WasReady bool `json:"wasReady"`
	// Crashing names the containers of the app that crashed again and again before the upgrade. That they
	// go on to says nothing of it.
	Crashing []string `json:"crashing,omitempty"`
	// WasFailing says whether the sidecars failed before the upgrade already, on the stable revision.
	WasFailing bool `json:"wasFailing,omitempty"`
}

// ParseInjectionRecord reads a pod's InjectionRecord for a policy. It is nil
// without an error when the pod has none.
func ParseInjectionRecord(annotations map[string]string, policy string) (*InjectionRecord, error) {
	return parseRecord[InjectionRecord](annotations, InjectedAnnotation(policy))
}

// ParseUpgradeRecord reads a pod's UpgradeRecord for a policy. It is nil
// without an error when the pod was never upgraded in place.
func ParseUpgradeRecord(annotations map[string]string, policy string) (*UpgradeRecord, error) {
	return parseRecord[UpgradeRecord](annotations, UpgradeAnnotation(policy))
}

func parseRecord[T any](annotations map[string]string, key string) (*T, error) {
	value, ok := annotations[key]
	if !ok {
		return nil, nil
	}
	record := new(T)
	if err := json.Unmarshal([]byte(value), record); err != nil {
		return nil, fmt.Errorf("annotation %s: %w", key, err)
	}
	return record, nil
}

// Encode renders the record as an annotation's value.
func (r InjectionRecord) Encode() string { return encodeRecord(r) }

// Encode renders the record as an annotation's value.
func (r UpgradeRecord) Encode() string { return encodeRecord(r) }

func encodeRecord(record any) string {
	data, err := json.Marshal(record)
	if err != nil {
		panic(err) // strings, maps of strings and times always marshal
	}
	return string(data)
}
