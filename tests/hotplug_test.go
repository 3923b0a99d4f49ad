package tests

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestHotplug takes a CPU of a guest away from cpusets and their members, and
// gives it back (SPEC §11).
func TestHotplug(t *testing.T) {
	if !inside {
		runInsideOn(t, machine{cpus: 3}, "^TestHotplug$")
		return
	}
	s := startServer(t, "--hierarchy", "c=cpuset")
	members := map[string]*spawner{"/c": startSpawner(t)}
	for _, set := range []struct{ path, cpus string }{
		{"/c/a", "0-1"}, {"/c/a/b", "1"}, {"/c/a/b/e", "1"}, {"/c/d", "1-2"}, {"/c/f", "1"},
	} {
		s.run("mkdir", set.path)
		s.run("write", set.path+"/cpuset.cpus", set.cpus)
		s.run("write", set.path+"/cpuset.mems", "0")
		members[set.path] = startSpawner(t)
		s.run("write", set.path+"/tasks", fmt.Sprint(members[set.path].pid()))
	}
	// The kernel's own answer to a CPU that goes can be another mask for a while.
	want := func(when string, cpus map[string]string) {
		t.Helper()
		for path, list := range cpus {
			what := fmt.Sprintf("cpus %s of %s and its member, with %s", list, path, when)
			waitFor(t, what, func() bool {
				return s.run("read", path+"/cpuset.cpus") == list+"\n" &&
					(path == "/c" || cpusAllowed(t, members[path].pid(), members[path].pid()) == list)
			})
		}
		if got := cpusAllowed(t, members["/c"].pid(), members["/c"].pid()); got != "0-2" {
			t.Errorf("the root's member has %s, with %s", got, when)
		}
	}
	plug := func(online string) { writeFile(t, "/sys/devices/system/cpu/cpu1/online", online) }
	t.Cleanup(func() { plug("1") })

	all := map[string]string{"/c": "0-2", "/c/a": "0-1", "/c/a/b": "1", "/c/a/b/e": "1", "/c/d": "1-2", "/c/f": "1"}
	want("all CPUs", all)
	plug("0")
	want("CPU 1 offline", map[string]string{"/c": "0,2", "/c/a": "0", "/c/a/b": "0", "/c/a/b/e": "0", "/c/d": "2", "/c/f": "0,2"})
	if code, _, stderr := s.command("write", "/c/d/cpuset.cpus", "1-2"); code == 0 || !strings.Contains(stderr, "invalid argument") {
		t.Errorf("a CPU that is offline: exit code %d, %s", code, stderr)
	}
	// Who comes meanwhile is within what is in force.
	late := members["/c/f"].fork()
	if got := cpusAllowed(t, late, late); got != "0,2" {
		t.Errorf("a child has %s, with CPU 1 offline", got)
	}
	plug("1")
	want("CPU 1 online again", all)
	waitFor(t, "the child to follow", func() bool { return cpusAllowed(t, late, late) == "1" })
	if online, err := os.ReadFile("/sys/devices/system/cpu/online"); err != nil || string(online) != "0-2\n" {
		t.Errorf("online are %q, %v", online, err)
	}
}

// TestHotplugInKernel: so it is where the kernel's cpuset enforces it. What the kernel refuses
// while a CPU is offline leaves that configured.
func TestHotplugInKernel(t *testing.T) {
	if !inside {
		runInsideOn(t, machine{cpus: 3}, "^TestHotplugInKernel$")
		return
	}
	mount := t.TempDir()
	if err := unix.Mount("cgroup", mount, "cgroup", 0, "cpuset"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(mount, 0) })
	k := controllers{1, map[string]string{"cpuset": mount}, versions[1]}
	s := k.serve(t, "cpuset")
	plug := func(online string) { writeFile(t, "/sys/devices/system/cpu/cpu1/online", online) }
	t.Cleanup(func() { plug("1") })
	s.run("mkdir", "/h/a")
	s.run("write", "/h/a/cpuset.cpus", "0-2")
	s.run("write", "/h/a/cpuset.mems", "0")
	p := startSpawner(t)
	s.run("write", "/h/a/procs", fmt.Sprint(p.pid()))
	dir := mount + k.dir(t, "cpuset", p.pid())
	want := func(when, list string) {
		t.Helper()
		waitFor(t, fmt.Sprintf("cpus %s of the container, the kernel and the member, %s", list, when), func() bool {
			kernels, err := os.ReadFile(dir + "/cpuset.cpus")
			return err == nil && s.run("read", "/h/a/cpuset.cpus") == list+"\n" &&
				string(kernels) == list+"\n" && cpusAllowed(t, p.pid(), p.pid()) == list
		})
	}
	want("all online", "0-2")
	plug("0")
	want("CPU 1 offline", "0,2")
	theirs := dir + "/theirs"
	if err := os.Mkdir(theirs, 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, theirs+"/cpuset.cpus", "2")
	if code, _, _ := s.command("write", "/h/a/cpuset.cpus", "0"); code != 5 {
		t.Errorf("the kernel says EBUSY: exit code %d", code)
	}
	want("a write refused", "0,2")
	if err := os.Remove(theirs); err != nil {
		t.Error(err)
	}
	plug("1")
	want("CPU 1 online again", "0-2")
	s.run("write", "/h/procs", fmt.Sprint(p.pid()))
	s.run("rmdir", "/h/a")
}
