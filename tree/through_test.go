package tree_test

import (
	"errors"
	"syscall"
	"testing"

	"containerfs/tree"
)

// through is a subsystem whose file is the host's.
type through struct {
	plain
	fetch func() ([]byte, error)
	pass  func(data []byte) error
}

func (s *through) Files() []tree.File {
	return []tree.File{{
		Name:  "f",
		Fetch: func(*tree.Container) ([]byte, error) { return s.fetch() },
		Pass:  func(_ *tree.Actor, _ *tree.Container, data []byte) error { return s.pass(data) },
	}}
}

func TestAWriteThatTheHostTakesItsTimeWithHoldsUpNothing(t *testing.T) {
	s := &through{plain: "a"}
	f := newFixture(t, true, s)
	root := f.mount(1, "")
	c := f.mkdir(root, "c")
	file := &f.Files(0)[0]
	entered, release := make(chan bool), make(chan error)
	s.pass = func([]byte) error { entered <- true; return <-release }
	done := make(chan error)
	write := func() {
		go func() { done <- f.WriteFile(&tree.Actor{}, c, file, []byte("x")) }()
		<-entered
	}
	write()

	// While it is under way, what others do goes on.
	d := f.mkdir(root, "d")
	p := f.host.Fork(1)
	f.attach(c, p)
	f.attach(d, p)
	f.wantTasks(d, p)
	s.fetch = func() ([]byte, error) { return []byte("v\n"), nil }
	if b, err := f.ReadFile(c, file, nil); err != nil || string(b) != "v\n" {
		t.Errorf("read: %q, %v", b, err)
	}
	f.wantErrno(f.Rmdir(c, nil), syscall.EBUSY)
	release <- nil
	if err := <-done; err != nil {
		t.Error(err)
	}

	write()
	release <- syscall.EAGAIN
	if err := <-done; !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("write: %v, want the host's EAGAIN", err)
	}
	if err := f.Rmdir(c, nil); err != nil {
		t.Errorf("nothing is under way: %v", err)
	}
	f.wantErrno(f.WriteFile(&tree.Actor{}, c, file, nil), syscall.ENODEV)
}

// A write that has ended is no reference that was dropped: it makes nothing
// releasable.
func TestAWriteToTheHostReleasesNothing(t *testing.T) {
	s := &through{plain: "a", pass: func([]byte) error { return nil }}
	f := newFixture(t, true, s)
	c := f.mkdir(f.mount(1, ""), "c")
	f.Update(func() { c.SetNotifyOnRelease(true) })
	if err := f.WriteFile(&tree.Actor{}, c, &f.Files(0)[0], nil); err != nil {
		t.Fatal(err)
	}
	f.View(func() {
		if c.Releasable() {
			t.Error("it is releasable")
		}
	})
}

// choosy is a subsystem that is bound to one hierarchy with another, and moves
// processes only.
type choosy struct {
	probe
	refuse func(h *tree.Hierarchy) error
}

func (c *choosy) CanBind(h *tree.Hierarchy) error {
	if c.refuse == nil {
		return nil
	}
	return c.refuse(h)
}

func (c *choosy) WholeProcesses() bool { return true }

func TestASubsystemRefusesToBeBound(t *testing.T) {
	s := &choosy{probe: probe{plain: "a"}}
	f := newFixture(t, true, s, plain("b"))
	s.refuse = func(h *tree.Hierarchy) error {
		if h != nil {
			t.Errorf("asked of %s", h.Name())
		}
		return syscall.EBUSY
	}
	before := f.state()
	_, err := f.Mount(tree.Mount{Subsystems: 3})
	f.wantErrno(err, syscall.EBUSY)
	h := f.mount(2, "").Hierarchy()
	s.refuse = func(to *tree.Hierarchy) error {
		if to != h {
			t.Errorf("asked of %v, want the one that is remounted", to)
		}
		return syscall.EBUSY
	}
	f.wantErrno(f.Remount(tree.RemountRequest{Hierarchy: h, Subsystems: 3}), syscall.EBUSY)
	if err := f.Unmount(h); err != nil {
		t.Fatal(err)
	}
	if after := f.state(); after != before {
		t.Errorf("refused, it is\n%s, was\n%s", after, before)
	}
	s.refuse = nil
	h = f.mount(2, "").Hierarchy()
	if err := f.Remount(tree.RemountRequest{Hierarchy: h, Subsystems: 3}); err != nil {
		t.Error(err)
	}
	s.refuse = func(*tree.Hierarchy) error { return syscall.EBUSY }
	if err := f.Remount(tree.RemountRequest{Hierarchy: h, Subsystems: 3}); err != nil {
		t.Errorf("it is bound there already: %v", err)
	}
}

func TestWhereOnlyProcessesMove(t *testing.T) {
	bothWays(t, func(t *testing.T, mirror bool) {
		s := &choosy{probe: probe{plain: "a"}}
		f := newFixture(t, mirror, s)
		root := f.mount(1, "")
		c := f.mkdir(root, "c")
		p := f.host.Fork(1)
		k := f.host.Thread(p)
		f.wantErrno(f.move(c, p), syscall.EOPNOTSUPP)
		f.wantErrno(f.move(c, k), syscall.EOPNOTSUPP)
		f.wantTasks(root, 1, p, k)
		if len(s.attached) != 0 {
			t.Errorf("attached %v", s.attached)
		}
		if err := f.moveProcess(c, k); err != nil {
			t.Fatal(err)
		}
		f.wantTasks(c, p, k)
		if err := f.move(c, k); err != nil {
			t.Errorf("it is there already: %v", err)
		}
		if err := f.moveProcess(root, p); err != nil {
			t.Fatal(err)
		}

		// One thread moves, with those that are born meanwhile.
		q := f.host.Fork(1)
		var late int32
		s.onAttach = func(*tree.Task, *tree.Container, *tree.Container) error {
			if late == 0 {
				late = f.host.Thread(q)
			}
			return nil
		}
		f.attach(c, q)
		f.wantTasks(c, q, late)
		f.wantErrno(f.move(c, 4000), syscall.ESRCH)
		// A thread that is alone without the first one, which has ended.
		f.host.Exit(q)
		f.wantErrno(f.move(root, q), syscall.ESRCH)
	})
}

// TestAsker: a callback is told who asked, and that nobody did where the mirror had
// a task elsewhere.
func TestAsker(t *testing.T) {
	s := &probe{plain: "a"}
	f := newFixture(t, true, s)
	root := f.mount(1, "")
	c := f.mkdir(root, "c")
	p := f.host.Fork(1)
	boss := &tree.Actor{UID: 7}
	s.onAttach = func(*tree.Task, *tree.Container, *tree.Container) error {
		if a, ok := f.Asker(); a != boss || !ok {
			t.Errorf("asked by %v, %v", a, ok)
		}
		return nil
	}
	if err := f.Attach(tree.AttachRequest{Actor: boss, To: c, ID: p}); err != nil {
		t.Fatal(err)
	}
	if a, ok := f.Asker(); ok {
		t.Errorf("nothing is under way, asked by %v", a)
	}
}
