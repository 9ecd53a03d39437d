// Package schedule says when a roll-out may act. It is pure: the time is a value.
//
// A window opens by the clock on the wall and stays open for a while of elapsed time.
// Where the clocks change, that is settled like this: a time of the schedule has come when
// the clock first shows it, or jumps past it. So a window at an hour that is skipped opens
// at the jump, and one at an hour that is repeated opens once.
package schedule

import (
	"sort"
	"time"
)

// Window is a recurring span of time in which a roll-out may act.
type Window struct {
	// Schedule says when the window opens, as cron does in five fields: "0 22 * * mon-thu".
	Schedule string
	// Duration is how long it stays open, in elapsed time: more than 0, at most MaxDuration.
	Duration time.Duration
	// TimeZone is the one that the schedule is read in, by its IANA name; empty means UTC.
	TimeZone string
}

// MaxDuration is the longest that a window may stay open.
const MaxDuration = 7 * 24 * time.Hour

// maxJoints bounds how many openings that follow on each other without a gap are looked at.
const maxJoints = 100

// Validate says what is wrong with a window, and what to write instead.
func Validate(w Window) error {
	_, err := parse(w)
	return err
}

// At says whether a roll-out may act now, and when that changes next; zero when never.
// Without windows it always may. Windows that overlap or follow on each other are one: it
// ends where the last of them does. Only windows that leave no gap for a hundred openings
// end it earlier; look again then. A window that can't be read never opens.
func At(windows []Window, now time.Time) (open bool, changes time.Time) {
	if len(windows) == 0 {
		return true, time.Time{}
	}
	rules := make([]*rule, 0, len(windows))
	for _, w := range windows {
		if r, err := parse(w); err == nil {
			rules = append(rules, r)
		}
	}
	if end := openUntil(rules, now); end.After(now) {
		return true, end
	}
	return false, nextOpening(rules, now)
}

// openUntil follows from window to window as long as another is open when one ends.
func openUntil(rules []*rule, now time.Time) time.Time {
	end := now
	for range maxJoints {
		extended := end
		for _, r := range rules {
			if until := r.openUntil(end); until.After(extended) {
				extended = until
			}
		}
		if extended.Equal(end) {
			break
		}
		end = extended
	}
	return end
}

func nextOpening(rules []*rule, now time.Time) time.Time {
	var next time.Time
	for _, r := range rules {
		if opens := r.next(now); !opens.IsZero() && (next.IsZero() || opens.Before(next)) {
			next = opens
		}
	}
	return next
}

// openUntil is when the window that is open at t closes, unless it opens once more after
// t; zero when it is closed.
func (r *rule) openUntil(t time.Time) time.Time {
	// Looking further back finds an earlier opening. The latest is found by the fewest
	// minutes that find one at all: schedules have no seconds.
	back := func(minutes int) time.Time {
		return r.next(t.Add(-min(time.Duration(minutes)*time.Minute, r.duration)))
	}
	found := func(minutes int) bool {
		opened := back(minutes)
		return !opened.IsZero() && !opened.After(t)
	}
	most := int((r.duration + time.Minute - 1) / time.Minute)
	if !found(most) {
		return time.Time{}
	}
	return back(sort.Search(most, found)).Add(r.duration)
}

// next is when the window opens next after t; zero when never.
//
// The schedule is followed on a clock that never changes, and what comes out is looked up
// on the real one: the cron library itself leaves out what a change of the clocks skips.
func (r *rule) next(t time.Time) time.Time {
	wall := r.schedule.Next(shownUntil(t.In(r.zone)))
	if wall.IsZero() {
		return time.Time{}
	}
	return comes(wall, r.zone)
}

// shownUntil is the latest time that the clock has shown until t, written as if it were
// UTC. Only in an hour that is repeated is it not t's own.
func shownUntil(t time.Time) time.Time {
	shown := onWall(t)
	if start, _ := t.ZoneBounds(); !start.IsZero() {
		// The clock was changed before it showed the time of the change.
		if before := onWall(start.Add(-time.Second)); before.After(shown) {
			return before
		}
	}
	return shown
}

// comes is when a zone's clock first shows a time, or jumps past it.
func comes(wall time.Time, zone *time.Location) time.Time {
	t := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), 0, 0, zone)
	start, end := t.ZoneBounds()
	if !start.IsZero() {
		// Of a time that is shown twice, time.Date gives either.
		if first := wall.Add(-offset(start.Add(-time.Second))); first.Before(start) {
			return first
		}
	}
	switch shown := onWall(t); {
	case shown.After(wall):
		return start.UTC()
	case shown.Before(wall):
		return end.UTC()
	}
	return t.UTC()
}

// onWall is what the clock shows at t, written as if it were UTC.
func onWall(t time.Time) time.Time { return t.UTC().Add(offset(t)) }

func offset(t time.Time) time.Duration {
	_, seconds := t.Zone()
	return time.Duration(seconds) * time.Second
}
