package analysis

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// What a real server says is tested in test/envtest/analysis; here are the answers that a real
// one can't be made to give.
func TestMeasureStrangeAnswers(t *testing.T) {
	const one = `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"0"]}]}`
	for _, tc := range []struct {
		name string
		code int
		body string
		want Result
		says string
	}{
		{"warnings", 200, one + `,"warnings":["a store is away"]}`, ResultSuccessful, "successCondition result[0] < 0.01 is true of [0]"},
		{"no Prometheus", 200, "<html>", ResultInconclusive, "bad_response: "},
		{"not found", 404, "", ResultInconclusive, "client_error: client error: 404"},
		{"an overloaded proxy", 503, "", ResultInconclusive, "server_error: server error: 503"},
		{"a kind of answer that nobody knows", 200, `{"status":"success","data":{"resultType":"table","result":[]}}`, ResultInconclusive, "unknown value type"},
		{"too large", 200, one + strings.Repeat(" ", maxAnswer) + "}", ResultInconclusive, "the answer is larger than 4 MiB: put sum()"},
		{"just small enough", 200, one + strings.Repeat(" ", maxAnswer-len(one)-1) + "}", ResultSuccessful, "is true of [0]"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tc.code)
				_, _ = io.WriteString(w, tc.body)
			}))
			defer server.Close()
			m := Client{}.Measure(t.Context(), errorsQuery(func(q *Query) { q.Prometheus.Address = server.URL }), vars, start)
			if m.Result != tc.want || !strings.Contains(m.Message, tc.says) {
				t.Errorf("Measure() = %s: %s; want %s: %s", m.Result, m.Message, tc.want, tc.says)
			}
			if warned := strings.Contains(tc.body, "warnings"); (len(m.Warnings) == 1) != warned {
				t.Errorf("warnings: %q", m.Warnings)
			}
		})
	}
}

func TestMeasureAsksWhatTheTemplateSays(t *testing.T) {
	var path, query, at string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		path, query, at = r.URL.Path, r.FormValue("query"), r.FormValue("time")
	}))
	defer server.Close()
	q := errorsQuery(func(q *Query) { q.Prometheus.Address = server.URL + "/prometheus/" })
	m := Client{}.Measure(t.Context(), q, vars, start)
	want := []string{"/prometheus/api/v1/query", `sum(rate(errors_total{namespace=~"office|shop"}[5m]))`, ""}
	if diff := cmp.Diff(want, []string{path, query, at}); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	if m.Subject != subject(q, vars) || !m.At.Equal(start) {
		t.Errorf("the measurement is of %s at %s", m.Subject, m.At)
	}
}

func TestMeasureWaitsNoLongerThanItsTimeoutOrItsCaller(t *testing.T) {
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body) // or the server does not notice that the client went away
		<-r.Context().Done()
	}))
	defer silent.Close()
	q := errorsQuery(func(q *Query) { q.Prometheus.Address, q.Timeout = silent.URL, MinTimeout })
	m := Client{}.Measure(t.Context(), q, vars, start)
	if want := "no answer within 100ms: write a longer timeout or a cheaper query"; m.Result != ResultInconclusive || !strings.Contains(m.Message, want) {
		t.Errorf("Measure() = %s: %s; want %s", m.Result, m.Message, want)
	}

	q.Timeout = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if m := (Client{}).Measure(ctx, q, vars, start); m.Result != ResultInconclusive || !strings.Contains(m.Message, "context canceled") {
		t.Errorf("Measure() = %s: %s; want a canceled context", m.Result, m.Message)
	}
}

func TestMeasureWithoutNamespacesAsksNothing(t *testing.T) {
	m := Client{}.Measure(t.Context(), errorsQuery(), Vars{}, start)
	if want := "prometheus.query: the fleet has no namespaces"; m.Result != ResultInconclusive || m.Message != want {
		t.Errorf("Measure() = %s: %s; want %s", m.Result, m.Message, want)
	}
}
