package subsys

import (
	"io"
	"slices"
	"syscall"

	"containerfs/subsys/controller"
	"containerfs/subsys/cpuacct"
	"containerfs/subsys/cpuset"
	"containerfs/tree"
)

// Enforced are the subsystems that there are in any case and that have the kernel's
// controller of their name do what they do, when that is asked for.
var Enforced = []string{"cpuset", "cpuacct"}

// pair is a subsystem of ours with the kernel's controller of its name: each callback does
// what the two do. It is embedded in what is registered, and ours is as well, but a level
// deeper: so the methods that pair has are pair's, and all others are ours.
type pair struct {
	ours   subsystem
	kernel *controller.Subsystem
	files  []tree.File

	// Set in the Create of the root state, and by Bind.
	tree *tree.Tree
	root *tree.Container
}

// subsystem is what there is of ours in any case.
type subsystem interface {
	tree.Subsystem
	tree.Binder
	tree.Attacher
	tree.Forker
	tree.Exiter
	Enforcer
	Factual
	io.Closer
}

// Files is tree.Subsystem's.
func (p *pair) Files() []tree.File { return p.files }

// Create is tree.Subsystem's.
func (p *pair) Create(c *tree.Container) (tree.State, error) {
	state, err := p.ours.Create(c)
	if err != nil {
		return nil, err
	}
	if c.IsRoot() {
		p.tree, p.root = c.Tree(), c
	}
	if _, err := p.kernel.Create(c); err != nil {
		p.ours.Destroy(c, state)
		return nil, err
	}
	return state, nil
}

// Destroy is tree.Subsystem's.
func (p *pair) Destroy(c *tree.Container, state tree.State) {
	p.kernel.Destroy(c, state)
	p.ours.Destroy(c, state)
}

// CanBind is tree.CanBinder's.
func (p *pair) CanBind(h *tree.Hierarchy) error { return p.kernel.CanBind(h) }

// WholeProcesses is tree.ProcessMover's.
func (p *pair) WholeProcesses() bool { return p.kernel.WholeProcesses() }

// Bind is tree.Binder's.
func (p *pair) Bind(root *tree.Container) {
	p.root = root
	p.ours.Bind(root)
	p.kernel.Bind(root)
}

// Attach is tree.Attacher's. The kernel's place comes first, since it decides what the
// host allows then; on the way out of the root it comes last, since ours has to see
// what there was.
func (p *pair) Attach(task *tree.Task, from, to *tree.Container) (func(), error) {
	order := []tree.Attacher{p.kernel, p.ours}
	if from.IsRoot() {
		slices.Reverse(order)
	}
	first, err := order[0].Attach(task, from, to)
	if err != nil {
		return nil, err
	}
	second, err := order[1].Attach(task, from, to)
	if err != nil {
		if first != nil {
			first()
		}
		return nil, err
	}
	return func() {
		for _, undo := range []func(){second, first} {
			if undo != nil {
				undo()
			}
		}
	}, nil
}

// Reattach is tree.Reattacher's.
func (p *pair) Reattach(task *tree.Task, c *tree.Container) error {
	if err := p.kernel.Reattach(task, c); err != nil {
		return err
	}
	if ours, ok := p.ours.(tree.Reattacher); ok {
		return ours.Reattach(task, c)
	}
	return nil
}

// Fork is tree.Forker's.
func (p *pair) Fork(parent, child *tree.Task, c *tree.Container) {
	p.ours.Fork(parent, child, c)
	p.kernel.Fork(parent, child, c)
}

// Exit is tree.Exiter's.
func (p *pair) Exit(task *tree.Task, c *tree.Container) {
	p.ours.Exit(task, c)
	p.kernel.Exit(task, c)
}

// Move is tree.Mover's.
func (p *pair) Move(task *tree.Task, from, to *tree.Container) {
	if ours, ok := p.ours.(tree.Mover); ok {
		ours.Move(task, from, to)
	}
	p.kernel.Move(task, from, to)
}

// Facts is Factual's.
func (p *pair) Facts() []string { return slices.Concat(p.ours.Facts(), p.kernel.Facts()) }

// Enforce is Enforcer's.
func (p *pair) Enforce() {
	p.ours.Enforce()
	p.kernel.Enforce()
}

// Close is io.Closer's.
func (p *pair) Close() error {
	err := p.ours.Close()
	if e := p.kernel.Close(); err == nil {
		err = e
	}
	return err
}

// kernelCpuset is cpuset with the kernel's cpuset below it: what is in force is in
// the kernel's directories as well, so that nobody can run or allocate elsewhere,
// not even for a moment.
type kernelCpuset struct {
	pair
	ourCpuset
	cpus   *tree.File // of cpuset
	mems   *tree.File
	online string // what the base was given; changeMu

	widened bool // by the write that is under way; changeMu
}

type ourCpuset struct{ *cpuset.Subsystem }

// passed are the kernel's files that cpuset does not have itself.
var passed = []string{"sched_load_balance", "memory_pressure", "memory_spread_page", "memory_spread_slab"}

func newKernelCpuset(ours *cpuset.Subsystem, kernel *controller.Subsystem) *kernelCpuset {
	s := &kernelCpuset{pair: pair{ours: ours, kernel: kernel}, ourCpuset: ourCpuset{ours}}
	ours.Before(func(c *tree.Container) error {
		if !kernel.Binds(c) {
			return nil
		}
		s.widened = true
		return s.widen(c)
	})
	rows := ours.Files()
	for i, f := range rows {
		switch f.Name {
		case "cpus":
			s.cpus = &rows[i]
			f.Write = s.write(&rows[i])
		case "mems":
			s.mems = &rows[i]
			f.Write = s.write(&rows[i])
		}
		s.files = append(s.files, f)
	}
	for _, f := range kernel.Files() {
		if slices.Contains(passed, f.Name) {
			s.files = append(s.files, f)
		}
	}
	if kernel.RootHas("cpuset.memory_pressure_enabled") {
		// It is the whole host's, so it is not ours to change.
		s.files = append(s.files, tree.File{Name: "memory_pressure_enabled", Fetch: func(*tree.Container) ([]byte, error) {
			return kernel.FetchRoot("cpuset.memory_pressure_enabled")
		}})
	}
	return s
}

// Save is tree.Saver's: what was set in files that pass through is saved, too.
func (s *kernelCpuset) Save(c *tree.Container, b []byte) []byte {
	return s.ourCpuset.Save(c, s.kernel.Save(c, b))
}

// Restore is tree.Saver's. Where a change could not be kept the kernel is given what is in
// force again: now, and with all that was taken back by the next Enforce. At a start it is
// given everything by the first one.
func (s *kernelCpuset) Restore(c *tree.Container, b []byte) error {
	passed, b, err := cpuset.SplitSaved(b)
	if err != nil {
		return err
	}
	if err := s.ourCpuset.Restore(c, b); err != nil {
		return err
	}
	if err := s.kernel.Restore(c, passed); err != nil {
		return err
	}
	settled := false
	s.tree.View(func() { settled = s.tree.Settled() })
	if settled && s.kernel.Binds(c) {
		s.online = ""
		_ = s.narrow(c) // what is below may be in the way until it is taken back, too
	}
	return nil
}

// PostClone is tree.PostCloner's.
func (s *kernelCpuset) PostClone(c *tree.Container) error {
	if err := s.ourCpuset.PostClone(c); err != nil {
		return err
	}
	return s.sync(c)
}

// Enforce is Enforcer's: what is online is followed in the kernel's directories, too.
func (s *kernelCpuset) Enforce() {
	s.ours.Enforce()
	_ = s.tree.Change(func() error {
		online := s.value(s.root, s.cpus) + " " + s.value(s.root, s.mems)
		if s.kernel.Binds(s.root) && online != s.online {
			if err := s.sync(s.root); err != nil {
				s.kernel.Log().Warn("what is online could not be given to the kernel's cpusets", "err", err)
			}
			s.online = online
		}
		return nil
	})
	s.kernel.Enforce()
}

// write is the writer of cpus or mems. The kernel's set grows before ours has an effect on
// the members, which it would be refused, and shrinks after it. What the kernel refuses is
// taken back, to what was configured: more can be than is in force.
func (s *kernelCpuset) write(f *tree.File) func(*tree.Actor, *tree.Container, []byte) error {
	return func(a *tree.Actor, c *tree.Container, data []byte) error {
		var was []byte
		s.tree.View(func() { was = s.ourCpuset.Save(c, nil) })
		s.widened = false
		if err := f.Write(a, c, data); err != nil {
			if s.widened {
				s.complain(c, s.sync(c))
			}
			return err
		}
		err := s.narrow(c)
		if err == nil {
			return nil
		}
		back := s.ourCpuset.Restore(c, was)
		if back == nil {
			back = s.sync(c)
		}
		s.complain(c, back)
		return err
	}
}

// complain says that the kernel's set could not be made what it was.
func (s *kernelCpuset) complain(c *tree.Container, err error) {
	if err != nil {
		s.kernel.Log().Error("the kernel's cpuset differs from its container's", "path", c.Path(), "err", err)
	}
}

// widen gives the kernel what is in force in c and below besides what it has. Under changeMu.
func (s *kernelCpuset) widen(c *tree.Container) error {
	for _, f := range []*tree.File{s.cpus, s.mems} {
		if err := s.grow(c, f); err != nil {
			return err
		}
	}
	return nil
}

// value is what a file of ours shows.
func (s *kernelCpuset) value(c *tree.Container, f *tree.File) (value string) {
	s.tree.View(func() {
		b, err := f.Read(c, nil)
		if err == nil {
			value = string(b[:len(b)-1])
		}
	})
	return value
}

// sync gives the kernel what is in force in c and below. A kernel's set must be
// within its parent's at any time, so they grow from above and shrink from below.
// Under changeMu.
func (s *kernelCpuset) sync(c *tree.Container) error {
	if err := s.widen(c); err != nil {
		return err
	}
	return s.narrow(c)
}

// narrow takes from the kernel what is not in force in c and below. Under changeMu.
func (s *kernelCpuset) narrow(c *tree.Container) error {
	for _, f := range []*tree.File{s.cpus, s.mems} {
		if err := s.shrink(c, f); err != nil {
			return err
		}
	}
	return nil
}

func (s *kernelCpuset) grow(c *tree.Container, f *tree.File) error {
	name := "cpuset." + f.Name
	has, err := s.kernel.Get(c, name)
	if err != nil {
		return err
	}
	if want := s.value(c, f); want != has && want != "" && has != "" {
		err = s.kernel.Set(c, name, has+","+want)
	} else if want != has && want != "" {
		err = s.kernel.Set(c, name, want)
	}
	return s.below(c, err, func(k *tree.Container) error { return s.grow(k, f) })
}

func (s *kernelCpuset) shrink(c *tree.Container, f *tree.File) error {
	if err := s.below(c, nil, func(k *tree.Container) error { return s.shrink(k, f) }); err != nil {
		return err
	}
	name := "cpuset." + f.Name
	has, err := s.kernel.Get(c, name)
	if want := s.value(c, f); err == nil && want != has {
		err = s.kernel.Set(c, name, want+"\n") // a write of nothing is none
	}
	return err
}

func (s *kernelCpuset) below(c *tree.Container, err error, do func(*tree.Container) error) error {
	if err != nil {
		return err
	}
	c.Children(0, func(k *tree.Container) bool {
		err = do(k)
		return err == nil
	})
	return err
}

// kernelCpuacct is cpuacct with the kernel's counts, which miss nothing, whoever
// watches. The root's are ours: it stands for tasks that are anywhere.
type kernelCpuacct struct {
	pair
	ourCpuacct
}

type ourCpuacct struct{ *cpuacct.Subsystem }

func newKernelCpuacct(ours *cpuacct.Subsystem, kernel *controller.Subsystem) *kernelCpuacct {
	s := &kernelCpuacct{pair{ours: ours, kernel: kernel}, ourCpuacct{ours}}
	for _, f := range ours.Files() {
		switch f.Name {
		case "usage":
			f.Fetch = s.fetch(f)
			f.Write = s.reset(f)
		case "stat":
			f.Fetch = s.fetch(f)
		}
		s.files = append(s.files, f)
	}
	return s
}

func (s *kernelCpuacct) fetch(ours tree.File) func(*tree.Container) ([]byte, error) {
	return func(c *tree.Container) (b []byte, err error) {
		if !c.IsRoot() {
			return s.kernel.Fetch(c, "cpuacct."+ours.Name)
		}
		if err := ours.Prepare(c); err != nil {
			return nil, err
		}
		s.tree.View(func() {
			if !s.kernel.Shows(c) {
				err = syscall.ENODEV
				return
			}
			b, err = ours.Read(c, nil)
		})
		return b, err
	}
}

// reset is the writer of usage.
func (s *kernelCpuacct) reset(ours tree.File) func(*tree.Actor, *tree.Container, []byte) error {
	return func(a *tree.Actor, c *tree.Container, data []byte) error {
		if err := ours.Write(a, c, data); err != nil || c.IsRoot() {
			return err
		}
		return s.kernel.Set(c, "cpuacct.usage", "0")
	}
}
