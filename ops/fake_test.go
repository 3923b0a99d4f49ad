package ops

import (
	"bytes"
	"errors"
	"syscall"

	"containerfs/tree"
)

// fake is a subsystem with a value per container, which refuses what a test
// wants it to.
type fake struct {
	name   string
	id     int
	files  []string
	states int // that were created and not destroyed
	bound  *tree.Container

	create, canAttach, attach error
	attached                  int
	write                     func(data string) error
	attaching                 func() // by Attach
	measuring                 func() // called by reads of sum, before them
}

// fakes are the subsystems of a world. Two files of alpha and beta, and one of
// delta and every container, have the same name without prefixes.
func fakes() []*fake {
	return []*fake{
		{name: "alpha", id: 0, files: []string{"value", "sum", "poke"}},
		{name: "beta", id: 1, files: []string{"value"}},
		{name: "cpuset", id: 2, files: []string{"weight"}},
		{name: "delta", id: 3, files: []string{"kill"}},
	}
}

type fakeState struct{ value []byte }

func (s *fake) Name() string { return s.name }

func (s *fake) Create(c *tree.Container) (tree.State, error) {
	if s.create != nil {
		return nil, s.create
	}
	s.states++
	return &fakeState{[]byte("0\n")}, nil
}

func (s *fake) Destroy(*tree.Container, tree.State) { s.states-- }

func (s *fake) Bind(root *tree.Container) { s.bound = root }

func (s *fake) CanAttach(*tree.Actor, *tree.Task, *tree.Container, *tree.Container) error {
	return s.canAttach
}

func (s *fake) Attach(*tree.Task, *tree.Container, *tree.Container) (func(), error) {
	if s.attach != nil {
		return nil, s.attach
	}
	if s.attaching != nil {
		s.attaching()
	}
	s.attached++
	return func() { s.attached-- }, nil
}

func (s *fake) Save(c *tree.Container, b []byte) []byte {
	if v := c.State(s.id).(*fakeState).value; string(v) != "0\n" {
		return append(b, v...)
	}
	return b
}

func (s *fake) Restore(c *tree.Container, saved []byte) error {
	if len(saved) == 0 {
		saved = []byte("0\n")
	}
	c.Tree().Update(func() { c.State(s.id).(*fakeState).value = bytes.Clone(saved) })
	return nil
}

func (s *fake) Files() (rows []tree.File) {
	read := func(c *tree.Container, b []byte) ([]byte, error) {
		return append(b, c.State(s.id).(*fakeState).value...), nil
	}
	write := func(_ *tree.Actor, c *tree.Container, data []byte) error {
		if bytes.HasPrefix(data, []byte("bad")) {
			return errors.Join(errors.New("a bad value"), syscall.EDOM)
		}
		if s.write != nil {
			if err := s.write(string(data)); err != nil {
				return err
			}
		}
		c.Tree().Update(func() { c.State(s.id).(*fakeState).value = bytes.Clone(data) })
		return nil
	}
	for _, name := range s.files {
		f := tree.File{Name: name, Read: read, Write: write}
		switch name {
		case "sum":
			f.Write = nil
			f.Prepare = func(*tree.Container) error {
				if s.measuring != nil {
					s.measuring()
				}
				return nil
			}
		case "fetched": // where that has somebody measure
			f.Read, f.Write = nil, nil
			f.Prepare = func(*tree.Container) error { return nil }
			f.Fetch = func(*tree.Container) ([]byte, error) {
				s.measuring()
				return []byte("0\n"), nil
			}
		case "poke":
			f.Read = nil
		}
		rows = append(rows, f)
	}
	return rows
}
