package analysis

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestSyntaxTakesWhatSomeServerUnderstands(t *testing.T) {
	for name, query := range map[string]string{
		"a metric":               `up`,
		"an aggregation":         `sum by (pod) (rate(errors_total{code=~"5.."}[5m:30s] offset 1d)) > 0`,
		"brackets in strings":    `m{a="(", b='[', c=` + "`{`" + `}`,
		"escaped quotes":         `m{a="\"(", b='\'['}`,
		"a comment":              "up # it's (never closed\n+ 1",
		"a comment to the end":   `up # $__interval (`,
		"a string over lines":    "m{a=`b\n(c`}",
		"another dialect":        `WITH (x = up) x default 0`,
		"dollars in strings":     `label_replace(up, "a", "$1", "b", "(.*)")`,
		"a backslash in strings": `m{a="\\"}`,
	} {
		t.Run(name, func(t *testing.T) {
			if err := checkSyntax(query); err != nil {
				t.Errorf("checkSyntax(%s) = %v", query, err)
			}
		})
	}
}

func TestSyntaxRefusals(t *testing.T) {
	for _, tc := range []struct {
		name, query, want string
	}{
		{"a bracket that stays open", `sum(rate(m[5m])`, `"(rate(m[5m])" (character 4) is never closed: write ) at its end`},
		{"the innermost of them", `sum(m{a="b"`, `"{a=\"b\"" (character 6) is never closed: write } at its end`},
		{"a bracket too many", `sum(m))`, `")" (character 7) closes nothing`},
		{"brackets that don't match", `rate(m[5m)])`, `")])" (character 10) closes nothing`},
		{"a string that stays open", `m{a="b}`, `"\"b}" (character 5) is never closed: write " at its end`},
		{"a string that ends with its line", "m{a=\"b\nc\"}", `is never closed: write " at its end`},
		{"an escape at the end", `m{a="\`, `is never closed`},
		{"a dashboard's variable", `rate(m[$__rate_interval])`, `"$__rate_interval])" (character 8) is a dashboard's variable`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := checkSyntax(tc.query); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("checkSyntax(%s) = %v, want an error with %s", tc.query, err, tc.want)
			}
		})
	}
}

func TestSyntaxOfAnythingIsCheckedWithoutPanic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		query := rapid.StringMatching("[a(){}\\[\\]\"'`\\\\#$\n]*").Draw(t, "query")
		if checkSyntax(query) == nil && strings.Count(query, `"`) == 0 && strings.ContainsRune(query, '$') && !strings.ContainsAny(query, "'`#") {
			t.Errorf("%q has a dashboard's variable", query)
		}
	})
}
