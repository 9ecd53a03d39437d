package analysis

import (
	"flag"
	"os"
	"testing"
	"time"

	"github.com/prometheus/common/model"
)

// A failed property prints its seed and what it drew; files of them would only lie around. A
// property has 300 cases, or as many as -rapid.checks says.
func TestMain(m *testing.M) {
	for name, value := range map[string]string{"rapid.nofailfile": "true", "rapid.checks": "300", "rapid.shrinktime": "5s"} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	flag.Parse()
	os.Exit(m.Run())
}

var (
	vars  = Vars{Policy: "log-agent", Revision: "log-agent-77", Step: "canary", Namespaces: []string{"shop", "office"}}
	start = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
)

// errorsQuery is a valid query; edits change it.
func errorsQuery(edits ...func(*Query)) Query {
	q := Query{
		Name:             "errors",
		Prometheus:       PrometheusQuery{Address: "http://prometheus.monitoring.svc:9090", Query: `sum(rate(errors_total{namespace=~"{{.Namespaces}}"}[5m]))`},
		SuccessCondition: "result[0] < 0.01",
	}
	for _, edit := range edits {
		edit(&q)
	}
	return q
}

func judgedBy(success, failure string) func(*Query) {
	return func(q *Query) { q.SuccessCondition, q.FailureCondition = success, failure }
}

func promQL(query string) func(*Query) {
	return func(q *Query) { q.Prometheus.Query = query }
}

func vector(values ...float64) model.Vector {
	samples := model.Vector{}
	for _, value := range values {
		samples = append(samples, &model.Sample{Value: model.SampleValue(value)})
	}
	return samples
}

func scalar(value float64) *model.Scalar {
	return &model.Scalar{Value: model.SampleValue(value)}
}
