package admissionpolicy_test

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/admissionpolicy"
	"github.com/sidecar-dev/sidecar-operator/internal/limits"
	"github.com/sidecar-dev/sidecar-operator/internal/revision"
	"github.com/sidecar-dev/sidecar-operator/internal/rollout"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

// quotaOf is a namespace with a quota on one resource.
func quotaOf(name corev1.ResourceName, used string) limits.Namespace {
	hard := corev1.ResourceList{name: resource.MustParse("100Gi")}
	return limits.Namespace{Quotas: []corev1.ResourceQuota{{Spec: corev1.ResourceQuotaSpec{Hard: hard},
		Status: corev1.ResourceQuotaStatus{Hard: hard, Used: corev1.ResourceList{name: resource.MustParse(used)}}}}}
}

// compiled are a registration's variables, and its digest.
func compiled(t *testing.T, limited map[string]limits.Namespace) (map[string]string, string) {
	t.Helper()
	one := builders.Template("agent", "agent:1").First(func(s *v1alpha1.Sidecar) {
		s.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}
	}).Revision(1)
	policy := &v1alpha1.SidecarPolicy{}
	policy.Name = "logs"
	registration, err := admissionpolicy.Compile(&admissionpolicy.Input{Policy: policy, Births: rollout.Births{Otherwise: one.Hash},
		Revisions: []revision.Revision{*one}, Namespace: "operator", Limits: limited})
	if err != nil {
		t.Fatal(err)
	}
	variables := map[string]string{}
	for _, v := range registration.Policy.Spec.Variables {
		variables[strings.TrimPrefix(v.Name, "r"+one.Hash+"_")] = v.Expression
	}
	return variables, registration.Digest
}

func TestNamespacesThatRefuseTheSidecarsAreCompiled(t *testing.T) {
	none, bare := compiled(t, nil)
	if strings.Contains(none["clashes"], "request.namespace") {
		t.Errorf("no namespace refuses anything, and the clashes are %s", none["clashes"])
	}
	if _, digest := compiled(t, map[string]limits.Namespace{"roomy": quotaOf("limits.memory", "1Gi")}); digest != bare {
		t.Error("a quota that the sidecars satisfy changes what is compiled")
	}
	limited := map[string]limits.Namespace{"roomy": quotaOf("limits.memory", "1Gi"), "team-b": quotaOf("limits.cpu", "1"), "team-a": quotaOf("cpu", "1")}
	got, digest := compiled(t, limited)
	if want := `["team-a", "team-b"]`; got["refusing0"] != want || !strings.Contains(got["clashes"], "request.namespace in variables.r") {
		t.Errorf("refusing are %s, want %s; the clashes are %s", got["refusing0"], want, got["clashes"])
	}
	if digest == bare {
		t.Error("nobody could tell whether the API server knows of them")
	}
	limited["team-a"] = quotaOf("cpu", "2")
	if _, again := compiled(t, limited); again != digest {
		t.Error("what is used of a quota changes what is compiled")
	}
}

func TestAnyNumberOfNamespacesCanRefuse(t *testing.T) {
	limited := map[string]limits.Namespace{}
	for i := range 2001 {
		limited[fmt.Sprintf("%s-%04d", strings.Repeat("n", 58), i)] = quotaOf("limits.cpu", "1")
	}
	got, _ := compiled(t, limited)
	if got["refusing2"] != `["`+strings.Repeat("n", 58)+`-2000"]` || strings.Count(got["clashes"], "request.namespace") != 3 {
		t.Errorf("the last part is %q, the clashes are %s", got["refusing2"], got["clashes"])
	}
}
