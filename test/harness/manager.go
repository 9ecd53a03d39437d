package harness

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// BuildManager builds the manager of this tree into a directory.
func BuildManager(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "manager")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/manager")
	build.Dir = Root()
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the manager: %w\n%s", err, out)
	}
	return binary, nil
}

// Manager is a manager process outside of the cluster.
type Manager struct {
	// Log is the file that it writes to.
	Log string
	// MetricsURL is where it serves its metrics, to anybody on this machine.
	MetricsURL string

	command *exec.Cmd
	done    chan struct{}
}

// StartManager starts a manager, with more arguments where there are any, and waits until it is ready.
func StartManager(ctx context.Context, binary, kubeconfig, dir string, args ...string) (*Manager, error) {
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	log, err := os.CreateTemp(dir, "manager-*.log")
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the process has its own copy
	metrics := "127.0.0.1:" + strconv.Itoa(ports[2])
	m := &Manager{Log: log.Name(), MetricsURL: "http://" + metrics + "/metrics", done: make(chan struct{})}
	m.command = exec.Command(binary, append(args,
		"--webhook-host=127.0.0.1", "--webhook-bind-address=127.0.0.1", "--webhook-port="+strconv.Itoa(ports[0]),
		"--health-probe-bind-address=127.0.0.1:"+strconv.Itoa(ports[1]),
		"--metrics-bind-address="+metrics, "--metrics-secure=false", "--leader-elect=false", "--namespace=default")...)
	m.command.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig)
	m.command.Stdout, m.command.Stderr = log, log
	m.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := m.command.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = m.command.Wait()
		close(m.done)
	}()
	if err := m.waitReady(ctx, ports[1]); err != nil {
		m.Kill()
		return nil, err
	}
	return m, nil
}

func (m *Manager) waitReady(ctx context.Context, port int) error {
	err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		select {
		case <-m.done:
			return false, fmt.Errorf("the manager exited")
		default:
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/readyz", port), nil)
		if err != nil {
			return false, err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return false, nil // not listening yet
		}
		defer func() { _ = response.Body.Close() }()
		return response.StatusCode == http.StatusOK, nil
	})
	if err != nil {
		tail, _ := os.ReadFile(m.Log)
		return fmt.Errorf("the manager did not get ready: %w; it wrote:\n%s", err, tail[max(0, len(tail)-4000):])
	}
	return nil
}

// PID is the process's.
func (m *Manager) PID() int { return m.command.Process.Pid }

// Kill ends the process as a crash would (SIGKILL) and waits for its end.
func (m *Manager) Kill() { m.signal(syscall.SIGKILL) }

// Stop asks the process to stop (SIGTERM) and waits for its end.
func (m *Manager) Stop() { m.signal(syscall.SIGTERM) }

func (m *Manager) signal(s syscall.Signal) {
	_ = m.command.Process.Signal(s) // it may have ended by itself
	select {
	case <-m.done:
	case <-time.After(30 * time.Second):
		_ = m.command.Process.Kill()
		<-m.done
	}
}

// freePorts finds loopback ports that nobody listens on.
func freePorts(count int) ([]int, error) {
	var ports []int
	for range count {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = listener.Close() }() // held until all are found, so that they differ
		ports = append(ports, listener.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
