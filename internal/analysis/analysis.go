// Package analysis judges a step of a roll-out by Prometheus queries. A query is measured
// again and again; each measurement is successful, failed or inconclusive, and their counts
// make the verdict. What can't be judged holds the step: it never passes, and fails only
// where the query's author asked for that.
//
// Judge says which queries are due, Client.Measure asks one of them, Record counts its answer,
// and Judge says what all of it means:
//
//	j := analysis.Judge(queries, states, vars, soakEnd, now)
//	for _, q := range j.Due {
//		j.States = analysis.Record(j.States, client.Measure(ctx, q, vars, now))
//	}
//	j = analysis.Judge(queries, j.States, vars, soakEnd, now)
//
// Everything but Client.Measure is pure. All that is remembered is a State for each query,
// which belongs in the policy's status.
package analysis

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// What holds where a query says nothing, and the bounds of what it may say.
const (
	DefaultInterval = time.Minute
	MinInterval     = time.Second
	DefaultTimeout  = 10 * time.Second
	MinTimeout      = 100 * time.Millisecond
	MaxTimeout      = time.Minute
)

// maxMessage and maxValue bound what a state takes of the status, in bytes.
const (
	maxMessage = 512
	maxValue   = 128
)

// Query is one question to a Prometheus server, and how its answers are judged.
type Query struct {
	// Name tells the queries of a step apart.
	Name       string
	Prometheus PrometheusQuery
	// SuccessCondition is CEL over result that is true of a successful measurement.
	SuccessCondition string
	// FailureCondition is CEL over result that is true of a failed measurement. Where it is
	// empty, a measurement that is not successful has failed.
	FailureCondition string
	// InitialDelay is the time from the step's first judgement to the first measurement.
	InitialDelay time.Duration
	// Interval is the time from one measurement to the next: DefaultInterval when 0.
	Interval time.Duration
	// Timeout is how long one measurement may take: DefaultTimeout when 0.
	Timeout time.Duration
	// Count is how many successful measurements pass the step. With 0, one does, and the query
	// is measured as long as the step lasts.
	Count int32
	// FailureLimit is how many failed measurements are tolerated.
	FailureLimit int32
	// InconclusiveLimit is how many inconclusive measurements in a row are tolerated before the
	// step fails; with nil it is held as long as it takes.
	InconclusiveLimit *int32
}

// PrometheusQuery is where to ask, and what: a PromQL template that knows the fields of Vars.
type PrometheusQuery struct {
	Address string
	Query   string
}

// Result is what came of one measurement.
type Result string

const (
	// ResultSuccessful means that the success condition is true, and the failure condition is not.
	ResultSuccessful Result = "Successful"
	// ResultFailed means that the failure condition is true, or, where there is none, that the
	// success condition is false.
	ResultFailed Result = "Failed"
	// ResultInconclusive means anything else: no answer, an empty one, NaN, a condition that
	// can't be evaluated, or neither condition true.
	ResultInconclusive Result = "Inconclusive"
)

// Measurement is one answer, judged.
type Measurement struct {
	// Subject is that of the state in which this measurement counts.
	Subject string
	Result  Result
	// At is when the query was asked.
	At time.Time
	// Value is the answer, shortened; empty where there was none.
	Value string
	// Message says why the result is what it is.
	Message string
	// Warnings are the server's. They don't change the result.
	Warnings []string
}

// State is what is remembered of a query's measurements in one step.
type State struct {
	// Name is the query's.
	Name string
	// Subject is what was measured: a hash of the query, the revision and the step.
	Subject string
	// StartedAt is when the query was first judged.
	StartedAt time.Time
	// Successful, Failed and Inconclusive count the measurements.
	Successful   int32
	Failed       int32
	Inconclusive int32
	// InconclusiveInARow counts the inconclusive measurements since the last one that said something.
	InconclusiveInARow int32
	// LastAt, LastValue and Message are those of the last measurement.
	LastAt    time.Time
	LastValue string
	Message   string
}

// with counts a measurement.
func (s State) with(m Measurement) State {
	switch m.Result {
	case ResultSuccessful:
		s.Successful++
		s.InconclusiveInARow = 0
	case ResultFailed:
		s.Failed++
		s.InconclusiveInARow = 0
	default:
		s.Inconclusive++
		s.InconclusiveInARow++
	}
	s.LastAt = m.At
	s.LastValue = shorten(m.Value, maxValue)
	s.Message = shorten(withWarnings(m.Message, m.Warnings), maxMessage)
	return s
}

func (s State) measured() bool { return !s.LastAt.IsZero() }

// subject identifies what is measured. When it changes, because the roll-out went on or because
// the query or a condition was edited, the counts so far say nothing and the analysis starts
// anew. Limits, times and the fleet's namespaces may change in the middle.
func subject(q Query, vars Vars) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", []string{
		q.Name, q.Prometheus.Address, q.Prometheus.Query, q.SuccessCondition, q.FailureCondition,
		vars.Policy, vars.Revision, vars.Step,
	}))
	return hex.EncodeToString(sum[:6])
}

func withWarnings(message string, warnings []string) string {
	if len(warnings) == 0 {
		return message
	}
	return message + " (the server warns: " + strings.Join(warnings, "; ") + ")"
}

// shorten cuts a text to at most n bytes, and never inside a character.
func shorten(text string, n int) string {
	if len(text) <= n {
		return text
	}
	const ellipsis = "..."
	return strings.ToValidUTF8(text[:n-len(ellipsis)], "") + ellipsis
}
