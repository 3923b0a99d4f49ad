package subsystest

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"containerfs/tree"
	"containerfs/tree/hostsim"
)

// number is a subsystem with one number per container, that can be broken in many
// ways.
type number struct {
	broken string
	states []*int // all of them, where that is the fault
	shared int
	calls  int
	root   *tree.Container
}

func (s *number) Name() string { return "number" }

func (s *number) Create(c *tree.Container) (tree.State, error) {
	n := new(int)
	switch {
	case s.broken == "keeps states":
		s.states = append(s.states, n)
	case s.broken == "keeps values" && !c.IsRoot():
		*n = s.shared
	case s.broken == "shares states" && !c.IsRoot():
		n = &s.shared
	}
	if c.IsRoot() {
		s.root = c
	}
	return n, nil
}

func (s *number) Destroy(*tree.Container, tree.State) {}

func (s *number) state(c *tree.Container) *int { return c.State(0).(*int) }

func (s *number) Files() []tree.File {
	s.calls++
	files := []tree.File{{Name: "n", Read: s.read, Write: s.write}}
	switch {
	case s.broken == "two of a name":
		files = append(files, files[0])
	case s.broken == "no access":
		files = append(files, tree.File{Name: "x"})
	case s.broken == "changes its table" && s.calls > 2:
		files = append(files, tree.File{Name: "x", Read: s.read})
	}
	return files
}

func (s *number) read(c *tree.Container, b []byte) ([]byte, error) {
	switch {
	case s.broken == "not readable while empty" && !c.IsRoot() && c.NumTasks() == 0:
		return b, syscall.ENODATA
	case s.broken == "no newline":
		return append(b, '1'), nil
	case s.broken == "restless":
		*s.state(c)++
	case s.broken == "not readable with tasks" && c.NumTasks() > 2:
		return b, syscall.EIO
	}
	return append(strconv.AppendInt(b, int64(*s.state(c)), 10), '\n'), nil
}

func (s *number) write(_ *tree.Actor, c *tree.Container, text []byte) error {
	n, err := strconv.ParseUint(strings.TrimSuffix(string(text), "\n"), 10, 31)
	if s.broken == "half a write" {
		*s.state(c) = int(n)
	}
	if err != nil {
		if s.broken == "takes everything" {
			return nil
		}
		return errors.Join(err, syscall.EINVAL)
	}
	switch s.broken {
	case "keeps values":
		s.shared = int(n)
	case "writes nothing":
		return nil
	}
	c.Tree().Update(func() { *s.state(c) = int(n) })
	return nil
}

func (s *number) Attach(_ *tree.Task, from, to *tree.Container) (func(), error) {
	if s.broken == "no undo" {
		*s.state(to)++
	}
	return nil, nil
}

func (s *number) CanAttach(_ *tree.Actor, _ *tree.Task, from, to *tree.Container) error {
	if s.broken == "decides by history" {
		if *s.state(to)++; *s.state(to) > 1 {
			return syscall.EPERM
		}
	}
	return nil
}

func (s *number) Fork(_, _ *tree.Task, c *tree.Container) {
	if s.broken == "counts for all" {
		c.Hierarchy().Root().Children(0, func(k *tree.Container) bool { *s.state(k)++; return true })
	}
}

func (s *number) Bind(root *tree.Container) {
	if s.broken == "forgets when bound" && root != s.root {
		root.Tree().Update(func() { *s.state(root) = 0 })
	}
}

func (s *number) Save(c *tree.Container, b []byte) []byte {
	n := uint64(*s.state(c))
	switch {
	case s.broken == "saves nothing":
		return b
	case s.broken == "saves too little" && n > 5:
		n = 5
	case s.broken == "saves what is new":
	case n == 0:
		return b
	}
	return tree.AppendNumbers(b, n, 1)
}

func (s *number) Restore(c *tree.Container, b []byte) error {
	var n, one uint64
	if len(b) > 0 {
		if err := tree.Numbers(b, &n, &one); err != nil && s.broken != "restores anything" {
			return err
		}
	} else if s.broken == "restores over what is there" {
		return nil
	}
	if s.broken == "forgets the root" && c.IsRoot() {
		return nil
	}
	c.Tree().Update(func() { *s.state(c) = int(n) })
	return nil
}

// forgetful is a number that is no Saver.
type forgetful struct{ tree.Subsystem }

func setup(broken string) Setup {
	return Setup{
		New: func(*hostsim.Host) tree.Subsystem {
			if broken == "is no Saver" {
				return forgetful{&number{}}
			}
			return &number{broken: broken}
		},
		Values:     []Write{{"n", "7"}},
		RootValues: []Write{{"n", "8\n"}},
	}
}

func TestSound(t *testing.T) { Run(t, setup("")) }

// TestBroken proves that each rule can fail.
func TestBroken(t *testing.T) {
	proven := make(map[string]bool)
	for _, test := range []struct{ broken, rule string }{
		{"two of a name", "table of files"},
		{"no access", "table of files"},
		{"changes its table", "table of files"},
		{"keeps states", "create and destroy pair up"},
		{"keeps values", "create and destroy pair up"},
		{"shares states", "siblings are independent"},
		{"counts for all", "siblings are independent"},
		{"writes nothing", "siblings are independent"},
		{"no undo", "a refused attach changes nothing"},
		{"decides by history", "a refused attach changes nothing"},
		{"not readable while empty", "files are readable while empty"},
		{"no newline", "files are readable while empty"},
		{"restless", "files are readable while empty"},
		{"half a write", "a refused write changes nothing"},
		{"takes everything", "a refused write changes nothing"},
		{"forgets when bound", "bind and unbind keep the root's state"},
		{"not readable with tasks", "tasks come and go"},
		{"is no Saver", "saved and restored state is equal"},
		{"saves nothing", "saved and restored state is equal"},
		{"saves too little", "saved and restored state is equal"},
		{"saves what is new", "saved and restored state is equal"},
		{"restores anything", "saved and restored state is equal"},
		{"restores over what is there", "saved and restored state is equal"},
		{"forgets the root", "saved and restored state is equal"},
	} {
		t.Run(test.broken, func(t *testing.T) {
			for _, r := range rules {
				if r.name != test.rule {
					continue
				}
				proven[r.name] = true
				if err := setup(test.broken).check(r); err == nil {
					t.Errorf("%q finds nothing wrong", r.name)
				} else {
					t.Log(err)
				}
			}
		})
	}
	for _, r := range rules {
		if !proven[r.name] {
			t.Errorf("nothing proves that %q can fail", r.name)
		}
	}
}

// The spy finds states that the Tree does not pair.
func TestSpy(t *testing.T) {
	s := &spy{Subsystem: &number{}, made: make(map[*tree.Container]tree.State)}
	tr, err := tree.New(tree.Config{Host: hostsim.New(), Subsystems: []tree.Subsystem{s}})
	if err != nil {
		t.Fatal(err)
	}
	h, err := tr.Mount(tree.Mount{Subsystems: 1})
	if err != nil {
		t.Fatal(err)
	}
	s.Destroy(h.Root(), new(int))
	if s.err == nil || !strings.Contains(fmt.Sprint(s.err), "not made") {
		t.Errorf("got %v", s.err)
	}
}
