package tree_test

import (
	"fmt"
	"runtime"
	"syscall"
	"testing"

	"containerfs/tree"
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

// BenchmarkGrowth shows that attach, fork and exit cost the same however many
// containers and css groups there are.
func BenchmarkGrowth(b *testing.B) {
	for _, size := range []struct{ containers, groups int }{{1000, 10}, {1_000_000, 10}, {1_000_000, 10_000}} {
		tr, root := leanTree(b, 20_000, plain("a"))
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
		name := fmt.Sprintf("containers=%d/groups=%d/", size.containers, size.groups)
		b.Run(name+"attach", func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				attach(made[i%2*step], 15_000)
			}
		})
		tid := int32(100_000)
		b.Run(name+"fork+exit", func(b *testing.B) {
			for b.Loop() {
				tid++
				tr.Fork(tree.ForkEvent{ParentTID: 2, ParentTGID: 2, TID: tid, TGID: tid, StartMax: uint64(tid)})
				tr.Exit(tid)
			}
		})
	}
}
