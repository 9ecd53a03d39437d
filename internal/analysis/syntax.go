package analysis

import (
	"fmt"
	"strings"
)

// checkSyntax finds what no dialect of PromQL allows: brackets and quotes that don't match,
// and variables of dashboards. The rest is left to the server, because servers differ: the
// parser of one Prometheus refuses what a newer one, Thanos or VictoriaMetrics understand.
func checkSyntax(query string) error {
	var open []int
	for i := 0; i < len(query); i++ {
		switch c := query[i]; c {
		case '"', '\'', '`':
			end := stringEnd(query, i)
			if end < 0 {
				return fmt.Errorf("the string that begins with %s is never closed: write %c at its end", near(query, i), c)
			}
			i = end
		case '#':
			i = lineEnd(query, i)
		case '$':
			return fmt.Errorf("%s is a dashboard's variable: write what it stands for, like 5m", near(query, i))
		case '(', '[', '{':
			open = append(open, i)
		case ')', ']', '}':
			if !closes(query, open, i) {
				return fmt.Errorf("the %s closes nothing: remove it, or open it before", near(query, i))
			}
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		last := open[len(open)-1]
		return fmt.Errorf("%s is never closed: write %c at its end", near(query, last), closing(query[last]))
	}
	return nil
}

// closes says whether the bracket at i closes the last of the open ones.
func closes(query string, open []int, i int) bool {
	return len(open) > 0 && closing(query[open[len(open)-1]]) == query[i]
}

func closing(bracket byte) byte {
	return map[byte]byte{'(': ')', '[': ']', '{': '}'}[bracket]
}

// stringEnd is where the string that begins at i has its closing quote; -1 where it has none.
// Only a string in backquotes spans lines, and it knows no escapes.
func stringEnd(query string, i int) int {
	quote := query[i]
	for i++; i < len(query); i++ {
		switch c := query[i]; {
		case c == quote:
			return i
		case quote == '`':
		case c == '\\':
			i++
		case c == '\n':
			return -1
		}
	}
	return -1
}

func lineEnd(query string, i int) int {
	if n := strings.IndexByte(query[i:], '\n'); n >= 0 {
		return i + n
	}
	return len(query)
}

// near shows where in the query something is.
func near(query string, i int) string {
	return fmt.Sprintf("%q (character %d)", shorten(query[i:], 24), i+1)
}
