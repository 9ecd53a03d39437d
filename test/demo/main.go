// The demo runs the operator's main job by itself: it starts a cluster, makes a fleet,
// plugs a sidecar in, upgrades it in place while it shows the progress, and cleans up.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/hack/cluster"
	"github.com/sidecar-dev/sidecar-operator/hack/cluster/images"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

const (
	policyName = "log-agent"
	namespace  = "shop"
	patience   = 5 * time.Minute
)

func main() {
	simulated := flag.Bool("simulated", false, "Use simulated nodes even where a real one can run.")
	flag.Parse()
	log.SetLogger(zap.New(zap.WriteTo(os.Stderr)))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *simulated)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "the demo failed:", err)
		os.Exit(1)
	}
}

// demo is what its acts share.
type demo struct {
	cluster *cluster.Cluster
	client  client.WithWatch
	fleet   *harness.Fleet
	// agent names the sidecar's image of a version.
	agent func(version string) string
}

func run(ctx context.Context, simulated bool) (err error) {
	kind := chooseKind(simulated)
	d := &demo{}
	d.cluster, err = cluster.Start(ctx, cluster.Options{Kind: kind, Log: os.Stdout, KeepSignals: true})
	if err != nil {
		return err
	}
	defer func() {
		fmt.Println("cleaning up ...")
		err = errors.Join(err, d.cluster.Stop())
	}()
	if err := d.prepare(ctx, kind); err != nil {
		return err
	}
	dir, err := harness.TempDir()
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary, err := harness.BuildManager(ctx, dir)
	if err != nil {
		return err
	}
	manager, err := harness.StartManager(ctx, binary, d.cluster.Kubeconfig(), dir)
	if err != nil {
		return err
	}
	defer manager.Stop()
	return d.play(ctx)
}

func chooseKind(simulated bool) cluster.Kind {
	why := cluster.RealNodeSupported()
	switch {
	case simulated:
		fmt.Println("This demo runs on SIMULATED nodes, as asked for.")
		return cluster.Simulated
	case why != nil:
		fmt.Printf("This demo runs on SIMULATED nodes: a real one can't run here (%v).\n", why)
		return cluster.Simulated
	}
	fmt.Println("This demo runs on a REAL node: kubelet, containerd and runc, on this machine.")
	return cluster.RealNode
}

// prepare installs the CRD and provides the images.
func (d *demo) prepare(ctx context.Context, kind cluster.Kind) error {
	var err error
	if d.client, err = harness.NewClient(d.cluster.Config()); err != nil {
		return err
	}
	if err := harness.InstallCRDs(d.cluster.Config()); err != nil {
		return err
	}
	registry := "registry.example"
	if kind == cluster.RealNode {
		registry = d.cluster.Registry()
		if err := pushImages(ctx, registry); err != nil {
			return err
		}
	}
	d.agent = func(version string) string { return registry + "/log-agent:" + version }
	d.fleet = &harness.Fleet{Namespace: namespace, Deployments: 6, Replicas: 5, Image: registry + "/app:v1"}
	return nil
}

func pushImages(ctx context.Context, registry string) error {
	for ref, args := range map[string][]string{
		"app:v1":       {"--port=8080"},
		"log-agent:v1": {"--port=9000", "--version=v1"},
		"log-agent:v2": {"--port=9000", "--version=v2"},
	} {
		spec := images.Spec{Dir: harness.Root(), Package: "./test/images/testpod", Args: args, Labels: map[string]string{"ref": ref}}
		if _, err := images.Push(ctx, registry+"/"+ref, spec); err != nil {
			return err
		}
	}
	return nil
}

// play is the demo itself.
func (d *demo) play(ctx context.Context) error {
	fmt.Printf("\n1. Apply SidecarPolicy %s with %s\n", policyName, d.agent("v1"))
	if err := d.client.Create(ctx, d.policy()); err != nil {
		return err
	}
	if _, err := harness.WaitReady(ctx, d.client, policyName, patience); err != nil {
		return err
	}
	fmt.Printf("2. Create %d pods in %d Deployments; none of them names the sidecar\n", d.fleet.Pods(), d.fleet.Deployments)
	if err := d.fleet.Create(ctx, d.client); err != nil {
		return err
	}
	if err := harness.WaitPodsReady(ctx, d.client, namespace, d.fleet.Pods(), patience); err != nil {
		return err
	}
	if _, err := harness.WaitForPolicy(ctx, d.client, policyName, patience, d.allUpdated); err != nil {
		return err
	}
	fmt.Printf("3. Change the policy's image to %s\n\n", d.agent("v2"))
	return d.upgrade(ctx)
}

func (d *demo) policy() *v1alpha1.SidecarPolicy {
	policy := harness.Policy(policyName, namespace, d.agent("v1"))
	policy.Spec.Rollout.Budgets = []v1alpha1.Budget{
		{Per: v1alpha1.PerFleet, MaxUnavailable: ptr.To(intstr.FromString("20%"))},
		{Per: v1alpha1.PerWorkload, MaxUnavailable: ptr.To(intstr.FromInt32(1))},
	}
	policy.Spec.Rollout.Health.MinReadySeconds = ptr.To[int32](2)
	return policy
}

func (d *demo) allUpdated(p *v1alpha1.SidecarPolicy) bool {
	return p.Status.Pods != nil && int(p.Status.Pods.Updated) == d.fleet.Pods() &&
		harness.ConditionIs(p, v1alpha1.ConditionReady, "True")
}

func (d *demo) upgrade(ctx context.Context) error {
	observer, err := harness.Observe(ctx, d.client, namespace)
	if err != nil {
		return err
	}
	defer observer.Stop()
	started := time.Now()
	if err := harness.SetImage(ctx, d.client, policyName, policyName, d.agent("v2")); err != nil {
		return err
	}
	show := newProgress(os.Stdout, d.fleet.Pods())
	policy, err := harness.WaitForPolicy(ctx, d.client, policyName, patience, func(p *v1alpha1.SidecarPolicy) bool {
		show.update(p, time.Since(started))
		return d.allUpdated(p)
	})
	show.end()
	if err != nil {
		return err
	}
	return d.summarize(ctx, observer, policy, time.Since(started))
}

// summarize counts what the pods say, and fails the demo where a promise was broken.
func (d *demo) summarize(ctx context.Context, observer *harness.Observer, policy *v1alpha1.SidecarPolicy, took time.Duration) error {
	pods := &corev1.PodList{}
	if err := d.client.List(ctx, pods, client.InNamespace(namespace)); err != nil {
		return err
	}
	upgraded, restarts := 0, 0
	for i := range pods.Items {
		if harness.IdentityOf(&pods.Items[i], policyName).RestartCount > 0 {
			upgraded++
		}
		restarts += int(harness.IdentityOf(&pods.Items[i], harness.AppContainer).RestartCount)
	}
	worst := 0
	if counts := observer.MaxUnavailable(); len(counts) > 0 {
		var all []int
		for _, count := range counts {
			all = append(all, count)
		}
		worst = slices.Max(all)
	}
	fmt.Printf("\npods upgraded in place             %d of %d\n", upgraded, d.fleet.Pods())
	fmt.Printf("max unavailable in one Deployment  %d of %d (budget: 1)\n", worst, d.fleet.Replicas)
	fmt.Printf("application restarts               %d\n", restarts)
	fmt.Printf("seconds                            %.1f\n\n", took.Seconds())
	if violations := observer.Violations(); len(violations) > 0 || restarts > 0 || worst > 1 || upgraded != d.fleet.Pods() {
		return fmt.Errorf("a promise was broken: %v; the policy: %s", violations, harness.Describe(policy))
	}
	return nil
}
