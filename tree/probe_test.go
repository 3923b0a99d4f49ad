package tree_test

import (
	"errors"
	"syscall"

	"containerfs/tree"
)

// probe is a subsystem with every optional part. It counts who is where by its
// callbacks, and fails or does things when the test says so.
type probe struct {
	plain
	onCreate  func(c *tree.Container) error
	canAttach func(task *tree.Task, from, to *tree.Container) error
	onAttach  func(task *tree.Task, from, to *tree.Container) error
	onUndo    func(task *tree.Task)
	again     func(task *tree.Task, c *tree.Container) error
	onFork    func(parent, child *tree.Task, c *tree.Container)

	states   int // live ones
	root     *tree.Container
	forks    int
	exits    int
	attached []int32
	undone   []int32
}

func (p *probe) Create(c *tree.Container) (tree.State, error) {
	if p.onCreate != nil {
		if err := p.onCreate(c); err != nil {
			return nil, err
		}
	}
	p.states++
	return p, nil
}

func (p *probe) Destroy(*tree.Container, tree.State) { p.states-- }

func (p *probe) CanAttach(_ *tree.Actor, task *tree.Task, from, to *tree.Container) error {
	if p.canAttach == nil {
		return nil
	}
	return p.canAttach(task, from, to)
}

func (p *probe) Attach(task *tree.Task, from, to *tree.Container) (func(), error) {
	if p.onAttach != nil {
		if err := p.onAttach(task, from, to); err != nil {
			return nil, err
		}
	}
	p.attached = append(p.attached, task.TID())
	return func() {
		p.undone = append(p.undone, task.TID())
		if p.onUndo != nil {
			p.onUndo(task)
		}
	}, nil
}

func (p *probe) Reattach(task *tree.Task, c *tree.Container) error {
	if p.again == nil {
		return nil
	}
	return p.again(task, c)
}

func (p *probe) Fork(parent, child *tree.Task, c *tree.Container) {
	p.forks++
	if p.onFork != nil {
		p.onFork(parent, child, c)
	}
}

func (p *probe) Exit(*tree.Task, *tree.Container) { p.exits++ }
func (p *probe) Bind(root *tree.Container)        { p.root = root }

func (f *fixture) wantErrno(err error, want syscall.Errno) {
	f.t.Helper()
	if !errors.Is(err, want) {
		f.t.Fatalf("got %v, want %v", err, want)
	}
}

func (f *fixture) move(c *tree.Container, tid int32) error {
	return f.Attach(tree.AttachRequest{To: c, ID: tid})
}

func (f *fixture) moveProcess(c *tree.Container, tid int32) error {
	return f.Attach(tree.AttachRequest{To: c, ID: tid, Process: true})
}

// before calls do once, before the next step of that kind.
func (f *fixture) before(op string, do func()) {
	done := false
	f.host.Fail = func(what string, _ int32) error {
		if what == op && !done {
			done = true
			do()
		}
		return nil
	}
}

// at is before, or with "moved" calls right after the mirror has moved the first.
func (f *fixture) at(step string, do func()) {
	if step != "moved" {
		f.before(step, do)
		return
	}
	f.host.During = func(int32) {
		f.host.During = nil
		do()
	}
}

// resync lets the model look for itself, in the order of the events.
func (f *fixture) resync() {
	f.t.Helper()
	if err := f.host.Resync(f.Resync); err != nil {
		f.t.Fatal(err)
	}
}
