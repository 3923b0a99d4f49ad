package tests

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// startExporter starts an exporter as a user, and returns where it answers.
func startExporter(t testing.TB, uid uint32, server string, args ...string) (at string) {
	t.Helper()
	cmd := exec.Command("containerfs", append([]string{"--server", server, "exporter"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	for lines.Scan() && lines.Text() != "ready" {
		if a, ok := strings.CutPrefix(lines.Text(), "listening on tcp://"); ok {
			at = a
		} else {
			t.Log(lines.Text())
		}
	}
	done := make(chan []string)
	go func() {
		var rest []string
		for lines.Scan() {
			rest = append(rest, lines.Text())
		}
		done <- rest
	}()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		rest := <-done
		if err := cmd.Wait(); err != nil {
			t.Errorf("the exporter ended with %v; %q", err, rest)
		}
		if len(rest) > 1 {
			t.Errorf("the exporter says more than once what is wrong: %q", rest)
		}
	})
	return at
}

// TestExporter: Prometheus is told of each container what top shows of it.
func TestExporter(t *testing.T) {
	state, fixed := t.TempDir(), filepath.Join(t.TempDir(), "s")
	t.Cleanup(func() { retireMirrors(t, state) })
	start := func() *server {
		return startServer(t, "--state", state, "--hierarchy", "all=cpuacct,bc", "--listen", "unix://"+fixed)
	}
	s := start()
	odd := []string{"/all/a/\xff", `/all/a/\xff`, `/all/a/"x"`}
	s.run(append([]string{"mkdir", "/all/a", "/all/a/b", "/all/a/b/c"}, odd...)...)
	p := startSpawner(t)
	child := p.fork()
	s.run("attach", "/all/a", strconv.Itoa(p.pid()))
	s.run("attach", "/all/a/b", strconv.Itoa(child))
	all := startExporter(t, 0, "unix://"+fixed, "tcp://127.0.0.1:0")
	some := startExporter(t, 0, "unix://"+fixed, "--depth", "1", "tcp://127.0.0.1:0", "/all/a")

	got := samples(t, "tcp", all)
	for name, want := range map[string]float64{
		`containerfs_up`: 1,
		`containerfs_container_tasks{path="/all/a"}`:                 2,
		`containerfs_container_tasks{path="/all/a/b"}`:               1,
		`containerfs_container_tasks{path="/all/a/b/c"}`:             0,
		`containerfs_container_cpu_seconds_total{path="/all/a/b/c"}`: 0,
		`containerfs_container_memory_bytes{path="/all/a/b/c"}`:      0,
		`containerfs_container_tasks{path="\"/all/a/\\xff\""}`:       0,
		`containerfs_container_tasks{path="/all/a/\\xff"}`:           0,
		`containerfs_container_tasks{path="/all/a/\"x\""}`:           0,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v, %v; want %v", name, v, ok, want)
		}
	}
	for _, name := range []string{`containerfs_container_cpu_seconds_total{path="/all"}`, `containerfs_container_memory_bytes{path="/all/a"}`} {
		if got[name] <= 0 {
			t.Errorf("%s is %v", name, got[name])
		}
	}
	if n := len(got); n != 1+3*(1+3+len(odd)) {
		t.Errorf("%d samples: %v", n, got)
	}
	got = samples(t, "tcp", some)
	if n := len(got); n != 1+3*(1+1+len(odd)) {
		t.Errorf("%d samples with --depth 1: %v", n, got)
	}

	s.kill9()
	for range 2 {
		if got := samples(t, "tcp", all); len(got) != 1 || got["containerfs_up"] != 0 {
			t.Errorf("without a server: %v", got)
		}
	}
	s = start()
	if got := samples(t, "tcp", all); got["containerfs_up"] != 1 || got[`containerfs_container_tasks{path="/all/a"}`] != 2 {
		t.Errorf("with the next server: %v", got)
	}
	for _, args := range [][]string{{}, {"x"}, {"tls://127.0.0.1:1"}, {"tcp://127.0.0.1:0", "all"}, {"--depth", "-2", "tcp://127.0.0.1:0"}} {
		if code, _, stderr := s.command(append([]string{"exporter"}, args...)...); code != usage {
			t.Errorf("exporter %q: exit code %d, %s", args, code, stderr)
		}
	}
}

// TestHidden: a container that a user may not read does not keep him from seeing the
// others, and nothing is said of what is in it, nor numbers in which it lacks.
func TestHidden(t *testing.T) {
	s := startServer(t, "--hierarchy", "all=cpuacct")
	os.Chmod(filepath.Dir(s.sock), 0o755)
	s.run("mkdir", "-p", "/all/private/inner", "/all/open", "/all/half/inner")
	s.run("chmod", "700", "/all/private")
	s.run("chmod", "600", "/all/half/inner/tasks")
	addr := "unix://" + s.sock

	code, out := commandAs(t, stranger, addr, "tree", "--no-processes", "/all")
	for _, want := range []string{"├─private (not to be read)\n├─open (0 processes, 0 tasks)\n└─half (0 processes, 0 tasks)\n  └─inner (not to be read)\n",
		"containerfs: read /all/private: mode 0700, owner 0, group 0: permission denied\n", "containerfs: read /all/half/inner: "} {
		if !strings.Contains(out, want) {
			t.Errorf("tree lacks %q:\n%s", want, out)
		}
	}
	if code != notPermitted {
		t.Errorf("tree: exit code %d", code)
	}
	if code, out := commandAs(t, stranger, addr, "tree", "--json", "/all"); code != notPermitted || strings.Contains(out, `"path":"/all/private`) || !strings.Contains(out, `"path":"/all/open"`) {
		t.Errorf("tree --json: exit code %d\n%s", code, out)
	}
	code, out = commandAs(t, stranger, addr, "top", "-b", "-n", "1", "--sort", "path", "/all")
	want := `   CPU%   TASKS    MEMORY  CONTAINER
      -       -         -  /all
      -       -         -  /all/half
      -       -         -  /all/half/inner
      -       0         -  /all/open
      -       -         -  /all/private
`
	if code != ok || out != want {
		t.Errorf("top: exit code %d\n%s\nwant\n%s", code, out, want)
	}
	got := samples(t, "tcp", startExporter(t, stranger, addr, "tcp://127.0.0.1:0", "/all"))
	if _, knows := got[`containerfs_container_tasks{path="/all/open"}`]; got["containerfs_up"] != 1 || !knows {
		t.Errorf("exporter: %v", got)
	}
	for name := range got {
		if strings.Contains(name, "private") || strings.HasPrefix(name, `containerfs_container_tasks{path="/all"`) {
			t.Errorf("exporter tells %s", name)
		}
	}
	for _, command := range []string{"tree", "top"} {
		if code, _ := commandAs(t, stranger, addr, command, "/all/private"); code != notPermitted {
			t.Errorf("%s of what may not be read: exit code %d", command, code)
		}
	}
}
