package images

import (
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

func TestPush(t *testing.T) {
	registry, err := Serve(t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = registry.Close() }()
	digests := map[string]bool{}
	for _, tag := range []string{"v1", "v2"} {
		ref := registry.Address() + "/pause:" + tag
		digest, err := Push(t.Context(), ref, Spec{
			Package: "./pause",
			Args:    []string{"--quiet"},
			Env:     []string{"A=b"},
			Labels:  map[string]string{"tag": tag},
		})
		if err != nil {
			t.Fatal(err)
		}
		digests[digest] = true
	}
	if len(digests) != 2 {
		t.Errorf("tags with different labels must differ, got %v", digests)
	}
	for digest := range digests {
		checkImage(t, digest)
	}
}

func checkImage(t *testing.T, digest string) {
	t.Helper()
	ref, err := name.ParseReference(digest)
	if err != nil {
		t.Fatal(err)
	}
	image, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if got := config.Config.Entrypoint; len(got) != 2 || got[0] != "/pause" || got[1] != "--quiet" {
		t.Errorf("entrypoint %q", got)
	}
	if config.Config.User != Nonroot || config.OS != "linux" {
		t.Errorf("user %q, os %q", config.Config.User, config.OS)
	}
}
