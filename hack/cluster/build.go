package cluster

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// AssetsEnv names the folder that envtest takes etcd, kube-apiserver and
// kubectl from. When it is set these three are used and not built.
const AssetsEnv = "KUBEBUILDER_ASSETS"

// Build makes sure that the components exist and returns one folder with all
// of them; without components it builds the whole cluster. A binary is built
// once for each version and kept in the user's cache folder.
func Build(ctx context.Context, log io.Writer, components ...Component) (string, error) {
	if len(components) == 0 {
		components = slices.Concat(ComponentsFor(RealNode), []Component{Kwok}, OLMComponents())
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	b := builder{cache: cache, log: orDiscard(log), assets: os.Getenv(AssetsEnv)}
	var paths []string
	for _, component := range uniqueComponents(components) {
		path, err := b.binary(ctx, component)
		if err != nil {
			return "", err
		}
		paths = append(paths, path)
	}
	return b.assemble(paths)
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

func cacheDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder: %w", err)
	}
	return filepath.Join(base, "sidecar-operator", "cluster"), nil
}

type builder struct {
	cache  string
	log    io.Writer
	assets string
}

// binary returns the path of a component, which it builds if it has to.
func (b builder) binary(ctx context.Context, component Component) (string, error) {
	if b.assets != "" && slices.Contains(EnvtestAssets(), component) {
		path := filepath.Join(b.assets, string(component))
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("%s is set but: %w", AssetsEnv, err)
		}
		return filepath.Abs(path)
	}
	src, known := sources[component]
	if !known {
		return "", fmt.Errorf("unknown component %q", component)
	}
	plan, err := planBuild(component, src)
	if err != nil {
		return "", fmt.Errorf("plan the build of %s: %w", component, err)
	}
	path := filepath.Join(b.cache, src.module+"-"+plan.key, "bin", string(component))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	return path, b.build(ctx, plan, path)
}

// buildPlan is everything there is to know about a build before it starts.
type buildPlan struct {
	component Component
	source    source
	dir       string
	version   string
	flags     []string
	key       string
}

func planBuild(component Component, src source) (buildPlan, error) {
	components, err := componentsDir()
	if err != nil {
		return buildPlan{}, err
	}
	dir := filepath.Join(components, src.module)
	gomod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return buildPlan{}, err
	}
	gosum, err := os.ReadFile(filepath.Join(dir, "go.sum"))
	if err != nil {
		return buildPlan{}, err
	}
	version, err := moduleVersion(gomod, src.requirement)
	if err != nil {
		return buildPlan{}, err
	}
	flags := []string{"-buildvcs=false", "-ldflags", ldflags(src.module, version)}
	if src.tags != "" {
		flags = append(flags, "-tags", src.tags)
	}
	platform := runtime.GOOS + "/" + runtime.GOARCH
	key := cacheKey(gomod, gosum, []byte(strings.Join(flags, " ")), []byte(platform))
	return buildPlan{component, src, dir, version, flags, key}, nil
}

// build compiles to a temporary name and renames, so that a path that exists
// is a whole binary.
func (b builder) build(ctx context.Context, plan buildPlan, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	lock, err := acquireLock(ctx, filepath.Join(filepath.Dir(filepath.Dir(path)), "lock"), func() {
		_, _ = fmt.Fprintf(b.log, "waiting for another build of %s ...\n", plan.source.module)
	})
	if err != nil {
		return fmt.Errorf("lock the build of %s: %w", plan.component, err)
	}
	defer lock.release()
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	_, _ = fmt.Fprintf(b.log, "building %s %s (%s when cold) ...\n", plan.component, plan.version, plan.source.cold)
	started := time.Now()
	if err := goBuild(ctx, plan, path); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(b.log, "built %s in %s\n", plan.component, time.Since(started).Round(time.Second))
	return nil
}

func goBuild(ctx context.Context, plan buildPlan, path string) error {
	temporary := path + ".tmp"
	defer func() { _ = os.Remove(temporary) }()
	args := append([]string{"build", "-o", temporary}, plan.flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, plan.source.pkg)...)
	cmd.Dir = plan.dir
	// A workspace of the caller would replace the versions of the module.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", plan.component, err, output.String())
	}
	return os.Rename(temporary, path)
}

// assemble links the binaries into one folder, because envtest and containerd
// both want theirs side by side. The folder's name depends on the paths, which
// hold the modules' keys, so that two callers never pull at one link.
func (b builder) assemble(paths []string) (string, error) {
	var parts [][]byte
	for _, path := range paths {
		parts = append(parts, []byte(path))
	}
	dir := filepath.Join(b.cache, "bin-"+cacheKey(parts...))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for _, path := range paths {
		if err := link(path, filepath.Join(dir, filepath.Base(path))); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// link replaces what is there in one step, as somebody may be starting it.
func link(target, path string) error {
	if current, err := os.Readlink(path); err == nil && current == target {
		return nil
	}
	temporary := fmt.Sprintf("%s.%d.tmp", path, os.Getpid())
	_ = os.Remove(temporary)
	if err := os.Symlink(target, temporary); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}
