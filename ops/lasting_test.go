package ops

import (
	"fmt"
	"runtime"
	"testing"
	"weak"

	"containerfs/tree"
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
