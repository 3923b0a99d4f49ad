package tests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerfs/ops/store"
)

// agentScript writes a release agent: a program with a shell's text. In the text
// DIR is where it may write, and CLIENT the command with its server.
func agentScript(t testing.TB, s *server, text string) (agent, dir string) {
	t.Helper()
	dir = t.TempDir()
	client := fmt.Sprintf("%s --server unix://%s", commandPath(), s.sock)
	text = strings.NewReplacer("DIR", dir, "CLIENT", client).Replace(text)
	agent = filepath.Join(dir, "agent")
	if err := os.WriteFile(agent, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.run("write", "/h/release_agent", agent)
	return agent, dir
}

// abandon makes a container that is released when the process ends that is moved
// in.
func abandon(t testing.TB, s *server, name string) {
	t.Helper()
	p := startSpawner(t)
	s.run("mkdir", "/h/"+name)
	s.run("write", "/h/"+name+"/notify_on_release", "1")
	s.run("write", "/h/"+name+"/tasks", fmt.Sprint(p.pid()))
	p.kill()
}

func (s *server) lists(dir, name string) bool {
	return strings.Contains("\n"+s.run("ls", dir), "\n"+name+"\n")
}

// TestReleaseAgent has an agent remove what was abandoned, and looks at what it
// was given.
func TestReleaseAgent(t *testing.T) {
	s := startServer(t, "--hierarchy", "h=debug", "--allow-release-agent")
	agent, dir := agentScript(t, s, `
		echo $$ > DIR/pid.new
		mv DIR/pid.new DIR/pid
		until [ -e DIR/go ]; do sleep 0.02; done
		CLIENT rmdir "/h$1"`)
	s.run("mkdir", "/h/dir")
	abandon(t, s, "dir/with space; $(true)")
	var proc string
	waitFor(t, "the agent", func() bool {
		pid, err := os.ReadFile(dir + "/pid")
		proc = "/proc/" + strings.TrimSpace(string(pid))
		return err == nil
	})
	read := func(file string) string {
		text, err := os.ReadFile(proc + "/" + file)
		if err != nil {
			t.Error(err)
		}
		return strings.ReplaceAll(string(text), "\x00", "\n")
	}
	if got, want := read("cmdline"), "/bin/sh\n"+agent+"\n/dir/with space; $(true)\n"; got != want {
		t.Errorf("the arguments are %q, want %q", got, want)
	}
	if got := sortedLines(read("environ")); got != "HOME=/\nPATH=/sbin:/bin:/usr/sbin:/usr/bin\n" {
		t.Errorf("the environment is %q", got)
	}
	if cwd, err := os.Readlink(proc + "/cwd"); cwd != "/" {
		t.Errorf("it runs in %s, %v", cwd, err)
	}
	fds, err := os.ReadDir(proc + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		at, _ := os.Readlink(proc + "/fd/" + fd.Name())
		if at != agent && at != "/dev/null" { // a shell has its script open
			t.Errorf("descriptor %s is %s", fd.Name(), at)
		}
	}
	writeFile(t, dir+"/go", "")
	waitFor(t, "the agent to remove the container", func() bool { return !s.lists("/h/dir", "with space; $(true)") })
	if got := s.run("read", "/h/events"); strings.Count(got, " release hierarchy=h ") != 1 {
		t.Errorf("not one release in\n%s", got)
	}
}

func sortedLines(text string) string {
	l := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	slices.Sort(l)
	return lines(l)
}

// TestReleaseAgentFails: what an agent does wrong is logged, and done again by
// nobody: the container stays, and the next one is released as ever.
func TestReleaseAgentFails(t *testing.T) {
	s := startServer(t, "--hierarchy", "h=debug", "--allow-release-agent")
	dir := t.TempDir()
	writeFile(t, dir+"/notexecutable", "#!/bin/sh\n") // mode 0644
	writeFile(t, dir+"/garbage", "\x01\x02\x03")
	if err := os.Chmod(dir+"/garbage", 0o755); err != nil {
		t.Fatal(err)
	}
	for name, said := range map[string]string{
		dir + "/missing":       "no such file or directory",
		dir + "/notexecutable": "permission denied",
		dir + "/garbage":       "exec format error",
		dir:                    "permission denied",
		"/bin/false":           "exit status 1",
	} {
		container := "of" + strings.ReplaceAll(filepath.Base(name), ".", "")
		s.run("write", "/h/release_agent", name)
		abandon(t, s, container)
		waitFor(t, "a line about "+name, func() bool {
			for line := range strings.Lines(s.log.String()) {
				if strings.Contains(line, "release agent failed") && strings.Contains(line, "path=/"+container) && strings.Contains(line, said) {
					return true
				}
			}
			return false
		})
		if !s.lists("/h", container) {
			t.Errorf("%s is gone", container)
		}
		s.run("rmdir", "/h/"+container)
	}
	agentScript(t, s, `CLIENT rmdir "/h$1"`)
	abandon(t, s, "next")
	waitFor(t, "the next release", func() bool { return !s.lists("/h", "next") })
}

// TestReleaseFlood releases many containers at once: all are served, by no more
// agents at a time than are allowed, as the agents count themselves.
func TestReleaseFlood(t *testing.T) {
	const most = 8
	s := startServer(t, "--hierarchy", "h=debug", "--allow-release-agent")
	_, dir := agentScript(t, s, `
		mkdir DIR/run/$$
		ls DIR/run | wc -l >> DIR/counts
		sleep 0.2
		ls DIR/run | wc -l >> DIR/counts
		rmdir DIR/run/$$
		CLIENT rmdir "/h$1"`)
	if err := os.Mkdir(dir+"/run", 0o755); err != nil {
		t.Fatal(err)
	}
	c := s.client("")
	p := startSpawner(t)
	for i := range 40 {
		name := fmt.Sprintf("/h/%d", i)
		for _, err := range []error{
			c.mkdir(name), c.write(name+"/notify_on_release", "1"), c.write(name+"/tasks", fmt.Sprint(p.fork())),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	p.kill()
	deadline := time.Now().Add(60 * time.Second)
	for names := ""; ; time.Sleep(50 * time.Millisecond) {
		if names = s.run("ls", "/h"); !strings.Contains(names, "0\n") && !strings.ContainsAny(names, "123456789") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("left after a minute:\n%s", names)
		}
	}
	text, err := os.ReadFile(dir + "/counts")
	if err != nil {
		t.Fatal(err)
	}
	counts := numbers(t, string(text))
	if len(counts) != 80 {
		t.Errorf("%d counts of 40 agents", len(counts))
	}
	highest := 0
	for _, n := range counts {
		highest = max(highest, n)
	}
	if highest > most || highest < 2 {
		t.Errorf("%d agents at once, want 2 to %d", highest, most)
	}
}

// TestReleasesOutliveTheServer: a release of which the agent did not run to its end, or was still
// waiting, is the next server's; one that was done is not.
func TestReleasesOutliveTheServer(t *testing.T) {
	const most = 8
	for _, how := range []string{"stopped", "killed"} {
		t.Run(how, func(t *testing.T) {
			state := t.TempDir()
			t.Cleanup(func() { retireMirrors(t, state) })
			start := func() *server {
				return startServer(t, "--state", state, "--hierarchy", "h=debug", "--allow-release-agent")
			}
			s := start()
			_, dir := agentScript(t, s, `
				echo "$1" >> DIR/started
				case $1 in /stays*) exit;; esac
				while [ ! -e DIR/go ]; do sleep 0.05; done
				echo "$1" >> DIR/ended`)
			open := func() { writeFile(t, dir+"/go", "") } // for agents that outlive a server as well
			t.Cleanup(open)
			lines := func(name string) (paths []string) {
				text, _ := os.ReadFile(filepath.Join(dir, name))
				return strings.Fields(string(text))
			}
			abandon(t, s, "stays")
			waitFor(t, "the first agent", func() bool { return len(lines("started")) == 1 })
			want := []string{"/above"}
			for i := range most + 2 {
				name := fmt.Sprint("job", i)
				abandon(t, s, name)
				want = append(want, "/"+name)
			}
			// One in which no task has ever been.
			s.run("mkdir", "/h/above")
			s.run("write", "/h/above/notify_on_release", "1")
			s.run("mkdir", "/h/above/below")
			s.run("rmdir", "/h/above/below")
			waitFor(t, "as many agents as there may be", func() bool { return len(lines("started")) == 1+most })
			// They are known to be empty then by nothing but this.
			waitFor(t, "the css groups to be forgotten", func() bool {
				groups := 0
				if _, err := store.Read(state, func(k store.Key, _ []byte) error {
					if k.Bucket == store.Groups {
						groups++
					}
					return nil
				}); err != nil {
					t.Fatal(err)
				}
				return groups == 0
			})
			if how == "stopped" {
				s.stop()
			} else {
				s.kill9()
			}
			s = start()
			open()
			waitFor(t, "all agents to end", func() bool {
				ended := lines("ended")
				return !slices.ContainsFunc(want, func(path string) bool { return !slices.Contains(ended, path) })
			})
			abandon(t, s, "stays-last")
			waitFor(t, "the last agent", func() bool { return slices.Contains(lines("started"), "/stays-last") })
			first := 0
			for _, path := range lines("started") {
				if path == "/stays" {
					first++
				}
			}
			if first != 1 {
				t.Errorf("the agent of a release that was done ran %d times", first)
			}
			s.stop()
		})
	}
}

// TestReleaseAgentHangs: an agent that hangs holds up no other, and ends with the
// server, or when its time is over, with all that it started.
func TestReleaseAgentHangs(t *testing.T) {
	s := startServer(t, "--hierarchy", "h=debug", "--allow-release-agent")
	_, dir := agentScript(t, s, `
		case $1 in
		/hang*) sleep 1000 & echo $$ $! > DIR/pids.new; mv DIR/pids.new DIR/pids/${1#/}; wait ;;
		*) CLIENT rmdir "/h$1" ;;
		esac`)
	if err := os.Mkdir(dir+"/pids", 0o755); err != nil {
		t.Fatal(err)
	}
	hang := func(name string) (pids []int) {
		abandon(t, s, name)
		waitFor(t, "the agent to hang", func() bool { _, err := os.Stat(dir + "/pids/" + name); return err == nil })
		text, err := os.ReadFile(dir + "/pids/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return numbers(t, strings.ReplaceAll(string(text), " ", "\n"))
	}
	// That the time is over takes half a minute to see.
	if soaking {
		pids := hang("hang0")
		time.Sleep(31 * time.Second)
		if lives(pids[0]) || lives(pids[1]) || !strings.Contains(s.log.String(), "path=/hang0 err=\"context deadline exceeded\"") {
			t.Errorf("after its time the agent lives: %v, its child: %v; the log:\n%s", lives(pids[0]), lives(pids[1]), s.log.String())
		}
		s.run("rmdir", "/h/hang0")
	}
	pids := hang("hang1")
	abandon(t, s, "well")
	waitFor(t, "another agent", func() bool { return !s.lists("/h", "well") })
	if !lives(pids[0]) || !lives(pids[1]) {
		t.Fatal("the agent does not hang")
	}
	start := time.Now()
	s.stop()
	if took := time.Since(start); took > 8*time.Second {
		t.Errorf("the server took %v to end", took)
	}
	waitFor(t, "the agent to end with the server", func() bool { return !lives(pids[0]) && !lives(pids[1]) })
}

// TestAgentHangs: a release agent whose program cannot be read, as on a file system that
// hangs, delays nobody.
func TestAgentHangs(t *testing.T) {
	s := startServerAs(t, func(cmd *exec.Cmd) {
		cmd.Env = append(os.Environ(), "GOGC=1") // garbage is collected all the time
	}, "--hierarchy", "n=numtasks", "--allow-release-agent")
	agent := filepath.Join(t.TempDir(), "agent")
	if err := os.WriteFile(agent, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	hangs, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC, unix.O_RDONLY)
	if err == nil {
		err = unix.FanotifyMark(hangs, unix.FAN_MARK_ADD, unix.FAN_OPEN_EXEC_PERM, unix.AT_FDCWD, agent)
	}
	if err != nil {
		t.Skip("no execution can be made to wait here:", err)
	}
	time.AfterFunc(10*time.Second, func() { unix.Close(hangs) }) // nobody is made to wait any more
	c := s.client("/")
	p := startSpawner(t)
	for _, err := range []error{
		c.mkdir("/n/a"),
		c.write("/n/release_agent", agent),
		c.write("/n/a/notify_on_release", "1"),
		c.write("/n/a/tasks", fmt.Sprint(p.pid())),
		c.write("/n/tasks", fmt.Sprint(p.pid())),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(hangs), Events: unix.POLLIN}}, 5000); n != 1 {
		t.Fatalf("the agent does not run: %v", err)
	}
	for began := time.Now(); time.Since(began) < 2*time.Second; {
		asked := time.Now()
		if _, err := c.read("/events"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(asked); took > 3*time.Second {
			t.Fatalf("a read took %v", took)
		}
	}
}
