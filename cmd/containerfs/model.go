package main

import (
	"log/slog"
	"slices"
	"sync/atomic"

	"containerfs/ops"
	"containerfs/ops/rules"
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
	behind   *atomic.Bool // a comparison failed and is to be made again
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

// Executed is hostproc.ExecModel's. What the note is made of is also what the rules go by.
func (m model) Executed(tgid int32, ts int64) {
	seen := m.note(tgid, m.host.Now())
	m.Tree.Exec(tgid)
	m.rules.Executed(m.Tree, tgid, seen, ts)
}

// SetID is hostproc.IDModel's.
func (m model) SetID(tid, tgid int32, group bool, real, effective uint32, ts int64) {
	// A process can do this a hundred thousand times a second: nobody looks at it where that is
	// not needed, or all that comes later would wait.
	now := m.host.Now()
	if !m.ChangeNote(tgid, func(note any) any { return note.(*ops.Program).Changed(tid == tgid && !group, effective, now) }) {
		m.note(tgid, now)
	}
	m.recorder.ChangedID(ts, tid, tgid, group, real, effective)
	m.rules.Changed(m.Tree, tid, ts)
}

// note notes the program of a process, and returns all that was seen of it; nil when
// the process is gone.
func (m model) note(tgid int32, at int64) *rules.Subject {
	id, err := m.host.Identity(tgid)
	if err != nil {
		return nil
	}
	m.SetNote(tgid, &ops.Program{UID: id.UID, Exe: id.Exe, At: at})
	s := subjectOf(tgid, id)
	return &s
}

// Resync is hostproc.Model's.
func (m model) Resync(lost uint64) {
	if lost > 0 {
		m.log.Warn("events of the host were lost: comparing all tasks", "lost", lost)
		m.View(func() { m.recorder.Lost(m.host.Now(), lost, slices.Collect(m.Hierarchies)) })
	}
	if err := m.Tree.Resync(); err != nil {
		m.log.Error("the tasks of the host could not be compared: it is tried again", "err", err)
		m.behind.Store(true)
	}
	m.rules.Lost()
}
