package ops

import (
	"strconv"
	"sync"

	"containerfs/tree"
)

// DefaultEventLog is the size of the event log unless it is configured, in bytes.
const DefaultEventLog = 16 << 20

// Recorder is told of every change of the tree: it keeps the event logs (SPEC
// §18), counts what each user owns, and hands on releases. It is the
// tree.Observer that a FS needs. All methods may be called concurrently.
type Recorder struct {
	log   *eventLog
	limit int

	// owned counts containers by owner. Guarded by the tree's mu.
	owned map[uint32]int

	// Guarded by the tree's mu. ruler is who moves tasks by the rules.
	hands hands
	ruler *tree.Actor

	releases releaseQueue

	mu   sync.Mutex // guards line; a leaf
	line []byte     // where lines are put together
}

// NewRecorder makes a Recorder that keeps so many bytes of events, and as many
// of each hierarchy's.
func NewRecorder(limit int) *Recorder {
	return &Recorder{log: newEventLog(limit), limit: limit, owned: make(map[uint32]int), hands: make(hands)}
}

// Program is what is known of the program that a process runs: its note (see
// tree.SetNote). It is shared by processes and never changes.
type Program struct {
	UID uint32 // effective
	Exe string // "" when not known
	At  int64  // when there was an event of it, CLOCK_MONOTONIC, nanoseconds

	// What the Classifier's look at all processes has found, and an event does not say;
	// Name is "" when it has not looked. A script has its interpreter's Exe.
	GID  uint32 // effective
	Name string
}

// Changed is the note of a process of which a thread has changed an id. Its program has the same
// file; if its user has changed it has that effective one now.
func (p *Program) Changed(user bool, effective uint32, at int64) *Program {
	now := &Program{UID: p.UID, Exe: p.Exe, At: at}
	if user {
		now.UID = effective
	}
	return now
}

// same reports whether nothing has happened between two looks, the first of which may
// have been an event's.
func (p *Program) same(now *Program) bool {
	return p.UID == now.UID && p.Exe == now.Exe && (p.Name == "" || p.Name == now.Name && p.GID == now.GID)
}

// kinds are the words of the lines.
var kinds = [...]string{
	tree.Forked: "fork", tree.Execed: "exec", tree.Exited: "exit",
	tree.Attached: "attach", tree.Made: "mkdir", tree.Removed: "rmdir",
	tree.Renamed: "rename", tree.Mounted: "mount", tree.Remounted: "remount",
	tree.Unmounted: "umount", tree.Released: "release", tree.Limited: "limit",
}

// Observe is tree.Observer's.
func (r *Recorder) Observe(e tree.Event) {
	byRule := e.Actor != nil && e.Actor == r.ruler
	r.hands.observe(e, byRule)
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.begin(e.Time, kinds[e.Kind])
	var h *tree.Hierarchy
	switch e.Kind {
	case tree.Forked, tree.Execed, tree.Exited:
		l.task(e.Task)
		if e.Kind != tree.Exited {
			parent := e.Parent
			if parent == nil {
				parent = e.Task.Process().Parent()
			}
			if parent != nil {
				l.number("parent", int64(parent.TGID()))
			}
			l.program(e.Task.Process().Note())
		}
	case tree.Attached:
		h = e.Container.Hierarchy()
		l.task(e.Task)
		l.text("hierarchy", h.Name())
		l.path("from", e.From)
		l.path("to", e.Container)
		if byRule {
			l.text("by", "rules")
		}
	case tree.Mounted, tree.Remounted, tree.Unmounted:
		h = e.Hierarchy
		l.text("hierarchy", h.Name())
		l.text("options", showOptions(h))
	case tree.Made, tree.Removed, tree.Renamed, tree.Released, tree.Limited:
		h = e.Container.Hierarchy()
		l.text("hierarchy", h.Name())
		l.path("path", e.Container)
		switch e.Kind {
		case tree.Renamed:
			l.text("from", e.Name)
		case tree.Limited:
			l.text("over", e.Name)
		}
	}
	r.end(l, h)
	switch e.Kind {
	case tree.Made, tree.Removed, tree.Renamed:
		attrsOf(e.Container.Parent()).touch()
	}
	switch e.Kind {
	case tree.Made:
		r.owned[attrsOf(e.Container).dir.uid]++
	case tree.Removed:
		r.disown(attrsOf(e.Container).dir.uid)
	case tree.Released:
		r.releases.add(e.Container)
	}
}

func (r *Recorder) disown(uid uint32) {
	if r.owned[uid]--; r.owned[uid] == 0 {
		delete(r.owned, uid)
	}
}

// chown counts a container that changes hands. Hierarchies' roots are not counted.
// Update.
func (r *Recorder) chown(from, to uint32, root bool) {
	if !root {
		r.disown(from)
		r.owned[to]++
	}
}

// Lost records that events of the host were lost; n is 0 if nobody knows how many. The
// line belongs to all hierarchies. Times here are CLOCK_MONOTONIC's, in nanoseconds.
func (r *Recorder) Lost(now int64, n uint64, hierarchies []*tree.Hierarchy) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.begin(now, "lost")
	l.number("count", int64(n))
	r.end(l, nil)
	for _, h := range hierarchies {
		rootOf(h).log.append(r.line)
	}
}

// unclassified records that so many tasks were too many at once for the rules, and are
// looked for.
func (r *Recorder) unclassified(now int64, n uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.begin(now, "lost")
	l.number("count", int64(n))
	l.text("queue", "rules")
	r.end(l, nil)
}

// ChangedID records that a process has changed a user or group id.
func (r *Recorder) ChangedID(now int64, tid, tgid int32, group bool, real, effective uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.begin(now, "uid")
	l.number("pid", int64(tid))
	l.number("tgid", int64(tgid))
	what := [2]string{"ruid", "uid"}
	if group {
		what = [2]string{"rgid", "gid"}
	}
	l.number(what[0], int64(real))
	l.number(what[1], int64(effective))
	r.end(l, nil)
}

// begin begins a line, in the memory that all are put together in. Under mu, until end.
func (r *Recorder) begin(now int64, kind string) line {
	return line{append(append(strconv.AppendInt(r.line[:0], now, 10), ' '), kind...)}
}

// end appends a line to the log, and to that of the hierarchy that it is about.
func (r *Recorder) end(l line, h *tree.Hierarchy) {
	r.line = append(l.b, '\n')
	r.log.append(r.line)
	if h != nil {
		rootOf(h).log.append(r.line)
	}
}

// line is an event as text. Values that could be taken for something else are
// quoted, so that no name can forge a field or a line.
type line struct{ b []byte }

func (l *line) key(k string) { l.b = append(append(append(l.b, ' '), k...), '=') }

func (l *line) number(k string, v int64) {
	l.key(k)
	l.b = strconv.AppendInt(l.b, v, 10)
}

func (l *line) text(k, v string) {
	l.key(k)
	if plain(v) {
		l.b = append(l.b, v...)
	} else {
		l.b = strconv.AppendQuoteToASCII(l.b, v)
	}
}

// plain reports whether a value can stand without quotes.
func plain(v string) bool {
	for i := range len(v) {
		if c := v[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '=' {
			return false
		}
	}
	return v != ""
}

func (l *line) path(k string, c *tree.Container) { l.text(k, c.Path()) }

func (l *line) task(t *tree.Task) {
	l.number("pid", int64(t.TID()))
	l.number("tgid", int64(t.TGID()))
}

func (l *line) program(note any) {
	if p, ok := note.(*Program); ok {
		l.number("uid", int64(p.UID))
		if p.Exe != "" {
			l.text("exe", p.Exe)
		}
	}
}
