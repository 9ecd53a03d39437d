package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestAPlotIsXMLWithAllPoints(t *testing.T) {
	costs := []cost{{1000, 10, 1.5, 5, 70}, {10_000, 100, 1.5, 40, 140}}
	svg := string(draw(panels(costs)))
	decoder := xml.NewDecoder(strings.NewReader(svg))
	for {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
	}
	for _, want := range []string{">10,000 pods: 40 CPU ms<", ">1,000 pods: 70 MiB<", ">pods</text>", ">CPU s</text>", `stroke-dasharray`} {
		if !strings.Contains(svg, want) {
			t.Errorf("no %s in\n%s", want, svg)
		}
	}
}

func TestStep(t *testing.T) {
	for high, want := range map[float64]float64{10_000: 2000, 150: 50, 50: 10, 1.9: 0.5, 0.7: 0.2, 0: 1} {
		if got := step(high); got != want {
			t.Errorf("step(%g) = %g, want %g", high, got, want)
		}
	}
}
