package analysis

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Vars is what a query template can insert, all of it escaped for a string of PromQL in
// double or single quotes.
type Vars struct {
	Policy   string
	Revision string
	Step     string
	// Namespaces become one regular expression that matches exactly these, for =~.
	Namespaces []string
}

// variable is {{.Name}}, or anything else between such brackets, which need not be closed.
var variable = regexp.MustCompile(`(?s)\{\{(.*?)(\}\}|$)`)

// stringEscaper escapes for a string literal of PromQL. Quotes are written in hex because
// PromQL, like Go, knows the escape of a quote only in a string of that quote.
var stringEscaper = strings.NewReplacer(
	`\`, `\\`, "\n", `\n`, `"`, `\x22`, `'`, `\x27`, "`", `\x60`,
)

// render makes the query out of its template. It inserts, and does nothing else: what Validate
// rendered once always renders, unless the fleet has no namespaces.
func render(text string, vars Vars) (string, error) {
	var err error
	query := variable.ReplaceAllStringFunc(text, func(found string) string {
		value, refusal := vars.lookup(found)
		err = cmp.Or(err, refusal)
		return stringEscaper.Replace(value)
	})
	return query, err
}

func (v Vars) lookup(found string) (string, error) {
	switch name, closed := strings.CutSuffix(found[len("{{"):], "}}"); {
	case !closed:
	case strings.TrimSpace(name) == ".Policy":
		return v.Policy, nil
	case strings.TrimSpace(name) == ".Revision":
		return v.Revision, nil
	case strings.TrimSpace(name) == ".Step":
		return v.Step, nil
	case strings.TrimSpace(name) == ".Namespaces":
		return v.namespaces()
	}
	return "", fmt.Errorf("%q is no variable: write {{.Policy}}, {{.Revision}}, {{.Step}} or {{.Namespaces}}", shorten(found, 24))
}

// namespaces is an error where there are none: namespace=~"" matches what has no namespace.
func (v Vars) namespaces() (string, error) {
	if len(v.Namespaces) == 0 {
		return "", errors.New("the fleet has no namespaces")
	}
	var quoted []string
	for _, namespace := range v.Namespaces {
		quoted = append(quoted, regexp.QuoteMeta(namespace))
	}
	slices.Sort(quoted)
	return strings.Join(slices.Compact(quoted), "|"), nil
}
