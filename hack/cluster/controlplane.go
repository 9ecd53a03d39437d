package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const (
	loopback = "127.0.0.1"
	// serviceCIDR holds the address that pods know the API server by.
	serviceCIDR = "10.96.0.0/24"
	serviceIP   = "10.96.0.1"
	masters     = "system:masters"
)

// address is where the API server listens.
type address struct {
	host string
	port int
}

func (a address) url() string {
	return "https://" + net.JoinHostPort(a.host, strconv.Itoa(a.port))
}

// addressFor chooses the API server's address. On a real node it is the very
// address of the Service "kubernetes", so that pods reach it without
// kube-proxy; it is on a device of the host that nothing outside routes to.
func addressFor(kind Kind) (address, error) {
	if kind == RealNode {
		return address{serviceIP, 443}, nil
	}
	ports, err := freePorts(1)
	if err != nil {
		return address{}, err
	}
	return address{loopback, ports[0]}, nil
}

// freePorts holds all of them open until it has enough, so that they differ.
func freePorts(n int) ([]int, error) {
	ports := make([]int, n)
	for i := range ports {
		listener, err := net.Listen("tcp", net.JoinHostPort(loopback, "0"))
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer func() { _ = listener.Close() }()
		ports[i] = listener.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}

// startControlPlane starts the control plane of any kind.
func (c *Cluster) startControlPlane(ctx context.Context) error {
	if err := c.startAPIServer(ctx); err != nil {
		return err
	}
	if c.opts.Kind == ControlPlane && !c.opts.Controllers {
		return nil
	}
	return c.startControllers(ctx)
}

func (c *Cluster) startAPIServer(ctx context.Context) error {
	var err error
	c.pki, err = newPKI(filepath.Join(c.run.path, "pki"), c.address.url(), apiServerNames(c.address.host)...)
	if err != nil {
		return err
	}
	if err := c.pki.kubeconfig(c.Kubeconfig(), "admin", masters); err != nil {
		return err
	}
	if err := c.loadConfig(); err != nil {
		return err
	}
	ports, err := freePorts(2)
	if err != nil {
		return err
	}
	clientURL := "http://" + net.JoinHostPort(loopback, strconv.Itoa(ports[0]))
	peerURL := "http://" + net.JoinHostPort(loopback, strconv.Itoa(ports[1]))
	etcd, err := c.launch(Etcd, etcdArgs(filepath.Join(c.run.path, "etcd"), clientURL, peerURL)...)
	if err != nil {
		return err
	}
	if err := etcd.waitFor(ctx, "healthy answer", func(ctx context.Context) error { return healthy(ctx, clientURL+"/health") }); err != nil {
		return err
	}
	args := append(apiServerArgs(c.opts.Kind, c.address, clientURL, c.pki), c.opts.APIServerArgs...)
	server, err := c.launch(KubeAPIServer, args...)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(c.config)
	if err != nil {
		return err
	}
	return server.waitFor(ctx, "ready answer", func(ctx context.Context) error {
		return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
}

func apiServerNames(host string) []string {
	return []string{host, loopback, serviceIP, "localhost", "kubernetes", "kubernetes.default",
		"kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}
}

func etcdArgs(dataDir, clientURL, peerURL string) []string {
	return []string{
		"--data-dir=" + dataDir,
		"--listen-client-urls=" + clientURL,
		"--advertise-client-urls=" + clientURL,
		"--listen-peer-urls=" + peerURL,
		"--initial-advertise-peer-urls=" + peerURL,
		"--initial-cluster=default=" + peerURL,
		// The data does not outlive the cluster.
		"--unsafe-no-fsync",
		"--log-level=warn",
	}
}

func apiServerArgs(kind Kind, at address, etcdURL string, certs *pki) []string {
	args := []string{
		"--etcd-servers=" + etcdURL,
		"--bind-address=" + at.host,
		"--advertise-address=" + at.host,
		"--secure-port=" + strconv.Itoa(at.port),
		"--service-cluster-ip-range=" + serviceCIDR,
		"--tls-cert-file=" + certs.cert("apiserver"),
		"--tls-private-key-file=" + certs.key("apiserver"),
		"--client-ca-file=" + certs.cert("ca"),
		"--kubelet-client-certificate=" + certs.cert("apiserver-kubelet-client"),
		"--kubelet-client-key=" + certs.key("apiserver-kubelet-client"),
		"--kubelet-certificate-authority=" + certs.cert("ca"),
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + certs.cert("service-account"),
		"--service-account-signing-key-file=" + certs.key("service-account"),
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
	}
	if kind == RealNode {
		// Without kube-proxy a webhook's Service has no address of its own.
		return append(args, "--enable-aggregator-routing=true")
	}
	// A loopback address may not stand in an EndpointSlice.
	return append(args, "--endpoint-reconciler-type=none")
}

// startControllers starts the controller manager and the scheduler, and waits
// until a pod could be created in the default namespace.
func (c *Cluster) startControllers(ctx context.Context) error {
	ports, err := freePorts(2)
	if err != nil {
		return err
	}
	managerArgs, err := c.controllerManagerArgs(ports[0])
	if err != nil {
		return err
	}
	manager, err := c.launch(KubeControllerManager, managerArgs...)
	if err != nil {
		return err
	}
	schedulerArgs, err := c.schedulerArgs(ports[1])
	if err != nil {
		return err
	}
	scheduler, err := c.launch(KubeScheduler, schedulerArgs...)
	if err != nil {
		return err
	}
	if err := manager.waitFor(ctx, "default service account", c.checkServiceAccount); err != nil {
		return err
	}
	url := fmt.Sprintf("https://%s:%d/healthz", loopback, ports[1])
	return scheduler.waitFor(ctx, "healthy answer", func(ctx context.Context) error { return healthy(ctx, url) })
}

// controllerArgs are common to the controller manager and the scheduler.
func (c *Cluster) controllerArgs(component Component, port int) ([]string, error) {
	kubeconfig := filepath.Join(c.run.path, string(component)+".kubeconfig")
	if err := c.pki.kubeconfig(kubeconfig, "system:"+string(component)); err != nil {
		return nil, err
	}
	return []string{
		"--kubeconfig=" + kubeconfig,
		"--bind-address=" + loopback,
		"--secure-port=" + strconv.Itoa(port),
		"--leader-elect=false",
		// The limits meant for a large cluster's sake only slow a small one.
		"--kube-api-qps=1000",
		"--kube-api-burst=2000",
	}, nil
}

func (c *Cluster) controllerManagerArgs(port int) ([]string, error) {
	args, err := c.controllerArgs(KubeControllerManager, port)
	if err != nil {
		return nil, err
	}
	args = append(args,
		"--use-service-account-credentials=true",
		"--root-ca-file="+c.pki.cert("ca"),
		"--service-account-private-key-file="+c.pki.key("service-account"),
		"--cluster-signing-cert-file="+c.pki.cert("ca"),
		"--cluster-signing-key-file="+c.pki.key("ca"),
	)
	return append(args, c.opts.ControllerManagerArgs...), nil
}

func (c *Cluster) schedulerArgs(port int) ([]string, error) {
	args, err := c.controllerArgs(KubeScheduler, port)
	if err != nil {
		return nil, err
	}
	return append(args, c.opts.SchedulerArgs...), nil
}

// checkServiceAccount fails until the controllers have made what every pod
// refers to.
func (c *Cluster) checkServiceAccount(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(c.config)
	if err != nil {
		return err
	}
	_, accountErr := client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
	_, caErr := client.CoreV1().ConfigMaps(metav1.NamespaceDefault).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
	return errors.Join(accountErr, caErr)
}

// healthy asks a component on this machine. Its certificate is of its own
// making, and the answer is no secret.
func healthy(ctx context.Context, url string) error {
	client := http.Client{
		Timeout:   time.Second,
		Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(response.Body, 1024))
		return fmt.Errorf("%s: %s: %s", url, response.Status, body)
	}
	return nil
}
