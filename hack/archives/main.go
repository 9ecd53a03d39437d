// Command archives builds the release archives of kubectl sidecar for all platforms, and completes the manifest of the krew
// index by their sums. `make plugin-archives` runs it.
package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
)

// platform is what a program runs on, in the words of Go.
type platform struct{ os, arch string }

// platforms are those of .krew.yaml.
var platforms = []platform{{"linux", "amd64"}, {"linux", "arm64"}, {"darwin", "amd64"}, {"darwin", "arm64"}, {"windows", "amd64"}}

func (p platform) archive() string { return fmt.Sprintf("kubectl-sidecar_%s_%s.tar.gz", p.os, p.arch) }

func (p platform) program() string {
	if p.os == "windows" {
		return "kubectl-sidecar.exe"
	}
	return "kubectl-sidecar"
}

func main() {
	root := flag.String("root", ".", "The root of the tree.")
	out := flag.String("out", "", "The folder that the archives and the manifest are written to.")
	tag := flag.String("tag", "", "The tag of the release, like v0.1.0.")
	flag.Parse()
	if err := run(context.Background(), *root, *out, *tag); err != nil {
		fmt.Fprintln(os.Stderr, "archives:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, root, out, tag string) error {
	if out == "" || !strings.HasPrefix(tag, "v") {
		return fmt.Errorf("usage: archives -out <folder> -tag v1.2.3")
	}
	sums := map[string]string{}
	for _, p := range platforms {
		sum, err := build(ctx, root, out, p, "-trimpath", "-buildvcs=false", "-ldflags=-s -w")
		if err != nil {
			return err
		}
		sums[p.archive()] = sum
		fmt.Printf("%s  %s\n", sum, p.archive())
	}
	text, err := os.ReadFile(filepath.Join(root, ".krew.yaml"))
	if err != nil {
		return err
	}
	manifest, err := complete(string(text), tag, sums)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(out, "sidecar.yaml"), []byte(manifest), 0o644)
}

// build makes the archive of one platform, and returns its sum. The same commit, Go and flags of its build give the same bytes.
func build(ctx context.Context, root, out string, p platform, flags ...string) (string, error) {
	dir, err := os.MkdirTemp("", "kubectl-sidecar-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(dir) }() // in a folder for such things
	program := filepath.Join(dir, p.program())
	command := exec.CommandContext(ctx, "go", append(append([]string{"build"}, flags...), "-o", program, "./cmd/kubectl-sidecar")...)
	command.Dir, command.Stderr = root, os.Stderr
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+p.os, "GOARCH="+p.arch)
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("building kubectl-sidecar for %s/%s: %w", p.os, p.arch, err)
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return "", err
	}
	archive := filepath.Join(out, p.archive())
	err = pack(archive, program, filepath.Join(root, "cmd", "kubectl-sidecar", "kubectl_complete-sidecar"), filepath.Join(root, "LICENSE"))
	if err != nil {
		return "", err
	}
	return sumOf(archive)
}

// pack writes files into an archive, all of them at its top.
func pack(archive string, files ...string) (err error) {
	target, err := os.Create(archive)
	if err != nil {
		return err
	}
	defer func() {
		if closed := target.Close(); err == nil {
			err = closed
		}
	}()
	compressed := gzip.NewWriter(target)
	packed := tar.NewWriter(compressed)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		header := &tar.Header{Name: filepath.Base(file), Mode: 0o755, Size: int64(len(data)), Format: tar.FormatUSTAR}
		if err := packed.WriteHeader(header); err != nil {
			return err
		}
		if _, err := packed.Write(data); err != nil {
			return err
		}
	}
	if err := packed.Close(); err != nil {
		return err
	}
	return compressed.Close()
}

func sumOf(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }() // it was only read
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// complete fills in the template of krew-release-bot that .krew.yaml is, with the sums of archives that are not published yet.
func complete(manifest, tag string, sums map[string]string) (string, error) {
	release := struct{ TagName string }{tag}
	functions := template.FuncMap{"addURIAndSha": func(uri, tag string) (string, error) {
		uri = strings.ReplaceAll(uri, "{{ .TagName }}", tag)
		sum, found := sums[uri[strings.LastIndex(uri, "/")+1:]]
		if !found {
			return "", fmt.Errorf("nothing builds %s", uri)
		}
		return fmt.Sprintf("uri: %s\n    sha256: %s", uri, sum), nil
	}}
	parsed, err := template.New("manifest").Funcs(functions).Option("missingkey=error").Parse(manifest)
	if err != nil {
		return "", fmt.Errorf(".krew.yaml: %w", err)
	}
	var text strings.Builder
	if err := parsed.Execute(&text, release); err != nil {
		return "", fmt.Errorf(".krew.yaml: %w", err)
	}
	return text.String(), nil
}
