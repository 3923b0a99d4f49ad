package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// logOutput is where the log goes, for a server that waits for nobody to take it: a
// reader that stands still would have it stand still as well, whatever locks it has.
// What is not taken soon is lost, and how much that was is said afterwards.
type logOutput struct {
	file *os.File
	json bool

	mu   sync.Mutex
	lost int // lines
}

// takenWithin is how long somebody may take to make room for a line, the first that
// there is none for.
const takenWithin = time.Second / 2

// newLogOutput is w itself if that is no file.
func newLogOutput(w io.Writer, json bool) io.Writer {
	if f, ok := w.(*os.File); ok {
		return &logOutput{file: f, json: json}
	}
	return w
}

// Write is io.Writer's. A line is written at once.
func (o *logOutput) Write(line []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	wait := takenWithin
	if o.lost > 0 {
		wait = 0
	}
	if !o.hasRoom(wait) {
		o.lost++
		return len(line), nil
	}
	if o.lost > 0 {
		log, _ := newLogger(o.file, serviceOptions{LogJSON: o.json})
		log.LogAttrs(context.Background(), slog.LevelWarn, "lines of the log were lost: nobody took them", slog.Int("lines", o.lost))
		if o.lost = 0; !o.hasRoom(0) {
			o.lost++
			return len(line), nil
		}
	}
	return o.file.Write(line)
}

// hasRoom reports whether a line can be written without a wait, or cannot at all.
func (o *logOutput) hasRoom(wait time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(o.file.Fd()), Events: unix.POLLOUT}}
	for end := time.Now().Add(wait); ; {
		n, err := unix.Poll(fds, int(max(time.Until(end), 0)/time.Millisecond))
		if err != unix.EINTR {
			return n != 0 // an error is the write's to tell
		}
	}
}
