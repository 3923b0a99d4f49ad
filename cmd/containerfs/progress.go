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

// during does what has no steps, and says how long that has taken.
func (p *progress) during(do func() error) error {
	if p.out == nil {
		return do()
	}
	done, told := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(told)
		tick := time.NewTicker(progressAfter)
		defer tick.Stop()
		for {
			select {
			case <-done:
				p.end()
				return
			case <-tick.C:
				p.shown = true
				fmt.Fprintf(p.out, "\r\x1b[K%s: for %v", p.what, time.Since(p.from).Round(progressAfter))
			}
		}
	}()
	err := do()
	close(done)
	<-told
	return err
}

// end takes the line away, so that another can be written there.
func (p *progress) end() {
	if p.shown {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.shown = false
	}
}
