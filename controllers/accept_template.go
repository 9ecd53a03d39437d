package controllers

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/sizing"
)

// extra is a container of a template with what it takes over from the app.
type extra struct {
	// path is its place in the spec.
	path      string
	container *corev1.Container
	from      *v1alpha1.FromApp
}

// extras are all containers of a template.
func extras(t *v1alpha1.SidecarTemplate) []extra {
	var all []extra
	for i := range t.Sidecars {
		s := &t.Sidecars[i]
		all = append(all, extra{fmt.Sprintf("spec.template.sidecars[%s]", s.Name), &s.Container, &s.FromApp})
	}
	for i := range t.InitContainers {
		c := &t.InitContainers[i]
		all = append(all, extra{fmt.Sprintf("spec.template.initContainers[%s]", c.Name), &c.Container, &c.FromApp})
	}
	return all
}

// invalidTemplate finds what names in a template can't mean.
func invalidTemplate(t *v1alpha1.SidecarTemplate) []string {
	var problems []string
	names := map[string]bool{}
	for _, c := range extras(t) {
		if names[c.container.Name] {
			problems = append(problems, fmt.Sprintf("%s: a container %q is among the sidecars already: write another name", c.path, c.container.Name))
		}
		names[c.container.Name] = true
		problems = append(problems, invalidImage(c)...)
	}
	for _, a := range t.AppContainers {
		if names[a.Selector] {
			problems = append(problems, fmt.Sprintf("spec.template.appContainers: selector %q names a container of this policy: write its volumeMounts and env where it is defined", a.Selector))
		}
	}
	for _, c := range extras(t) {
		problems = append(problems, invalidTakeOver(c, names)...)
	}
	return problems
}

// invalidImage finds a reference that no kubelet could read (InvalidImageName): new pods would never start.
func invalidImage(c extra) []string {
	if _, err := reference.ParseNormalizedNamed(c.container.Image); err != nil {
		return []string{fmt.Sprintf("%s: image %q can't be read (%v): write registry/repository:tag, or registry/repository@sha256:digest", c.path, c.container.Image, err)}
	}
	return nil
}

// invalidTakeOver finds what a container can't take over from the app. The names are those of
// the template's containers.
func invalidTakeOver(c extra, names map[string]bool) []string {
	var problems []string
	for _, app := range appNames(c.from) {
		if names[app] {
			problems = append(problems, fmt.Sprintf("%s: container %q is one of this policy: write the name of a container of the app", c.path, app))
		}
	}
	for _, own := range c.container.Env {
		if slices.ContainsFunc(c.from.EnvFromApp, func(e v1alpha1.AppEnv) bool { return slices.Contains(e.Names, own.Name) }) {
			problems = append(problems, fmt.Sprintf("%s: variable %s is in env and in envFromApp: remove one of them", c.path, own.Name))
		}
	}
	return append(problems, invalidExpressions(c)...)
}

// invalidOverrides finds rules about containers that the template does not have.
func invalidOverrides(policy *v1alpha1.SidecarPolicy) []string {
	var names, problems []string
	for _, c := range extras(&policy.Spec.Template) {
		names = append(names, c.container.Name)
	}
	for _, rule := range policy.Spec.Injection.Overrides {
		if !slices.Contains(names, rule.Container) {
			problems = append(problems, fmt.Sprintf("spec.injection.overrides[%s]: the template has no such container: write one of %s", rule.Container, strings.Join(names, ", ")))
		}
	}
	return problems
}

// invalidExpressions finds expressions that can't be computed for any app.
func invalidExpressions(c extra) []string {
	var problems []string
	if c.from.ResourcesFromApp == nil {
		return nil
	}
	check := func(list string, expressions map[corev1.ResourceName]v1alpha1.ResourceExpression) {
		for _, name := range slices.Sorted(maps.Keys(expressions)) {
			if err := sizing.Validate(string(expressions[name])); err != nil {
				problems = append(problems, fmt.Sprintf("%s.resourcesFromApp.%s[%s]: %s: %v", c.path, list, name, expressions[name], err))
			}
		}
	}
	check("requests", c.from.ResourcesFromApp.Requests)
	check("limits", c.from.ResourcesFromApp.Limits)
	return problems
}

// appNames are the containers of the app that a container takes something over from by name.
func appNames(from *v1alpha1.FromApp) []string {
	var names []string
	if share := from.ShareVolumeMounts; share != nil && cmp.Or(share.Container, "*") != "*" {
		names = append(names, share.Container)
	}
	for _, e := range from.EnvFromApp {
		if e.Container != "" {
			names = append(names, e.Container)
		}
	}
	return names
}

// sampleApp is a minimal app that has what the template expects of one: the containers that it
// names, the variables that it takes over, and the volumes that it mounts and does not bring.
func sampleApp(t *v1alpha1.SidecarTemplate) *corev1.Pod {
	pod := &corev1.Pod{}
	pod.Spec.ServiceAccountName = "default" // for projected tokens, where no admission plugin gives pods one
	containerOf(pod, sampleContainer)
	for _, app := range t.AppContainers {
		if app.Selector != "*" {
			containerOf(pod, app.Selector)
		}
	}
	for _, c := range extras(t) {
		for _, name := range appNames(c.from) {
			containerOf(pod, name)
		}
		for _, e := range c.from.EnvFromApp {
			app := containerOf(pod, cmp.Or(e.Container, sampleContainer))
			for _, name := range e.Names {
				app.Env = append(app.Env, corev1.EnvVar{Name: name, Value: "sample"})
			}
		}
	}
	if slices.ContainsFunc(extras(t), func(c extra) bool { return c.from.ResourcesFromApp != nil }) {
		for i := range pod.Spec.Containers {
			pod.Spec.Containers[i].Resources = sampleResources()
		}
	}
	for _, volume := range appVolumes(t) {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: volume})
	}
	return pod
}

// sampleResources say something of all that an expression can ask for without has().
func sampleResources() corev1.ResourceRequirements {
	list := func(cpu, bytes string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu),
			corev1.ResourceMemory: resource.MustParse(bytes), corev1.ResourceEphemeralStorage: resource.MustParse(bytes)}
	}
	return corev1.ResourceRequirements{Requests: list("1", "1Gi"), Limits: list("2", "2Gi")}
}

// containerOf is the pod's container of that name, which is made where it is not there.
func containerOf(pod *corev1.Pod, name string) *corev1.Container {
	i := slices.IndexFunc(pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == name })
	if i < 0 {
		i = len(pod.Spec.Containers)
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: name, Image: "sample"})
	}
	return &pod.Spec.Containers[i]
}
