package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// checkDescriptors fails where a descriptor names a field that its kind does not have, and where a field of spec has
// none: consoles would show nothing for it.
func (p *parts) checkDescriptors(csv *unstructured.Unstructured) error {
	owned, _, err := unstructured.NestedSlice(csv.Object, "spec", "customresourcedefinitions", "owned")
	if err != nil {
		return err
	}
	var errs []error
	for _, item := range owned {
		description, _ := item.(map[string]any)
		errs = append(errs, p.checkDescription(description))
	}
	return errors.Join(errs...)
}

func (p *parts) checkDescription(description map[string]any) error {
	name, _ := description["name"].(string)
	version, _ := description["version"].(string)
	schema := p.schema(name, version)
	if schema == nil {
		return fmt.Errorf("%s %s is described, and there is no such CustomResourceDefinition", name, version)
	}
	spec, status := pathsOf(description["specDescriptors"]), pathsOf(description["statusDescriptors"])
	errs := append(unknown(schema, name, "spec", spec), unknown(schema, name, "status", status)...)
	for _, top := range slices.Sorted(maps.Keys(properties(field(schema, "spec")))) {
		if !slices.Contains(spec, top) {
			errs = append(errs, fmt.Errorf("%s: describe the field spec.%s too", name, top))
		}
	}
	return errors.Join(errs...)
}

// unknown has an error for each path below a section that the schema does not have.
func unknown(schema map[string]any, name, section string, paths []string) []error {
	var errs []error
	for _, path := range paths {
		if !hasField(field(schema, section), strings.Split(path, ".")) {
			errs = append(errs, fmt.Errorf("%s: the field %s.%s is described, and does not exist", name, section, path))
		}
	}
	return errs
}

// schema is nil where there is no such version.
func (p *parts) schema(name, version string) map[string]any {
	for _, crd := range p.crds {
		versions, _, _ := unstructured.NestedSlice(crd.Object, "spec", "versions")
		for _, item := range versions {
			fields, _ := item.(map[string]any)
			if crd.GetName() == name && fields["name"] == version {
				schema, _, _ := unstructured.NestedMap(fields, "schema", "openAPIV3Schema")
				return schema
			}
		}
	}
	return nil
}

func pathsOf(descriptors any) []string {
	list, _ := descriptors.([]any)
	var paths []string
	for _, item := range list {
		fields, _ := item.(map[string]any)
		path, _ := fields["path"].(string)
		paths = append(paths, path)
	}
	return paths
}

func hasField(schema map[string]any, path []string) bool {
	for _, name := range path {
		schema = field(schema, name)
	}
	return schema != nil
}

func field(schema map[string]any, name string) map[string]any {
	found, _ := properties(schema)[name].(map[string]any)
	return found
}

func properties(schema map[string]any) map[string]any {
	fields, _ := schema["properties"].(map[string]any)
	return fields
}
