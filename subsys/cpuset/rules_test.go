package cpuset

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"containerfs/tree/hostsim"
)

// TestRules replays tables of writes. The last word of a step is the errno; none
// is success. Whatever is refused leaves the old value.
func TestRules(t *testing.T) {
	errnos := map[string]syscall.Errno{
		"EBUSY": syscall.EBUSY, "EACCES": syscall.EACCES, "EINVAL": syscall.EINVAL,
		"ENOSPC": syscall.ENOSPC, "ERANGE": syscall.ERANGE,
	}
	for _, tc := range []struct{ name, steps string }{
		{"new", `
			mkdir a
			read a cpus
			read a mems
			read a cpu_exclusive 0
			read a mem_exclusive 0
			read a memory_migrate 0`},
		{"root", `
			read / cpus 0-3
			read / mems 0-1
			write / cpus 0 EACCES
			write / mems 0 EACCES
			write / cpus x EACCES
			read / cpu_exclusive 1
			read / mem_exclusive 1
			write / cpu_exclusive 0
			write / memory_migrate 1
			read / memory_migrate 1
			mkdir a
			write a cpu_exclusive 1 EACCES
			write a mem_exclusive 1
			write / mem_exclusive 0 EBUSY
			write / mem_exclusive 1`},
		{"lists", `
			mkdir a
			write a cpus 3,0-1
			read a cpus 0-1,3
			write a cpus 0-20000000 EINVAL
			write a cpus 4 EINVAL
			write a cpus 3-1 EINVAL
			write a mems 2 EINVAL
			write a cpus 0,,1 EINVAL
			read a cpus 0-1,3
			write a cpus
			read a cpus`},
		{"flags", `
			mkdir a
			write a memory_migrate 7
			read a memory_migrate 1
			write a memory_migrate EINVAL
			write a memory_migrate -1 EINVAL
			write a memory_migrate 0x1 EINVAL
			write a memory_migrate 1_0 EINVAL
			write a memory_migrate 99999999999999999999 ERANGE
			read a memory_migrate 1
			write a memory_migrate 0
			read a memory_migrate 0`},
		{"subset of the parent", `
			mkdir a
			mkdir a/b
			write a/b cpus 0 EACCES
			write a cpus 0-1
			write a/b cpus 2 EACCES
			write a/b cpus 1-2 EACCES
			write a/b cpus 1
			write a/b mems 1 EACCES
			write a/b cpu_exclusive 1 EACCES
			write a/b mem_exclusive 1 EACCES
			write a cpu_exclusive 1
			write a/b cpu_exclusive 1
			write a/b memory_migrate 1`},
		{"child no longer contained", `
			mkdir a
			write a cpus 0-1
			write a mems 0-1
			write a cpu_exclusive 1
			mkdir a/b
			write a/b cpus 1
			write a/b mems 1
			write a/b cpu_exclusive 1
			write a cpus 0 EBUSY
			write a cpus EBUSY
			write a mems 0 EBUSY
			write a cpu_exclusive 0 EBUSY
			write a cpus 1-3
			write a/b cpu_exclusive 0
			write a cpu_exclusive 0
			write a/b cpus
			write a cpus
			read a mems 0-1`},
		{"siblings", `
			mkdir a
			mkdir b
			write a cpus 0-1
			write b cpus 1-2
			write a cpu_exclusive 1 EINVAL
			write b cpus 2-3
			write a cpu_exclusive 1
			write b cpus 1 EINVAL
			write b cpus 1-2 EINVAL
			write b mems 0-1
			write a mems 0-1
			write b mem_exclusive 1 EINVAL
			write a mems 0
			write b mems 1
			write b mem_exclusive 1
			write a mems 0-1 EINVAL
			read a mems 0`},
		{"tasks", `
			mkdir a
			attach a ENOSPC
			write a cpus 0
			attach a ENOSPC
			write a mems 0
			attach a
			write a cpus ENOSPC
			write a mems ENOSPC
			read a cpus 0
			write a cpus 1
			attach /
			write a cpus
			attach a ENOSPC`},
		// What would break several rules is told of the first.
		{"EINVAL for what the machine lacks before EBUSY", `
			mkdir a
			write a cpus 0
			mkdir a/b
			write a/b cpus 0
			write a cpus 9 EINVAL`},
		{"EBUSY before EACCES", `
			mkdir a
			mkdir a/b
			mkdir a/b/c
			write a cpus 0-1
			write a/b cpus 0-1
			write a/b/c cpus 1
			write a/b cpus 2 EBUSY`},
		{"EBUSY before EINVAL and ENOSPC", `
			mkdir a
			mkdir b
			write a cpus 0-1
			write a mems 0
			write b cpus 2
			write b cpu_exclusive 1
			mkdir a/c
			write a/c cpus 0
			attach a
			write a cpus 2 EBUSY
			write a cpus EBUSY`},
		{"EACCES before EINVAL", `
			mkdir p
			write p cpus 0-1
			mkdir p/a
			mkdir p/b
			write p/a cpus 0
			write p/b cpus 0
			write p/a cpu_exclusive 1 EACCES
			write p cpu_exclusive 1
			write p/a cpu_exclusive 1 EINVAL`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(t, true)
			for step := range strings.Lines(strings.TrimSpace(tc.steps)) {
				step = strings.TrimSpace(step)
				words := strings.Fields(step)
				var want syscall.Errno
				if e, ok := errnos[words[len(words)-1]]; ok {
					want, words = e, words[:len(words)-1]
				}
				words = append(words, "", "")
				var err error
				switch words[0] {
				case "mkdir":
					f.mkdir(words[1])
				case "write":
					before := f.read(words[1], words[2])
					err = f.write(words[1], words[2], words[3]+"\n")
					if after := f.read(words[1], words[2]); err != nil && before != after {
						t.Fatalf("%s: refused, but %q became %q", step, before, after)
					}
				case "attach":
					err = f.attach(hostsim.InitTID, words[1])
				case "read":
					if got := f.read(words[1], words[2]); got != words[3]+"\n" {
						t.Fatalf("%s: %q", step, got)
					}
				}
				if want == 0 && err != nil || want != 0 && !errors.Is(err, want) {
					t.Fatalf("%s: %v", step, err)
				}
			}
		})
	}
}

// TestExitedTasksAreNoMembers: cpus can be cleared right after the last exit.
func TestExitedTasksAreNoMembers(t *testing.T) {
	f := newFixture(t, true)
	f.made("a", "0", "0")
	tid := f.fork(hostsim.InitTID)
	f.ok(f.attach(tid, "a"))
	f.sim.Exit(tid) // the event is not delivered yet
	f.set("a", "cpus", "")
}

func TestHotplug(t *testing.T) {
	f := newFixture(t, true)
	f.made("a", "0-1", "0")
	f.made("a/b", "1", "0")
	f.made("a/b/c", "1", "0")
	f.made("d", "1-2", "0")
	f.made("e", "1", "0")
	tids := make(map[string]int32)
	for _, path := range []string{"", "a", "a/b", "a/b/c", "d", "e"} {
		tids[path] = f.fork(hostsim.InitTID)
		if path != "" {
			f.ok(f.attach(tids[path], path))
		}
	}
	expect := func(want map[string]string) {
		t.Helper()
		for path, cpus := range want {
			if got := f.read(path, "cpus"); got != cpus+"\n" {
				t.Errorf("/%s: cpus %q, want %q", path, got, cpus)
			}
			f.mask(tids[path], cpus)
		}
	}
	online := func(ns ...int) {
		f.machine.mu.Lock()
		f.machine.online[cpus] = NewSet(ns...)
		f.machine.mu.Unlock()
		f.cpuset.Enforce()
	}
	expect(map[string]string{"": "0-3", "a": "0-1", "a/b": "1", "a/b/c": "1", "d": "1-2"})

	online(0, 2, 3)
	expect(map[string]string{"": "0,2-3", "a": "0", "a/b": "0", "a/b/c": "0", "d": "2", "e": "0,2-3"})
	f.errno(f.write("d", "cpus", "1-2"), syscall.EINVAL)
	f.set("a/b", "memory_migrate", "1") // not refused for what is offline

	f.narrow(tids[""], 1, 3)
	defer f.mask(tids[""], "1,3") // the root's members are not touched

	online(2, 3)
	expect(map[string]string{"a": "2-3", "a/b": "2-3", "a/b/c": "2-3", "d": "2"})

	online(0, 1, 2, 3)
	expect(map[string]string{"a": "0-1", "a/b": "1", "a/b/c": "1", "d": "1-2", "e": "1"})

	// A write knows without Enforce.
	f.machine.online[cpus] = NewSet(0, 1, 2)
	f.errno(f.write("d", "cpus", "3"), syscall.EINVAL)
	f.machine.online[cpus] = NewSet(0, 1, 2, 3)
	f.set("d", "cpus", "3")
}

// TestEmptiedSetIsNoOverlap: a set that took an ancestor's is not what a sibling
// has for itself.
func TestEmptiedSetIsNoOverlap(t *testing.T) {
	f := newFixture(t, true)
	f.made("a", "0", "0")
	f.set("a", "cpu_exclusive", "1")
	f.made("b", "1", "0")
	f.machine.online[cpus] = NewSet(0, 2, 3)
	f.cpuset.Enforce()
	if got := f.read("b", "cpus"); got != "0,2-3\n" {
		t.Fatalf("b has %q", got)
	}
	f.set("b", "memory_migrate", "1")
	f.errno(f.write("b", "cpus", "0"), syscall.EINVAL)
}

func TestStateSize(t *testing.T) {
	const slot = unsafe.Sizeof(any(nil))
	// The size is rounded up to the allocator's 64; two sets of 8 bytes.
	if n := unsafe.Sizeof(state{}); n > 64 || 64+slot+2*8 > 96 {
		t.Errorf("%d bytes", n)
	}
	f := newFixture(t, true)
	f.made("a", "0-1", "0")
	f.made("a/b", "0-1", "0")
	a, b := f.cpuset.state(f.at("a")), f.cpuset.state(f.at("a/b"))
	if &a.sets[cpus][0] != &b.sets[cpus][0] {
		t.Error("a set equal to the parent's is a copy of it")
	}
}
