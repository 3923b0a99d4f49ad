package cpuset

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

func TestMigration(t *testing.T) {
	f := newFixture(t, true)
	f.made("a", "0", "0")
	f.made("b", "0-1", "1")
	task := f.fork(initTID)
	thread := f.thread(task)
	expect := func(want ...string) {
		t.Helper()
		f.cpuset.migrator.worker.Wait()
		f.machine.mu.Lock()
		defer f.machine.mu.Unlock()
		if got := strings.Join(f.machine.migrations, " "); got != strings.Join(want, " ") {
			t.Errorf("migrations %q, want %q", got, want)
		}
		f.machine.migrations = nil
	}
	f.ok(f.attachProcess(task, "a"))
	f.set("a", "mems", "0-1")
	f.set("a", "mems", "0")
	expect() // not asked for
	f.set("b", "memory_migrate", "1")
	f.ok(f.attach(thread, "b"))
	f.set("b", "mems", "0-1")
	f.set("b", "mems", "1")
	expect() // the memory is not the thread's own
	f.ok(f.attachProcess(task, "b"))
	expect("2:0>1")
	f.set("b", "mems", "0")
	expect("2:1>0")
	f.set("b", "mems", "0")
	expect()

	f.ok(f.attach(task, "a"))
	f.set("b", "mems", "1")
	f.last.err = syscall.EIO
	f.errno(f.attach(task, "b"), syscall.EIO)
	f.last.err = nil
	f.cpuset.migrator.worker.Wait()
	if n := len(f.machine.migrations); n > 0 && !strings.HasSuffix(f.machine.migrations[n-1], ">0") {
		t.Errorf("memory of an attach that failed is not back: %q", f.machine.migrations)
	}
	f.mask(task, "0")
	f.machine.migrations = nil

	f.ok(f.cpuset.Close())
	f.ok(f.attach(task, "b"))
	expect()
}

func TestMigrationsMerge(t *testing.T) {
	f := newFixture(t, true)
	f.machine.migrating = make(chan struct{})
	m := &f.cpuset.migrator
	zero, one := NewSet(0), NewSet(1)
	m.ask(1, zero, one)
	f.machine.migrating <- struct{}{} // the worker has it
	m.ask(2, zero, one)
	for { // until the worker waits with that
		m.mu.Lock()
		n := len(m.waiting)
		m.mu.Unlock()
		if n == 0 {
			break
		}
	}
	m.ask(3, zero, one)
	m.ask(3, one, zero)
	m.ask(4, zero, one)
	m.drop(4)
	close(f.machine.migrating)
	m.worker.Wait()
	if got := strings.Join(f.machine.migrations, " "); got != "1:0>1 2:0>1 3:0-1>0" {
		t.Errorf("migrations %q", got)
	}
}

// Processes that have ended are forgotten, but not those of which a thread has; and
// Close waits for one migration, not for all.
func TestMigrationsDropped(t *testing.T) {
	f := newFixture(t, true)
	f.machine.migrating = make(chan struct{})
	m := &f.cpuset.migrator
	zero, one := NewSet(0), NewSet(1)
	first, ends, lives, late := f.fork(initTID), f.fork(initTID), f.fork(initTID), f.fork(initTID)
	thread := f.thread(lives)
	f.Drain()
	f.made("a", "0", "0")
	for _, tid := range []int32{ends, thread} {
		f.ok(f.attach(tid, "a"))
	}
	waiting := func() (tgids []int32) {
		m.mu.Lock()
		defer m.mu.Unlock()
		for tgid := range m.waiting {
			tgids = append(tgids, tgid)
		}
		return tgids
	}
	m.ask(first, zero, one)
	for len(waiting()) > 0 { // until the worker has it
	}
	m.ask(ends, zero, one)
	m.ask(lives, zero, one)
	f.sim.Exit(ends)
	f.sim.Exit(thread)
	f.Drain()
	if got := waiting(); len(got) != 1 || got[0] != lives {
		t.Errorf("%v wait, want %d", got, lives)
	}
	m.ask(late, zero, one)
	closed := make(chan struct{})
	go func() { f.cpuset.Close(); close(closed) }()
	for len(waiting()) > 0 {
	}
	close(f.machine.migrating)
	<-closed
	if got := strings.Join(f.machine.migrations, " "); got != fmt.Sprintf("%d:0>1", first) {
		t.Errorf("migrations %q, want that of %d only", got, first)
	}
}
