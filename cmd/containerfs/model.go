package main

import (
	"log/slog"

	"containerfs/tree"
)

// model is the tree as the host tells it of events.
type model struct {
	*tree.Tree
	log *slog.Logger
}

func (m model) Resync(lost uint64) {
	if lost > 0 {
		m.log.Warn("events of the host were lost: comparing all tasks", "lost", lost)
	}
	if err := m.Tree.Resync(); err != nil {
		m.log.Error("the tasks of the host could not be compared", "err", err)
	}
}
