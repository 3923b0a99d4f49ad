package subsys

import (
	"slices"

	"containerfs/subsys/controller"
	"containerfs/subsys/cpuset"
	"containerfs/tree"
)

// kernelCpuset is cpuset with the kernel's cpuset below it: what is in force is in
// the kernel's directories as well, so that nobody can run or allocate elsewhere,
// not even for a moment.
type kernelCpuset struct {
	pair
	ourCpuset
	cpus   *tree.File // of cpuset
	mems   *tree.File
	online string // what the base was given; changeMu
	begun  bool   // everything was given once; changeMu

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
		s.begin()
		return s.widen(c)
	})
	kernel.Again(s.setAgain)
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
// given everything by the first one, or before what needs it.
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

// Attach is tree.Attacher's. Out of the root the kernel's is in the midst of ours, which has to
// see what CPUs a task has, and can set only those that the task's place in the kernel allows.
func (s *kernelCpuset) Attach(task *tree.Task, from, to *tree.Container) (func(), error) {
	s.begin()
	if !from.IsRoot() || from == to {
		return s.pair.Attach(task, from, to)
	}
	return s.ourCpuset.AttachBy(task, from, to, func() (func(), error) { return s.kernel.Attach(task, from, to) })
}

// Reattach is tree.Reattacher's.
func (s *kernelCpuset) Reattach(task *tree.Task, c *tree.Container) error {
	s.begin()
	return s.pair.Reattach(task, c)
}

// PostClone is tree.PostCloner's.
func (s *kernelCpuset) PostClone(c *tree.Container) error {
	s.begin()
	if err := s.ourCpuset.PostClone(c); err != nil {
		return err
	}
	return s.sync(c)
}

// Enforce is Enforcer's: what is online is followed in the kernel's directories, too.
func (s *kernelCpuset) Enforce() {
	s.ours.Enforce()
	_ = s.tree.Change(func() error {
		s.follow()
		return nil
	})
	s.kernel.Enforce()
}

// follow gives the kernel everything if what is online is not what it was given last. Under
// changeMu.
func (s *kernelCpuset) follow() {
	online := s.value(s.root, s.cpus) + " " + s.value(s.root, s.mems)
	if !s.kernel.Binds(s.root) || online == s.online {
		return
	}
	if err := s.sync(s.root); err != nil {
		s.kernel.Log().Warn("what is online could not be given to the kernel's cpusets", "err", err)
	}
	s.online, s.begun = online, true
}

// begin is the first follow: directories that are new at a start, as after a boot of the host, have
// nothing, and what needs more does not wait for Enforce. Under changeMu.
func (s *kernelCpuset) begin() {
	if !s.begun {
		s.follow()
	}
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

// setAgain gives a directory that was made again what is in force. Under changeMu.
func (s *kernelCpuset) setAgain(c *tree.Container) {
	for _, f := range []*tree.File{s.cpus, s.mems} {
		if want := s.value(c, f); want != "" {
			s.complain(c, s.kernel.Set(c, "cpuset."+f.Name, want))
		}
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
