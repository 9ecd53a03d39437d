package schedule

import (
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // a distroless image has no time zones

	"github.com/robfig/cron/v3"
)

// rule is a window that was read.
type rule struct {
	// schedule is followed on a clock that never changes, as if it were in UTC.
	schedule *cron.SpecSchedule
	duration time.Duration
	zone     *time.Location
}

func parse(w Window) (*rule, error) {
	schedule, err := parseSchedule(strings.TrimSpace(w.Schedule))
	if err != nil {
		return nil, err
	}
	if err := checkDuration(w.Duration); err != nil {
		return nil, err
	}
	zone, err := parseZone(w.TimeZone)
	if err != nil {
		return nil, err
	}
	return &rule{schedule: schedule, duration: w.Duration, zone: zone}, nil
}

const fields = `write five fields: minute (0-59), hour (0-23), day of the month (1-31), month (1-12 or jan-dec), ` +
	`day of the week (0-6 or sun-sat, a range begins with its first day of that order: "sat,sun", not "sat-sun"); ` +
	`like "0 22 * * mon-thu"`

func parseSchedule(spec string) (*cron.SpecSchedule, error) {
	if upper := strings.ToUpper(spec); strings.HasPrefix(upper, "TZ=") || strings.HasPrefix(upper, "CRON_TZ=") {
		return nil, fmt.Errorf("schedule %q names a time zone: write it into timeZone, and only the five fields here", spec)
	}
	if strings.HasPrefix(strings.ToLower(spec), "@every") {
		return nil, fmt.Errorf("schedule %q has no time of day that it begins at: write when the window opens, "+
			`like "0 */6 * * *" for every six hours of the clock in timeZone`, spec)
	}
	parsed, err := cron.ParseStandard(spec)
	if err != nil {
		return nil, fmt.Errorf("schedule %q can't be read (%w): %s", spec, err, fields)
	}
	schedule, ok := parsed.(*cron.SpecSchedule)
	if !ok || !fires(schedule) {
		return nil, fmt.Errorf("schedule %q never comes: write a day that exists, like \"0 22 1 * *\" for the first of every month", spec)
	}
	return schedule, nil
}

// fires says whether a schedule ever comes. The library looks five years ahead: what
// does not come in the five that begin with a leap year never does.
func fires(s *cron.SpecSchedule) bool {
	for _, field := range []uint64{s.Minute, s.Hour, s.Dom, s.Month, s.Dow} {
		if field == 0 { // "," lists nothing, and the library would try every minute of five years
			return false
		}
	}
	return !s.Next(time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)).IsZero()
}

func checkDuration(d time.Duration) error {
	if d <= 0 {
		return fmt.Errorf("duration %s opens no window: write how long it stays open, like 6h", d)
	}
	if d > MaxDuration {
		return fmt.Errorf("duration %s is longer than a week: write at most 168h; without windows a roll-out may always act", d)
	}
	return nil
}

func parseZone(name string) (*time.Location, error) {
	if name == "Local" { // it would depend on the machine
		return nil, unknownZone(name)
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, unknownZone(name)
	}
	return zone, nil
}

func unknownZone(name string) error {
	return fmt.Errorf("timeZone %q is not known: write a name of the IANA time zone database, like Europe/Berlin; "+
		"leave it out for UTC. Offsets and abbreviations of summer time are none", name)
}
