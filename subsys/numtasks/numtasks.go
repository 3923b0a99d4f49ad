package numtasks

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"syscall"

	"containerfs/subsys/backlog"
	"containerfs/subsys/facts"
	"containerfs/tree"
)

// state is what a container has.
type state struct {
	shares
	usage               int32 // tasks in it and below
	successes, failures uint64
	refused             uint64 // by the limiter, when last asked
	counter             uint64 // what has counted these, 0 before it was asked
	kill                bool   // the policy
}

// Subsystem is the numtasks subsystem of one Tree.
type Subsystem struct {
	log     *slog.Logger
	files   []tree.File
	bound   int64 // the root's absolute
	killer  killer
	victims *backlog.Queue[*tree.Task]
	facts   facts.Log
	limiter Limiter // nil without
	found   uint64  // see JudgeFound; 0 without

	// Set once, in the Create of the root state.
	tree *tree.Tree
	id   int
}

// New makes the subsystem and logs what the host will not do.
func New(host Host, log *slog.Logger) *Subsystem {
	s := &Subsystem{log: log.With("subsystem", "numtasks")}
	s.facts = facts.To(s.log)
	s.killer = killer{host: host, log: s.log}
	s.victims = backlog.New(s.killer.work, s.killer.missed)
	s.files = []tree.File{
		{Name: "shares", Read: s.readShares, Write: s.writeShares},
		{Name: "stats", Prepare: s.refusals, Read: s.readStats},
		{Name: "limit", Read: s.readLimit, Instead: "shares"},
		{Name: "policy", Read: s.readPolicy, Write: s.writePolicy},
	}
	var err error
	if s.bound, err = host.Bound(); err != nil {
		s.facts.Say(slog.LevelWarn, fmt.Sprintf("how many tasks the machine can have cannot be read: nothing is limited: %v", err))
		s.bound = none
	}
	s.facts.Say(slog.LevelInfo, "it refuses no fork: one over the limit is counted, and with numtasks.policy=kill killed")
	return s
}

// JudgeFound has tasks judged that a look at the host finds, and that started at a clock tick or
// after it, as by a fork: of none other is told. Before tree.New.
func (s *Subsystem) JudgeFound(since uint64) {
	s.found = max(since, 1)
	s.facts.Say(slog.LevelWarn, "a fork is counted, and with numtasks.policy=kill killed, at the next look at all tasks: what has ended by then is not counted")
}

// isForked reports whether a new task is judged: it was not there before the server.
func (s *Subsystem) isForked(t *tree.Task) bool {
	return t.Forked() || s.found != 0 && t.Start() >= s.found
}

// Facts are what the host allows of it, as was said at start.
func (s *Subsystem) Facts() []string { return s.facts.All() }

// Name is tree.Subsystem's.
func (s *Subsystem) Name() string { return "numtasks" }

// Files is tree.Subsystem's.
func (s *Subsystem) Files() []tree.File { return s.files }

// Create is tree.Subsystem's.
func (s *Subsystem) Create(c *tree.Container) (tree.State, error) {
	if c.IsRoot() {
		s.tree = c.Tree()
		s.killer.tree = s.tree
		s.id = s.tree.SubsystemID(s.Name())
	}
	return &state{shares: defaultShares}, nil
}

// Destroy is tree.Subsystem's.
func (s *Subsystem) Destroy(*tree.Container, tree.State) {}

// Close drops what was not killed yet, and returns when the worker has ended.
func (s *Subsystem) Close() error {
	s.victims.Close()
	return nil
}

func (s *Subsystem) state(c *tree.Container) *state { return c.State(s.id).(*state) }

// Fork is tree.Forker's.
func (s *Subsystem) Fork(_, child *tree.Task, c *tree.Container) {
	s.count(c, 1)
	if s.isForked(child) {
		s.judge(child, c)
	}
}

// ForkTold is tree.ForkTeller's.
func (s *Subsystem) ForkTold(child *tree.Task, c *tree.Container) {
	if s.found == 0 { // else it was judged, if it was forked meanwhile
		s.judge(child, c)
	}
}

// Exit is tree.Exiter's.
func (s *Subsystem) Exit(_ *tree.Task, c *tree.Container) { s.count(c, -1) }

// Move is tree.Mover's.
func (s *Subsystem) Move(_ *tree.Task, from, to *tree.Container) {
	s.count(from, -1)
	s.count(to, 1)
}

func (s *Subsystem) count(c *tree.Container, n int32) {
	for ; c != nil; c = c.Parent() {
		s.state(c).usage += n
	}
}

// judge counts a forked task, which is in c, as what it is by the limits, and has it killed if
// that is wanted.
func (s *Subsystem) judge(child *tree.Task, c *tree.Container) {
	if _, kill := s.judgeIn(c); kill && !s.protected(child.Process()) {
		s.victims.Add(child)
	}
}

// judgeIn judges a task by the limit of c and of what is above. It returns the absolute of
// c, and whether a container that is over its limit wants newcomers to be killed.
func (s *Subsystem) judgeIn(c *tree.Container) (limit int64, kill bool) {
	st := s.state(c)
	if p := c.Parent(); p == nil {
		limit = s.bound
	} else {
		limit, kill = s.judgeIn(p)
		limit = absolute(limit, st.max, s.state(p).divisor)
	}
	switch {
	case limit == none || int64(st.usage) <= limit:
		st.successes++
	default:
		st.failures++
		kill = kill || st.kill
		s.tree.Publish(c, "numtasks.limit")
	}
	return limit, kill
}

// protected reports whether a process is never killed: process 1, the server and
// its ancestors. View.
func (s *Subsystem) protected(p *tree.Process) bool {
	if p.TGID() == 1 {
		return true
	}
	server := s.tree.Task(int32(os.Getpid()))
	if server == nil {
		return false
	}
	for a := server.Process(); a != nil; a = a.Parent() {
		if a == p {
			return true
		}
	}
	return false
}

func (s *Subsystem) readShares(c *tree.Container, b []byte) ([]byte, error) {
	return s.state(c).shares.append(b), nil
}

func (s *Subsystem) writeShares(_ *tree.Actor, c *tree.Container, text []byte) error {
	change, err := parseShares(string(text))
	if err != nil {
		return err
	}
	n := s.state(c).changed(change)
	if err := s.validate(c, n); err != nil {
		return err
	}
	limited, err := s.enforce(c, n)
	if err != nil {
		return err
	}
	s.tree.Update(func() {
		s.state(c).shares = n
		for _, d := range limited {
			if d != c {
				s.tree.Keep(d) // what the kernel has there, to be taken back with c's
			}
		}
	})
	return nil
}

// drain lets the counts be as of now.
func (s *Subsystem) drain(*tree.Container) error {
	s.tree.Drain()
	return nil
}

func (s *Subsystem) readStats(c *tree.Container, b []byte) ([]byte, error) {
	st := s.state(c)
	for _, line := range []struct {
		what  string
		value uint64
	}{
		{"Current usage ", uint64(st.usage)},
		{"Number of successes ", st.successes},
		{"Number of failures ", st.failures + st.refused},
		{"Number of forkrate failures ", 0},
	} {
		b = append(append(b, "numtasks: "...), line.what...)
		b = append(strconv.AppendUint(b, line.value, 10), '\n')
	}
	return b, nil
}

func (s *Subsystem) readLimit(c *tree.Container, b []byte) ([]byte, error) {
	limit := s.limit(c)
	if limit == none {
		return append(b, "max\n"...), nil
	}
	return append(strconv.AppendInt(b, limit, 10), '\n'), nil
}

func (s *Subsystem) readPolicy(c *tree.Container, b []byte) ([]byte, error) {
	if s.state(c).kill {
		return append(b, "kill\n"...), nil
	}
	return append(b, "count\n"...), nil
}

func (s *Subsystem) writePolicy(a *tree.Actor, c *tree.Container, text []byte) error {
	kill := false
	switch string(bytes.TrimSuffix(text, []byte("\n"))) {
	case "count":
	case "kill":
		kill = true
		if err := a.CheckPrivileged(); err != nil {
			return err
		}
	default:
		return fmt.Errorf("a policy is count or kill: %w", syscall.EINVAL)
	}
	s.tree.Update(func() { s.state(c).kill = kill })
	return nil
}
