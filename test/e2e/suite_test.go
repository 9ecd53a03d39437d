//go:build e2e

// Package e2e runs the operator against a real node: kubelet, containerd and runc. What it
// asserts is read from the kubelet's own status.
package e2e

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/hack/cluster"
	"github.com/sidecar-dev/sidecar-operator/hack/cluster/images"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

// settleTimeout bounds what a kubelet with a few dozen containers takes.
const settleTimeout = 3 * time.Minute

var (
	ctx     context.Context
	node    *cluster.Cluster
	c       client.WithWatch
	binary  string
	tempDir string
	manager *harness.Manager
)

func TestRealNode(t *testing.T) {
	if err := cluster.RealNodeSupported(); err != nil {
		t.Fatalf("the real-node suite can't run here: %v", err)
	}
	RegisterFailHandler(Fail)
	RunSpecs(t, "Real node")
}

var _ = BeforeSuite(func() {
	log.SetLogger(GinkgoLogr)
	ctx = context.Background()
	var err error
	node, err = cluster.Start(ctx, cluster.Options{Kind: cluster.RealNode, Log: GinkgoWriter})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { Expect(node.Stop()).To(Succeed()) })
	c, err = harness.NewClient(node.Config())
	Expect(err).NotTo(HaveOccurred())
	Expect(harness.InstallCRDs(node.Config())).To(Succeed())
	tempDir, err = harness.TempDir()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(os.RemoveAll, tempDir)
	binary, err = harness.BuildManager(ctx, tempDir)
	Expect(err).NotTo(HaveOccurred())
	pushImages()
	startManager()
	DeferCleanup(func() { manager.Stop() })
})

// operatorImage is the operator's own in the node's registry: prefetch pods are made of it.
const operatorImage = "sidecar-operator:e2e"

// pushImages makes the images of the tests: one program, told apart by arguments and labels.
func pushImages() {
	_, err := images.Push(ctx, image(operatorImage), images.Spec{Dir: harness.Root(), Package: "./cmd/manager"})
	Expect(err).NotTo(HaveOccurred())
	push("app:v1", "--port=8080")
	for _, version := range []string{"v1", "v2", "v3"} {
		push("agent:"+version, "--port=9000", "--version="+version)
		push("exporter:"+version, "--port=9001", "--version="+version)
	}
	push("agent:crash", "--port=9000", "--crash-after=5s")
	push("agent:poison", "--port=9000", "--call=http://127.0.0.1:8080/exit", "--call-after=4s")
}

// push makes an image and returns its reference by digest.
func push(ref string, args ...string) string {
	GinkgoHelper()
	digest, err := images.Push(ctx, image(ref), images.Spec{
		Dir: harness.Root(), Package: "./test/images/testpod", Args: args, Labels: map[string]string{"ref": ref},
	})
	Expect(err).NotTo(HaveOccurred())
	return digest
}

// image is a reference in the node's registry.
func image(ref string) string { return node.Registry() + "/" + ref }

func startManager() {
	GinkgoHelper()
	var err error
	manager, err = harness.StartManager(ctx, binary, node.Kubeconfig(), tempDir, "--prefetch-image="+image(operatorImage))
	Expect(err).NotTo(HaveOccurred())
}

// newFleet creates a fleet that a policy of the same name injects, and waits until
// both are ready. Both are removed after the test.
func newFleet(name string, deployments int, replicas int32, change func(*v1alpha1.SidecarPolicy)) *harness.Fleet {
	GinkgoHelper()
	fleet := &harness.Fleet{Namespace: name, Deployments: deployments, Replicas: replicas, Image: image("app:v1"), Probe: true}
	plugIn(fleet, change)
	return fleet
}

// plugIn does what newFleet does, for a fleet of any kind.
func plugIn(fleet *harness.Fleet, change func(*v1alpha1.SidecarPolicy)) {
	GinkgoHelper()
	name := fleet.Namespace
	policy := harness.Policy(name, name, image("agent:v1"))
	policy.Spec.Rollout.Health = health(2, 45)
	if change != nil {
		change(policy)
	}
	Expect(c.Create(ctx, policy)).To(Succeed())
	_, err := harness.WaitReady(ctx, c, name, settleTimeout)
	Expect(err).NotTo(HaveOccurred())
	Expect(fleet.Create(ctx, c)).To(Succeed())
	DeferCleanup(func() {
		Expect(client.IgnoreNotFound(c.Delete(ctx, policy))).To(Succeed())
		namespace := &corev1.Namespace{}
		namespace.Name = name
		Expect(client.IgnoreNotFound(c.Delete(ctx, namespace))).To(Succeed())
	})
	Expect(harness.WaitPodsReady(ctx, c, name, fleet.Pods(), settleTimeout)).To(Succeed())
	_, err = harness.WaitForPolicy(ctx, c, name, settleTimeout, func(p *v1alpha1.SidecarPolicy) bool {
		return p.Status.Pods != nil && int(p.Status.Pods.Updated) == fleet.Pods()
	})
	Expect(err).NotTo(HaveOccurred())
}

func health(minReady, deadline int32) v1alpha1.HealthSpec {
	return v1alpha1.HealthSpec{MinReadySeconds: &minReady, ProgressDeadlineSeconds: &deadline}
}

func podsOf(namespace string) []corev1.Pod {
	GinkgoHelper()
	list := &corev1.PodList{}
	Expect(c.List(ctx, list, client.InNamespace(namespace))).To(Succeed())
	return list.Items
}

// identities are those of one container over all pods of a namespace that have it, by pod: not prefetch pods.
func identities(namespace, container string) map[string]harness.Identity {
	GinkgoHelper()
	all := map[string]harness.Identity{}
	for _, pod := range podsOf(namespace) {
		if pod.Labels[v1alpha1.PrefetchLabel] == "" {
			all[pod.Name] = harness.IdentityOf(&pod, container)
		}
	}
	return all
}

// observe watches a namespace until the returned function is called, which
// fails the test where an app was touched or a workload had more pods down than allowed.
func observe(namespace string, maxUnavailable int) func() {
	GinkgoHelper()
	observer, err := harness.Observe(ctx, c, namespace)
	Expect(err).NotTo(HaveOccurred())
	return func() {
		GinkgoHelper()
		observer.Stop()
		Expect(observer.Violations()).To(BeEmpty())
		for workload, count := range observer.MaxUnavailable() {
			Expect(count).To(BeNumerically("<=", maxUnavailable), fmt.Sprintf("pods of %s that were not ready at once", workload))
		}
	}
}
