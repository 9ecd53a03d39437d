package prometheus_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

var (
	stateOfPods   = regexp.MustCompile(`"([a-z]+)":\s+c\.[A-Z]`)
	actionOfWrite = regexp.MustCompile(`write\{[\w.]+, "([a-z]+)"`)
	rowOfReason   = regexp.MustCompile("(?m)^\\| `([A-Za-z]+)` \\|")
)

// The page on metrics lists the values of labels: no fewer than the code has, and no more.
func TestPageListsTheValuesOfLabels(t *testing.T) {
	page := string(read(t, "docs/metrics.md"))
	for _, c := range []struct {
		name, files string
		value       *regexp.Regexp
		listed      string
	}{
		{"the states of sidecar_operator_pods", "internal/metrics/metrics.go", stateOfPods, "pods of the fleet: ([^|]*), as in"},
		{"the actions of sidecar_operator_pod_writes_total", "controllers/*.go", actionOfWrite, `writes of running pods \(([^)]*)\)`},
	} {
		var has []string
		for _, content := range sources(t, c.files) {
			for _, match := range c.value.FindAllStringSubmatch(content, -1) {
				has = append(has, match[1])
			}
		}
		slices.Sort(has)
		if has = slices.Compact(has); len(has) < 6 {
			t.Fatalf("%s: found %v only: the test looks in the wrong place", c.name, has)
		}
		match := regexp.MustCompile(c.listed).FindStringSubmatch(page)
		if match == nil {
			t.Fatalf("docs/metrics.md does not list %s", c.name)
		}
		listed := strings.Split(match[1], ", ")
		slices.Sort(listed)
		if diff := cmp.Diff(has, listed); diff != "" {
			t.Errorf("docs/metrics.md lists other values than the code has for %s (-code +page):\n%s", c.name, diff)
		}
	}
}

// The runbook says what to do for each reason that the condition Degraded can have.
func TestRunbookKnowsTheReasonsOfDegraded(t *testing.T) {
	_, section, _ := strings.Cut(string(read(t, "docs/runbook.md")), "\n## SidecarPolicyDegraded\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var rows []string
	for _, match := range rowOfReason.FindAllStringSubmatch(section, -1) {
		rows = append(rows, match[1])
	}
	slices.Sort(rows)
	if diff := cmp.Diff(reasonsOfDegraded(t), rows); diff != "" {
		t.Errorf("rows in the table of docs/runbook.md under SidecarPolicyDegraded (-code +runbook):\n%s", diff)
	}
}

// reasonsOfDegraded are those of the findings that hold in the function that makes the condition, and in all that it names.
func reasonsOfDegraded(t *testing.T) []string {
	t.Helper()
	values := valuesOfReasons(t)
	var reasons []string
	for _, f := range reached(functionsOf(t), "degraded", map[string]bool{}) {
		ast.Inspect(f, func(n ast.Node) bool {
			if literal, ok := n.(*ast.CompositeLit); ok && holding(literal) != "" {
				reasons = append(reasons, values[holding(literal)])
			}
			return true
		})
	}
	slices.Sort(reasons)
	reasons = slices.Compact(reasons)
	for _, known := range []v1alpha1.Reason{v1alpha1.ReasonUpgradeFailed, v1alpha1.ReasonUnplugStuck, v1alpha1.ReasonTooManyMissing} {
		if !slices.Contains(reasons, string(known)) {
			t.Fatalf("found %v: the test looks in the wrong place", reasons)
		}
	}
	return reasons
}

// functionsOf are the controllers' functions that are no methods.
func functionsOf(t *testing.T) map[string]*ast.FuncDecl {
	t.Helper()
	functions := map[string]*ast.FuncDecl{}
	for name, content := range sources(t, "controllers/*.go") {
		file, err := parser.ParseFile(token.NewFileSet(), name, content, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil {
				functions[f.Name.Name] = f
			}
		}
	}
	return functions
}

// reached are a function and all that it names, directly or by another.
func reached(functions map[string]*ast.FuncDecl, name string, seen map[string]bool) []*ast.FuncDecl {
	f := functions[name]
	if f == nil || seen[name] {
		return nil
	}
	seen[name] = true
	all := []*ast.FuncDecl{f}
	ast.Inspect(f, func(n ast.Node) bool {
		if named, ok := n.(*ast.Ident); ok {
			all = append(all, reached(functions, named.Name, seen)...)
		}
		return true
	})
	return all
}

// holding is the constant of the reason in finding{yes, v1alpha1.ReasonX, ...}.
func holding(literal *ast.CompositeLit) string {
	kind, ok := literal.Type.(*ast.Ident)
	if !ok || kind.Name != "finding" || len(literal.Elts) < 2 {
		return ""
	}
	holds, _ := literal.Elts[0].(*ast.Ident)
	reason, ok := literal.Elts[1].(*ast.SelectorExpr)
	if !ok || holds == nil || holds.Name != "yes" {
		return ""
	}
	return reason.Sel.Name
}

// valuesOfReasons are the words of the API, by the names of their constants.
func valuesOfReasons(t *testing.T) map[string]string {
	t.Helper()
	values := map[string]string{}
	for _, match := range regexp.MustCompile(`(Reason\w+)\s+Reason = "(\w+)"`).FindAllStringSubmatch(string(read(t, "api/v1alpha1/conditions.go")), -1) {
		values[match[1]] = match[2]
	}
	return values
}

// sources are the texts of files that are no tests.
func sources(t *testing.T, pattern string) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, pattern))
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			t.Fatal(err)
		}
		texts[name] = string(read(t, name))
	}
	return texts
}
