package cpuset

import (
	"fmt"
	"log/slog"
	"syscall"

	"containerfs/subsys/facts"
	"containerfs/tree"
)

// resource is one of the two that a container has a set of.
type resource int

const (
	cpus resource = iota
	mems
	resources
)

// flags are the values of the flag files.
type flags uint8

const (
	cpuExclusive flags = 1 << iota
	memExclusive
	memoryMigrate
)

// rootFlags are those that a root begins with.
const rootFlags = cpuExclusive | memExclusive

// exclusive is the flag that keeps siblings out of a set.
var exclusive = [resources]flags{cpus: cpuExclusive, mems: memExclusive}

// state is what a container has. A root's sets are the online ones.
type state struct {
	sets  [resources]Set // configured
	flags flags
}

// Subsystem is the cpuset subsystem of one Tree.
type Subsystem struct {
	host     Host
	log      *slog.Logger
	files    []tree.File
	migrator migrator
	facts    facts.Log

	// Set once, in the Create of the root state.
	tree *tree.Tree
	id   int

	// The rest is guarded by the Tree's mu, and changed by forks and exits or
	// in Update.

	root *tree.Container

	// origins has every member, nil where the origin is unknown. It also has
	// tasks that an attach is moving out of the root or back into it.
	origins map[*tree.Task]Set

	// left are the tasks whose origins were restored since the last settle.
	left []*tree.Task

	// beyond is how many members Enforce could not confine the last time.
	// Only Enforce uses it.
	beyond int

	memory *tree.Memory // of origins, by tid; see Remember

	before func(*tree.Container) error // nil: nothing; see Before
}

// New makes the subsystem and logs what the host will not do.
func New(host Host, log *slog.Logger) *Subsystem {
	s := &Subsystem{
		host:     host,
		log:      log.With("subsystem", "cpuset"),
		origins:  make(map[*tree.Task]Set),
		migrator: migrator{host: host, log: log.With("subsystem", "cpuset")},
	}
	s.facts = facts.To(s.log)
	s.files = []tree.File{
		{Name: "cpus", Read: s.readSet(cpus), Write: s.writeSet(cpus)},
		{Name: "mems", Read: s.readSet(mems), Write: s.writeSet(mems)},
		{Name: "cpu_exclusive", Read: s.readFlag(cpuExclusive), Write: s.writeFlag(cpuExclusive)},
		{Name: "mem_exclusive", Read: s.readFlag(memExclusive), Write: s.writeFlag(memExclusive)},
		{Name: "memory_migrate", Read: s.readFlag(memoryMigrate), Write: s.writeFlag(memoryMigrate)},
	}
	for _, refusal := range host.Probe() {
		s.facts.Say(slog.LevelWarn, refusal)
	}
	return s
}

// SayAlone says that nothing but this keeps cpus and mems, and if left is not empty, where the
// kernel's cpuset of an earlier server goes on to. It is called before there are tasks.
func (s *Subsystem) SayAlone(left string) {
	s.facts.Say(slog.LevelInfo, "cpus is kept by sched_setaffinity and looked after once a second; mems is kept only by memory_migrate")
	if left != "" {
		s.facts.Say(slog.LevelWarn, "the kernel's cpuset is as a server with --enable cpuset has left it, in "+left+": tasks there have no other CPUs and nodes, whatever is written now, until such a server takes them out")
	}
}

// Before has f called when a container's cpus or mems are new and before they have an effect
// on its members; its error takes them back, unless they are those of before a change that
// could not be kept. It is called before there are tasks.
func (s *Subsystem) Before(f func(c *tree.Container) error) { s.before = f }

// Facts are what the host allows of it, as was said at start.
func (s *Subsystem) Facts() []string { return s.facts.All() }

// Name is tree.Subsystem's.
func (s *Subsystem) Name() string { return "cpuset" }

// Files is tree.Subsystem's.
func (s *Subsystem) Files() []tree.File { return s.files }

// Create is tree.Subsystem's. Where the machine does not tell what is online,
// there is no root state and no Tree.
func (s *Subsystem) Create(c *tree.Container) (tree.State, error) {
	if !c.IsRoot() {
		return new(state), nil
	}
	st := &state{flags: rootFlags}
	var err error
	if st.sets[cpus], st.sets[mems], err = s.host.Online(); err != nil {
		return nil, err
	}
	s.tree, s.root = c.Tree(), c
	s.id = s.tree.SubsystemID(s.Name())
	return st, nil
}

// Destroy is tree.Subsystem's.
func (s *Subsystem) Destroy(*tree.Container, tree.State) {}

// Bind is tree.Binder's.
func (s *Subsystem) Bind(root *tree.Container) {
	s.tree.Update(func() { s.root = root })
}

// Close drops the page migrations that have not begun, and returns when the one
// under way has ended.
func (s *Subsystem) Close() error {
	s.migrator.close()
	if s.tree != nil {
		s.keepOrigins()
	}
	return nil
}

func (s *Subsystem) state(c *tree.Container) *state { return c.State(s.id).(*state) }

// inForce is the set of c that is in force. View or Change.
func (s *Subsystem) inForce(c *tree.Container, r resource) Set {
	configured := s.state(c).sets[r]
	if c.IsRoot() {
		return configured
	}
	return within(configured, s.inForce(c.Parent(), r))
}

// within is what is in force of a configured set below a parent.
func within(configured, parent Set) Set {
	if configured.SubsetOf(parent) {
		return configured
	}
	if common := configured.And(parent); !common.Empty() {
		return common
	}
	return parent
}

func (s *Subsystem) readSet(r resource) func(*tree.Container, []byte) ([]byte, error) {
	return func(c *tree.Container, b []byte) ([]byte, error) {
		return append(s.inForce(c, r).Append(b), '\n'), nil
	}
}

func (s *Subsystem) writeSet(r resource) func(*tree.Actor, *tree.Container, []byte) error {
	return func(_ *tree.Actor, c *tree.Container, text []byte) error {
		if c.IsRoot() {
			return fmt.Errorf("the root has what is online: %w", syscall.EACCES)
		}
		s.settle()
		s.refresh()
		online := s.state(s.root).sets[r]
		set, err := ParseSet(text, online.Limit())
		if err != nil {
			return err
		}
		if !set.SubsetOf(online) {
			return fmt.Errorf("only %s are online: %w", online, syscall.EINVAL)
		}
		if set.Empty() {
			s.tree.Drain() // who has exited is no member
		}
		t := s.trialOf(c)
		t.configured[r], t.inForce[r] = set, set
		if err := s.validate(c, t); err != nil {
			return err
		}
		if parents := s.state(c.Parent()).sets[r]; set.Equal(parents) {
			set = parents // one copy for both
		}
		was, configured := s.inForce(c, r), s.state(c).sets[r]
		s.tree.Update(func() { s.state(c).sets[r] = set })
		if s.before != nil {
			if err := s.before(c); err != nil {
				s.tree.Update(func() { s.state(c).sets[r] = configured })
				return err
			}
		}
		s.apply(c, r, was, s.inForce(c, r))
		return nil
	}
}

func (s *Subsystem) readFlag(f flags) func(*tree.Container, []byte) ([]byte, error) {
	return func(c *tree.Container, b []byte) ([]byte, error) {
		if s.state(c).flags&f != 0 {
			return append(b, "1\n"...), nil
		}
		return append(b, "0\n"...), nil
	}
}

func (s *Subsystem) writeFlag(f flags) func(*tree.Actor, *tree.Container, []byte) error {
	return func(_ *tree.Actor, c *tree.Container, text []byte) error {
		on, err := tree.ParseFlag(text)
		if err != nil {
			return err
		}
		s.settle()
		s.refresh()
		t := s.trialOf(c)
		t.flags &^= f
		if on {
			t.flags |= f
		}
		if err := s.validate(c, t); err != nil {
			return err
		}
		s.tree.Update(func() { s.state(c).flags = t.flags })
		return nil
	}
}
