package tree

import (
	"slices"
	"syscall"
)

// A Subsystem measures or limits tasks by the containers they are in. Register
// it by listing it in Config.Subsystems; its id is its place in that list.
//
// A Subsystem may implement CanAttacher, Attacher, Reattacher, Forker, Exiter
// and Binder as well. A missing one is a successful no-op.
type Subsystem interface {
	// Name is what options and file prefixes call it: 1 to 32 bytes, unique.
	Name() string

	// Create makes the state for a container. It is called under changeMu,
	// before the container can be seen. The root state is made once, in New,
	// for a container without parent, and then moves with the subsystem.
	// The error is mkdir's.
	Create(c *Container) (State, error)

	// Destroy ends a state: of a container that is being removed, or of one
	// that was never finished because a later Create failed. Under changeMu.
	Destroy(c *Container, s State)

	// Files are the rows of its control files, in listing order. The result
	// must not change.
	Files() []File
}

// State is what a subsystem keeps for one container.
type State any

// File is the row of one control file of a subsystem.
type File struct {
	// Name is the base name, 1 to 63 bytes; the served name has the
	// subsystem's prefix unless the hierarchy is mounted noprefix.
	Name string

	// Read appends the value to b. It is called with mu read-locked: it sees
	// the model and must not block. Nil: reading is EINVAL.
	Read func(c *Container, b []byte) ([]byte, error)

	// Write executes one command. It is called under changeMu without mu:
	// what it changes in the model, or in state that Read sees, it changes in
	// Tree.Update. On an error nothing may have changed. Nil: writing is
	// EINVAL.
	Write func(a *Actor, c *Container, data []byte) error

	subsystem int // its id, set when that is registered
}

// Actor is who asked for a change, as far as a subsystem may depend on it.
type Actor struct {
	UID        uint32
	Privileged bool // SPEC §1
	Local      bool // on a unix socket
}

// CanAttacher decides whether a task may enter a container.
type CanAttacher interface {
	// CanAttach is called under changeMu and mu: it must not block, call the
	// Tree or change anything. Its answer must hold while changeMu is held.
	// Not called on fork.
	CanAttach(a *Actor, task *Task, from, to *Container) error
}

// Attacher has an effect on the host when a task has moved.
type Attacher interface {
	// Attach is called under changeMu, after the mirror has moved the task
	// and before the model shows it in the container to. When a later step of
	// the same move fails, undo is called, in reverse order; nil is nothing
	// to undo. Where Attach fails it has changed nothing. ESRCH says that the
	// task is gone.
	//
	// Children that were forked meanwhile and inherited the effect get Attach
	// too, or where the move is undone, Attach the other way.
	Attach(task *Task, from, to *Container) (undo func(), err error)
}

// Reattacher repeats its effect for a task that is attached to the container
// that it is in already, for which there is no other callback.
type Reattacher interface {
	// Reattach is called as Attach is.
	Reattach(task *Task, c *Container) error
}

// Forker is told of new tasks.
type Forker interface {
	// Fork is called with mu held for a task that starts in the container c;
	// parent is nil when it is not known. Also called for every task found
	// when the Tree starts. It must not block.
	Fork(parent, child *Task, c *Container)
}

// Exiter is told of tasks that end.
type Exiter interface {
	// Exit is called with mu held while the task is still a member of c. It
	// must not block.
	Exit(task *Task, c *Container)
}

// Binder is told when its subsystem moves between hierarchies.
type Binder interface {
	// Bind is called under changeMu; root is the root container that the
	// root state belongs to now.
	Bind(root *Container)
}

// Limits of names (SPEC §1).
const (
	MaxSubsystems    = 64
	maxSubsystemName = 32
	maxFileName      = 63
)

// registered is a Subsystem with what the Tree knows of it.
type registered struct {
	Subsystem
	id    int
	files []File

	canAttach CanAttacher // nil where it has none
	attach    Attacher
	reattach  Reattacher
	fork      Forker
	exit      Exiter
	bind      Binder

	// hierarchy is where it is bound; changed with both locks held.
	hierarchy *Hierarchy
}

func register(s Subsystem, id int) (*registered, error) {
	if n := len(s.Name()); n < 1 || n > maxSubsystemName {
		return nil, opError("register", s.Name(), syscall.EINVAL)
	}
	r := &registered{Subsystem: s, id: id, files: slices.Clone(s.Files())}
	for i := range r.files {
		f := &r.files[i]
		f.subsystem = id
		if len(f.Name) < 1 || len(f.Name) > maxFileName {
			return nil, opError("register", s.Name()+"."+f.Name, syscall.EINVAL)
		}
	}
	r.canAttach, _ = s.(CanAttacher)
	r.attach, _ = s.(Attacher)
	r.reattach, _ = s.(Reattacher)
	r.fork, _ = s.(Forker)
	r.exit, _ = s.(Exiter)
	r.bind, _ = s.(Binder)
	return r, nil
}
