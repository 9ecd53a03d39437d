package injection

import (
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// The golden pods are what the sidecars look like that people run: the API server has to take each of them.
func TestGoldenPodsAreTaken(t *testing.T) {
	files, err := filepath.Glob("../../../internal/inject/testdata/*.out.yaml")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d golden pods, %v: the test looks in the wrong place", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			pod := &corev1.Pod{}
			if err := yaml.UnmarshalStrict(data, pod); err != nil {
				t.Fatal(err)
			}
			// An API server gives pods a service account where it has the admission plugin for that.
			pod.Namespace, pod.Spec.ServiceAccountName = "default", "default"
			if _, err := dryRun(pod); err != nil {
				t.Errorf("the API server refuses it: %v", err)
			}
		})
	}
}
