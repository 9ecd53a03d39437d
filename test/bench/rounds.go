package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

// round is one roll-out by the operator.
type round struct {
	took   time.Duration
	writes writes
	cpu    time.Duration
}

// compare rolls out with and without the operator in turn, and prints what each took.
func (b *bench) compare(ctx context.Context, pods, rounds int) error {
	if err := b.apply(ctx, policy()); err != nil {
		return err
	}
	if err := b.fill(ctx, pods); err != nil {
		return err
	}
	fmt.Printf("%d simulated pods in %d Deployments, budgets 100%%, one step, %d workers\n\n", b.fleet.Pods(), b.fleet.Deployments, b.workers)
	fmt.Println("round  operator pods/s  bare pods/s  ratio  PATCHes/pod  dry runs  other writes  manager CPU s/1,000 pods")
	var ratios []float64
	for i := range rounds {
		operator, bare, err := b.both(ctx, i%2 == 0)
		if err != nil {
			return err
		}
		n := float64(b.fleet.Pods())
		ratios = append(ratios, bare.Seconds()/operator.took.Seconds())
		fmt.Printf("%5d  %15.0f  %11.0f  %5.2f  %11.4f  %8.0f  %12.0f  %24.2f\n", i+1, n/operator.took.Seconds(), n/bare.Seconds(), ratios[i],
			operator.writes.upgrades/n, operator.writes.tries, operator.writes.others, 1000*operator.cpu.Seconds()/n)
	}
	idle, err := b.idlePass(ctx)
	if err != nil {
		return err
	}
	if err := b.stopManager(); err != nil {
		return err
	}
	slices.Sort(ratios)
	fmt.Printf("\nratio %.2f to %.2f, median %.2f; a pass in which nothing changed %.1f ms CPU; the managers' peak %.0f MiB\n",
		ratios[0], ratios[rounds-1], ratios[rounds/2], idle.Seconds()*1000, b.peakMiB)
	return b.startManager(ctx)
}

// both does one roll-out of each kind. Who is first changes from round to round.
func (b *bench) both(ctx context.Context, operatorFirst bool) (operator round, bare time.Duration, err error) {
	if operatorFirst {
		if operator, err = b.operatorRound(ctx); err != nil {
			return
		}
		bare, err = b.bareRound(ctx)
		return
	}
	if bare, err = b.bareRound(ctx); err != nil {
		return
	}
	operator, err = b.operatorRound(ctx)
	return
}

// operatorRound changes the policy's image and waits until the last pod is ready on it.
func (b *bench) operatorRound(ctx context.Context) (round, error) {
	var r round
	b.version++
	before, err := b.writes(ctx)
	if err != nil {
		return r, err
	}
	used, err := usageOf(b.manager.PID())
	if err != nil {
		return r, err
	}
	r.took, err = b.timed(ctx, func() error {
		return harness.SetImage(ctx, b.client, name, name, image(b.version))
	})
	if err != nil {
		return r, err
	}
	if err := b.awaitQuiet(ctx, settled); err != nil {
		return r, err
	}
	after, err := b.writes(ctx)
	if err != nil {
		return r, err
	}
	r.writes = after.since(before)
	usedAfter, err := usageOf(b.manager.PID())
	r.cpu = usedAfter.cpu - used.cpu
	return r, err
}

// bareRound sends the same PATCHes with no manager there, and lets a new one find the
// fleet as it is afterwards.
func (b *bench) bareRound(ctx context.Context) (time.Duration, error) {
	b.version++
	if err := b.stopManager(); err != nil {
		return 0, err
	}
	pods := &corev1.PodList{}
	if err := b.client.List(ctx, pods, client.InNamespace(name)); err != nil {
		return 0, err
	}
	took, err := b.timed(ctx, func() error { return b.patchAll(ctx, pods.Items) })
	if err != nil {
		return 0, err
	}
	if err := harness.SetImage(ctx, b.client, name, name, image(b.version)); err != nil {
		return 0, err
	}
	if err := b.startManager(ctx); err != nil {
		return 0, err
	}
	return took, b.awaitQuiet(ctx, settled)
}

// patchAll sends PATCHes of the same parts as the operator's: an image, a label and an annotation, though a shorter one.
func (b *bench) patchAll(ctx context.Context, pods []corev1.Pod) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(b.workers)
	for i := range pods {
		pod := &pods[i]
		group.Go(func() error {
			patch := fmt.Appendf(nil, `[{"op":"replace","path":"/spec/initContainers/0/image","value":%q},`+
				`{"op":"add","path":"/metadata/labels/revision.fleet.sidecar.dev~1bench","value":"bare"},`+
				`{"op":"add","path":"/metadata/annotations/bare","value":"%d"}]`, image(b.version), b.version)
			target := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name}}
			return b.client.Patch(ctx, target, client.RawPatch(types.JSONPatchType, patch))
		})
	}
	return group.Wait()
}

// timed runs the change and returns the time until every pod is ready on the version.
func (b *bench) timed(ctx context.Context, change func() error) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, w, err := harness.WatchPods(ctx, b.client, name)
	if err != nil {
		return 0, err
	}
	defer w.Stop()
	started := time.Now()
	failed := make(chan error, 1)
	go func() { failed <- change() }()
	if err := b.awaitAll(ctx, w); err != nil {
		return 0, err
	}
	return time.Since(started), <-failed
}

func (b *bench) awaitAll(ctx context.Context, w watch.Interface) error {
	done := map[types.UID]bool{}
	for len(done) < b.fleet.Pods() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d pods run %s: %w", len(done), b.fleet.Pods(), image(b.version), ctx.Err())
		case e := <-w.ResultChan():
			pod, ok := e.Object.(*corev1.Pod)
			if !ok {
				return fmt.Errorf("the watch broke: %v", e.Object)
			}
			if runs(pod, image(b.version)) {
				done[pod.UID] = true
			}
		}
	}
	return nil
}

// runs says whether the simulated kubelet has restarted the sidecar on the image.
func runs(pod *corev1.Pod, image string) bool {
	return pod.Spec.InitContainers[0].Image == image && harness.Ready(pod) &&
		len(pod.Status.InitContainerStatuses) == 1 && pod.Status.InitContainerStatuses[0].Image == image &&
		pod.Status.ObservedGeneration >= pod.Generation
}
