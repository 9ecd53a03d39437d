package cluster

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
)

// childAttributes ties a child to this process, and gives it a group of its
// own so that a Ctrl-C in the terminal does not overtake the ordered stop.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// startTime identifies a process together with its pid, which is used again.
func startTime(pid int) (string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	return parseStartTime(data)
}

// parseStartTime reads field 22 of /proc/PID/stat. The second field is the
// name of the program, in brackets, and may itself hold blanks and brackets.
func parseStartTime(stat []byte) (string, error) {
	const state, start = 3, 22
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return "", fmt.Errorf("no program name in %q", stat)
	}
	fields := bytes.Fields(stat[end+1:])
	if len(fields) <= start-state {
		return "", fmt.Errorf("only %d fields in %q", len(fields), stat)
	}
	return string(fields[start-state]), nil
}
