package ops

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hugelgupf/p9/linux"

	"containerfs/tree"
)

// agent writes an agent and names it for the hierarchy m.
func (w *world) agent(script string) (dir string) {
	w.t.Helper()
	dir = w.t.TempDir()
	path := filepath.Join(dir, "agent")
	if err := os.WriteFile(path, []byte("#!/bin/sh\ncwd=$PWD; cd "+dir+"\n"+script), 0o755); err != nil {
		w.t.Fatal(err)
	}
	w.as(root).must(w.as(root).write("m/release_agent", path+"\n"))
	return dir
}

// abandon has a container's only task leave it.
func (w *world) abandon(path string) {
	w.t.Helper()
	k := w.as(root)
	k.must(k.write(path+"/notify_on_release", "1"))
	pid := w.fork(0)
	k.must(k.write(path+"/tasks", fmt.Sprint(pid)))
	w.host.Exit(pid)
	w.tree.Drain()
}

func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not after 10 s", what)
		}
	}
}

func contents(path string) string {
	b, _ := os.ReadFile(path)
	return string(b)
}

func TestReleaseAgent(t *testing.T) {
	w, k := aWorld(t)
	k.must(k.mkdir("m/a/b c"))
	// A descriptor that would be inherited, as one of a careless parent's is.
	fd, err := syscall.Open("/etc/passwd", syscall.O_RDONLY, 0)
	k.must(err)
	defer syscall.Close(fd)
	t.Setenv("SECRET", "of the server's")
	dir := w.agent(`ls -l /proc/self/fd >fds
{ printf '%s\n' "$0" "$@" "$#" "$cwd"; tr '\0' '\n' </proc/$$/environ; sed -n 's/.*-> //p' fds; } >out.tmp; mv out.tmp out`)
	w.abandon("m/a/b c")
	waitFor(t, "the agent", func() bool { return contents(dir+"/out") != "" })
	want := dir + "/agent\n/a/b c\n1\n/\nHOME=/\nPATH=/sbin:/bin:/usr/sbin:/usr/bin\n/dev/null\n" + dir + "/fds\n/dev/null\n/proc/"
	if got := contents(dir + "/out"); !strings.HasPrefix(got, want) || strings.Count(got, "\n") != strings.Count(want, "\n")+1 {
		t.Errorf("the agent saw\n%s\nwant\n%s", got, want)
	}
	text, err := k.read("m/events")
	if err != nil || strings.Count(text, ` release hierarchy=m path="/a/b c"`+"\n") != 1 {
		t.Errorf("events: %v\n%s", err, text)
	}
}

// TestAgentThatIsKept of a server that ran them is not run by one that does not.
func TestAgentThatIsKept(t *testing.T) {
	w, _ := aWorld(t)
	dir := w.agent("echo ran >>out")
	for _, allowed := range []bool{false, true} {
		w.fs.allowAgent = allowed
		w.fs.release(w.container("m/a"))
		if ran := contents(dir+"/out") != ""; ran != allowed {
			t.Errorf("ran %v, allowed %v", ran, allowed)
		}
	}
}

func TestWhenAReleaseFires(t *testing.T) {
	w, k := aWorld(t)
	releases := func() int {
		w.tree.Drain()
		text, err := k.read("m/events")
		k.must(err)
		return strings.Count(text, " release ")
	}
	expect := func(want int, what string) {
		t.Helper()
		if got := releases(); got != want {
			t.Errorf("%s: %d releases, want %d", what, got, want)
		}
		w.fs.recorder.releases.idle(t)
	}
	p := w.fork(0)
	k.must(k.write("m/a/tasks", fmt.Sprint(p)))
	k.must(k.write("m/tasks", fmt.Sprint(p)))
	k.want("m/a/releasable", "1\n")
	expect(0, "without the flag")
	k.must(k.write("m/a/notify_on_release", "1"))
	k.want("m/a/releasable", "0\n")
	expect(0, "the flag switched on for an idle container")
	k.must(k.write("m/a/tasks", fmt.Sprint(p)))
	k.must(k.write("m/tasks", fmt.Sprint(p)))
	expect(1, "the last task attached away")
	q := w.fork(0)
	k.must(k.write("m/a/tasks", fmt.Sprint(p)))
	k.must(k.write("m/a/tasks", fmt.Sprint(q)))
	w.host.Exit(p)
	expect(1, "one of two exits")
	w.host.Exit(q)
	expect(2, "the last task exits")
	k.must(k.mkdir("m/a/b"))
	w.abandon("m/a/b")
	expect(3, "a child")
	k.must(k.write("m/a/notify_on_release", "1")) // clears releasable
	k.must(k.rmdir("m/a/b"))
	expect(4, "rmdir of the last child")
	c := w.container("m/a")
	c.Get()
	k.must(k.write("m/a/tasks", fmt.Sprint(w.fork(0))))
	k.must(k.write("m/a/kill", "1"))
	expect(4, "with a reference")
	c.Put()
	expect(5, "the last reference dropped")
	c.Get()
	c.Get()
	k.must(k.write("m/a/notify_on_release", "1")) // clears releasable
	c.Put()
	expect(5, "one of two references dropped")
	k.want("m/a/releasable", "0\n")
	c.Put()
	expect(6, "the last reference dropped, and nothing else")
	k.must(k.write("m/notify_on_release", "1"))
	k.must(k.rmdir("m/a"))
	expect(6, "the root")
	k.must(k.mkdir("m/a"))
	k.want("m/a/notify_on_release", "1\n")
}

// TestReleaseInAnUnmountedHierarchy fires, and runs the agent, as in one that is mounted.
func TestReleaseInAnUnmountedHierarchy(t *testing.T) {
	w, k := aWorld(t)
	dir := w.agent(`echo "$1" >>out`)
	k.must(k.write("m/a/notify_on_release", "1"))
	pid := w.fork(0)
	k.must(k.write("m/a/tasks", fmt.Sprint(pid)))
	inside := w.attach(root, "m/a")
	k.must(k.write("ctl", "umount m"))
	inside.want("populated", "1\n")
	w.host.Exit(pid)
	inside.want("releasable", "1\n")
	text, err := k.read("events")
	if err != nil || !strings.Contains(text, " release hierarchy=m path=/a\n") {
		t.Errorf("events: %v\n%s", err, text)
	}
	waitFor(t, "the agent", func() bool { return contents(dir+"/out") == "/a\n" })
}

// idle waits until nothing is being served.
func (q *releaseQueue) idle(t testing.TB) {
	t.Helper()
	waitFor(t, "idle releases", func() bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		return q.serving == 0 && len(q.waiting) == 0
	})
}

func TestReleasePathIsThatOfWhenItIsServed(t *testing.T) {
	w, k := aWorld(t)
	k.must(k.mkdir("m/a/b"))
	q := &w.fs.recorder.releases
	serve := q.serve
	q.run(nil) // nobody serves
	dir := w.agent(`echo "$1" >>out`)
	w.abandon("m/a/b")
	if len(q.waiting) != 1 {
		t.Fatalf("%d releases wait", len(q.waiting))
	}
	// Again while it is queued: once.
	w.abandon("m/a/b")
	if len(q.waiting) != 1 {
		t.Errorf("%d releases wait", len(q.waiting))
	}
	k.must(k.rename("m/a", "m/z"))
	q.run(serve)
	waitFor(t, "the agent", func() bool { return contents(dir+"/out") != "" })
	if got := contents(dir + "/out"); got != "/z/b\n" {
		t.Errorf("the agent was told %q", got)
	}
	// Of what is removed meanwhile nobody is told.
	q.idle(t)
	q.run(nil)
	w.abandon("m/z/b")
	k.must(k.rmdir("m/z/b"))
	q.run(serve)
	q.idle(t)
	if got := contents(dir + "/out"); got != "/z/b\n" {
		t.Errorf("the agent was told %q", got)
	}
}

func TestFailingAgentsAreLogged(t *testing.T) {
	for what, agent := range map[string]string{
		"missing": "/nonexistent/agent", "not executable": "/etc/passwd", "a directory": "/tmp", "failing": "/bin/false", "no program": "/dev/null",
	} {
		w, k := aWorld(t)
		k.must(k.write("m/release_agent", agent))
		w.abandon("m/a")
		waitFor(t, what+" in the log", func() bool { return strings.Contains(w.log.String(), "release agent failed") })
		if log := w.log.String(); !strings.Contains(log, agent) || !strings.Contains(log, "path=/a") {
			t.Errorf("%s: logged\n%s", what, log)
		}
		k.must(k.rmdir("m/a"))
	}
}

func TestHangingAgentIsKilledWithItsChildren(t *testing.T) {
	agentLimit = 2 * time.Second // in which it gets as far as to sleep
	t.Cleanup(func() { agentLimit = 30 * time.Second })
	w, _ := aWorld(t)
	dir := w.agent("sleep 1000 & echo $! >child; echo $$ >self; sleep 1000")
	w.abandon("m/a")
	waitFor(t, "the log", func() bool { return strings.Contains(w.log.String(), "release agent failed") })
	if !strings.Contains(w.log.String(), "deadline exceeded") {
		t.Errorf("logged\n%s", w.log)
	}
	for _, file := range []string{"self", "child"} {
		pid := strings.TrimSpace(contents(dir + "/" + file))
		waitFor(t, file+" gone", func() bool {
			stat := contents("/proc/" + pid + "/stat")
			return stat == "" || strings.Contains(stat, ") Z ")
		})
	}
	// Close ends one that runs.
	agentLimit = 30 * time.Second
	w, _ = aWorld(t)
	dir = w.agent("echo >started; sleep 1000")
	w.abandon("m/a")
	waitFor(t, "the agent", func() bool { return contents(dir+"/started") != "" })
	closed := make(chan struct{})
	go func() { w.fs.Close(); close(closed) }()
	within(t, "close", closed)
}

// TestFloodOfReleasesStaysWithinTheCap counts how many agents run at once: no
// more than the cap, and as many, although each hangs.
func TestFloodOfReleasesStaysWithinTheCap(t *testing.T) {
	w, k := aWorld(t)
	var mu sync.Mutex
	running, most, served := 0, 0, 0
	gate := make(chan struct{})
	open := sync.OnceFunc(func() { close(gate) })
	defer open()
	w.fs.recorder.releases.run(func(c *tree.Container) {
		mu.Lock()
		running++
		most = max(most, running)
		mu.Unlock()
		<-gate
		mu.Lock()
		running--
		served++
		mu.Unlock()
		w.tree.Served(c)
	})
	const flood = 300
	for i := range flood {
		path := fmt.Sprint("m/a/", i)
		k.must(k.mkdir(path))
		w.abandon(path)
		want := min(i+1, maxAgents)
		waitFor(t, "agents", func() bool { mu.Lock(); defer mu.Unlock(); return running == want })
	}
	open()
	waitFor(t, "all served", func() bool { mu.Lock(); defer mu.Unlock(); return served == flood })
	if most != maxAgents {
		t.Errorf("%d ran at once, want %d", most, maxAgents)
	}
}

func TestWhoMayNameAnAgent(t *testing.T) {
	w, k := aWorld(t)
	k.must(k.chmod("m/release_agent", 0o666))
	for _, c := range []*Caller{netRoot, alice, netA} {
		w.refused(linux.EPERM, "write", func() error { return w.as(c).write("m/release_agent", "/x") })
		w.refused(linux.EPERM, "clear", func() error { return w.as(c).write("m/release_agent", "") })
	}
	for data, want := range map[string]linux.Errno{
		"x": linux.EINVAL, "./x": linux.EINVAL, " /x": linux.EINVAL, "/x\ny": linux.EINVAL, "/x\n\n": linux.EINVAL, "/x\x00": linux.EINVAL,
		"/" + strings.Repeat("x", 4095): linux.ENAMETOOLONG, "/" + strings.Repeat("x", 4096): linux.E2BIG,
	} {
		w.refused(want, fmt.Sprintf("%.20q", data), func() error { return k.write("m/release_agent", data) })
	}
	for in, want := range map[string]string{"/x": "/x\n", "/y z\n": "/y z\n", "": "\n", "\n": "\n", "/" + strings.Repeat("x", 4094): "/" + strings.Repeat("x", 4094) + "\n"} {
		k.must(k.write("m/release_agent", in))
		k.want("m/release_agent", want)
	}
	w.refused(linux.ENOENT, "of a child", func() error { return k.write("m/a/release_agent", "/x") })

	v, k := aWorld(t, func(c *Config, _ *tree.Config) { c.AllowReleaseAgent = false })
	v.refused(linux.EPERM, "not allowed", func() error { return k.write("m/release_agent", "/x") })
	v.refused(linux.EPERM, "not allowed in options", func() error { return k.write("ctl", "mount n beta,release_agent=/x") })
	v.refused(linux.EPERM, "not allowed at start", func() error { return wire(v.fs.Mount("n", "beta,release_agent=/x")) })
}
