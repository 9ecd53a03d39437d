// The benchmark upgrades a fleet on simulated nodes with the operator, and the same fleet with the same
// PATCHes sent by as many workers and no operator, in one run. It prints ratios: absolute times differ
// from machine to machine. With -grow it shows what the operator costs as a fleet grows.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
)

const (
	name              = "bench"
	podsPerDeployment = 50
	patience          = 30 * time.Minute
)

func main() {
	pods := flag.Int("pods", 5000, "The size of the fleet; rounded down to whole Deployments of 50.")
	rounds := flag.Int("rounds", 3, "How often both are measured, in turn.")
	workers := flag.Int("workers", 32, "How many workers send the bare PATCHes; the operator has 32.")
	grow := flag.String("grow", "", "Measure what the operator costs at these sizes instead, in growing order, like 1000,2000,5000,10000.")
	admission := flag.Int("admission", 0, "Measure the creation of so many pods of each kind instead: selected by no policy, by one, by ten.")
	plot := flag.String("plot", "", "With -grow: the SVG file to draw the figures into.")
	flag.Parse()
	*rounds = max(1, *rounds)
	log.SetLogger(zap.New(zap.WriteTo(os.Stderr)))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, func(b *bench) error {
		b.workers = *workers
		switch {
		case *admission > 0:
			return b.admission(ctx, *admission)
		case *grow == "":
			return b.compare(ctx, *pods, *rounds)
		}
		sizes, err := numbers(*grow)
		if err != nil {
			return fmt.Errorf("-grow: %w", err)
		}
		return b.grow(ctx, sizes, *plot)
	})
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "the benchmark failed:", err)
		os.Exit(1)
	}
}

func numbers(list string) ([]int, error) {
	var all []int
	for _, word := range strings.Split(list, ",") {
		n, err := strconv.Atoi(word)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, nil
}

// run measures on a cluster of its own.
func run(ctx context.Context, measure func(*bench) error) (err error) {
	b := &bench{}
	if err := b.start(ctx); err != nil {
		return errors.Join(err, b.stop())
	}
	defer func() { err = errors.Join(err, b.stop()) }()
	return measure(b)
}
