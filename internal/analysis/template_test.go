package analysis

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestTemplate(t *testing.T) {
	for _, tc := range []struct {
		name, text, want string
	}{
		{"nothing to insert", `up{job="a"}`, `up{job="a"}`},
		{"every variable", `m{policy="{{.Policy}}", revision="{{.Revision}}", step="{{ .Step }}"}`,
			`m{policy="log-agent", revision="log-agent-77", step="canary"}`},
		{"namespaces are one expression, sorted", `m{namespace=~"{{.Namespaces}}"}`, `m{namespace=~"office|shop"}`},
		{"twice", `{{.Step}}-{{.Step}}`, `canary-canary`},
		{"brackets of PromQL stay", `sum(m{a="}}"}) by (b)`, `sum(m{a="}}"}) by (b)`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got, err := render(tc.text, vars); err != nil || got != tc.want {
				t.Errorf("render() = %s, %v; want %s", got, err, tc.want)
			}
		})
	}
}

func TestTemplateRefusals(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		vars       Vars
		want       string
	}{
		{"an unknown variable", `m{cluster="{{.Cluster}}"}`, vars, `"{{.Cluster}}" is no variable: write {{.Policy}},`},
		{"a variable of another tool", `m{a="{{args.service}}"}`, vars, `"{{args.service}}" is no variable`},
		{"a function", `{{printf "%1000000d" 1}}`, vars, `is no variable`},
		{"a loop", `{{range .Namespaces}}{{.}}{{end}}`, vars, `"{{range .Namespaces}}" is no variable`},
		{"never closed", `m{step="{{.Step"}`, vars, `"{{.Step\"}" is no variable`},
		{"no namespaces", `m{namespace=~"{{.Namespaces}}"}`, Vars{}, "the fleet has no namespaces"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := render(tc.text, tc.vars); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("render() = %v, want an error with %s", err, tc.want)
			}
		})
	}
}

func TestTemplateDoesNotNeedNamespacesThatItDoesNotInsert(t *testing.T) {
	if _, err := render(`up{step="{{.Step}}"}`, Vars{Step: "canary"}); err != nil {
		t.Error(err)
	}
}

// What is inserted stays inside its string, whatever it is.
func TestInsertedTextStaysInItsString(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		quote := rapid.SampledFrom([]string{`"`, `'`}).Draw(t, "quote")
		text := rapid.StringMatching("[a-z\"'`\\\\\n{}()#$]*").Draw(t, "text")
		before := "m{a=" + quote
		query, err := render(before+"{{.Policy}}"+quote+"}", Vars{Policy: text})
		if err != nil {
			t.Fatal(err)
		}
		if end := stringEnd(query, len(before)-1); end != len(query)-len(quote+"}") {
			t.Errorf("the string of %s ends at %d of %d", query, end, len(query))
		}
	})
}
