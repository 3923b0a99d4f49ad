package ops

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"weak"

	"containerfs/tree"
	"containerfs/tree/hostsim"
)

// TestUnmountedIsFreed: nothing is left of a hierarchy that was mounted and unmounted but
// what a client holds, also when a process that was moved in it goes on for months.
func TestUnmountedIsFreed(t *testing.T) {
	w := newWorld(t)
	k := w.as(root)
	w.mount("mount m alpha")
	p := w.fork(0)
	k.must(k.write("m/procs", fmt.Sprint(p)))
	var gone []weak.Pointer[tree.Hierarchy]
	for range 5 {
		w.mount("mount n beta")
		k.must(k.mkdir("n/a"))
		gone = append(gone, weak.Make(w.container("n").Hierarchy()))
		k.must(k.write("n/a/procs", fmt.Sprint(p)))
		child := w.host.Fork(p)
		k.must(k.write("n/procs", fmt.Sprint(p)))
		k.must(k.write("n/procs", fmt.Sprint(child)))
		k.must(k.rmdir("n/a"))
		w.mount("umount n")
	}
	w.tree.Drain()
	w.tree.Sweep(0)
	for i, h := range gone {
		waitFor(t, fmt.Sprintf("the end of hierarchy %d", i), func() bool {
			runtime.GC()
			return h.Value() == nil
		})
	}
	m := w.container("m").Hierarchy()
	w.tree.View(func() {
		hands := w.fs.recorder.hands
		if process := w.tree.Task(p).Process(); !hands.has(process, m) {
			t.Error("the hierarchy that is left has no hand any more")
		} else if n := len(hands[process]); n > 2 {
			t.Errorf("a process is known to have been put in %d hierarchies; there were never more than 2", n)
		}
	})
}

// TestReleasesOfRemovedContainers: containers that are released and removed faster than
// agents end do not pile up; those that are there wait for their turn.
func TestReleasesOfRemovedContainers(t *testing.T) {
	w, k := aWorld(t)
	dir := w.agent(`echo x >>began
while [ ! -e go ]; do sleep 0.05; done
echo "$1" >>out
`)
	const left = leastTidied / 2
	for i := range maxAgents + left {
		k.must(k.mkdir(fmt.Sprintf("m/there%d", i)))
		w.abandon(fmt.Sprintf("m/there%d", i))
	}
	waitFor(t, "as many agents as may run", func() bool { return strings.Count(contents(dir+"/began"), "\n") == maxAgents })
	for range 6 * leastTidied {
		k.must(k.mkdir("m/b"))
		w.abandon("m/b")
		k.must(k.rmdir("m/b"))
	}
	q := &w.fs.recorder.releases
	q.mu.Lock()
	n := len(q.waiting)
	q.mu.Unlock()
	if n < left || n > left+leastTidied {
		t.Errorf("%d releases wait, of containers that are there %d", n, left)
	}
	k.must(os.WriteFile(dir+"/go", nil, 0o600))
	waitFor(t, "the agents of all that are there", func() bool {
		out := contents(dir + "/out")
		for i := range maxAgents + left {
			if strings.Count(out, fmt.Sprintf("/there%d\n", i)) != 1 {
				return false
			}
		}
		return strings.Count(out, "\n") == maxAgents+left
	})
	q.idle(t)
}

// TestHandFoundBefore: who was found and moved by hand before its fork was told of has what its own
// hand has done besides what its forker's has.
func TestHandFoundBefore(t *testing.T) {
	w := newWorld(t)
	process := func() *tree.Task {
		tid := w.host.Fork(hostsim.InitTID)
		w.tree.Drain()
		return w.tree.Task(tid)
	}
	forker, moved, other := process(), process(), process()
	m := hands{forker.Process(): {1, 2}, moved.Process(): {3}}
	for _, child := range []*tree.Task{moved, other} {
		m.observe(tree.Event{Kind: tree.Forked, Task: child, Parent: forker.Process()}, false)
	}
	if got := m[moved.Process()]; !slices.Equal(got, []uint64{1, 2, 3}) {
		t.Errorf("who was moved is by hand in %v", got)
	}
	if got := m[other.Process()]; !slices.Equal(got, []uint64{1, 2}) {
		t.Errorf("the other is by hand in %v", got)
	}
}
