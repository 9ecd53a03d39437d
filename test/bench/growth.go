package main

import (
	"context"
	"fmt"
	"os"
)

// cost is what the operator takes for a fleet of one size.
type cost struct {
	pods int
	// seconds is how long a roll-out takes, cpu the manager's CPU seconds for 1,000 of its pods.
	seconds, cpu float64
	// idle is the CPU of a pass in which nothing changes, in milliseconds.
	idle float64
	// peakMiB is the most memory that a manager has in use from its start to the end of the roll-out.
	peakMiB float64
}

// grow measures one fleet after the other, each with a manager of its own.
func (b *bench) grow(ctx context.Context, sizes []int, plot string) error {
	if err := b.apply(ctx, policy()); err != nil {
		return err
	}
	var costs []cost
	fmt.Println("  pods  roll-out s  pods/s  manager CPU s/1,000 pods  idle pass CPU ms  peak MiB")
	for _, size := range sizes {
		c, err := b.costOf(ctx, size)
		if err != nil {
			return err
		}
		costs = append(costs, c)
		fmt.Printf("%6d  %10.0f  %6.0f  %24.2f  %16.1f  %8.0f\n", c.pods, c.seconds, float64(c.pods)/c.seconds, c.cpu, c.idle, c.peakMiB)
	}
	if plot == "" {
		return nil
	}
	return os.WriteFile(plot, draw(panels(costs)), 0o644)
}

func (b *bench) costOf(ctx context.Context, pods int) (cost, error) {
	if err := b.fill(ctx, pods); err != nil {
		return cost{}, err
	}
	b.manager.Stop()
	if err := b.startManager(ctx); err != nil {
		return cost{}, err
	}
	if err := b.awaitQuiet(ctx, settled); err != nil {
		return cost{}, err
	}
	r, err := b.operatorRound(ctx)
	if err != nil {
		return cost{}, err
	}
	idle, err := b.idlePass(ctx)
	if err != nil {
		return cost{}, err
	}
	used, err := usageOf(b.manager.PID())
	n := b.fleet.Pods()
	return cost{pods: n, seconds: r.took.Seconds(), cpu: 1000 * r.cpu.Seconds() / float64(n), idle: idle.Seconds() * 1000, peakMiB: used.peakMiB}, err
}

// panels are the plots of a growing fleet, with the bars that must not be reached at 10,000 pods.
func panels(costs []cost) []panel {
	series := func(title, unit string, limit float64, of func(cost) float64) panel {
		p := panel{title: title, x: "pods", unit: unit, limit: limit}
		for _, c := range costs {
			p.points = append(p.points, point{float64(c.pods), of(c)})
		}
		return p
	}
	return []panel{
		series("A roll-out of all pods", "s", 0, func(c cost) float64 { return c.seconds }),
		series("Manager's CPU for 1,000 pods of it", "CPU s", 0, func(c cost) float64 { return c.cpu }),
		series("A pass in which nothing changed", "CPU ms", 50, func(c cost) float64 { return c.idle }),
		series("Manager's memory, peak", "MiB", 150, func(c cost) float64 { return c.peakMiB }),
	}
}
