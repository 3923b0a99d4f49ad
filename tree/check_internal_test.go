package tree

import (
	"strings"
	"testing"
)

// empty is a host without tasks, whose events the test gives itself.
type empty struct{}

func (empty) Task(int32) (TaskInfo, error)             { return TaskInfo{}, nil }
func (empty) Owner(int32) (ruid, suid uint32, _ error) { return 0, 0, nil }
func (empty) Tasks(int32, func(TaskInfo) bool) error   { return nil }
func (empty) Drain()                                   {}
func (empty) Now() int64                               { return 0 }

type bare string

func (b bare) Name() string                   { return string(b) }
func (bare) Create(*Container) (State, error) { return nil, nil }
func (bare) Destroy(*Container, State)        {}
func (bare) Files() []File                    { return nil }

// TestCheckReportsEachInvariant breaks one thing at a time.
func TestCheckReportsEachInvariant(t *testing.T) {
	type site struct {
		t    *Tree
		h    *Hierarchy
		c, d *Container
		g    *Group // of task 2, in c
		task *Task
	}
	for name, breaks := range map[string]func(s *site){
		"under way":                 func(s *site) { s.t.moving = &move{} },
		"still marked as moving":    func(s *site) { s.task.proc.moving = true },
		"badly linked in group":     func(s *site) { s.task.prev = s.task },
		"tasks, has":                func(s *site) { s.g.ntasks++ },
		"is known as 2":             func(s *site) { s.task.tid.Store(9) },
		"is in 0 groups":            func(s *site) { s.g.tasks = nil },
		"process that is not known": func(s *site) { delete(s.t.procs, 2) },
		"which is not known":        func(s *site) { delete(s.t.tasks, 2) },
		"badly linked in process":   func(s *site) { s.task.pprev = s.task },
		"threads, has":              func(s *site) { s.task.proc.nthreads++ },
		"there are":                 func(s *site) { s.t.tasks[9] = s.task },
		"several groups": func(s *site) {
			s.t.addLocked(3, 2, 1, nil, s.t.groups.root)
			s.task.proc.mixed = false
		},
		"that is not mixed":         func(s *site) { s.t.procs[1].mixed = false },
		"children, has 1":           func(s *site) { s.t.procs[1].kids = 0 },
		"is known as 9":             func(s *site) { s.t.groups.byNum[9] = s.g },
		"same combination":          func(s *site) { s.t.groups.insert(&Group{num: 8, hash: s.g.hash, links: s.g.links}) },
		"in the hash table":         func(s *site) { delete(s.t.groups.byHash, s.g.hash) },
		"as an ordinary one":        func(s *site) { s.t.groups.idle[s.t.groups.root] = struct{}{} },
		"linked false":              func(s *site) { delete(s.t.groups.linked, s.g) },
		"bad link":                  func(s *site) { s.g.links[0].group = s.t.groups.root },
		"on the list of":            func(s *site) { s.c.links = nil },
		"linked or idle":            func(s *site) { s.t.groups.idle[&Group{}] = struct{}{} },
		"in the removed container":  func(s *site) { s.c.removed = true },
		"badly bound":               func(s *site) { s.h.slots[0] = 5 },
		"not active":                func(s *site) { s.h.active = false },
		"is bound 0 times":          func(s *site) { s.h.bound = nil },
		"states for":                func(s *site) { s.c.states = nil },
		"counts 2 css groups":       func(s *site) { s.c.linked = 2 },
		"bad child":                 func(s *site) { s.d.parent = s.d },
		"not found by its name":     func(s *site) { s.d.name = "c" },
		"children, has":             func(s *site) { s.h.root.children.holes++ },
		"populated by":              func(s *site) { s.c.populated++ },
		"descendants, has":          func(s *site) { s.c.descendants++ },
		"the tree counts":           func(s *site) { s.t.containers++ },
		`hierarchy "a" counts`:      func(s *site) { s.h.count++ },
		"not ordered by hierarchy":  func(s *site) { s.g.links = append(s.g.links, s.g.links[0]) },
		"with 0 tasks: linked true": func(s *site) { s.g.ntasks = 0 },
		"processes have 2 threads":  func(s *site) { delete(s.t.tasks, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			tr, err := New(Config{Host: empty{}, Subsystems: []Subsystem{bare("a")}})
			if err != nil {
				t.Fatal(err)
			}
			s := &site{t: tr}
			s.h, err = tr.Mount(Mount{Subsystems: 1})
			if err != nil {
				t.Fatal(err)
			}
			for _, dir := range []**Container{&s.c, &s.d} {
				*dir, err = tr.Mkdir(MkdirRequest{Parent: s.h.root, Name: string('c' + rune(len(s.h.root.children.names())))})
				if err != nil {
					t.Fatal(err)
				}
			}
			tr.Fork(ForkEvent{TID: 1, TGID: 1, StartMax: 1})
			tr.Fork(ForkEvent{ParentTID: 1, ParentTGID: 1, TID: 2, TGID: 2, StartMax: 2})
			s.task = tr.tasks[2]
			s.g = tr.groups.find(tr.groups.root, s.c)
			tr.regroupLocked(s.task, s.g)
			if err := tr.Check(); err != nil {
				t.Fatal("before it is broken:", err)
			}
			breaks(s)
			if err := tr.Check(); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("got %v, want it to say %q", err, name)
			}
		})
	}
}

func (l *childList) names() (names []string) {
	l.each(0, func(c *Container) bool { names = append(names, c.name); return true })
	return names
}

// TestGroupsOfOneHash: each is found, whichever of them is forgotten.
func TestGroupsOfOneHash(t *testing.T) {
	h := new(Hierarchy)
	for gone := range 3 {
		var gt groupTable
		gt.init()
		var groups []*Group
		var combinations [][]*Container
		c := &Container{id: 7, h: h, parent: new(Container)}
		hash := hashContainers([]*Container{c})
		for n := range 3 {
			// Containers of one id are no others' but here: they have one hash.
			of := []*Container{{id: 7, h: h, parent: c.parent}}
			groups, combinations = append(groups, gt.make(uint64(n+1), of)), append(combinations, of)
			if groups[n].hash != hash {
				t.Fatal("the hash is not of the ids")
			}
		}
		gt.forget(groups[gone])
		for n, of := range combinations {
			want := groups[n]
			if n == gone {
				want = nil
			}
			if got := gt.get(of); got != want {
				t.Errorf("%d is forgotten: of %d there is %v", gone, n, got)
			}
		}
		if gt.get([]*Container{c}) != nil || gt.byNum[groups[gone].num] != nil || len(gt.idle) != 2 {
			t.Error("there is one that was forgotten")
		}
	}
}
