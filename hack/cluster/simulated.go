package cluster

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// stages tell kwok how nodes and pods change. They replace its own, which do
// not act on an image that changes in a running pod.
//
//go:embed stages/*.yaml
var stages embed.FS

// simulatedLabel marks the nodes that kwok plays the kubelet of.
const simulatedLabel = "sidecar-operator.test/simulated"

// kwokConfig gives kwok the workers to keep up with a large roll-out.
const kwokConfig = `apiVersion: config.kwok.x-k8s.io/v1alpha1
kind: KwokConfiguration
options:
  podPlayStageParallelism: 32
  nodePlayStageParallelism: 8
  nodeLeaseParallelism: 4
`

func (c *Cluster) startSimulated(ctx context.Context) error {
	if err := c.startControlPlane(ctx); err != nil {
		return err
	}
	config, err := kwokFile()
	if err != nil {
		return err
	}
	path := filepath.Join(c.run.path, "kwok.yaml")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		return err
	}
	kubeconfig := filepath.Join(c.run.path, "kwok.kubeconfig")
	if err := c.pki.kubeconfig(kubeconfig, "kwok", masters); err != nil {
		return err
	}
	kwok, err := c.launch(Kwok,
		"--config="+path,
		"--kubeconfig="+kubeconfig,
		"--manage-all-nodes=false",
		"--manage-nodes-with-label-selector="+simulatedLabel+"=true",
		"--node-lease-duration-seconds=40",
		"--node-ip="+loopback,
		"--node-port=0",
		"--cidr=10.90.0.0/16",
		"--server-address=",
		// A line for each patch would be a good part of its work.
		"--v=WARN",
	)
	if err != nil {
		return err
	}
	if err := c.createNodes(ctx); err != nil {
		return err
	}
	return kwok.waitFor(ctx, "ready nodes", func(ctx context.Context) error { return c.checkNodes(ctx, c.opts.Nodes) })
}

// kwokFile is the configuration with the stages behind it.
func kwokFile() ([]byte, error) {
	files, err := fs.Glob(stages, "stages/*.yaml")
	if err != nil {
		return nil, err
	}
	parts := [][]byte{[]byte(kwokConfig)}
	for _, file := range files {
		data, err := stages.ReadFile(file)
		if err != nil {
			return nil, err
		}
		parts = append(parts, data)
	}
	return bytes.Join(parts, []byte("---\n")), nil
}

func (c *Cluster) createNodes(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(c.config)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for i := range c.opts.Nodes {
		group.Go(func() error {
			_, err := client.CoreV1().Nodes().Create(ctx, simulatedNode(i, c.opts.Zones), metav1.CreateOptions{})
			return err
		})
	}
	return group.Wait()
}

// simulatedNode has room for any test, so that the scheduler never refuses.
func simulatedNode(i, zones int) *corev1.Node {
	name := fmt.Sprintf("node-%d", i+1)
	room := corev1.ResourceList{
		corev1.ResourceCPU:              resource.MustParse("1000"),
		corev1.ResourceMemory:           resource.MustParse("4Ti"),
		corev1.ResourceEphemeralStorage: resource.MustParse("4Ti"),
		corev1.ResourcePods:             resource.MustParse("10000"),
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: name,
			Labels: map[string]string{
				simulatedLabel:           "true",
				corev1.LabelHostname:     name,
				corev1.LabelOSStable:     "linux",
				corev1.LabelArchStable:   "amd64",
				corev1.LabelTopologyZone: fmt.Sprintf("zone-%d", i%zones+1),
			},
		},
		Status: corev1.NodeStatus{Capacity: room, Allocatable: room},
	}
}
