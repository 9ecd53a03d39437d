// Package promises_test holds docs/design/promises.md to the tests that there are.
package promises_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const (
	root  = "../../.."
	table = root + "/docs/design/promises.md"
)

var (
	row       = regexp.MustCompile(`(?m)^\| (\d) \|.*$`)
	reference = regexp.MustCompile("`([^`: ]+): ([^`]+)`")
	byName    = regexp.MustCompile(`^TestPromise(\d)`)
	// words that a spec's full name is made of.
	containers = map[string]bool{"Describe": true, "Context": true, "When": true, "DescribeTable": true, "It": true, "Entry": true}
)

// promised are the tests that each promise names.
func promised(t *testing.T) map[string]map[string]bool {
	t.Helper()
	text, err := os.ReadFile(table)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]map[string]bool{}
	for _, line := range row.FindAllStringSubmatch(string(text), -1) {
		tests[line[1]] = map[string]bool{}
		for _, ref := range reference.FindAllStringSubmatch(line[0], -1) {
			tests[line[1]][ref[1]+": "+ref[2]] = true
		}
	}
	return tests
}

func TestEveryPromiseHasTestsThatExist(t *testing.T) {
	promises, existing := promised(t), existing(t)
	for n := 1; n <= 8; n++ {
		tests := promises[strconv.Itoa(n)]
		if len(tests) == 0 {
			t.Errorf("promise %d names no test", n)
		}
		for test := range tests {
			if !existing[test] {
				t.Errorf("promise %d names %q, which does not exist", n, test)
			}
		}
	}
	if len(promises) != 8 {
		t.Errorf("%d promises, want 8", len(promises))
	}
}

func TestEveryTestThatNamesAPromiseIsInTheTable(t *testing.T) {
	promises := promised(t)
	for test := range existing(t) {
		_, name, _ := strings.Cut(test, ": ")
		if match := byName.FindStringSubmatch(name); match != nil && !promises[match[1]][test] {
			t.Errorf("write `%s` into row %s of %s", test, match[1], filepath.Base(table))
		}
	}
}

// existing are the tests and specs of the tree, each as its package's folder and its name.
func existing(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		folder, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, name := range append(functions(file), specs(file, "")...) {
			found[filepath.ToSlash(folder)+": "+name] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func functions(file *ast.File) []string {
	var names []string
	for _, decl := range file.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") {
			names = append(names, f.Name.Name)
		}
	}
	return names
}

// specs are the full names of Ginkgo's specs below a node, each after the texts of what it is in.
func specs(node ast.Node, within string) []string {
	var names []string
	ast.Inspect(node, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || n == node {
			return true
		}
		text, ok := textOf(call)
		if !ok {
			return true
		}
		full := strings.TrimSpace(within + " " + text)
		names = append(names, full)
		names = append(names, specs(call, full)...)
		return false
	})
	return names
}

// textOf is the text of a call to one of Ginkgo's containers.
func textOf(call *ast.CallExpr) (string, bool) {
	function, ok := call.Fun.(*ast.Ident)
	if !ok || !containers[function.Name] || len(call.Args) == 0 {
		return "", false
	}
	literal, ok := call.Args[0].(*ast.BasicLit)
	if !ok || literal.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(literal.Value)
	return text, err == nil
}
