// Package images makes container images of programs, and serves them, without
// a container engine.
package images

import (
	"context"
	"fmt"
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
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Nonroot is the user that an image runs as unless it says otherwise.
const Nonroot = "65532:65532"

// Spec is an image of one program.
type Spec struct {
	// Package is the main package of a Go program, as `go build` takes it.
	// Empty when Root has the program.
	Package string
	// Dir is where `go build` runs; the working directory when empty.
	Dir string
	// LDFlags and Tags go to `go build`.
	LDFlags, Tags string
	// Root is a folder whose content becomes the image's file tree, and belongs
	// to root there.
	Root string
	// Files are the contents of further files, by their paths in the image.
	// Everybody may read them. A path that ends with a slash is a folder that
	// everybody may write to, its content is ignored.
	Files map[string]string
	// Binary is the path of the program in the image: /<last part of the
	// package's path> when empty.
	Binary string
	// Args follow the program in the entrypoint.
	Args []string
	// Env are NAME=value pairs.
	Env []string
	// User is Nonroot when empty.
	User string
	// StopSignal is how the program is asked to end: SIGTERM when empty.
	StopSignal string
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

// Build packs what the image is made of: the Go program, the file tree and the
// further files, each as a layer.
func Build(ctx context.Context, spec Spec) (v1.Image, error) {
	layers, err := spec.layers(ctx)
	if err != nil {
		return nil, err
	}
	image := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	image = mutate.ConfigMediaType(image, types.OCIConfigJSON)
	image, err = mutate.AppendLayers(image, layers...)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config = spec.config()
	return mutate.ConfigFile(image, config)
}

// layers come with what changes least first.
func (s Spec) layers(ctx context.Context) ([]v1.Layer, error) {
	var all []v1.Layer
	if s.Root != "" {
		layer, err := cache.get(s.Root, func() ([]byte, error) { return packTree(s.Root) })
		if err != nil {
			return nil, err
		}
		all = append(all, layer)
	}
	if s.Package != "" {
		key := strings.Join([]string{s.Dir, s.Package, s.LDFlags, s.Tags, s.binaryPath()}, "\x00")
		layer, err := cache.get(key, func() ([]byte, error) { return s.packProgram(ctx) })
		if err != nil {
			return nil, err
		}
		all = append(all, layer)
	}
	archive, err := packFiles(s.Files)
	if err != nil {
		return nil, err
	}
	layer, err := newLayer(archive)
	return append(all, layer), err
}

func (s Spec) binaryPath() string {
	if s.Binary != "" {
		return s.Binary
	}
	return "/" + filepath.Base(s.Package)
}

func (s Spec) config() v1.Config {
	user := s.User
	if user == "" {
		user = Nonroot
	}
	return v1.Config{
		Entrypoint: append([]string{s.binaryPath()}, s.Args...),
		Env:        s.Env,
		User:       user,
		Labels:     s.Labels,
		StopSignal: s.StopSignal,
		WorkingDir: "/",
	}
}

// layerCache keeps the layers of this process, since tests push many tags of
// one program.
type layerCache struct {
	mutex  sync.Mutex
	layers map[string]v1.Layer
}

var cache = layerCache{layers: map[string]v1.Layer{}}

func (c *layerCache) get(key string, pack func() ([]byte, error)) (v1.Layer, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if layer, made := c.layers[key]; made {
		return layer, nil
	}
	archive, err := pack()
	if err != nil {
		return nil, err
	}
	layer, err := newLayer(archive)
	if err != nil {
		return nil, err
	}
	c.layers[key] = layer
	return layer, nil
}

func (s Spec) packProgram(ctx context.Context) ([]byte, error) {
	binary, err := compile(ctx, s)
	if err != nil {
		return nil, err
	}
	return pack(entry{path: s.binaryPath(), mode: 0o755, content: binary})
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
