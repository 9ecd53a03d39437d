// Package programs says how images of real sidecars are made: from Go modules, each below this
// folder, and from Debian's packages. What a sidecar does is in its image, with its configuration
// and its arguments, so that another image is all that an upgrade needs.
package programs

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"

	"github.com/sidecar-dev/sidecar-operator/hack/cluster/images"
	"github.com/sidecar-dev/sidecar-operator/test/debian"
)

// module is the folder of a Go module that pins a program.
func module(name string) string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), name)
}

// OTelCollector is an OpenTelemetry Collector that reads files and writes them into another one.
func OTelCollector(config string) images.Spec {
	const path = "/etc/otelcol/config.yaml"
	return images.Spec{
		Dir: module("otelcol"), Package: ".", Binary: "/otelcol", Args: []string{"--config=" + path},
		Files: map[string]string{path: config},
	}
}

// StatsdExporter is Prometheus' exporter of StatsD metrics, 0.30 or 0.31. It takes them at UDP port
// 9125 and serves them at port 9102.
func StatsdExporter(version string) images.Spec {
	return images.Spec{
		Dir: module("statsd-exporter-" + version), Package: "github.com/prometheus/statsd_exporter",
		LDFlags: "-X github.com/prometheus/common/version.Version=" + version,
		Args:    []string{"--statsd.listen-tcp=", "--log.level=warn"},
	}
}

// Nginx is Debian's nginx. The configuration is the inside of its http block.
func Nginx(ctx context.Context, http string) (images.Spec, error) {
	const path = "/etc/nginx/nginx.conf"
	root, err := debian.Unpack(ctx, "nginx", "libc6", "libcrypt1", "libpcre2-8-0", "libssl3", "zlib1g")
	return images.Spec{
		Root: root, Binary: "/usr/sbin/nginx", Args: []string{"-e", "stderr", "-c", path},
		Files: map[string]string{path: fmt.Sprintf(nginxConfig, http)},
		// SIGTERM would cut off the requests that are under way.
		StopSignal: "SIGQUIT",
	}, err
}

// nginxConfig writes nowhere but below /tmp, since it is not run by root.
const nginxConfig = `
daemon off;
pid /tmp/nginx.pid;
error_log stderr;
events {}
http {
  access_log off;
  client_body_temp_path /tmp/client;
  proxy_temp_path /tmp/proxy;
  fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi;
  scgi_temp_path /tmp/scgi;
%s
}
`
