package analysis

import "fmt"

// Outcome is what measurements say about the step.
type Outcome string

const (
	// Running means that the step is held because more measurements are needed.
	Running Outcome = "Running"
	// Passed means that the step may end.
	Passed Outcome = "Passed"
	// Failed means that the step must be stopped. It is final.
	Failed Outcome = "Failed"
	// Inconclusive means that the step is held because the last measurement of a query could
	// not be judged. It is measured again.
	Inconclusive Outcome = "Inconclusive"
)

// checks are asked in this order; the first that applies is the verdict.
var checks = [...]struct {
	outcome Outcome
	applies func(Query, State) (string, bool)
}{
	{Failed, tooManyFailed},             // more than may fail
	{Failed, tooManyInconclusive},       // the author would rather stop than wait
	{Inconclusive, lastWasInconclusive}, // what can't be judged holds, whatever came before
	{Passed, enoughSuccessful},          // failed ones that are tolerated don't count towards it
}

// verdict judges the measurements of one query so far.
func verdict(q Query, state State) (Outcome, string) {
	for _, check := range checks {
		if message, applies := check.applies(q, state); applies {
			return check.outcome, shorten(q.Name+": "+message, maxMessage)
		}
	}
	return Running, shorten(q.Name+": "+tally(q, state), maxMessage)
}

func tooManyFailed(q Query, state State) (string, bool) {
	return fmt.Sprintf("%d failed, %d tolerated; the last measurement: %s",
		state.Failed, q.FailureLimit, state.Message), state.Failed > q.FailureLimit
}

func tooManyInconclusive(q Query, state State) (string, bool) {
	if q.InconclusiveLimit == nil {
		return "", false
	}
	return fmt.Sprintf("%d inconclusive in a row, %d tolerated; the last measurement: %s",
		state.InconclusiveInARow, *q.InconclusiveLimit, state.Message), state.InconclusiveInARow > *q.InconclusiveLimit
}

func lastWasInconclusive(_ Query, state State) (string, bool) {
	return fmt.Sprintf("%d inconclusive in a row; the last measurement: %s",
		state.InconclusiveInARow, state.Message), state.InconclusiveInARow > 0
}

func enoughSuccessful(q Query, state State) (string, bool) {
	return tally(q, state), state.Successful >= max(q.Count, 1)
}

func tally(q Query, state State) string {
	if !state.measured() {
		return "not measured yet"
	}
	text := fmt.Sprintf("%d successful", state.Successful)
	if q.Count > 0 {
		text = fmt.Sprintf("%d of %d successful", state.Successful, q.Count)
	}
	if state.Failed > 0 {
		text += fmt.Sprintf(", %d failed, %d tolerated", state.Failed, q.FailureLimit)
	}
	return text
}
