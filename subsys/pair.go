package subsys

import (
	"io"
	"slices"

	"containerfs/subsys/controller"
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
