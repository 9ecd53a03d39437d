package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/sidecar-dev/sidecar-operator/hack/cluster/images"
)

// OLMNamespace is where catalogs are that all namespaces can subscribe to.
const OLMNamespace = "olm"

// olmAPIModule holds the CRDs.
const olmAPIModule = "github.com/operator-framework/api"

// OLM is Operator Lifecycle Manager beside a real node: its two operators are
// processes of this machine, the jobs that unpack bundles are pods.
type OLM struct {
	cluster   *Cluster
	binDir    string
	processes []*process
}

// StartOLM builds what is missing, and runs Operator Lifecycle Manager on a
// real node until Stop, or until the cluster stops.
func (c *Cluster) StartOLM(ctx context.Context) (*OLM, error) {
	if c.opts.Kind != RealNode {
		return nil, fmt.Errorf("OLM unpacks bundles in pods, which a %s cluster does not run: start a %s one", c.opts.Kind, RealNode)
	}
	binDir, err := Build(ctx, c.opts.Log, OLMComponents()...)
	if err != nil {
		return nil, err
	}
	o := &OLM{cluster: c, binDir: binDir}
	if err := o.start(ctx); err != nil {
		o.Stop()
		return nil, fmt.Errorf("start OLM: %w", err)
	}
	return o, nil
}

func (o *OLM) start(ctx context.Context) error {
	if err := o.installCRDs(ctx); err != nil {
		return err
	}
	if err := o.createNamespace(ctx); err != nil {
		return err
	}
	opm, util := o.cluster.Registry()+"/opm:olm", o.cluster.Registry()+"/olm-util:olm"
	if err := o.pushImages(ctx, opm, util); err != nil {
		return err
	}
	// Both want the port 8080 for their metrics; who does not get it goes on without.
	if _, err := o.launch(OLMOperator); err != nil {
		return err
	}
	_, err := o.launch(OLMCatalogOperator, "--namespace="+OLMNamespace, "--opmImage="+opm, "--util-image="+util)
	return err
}

// launch runs a binary of OLM with the rights of an administrator.
func (o *OLM) launch(component Component, args ...string) (*process, error) {
	// The operators take the kubeconfig from the environment.
	env := []string{"KUBECONFIG=" + o.cluster.Kubeconfig()}
	path := filepath.Join(o.binDir, string(component))
	p, err := startProcess(o.cluster.run, o.cluster.logDir, string(component), path, env, args...)
	if err != nil {
		return nil, err
	}
	o.processes = append(o.processes, p)
	o.cluster.processes = append(o.cluster.processes, p)
	return p, nil
}

func (o *OLM) installCRDs(ctx context.Context) error {
	crds, err := olmCRDs(ctx)
	if err != nil {
		return fmt.Errorf("find OLM's CRDs: %w", err)
	}
	kubectl := filepath.Join(o.cluster.binDir, string(Kubectl))
	if err := command(ctx, kubectl, "--kubeconfig="+o.cluster.Kubeconfig(), "apply", "--server-side", "-f", crds); err != nil {
		return err
	}
	return command(ctx, kubectl, "--kubeconfig="+o.cluster.Kubeconfig(), "wait", "--for=condition=Established", "--timeout=30s", "-f", crds)
}

// olmCRDs is the folder of the CRDs in the module that OLM is built with. That
// is not in the module cache if OLM was not built since that was emptied.
func olmCRDs(ctx context.Context) (string, error) {
	components, err := componentsDir()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", olmAPIModule)
	cmd.Dir = filepath.Join(components, "olm")
	cmd.Env = append(os.Environ(), "GOWORK=off")
	output, err := cmd.Output()
	var module struct{ Dir, Error string }
	if err := errors.Join(err, json.Unmarshal(output, &module)); err != nil {
		return "", fmt.Errorf("%w: %s", err, module.Error)
	}
	return filepath.Join(module.Dir, "crds"), nil
}

func (o *OLM) createNamespace(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(o.cluster.config)
	if err != nil {
		return err
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: OLMNamespace}}
	_, err = client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// pushImages makes what the jobs that unpack bundles run: opm, and a cp that
// copies cpb into a volume.
func (o *OLM) pushImages(ctx context.Context, opm, util string) error {
	root, err := repoRoot()
	if err != nil {
		return err
	}
	packager, err := o.tree(OLMPackager)
	if err != nil {
		return err
	}
	copier, err := o.tree(OLMBundleCopier)
	if err != nil {
		return err
	}
	_, opmErr := images.Push(ctx, opm, images.Spec{Root: packager, Binary: "/bin/opm", Env: []string{"PATH=/bin"}})
	_, utilErr := images.Push(ctx, util, images.Spec{Root: copier, Dir: root, Package: "./hack/cluster/images/cp", Binary: "/bin/cp"})
	return errors.Join(opmErr, utilErr)
}

// tree is a file tree for an image, with one program in its /bin.
func (o *OLM) tree(program Component) (string, error) {
	data, err := os.ReadFile(filepath.Join(o.binDir, string(program)))
	if err != nil {
		return "", err
	}
	tree := filepath.Join(o.cluster.run.path, "trees", string(program))
	if err := os.MkdirAll(filepath.Join(tree, "bin"), 0o755); err != nil {
		return "", err
	}
	return tree, os.WriteFile(filepath.Join(tree, "bin", string(program)), data, 0o755)
}

// ServeCatalog serves the file-based catalog in a folder as long as OLM runs,
// and returns the address for the spec of a CatalogSource.
func (o *OLM) ServeCatalog(ctx context.Context, dir string) (string, error) {
	ports, err := freePorts(1)
	if err != nil {
		return "", err
	}
	port := strconv.Itoa(ports[0])
	address := net.JoinHostPort(loopback, port)
	p, err := o.launch(OLMPackager, "serve", dir, "--port="+port, "--pprof-addr=",
		"--termination-log="+filepath.Join(o.cluster.run.path, "opm.termination"))
	if err != nil {
		return "", err
	}
	return address, p.waitFor(ctx, "open port", func(ctx context.Context) error {
		connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return connection.Close()
	})
}

// Stop stops OLM's processes. What it has installed stays.
func (o *OLM) Stop() {
	for _, p := range slices.Backward(o.processes) {
		p.stop()
	}
	o.cluster.processes = slices.DeleteFunc(o.cluster.processes, func(p *process) bool { return slices.Contains(o.processes, p) })
	o.processes = nil
}
