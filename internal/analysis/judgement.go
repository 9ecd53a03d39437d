package analysis

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Judgement is what all queries of a step say about it together.
type Judgement struct {
	Outcome Outcome
	// Message says why, in the words of the queries that decided.
	Message string
	// Due are the queries to measure now; none when the outcome is final.
	Due []Query
	// Next is when one that is not due now will be; the zero time where none will.
	Next time.Time
	// States are what to remember: one for each query, in their order.
	States []State
}

// Judge judges a step that is ready to be measured. A state that is about something else, an
// older wording of the query or another revision, is not used; give no states at all when the
// step begins, as the same revision may come to the same step again.
//
// It passes no sooner than the soak ends, and only when no measurement of the soak is missing: a
// manager that was down must not believe old answers. What comes due later does not hold it, or
// a query that is answered slower than its interval would never let it go.
func Judge(queries []Query, states []State, vars Vars, soakEnd, now time.Time) Judgement {
	var j Judgement
	messages := map[Outcome][]string{}
	for _, q := range queries {
		state := remembered(states, q, vars, now)
		j.States = append(j.States, state)
		outcome, message := verdict(q, state)
		at, more := next(q, state)
		switch {
		case !more:
		case now.Before(at):
			j.Next = earliest(j.Next, at)
		default:
			j.Due = append(j.Due, q)
			if outcome == Passed && !at.After(soakEnd) {
				outcome = Running
			}
		}
		messages[outcome] = append(messages[outcome], message)
	}
	j.Outcome = together(messages, !now.Before(soakEnd))
	j.Message = strings.Join(messages[j.Outcome], "; ")
	if j.Outcome == Failed || j.Outcome == Passed {
		j.Due, j.Next = nil, time.Time{}
	}
	return j
}

// together is the outcome that decides among those of the queries.
func together(messages map[Outcome][]string, soakOver bool) Outcome {
	for _, outcome := range []Outcome{Failed, Inconclusive, Running} {
		if len(messages[outcome]) > 0 {
			return outcome
		}
	}
	if !soakOver {
		return Running
	}
	return Passed
}

// Record counts a measurement in the state that it belongs to. It changes nothing when there
// is none any more, because the query was edited or the step ended while it was measured.
func Record(states []State, m Measurement) []State {
	states = slices.Clone(states)
	for i, state := range states {
		if state.Subject == m.Subject {
			states[i] = state.with(m)
		}
	}
	return states
}

// remembered is the state of the query in this step: a new one where there is none.
func remembered(states []State, q Query, vars Vars, now time.Time) State {
	want := subject(q, vars)
	if i := slices.IndexFunc(states, func(s State) bool { return s.Subject == want }); i >= 0 {
		return states[i]
	}
	return State{Name: q.Name, Subject: want, StartedAt: now}
}

// next is when the query is to be measured next, if it is at all. Measurements that were missed
// are not made up for.
func next(q Query, state State) (at time.Time, more bool) {
	outcome, _ := verdict(q, state)
	switch {
	case outcome == Failed, outcome == Passed && q.Count > 0:
		return time.Time{}, false
	case !state.measured():
		return state.StartedAt.Add(q.InitialDelay), true
	}
	return state.LastAt.Add(cmp.Or(q.Interval, DefaultInterval)), true
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}
