package inject_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/inject"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

// nestable are volumes of all kinds that differ in what can be mounted in them.
var nestable = map[string]corev1.VolumeSource{
	"empty":     {EmptyDir: &corev1.EmptyDirVolumeSource{}},
	"config":    {ConfigMap: &corev1.ConfigMapVolumeSource{}},
	"secret":    {Secret: &corev1.SecretVolumeSource{}},
	"projected": {Projected: &corev1.ProjectedVolumeSource{}},
	"downward":  {DownwardAPI: &corev1.DownwardAPIVolumeSource{}},
	"claim":     {PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{}},
	"archive":   {PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ReadOnly: true}},
	"driver":    {CSI: &corev1.CSIVolumeSource{ReadOnly: ptr.To(true)}},
	"export":    {NFS: &corev1.NFSVolumeSource{ReadOnly: true}},
	"image":     {Image: &corev1.ImageVolumeSource{}},
}

// at is a mount, like "empty:/data:ro" or "config:/etc/app:sub".
func at(text string) corev1.VolumeMount {
	parts := strings.Split(text, ":")
	m := corev1.VolumeMount{Name: parts[0], MountPath: parts[1]}
	for _, option := range parts[2:] {
		switch option {
		case "ro":
			m.ReadOnly = true
		case "sub":
			m.SubPath = "part"
		case "expr":
			m.SubPathExpr = "$(POD)"
		}
	}
	return m
}

// mounting is a pod of which each container has the mounts that a text of words says.
func mounting(containers ...string) *corev1.Pod {
	b := builders.Pod("shop", "cart")
	for i, words := range containers {
		c := corev1.Container{Name: [...]string{"app", "worker"}[i], Image: "app:1"}
		for _, word := range strings.Fields(words) {
			if volume, path, device := strings.Cut(word, "@"); device {
				c.VolumeDevices = append(c.VolumeDevices, corev1.VolumeDevice{Name: volume, DevicePath: path})
				continue
			}
			c.VolumeMounts = append(c.VolumeMounts, at(word))
		}
		b.Container(c)
	}
	return b.With(func(p *corev1.Pod) {
		for name, source := range nestable {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: source})
		}
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "disk"})
	}).Obj()
}

// A runtime makes what is mounted on where it can. Where it can't, the app would never start.
func TestPromise1NothingIsMountedWhereTheRuntimeCantMakeThePlace(t *testing.T) {
	for _, c := range []struct {
		name string
		// app is what the container has, policy what it is to get.
		app, policy string
		// want is the outer and the inner path of the conflict; empty where there is none.
		outer, inner string
	}{
		{"in a writable one", "empty:/data", "logs:/data/logs", "", ""},
		{"in a read-only one", "empty:/data:ro", "logs:/data/logs", "/data", "/data/logs"},
		{"in a read-only one, further down", "empty:/data:ro", "logs:/data/a/b/", "/data", "/data/a/b"},
		{"in a read-only one, in other words", "empty://data/:ro", "logs:/data/./logs", "/data", "/data/logs"},
		{"beside a read-only one", "empty:/data:ro", "logs:/data-logs", "", ""},
		{"in a writable one that is in a read-only one", "empty:/data:ro empty:/data/tmp", "logs:/data/tmp/logs", "", ""},
		{"in a read-only one that is in a writable one", "empty:/data empty:/data/conf:ro", "logs:/data/conf/logs", "/data/conf", "/data/conf/logs"},
		{"in a read-only root of a part", "empty:/data:sub:ro", "logs:/data/logs", "/data", "/data/logs"},
		{"in a claim", "claim:/data", "logs:/data/logs", "", ""},
		{"in a claim that is read-only", "archive:/data", "logs:/data/logs", "/data", "/data/logs"},
		{"in a driver's volume that is read-only", "driver:/data", "logs:/data/logs", "/data", "/data/logs"},
		{"in an export that is read-only", "export:/data", "logs:/data/logs", "/data", "/data/logs"},
		{"in an image", "image:/data", "logs:/data/logs", "/data", "/data/logs"},
		{"in a ConfigMap, where the kubelet makes the directory", "config:/etc/app", "logs:/etc/app/logs", "", ""},
		{"in a Secret, read-only as it is", "secret:/etc/app:ro", "logs:/etc/app/logs", "", ""},
		{"in a projected volume", "projected:/etc/app", "logs:/etc/app/logs", "", ""},
		{"in the downward API", "downward:/etc/app", "logs:/etc/app/logs", "", ""},
		{"in a part of a ConfigMap", "config:/etc/app:sub", "logs:/etc/app/logs", "/etc/app", "/etc/app/logs"},
		{"a part, which may be a file, in a ConfigMap", "config:/etc/app", "logs:/etc/app/logs:sub", "/etc/app", "/etc/app/logs"},
		{"a part by an expression in a ConfigMap", "config:/etc/app", "logs:/etc/app/logs:expr", "/etc/app", "/etc/app/logs"},
		{"in the token's directory", "token:" + inject.TokenPath + ":ro", "logs:" + inject.TokenPath + "/logs", inject.TokenPath, inject.TokenPath + "/logs"},

		{"around one of the app's", "empty:/var/log/app", "logs:/var/log", "", ""},
		{"around one of the app's, read-only", "empty:/var/log/app", "logs:/var/log:ro", "/var/log", "/var/log/app"},
		{"around a device", "disk@/var/log/disk", "logs:/var/log:ro", "/var/log", "/var/log/disk"},
		{"around one of the app's that is in another one", "empty:/var/log/app empty:/var/log/app/old", "logs:/var/log:ro", "/var/log", "/var/log/app"},
		{"a ConfigMap around one of the app's", "empty:/etc/app", "settings:/etc", "", ""},
		{"a ConfigMap around a part of the app's", "empty:/etc/app:sub", "settings:/etc", "/etc", "/etc/app"},
		{"a ConfigMap around a device", "disk@/etc/disk", "settings:/etc", "/etc", "/etc/disk"},
		{"a part of a ConfigMap around one of the app's", "empty:/etc/app", "settings:/etc:sub", "/etc", "/etc/app"},
		{"a volume of the pod's around one of the app's", "empty:/mnt/app", "image:/mnt", "/mnt", "/mnt/app"},
		{"a ConfigMap of the pod's around one of the app's", "empty:/mnt/app", "config:/mnt:ro", "", ""},

		{"how the app's own are in each other", "image:/data empty:/data/app", "logs:/logs", "", ""},
		{"how the policy's own are in each other", "", "logs:/logs:ro settings:/logs/settings", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			template := builders.Template("agent", "agent:1").Volume("logs").With(func(t *v1alpha1.SidecarTemplate) {
				t.Volumes = append(t.Volumes, corev1.Volume{Name: "settings", VolumeSource: nestable["config"]})
				t.AppContainers = []v1alpha1.AppContainer{{Selector: "*"}}
			})
			for _, word := range strings.Fields(c.policy) {
				template.With(func(t *v1alpha1.SidecarTemplate) {
					t.AppContainers[0].VolumeMounts = append(t.AppContainers[0].VolumeMounts, at(word))
				})
			}
			pod := mounting(c.app)
			pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "token"})
			expectNested(t, pod, template, "app", c.outer, c.inner)
		})
	}
}

func expectNested(t *testing.T, pod *corev1.Pod, template *builders.TemplateBuilder, container, outer, inner string) {
	t.Helper()
	_, conflicts := inject.Render(pod, policy, template.Revision(1))
	if outer == "" {
		if len(conflicts) > 0 {
			t.Error(inject.Explain(conflicts))
		}
		return
	}
	want := `container "` + container + `" would have ` + inner + " mounted in " + outer + ", which is read-only"
	if len(conflicts) != 1 || conflicts[0].Reason != v1alpha1.ReasonMountPathConflict || !strings.HasPrefix(conflicts[0].Message, want) {
		t.Errorf("got %+v, want one that begins with %q", conflicts, want)
	}
}

// A sidecar that can't start keeps the app from starting, too.
func TestPromise1SharedMountsAreNotNestedWhereTheRuntimeCantMakeThePlace(t *testing.T) {
	all := v1alpha1.SharedVolumeMounts{}
	readOnly := v1alpha1.SharedVolumeMounts{ReadOnly: true}
	for _, c := range []struct {
		name string
		// app and worker are what the app's containers have, own is what the sidecar has itself.
		app, worker, own string
		share            v1alpha1.SharedVolumeMounts
		outer, inner     string
	}{
		{"a writable one in a writable one", "empty:/data claim:/data/cache", "", "", all, "", ""},
		{"all of them read-only, so that the outer one becomes it", "empty:/data claim:/data/cache", "", "", readOnly, "/data", "/data/cache"},
		{"all of them read-only, in a ConfigMap", "config:/data claim:/data/cache", "", "", readOnly, "", ""},
		{"one in a read-only one, as a container of the app has it", "image:/data claim:/data/cache", "", "", all, "", ""},
		{"one in a read-only one, as the second container has it", "image:/data", "image:/data claim:/data/cache", "", all, "", ""},
		{"one container's in another one's that is read-only", "archive:/data", "empty:/data/cache", "", all, "/data", "/data/cache"},
		{"without the inner one", "archive:/data", "empty:/data/cache", "", v1alpha1.SharedVolumeMounts{ExcludePaths: []string{"/data/cache"}}, "", ""},
		{"without the other container", "archive:/data", "empty:/data/cache", "", v1alpha1.SharedVolumeMounts{Container: "app"}, "", ""},
		{"its own in a read-only one of the app's", "archive:/data", "", "logs:/data/logs", all, "/data", "/data/logs"},
		{"the app's in a read-only one of its own", "empty:/logs/app", "", "logs:/logs:ro", all, "/logs", "/logs/app"},
		{"its own in its own", "empty:/data", "", "logs:/logs:ro logs:/logs/more", all, "", ""},
		{"one in a read-only one that another container can write to", "empty:/data:ro", "empty:/data claim:/data/cache", "", all, "", ""},
		{"a device in a read-only one", "disk@/data/disk", "archive:/data", "", all, "/data", "/data/disk"},
	} {
		t.Run(c.name, func(t *testing.T) {
			template := builders.Template("agent", "agent:1").Volume("logs").First(func(s *v1alpha1.Sidecar) {
				s.ShareVolumeMounts = &c.share
				for _, word := range strings.Fields(c.own) {
					s.VolumeMounts = append(s.VolumeMounts, at(word))
				}
			})
			expectNested(t, mounting(c.app, c.worker), template, "agent", c.outer, c.inner)
		})
	}
}
