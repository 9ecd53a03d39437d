// Package debian has programs of Debian's packages for the tests. The packages are not installed:
// no server of the machine's is started, and no root is needed where apt knows its lists.
package debian

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// Unpack returns a folder with the files of the packages, as they would be below /. What they
// depend on has to be named too. They are downloaded once, into the user's cache folder.
func Unpack(ctx context.Context, packages ...string) (string, error) {
	caches, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder: %w", err)
	}
	cache := filepath.Join(caches, "sidecar-operator", "debian")
	hash := sha256.Sum256([]byte(strings.Join(packages, " ")))
	dir := filepath.Join(cache, fmt.Sprintf("%s-%s-%.6x", packages[0], runtime.GOARCH, hash))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := unpack(ctx, cache, dir, packages); err != nil {
		return "", fmt.Errorf("get Debian's %s: %w", packages[0], err)
	}
	return dir, nil
}

// unpack makes dir beside and moves it into place whole: what was interrupted leaves nothing
// that looks finished, and who comes second finds the work done.
func unpack(ctx context.Context, cache, dir string, packages []string) error {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	making, err := os.MkdirTemp(cache, ".unpacking.")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(making) }()
	if err := download(ctx, making, packages); err != nil {
		return err
	}
	archives, _ := filepath.Glob(filepath.Join(making, "*.deb"))
	if len(archives) != len(packages) {
		return fmt.Errorf("apt-get left %d packages in %s, want %d", len(archives), making, len(packages))
	}
	made := filepath.Join(making, "made")
	for _, archive := range archives {
		if err := run(ctx, making, "dpkg", "-x", archive, made); err != nil {
			return err
		}
	}
	if err := os.Rename(made, dir); err != nil {
		if _, there := os.Stat(dir); there != nil {
			return err
		}
	}
	return nil
}

// download asks for newer lists only where those that are there don't do: a fresh container has none.
func download(ctx context.Context, dir string, packages []string) error {
	get := append([]string{"-q", "-o", "APT::Sandbox::User=root", "download"}, packages...)
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
