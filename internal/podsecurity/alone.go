package podsecurity

import (
	"fmt"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/inject"
)

// EnforceLabel is the label by which a namespace says which standard it enforces: Unenforced by itself says none, as
// a missing label does.
const (
	EnforceLabel = api.EnforceLevelLabel
	Unenforced   = string(api.LevelPrivileged)
)

// KeptAlone are the levels that sidecars keep by themselves, in every version: whatever their pod says for all of its
// containers is not counted on. A pod that keeps one of these does so with them, too. All is true where they keep every level.
func KeptAlone(t *v1alpha1.SidecarTemplate) (levels []string, all bool) {
	levels = []string{Unenforced}
	for _, level := range []api.Level{api.LevelBaseline, api.LevelRestricted} {
		if brokenAlone(t, level) != nil {
			return levels, false
		}
		levels = append(levels, string(level))
	}
	return levels, true
}

func brokenAlone(t *v1alpha1.SidecarTemplate, level api.Level) *inject.Conflict {
	pod := alone(t)
	for _, version := range versions() {
		standard := api.LevelVersion{Level: level, Version: version}
		if broken := evaluate(standard, pod); !broken.Allowed {
			return &inject.Conflict{Reason: v1alpha1.ReasonPodSecurityConflict, Message: fmt.Sprintf(
				"the sidecars by themselves break the Pod Security Standard %q, which the namespace enforces, and engine AdmissionPolicy does not count on "+
					"what pods say for them: write it into the securityContext of each sidecar: %s", standard, broken.ForbiddenDetail())}
		}
	}
	return nil
}

// versions are those with which a standard changed, the newest first.
var versions = sync.OnceValue(func() []api.Version {
	all := []api.Version{api.LatestVersion()}
	for _, check := range policy.DefaultChecks() {
		for _, version := range check.Versions {
			if !slices.Contains(all, version.MinimumVersion) {
				all = append(all, version.MinimumVersion)
			}
		}
	}
	slices.SortFunc(all, func(a, b api.Version) int {
		if a.Older(b) {
			return 1
		}
		return -1
	})
	return all
})

// alone is a pod of the sidecars.
func alone(t *v1alpha1.SidecarTemplate) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Annotations: t.Metadata.Annotations}, Spec: corev1.PodSpec{Volumes: t.Volumes}}
	for i := range t.InitContainers {
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, t.InitContainers[i].Container)
	}
	for i := range t.Sidecars {
		pod.Spec.Containers = append(pod.Spec.Containers, t.Sidecars[i].Container)
	}
	return pod
}
