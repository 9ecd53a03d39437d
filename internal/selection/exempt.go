package selection

import (
	"fmt"
	"strings"
	"time"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

// Exempt says whether roll-outs keep away from a pod, given the annotations of all that it
// belongs to: its namespace and its workload, or itself. The exemption that ends last
// counts; until is when it does.
//
// A value that can't be read exempts as well, with no end (until is zero): somebody
// wanted to be left alone. The problem then says what to write.
func Exempt(now time.Time, annotations ...map[string]string) (until time.Time, exempt bool, problem string) {
	var problems []string
	for _, on := range annotations {
		value, given := on[v1alpha1.ExemptUntilAnnotation]
		if !given {
			continue
		}
		end, err := parseUntil(strings.TrimSpace(value))
		if err != nil {
			problems = append(problems, err.Error())
			continue
		}
		if end.After(now) && end.After(until) {
			until, exempt = end, true
		}
	}
	if len(problems) > 0 {
		return time.Time{}, true, strings.Join(problems, "; ")
	}
	return until, exempt, ""
}

// parseUntil reads when an exemption ends. One with a day alone ends with that day.
func parseUntil(value string) (time.Time, error) {
	if day, err := time.Parse(time.DateOnly, value); err == nil {
		return day.AddDate(0, 0, 1), nil
	}
	end, err := time.Parse(time.RFC3339, value)
	if err != nil {
		return time.Time{}, fmt.Errorf("annotation %s: %q can't be read and exempts without an end: "+
			"write the last day (in UTC) like 2026-12-31, or a time like 2026-12-31T18:00:00Z", v1alpha1.ExemptUntilAnnotation, value)
	}
	return end, nil
}
