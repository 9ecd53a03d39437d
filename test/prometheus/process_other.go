//go:build !linux

package prometheus

import "syscall"

// childAttributes cannot tie the server to this process here: a killed test leaves it behind.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
