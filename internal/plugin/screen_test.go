package plugin

import (
	"bytes"
	"testing"
)

func TestScreenDrawsOverTheLastPicture(t *testing.T) {
	const wipe = "\x1b[J"
	var out bytes.Buffer
	s := &screen{out: &out}
	for _, tc := range []struct {
		name, picture string
		width, height int
		want          string
	}{
		{"the first picture goes back to nothing", "one\ntwo\n", 80, 24, wipe + "one\ntwo\n"},
		{"another goes over the one before", "one\ntwo\nthree\n", 80, 24, "\x1b[2A" + wipe + "one\ntwo\nthree\n"},
		{"lines that would be wrapped are cut", "#####.\nüüüüü.\n", 5, 24, "\x1b[3A" + wipe + "#####\nüüüüü\n"},
		{"lines that would be scrolled away are left out", "1\n2\n3\n4\n", 80, 4, "\x1b[2A" + wipe + "1\n2\n3\n"},
		{"it goes back as far as was drawn", "1\n", 80, 4, "\x1b[3A" + wipe + "1\n"},
	} {
		out.Reset()
		if s.draw(tc.picture, tc.width, tc.height); out.String() != tc.want {
			t.Errorf("%s: wrote %q, want %q", tc.name, out.String(), tc.want)
		}
	}
}

func TestScreenWritesNewLinesWhereThereIsNoTerminal(t *testing.T) {
	var out bytes.Buffer
	s := newScreen(&out)
	s.show("a picture", []string{"logs: 1/4", "mesh: 2/4"})
	s.show("a picture", []string{"logs: 2/4", "mesh: 2/4"})
	if want := "logs: 1/4\nmesh: 2/4\nlogs: 2/4\n"; out.String() != want {
		t.Errorf("wrote %q, want %q", out.String(), want)
	}
}
