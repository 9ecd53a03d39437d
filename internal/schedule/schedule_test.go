package schedule_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sidecar-dev/sidecar-operator/internal/schedule"
)

func window(cron string, duration time.Duration, zone string) schedule.Window {
	return schedule.Window{Schedule: cron, Duration: duration, TimeZone: zone}
}

func TestValidateSaysWhatToWriteInstead(t *testing.T) {
	for _, tc := range []struct {
		name   string
		window schedule.Window
		want   string // empty: nothing is wrong
	}{
		{"as in the documentation", window("0 22 * * mon-thu", 6*time.Hour, "Europe/Berlin"), ""},
		{"no time zone", window("0 22 * * *", time.Hour, ""), ""},
		{"a macro", window("@daily", time.Hour, "UTC"), ""},
		{"the names of days and months", window("30 4 1 JAN,jul Sun", time.Hour, ""), ""},
		{"a week", window("0 0 * * 1", 7*24*time.Hour, ""), ""},
		{"a leap day", window("0 0 29 2 *", time.Hour, ""), ""},
		{"no schedule", window("", time.Hour, ""), "write five fields"},
		{"no words of cron", window("at night", time.Hour, ""), "write five fields"},
		{"seconds", window("0 0 22 * * *", time.Hour, ""), "expected exactly 5 fields, found 6"},
		{"an hour that no day has", window("0 24 * * *", time.Hour, ""), "hour (0-23)"},
		{"a week end", window("0 22 * * sat-sun", time.Hour, ""), `"sat,sun", not "sat-sun"`},
		{"Sunday as 7", window("0 22 * * 7", time.Hour, ""), "day of the week (0-6 or sun-sat"},
		{"an unknown macro", window("@nightly", time.Hour, ""), "unrecognized descriptor: @nightly"},
		{"@every", window("@every 1h", time.Hour, ""), "write when the window opens"},
		{"a time zone in the schedule", window("TZ=Europe/Berlin 0 22 * * *", time.Hour, ""), "write it into timeZone"},
		{"the other spelling", window(" CRON_TZ=Europe/Berlin 0 22 * * *", time.Hour, ""), "write it into timeZone"},
		{"nothing but a time zone", window("TZ=UTC", time.Hour, ""), "write it into timeZone"},
		{"30 February", window("0 0 30 2 *", time.Hour, ""), "never comes: write a day that exists"},
		{"an empty list", window(", * * * *", time.Hour, ""), "never comes"},
		{"no duration", window("0 22 * * *", 0, ""), "write how long it stays open, like 6h"},
		{"a negative duration", window("0 22 * * *", -time.Hour, ""), "write how long it stays open"},
		{"more than a week", window("0 22 * * *", 7*24*time.Hour+1, ""), "write at most 168h"},
		{"an unknown time zone", window("0 22 * * *", time.Hour, "Europe/Berlinn"), "write a name of the IANA time zone database, like Europe/Berlin"},
		{"summer time", window("0 22 * * *", time.Hour, "CEST"), "abbreviations of summer time are none"},
		{"an offset", window("0 22 * * *", time.Hour, "+02:00"), "Offsets"},
		{"the machine's own", window("0 22 * * *", time.Hour, "Local"), "like Europe/Berlin"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := schedule.Validate(tc.window)
			if tc.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got: %v\nwant it to say: %s", err, tc.want)
			}
		})
	}
}

// answer is what At says, for people.
func answer(open bool, changes time.Time) string {
	state := map[bool]string{true: "open", false: "closed"}[open]
	if changes.IsZero() {
		return state + " for ever"
	}
	return state + " until " + changes.UTC().Format("2006-01-02 15:04:05")
}

func TestAt(t *testing.T) {
	nights := window("0 22 * * mon-thu", 6*time.Hour, "Europe/Berlin")
	early := window("30 2 * * *", time.Hour, "Europe/Berlin")
	weekend := window("0 18 * * fri", 60*time.Hour, "UTC")
	type windows = []schedule.Window
	for _, tc := range []struct {
		name    string
		windows windows
		now     string // UTC
		want    string
	}{
		{"none: always", nil, "2026-01-05 12:00:00", "open for ever"},

		// 5 January 2026 is a Monday; Berlin is an hour ahead of UTC.
		{"before", windows{nights}, "2026-01-05 20:59:59", "closed until 2026-01-05 21:00:00"},
		{"it opens", windows{nights}, "2026-01-05 21:00:00", "open until 2026-01-06 03:00:00"},
		{"over midnight", windows{nights}, "2026-01-06 01:30:00", "open until 2026-01-06 03:00:00"},
		{"its last second", windows{nights}, "2026-01-06 02:59:59", "open until 2026-01-06 03:00:00"},
		{"it closes", windows{nights}, "2026-01-06 03:00:00", "closed until 2026-01-06 21:00:00"},
		{"Thursday's ends on Friday", windows{nights}, "2026-01-09 02:00:00", "open until 2026-01-09 03:00:00"},
		{"over the week end", windows{nights}, "2026-01-09 12:00:00", "closed until 2026-01-12 21:00:00"},
		{"a week end", windows{weekend}, "2026-01-11 23:00:00", "open until 2026-01-12 06:00:00"},
		{"over the end of the year", windows{window("0 12 31 12 *", 24*time.Hour, "")}, "2027-01-01 11:00:00", "open until 2027-01-01 12:00:00"},
		{"a macro", windows{window("@monthly", time.Hour, "")}, "2026-01-05 12:00:00", "closed until 2026-02-01 00:00:00"},
		{"a leap day years ahead", windows{window("0 0 29 2 *", time.Hour, "")}, "2024-03-01 00:00:00", "closed until 2028-02-29 00:00:00"},
		{"shorter than a minute", windows{window("0 12 * * *", 10*time.Second, "")}, "2026-01-05 12:00:09", "open until 2026-01-05 12:00:10"},
		{"a minute and a bit", windows{window("0 12 * * *", 90*time.Second, "")}, "2026-01-05 12:01:15", "open until 2026-01-05 12:01:30"},
		{"a time zone of half hours", windows{window("0 9 * * *", time.Hour, "Asia/Kolkata")}, "2026-01-05 03:00:00", "closed until 2026-01-05 03:30:00"},

		{"a longer one overlaps", windows{nights, window("0 0 * * tue", 24*time.Hour, "UTC")}, "2026-01-05 22:00:00", "open until 2026-01-07 03:00:00"},
		{"one within another", windows{weekend, window("0 20 * * fri", time.Hour, "")}, "2026-01-09 20:30:00", "open until 2026-01-12 06:00:00"},
		{"back to back", windows{window("0 8 * * *", time.Hour, ""), window("0 9 * * *", time.Hour, "")}, "2026-01-05 08:10:00", "open until 2026-01-05 10:00:00"},
		{"back to back, the other way round", windows{window("0 9 * * *", time.Hour, ""), window("0 8 * * *", time.Hour, "")}, "2026-01-05 08:10:00", "open until 2026-01-05 10:00:00"},
		{"back to back with itself", windows{window("0 8-11 * * *", time.Hour, "")}, "2026-01-05 08:10:00", "open until 2026-01-05 12:00:00"},
		{"it overlaps itself", windows{window("*/15 8 * * *", 50*time.Minute, "")}, "2026-01-05 08:10:00", "open until 2026-01-05 09:35:00"},
		{"a second between two", windows{window("0 8 * * *", time.Hour-time.Second, ""), window("0 9 * * *", time.Hour, "")}, "2026-01-05 08:10:00", "open until 2026-01-05 08:59:59"},
		{"the next of two", windows{nights, weekend}, "2026-01-09 12:00:00", "closed until 2026-01-09 18:00:00"},

		// Berlin's clocks went from 02:00 to 03:00 on 29 March 2026, which is 01:00 UTC.
		{"an hour that is skipped: before", windows{early}, "2026-03-29 00:59:59", "closed until 2026-03-29 01:00:00"},
		{"an hour that is skipped: opens at the jump", windows{early}, "2026-03-29 01:00:00", "open until 2026-03-29 02:00:00"},
		{"an hour that is skipped: once", windows{early}, "2026-03-29 02:00:00", "closed until 2026-03-30 00:30:00"},
		{"a night with an hour less has as much time", windows{window("0 22 * * *", 6*time.Hour, "Europe/Berlin")}, "2026-03-29 02:30:00", "open until 2026-03-29 03:00:00"},
		{"after the jump", windows{window("0 3 * * *", time.Hour, "Europe/Berlin")}, "2026-03-29 01:00:00", "open until 2026-03-29 02:00:00"},
		{"a whole day with an hour less", windows{window("0 0 * * sun", 24*time.Hour, "Europe/Berlin")}, "2026-03-29 22:30:00", "open until 2026-03-29 23:00:00"},
		// Santiago's clocks went from 24:00 to 01:00 on 5 September 2026, which is 04:00 UTC on the 6th.
		{"a midnight that is skipped", windows{window("0 0 * * *", time.Hour, "America/Santiago")}, "2026-09-06 03:59:00", "closed until 2026-09-06 04:00:00"},

		// Berlin's clocks go from 03:00 back to 02:00 on 25 October 2026, which is 01:00 UTC.
		{"an hour that is repeated: the first time", windows{early}, "2026-10-25 00:30:00", "open until 2026-10-25 01:30:00"},
		{"an hour that is repeated: not once more", windows{early}, "2026-10-25 01:30:00", "closed until 2026-10-26 01:30:00"},
		{"an hour that is repeated: the next is never in the past", windows{window("30 2 * * *", 10*time.Minute, "Europe/Berlin")}, "2026-10-25 01:10:00", "closed until 2026-10-26 01:30:00"},
		{"a night with an hour more has as much time", windows{window("0 22 * * *", 6*time.Hour, "Europe/Berlin")}, "2026-10-25 01:59:59", "open until 2026-10-25 02:00:00"},
		{"after the repeated hour", windows{window("0 3 * * *", time.Hour, "Europe/Berlin")}, "2026-10-25 01:30:00", "closed until 2026-10-25 02:00:00"},
		{"every whole day leaves the hour that a day has more", windows{window("0 0 * * *", 24*time.Hour, "Europe/Berlin")}, "2026-10-20 12:00:00", "open until 2026-10-25 22:00:00"},
		// Lord Howe's clocks go back by half an hour at 02:00 on 5 April 2026, which is 15:00 UTC on the 4th.
		{"half an hour that is repeated", windows{window("45 1 * * *", 10*time.Minute, "Australia/Lord_Howe")}, "2026-04-04 15:15:00", "closed until 2026-04-05 15:15:00"},

		{"always", windows{window("* * * * *", 24*time.Hour, "")}, "2026-01-05 12:00:00", "open until 2026-04-15 12:00:00"},
		{"one that can't be read never opens", windows{window("@every 1m", time.Hour, "")}, "2026-01-05 12:00:00", "closed for ever"},
		{"nor with a duration that is too long", windows{window("* * * * *", 1000*time.Hour, "")}, "2026-01-05 12:00:00", "closed for ever"},
		{"nor in an unknown time zone", windows{window("* * * * *", time.Hour, "Mars/Olympus")}, "2026-01-05 12:00:00", "closed for ever"},
		{"nor on a day that does not exist", windows{window("* * 31 feb *", time.Hour, "")}, "2026-01-05 12:00:00", "closed for ever"},
		{"it does not hide the others", windows{window("", time.Hour, ""), weekend}, "2026-01-09 19:00:00", "open until 2026-01-12 06:00:00"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			now, err := time.Parse("2006-01-02 15:04:05", tc.now)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, answer(schedule.At(tc.windows, now))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTheAnswerDoesNotDependOnTheTimeZoneOfNow(t *testing.T) {
	windows := []schedule.Window{window("0 22 * * mon-thu", 6*time.Hour, "Europe/Berlin")}
	now := time.Date(2026, time.January, 6, 1, 30, 0, 0, time.UTC)
	want := answer(schedule.At(windows, now))
	for _, zone := range []*time.Location{time.FixedZone("", 14*3600), time.FixedZone("", -11*3600)} {
		if got := answer(schedule.At(windows, now.In(zone))); got != want {
			t.Errorf("in %s: %s, want %s", zone, got, want)
		}
	}
}

// One hour, by sixty windows of a minute: each joint is found.
func TestManyWindows(t *testing.T) {
	var windows []schedule.Window
	for minute := range 60 {
		windows = append(windows, window(fmt.Sprintf("%d 8 * * *", minute), time.Minute, "Europe/Berlin"))
	}
	now := time.Date(2026, time.January, 5, 7, 0, 30, 0, time.UTC)
	if diff := cmp.Diff("open until 2026-01-05 08:00:00", answer(schedule.At(windows, now))); diff != "" {
		t.Error(diff)
	}
	now = time.Date(2026, time.January, 5, 8, 0, 0, 0, time.UTC)
	if diff := cmp.Diff("closed until 2026-01-06 07:00:00", answer(schedule.At(windows, now))); diff != "" {
		t.Error(diff)
	}
}

// The two dearest questions: never a gap, and a schedule that can't come.
func BenchmarkAt(b *testing.B) {
	now := time.Date(2026, time.January, 5, 8, 0, 30, 0, time.UTC)
	for name, w := range map[string]schedule.Window{
		"nights":  window("0 22 * * mon-thu", 6*time.Hour, "Europe/Berlin"),
		"nogap":   window("* * * * *", time.Minute, "Europe/Berlin"),
		"leapday": window("0 0 29 2 *", time.Hour, "Europe/Berlin"),
		"never":   window("0 0 30 2 *", time.Hour, "Europe/Berlin"),
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				schedule.At([]schedule.Window{w}, now)
			}
		})
	}
}
