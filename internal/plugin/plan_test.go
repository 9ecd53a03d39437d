package plugin

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/yaml"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/plugin/render"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

// Whether pods that lack the sidecars are replaced depends on whether new ones get them, once the spec is stored.
// fileOf is a file with these policies, as their author would write them.
func fileOf(t *testing.T, policies ...*v1alpha1.SidecarPolicy) string {
	t.Helper()
	var documents []string
	for _, p := range policies {
		data, err := yaml.Marshal(map[string]any{"apiVersion": v1alpha1.GroupVersion.String(), "kind": "SidecarPolicy",
			"metadata": map[string]any{"name": p.Name}, "spec": p.Spec})
		if err != nil {
			t.Fatal(err)
		}
		documents = append(documents, string(data))
	}
	return textFile(t, strings.Join(documents, "---\n"))
}

func textFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "policies.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// dryRuns is an API server that takes whatever is applied in a dry run: the one in memory would store it.
var dryRuns = interceptor.Funcs{Apply: func(context.Context, client.WithWatch, runtime.ApplyConfiguration, ...client.ApplyOption) error {
	return nil
}}

func TestPlanWritesOneDocument(t *testing.T) {
	c := cluster(t, dryRuns)
	one, two := fileOf(t, newPolicy("logs")), fileOf(t, newPolicy("logs"), newPolicy("mesh"))
	read := map[string]func([]byte, any) error{
		"json": json.Unmarshal,
		"yaml": func(data []byte, into any) error { return yaml.UnmarshalStrict(data, into) },
	}
	for format, read := range read {
		var plan render.Plan
		if r := run(t, c, "plan", "-f", one, "-o", format); read([]byte(r.out), &plan) != nil || plan.Policy != "logs" || r.code != exitChanges {
			t.Errorf("one policy in %s: %d, %s%s", format, r.code, r.out, r.err)
		}
		var plans []render.Plan
		if r := run(t, c, "plan", "-f", two, "-o", format); read([]byte(r.out), &plans) != nil || len(plans) != 2 || plans[1].Policy != "mesh" || r.code != exitChanges {
			t.Errorf("two policies in %s: %d, %s%s", format, r.code, r.out, r.err)
		}
	}
	run(t, c, "plan", "-f", two).wants(t, exitChanges, "Policy logs would be created", "\n\nPolicy mesh would be created")
}

func TestPlanReadsFilesStrictly(t *testing.T) {
	c := cluster(t, dryRuns)
	file := fileOf(t, newPolicy("logs"))
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	run(t, c, "plan", "-f", textFile(t, string(data)+"  missing: Report\n  missing: Recreate\n")).wants(t, exitError, `policies.yaml: `, `key "missing" already set`)
	other := "apiVersion: v1\nkind: ConfigMap\ndata: {a: one, a: two}\n---\n"
	run(t, c, "plan", "-f", textFile(t, other+string(data))).wants(t, exitChanges, "Policy logs would be created")
}

// A policy that kubectl apply wrote is patched as it would do it: the API server refuses what it does not know.
func TestPlanPatchesStrictly(t *testing.T) {
	policy := newPolicy("logs")
	policy.Annotations = map[string]string{corev1.LastAppliedConfigAnnotation: "{}"}
	var validation string
	c := cluster(t, interceptor.Funcs{Patch: func(_ context.Context, _ client.WithWatch, _ client.Object, _ client.Patch, opts ...client.PatchOption) error {
		validation = (&client.PatchOptions{}).ApplyOptions(opts).AsPatchOptions().FieldValidation
		return apierrors.NewBadRequest(`strict decoding error: unknown field "spec.rollout.metod"`)
	}}, policy)
	run(t, c, "plan", "-f", fileOf(t, policy)).wants(t, exitError, `policy logs: the API server does not take it`, `unknown field "spec.rollout.metod"`)
	if validation != metav1.FieldValidationStrict {
		t.Errorf("the patch is validated by %q", validation)
	}
}

func TestPlanForeseesInjection(t *testing.T) {
	policy := func(paused bool, injecting metav1.ConditionStatus) *v1alpha1.SidecarPolicy {
		p := newPolicy("logs")
		p.Spec.Injection.Paused = paused
		p.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionInjecting, Status: injecting}}
		return p
	}
	for _, tc := range []struct {
		name    string
		current *v1alpha1.SidecarPolicy
		pauses  bool
		want    bool
	}{
		{"a new policy", nil, false, true},
		{"a new policy that does not inject", nil, true, false},
		{"injection goes on", policy(false, metav1.ConditionTrue), false, true},
		{"injection that has trouble goes on", policy(false, metav1.ConditionFalse), false, false},
		{"injection begins", policy(true, metav1.ConditionFalse), false, true},
		{"injection ends", policy(false, metav1.ConditionTrue), true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			proposed := newPolicy("logs")
			proposed.Spec.Injection.Paused = tc.pauses
			if tc.current != nil {
				tc.current.Status.DeepCopyInto(&proposed.Status)
			}
			foresee(tc.current, proposed)
			if got := meta.IsStatusConditionTrue(proposed.Status.Conditions, v1alpha1.ConditionInjecting); got != tc.want {
				t.Errorf("new pods get the sidecars: %t, want %t", got, tc.want)
			}
		})
	}
}

func TestPlanOfANewPolicyCountsOnItsInjection(t *testing.T) {
	rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart", UID: "cart"}, Spec: appsv1.ReplicaSetSpec{Replicas: ptr.To[int32](1)}}
	rs.Status.Replicas = 1
	pod := builders.Pod("shop", "cart-1").Label("app", "logs").With(func(p *corev1.Pod) {
		p.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(rs, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))}
	}).Obj()
	policy := newPolicy("logs")
	policy.Spec.Missing, policy.Spec.MaxMissing = v1alpha1.MissingRecreate, ptr.To(intstr.FromString("100%"))
	c := cluster(t, dryRuns, newNamespace("shop"), rs, pod)
	run(t, c, "plan", "-f", fileOf(t, policy)).wants(t, exitChanges, "it is replaced when others of its workload have been")
	policy.Spec.Injection.Paused = true
	run(t, c, "plan", "-f", fileOf(t, policy)).wants(t, exitChanges, "it is not replaced: new pods don't get the sidecars now")
}
