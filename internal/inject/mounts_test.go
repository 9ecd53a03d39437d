package inject_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/inject"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

// A sidecar that shares all mounts can write where one of the app's containers can, whichever comes first.
func TestSharedMountsAreWritableWhereTheAppWrites(t *testing.T) {
	recursive := func(m corev1.VolumeMount) corev1.VolumeMount {
		m.RecursiveReadOnly = ptr.To(corev1.RecursiveReadOnlyIfPossible)
		return m
	}
	for _, c := range []struct {
		name        string
		app, worker corev1.VolumeMount
		share       v1alpha1.SharedVolumeMounts
		want        []corev1.VolumeMount
	}{
		{"read-only first", at("empty:/data:ro"), at("empty:/data"), v1alpha1.SharedVolumeMounts{}, []corev1.VolumeMount{at("empty:/data")}},
		{"read-only first, in other words", at("empty:/data/:ro"), at("empty:/data"), v1alpha1.SharedVolumeMounts{}, []corev1.VolumeMount{at("empty:/data/")}},
		{"read-only with all that is below first", recursive(at("empty:/data:ro")), at("empty:/data"), v1alpha1.SharedVolumeMounts{}, []corev1.VolumeMount{at("empty:/data")}},
		{"writable first", at("empty:/data"), at("empty:/data:ro"), v1alpha1.SharedVolumeMounts{}, []corev1.VolumeMount{at("empty:/data")}},
		{"both read-only", at("empty:/data:ro"), at("empty:/data:ro"), v1alpha1.SharedVolumeMounts{}, []corev1.VolumeMount{at("empty:/data:ro")}},
		{"shared read-only", at("empty:/data:ro"), at("empty:/data"), v1alpha1.SharedVolumeMounts{ReadOnly: true}, []corev1.VolumeMount{at("empty:/data:ro")}},
		{"of the first one alone", at("empty:/data:ro"), at("empty:/data"), v1alpha1.SharedVolumeMounts{Container: "app"}, []corev1.VolumeMount{at("empty:/data:ro")}},
		{"excluded", at("empty:/data:ro"), at("empty:/data"), v1alpha1.SharedVolumeMounts{ExcludePaths: []string{"/data"}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			pod := builders.Pod("shop", "cart").Volume("empty").
				Container(corev1.Container{Name: "app", VolumeMounts: []corev1.VolumeMount{c.app}}).
				Container(corev1.Container{Name: "worker", VolumeMounts: []corev1.VolumeMount{c.worker}}).Obj()
			template := builders.Template("agent", "agent:1").First(func(s *v1alpha1.Sidecar) { s.ShareVolumeMounts = &c.share })
			additions, conflicts := inject.Render(pod, policy, template.Revision(1))
			if len(conflicts) > 0 {
				t.Fatal(inject.Explain(conflicts))
			}
			if diff := cmp.Diff(c.want, additions.InitContainers[0].VolumeMounts); diff != "" {
				t.Errorf("mounts (-want +got):\n%s", diff)
			}
		})
	}
}

// What the sidecar mounts itself stays as its author wrote it.
func TestSharedMountsLeaveTheSidecarsOwnReadOnly(t *testing.T) {
	pod := builders.Pod("shop", "cart").Volume("empty").Container(corev1.Container{Name: "app", VolumeMounts: []corev1.VolumeMount{at("empty:/data")}}).Obj()
	template := builders.Template("agent", "agent:1").First(func(s *v1alpha1.Sidecar) {
		s.ShareVolumeMounts, s.VolumeMounts = &v1alpha1.SharedVolumeMounts{}, []corev1.VolumeMount{at("empty:/data:ro")}
	})
	additions, _ := inject.Render(pod, policy, template.Revision(1))
	if diff := cmp.Diff([]corev1.VolumeMount{at("empty:/data:ro")}, additions.InitContainers[0].VolumeMounts); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
}
