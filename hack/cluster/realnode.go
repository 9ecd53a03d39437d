package cluster

import (
	"bytes"
	"context"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"github.com/sidecar-dev/sidecar-operator/hack/cluster/images"
)

const (
	// nodeName is what the real node is called.
	nodeName = "node-1"
	nodeZone = "zone-1"
	// bridge carries the pods' network, the node's address and the address of
	// the API server.
	bridge     = "sidecar0"
	podCIDR    = "10.89.0.0/24"
	nodeIP     = "10.89.0.1"
	nodeIPMask = nodeIP + "/24"
	// bridgeMAC is fixed, as a bridge without an address of its own changes it
	// with its ports, and pods would go on talking to the old one.
	bridgeMAC = "02:53:43:00:00:01"
	// networkName names the files that the CNI library caches.
	networkName = "sidecar-cluster"
	// cgroupName is the root of all cgroups of the node's pods.
	cgroupName = "sidecar-cluster"
	// podsGone bounds the wait for the pods at the end. What is left by then
	// is killed.
	podsGone = 10 * time.Second
)

// nodePaths are the files of the real node, all below its run folder.
type nodePaths struct{ run string }

func (p nodePaths) socket() string     { return filepath.Join(p.run, "containerd.sock") }
func (p nodePaths) containerd() string { return filepath.Join(p.run, "containerd.toml") }
func (p nodePaths) kubelet() string    { return filepath.Join(p.run, "kubelet.yaml") }
func (p nodePaths) cni() string        { return filepath.Join(p.run, "cni") }
func (p nodePaths) sysctls() string    { return filepath.Join(p.run, "sysctls.json") }

func (p nodePaths) dir(name string) string { return filepath.Join(p.run, name) }

// startRealNode starts the node beside the control plane, because they take
// about as long as each other.
func (c *Cluster) startRealNode(ctx context.Context) error {
	if err := installTools(ctx, c.opts.Log); err != nil {
		return err
	}
	if err := prepareHost(ctx, nodePaths{c.run.path}); err != nil {
		return err
	}
	pause, err := c.startRegistry(ctx)
	if err != nil {
		return err
	}
	containerd, err := c.startContainerd(pause)
	if err != nil {
		return err
	}
	if err := c.startAPIServer(ctx); err != nil {
		return err
	}
	err = containerd.waitFor(ctx, "socket", func(context.Context) error {
		_, err := os.Stat(nodePaths{c.run.path}.socket())
		return err
	})
	if err != nil {
		return err
	}
	kubelet, err := c.startKubelet()
	if err != nil {
		return err
	}
	if err := c.startControllers(ctx); err != nil {
		return err
	}
	return kubelet.waitFor(ctx, "Ready node", func(ctx context.Context) error { return c.checkNodes(ctx, 1) })
}

// startRegistry starts the registry and puts the sandbox's image into it.
func (c *Cluster) startRegistry(ctx context.Context) (pause string, err error) {
	c.registry, err = images.Serve(filepath.Join(c.run.path, "registry"), c.opts.RegistryPort)
	if err != nil {
		return "", err
	}
	root, err := repoRoot()
	if err != nil {
		return "", err
	}
	pause = c.registry.Address() + "/pause:latest"
	_, err = images.Push(ctx, pause, images.Spec{Dir: root, Package: "./hack/cluster/images/pause"})
	return pause, err
}

func (c *Cluster) startContainerd(pause string) (*process, error) {
	paths := nodePaths{c.run.path}
	runc, err := exec.LookPath("runc")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(paths.containerd(), containerdConfig(paths, c.binDir, runc, pause), 0o600); err != nil {
		return nil, err
	}
	if err := writeCNIConfig(paths); err != nil {
		return nil, err
	}
	p, err := c.launch(Containerd, "--config="+paths.containerd())
	if err != nil {
		return nil, err
	}
	p.grace = 3 * time.Second
	return p, nil
}

// containerdConfig keeps everything below the run folder, so that a containerd
// of the machine is not disturbed.
func containerdConfig(paths nodePaths, binDir, runc, pause string) []byte {
	return fmt.Appendf(nil, `version = 4
root = %[1]q
state = %[2]q
imports = []

[plugins.'io.containerd.server.v1.grpc']
  address = %[3]q
[plugins.'io.containerd.server.v1.ttrpc']
  address = %[4]q
[plugins.'io.containerd.shim.v1.manager']
  socket_dir = %[5]q
[plugins.'io.containerd.internal.v1.opt']
  path = %[6]q
[plugins.'io.containerd.nri.v1.nri']
  disable = true
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = %[7]q
[plugins.'io.containerd.cri.v1.runtime']
  # A machine without CAP_SYS_RESOURCE may not lower a score.
  restrict_oom_score_adj = true
  # The network namespaces go away with the other mounts of the run folder.
  netns_mounts_under_state_dir = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  # Otherwise the loopback plugin, and its cache outside the run folder.
  use_internal_loopback = true
  bin_dirs = [%[8]q]
  conf_dir = %[9]q
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  BinaryName = %[10]q
  Root = %[11]q
  SystemdCgroup = false
`,
		paths.dir("containerd"), paths.dir("state"), paths.socket(), paths.socket()+".ttrpc",
		paths.dir("s"), paths.dir("opt"), pause, binDir, paths.cni(), runc, paths.dir("runc"))
}

// writeCNIConfig needs no packet filter: pods reach each other and the host
// over the bridge, and nothing else.
func writeCNIConfig(paths nodePaths) error {
	config := map[string]any{
		"cniVersion": "1.0.0",
		"name":       networkName,
		"plugins": []any{map[string]any{
			"type":   "bridge",
			"bridge": bridge,
			// The bridge has its address already, and as a gateway the plugin
			// would switch the host's forwarding on.
			"isGateway": false,
			"ipMasq":    false,
			"ipam": map[string]any{
				"type":    "host-local",
				"dataDir": paths.dir("ipam"),
				"ranges":  []any{[]any{map[string]any{"subnet": podCIDR, "gateway": nodeIP}}},
				"routes":  []any{map[string]any{"dst": "0.0.0.0/0"}},
			},
		}},
	}
	data, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(paths.cni(), 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(paths.cni(), "10-bridge.conflist"), data, 0o644)
}

func (c *Cluster) startKubelet() (*process, error) {
	paths := nodePaths{c.run.path}
	if err := c.pki.issue("kubelet", pkix.Name{CommonName: nodeName}, nodeIP, nodeName); err != nil {
		return nil, err
	}
	config, err := yaml.Marshal(kubeletConfig(paths, c.pki))
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(paths.kubelet(), config, 0o600); err != nil {
		return nil, err
	}
	kubeconfig := filepath.Join(c.run.path, "kubelet.kubeconfig")
	if err := c.pki.kubeconfig(kubeconfig, "system:node:"+nodeName, "system:nodes"); err != nil {
		return nil, err
	}
	p, err := c.launch(Kubelet,
		"--config="+paths.kubelet(),
		"--kubeconfig="+kubeconfig,
		"--root-dir="+paths.dir("kubelet"),
		"--hostname-override="+nodeName,
		"--node-ip="+nodeIP,
		"--node-labels="+corev1.LabelTopologyZone+"="+nodeZone,
	)
	if err != nil {
		return nil, err
	}
	p.grace = 3 * time.Second
	p.beforeStop = c.deletePods
	return p, nil
}

func kubeletConfig(paths nodePaths, certs *pki) map[string]any {
	return map[string]any{
		"apiVersion":               "kubelet.config.k8s.io/v1beta1",
		"kind":                     "KubeletConfiguration",
		"address":                  nodeIP,
		"healthzBindAddress":       loopback,
		"healthzPort":              0,
		"tlsCertFile":              certs.cert("kubelet"),
		"tlsPrivateKeyFile":        certs.key("kubelet"),
		"authentication":           map[string]any{"x509": map[string]any{"clientCAFile": certs.cert("ca")}, "anonymous": map[string]any{"enabled": false}},
		"containerRuntimeEndpoint": "unix://" + paths.socket(),
		"podLogsDir":               paths.dir("pod-logs"),
		"volumePluginDir":          paths.dir("volume-plugins"),
		"maxPods":                  200,
		"serializeImagePulls":      false,
		"makeIPTablesUtilChains":   false,
		"failSwapOn":               false,
		// A tests' machine is small, full and not always ours alone: nothing is
		// evicted, reserved or collected.
		"cgroupRoot":                    "/" + cgroupName,
		"cgroupDriver":                  "cgroupfs",
		"failCgroupV1":                  false,
		"enforceNodeAllocatable":        []string{},
		"localStorageCapacityIsolation": false,
		"imageGCHighThresholdPercent":   100,
		"evictionHard":                  map[string]string{"memory.available": "0%", "nodefs.available": "0%", "imagefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.inodesFree": "0%"},
	}
}

// checkNodes fails unless this many nodes are ready.
func (c *Cluster) checkNodes(ctx context.Context, want int) error {
	client, err := kubernetes.NewForConfig(c.config)
	if err != nil {
		return err
	}
	// Resource version 0 is answered from memory, which matters with many nodes.
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return err
	}
	ready := 0
	for i := range nodes.Items {
		if nodeReady(&nodes.Items[i]) {
			ready++
		}
	}
	if ready < want {
		return fmt.Errorf("%d of %d nodes are ready", ready, want)
	}
	return nil
}

// nodeReady also waits for the taint to go that keeps pods off a new node.
func nodeReady(node *corev1.Node) bool {
	if len(node.Spec.Taints) > 0 {
		return false
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// deletePods has the kubelet stop its pods, which leaves the least behind. The
// controllers that would replace them are stopped by now.
func (c *Cluster) deletePods() {
	ctx, cancel := context.WithTimeout(context.Background(), podsGone)
	defer cancel()
	client, err := kubernetes.NewForConfig(c.config)
	if err != nil {
		return
	}
	grace := int64(1)
	deleted := map[string]bool{}
	err = wait.PollUntilContextCancel(ctx, 100*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		pods, err := client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		for _, pod := range pods.Items {
			if !deleted[string(pod.UID)] {
				err := client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &grace})
				deleted[string(pod.UID)] = err == nil
			}
		}
		return len(pods.Items) == 0, nil
	})
	if err != nil {
		c.logf("pods are left and will be killed: %v", err)
	}
}

// installTools gets from Debian what cannot be built from a Go module.
func installTools(ctx context.Context, log io.Writer) error {
	var packages []string
	for _, tool := range []struct{ binary, pkg string }{{"runc", "runc"}, {"ip", "iproute2"}} {
		if _, err := exec.LookPath(tool.binary); err != nil {
			packages = append(packages, tool.pkg)
		}
	}
	if len(packages) == 0 {
		return nil
	}
	_, _ = fmt.Fprintf(log, "installing %v with apt-get ...\n", packages)
	if err := command(ctx, "apt-get", "update", "-qq"); err != nil {
		return err
	}
	return command(ctx, "apt-get", append([]string{"install", "-y", "-qq", "--no-install-recommends"}, packages...)...)
}

// command runs a program to its end; its output is part of the error.
func command(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	output, err := cmd.CombinedOutput()
	if err != nil {
		return errors.Join(fmt.Errorf("%s %v: %w", name, args, err), errors.New(string(bytes.TrimSpace(output))))
	}
	return nil
}
