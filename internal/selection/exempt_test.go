package selection_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
	"github.com/sidecar-dev/sidecar-operator/internal/selection"
)

func TestExempt(t *testing.T) {
	now := time.Date(2026, time.December, 31, 12, 0, 0, 0, time.UTC)
	newYear := time.Date(2027, time.January, 1, 0, 0, 0, 0, time.UTC)
	exempt := func(until string) map[string]string { return map[string]string{v1alpha1.ExemptUntilAnnotation: until} }
	type all = []map[string]string
	for _, tc := range []struct {
		name        string
		annotations all
		until       time.Time
		exempt      bool
		problem     string // what it says; empty: there is none
	}{
		{"nothing is annotated", all{nil, {}}, time.Time{}, false, ""},
		{"another annotation", all{{"example.com/exempt-until": "2027-01-01"}}, time.Time{}, false, ""},
		{"a day ends in UTC", all{exempt("2026-12-31")}, newYear, true, ""},
		{"the day before has ended", all{exempt("2026-12-30")}, time.Time{}, false, ""},
		{"a time", all{exempt("2026-12-31T12:00:01Z")}, now.Add(time.Second), true, ""},
		{"a time of another zone", all{exempt("2026-12-31T14:00:00+01:00")}, now.Add(time.Hour), true, ""},
		{"the time itself is the end", all{exempt("2026-12-31T12:00:00Z")}, time.Time{}, false, ""},
		{"blanks", all{exempt(" 2026-12-31\n")}, newYear, true, ""},
		{"the namespace's alone", all{exempt("2026-12-31"), nil}, newYear, true, ""},
		{"the workload's alone", all{nil, exempt("2026-12-31")}, newYear, true, ""},
		{"the longest: the first", all{exempt("2026-12-31"), exempt("2026-12-31T13:00:00Z")}, newYear, true, ""},
		{"the longest: the last", all{exempt("2026-12-31T13:00:00Z"), exempt("2026-12-31")}, newYear, true, ""},
		{"one has expired", all{exempt("2025-12-31"), exempt("2026-12-31")}, newYear, true, ""},
		{"all have expired", all{exempt("2025-12-31"), exempt("2026-12-30")}, time.Time{}, false, ""},
		{"words", all{exempt("next year")}, time.Time{}, true, `"next year" can't be read and exempts without an end: write the last day (in UTC) like 2026-12-31`},
		{"nothing is written", all{exempt("")}, time.Time{}, true, `"" can't be read`},
		{"a day that does not exist", all{exempt("2026-02-30")}, time.Time{}, true, "fleet.sidecar.dev/exempt-until"},
		{"the day comes first", all{exempt("31.12.2026")}, time.Time{}, true, "like 2026-12-31"},
		{"a time without a zone", all{exempt("2026-12-31T18:00")}, time.Time{}, true, "a time like 2026-12-31T18:00:00Z"},
		{"what can't be read is longer than a day", all{exempt("2026-12-31"), exempt("for ever")}, time.Time{}, true, "for ever"},
		{"what can't be read does not expire with another", all{exempt("for ever"), exempt("2025-12-31")}, time.Time{}, true, "for ever"},
		{"two that can't be read: the first", all{exempt("soon"), exempt("later")}, time.Time{}, true, `"soon"`},
		{"two that can't be read: the second", all{exempt("soon"), exempt("later")}, time.Time{}, true, `"later"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			until, exempt, problem := selection.Exempt(now, tc.annotations...)
			if !until.Equal(tc.until) || exempt != tc.exempt {
				t.Errorf("Exempt() = %s, %t, want %s, %t", until, exempt, tc.until, tc.exempt)
			}
			if !strings.Contains(problem, tc.problem) || (problem == "") != (tc.problem == "") {
				t.Errorf("the problem is %q, want it to say %q", problem, tc.problem)
			}
		})
	}
}
