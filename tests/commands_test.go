package tests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"containerfs/p9srv"
	"containerfs/p9srv/p9test"
)

// TestCommandsTLS has commands work over a listener that is asked over the network,
// those that need this host too, since it is this host.
func TestCommandsTLS(t *testing.T) {
	ca := p9test.NewAuthority(t)
	files := func(f p9srv.TLS) string { return "?cert=" + f.Cert + "&key=" + f.Key + "&ca=" + f.CA }
	s := startServer(t, "--hierarchy", "num=numtasks", "--listen", "tls://127.0.0.1:0"+files(ca.Server())+"&users=root,nobody")
	at := ""
	for line := range strings.Lines(s.log.String()) {
		if rest, ok := strings.CutPrefix(line, "listening on tls://"); ok {
			at, _, _ = strings.Cut(strings.TrimSpace(rest), "?")
		}
	}
	as := func(user string) string { return "tls://" + at + files(ca.Client("containerfs:user:"+user)) }
	p := startSpawner(t)
	pid := strconv.Itoa(p.pid())
	root, nobody := as("root"), as("nobody")
	for _, test := range []struct {
		server string
		args   []string
		code   int
		want   string
	}{
		{root, []string{"mkdir", "/num/a"}, 0, ""},
		{root, []string{"attach", "/num/a", pid}, 0, ""},
		{root, []string{"attach", "-r", "/num/a", pid}, 0, ""},
		{root, []string{"run", "-c", "/num/a", "--", "sh", "-c", "exit 9"}, 9, ""},
		{root, []string{"tree", "/num/a"}, 0, "└─" + pid + " sh -c"},
		{root, []string{"top", "-n", "1", "/num"}, 0, "/num/a"},
		{root, []string{"ps", pid}, 0, pid + "\t/num/a\tnumtasks\n"},
		{root, []string{"watch", "--all", "--no-follow", "--kind", "mkdir"}, 0, "path=/a"},
		{root, []string{"save", "/num/a"}, 0, `path = "/num/a"`},
		{root, []string{"rules", "test", pid}, 0, "num: no line decides"},
		{nobody, []string{"tree", "/num/a"}, 0, pid},
		{nobody, []string{"run", "-c", "/num/a", "--", "true"}, 125, ""},
		{nobody, []string{"watch", "--no-follow"}, 4, ""},
		{"tls://" + at + "?cert=/no&key=/no&ca=/no", []string{"mounts"}, usage, ""},
	} {
		out, err := exec.Command("containerfs", append([]string{"--server", test.server}, test.args...)...).Output()
		code := 0
		if exit, ok := err.(*exec.ExitError); ok {
			code = exit.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		if code != test.code || !strings.Contains(string(out), test.want) {
			t.Errorf("%v: exit code %d, %v\n%s", test.args, code, err, out)
		}
	}
}

// TestCommandsElsewhere has commands that need the server's host say so where a pid
// is another process's: in a pid namespace of its own.
func TestCommandsElsewhere(t *testing.T) {
	s := startServer(t, "--hierarchy", "num=numtasks")
	s.run("mkdir", "/num/a")
	p := startSpawner(t)
	pid := strconv.Itoa(p.pid())
	mark := filepath.Join(t.TempDir(), "ran")
	elsewhere := func(args ...string) (int, string) {
		t.Helper()
		cmd := exec.Command("containerfs", append([]string{"--server", "unix://" + s.sock}, args...)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
		out, err := cmd.CombinedOutput()
		if _, exited := err.(*exec.ExitError); err != nil && !exited {
			t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode(), string(out)
	}
	for _, args := range [][]string{
		{"run", "-c", "/num/a", "--", "touch", mark},
		{"attach", "/num/a", pid},
		{"attach", "-r", "/num/a", pid},
		{"attach", "-r", "--server-pids", "/num/a", pid},
		{"attach", "--cgroup", "/x", "/num/a"},
		{"attach", "--unit", "x", "/num/a"},
		{"rules", "test", "1"},
		{"watch", "--time", "--all", "--no-follow"},
	} {
		want := 1
		if args[0] == "run" {
			want = 125
		}
		if code, out := elsewhere(args...); code != want || !strings.Contains(out, "this needs the server's own host") || strings.Count(out, "\n") != 1 {
			t.Errorf("%v: exit code %d\n%s", args, code, out)
		}
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("the command was run")
	}
	if got := s.tasks("/num/a"); len(got) > 0 {
		t.Errorf("in the container are %v", got)
	}
	// A pid is the server's where that is said.
	if code, out := elsewhere("attach", "--server-pids", "/num/a", pid); code != 0 || out != "" {
		t.Errorf("exit code %d\n%s", code, out)
	}
	if got := s.tasks("/num/a"); !slices.Equal(got, []int{p.pid()}) {
		t.Errorf("in the container are %v", got)
	}
	// When an event was is not known, but when it came.
	watched := make(chan string, 1)
	go func() {
		_, out := elsewhere("watch", "--time", "-n", "1", "--kind", "mkdir", "--json", "/num")
		watched <- out
	}()
	received := ""
	for i := 0; received == ""; i++ {
		s.run("mkdir", fmt.Sprintf("/num/%d", i))
		select {
		case received = <-watched:
		case <-time.After(50 * time.Millisecond):
		}
	}
	if !strings.HasPrefix(received, "containerfs: warning: times are those of receipt: ") || strings.Count(received, "\n") != 2 || !strings.Contains(received, `"received":"20`) || strings.Contains(received, `"time":`) {
		t.Errorf("got %s", received)
	}
	// No command lines of other processes.
	if code, out := elsewhere("tree", "/num/a"); code != 0 || !strings.HasSuffix(out, "└─"+pid+"\n") {
		t.Errorf("exit code %d\n%s", code, out)
	}
}

// TestRunUnderALimit: a container's limit is for the command that is run in it alone.
func TestRunUnderALimit(t *testing.T) {
	s := startServer(t, "--hierarchy", "num=numtasks,bc")
	s.run("mkdir", "/num/a", "/num/a/one")
	s.run("set", "/num/a", "numtasks.shares=max_shares=1,child_shares_divisor=327")
	s.run("set", "/num/a/one", "numtasks.shares=max_shares=1", "numtasks.policy=kill")
	if got := s.run("read", "/num/a/one/numtasks.limit"); got != "1\n" {
		t.Fatalf("the limit is %q", got)
	}
	for range 10 {
		if code, _, stderr := s.command("run", "-c", "/num/a/one", "--", "true"); code != 0 {
			t.Fatalf("exit code %d: %s", code, stderr)
		}
	}
	if got := s.run("read", "/num/a/one/bc.numproc.maxheld"); got != "1\n" {
		t.Errorf("there were %s at once", got)
	}
}

// TestMkdirOverALimit: who may not have more containers is told why, at whichever step.
func TestMkdirOverALimit(t *testing.T) {
	s := startServer(t, "--hierarchy", "num=debug")
	s.run("mkdir", "/num/a")
	s.run("set", "/num/a", "max.depth=1")
	for _, args := range [][]string{{"mkdir", "-p", "/num/a/b/c"}, {"mkdir", "/num/a/b/c"}} {
		if code, _, stderr := s.command(args...); code != 1 || !strings.Contains(stderr, "max.depth") {
			t.Errorf("%v: exit code %d: %s", args, code, stderr)
		}
	}
}

// testCgroup makes a cgroup of a name of ours where this host lets us.
func testCgroup(t *testing.T, name string) string {
	t.Helper()
	var errs []string
	for _, root := range []string{"/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		if _, err := os.Stat(root + "/cgroup.procs"); err != nil {
			continue
		}
		dir := filepath.Join(root, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			errs = append(errs, err.Error())
			continue
		}
		t.Cleanup(func() {
			var err error
			for late := time.Now().Add(10 * time.Second); time.Now().Before(late); time.Sleep(10 * time.Millisecond) {
				if err = os.Remove(dir); err == nil {
					return
				}
			}
			t.Error(err)
		})
		return dir
	}
	t.Fatalf("no cgroup can be made: %v", errs)
	return ""
}

// TestAttachCgroup moves the processes of a unit, and of a cgroup.
func TestAttachCgroup(t *testing.T) {
	needHost(t)
	name := fmt.Sprintf("containerfs-test-%d.service", os.Getpid())
	dir := testCgroup(t, name)
	s := startServer(t, "--hierarchy", "num=numtasks")
	s.run("mkdir", "/num/a", "/num/b", "/num/c")
	p, other := startSpawner(t), startSpawner(t)
	child := p.fork()
	want := []int{p.pid(), child}
	slices.Sort(want)
	for _, pid := range want {
		if err := os.WriteFile(dir+"/cgroup.procs", []byte(strconv.Itoa(pid)), 0); err != nil {
			t.Fatal(err)
		}
	}
	for i, args := range [][]string{
		{"--unit", name, "/num/a"},
		{"--unit", strings.TrimSuffix(name, ".service") + ".service", "/num/b"},
		{"--cgroup", "/" + name, "/num/c"},
		{"--cgroup", dir, "/num/a"},
	} {
		s.run(append([]string{"attach"}, args...)...)
		if got := s.tasks(args[2]); !slices.Equal(got, want) {
			t.Errorf("%d: in %s are %v, not %v", i, args[2], got, want)
		}
	}
	if got := s.tasks("/num"); !slices.Contains(got, other.pid()) {
		t.Errorf("%d was moved as well", other.pid())
	}
	// A server in it stays where it is, unless it is named.
	if err := os.WriteFile(dir+"/cgroup.procs", []byte(strconv.Itoa(s.cmd.Process.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := s.command("attach", "--cgroup", dir, "/num/b")
	if code != 0 || stderr != "containerfs: warning: 1 process is left out: pid 1, kernel threads, the server and its ancestors are moved only where they are named\n" {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if got := s.tasks("/num/b"); !slices.Equal(got, want) {
		t.Errorf("in /num/b are %v, not %v", got, want)
	}
	p.kill()
}

// TestAttachFrom empties a container whose processes fork all the time: who was forked before his
// forker was moved is moved, too.
func TestAttachFrom(t *testing.T) {
	s := startServer(t, "--hierarchy", "num=numtasks")
	s.run("mkdir", "/num/a", "/num/a/deep", "/num/b")
	for range 8 {
		cmd := exec.Command("sh", "-c", "while :; do sleep 0.05 & sleep 0.002; done")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			cmd.Wait()
		})
		s.run("attach", "/num/a/deep", strconv.Itoa(cmd.Process.Pid))
	}
	for _, from := range []string{"/num/a/deep", "/num/b", "/num/a"} {
		to := "/num/b"
		if from == to {
			to = "/num/a/deep"
		}
		s.run("attach", "--from", from, to)
		if got := s.run("read", from+"/procs"); got != "" {
			t.Errorf("left in %s:\n%s", from, got)
		}
	}
	s.run("rmdir", "-r", "/num/a")
}
