// Package programs says how images of real sidecars are made: from Go modules, each below this
// folder, and from Debian's packages. What a sidecar does is in its image, with its configuration
// and its arguments, so that another image is all that an upgrade needs.
package programs

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"

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

// OAuth2Proxy is oauth2-proxy at port 4180 before an app at port 8080. It lets those in who know
// one of the passwords, which are named by user.
func OAuth2Proxy(passwords map[string]string) images.Spec {
	const path = "/etc/oauth2-proxy/htpasswd"
	return images.Spec{
		Dir: module("oauth2-proxy"), Package: "github.com/oauth2-proxy/oauth2-proxy/v7", Binary: "/oauth2-proxy",
		Args: []string{
			"--http-address=:4180", "--upstream=http://127.0.0.1:8080/", "--htpasswd-file=" + path,
			// It does not start without a provider. This one is not asked before somebody logs in there.
			"--provider=github", "--client-id=none", "--client-secret=none", "--email-domain=*",
			"--cookie-secret=" + strings.Repeat("0", 32), "--request-logging=false", "--auth-logging=false",
		},
		Files: map[string]string{path: htpasswd(passwords)},
	}
}

// htpasswd is a file of users as Apache's program of that name writes it, with SHA-1: the passwords
// of a test are no secrets.
func htpasswd(passwords map[string]string) string {
	var file strings.Builder
	for user, password := range passwords {
		sum := sha1.Sum([]byte(password))
		_, _ = fmt.Fprintf(&file, "%s:{SHA}%s\n", user, base64.StdEncoding.EncodeToString(sum[:]))
	}
	return file.String()
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

// HAProxy is Debian's HAProxy.
func HAProxy(ctx context.Context, config string) (images.Spec, error) {
	const path = "/etc/haproxy/haproxy.cfg"
	root, err := debian.Unpack(ctx, "haproxy", "libc6", "libcap2", "libcrypt1", "libgcc-s1", "libgcrypt20", "libgpg-error0",
		"liblua5.3-0", "liblz4-1", "liblzma5", "libopentracing-c-wrapper0", "libopentracing1", "libpcre2-8-0", "libssl3",
		"libstdc++6", "libsystemd0", "libzstd1", "zlib1g")
	return images.Spec{
		Root: root, Binary: "/usr/sbin/haproxy", Args: []string{"-W", "-db", "-f", path},
		Files: map[string]string{path: config},
		// SIGTERM would cut off the requests that are under way.
		StopSignal: "SIGUSR1",
	}, err
}
