package bc

import (
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"containerfs/subsys/facts"
	"containerfs/tree"
)

// state is what a container has: nothing until it holds something or has a bound.
type state struct{ accounts *[resources]account }

// account is the account of a resource, to be read.
func (s *state) account(r resource) *account {
	if s.accounts == nil {
		return &opened
	}
	return &s.accounts[r]
}

// open is the account of a resource, to be changed.
func (s *state) open(r resource) *account {
	if s.accounts == nil {
		s.accounts = &[resources]account{opened, opened, opened, opened}
	}
	return &s.accounts[r]
}

// Subsystem is the bc subsystem of one Tree.
type Subsystem struct {
	host     Host
	log      *slog.Logger
	measures [resources]bool
	limits   bool // rlimits can be set
	facts    facts.Log
	files    []tree.File

	// Set once, in the Create of the root state.
	tree *tree.Tree
	id   int

	// The next five are guarded by the Tree's mu.

	root *tree.Container
	// holding are the containers that held something at the last sample.
	holding map[*tree.Container]struct{}
	// caps are the processes whose rlimits were lowered; some may have ended.
	caps    map[*tree.Process]*caps
	limiter Limiter // nil without
	limited bool    // somebody has set a limit on a resource that is capped

	// sampling is held while processes are measured, so that this takes one
	// CPU at most. It comes before the Tree's locks.
	sampling sync.Mutex

	memory *tree.Memory // of caps, by tgid; see Remember

	// Only Enforce uses these.
	rest    time.Time // no sample before
	slow    bool      // said that samples are fewer
	refused int       // processes that could not be measured the last time
	missed  int       // processes that could not be limited the last time
}

// New makes the subsystem and logs what the host will not do.
func New(host Host, log *slog.Logger) *Subsystem {
	s := &Subsystem{
		host:     host,
		log:      log.With("subsystem", "bc"),
		measures: host.Measures(),
		limits:   host.Limits(),
		holding:  make(map[*tree.Container]struct{}),
		caps:     make(map[*tree.Process]*caps),
	}
	s.facts = facts.To(s.log)
	s.measures[numproc] = true // by membership
	for r := range resources {
		if !s.measures[r] {
			s.facts.Say(slog.LevelWarn, names[r]+" cannot be measured here: its files are not there")
			continue
		}
		for _, f := range fields {
			s.files = append(s.files, s.file(r, f))
		}
	}
	s.files = append(s.files, tree.File{Name: "resources", Prepare: s.sample, Read: s.readResources})
	if s.limits {
		s.facts.Say(slog.LevelInfo, "it bounds each process by the limits of numfile and lockedpages; of sums, numproc and physpages it only tells when a bound is crossed")
	} else {
		s.facts.Say(slog.LevelWarn, "it only tells when a barrier or limit is crossed: CAP_SYS_RESOURCE, which setting rlimits takes, is missing")
	}
	return s
}

// Facts are what the host allows of it, as was said at start.
func (s *Subsystem) Facts() []string { return s.facts.All() }

// file is the row of one field of a resource.
func (s *Subsystem) file(r resource, f field) tree.File {
	row := tree.File{
		Name: names[r] + "." + f.name,
		Read: func(c *tree.Container, b []byte) ([]byte, error) {
			return append(strconv.AppendInt(b, f.get(s.state(c).account(r)), 10), '\n'), nil
		},
	}
	switch {
	case f.set != nil:
		row.Write = s.write(r, f)
	case r == numproc:
		row.Prepare = s.drain
	default:
		row.Prepare = s.sample
	}
	return row
}

// Name is tree.Subsystem's.
func (s *Subsystem) Name() string { return "bc" }

// Files is tree.Subsystem's.
func (s *Subsystem) Files() []tree.File { return s.files }

// Create is tree.Subsystem's.
func (s *Subsystem) Create(c *tree.Container) (tree.State, error) {
	if c.IsRoot() {
		s.tree, s.root = c.Tree(), c
		s.id = s.tree.SubsystemID(s.Name())
	}
	return new(state), nil
}

// Destroy is tree.Subsystem's.
func (s *Subsystem) Destroy(c *tree.Container, _ tree.State) {
	s.tree.Update(func() { delete(s.holding, c) })
}

// Bind is tree.Binder's.
func (s *Subsystem) Bind(root *tree.Container) {
	s.tree.Update(func() {
		delete(s.holding, s.root)
		s.root = root
	})
}

func (s *Subsystem) state(c *tree.Container) *state { return c.State(s.id).(*state) }

// Fork is tree.Forker's.
func (s *Subsystem) Fork(parent, child *tree.Task, c *tree.Container) {
	s.count(c, 1)
	s.inheritCaps(parent, child, c)
}

// Exit is tree.Exiter's.
func (s *Subsystem) Exit(_ *tree.Task, c *tree.Container) { s.count(c, -1) }

// Move is tree.Mover's. The new place comes first, so that what both are below of
// does not seem to hold less meanwhile; it is left out of both, for it holds the
// same.
func (s *Subsystem) Move(_ *tree.Task, from, to *tree.Container) {
	common := from
	for !to.IsBelow(common) {
		common = common.Parent()
	}
	s.countTo(to, common, 1)
	s.countTo(from, common, -1)
}

func (s *Subsystem) count(c *tree.Container, n int64) { s.countTo(c, nil, n) }

// countTo counts tasks in c and in what is above, up to a container that is left
// out. With mu held.
func (s *Subsystem) countTo(c, end *tree.Container, n int64) {
	for ; c != end; c = c.Parent() {
		s.hold(c, numproc, s.state(c).account(numproc).held+n)
	}
}

// hold notes what a container holds, and tells when it crosses a bound. With mu
// held.
func (s *Subsystem) hold(c *tree.Container, r resource, held int64) {
	st := s.state(c)
	if !s.tree.Settled() {
		// These were there before the server was: they cross nothing now.
		a := st.open(r)
		a.held, a.maxheld = held, max(a.maxheld, held)
		return
	}
	populated := r == numproc && held > 0 || r != numproc && st.account(numproc).held > 0
	if crossed := st.open(r).hold(held, populated); crossed != "" {
		s.tree.Publish(c, "bc."+names[r]+"."+crossed)
	}
}

// write makes the writer of a bound: EINVAL where the barrier would be over the
// limit.
func (s *Subsystem) write(r resource, f field) func(*tree.Actor, *tree.Container, []byte) error {
	return func(_ *tree.Actor, c *tree.Container, text []byte) error {
		n, err := tree.ParseNumber(text, math.MaxInt64)
		if err != nil {
			return err
		}
		v := int64(n)
		s.tree.Update(func() {
			trial := *s.state(c).account(r)
			if f.set(&trial, v); trial.barrier > trial.limit {
				err = fmt.Errorf("the barrier, %d, would be over the limit, %d, and is to be written first: %w", trial.barrier, trial.limit, syscall.EINVAL)
				return
			}
			*s.state(c).open(r) = trial
			s.noteLimit(c, r, trial.limit)
		})
		if err == nil && f.name == "limit" && slices.Contains(capped, r) {
			s.limitBelow(c)
		}
		return err
	}
}

// noteLimit notes that there are processes to look after. With mu held.
func (s *Subsystem) noteLimit(c *tree.Container, r resource, limit int64) {
	s.limited = s.limited || slices.Contains(capped, r) && !c.IsRoot() && limit != unlimited
}

// readResources is the table of UserBeanCounters, with the container's number as
// uid.
func (s *Subsystem) readResources(c *tree.Container, b []byte) ([]byte, error) {
	const row = "%11s %-12s %20v %20v %20v %20v %20v\n"
	b = fmt.Appendf(b, row, "uid ", "resource", "held", "maxheld", "barrier", "limit", "failcnt")
	uid := strconv.FormatUint(c.ID(), 10) + ":"
	for r := range resources {
		if s.measures[r] {
			a := s.state(c).account(r)
			b = fmt.Appendf(b, row, uid, names[r], a.held, a.maxheld, a.barrier, a.limit, a.failcnt)
			uid = ""
		}
	}
	return b, nil
}
