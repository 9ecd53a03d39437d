package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestPin(t *testing.T) {
	original, err := os.ReadFile("../../config/manager/kustomization.yaml")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kustomization.yaml")
	if err := os.WriteFile(path, original, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"v1.2.3", "v1.2.4"} { // the second time over the first
		if err := pin(path, "registry.example:5000/team/operator:"+version+"@"+digest); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		before, _, _ := strings.Cut(string(original), "- name: controller\n")
		want := before + "- name: controller\n  newName: registry.example:5000/team/operator\n  newTag: " + version + "\n  digest: " + digest + "\n"
		if diff := cmp.Diff(want, string(text)); diff != "" {
			t.Errorf("kustomization (-want +got):\n%s", diff)
		}
	}
	for _, image := range []string{"operator:v1.2.3", "operator@" + digest, "operator:latest@" + digest, "operator:v1.2.3@sha256:00"} {
		if err := pin(path, image); err == nil || !strings.Contains(err.Error(), "no version and digest") {
			t.Errorf("%s: error %v", image, err)
		}
	}
}
