package inject

import (
	"cmp"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

// TokenPath is where the API server mounts the token of the pod's service account, into each container.
const TokenPath = "/var/run/secrets/kubernetes.io/serviceaccount"

// sharing is a container that gets the mounts and devices of others.
type sharing struct {
	to    *corev1.Container
	share *v1alpha1.SharedVolumeMounts
	// env is what the container takes over of the app's variables.
	env []v1alpha1.AppEnv
	// givers are those containers of the app whose mounts are shared.
	app, givers app
	// volumes are those of the pod and of the template.
	volumes volumeLists
	// own are the paths that the container uses itself, given those of the app that it got.
	own   map[string]bool
	given map[string]given
	// conflicts are what can't be given.
	conflicts []Conflict
}

// given is what is at a path, and of whom.
type given struct {
	from, volume, subPath, subPathExpr string
	device                             bool
}

// shareMounts gives a container what the app's containers have mounted.
func (a app) shareMounts(c *corev1.Container, from *v1alpha1.FromApp, volumes volumeLists) []Conflict {
	share := from.ShareVolumeMounts
	s := sharing{to: c, share: share, env: from.EnvFromApp, app: a, volumes: volumes, own: map[string]bool{}, given: map[string]given{}}
	for _, p := range placesOf(c) {
		s.own[p.at] = true
	}
	name := cmp.Or(share.Container, "*")
	if name != "*" && a.named(name) == nil {
		return []Conflict{containerMissing(name, c.Name, "volume mounts")}
	}
	for _, own := range a {
		if name == "*" || name == own.Name {
			s.givers = append(s.givers, own)
			s.takeMounts(own.Container)
			s.takeDevices(own.Container)
		}
	}
	s.checkNested()
	return append(s.conflicts, mountedDevices(c)...)
}

func (s *sharing) takeMounts(from *corev1.Container) {
	for _, m := range from.VolumeMounts {
		what := given{from: from.Name, volume: m.Name, subPath: m.SubPath, subPathExpr: m.SubPathExpr}
		if !s.take(m.MountPath, what) {
			s.letWrite(&m, what)
			continue
		}
		for _, name := range references(m.SubPathExpr) {
			if instead := s.lacksEnv(from, name); instead != "" {
				s.conflicts = append(s.conflicts, conflict(v1alpha1.ReasonAppEnvMissing,
					"container %q mounts %s by subPathExpr %s, and %q has no variable %s: %s", from.Name, m.MountPath, m.SubPathExpr, s.to.Name, name, instead))
			}
		}
		m.ReadOnly = m.ReadOnly || s.share.ReadOnly
		if ptr.Deref(m.MountPropagation, "") == corev1.MountPropagationBidirectional && !privileged(s.to) {
			m.MountPropagation = ptr.To(corev1.MountPropagationHostToContainer) // the API server allows no more
		}
		s.to.VolumeMounts = append(s.to.VolumeMounts, m)
	}
}

// letWrite makes writable what another container of the app has given at the path of a mount, where this one is: the app
// writes there.
func (s *sharing) letWrite(m *corev1.VolumeMount, what given) {
	at := path.Clean(m.MountPath)
	before, taken := s.given[at]
	if before.from = what.from; !taken || before != what || m.ReadOnly || s.share.ReadOnly {
		return
	}
	for i := range s.to.VolumeMounts {
		if shared := &s.to.VolumeMounts[i]; path.Clean(shared.MountPath) == at {
			shared.ReadOnly, shared.RecursiveReadOnly = false, nil
		}
	}
}

// lacksEnv says how the container can get a variable of the app's that it lacks; empty where it has it, or may have it by
// the envFrom that it takes over.
func (s *sharing) lacksEnv(from *corev1.Container, name string) string {
	switch named := hasEnv(from.Env, name); {
	case hasEnv(s.to.Env, name):
		return ""
	case named || len(from.EnvFrom) == 0:
		return "it can be taken over by envFromApp"
	case s.app.takesEnvFrom(from, s.env):
		return ""
	}
	return "it may come from the container's envFrom: write envFrom: true in envFromApp"
}

func (s *sharing) takeDevices(from *corev1.Container) {
	for _, d := range from.VolumeDevices {
		if !s.share.ReadOnly && s.take(d.DevicePath, given{from: from.Name, volume: d.Name, device: true}) {
			s.to.VolumeDevices = append(s.to.VolumeDevices, d)
		}
	}
}

// take says whether the container is to get what is at a path.
func (s *sharing) take(at string, what given) bool {
	at = path.Clean(at)
	if s.own[at] || s.excludes(at) {
		return false
	}
	before, taken := s.given[at]
	if !taken {
		s.given[at] = what
		return true
	}
	if from := before.from; from != what.from {
		before.from = what.from
		if before != what {
			s.conflicts = append(s.conflicts, conflict(v1alpha1.ReasonMountPathConflict,
				"containers %q and %q have different volumes at %s, and %q is to share both", from, what.from, at, s.to.Name))
		}
	}
	return false
}

// checkNested finds what can't be mounted in the container, where it or what is around it is the app's.
func (s *sharing) checkNested() {
	places := placesOf(s.to)
	for i := range places {
		p := pair{places[i].around(places), &places[i]}
		if p.outer == nil || p.outer.holds(p.inner, s.volumes) || (s.own[p.outer.at] && s.own[p.inner.at]) || s.proven(p) {
			continue
		}
		s.conflicts = append(s.conflicts, cantHold(s.to.Name, p, "write shareVolumeMounts.container or excludePaths"))
	}
}

// proven says whether a container of the app has the same, as read-only: it starts since the volume has what is mounted on.
func (s *sharing) proven(p pair) bool {
	return !s.own[p.outer.at] && !s.own[p.inner.at] && slices.ContainsFunc(s.givers, func(c appContainer) bool {
		places := placesOf(c.Container)
		outer := slices.IndexFunc(places, func(own place) bool { return own.at == p.outer.at })
		inner := slices.IndexFunc(places, func(own place) bool { return own.at == p.inner.at })
		return outer >= 0 && inner >= 0 && !places[outer].holds(&places[inner], s.volumes)
	})
}

func (s *sharing) excludes(at string) bool {
	return below(TokenPath, at) || slices.ContainsFunc(s.share.ExcludePaths, func(p string) bool { return below(p, at) })
}

// below says whether a clean path is the directory, or in it.
func below(directory, at string) bool {
	directory = strings.TrimSuffix(path.Clean(directory), "/")
	return at == directory || strings.HasPrefix(at, directory+"/")
}

// mountedDevices finds volumes that a container has both mounted and as a raw device.
func mountedDevices(c *corev1.Container) []Conflict {
	var conflicts []Conflict
	for _, d := range c.VolumeDevices {
		if slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == d.Name }) {
			conflicts = append(conflicts, conflict(v1alpha1.ReasonVolumeConflict,
				"%q would have volume %q both mounted and as a raw device", c.Name, d.Name))
		}
	}
	return conflicts
}

func privileged(c *corev1.Container) bool {
	return c.SecurityContext != nil && ptr.Deref(c.SecurityContext.Privileged, false)
}
