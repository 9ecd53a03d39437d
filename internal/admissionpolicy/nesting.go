package admissionpolicy

import (
	"fmt"
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/inject"
)

// Paths are compared as texts that end in a slash: one is in another if it begins with it.

// cleanPath writes the text of a path. One with .. in it is a clash by itself.
func cleanPath(p string) string {
	return fmt.Sprintf(`((%[1]s.startsWith("/") ? "/" : "") + %[1]s.split("/").filter(s, s != "" && s != ".").map(s, s + "/").join())`, p)
}

func cleaned(mountPath string) string { return strings.TrimSuffix(path.Clean(mountPath), "/") + "/" }

// subPathed says that the mount m may be a file, or in a directory of its volume.
const subPathed = `(m.?subPath.orValue("") != "" || m.?subPathExpr.orValue("") != "")`

// nestedMounts compares what is mounted in each other, as internal/inject does. Own are the paths at which the container
// has something, parts are those of them that are no whole volumes.
func nestedMounts(_ *compiler, r *rendered) string {
	devices := "c.?volumeDevices.orValue([]).map(d, " + cleanPath("d.devicePath") + ")"
	own := "c.?volumeMounts.orValue([]).map(m, " + cleanPath("m.mountPath") + ") + " + devices
	parts := "c.?volumeMounts.orValue([]).filter(m, " + subPathed + ").map(m, " + cleanPath("m.mountPath") + ") + " + devices
	return forEntries(r, func(entry *v1alpha1.AppContainer) string {
		if len(entry.VolumeMounts) == 0 {
			return ""
		}
		terms := append([]string{inOwn(entry.VolumeMounts)}, aroundOwn(r.template, entry.VolumeMounts)...)
		return fmt.Sprintf("[%s].exists(own, [%s].exists(parts, %s))", own, parts, one(terms...))
	})
}

// inOwn writes that one of the mounts is in one of the container's, with none of the container's between them, in which
// it can't be mounted.
func inOwn(mounts []corev1.VolumeMount) string {
	var all, notWhole []string
	for i := range mounts {
		at := cleaned(mounts[i].MountPath)
		all = append(all, at)
		if isPart(&mounts[i]) {
			notWhole = append(notWhole, at)
		}
	}
	return fmt.Sprintf(`c.?volumeMounts.orValue([]).exists(m, [%[1]s].exists(outer, %[2]s.exists(p, p != outer && p.startsWith(outer) && `+
		`!own.exists(b, b != outer && b.startsWith(outer) && p.startsWith(b)) && `+
		`(m.name in variables.filled ? %[3]s || p in %[4]s : m.name in variables.sealed || m.?readOnly.orValue(false)))))`,
		cleanPath("m.mountPath"), list(all), subPathed, list(notWhole))
}

func isPart(m *corev1.VolumeMount) bool { return m.SubPath != "" || m.SubPathExpr != "" }

// aroundOwn writes, for each of the mounts in which not everything can be mounted, that one of the container's is in it, with none
// of the container's between them. Their volumes are the template's or the pod's.
func aroundOwn(t *v1alpha1.SidecarTemplate, mounts []corev1.VolumeMount) []string {
	var terms []string
	for i := range mounts {
		refused := refuses(t, &mounts[i])
		if refused == "false" {
			continue
		}
		terms = append(terms, fmt.Sprintf(`own.exists(p, p != %[1]s && p.startsWith(%[1]s) && !own.exists(b, b != %[1]s && b != p && b.startsWith(%[1]s) && p.startsWith(b)) && %[2]s)`,
			quote(cleaned(mounts[i].MountPath)), refused))
	}
	return terms
}

// refuses writes that p can't be mounted in a mount.
func refuses(t *v1alpha1.SidecarTemplate, m *corev1.VolumeMount) string {
	ofFilled, ofOthers := "p in parts", fmt.Sprint(m.ReadOnly)
	if isPart(m) {
		ofFilled = "true"
	}
	isSealed, isFilled := inject.TemplateKind(t, m.Name)
	switch brings := len(lacking([]string{m.Name}, brought(t))) == 0; {
	case isFilled:
		return ofFilled
	case isSealed:
		return "true"
	case brings:
		return ofOthers
	}
	name := quote(m.Name)
	return fmt.Sprintf("(%[1]s in variables.filled ? %[2]s : %[1]s in variables.sealed || %[3]s)", name, ofFilled, ofOthers)
}
