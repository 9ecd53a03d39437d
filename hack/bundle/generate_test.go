package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// installation is a small one that has every kind of part.
const installation = `
apiVersion: v1
kind: Namespace
metadata:
  name: demo-system
  labels: {pod-security.kubernetes.io/enforce: restricted, app.kubernetes.io/managed-by: kustomize}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.demo.example}
spec:
  group: demo.example
  versions:
  - name: v1
    schema:
      openAPIV3Schema:
        properties:
          spec: {properties: {size: {properties: {height: {type: integer}}}}}
          status: {properties: {phase: {type: string}}}
---
apiVersion: demo.example/v1
kind: Thing
metadata: {name: example}
spec: {size: {height: 1}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: manager, namespace: demo-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: manager-role}
rules:
- {apiGroups: [""], resources: [pods], verbs: [list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader-role}
rules:
- {nonResourceURLs: [/metrics], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: manager-binding}
roleRef: {kind: ClusterRole, name: manager-role}
subjects: [{kind: ServiceAccount, name: manager, namespace: demo-system}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: secrets, namespace: demo-system}
rules:
- {apiGroups: [""], resources: [secrets], verbs: [list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: secrets, namespace: demo-system}
roleRef: {kind: Role, name: secrets}
subjects: [{kind: ServiceAccount, name: manager, namespace: demo-system}]
---
apiVersion: v1
kind: Service
metadata:
  name: webhook
  namespace: demo-system
  labels: {app.kubernetes.io/managed-by: kustomize, app: demo}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: manager, namespace: demo-system, labels: {app: demo}}
spec:
  fieldOfTomorrow: kept
  template:
    spec:
      serviceAccountName: manager
      containers: [{name: manager, image: "registry.example:5000/demo:v1.2.3"}]
---
apiVersion: operators.coreos.com/v1alpha1
kind: ClusterServiceVersion
metadata: {name: demo}
spec:
  customresourcedefinitions:
    owned:
    - name: things.demo.example
      version: v1
      specDescriptors: [{path: size}, {path: size.height}]
      statusDescriptors: [{path: phase}]
---
apiVersion: scorecard.operatorframework.io/v1alpha3
kind: Configuration
`

func generateFrom(t *testing.T, text string) (*generated, error) {
	t.Helper()
	p, err := read(strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	return generate(p, []byte("<svg/>"))
}

func TestGenerate(t *testing.T) {
	b, err := generateFrom(t, installation)
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for path := range b.files {
		files = append(files, path)
	}
	slices.Sort(files)
	// The service account and what is bound to it in the whole cluster are OLM's to make.
	if diff := cmp.Diff([]string{
		"manifests/demo.clusterserviceversion.yaml",
		"manifests/demo.example_things.yaml",
		"manifests/reader-role_clusterrole.yaml",
		"manifests/secrets_role.yaml",
		"manifests/secrets_rolebinding.yaml",
		"manifests/webhook_service.yaml",
		"metadata/annotations.yaml",
		"tests/scorecard/config.yaml",
	}, files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	for path, want := range map[string]any{
		"manifests/secrets_rolebinding.yaml": map[string]any{
			"apiVersion": "rbac.authorization.k8s.io/v1",
			"kind":       "RoleBinding",
			"metadata":   map[string]any{"name": "secrets"},
			"roleRef":    map[string]any{"kind": "Role", "name": "secrets"},
			"subjects":   []any{map[string]any{"kind": "ServiceAccount", "name": "manager"}},
		},
		"manifests/webhook_service.yaml": map[string]any{
			"apiVersion": "v1",
			"kind":       "Service",
			"metadata":   map[string]any{"name": "webhook", "labels": map[string]any{"app": "demo"}},
		},
	} {
		if diff := cmp.Diff(want, b.files[path]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
}

func TestClusterServiceVersion(t *testing.T) {
	b, err := generateFrom(t, installation)
	if err != nil {
		t.Fatal(err)
	}
	csv := unstructured.Unstructured{Object: b.files["manifests/demo.clusterserviceversion.yaml"].(map[string]any)}
	if got, want := csv.GetName(), "demo.v1.2.3"; got != want {
		t.Errorf("name %q, want %q", got, want)
	}
	install, _, _ := unstructured.NestedMap(csv.Object, "spec", "install")
	// No "permissions": OLM would turn them into rights in all namespaces.
	want := map[string]any{"strategy": "deployment", "spec": map[string]any{
		"clusterPermissions": []any{map[string]any{
			"serviceAccountName": "manager",
			"rules":              []any{map[string]any{"apiGroups": []any{""}, "resources": []any{"pods"}, "verbs": []any{"list"}}},
		}},
		"deployments": []any{map[string]any{
			"name":  "manager",
			"label": map[string]any{"app": "demo"},
			"spec": map[string]any{"fieldOfTomorrow": "kept", "template": map[string]any{"spec": map[string]any{
				"serviceAccountName": "manager",
				"containers":         []any{map[string]any{"name": "manager", "image": "registry.example:5000/demo:v1.2.3"}},
			}}},
		}},
	}}
	if diff := cmp.Diff(want, install); diff != "" {
		t.Errorf("install (-want +got):\n%s", diff)
	}
	annotations := csv.GetAnnotations()
	if got := annotations["alm-examples"]; !strings.Contains(got, `"kind": "Thing"`) {
		t.Errorf("alm-examples lacks the example: %s", got)
	}
	template := annotations["operatorframework.io/suggested-namespace-template"]
	if !strings.Contains(template, `"pod-security.kubernetes.io/enforce": "restricted"`) || strings.Contains(template, "kustomize") {
		t.Errorf("the suggested namespace is %s", template)
	}
}

func TestPinnedImage(t *testing.T) {
	const image = "registry.example:5000/demo:v1.2.3@" + digest
	b, err := generateFrom(t, strings.Replace(installation, "registry.example:5000/demo:v1.2.3", image, 1))
	if err != nil {
		t.Fatal(err)
	}
	csv := unstructured.Unstructured{Object: b.files["manifests/demo.clusterserviceversion.yaml"].(map[string]any)}
	if got, want := csv.GetName(), "demo.v1.2.3"; got != want {
		t.Errorf("name %q, want %q", got, want)
	}
	if got := csv.GetAnnotations()["containerImage"]; got != image {
		t.Errorf("containerImage %s", got)
	}
	related, _, _ := unstructured.NestedSlice(csv.Object, "spec", "relatedImages")
	if diff := cmp.Diff([]any{map[string]any{"name": "manager", "image": image}}, related); diff != "" {
		t.Errorf("relatedImages (-want +got):\n%s", diff)
	}
	deployments, _, _ := unstructured.NestedSlice(csv.Object, "spec", "install", "spec", "deployments")
	if diff := cmp.Diff([]any{map[string]any{"name": "manager", "image": image}}, containersOf(deployments[0])); diff != "" {
		t.Errorf("containers (-want +got):\n%s", diff)
	}
}

func containersOf(deployment any) []any {
	containers, _, _ := unstructured.NestedSlice(deployment.(map[string]any), "spec", "template", "spec", "containers")
	return containers
}

func TestGenerateRefuses(t *testing.T) {
	replaced := func(before, after string) string {
		if !strings.Contains(installation, before) {
			t.Fatalf("the installation has no %q", before)
		}
		return strings.Replace(installation, before, after, 1)
	}
	for name, test := range map[string]struct{ text, want string }{
		"a kind that OLM does not install": {
			installation + "---\nkind: ValidatingAdmissionPolicy\nmetadata: {name: approvals}\n", "OLM installs no ValidatingAdmissionPolicy"},
		"two Deployments": {
			installation + "---\nkind: Deployment\nmetadata: {name: second}\n", "manager and second"},
		"no Deployment":              {replaced("kind: Deployment", "kind: Service"), "there is no Deployment"},
		"no scorecard":               {replaced("kind: Configuration", "kind: Service"), "there is no scorecard"},
		"two objects of one name":    {replaced("kind: Role\nmetadata: {name: secrets,", "kind: Service\nmetadata: {name: webhook,"), "two objects would be written"},
		"nothing bound":              {replaced("subjects: [{kind: ServiceAccount, name: manager,", "subjects: [{kind: ServiceAccount, name: other,"), "no ClusterRoleBinding names"},
		"a role that is not there":   {replaced("kind: ClusterRole, name: manager-role", "kind: ClusterRole, name: gone"), `there is no ClusterRole "gone"`},
		"an image without a version": {replaced("demo:v1.2.3", "demo:latest"), "write one like :v1.2.3"},
		"an image by digest alone":   {replaced("demo:v1.2.3", "demo@"+digest), "write one like :v1.2.3"},
		"an image by half a digest":  {replaced("demo:v1.2.3", "demo:v1.2.3@sha256:00"), "write one like :v1.2.3"},
		"an unknown field":           {replaced("{path: size.height}", "{path: size.width}"), "spec.size.width is described, and does not exist"},
		"an unknown status":          {replaced("{path: phase}", "{path: faze}"), "status.faze is described, and does not exist"},
		"a field that is not described": {
			replaced("[{path: size}, {path: size.height}]", "[{path: size.height}]"), "describe the field spec.size too"},
		"a kind without definition": {replaced("- name: things.demo.example", "- name: gone.demo.example"), "no such CustomResourceDefinition"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := generateFrom(t, test.text)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}
