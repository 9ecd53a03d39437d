package inject

import (
	"maps"
	"path"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
)

// A runtime mounts what has the shorter path first, and makes the directory or the file for what is mounted in it. In a
// mount that is read-only it can't, and the container never starts, unless the volume happens to have what is mounted on.

// volumeKind says what becomes of a mount in a volume.
type volumeKind int

const (
	// writable is a volume in which the runtime makes what is mounted on, where the mount is not read-only.
	writable volumeKind = iota
	// sealed is a volume that is read-only by itself.
	sealed
	// filled is a volume that the kubelet fills, and in which it makes directories for what the pod mounts there, also where
	// the mount is read-only. It makes them from the volume's root, and no files.
	filled
)

// SealedSources are the sources of a volume, by their names in JSON, that make it read-only by their field readOnly. An image
// is always. Drivers of before CSI are not among them.
var SealedSources = []string{"persistentVolumeClaim", "csi", "nfs"}

// FilledSources are the sources of volumes that the kubelet fills, by their names in JSON.
var FilledSources = []string{"configMap", "secret", "projected", "downwardAPI"}

func kindOf(s *corev1.VolumeSource) volumeKind {
	switch {
	case s.ConfigMap != nil || s.Secret != nil || s.Projected != nil || s.DownwardAPI != nil:
		return filled
	case s.Image != nil,
		s.PersistentVolumeClaim != nil && s.PersistentVolumeClaim.ReadOnly,
		s.CSI != nil && s.CSI.ReadOnly != nil && *s.CSI.ReadOnly,
		s.NFS != nil && s.NFS.ReadOnly:
		return sealed
	}
	return writable
}

// sources stand for all of their kind.
var sources = map[volumeKind]corev1.VolumeSource{
	sealed: {Image: &corev1.ImageVolumeSource{}},
	filled: {ConfigMap: &corev1.ConfigMapVolumeSource{}},
}

// StripSource is what of a volume's source the checks look at. It is the same for many volumes, and must not be changed.
func StripSource(s *corev1.VolumeSource) corev1.VolumeSource { return sources[kindOf(s)] }

// volumeLists are volumes of a pod and of a template.
type volumeLists [][]corev1.Volume

func (l volumeLists) kind(name string) volumeKind {
	if name == "" {
		return filled // the cache leaves out the name of the volume with the token
	}
	for _, list := range l {
		for i := range list {
			if list[i].Name == name {
				return kindOf(&list[i].VolumeSource)
			}
		}
	}
	return writable
}

// TemplateKind is what holds of the template's volume of that name, for those who say the same in another language.
func TemplateKind(t *v1alpha1.SidecarTemplate, name string) (isSealed, isFilled bool) {
	kind := volumeLists{t.Volumes}.kind(name)
	return kind == sealed, kind == filled
}

// place is something at a path of a container.
type place struct {
	// at is the path, clean.
	at string
	// mount is nil for a raw device.
	mount *corev1.VolumeMount
}

func placesOf(c *corev1.Container) []place {
	places := mountedAt(c.VolumeMounts)
	for _, d := range c.VolumeDevices {
		places = append(places, place{at: path.Clean(d.DevicePath)})
	}
	return places
}

func mountedAt(mounts []corev1.VolumeMount) []place {
	places := make([]place, len(mounts))
	for i := range mounts {
		places[i] = place{path.Clean(mounts[i].MountPath), &mounts[i]}
	}
	return places
}

// in says whether a place is below another one.
func (p *place) in(outer *place) bool { return p.at != outer.at && below(outer.at, p.at) }

// whole says that it is a mount of a volume's root, and so of a directory.
func (p *place) whole() bool {
	return p.mount != nil && p.mount.SubPath == "" && p.mount.SubPathExpr == ""
}

// holds says whether what is at a place in this one can be mounted, whatever the volume has in it.
func (p *place) holds(inner *place, volumes volumeLists) bool {
	if p.mount == nil {
		return true // nobody has anything in a device
	}
	switch volumes.kind(p.mount.Name) {
	case sealed:
		return false
	case filled:
		return p.whole() && inner.whole()
	}
	return !p.mount.ReadOnly
}

// around is the innermost of the places that one is in; nil where it is in none of them.
func (p *place) around(places []place) *place {
	var innermost *place
	for i := range places {
		if outer := &places[i]; p.in(outer) && (innermost == nil || outer.in(innermost)) {
			innermost = outer
		}
	}
	return innermost
}

// pair is two places, one in the other.
type pair struct{ outer, inner *place }

func cantHold(container string, p pair, instead string) Conflict {
	return conflict(v1alpha1.ReasonMountPathConflict,
		"container %q would have %s mounted in %s, which is read-only and may have nothing there to mount it on: %s", container, p.inner.at, p.outer.at, instead)
}

// A mount of the template may be in one of the app's, or around it. How the app's own are in each other, and those of the
// template, is for their authors to know: volumes may have the directories already.
func checkNestedMounts(pod *corev1.Pod, _ *revision.Revision, a Additions, _ owners) []Conflict {
	var conflicts []Conflict
	volumes := volumeLists{pod.Spec.Volumes, a.Volumes}
	for _, i := range slices.Sorted(maps.Keys(a.App)) {
		container := &pod.Spec.Containers[i]
		own := placesOf(container)
		for _, added := range mountedAt(a.App[i].VolumeMounts) {
			for _, pair := range nested(own, &added) {
				if !pair.outer.holds(pair.inner, volumes) {
					conflicts = append(conflicts, cantHold(container.Name, pair, "write another mountPath"))
				}
			}
		}
	}
	return conflicts
}

// nested are the pairs of an added place and one of the app's own, with none of the app's own between them. Two at one path
// are left to checkMountPaths.
func nested(own []place, added *place) []pair {
	if slices.ContainsFunc(own, func(p place) bool { return p.at == added.at }) {
		return nil
	}
	var pairs []pair
	if outer := added.around(own); outer != nil {
		pairs = append(pairs, pair{outer, added})
	}
	for i := range own {
		inner := &own[i]
		if between := inner.around(own); inner.in(added) && (between == nil || !between.in(added)) {
			pairs = append(pairs, pair{added, inner})
		}
	}
	return pairs
}
