package tests

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hugelgupf/p9/p9"
	"golang.org/x/sys/unix"

	"containerfs/ops/store"
)

// kill9 ends the server without a word and waits until it is gone.
func (s *server) kill9() {
	s.t.Helper()
	s.cmd.Process.Kill()
	<-s.done
	s.cmd.Wait()
}

// snapshot is everything that a client can see of hierarchies: attributes, and what
// files show, but for what is measured or is of the moment.
func (s *server) snapshot(c *client) map[string]string {
	s.t.Helper()
	all := map[string]string{"ctl": facts(s.t, c)}
	var walk func(path string)
	walk = func(path string) {
		names, err := c.names(path)
		if err != nil {
			s.t.Fatalf("%s: %v", path, err)
		}
		for _, name := range append(names, ".") {
			if name == ".." {
				continue
			}
			f, err := c.walk(path + "/" + name)
			if err != nil {
				s.t.Fatalf("%s/%s: %v", path, name, err)
			}
			qid, _, a, err := f.GetAttr(p9.AttrMaskAll)
			f.Close()
			if err != nil {
				s.t.Fatal(err)
			}
			a.Size = 0
			all[path+"/"+name] = fmt.Sprintf("%v %+v", qid, a)
			switch {
			case name == "." || measured(name):
			case qid.Type&p9.TypeDir != 0:
				walk(path + "/" + name)
			default:
				if text, err := c.read(path + "/" + name); err == nil {
					all[path+"/"+name] += "\n" + text
				}
			}
		}
	}
	names, err := c.names("/")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, name := range names {
		if !slices.Contains([]string{".", "..", "ctl", "containers", "events", "rules", "proc"}, name) {
			walk("/" + name)
		}
	}
	return all
}

// facts is what ctl says of hierarchies.
func facts(t testing.TB, c *client) (lines string) {
	text, err := c.read("/ctl")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			lines += line
		}
	}
	return lines
}

// measured files show what goes on at the host.
func measured(name string) bool {
	for _, part := range []string{"events", "releasable", "held", "resources", "stats", "debug.", "cpuacct.", "maxheld", "minheld"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

// mustMatch compares snapshots, but for the tasks of roots.
func mustMatch(t testing.TB, what string, before, after map[string]string) {
	t.Helper()
	differ := 0
	for path, was := range before {
		isRoot := strings.Count(path, "/") == 2 && (strings.HasSuffix(path, "/tasks") || strings.HasSuffix(path, "/procs"))
		if is := after[path]; is != was && !isRoot && differ < 10 {
			t.Errorf("%s: %s was\n%s\nis\n%s", what, path, was, is)
			differ++
		}
	}
	for path := range after {
		if _, ok := before[path]; !ok {
			t.Errorf("%s: %s was not there before", what, path)
		}
	}
}

// TestRestart ends a server in both ways: everything is there again, and all of its
// members are where they were, with the children that they had meanwhile.
func TestRestart(t *testing.T) {
	for _, mirror := range []string{"auto", "off"} {
		t.Run("mirror "+mirror, func(t *testing.T) {
			dir := t.TempDir()
			args := []string{"--state", dir, "--mirror", mirror, "--allow-release-agent",
				"--hierarchy", "cpu=cpuset,cpuacct", "--hierarchy", "n=numtasks,bc,noprefix"}
			s := startServer(t, args...)
			c := s.client("/")
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			for _, path := range []string{"/cpu/a", "/cpu/a/b", "/cpu/gone", "/cpu/old", "/n/x", "/n/x/y"} {
				must(c.mkdir(path))
			}
			must(c.rmdir("/cpu/gone"))
			must(c.rename("/cpu/old", "new"))
			for _, w := range []struct{ path, value string }{
				{"/cpu/a/cpuset.cpus", "0"}, {"/cpu/a/cpuset.mems", "0"}, {"/cpu/a/notify_on_release", "1"},
				{"/cpu/release_agent", "/bin/true"}, {"/cpu/a/max.depth", "3"}, {"/n/x/max.descendants", "7"},
				{"/n/x/shares", "res=numtasks,max_shares=50"}, {"/n/x/policy", "kill"},
				{"/n/x/numproc.barrier", "800"}, {"/n/x/numproc.limit", "900"}, {"/cpu/cpuset.memory_migrate", "1"},
			} {
				must(c.write(w.path, w.value))
			}
			set := func(path string, mask p9.SetAttrMask, attr p9.SetAttr) {
				t.Helper()
				f, err := c.walk(path)
				must(err)
				defer f.Close()
				must(f.SetAttr(mask, attr))
			}
			set("/cpu/a/b", p9.SetAttrMask{UID: true, GID: true, Permissions: true}, p9.SetAttr{UID: 1000, GID: 100, Permissions: 0o750})
			set("/n/x/shares", p9.SetAttrMask{UID: true}, p9.SetAttr{UID: 1000})
			set("/n/x/y", p9.SetAttrMask{MTime: true, MTimeNotSystemTime: true}, p9.SetAttr{MTimeSeconds: 12345})
			set("/n/x", p9.SetAttrMask{ATime: true, ATimeNotSystemTime: true}, p9.SetAttr{ATimeSeconds: 54321})
			set("/n/x/policy", p9.SetAttrMask{ATime: true, ATimeNotSystemTime: true, MTime: true, MTimeNotSystemTime: true}, p9.SetAttr{ATimeSeconds: 1, MTimeSeconds: 2})
			set("/n", p9.SetAttrMask{Permissions: true}, p9.SetAttr{Permissions: 0o711})
			must(c.write("/ctl", "mount d debug"))
			must(c.mkdir("/d/kept"))
			must(c.write("/ctl", "umount d"))

			p := startSpawner(t)
			child := p.fork()
			must(c.write("/cpu/a/tasks", fmt.Sprint(p.pid())))
			must(c.write("/n/x/y/procs", fmt.Sprint(child)))
			inA := p.fork()
			before := s.snapshot(c)
			for _, end := range []func(){s.kill9, func() { s.stop() }} {
				end()
				born := p.fork() // while there is no server
				s = startServer(t, args...)
				if end := strings.Contains(s.log.String(), "restored"); !end {
					t.Errorf("nothing was restored:\n%s", s.log.String())
				}
				c = s.client("/")
				after := s.snapshot(c)
				if !slices.Contains(s.tasks("/cpu/a"), born) {
					t.Errorf("the child %d that was born without a server is not in /cpu/a, which has %v", born, s.tasks("/cpu/a"))
				}
				syscall.Kill(born, syscall.SIGKILL)
				for _, file := range []string{"/cpu/a/tasks", "/cpu/a/procs"} {
					after[file] = strings.Replace(after[file], fmt.Sprintf("%d\n", born), "", 1)
				}
				mustMatch(t, "after a restart", before, after)
			}
			if got := s.tasks("/n/x/y"); !slices.Equal(got, []int{child}) {
				t.Errorf("/n/x/y has %v, want %d", got, child)
			}
			if !slices.Contains(s.tasks("/cpu/a"), inA) {
				t.Errorf("/cpu/a has %v, want %d too", s.tasks("/cpu/a"), inA)
			}
			// Ids are not used again.
			c = s.client("/")
			must(c.mkdir("/cpu/fresh"))
			f, err := c.walk("/cpu/fresh")
			must(err)
			qid, _, _, err := f.GetAttr(p9.AttrMaskAll)
			must(err)
			for path, attr := range before {
				if strings.HasPrefix(attr, fmt.Sprintf("%v ", qid)) {
					t.Errorf("%s had the qid of /cpu/fresh", path)
				}
			}
			// What was unmounted with a child is there again.
			must(c.write("/ctl", "mount d debug"))
			must(c.rmdir("/d/kept"))
			p.kill()
			for _, path := range []string{"/cpu/a/b", "/cpu/a", "/n/x/y", "/n/x"} {
				must(c.rmdir(path))
			}
			s.stop()
			retireMirrors(t, dir)
		})
	}
}

// TestVoid: where what is kept of tasks is of another boot, of another directory or of
// a time with another way to know, they are in the roots, and that is said; all else is
// as it was. The mirror of the original is left alone by a copy.
func TestVoid(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := startServer(t, "--state", dir)
	p := startSpawner(t)
	put := func() {
		t.Helper()
		s.run("write", "/all/a/cpuset.cpus", "0")
		s.run("write", "/all/a/cpuset.mems", "0")
		s.run("write", "/all/a/tasks", fmt.Sprint(p.pid()))
	}
	s.run("mkdir", "/all/a")
	put()
	s.stop()
	again := func(what, said string, in int, args ...string) {
		t.Helper()
		s = startServer(t, args...)
		if !strings.Contains(s.log.String(), said) {
			t.Errorf("%s: it does not say %q:\n%s", what, said, s.log.String())
		}
		if got := s.tasks("/all/a"); len(got) != in {
			t.Errorf("%s: /all/a has %v, want %d", what, got, in)
		}
		if got := s.run("read", "/all/a/cpuset.cpus"); got != "0\n" {
			t.Errorf("%s: cpuset.cpus is %q", what, got)
		}
	}
	again("nothing happened", "where the mirror has them", 1, "--state", dir)
	s.stop()

	copied := filepath.Join(t.TempDir(), "state")
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	again("copied", "a copy of another", 0, "--state", copied)
	s.stop()
	retireMirrors(t, copied)
	again("was copied", "where the mirror has them", 1, "--state", dir)
	s.stop()

	again("without the mirror", "in another way", 0, "--state", dir, "--mirror", "off")
	put()
	s.stop()
	again("again without", "where a list has them", 1, "--state", dir, "--mirror", "off")
	s.stop()
	again("with the mirror again", "in another way", 0, "--state", dir)
	put()
	s.stop()

	db, err := store.Open(dir, func(store.Key, []byte) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	db.Put(store.Key{Bucket: store.Facts, Name: "boot"}, []byte("another\n"), nil)
	db.Close()
	again("rebooted", "of another boot", 0, "--state", dir)
	put()
	s.stop()
	again("the second time after the boot", "where the mirror has them", 1, "--state", dir)
	p.kill()
	s.run("rmdir", "/all/a")
	s.stop()
	retireMirrors(t, dir)
}

// TestAffinityBack: a task that returns to the root has the CPUs again that it had, also
// when the server was killed meanwhile; so has a child that was born without one.
func TestAffinityBack(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Fatal("needs two CPUs")
	}
	dir := t.TempDir()
	s := startServer(t, "--state", dir, "--hierarchy", "cpu=cpuset")
	c := s.client("/")
	for _, path := range []string{"/cpu/a"} {
		if err := c.mkdir(path); err != nil {
			t.Fatal(err)
		}
	}
	for _, w := range [][2]string{{"cpus", "0"}, {"mems", "0"}} {
		if err := c.write("/cpu/a/cpuset."+w[0], w[1]); err != nil {
			t.Fatal(err)
		}
	}
	p := startSpawner(t)
	var one unix.CPUSet
	one.Set(1)
	if err := unix.SchedSetaffinity(p.pid(), &one); err != nil {
		t.Fatal(err)
	}
	if err := c.write("/cpu/a/tasks", fmt.Sprint(p.pid())); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); !keptRow(t, dir, "cpuset", fmt.Sprint(p.pid())); {
		if time.Now().After(end) {
			t.Fatal("the CPUs that it had are not kept")
		}
		time.Sleep(100 * time.Millisecond) // they are once a second
	}
	s.kill9()
	born := p.fork()
	s = startServer(t, "--state", dir)
	c = s.client("/")
	for _, pid := range []int{p.pid(), born} {
		var got unix.CPUSet
		if err := unix.SchedGetaffinity(pid, &got); err != nil || !got.IsSet(0) || got.Count() != 1 {
			t.Errorf("as a member %d may run on %v, %v", pid, got, err)
		}
		if err := c.write("/cpu/tasks", fmt.Sprint(pid)); err != nil {
			t.Fatal(err)
		}
		if err := unix.SchedGetaffinity(pid, &got); err != nil || got != one {
			t.Errorf("back in the root %d may run on %v, %v; want CPU 1", pid, got, err)
		}
	}
	p.kill()
	if err := c.rmdir("/cpu/a"); err != nil {
		t.Error(err)
	}
	s.stop()
	retireMirrors(t, dir)
}

// TestConflict: a hierarchy that is asked for and cannot be, beside those of the
// state, is said by name, and nothing is changed. An equal one is reused, and the
// implied one does not come on top.
func TestConflict(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, "--state", dir, "--hierarchy", "cpu=cpuset")
	s.run("mkdir", "/cpu/a")
	s.stop()
	for _, tt := range []struct{ flag, want string }{
		{"cpu=cpuset,debug", "hierarchy cpu=cpuset,debug: there is cpu=cpuset,name=cpu already: device or"},
		{"other=cpuset", "hierarchy other=cpuset: cpuset is in the hierarchy cpu already: device or"},
		{"x=debug,cpuset", "hierarchy x=debug,cpuset: cpuset is in the hierarchy cpu already: device or"},
	} {
		code, _, stderr := refusedStart(t, "--state", dir, "--hierarchy", tt.flag)
		kept := "busy; the state directory " + dir + " keeps cpu: in a server that is started without --hierarchy, `containerfs save` it, empty and remove its containers, and `containerfs write /ctl 'umount cpu'`; or move the directory away to begin anew\n"
		plannedAs(t, stderr, dir, "", tt.flag)
		if code != usage || !strings.Contains(stderr, tt.want) || !strings.Contains(stderr, tt.flag) || !strings.HasSuffix(stderr, kept) {
			t.Errorf("--hierarchy %s: exit code %d, want that %s is there:\n%s", tt.flag, code, tt.want, stderr)
		}
	}
	// Nothing of that where what is kept is not in the way.
	if _, _, stderr := refusedStart(t, "--state", dir, "--hierarchy", "cpu=cpuset", "--hierarchy", "d=debug", "--hierarchy", "e=debug"); !strings.HasSuffix(stderr, ": debug is in the hierarchy d already: device or resource busy\n") {
		t.Errorf("got %s", stderr)
	}
	s = startServer(t, "--state", dir)
	if got, want := s.run("mounts"), "cpu\tcpuset,name=cpu\n"; got != want {
		t.Errorf("after starts that were refused there are\n%swant\n%s", got, want)
	}
	s.stop()
	s = startServer(t, "--state", dir, "--hierarchy", "cpu=cpuset", "--hierarchy", "d=debug")
	if got, want := s.run("ls", "/"), "ctl\ncontainers\nevents\nrules\nproc\ncpu\nd\n"; got != want {
		t.Errorf("there are\n%swant\n%s", got, want)
	}
	s.run("rmdir", "/cpu/a")
	s.stop()
	plannedAs(t, "", dir, "", "cpu=cpuset", "d=debug")
	plannedAs(t, "", dir, "")
	s = startServer(t, "--state", dir)
	if got, want := s.run("ls", "/"), "ctl\ncontainers\nevents\nrules\nproc\ncpu\nd\n"; got != want {
		t.Errorf("without flags there are\n%swant\n%s", got, want)
	}
	s.stop()

	// What the message says to do helps.
	if _, _, stderr := refusedStart(t, "--state", dir, "--hierarchy", "other=cpuset,debug"); !strings.Contains(stderr, " keeps cpu, d: in a server that is started without --hierarchy,") || !strings.Contains(stderr, "`containerfs write /ctl 'umount NAME'`") {
		t.Errorf("got %s", stderr)
	}
	s = startServer(t, "--state", dir)
	s.run("write", "/ctl", "umount cpu")
	s.run("write", "/ctl", "umount d")
	s.stop()
	s = startServer(t, "--state", dir, "--hierarchy", "other=cpuset,debug")
	if got, want := s.run("mounts"), "other\tcpuset,debug,name=other\n"; got != want {
		t.Errorf("there are\n%swant\n%s", got, want)
	}
	s.stop()
	retireMirrors(t, dir)
}

// TestRefusedFirstStart: a first start that is refused for a hierarchy makes no state directory,
// so that what it asked for, and did not get, is in nobody's way.
func TestRefusedFirstStart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	t.Cleanup(func() { retireMirrors(t, dir) })
	for range 2 {
		if code, _, stderr := refusedStart(t, "--state", dir, "--hierarchy", "a=cpuset", "--hierarchy", "b=nosuch"); code != usage || !strings.Contains(stderr, "hierarchy b=nosuch: ") {
			t.Errorf("exit code %d: %s", code, stderr)
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("the state directory: %v", err)
		}
	}
	s := startServer(t, "--state", dir) // with what is there by default
	if got := s.run("mounts"); !strings.HasPrefix(got, "all\t") || strings.Count(got, "\n") != 1 {
		t.Errorf("there are\n%s", got)
	}
	s.run("mkdir", "/all/a")
	s.stop()
	s = startServer(t, "--state", dir)
	if !strings.Contains(s.log.String(), "containers=1") {
		t.Errorf("the second start that was not refused does not restore:\n%s", s.log.String())
	}
	s.run("rmdir", "/all/a")
	s.stop()
}

// TestRefusedAfterRestore: a start that is refused beside the state has changed nothing of where
// tasks are, though it would have begun with all of them in the roots.
func TestRefusedAfterRestore(t *testing.T) {
	dir := t.TempDir()
	t.Cleanup(func() { retireMirrors(t, dir) })
	s := startServer(t, "--state", dir, "--hierarchy", "cpu=cpuacct")
	if !strings.Contains(s.log.String(), "mirror: on") {
		t.Skip("there is no mirror on this host")
	}
	s.run("mkdir", "/cpu/a")
	p := startSpawner(t)
	s.run("attach", "/cpu/a", fmt.Sprint(p.pid()))
	s.stop()
	if code, _, stderr := refusedStart(t, "--state", dir, "--mirror", "off", "--hierarchy", "other=cpuacct"); code != usage {
		t.Errorf("exit code %d:\n%s", code, stderr)
	}
	s = startServer(t, "--state", dir)
	if got, want := s.run("read", "/cpu/a/procs"), fmt.Sprintln(p.pid()); got != want {
		t.Errorf("in the container are %q, want %q", got, want)
	}
	p.kill()
	s.run("rmdir", "/cpu/a")
}

// TestRefusedAnywhere: whatever a start is refused for, and however it sees tasks, the state is
// what it was, but for what was measured and for numbers that were given out.
func TestRefusedAnywhere(t *testing.T) {
	rules := filepath.Join(t.TempDir(), "rules")
	if err := os.WriteFile(rules, []byte("nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	refusals := map[string][]string{
		"a conflict":                     {"--hierarchy", "other=cpuacct"},
		"a conflict after a new one":     {"--hierarchy", "new=numtasks", "--hierarchy", "other=cpuacct"},
		"a conflict after one unmounted": {"--hierarchy", "hidden=debug", "--hierarchy", "other=cpuacct"},
		"its rules":                      {"--hierarchy", "new=numtasks", "--rules", rules},
	}
	for _, mirror := range []string{"auto", "off"} {
		dir := t.TempDir()
		t.Cleanup(func() { retireMirrors(t, dir) })
		s := startServer(t, "--state", dir, "--mirror", mirror, "--hierarchy", "cpu=cpuacct", "--hierarchy", "hidden=debug")
		s.run("mkdir", "/cpu/a")
		s.run("mkdir", "/hidden/b")
		p := startSpawner(t)
		s.run("attach", "/cpu/a", fmt.Sprint(p.pid()))
		s.run("write", "/ctl", "umount hidden")
		s.stop()
		rows := func() map[store.Key]string {
			t.Helper()
			rows := make(map[store.Key]string)
			if _, err := store.Read(dir, func(k store.Key, value []byte) error {
				switch {
				case k.Bucket == store.Containers:
					rows[k] = "there"
				case k.Bucket != store.Roots && k != store.Key{Bucket: store.Facts, Name: "next"}:
					rows[k] = string(value)
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			return rows
		}
		before := rows()
		for why, args := range refusals {
			for _, now := range []string{"auto", "off"} {
				if code, _, stderr := refusedStart(t, append([]string{"--state", dir, "--mirror", now}, args...)...); code != usage {
					t.Errorf("%s: exit code %d:\n%s", why, code, stderr)
				}
				if after := rows(); !maps.Equal(after, before) {
					t.Errorf("with the mirror %s, a start with %s that was refused for %s: the state is\n%v, was\n%v", mirror, now, why, after, before)
				}
			}
		}
		s = startServer(t, "--state", dir, "--mirror", mirror)
		if got, want := s.run("read", "/cpu/a/procs"), fmt.Sprintln(p.pid()); got != want {
			t.Errorf("with the mirror %s: in the container are %q, want %q", mirror, got, want)
		}
		p.kill()
		s.run("rmdir", "/cpu/a")
		s.stop()
	}
}

// plannedAs checks that doctor says of a config file what serve has said of it, and that it
// says no such thing where serve has said nothing.
func plannedAs(t testing.TB, stderr, state, enable string, hierarchies ...string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "c.toml")
	text := fmt.Sprintf("state = %q\n", state)
	if len(hierarchies) > 0 {
		text += fmt.Sprintf("hierarchy = [\"%s\"]\n", strings.Join(hierarchies, `", "`))
	}
	if enable != "" {
		text += fmt.Sprintf("enable = [%q]\n", enable)
	}
	writeFile(t, file, text)
	before, err := os.ReadFile(filepath.Join(state, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command("containerfs", "--server", "unix://"+state+"/none", "doctor", "--config", file)
	c.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "CONTAINERFS_STATE=") })
	out, _ := c.Output()
	if after, err := os.ReadFile(filepath.Join(state, "state.db")); err != nil || !slices.Equal(before, after) {
		t.Errorf("doctor has changed the state, %v", err)
	}
	if stderr == "" {
		if strings.Contains(string(out), "wrong    hierarchy") || !strings.Contains(string(out), "ok       hierarchy") {
			t.Errorf("doctor of what serve takes:\n%s", out)
		}
		return
	}
	lines := strings.Split(strings.TrimSuffix(stderr, "\n"), "\n")
	why := strings.TrimPrefix(strings.TrimPrefix(lines[len(lines)-1], "containerfs: "), "hierarchy ")
	if want := "wrong    hierarchy: " + why + "; the server would not start so\n"; !strings.Contains(string(out), want) {
		t.Errorf("doctor has no line\n%s in\n%s", want, out)
	}
}

// TestShortJobsKept: what a job used is kept in the containers above it over a restart, also when
// its own came and went between two looks at what was measured.
func TestShortJobsKept(t *testing.T) {
	state := t.TempDir()
	t.Cleanup(func() { retireMirrors(t, state) })
	start := func() *server { return startServer(t, "--state", state, "--hierarchy", "h=cpuacct") }
	s := start()
	s.run("mkdir", "/h/lab", "/h/lab/jobs")
	s.run("run", "--new", "--rm", "-c", "/h/lab/jobs/1", "--", "sh", "-c", "i=0; while [ $i -lt 40000 ]; do i=$((i+1)); done")
	want := s.run("read", "/h/lab/cpuacct.usage")
	if want == "0\n" {
		t.Error("the job used nothing")
	}
	s.stop()
	s = start()
	for _, path := range []string{"/h/lab", "/h/lab/jobs"} {
		if got := s.run("read", path+"/cpuacct.usage"); got != want {
			t.Errorf("%s: usage is %q after a restart, was %q", path, got, want)
		}
	}
}

// TestLackedSubsystem: a state with a subsystem that has to be asked for is refused without
// that, as what has to be mended, and not touched; so doctor says before.
func TestLackedSubsystem(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, "--state", dir, "--enable", "ns", "--hierarchy", "n=ns", "--hierarchy", "t=numtasks")
	s.run("mkdir", "/n/a")
	s.run("write", "/t/numtasks.shares", "child_shares_divisor=500")
	s.stop()
	kept, err := os.ReadFile(dir + "/state.db")
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{nil, {"n=debug"}} {
		flags := []string{"--state", dir}
		for _, h := range args {
			flags = append(flags, "--hierarchy", h)
		}
		code, _, stderr := refusedStart(t, flags...)
		if want := "containerfs: state directory " + dir + ": hierarchy n of the state has the subsystem ns, which this server does not: --enable ns\n"; code != usage || !strings.HasSuffix(stderr, want) {
			t.Errorf("%q: exit code %d, want %s:\n%s", args, code, want, stderr)
		}
		if now, err := os.ReadFile(dir + "/state.db"); err != nil || !bytes.Equal(now, kept) {
			t.Errorf("%q: it was refused and changed, %v", args, err)
		}
		plannedAs(t, stderr, dir, "", args...)
	}
	plannedAs(t, "", dir, "ns")
	plannedAs(t, "", dir, "ns", "n=ns")
	s = startServer(t, "--state", dir, "--enable", "ns")
	if got := s.run("read", "/t/numtasks.shares"); !strings.Contains(got, "child_shares_divisor=500") {
		t.Errorf("the root's shares are %q", got)
	}
	s.run("rmdir", "/n/a")
	s.stop()
	retireMirrors(t, dir)
}

// TestStartAgain: of a server that runs doctor says whether it would start again with what it
// was told, beside what its state has by now.
func TestStartAgain(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, "--state", dir, "--hierarchy", "d=debug")
	if out, well := s.doctor(); !well || strings.Contains(out, "wrong") {
		t.Errorf("of one with what it was told:\n%s", out)
	}
	s.run("write", "/ctl", "remount d debug,bc")
	if out, well := s.doctor(); well || !strings.Contains(out, "wrong    hierarchy: d=debug: there is d=debug,bc,name=d already: device or resource busy; the state directory "+dir+" keeps d: ") ||
		!strings.Contains(out, "; the server would not start so again\n") {
		t.Errorf("of one with another hierarchy:\n%s", out)
	}
	plannedAs(t, "", dir, "", "d=debug,bc")
	s.stop()
	retireMirrors(t, dir)
}

// TestRefusedState: a state directory that cannot be used ends the server before it
// serves, with the reason, and is as it was.
func TestRefusedState(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, "--state", dir)
	s.run("mkdir", "/all/a")
	code, _, stderr := refusedStart(t, "--state", dir)
	if want := fmt.Sprintf("in use by another server, process %d", s.cmd.Process.Pid); code != 1 || !strings.Contains(stderr, want) {
		t.Errorf("in use: exit code %d, want 1, %s:\n%s", code, want, stderr)
	}
	s.run("rmdir", "/all/a")
	s.run("mkdir", "/all/b")
	s.stop()
	path := filepath.Join(dir, "state.db")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(dir, func(store.Key, []byte) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	db.Put(store.Key{Bucket: store.Facts, Name: "format"}, binary.BigEndian.AppendUint64(nil, store.Format+1), nil)
	db.Close()
	newer, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if db, err = store.Open(dir, func(store.Key, []byte) error { return nil }); err != nil {
		t.Fatal(err)
	}
	db.Put(store.Key{Bucket: store.Roots, Name: "numtasks"}, []byte{0xff}, nil)
	db.Close()
	strange, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		what string
		as   []byte
		said string
	}{
		{"of another build", strange, "invalid argument"},
		{"damaged", append(slices.Clone(whole[:40]), append([]byte("xx"), whole[42:]...)...), "damaged"},
		{"truncated", whole[:2*os.Getpagesize()], "damaged"}, // further up there can be pages of nothing
		{"empty", nil, "damaged"},
		{"newer", newer, "of a newer format than this server knows"},
	} {
		if err := os.WriteFile(path, tt.as, 0o600); err != nil {
			t.Fatal(err)
		}
		code, _, stderr := refusedStart(t, "--state", dir)
		if code != usage || !strings.Contains(stderr, tt.said) || !strings.Contains(stderr, dir) {
			t.Errorf("%s: exit code %d, want %d:\n%s", tt.what, code, usage, stderr)
		}
		if after, err := os.ReadFile(path); err != nil || !slices.Equal(after, tt.as) {
			t.Errorf("%s: the file was changed, %v", tt.what, err)
		}
	}
	if err := errors.Join(os.WriteFile(path, whole, 0o600), os.Chmod(dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := refusedStart(t, "--state", dir); code != 2 || !strings.Contains(stderr, "others than the server's user can write to it") {
		t.Errorf("open to all: exit code %d, want 2:\n%s", code, stderr)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s = startServer(t, "--state", dir)
	s.run("rmdir", "/all/b")
	s.stop()
	retireMirrors(t, dir)
}
