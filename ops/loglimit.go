package ops

import (
	"context"
	"log/slog"
)

// LogLimit is a slog.Handler for what no Audit bounds: of each message as many lines are
// written as of a peer's changes, since what a user does can be what they are about, or
// a host that is not as it should be. How many were left out is said. What is below
// slog.LevelInfo was asked for, and has no bound. It may be used concurrently.
type LogLimit struct {
	slog.Handler
	said *allowances[string] // by message; shared by all that With and WithGroup make
}

// NewLogLimit makes a LogLimit that has its lines written by h.
func NewLogLimit(h slog.Handler) *LogLimit { return &LogLimit{h, newAllowances[string]()} }

// Handle is slog.Handler's.
func (l *LogLimit) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelInfo {
		suppressed, ok := l.said.take(r.Message, "")
		if !ok {
			return nil
		}
		if suppressed > 0 {
			r = r.Clone()
			r.AddAttrs(slog.Int("left_out", suppressed))
		}
	}
	return l.Handler.Handle(ctx, r)
}

// WithAttrs is slog.Handler's.
func (l *LogLimit) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &LogLimit{l.Handler.WithAttrs(attrs), l.said}
}

// WithGroup is slog.Handler's.
func (l *LogLimit) WithGroup(name string) slog.Handler {
	return &LogLimit{l.Handler.WithGroup(name), l.said}
}

// Flush says what was left out and not said yet. It is to be called every second or so.
func (l *LogLimit) Flush() {
	for _, left := range l.said.flush() {
		slog.New(l.Handler).Warn("lines left out", "lines", left.lines, "message", left.key)
	}
}
