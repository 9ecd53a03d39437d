package admissionpolicy_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/admissionpolicy"
)

// fields says what becomes of each field of a template. The types of Kubernetes go into pods as they
// are, in JSON, so that a field that is added to them needs nothing here.
var fields = map[string]string{
	"metadata.labels":                  "compiled",
	"metadata.annotations":             "compiled",
	"sidecars.Container":               "compiled",
	"sidecars.mode":                    "compiled",
	"sidecars.order":                   "compiled",
	"sidecars.shareVolumeMounts":       "refused",
	"sidecars.envFromApp":              "refused",
	"sidecars.resourcesFromApp":        "refused",
	"initContainers.Container":         "compiled",
	"initContainers.order":             "compiled",
	"initContainers.shareVolumeMounts": "refused",
	"initContainers.envFromApp":        "refused",
	"initContainers.resourcesFromApp":  "refused",
	"appContainers.selector":           "compiled",
	"appContainers.volumeMounts":       "compiled",
	"appContainers.env":                "compiled",
	"volumes":                          "compiled",
	"imagePullSecrets":                 "compiled",
	"shareProcessNamespace":            "compiled",
	"restartedAt":                      "of running pods",
	"-":                                "of templates that can't be read, which are not accepted",
}

// TestEveryFieldOfATemplateIsCompiledOrRefused fails for a field that the engine has not been told of.
func TestEveryFieldOfATemplateIsCompiledOrRefused(t *testing.T) {
	var found []string
	walk(reflect.TypeFor[v1alpha1.SidecarTemplate](), "", func(path string) { found = append(found, path) })
	for _, path := range found {
		if fields[path] == "" {
			t.Errorf("nobody says what engine AdmissionPolicy does with the field %s: compile it (see clashes and compileRevision), or refuse it in Unsupported", path)
		}
	}
	for path, what := range fields {
		if !slices.Contains(found, path) {
			t.Errorf("%s is said to be %s, and no such field exists", path, what)
		}
	}
}

func walk(of reflect.Type, path string, visit func(string)) {
	for of.Kind() == reflect.Slice || of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	for i := range of.NumField() {
		field := of.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		at := strings.TrimPrefix(path+"."+name, ".")
		switch own := strings.HasSuffix(field.Type.PkgPath(), "v1alpha1") || elementIsOurs(field.Type); {
		case name == "" && own: // inlined
			walk(field.Type, path, visit)
		case name == "":
			visit(strings.TrimPrefix(path+"."+field.Name, "."))
		case own && structured(field.Type) && fields[at] == "":
			walk(field.Type, at, visit)
		default:
			visit(at)
		}
	}
}

func structured(of reflect.Type) bool {
	for of.Kind() == reflect.Slice || of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	return of.Kind() == reflect.Struct
}

func elementIsOurs(of reflect.Type) bool {
	for of.Kind() == reflect.Slice || of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	return strings.HasSuffix(of.PkgPath(), "/api/v1alpha1")
}

// TestRefusedFieldsAreNamed: whoever wrote one reads which, and what to do.
func TestRefusedFieldsAreNamed(t *testing.T) {
	from := v1alpha1.FromApp{ShareVolumeMounts: &v1alpha1.SharedVolumeMounts{}, EnvFromApp: []v1alpha1.AppEnv{{}}, ResourcesFromApp: &v1alpha1.AppResources{}}
	template := v1alpha1.SidecarTemplate{Sidecars: []v1alpha1.Sidecar{{FromApp: from}}, InitContainers: []v1alpha1.InitContainer{{FromApp: from}}}
	template.Sidecars[0].Name, template.InitContainers[0].Name = "agent", "setup"
	problems := strings.Join(admissionpolicy.Unsupported(&template, "spec.template"), "\n")
	for path, what := range fields {
		if what != "refused" {
			continue
		}
		kind, field, _ := strings.Cut(path, ".")
		name := map[string]string{"sidecars": "agent", "initContainers": "setup"}[kind]
		want := "spec.template." + kind + "[" + name + "]." + field + ": engine AdmissionPolicy can't do that: remove it, or write spec.injection.engine: Webhook"
		if !strings.Contains(problems, want) {
			t.Errorf("no problem says %q; there are:\n%s", want, problems)
		}
	}
	if problems := admissionpolicy.Unsupported(&v1alpha1.SidecarTemplate{Sidecars: []v1alpha1.Sidecar{{}}}, "spec.template"); problems != nil {
		t.Errorf("a template without them is refused: %v", problems)
	}
}
