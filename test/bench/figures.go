package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/test/harness"
)

// idlePasses is how many passes in which nothing changed are measured together.
const idlePasses = 20

// How long nothing has to be reconciled before a roll-out counts as over, and before the manager has nothing at all
// to do: reports at rest are written up to 30 s later.
const (
	settled = 5 * time.Second
	idle    = 35 * time.Second
)

// idlePass is the CPU time of a pass in which nothing changed, with that of the event which caused it.
func (b *bench) idlePass(ctx context.Context) (time.Duration, error) {
	if err := b.awaitQuiet(ctx, idle); err != nil {
		return 0, err
	}
	passes, err := b.reconciles(ctx, "sidecarpolicy")
	if err != nil {
		return 0, err
	}
	before, err := usageOf(b.manager.PID())
	if err != nil {
		return 0, err
	}
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for i := range idlePasses {
		<-tick.C
		if err := harness.Edit(ctx, b.client, name, func(p *v1alpha1.SidecarPolicy) {
			p.Annotations = map[string]string{"bench": strconv.Itoa(i)} // matters to nobody
		}); err != nil {
			return 0, err
		}
	}
	<-tick.C
	after, err := usageOf(b.manager.PID())
	if err != nil {
		return 0, err
	}
	now, err := b.reconciles(ctx, "sidecarpolicy")
	if err != nil {
		return 0, err
	}
	if now <= passes {
		return 0, fmt.Errorf("there was no pass over the policy after it was annotated %d times", idlePasses)
	}
	return time.Duration(float64(after.cpu-before.cpu) / (now - passes)), nil
}

// awaitQuiet waits until the policy is Ready and nothing has been reconciled for that long.
func (b *bench) awaitQuiet(ctx context.Context, quiet time.Duration) error {
	if _, err := harness.WaitReady(ctx, b.client, name, patience); err != nil {
		return err
	}
	last, since := -1.0, time.Now()
	return wait.PollUntilContextTimeout(ctx, time.Second, patience, true, func(ctx context.Context) (bool, error) {
		all, err := b.reconciles(ctx, "sidecarpolicy", "sidecarreport")
		if all != last {
			last, since = all, time.Now()
		}
		return time.Since(since) > quiet, err
	})
}

// reconciles is how often controllers of the manager have reconciled.
func (b *bench) reconciles(ctx context.Context, controllers ...string) (float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, b.manager.MetricsURL, nil)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer func() { _ = response.Body.Close() }()
	families, err := parse(response.Body)
	if err != nil {
		return 0, err
	}
	total := 0.0
	for _, controller := range controllers {
		total += sum(families["controller_runtime_reconcile_total"], map[string]string{"controller": controller})
	}
	return total, nil
}

// writes are requests that the API server has answered.
type writes struct {
	// upgrades are the PATCHes of pods that were stored, tries those that were dry runs; status and other
	// subresources are the kubelet's.
	upgrades, tries float64
	// others are what the operator writes besides: status, reports and revisions. Events are not counted.
	others float64
}

func (w writes) since(before writes) writes {
	return writes{w.upgrades - before.upgrades, w.tries - before.tries, w.others - before.others}
}

func (b *bench) writes(ctx context.Context) (writes, error) {
	families, err := b.serverMetrics(ctx)
	if err != nil {
		return writes{}, err
	}
	requests := families["apiserver_request_total"]
	patches := map[string]string{"resource": "pods", "verb": "PATCH", "subresource": "", "group": "", "dry_run": ""}
	w := writes{upgrades: sum(requests, patches)}
	patches["dry_run"] = "All"
	w.tries = sum(requests, patches)
	for _, resource := range []string{"sidecarpolicies", "sidecarreports", "controllerrevisions", "mutatingwebhookconfigurations"} {
		for _, verb := range []string{"POST", "PUT", "DELETE"} {
			w.others += sum(requests, map[string]string{"resource": resource, "verb": verb})
		}
	}
	return w, nil
}

// webhookCalls are the admission reviews that the API server has sent.
func (b *bench) webhookCalls(ctx context.Context) (float64, error) {
	families, err := b.serverMetrics(ctx)
	return sum(families["apiserver_admission_webhook_request_total"], nil), err
}

func (b *bench) serverMetrics(ctx context.Context) (map[string]*dto.MetricFamily, error) {
	clientset, err := kubernetes.NewForConfig(b.cluster.Config())
	if err != nil {
		return nil, err
	}
	text, err := clientset.RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return nil, err
	}
	return parse(bytes.NewReader(text))
}

func parse(text io.Reader) (map[string]*dto.MetricFamily, error) {
	parser := expfmt.NewTextParser(model.LegacyValidation)
	return parser.TextToMetricFamilies(text)
}

// sum adds up the counters that have these labels; an empty value is for a label that is not there, too.
func sum(family *dto.MetricFamily, labels map[string]string) float64 {
	total := 0.0
	for _, m := range family.GetMetric() {
		has := map[string]string{}
		for _, l := range m.GetLabel() {
			has[l.GetName()] = l.GetValue()
		}
		matches := true
		for label, value := range labels {
			matches = matches && has[label] == value
		}
		if matches {
			total += m.GetCounter().GetValue()
		}
	}
	return total
}

// usage is what a process has used so far.
type usage struct {
	cpu     time.Duration
	peakMiB float64
}

func usageOf(pid int) (usage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return usage{}, err
	}
	// The fields after the command's closing parenthesis; utime and stime are the 14th and 15th of all.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const ticksPerSecond = 100
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return usage{}, err
		}
		ticks += n
	}
	peak, err := peakMiB(pid)
	return usage{cpu: time.Duration(ticks) * time.Second / ticksPerSecond, peakMiB: peak}, err
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
