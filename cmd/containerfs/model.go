package main

import (
	"log/slog"
	"slices"

	"containerfs/ops"
	"containerfs/tree"
	"containerfs/tree/hostproc"
)

// model is the tree as the host tells it of events, with what the event log
// wants to know of programs besides.
type model struct {
	*tree.Tree
	host     *hostproc.Host
	recorder *ops.Recorder
	rules    *ops.Classifier
	log      *slog.Logger
}

// Fork is hostproc.Model's. Programs of processes that were there before the
// server are looked up when they fork.
func (m model) Fork(e tree.ForkEvent) {
	if !m.Noted(e.ParentTGID) {
		m.note(e.ParentTGID, e.Time)
	}
	m.Tree.Fork(e)
	m.rules.Forked(m.Tree, e)
}

// Exec is hostproc.Model's.
func (m model) Exec(tgid int32) {
	m.note(tgid, m.host.Now())
	m.Tree.Exec(tgid)
}

// Executed is hostproc.ExecModel's.
func (m model) Executed(tgid int32, ts int64) { m.rules.Executed(m.Tree, tgid, ts) }

// SetID is hostproc.IDModel's.
func (m model) SetID(tid, tgid int32, group bool, real, effective uint32, ts int64) {
	m.note(tgid, m.host.Now())
	m.recorder.ChangedID(ts, tid, tgid, group, real, effective)
	m.rules.Changed(m.Tree, tid, ts)
}

func (m model) note(tgid int32, at int64) {
	if uid, exe, err := m.host.Program(tgid); err == nil {
		m.SetNote(tgid, &ops.Program{UID: uid, Exe: exe, At: at})
	}
}

// Resync is hostproc.Model's.
func (m model) Resync(lost uint64) {
	if lost > 0 {
		m.log.Warn("events of the host were lost: comparing all tasks", "lost", lost)
		m.View(func() { m.recorder.Lost(m.host.Now(), lost, slices.Collect(m.Hierarchies)) })
	}
	if err := m.Tree.Resync(); err != nil {
		m.log.Error("the tasks of the host could not be compared", "err", err)
	}
	m.rules.Lost()
}
