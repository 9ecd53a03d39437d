// Command cluster builds, starts and stops a Kubernetes cluster for tests.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/sidecar-dev/sidecar-operator/hack/cluster"
	"github.com/sidecar-dev/sidecar-operator/hack/cluster/images"
)

const usage = `usage:
  cluster build [--print-assets] [--kind KIND] [COMPONENT ...]
  cluster up [--kind control-plane|simulated|real-node] [--nodes N] [--kubeconfig PATH] ...
  cluster down [--kind KIND]
  cluster push REFERENCE PACKAGE [ARGUMENT ...]`

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

// run writes results to out and progress to log.
func run(ctx context.Context, args []string, out, log io.Writer) error {
	commands := map[string]func(context.Context, []string, io.Writer, io.Writer) error{
		"build": build,
		"up":    up,
		"down":  down,
		"push":  push,
	}
	if len(args) == 0 || commands[args[0]] == nil {
		return errors.New(usage)
	}
	err := commands[args[0]](ctx, args[1:], out, log)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	return err
}

func build(ctx context.Context, args []string, out, log io.Writer) error {
	flags := flag.NewFlagSet("build", flag.ContinueOnError)
	assets := flags.Bool("print-assets", false, "build only what envtest needs and print nothing but its folder, for "+cluster.AssetsEnv)
	kind := flags.String("kind", "", "build only what a cluster of this kind runs")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var components []cluster.Component
	for _, arg := range flags.Args() {
		components = append(components, cluster.Component(arg))
	}
	if *assets {
		components = append(components, cluster.EnvtestAssets()...)
	}
	if *kind != "" {
		components = append(components, cluster.ComponentsFor(cluster.Kind(*kind))...)
	}
	dir, err := cluster.Build(ctx, log, components...)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, dir)
	return err
}

func up(ctx context.Context, args []string, out, log io.Writer) error {
	// Stop is called below, in its turn.
	opts := cluster.Options{Log: log, KeepSignals: true}
	flags := flag.NewFlagSet("up", flag.ContinueOnError)
	kind := flags.String("kind", string(cluster.ControlPlane), "control-plane, simulated or real-node")
	kubeconfig := flags.String("kubeconfig", "", "also write the kubeconfig to this file")
	flags.BoolVar(&opts.Controllers, "controllers", false, "run the controller manager and the scheduler in a control-plane too")
	flags.IntVar(&opts.Nodes, "nodes", cluster.DefaultNodes, "number of simulated nodes")
	flags.IntVar(&opts.Zones, "zones", cluster.DefaultZones, "number of zones of the simulated nodes")
	flags.IntVar(&opts.RegistryPort, "registry-port", 0, "port of the real node's registry, 0 for a free one")
	flags.StringVar(&opts.LogDir, "log-dir", "", "keep the components' logs in this folder")
	flags.DurationVar(&opts.StartTimeout, "timeout", cluster.DefaultStartTimeout, "how long the start may take")
	if err := flags.Parse(args); err != nil {
		return err
	}
	opts.Kind = cluster.Kind(*kind)
	c, err := cluster.Start(ctx, opts)
	if err != nil {
		return err
	}
	return errors.Join(serve(ctx, c, *kubeconfig, out, log), c.Stop())
}

// serve tells how to reach the cluster and waits for the signal.
func serve(ctx context.Context, c *cluster.Cluster, kubeconfig string, out, log io.Writer) error {
	path := c.Kubeconfig()
	if kubeconfig != "" {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.WriteFile(kubeconfig, data, 0o600); err != nil {
			return err
		}
		path = kubeconfig
	}
	lines := []string{"export KUBECONFIG=" + path, "export PATH=" + c.BinDir() + ":$PATH"}
	if c.Registry() != "" {
		lines = append(lines, "export REGISTRY="+c.Registry())
	}
	if _, err := fmt.Fprintln(out, strings.Join(lines, "\n")); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(log, "logs are in %s; Ctrl-C stops the cluster\n", c.LogDir())
	<-ctx.Done()
	_, _ = fmt.Fprintln(log, "stopping ...")
	return nil
}

func down(ctx context.Context, args []string, _, log io.Writer) error {
	flags := flag.NewFlagSet("down", flag.ContinueOnError)
	kind := flags.String("kind", "", "stop only clusters of this kind")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *kind == "" {
		return cluster.Down(ctx, log)
	}
	return cluster.Down(ctx, log, cluster.Kind(*kind))
}

// push labels the image with its reference, so that each tag is a new image.
func push(ctx context.Context, args []string, out, _ io.Writer) error {
	if len(args) < 2 {
		return errors.New(usage)
	}
	digest, err := images.Push(ctx, args[0], images.Spec{
		Package: args[1],
		Args:    args[2:],
		Labels:  map[string]string{"reference": args[0]},
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, digest)
	return err
}
