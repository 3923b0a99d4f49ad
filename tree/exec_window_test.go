package tree_test

import (
	"fmt"
	"testing"
	"testing/synctest"

	"containerfs/tree"
)

// TestMoveDuringAnExec: a thread that is not the first executes a program, has the number of
// its process meanwhile, and nobody tells of it until the program is loaded. Moved or not, it
// is where it was in the hierarchies that the move is not about, and the model has it where
// the kernel has.
func TestMoveDuringAnExec(t *testing.T) {
	for _, in := range []string{"neither", "the first", "the other"} { // is in y as well
		for _, process := range []bool{true, false} {
			for _, step := range []string{"make", "move", "moved"} {
				t.Run(fmt.Sprintf("%s, process %v, %s", in, process, step), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						f := newFixture(t, true, plain("a"), plain("b"))
						x, y := f.mkdir(f.mount(1, ""), "x"), f.mkdir(f.mount(2, ""), "y")
						p := f.host.Fork(1)
						other := f.host.Thread(p)
						f.Drain()
						switch in {
						case "the first":
							f.attach(y, p)
						case "the other":
							f.attach(y, other)
						}
						f.Drain()
						executes := func() {
							f.host.HoldExecs()
							f.host.Exec(other)
						}
						f.at(step, executes)
						err := f.Attach(tree.AttachRequest{To: x, ID: p, Process: process})
						f.host.ReleaseExecs()
						if err != nil {
							f.wantTasks(x)
						} else {
							f.wantTasks(x, p)
						}
						if in == "the other" {
							f.wantTasks(y, p)
						} else {
							f.wantTasks(y)
						}
						if process && err != nil {
							t.Errorf("the process was not moved: %v", err)
						}
					})
				})
			}
		}
	}
}
