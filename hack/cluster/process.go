package cluster

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// tailSize is how much of a log an error carries.
const tailSize = 3000

// spawner starts children from one thread that lives as long as this process.
// The death signal of a child is bound to the thread that started it, and Go
// ends threads at will.
var spawner = sync.OnceValue(func() chan<- func() {
	jobs := make(chan func())
	go func() {
		runtime.LockOSThread()
		for job := range jobs {
			job()
		}
	}()
	return jobs
})

// process is a child that runs until it is stopped.
type process struct {
	name    string
	cmd     *exec.Cmd
	logPath string
	done    chan struct{}
	// beforeStop runs while the process and all that were started before it
	// are still there.
	beforeStop func()
	// grace is the time between SIGTERM and SIGKILL.
	grace time.Duration
}

// startProcess starts a binary with its output in logDir, and notes the pid in
// the run folder for whoever cleans up after us. env is added to this
// process's own.
func startProcess(run runDir, logDir, name, path string, env []string, args ...string) (*process, error) {
	logPath := filepath.Join(logDir, name+".log")
	log, err := os.Create(logPath)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(path, args...)
	cmd.Dir = run.path
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = childAttributes()
	started := make(chan error)
	spawner() <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, cmd: cmd, logPath: logPath, done: make(chan struct{}), grace: time.Second}
	go func() {
		_ = cmd.Wait()
		close(p.done)
	}()
	if err := run.record(name, cmd.Process.Pid); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// stop ends the process and whatever is left of its process group.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(p.grace):
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
}

// waitFor polls check until it returns nil. It gives up when the process ends
// or ctx does, and then tells what the process last said.
func (p *process) waitFor(ctx context.Context, what string, check func(context.Context) error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.done:
			return fmt.Errorf("%s ended before %s: %s\n%s", p.name, what, p.cmd.ProcessState, tail(p.logPath))
		case <-ctx.Done():
			return fmt.Errorf("%s: no %s: %w (last: %w)\n%s", p.name, what, ctx.Err(), err, tail(p.logPath))
		}
	}
}

// tail returns the end of a log, from the start of a line.
func tail(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	if len(data) > tailSize {
		data = data[len(data)-tailSize:]
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			data = data[i+1:]
		}
	}
	return fmt.Sprintf("--- end of %s ---\n%s", path, data)
}
