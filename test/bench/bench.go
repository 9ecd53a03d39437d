package main

import (
	"context"
	"fmt"
	"os"

	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/hack/cluster"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

// bench is what its rounds share.
type bench struct {
	cluster *cluster.Cluster
	client  client.WithWatch
	fleet   *harness.Fleet
	binary  string
	dir     string
	workers int
	manager *harness.Manager
	// version is the one of the sidecar's image that the fleet runs.
	version int
	// peakMiB is the most memory that any of the managers had in use.
	peakMiB float64
}

// start starts a cluster and a manager, with no policies and no pods.
func (b *bench) start(ctx context.Context) error {
	var err error
	b.cluster, err = cluster.Start(ctx, cluster.Options{Kind: cluster.Simulated, Log: os.Stderr, KeepSignals: true})
	if err != nil {
		return err
	}
	if b.dir, err = harness.TempDir(); err != nil {
		return err
	}
	if b.client, err = harness.NewClient(b.cluster.Config()); err != nil {
		return err
	}
	if err := harness.InstallCRDs(b.cluster.Config()); err != nil {
		return err
	}
	if b.binary, err = harness.BuildManager(ctx, b.dir); err != nil {
		return err
	}
	return b.startManager(ctx)
}

// apply creates policies, and waits until new pods get their sidecars.
func (b *bench) apply(ctx context.Context, policies ...*v1alpha1.SidecarPolicy) error {
	for _, p := range policies {
		if err := b.client.Create(ctx, p); err != nil {
			return err
		}
		if _, err := harness.WaitReady(ctx, b.client, p.Name, patience); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) stop() error {
	if b.manager != nil {
		b.manager.Stop()
	}
	if b.dir != "" {
		_ = os.RemoveAll(b.dir) // only a temporary directory
	}
	if b.cluster == nil {
		return nil
	}
	return b.cluster.Stop()
}

// policy lets everything be upgraded at once. A busy machine may keep the webhook from answering in time;
// such a pod is to be made again then, and not to stay without the sidecar.
func policy() *v1alpha1.SidecarPolicy {
	all := ptr.To(intstr.FromString("100%"))
	p := harness.Policy(name, name, image(0))
	p.Spec.Rollout.Budgets = []v1alpha1.Budget{{Per: v1alpha1.PerFleet, MaxUnavailable: all}, {Per: v1alpha1.PerWorkload, MaxUnavailable: all}}
	p.Spec.Injection.FailurePolicy = v1alpha1.FailurePolicyFail
	p.Spec.Rollout.Health.MinReadySeconds = ptr.To[int32](0)
	return p
}

func image(version int) string { return fmt.Sprintf("registry.example/agent:v%d", version) }

// fill creates the pods of the fleet that are not there yet, which the manager injects, and waits until
// all are ready.
func (b *bench) fill(ctx context.Context, pods int) error {
	b.fleet = &harness.Fleet{Namespace: name, Deployments: max(1, pods/podsPerDeployment), Replicas: podsPerDeployment, Image: "registry.example/app:v1"}
	fmt.Fprintf(os.Stderr, "creating pods up to %d ...\n", b.fleet.Pods())
	if err := b.fleet.Create(ctx, b.client); err != nil {
		return err
	}
	if err := harness.WaitPodsReady(ctx, b.client, name, b.fleet.Pods(), patience); err != nil {
		return err
	}
	_, err := harness.WaitReady(ctx, b.client, name, patience)
	return err
}

func (b *bench) startManager(ctx context.Context) error {
	var err error
	b.manager, err = harness.StartManager(ctx, b.binary, b.cluster.Kubeconfig(), b.dir)
	return err
}

// stopManager stops the manager, and keeps how much memory it took.
func (b *bench) stopManager() error {
	used, err := usageOf(b.manager.PID())
	b.peakMiB = max(b.peakMiB, used.peakMiB)
	b.manager.Stop()
	return err
}
