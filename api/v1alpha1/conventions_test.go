package v1alpha1

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// The conventions of Kubernetes APIs that a machine can check in our types:
// https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md
func TestFieldsFollowTheAPIConventions(t *testing.T) {
	for _, field := range apiFields(t) {
		for _, c := range []struct {
			name  string
			holds func(apiField) bool
		}{
			{"has a JSON name in camelCase", func(f apiField) bool { return camelCase.MatchString(f.json) }},
			{"has a comment that begins with the JSON name", func(f apiField) bool { return strings.HasPrefix(f.doc, f.json+" ") }},
			{"is marked +optional or +required, and not both", func(f apiField) bool {
				return f.counts || f.marked("+optional") != f.marked("+required")
			}},
			{"has omitempty or omitzero", func(f apiField) bool { return f.counts || strings.Contains(f.tag, ",omit") }},
			{"has a listType where it is a list", func(f apiField) bool { return !f.list || f.marked("+listType=") }},
			{"has a bound where it is a list", func(f apiField) bool { return !f.list || f.marked("+kubebuilder:validation:MaxItems=") }},
			{"has a bound where it is a map", func(f apiField) bool { return !f.maps || f.marked("+kubebuilder:validation:MaxProperties=") }},
			{"is no unsigned or floating point number", func(f apiField) bool { return !unportable.MatchString(f.kind) }},
		} {
			if !c.holds(field) {
				t.Errorf("%s: the field does not fulfil: %s", field.name, c.name)
			}
		}
	}
}

var (
	camelCase  = regexp.MustCompile(`^[a-z][a-zA-Z0-9]*$`)
	unportable = regexp.MustCompile(`\b(uint|uint32|uint64|float32|float64)\b`)
)

// apiField is one field of a struct that the API server sees.
type apiField struct {
	name, json, tag, doc, kind string
	markers                    string
	list, maps                 bool
	// counts: it belongs to a struct of counts, where a zero is always written.
	counts bool
}

func (f apiField) marked(marker string) bool { return strings.Contains(f.markers, marker) }

func apiFields(t *testing.T) []apiField {
	t.Helper()
	names, err := filepath.Glob("*_types.go")
	if err != nil {
		t.Fatal(err)
	}
	var fields []apiField
	for _, name := range names {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		fields = append(fields, fieldsOf(file)...)
	}
	if len(fields) < 100 {
		t.Fatalf("found %d fields only: the test looks in the wrong place", len(fields))
	}
	return fields
}

func fieldsOf(file *ast.File) []apiField {
	var fields []apiField
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if structure, ok := spec.Type.(*ast.StructType); ok && !strings.HasSuffix(spec.Name.Name, "List") {
			for _, f := range structure.Fields.List {
				if field, ok := readField(spec.Name.Name, f); ok {
					fields = append(fields, field)
				}
			}
		}
		return true
	})
	return fields
}

// readField is false for fields that are inlined or not part of the API.
func readField(owner string, f *ast.Field) (apiField, bool) {
	if len(f.Names) == 0 || f.Tag == nil {
		return apiField{}, false
	}
	tag := reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("json")
	if tag == "-" {
		return apiField{}, false
	}
	field := apiField{name: owner + "." + f.Names[0].Name, tag: tag, json: strings.Split(tag, ",")[0], counts: strings.HasSuffix(owner, "Counts")}
	if f.Doc != nil {
		field.doc = f.Doc.Text()
		for _, line := range f.Doc.List {
			field.markers += line.Text + "\n"
		}
	}
	switch kind := f.Type.(type) {
	case *ast.ArrayType:
		field.list = true
	case *ast.MapType:
		field.maps = true
	case *ast.Ident:
		field.kind = kind.Name
	case *ast.SelectorExpr:
		field.kind = kind.Sel.Name
	}
	return field, true
}
