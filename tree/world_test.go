package tree_test

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"syscall"

	"containerfs/tree"
	"containerfs/tree/hostsim"
)

// places is where a task is, for the hierarchies in which it is not in the root.
type places map[*tree.Hierarchy]*tree.Container

// world is a Tree over a simulated host beside the naive model: of each task its
// places, of each child those of who really forked it.
type world struct {
	*tree.Tree
	host   *hostsim.Host
	mirror bool
	choose func(n int) int // from 0 to n-1
	subs   []*probe

	where      map[int32]places
	free       []int32 // tids that were in use
	containers []*tree.Container
	mounted    []*tree.Hierarchy
	names      int
	log        []string
}

func newWorld(mirror bool, choose func(int) int) (*world, error) {
	w := &world{host: hostsim.New(), mirror: mirror, choose: choose, where: map[int32]places{1: {}}}
	if err := w.live(); err != nil {
		return nil, err
	}
	return w, w.host.Resync(w.Resync)
}

// live makes the Tree.
func (w *world) live() (err error) {
	cfg := tree.Config{Host: w.host, Log: slog.New(slog.DiscardHandler)}
	if w.mirror {
		cfg.Mirror = w.host.Mirror()
	}
	w.subs = nil
	for _, name := range []plain{"a", "b", "c"} {
		p := &probe{plain: name}
		w.subs = append(w.subs, p)
		cfg.Subsystems = append(cfg.Subsystems, p)
	}
	w.Tree, err = tree.New(cfg)
	w.host.Run(w.Tree)
	return err
}

func (w *world) logf(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf(format, args...))
}

// run does n random operations and checks the model against the naive one.
func (w *world) run(n int) error {
	ops := []func() error{
		w.fork, w.fork, w.fork, w.thread, w.cloneParent, w.attach, w.attach, w.attach, w.attach,
		w.exit, w.exit, w.exitLate, w.exec, w.mkdir, w.mkdir, w.rmdir, w.rename, w.mount, w.unmount, w.remount,
		w.lose, w.steal, w.sweep, w.drain, w.reuse, w.orphan, w.restart,
	}
	for range n {
		if err := ops[w.choose(len(ops))](); err != nil {
			return err
		}
		if w.choose(4) == 0 {
			if err := w.check(); err != nil {
				return err
			}
		}
	}
	return w.check()
}

// check compares every container's tasks with the naive model.
func (w *world) check() error {
	w.Drain()
	if err := w.Check(); err != nil {
		return err
	}
	if w.mirror {
		if err := w.CheckMirror(w.host.TIDs()); err != nil {
			return err
		}
	}
	var errs []error
	w.View(func() {
		for _, c := range w.containers {
			want := []int32{}
			for tid, at := range w.where {
				if here := at[c.Hierarchy()]; here == c || (here == nil && c.IsRoot()) {
					want = append(want, tid)
				}
			}
			slices.Sort(want)
			if got := c.AppendTasks([]int32{}); !slices.Equal(got, want) {
				errs = append(errs, fmt.Errorf("%s%s has tasks %v, want %v", c.Hierarchy().Name(), c.Path(), got, want))
			}
		}
	})
	return errors.Join(errs...)
}

func (w *world) tids() []int32 { return slices.Sorted(maps.Keys(w.where)) }

func (w *world) anyTask() int32 { ts := w.tids(); return ts[w.choose(len(ts))] }

func (w *world) anyContainer() *tree.Container {
	if len(w.containers) == 0 {
		return nil
	}
	return w.containers[w.choose(len(w.containers))]
}

// born notes a child of forker.
func (w *world) born(how string, forker, child int32) {
	if child != 0 {
		w.where[child] = maps.Clone(w.where[forker])
		w.logf("%s %d -> %d", how, forker, child)
	}
}

func (w *world) fork() error {
	f := w.anyTask()
	w.born("fork", f, w.host.Fork(f))
	return nil
}

func (w *world) thread() error {
	f := w.anyTask()
	if !w.mirror { // whose thread it is, the events do not say
		f = w.tgid(f)
		if w.where[f] == nil {
			return nil
		}
	}
	if f != 1 {
		w.born("thread", f, w.host.Thread(f))
	}
	return nil
}

func (w *world) cloneParent() error {
	if !w.mirror {
		return nil
	}
	f := w.anyTask()
	w.born("clone_parent", f, w.host.CloneParent(f))
	return nil
}

// reuse forks a task with a tid that was in use.
func (w *world) reuse() error {
	if len(w.free) == 0 {
		return nil
	}
	f := w.anyTask()
	w.born("reuse", f, w.host.ForkAs(f, w.free[w.choose(len(w.free))]))
	return nil
}

func (w *world) tgid(tid int32) int32 {
	info, err := w.host.Task(tid)
	if err != nil {
		panic(fmt.Sprint("the naive model has a dead task ", tid))
	}
	return info.TGID
}

// threads are those of a task's process.
func (w *world) threads(tid int32) (ts []int32) {
	_ = w.host.Tasks(w.tgid(tid), func(i tree.TaskInfo) bool { ts = append(ts, i.TID); return true })
	return ts
}

func (w *world) exit() error {
	tid := w.anyTask()
	if tid == 1 {
		return nil
	}
	w.logf("exit %d", tid)
	if w.choose(3) == 0 {
		w.host.Zombie(tid)
		if w.choose(2) == 0 {
			w.host.Reap(tid)
		}
	} else {
		w.host.Exit(tid)
	}
	delete(w.where, tid)
	w.free = append(w.free, tid)
	return nil
}

// exitLate ends a task of which is told after what others do meanwhile.
func (w *world) exitLate() error {
	w.host.HoldExits()
	defer w.host.ReleaseExits()
	if err := w.exit(); err != nil {
		return err
	}
	for range 1 + w.choose(3) {
		ops := []func() error{w.fork, w.thread, w.cloneParent}
		if err := ops[w.choose(len(ops))](); err != nil {
			return err
		}
	}
	return nil
}

// orphan makes a process one that orphans go to.
func (w *world) orphan() error {
	tid := w.anyTask()
	w.logf("reaper %d", w.tgid(tid))
	w.host.SetReaper(w.tgid(tid))
	return nil
}

func (w *world) exec() error {
	tid := w.anyTask()
	tgid, ts, at := w.tgid(tid), w.threads(tid), w.where[tid]
	if !w.mirror && len(ts) > 1 && tid != tgid {
		return nil // who did it, the events do not say
	}
	late, fails := w.choose(2) == 0, tgid != hostsim.InitTID && w.choose(4) == 0
	w.logf("exec %d of %d, fails %v", tid, tgid, fails)
	if late {
		w.host.HoldExits()
	}
	if fails {
		w.host.FailExec(tid)
	} else {
		w.host.Exec(tid)
	}
	if late {
		w.host.ReleaseExits()
	}
	for _, k := range ts {
		delete(w.where, k)
	}
	if !fails {
		w.where[tgid] = at
	}
	return nil
}

func (w *world) mkdir() error {
	p := w.anyContainer()
	if p == nil {
		return nil
	}
	var failing *probe
	if w.choose(5) == 0 {
		failing = w.subs[w.choose(len(w.subs))]
		failing.onCreate = func(*tree.Container) error { return syscall.ENOSPC }
		defer func() { failing.onCreate = nil }()
	}
	w.names++
	c, err := w.Mkdir(tree.MkdirRequest{Parent: p, Name: fmt.Sprint("c", w.names)})
	w.logf("mkdir %s/c%d: %v", p.Path(), w.names, err)
	if failing != nil && failing.root == p.Hierarchy().Root() {
		if !errors.Is(err, syscall.ENOSPC) {
			return fmt.Errorf("mkdir with a failing subsystem: %v", err)
		}
		return nil
	}
	if err == nil {
		w.containers = append(w.containers, c)
	}
	return err
}

func (w *world) rmdir() error {
	c := w.anyContainer()
	if c == nil {
		return nil
	}
	busy := c.IsRoot() || c.NumChildren() > 0
	for _, at := range w.where {
		busy = busy || at[c.Hierarchy()] == c
	}
	err := w.Rmdir(c, nil)
	w.logf("rmdir %s: %v", c.Path(), err)
	if busy {
		if !errors.Is(err, syscall.EBUSY) {
			return fmt.Errorf("rmdir of a busy container: %v", err)
		}
		return nil
	}
	w.forgetGone()
	return err
}

// forgetGone takes removed containers and inactive hierarchies off the lists.
func (w *world) forgetGone() {
	w.containers = slices.DeleteFunc(w.containers, (*tree.Container).Removed)
	w.mounted = slices.DeleteFunc(w.mounted, func(h *tree.Hierarchy) bool { return !h.Active() })
}

func (w *world) rename() error {
	c := w.anyContainer()
	if c == nil || c.IsRoot() {
		return nil
	}
	w.names++
	return w.Rename(tree.RenameRequest{Parent: c.Parent(), Old: c.Name(), New: fmt.Sprint("r", w.names)})
}

func (w *world) mount() error {
	set := tree.SubsystemSet(1 + w.choose(7))
	var same *tree.Hierarchy
	busy := false
	for _, h := range w.mounted {
		if h.Subsystems() == set {
			same = h
		}
		busy = busy || h.Subsystems()&set != 0
	}
	h, err := w.Mount(tree.Mount{Subsystems: set})
	w.logf("mount %d: %v", set, err)
	switch {
	case same != nil:
		if h != same {
			return fmt.Errorf("mount of the same set: %v, %v", h, err)
		}
	case busy:
		if !errors.Is(err, syscall.EBUSY) {
			return fmt.Errorf("mount of bound subsystems: %v", err)
		}
	case err != nil: // its canonical name may be that of a remounted one
		if !errors.Is(err, syscall.EBUSY) {
			return err
		}
	default:
		w.mounted = append(w.mounted, h)
		w.containers = append(w.containers, h.Root())
	}
	return nil
}

func (w *world) unmount() error {
	if len(w.mounted) == 0 {
		return nil
	}
	h := w.mounted[w.choose(len(w.mounted))]
	was := h.Published()
	err := w.Unmount(h)
	w.logf("unmount %s: %v", h.Name(), err)
	if (err == nil) != was {
		return fmt.Errorf("unmount, mounted %v: %v", was, err)
	}
	w.forgetGone()
	return nil
}

func (w *world) remount() error {
	if len(w.mounted) == 0 {
		return nil
	}
	h := w.mounted[w.choose(len(w.mounted))]
	set := tree.SubsystemSet(1 + w.choose(7))
	busy := h.Root().NumChildren() > 0
	for _, o := range w.mounted {
		busy = busy || (o != h && o.Subsystems()&set != 0)
	}
	err := w.Remount(tree.RemountRequest{Hierarchy: h, Subsystems: set})
	w.logf("remount %s as %d: %v", h.Name(), set, err)
	if busy != errors.Is(err, syscall.EBUSY) || (!busy && err != nil) {
		return fmt.Errorf("remount, busy %v: %v", busy, err)
	}
	return nil
}

func (w *world) sweep() error {
	if w.choose(2) == 0 {
		w.Drain()
	}
	w.Sweep(0)
	return nil
}

func (w *world) drain() error { w.Drain(); return nil }
