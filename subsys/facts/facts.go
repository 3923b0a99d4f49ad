// Package facts keeps what a subsystem says at start of what the host allows of it.
package facts

import (
	"context"
	"log/slog"
)

// A Log says facts to a logger and keeps them. Nothing is said any more when it is read.
type Log struct {
	log *slog.Logger
	all []string
}

// To makes a Log.
func To(log *slog.Logger) Log { return Log{log: log} }

// Say says one.
func (l *Log) Say(level slog.Level, fact string) {
	l.all = append(l.all, fact)
	l.log.Log(context.Background(), level, fact)
}

// All are those that were said.
func (l *Log) All() []string { return l.all }
