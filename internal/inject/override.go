package inject

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
)

// maxOverride is how long an override may be, in bytes.
const maxOverride = 16 * 1024

// readOverrides are what a pod's owner wants to have otherwise, by the name of the container, and
// why that is not to be had.
func readOverrides(pod *corev1.Pod, policy string, allowed []v1alpha1.AllowedOverride) (map[string]v1alpha1.Override, []Conflict) {
	key := v1alpha1.OverrideAnnotation(policy)
	value, ok := pod.Annotations[key]
	if !ok {
		return nil, nil
	}
	if len(value) > maxOverride {
		return nil, []Conflict{conflict(v1alpha1.ReasonOverrideInvalid, "annotation %s has %d bytes, and %d are read", key, len(value), maxOverride)}
	}
	overrides := map[string]v1alpha1.Override{}
	if err := yaml.UnmarshalStrict([]byte(value), &overrides); err != nil {
		return nil, []Conflict{conflict(v1alpha1.ReasonOverrideInvalid,
			`annotation %s: write env and resources by the name of the container, like {"agent": {"env": {"LEVEL": "debug"}}}: %s`, key, oneLine(err))}
	}
	var problems []Conflict
	for _, name := range slices.Sorted(maps.Keys(overrides)) {
		if refused := notAllowed(overrides[name], ruleFor(name, allowed)); len(refused) > 0 {
			problems = append(problems, conflict(v1alpha1.ReasonOverrideNotAllowed,
				"annotation %s: the policy does not allow to override %s of %q", key, strings.Join(refused, ", "), name))
		}
		problems = append(problems, negative(key, name, overrides[name].Resources)...)
	}
	if len(problems) > 0 || len(overrides) == 0 {
		return nil, problems
	}
	return overrides, nil
}

// oneLine is an error's text as a header can carry it.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// ruleFor is what may be overridden of a container.
func ruleFor(name string, allowed []v1alpha1.AllowedOverride) v1alpha1.AllowedOverride {
	for _, rule := range allowed {
		if rule.Container == name {
			return rule
		}
	}
	return v1alpha1.AllowedOverride{}
}

// notAllowed names what an override asks for beyond the rule.
func notAllowed(o v1alpha1.Override, rule v1alpha1.AllowedOverride) []string {
	var refused []string
	for _, name := range slices.Sorted(maps.Keys(o.Env)) {
		if !slices.Contains(rule.Env, name) {
			refused = append(refused, "env "+name)
		}
	}
	for _, list := range []struct {
		name      string
		resources corev1.ResourceList
	}{{"requests", o.Resources.Requests}, {"limits", o.Resources.Limits}} {
		for _, name := range slices.Sorted(maps.Keys(list.resources)) {
			if !slices.Contains(rule.Resources, name) {
				refused = append(refused, fmt.Sprintf("resources.%s.%s", list.name, name))
			}
		}
	}
	return refused
}

func negative(key, container string, r v1alpha1.OverriddenResources) []Conflict {
	var problems []Conflict
	for _, list := range []corev1.ResourceList{r.Requests, r.Limits} {
		for _, name := range slices.Sorted(maps.Keys(list)) {
			if quantity := list[name]; quantity.Sign() < 0 {
				problems = append(problems, conflict(v1alpha1.ReasonOverrideInvalid, "annotation %s: %q can't have %s of %s", key, container, quantity.String(), name))
			}
		}
	}
	return problems
}

// overridden is a revision of which the template says what the overrides say.
func overridden(r *revision.Revision, overrides map[string]v1alpha1.Override) *revision.Revision {
	if len(overrides) == 0 {
		return r
	}
	own := &revision.Revision{Hash: r.Hash, Number: r.Number, Template: *r.Template.DeepCopy()}
	for i := range own.Template.Sidecars {
		s := &own.Template.Sidecars[i]
		overrideContainer(&s.Container, &s.FromApp, overrides[s.Name])
	}
	for i := range own.Template.InitContainers {
		c := &own.Template.InitContainers[i]
		overrideContainer(&c.Container, &c.FromApp, overrides[c.Name])
	}
	return own
}

func overrideContainer(c *corev1.Container, from *v1alpha1.FromApp, o v1alpha1.Override) {
	for _, name := range slices.Sorted(maps.Keys(o.Env)) {
		variable := corev1.EnvVar{Name: name, Value: o.Env[name]}
		if i := slices.IndexFunc(c.Env, func(v corev1.EnvVar) bool { return v.Name == name }); i >= 0 {
			c.Env[i] = variable
			continue
		}
		c.Env = append(c.Env, variable)
	}
	overrideResources(&c.Resources.Requests, o.Resources.Requests)
	overrideResources(&c.Resources.Limits, o.Resources.Limits)
	if computed := from.ResourcesFromApp; computed != nil {
		maps.DeleteFunc(computed.Requests, func(name corev1.ResourceName, _ v1alpha1.ResourceExpression) bool {
			_, o := o.Resources.Requests[name]
			return o
		})
		maps.DeleteFunc(computed.Limits, func(name corev1.ResourceName, _ v1alpha1.ResourceExpression) bool {
			_, o := o.Resources.Limits[name]
			return o
		})
	}
}

func overrideResources(list *corev1.ResourceList, with corev1.ResourceList) {
	if *list == nil && len(with) > 0 {
		*list = corev1.ResourceList{}
	}
	maps.Copy(*list, with)
}
