package images

import (
	"archive/tar"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

func TestPush(t *testing.T) {
	registry, err := Serve(t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = registry.Close() }()
	digests := map[string]bool{}
	for _, tag := range []string{"v1", "v2"} {
		ref := registry.Address() + "/pause:" + tag
		digest, err := Push(t.Context(), ref, Spec{
			Package: "./pause",
			Args:    []string{"--quiet"},
			Env:     []string{"A=b"},
			Labels:  map[string]string{"tag": tag},
		})
		if err != nil {
			t.Fatal(err)
		}
		digests[digest] = true
	}
	if len(digests) != 2 {
		t.Errorf("tags with different labels must differ, got %v", digests)
	}
	for digest := range digests {
		checkImage(t, digest)
	}
}

func checkImage(t *testing.T, digest string) {
	t.Helper()
	ref, err := name.ParseReference(digest)
	if err != nil {
		t.Fatal(err)
	}
	image, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if got := config.Config.Entrypoint; len(got) != 2 || got[0] != "/pause" || got[1] != "--quiet" {
		t.Errorf("entrypoint %q", got)
	}
	if config.Config.User != Nonroot || config.OS != "linux" {
		t.Errorf("user %q, os %q", config.Config.User, config.OS)
	}
}

func TestBuildPacksFiles(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "usr", "sbin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "usr", "sbin", "server"), []byte("program"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("usr/sbin", filepath.Join(root, "sbin")); err != nil {
		t.Fatal(err)
	}
	image, err := Build(t.Context(), Spec{
		Root: root, Binary: "/usr/sbin/server", StopSignal: "SIGQUIT",
		Files: map[string]string{"/etc/server/server.conf": "listen 8080", "/var/log/server/": ""},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"sbin 777 -> usr/sbin", "usr/ 755", "usr/sbin/ 755", "usr/sbin/server 755 program",
		"tmp/ 1777", "etc/ 755", "etc/server/ 755", "etc/server/server.conf 644 listen 8080",
		"var/ 755", "var/log/ 755", "var/log/server/ 1777",
	}
	if diff := cmp.Diff(want, listing(t, image)); diff != "" {
		t.Error(diff)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Config.StopSignal != "SIGQUIT" || config.Config.Entrypoint[0] != "/usr/sbin/server" {
		t.Errorf("config %+v", config.Config)
	}
}

// listing is the files of all layers, with their modes, links and contents.
func listing(t *testing.T, image v1.Image) []string {
	t.Helper()
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, layer := range layers {
		reader, err := layer.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		archive := tar.NewReader(reader)
		for header, err := archive.Next(); err != io.EOF; header, err = archive.Next() {
			if err != nil {
				t.Fatal(err)
			}
			content, err := io.ReadAll(archive)
			if err != nil {
				t.Fatal(err)
			}
			line := fmt.Sprintf("%s %o %s", header.Name, header.Mode, content)
			if header.Linkname != "" {
				line += "-> " + header.Linkname
			}
			all = append(all, strings.TrimSpace(line))
		}
	}
	return all
}
