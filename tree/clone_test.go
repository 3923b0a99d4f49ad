package tree_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"containerfs/tree"
	"containerfs/tree/hostsim"
)

// cloner is a subsystem with rules of its own and a record of what it is told.
type cloner struct {
	plain
	log               []string
	postClone, attach error
	counts            map[*tree.Container]int
	tree              *tree.Tree
}

func (s *cloner) Create(c *tree.Container) (tree.State, error) {
	s.tree = c.Tree()
	s.log = append(s.log, "create "+c.Name())
	return new(int), nil
}

func (s *cloner) Destroy(c *tree.Container, _ tree.State) {
	s.log = append(s.log, "destroy "+c.Name())
}

func (s *cloner) CanMkdir(a *tree.Actor, _ *tree.Container) error {
	if a == nil || !a.Privileged {
		return syscall.EPERM
	}
	return nil
}

func (s *cloner) PostClone(c *tree.Container) error {
	s.log = append(s.log, "post "+c.Name())
	if c.Parent().Child(c.Name()) != nil {
		s.log = append(s.log, "visible")
	}
	return s.postClone
}

func (s *cloner) Attach(*tree.Task, *tree.Container, *tree.Container) (func(), error) {
	return nil, s.attach
}

func (s *cloner) count(c *tree.Container, n int) {
	if s.counts == nil {
		s.counts = make(map[*tree.Container]int)
	}
	s.counts[key(c)] += n
}

// key is one for all roots: the subsystem's tasks are in one after the other.
func key(c *tree.Container) *tree.Container {
	if c.IsRoot() {
		return nil
	}
	return c
}

func (s *cloner) Fork(_, _ *tree.Task, c *tree.Container) { s.count(c, 1) }
func (s *cloner) Exit(_ *tree.Task, c *tree.Container)    { s.count(c, -1) }
func (s *cloner) Move(_ *tree.Task, from, to *tree.Container) {
	s.count(from, -1)
	s.count(to, 1)
}

func (s *cloner) Exec(task *tree.Task, c *tree.Container) {
	s.log = append(s.log, fmt.Sprintf("exec %d in %s", task.TID(), c.Path()))
}

// agree compares what fork, exit and move told with where the tasks are.
func (s *cloner) agree(t *testing.T, containers ...*tree.Container) {
	t.Helper()
	s.tree.Drain()
	s.tree.View(func() {
		for _, c := range containers {
			if got, want := s.counts[key(c)], c.NumTasks(); got != want {
				t.Errorf("the callbacks tell of %d tasks in %s, there are %d", got, c.Path(), want)
			}
		}
	})
}

var root = &tree.Actor{Privileged: true, Local: true}

// process is the process of a task.
func (f *fixture) process(tid int32) (p *tree.Process) {
	f.t.Helper()
	f.Drain()
	f.View(func() { p = f.Task(tid).Process() })
	return p
}

// TestCloneOfWhoIsGone: nothing is made for another of its number, or for what is left of it.
func TestCloneOfWhoIsGone(t *testing.T) {
	for name, end := range map[string]func(f *fixture, p int32){
		"ended":                   func(f *fixture, p int32) { f.host.Exit(p) },
		"its number is in use":    func(f *fixture, p int32) { f.host.Exit(p); f.host.ForkAs(1, p) },
		"its first thread ended":  func(f *fixture, p int32) { f.host.Thread(p); f.host.Exit(p) },
		"since it was looked up":  func(f *fixture, p int32) { f.lookOnce(1, func() { f.host.Exit(p); f.host.Drain() }) },
		"right after the look":    func(f *fixture, p int32) { f.looked(1, func() { f.host.Exit(p); f.host.Drain() }) },
		"replaced after the look": func(f *fixture, p int32) { f.looked(1, func() { f.host.Exit(p); f.host.ForkAs(1, p); f.host.Drain() }) },
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, mirror bool) {
				f := newFixture(t, mirror, &cloner{plain: "s"})
				r := f.mount(1, "")
				p := f.host.Fork(1)
				process := f.process(p)
				end(f, p)
				_, err := f.Clone(tree.CloneRequest{Actor: root, Process: process})
				f.wantErrno(err, syscall.ESRCH)
				if n := r.NumChildren(); n != 0 {
					t.Errorf("%d containers were made", n)
				}
			})
		})
	}
}

func TestClone(t *testing.T) {
	bothWays(t, func(t *testing.T, mirror bool) {
		s := &cloner{plain: "s"}
		f := newFixture(t, mirror, s, plain("other"))
		r := f.mount(3, "")
		a := f.mkdirAs(root, r, "a")
		p := f.host.Fork(1)
		f.attach(a, p)
		th := f.host.Thread(p)
		s.log = nil
		c, err := f.Clone(tree.CloneRequest{Actor: root, Subsystem: 0, Process: f.process(p)})
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("node_%d", p)
		if c.Path() != "/a/"+name {
			t.Errorf("made %s", c.Path())
		}
		if want := []string{"create " + name, "post " + name}; !slices.Equal(s.log, want) {
			t.Errorf("calls %q, want %q", s.log, want)
		}
		f.wantTasks(c, p, th)
		f.wantTasks(a)

		// Where it is again, the name of the child is free.
		c2, err := f.Clone(tree.CloneRequest{Actor: root, Subsystem: 1, Process: f.process(p)})
		if err != nil || c2.Path() != "/a/"+name+"/"+name {
			t.Fatalf("made %v, %v", c2, err)
		}
		// Back in a, it is taken.
		f.attach(a, p)
		f.attach(a, th)
		info, _ := f.host.Task(p)
		c3, err := f.Clone(tree.CloneRequest{Actor: root, Process: f.process(p)})
		if want := fmt.Sprintf("%s_%d", name, info.Start); err != nil || c3.Name() != want {
			t.Fatalf("made %v, %v, want %s", c3, err, want)
		}
		f.wantTasks(c3, p, th)
		s.agree(t, r, a, c, c2, c3)
	})
}

func (f *fixture) mkdirAs(a *tree.Actor, p *tree.Container, name string) *tree.Container {
	f.t.Helper()
	c, err := f.Mkdir(tree.MkdirRequest{Actor: a, Parent: p, Name: name})
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

func TestCloneRefused(t *testing.T) {
	s := &cloner{plain: "s"}
	f := newFixture(t, true, s, plain("unbound"))
	r := f.mount(1, "")
	p := f.host.Fork(1)
	proc := f.process(p)
	ended := f.host.Fork(1)
	endedProc := f.process(ended)
	f.host.Exit(ended)
	for _, test := range []struct {
		name  string
		set   func()
		req   tree.CloneRequest
		errno syscall.Errno
		calls string
	}{
		{"unbound", nil, tree.CloneRequest{Actor: root, Subsystem: 1, Process: proc}, syscall.ENODEV, ""},
		{"ended", nil, tree.CloneRequest{Actor: root, Process: endedProc}, syscall.ESRCH, ""},
		{"nobody", nil, tree.CloneRequest{Process: proc}, syscall.EPERM, ""},
		{"not privileged", nil, tree.CloneRequest{Actor: &tree.Actor{UID: 5}, Process: proc}, syscall.EPERM, ""},
		{"allow", nil, tree.CloneRequest{Actor: root, Process: proc, Allow: func(from *tree.Container) error {
			if from != r {
				t.Errorf("asked about %s", from.Path())
			}
			return syscall.EALREADY
		}}, syscall.EALREADY, ""},
		{"post clone", func() { s.postClone = syscall.ENOMEM }, tree.CloneRequest{Actor: root, Process: proc}, syscall.ENOMEM, "create post destroy"},
		{"attach", func() { s.attach = syscall.EIO }, tree.CloneRequest{Actor: root, Process: proc}, syscall.EIO, "create post destroy"},
		{"limit", func() { f.Update(func() { r.SetLimits(tree.Limits{Descendants: 0, Depth: tree.NoLimit}) }) }, tree.CloneRequest{Actor: root, Process: proc}, syscall.EAGAIN, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s.log, s.postClone, s.attach = nil, nil, nil
			if test.set != nil {
				test.set()
			}
			c, err := f.Clone(test.req)
			if c != nil || !errors.Is(err, test.errno) {
				t.Errorf("got %v, %v, want %v", c, err, test.errno)
			}
			var op *tree.OpError
			if !errors.As(err, &op) || op.Op != "clone" {
				t.Errorf("the error %v does not say that it is clone's", err)
			}
			var calls []string
			for _, l := range s.log {
				word, _, _ := strings.Cut(l, " ")
				calls = append(calls, word)
			}
			if got := strings.Join(calls, " "); got != test.calls {
				t.Errorf("calls %q, want %q", got, test.calls)
			}
			if r.NumChildren() != 0 {
				t.Errorf("%d containers are left", r.NumChildren())
			}
			f.wantTasks(r, hostsim.InitTID, p)
			s.agree(t, r)
		})
	}
}

// A child that is forked while its forker is attached to the new container is
// there too, and Move tells of every task that is elsewhere than Fork said, also
// when it is all undone.
func TestMoveIsToldExactly(t *testing.T) {
	bothWays(t, func(t *testing.T, mirror bool) {
		for _, fails := range []bool{false, true} {
			s := &cloner{plain: "s"}
			f := newFixture(t, mirror, s)
			r := f.mount(1, "")
			p := f.host.Fork(1)
			proc := f.process(p)
			f.host.During = func(int32) {
				f.host.During = nil
				f.host.Fork(p)
				f.host.Thread(p)
			}
			if fails {
				s.attach = syscall.EIO
			}
			c, err := f.Clone(tree.CloneRequest{Actor: root, Process: proc})
			if fails != (err != nil) {
				t.Fatal(err)
			}
			if fails {
				s.agree(t, r)
				continue
			}
			s.agree(t, r, c)
			f.host.Steal(p, 0)
			f.Audit()
			s.agree(t, r, c)
		}
	})
}

func TestExecIsTold(t *testing.T) {
	s := &cloner{plain: "s"}
	f := newFixture(t, true, s)
	a := f.mkdirAs(root, f.mount(1, ""), "a")
	p := f.host.Fork(1)
	th := f.host.Thread(p)
	f.attach(a, p)
	f.attach(a, th)
	s.log = nil
	f.host.Exec(th)
	f.Drain()
	if want := []string{fmt.Sprintf("exec %d in /a", p)}; !slices.Equal(s.log, want) {
		t.Errorf("told %q, want %q", s.log, want)
	}
	s.agree(t, a)
}

// seen keeps the limit events that it is told of.
type seen []string

func (s *seen) Observe(e tree.Event) {
	if e.Kind == tree.Limited {
		*s = append(*s, e.Container.Path()+" "+e.Name)
	}
}

func TestPublish(t *testing.T) {
	var got seen
	h := hostsim.New()
	tr, err := tree.New(tree.Config{Host: h, Observer: &got, Subsystems: []tree.Subsystem{plain("s")}})
	if err != nil {
		t.Fatal(err)
	}
	hier, err := tr.Mount(tree.Mount{Subsystems: 1})
	if err != nil {
		t.Fatal(err)
	}
	tr.Update(func() { tr.Publish(hier.Root(), "s.limit") })
	if !slices.Equal(got, seen{"/ s.limit"}) {
		t.Errorf("observed %q", got)
	}
	if err := tr.Check(); err != nil {
		t.Error(err)
	}
}
