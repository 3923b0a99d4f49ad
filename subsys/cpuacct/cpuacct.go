package cpuacct

import (
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"containerfs/subsys/facts"
	"containerfs/tree"
)

// Times is CPU time in nanoseconds.
type Times struct {
	Run          uint64 // exact
	User, System uint64 // by ticks: only their ratio counts
}

func (t *Times) add(d Times) {
	t.Run += d.Run
	t.User += d.User
	t.System += d.System
}

// since is what was added to old to get t. Nothing runs backwards.
func (t Times) since(old Times) Times {
	diff := func(a, b uint64) uint64 { return a - min(a, b) }
	return Times{diff(t.Run, old.Run), diff(t.User, old.User), diff(t.System, old.System)}
}

// atLeast is the later one of two readings.
func (t Times) atLeast(o Times) Times {
	return Times{max(t.Run, o.Run), max(t.User, o.User), max(t.System, o.System)}
}

// state is what a container has, guarded by Subsystem.mu. There may be a million
// of them: 64 bytes.
type state struct {
	parent *state
	total  Times // since it was reset

	// Run time of the interval with that number, and of the one before it.
	current, last uint64
	interval      uint32

	shown *shown // nil until stat is read
}

// shown is what stat has told, which must not go back.
type shown struct{ user, system uint64 }

// roll makes n the current interval.
func (st *state) roll(n uint32) {
	switch {
	case st.interval == n:
		return
	case st.interval == n-1:
		st.last = st.current
	default:
		st.last = 0
	}
	st.current, st.interval = 0, n
}

// Subsystem is the cpuacct subsystem of one Tree.
type Subsystem struct {
	host  Host
	log   *slog.Logger
	files []tree.File
	facts facts.Log

	// Set once, in the Create of the root state.
	tree *tree.Tree
	id   int
	root *state

	stop func() // ends the finals; nil without. Guarded by changeMu.

	memory     *tree.Memory // of how far tasks are credited, by tid; see Remember
	forgetting sync.Mutex   // held while what an earlier server kept is removed, before mu
	forgot     atomic.Bool  // it is removed

	// since is the clock tick at which it was bound, 0 while it is not.
	since atomic.Uint64

	mu        sync.Mutex
	interval  uint32
	bound     time.Duration // when it began to count
	began     time.Duration // the current interval
	length    time.Duration // of the last one, 0 before there is one
	tracks    map[*tree.Task]track
	unread    []*tree.Task // those in tracks that have a past and were not read since it began
	watching  bool         // finals come
	dying     map[int32][]dying
	unclaimed map[int32][]final
	settled   chan struct{} // closed when dying got shorter
	lost      losses
}

// New makes the subsystem and logs what the host does for it.
func New(host Host, log *slog.Logger) *Subsystem {
	s := &Subsystem{
		host:    host,
		log:     log.With("subsystem", "cpuacct"),
		settled: make(chan struct{}),
	}
	s.facts = facts.To(s.log)
	s.files = []tree.File{
		{Name: "usage", Prepare: s.preparer(false), Read: s.show(appendUsage), Write: s.reset},
		{Name: "stat", Prepare: s.preparer(true), Read: s.show(appendStat)},
		{Name: "load", Read: s.show(appendLoad)},
	}
	source, refusals := host.Probe()
	for _, refusal := range refusals {
		s.facts.Say(slog.LevelWarn, refusal)
	}
	s.facts.Say(slog.LevelInfo, "the CPU time of tasks that end is known from "+source)
	return s
}

// Facts are what the host allows of it, as was said at start.
func (s *Subsystem) Facts() []string { return s.facts.All() }

// Name is tree.Subsystem's.
func (s *Subsystem) Name() string { return "cpuacct" }

// Files is tree.Subsystem's.
func (s *Subsystem) Files() []tree.File { return s.files }

// Create is tree.Subsystem's.
func (s *Subsystem) Create(c *tree.Container) (tree.State, error) {
	if !c.IsRoot() {
		return &state{parent: s.state(c.Parent())}, nil
	}
	s.tree = c.Tree()
	s.id = s.tree.SubsystemID(s.Name())
	s.root = new(state)
	return s.root, nil
}

// Destroy is tree.Subsystem's. What the container has counted is in those above
// as well, and what is still to come of it will be.
func (s *Subsystem) Destroy(*tree.Container, tree.State) {}

func (s *Subsystem) state(c *tree.Container) *state { return c.State(s.id).(*state) }

// creditLocked counts what a task ran in a container.
func (s *Subsystem) creditLocked(st *state, d Times) {
	if d == (Times{}) {
		return
	}
	for ; st != nil; st = st.parent {
		st.total.add(d)
		st.roll(s.interval)
		st.current += d.Run
	}
}

// creditTrackLocked counts what a task ran since it was credited last.
func (s *Subsystem) creditTrackLocked(t track, now Times) {
	d := now.since(t.last)
	if !t.recalled {
		s.creditLocked(t.at, d)
		return
	}
	for st := t.at; st != nil; st = st.parent {
		st.total.add(d)
	}
}

// preparer makes what is done before a file is read.
func (s *Subsystem) preparer(split bool) func(*tree.Container) error {
	return func(c *tree.Container) error {
		s.prepare(c, split)
		return nil
	}
}

// show makes the reader of a file.
func (s *Subsystem) show(value func(*Subsystem, *state, []byte) []byte) func(*tree.Container, []byte) ([]byte, error) {
	return func(c *tree.Container, b []byte) ([]byte, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return value(s, s.state(c), b), nil
	}
}

func appendUsage(_ *Subsystem, st *state, b []byte) []byte {
	return append(strconv.AppendUint(b, st.total.Run, 10), '\n')
}

// userHZ is the unit of stat, the same on all architectures that Go knows.
const userHZ = 100

func appendStat(_ *Subsystem, st *state, b []byte) []byte {
	user, system := st.split()
	const tick = uint64(time.Second / userHZ)
	b = strconv.AppendUint(append(b, "user "...), user/tick, 10)
	b = strconv.AppendUint(append(b, "\nsystem "...), system/tick, 10)
	return append(b, '\n')
}

// split divides the run time as the ticks are divided, and as the kernel does:
// neither part ever goes back.
func (st *state) split() (user, system uint64) {
	run, u, s := st.total.Run, st.total.User, st.total.System
	if st.shown == nil {
		st.shown = new(shown)
	}
	if u+s > 0 {
		system = uint64(float64(run) * (float64(s) / float64(u+s)))
	}
	system = min(max(system, st.shown.system), run-st.shown.user)
	*st.shown = shown{run - system, system}
	return run - system, system
}

func appendLoad(s *Subsystem, st *state, b []byte) []byte {
	st.roll(s.interval)
	percent := uint64(0)
	if s.length > 0 {
		percent = (st.last*100 + uint64(s.length)/2) / uint64(s.length)
	}
	return append(strconv.AppendUint(b, percent, 10), '\n')
}

// reset is the writer of usage. Of its members, what they ran until now is
// history too.
func (s *Subsystem) reset(_ *tree.Actor, c *tree.Container, text []byte) error {
	if n, err := tree.ParseNumber(text, math.MaxUint64); err != nil {
		return err
	} else if n != 0 {
		return errNotZero
	}
	s.prepare(c, true)
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.state(c)
	st.total, st.shown = Times{}, nil
	return nil
}

var errNotZero = fmt.Errorf("only 0 can be written: %w", syscall.EINVAL)
