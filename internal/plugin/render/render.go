// Package render writes for people, and for programs, what the plugin has found. It is pure: values
// in, text out.
package render

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/util/duration"
)

// nothing stands in a table where there is nothing to say.
const nothing = "-"

// table aligns rows below a header. What a column's last cell holds may be as long as it is.
func table(header []string, rows [][]string) string {
	widths := make([]int, len(header))
	all := append([][]string{header}, rows...)
	for _, row := range all {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var text strings.Builder
	for _, row := range all {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+3))
		}
		text.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return text.String()
}

// or is the text, or a dash where there is none.
func or(text string) string {
	if text == "" {
		return nothing
	}
	return text
}

// bar draws how much of a whole is done.
func bar(done, whole, width int) string {
	filled := 0
	if whole > 0 {
		filled = min(width*done/whole, width)
	}
	return "[" + strings.Repeat("#", filled) + strings.Repeat(".", width-filled) + "]"
}

// Duration is a time span as kubectl writes it: 90s, 5m, 3h20m.
func Duration(d time.Duration) string { return duration.HumanDuration(d.Round(time.Second)) }

// age is how long ago that was.
func age(t, now time.Time) string {
	if t.IsZero() {
		return nothing
	}
	return Duration(now.Sub(t))
}

// paragraph puts a title before lines of text, and indents those that follow.
func paragraph(out io.Writer, title, text string) {
	lines := slices.DeleteFunc(strings.Split(text, "\n"), func(line string) bool { return line == "" })
	for i, line := range lines {
		if i > 0 {
			title = ""
		}
		_, _ = fmt.Fprintf(out, "%-11s %s\n", title, line)
	}
}

// plural counts things.
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
