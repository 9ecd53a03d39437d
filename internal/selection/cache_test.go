package selection

import (
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

func selecting(uid types.UID, generation int64, app string) *v1alpha1.SidecarPolicy {
	p := &v1alpha1.SidecarPolicy{ObjectMeta: metav1.ObjectMeta{Name: "logs", UID: uid, Generation: generation}}
	p.Spec.Selector.PodSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
	return p
}

// A policy that changed, or one that another of the same name took the place of, is read anew.
func TestCacheFollowsThePolicy(t *testing.T) {
	c := &Cache{}
	for _, policy := range []*v1alpha1.SidecarPolicy{
		selecting("one", 1, "web"), selecting("one", 2, "shop"), selecting("two", 1, "api"), selecting("one", 2, "shop"),
	} {
		s, err := c.OfPolicy(policy, "")
		if err != nil {
			t.Fatal(err)
		}
		for _, app := range []string{"web", "shop", "api"} {
			if got, want := s.Anywhere(labels.Set{"app": app}), policy.Spec.Selector.PodSelector.MatchLabels["app"] == app; got != want {
				t.Errorf("policy %s of generation %d, a pod of %s: selected is %t, not %t", policy.UID, policy.Generation, app, got, want)
			}
		}
	}
}

func TestCacheKeepsNoErrorAndStaysSmall(t *testing.T) {
	c := &Cache{}
	bad := selecting("bad", 1, "web")
	bad.Spec.Selector.PodSelector.MatchLabels = map[string]string{"not a key": "x"}
	for range 2 {
		if _, err := c.OfPolicy(bad, ""); err == nil {
			t.Error("a selector that can't be read was accepted")
		}
	}
	for i := range 3 * maxCached {
		if _, err := c.OfPolicy(selecting(types.UID(fmt.Sprint(i)), 1, "web"), ""); err != nil {
			t.Fatal(err)
		}
	}
	if c.cached.Len() > maxCached {
		t.Errorf("%d selectors are kept", c.cached.Len())
	}
}
