package cpuacct

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"containerfs/tree"
	"containerfs/tree/hostsim"
)

func TestMoveLeavesHistory(t *testing.T) {
	bothModes(t, func(t *testing.T, f *fixture) {
		f.mkdir("a")
		f.mkdir("a/b")
		f.mkdir("c")
		k := f.sim.Fork(hostsim.InitTID)
		f.run(k, 5)
		f.expect("", 5, "a", 0)
		f.attach("a/b", k)
		f.run(k, 10)
		f.expect("", 15, "a", 10, "a/b", 10, "c", 0)
		f.attach("c", k)
		f.run(k, 100)
		f.expect("", 115, "a", 10, "a/b", 10, "c", 100)
		f.attach("", k)
		f.run(k, 1000)
		f.attach("a", k)
		f.expect("", 1115, "a", 10, "a/b", 10, "c", 100)
		f.run(k, 10000)
		f.exit(k)
		f.expect("", 11115, "a", 10010, "a/b", 10, "c", 100)
	})
}

// TestChildren is of one parent's children, which end in many containers.
func TestChildren(t *testing.T) {
	bothModes(t, func(t *testing.T, f *fixture) {
		parent := f.sim.Fork(hostsim.InitTID)
		f.run(parent, 7)
		total := 7
		for i := range 20 {
			name := fmt.Sprintf("c%d", i)
			f.mkdir(name)
			k := f.sim.Fork(parent)
			f.run(k, 1)
			f.attach(name, k)
			f.run(k, uint64(100+i))
			f.exit(k)
			f.expect(name, 100+i)
			total += 101 + i
		}
		f.expect("", total)
	})
}

// TestUnseen is of tasks that begin and end between two reads, in the container of
// their forker.
func TestUnseen(t *testing.T) {
	bothModes(t, func(t *testing.T, f *fixture) {
		f.mkdir("a")
		parent := f.sim.Fork(hostsim.InitTID)
		f.attach("a", parent)
		for range 1000 {
			k := f.sim.Fork(parent)
			f.run(k, 3)
			f.exit(k)
		}
		before := f.machine.reads
		f.expect("a", 3000)
		if n := f.machine.reads - before; n != 1 {
			t.Errorf("a read of a container with one task has read %d", n)
		}
	})
}

func TestFinalsComeInAnyOrder(t *testing.T) {
	bothModes(t, func(t *testing.T, f *fixture) {
		f.mkdir("a")
		k, l := f.sim.Fork(hostsim.InitTID), f.sim.Fork(hostsim.InitTID)
		f.attach("a", k)
		f.run(k, 10)
		f.expect("a", 10)
		f.run(k, 5)
		f.run(l, 1)
		late := append(f.machine.final(k), f.machine.final(l)...)
		f.sim.Exit(k)
		f.sim.Exit(l)
		f.Drain()
		f.machine.ended(late)
		f.expect("a", 15, "", 16)
		// A final that is there before the event is a reading that is known.
		k = f.sim.Fork(hostsim.InitTID)
		f.attach("a", k)
		f.run(k, 100)
		f.machine.ended(f.machine.final(k))
		f.machine.gone = k
		f.expect("a", 115, "", 116)
		f.sim.Exit(k)
		f.expect("a", 115, "", 116)
	})
}

// TestReadWaits is of a read between a task's exit and its final.
func TestReadWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, true)
		k := f.sim.Fork(hostsim.InitTID)
		f.run(k, 10)
		final := f.machine.final(k)
		f.sim.Exit(k)
		f.Drain()
		start := time.Now()
		time.AfterFunc(grace/2, func() { f.machine.ended(final) })
		f.expect("", 10)
		if waited := time.Since(start); waited != grace/2 {
			t.Errorf("waited %v for a final that came after %v", waited, grace/2)
		}
	})
}

// TestFinalOfAnother is about a tid that is used again.
func TestFinalOfAnother(t *testing.T) {
	bothModes(t, func(t *testing.T, f *fixture) {
		f.mkdir("a")
		k := f.sim.ForkAs(hostsim.InitTID, 500)
		f.attach("a", k)
		f.run(k, 10)
		old := f.machine.final(k)
		f.sim.Exit(k)
		f.Drain()
		f.sim.Now() // ticks pass
		f.sim.Now()
		f.sim.ForkAs(hostsim.InitTID, 500)
		f.Drain()
		f.run(k, 1)
		f.machine.ended(f.machine.final(500)) // the later one's first
		f.machine.ended(old)
		f.sim.Exit(500)
		f.expect("a", 10, "", 11)
	})
}

func TestFinalLost(t *testing.T) { synctest.Test(t, testFinalLost) }

func testFinalLost(t *testing.T) {
	f := newFixture(t, true)
	f.mkdir("a")
	k := f.sim.Fork(hostsim.InitTID)
	f.attach("a", k)
	f.run(k, 10)
	f.expect("a", 10)
	f.run(k, 5)
	f.sim.Exit(k)
	start := time.Now()
	f.expect("a", 10)
	if waited := time.Since(start); waited != grace {
		t.Errorf("waited %v for a final that does not come", waited)
	}
	f.machine.pass(2 * grace)
	start = time.Now()
	f.expect("a", 10)
	if waited := time.Since(start); waited != 0 {
		t.Errorf("waited %v for a final that is overdue", waited)
	}
	f.machine.pass(intervalLength)
	f.s.Enforce()
	f.said("credited as last read", "tasks=1")

	// The other way round: somebody whom no event ever told of.
	f.machine.ended([]Final{{TID: 9999, Start: 1, Times: Times{Run: 77}}})
	f.machine.pass(intervalLength)
	f.s.Enforce()
	f.said("nobody is credited", "run=77ns")
	f.expect("", 10)
}

func TestNoFinals(t *testing.T) { synctest.Test(t, testNoFinals) }

func testNoFinals(t *testing.T) {
	f := unboundFixture(t, true)
	f.machine.refused = errors.New("not here")
	f.mount()
	f.said("when they were last read", "not here")
	k := f.sim.Fork(hostsim.InitTID)
	f.run(k, 10)
	f.Drain()
	f.machine.pass(intervalLength)
	f.s.Enforce()
	f.run(k, 5)
	f.sim.Exit(k)
	start := time.Now()
	f.expect("", 10)
	if waited := time.Since(start); waited != 0 {
		t.Errorf("waited %v for finals that nobody sends", waited)
	}
}

func TestThreads(t *testing.T) {
	bothModes(t, func(t *testing.T, f *fixture) {
		f.mkdir("a")
		f.mkdir("b")
		first := f.sim.Fork(hostsim.InitTID)
		f.attach("a", first)
		second := f.sim.Thread(first)
		third := f.sim.Thread(first)
		f.run(first, 1)
		f.run(second, 10)
		f.run(third, 100)
		f.expect("a", 111)
		f.attach("b", second)
		f.run(second, 1000)
		f.expect("a", 111, "b", 1000)
		f.exit(first)
		f.run(third, 10000)
		f.exit(third)
		f.run(second, 100000)
		f.expect("a", 10111, "b", 101000)
		f.exit(second)
		f.expect("", 111111)
	})
}

// execByThread has a thread execute a program: it gets the tid of the first one.
func (f *fixture) execByThread(first, second int32) {
	f.sim.Exec(second)
	f.machine.mu.Lock()
	defer f.machine.mu.Unlock()
	f.machine.times[first] = f.machine.times[second]
	delete(f.machine.times, second)
}

// apart is a process whose first thread is in a and has run 1, and whose second is in b and has
// run 10.
func (f *fixture) apart() (first, second int32) {
	f.mkdir("a")
	f.mkdir("b")
	first = f.sim.Fork(hostsim.InitTID)
	f.attach("a", first)
	second = f.sim.Thread(first)
	f.attach("b", second)
	f.run(first, 1)
	f.run(second, 10)
	return first, second
}

// TestExecByThread is about a thread that gets another tid.
func TestExecByThread(t *testing.T) {
	bothModes(t, func(t *testing.T, f *fixture) {
		f.mkdir("a")
		first := f.sim.Fork(hostsim.InitTID)
		f.attach("a", first)
		second := f.sim.Thread(first)
		f.run(first, 1)
		f.run(second, 10)
		f.expect("a", 11)
		f.run(first, 2)
		f.run(second, 20)
		f.machine.ended(f.machine.final(first))
		f.execByThread(first, second)
		f.expect("a", 33)
		f.run(first, 100)
		f.exit(first)
		f.expect("a", 133, "", 133)
	})
}

// TestExecByThreadAndEnd: a process of which a thread has executed a program ends twice with its
// first tid, before the model is told of either end, or before the host says what they ran.
func TestExecByThreadAndEnd(t *testing.T) {
	for _, finalsFirst := range []bool{true, false} {
		t.Run(fmt.Sprintf("finals first %v", finalsFirst), func(t *testing.T) {
			bothModes(t, func(t *testing.T, f *fixture) {
				first, second := f.apart()
				finals := f.machine.final(first)
				f.execByThread(first, second)
				f.run(first, 100)
				finals = append(finals, f.machine.final(first)...)
				f.sim.Exit(first)
				if !finalsFirst {
					f.Drain()
				}
				for _, final := range finals {
					f.machine.ended([]Final{final})
				}
				f.expect("a", 1, "b", 110, "", 111)
			})
		})
	}
}

// TestExecByThreadSwaps: where a thread that executes a program is faster than the end of the
// first, that ends with the thread's tid, which nobody else's end has. Who asks is told at once.
func TestExecByThreadSwaps(t *testing.T) {
	for _, finalFirst := range []bool{true, false} {
		for _, asked := range []bool{true, false} {
			t.Run(fmt.Sprintf("final first %v, asked %v", finalFirst, asked), func(t *testing.T) {
				bothModes(t, func(t *testing.T, f *fixture) {
					first, second := f.apart()
					final := f.machine.final(first)
					final[0].TID, final[0].TGID = second, first
					f.execByThread(first, second)
					if !finalFirst {
						f.Drain()
					}
					f.machine.ended(final)
					f.run(first, 100)
					if !asked {
						f.Drain()
						f.machine.pass(keepDying)
						f.s.Enforce()
					}
					f.expect("a", 1, "b", 110, "", 111)
					f.exit(first)
					f.expect("", 111)
				})
			})
		}
	}
}

func TestRmdirLeavesHistory(t *testing.T) {
	f := newFixture(t, true)
	f.mkdir("a")
	f.mkdir("a/b")
	k, l := f.sim.Fork(hostsim.InitTID), f.sim.Fork(hostsim.InitTID)
	f.attach("a/b", k)
	f.attach("a/b", l)
	f.run(k, 10)
	f.run(l, 100)
	f.exit(k)
	late := f.machine.final(l)
	f.sim.Exit(l)
	f.rmdir("a/b")
	f.machine.ended(late) // for a container that is not there any more
	f.expect("a", 110)
	f.mkdir("a/b")
	f.expect("a/b", 0)
	f.rmdir("a/b")
	f.rmdir("a")
	f.expect("", 110)
}

func TestReset(t *testing.T) {
	const second uint64 = 1_000_000_000
	f := newFixture(t, true)
	f.mkdir("a")
	f.mkdir("a/b")
	k, l := f.sim.Fork(hostsim.InitTID), f.sim.Fork(hostsim.InitTID)
	f.attach("a/b", k)
	f.attach("a", l)
	f.runIn(k, 10e9, 10e9)
	f.runIn(l, 1e9, 0)
	if got := f.read("a", "stat") + f.read("a/b", "stat"); got != "user 1100\nsystem 1000\nuser 1000\nsystem 1000\n" {
		t.Errorf("stat is %q", got)
	}
	for text, want := range map[string]error{
		"1": syscall.EINVAL, "": syscall.EINVAL, "\n": syscall.EINVAL, "00\n\n": syscall.EINVAL, "-0": syscall.EINVAL,
		"+0": syscall.EINVAL, "0x0": syscall.EINVAL, " 0": syscall.EINVAL, "0 ": syscall.EINVAL, "zero": syscall.EINVAL,
		"18446744073709551615": syscall.EINVAL, "18446744073709551616": syscall.ERANGE, "0_0": syscall.EINVAL,
	} {
		if err := f.write("a", text); !errors.Is(err, want) {
			t.Errorf("writing %q: %v, want %v", text, err, want)
		}
	}
	f.expect("a", 21*second, "a/b", 20*second)
	f.runIn(k, 0, 1e9) // is history too
	if err := f.write("a", "0\n"); err != nil {
		t.Fatal(err)
	}
	if got := f.read("a", "stat"); got != "user 0\nsystem 0\n" {
		t.Errorf("stat is %q", got)
	}
	f.expect("a", 0, "a/b", 21*second, "", 22*second)
	f.run(k, 5)
	f.run(l, 7)
	f.exit(l)
	f.expect("a", 12, "a/b", 21*second+5, "", 22*second+12)
	if err := f.write("", "0"); err != nil {
		t.Fatal(err)
	}
	f.expect("", 0, "a", 12)
}

// TestPutBack: where a change of a container cannot be kept, what is kept of it is put back. That
// does not forget what was counted since, and takes back a reset.
func TestPutBack(t *testing.T) {
	f := newFixture(t, true)
	f.mkdir("a")
	k := f.sim.Fork(hostsim.InitTID)
	f.attach("a", k)
	f.runIn(k, 30e6, 10e6)
	f.expect("a", 40_000_000)
	var kept []byte
	f.View(func() { kept = f.s.Save(f.at("a"), nil) })
	putBack := func(b []byte) {
		t.Helper()
		if err := f.Change(func() error { return f.s.Restore(f.at("a"), b) }); err != nil {
			t.Fatal(err)
		}
	}
	f.runIn(k, 30e6, 10e6)
	stat := f.read("a", "stat")
	putBack(kept)
	f.expect("a", 80_000_000)
	putBack(nil)
	f.expect("a", 80_000_000, "", 80_000_000)
	if got := f.read("a", "stat"); got != stat {
		t.Errorf("stat is %q, was %q", got, stat)
	}
	if err := f.write("a", "0"); err != nil {
		t.Fatal(err)
	}
	putBack(kept)
	f.expect("a", 40_000_000)
	f.exit(k)
}

// TestStat: the parts are the ticks' share of the run time, and never go back.
func TestStat(t *testing.T) {
	f := newFixture(t, true)
	f.mkdir("a")
	k := f.sim.Fork(hostsim.InitTID)
	f.attach("a", k)
	if got := f.read("a", "stat"); got != "user 0\nsystem 0\n" {
		t.Errorf("stat is %q", got)
	}
	f.runIn(k, 3e9, 1e9)
	if got := f.read("a", "stat"); got != "user 300\nsystem 100\n" {
		t.Errorf("stat is %q", got)
	}
	f.runIn(k, 0, 996e9)
	if got := f.read("a", "stat"); got != "user 300\nsystem 99700\n" {
		t.Errorf("stat is %q", got)
	}
	// The ticks say that all was user time: system time does not go back.
	f.runIn(k, 1000e9, 0)
	f.machine.mu.Lock()
	f.machine.times[k] = Times{Run: 2000e9, User: 1e18, System: 997e9}
	f.machine.mu.Unlock()
	if got := f.read("a", "stat"); got != "user 100300\nsystem 99700\n" {
		t.Errorf("stat is %q", got)
	}
	// usage needs no more than one file of each task.
	splits := f.machine.splits
	f.usage("a")
	if f.machine.splits != splits {
		t.Error("usage has read user and system times")
	}
}

// TestAttachFails: what ran is where it was.
func TestAttachFails(t *testing.T) {
	bothModes(t, func(t *testing.T, f *fixture) {
		f.mkdir("a")
		f.mkdir("b")
		k := f.sim.Fork(hostsim.InitTID)
		f.attach("a", k)
		f.run(k, 10)
		f.last.err = syscall.EPERM
		if err := f.Attach(tree.AttachRequest{To: f.at("b"), ID: k}); !errors.Is(err, syscall.EPERM) {
			t.Fatal(err)
		}
		f.last.err = nil
		f.run(k, 5)
		f.expect("a", 15, "b", 0)
		f.exit(k)
		f.expect("a", 15, "b", 0)
	})
}

// TestBornInAttach is of a child that is forked when its forker was moved already:
// what it ran is the new container's.
func TestBornInAttach(t *testing.T) {
	f := newFixture(t, true)
	f.mkdir("a")
	k := f.sim.Fork(hostsim.InitTID)
	f.run(k, 10)
	var child int32
	f.sim.During = func(tid int32) {
		if child == 0 {
			child = f.sim.Fork(tid)
			f.run(child, 5)
			f.run(k, 0)
		}
	}
	f.attach("a", k)
	f.sim.During = nil
	f.expect("a", 5, "", 15)
}

// TestReadInAttach is of a read that goes on while the task is moved: what it has
// read is the old container's, before the model shows the task in the new one.
func TestReadInAttach(t *testing.T) {
	bothModes(t, func(t *testing.T, f *fixture) {
		f.mkdir("a")
		f.mkdir("b")
		k := f.sim.Fork(hostsim.InitTID)
		f.attach("a", k)
		f.run(k, 10)
		f.machine.afterRead = func(tid int32) {
			f.machine.afterRead = nil
			f.attach("b", tid) // and between the look and the credit
			f.run(tid, 100)
		}
		f.expect("a", 10, "b", 100)
	})
}

// TestExitInRead is of a task that ends between its reading and the credit.
func TestExitInRead(t *testing.T) {
	bothModes(t, func(t *testing.T, f *fixture) {
		f.mkdir("a")
		k := f.sim.Fork(hostsim.InitTID)
		f.attach("a", k)
		f.run(k, 10)
		f.machine.afterRead = func(tid int32) {
			f.machine.afterRead = nil
			f.exit(tid)
			f.Drain()
		}
		f.expect("a", 10)
		f.expect("", 10)
	})
}

// TestStolen is of a task that somebody else moved in the mirror: what it ran
// until that is found stays behind.
func TestStolen(t *testing.T) {
	f := newFixture(t, true)
	f.mkdir("a")
	k, l := f.sim.Fork(hostsim.InitTID), f.sim.Fork(hostsim.InitTID)
	f.attach("a", l)
	f.run(k, 10)
	group, _ := f.sim.Group(l)
	f.sim.Steal(k, group)
	if f.Audit() != 1 {
		t.Error("not mended")
	}
	f.run(k, 5)
	f.expect("a", 5, "", 15)

	// Also of one that was read before.
	f.run(k, 3)
	f.sim.Steal(k, 0)
	if f.Audit() != 1 {
		t.Error("not mended")
	}
	f.run(k, 2)
	f.expect("a", 8, "", 20)
}

// TestSize: there may be a million containers; the Tree's slot is 16 bytes more.
func TestSize(t *testing.T) {
	if n := unsafe.Sizeof(state{}); n > 64 {
		t.Errorf("a container costs %d bytes", n)
	}
}
