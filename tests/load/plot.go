package main

import (
	"bytes"
	"fmt"
)

// draw is the plot, as SVG: of each row under each load over TCP, how many times as
// fast as diod containerfs is. A figure this simple needs no library.
func (b *book) draw() []byte {
	const (
		left, top  = 90, 40
		barHeight  = 9
		rowHeight  = 3*barHeight + 10
		width      = 620
		perRatio   = 45 // points
		lastTick   = 11
		legendStep = 120
	)
	colours := map[load]string{{1, 1}: "#9ab", {1, 32}: "#469", {8, 8}: "#124"}
	var tables []*loadTable
	for i := range b.loadTables {
		if t := &b.loadTables[i]; t.network == "tcp" && t.part == peers {
			tables = append(tables, t)
		}
	}
	var out bytes.Buffer
	if len(tables) == 0 {
		return nil
	}
	height := top + len(tables[0].rows)*rowHeight + 40
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11">`+"\n", width, height)
	fmt.Fprintf(&out, `<rect width="100%%" height="100%%" fill="white"/>`+"\n")
	fmt.Fprintf(&out, `<text x="%d" y="14">operations per second, as a multiple of diod's (TCP)</text>`+"\n", left)
	for tick := 0; tick <= lastTick; tick++ {
		x := left + tick*perRatio
		colour := "#ddd"
		if tick == 1 {
			colour = "#c00"
		}
		fmt.Fprintf(&out, `<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="%s"/><text x="%d" y="%d" text-anchor="middle">%d</text>`+"\n",
			x, top-5, x, height-40, colour, x, height-26, tick)
	}
	for n, t := range tables {
		fmt.Fprintf(&out, `<rect x="%d" y="%d" width="10" height="9" fill="%s"/><text x="%d" y="%d">%v</text>`+"\n",
			left+n*legendStep, 20, colours[t.load], left+14+n*legendStep, 29, t.load)
		for i, r := range t.rows {
			y := top + i*rowHeight
			if n == 0 {
				fmt.Fprintf(&out, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", left-6, y+2*barHeight, r.short)
			}
			ratio := b.median(t, r, "containerfs").rate / b.median(t, r, "diod").rate
			long := min(ratio, lastTick+0.3) * perRatio
			fmt.Fprintf(&out, `<rect x="%d" y="%d" width="%.0f" height="%d" fill="%s"/><text x="%.0f" y="%d" font-size="8">%.1f</text>`+"\n",
				left, y+n*barHeight, long, barHeight-1, colours[t.load], left+long+3, y+n*barHeight+7, ratio)
		}
	}
	fmt.Fprintf(&out, `<text x="%d" y="%d">more is better; 1 is diod</text>`+"\n</svg>\n", left, height-8)
	return out.Bytes()
}
