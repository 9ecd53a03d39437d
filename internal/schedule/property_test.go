package schedule_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sidecar-dev/sidecar-operator/internal/schedule"
)

// anyWindow is a window, and the same schedule in a form that needs no cron.
type anyWindow struct {
	schedule.Window
	minutes, hours, days []int
	zone                 *time.Location
}

func drawWindow(t *rapid.T, zones ...string) anyWindow {
	w := anyWindow{
		minutes: rapid.SliceOfNDistinct(rapid.IntRange(0, 59), 1, 4, rapid.ID).Draw(t, "minutes"),
		hours:   rapid.SliceOfNDistinct(rapid.OneOf(rapid.IntRange(0, 4), rapid.IntRange(0, 23)), 1, 6, rapid.ID).Draw(t, "hours"),
		days:    rapid.SliceOfNDistinct(rapid.IntRange(0, 6), 1, 7, rapid.ID).Draw(t, "days"),
	}
	w.Schedule = fmt.Sprintf("%s %s * * %s", list(w.minutes), list(w.hours), list(w.days))
	w.TimeZone = rapid.SampledFrom(zones).Draw(t, "zone")
	w.Duration = time.Duration(rapid.OneOf(rapid.IntRange(1, 180), rapid.IntRange(1, 3*24*60)).Draw(t, "duration")) * time.Minute
	var err error
	if w.zone, err = time.LoadLocation(w.TimeZone); err != nil {
		t.Fatal(err)
	}
	return w
}

func list(numbers []int) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(numbers), " ", ","), "[]")
}

// comes says whether a time on the wall is one of the schedule's.
func (w *anyWindow) comes(wall time.Time) bool {
	return slices.Contains(w.minutes, wall.Minute()) && slices.Contains(w.hours, wall.Hour()) && slices.Contains(w.days, int(wall.Weekday()))
}

// mark watches the clock minute by minute from the beginning, and marks in which the window is open.
func (w *anyWindow) mark(open []bool, begin time.Time) {
	left := time.Duration(0)
	shown := wallOf(begin.In(w.zone)).Add(-time.Minute)
	for i := range open {
		for wall := wallOf(begin.Add(time.Duration(i) * time.Minute).In(w.zone)); shown.Before(wall); {
			shown = shown.Add(time.Minute)
			if w.comes(shown) {
				left = w.Duration
			}
		}
		open[i] = open[i] || left > 0
		left -= time.Minute
	}
}

func wallOf(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), 0, 0, time.UTC)
}

// changesOfClocks are hours that are skipped or repeated, and half hours, also at midnight.
var changesOfClocks = []struct{ zone, at string }{
	{"Europe/Berlin", "2026-03-29T01:00:00Z"},
	{"Europe/Berlin", "2026-10-25T01:00:00Z"},
	{"America/Santiago", "2026-04-05T03:00:00Z"},
	{"America/Santiago", "2026-09-06T04:00:00Z"},
	{"Australia/Lord_Howe", "2026-04-04T15:00:00Z"},
	{"Australia/Lord_Howe", "2026-10-03T15:30:00Z"},
}

// What At says of random windows is what watching the clock says, around every change of the clocks.
func TestAtAgreesWithWatchingTheClock(t *testing.T) {
	const day = 24 * 60
	rapid.Check(t, func(t *rapid.T) {
		change := rapid.SampledFrom(changesOfClocks).Draw(t, "change")
		near, err := time.Parse(time.RFC3339, change.at)
		if err != nil {
			t.Fatal(err)
		}
		begin := near.AddDate(0, 0, -5) // a window is open for three days at most
		open := make([]bool, 12*day)
		var windows []schedule.Window
		for range rapid.IntRange(1, 4).Draw(t, "windows") {
			w := drawWindow(t, change.zone, change.zone, "", "Asia/Kolkata")
			w.mark(open, begin)
			windows = append(windows, w.Window)
		}
		for range 20 {
			at := rapid.OneOf(rapid.IntRange(5*day-90, 5*day+90), rapid.IntRange(3*day, 8*day)).Draw(t, "minute")
			seconds := rapid.SampledFrom([]int{0, 1, 59}).Draw(t, "seconds")
			now := begin.Add(time.Duration(at)*time.Minute + time.Duration(seconds)*time.Second)
			got, changes := schedule.At(windows, now)
			if got != open[at] {
				t.Fatalf("%s: open is %t, the clock says %t", now, got, open[at])
			}
			agree(t, open, begin, at, windows, changes)
		}
	})
}

// agree compares when At says that the state changes to when it does.
func agree(t *rapid.T, open []bool, begin time.Time, at int, windows []schedule.Window, changes time.Time) {
	change := at
	for change < len(open) && open[change] == open[at] {
		change++
	}
	want := begin.Add(time.Duration(change) * time.Minute)
	for again, until := schedule.At(windows, changes); again && open[at] && changes.Before(want); again, until = schedule.At(windows, changes) {
		changes = until // it did not look further than a hundred openings
	}
	switch {
	case change == len(open) && changes.Before(want):
		t.Fatalf("minute %d: changes at %s, the clock says not before %s", at, changes, want)
	case change < len(open) && !changes.Equal(want):
		t.Fatalf("minute %d: changes at %s, the clock says %s", at, changes, want)
	}
}
