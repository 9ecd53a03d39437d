package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

type operatorFigures struct {
	took    time.Duration
	writes  float64
	cpu     time.Duration
	peakMiB float64
}

// operatorRound changes the policy's image and waits until the last pod is ready on it.
func (b *bench) operatorRound(ctx context.Context, version int) (operatorFigures, error) {
	var f operatorFigures
	writes, err := b.podPatches(ctx)
	if err != nil {
		return f, err
	}
	cpu, _, err := usage(b.manager.PID())
	if err != nil {
		return f, err
	}
	f.took, err = b.timed(ctx, version, func() error {
		return harness.SetImage(ctx, b.client, name, name, image(version))
	})
	if err != nil {
		return f, err
	}
	if _, err := harness.WaitReady(ctx, b.client, name, patience); err != nil {
		return f, err
	}
	after, err := b.podPatches(ctx)
	if err != nil {
		return f, err
	}
	f.writes = after - writes
	cpuAfter, peak, err := usage(b.manager.PID())
	f.cpu, f.peakMiB = cpuAfter-cpu, peak
	return f, err
}

// bareRound sends the same PATCHes with no manager there, and lets a new one find the
// fleet as it is afterwards.
func (b *bench) bareRound(ctx context.Context, version int) (time.Duration, error) {
	b.manager.Stop()
	pods := &corev1.PodList{}
	if err := b.client.List(ctx, pods, client.InNamespace(name)); err != nil {
		return 0, err
	}
	took, err := b.timed(ctx, version, func() error { return b.patchAll(ctx, pods.Items, version) })
	if err != nil {
		return 0, err
	}
	if err := harness.SetImage(ctx, b.client, name, name, image(version)); err != nil {
		return 0, err
	}
	if err := b.startManager(ctx); err != nil {
		return 0, err
	}
	_, err = harness.WaitReady(ctx, b.client, name, patience)
	return took, err
}

func (b *bench) patchAll(ctx context.Context, pods []corev1.Pod, version int) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(b.workers)
	for i := range pods {
		pod := &pods[i]
		group.Go(func() error {
			patch := fmt.Appendf(nil, `[{"op":"replace","path":"/spec/initContainers/0/image","value":%q},`+
				`{"op":"add","path":"/metadata/labels/revision.fleet.sidecar.dev~1bench","value":"bare"},`+
				`{"op":"add","path":"/metadata/annotations/bare","value":"%d"}]`, image(version), version)
			target := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name}}
			return b.client.Patch(ctx, target, client.RawPatch(types.JSONPatchType, patch))
		})
	}
	return group.Wait()
}

// timed runs the change and returns the time until every pod is ready on the version.
func (b *bench) timed(ctx context.Context, version int, change func() error) (time.Duration, error) {
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
	if err := b.awaitAll(ctx, w, version); err != nil {
		return 0, err
	}
	return time.Since(started), <-failed
}

func (b *bench) awaitAll(ctx context.Context, w watch.Interface, version int) error {
	done := map[types.UID]bool{}
	for len(done) < b.fleet.Pods() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d pods run version %d: %w", len(done), b.fleet.Pods(), version, ctx.Err())
		case e := <-w.ResultChan():
			pod, ok := e.Object.(*corev1.Pod)
			if !ok {
				return fmt.Errorf("the watch broke: %v", e.Object)
			}
			if runs(pod, image(version)) {
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

// podPatches counts the PATCHes of pods, not of their status, that the API server has answered.
func (b *bench) podPatches(ctx context.Context) (float64, error) {
	clientset, err := kubernetes.NewForConfig(b.cluster.Config())
	if err != nil {
		return 0, err
	}
	text, err := clientset.RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return 0, err
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for _, m := range families["apiserver_request_total"].GetMetric() {
		if has(m, "resource", "pods") && has(m, "verb", "PATCH") && has(m, "subresource", "") && has(m, "group", "") {
			sum += m.GetCounter().GetValue()
		}
	}
	return sum, nil
}

func has(m *dto.Metric, label, value string) bool {
	for _, l := range m.GetLabel() {
		if l.GetName() == label {
			return l.GetValue() == value
		}
	}
	return value == ""
}

// usage is a process's CPU time and its peak memory in MiB.
func usage(pid int) (time.Duration, float64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	// The fields after the command's closing parenthesis; utime and stime are the 14th and 15th of all.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const ticksPerSecond = 100
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, 0, err
		}
		ticks += n
	}
	peak, err := peakMiB(pid)
	return time.Duration(ticks) * time.Second / ticksPerSecond, peak, err
}

func peakMiB(pid int) (float64, error) {
	file, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	defer func() { _ = file.Close() }()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			kib, err := strconv.ParseFloat(strings.Fields(value)[0], 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("no VmHWM of process %d", pid)
}
