package main

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
)

// panel is one plot of a curve.
type panel struct {
	title, x, unit string
	points         []point
	// limit is a line across that the curve should stay below; zero is none.
	limit float64
}

type point struct{ x, y float64 }

// The size of a panel and of the margins around its curve, in pixels.
const (
	panelWidth, panelHeight = 380, 260
	left, right, top, foot  = 60, 20, 36, 46
	ticks                   = 5
)

// draw puts panels side by side, two in a row, into an SVG image.
func draw(panels []panel) []byte {
	var svg bytes.Buffer
	rows := (len(panels) + 1) / 2
	fmt.Fprintf(&svg, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", 2*panelWidth, rows*panelHeight)
	svg.WriteString(`<rect width="100%" height="100%" fill="white"/>` + "\n")
	for i, p := range panels {
		fmt.Fprintf(&svg, `<g transform="translate(%d %d)">`+"\n", i%2*panelWidth, i/2*panelHeight)
		p.draw(&svg)
		svg.WriteString("</g>\n")
	}
	svg.WriteString("</svg>\n")
	return svg.Bytes()
}

func (p *panel) draw(svg *bytes.Buffer) {
	highX, highY := 0.0, p.limit
	for _, at := range p.points {
		highX, highY = max(highX, at.x), max(highY, at.y)
	}
	stepX, stepY := step(highX), step(highY)
	highX, highY = math.Ceil(highX/stepX)*stepX, math.Ceil(highY/stepY)*stepY
	atX := func(x float64) float64 { return left + x/highX*(panelWidth-left-right) }
	atY := func(y float64) float64 { return panelHeight - foot - y/highY*(panelHeight-top-foot) }

	fmt.Fprintf(svg, `<text x="%d" y="20" font-weight="bold">%s</text>`+"\n", left, p.title)
	for y := 0.0; y <= highY+stepY/2; y += stepY {
		fmt.Fprintf(svg, `<path d="M%d %.1fH%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n",
			left, atY(y), panelWidth-right, left-6, atY(y)+4, number(y))
	}
	for x := 0.0; x <= highX+stepX/2; x += stepX {
		fmt.Fprintf(svg, `<path d="M%.1f %dv5" stroke="black"/><text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n",
			atX(x), panelHeight-foot, atX(x), panelHeight-foot+18, number(x))
	}
	fmt.Fprintf(svg, `<path d="M%d %dV%dH%d" fill="none" stroke="black"/>`+"\n", left, top, panelHeight-foot, panelWidth-right)
	fmt.Fprintf(svg, `<text x="%d" y="%d" text-anchor="middle">%s</text>`+"\n", (left+panelWidth-right)/2, panelHeight-8, p.x)
	fmt.Fprintf(svg, `<text transform="translate(14 %d) rotate(-90)" text-anchor="middle">%s</text>`+"\n", (top+panelHeight-foot)/2, p.unit)
	if p.limit > 0 {
		fmt.Fprintf(svg, `<path d="M%d %.1fH%d" stroke="#c00" stroke-dasharray="6 4"/>`+"\n", left, atY(p.limit), panelWidth-right)
	}
	var line bytes.Buffer
	for _, at := range p.points {
		fmt.Fprintf(&line, "%.1f,%.1f ", atX(at.x), atY(at.y))
		fmt.Fprintf(svg, `<circle cx="%.1f" cy="%.1f" r="3.5" fill="#06c"><title>%s %s: %s %s</title></circle>`+"\n",
			atX(at.x), atY(at.y), number(at.x), p.x, number(at.y), p.unit)
	}
	fmt.Fprintf(svg, `<polyline points="%s" fill="none" stroke="#06c" stroke-width="2"/>`+"\n", bytes.TrimSpace(line.Bytes()))
}

// step is a round distance between some five lines from 0 to high.
func step(high float64) float64 {
	if high <= 0 {
		return 1
	}
	magnitude := math.Pow(10, math.Floor(math.Log10(high/ticks)))
	for _, round := range []float64{1, 2, 5} {
		if high/(round*magnitude) <= ticks {
			return round * magnitude
		}
	}
	return 10 * magnitude
}

func number(v float64) string {
	if v >= 1000 {
		return fmt.Sprintf("%d,%03d", int(v)/1000, int(v)%1000)
	}
	return strconv.FormatFloat(math.Round(v*100)/100, 'f', -1, 64)
}
