package analysis

import (
	"strings"
	"testing"
	"time"
)

func TestValidateTakes(t *testing.T) {
	limit := int32(3)
	for name, q := range map[string]Query{
		"the least": errorsQuery(),
		"everything": errorsQuery(judgedBy("result[0] < 0.01", "result[0] > 0.1"), func(q *Query) {
			q.InitialDelay, q.Interval, q.Timeout = time.Minute, MinInterval, MaxTimeout
			q.Count, q.FailureLimit, q.InconclusiveLimit = 5, 2, &limit
		}),
		"a condition of a scalar": errorsQuery(judgedBy("result < 0.01", "result >= 1")),
		"a size":                  errorsQuery(judgedBy("size(result) <= 3 && result.all(x, x * 100.0 < 1)", "")),
		"https with a path":       errorsQuery(func(q *Query) { q.Prometheus.Address = "https://metrics.example.org/prometheus/" }),
		"an IPv6 address":         errorsQuery(func(q *Query) { q.Prometheus.Address = "http://[::1]:9090" }),
	} {
		t.Run(name, func(t *testing.T) {
			if err := Validate(q); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestValidateRefusals(t *testing.T) {
	negative := int32(-1)
	address := func(address string) func(*Query) { return func(q *Query) { q.Prometheus.Address = address } }
	for _, tc := range []struct {
		name string
		edit func(*Query)
		want string
	}{
		{"no name", func(q *Query) { q.Name = "" }, "name: required: write what is measured"},
		{"no address", address(""), `prometheus.address: "" is no URL of a server: write an address like http://`},
		{"an address without a scheme", address("prometheus:9090"), `is no URL of a server`},
		{"an address without a host", address("http://:9090"), `is no URL of a server`},
		{"an address that is none", address("http://a b"), "prometheus.address: parse"},
		{"an address with a password", address("http://me:secret@prometheus"), "everybody who reads the policy would read the password"},
		{"an address with a query", address("http://prometheus/?query=up"), "without ? and #"},
		{"no query", promQL(" \n"), "prometheus.query: required: write a query in PromQL"},
		{"an unknown variable", promQL(`up{a="{{.Cluster}}"}`), `prometheus.query: "{{.Cluster}}" is no variable`},
		{"a query that is never closed", promQL(`sum(up`), `prometheus.query: "(up" (character 4) is never closed`},
		{"no success condition", judgedBy("", "result[0] > 1"), "successCondition: required"},
		{"a condition that is no CEL", judgedBy("result[0] <", ""), "successCondition: Syntax error"},
		{"a condition that is a number", judgedBy("result[0] + 1.0", ""), "successCondition: is of type double: write a comparison"},
		{"an unknown name", judgedBy("value < 1", ""), "successCondition: undeclared reference to 'value'"},
		{"whole numbers don't multiply", judgedBy("result[0] * 100 < 1", ""), "write numbers with a point: 100.0"},
		{"a failure condition that is no CEL", judgedBy("result[0] < 1", "result[0] >"), "failureCondition: Syntax error"},
		{"conditions of two shapes", judgedBy("result[0] < 1", "result > 1"), "failureCondition: found no matching overload"},
		{"a negative delay", func(q *Query) { q.InitialDelay = -time.Second }, "initialDelay: -1s is negative: write 0s or more"},
		{"a short interval", func(q *Query) { q.Interval = time.Millisecond }, "interval: 1ms is too short: write 1s or more"},
		{"a short timeout", func(q *Query) { q.Timeout = time.Millisecond }, "timeout: 1ms is out of bounds: write from 100ms to 1m0s"},
		{"a long timeout", func(q *Query) { q.Timeout = time.Hour }, "timeout: 1h0m0s is out of bounds"},
		{"a negative count", func(q *Query) { q.Count = -1 }, "count: -1 is negative"},
		{"a negative failure limit", func(q *Query) { q.FailureLimit = -1 }, "failureLimit: -1 is negative"},
		{"a negative inconclusive limit", func(q *Query) { q.InconclusiveLimit = &negative }, "inconclusiveLimit: -1 is negative"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := Validate(errorsQuery(tc.edit))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("Validate() = %v, want an error with %s", err, tc.want)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("Validate() tells the password: %v", err)
			}
		})
	}
}

func TestValidateSaysEverythingAtOnce(t *testing.T) {
	err := Validate(Query{Interval: -1, Timeout: -1, InitialDelay: -1, Count: -1, FailureLimit: -1})
	for _, field := range []string{"name", "prometheus.address", "prometheus.query", "successCondition", "initialDelay", "interval", "timeout", "count", "failureLimit"} {
		if err == nil || !strings.Contains(err.Error(), field+": ") {
			t.Errorf("nothing about %s in %v", field, err)
		}
	}
}
