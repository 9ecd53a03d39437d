// Package analysis tests measurements against a real Prometheus server.
package analysis

import (
	"context"
	"net"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sidecar-dev/sidecar-operator/internal/analysis"
	prometheusserver "github.com/sidecar-dev/sidecar-operator/test/prometheus"
)

// patience is for a machine that downloads Prometheus first.
const patience = 3 * time.Minute

var (
	server *prometheusserver.Server
	vars   = analysis.Vars{Policy: "log-agent", Revision: "log-agent-77", Step: "canary", Namespaces: []string{"shop", "office"}}
	now    = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
)

func TestAnalysis(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "Measurements of a Prometheus server")
}

var _ = BeforeSuite(func() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	metrics := prometheusserver.Serve(fleetMetrics())
	DeferCleanup(metrics.Close)
	var err error
	server, err = prometheusserver.Start(ctx, GinkgoT().TempDir(), metrics.Listener.Addr().String())
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { Expect(server.Stop()).To(Succeed()) })
	Expect(server.WaitForTargets(ctx)).To(Succeed())
})

// fleetMetrics are those of sidecars in three namespaces, of which the fleet has two.
func fleetMetrics() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	ratio := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "error_ratio"}, []string{"namespace", "revision"})
	ratio.WithLabelValues("shop", vars.Revision).Set(0.002)
	ratio.WithLabelValues("office", vars.Revision).Set(0.004)
	ratio.WithLabelValues("office", "log-agent-12").Set(0.3)
	ratio.WithLabelValues("garden", vars.Revision).Set(0.5)
	latency := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "latency_seconds", NativeHistogramBucketFactor: 1.1})
	latency.Observe(0.2)
	registry.MustRegister(ratio, latency)
	return registry
}

// fleet selects the fleet's own, as it runs the revision.
const fleet = `error_ratio{namespace=~"{{.Namespaces}}", revision="{{.Revision}}"}`

func query(promQL, success, failure string) analysis.Query {
	q := analysis.Query{
		Name:             "errors",
		Prometheus:       analysis.PrometheusQuery{Address: server.URL, Query: promQL},
		SuccessCondition: success,
		FailureCondition: failure,
		Timeout:          5500 * time.Millisecond,
	}
	Expect(analysis.Validate(q)).To(Succeed())
	return q
}

func measure(q analysis.Query) analysis.Measurement {
	return analysis.Client{}.Measure(context.Background(), q, vars, now)
}

var _ = Describe("A measurement", func() {
	DescribeTable("of", func(promQL, success, failure string, want analysis.Result, value, message string) {
		m := measure(query(promQL, success, failure))
		Expect(m.Message).To(ContainSubstring(message))
		Expect(m.Result).To(Equal(want))
		Expect(m.Value).To(Equal(value))
		Expect(m.Warnings).To(BeEmpty())
		Expect(m.At).To(Equal(now))
	},
		Entry("a good version is successful", `max(`+fleet+`)`, "result[0] < 0.01", "",
			analysis.ResultSuccessful, "[0.004]", "successCondition result[0] < 0.01 is true of [0.004]"),
		Entry("every series is successful, in the query's order", `sort_desc(`+fleet+`)`, "result.all(x, x < 0.01) && size(result) == 2", "",
			analysis.ResultSuccessful, "[0.004, 0.002]", "is true of [0.004, 0.002]"),
		Entry("a bad version has failed", `max(error_ratio)`, "result[0] < 0.01", "",
			analysis.ResultFailed, "[0.5]", "successCondition result[0] < 0.01 is false of [0.5]"),
		Entry("what fails by its own condition has failed", `max(error_ratio)`, "result[0] < 0.01", "result[0] > 0.1",
			analysis.ResultFailed, "[0.5]", "failureCondition result[0] > 0.1 is true of [0.5]"),
		Entry("what is neither is inconclusive", `max(error_ratio{revision="log-agent-12"})`, "result[0] < 0.01", "result[0] > 0.4",
			analysis.ResultInconclusive, "[0.3]", "neither successCondition nor failureCondition"),
		Entry("nothing is inconclusive", `error_ratio{namespace="nowhere"}`, "result.all(x, x < 0.01)", "",
			analysis.ResultInconclusive, "", "the answer is empty"),
		Entry("nothing that means 0 is successful", `max(error_ratio{namespace="nowhere"}) or vector(0)`, "result[0] < 0.01", "",
			analysis.ResultSuccessful, "[0]", "is true of [0]"),
		Entry("0/0 is inconclusive", `sum(error_ratio * 0) / sum(error_ratio * 0)`, "result[0] < 0.01", "result[0] > 0.1",
			analysis.ResultInconclusive, "[NaN]", "the answer has a NaN"),
		Entry("1/0 is a number", `sum(error_ratio) / sum(error_ratio * 0)`, "result[0] < 0.01", "",
			analysis.ResultFailed, "[+Inf]", "is false of [+Inf]"),
		Entry("a scalar is successful", `scalar(max(`+fleet+`))`, "result < 0.01", "",
			analysis.ResultSuccessful, "0.004", "is true of 0.004"),
		Entry("a vector that is taken for a scalar is inconclusive", fleet, "result < 0.01", "",
			analysis.ResultInconclusive, "[0.004, 0.002]", "result is a list of doubles here: write result[0]"),
		Entry("a histogram is inconclusive", `latency_seconds`, "result[0] < 0.5", "",
			analysis.ResultInconclusive, "", "a histogram is no number: put histogram_quantile()"),
		Entry("a number of it is successful", `histogram_count(latency_seconds)`, "result[0] >= 1", "",
			analysis.ResultSuccessful, "[1]", "is true of [1]"),
		Entry("values over time are inconclusive", `error_ratio[1m]`, "result[0] < 0.01", "",
			analysis.ResultInconclusive, "", "the query gives values over time"),
		Entry("a text is inconclusive", `"text"`, "result[0] < 0.01", "",
			analysis.ResultInconclusive, "", `unexpected value type "string"`),
		Entry("a query that the server does not understand is inconclusive", `sum of errors`, "result[0] < 0.01", "",
			analysis.ResultInconclusive, "", "bad_data: "),
		Entry("a query that the server can't carry out is inconclusive", `error_ratio * on () error_ratio`, "result[0] < 0.01", "",
			analysis.ResultInconclusive, "", "execution: found duplicate series"),
	)

	It("tells of the server's warnings", func() {
		m := measure(query(`max(`+fleet+`) or absent(error_ratio{`+prometheusserver.Away+`})`, "result[0] < 0.01", ""))
		Expect(m.Result).To(Equal(analysis.ResultSuccessful), m.Message)
		Expect(m.Warnings).To(ConsistOf(ContainSubstring("connection refused")))
	})

	It("is inconclusive when nobody listens", func() {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		Expect(err).NotTo(HaveOccurred())
		Expect(listener.Close()).To(Succeed())
		q := query(fleet, "result[0] < 0.01", "")
		q.Prometheus.Address = "http://" + listener.Addr().String()
		m := measure(q)
		Expect(m.Result).To(Equal(analysis.ResultInconclusive))
		Expect(m.Message).To(ContainSubstring("connection refused"))
	})

	It("gives up a query that takes too long", func() {
		q := query(`sum_over_time(vector(time())[10000000s:1s])`, "result[0] > 0", "")
		q.Timeout = analysis.MinTimeout
		m := measure(q)
		Expect(m.Result).To(Equal(analysis.ResultInconclusive))
		Expect(m.Message).To(ContainSubstring("no answer within 100ms: write a longer timeout or a cheaper query"))
	})

	It("judges a whole step together with others", func() {
		good, bad := query(`max(`+fleet+`)`, "result[0] < 0.01", ""), query(`max(error_ratio)`, "result[0] < 0.01", "")
		good.Name, bad.Name = "good", "bad"
		j := analysis.Judge([]analysis.Query{good, bad}, nil, vars, now, now)
		Expect(j.Outcome).To(Equal(analysis.Running))
		for _, q := range j.Due {
			j.States = analysis.Record(j.States, measure(q))
		}
		Expect(analysis.Judge([]analysis.Query{good}, j.States, vars, now, now).Outcome).To(Equal(analysis.Passed))
		j = analysis.Judge([]analysis.Query{good, bad}, j.States, vars, now, now)
		Expect(j.Outcome).To(Equal(analysis.Failed))
		Expect(j.Message).To(Equal("bad: 1 failed, 0 tolerated; the last measurement: successCondition result[0] < 0.01 is false of [0.5]"))
	})
})
