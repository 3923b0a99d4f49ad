package tree

import (
	"fmt"
	"slices"
	"syscall"
)

// A Subsystem measures or limits tasks by the containers they are in. Register
// it by listing it in Config.Subsystems; its id is its place in that list.
//
// # Writing one
//
// Start from the interface: a name, a state per container, and a table of
// control files. subsys/debug is the smallest; tests/example_test.go has one of
// forty lines that is built outside of the module. Then add what it needs of the
// optional interfaces, one method each. A missing one is a successful no-op.
//
//   - CanMkdirer, CanAttacher: whether a container may be made, a task moved.
//   - PostCloner: prepares the state of a container that is made for tasks.
//   - Attacher, Reattacher: the effect on the host of a move.
//   - Forker, Mover, Exiter: who is where; together they keep a count.
//   - ForkTeller: forks that are told of late.
//   - Execer: programs that are executed.
//   - CanBinder, Binder: whether the subsystem may be bound to a hierarchy, and
//     that its root is another container now.
//   - ProcessMover: that what it does to a thread it does to the whole process.
//   - Saver: settings and history outlive the server.
//
// State. Create makes it, and Destroy is called for every state that was made,
// but for the root's. Each container costs its State and 16 bytes for the place
// where that is kept. A container's state is found with Container.State and the
// id of the subsystem, which Tree.SubsystemID has from the first Create on: that of the
// root state, before there are tasks. The root state moves with the subsystem from
// hierarchy to hierarchy, so what it has must not be of one Container.
//
// Locks. There are two (see the package). What is called under changeMu only may
// take its time with the host, and changes state that readers or callbacks see in
// Tree.Update. What is called with mu held must neither block nor call what takes
// a lock of the Tree, and may change state as it is. Nobody else may call
// Container.State without View, unless under changeMu: a remount takes it away.
// What has to wait for the host after a callback with mu held goes to a goroutine
// that the subsystem owns, bounded, with a Close that waits for it: subsys/backlog
// has one.
//
// Files. A row per file: the text in and out is the subsystem's own, with the
// rules of SPEC §4. A Write checks everything before it changes anything. What a
// Read needs of the host is got by Prepare. Errors are syscall.Errno or wrap one.
//
// Events. Publish tells that something is over a limit.
//
// The host. What a subsystem does to it goes through an interface of its own,
// injected by package subsys, so that tests run on a simulated one. What the host
// cannot do is said when the subsystem is made, and in the package's doc.
//
// Test it with the suite of subsys/subsystest, and with hostsim.
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

	// Prepare, if any, is called before Read, without locks, and may ask the
	// host for what Read then shows. The container may be gone, or the
	// subsystem be bound elsewhere, by the time it looks. Its error is the
	// read's.
	Prepare func(c *Container) error

	// Read appends the value to b. It is called with mu read-locked: it sees
	// the model and must not block. Nil: reading is EINVAL.
	Read func(c *Container, b []byte) ([]byte, error)

	// Write executes one command. It is called under changeMu without mu:
	// what it changes in the model, or in state that Read sees, it changes in
	// Tree.Update. On an error nothing may have changed. Nil: writing is
	// EINVAL.
	Write func(a *Actor, c *Container, data []byte) error

	// Instead is the base name of the file that is written to have another value in this
	// one, where that is not Write's to do. Who is refused is told.
	Instead string

	// Fetch, if any, takes the place of Prepare and Read for a value that only
	// the host has. It is called without locks, and the container may be gone
	// by the time it asks. Where there is Prepare, Fetch may do as much as that.
	Fetch func(c *Container) ([]byte, error)

	// Pass, if any, takes the place of Write for what the host may take its
	// time with. It is called without locks; until it returns the container
	// is pinned: rmdir is EBUSY. It must not change what the Tree shows.
	Pass func(a *Actor, c *Container, data []byte) error

	// Kills says that a write can end whatever is in the container and below: the front end
	// asks whether the caller may, process by process.
	Kills bool

	subsystem int // its id, set when that is registered
}

// Actor is who asked for a change, as far as a subsystem may depend on it. A nil Actor
// is nobody that is known.
type Actor struct {
	UID        uint32
	Privileged bool // SPEC §1
	Local      bool // on a unix socket
}

// ErrNotPrivileged is for what only privileged callers may do: EPERM.
var ErrNotPrivileged = fmt.Errorf("only root and the server's user may: %w", syscall.EPERM)

// CheckPrivileged is ErrNotPrivileged unless the actor is privileged.
func (a *Actor) CheckPrivileged() error {
	if a == nil || !a.Privileged {
		return ErrNotPrivileged
	}
	return nil
}

// CanMkdirer decides whether a container may be made.
type CanMkdirer interface {
	// CanMkdir is called under changeMu, after the front end's Allow and
	// before Create.
	CanMkdir(a *Actor, parent *Container) error
}

// PostCloner prepares a container that was made for tasks (see Tree.Clone and
// MkdirRequest.ForTasks), so that they can be attached to it.
type PostCloner interface {
	// PostClone is called under changeMu, when all states of c were created
	// and before it can be seen. On an error there will be no container.
	PostClone(c *Container) error
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

// Mover is told where tasks are, exactly: together with Forker and Exiter it is
// what a count of the tasks in a container is kept by.
type Mover interface {
	// Move is called with mu held when a task is in another container than
	// before: an attach was committed or undone, or the mirror had the task
	// elsewhere. It must not block.
	Move(task *Task, from, to *Container)
}

// Forker is told of new tasks.
type Forker interface {
	// Fork is called with mu held for a task that starts in the container c;
	// parent is nil when it is not known. Also called for every task found
	// when the Tree starts. It must not block.
	Fork(parent, child *Task, c *Container)
}

// ForkTeller is told of forks of tasks that a look at the host found before their events came:
// Fork was called for these when they were not Forked.
type ForkTeller interface {
	// ForkTold is called with mu held, once for a task, which is in c by now. It must not block.
	ForkTold(task *Task, c *Container)
}

// Execer is told of tasks that execute a program.
type Execer interface {
	// Exec is called with mu held. It must not block.
	Exec(task *Task, c *Container)
}

// Exiter is told of tasks that end.
type Exiter interface {
	// Exit is called with mu held while the task is still a member of c. It
	// must not block.
	Exit(task *Task, c *Container)
}

// ProcessMover is a subsystem whose effect is on whole processes only: the
// hierarchy that it is bound to moves no single thread of a process that has
// others, EOPNOTSUPP.
type ProcessMover interface {
	// WholeProcesses reports whether it is one. The answer never changes.
	WholeProcesses() bool
}

// CanBinder decides whether its subsystem may be bound to a hierarchy.
type CanBinder interface {
	// CanBind is called under changeMu before anything has changed; h is nil
	// for a hierarchy that is to be made. The error is mount's or remount's.
	CanBind(h *Hierarchy) error
}

// Binder is told when its subsystem moves between hierarchies.
type Binder interface {
	// Bind is called under changeMu; root is the root container that the
	// root state belongs to now.
	Bind(root *Container)
}

// Saver has settings or history that outlive the server (SPEC §19). What Write
// changes in the container that is written to is saved by itself; what it changes
// in others it says by Tree.Keep. What is measured is saved now and then.
type Saver interface {
	// Save appends what makes the state of c again; nothing if it is as Create
	// made it. It is called with mu held, and must not block.
	Save(c *Container, b []byte) []byte

	// Restore gives the state of c what Save had appended, as a whole: what is
	// not in it is as Create made it. It is called under changeMu, at the start,
	// before there are tasks and before c can be seen, parents first. And when a
	// write could not be kept, of a container with members: then the effects on
	// them follow, as after a write. An error is of what Save cannot have made.
	Restore(c *Container, saved []byte) error
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

	canMkdir  CanMkdirer // nil where it has none
	postClone PostCloner
	canAttach CanAttacher
	attach    Attacher
	reattach  Reattacher
	move      Mover
	fork      Forker
	told      ForkTeller
	exec      Execer
	exit      Exiter
	canBind   CanBinder
	bind      Binder
	save      Saver
	processes bool // a ProcessMover that says so

	// Where it is bound, and how often a remount did that; changed with both locks held.
	hierarchy *Hierarchy
	remounts  int
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
	r.canMkdir, _ = s.(CanMkdirer)
	r.postClone, _ = s.(PostCloner)
	r.canAttach, _ = s.(CanAttacher)
	r.attach, _ = s.(Attacher)
	r.reattach, _ = s.(Reattacher)
	r.move, _ = s.(Mover)
	r.fork, _ = s.(Forker)
	r.told, _ = s.(ForkTeller)
	r.exec, _ = s.(Execer)
	r.exit, _ = s.(Exiter)
	r.canBind, _ = s.(CanBinder)
	r.bind, _ = s.(Binder)
	r.save, _ = s.(Saver)
	if p, ok := s.(ProcessMover); ok {
		r.processes = p.WholeProcesses()
	}
	return r, nil
}
