package plugin

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

// hasty makes a test wait a little where people wait a lot.
func hasty(t *testing.T, d time.Duration) {
	t.Helper()
	before := again
	again.Duration = d
	t.Cleanup(func() { again = before })
}

// watched is an API server of which the n-th watch, from 1, is made by a function. One that is nil ends at once.
func watched(t *testing.T, watches func(n int, c client.WithWatch) (watch.Interface, error), objects ...client.Object) (client.WithWatch, *int) {
	t.Helper()
	n := 0
	return cluster(t, interceptor.Funcs{Watch: func(_ context.Context, c client.WithWatch, _ client.ObjectList, _ ...client.ListOption) (watch.Interface, error) {
		n++
		events, err := watches(n, c)
		if events == nil && err == nil {
			closed := watch.NewFake()
			closed.Stop()
			return closed, nil
		}
		return events, err
	}}, objects...), &n
}

func rolling(name string) *v1alpha1.SidecarPolicy {
	p := newPolicy(name)
	p.Status.Phase = v1alpha1.PhaseProgressing
	return p
}

func complete(t *testing.T, c client.Client, name string) {
	t.Helper()
	p := &v1alpha1.SidecarPolicy{}
	if err := c.Get(t.Context(), client.ObjectKey{Name: name}, p); err != nil {
		t.Fatal(err)
	}
	p.Status.Phase = v1alpha1.PhaseComplete
	if err := c.Update(t.Context(), p); err != nil {
		t.Fatal(err)
	}
}

func TestWatchGoesOnAfterTheConnectionWasLost(t *testing.T) {
	hasty(t, time.Millisecond)
	c, _ := watched(t, func(n int, c client.WithWatch) (watch.Interface, error) {
		if n < 3 {
			return nil, errors.New("connection refused")
		}
		complete(t, c, "logs") // nobody tells of it but the next look
		return nil, nil
	}, rolling("logs"))
	run(t, c, "status", "logs", "--watch", "--timeout", "20s").wants(t, exitOK, "logs: Progressing", "Nothing is heard from the API server since 2026-03-01T09:00:00Z, and it is asked again: connection refused", "logs: Complete")
}

func TestWatchEndsWhereItIsNotAllowed(t *testing.T) {
	c, n := watched(t, func(int, client.WithWatch) (watch.Interface, error) { return nil, forbidden("sidecarpolicies") }, rolling("logs"))
	run(t, c, "status", "logs", "--watch", "--timeout", "20s").wants(t, exitError, "sidecarpolicies is forbidden")
	if *n != 1 {
		t.Errorf("%d watches, want 1", *n)
	}
}

func TestWatchDoesNotHammerTheAPIServer(t *testing.T) {
	hasty(t, 50*time.Millisecond)
	c, n := watched(t, func(int, client.WithWatch) (watch.Interface, error) { return nil, nil }, rolling("logs"))
	run(t, c, "status", "logs", "--watch", "--timeout", "500ms").wants(t, exitError, "the roll-out has not ended within 500ms: kubectl sidecar status logs says what it waits for")
	if *n > 5 { // after 0, 50, 150 and 350 ms
		t.Errorf("%d watches, each of which ended at once", *n)
	}
}

func TestWatchForgetsWhatWasDeletedBetweenTwoWatches(t *testing.T) {
	c := cluster(t, interceptor.Funcs{}, rolling("logs"), rolling("mesh"))
	view := &live{}
	var got [][]string
	for range 2 {
		if _, err := view.look(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		got = append(got, sortedKeys(view.policies))
		if err := client.IgnoreNotFound(c.Delete(t.Context(), newPolicy("mesh"))); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([][]string{{"logs", "mesh"}, {"logs"}}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWatchEndsWithItsPolicy(t *testing.T) {
	hasty(t, time.Millisecond)
	c, _ := watched(t, func(_ int, c client.WithWatch) (watch.Interface, error) {
		return nil, client.IgnoreNotFound(c.Delete(t.Context(), newPolicy("logs")))
	}, rolling("logs"))
	run(t, c, "status", "logs", "--watch", "--timeout", "20s").wants(t, exitError, "policy logs was deleted")
}

func TestWatchOfEverythingEndsInPeace(t *testing.T) {
	c, _ := watched(t, func(int, client.WithWatch) (watch.Interface, error) { return watch.NewFake(), nil }, rolling("logs"))
	r := run(t, c, "status", "--watch", "--timeout", "50ms")
	r.wants(t, exitOK, "logs: Progressing")
	if r.err != "" {
		t.Errorf("says %q", r.err)
	}
}
