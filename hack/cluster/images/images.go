// Package images makes container images of Go programs, and serves them,
// without a container engine.
package images

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Nonroot is the user that an image runs as unless it says otherwise.
const Nonroot = "65532:65532"

// Spec is an image of one Go program.
type Spec struct {
	// Package is the main package, as `go build` takes it.
	Package string
	// Dir is where `go build` runs; the working directory when empty.
	Dir string
	// LDFlags and Tags go to `go build`.
	LDFlags, Tags string
	// Binary is the path of the program in the image: /<last part of the
	// package's path> when empty.
	Binary string
	// Args follow the program in the entrypoint.
	Args []string
	// Env are NAME=value pairs.
	Env []string
	// User is Nonroot when empty.
	User string
	// Labels also set images apart that are otherwise the same: without them
	// two tags of one program and the same arguments have one digest.
	Labels map[string]string
}

// Push builds the image and pushes it to ref. A registry on a loopback address
// is talked to over plain HTTP. It returns the reference by digest.
func Push(ctx context.Context, ref string, spec Spec) (string, error) {
	tag, err := name.ParseReference(ref)
	if err != nil {
		return "", err
	}
	image, err := Build(ctx, spec)
	if err != nil {
		return "", fmt.Errorf("build %s: %w", ref, err)
	}
	if err := remote.Write(tag, image, remote.WithContext(ctx)); err != nil {
		return "", fmt.Errorf("push %s: %w", ref, err)
	}
	digest, err := image.Digest()
	if err != nil {
		return "", err
	}
	return tag.Context().Digest(digest.String()).String(), nil
}

// Build builds the program and packs it as the only layer of an image.
func Build(ctx context.Context, spec Spec) (v1.Image, error) {
	path := spec.binaryPath()
	layer, err := layers.get(ctx, spec, path)
	if err != nil {
		return nil, err
	}
	image := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	image = mutate.ConfigMediaType(image, types.OCIConfigJSON)
	image, err = mutate.AppendLayers(image, layer)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config = spec.config(path)
	return mutate.ConfigFile(image, config)
}

func (s Spec) binaryPath() string {
	if s.Binary != "" {
		return s.Binary
	}
	return "/" + filepath.Base(s.Package)
}

func (s Spec) config(path string) v1.Config {
	user := s.User
	if user == "" {
		user = Nonroot
	}
	return v1.Config{
		Entrypoint: append([]string{path}, s.Args...),
		Env:        s.Env,
		User:       user,
		Labels:     s.Labels,
		WorkingDir: "/",
	}
}

// layerCache keeps the layers of this process, since tests push many tags of
// one program.
type layerCache struct {
	mutex  sync.Mutex
	layers map[string]v1.Layer
}

var layers = layerCache{layers: map[string]v1.Layer{}}

func (c *layerCache) get(ctx context.Context, spec Spec, path string) (v1.Layer, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	key := strings.Join([]string{spec.Dir, spec.Package, spec.LDFlags, spec.Tags, path}, "\x00")
	if layer, built := c.layers[key]; built {
		return layer, nil
	}
	binary, err := compile(ctx, spec)
	if err != nil {
		return nil, err
	}
	archive, err := pack(path, binary)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(archive)), nil
	}, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	c.layers[key] = layer
	return layer, nil
}

// compile builds for a Linux node even when it runs elsewhere.
func compile(ctx context.Context, spec Spec) ([]byte, error) {
	dir, err := os.MkdirTemp("", "image-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	out := filepath.Join(dir, "program")
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-trimpath",
		"-ldflags", strings.TrimSpace("-s -w "+spec.LDFlags), "-tags", spec.Tags, "-o", out, spec.Package)
	cmd.Dir = spec.Dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if output, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build %s: %w\n%s", spec.Package, err, output)
	}
	return os.ReadFile(out)
}

// pack writes a tar without times or owners, so that the same program always
// has the same digest. /tmp is there because programs expect one.
func pack(path string, binary []byte) ([]byte, error) {
	var buffer bytes.Buffer
	archive := tar.NewWriter(&buffer)
	headers := []tar.Header{{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}}
	file := strings.TrimPrefix(path, "/")
	for i, c := range file {
		if c == '/' {
			headers = append(headers, tar.Header{Name: file[:i+1], Typeflag: tar.TypeDir, Mode: 0o755})
		}
	}
	headers = append(headers, tar.Header{Name: file, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(binary))})
	for i := range headers {
		if err := archive.WriteHeader(&headers[i]); err != nil {
			return nil, err
		}
	}
	if _, err := archive.Write(binary); err != nil {
		return nil, err
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	return buffer.Bytes(), nil
}
