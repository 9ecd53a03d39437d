package prometheus

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"

	"github.com/sidecar-dev/sidecar-operator/test/debian"
)

// Promtool is the path of Prometheus' tool, which is found as the server is.
func Promtool(ctx context.Context) (string, error) { return binary(ctx, "promtool") }

// binary finds a program of Prometheus on the PATH, or in Debian's package.
func binary(ctx context.Context, name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	dir, err := debian.Unpack(ctx, "prometheus")
	if err != nil {
		return "", fmt.Errorf("there is no %s on the PATH: install Prometheus: %w", name, err)
	}
	return filepath.Join(dir, "usr", "bin", name), nil
}
