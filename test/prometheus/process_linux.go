package prometheus

import "syscall"

// childAttributes ties the server to the thread that starts it. It has a group of its own, so
// that a Ctrl-C in the terminal does not overtake the test.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
