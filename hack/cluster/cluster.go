// Package cluster runs a whole Kubernetes, built from Go modules, on the
// machine that it is called on: a bare control plane, a control plane with
// simulated nodes, or a control plane with one real node.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sidecar-dev/sidecar-operator/hack/cluster/images"
)

// Kind says how much of a cluster is there.
type Kind string

const (
	// ControlPlane is etcd and the API server, and nothing that acts on
	// objects unless Options.Controllers asks for it.
	ControlPlane Kind = "control-plane"
	// Simulated adds the controllers, the scheduler, and nodes whose kubelet
	// is kwok with the stages of this package.
	Simulated Kind = "simulated"
	// RealNode adds the controllers, the scheduler, a kubelet and containerd.
	// It needs Linux and root, and there is one on a machine at a time.
	RealNode Kind = "real-node"
)

// Defaults of Options.
const (
	DefaultNodes        = 10
	DefaultZones        = 3
	DefaultStartTimeout = 3 * time.Minute
)

// Options say which cluster to start. The zero value is a control plane.
type Options struct {
	// Kind is ControlPlane when empty.
	Kind Kind
	// Controllers runs the controller manager and the scheduler in a
	// ControlPlane too.
	Controllers bool
	// Nodes is the number of simulated nodes, DefaultNodes when 0.
	Nodes int
	// Zones is the number of zones that the simulated nodes are spread over,
	// DefaultZones when 0.
	Zones int
	// RegistryPort is the port of the real node's registry; 0 takes a free one.
	RegistryPort int
	// Log gets a line for each step. Nothing is written when nil.
	Log io.Writer
	// LogDir gets the components' logs and outlives the cluster. When empty
	// they are in the run folder, which Stop removes.
	LogDir string
	// StartTimeout bounds the start without the build, and so the wait for
	// another real node on this machine. DefaultStartTimeout when 0.
	StartTimeout time.Duration
	// KeepSignals leaves SIGINT and SIGTERM to the caller, who has to call
	// Stop. Otherwise either of them stops the cluster and then the process.
	KeepSignals bool
	// These are added to the components' arguments and win over the defaults.
	APIServerArgs         []string
	ControllerManagerArgs []string
	SchedulerArgs         []string
}

func (o Options) withDefaults() Options {
	if o.Kind == "" {
		o.Kind = ControlPlane
	}
	if o.Nodes == 0 {
		o.Nodes = DefaultNodes
	}
	if o.Zones == 0 {
		o.Zones = DefaultZones
	}
	if o.StartTimeout == 0 {
		o.StartTimeout = DefaultStartTimeout
	}
	o.Log = orDiscard(o.Log)
	return o
}

// Cluster is a running cluster.
type Cluster struct {
	opts     Options
	binDir   string
	run      runDir
	logDir   string
	address  address
	pki      *pki
	config   *rest.Config
	registry *images.Registry

	// processes stand in the order of their start.
	processes []*process
	// stopping is closed by the first Stop.
	stopping chan struct{}
	stop     func() error
}

// Start builds what is missing and returns when the cluster is ready for pods.
// ctx bounds the start only; afterwards the cluster runs until Stop, or until
// this process ends.
func Start(ctx context.Context, opts Options) (*Cluster, error) {
	opts = opts.withDefaults()
	if opts.Kind == RealNode {
		if err := RealNodeSupported(); err != nil {
			return nil, err
		}
	}
	binDir, err := Build(ctx, opts.Log, ComponentsFor(opts.Kind)...)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, opts.StartTimeout)
	defer cancel()
	run, err := newRunDir(ctx, opts.Kind, opts.Log)
	if err != nil {
		return nil, err
	}
	c := &Cluster{opts: opts, binDir: binDir, run: run, stopping: make(chan struct{})}
	c.stop = sync.OnceValue(c.stopOnce)
	if !opts.KeepSignals {
		go c.stopOnSignal()
	}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start a %s cluster: %w", opts.Kind, err), c.Stop())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context) error {
	started := time.Now()
	c.logDir = c.opts.LogDir
	if c.logDir == "" {
		c.logDir = filepath.Join(c.run.path, "logs")
	}
	if err := os.MkdirAll(c.logDir, 0o755); err != nil {
		return err
	}
	var err error
	if c.address, err = addressFor(c.opts.Kind); err != nil {
		return err
	}
	starters := map[Kind]func(context.Context) error{
		ControlPlane: c.startControlPlane,
		Simulated:    c.startSimulated,
		RealNode:     c.startRealNode,
	}
	starter, known := starters[c.opts.Kind]
	if !known {
		return fmt.Errorf("unknown kind %q", c.opts.Kind)
	}
	if err := starter(ctx); err != nil {
		return err
	}
	c.logf("%s cluster ready in %s", c.opts.Kind, time.Since(started).Round(100*time.Millisecond))
	return nil
}

// Stop stops everything that Start started and removes the run folder. It may
// be called more than once.
func (c *Cluster) Stop() error { return c.stop() }

func (c *Cluster) stopOnce() error {
	close(c.stopping)
	for i := len(c.processes) - 1; i >= 0; i-- {
		p := c.processes[i]
		if p.beforeStop != nil {
			p.beforeStop()
		}
		p.stop()
	}
	var err error
	if c.registry != nil {
		err = c.registry.Close()
	}
	return errors.Join(err, c.run.close())
}

// stopOnSignal lets the signal do what it would have done, but after Stop.
func (c *Cluster) stopOnSignal() {
	signals := make(chan os.Signal, 1)
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		// What a shell told this process to ignore, it would survive.
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	defer signal.Stop(signals)
	select {
	case <-c.stopping:
	case received := <-signals:
		_ = c.Stop()
		signal.Reset(received)
		_ = syscall.Kill(os.Getpid(), received.(syscall.Signal))
	}
}

// Config returns a client configuration of a member of system:masters,
// without a rate limit.
func (c *Cluster) Config() *rest.Config { return rest.CopyConfig(c.config) }

// Kubeconfig is the path of a kubeconfig file with the same rights as Config.
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.run.path, "kubeconfig") }

// Registry is the host and port of the registry that a real node can pull
// from, and "" for other kinds.
func (c *Cluster) Registry() string {
	if c.registry == nil {
		return ""
	}
	return c.registry.Address()
}

// Dir is the run folder. It goes away with the cluster.
func (c *Cluster) Dir() string { return c.run.path }

// BinDir holds the binaries of the components, kubectl among them.
func (c *Cluster) BinDir() string { return c.binDir }

// LogDir holds a log file for each component.
func (c *Cluster) LogDir() string { return c.logDir }

func (c *Cluster) logf(format string, args ...any) {
	_, _ = fmt.Fprintf(c.opts.Log, format+"\n", args...)
}

// launch starts a component and has Stop stop it.
func (c *Cluster) launch(component Component, args ...string) (*process, error) {
	path := filepath.Join(c.binDir, string(component))
	p, err := startProcess(c.run, c.logDir, string(component), path, nil, args...)
	if err != nil {
		return nil, err
	}
	c.processes = append(c.processes, p)
	return p, nil
}

// loadConfig reads the administrator's kubeconfig.
func (c *Cluster) loadConfig() error {
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		return err
	}
	// -1 switches client-go's own rate limit off.
	config.QPS = -1
	c.config = config
	return nil
}
