package storm

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerfs/tests/hold"
	"containerfs/tree"
	"containerfs/tree/hostproc/storm"
)

// A gale is a storm under way, all of its tasks in the oracle.
type gale struct {
	t      testing.TB
	oracle *oracle
	rng    *rand.Rand
	root   int32 // the first process
	begin  func()
	over   chan struct{}
	err    error  // of the process, when it is over
	out    string // what it wrote

	wrong              []string // moves that the model does not show
	moves, threadMoves int
	unstopped          int // processes that could not be stopped
	killed             int // by the storm, while they were stopped and before the move
	compared           int // tasks
	late               int // of those: not known to the model at once
	moved              map[int32][]string
}

// raise starts a storm. It forks from now on.
func raise(t testing.TB, o *oracle, p storm.Params) *gale {
	t.Helper()
	g := gather(t, o, p)
	g.begin()
	return g
}

// gather starts the first process of a storm, which forks when begin is called.
func gather(t testing.TB, o *oracle, p storm.Params) *gale {
	t.Helper()
	cmd := exec.Command(os.Args[0], append([]string{"storm"}, p.Args()...)...)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	g := &gale{
		t: t, oracle: o, root: int32(cmd.Process.Pid), over: make(chan struct{}),
		rng: rand.New(rand.NewPCG(p.Seed, 1)), moved: make(map[int32][]string),
	}
	if err := o.root.Move(o.dirs[place{}], g.root, true); err != nil {
		t.Fatal(err)
	}
	g.begin = func() { in.Close() }
	go func() {
		g.err = cmd.Wait()
		g.out = out.String() + stderr.String()
		close(g.over)
	}()
	t.Cleanup(g.end)
	return g
}

// end kills what there still is of the storm.
func (g *gale) end() {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		pids := g.oracle.members("cgroup.procs")
		if len(pids) == 0 || time.Now().After(end) {
			break
		}
		for pid := range pids {
			// One that cannot be held is found again.
			if h, _ := hold.Begin(pid, func() bool { return g.oracle.member(pid) }); h != nil {
				h.Kill()
				h.Release()
			}
		}
	}
	<-g.over
}

// running is true until the storm is over.
func (g *gale) running() bool {
	select {
	case <-g.over:
		return false
	default:
		return true
	}
}

// finish waits for the storm's own end and looks how it was.
func (g *gale) finish(forks int) {
	g.t.Helper()
	<-g.over
	if want := fmt.Sprintf("forks %d\n", forks); g.err != nil || g.out != want {
		g.t.Fatalf("the storm: %v, %q, want %q", g.err, g.out, want)
	}
}

// move moves a random task of the storm to a random container, or to several of
// different hierarchies at once. wholly asks for whole processes only.
func (g *gale) move(w *world, wholly bool) {
	g.t.Helper()
	tids := g.oracle.members("tasks")
	if len(tids) == 0 {
		return
	}
	list := make([]int32, 0, len(tids))
	for tid := range tids {
		list = append(list, tid)
	}
	slices.Sort(list)
	tid := list[g.rng.IntN(len(list))]
	if g.rng.IntN(8) == 0 {
		tid = g.root // whose threads, children and adopted children are many
	}
	info, err := w.host.Task(tid)
	if err != nil {
		return
	}
	h, threads := g.oracle.stop(info.TGID)
	if h == nil {
		g.unstopped++
		return
	}
	defer h.Release()
	tid = threads[g.rng.IntN(len(threads))]
	process := g.rng.IntN(2) == 0
	if wholly && len(threads) > 1 {
		process = true
	}
	if !process {
		threads = []int32{tid}
		g.threadMoves++
	}
	var to []*tree.Container
	there := make(map[int]int8)
	for range 1 + g.rng.IntN(len(shape)) {
		if h := g.rng.IntN(len(shape)); there[h] == 0 {
			c := g.rng.IntN(shape[h])
			there[h] = int8(c) + 1
			to = append(to, w.containers[h][c])
		}
	}
	want := make(map[int32]place)
	for _, tid := range threads {
		p, ok := g.oracle.where(tid)
		if !ok {
			if h.Ended() {
				g.killed++
				return
			}
			g.t.Fatalf("thread %d of process %d is stopped and not in the oracle", tid, h.PID)
		}
		for h, c := range there {
			p[h] = c - 1
		}
		want[tid] = p
	}
	began := w.host.Now()
	err = w.tree.Attach(tree.AttachRequest{To: to[0], Also: to[1:], ID: tid, Process: process})
	if errors.Is(err, unix.ESRCH) && h.Ended() {
		g.killed++
		return
	}
	if err != nil {
		var known []int32
		w.tree.View(func() {
			for _, cs := range w.containers[0] {
				cs.EachTask(func(task *tree.Task) {
					if task.TGID() == h.PID {
						known = append(known, task.TID())
					}
				})
			}
		})
		g.t.Fatalf("attach of %d (process %v of %d, threads %v, the model has %v): %v\n\t%s",
			tid, process, h.PID, threads, known, err, strings.Join(w.events.about(append(known, threads...)...), "\n\t"))
	}
	for tid, p := range want {
		err := g.oracle.root.Move(g.oracle.dirs[p], tid, false)
		at, _, ok := w.place(tid)
		if (err != nil || !ok) && h.Ended() {
			g.killed++
			return
		}
		if err != nil {
			g.t.Fatal(err)
		}
		if !ok || at != p {
			g.wrong = append(g.wrong, fmt.Sprintf("task %d was moved to %v, the model has it in %v (known: %v)", tid, p, at, ok))
		}
	}
	g.moves++
	g.moved[h.PID] = append(g.moved[h.PID], fmt.Sprintf("moved %v at %d..%d", want, began, w.host.Now()))
}

// compare looks at all live tasks of the storm, while none is being moved, and
// returns how model and oracle differ.
func (g *gale) compare(w *world) (differences []string) {
	g.t.Helper()
	members := g.oracle.members("tasks")
	w.host.Drain()
	var odd []int32
	w.tree.View(func() {
		for tid, p := range members {
			if at, _, ok := w.placeLocked(tid); !ok || at != p {
				odd = append(odd, tid)
			}
		}
	})
	g.compared += len(members)
	for _, tid := range odd {
		if d := g.difference(w, tid); d != "" {
			differences = append(differences, d)
		}
	}
	return differences
}

// difference looks at one task until it is sure: "" when model and oracle agree
// or the task is ending. A task is seen by the kernel's lists a moment before its
// fork is told, so one that the model lacks is looked for again; one that it has
// in a wrong place is not.
func (g *gale) difference(w *world, tid int32) string {
	why := fmt.Sprintf("task %d is not in the oracle", tid)
	for range 100 {
		info, err := w.host.Task(tid)
		if err != nil {
			return ""
		}
		want, member := g.oracle.where(tid)
		w.host.Drain()
		at, start, known := w.place(tid)
		again, err := w.host.Task(tid)
		if err != nil || again.Start != info.Start {
			return ""
		}
		if !member { // its fork is not finished
			time.Sleep(time.Millisecond)
			continue
		}
		// The model knows a tick that is not before the true one. An older
		// one is that of an earlier task of that number.
		known = known && start >= info.Start
		if known && at == want {
			g.late++
			return ""
		}
		why = fmt.Sprintf("task %d of process %d, child of %d, started in tick %d: oracle %v, model %v (known %v, tick %d)",
			tid, info.TGID, info.PPID, info.Start, want, at, known, start)
		if w.mirror != nil {
			group, err := w.mirror.Where(tid)
			why += fmt.Sprintf(", mirror: group %d %v", group, err)
		}
		if known {
			break
		}
		time.Sleep(time.Millisecond)
	}
	w.tree.View(func() {
		if task := w.tree.Task(tid); task != nil {
			why += fmt.Sprintf(", model: group %d", task.Group().Num())
		}
	})
	return why + g.history(w, tid)
}

// history is what is known of a task and its ancestors: what the model was told,
// and moves.
func (g *gale) history(w *world, tid int32) string {
	ids := []int32{tid}
	// With ancestors, as the events have them.
	for range 3 {
		for _, line := range w.events.about(ids...) {
			var child, tgid, ptid, parent int32
			if n, _ := fmt.Sscanf(line, "fork %d/%d of %d/%d", &child, &tgid, &ptid, &parent); n == 4 && slices.Contains(ids, child) && !slices.Contains(ids, parent) {
				ids = append(ids, parent)
			}
		}
	}
	lines := w.events.about(ids...)
	if len(lines) > 40 {
		lines = lines[len(lines)-40:]
	}
	for _, id := range ids {
		m := g.moved[id]
		lines = append(lines, m[max(0, len(m)-4):]...)
	}
	return "\n\t" + strings.Join(lines, "\n\t")
}

// still compares while the whole storm is stopped, also with the mirror.
func (g *gale) still(w *world) (differences []string) {
	g.t.Helper()
	thaw := g.oracle.freeze()
	defer thaw()
	differences = g.compare(w)
	if err := w.tree.Check(); err != nil {
		differences = append(differences, err.Error())
	}
	if w.mirror == nil {
		return differences
	}
	var live []int32
	for tid := range g.oracle.members("tasks") {
		if _, err := w.host.Task(tid); err == nil {
			live = append(live, tid)
		}
	}
	if err := w.tree.CheckMirror(live); err != nil {
		differences = append(differences, err.Error())
	}
	return differences
}
