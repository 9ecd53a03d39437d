package cluster

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseStartTime(t *testing.T) {
	stat := "42 (a (b) c) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 0 0"
	got, err := parseStartTime([]byte(stat))
	if err != nil || got != "12345" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := parseStartTime([]byte("42 (x) S 1")); err == nil {
		t.Error("a short line must be refused")
	}
}

func TestParseMounts(t *testing.T) {
	got := parseMounts([]byte("proc /proc proc rw 0 0\ntmpfs /a\\040b tmpfs rw 0 0\nbad\n"))
	want := []mountPoint{{"/proc", "proc"}, {"/a b", "tmpfs"}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(mountPoint{})); diff != "" {
		t.Error(diff)
	}
}

func TestIsShim(t *testing.T) {
	for _, test := range []struct {
		cmdline string
		want    bool
	}{
		{"/bin/containerd-shim-runc-v2\x00-namespace\x00k8s.io\x00-address\x00/ours.sock\x00", true},
		{"/bin/containerd-shim-runc-v2\x00-address\x00/theirs.sock\x00", false},
		{"/bin/sh\x00-address\x00/ours.sock\x00", false},
		{"", false},
	} {
		if got := isShim([]byte(test.cmdline), "/ours.sock"); got != test.want {
			t.Errorf("%q: %v", test.cmdline, got)
		}
	}
}
