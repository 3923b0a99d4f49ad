package tests

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestCharlie is the example of the design that all this comes from: a guest's
// kernel mounts the server, makes the container Charlie, and moves a process of
// this host into it.
func TestCharlie(t *testing.T) {
	s := startServer(t)
	p := startSpawner(t)
	before := p.fork()
	anywhere := cpusAllowed(t, p.pid(), p.pid())

	// The host answers by making containers, which the guest waits for: so both
	// sides see each other's changes at once.
	g := startGuest(t, nil, fmt.Sprintf(`
		set -e
		await() { while [ ! -d $1 ]; do usleep 20000; done; }
		mount -t 9p -o trans=tcp,port=%s,version=9p2000.L,cache=none,aname=all 10.0.2.2 /mnt
		cd /mnt
		mkdir Charlie
		cat Charlie/tasks
		echo 0 > Charlie/cpuset.cpus
		echo 0 > Charlie/cpuset.mems
		echo %d > Charlie/tasks
		echo attached
		await go-on-1
		echo left: $(cat Charlie/tasks)
		rmdir Charlie
		ls -d Charlie 2>/dev/null || echo removed
		cd /
		umount /mnt
	`, s.port, p.pid()))

	g.expect("attached")
	after := []int{p.fork(), p.fork(), p.fork()}
	in := append([]int{p.pid()}, after...)
	checkMembers(t, s, "/all/Charlie", in)
	if got := s.run("read", fmt.Sprintf("/proc/%d/container", before)); !strings.HasSuffix(got, ":/\n") {
		t.Errorf("the child from before is in %q, not in the root", got)
	}
	for _, pid := range in {
		if got := cpusAllowed(t, pid, pid); got != "0" {
			t.Errorf("%d may run on %s", pid, got)
		}
	}
	if got := cpusAllowed(t, before, before); got != anywhere {
		t.Errorf("the child from before may run on %s, not on %s as it could", got, anywhere)
	}

	p.kill()
	s.run("mkdir", "/all/go-on-1")
	if out := g.finish(); !strings.HasSuffix(out, "attached\nleft:\nremoved\n") {
		t.Errorf("the guest saw:\n%s", out)
	}
	if code, _, stderr := s.command("stat", "/all/Charlie"); code != 3 {
		t.Errorf("Charlie is still there: exit code %d, %s", code, stderr)
	}
	s.run("rmdir", "/all/go-on-1")
}

// TestCharlieLocal is the same with the command on the unix socket.
func TestCharlieLocal(t *testing.T) {
	s := startServer(t)
	p := startSpawner(t)

	s.run("mkdir", "/all/Charlie")
	if got := s.run("read", "/all/Charlie/tasks"); got != "" {
		t.Errorf("a new container has tasks:\n%s", got)
	}
	s.run("write", "/all/Charlie/cpuset.cpus", "0")
	s.run("write", "/all/Charlie/cpuset.mems", "0")
	s.run("write", "/all/Charlie/tasks", fmt.Sprint(p.pid()))
	in := []int{p.pid(), p.fork(), p.fork()}
	checkMembers(t, s, "/all/Charlie", in)
	for _, pid := range in {
		if got := cpusAllowed(t, pid, pid); got != "0" {
			t.Errorf("%d may run on %s", pid, got)
		}
	}
	code, _, stderr := s.command("rmdir", "/all/Charlie")
	if code != 5 || stderr != "containerfs: rmdir /all/Charlie: it has tasks: device or resource busy\n" {
		t.Errorf("rmdir of a busy container: exit code %d, %s", code, stderr)
	}
	p.kill()
	s.run("rmdir", "/all/Charlie") // before anybody has read tasks
	if code, _, _ := s.command("read", "/all/Charlie/tasks"); code != 3 {
		t.Errorf("tasks after rmdir: exit code %d", code)
	}
}

// TestCharlieThreads moves all threads of a process by procs, and one by
// tasks.
func TestCharlieThreads(t *testing.T) {
	s := startServer(t)
	p := startThreadedSpawner(t)
	s.run("mkdir", "/all/Charlie", "/all/Dora")
	for _, c := range []string{"/all/Charlie", "/all/Dora"} {
		s.run("write", c+"/cpuset.cpus", "0")
		s.run("write", c+"/cpuset.mems", "0")
	}

	s.run("write", "/all/Charlie/procs", fmt.Sprint(p.pid()))
	child := p.fork()
	tids := settledThreads(t, p.pid())
	checkMembers(t, s, "/all/Charlie", append(slices.Clone(tids), threads(t, child)...))
	if got, want := numbers(t, s.run("read", "/all/Charlie/procs")), sorted(p.pid(), child); !slices.Equal(got, want) {
		t.Errorf("procs of Charlie: %v, want %v", got, want)
	}
	for _, tid := range tids {
		if got := cpusAllowed(t, p.pid(), tid); got != "0" {
			t.Errorf("thread %d of %d may run on %s", tid, p.pid(), got)
		}
	}

	last := tids[len(tids)-1]
	s.run("write", "/all/Dora/tasks", fmt.Sprint(last))
	if got := s.tasks("/all/Dora"); !slices.Equal(got, []int{last}) {
		t.Errorf("tasks of Dora: %v, want %d alone", got, last)
	}
	if got := s.tasks("/all/Charlie"); slices.Contains(got, last) {
		t.Errorf("%d is in both: tasks of Charlie: %v", last, got)
	}
	p.kill()
	s.run("rmdir", "/all/Charlie", "/all/Dora")
}

// checkMembers has a container's tasks and the tasks' own view agree with what
// they should be.
func checkMembers(t testing.TB, s *server, container string, want []int) {
	t.Helper()
	want = sorted(want...)
	if got := s.tasks(container); !slices.Equal(got, want) {
		t.Errorf("tasks of %s: %v, want %v", container, got, want)
	}
	inHierarchy := container[strings.Index(container[1:], "/")+1:]
	for _, tid := range want {
		path := fmt.Sprintf("/proc/%d/container", tid)
		if got := s.run("read", path); !strings.HasSuffix(got, ":"+inHierarchy+"\n") || strings.Count(got, "\n") != 1 {
			t.Errorf("%s: %q, want one line that ends in %s", path, got, inHierarchy)
		}
	}
}

func sorted(n ...int) []int {
	slices.Sort(n)
	return n
}
