package tree_test

import (
	"slices"
	"testing"

	"containerfs/tree"
)

// TestExecWhenNothingIsOwed: when all exits have been told that an earlier exec, or a thread that
// was found to be gone, left to be told, no other is taken for one of them: the first thread of
// the process ends for another, which executes a program.
func TestExecWhenNothingIsOwed(t *testing.T) {
	for _, test := range []struct {
		name    string
		process func(f *fixture, d *tree.Container, p, thread, other int32) int32
	}{
		{"the first thread executed", func(f *fixture, _ *tree.Container, p, _, _ int32) int32 {
			f.host.HoldExits()
			f.host.Exec(p)
			f.Drain()
			f.host.ReleaseExits()
			return p
		}},
		{"another executed", func(f *fixture, _ *tree.Container, p, thread, _ int32) int32 {
			f.host.HoldExits()
			f.host.Exec(thread)
			f.Drain()
			f.host.ReleaseExits()
			return p
		}},
		{"another executed, whose number is in use again", func(f *fixture, _ *tree.Container, _, thread, _ int32) int32 {
			f.host.HoldExits()
			f.host.Exec(thread)
			f.Drain()
			f.host.ReleaseExits()
			f.Drain()
			return f.host.ForkAs(1, thread)
		}},
		{"another executed, as whose end the first one's is told", func(f *fixture, _ *tree.Container, p, thread, other int32) int32 {
			// Linux 5.8 exchanges their numbers, also for an event that is not sent yet.
			f.host.HoldExits()
			f.host.Exec(thread)
			f.Drain()
			f.host.Lose()
			f.host.ReleaseExits()
			f.Exit(other)
			f.Exit(thread)
			return p
		}},
		{"threads were found to be gone", func(f *fixture, d *tree.Container, p, thread, other int32) int32 {
			f.attach(d, thread)
			f.attach(d, other)
			f.host.HoldExits()
			f.host.Exit(thread)
			f.host.Exit(other)
			if err := f.Rmdir(d, nil); err != nil {
				f.t.Fatal(err)
			}
			f.host.ReleaseExits()
			return p
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, mirror bool) {
				f, _, _, root, c, d := moves(t, mirror)
				p := f.host.Fork(1)
				p = test.process(f, f.mkdir(root, "e"), p, f.host.Thread(p), f.host.Thread(p))
				f.Drain()
				thread := f.host.Thread(p)
				f.attach(c, p)
				f.attach(d, thread)
				f.host.Exec(thread)
				f.wantTasks(c)
				f.wantTasks(d, p)
			})
		})
	}
}

// TestLateExitsAfterAnExec: they are told in any order, and as long as one is not, it is not taken for
// that of the thread that lives.
func TestLateExitsAfterAnExec(t *testing.T) {
	bothWays(t, func(t *testing.T, mirror bool) {
		for _, firstLast := range []bool{false, true} {
			f, _, _, root, _, _ := moves(t, mirror)
			p := f.host.Fork(1)
			thread, other := f.host.Thread(p), f.host.Thread(p)
			f.host.HoldExits()
			f.host.Exec(thread)
			f.Drain()
			f.host.Lose()
			late := []int32{p, other}
			if firstLast {
				slices.Reverse(late)
			}
			for _, tid := range late {
				f.Exit(tid)
				f.wantTasks(root, 1, p)
			}
		}
	})
}

// TestFirstThreadsExitBeforeTheExec: Linux 5.8 exchanges the numbers of the first thread and of the
// one that executes a program. The first one's exit is then told as the other's, and here before the
// exec: it is the other that lives.
func TestFirstThreadsExitBeforeTheExec(t *testing.T) {
	for _, others := range []int{0, 1} {
		f, _, _, root, c, d := moves(t, true)
		p := f.host.Fork(1)
		thread := f.host.Thread(p)
		for range others {
			f.host.Thread(p)
		}
		f.attach(c, p)
		f.attach(d, thread)
		f.host.HoldExits()
		f.host.HoldExecs()
		f.host.Exec(thread)
		f.Exit(thread)
		f.host.ReleaseExecs()
		f.Drain()
		f.host.Lose() // of the exits that are held, the first one's has been told
		f.wantTasks(c)
		f.wantTasks(d, p)
		f.wantTasks(root, 1)
	}
}
