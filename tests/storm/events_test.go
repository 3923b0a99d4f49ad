package storm

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"containerfs/tree"
)

// events is the host's Model: the tree, and a record of what it was told of
// late.
type events struct {
	*tree.Tree
	world *world

	silent  atomic.Bool // nothing is recorded: for measurements
	forks   atomic.Uint64
	lost    atomic.Uint64
	doubts  atomic.Uint64          // forks that were looked up in the mirror
	current atomic.Int32           // the child in hand
	answer  atomic.Pointer[string] // of the mirror, about it
	took    atomic.Int64           // the last resync, nanoseconds

	mu   sync.Mutex
	ring [1 << 15]entry
	next int
}

type entry struct {
	what string
	id   int32 // tid, of exec tgid
	fork tree.ForkEvent
	then string // what became of it
}

func (e *events) note(n entry) {
	if e.silent.Load() {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ring[e.next%len(e.ring)] = n
	e.next++
}

func (e *events) Fork(f tree.ForkEvent) {
	e.forks.Add(1)
	e.current.Store(f.TID)
	e.answer.Store(nil)
	e.Tree.Fork(f)
	e.current.Store(0)
	if e.silent.Load() {
		return
	}
	then := "deferred"
	if p, _, ok := e.world.place(f.TID); ok {
		then = p.String()
	}
	if a := e.answer.Load(); a != nil {
		then += ", mirror: " + *a
	}
	e.note(entry{what: "fork", id: f.TID, fork: f, then: then})
}

func (e *events) Exec(tgid int32) {
	e.note(entry{what: "exec", id: tgid})
	e.Tree.Exec(tgid)
}

func (e *events) Exit(tid int32) {
	e.note(entry{what: "exit", id: tid})
	e.Tree.Exit(tid)
}

func (e *events) Resync(lost uint64) {
	e.lost.Add(lost)
	e.note(entry{what: "resync"})
	defer func(began time.Time) { e.took.Store(int64(time.Since(began))) }(time.Now())
	if err := e.Tree.Resync(); err != nil {
		e.world.t.Error(err)
	}
}

// about returns what was told of late of some tasks and of their children.
func (e *events) about(ids ...int32) (lines []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := max(0, e.next-len(e.ring)); i < e.next; i++ {
		n := &e.ring[i%len(e.ring)]
		f := n.fork
		switch {
		case n.what == "resync":
			lines = append(lines, "resync")
		case n.what == "fork" && (slices.Contains(ids, f.ParentTGID) || slices.Contains(ids, f.TID) || slices.Contains(ids, f.TGID)):
			lines = append(lines, fmt.Sprintf("fork %d/%d of %d/%d at %d: %s", f.TID, f.TGID, f.ParentTID, f.ParentTGID, f.Time, n.then))
		case n.what != "fork" && slices.Contains(ids, n.id):
			lines = append(lines, fmt.Sprint(n.what, " ", n.id))
		}
	}
	return lines
}

// doubted counts how often a fork is looked up.
type doubted struct {
	tree.Mirror
	events *events
}

func (d doubted) Where(tid int32) (uint64, error) {
	group, err := d.Mirror.Where(tid)
	if tid == d.events.current.Load() {
		d.events.doubts.Add(1)
		answer := fmt.Sprint(group, " ", err)
		d.events.answer.Store(&answer)
	}
	return group, err
}
