package cluster

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"
)

func TestEveryComponentHasASource(t *testing.T) {
	for _, kind := range []Kind{ControlPlane, Simulated, RealNode} {
		for _, component := range ComponentsFor(kind) {
			src, known := sources[component]
			if !known {
				t.Errorf("%s: no source", component)
				continue
			}
			plan, err := planBuild(component, src)
			if err != nil {
				t.Errorf("%s: %v", component, err)
			} else if !strings.HasPrefix(plan.version, "v") || len(plan.key) != 12 {
				t.Errorf("%s: version %q, key %q", component, plan.version, plan.key)
			}
		}
	}
}

func TestLDFlagsTellTheVersion(t *testing.T) {
	got := ldflags("kubernetes", "v1.37.2")
	for _, want := range []string{"gitVersion=v1.37.2", "gitMajor=1", "gitMinor=37"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
	if got := ldflags("etcd", "v3.6.16"); strings.Contains(got, "-X") {
		t.Errorf("etcd knows its own version, got %q", got)
	}
}

func TestCacheKeyKeepsPartsApart(t *testing.T) {
	if cacheKey([]byte("ab"), []byte("c")) == cacheKey([]byte("a"), []byte("bc")) {
		t.Error("the border between two parts must count")
	}
}

func TestAssetsOfTheCallerAreUsed(t *testing.T) {
	assets := t.TempDir()
	t.Setenv(AssetsEnv, assets)
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	if _, err := Build(t.Context(), nil, Etcd); err == nil {
		t.Error("a folder without etcd must be refused, not silently built around")
	}
	for _, component := range EnvtestAssets() {
		if err := os.WriteFile(filepath.Join(assets, string(component)), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := Build(t.Context(), nil, EnvtestAssets()...)
	if err != nil {
		t.Fatal(err)
	}
	target, err := os.Readlink(filepath.Join(dir, string(Etcd)))
	if want := filepath.Join(assets, string(Etcd)); err != nil || target != want {
		t.Errorf("etcd is %q (%v), want %q", target, err, want)
	}
}

func TestLockIsExclusive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := tryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tryLock(path); !errors.Is(err, errLocked) {
		t.Errorf("second lock: got %v, want %v", err, errLocked)
	}
	first.release()
	second, err := tryLock(path)
	if err != nil {
		t.Errorf("lock after release: %v", err)
	}
	second.release()
}

func TestCertificates(t *testing.T) {
	certs, err := newPKI(t.TempDir(), "https://127.0.0.1:1", apiServerNames("10.1.2.3")...)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certs.ca.cert)
	data, err := os.ReadFile(certs.cert("apiserver"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	server, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"10.1.2.3", serviceIP, "localhost", "kubernetes.default.svc"} {
		if _, err := server.Verify(x509.VerifyOptions{Roots: pool, DNSName: name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := certs.kubeconfig(path, "admin", masters); err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil || config.Host != certs.server || len(config.CertData) == 0 {
		t.Errorf("host %q, %d bytes of certificate, error %v", config.Host, len(config.CertData), err)
	}
}

func TestStages(t *testing.T) {
	config, err := kwokFile()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, document := range strings.Split(string(config), "---\n") {
		var object struct {
			Kind     string
			Metadata struct{ Name string }
		}
		if err := yaml.Unmarshal([]byte(document), &object); err != nil {
			t.Fatal(err)
		}
		names = append(names, object.Kind+"/"+object.Metadata.Name)
	}
	want := []string{"KwokConfiguration/", "Stage/node-heartbeat-with-lease", "Stage/node-initialize",
		"Stage/pod-complete", "Stage/pod-delete", "Stage/pod-run"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
}

func TestSimulatedNodesCoverTheZones(t *testing.T) {
	perZone := map[string]int{}
	for i := range 7 {
		perZone[simulatedNode(i, 3).Labels["topology.kubernetes.io/zone"]]++
	}
	if diff := cmp.Diff(map[string]int{"zone-1": 3, "zone-2": 2, "zone-3": 2}, perZone); diff != "" {
		t.Error(diff)
	}
}

// socketLimit is what the kernel allows a unix socket's path, less the
// closing 0.
const socketLimit = 107

func TestSocketsAreShortEnough(t *testing.T) {
	paths := nodePaths{filepath.Join(runRoot(), nodeRun)}
	shim := filepath.Join(paths.dir("s"), strings.Repeat("f", 64))
	for _, path := range []string{paths.socket() + ".ttrpc", shim} {
		if len(path) > socketLimit {
			t.Errorf("%s has %d characters", path, len(path))
		}
	}
}

func TestProcessIsStoppedAndItsLogIsKept(t *testing.T) {
	run := runDir{path: t.TempDir()}
	if err := os.MkdirAll(run.pidDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	p, err := startProcess(run, run.path, "echo", "/bin/sh", nil, "-c", "echo last words; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	err = p.waitFor(t.Context(), "miracle", func(context.Context) error { return os.ErrNotExist })
	if err == nil || !strings.Contains(err.Error(), "last words") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("the error must tell how it ended, got %v", err)
	}
}

func TestSignalSparesAReusedPID(t *testing.T) {
	run := runDir{path: t.TempDir()}
	if err := os.MkdirAll(run.pidDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		_ = child.Wait()
		close(exited)
	}()
	if err := run.record("sleep", child.Process.Pid); err != nil {
		t.Fatal(err)
	}
	record := filepath.Join(run.pidDir(), "sleep")
	other := filepath.Join(run.pidDir(), "other")
	data, _ := os.ReadFile(record)
	if err := os.WriteFile(other, []byte(strings.Fields(string(data))[0]+" 1"), 0o600); err != nil {
		t.Fatal(err)
	}
	signalRecorded(other, syscall.SIGKILL)
	select {
	case <-exited:
		t.Fatal("killed a process with another start time")
	case <-time.After(100 * time.Millisecond):
	}
	signalRecorded(record, syscall.SIGKILL)
	<-exited
}

func TestOfKind(t *testing.T) {
	for _, test := range []struct {
		name  string
		kinds []Kind
		want  bool
	}{
		{"node", nil, true},
		{"node", []Kind{RealNode}, true},
		{"node", []Kind{Simulated}, false},
		{"simulated-1-2", []Kind{Simulated}, true},
		{"control-plane-1-2", []Kind{Simulated}, false},
	} {
		if got := ofKind(test.name, test.kinds); got != test.want {
			t.Errorf("%s of %v: %v", test.name, test.kinds, got)
		}
	}
}

func TestAPIServerArgs(t *testing.T) {
	certs := &pki{dir: "/pki"}
	node := apiServerArgs(RealNode, address{serviceIP, 443}, "http://etcd", certs)
	if !slices.Contains(node, "--enable-aggregator-routing=true") {
		t.Error("without kube-proxy webhooks need aggregator routing")
	}
	local := apiServerArgs(Simulated, address{loopback, 1}, "http://etcd", certs)
	if !slices.Contains(local, "--bind-address="+loopback) {
		t.Error("the API server may listen on the loopback address only")
	}
}
