package subsystest

import (
	"errors"
	"fmt"

	"containerfs/tree"
)

// spy is the subject with its states counted. It has every optional method: a
// missing one is a successful no-op.
type spy struct {
	tree.Subsystem
	made map[*tree.Container]tree.State
	err  error
}

func (s *spy) Create(c *tree.Container) (tree.State, error) {
	state, err := s.Subsystem.Create(c)
	if err == nil {
		s.made[c] = state
	}
	return state, err
}

func (s *spy) Destroy(c *tree.Container, state tree.State) {
	if made, ok := s.made[c]; !ok || made != state {
		s.err = errors.Join(s.err, fmt.Errorf("a state was destroyed that was not made for %s", c.Path()))
	}
	delete(s.made, c)
	s.Subsystem.Destroy(c, state)
}

func (s *spy) CanMkdir(a *tree.Actor, parent *tree.Container) error {
	if o, ok := s.Subsystem.(tree.CanMkdirer); ok {
		return o.CanMkdir(a, parent)
	}
	return nil
}

func (s *spy) PostClone(c *tree.Container) error {
	if o, ok := s.Subsystem.(tree.PostCloner); ok {
		return o.PostClone(c)
	}
	return nil
}

func (s *spy) CanAttach(a *tree.Actor, task *tree.Task, from, to *tree.Container) error {
	if o, ok := s.Subsystem.(tree.CanAttacher); ok {
		return o.CanAttach(a, task, from, to)
	}
	return nil
}

func (s *spy) Attach(task *tree.Task, from, to *tree.Container) (func(), error) {
	if o, ok := s.Subsystem.(tree.Attacher); ok {
		return o.Attach(task, from, to)
	}
	return nil, nil
}

func (s *spy) Reattach(task *tree.Task, c *tree.Container) error {
	if o, ok := s.Subsystem.(tree.Reattacher); ok {
		return o.Reattach(task, c)
	}
	return nil
}

func (s *spy) Move(task *tree.Task, from, to *tree.Container) {
	if o, ok := s.Subsystem.(tree.Mover); ok {
		o.Move(task, from, to)
	}
}

func (s *spy) Fork(parent, child *tree.Task, c *tree.Container) {
	if o, ok := s.Subsystem.(tree.Forker); ok {
		o.Fork(parent, child, c)
	}
}

func (s *spy) Exec(task *tree.Task, c *tree.Container) {
	if o, ok := s.Subsystem.(tree.Execer); ok {
		o.Exec(task, c)
	}
}

func (s *spy) Exit(task *tree.Task, c *tree.Container) {
	if o, ok := s.Subsystem.(tree.Exiter); ok {
		o.Exit(task, c)
	}
}

func (s *spy) Bind(root *tree.Container) {
	if o, ok := s.Subsystem.(tree.Binder); ok {
		o.Bind(root)
	}
}

// later is a subsystem that comes after the subject and fails when it is told to.
type later struct{ create, canAttach, attach error }

func (*later) Name() string                        { return "later" }
func (*later) Destroy(*tree.Container, tree.State) {}
func (*later) Files() []tree.File                  { return nil }

func (l *later) Create(*tree.Container) (tree.State, error) { return nil, l.create }

func (l *later) CanAttach(*tree.Actor, *tree.Task, *tree.Container, *tree.Container) error {
	return l.canAttach
}

func (l *later) Attach(*tree.Task, *tree.Container, *tree.Container) (func(), error) {
	return nil, l.attach
}
