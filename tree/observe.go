package tree

// Kind is what an Event tells of.
type Kind uint8

// The kinds of events (SPEC §18).
const (
	Forked Kind = iota
	Execed
	Exited
	Attached
	Made
	Removed
	Renamed
	Mounted
	Remounted
	Unmounted
	Released
	Limited
)

// Event is one change of the model.
type Event struct {
	Kind Kind
	Time int64 // CLOCK_MONOTONIC, nanoseconds

	Task   *Task    // Forked, Execed, Exited, Attached
	Parent *Process // Forked: who is named as the forker, nil if not known

	Hierarchy *Hierarchy // Mounted, Remounted, Unmounted
	Container *Container // Made, Removed, Renamed, Released, Limited; Attached: where to
	From      *Container // Attached
	Actor     *Actor     // Attached: who asked for it; nil if nobody did
	Name      string     // Renamed: the former name; Limited: see Publish
}

// Observer is told of every change of the model, in order. Observe is called
// with mu held: what it asks of the model is as the change has left it, and it
// must not block.
type Observer interface{ Observe(Event) }

func (t *Tree) observeLocked(e Event) {
	if t.observer == nil {
		return
	}
	if e.Time == 0 {
		e.Time = t.host.Now()
	}
	t.observer.Observe(e)
}

// Publish tells that something in c has gone over a limit: what is the limit's
// name, as its control file's without noprefix. With mu held, as in Update and in
// the callbacks that say so.
func (t *Tree) Publish(c *Container, what string) {
	t.observeLocked(Event{Kind: Limited, Container: c, Name: what})
}

// SetNote gives a process a note, which the processes that it forks from then on
// share: what the front end knows of the program that it runs. It is nil until
// it is set for the process or an ancestor.
func (t *Tree) SetNote(tgid int32, note any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.procs[tgid]; p != nil {
		p.note = note
	}
}

// ReplaceNote gives a process a note in the place of another one, and reports
// whether that was what it had.
func (t *Tree) ReplaceNote(p *Process, old, note any) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.note != old {
		return false
	}
	p.note = note
	return true
}

// Process is the task's process.
func (t *Task) Process() *Process { return t.proc }

// TGID is the number of the process.
func (p *Process) TGID() int32 { return p.tgid }

// NumThreads is how many live threads it has. View.
func (p *Process) NumThreads() int { return int(p.nthreads) }

// Thread is a live thread of it, nil when it has ended. View.
func (p *Process) Thread() *Task { return p.threads }

// Note is what SetNote gave. View.
func (p *Process) Note() any { return p.note }

// Noted reports whether a process needs no note: it has one, or is not known.
func (t *Tree) Noted(tgid int32) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	p := t.procs[tgid]
	return p == nil || p.note != nil
}

// Parent is the process that forked it, or the nearest ancestor that lives; nil
// when none is known. The kernel may have given it another. View.
func (p *Process) Parent() *Process {
	a := p.parent
	for a != nil && a.nthreads == 0 {
		a = a.parent
	}
	return a
}
