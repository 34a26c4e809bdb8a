package main

import (
	"bytes"
	"fmt"
	"math"
)

// drawReplay draws a replay as SVG: time, bytes on a logarithmic scale, and the image's size, commit by commit.
func drawReplay(s summary) []byte {
	const (
		width, left, right = 900, 70, 20
		height, gap, top   = 160, 50, 60
	)
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", width, top+3*(height+gap))
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="white"/><text x="%d" y="20" font-size="15">%d commits, each published: p50 %.2f s, p95 %.2f s, %.1f MB in all</text>`+"\n",
		left, len(s.Commits), s.P50, s.P95, float64(s.Total)/1e6)
	colour := map[string]string{code: "#4269d0", translations: "#efb118", english: "#ff725c"}
	x := left
	for _, kind := range []string{code, translations, english} {
		fmt.Fprintf(&b, `<rect x="%d" y="30" width="10" height="10" fill="%s"/><text x="%d" y="39">%s</text>`+"\n", x, colour[kind], x+15, kind)
		x += 110
	}
	step := float64(width-left-right) / float64(len(s.Commits))
	// panel draws bars; of is a part of the panel's height.
	panel := func(n int, title string, ticks map[float64]string, of func(replayed) float64) {
		y0 := float64(top + n*(height+gap) + height)
		fmt.Fprintf(&b, `<text x="%d" y="%g">%s</text>`+"\n", left, y0-height-6, title)
		for at, label := range ticks {
			y := y0 - at*height
			fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n", left, width-right, y, y, left-6, y+4, label)
		}
		for i, r := range s.Commits {
			h := math.Max(0, of(r)) * height
			fmt.Fprintf(&b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`+"\n", float64(left)+float64(i)*step+1, y0-h, step-2, h, colour[r.Kind])
		}
	}
	most := 0.5
	size := 0.0
	for _, r := range s.Commits {
		most, size = math.Max(most, r.Wall), math.Max(size, float64(r.Size)/1e6)
	}
	seconds := map[float64]string{}
	for t := 0.0; t <= most; t += math.Ceil(most*2) / 8 {
		seconds[t/most] = fmt.Sprintf("%.2g s", t)
	}
	panel(0, "time from the commit to the digest in the registry", seconds, func(r replayed) float64 { return r.Wall / most })
	bytes := map[float64]string{0: "1 kB", 0.2: "10 kB", 0.4: "100 kB", 0.6: "1 MB", 0.8: "10 MB", 1: "100 MB"}
	panel(1, "pushed", bytes, func(r replayed) float64 { return math.Log10(math.Max(1e3, float64(r.Uploaded))/1e3) / 5 })
	layers := fmt.Sprintf("size of the image (its layers: %d to %d)", minLayers(s), maxLayers(s))
	panel(2, layers, map[float64]string{0: "0", 0.5: fmt.Sprintf("%.0f MB", size/2), 1: fmt.Sprintf("%.0f MB", size)}, func(r replayed) float64 { return float64(r.Size) / 1e6 / size })
	b.WriteString("</svg>\n")
	return b.Bytes()
}

func minLayers(s summary) int {
	n := math.MaxInt
	for _, r := range s.Commits {
		n = min(n, r.Layers)
	}
	return n
}

func maxLayers(s summary) (n int) {
	for _, r := range s.Commits {
		n = max(n, r.Layers)
	}
	return n
}
