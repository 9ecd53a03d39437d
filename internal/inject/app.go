package inject

import (
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

// app is the app's own containers of a pod. Sidecars of policies are not the app's.
type app []appContainer

type appContainer struct {
	*corev1.Container
	// index is its place in spec.containers.
	index int
}

func appOf(pod *corev1.Pod) app {
	added := InjectedNames(pod)
	var own app
	for i := range pod.Spec.Containers {
		if c := &pod.Spec.Containers[i]; !added[c.Name] {
			own = append(own, appContainer{c, i})
		}
	}
	return own
}

// named is the app's container of that name, the first one where none is said; nil where it is not there.
func (a app) named(name string) *corev1.Container {
	i := slices.IndexFunc(a, func(c appContainer) bool { return name == "" || c.Name == name })
	if i < 0 {
		return nil
	}
	return a[i].Container
}

// serve is a container of the template with what it takes over from the app. The conflicts say what
// the app does not have to give.
func (a app) serve(template *corev1.Container, from *v1alpha1.FromApp, volumes volumeLists) (corev1.Container, []Conflict) {
	c := *template.DeepCopy()
	conflicts := a.giveEnv(&c, from.EnvFromApp)
	if from.ShareVolumeMounts != nil {
		conflicts = append(conflicts, a.shareMounts(&c, from, volumes)...)
	}
	if from.ResourcesFromApp != nil {
		conflicts = append(conflicts, a.size(&c, from.ResourcesFromApp)...)
	}
	return c, conflicts
}

// giveEnv puts variables of the app before the container's own, which can refer to them.
func (a app) giveEnv(c *corev1.Container, sources []v1alpha1.AppEnv) []Conflict {
	var conflicts []Conflict
	var env []corev1.EnvVar
	var envFrom []corev1.EnvFromSource
	for _, source := range sources {
		from := a.named(source.Container)
		if from == nil {
			if !source.Optional {
				conflicts = append(conflicts, containerMissing(source.Container, c.Name, "variables"))
			}
			continue
		}
		if source.EnvFrom {
			envFrom = append(envFrom, from.EnvFrom...)
		}
		source.Names = slices.DeleteFunc(slices.Clone(source.Names), func(name string) bool { return hasEnv(c.Env, name) }) // an override's
		taken, problems := takeEnv(c.Name, &giver{from, a.hidesEnvFrom(from, sources)}, &source, env)
		env, conflicts = taken, append(conflicts, problems...)
	}
	c.Env, c.EnvFrom = append(env, c.Env...), append(envFrom, c.EnvFrom...)
	return conflicts
}

func containerMissing(name, sidecar, what string) Conflict {
	return conflict(v1alpha1.ReasonAppContainerMissing, "the pod's app has no container %q, of which %q is to get the %s", name, sidecar, what)
}

// takeEnv adds the variables that a source names to those taken before, in the order in which the app
// has them: they may refer to each other. Of two variables of one name the last one counts.
func takeEnv(sidecar string, from *giver, source *v1alpha1.AppEnv, taken []corev1.EnvVar) ([]corev1.EnvVar, []Conflict) {
	var conflicts []Conflict
	for i, variable := range from.Env {
		if !slices.Contains(source.Names, variable.Name) || hasEnv(from.Env[i+1:], variable.Name) || hasEnv(taken, variable.Name) {
			continue
		}
		if why := from.untransferable(i, taken); why != "" {
			conflicts = append(conflicts, conflict(v1alpha1.ReasonAppEnvMissing,
				"variable %s of container %q can't be given to %q: %s", variable.Name, from.Name, sidecar, why))
		}
		taken = append(taken, pinned(variable, from.Name))
	}
	for _, name := range source.Names {
		if !source.Optional && !hasEnv(from.Env, name) {
			conflicts = append(conflicts, conflict(v1alpha1.ReasonAppEnvMissing,
				"container %q has no variable %s in its env, which %q is to get", from.Name, name, sidecar))
		}
	}
	return taken, conflicts
}

func hasEnv(env []corev1.EnvVar, name string) bool {
	return slices.ContainsFunc(env, func(v corev1.EnvVar) bool { return v.Name == name })
}

// giver is a container of the app of which a sidecar gets variables.
type giver struct {
	*corev1.Container
	// hidden: it has variables by an envFrom that the sidecar does not take over. Nobody here knows their names.
	hidden bool
}

// hidesEnvFrom says whether a container has an envFrom that none of the sources takes over.
func (a app) hidesEnvFrom(c *corev1.Container, sources []v1alpha1.AppEnv) bool {
	return len(c.EnvFrom) > 0 && !a.takesEnvFrom(c, sources)
}

func (a app) takesEnvFrom(c *corev1.Container, sources []v1alpha1.AppEnv) bool {
	return slices.ContainsFunc(sources, func(s v1alpha1.AppEnv) bool { return s.EnvFrom && a.named(s.Container) == c })
}

// untransferable says why a variable of the container would not mean the same in a sidecar; empty where it would.
func (g *giver) untransferable(i int, taken []corev1.EnvVar) string {
	variable, before := &g.Env[i], g.Env[:i]
	if variable.ValueFrom != nil && variable.ValueFrom.FileKeyRef != nil {
		return "it is read from a file, which may not be there when a sidecar starts"
	}
	for _, name := range references(variable.Value) {
		switch {
		case hasEnv(taken, name):
		case hasEnv(before, name):
			return "it refers to $(" + name + "), which is not taken over"
		case g.hidden && !slices.Contains(everywhere, name):
			return "it refers to $(" + name + "), which may come from the container's envFrom: write envFrom: true in envFromApp"
		}
	}
	return ""
}

// everywhere are variables that a kubelet gives to every container.
var everywhere = []string{"KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"}

var reference = regexp.MustCompile(`\$\(([^()]+)\)`)

// references are the names of the variables that a text refers to as $(NAME).
func references(text string) []string {
	if !strings.Contains(text, "$(") {
		return nil
	}
	var names []string
	for _, match := range reference.FindAllStringSubmatch(strings.ReplaceAll(text, "$$", ""), -1) {
		names = append(names, match[1])
	}
	return names
}

// pinned is a variable that still speaks of the container that it is taken from.
func pinned(variable corev1.EnvVar, container string) corev1.EnvVar {
	v := *variable.DeepCopy()
	if v.ValueFrom != nil && v.ValueFrom.ResourceFieldRef != nil && v.ValueFrom.ResourceFieldRef.ContainerName == "" {
		v.ValueFrom.ResourceFieldRef.ContainerName = container
	}
	return v
}
