// Package prometheus starts a real Prometheus server for a test, and serves metrics for it.
package prometheus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/api"
	prometheusv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/model"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/yaml"
)

const (
	// grace is the time between SIGTERM and SIGKILL.
	grace = 5 * time.Second
	// poll is how often the server is asked whether it is ready.
	poll = 50 * time.Millisecond
)

// Away is a matcher of series that the server would read from another one, which is not
// there: a query with it is answered with a warning.
const Away = `store="away"`

// Server is a running Prometheus server.
type Server struct {
	// URL is its address, as a policy names it.
	URL string

	targets int
	log     string
	process *os.Process
	ended   chan struct{}
}

// Serve serves metrics at /metrics, on loopback. The caller closes it. Its Listener's address
// is a target.
func Serve(metrics prometheus.Gatherer) *httptest.Server {
	return httptest.NewServer(promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
}

// Start starts a server that keeps its data, its configuration and its log in dir and scrapes
// the targets (host:port) every second, and waits until it is ready. The caller stops it.
func Start(ctx context.Context, dir string, targets ...string) (*Server, error) {
	path, err := binary(ctx, "prometheus")
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "prometheus.yml")
	if err := writeConfig(config, targets); err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	s := &Server{URL: "http://" + address, targets: len(targets), log: filepath.Join(dir, "prometheus.log"), ended: make(chan struct{})}
	err = s.start(path,
		"--config.file="+config,
		"--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+address,
		"--enable-feature=native-histograms")
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	if err := s.waitFor(ctx, "to be ready", s.ready); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// writeConfig names the job test, and a server to read from that is not there. See Away.
func writeConfig(path string, targets []string) error {
	key, value, _ := strings.Cut(Away, "=")
	config, err := yaml.Marshal(map[string]any{
		"global":         map[string]any{"scrape_interval": "1s", "scrape_timeout": "1s"},
		"scrape_configs": []any{map[string]any{"job_name": "test", "static_configs": []any{map[string]any{"targets": targets}}}},
		"remote_read": []any{map[string]any{
			"url": "http://127.0.0.1:1/", "read_recent": true, "required_matchers": map[string]string{key: strings.Trim(value, `"`)},
		}},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(path, config, 0o644)
}

func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

// start starts the child from a thread that lives as long as it: a child that dies with its
// parent does so with the parent's thread, and Go ends threads at will.
func (s *Server) start(path string, args ...string) error {
	log, err := os.Create(s.log)
	if err != nil {
		return err
	}
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = childAttributes()
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer func() { _ = log.Close() }()
		err := cmd.Start()
		s.process = cmd.Process
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(s.ended)
		}
	}()
	return <-started
}

// Stop stops the server.
func (s *Server) Stop() error {
	if err := s.process.Signal(syscall.SIGTERM); errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	select {
	case <-s.ended:
		return nil
	case <-time.After(grace):
	}
	err := errors.Join(fmt.Errorf("prometheus had to be killed, %s after SIGTERM", grace), s.process.Kill())
	<-s.ended
	return err
}

// WaitForTargets waits until the samples of every target can be queried.
func (s *Server) WaitForTargets(ctx context.Context) error {
	client, err := api.NewClient(api.Config{Address: s.URL})
	if err != nil {
		return err
	}
	return s.waitFor(ctx, "to scrape its targets", func(ctx context.Context) error {
		// Not the targets' health, which is set before their samples are stored.
		up, _, err := prometheusv1.NewAPI(client).Query(ctx, "up == 1", time.Time{})
		if err != nil {
			return err
		}
		if found, ok := up.(model.Vector); !ok || len(found) < s.targets {
			return fmt.Errorf("%d targets, and up are: %s", s.targets, up)
		}
		return nil
	})
}

func (s *Server) ready(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/-/ready", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		err = errors.New(response.Status)
	}
	return errors.Join(err, response.Body.Close())
}

// waitFor polls check until it returns nil. It gives up when the server ends or ctx does.
func (s *Server) waitFor(ctx context.Context, what string, check func(context.Context) error) error {
	var last error
	err := wait.PollUntilContextCancel(ctx, poll, true, func(ctx context.Context) (bool, error) {
		select {
		case <-s.ended:
			return false, errors.New("it ended")
		default:
		}
		if err := check(ctx); err != nil {
			if ctx.Err() == nil {
				last = err
			}
			return false, nil
		}
		return true, nil
	})
	if err == nil {
		return nil
	}
	log, _ := os.ReadFile(s.log)
	return fmt.Errorf("prometheus at %s was waited for %s: %w (last: %w)\n%s", s.URL, what, err, last, log)
}
