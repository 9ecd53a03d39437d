package analysis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/api"
	prometheusv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
)

// maxAnswer bounds how much of an answer is read, in bytes: a query without an aggregation
// can give a series for each pod of the cluster.
const maxAnswer = 4 << 20

// maxNumbers is how many values of a vector are judged.
const maxNumbers = 1000

// maxShown is how many values of a vector are shown.
const maxShown = 5

// Client measures. The zero value does, without authentication.
type Client struct {
	// Transport sends the requests; the default one of the Prometheus client when nil.
	Transport http.RoundTripper
}

// Measure asks the query and judges the answer. It takes no longer than the query's timeout, and
// what goes wrong is an inconclusive measurement. Don't record one whose ctx ended.
func (c Client) Measure(ctx context.Context, q Query, vars Vars, now time.Time) Measurement {
	m := Measurement{Subject: subject(q, vars), Result: ResultInconclusive, At: now}
	query, err := render(q.Prometheus.Query, vars)
	if err != nil {
		m.Message = fmt.Sprintf("prometheus.query: %v", err)
		return m
	}
	answer, warnings, err := c.ask(ctx, q, query)
	m.Warnings = warnings
	if err != nil {
		m.Message = err.Error()
		return m
	}
	m.Result, m.Value, m.Message = judge(q, answer)
	return m
}

// ask leaves the time to the server, whose clock is also that of the samples. So does the
// timeout: the server gives up a query when its connection is closed, and its parameter
// timeout takes no fractions like 1.5s.
func (c Client) ask(ctx context.Context, q Query, query string) (model.Value, []string, error) {
	timeout := cmp.Or(q.Timeout, DefaultTimeout)
	client, err := api.NewClient(api.Config{
		Address:      q.Prometheus.Address,
		RoundTripper: boundedTransport{cmp.Or(c.Transport, api.DefaultRoundTripper)},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("prometheus.address: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	value, warnings, err := prometheusv1.NewAPI(client).Query(ctx, query, time.Time{})
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %s: write a longer timeout or a cheaper query: %w", timeout, err)
	}
	return value, warnings, err
}

// judge says what a query's conditions make of an answer.
func judge(q Query, answer model.Value) (result Result, value, message string) {
	numbers, s, err := read(answer)
	value = show(numbers, s)
	if err != nil {
		return ResultInconclusive, value, err.Error()
	}
	compiled, err := compileConditions(q, s)
	if err != nil {
		return ResultInconclusive, value, explainShape(q, s, err)
	}
	if s == numberShape {
		result, message = compiled.judge(q, numbers[0])
	} else {
		result, message = compiled.judge(q, numbers)
	}
	return result, value, fmt.Sprintf("%s of %s", message, value)
}

// read takes the numbers out of an answer, in the server's order: sort() and topk() mean it.
func read(answer model.Value) ([]float64, shape, error) {
	var numbers []float64
	s := listShape
	switch answer := answer.(type) {
	case model.Vector:
		for _, sample := range answer {
			if sample.Histogram != nil {
				return nil, s, errors.New("a histogram is no number: put histogram_quantile() or another function around the query")
			}
			numbers = append(numbers, float64(sample.Value))
		}
	case *model.Scalar:
		s = numberShape
		numbers = append(numbers, float64(answer.Value))
	case model.Matrix:
		return nil, s, errors.New("the query gives values over time: put rate(), avg_over_time() or another function around its range")
	default:
		return nil, s, errors.New("the query gives neither a vector nor a scalar, so there are no numbers to judge")
	}
	return numbers, s, checkNumbers(numbers)
}

func checkNumbers(numbers []float64) error {
	if len(numbers) > maxNumbers {
		return fmt.Errorf("the answer has %d values, more than %d: put sum(), topk() or another aggregation around the query", len(numbers), maxNumbers)
	}
	if len(numbers) == 0 {
		return errors.New("the answer is empty: no series matches, or none has a value now; where that means 0, write 'or vector(0)' after the query")
	}
	for _, number := range numbers {
		if math.IsNaN(number) {
			return errors.New("the answer has a NaN, as 0/0 gives: there is nothing to judge yet")
		}
	}
	return nil
}

func show(numbers []float64, s shape) string {
	if len(numbers) == 0 {
		return ""
	}
	var texts []string
	for _, number := range numbers[:min(len(numbers), maxShown)] {
		texts = append(texts, strconv.FormatFloat(number, 'g', 6, 64))
	}
	if s == numberShape {
		return texts[0]
	}
	if more := len(numbers) - maxShown; more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	return "[" + strings.Join(texts, ", ") + "]"
}

// boundedTransport gives an error for an answer that is too large.
type boundedTransport struct{ next http.RoundTripper }

func (t boundedTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := t.next.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	response.Body = &boundedBody{ReadCloser: response.Body, left: maxAnswer}
	return response, nil
}

type boundedBody struct {
	io.ReadCloser
	left int
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left+1)])
	if b.left -= n; b.left < 0 {
		return 0, fmt.Errorf("the answer is larger than %d MiB: put sum() or another aggregation around the query", maxAnswer>>20)
	}
	return n, err
}
