package ns

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"
	"time"
	"unique"

	"containerfs/subsys/backlog"
	"containerfs/tree"
)

// state says what a container stands for: nothing if it is zero.
type state struct{ stands unique.Handle[Set] }

// Subsystem is the ns subsystem of one Tree.
type Subsystem struct {
	host  Host
	log   *slog.Logger
	queue *backlog.Queue[*tree.Process] // to be looked at

	// self is the Actor of what the subsystem does: the rules know it.
	self *tree.Actor

	// Set once, in the Create of the root state.
	tree *tree.Tree
	id   int

	// unsaid complaints were made since the last one that was logged, at
	// said. Only the queue's goroutine uses them.
	unsaid int
	said   time.Time

	// pending is what the container that is being made for tasks will stand for.
	// Guarded by the Tree's changeMu.
	pending unique.Handle[Set]
}

// New makes the subsystem and logs what the host will not do.
func New(host Host, log *slog.Logger) *Subsystem {
	s := &Subsystem{
		host: host,
		log:  log.With("subsystem", "ns"),
		self: &tree.Actor{Privileged: true, Local: true},
	}
	s.queue = backlog.New(s.look, func(n int) {
		s.log.Warn("processes were not looked at for new namespaces: too many at once", "processes", n)
	})
	s.log.Info("ns forbids ordinary moves in its hierarchy; namespaces are seen at a fork or exec, not at unshare")
	return s
}

// Name is tree.Subsystem's.
func (s *Subsystem) Name() string { return "ns" }

// Files is tree.Subsystem's.
func (s *Subsystem) Files() []tree.File { return nil }

// Create is tree.Subsystem's. Without the namespaces that the root stands for
// there is no root state and no Tree.
func (s *Subsystem) Create(c *tree.Container) (tree.State, error) {
	if !c.IsRoot() {
		return new(state), nil
	}
	set, err := s.host.Namespaces(1)
	if err != nil {
		s.log.Warn("the namespaces of process 1 cannot be seen: the root stands for the server's own", "err", err)
		if set, err = s.host.Namespaces(int32(os.Getpid())); err != nil {
			return nil, err
		}
	}
	s.tree = c.Tree()
	s.id = s.tree.SubsystemID(s.Name())
	return &state{unique.Make(set)}, nil
}

// Destroy is tree.Subsystem's.
func (s *Subsystem) Destroy(*tree.Container, tree.State) {}

// Close drops what was not looked at yet, and returns when the look under way has
// ended.
func (s *Subsystem) Close() error {
	s.queue.Close()
	return nil
}

// CanMkdir is tree.CanMkdirer's.
func (s *Subsystem) CanMkdir(a *tree.Actor, _ *tree.Container) error {
	if a.CheckPrivileged() != nil {
		return errNotPrivileged
	}
	if a != s.self {
		s.pending = unique.Handle[Set]{} // what a clone left
	}
	return nil
}

var (
	errNotPrivileged = fmt.Errorf("where ns is, %w", tree.ErrNotPrivileged)
	errNotEmptyChild = fmt.Errorf("ns lets a task go to an empty child of its container alone: %w", syscall.EPERM)
)

// CanAttach is tree.CanAttacher's.
func (s *Subsystem) CanAttach(a *tree.Actor, _ *tree.Task, from, to *tree.Container) error {
	if a == s.self {
		return nil
	}
	if a.CheckPrivileged() != nil {
		return errNotPrivileged
	}
	if to.Parent() != from || to.NumTasks() > 0 {
		return errNotEmptyChild
	}
	return nil
}

// PostClone is tree.PostCloner's.
func (s *Subsystem) PostClone(c *tree.Container) error {
	s.state(c).stands = s.pending
	return nil
}

// Fork is tree.Forker's.
func (s *Subsystem) Fork(parent, child *tree.Task, _ *tree.Container) {
	if s.tree.Bound(s.id) == nil || child.TID() != child.TGID() {
		return
	}
	if parent != nil {
		s.queue.Add(parent.Process())
	}
	s.queue.Add(child.Process())
}

// Exec is tree.Execer's.
func (s *Subsystem) Exec(task *tree.Task, _ *tree.Container) {
	if s.tree.Bound(s.id) != nil {
		s.queue.Add(task.Process())
	}
}

func (s *Subsystem) state(c *tree.Container) *state { return c.State(s.id).(*state) }

// stood reports whether c, or a container that it is below of, stands for set.
// View.
func (s *Subsystem) stood(c *tree.Container, set unique.Handle[Set]) bool {
	for ; c != nil; c = c.Parent() {
		if s.state(c).stands == set {
			return true
		}
	}
	return false
}

// place is the container of a process's first thread, nil when that has ended or
// there is nothing to clone in, as in the default hierarchy. View.
func (s *Subsystem) place(p *tree.Process) *tree.Container {
	task, h := s.tree.Task(p.TGID()), s.tree.Bound(s.id)
	if h == nil || task == nil || task.Process() != p {
		return nil
	}
	return task.Container(h)
}

// maxAncestors bounds how many ancestors are asked for their namespaces, which
// end one after the other.
const maxAncestors = 4

// look puts a process where its namespaces belong.
func (s *Subsystem) look(p *tree.Process) {
	set, err := s.host.Namespaces(p.TGID())
	if err != nil {
		s.complain(p, err)
		return
	}
	mine := unique.Make(set)
	var theirs Set
	for range maxAncestors {
		var parent *tree.Process
		var join *tree.Container
		s.tree.View(func() {
			at := s.place(p)
			if at == nil || s.stood(at, mine) {
				return
			}
			if parent = p.Parent(); parent == nil {
				return
			}
			if c := s.place(parent); c != nil && c.Parent() == at && s.state(c).stands == mine {
				join = c
			}
		})
		if parent == nil {
			return
		}
		if join != nil {
			s.complain(p, s.join(p, join))
			return
		}
		if theirs, err = s.host.Namespaces(parent.TGID()); err == nil {
			break
		}
		s.tree.Drain() // it has ended: the next one is its heir
	}
	if err == nil && theirs != set {
		s.complain(p, s.clone(p, mine))
	}
}

// join attaches a process to the child of its container that its parent is in.
func (s *Subsystem) join(p *tree.Process, c *tree.Container) error {
	return s.tree.Attach(tree.AttachRequest{
		Actor: s.self, To: c, ID: p.TGID(), Process: true,
		Allow: func(_ tree.TaskInfo, from, _ *tree.Container) error {
			if from != c.Parent() && from != c {
				return syscall.ESRCH // somebody has moved it
			}
			return nil
		},
	})
}

// clone gives a process a container that stands for set.
func (s *Subsystem) clone(p *tree.Process, set unique.Handle[Set]) error {
	_, err := s.tree.Clone(tree.CloneRequest{
		Actor: s.self, Subsystem: s.id, Process: p,
		Allow: func(from *tree.Container) error {
			if s.stood(from, set) {
				return syscall.ESRCH
			}
			s.pending = set
			return nil
		},
	})
	return err
}

// complain logs what could not be done, but for processes that are gone, and not
// more than once a second: whoever can make namespaces can make it happen.
func (s *Subsystem) complain(p *tree.Process, err error) {
	if err == nil || errors.Is(err, syscall.ESRCH) || errors.Is(err, syscall.ENODEV) {
		return
	}
	if time.Since(s.said) < time.Second {
		s.unsaid++
		return
	}
	s.log.Warn("a process with new namespaces has no container of its own", "pid", p.TGID(), "err", err, "unsaid", s.unsaid)
	s.said, s.unsaid = time.Now(), 0
}
