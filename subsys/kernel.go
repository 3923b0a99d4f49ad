package subsys

import (
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

// both has what a subsystem of ours and the kernel's controller of its name do for a
// task. The kernel's place comes first, since it decides what the host allows then;
// on the way out of the root it comes last, since ours has to see what there was.
func both(ours tree.Attacher, kernel *controller.Subsystem, task *tree.Task, from, to *tree.Container) (func(), error) {
	order := []tree.Attacher{kernel, ours}
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

// kernelCpuset is cpuset with the kernel's cpuset below it: what is in force is in
// the kernel's directories as well, so that nobody can run or allocate elsewhere,
// not even for a moment.
type kernelCpuset struct {
	*cpuset.Subsystem
	kernel *controller.Subsystem
	files  []tree.File
	cpus   *tree.File // of cpuset
	mems   *tree.File
	tree   *tree.Tree
	root   *tree.Container
	online string // what the base was given; changeMu
}

// passed are the kernel's files that cpuset does not have itself.
var passed = []string{"sched_load_balance", "memory_pressure", "memory_spread_page", "memory_spread_slab"}

func newKernelCpuset(ours *cpuset.Subsystem, kernel *controller.Subsystem) *kernelCpuset {
	s := &kernelCpuset{Subsystem: ours, kernel: kernel}
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

// Files is tree.Subsystem's.
func (s *kernelCpuset) Files() []tree.File { return s.files }

// Create is tree.Subsystem's.
func (s *kernelCpuset) Create(c *tree.Container) (tree.State, error) {
	state, err := s.Subsystem.Create(c)
	if err != nil {
		return nil, err
	}
	if c.IsRoot() {
		s.tree, s.root = c.Tree(), c
	}
	if _, err := s.kernel.Create(c); err != nil {
		s.Subsystem.Destroy(c, state)
		return nil, err
	}
	return state, nil
}

// Destroy is tree.Subsystem's.
func (s *kernelCpuset) Destroy(c *tree.Container, state tree.State) {
	s.kernel.Destroy(c, state)
	s.Subsystem.Destroy(c, state)
}

// CanBind is tree.CanBinder's.
func (s *kernelCpuset) CanBind(h *tree.Hierarchy) error { return s.kernel.CanBind(h) }

// WholeProcesses is tree.ProcessMover's.
func (s *kernelCpuset) WholeProcesses() bool { return s.kernel.WholeProcesses() }

// Bind is tree.Binder's.
func (s *kernelCpuset) Bind(root *tree.Container) {
	s.root = root
	s.Subsystem.Bind(root)
	s.kernel.Bind(root)
}

// Attach is tree.Attacher's.
func (s *kernelCpuset) Attach(task *tree.Task, from, to *tree.Container) (func(), error) {
	return both(s.Subsystem, s.kernel, task, from, to)
}

// Reattach is tree.Reattacher's.
func (s *kernelCpuset) Reattach(task *tree.Task, c *tree.Container) error {
	if err := s.kernel.Reattach(task, c); err != nil {
		return err
	}
	return s.Subsystem.Reattach(task, c)
}

// Fork is tree.Forker's.
func (s *kernelCpuset) Fork(parent, child *tree.Task, c *tree.Container) {
	s.Subsystem.Fork(parent, child, c)
	s.kernel.Fork(parent, child, c)
}

// Exit is tree.Exiter's.
func (s *kernelCpuset) Exit(task *tree.Task, c *tree.Container) {
	s.Subsystem.Exit(task, c)
	s.kernel.Exit(task, c)
}

// Move is tree.Mover's.
func (s *kernelCpuset) Move(task *tree.Task, from, to *tree.Container) {
	s.kernel.Move(task, from, to)
}

// PostClone is tree.PostCloner's.
func (s *kernelCpuset) PostClone(c *tree.Container) error {
	if err := s.Subsystem.PostClone(c); err != nil {
		return err
	}
	return s.sync(c)
}

// Enforce is Enforcer's: what is online is followed in the kernel's directories, too.
func (s *kernelCpuset) Enforce() {
	s.Subsystem.Enforce()
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

// Close is io.Closer's.
func (s *kernelCpuset) Close() error {
	err := s.Subsystem.Close()
	if e := s.kernel.Close(); err == nil {
		err = e
	}
	return err
}

// write is the writer of cpus or mems: ours, and then the kernel's. What the kernel
// refuses is taken back.
func (s *kernelCpuset) write(f *tree.File) func(*tree.Actor, *tree.Container, []byte) error {
	return func(a *tree.Actor, c *tree.Container, data []byte) error {
		was := s.value(c, f)
		if err := f.Write(a, c, data); err != nil {
			return err
		}
		err := s.sync(c)
		if err == nil {
			return nil
		}
		back := f.Write(a, c, []byte(was))
		if back == nil {
			back = s.sync(c)
		}
		if back != nil {
			s.kernel.Log().Error("the kernel's cpuset differs from its container's", "path", c.Path(), "err", back)
		}
		return err
	}
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
	for _, f := range []*tree.File{s.cpus, s.mems} {
		if err := s.grow(c, f); err != nil {
			return err
		}
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
	*cpuacct.Subsystem
	kernel *controller.Subsystem
	files  []tree.File
	tree   *tree.Tree
}

func newKernelCpuacct(ours *cpuacct.Subsystem, kernel *controller.Subsystem) *kernelCpuacct {
	s := &kernelCpuacct{Subsystem: ours, kernel: kernel}
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

// Files is tree.Subsystem's.
func (s *kernelCpuacct) Files() []tree.File { return s.files }

// Create is tree.Subsystem's.
func (s *kernelCpuacct) Create(c *tree.Container) (tree.State, error) {
	state, err := s.Subsystem.Create(c)
	if err != nil {
		return nil, err
	}
	s.tree = c.Tree()
	if _, err := s.kernel.Create(c); err != nil {
		s.Subsystem.Destroy(c, state)
		return nil, err
	}
	return state, nil
}

// Destroy is tree.Subsystem's.
func (s *kernelCpuacct) Destroy(c *tree.Container, state tree.State) {
	s.kernel.Destroy(c, state)
	s.Subsystem.Destroy(c, state)
}

// CanBind is tree.CanBinder's.
func (s *kernelCpuacct) CanBind(h *tree.Hierarchy) error { return s.kernel.CanBind(h) }

// Bind is tree.Binder's.
func (s *kernelCpuacct) Bind(root *tree.Container) {
	s.Subsystem.Bind(root)
	s.kernel.Bind(root)
}

// Attach is tree.Attacher's.
func (s *kernelCpuacct) Attach(task *tree.Task, from, to *tree.Container) (func(), error) {
	return both(s.Subsystem, s.kernel, task, from, to)
}

// Reattach is tree.Reattacher's.
func (s *kernelCpuacct) Reattach(task *tree.Task, c *tree.Container) error {
	return s.kernel.Reattach(task, c)
}

// Fork is tree.Forker's.
func (s *kernelCpuacct) Fork(parent, child *tree.Task, c *tree.Container) {
	s.Subsystem.Fork(parent, child, c)
	s.kernel.Fork(parent, child, c)
}

// Exit is tree.Exiter's.
func (s *kernelCpuacct) Exit(task *tree.Task, c *tree.Container) {
	s.Subsystem.Exit(task, c)
	s.kernel.Exit(task, c)
}

// Move is tree.Mover's.
func (s *kernelCpuacct) Move(task *tree.Task, from, to *tree.Container) {
	s.Subsystem.Move(task, from, to)
	s.kernel.Move(task, from, to)
}

// Enforce is Enforcer's.
func (s *kernelCpuacct) Enforce() {
	s.Subsystem.Enforce()
	s.kernel.Enforce()
}

// Close is io.Closer's.
func (s *kernelCpuacct) Close() error {
	err := s.Subsystem.Close()
	if e := s.kernel.Close(); err == nil {
		err = e
	}
	return err
}
