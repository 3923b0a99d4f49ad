package tree_test

import (
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"containerfs/tree"
	"containerfs/tree/hostsim"
)

// lean is a host that costs nothing: every tid up to its number lives. The
// benchmarks give the events themselves.
type lean int32

func (h lean) Task(tid int32) (tree.TaskInfo, error) {
	if tid < 1 || tid > int32(h) {
		return tree.TaskInfo{}, syscall.ESRCH
	}
	return tree.TaskInfo{TID: tid, TGID: tid, PPID: min(tid-1, 1), Start: uint64(tid)}, nil
}
func (lean) Owner(int32) (ruid, suid uint32, err error) { return 0, 0, nil }
func (lean) Drain()                                     {}
func (lean) Now() int64                                 { return 1 }
func (h lean) Tasks(tgid int32, yield func(tree.TaskInfo) bool) error {
	if i, err := h.Task(tgid); err == nil {
		yield(i)
	}
	return nil
}

func leanTree(tb testing.TB, tasks int, subsystems ...tree.Subsystem) (*tree.Tree, *tree.Container) {
	tr, err := tree.New(tree.Config{Host: lean(1 << 30), Subsystems: subsystems})
	if err != nil {
		tb.Fatal(err)
	}
	h, err := tr.Mount(tree.Mount{Subsystems: 1<<len(subsystems) - 1})
	if err != nil {
		tb.Fatal(err)
	}
	for tid := int32(1); tid <= int32(tasks); tid++ {
		forkAs(tr, tid)
	}
	return tr, h.Root()
}

// forkAs tells of a child of task 1.
func forkAs(tr *tree.Tree, tid int32) {
	tr.Fork(tree.ForkEvent{ParentTID: min(tid-1, 1), ParentTGID: min(tid-1, 1), TID: tid, TGID: tid, StartMax: uint64(tid)})
}

// grow makes n containers: half of them a thousand to a parent, most others ten
// to a parent, and some in chains of a hundred.
func grow(tb testing.TB, tr *tree.Tree, root *tree.Container, n int) (made []*tree.Container) {
	mkdir := func(p *tree.Container) *tree.Container {
		c, err := tr.Mkdir(tree.MkdirRequest{Parent: p, Name: fmt.Sprintf("container-%d", len(made))})
		if err != nil {
			tb.Fatal(err)
		}
		made = append(made, c)
		return c
	}
	fan := func(limit, width int) {
		for queue := []*tree.Container{mkdir(root)}; len(made) < limit; queue = queue[1:] {
			for range width {
				queue = append(queue, mkdir(queue[0]))
			}
		}
	}
	fan(n/2, 1000)
	fan(n-n/100, 10)
	for len(made) < n {
		c := mkdir(root)
		for range 99 {
			c = mkdir(c)
		}
	}
	return made
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// weigh measures the bytes of a container and of a task, less what the test
// itself keeps of them.
func weigh(tb testing.TB, containers, tasks, subsystems int) (perContainer, perTask float64) {
	var subs []tree.Subsystem
	for i := range subsystems {
		subs = append(subs, plain(fmt.Sprint("s", i)))
	}
	tr, root := leanTree(tb, 0, subs...)
	before := heap()
	made := grow(tb, tr, root, containers)
	n := len(made)
	made = nil
	perContainer = float64(heap()-before) / float64(n)
	before = heap()
	for tid := int32(1); tid <= int32(tasks); tid++ {
		forkAs(tr, tid)
	}
	perTask = float64(heap()-before) / float64(tasks)
	runtime.KeepAlive(tr)
	return perContainer, perTask
}

func wantBudget(tb testing.TB, containers, tasks int) (one, perSubsystem, task float64) {
	one, task = weigh(tb, containers, tasks, 1)
	five, _ := weigh(tb, containers, 1, 5)
	perSubsystem = (five - one) / 4
	if one-perSubsystem > 600 || perSubsystem > 96 || task > 200 {
		tb.Errorf("%.0f bytes for a container, %.0f more for a subsystem, %.0f for a task; want at most 600, 96, 200",
			one-perSubsystem, perSubsystem, task)
	}
	return one - perSubsystem, perSubsystem, task
}

// TestMemoryBudget holds the sizes that SPEC's million containers need.
func TestMemoryBudget(t *testing.T) {
	one, sub, task := wantBudget(t, 50_000, 50_000)
	t.Logf("container %.0f, subsystem %.0f, task %.0f bytes", one, sub, task)
}

func BenchmarkMillion(b *testing.B) {
	for b.Loop() {
		one, sub, task := wantBudget(b, 1_000_000, 1_000_000)
		b.ReportMetric(one, "B/container")
		b.ReportMetric(sub, "B/subsystem")
		b.ReportMetric(task, "B/task")
	}
}

// BenchmarkGrowth shows that nothing costs more than twice as much with a million
// containers, ten thousand css groups and a million tasks as with a thousand, ten and as
// many. The directory that is used has a thousand children in all of them.
func BenchmarkGrowth(b *testing.B) {
	for _, size := range []struct{ containers, groups, tasks int }{
		{1000, 10, 20_000}, {1_000_000, 10, 20_000}, {1_000_000, 10_000, 20_000}, {1_000_000, 10_000, 1_000_000},
	} {
		tr, root := leanTree(b, size.tasks, plain("a"))
		made := grow(b, tr, root, size.containers)
		attach := func(c *tree.Container, tid int32) {
			if err := tr.Attach(tree.AttachRequest{To: c, ID: tid}); err != nil {
				b.Fatal(err)
			}
		}
		step := len(made) / size.groups
		for i := range size.groups {
			attach(made[i*step], int32(2+i))
		}
		name := fmt.Sprintf("containers=%d/groups=%d/tasks=%d/", size.containers, size.groups, size.tasks)
		b.Run(name+"attach", func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				attach(made[i%2*step], 15_000)
			}
		})
		b.Run(name+"css group", func(b *testing.B) {
			// Each attach is to another container, whose group is there.
			for i := 0; b.Loop(); i++ {
				attach(made[i%size.groups*step], 15_000)
			}
		})
		dir := made[0]
		b.Run(name+"mkdir+rmdir", func(b *testing.B) {
			for b.Loop() {
				c, err := tr.Mkdir(tree.MkdirRequest{Parent: dir, Name: "new"})
				if err == nil {
					err = tr.Rmdir(c, func() error { return nil })
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"rename", func(b *testing.B) {
			// One without children: a rename looks at all that is below.
			names := [2]string{made[1000].Name(), "other"}
			for i := 0; b.Loop(); i++ {
				err := tr.Rename(tree.RenameRequest{Parent: dir, Old: names[i%2], New: names[(i+1)%2]})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
		deep := []string{dir.Name(), made[1000].Name()}
		b.Run(name+"walk", func(b *testing.B) {
			for b.Loop() {
				tr.View(func() {
					c := root
					for _, name := range deep {
						c = c.Child(name)
					}
					if c == nil {
						b.Fatal("not found")
					}
				})
			}
		})
		b.Run(name+"page of 100", func(b *testing.B) {
			for after := uint64(0); b.Loop(); {
				n := 0
				tr.View(func() {
					dir.Children(after, func(c *tree.Container) bool { n++; after = c.ID(); return n < 100 })
				})
				if n < 100 {
					after = 0
				}
			}
		})
		tid := int32(10_000_000)
		b.Run(name+"fork+exit", func(b *testing.B) {
			for b.Loop() {
				tid++
				tr.Fork(tree.ForkEvent{ParentTID: 2, ParentTGID: 2, TID: tid, TGID: tid, StartMax: uint64(tid)})
				tr.Exit(tid)
			}
		})
	}
}

// TestFamiliesGrowth: what a look at all families costs, with changes and events shut out, grows
// with their number, and neither with that of their threads nor with how many are above each.
func TestFamiliesGrowth(t *testing.T) {
	fork := func(tr *tree.Tree, parent, tid, tgid int32) {
		tr.Fork(tree.ForkEvent{ParentTID: parent, ParentTGID: parent, TID: tid, TGID: tgid, StartMax: uint64(tid)})
	}
	// Each has the last of them in a container.
	shapes := []struct {
		name string
		fill func(tr *tree.Tree, n int32) (last int32)
	}{
		{"children of one thread", func(tr *tree.Tree, n int32) int32 {
			for tid := int32(2); tid < 2+2*n; tid++ {
				fork(tr, min(tid-1, 2), tid, tid)
			}
			return 1 + 2*n
		}},
		{"children of many threads", func(tr *tree.Tree, n int32) int32 {
			fork(tr, 1, 2, 2)
			for tid := int32(3); tid < 3+n; tid++ {
				fork(tr, 1, tid, 2)
				fork(tr, 2, tid+n, tid+n)
			}
			return 2 + n + n
		}},
		{"a long line", func(tr *tree.Tree, n int32) int32 {
			for tid := int32(2); tid < 2+2*n; tid++ {
				fork(tr, tid-1, tid, tid)
			}
			return 1 + 2*n
		}},
	}
	looks := []struct {
		name string
		look func(tr *tree.Tree)
	}{
		{"Places", func(tr *tree.Tree) { tr.View(func() { tr.Places(func(int32, tree.Place) {}) }) }},
		{"Check", func(tr *tree.Tree) {
			if err := tr.Check(); err != nil {
				t.Error(err)
			}
		}},
	}
	usual := make([]time.Duration, len(looks))
	for i, shape := range shapes {
		tr, root := leanTree(t, 0, plain("a")) // without 1, which the host has for the parent of all
		last := shape.fill(tr, 15_000)
		c, err := tr.Mkdir(tree.MkdirRequest{Parent: root, Name: "c"})
		if err == nil {
			err = tr.Attach(tree.AttachRequest{To: c, ID: last})
		}
		if err != nil {
			t.Fatal(err)
		}
		for j, l := range looks {
			least := time.Hour
			for range 3 {
				began := time.Now()
				l.look(tr)
				least = min(least, time.Since(began))
			}
			if i == 0 {
				usual[j] = least
			} else if least > 20*usual[j] {
				t.Errorf("%s, %s: %v, of %s as many are looked at in %v", l.name, shape.name, least, shapes[0].name, usual[j])
			}
		}
	}
}

// BenchmarkManyThreads moves a process there and back: what a thread costs must not
// grow with their number.
func BenchmarkManyThreads(b *testing.B) {
	for _, threads := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("threads=%d", threads), func(b *testing.B) {
			host := hostsim.New()
			tr, err := tree.New(tree.Config{Host: host, Mirror: host.Mirror(), Subsystems: []tree.Subsystem{plain("a")}})
			if err != nil {
				b.Fatal(err)
			}
			host.Run(tr)
			p := host.Fork(1)
			for range threads - 1 {
				host.Thread(p)
			}
			h, err := tr.Mount(tree.Mount{Subsystems: 1})
			if err != nil {
				b.Fatal(err)
			}
			c, err := tr.Mkdir(tree.MkdirRequest{Parent: h.Root(), Name: "c"})
			if err != nil {
				b.Fatal(err)
			}
			n := 0
			for b.Loop() {
				for _, to := range []*tree.Container{c, h.Root()} {
					if err := tr.Attach(tree.AttachRequest{To: to, ID: p, Process: true}); err != nil {
						b.Fatal(err)
					}
					n += threads
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/thread")
		})
	}
}
