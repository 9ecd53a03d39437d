package inject_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/inject"
	"github.com/sidecar-dev/sidecar-operator/internal/testing/builders"
)

func TestOverrides(t *testing.T) {
	allowed := []v1alpha1.AllowedOverride{
		{Container: "agent", Env: []string{"LEVEL", "EXTRA"}, Resources: []corev1.ResourceName{corev1.ResourceCPU}},
		{Container: "proxy", Env: []string{"LEVEL"}},
	}
	template := builders.Template("agent", "agent:1").Env("LEVEL", "info").Env("FIXED", "1").Classic("proxy", "proxy:1").
		First(func(s *v1alpha1.Sidecar) {
			s.Resources.Requests, s.Resources.Limits = quantities("50m"), quantities("100m")
		})
	given := func(level, request, limit string) *builders.TemplateBuilder {
		return template.Clone().First(func(s *v1alpha1.Sidecar) {
			s.Env[0].Value = level
			s.Resources.Requests, s.Resources.Limits = quantities(request), quantities(limit)
		})
	}
	for _, tc := range []struct {
		name       string
		annotation string
		// want is the template that the pod is given; nil where it is unchanged.
		want *builders.TemplateBuilder
		// ignored is why it is unchanged, and what is said about that.
		ignored v1alpha1.Reason
		says    string
	}{
		{"nothing", `{}`, nil, "", ""},
		{"nothing at all", ``, nil, "", ""},
		{"a variable", `{"agent": {"env": {"LEVEL": "debug"}}}`, given("debug", "50m", "100m"), "", ""},
		{"in YAML", "agent:\n  env: {LEVEL: debug}\n", given("debug", "50m", "100m"), "", ""},
		{"a variable more", `{"agent": {"env": {"EXTRA": "x"}}}`, template.Clone().Env("EXTRA", "x"), "", ""},
		{"resources", `{"agent": {"resources": {"requests": {"cpu": "60m"}, "limits": {"cpu": 1}}}}`, given("info", "60m", "1"), "", ""},
		{"all together", `{"agent": {"env": {"LEVEL": "debug"}, "resources": {"limits": {"cpu": "200m"}}}}`, given("debug", "50m", "200m"), "", ""},
		{"another variable", `{"agent": {"env": {"FIXED": "2"}}}`, nil, v1alpha1.ReasonOverrideNotAllowed,
			`annotation override.fleet.sidecar.dev/logs: the policy does not allow to override env FIXED of "agent"`},
		{"another sidecar's", `{"proxy": {"env": {"EXTRA": "x"}}}`, nil, v1alpha1.ReasonOverrideNotAllowed, `env EXTRA of "proxy"`},
		{"another resource", `{"agent": {"resources": {"limits": {"memory": "1Gi"}}}}`, nil, v1alpha1.ReasonOverrideNotAllowed, `resources.limits.memory of "agent"`},
		{"a good one beside a bad one", `{"agent": {"env": {"LEVEL": "debug", "FIXED": "2"}}}`, nil, v1alpha1.ReasonOverrideNotAllowed, "env FIXED"},
		{"no such sidecar", `{"other": {"env": {"LEVEL": "debug"}}}`, nil, v1alpha1.ReasonOverrideNotAllowed, `env LEVEL of "other"`},
		{"an image", `{"agent": {"image": "evil:1"}}`, nil, v1alpha1.ReasonOverrideInvalid, `unknown field "image"`},
		{"a command", `{"agent": {"env": {"LEVEL": "debug"}, "command": ["sh"]}}`, nil, v1alpha1.ReasonOverrideInvalid, `unknown field "command"`},
		{"a value without quotes", "agent: {env: {LEVEL: true}}", given("true", "50m", "100m"), "", ""},
		{"a value that is no text", `{"agent": {"env": {"LEVEL": ["x"]}}}`, nil, v1alpha1.ReasonOverrideInvalid, "write env and resources by the name of the container"},
		{"words", `please`, nil, v1alpha1.ReasonOverrideInvalid, "write env and resources by the name of the container"},
		{"half of it", `{"agent": `, nil, v1alpha1.ReasonOverrideInvalid, "write env and resources by the name of the container"},
		{"no quantity", `{"agent": {"resources": {"limits": {"cpu": "lots"}}}}`, nil, v1alpha1.ReasonOverrideInvalid, "quantities must match"},
		{"less than nothing", `{"agent": {"resources": {"limits": {"cpu": "-1"}}}}`, nil, v1alpha1.ReasonOverrideInvalid, `"agent" can't have -1 of cpu`},
		{"more than its limit", `{"agent": {"resources": {"requests": {"cpu": "2"}}}}`, nil, v1alpha1.ReasonOverrideInvalid, "with it, \"agent\" would request 2 of cpu, more than its limit of 100m"},
		{"too long", `{"agent": {"env": {"LEVEL": "` + strings.Repeat("x", 17_000) + `"}}}`, nil, v1alpha1.ReasonOverrideInvalid, "bytes, and 16384 are read"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pod := builders.Pod("shop", "cart").Annotation(v1alpha1.OverrideAnnotation("logs"), tc.annotation).Obj()
			additions, conflicts := inject.Render(pod, "logs", template.Revision(1), allowed...)
			if len(conflicts) > 0 {
				t.Fatalf("the pod gets nothing: %s", inject.Explain(conflicts))
			}
			want := template
			if tc.want != nil {
				want = tc.want
			}
			plain, _ := inject.Render(builders.Pod("shop", "cart").Obj(), "logs", want.Revision(1))
			if diff := cmp.Diff(plain.InitContainers, additions.InitContainers); diff != "" {
				t.Errorf("sidecars (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(plain.Containers, additions.Containers); diff != "" {
				t.Errorf("sidecars (-want +got):\n%s", diff)
			}
			record, err := v1alpha1.ParseInjectionRecord(additions.Annotations, "logs")
			if err != nil || record.Revision != template.Revision(1).Hash {
				t.Errorf("record %+v, %v; want the revision of the template", record, err)
			}
			if overridden := len(record.Overrides) > 0; overridden != (tc.want != nil) {
				t.Errorf("the record says %+v", record.Overrides)
			}
			if tc.ignored == "" {
				if len(additions.Ignored) > 0 {
					t.Errorf("ignored: %s", inject.Explain(additions.Ignored))
				}
				return
			}
			if len(additions.Ignored) == 0 || additions.Ignored[0].Reason != tc.ignored || !strings.Contains(inject.Explain(additions.Ignored), tc.says) {
				t.Errorf("ignored: %v, want %s with %q", additions.Ignored, tc.ignored, tc.says)
			}
		})
	}
}

// An override takes the place of what would be taken over from the app, or computed from it.
func TestOverridesWinOverTheApp(t *testing.T) {
	template := builders.Template("agent", "agent:1").First(func(s *v1alpha1.Sidecar) {
		s.EnvFromApp = []v1alpha1.AppEnv{{Names: []string{"REGION"}}}
		s.ResourcesFromApp = &v1alpha1.AppResources{Limits: map[corev1.ResourceName]v1alpha1.ResourceExpression{"cpu": "app.limits.cpu", "memory": `quantity("1Gi")`}}
	})
	allowed := v1alpha1.AllowedOverride{Container: "agent", Env: []string{"REGION"}, Resources: []corev1.ResourceName{"cpu"}}
	pod := builders.Pod("shop", "cart").Annotation(v1alpha1.OverrideAnnotation("logs"), `{"agent": {"env": {"REGION": "moon"}, "resources": {"limits": {"cpu": "1"}}}}`).Obj()
	additions, conflicts := inject.Render(pod, "logs", template.Revision(1), allowed)
	if len(conflicts)+len(additions.Ignored) > 0 {
		t.Fatalf("conflicts %v, ignored %v", conflicts, additions.Ignored)
	}
	got := additions.InitContainers[0]
	if diff := cmp.Diff([]corev1.EnvVar{{Name: "REGION", Value: "moon"}}, got.Env); diff != "" {
		t.Errorf("env (-want +got):\n%s", diff)
	}
	limits := corev1.ResourceList{"cpu": resource.MustParse("1"), "memory": resource.MustParse("1Gi")}
	if diff := cmp.Diff(limits, got.Resources.Limits); diff != "" {
		t.Errorf("limits (-want +got):\n%s", diff)
	}
}
