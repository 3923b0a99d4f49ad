package tree_test

import (
	"errors"
	"slices"
	"syscall"
	"testing"
	"time"

	"containerfs/tree"
)

// keeper keeps css groups when it is told to.
type keeper struct{ kept chan struct{} }

func (keeper) KeepContainer(*tree.Container)      {}
func (keeper) KeepHierarchy(*tree.Hierarchy)      {}
func (keeper) KeepGroup(*tree.Group, bool) uint64 { return 1 }
func (k keeper) Await(uint64, bool) error         { <-k.kept; return nil }

// attacher has effects.
type attacher struct{ plain }

func (attacher) Attach(*tree.Task, *tree.Container, *tree.Container) (func(), error) { return nil, nil }

// reattacher has effects where a task is already.
type reattacher struct{ plain }

func (reattacher) Reattach(*tree.Task, *tree.Container) error { return nil }

// What asks for no wait is done where it takes microseconds; else nothing is.
func TestNoWait(t *testing.T) {
	prompt := true
	kept := make(chan struct{})
	f := newFixtureWith(t, true, func(cfg *tree.Config) {
		cfg.Subsystems = []tree.Subsystem{plain("quick"), attacher{"effects"}, reattacher{"again"}}
		cfg.Prompt = func() bool { return prompt }
		cfg.Keeper = keeper{kept}
	})
	quick, effects, again := f.mount(1, ""), f.mount(2, ""), f.mount(4, "")
	a, b := f.mkdir(quick, "a"), f.mkdir(effects, "b")
	p := f.host.Fork(1)
	f.Drain()
	refused := func(why string, r tree.AttachRequest) {
		t.Helper()
		r.ID, r.NoWait = p, true
		if err := f.Attach(r); err != tree.ErrWouldWait {
			t.Errorf("%s: %v", why, err)
		}
		f.wantTasks(quick, 1, p)
		f.wantTasks(effects, 1, p)
	}
	refused("a css group that is not kept yet", tree.AttachRequest{To: a})
	close(kept)
	for _, c := range []*tree.Container{a, b, quick, effects} { // these are kept
		f.attach(c, p)
	}

	refused("a process", tree.AttachRequest{To: a, Process: true})
	refused("effects", tree.AttachRequest{To: b})
	refused("effects where it is", tree.AttachRequest{To: again})
	refused("effects in the second", tree.AttachRequest{To: a, Also: []*tree.Container{b}})
	prompt = false
	refused("a slow host", tree.AttachRequest{To: a})
	prompt = true

	// While a change is under way that can take long.
	end, begun, ended := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() { ended <- f.Change(func() error { close(begun); <-end; return nil }) }()
	<-begun
	refused("a long change", tree.AttachRequest{To: a})
	if err := f.ChangeBriefly(false, func() error { return nil }); err != tree.ErrWouldWait {
		t.Errorf("a brief change: %v", err)
	}
	waits := make(chan error)
	go func() { waits <- f.ChangeBriefly(true, func() error { return nil }) }()
	select {
	case err := <-waits:
		t.Errorf("a brief change did not wait: %v", err)
	case <-time.After(10 * time.Millisecond):
	}
	close(end)
	if err := errors.Join(<-ended, <-waits); err != nil {
		t.Error(err)
	}

	if err := f.Attach(tree.AttachRequest{To: a, ID: p, NoWait: true}); err != nil {
		t.Fatal(err)
	}
	f.wantTasks(a, p)
	if err := f.Attach(tree.AttachRequest{To: a, ID: 999, NoWait: true}); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("of nobody: %v", err)
	}
}

// A brief change that waits for another is not a reason for others to give up: else all
// would, for as long as there are some.
func TestBriefChangesWaitForEachOther(t *testing.T) {
	f := newFixture(t, false, plain("a"))
	end, begun, ended := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() { ended <- f.ChangeBriefly(true, func() error { close(begun); <-end; return nil }) }()
	<-begun
	time.AfterFunc(10*time.Millisecond, func() { close(end) })
	if err := f.ChangeBriefly(false, func() error { return nil }); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// Many brief changes are as long as one that is long.
func TestManyBriefChanges(t *testing.T) {
	f := newFixture(t, false, plain("a"))
	end, begun := make(chan struct{}), make(chan struct{})
	const callers = 40
	errs := make(chan error, callers)
	go func() { errs <- f.ChangeBriefly(true, func() error { close(begun); <-end; return nil }) }()
	<-begun
	for range callers - 1 {
		go func() { errs <- f.ChangeBriefly(false, func() error { return nil }) }()
	}
	gaveUp := 0
	for range callers - 1 - 16 {
		if err := <-errs; err != tree.ErrWouldWait {
			t.Errorf("got %v", err)
		}
		gaveUp++
	}
	close(end)
	for range callers - gaveUp {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if err := f.ChangeBriefly(false, func() error { return nil }); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// refusing is a keeper that cannot keep css groups.
type refusing struct {
	keeper
	inside []bool
	err    error
}

func (k *refusing) Await(_ uint64, inside bool) error {
	k.inside = append(k.inside, inside)
	return k.err
}

// TestGroupThatCannotBeKept: nobody is in it. Who makes a container and moves a process into it in
// one change waits inside of that.
func TestGroupThatCannotBeKept(t *testing.T) {
	k := &refusing{err: syscall.ENOSPC}
	f := newFixtureWith(t, true, func(cfg *tree.Config) {
		cfg.Subsystems = []tree.Subsystem{plain("a")}
		cfg.Keeper = k
	})
	r := f.mount(1, "")
	c := f.mkdir(r, "c")
	p := f.host.Fork(1)
	f.wantErrno(f.move(c, p), syscall.ENOSPC)
	f.Drain()
	clone := tree.CloneRequest{Actor: root, Process: f.process(p)}
	_, err := f.Clone(clone)
	f.wantErrno(err, syscall.ENOSPC)
	f.wantTasks(r, 1, p)
	if r.NumChildren() != 1 {
		t.Errorf("%d containers, want c alone", r.NumChildren())
	}
	k.err = nil
	to, err := f.Clone(clone)
	if err != nil {
		t.Fatal(err)
	}
	f.wantTasks(to, p)
	if want := []bool{false, true, true}; !slices.Equal(k.inside, want) {
		t.Errorf("waited inside of a change %v, want %v", k.inside, want)
	}
}

// What was prompt may be so no more when it is a change's turn.
func TestNoWaitAsksAgain(t *testing.T) {
	asked := 0
	f := newFixtureWith(t, true, func(cfg *tree.Config) {
		cfg.Subsystems = []tree.Subsystem{plain("a")}
		cfg.Prompt = func() bool { asked++; return asked == 1 }
	})
	root := f.mount(1, "")
	c := f.mkdir(root, "c")
	p := f.host.Fork(1)
	if err := f.Attach(tree.AttachRequest{To: c, ID: p, NoWait: true}); err != tree.ErrWouldWait {
		t.Errorf("got %v", err)
	}
	f.wantTasks(root, 1, p)
}
