package inject_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/inject"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

// Whoever reads why a variable does not come along, reads what to write.
func TestMessagesOfVariablesSayWhatToWrite(t *testing.T) {
	pod := builders.Pod("shop", "cart").Container(corev1.Container{Name: "app", Env: []corev1.EnvVar{{Name: "URL", Value: "http://$(HOST)/"}},
		EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{}}}})
	template := builders.Template("agent", "agent:1").First(func(s *v1alpha1.Sidecar) { s.EnvFromApp = []v1alpha1.AppEnv{{Names: []string{"URL"}}} })
	_, conflicts := inject.Render(pod.Obj(), policy, template.Revision(1))
	const want = `variable URL of container "app" can't be given to "agent": it refers to $(HOST), which may come from the container's envFrom: write envFrom: true in envFromApp`
	if got := inject.Explain(conflicts); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
