package plugin

import (
	"cmp"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/term"
)

// screen shows a picture over the last one on a terminal; elsewhere it writes the lines that are new.
type screen struct {
	out io.Writer
	// file is the terminal; nil where there is none.
	file  *os.File
	drawn int
	last  []string
}

func newScreen(out io.Writer) *screen {
	s := &screen{out: out}
	if file, ok := out.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		s.file = file
	}
	return s
}

func (s *screen) show(picture string, lines []string) {
	if s.file == nil {
		for _, line := range lines {
			if !slices.Contains(s.last, line) {
				say(s.out, "%s\n", line)
			}
		}
		s.last = lines
		return
	}
	width, height, err := term.GetSize(int(s.file.Fd()))
	if err != nil || width < 1 || height < 2 { // some terminals have no size
		width, height = 80, 24
	}
	s.draw(picture, width, height)
}

// draw goes back to the beginning of the last picture. Lines that a terminal would wrap, and those that it
// would scroll away, are cut: otherwise nobody knew how far back that is.
func (s *screen) draw(picture string, width, height int) {
	rows := strings.Split(strings.TrimRight(picture, "\n"), "\n")
	rows = rows[:min(len(rows), height-1)]
	var text strings.Builder
	if s.drawn > 0 {
		text.WriteString("\x1b[" + strconv.Itoa(s.drawn) + "A")
	}
	text.WriteString("\x1b[J")
	for _, row := range rows {
		runes := []rune(row)
		text.WriteString(string(runes[:min(len(runes), width)]) + "\n")
	}
	s.drawn = len(rows)
	say(s.out, "%s", text.String())
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
