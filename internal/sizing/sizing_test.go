package sizing_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"pgregory.net/rapid"

	"github.com/sidecar-dev/sidecar-operator/internal/sizing"
)

// container has a request and a limit of cpu and of memory each; empty is none.
func container(cpuRequest, cpuLimit, memoryRequest, memoryLimit string) corev1.ResourceRequirements {
	var c corev1.ResourceRequirements
	set := func(list *corev1.ResourceList, name corev1.ResourceName, quantity string) {
		if quantity == "" {
			return
		}
		if *list == nil {
			*list = corev1.ResourceList{}
		}
		(*list)[name] = resource.MustParse(quantity)
	}
	set(&c.Requests, corev1.ResourceCPU, cpuRequest)
	set(&c.Limits, corev1.ResourceCPU, cpuLimit)
	set(&c.Requests, corev1.ResourceMemory, memoryRequest)
	set(&c.Limits, corev1.ResourceMemory, memoryLimit)
	return c
}

func TestEvaluate(t *testing.T) {
	two := []corev1.ResourceRequirements{container("300m", "1", "1Gi", "2Gi"), container("", "2", "", "")}
	for _, tc := range []struct {
		name       string
		containers []corev1.ResourceRequirements
		resource   corev1.ResourceName
		expression string
		want       string // a quantity
		err        string // or what the error says
	}{
		{"a share of the requests, a limit counting as one", two, corev1.ResourceCPU, "app.requests.cpu * 0.1", "230m", ""},
		{"no more than the arithmetic says", []corev1.ResourceRequirements{container("300m", "", "", "")}, corev1.ResourceCPU, "app.requests.cpu * 0.1", "30m", ""},
		{"cpu is rounded up to 1m", two, corev1.ResourceCPU, "0.0001", "1m", ""},
		{"memory is rounded up to a byte", two, corev1.ResourceMemory, "100.2", "101", ""},
		{"a share of the limits", two, corev1.ResourceCPU, "app.limits.cpu / 10.0", "300m", ""},
		{"a limit that not all have", two, corev1.ResourceMemory, "app.limits.memory", "", "the app says nothing of memory there: to allow that, ask first, like has(app.limits.memory) ?"},
		{"a limit that not all have, allowed", two, corev1.ResourceMemory, "has(app.limits.memory) ? app.limits.memory : 0.0", "0", ""},
		{"a request of nobody", two, corev1.ResourceEphemeralStorage, `app.requests["ephemeral-storage"]`, "0", ""},
		{"a least amount", two, corev1.ResourceMemory, `math.greatest(app.requests.memory * 0.01, quantity("32Mi"))`, "32Mi", ""},
		{"a greatest amount", two, corev1.ResourceMemory, `math.least(app.requests.memory, quantity("256Mi")) + quantity("1Mi")`, "257Mi", ""},
		{"a constant", nil, corev1.ResourceCPU, `quantity("50m")`, "50m", ""},
		{"a whole number", nil, corev1.ResourceCPU, "2", "2", ""},
		{"a choice", two, corev1.ResourceCPU, "app.requests.cpu > 2 ? 0.5 : 0.1", "500m", ""},
		{"less than nothing", two, corev1.ResourceCPU, "app.requests.cpu - 5.0", "", "less than nothing"},
		{"no number", nil, corev1.ResourceCPU, "app.requests.cpu / app.requests.cpu", "", "NaN, which is no amount"},
		{"too much", nil, corev1.ResourceCPU, "1e300", "", "no amount"},
		{"no quantity", nil, corev1.ResourceCPU, `quantity("lots")`, "", `"lots" is no quantity: write one like "64Mi"`},
		{"a whole number where a point is needed", two, corev1.ResourceCPU, "app.requests.cpu * 2", "", "numbers are written with a point"},
		{"another variable", two, corev1.ResourceCPU, "app.request.cpu", "", "the variables are app.requests and app.limits"},
		{"a text", two, corev1.ResourceCPU, `"64Mi"`, "", `is of type string, not a number; the variables are`},
		{"half an expression", two, corev1.ResourceCPU, "app.requests.cpu *", "", "Syntax error"},
		{"one that never ends", two, corev1.ResourceCPU,
			"[1,2,3,4,5,6,7,8].map(a, [1,2,3,4,5,6,7,8].map(b, [1,2,3,4,5,6,7,8].map(c, [1,2,3,4,5,6,7,8].map(d, [1,2,3,4,5,6,7,8].map(e, 1))))).size()", "", "cost limit exceeded"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := sizing.Evaluate(tc.expression, tc.resource, sizing.Sum(tc.containers))
			if (err == nil) != (tc.err == "") || (err != nil && !strings.Contains(err.Error(), tc.err)) {
				t.Fatalf("Evaluate() = %v, want an error with %q", err, tc.err)
			}
			if err == nil && !got.Equal(resource.MustParse(tc.want)) {
				t.Errorf("Evaluate() = %s, want %s", got.String(), tc.want)
			}
		})
	}
}

// What can be known without an app is said when the policy is applied.
func TestValidate(t *testing.T) {
	for expression, want := range map[string]bool{
		"app.requests.cpu * 0.1": true, "app.limits.memory": true, `quantity("1Gi")`: true,
		"app.requests.cpu * 2": false, "app.cpu": false, "": false, "true": false, "app.requests": false,
	} {
		if err := sizing.Validate(expression); (err == nil) != want {
			t.Errorf("Validate(%q) = %v, want it valid: %t", expression, err, want)
		}
	}
}

func TestTheWholeAppIsTheWholeApp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var containers []corev1.ResourceRequirements
		sum := resource.Quantity{}
		for _, milli := range rapid.SliceOfN(rapid.Int64Range(1, 1e6), 1, 5).Draw(t, "millicores") {
			request := resource.NewMilliQuantity(milli, resource.DecimalSI)
			containers = append(containers, container(request.String(), "", "", ""))
			sum.Add(*request)
		}
		got, err := sizing.Evaluate("app.requests.cpu", corev1.ResourceCPU, sizing.Sum(containers))
		if err != nil || !got.Equal(sum) {
			t.Fatalf("Evaluate() = %s, %v, want %s", got.String(), err, sum.String())
		}
	})
}

func BenchmarkEvaluate(b *testing.B) {
	app := sizing.Sum([]corev1.ResourceRequirements{container("300m", "1", "1Gi", "2Gi")})
	for b.Loop() {
		if _, err := sizing.Evaluate(`math.greatest(app.requests.memory * 0.01, quantity("32Mi"))`, corev1.ResourceMemory, app); err != nil {
			b.Fatal(err)
		}
	}
}
