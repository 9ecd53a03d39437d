package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

// rounds is how often the kinds take turns, since a machine gets faster and slower.
const rounds = 5

// settle is how long everything that watches pods, policies and registrations gets to digest the last change.
const settle = time.Second

// The fleets that pods are of: the one that all policies select, and the one that none does.
const (
	selected    = "selected"
	notSelected = "not-selected"
)

// creation is how long it took to create pods of one kind.
type creation struct {
	kind string
	// engine and policies say what selects the pods; floor: a webhook of the benchmark's own does.
	engine   v1alpha1.InjectionEngine
	policies int
	floor    bool
	took     []time.Duration
	// beside is how long pods took that nothing selects, and that were created in turn with these.
	beside []time.Duration
	calls  float64
}

// kinds are those of pods that something selects.
func kinds() []*creation {
	all := []*creation{{kind: "a webhook that computes nothing", floor: true}}
	for _, engine := range []v1alpha1.InjectionEngine{v1alpha1.EngineWebhook, v1alpha1.EngineAdmissionPolicy} {
		all = append(all, &creation{kind: "one policy, " + string(engine), engine: engine, policies: 1},
			&creation{kind: "ten policies, " + string(engine), engine: engine, policies: 10})
	}
	return all
}

// admission creates n pods of each kind, the kinds in turn, and prints what policies cost: of the pods that they select, and of those
// that they don't.
func (b *bench) admission(ctx context.Context, n int) error {
	if err := b.client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
		return err
	}
	n = max(n, rounds)
	// The first of all pods pay for connections and caches.
	if err := b.create(ctx, &creation{}, notSelected, n); err != nil {
		return err
	}
	none, others, all := &creation{kind: "no policy in the cluster"}, &creation{kind: "policies, none selects the pod"}, kinds()
	for range rounds {
		if err := b.create(ctx, none, notSelected, n/rounds); err != nil {
			return err
		}
		for _, kind := range all {
			if err := b.measure(ctx, kind, others, n/rounds); err != nil {
				return err
			}
		}
	}
	printCreations(append([]*creation{none, others}, all...))
	return nil
}

// measure creates n pods of a kind and, where policies select them, as many others. What selects them is there for that long.
func (b *bench) measure(ctx context.Context, kind, others *creation, n int) error {
	if kind.floor {
		remove, err := b.applyFloor(ctx)
		if err != nil {
			return err
		}
		return errors.Join(b.create(ctx, kind, selected, n), remove())
	}
	policies := kind.specs()
	if err := b.apply(ctx, policies...); err != nil {
		return err
	}
	if err := b.create(ctx, others, notSelected, n); err != nil {
		return err
	}
	if err := b.create(ctx, kind, selected, n); err != nil {
		return err
	}
	for _, p := range policies {
		if err := b.remove(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

func (c *creation) specs() []*v1alpha1.SidecarPolicy {
	var policies []*v1alpha1.SidecarPolicy
	for i := range c.policies {
		p := harness.Policy(fmt.Sprintf("%s-%d", strings.ToLower(string(c.engine)), i), selected, image(0))
		p.Spec.Injection.Engine, p.Spec.Injection.FailurePolicy = c.engine, v1alpha1.FailurePolicyFail // a pod without its sidecars is cheaper
		policies = append(policies, p)
	}
	return policies
}

// sidecars is how many a pod of the kind gets.
func (c *creation) sidecars() int {
	if c.floor {
		return 1
	}
	return c.policies
}

// create creates n pods that nothing schedules, those that are selected in turn with as many that are not, and deletes them.
func (b *bench) create(ctx context.Context, c *creation, fleet string, n int) error {
	time.Sleep(settle)
	before, err := b.webhookCalls(ctx)
	if err != nil {
		return err
	}
	for i := range n {
		if fleet == selected {
			took, err := b.createOne(ctx, fmt.Sprintf("other-%d", i), notSelected, 0)
			if err != nil {
				return err
			}
			c.beside = append(c.beside, took)
		}
		took, err := b.createOne(ctx, fmt.Sprintf("pod-%d", i), fleet, c.sidecars())
		if err != nil {
			return err
		}
		c.took = append(c.took, took)
	}
	after, err := b.webhookCalls(ctx)
	if err != nil {
		return err
	}
	c.calls += after - before
	return b.client.DeleteAllOf(ctx, &corev1.Pod{}, client.InNamespace(name), client.GracePeriodSeconds(0))
}

// createOne creates a pod that gets so many sidecars, and says how long that took.
func (b *bench) createOne(ctx context.Context, pod, fleet string, sidecars int) (time.Duration, error) {
	object := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: pod, Labels: map[string]string{harness.FleetLabel: fleet}},
		Spec:       corev1.PodSpec{SchedulerName: "nobody", Containers: []corev1.Container{{Name: "app", Image: "registry.example/app:v1"}}},
	}
	began := time.Now()
	if err := b.client.Create(ctx, object); err != nil {
		return 0, err
	}
	took := time.Since(began)
	if got := len(object.Spec.InitContainers); got != sidecars {
		return 0, fmt.Errorf("pod %s of the fleet %s has %d sidecars, not %d", pod, fleet, got, sidecars)
	}
	return took, nil
}

// remove deletes a policy, and waits until it is gone.
func (b *bench) remove(ctx context.Context, policy *v1alpha1.SidecarPolicy) error {
	if err := b.client.Delete(ctx, policy); err != nil {
		return err
	}
	return wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		err := b.client.Get(ctx, client.ObjectKeyFromObject(policy), policy)
		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	})
}

// printCreations compares pods with those beside them or, where there are none, with the first kind.
func printCreations(kinds []*creation) {
	fmt.Println("pods                              created  p50 ms  p95 ms  more at p50  webhook calls a pod")
	for _, c := range kinds {
		base := kinds[0].took
		if len(c.beside) > 0 {
			base = c.beside
		}
		p50 := quantile(c.took, 0.5)
		fmt.Printf("%-32s  %7d  %6.2f  %6.2f  %11.2f  %19.2f\n", c.kind, len(c.took), milliseconds(p50), milliseconds(quantile(c.took, 0.95)),
			milliseconds(p50-quantile(base, 0.5)), c.calls/float64(len(c.took)))
	}
}

// quantile is the smallest of the values that so large a part of them does not exceed.
func quantile(values []time.Duration, part float64) time.Duration {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[int(part*float64(len(sorted)-1))]
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }
