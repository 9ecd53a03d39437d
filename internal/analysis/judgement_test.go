package analysis

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// measurements are written as one letter each: s(uccessful), f(ailed), i(nconclusive).
var letters = map[rune]Result{'s': ResultSuccessful, 'f': ResultFailed, 'i': ResultInconclusive}

// after is the state after measurements that were made a minute apart, the first at the start.
func after(q Query, measurements string) State {
	states := Judge([]Query{q}, nil, vars, start, start).States
	for i, letter := range measurements {
		states = Record(states, Measurement{
			Subject: states[0].Subject, Result: letters[letter], At: start.Add(time.Duration(i) * time.Minute),
			Value: "[1]", Message: fmt.Sprintf("measurement %d", i+1),
		})
	}
	return states[0]
}

func limits(count, failures int32) func(*Query) {
	return func(q *Query) { q.Count, q.FailureLimit = count, failures }
}

func inconclusiveLimit(n int32) func(*Query) {
	return func(q *Query) { q.InconclusiveLimit = &n }
}

func TestVerdict(t *testing.T) {
	type judged struct {
		Outcome Outcome
		Message string
	}
	for _, tc := range []struct {
		name, measurements string
		query              Query
		want               judged
	}{
		{"no measurement", "", errorsQuery(), judged{Running, "errors: not measured yet"}},
		{"one passes without a count", "s", errorsQuery(), judged{Passed, "errors: 1 successful"}},
		{"fewer than the count", "ss", errorsQuery(limits(3, 0)), judged{Running, "errors: 2 of 3 successful"}},
		{"the count", "sss", errorsQuery(limits(3, 0)), judged{Passed, "errors: 3 of 3 successful"}},
		{"a failed one", "sf", errorsQuery(), judged{Failed, "errors: 1 failed, 0 tolerated; the last measurement: measurement 2"}},
		{"a tolerated one", "sf", errorsQuery(limits(0, 1)), judged{Passed, "errors: 1 successful, 1 failed, 1 tolerated"}},
		{"a tolerated one is no success", "fs", errorsQuery(limits(2, 1)), judged{Running, "errors: 1 of 2 successful, 1 failed, 1 tolerated"}},
		{"only tolerated ones", "f", errorsQuery(limits(0, 1)), judged{Running, "errors: 0 successful, 1 failed, 1 tolerated"}},
		{"more than tolerated", "fsf", errorsQuery(limits(0, 1)), judged{Failed, "errors: 2 failed, 1 tolerated; the last measurement: measurement 3"}},
		{"successes don't heal", "ffsss", errorsQuery(limits(3, 1)), judged{Failed, "errors: 2 failed, 1 tolerated; the last measurement: measurement 5"}},
		{"an inconclusive one holds", "sssi", errorsQuery(limits(3, 0)), judged{Inconclusive, "errors: 1 inconclusive in a row; the last measurement: measurement 4"}},
		{"however long", strings.Repeat("i", 99), errorsQuery(), judged{Inconclusive, "errors: 99 inconclusive in a row; the last measurement: measurement 99"}},
		{"a success after it goes on", "iis", errorsQuery(), judged{Passed, "errors: 1 successful"}},
		{"as many in a row as tolerated", "ii", errorsQuery(inconclusiveLimit(2)), judged{Inconclusive, "errors: 2 inconclusive in a row; the last measurement: measurement 2"}},
		{"more in a row than tolerated", "iii", errorsQuery(inconclusiveLimit(2)),
			judged{Failed, "errors: 3 inconclusive in a row, 2 tolerated; the last measurement: measurement 3"}},
		{"as many, but not in a row", "iisii", errorsQuery(inconclusiveLimit(2)), judged{Inconclusive, "errors: 2 inconclusive in a row; the last measurement: measurement 5"}},
		{"none is tolerated", "i", errorsQuery(inconclusiveLimit(0)),
			judged{Failed, "errors: 1 inconclusive in a row, 0 tolerated; the last measurement: measurement 1"}},
		{"a success with a limit of none", "s", errorsQuery(inconclusiveLimit(0)), judged{Passed, "errors: 1 successful"}},
		{"a failure between inconclusive ones", "ifi", errorsQuery(), judged{Failed, "errors: 1 failed, 0 tolerated; the last measurement: measurement 3"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got judged
			got.Outcome, got.Message = verdict(tc.query, after(tc.query, tc.measurements))
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("verdict() (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhenAQueryIsDue(t *testing.T) {
	delayed := func(q *Query) { q.InitialDelay = 2 * time.Minute }
	every5m := func(q *Query) { q.Interval = 5 * time.Minute }
	for _, tc := range []struct {
		name, measurements string
		query              Query
		now                time.Duration // since the start
		due                bool
		next               time.Duration // -1 for never
	}{
		{"at once", "", errorsQuery(), 0, true, -1},
		{"not before the delay", "", errorsQuery(delayed), time.Minute, false, 2 * time.Minute},
		{"after the delay", "", errorsQuery(delayed), 2 * time.Minute, true, -1},
		{"not before the default interval", "s", errorsQuery(), 59 * time.Second, false, time.Minute},
		{"after the default interval", "s", errorsQuery(), time.Minute, true, -1},
		{"after its own interval", "s", errorsQuery(every5m), 4 * time.Minute, false, 5 * time.Minute},
		{"the delay is over after the first", "s", errorsQuery(delayed), time.Minute, true, -1},
		{"missed ones are not made up for", "ss", errorsQuery(), time.Hour, true, -1},
		{"again after an inconclusive one", "i", errorsQuery(), time.Minute, true, -1},
		{"never after the last that counts", "ss", errorsQuery(limits(2, 0)), time.Hour, false, -1},
		{"never after a failure", "f", errorsQuery(), time.Hour, false, -1},
		{"a clock that was put back", "sss", errorsQuery(), 0, false, 3 * time.Minute},
	} {
		t.Run(tc.name, func(t *testing.T) {
			j := Judge([]Query{tc.query}, []State{after(tc.query, tc.measurements)}, vars, start.Add(24*time.Hour), start.Add(tc.now))
			if due := len(j.Due) == 1; due != tc.due {
				t.Errorf("due = %t, want %t", due, tc.due)
			}
			want := start.Add(tc.next)
			if tc.next < 0 {
				want = time.Time{}
			}
			if !j.Next.Equal(want) {
				t.Errorf("next = %s, want %s", j.Next, want)
			}
		})
	}
}

func TestJudgeSteps(t *testing.T) {
	errors, latency := errorsQuery(), errorsQuery(limits(2, 0), func(q *Query) { q.Name = "latency"; q.InitialDelay = time.Minute })
	// brief is what a judgement says, without the states.
	type brief struct {
		Outcome Outcome
		Message string
		Due     []string
		Next    time.Duration // since the start
	}
	soaks, over, ended := start.Add(24*time.Hour), start, start.Add(90*time.Second)
	for _, tc := range []struct {
		name    string
		queries []Query
		states  []State
		soakEnd time.Time
		now     time.Duration
		want    brief
	}{
		{"no queries", nil, nil, over, 0, brief{Outcome: Passed}},
		{"no queries while it soaks", nil, nil, soaks, 0, brief{Outcome: Running}},
		{"the beginning", []Query{errors, latency}, nil, soaks, 0,
			brief{Running, "errors: not measured yet; latency: not measured yet", []string{"errors"}, time.Minute}},
		{"all passed while it soaks", []Query{errors}, []State{after(errors, "s")}, soaks, time.Second,
			brief{Running, "", nil, time.Minute}},
		{"all passed", []Query{errors, latency}, []State{after(errors, "ss"), after(latency, "ss")}, over, 90 * time.Second,
			brief{Outcome: Passed, Message: "errors: 2 successful; latency: 2 of 2 successful"}},
		{"all passed, and no measurement since the soak's first minute", []Query{errors}, []State{after(errors, "s")}, ended, time.Hour,
			brief{Running, "errors: 1 successful", []string{"errors"}, 0}},
		{"all passed, and one came due after the soak", []Query{errors}, []State{after(errors, "ss")}, ended, time.Hour,
			brief{Outcome: Passed, Message: "errors: 2 successful"}},
		{"one has not enough", []Query{errors, latency}, []State{after(errors, "s"), after(latency, "s")}, over, 30 * time.Second,
			brief{Running, "latency: 1 of 2 successful", nil, time.Minute}},
		{"what is inconclusive is told before what runs", []Query{errors, latency}, []State{after(errors, "i"), after(latency, "s")}, over, time.Minute,
			brief{Inconclusive, "errors: 1 inconclusive in a row; the last measurement: measurement 1", []string{"errors", "latency"}, 0}},
		{"what failed is told before what is inconclusive, and nothing is measured any more", []Query{errors, latency},
			[]State{after(errors, "i"), after(latency, "f")}, soaks, time.Hour,
			brief{Outcome: Failed, Message: "latency: 1 failed, 0 tolerated; the last measurement: measurement 1"}},
		{"two failed", []Query{errors, latency}, []State{after(errors, "f"), after(latency, "sf")}, over, 0,
			brief{Outcome: Failed, Message: "errors: 1 failed, 0 tolerated; the last measurement: measurement 1; " +
				"latency: 1 failed, 0 tolerated; the last measurement: measurement 2"}},
		{"states in another order, and one of a removed query", []Query{errors, latency},
			[]State{after(latency, "ss"), after(errorsQuery(func(q *Query) { q.Name = "gone" }), "f"), after(errors, "s")}, over, 0,
			brief{Outcome: Passed, Message: "errors: 1 successful; latency: 2 of 2 successful"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			j := Judge(tc.queries, tc.states, vars, tc.soakEnd, start.Add(tc.now))
			got := brief{Outcome: j.Outcome, Message: j.Message}
			for _, q := range j.Due {
				got.Due = append(got.Due, q.Name)
			}
			if !j.Next.IsZero() {
				got.Next = j.Next.Sub(start)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("Judge() (-want +got):\n%s", diff)
			}
			if len(j.States) != len(tc.queries) {
				t.Fatalf("%d states of %d queries", len(j.States), len(tc.queries))
			}
			for i, q := range tc.queries {
				if j.States[i].Name != q.Name {
					t.Errorf("state %d is of %s, want %s", i, j.States[i].Name, q.Name)
				}
			}
		})
	}
}

func TestWhatStartsAnew(t *testing.T) {
	limit := int32(7)
	for _, tc := range []struct {
		name string
		edit func(*Query, *Vars)
		anew bool
	}{
		{"nothing changed", func(*Query, *Vars) {}, false},
		{"another count", func(q *Query, _ *Vars) { q.Count = 9 }, false},
		{"other limits", func(q *Query, _ *Vars) { q.FailureLimit, q.InconclusiveLimit = 9, &limit }, false},
		{"other times", func(q *Query, _ *Vars) { q.InitialDelay, q.Interval, q.Timeout = 9, 9, 9 }, false},
		{"other namespaces", func(_ *Query, v *Vars) { v.Namespaces = []string{"garden"} }, false},
		{"another query", func(q *Query, _ *Vars) { q.Prometheus.Query = "up" }, true},
		{"another server", func(q *Query, _ *Vars) { q.Prometheus.Address = "http://other" }, true},
		{"another success condition", func(q *Query, _ *Vars) { q.SuccessCondition = "result[0] < 1" }, true},
		{"another failure condition", func(q *Query, _ *Vars) { q.FailureCondition = "result[0] > 1" }, true},
		{"another revision", func(_ *Query, v *Vars) { v.Revision = "log-agent-78" }, true},
		{"another step", func(_ *Query, v *Vars) { v.Step = "early" }, true},
		{"text that moved from one field to the next", func(q *Query, _ *Vars) { q.SuccessCondition, q.FailureCondition = "", q.SuccessCondition }, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := after(errorsQuery(), "s")
			q, v := errorsQuery(), vars
			tc.edit(&q, &v)
			later := start.Add(time.Hour)
			got := Judge([]Query{q}, []State{before}, v, later, later).States[0]
			want := before
			if tc.anew {
				want = State{Name: q.Name, Subject: got.Subject, StartedAt: later}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("state (-want +got):\n%s", diff)
			}
			if anew := got.Subject != before.Subject; anew != tc.anew {
				t.Errorf("anew = %t, want %t", anew, tc.anew)
			}
		})
	}
}

func TestRecord(t *testing.T) {
	states := Judge([]Query{errorsQuery()}, nil, vars, start, start).States
	at := start.Add(time.Second)
	got := Record(states, Measurement{
		Subject: states[0].Subject, Result: ResultFailed, At: at,
		Value: strings.Repeat("v", 2*maxValue), Message: "bad", Warnings: []string{"a store is away", "so is another"},
	})
	want := []State{{
		Name: "errors", Subject: states[0].Subject, StartedAt: start, Failed: 1, LastAt: at,
		LastValue: strings.Repeat("v", maxValue-3) + "...", Message: "bad (the server warns: a store is away; so is another)",
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Record() (-want +got):\n%s", diff)
	}
	if states[0].Failed != 0 {
		t.Error("Record() changed the states that it was given")
	}
	late := Measurement{Subject: "of another step", Result: ResultFailed, At: at}
	if diff := cmp.Diff(states, Record(states, late)); diff != "" {
		t.Errorf("a measurement of another step counts (-want +got):\n%s", diff)
	}
}

func TestShortenNeverCutsACharacter(t *testing.T) {
	if got, want := shorten("aää", 5), "aää"; got != want {
		t.Errorf("shorten() = %q, want %q", got, want)
	}
	if got, want := shorten("aäää", 5), "a..."; got != want {
		t.Errorf("shorten() = %q, want %q", got, want)
	}
}

// A whole step, with whatever measurements, limits and clock: it is judged as the manager would.
func TestAnalysisOfRandomSteps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newStepUnderTest(t)
		for range rapid.IntRange(1, 40).Draw(t, "passes") {
			s.pass(t)
		}
		s.settles(t)
	})
}

// stepUnderTest is a step and what was measured in it so far.
type stepUnderTest struct {
	queries []Query
	states  []State
	results map[string][]Result
	last    map[string]time.Time
	soakEnd time.Time
	now     time.Time
	failed  bool
}

func newStepUnderTest(t *rapid.T) *stepUnderTest {
	soak := time.Duration(rapid.IntRange(0, 600).Draw(t, "soak")) * time.Second
	s := &stepUnderTest{results: map[string][]Result{}, last: map[string]time.Time{}, soakEnd: start.Add(soak), now: start}
	for i := range rapid.IntRange(0, 3).Draw(t, "queries") {
		q := errorsQuery(limits(rapid.Int32Range(0, 3).Draw(t, "count"), rapid.Int32Range(0, 2).Draw(t, "failureLimit")))
		q.Name = fmt.Sprintf("query-%d", i)
		q.Interval = time.Duration(rapid.IntRange(1, 60).Draw(t, "interval")) * time.Second
		q.InitialDelay = time.Duration(rapid.IntRange(0, 60).Draw(t, "initialDelay")) * time.Second
		if rapid.Bool().Draw(t, "limited") {
			inconclusiveLimit(rapid.Int32Range(0, 2).Draw(t, "inconclusiveLimit"))(&q)
		}
		s.queries = append(s.queries, q)
	}
	return s
}

// pass lets some time go by, judges, measures what is due, and checks what was said.
func (s *stepUnderTest) pass(t *rapid.T) {
	s.now = s.now.Add(time.Duration(rapid.IntRange(0, 90).Draw(t, "seconds")) * time.Second)
	j := Judge(s.queries, s.states, vars, s.soakEnd, s.now)
	s.check(t, j)
	s.states = j.States
	for _, q := range j.Due {
		m := Measurement{Subject: subject(q, vars), At: s.now,
			Result: rapid.SampledFrom([]Result{ResultSuccessful, ResultSuccessful, ResultFailed, ResultInconclusive}).Draw(t, "result")}
		s.results[q.Name] = append(s.results[q.Name], m.Result)
		s.last[q.Name] = m.At
		s.states = Record(s.states, m)
	}
	if rapid.Bool().Draw(t, "shuffled") {
		slices.Reverse(s.states)
	}
}

func (s *stepUnderTest) check(t *rapid.T, j Judgement) {
	for _, q := range s.queries {
		results := s.results[q.Name]
		failures, successes := int32(count(results, ResultFailed)), int32(count(results, ResultSuccessful))
		if failures > q.FailureLimit && j.Outcome != Failed {
			t.Fatalf("%d of %s failed, and the step is %s", failures, q.Name, j.Outcome)
		}
		if j.Outcome != Passed {
			continue
		}
		if successes < max(q.Count, 1) {
			t.Fatalf("passed with %d successful of %s", successes, q.Name)
		}
		if results[len(results)-1] == ResultInconclusive {
			t.Fatalf("passed, and the last of %s was inconclusive", q.Name)
		}
		if q.Count == 0 && !s.last[q.Name].Add(q.Interval).After(s.soakEnd) {
			t.Fatalf("passed, and %s was not measured at the end of the soak", q.Name)
		}
	}
	if j.Outcome == Passed && s.now.Before(s.soakEnd) {
		t.Fatal("passed before the end of the soak")
	}
	if s.failed && j.Outcome != Failed {
		t.Fatalf("failed before, and now %s", j.Outcome)
	}
	s.failed = j.Outcome == Failed
	final := j.Outcome == Failed || j.Outcome == Passed
	if final && (len(j.Due) > 0 || !j.Next.IsZero()) {
		t.Fatalf("%s, and goes on with %v at %s", j.Outcome, j.Due, j.Next)
	}
	if !j.Next.IsZero() && !j.Next.After(s.now) {
		t.Fatalf("to look again at %s, and it is %s", j.Next, s.now)
	}
}

// settles says that a step with a healthy version ends by itself, however slow the answers are:
// there is always something to measure or a time to look again, until it has passed or failed.
func (s *stepUnderTest) settles(t *rapid.T) {
	const slow = 5 * time.Second
	for range 1000 {
		j := Judge(s.queries, s.states, vars, s.soakEnd, s.now)
		s.states = j.States
		switch {
		case j.Outcome == Passed, j.Outcome == Failed:
			return
		case len(j.Due) == 0 && j.Next.IsZero() && !s.now.Before(s.soakEnd):
			t.Fatalf("%s (%s), and nothing to wait for", j.Outcome, j.Message)
		case len(j.Due) == 0 && !j.Next.IsZero():
			s.now = j.Next
		case len(j.Due) == 0:
			s.now = s.soakEnd
		}
		for _, q := range j.Due {
			s.states = Record(s.states, Measurement{Subject: subject(q, vars), At: s.now, Result: ResultSuccessful})
			s.now = s.now.Add(slow)
		}
	}
	t.Fatal("never ends")
}

func count(results []Result, wanted Result) (n int) {
	for _, result := range results {
		if result == wanted {
			n++
		}
	}
	return n
}
