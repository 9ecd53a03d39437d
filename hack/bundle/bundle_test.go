package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/operator-framework/api/pkg/manifests"
	"github.com/operator-framework/operator-registry/alpha/declcfg"
)

// project is the bundle that is committed.
const project = "../../bundle"

func TestValidate(t *testing.T) {
	if err := validate(project); err != nil {
		t.Fatalf("the project's bundle: %v", err)
	}
	for name, test := range map[string]struct{ file, old, new, want string }{
		"a warning of the hub's suite":       {"manifests/sidecar-operator.clusterserviceversion.yaml", "minKubeVersion: 1.33.0", "maturity: alpha", "minKubeVersion"},
		"a warning about good practices":     {"metadata/annotations.yaml", "channels.v1: stable", "channels.v1: weekly", "weekly"},
		"an error of the bundle's format":    {"metadata/annotations.yaml", "registry+v1", "plain+v1", "mediatype"},
		"a scorecard with an unknown field":  {"tests/scorecard/config.yaml", "stages:", "phases:", "unknown field"},
		"a manifest that OLM can't install":  {"manifests/sidecar-operator-webhook-service_service.yaml", "kind: Service", "kind: Ingress", "Ingress"},
		"a kind of people without example":   {"manifests/sidecar-operator.clusterserviceversion.yaml", `"kind": "SidecarReport"`, `"kind": "SidecarPolicy"`, "Kind=SidecarReport: provided API should have an example"},
		"an example that has no spec":        {"manifests/sidecar-operator.clusterserviceversion.yaml", `"spec": {`, `"contents": {`, "has no spec"},
		"an example of a kind without owner": {"manifests/sidecar-operator.clusterserviceversion.yaml", `"kind": "SidecarPolicy"`, `"kind": "Policy"`, "example must have a provided API"},
	} {
		t.Run(name, func(t *testing.T) {
			err := validate(edited(t, test.file, test.old, test.new))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

func TestCatalog(t *testing.T) {
	const csv = "manifests/sidecar-operator.clusterserviceversion.yaml"
	name, version := current(t)
	second := edited(t, csv, "\n  name: "+name+"\n", "\n  name: sidecar-operator.v99.0.0\n")
	edit(t, filepath.Join(second, csv), "\n  version: "+version, "\n  version: 99.0.0\n  replaces: "+name)
	out := filepath.Join(t.TempDir(), "catalog")
	if err := catalog(out, "registry.example/{{.Package}}-bundle:v{{.Version}}", []string{project, second}); err != nil {
		t.Fatal(err)
	}
	config, err := declcfg.LoadFS(t.Context(), os.DirFS(out))
	if err != nil {
		t.Fatal(err)
	}
	want := []declcfg.Channel{{Schema: "olm.channel", Name: "stable", Package: "sidecar-operator", Entries: []declcfg.ChannelEntry{
		{Name: name}, {Name: "sidecar-operator.v99.0.0", Replaces: name},
	}}}
	if diff := cmp.Diff(want, config.Channels); diff != "" {
		t.Errorf("channels (-want +got):\n%s", diff)
	}
	var images []string
	for _, b := range config.Bundles {
		images = append(images, b.Image)
	}
	if diff := cmp.Diff([]string{"registry.example/sidecar-operator-bundle:v" + version, "registry.example/sidecar-operator-bundle:v99.0.0"}, images); diff != "" {
		t.Errorf("images (-want +got):\n%s", diff)
	}
	edit(t, filepath.Join(second, csv), "\n  replaces: "+name, "")
	if err := catalog(out, "registry.example/{{.Package}}-bundle:v{{.Version}}", []string{project, second}); err == nil {
		t.Error("a channel with two bundles that nothing replaces was accepted")
	}
	if err := catalog(out, "registry.example/{{.Name}}", []string{project}); err == nil {
		t.Error("a template with an unknown name was accepted")
	}
}

// current is the name and version of the project's bundle.
func current(t *testing.T) (name, version string) {
	t.Helper()
	b, err := manifests.GetBundleFromDir(project)
	if err != nil {
		t.Fatal(err)
	}
	return b.Name, b.CSV.Spec.Version.String()
}

// edited is a copy of the project's bundle with one change.
func edited(t *testing.T, file, before, after string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(project)); err != nil {
		t.Fatal(err)
	}
	edit(t, filepath.Join(dir, file), before, after)
	return dir
}

func edit(t *testing.T, path, before, after string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), before) {
		t.Fatalf("%s has no %q", path, before)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(data), before, after, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
}
