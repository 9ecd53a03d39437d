package image_test

import (
	"strings"
	"testing"

	"github.com/sidecar-dev/sidecar-operator/internal/image"
)

const digest, other = "sha256:aaaa", "sha256:bbbb"

func TestRespellAlternatesBetweenTwoSpellings(t *testing.T) {
	for _, tc := range []struct{ template, second string }{
		{"r:5000/agent:v1", "r:5000/agent:v1@" + digest},
		{"agent", "agent@" + digest},
		{"r:5000/agent:v1@" + digest, "r:5000/agent@" + digest},
		{"r:5000/agent@" + digest, "r:5000/agent:restarted@" + digest},
	} {
		t.Run(tc.template, func(t *testing.T) {
			second, err := image.Respell(tc.template, tc.template, "r:5000/agent@"+digest)
			if err != nil || second != tc.second {
				t.Fatalf("the second spelling is %q, %v; want %q", second, err, tc.second)
			}
			if !image.Same(second, tc.template) {
				t.Errorf("%s is not the same as %s", second, tc.template)
			}
			first, err := image.Respell(second, tc.template, "r:5000/agent@"+digest)
			if err != nil || first != tc.template {
				t.Errorf("the third spelling is %q, %v; want %q", first, err, tc.template)
			}
		})
	}
}

func TestRespellNeedsADigest(t *testing.T) {
	_, err := image.Respell("agent:v1", "agent:v1", "")
	if err == nil || !strings.Contains(err.Error(), "has no digest") {
		t.Errorf("the error is %v", err)
	}
}

func TestSame(t *testing.T) {
	for _, tc := range []struct {
		current, template string
		want              bool
	}{
		{"agent:v1", "agent:v1", true},
		{"agent:v1", "agent:v2", false},
		{"agent:v1@" + digest, "agent:v1", true},
		{"agent:v1@" + digest, "agent:v2", false},
		{"agent@" + digest, "agent:v1", false},
		{"agent:v1", "agent:v1@" + digest, false},
		{"agent:v1@" + other, "agent:v1@" + digest, false},
		{"agent:v2@" + digest, "agent:v1@" + digest, true},
		{"r:5000/agent@" + digest, "r:5000/other@" + digest, false},
	} {
		if got := image.Same(tc.current, tc.template); got != tc.want {
			t.Errorf("Same(%q, %q) = %t, want %t", tc.current, tc.template, got, tc.want)
		}
	}
}
