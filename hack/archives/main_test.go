package main

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const root = "../.."

func TestArchiveOfThisPlatform(t *testing.T) {
	here := platform{runtime.GOOS, runtime.GOARCH}
	out := t.TempDir()
	sum, err := build(t.Context(), root, out, here)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := build(t.Context(), root, t.TempDir(), here); err != nil || again != sum {
		t.Errorf("the sum is %s, and of a second build %s (%v)", sum, again, err)
	}
	dir := t.TempDir()
	if names := unpack(t, filepath.Join(out, here.archive()), dir); !slices.Equal(names, []string{here.program(), "kubectl_complete-sidecar", "LICENSE"}) {
		t.Errorf("the archive has %v", names)
	}
	said, err := exec.CommandContext(t.Context(), filepath.Join(dir, here.program()), "--help").CombinedOutput()
	if err != nil || !strings.Contains(string(said), "doctor") {
		t.Errorf("the program in the archive says %s (%v)", said, err)
	}
}

func TestManifestNamesEveryArchiveWithItsSum(t *testing.T) {
	template, err := os.ReadFile(filepath.Join(root, ".krew.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	sums := map[string]string{}
	for _, p := range platforms {
		sums[p.archive()] = "sum-of-" + p.os + "-" + p.arch
	}
	text, err := complete(string(template), "v9.8.7", sums)
	if err != nil {
		t.Fatal(err)
	}
	var manifest struct {
		Spec struct {
			Version   string
			Platforms []struct {
				Selector         struct{ MatchLabels map[string]string }
				URI, SHA256, Bin string
			}
		}
	}
	if err := yaml.UnmarshalStrict([]byte(text), &map[string]any{}); err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	if err := yaml.Unmarshal([]byte(text), &manifest); err != nil {
		t.Fatal(err)
	}
	if manifest.Spec.Version != "v9.8.7" || len(manifest.Spec.Platforms) != len(platforms) {
		t.Errorf("version %s, %d platforms of %d that are built", manifest.Spec.Version, len(manifest.Spec.Platforms), len(platforms))
	}
	for _, entry := range manifest.Spec.Platforms {
		p := platform{entry.Selector.MatchLabels["os"], entry.Selector.MatchLabels["arch"]}
		want := "https://github.com/sidecar-dev/sidecar-operator/releases/download/v9.8.7/" + p.archive()
		if entry.URI != want || entry.SHA256 != "sum-of-"+p.os+"-"+p.arch || entry.Bin != p.program() {
			t.Errorf("%v: %+v", p, entry)
		}
	}
	delete(sums, platforms[0].archive())
	if _, err := complete(string(template), "v9.8.7", sums); err == nil || !strings.Contains(err.Error(), "nothing builds") {
		t.Errorf("an archive that is not built: %v", err)
	}
}

// unpack extracts an archive, and returns the names of its files.
func unpack(t *testing.T, archive, dir string) []string {
	t.Helper()
	file, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	compressed, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for packed := tar.NewReader(compressed); ; {
		header, err := packed.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(packed)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, header.Name), data, os.FileMode(header.Mode)); err != nil {
			t.Fatal(err)
		}
		names = append(names, header.Name)
	}
}
