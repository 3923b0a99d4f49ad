package tree

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
)

// Config is what a Tree is made of.
type Config struct {
	Host       Host
	Mirror     Mirror // nil without one
	Subsystems []Subsystem
	Observer   Observer     // nil without
	Keeper     Keeper       // nil without
	Log        *slog.Logger // nil: slog.Default

	// Prompt reports whether Host.Drain and Mirror.Move take microseconds, for
	// AttachRequest.NoWait. Nil: they do not.
	Prompt func() bool

	// MaxContainers bounds the containers of all hierarchies together; 0 is
	// no bound.
	MaxContainers int

	// CloneData makes what a container that Clone made carries for the front
	// end. Nil: nothing.
	CloneData func(parent *Container) any
}

// Tree is the model of one host. All methods may be called concurrently.
type Tree struct {
	host    Host
	glancer Glancer // host, if it is one
	mirror  Mirror
	prompt  func() bool // nil: never
	log     *slog.Logger

	observer      Observer
	keeper        Keeper
	maxContainers int
	cloneData     func(parent *Container) any

	subsystems []*registered // in order of registration, immutable
	def        *Hierarchy    // the default hierarchy

	changeMu changeLock
	nextID   uint64 // of containers; guarded by changeMu
	nextHier uint64 // of hierarchies, 0 being the default one's; guarded by changeMu

	mu          sync.RWMutex
	hierarchies []*Hierarchy // active, oldest first
	groups      groupTable
	tasks       map[int32]*Task
	procs       map[int32]*Process
	// owed has the tids of tasks that were found gone before their exit
	// events came, and what is to come of them. They may be in use again.
	owed       map[int32]*debt
	moving     *move // the attach under way, if any
	strayed    bool  // a task was seen in a directory of the mirror that is nobody's
	containers int   // all but the default root, in all hierarchies
	settled    bool  // the first Resync is over
	// places are where tasks were before the server was started again; they are
	// used by the first Resync only.
	places map[int32]Place
	// unreleased are the containers of which an earlier server has not done a release; they
	// are for the end of the first Resync.
	unreleased []*Container
}

// New makes a Tree without tasks: the host's are found by the first Resync.
func New(cfg Config) (*Tree, error) {
	t := &Tree{
		host:          cfg.Host,
		mirror:        cfg.Mirror,
		prompt:        cfg.Prompt,
		log:           cfg.Log,
		observer:      cfg.Observer,
		keeper:        cfg.Keeper,
		maxContainers: cfg.MaxContainers,
		cloneData:     cfg.CloneData,
		tasks:         make(map[int32]*Task),
		procs:         make(map[int32]*Process),
		owed:          make(map[int32]*debt),
		nextHier:      1,
	}
	t.glancer, _ = cfg.Host.(Glancer)
	if t.log == nil {
		t.log = slog.Default()
	}
	t.groups.init()
	if len(cfg.Subsystems) > MaxSubsystems {
		return nil, opError("register", "subsystems", syscall.E2BIG)
	}
	seen := make(map[string]bool)
	for i, s := range cfg.Subsystems {
		r, err := register(s, i)
		if err != nil {
			return nil, err
		}
		if seen[s.Name()] {
			return nil, opError("register", s.Name(), syscall.EEXIST)
		}
		seen[s.Name()] = true
		t.subsystems = append(t.subsystems, r)
	}

	t.def = newHierarchy(t, 0, t.newID(), "", false)
	for _, r := range t.subsystems {
		s, err := r.Create(t.def.root)
		if err != nil {
			return nil, fmt.Errorf("root state of %s: %w", r.Name(), err)
		}
		r.hierarchy = t.def
		t.def.bind(r, s)
	}
	return t, nil
}

// View runs f with the model read-locked. f must not block.
func (t *Tree) View(f func()) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	f()
}

// Update runs f with the model locked. f must not block. What the Tree keeps is
// changed only inside a change, by who holds changeMu. State that only the
// subsystem changes, it may change without.
func (t *Tree) Update(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f()
}

// Drain waits until the model knows every fork, exec and exit that happened
// before the call.
func (t *Tree) Drain() { t.host.Drain() }

// OpError says what failed on what. Err is a syscall.Errno, or wraps one.
type OpError struct {
	Op   string
	Name string
	Err  error
}

func (e *OpError) Error() string { return e.Op + " " + e.Name + ": " + e.Err.Error() }

// Unwrap gives the errno to errors.Is and errors.As.
func (e *OpError) Unwrap() error { return e.Err }

func opError(op, name string, err error) error { return &OpError{op, name, err} }

// errnoOf is the errno in an error that came from the host; EIO when it has
// none.
func errnoOf(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return syscall.EIO
}
