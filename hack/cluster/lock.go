package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// lock is a file lock. The kernel drops it with the process that holds it, so
// a free lock means that its owner is gone, however it went.
type lock struct{ file *os.File }

var errLocked = errors.New("locked by another process")

// tryLock fails with errLocked when somebody holds the lock.
func tryLock(path string) (*lock, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return &lock{file}, nil
	}
	_ = file.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, errLocked
	}
	return nil, fmt.Errorf("lock %s: %w", path, err)
}

// acquireLock waits for the lock until ctx ends and calls waiting once if it
// has to wait.
func acquireLock(ctx context.Context, path string, waiting func()) (*lock, error) {
	var held *lock
	err := wait.PollUntilContextCancel(ctx, 200*time.Millisecond, true, func(context.Context) (bool, error) {
		var err error
		held, err = tryLock(path)
		if !errors.Is(err, errLocked) {
			return err == nil, err
		}
		if waiting != nil {
			waiting()
			waiting = nil
		}
		return false, nil
	})
	return held, err
}

func (l *lock) release() {
	if l != nil {
		_ = l.file.Close()
	}
}
