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

	Task   *Task    // Forked, which a look can have found before; Execed, Exited, Attached
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
