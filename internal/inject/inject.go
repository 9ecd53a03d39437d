// Package inject renders a revision into a pod: what has to be added, or why
// it can't be. It is pure; admission, the planner and tests call it alike.
package inject

import (
	"iter"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
)

// Additions is what a pod gets. Nothing that the pod has is ever replaced: every
// part is something new.
type Additions struct {
	// Labels and Annotations that the pod lacks.
	Labels, Annotations map[string]string
	// InitContainers go before the pod's own and after those of the policies before, LateInitContainers after all: native
	// sidecars, and before those of the same order what runs to its end.
	InitContainers, LateInitContainers []corev1.Container
	// Containers go after the pod's own: sidecars of mode Container.
	Containers []corev1.Container
	// App is what the app's containers get, by their index in spec.containers.
	App map[int]ContainerAdditions
	// Volumes and ImagePullSecrets that the pod lacks.
	Volumes          []corev1.Volume
	ImagePullSecrets []corev1.LocalObjectReference
	// ReadinessGates that the pod lacks.
	ReadinessGates []corev1.PodReadinessGate
	// ShareProcessNamespace is to be set to true.
	ShareProcessNamespace bool
	// Ignored says why what the pod's owner overrides is not in the additions.
	Ignored []Conflict
}

// added are all containers that the pod would get, in the order in which they start.
func (a *Additions) added() []corev1.Container {
	return slices.Concat(a.InitContainers, a.LateInitContainers, a.Containers)
}

// AddDrainGate lets the pod be drained before its sidecars are restarted. A pod that gets no sidecars gets no gate.
func (a *Additions) AddDrainGate(pod *corev1.Pod, policy string) {
	gate := corev1.PodReadinessGate{ConditionType: v1alpha1.DrainCondition(policy)}
	if len(a.added()) > 0 && !slices.Contains(pod.Spec.ReadinessGates, gate) {
		a.ReadinessGates = append(a.ReadinessGates, gate)
	}
}

// ContainerAdditions is what one container of the app gets.
type ContainerAdditions struct {
	VolumeMounts []corev1.VolumeMount
	Env          []corev1.EnvVar
}

// Injected says whether a pod already carries a policy's sidecars: it has the
// record that injection writes, and the containers that the record names.
func Injected(pod *corev1.Pod, policy string) bool {
	record, err := v1alpha1.ParseInjectionRecord(pod.Annotations, policy)
	return err == nil && record != nil && len(record.Sidecars) > 0 && Carries(pod, record)
}

// Carries says whether a pod has the containers that its record names.
func Carries(pod *corev1.Pod, record *v1alpha1.InjectionRecord) bool {
	for _, names := range [...][]string{record.Sidecars, record.InitContainers} {
		for _, name := range names {
			if !hasContainer(pod, name) {
				return false
			}
		}
	}
	return true
}

func hasContainer(pod *corev1.Pod, name string) bool {
	for _, list := range [...][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if list[i].Name == name {
				return true
			}
		}
	}
	return slices.ContainsFunc(pod.Spec.EphemeralContainers, func(c corev1.EphemeralContainer) bool { return c.Name == name })
}

// Render computes what a pod gets from a policy's revision. When the two clash,
// the additions are empty and the conflicts say why, in a fixed order. A pod that
// already carries the sidecars gets nothing more.
//
// What the pod's owner overrides by an annotation is taken into account as far as it is allowed. An
// override that is not, or with which the pod would clash, is ignored as a whole; the additions say so.
func Render(pod *corev1.Pod, policy string, r *revision.Revision, allowed ...v1alpha1.AllowedOverride) (Additions, []Conflict) {
	if Injected(pod, policy) {
		return Additions{}, nil
	}
	overrides, ignored := readOverrides(pod, policy, allowed)
	additions, conflicts := render(pod, policy, r, overrides)
	if len(conflicts) > 0 && len(overrides) > 0 {
		ignored = []Conflict{conflict(v1alpha1.ReasonOverrideInvalid, "annotation %s: with it, %s", v1alpha1.OverrideAnnotation(policy), Explain(conflicts))}
		additions, conflicts = render(pod, policy, r, nil)
	}
	if len(conflicts) > 0 {
		return Additions{}, conflicts
	}
	additions.Ignored = ignored
	return additions, nil
}

func render(pod *corev1.Pod, policy string, r *revision.Revision, overrides map[string]v1alpha1.Override) (Additions, []Conflict) {
	r = overridden(r, overrides)
	additions, conflicts := build(pod, policy, r, overrides)
	return additions, append(conflicts, findConflicts(pod, r, additions, ownersOf(pod, policy))...)
}

func build(pod *corev1.Pod, policy string, r *revision.Revision, overrides map[string]v1alpha1.Override) (Additions, []Conflict) {
	t := &r.Template
	app := appOf(pod)
	var conflicts []Conflict
	serve := func(template *corev1.Container, from *v1alpha1.FromApp) corev1.Container {
		c, problems := app.serve(template, from, volumeLists{pod.Spec.Volumes, t.Volumes})
		if _, own := overrides[c.Name]; own || from.ResourcesFromApp != nil {
			problems = append(problems, overLimit(&c)...)
		}
		conflicts = append(conflicts, problems...)
		return c
	}
	additions := Additions{
		Labels:           maps.Clone(t.Metadata.Labels),
		Annotations:      maps.Clone(t.Metadata.Annotations),
		App:              appAdditions(app, t.AppContainers),
		Volumes:          slices.Clone(t.Volumes),
		ImagePullSecrets: missingPullSecrets(pod, t.ImagePullSecrets),
	}
	if t.ShareProcessNamespace {
		additions.ShareProcessNamespace = !ptr.Deref(pod.Spec.ShareProcessNamespace, false)
	}
	record := v1alpha1.InjectionRecord{Revision: r.Hash, Overrides: overrides}
	for _, c := range t.InitContainers {
		record.InitContainers = append(record.InitContainers, c.Name)
		additions.addInit(serve(&c.Container, &c.FromApp), c.Order)
	}
	for _, sidecar := range t.Sidecars {
		record.Sidecars = append(record.Sidecars, sidecar.Name)
		container := serve(&sidecar.Container, &sidecar.FromApp)
		if sidecar.Mode == v1alpha1.ModeContainer {
			additions.Containers = append(additions.Containers, container)
			continue
		}
		container.RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
		additions.addInit(container, sidecar.Order)
	}
	record.Note(&r.Template)
	additions.Labels = with(additions.Labels, v1alpha1.RevisionLabel(policy), r.Hash)
	additions.Annotations = with(additions.Annotations, v1alpha1.InjectedAnnotation(policy), record.Encode())
	return additions, conflicts
}

func (a *Additions) addInit(c corev1.Container, order v1alpha1.InitOrder) {
	if order == v1alpha1.OrderAfter {
		a.LateInitContainers = append(a.LateInitContainers, c)
		return
	}
	a.InitContainers = append(a.InitContainers, c)
}

func with(m map[string]string, key, value string) map[string]string {
	if m == nil {
		m = map[string]string{}
	}
	m[key] = value
	return m
}

// appAdditions applies the entries that mean a container of the app: those with its name or "*".
func appAdditions(app app, entries []v1alpha1.AppContainer) map[int]ContainerAdditions {
	additions := map[int]ContainerAdditions{}
	for _, container := range app {
		var c ContainerAdditions
		for _, entry := range entries {
			if entry.Selector != "*" && entry.Selector != container.Name {
				continue
			}
			c.VolumeMounts = append(c.VolumeMounts, entry.VolumeMounts...)
			c.Env = append(c.Env, entry.Env...)
		}
		if len(c.VolumeMounts)+len(c.Env) > 0 {
			additions[container.index] = c
		}
	}
	return additions
}

// InjectedNames are the names of all containers that policies have added to the pod.
func InjectedNames(pod *corev1.Pod) map[string]bool {
	names := map[string]bool{}
	for record := range recordsOf(pod) {
		for _, name := range record.Containers() {
			names[name] = true
		}
	}
	return names
}

// recordsOf yields what policies have written down of what they added to the pod.
func recordsOf(pod *corev1.Pod) iter.Seq[*v1alpha1.InjectionRecord] {
	return func(yield func(*v1alpha1.InjectionRecord) bool) {
		for _, policy := range v1alpha1.PoliciesOf(pod.Labels) {
			record, err := v1alpha1.ParseInjectionRecord(pod.Annotations, policy)
			if err == nil && record != nil && !yield(record) {
				return
			}
		}
	}
}

func missingPullSecrets(pod *corev1.Pod, wanted []corev1.LocalObjectReference) []corev1.LocalObjectReference {
	return slices.DeleteFunc(slices.Clone(wanted), func(secret corev1.LocalObjectReference) bool {
		return slices.Contains(pod.Spec.ImagePullSecrets, secret)
	})
}

// initContainers are the pod's with the additions.
func (a *Additions) initContainers(pod *corev1.Pod) []corev1.Container {
	own := pod.Spec.InitContainers
	at := ahead(pod)
	return slices.Concat(own[:at], a.InitContainers, own[at:], a.LateInitContainers)
}

// ahead is how many of the pod's init containers other policies have put before those of the app.
func ahead(pod *corev1.Pod) int {
	early := map[string]bool{}
	for record := range recordsOf(pod) {
		for _, name := range record.Containers() {
			early[name] = !slices.Contains(record.After, name)
		}
	}
	at := slices.IndexFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return !early[c.Name] })
	if at < 0 {
		return len(pod.Spec.InitContainers)
	}
	return at
}

// Apply adds the additions to a pod.
func (a Additions) Apply(pod *corev1.Pod) {
	pod.Labels = merged(pod.Labels, a.Labels)
	pod.Annotations = merged(pod.Annotations, a.Annotations)
	for i, c := range a.App {
		container := &pod.Spec.Containers[i]
		container.VolumeMounts = append(container.VolumeMounts, c.VolumeMounts...)
		container.Env = append(container.Env, c.Env...)
	}
	pod.Spec.InitContainers = a.initContainers(pod)
	pod.Spec.Containers = append(pod.Spec.Containers, a.Containers...)
	pod.Spec.Volumes = append(pod.Spec.Volumes, a.Volumes...)
	pod.Spec.ImagePullSecrets = append(pod.Spec.ImagePullSecrets, a.ImagePullSecrets...)
	pod.Spec.ReadinessGates = append(pod.Spec.ReadinessGates, a.ReadinessGates...)
	if a.ShareProcessNamespace {
		pod.Spec.ShareProcessNamespace = ptr.To(true)
	}
}

func merged(own, added map[string]string) map[string]string {
	if len(added) == 0 {
		return own
	}
	all := maps.Clone(own)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, added)
	return all
}
