package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

// barWidth is the width of the progress bar in characters.
const barWidth = 40

// progress draws a roll-out: in place on a terminal, a line for each change elsewhere.
type progress struct {
	out      io.Writer
	terminal bool
	total    int
	last     string
}

func newProgress(out *os.File, total int) *progress {
	return &progress{out: out, terminal: term.IsTerminal(int(out.Fd())), total: total}
}

func (p *progress) update(policy *v1alpha1.SidecarPolicy, elapsed time.Duration) {
	if policy.Status.Pods == nil || policy.Status.ObservedGeneration != policy.Generation {
		return
	}
	counts := policy.Status.Pods
	filled := barWidth * int(counts.Updated) / max(p.total, 1)
	line := fmt.Sprintf("[%s%s] %3d/%d updated, %2d unavailable, %d failed, %s",
		strings.Repeat("#", filled), strings.Repeat(".", barWidth-filled),
		counts.Updated, p.total, counts.Unavailable, counts.Failed, policy.Status.Phase)
	switch {
	case p.terminal:
		_, _ = fmt.Fprintf(p.out, "\r\033[K%s  %4.1fs", line, elapsed.Seconds())
	case line != p.last:
		_, _ = fmt.Fprintf(p.out, "%s  %4.1fs\n", line, elapsed.Seconds())
	}
	p.last = line
}

func (p *progress) end() {
	if p.terminal {
		_, _ = fmt.Fprintln(p.out)
	}
}
