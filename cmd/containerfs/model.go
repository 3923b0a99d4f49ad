package main

import (
	"log/slog"

	"containerfs/tree"
	"containerfs/tree/hostproc"
)

// model hands the events of the host to the tree.
type model struct {
	*tree.Tree
	host *hostproc.Host
	log  *slog.Logger
}

func (m model) Fork(parentTID, parentTGID, tid, tgid int32, ts int64) {
	m.Tree.Fork(tree.ForkEvent{
		ParentTID: parentTID, ParentTGID: parentTGID, TID: tid, TGID: tgid,
		Time: ts, StartMax: m.host.TicksAt(ts),
	})
}

func (m model) Exec(tgid int32, _ int64) { m.Tree.Exec(tgid) }

func (m model) Exit(tid, _ int32, _ int64) { m.Tree.Exit(tid) }

func (m model) Resync(lost uint64) {
	if lost > 0 {
		m.log.Warn("events of the host were lost: comparing all tasks", "lost", lost)
	}
	if err := m.Tree.Resync(); err != nil {
		m.log.Error("the tasks of the host could not be compared", "err", err)
	}
}
