// The benchmark upgrades a fleet on simulated nodes with the operator, and the same
// fleet with the same PATCHes sent by as many workers and no operator, in one run. It
// prints ratios: absolute times differ from machine to machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/hack/cluster"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

const (
	name        = "bench"
	deployments = 20
	patience    = 15 * time.Minute
)

func main() {
	pods := flag.Int("pods", 2000, "The size of the fleet.")
	rounds := flag.Int("rounds", 3, "How often both are measured, in turn.")
	workers := flag.Int("workers", 32, "How many workers send the bare PATCHes; the operator has 32.")
	flag.Parse()
	log.SetLogger(zap.New(zap.WriteTo(os.Stderr)))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *pods, *rounds, *workers)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "the benchmark failed:", err)
		os.Exit(1)
	}
}

// bench is what its rounds share.
type bench struct {
	cluster *cluster.Cluster
	client  client.WithWatch
	fleet   *harness.Fleet
	binary  string
	dir     string
	workers int
	manager *harness.Manager
}

func run(ctx context.Context, pods, rounds, workers int) (err error) {
	b := &bench{workers: workers}
	b.cluster, err = cluster.Start(ctx, cluster.Options{Kind: cluster.Simulated, Log: os.Stderr, KeepSignals: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.cluster.Stop()) }()
	if b.dir, err = harness.TempDir(); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(b.dir) }()
	if err := b.prepare(ctx, pods); err != nil {
		return err
	}
	defer func() { b.manager.Stop() }()
	return b.measure(ctx, rounds)
}

// prepare starts the manager and makes a fleet that it has injected.
func (b *bench) prepare(ctx context.Context, pods int) error {
	var err error
	if b.client, err = harness.NewClient(b.cluster.Config()); err != nil {
		return err
	}
	if err := harness.InstallCRDs(b.cluster.Config()); err != nil {
		return err
	}
	if b.binary, err = harness.BuildManager(ctx, b.dir); err != nil {
		return err
	}
	if err := b.startManager(ctx); err != nil {
		return err
	}
	all := ptr.To(intstr.FromString("100%"))
	policy := harness.Policy(name, name, image(0))
	policy.Spec.Rollout.Budgets = []v1alpha1.Budget{{Per: v1alpha1.PerFleet, MaxUnavailable: all}, {Per: v1alpha1.PerWorkload, MaxUnavailable: all}}
	policy.Spec.Rollout.Health.MinReadySeconds = ptr.To[int32](0)
	if err := b.client.Create(ctx, policy); err != nil {
		return err
	}
	if _, err := harness.WaitReady(ctx, b.client, name, patience); err != nil {
		return err
	}
	b.fleet = &harness.Fleet{Namespace: name, Deployments: deployments, Replicas: int32(pods / deployments), Image: "registry.example/app:v1"}
	fmt.Fprintf(os.Stderr, "creating %d pods ...\n", b.fleet.Pods())
	if err := b.fleet.Create(ctx, b.client); err != nil {
		return err
	}
	return harness.WaitPodsReady(ctx, b.client, name, b.fleet.Pods(), patience)
}

func (b *bench) startManager(ctx context.Context) error {
	var err error
	b.manager, err = harness.StartManager(ctx, b.binary, b.cluster.Kubeconfig(), b.dir)
	return err
}

func image(version int) string { return fmt.Sprintf("registry.example/agent:v%d", version) }

func (b *bench) measure(ctx context.Context, rounds int) error {
	fmt.Printf("%d simulated pods in %d Deployments, budgets 100%%, %d workers\n\n", b.fleet.Pods(), deployments, b.workers)
	fmt.Println("round  operator pods/s  bare pods/s  ratio  PATCHes/pod  manager CPU s  manager peak MiB")
	version := 0
	for round := range rounds {
		version++
		operator, err := b.operatorRound(ctx, version)
		if err != nil {
			return err
		}
		version++
		bare, err := b.bareRound(ctx, version)
		if err != nil {
			return err
		}
		speed := float64(b.fleet.Pods()) / operator.took.Seconds()
		bareSpeed := float64(b.fleet.Pods()) / bare.Seconds()
		fmt.Printf("%5d  %15.0f  %11.0f  %5.2f  %11.3f  %13.1f  %16.0f\n", round+1, speed, bareSpeed, speed/bareSpeed,
			operator.writes/float64(b.fleet.Pods()), operator.cpu.Seconds(), operator.peakMiB)
	}
	return nil
}
