package main

import (
	"context"
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

// blocks is into how many parts the pods of a kind are divided: the kinds take turns, since a machine gets
// faster and slower.
const blocks = 10

// settle is how long everything that watches pods gets to digest those of the block before.
const settle = time.Second

// creation is how long it took to create pods of one kind.
type creation struct {
	kind string
	// fleet is the pods' label: what policies select.
	fleet string
	// sidecars is how many a pod of the kind gets.
	sidecars int
	took     []time.Duration
	calls    float64
}

// admission creates n pods of each kind, one after the other, and prints what policies cost.
func (b *bench) admission(ctx context.Context, n int) error {
	n = max(blocks, n-n%blocks)
	if err := b.client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
		return err
	}
	// The first of all pods pay for connections and caches.
	if err := b.create(ctx, &creation{kind: "warm up"}, n); err != nil {
		return err
	}
	none := &creation{kind: "no policy in the cluster"}
	if err := b.create(ctx, none, n/2); err != nil {
		return err
	}
	policies := admissionPolicies()
	if err := b.apply(ctx, policies...); err != nil {
		return err
	}
	kinds := []*creation{{kind: "policies, none selects the pod", fleet: "none"}}
	for _, engine := range engines {
		kinds = append(kinds, &creation{kind: "one policy, " + string(engine), fleet: fleetOf("one", engine), sidecars: 1},
			&creation{kind: "ten policies, " + string(engine), fleet: fleetOf("ten", engine), sidecars: 10})
	}
	for range blocks {
		for _, kind := range kinds {
			if err := b.create(ctx, kind, n/blocks); err != nil {
				return err
			}
		}
	}
	for _, p := range policies {
		if err := b.remove(ctx, p); err != nil {
			return err
		}
	}
	if err := b.create(ctx, none, n/2); err != nil {
		return err
	}
	printCreations(append([]*creation{none}, kinds...))
	return nil
}

var engines = []v1alpha1.InjectionEngine{v1alpha1.EngineWebhook, v1alpha1.EngineAdmissionPolicy}

// fleetOf names the pods that so many policies select by an engine.
func fleetOf(policies string, engine v1alpha1.InjectionEngine) string {
	return policies + "-" + strings.ToLower(string(engine))
}

// admissionPolicies are, by each engine, one for the fleet one, and ten for the fleet ten.
func admissionPolicies() []*v1alpha1.SidecarPolicy {
	var policies []*v1alpha1.SidecarPolicy
	add := func(name, fleet string, engine v1alpha1.InjectionEngine) {
		p := harness.Policy(name, fleet, image(0))
		p.Spec.Injection.Engine, p.Spec.Injection.FailurePolicy = engine, v1alpha1.FailurePolicyFail // a pod without its sidecars is cheaper
		policies = append(policies, p)
	}
	for _, engine := range engines {
		one, ten := fleetOf("one", engine), fleetOf("ten", engine)
		add(one, one, engine)
		for i := range 10 {
			add(fmt.Sprintf("%s-%d", ten, i), ten, engine)
		}
	}
	return policies
}

// create creates n pods that nothing schedules, and deletes them.
func (b *bench) create(ctx context.Context, c *creation, n int) error {
	before, err := b.webhookCalls(ctx)
	if err != nil {
		return err
	}
	time.Sleep(settle)
	for i := range n {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: fmt.Sprintf("pod-%d", i), Labels: map[string]string{harness.FleetLabel: c.fleet}},
			Spec:       corev1.PodSpec{SchedulerName: "nobody", Containers: []corev1.Container{{Name: "app", Image: "registry.example/app:v1"}}},
		}
		began := time.Now()
		if err := b.client.Create(ctx, pod); err != nil {
			return err
		}
		c.took = append(c.took, time.Since(began))
		if got := len(pod.Spec.InitContainers); got != c.sidecars {
			return fmt.Errorf("a pod of the kind %q has %d sidecars, not %d", c.kind, got, c.sidecars)
		}
	}
	after, err := b.webhookCalls(ctx)
	if err != nil {
		return err
	}
	c.calls += after - before
	return b.client.DeleteAllOf(ctx, &corev1.Pod{}, client.InNamespace(name), client.GracePeriodSeconds(0))
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

// printCreations compares the kinds with the first one.
func printCreations(kinds []*creation) {
	fmt.Println("pods                            created  p50 ms  p95 ms  more at p50  webhook calls a pod")
	base := quantile(kinds[0].took, 0.5)
	for _, c := range kinds {
		p50 := quantile(c.took, 0.5)
		fmt.Printf("%-30s  %7d  %6.2f  %6.2f  %11.2f  %19.2f\n", c.kind, len(c.took), milliseconds(p50), milliseconds(quantile(c.took, 0.95)),
			milliseconds(p50-base), c.calls/float64(len(c.took)))
	}
}

// quantile is the smallest of the values that so large a part of them does not exceed.
func quantile(values []time.Duration, part float64) time.Duration {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[int(part*float64(len(sorted)-1))]
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }
