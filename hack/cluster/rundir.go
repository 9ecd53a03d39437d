package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// nodeRun is the name of the only run folder that a real node may have.
const nodeRun = "node"

// runDir is the folder of one cluster. Beside it stands a lock file that its
// owner holds: a folder whose lock is free belongs to nobody and is swept.
type runDir struct {
	path string
	lock *lock
}

// runRoot is the same for every start by one user, whatever the environment
// says, so that a later start finds what an earlier one left. It is short
// because a unix socket's path may not have more than 108 characters.
func runRoot() string {
	if os.Geteuid() == 0 {
		return "/var/lib/sidecar-cluster"
	}
	return fmt.Sprintf("/tmp/sidecar-cluster-%d", os.Geteuid())
}

// newRunDir sweeps what dead owners left and returns an empty folder.
func newRunDir(ctx context.Context, kind Kind, log io.Writer) (runDir, error) {
	root := runRoot()
	name := nodeRun
	if kind != RealNode {
		name = fmt.Sprintf("%s-%d-%d", kind, os.Getpid(), time.Now().UnixNano()%1e6)
	}
	lockPath := filepath.Join(root, name+".lock")
	held, err := acquireLock(ctx, lockPath, func() {
		_, _ = fmt.Fprintf(log, "waiting for the other real node on this machine (%s) ...\n", ownerOf(filepath.Join(root, name)))
	})
	if err != nil {
		return runDir{}, fmt.Errorf("another cluster holds %s (%s): %w", lockPath, ownerOf(filepath.Join(root, name)), err)
	}
	run := runDir{path: filepath.Join(root, name), lock: held}
	if err := errors.Join(sweep(root, log), run.clean()); err != nil {
		held.release()
		return runDir{}, err
	}
	if err := os.MkdirAll(run.pidDir(), 0o755); err != nil {
		held.release()
		return runDir{}, err
	}
	return run, run.record(ownerName, os.Getpid())
}

// ownerName is the pid record of the process that started the cluster.
const ownerName = "owner"

func ownerOf(path string) string {
	pid, _, err := readPID(filepath.Join(path, "pids", ownerName))
	if err != nil {
		return "unknown process"
	}
	return fmt.Sprintf("process %d", pid)
}

func (r runDir) pidDir() string { return filepath.Join(r.path, "pids") }

// record notes a process so that it can be told from a later one with the
// same pid.
func (r runDir) record(name string, pid int) error {
	start, err := startTime(pid)
	if err != nil {
		return fmt.Errorf("%s is gone already: %w", name, err)
	}
	return os.WriteFile(filepath.Join(r.pidDir(), name), fmt.Appendf(nil, "%d %s\n", pid, start), 0o644)
}

func readPID(path string) (pid int, start string, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, "", err
	}
	if _, err := fmt.Sscanf(string(data), "%d %s", &pid, &start); err != nil {
		return 0, "", fmt.Errorf("read %s: %w", path, err)
	}
	return pid, start, nil
}

// signalRecorded signals the process of a pid record if it still is the same.
func signalRecorded(path string, signal syscall.Signal) {
	pid, start, err := readPID(path)
	if err != nil || pid <= 1 || pid == os.Getpid() {
		return
	}
	if now, err := startTime(pid); err == nil && now == start {
		_ = syscall.Kill(pid, signal)
	}
}

// clean ends what still runs for this folder and removes it.
func (r runDir) clean() error {
	records, _ := filepath.Glob(filepath.Join(r.pidDir(), "*"))
	for _, record := range records {
		if filepath.Base(record) != ownerName {
			signalRecorded(record, syscall.SIGKILL)
		}
	}
	if filepath.Base(r.path) == nodeRun {
		if err := cleanNode(r.path); err != nil {
			return fmt.Errorf("clean up the node: %w", err)
		}
	}
	return os.RemoveAll(r.path)
}

// close removes the folder and lets go of it.
func (r runDir) close() error {
	err := r.clean()
	// The node's lock file stays: others may be waiting on this very file.
	if filepath.Base(r.path) != nodeRun {
		_ = os.Remove(r.path + ".lock")
	}
	r.lock.release()
	return err
}

// sweep cleans every folder below root whose owner is gone.
func sweep(root string, log io.Writer) error {
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	var errs []error
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		path := filepath.Join(root, entry.Name())
		held, err := tryLock(path + ".lock")
		if errors.Is(err, errLocked) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		_, _ = fmt.Fprintf(log, "cleaning up %s, left by %s ...\n", path, ownerOf(path))
		errs = append(errs, runDir{path: path, lock: held}.close())
	}
	return errors.Join(errs...)
}

// Down stops the clusters of this user, also those of other processes, and
// cleans up what killed ones left. Without kinds it stops all of them.
func Down(ctx context.Context, log io.Writer, kinds ...Kind) error {
	root := runRoot()
	entries, err := os.ReadDir(root)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	log = orDiscard(log)
	for _, entry := range entries {
		if !entry.IsDir() || !ofKind(entry.Name(), kinds) {
			continue
		}
		if err := stopRun(ctx, filepath.Join(root, entry.Name()), log); err != nil {
			return err
		}
	}
	return nil
}

// stopRun asks the owner to stop, which gives up the lock in the end, and
// cleans up after an owner that did not.
func stopRun(ctx context.Context, path string, log io.Writer) error {
	signalRecorded(filepath.Join(path, "pids", ownerName), syscall.SIGTERM)
	held, err := acquireLock(ctx, path+".lock", func() {
		_, _ = fmt.Fprintf(log, "stopping %s of %s ...\n", filepath.Base(path), ownerOf(path))
	})
	if err != nil {
		return err
	}
	return runDir{path: path, lock: held}.close()
}

func ofKind(name string, kinds []Kind) bool {
	if len(kinds) == 0 {
		return true
	}
	for _, kind := range kinds {
		if name == nodeRun && kind == RealNode || strings.HasPrefix(name, string(kind)+"-") {
			return true
		}
	}
	return false
}
