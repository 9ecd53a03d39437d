// Package cputime tells what a benchmark costs on a machine that others use too: the time that this
// process ran, on all cores, its garbage collection with it.
package cputime

import (
	"syscall"
	"time"
)

// Now is the CPU time that this process has used.
func Now() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err) // it has no way to fail
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
