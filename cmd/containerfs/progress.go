package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"containerfs/cmd/containerfs/internal/terminal"
)

// progress says on a terminal how far something is that takes longer than a second.
type progress struct {
	out   *os.File // nil: says nothing
	what  string
	from  time.Time
	said  time.Time
	shown bool
}

// Times of progress.
const (
	progressAfter = time.Second
	progressEvery = 100 * time.Millisecond
)

func newProgress(stderr io.Writer, what string) *progress {
	p := &progress{what: what, from: time.Now()}
	if f, ok := terminal.Is(stderr); ok {
		p.out = f
	}
	return p
}

// step says that done of all have been done.
func (p *progress) step(done, all int) {
	now := time.Now()
	if p.out == nil || now.Sub(p.from) < progressAfter || now.Sub(p.said) < progressEvery {
		return
	}
	p.said, p.shown = now, true
	fmt.Fprintf(p.out, "\r\x1b[K%s: %d of %d", p.what, done, all)
}

// end takes the line away, so that another can be written there.
func (p *progress) end() {
	if p.shown {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.shown = false
	}
}
