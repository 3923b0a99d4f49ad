package tests

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"containerfs/tree/kernfs"
)

// mirrorDir is the directory of the mirror that a process is in, "" for the root.
func mirrorDir(t testing.TB, name string, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, path, ok := strings.Cut(string(text), "name="+name+":/")
	if !ok {
		t.Fatalf("process %d is not in the mirror: %q", pid, text)
	}
	path, _, _ = strings.Cut(path, "\n")
	return path
}

// mirror is the name of the server's mirror, as it says.
func (s *server) mirror() string {
	s.t.Helper()
	_, rest, on := strings.Cut(s.log.String(), `msg="mirror: on, `)
	if !on {
		s.t.Fatalf("it says of no mirror:\n%s", s.log.String())
	}
	said, _, _ := strings.Cut(rest, `"`)
	name, _, _ := strings.Cut(said, " ") // " with" its controllers
	return name
}

// TestMirrorOfOneServer: without state each server has a mirror of its own, which goes
// with it, or with the start of another when it was killed. Its tasks live on.
func TestMirrorOfOneServer(t *testing.T) {
	p := startSpawner(t)
	var s *server
	begin := func() (name string) {
		t.Helper()
		s = startServer(t, "--state", "none", "--hierarchy", "h=debug")
		s.run("mkdir", "/h/a")
		s.run("write", "/h/a/procs", fmt.Sprint(p.pid()))
		name = s.mirror()
		if mirrorDir(t, name, p.pid()) == "" {
			t.Errorf("in a container it is in the root of the mirror")
		}
		return name
	}
	there := func(name string) bool {
		t.Helper()
		names, err := kernfs.Names()
		if err != nil {
			t.Fatal(err)
		}
		return slices.Contains(names, name)
	}
	first := begin()
	s.stop()
	if there(first) {
		t.Errorf("%s is there after its server's end", first)
	}
	second := begin()
	if second == first || !there(second) {
		t.Errorf("the second server has %s, the first had %s", second, first)
	}
	s.kill9()
	third := begin()
	if there(second) || third == second {
		t.Errorf("%s is there though its server was killed, the third has %s", second, third)
	}
	s.stop()
	if there(third) || !lives(p.pid()) {
		t.Errorf("%s is there, or the process is not", third)
	}
}

// TestMirrorController: a mirror is made with a controller where nothing else has that, and
// keeps it; with none where it cannot have it.
func TestMirrorController(t *testing.T) {
	state := t.TempDir()
	p := startSpawner(t)
	made := false
	begin := func(mirror string) *server {
		t.Helper()
		s := startServer(t, "--state", state, "--mirror", mirror, "--hierarchy", "h=debug")
		if !made {
			s.run("mkdir", "/h/a")
			made = true
		}
		if mirrorDir(t, s.mirror(), p.pid()) == "" {
			s.run("write", "/h/a/procs", fmt.Sprint(p.pid()))
		}
		if mirrorDir(t, s.mirror(), p.pid()) == "" || !slices.Equal(s.tasks("/h/a"), []int{p.pid()}) {
			t.Errorf("tasks %v, and in the mirror in %q", s.tasks("/h/a"), mirrorDir(t, s.mirror(), p.pid()))
		}
		return s
	}
	t.Cleanup(func() { retireMirrors(t, state) })
	has := func(s *server) []string {
		t.Helper()
		controllers, err := kernfs.Controllers(s.mirror())
		if err != nil {
			t.Fatal(err)
		}
		if said := strings.Contains(s.log.String(), s.mirror()+" with hugetlb"); said != (len(controllers) > 0) {
			t.Errorf("the mirror has %v:\n%s", controllers, s.log.String())
		}
		return controllers
	}
	const none = "the mirror lacks the controller"

	text, err := os.ReadFile("/proc/cgroups")
	if err != nil {
		t.Fatal(err)
	}
	free := regexp.MustCompile(`(?m)^hugetlb\t0\t\d+\t1$`).Match(text)
	s := begin("hugetlb")
	with := has(s)
	if refused := strings.Contains(s.log.String(), none); refused == slices.Contains(with, "hugetlb") || !free && !refused {
		t.Errorf("hugetlb free in version 1: %v; the mirror has %v:\n%s", free, with, s.log.String())
	}
	s.stop()
	s = begin("auto") // as the one before has left it
	if !slices.Equal(has(s), with) {
		t.Errorf("the mirror has %v, had %v", has(s), with)
	}
	if len(with) > 0 { // so that another cannot have it
		other := startServer(t, "--state", "none", "--mirror", "hugetlb", "--hierarchy", "h=debug")
		if other.mirror() == s.mirror() || len(has(other)) > 0 || !strings.Contains(other.log.String(), none) {
			t.Errorf("two mirrors with one controller:\n%s", other.log.String())
		}
		other.stop()
		// Nor has anybody's subsystem, who would move tasks in there.
		for _, at := range []string{"none", t.TempDir()} {
			code, _, said := refusedStart(t, "--state", at, "--enable", "hugetlb", "--hierarchy", "h=hugetlb")
			if code != 1 || !strings.Contains(said, "hugetlb is in the mirror "+s.mirror()) {
				t.Errorf("a subsystem with the mirror's controller: exit code %d, %s", code, said)
			}
		}
	}
	s.stop()
	if there, err := kernfs.Names(); err != nil || !slices.Contains(there, s.mirror()) {
		t.Errorf("a mirror with a task is gone: %v, %v", there, err)
	}
	s = begin("auto")
	s.run("write", "/h/procs", fmt.Sprint(p.pid()))
	s.stop()
	if there, err := kernfs.Names(); err != nil || slices.Contains(there, s.mirror()) {
		t.Errorf("a mirror without tasks is left over: %v, %v", there, err)
	}
	s = begin("auto")
	if len(has(s)) > 0 {
		t.Errorf("nobody asked for %v", has(s))
	}
	s.stop()
	s = begin("hugetlb")
	if len(has(s)) > 0 || free && !strings.Contains(s.log.String(), "it is the one of the server before") {
		t.Errorf("the mirror has %v:\n%s", has(s), s.log.String())
	}
	s.stop()
}

// TestMirrorTakenOver: what somebody else does to the mirror, while there is a server and
// while there is none, is taken as it is or put right, and said.
func TestMirrorTakenOver(t *testing.T) {
	state := t.TempDir()
	args := []string{"--state", state, "--hierarchy", "h=debug"}
	s := startServer(t, args...)
	s.run("mkdir", "/h/confidential")
	s.run("mkdir", "/h/b")
	p, q, r := startSpawner(t), startSpawner(t), startSpawner(t)
	s.run("write", "/h/confidential/procs", fmt.Sprint(p.pid()))
	s.run("write", "/h/confidential/procs", fmt.Sprint(r.pid()))
	s.run("write", "/h/b/procs", fmt.Sprint(q.pid()))
	name := s.mirror()
	mirror, err := kernfs.OpenNamed(name)
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	t.Cleanup(func() {
		if !closed {
			mirror.Close()
		}
	})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	move := func(pid int, dir string) {
		t.Helper()
		must(mirror.Move(dir, int32(pid), true))
	}
	// Whose it is, and what it is called, is nobody else's to see.
	if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.pid())); err != nil || strings.Contains(string(text), "confidential") {
		t.Errorf("the kernel shows %s", text)
	}
	a, b := mirrorDir(t, name, p.pid()), mirrorDir(t, name, q.pid())

	move(p.pid(), b)
	waitFor(t, "the process to be where it was moved", func() bool { return slices.Equal(s.tasks("/h/b"), sorted(p.pid(), q.pid())) })
	must(mirror.Make("alien"))
	move(q.pid(), "alien")
	waitFor(t, "the process to be in the root", func() bool {
		return slices.Equal(s.tasks("/h/b"), []int{p.pid()}) && mirrorDir(t, name, q.pid()) == ""
	})
	if !strings.Contains(s.log.String(), "somebody else moved a task in the mirror") {
		t.Errorf("nothing is said of that:\n%s", s.log.String())
	}
	// A directory that is gone is made again.
	s.run("write", "/h/procs", fmt.Sprint(r.pid()))
	if err := mirror.Remove(a); err != nil && !errors.Is(err, syscall.ENOENT) {
		t.Fatal(err)
	}
	s.run("write", "/h/confidential/procs", fmt.Sprint(r.pid()))
	if got := mirrorDir(t, name, r.pid()); got != a {
		t.Errorf("it is in %q of the mirror, want %q", got, a)
	}

	s.kill9()
	move(p.pid(), a)
	move(r.pid(), ".")
	must(mirror.Make("filled"))
	move(q.pid(), "filled")
	born := q.fork()
	must(mirror.Remove(b))
	s = startServer(t, args...)
	if log := s.log.String(); !strings.Contains(log, `are in the roots" tasks=2 tids="[`) || !strings.Contains(log, fmt.Sprint(born)) {
		t.Errorf("nothing is said of %d and %d:\n%s", q.pid(), born, log)
	}
	root := s.tasks("/h")
	for _, pid := range []int{q.pid(), born, r.pid()} {
		if !slices.Contains(root, pid) || mirrorDir(t, name, pid) != "" {
			t.Errorf("%d is not in the root, but in %q of the mirror", pid, mirrorDir(t, name, pid))
		}
	}
	if got := s.tasks("/h/confidential"); !slices.Equal(got, []int{p.pid()}) {
		t.Errorf("/h/confidential has %v, want %d", got, p.pid())
	}
	if got := s.tasks("/h/b"); len(got) != 0 {
		t.Errorf("/h/b has %v", got)
	}
	if names, err := mirror.Dirs(); err != nil || !slices.Equal(names, []string{a}) {
		t.Errorf("the mirror has %q, %v, want %s", names, err, a)
	}
	s.run("write", "/h/b/procs", fmt.Sprint(q.pid()))
	if got := s.tasks("/h/b"); !slices.Equal(got, []int{q.pid()}) || mirrorDir(t, name, q.pid()) == "" {
		t.Errorf("/h/b has %v, want %d", got, q.pid())
	}
	for _, c := range []*spawner{p, q, r} {
		c.kill()
	}
	for _, path := range []string{"/h/confidential", "/h/b"} {
		waitFor(t, "rmdir", func() bool { code, _, _ := s.command("rmdir", path); return code == 0 })
	}
	s.stop()
	closed = true
	must(mirror.Close())
	retireMirrors(t, state)
}
