package prometheus

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// Promtool is the path of Prometheus' tool, which is found as the server is.
func Promtool(ctx context.Context) (string, error) { return binary(ctx, "promtool") }

// binary finds a program of Prometheus on the PATH, or in the cache, where Debian's package is unpacked
// first where that has not been done yet. The package is not installed: no server of the
// machine's is started, and no root is needed where apt knows its lists.
func binary(ctx context.Context, name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	caches, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder: %w", err)
	}
	cache := filepath.Join(caches, "sidecar-operator", "prometheus")
	dir := filepath.Join(cache, runtime.GOARCH)
	path := filepath.Join(dir, "usr", "bin", name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := unpack(ctx, cache, dir); err != nil {
		return "", fmt.Errorf("there is no Prometheus on the PATH and Debian's can't be had: install one: %w", err)
	}
	return path, nil
}

// unpack makes dir beside and moves it into place whole: what was interrupted leaves nothing
// that looks finished, and who comes second finds the work done.
func unpack(ctx context.Context, cache, dir string) error {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	making, err := os.MkdirTemp(cache, ".unpacking.")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(making) }()
	if err := download(ctx, making); err != nil {
		return err
	}
	packages, _ := filepath.Glob(filepath.Join(making, "*.deb"))
	if len(packages) != 1 {
		return fmt.Errorf("apt-get left %d packages in %s, want 1", len(packages), making)
	}
	made := filepath.Join(making, "made")
	if err := run(ctx, making, "dpkg", "-x", packages[0], made); err != nil {
		return err
	}
	if err := os.Rename(made, dir); err != nil {
		if _, there := os.Stat(dir); there != nil {
			return err
		}
	}
	return nil
}

// download asks for newer lists only where those that are there don't do: a fresh container has none.
func download(ctx context.Context, dir string) error {
	get := []string{"-q", "-o", "APT::Sandbox::User=root", "download", "prometheus"}
	if run(ctx, dir, "apt-get", get...) == nil {
		return nil
	}
	if err := run(ctx, dir, "apt-get", "-q", "-o", "DPkg::Lock::Timeout=60", "update"); err != nil {
		return err
	}
	return run(ctx, dir, "apt-get", get...)
}

func run(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, output)
	}
	return nil
}
