package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
)

// result is what one command line came to.
type result struct {
	code           int
	stdout, stderr string
}

func command(stdin io.Reader, args ...string) result {
	var stdout, stderr bytes.Buffer
	code := execute(context.Background(), append([]string{"containerfs"}, args...), stdin, &stdout, &stderr)
	return result{code, stdout.String(), stderr.String()}
}

func TestCommands(t *testing.T) {
	type step struct {
		args string // split at spaces; _ stands for an empty argument
		want result
	}
	tests := []struct {
		name  string
		fail  map[string]linux.Errno
		steps []step
	}{
		{name: "ls in the server's order", steps: []step{
			{"ls", result{0, "all\n", ""}},
			{"ls /all", result{0, "tasks\ncpus\nZoe\nAbe\n", ""}},
			{"ls /all/", result{0, "tasks\ncpus\nZoe\nAbe\n", ""}},
			{"ls -l /all", result{0, "-rw-r--r-- 7 8 tasks\n-r--r--r-- 7 8 cpus\ndrwxr-x--- 7 8 Zoe\ndrwx------ 7 8 Abe\n", ""}},
			{"ls /all/tasks /all/Zoe", result{0, "/all/tasks\n/all/Zoe:\n", ""}},
		}},
		{name: "ls passes over what is removed meanwhile", fail: map[string]linux.Errno{"walk /all/Zoe": linux.ENOENT}, steps: []step{
			{"ls -l /all", result{0, "-rw-r--r-- 7 8 tasks\n-r--r--r-- 7 8 cpus\ndrwx------ 7 8 Abe\n", ""}},
		}},
		{name: "read", steps: []step{
			{"read /all/tasks /all/cpus", result{0, "1\n2\n3\n0-3\n", ""}},
			{"read /all", result{1, "", "containerfs: read /all: is a directory\n"}},
			{"read /all/nothing", result{3, "", "containerfs: read /all/nothing: no such file or directory\n"}},
		}},
		{name: "goes on after a failure, first code", fail: map[string]linux.Errno{"open /all/cpus": linux.EACCES}, steps: []step{
			{"read /all/cpus /all/tasks /all/no", result{4, "1\n2\n3\n",
				"containerfs: read /all/cpus: permission denied\ncontainerfs: read /all/no: no such file or directory\n"}},
		}},
		{name: "mkdir and rmdir", steps: []step{
			{"mkdir /all/x /all/x/y", result{0, "", ""}},
			{"mkdir /all/x", result{1, "", "containerfs: mkdir /all/x: file exists\n"}},
			{"mkdir /all/no/y", result{3, "", "containerfs: mkdir /all/no/y: no such file or directory\n"}},
			{"mkdir -m 700 /all/z", result{0, "", ""}},
			{"ls -l /all/z /all", result{0, "/all/z:\n/all:\n-rw-r--r-- 7 8 tasks\n-r--r--r-- 7 8 cpus\ndrwxr-x--- 7 8 Zoe\ndrwx------ 7 8 Abe\ndrwxr-xr-x 7 8 x\ndrwx------ 7 8 z\n", ""}},
			{"rmdir /all/x/y /all/x /all/z", result{0, "", ""}},
			{"rmdir /", result{5, "", "containerfs: rmdir /: device or resource busy\n"}},
			{"ls /all", result{0, "tasks\ncpus\nZoe\nAbe\n", ""}},
		}},
		{name: "a container called help", steps: []step{
			{"mkdir /all/help", result{0, "", ""}},
			{"mkdir help", result{2, "", "containerfs: path \"help\" does not start with /\n"}},
		}},
		{name: "mkdir -p", steps: []step{
			{"mkdir -p /all/a/b/c", result{0, "", ""}},
			{"mkdir -p /all/a/b/c /all /", result{0, "", ""}},
			{"mkdir -p -m 500 /all/m/n", result{0, "", ""}},
			{"ls -l /all/m", result{0, "dr-x------ 7 8 n\n", ""}},
			{"mkdir -p /all/tasks", result{1, "", "containerfs: mkdir /all/tasks: file exists\n"}},
		}},
		{name: "mv", steps: []step{
			{"mv /all/Zoe /all/Yve", result{0, "", ""}},
			{"ls /all", result{0, "tasks\ncpus\nYve\nAbe\n", ""}},
			{"mv /all/Yve /all/Abe", result{1, "", "containerfs: mv /all/Yve: to /all/Abe: file exists\n"}},
			{"mv /all/Yve /all/Abe/Yve", result{1, "", "containerfs: mv /all/Yve: to /all/Abe/Yve: a container is renamed in its parent, not moved to another\n"}},
			{"mv /all/Yve /all/no/Yve", result{3, "", "containerfs: mv /all/Yve: to /all/no/Yve: no such file or directory\n"}},
			{"mv / /all/x", result{5, "", "containerfs: mv /: device or resource busy\n"}},
		}},
		{name: "stat", steps: []step{
			{"stat /all/tasks /all", result{0, "/all/tasks: file mode=0644 uid=7 gid=8 nlink=1 size=0 qid=3\n/all: container mode=0755 uid=7 gid=8 nlink=1 size=0 qid=2\n", ""}},
		}},
		{name: "chown", fail: map[string]linux.Errno{"setattr /all/cpus": linux.EPERM}, steps: []step{
			{"chown 9 /all/Zoe /all/tasks", result{0, "", ""}},
			{"chown :root /all/Zoe", result{0, "", ""}},
			{"chown root:10 /all/Abe", result{0, "", ""}},
			{"ls -l /all", result{0, "-rw-r--r-- 9 8 tasks\n-r--r--r-- 7 8 cpus\ndrwxr-x--- 9 0 Zoe\ndrwx------ 0 10 Abe\n", ""}},
			{"chown 9 /all/cpus /all/no /all/Abe", result{4, "", "containerfs: chown /all/cpus: operation not permitted\ncontainerfs: chown /all/no: no such file or directory\n"}},
			{"chown 9", result{2, "", "containerfs: usage: containerfs chown USER[:GROUP] PATH...\n"}},
			{"chown no-such-user /all", result{2, "", "containerfs: no user \"no-such-user\" on this host\n"}},
			{"chown 9:no-such-group /all", result{2, "", "containerfs: no group \"no-such-group\" on this host\n"}},
			{"chown 4294967295 /all", result{2, "", "containerfs: no user \"4294967295\" on this host\n"}},
			{"chown 9: /all", result{2, "", "containerfs: owner \"9:\": want USER, USER:GROUP or :GROUP\n"}},
			{"chown : /all", result{2, "", "containerfs: owner \":\": want USER, USER:GROUP or :GROUP\n"}},
			{"chown 9 all", result{2, "", "containerfs: path \"all\" does not start with /\n"}},
		}},
		{name: "chown -R", fail: map[string]linux.Errno{"setattr /all/Zoe": linux.EPERM, "walk /all/cpus": linux.ENODEV}, steps: []step{
			{"mkdir -p /all/Zoe/x /all/Abe/y", result{0, "", ""}},
			{"chown 9:10 -R /all /all/tasks", result{4, "", "containerfs: chown /all/Zoe: operation not permitted\n"}},
			{"ls -l / /all/Zoe /all/Abe", result{0, "/:\ndrwxr-xr-x 9 10 all\n/all/Zoe:\ndrwxr-xr-x 9 10 x\n/all/Abe:\ndrwxr-xr-x 9 10 y\n", ""}},
			{"stat /all/tasks /all/Zoe", result{0, "/all/tasks: file mode=0644 uid=9 gid=10 nlink=1 size=0 qid=3\n/all/Zoe: container mode=0750 uid=7 gid=8 nlink=1 size=0 qid=5\n", ""}},
		}},
		{name: "chmod", fail: map[string]linux.Errno{"setattr /all/cpus": linux.EPERM}, steps: []step{
			{"chmod 0711 /all/Zoe", result{0, "", ""}},
			{"chmod u-w,go=,g+rx,a+x /all/Abe", result{0, "", ""}},
			{"chmod ug+w,o= /all/tasks", result{0, "", ""}},
			{"ls -l /all", result{0, "-rw-rw---- 7 8 tasks\n-r--r--r-- 7 8 cpus\ndrwx--x--x 7 8 Zoe\ndr-xr-x--x 7 8 Abe\n", ""}},
			{"chmod 600 -R /all", result{4, "", "containerfs: chmod /all/cpus: operation not permitted\n"}},
			{"ls -l /all", result{0, "-rw------- 7 8 tasks\n-r--r--r-- 7 8 cpus\ndrw------- 7 8 Zoe\ndrw------- 7 8 Abe\n", ""}},
			{"chmod 1777 /all/Zoe", result{2, "", "containerfs: mode \"1777\": want octal up to 777, or changes as u+w,go-rx\n"}},
			{"chmod u+s /all/Zoe", result{2, "", "containerfs: mode \"u+s\": want octal up to 777, or changes as u+w,go-rx\n"}},
			{"chmod +w /all/Zoe", result{2, "", "containerfs: mode \"+w\": want octal up to 777, or changes as u+w,go-rx\n"}},
			{"chmod u+w, /all/Zoe", result{2, "", "containerfs: mode \"u+w,\": want octal up to 777, or changes as u+w,go-rx\n"}},
			{"chmod 600", result{2, "", "containerfs: usage: containerfs chmod MODE PATH...\n"}},
		}},
		{name: "usage", steps: []step{
			{"", result{2, "", "containerfs: no command given; see containerfs --help\n"}},
			{"sta /x", result{2, "", "containerfs: no command \"sta\"; did you mean stat?\n"}},
			{"foo /x", result{2, "", "containerfs: no command \"foo\"; see containerfs --help\n"}},
			{"mkdri /x", result{2, "", "containerfs: no command \"mkdri\"; did you mean mkdir?\n"}},
			{"atatch /x", result{2, "", "containerfs: no command \"atatch\"; did you mean attach?\n"}},
			{"run-lunch /x", result{2, "", "containerfs: no command \"run-lunch\"; see containerfs --help\n"}},
			{"help atatch", result{2, "", "containerfs: no command \"atatch\"; did you mean attach?\n"}},
			{"help frob", result{2, "", "containerfs: no command \"frob\"; see containerfs --help\n"}},
			{"help rules frob", result{2, "", "containerfs: no command \"rules frob\"; see containerfs rules --help\n"}},
			{"rules tset 1", result{2, "", "containerfs: no command \"rules tset\"; did you mean rules test?\n"}},
			{"rules frob", result{2, "", "containerfs: usage: containerfs rules check FILE | rules test PID | rules test --user USER --exe PATH\n"}},
			{"top -d 0 /all", result{2, "", "containerfs: d: want 100ms or more\n"}},
			{"top -d x /all", result{2, "", "containerfs: d: \"x\": want seconds, or a time as 500ms or 5m\n"}},
			{"wait --timeout x /all", result{2, "", "containerfs: timeout: \"x\": want seconds, or a time as 500ms or 5m\n"}},
			{"wait --timeout -1 /all", result{2, "", "containerfs: timeout: a time cannot be negative\n"}},
			{"watch --pid abc", result{2, "", "containerfs: \"abc\" is no PID\n"}},
			{"watch --pid 0", result{2, "", "containerfs: \"0\" is no PID\n"}},
			{"ps abc", result{2, "", "containerfs: \"abc\" is no PID\n"}},
			{"rules test abc", result{2, "", "containerfs: \"abc\" is no PID\n"}},
			{"tree --depth x", result{2, "", "containerfs: depth: \"x\": want a number\n"}},
			{"tree --depth 99999999999999999999", result{2, "", "containerfs: depth: \"99999999999999999999\": want a number\n"}},
			{"tree --json=x", result{2, "", "containerfs: json: \"x\": want true or false\n"}},
			{"top -n x", result{2, "", "containerfs: n: \"x\": want a number\n"}},
			{"serve --max-containers x", result{2, "", "containerfs: max-containers: \"x\": want a number\n"}},
			{"watch --kind fork,no /", result{2, "", "containerfs: no events of kind \"no\"; there are fork exec exit uid attach mkdir rmdir rename mount remount umount release limit lost\n"}},
			{"frob /x", result{2, "", "containerfs: no command \"frob\"; see containerfs --help\n"}},
			{"ls --server unix:///x /all", result{2, "", "containerfs: --server goes before the command: containerfs --server ADDR ls ...\n"}},
			{"ls /all --server=unix:///x", result{2, "", "containerfs: --server goes before the command: containerfs --server ADDR ls ...\n"}},
			{"read --server unix:///x /all", result{2, "", "containerfs: --server goes before the command: containerfs --server ADDR read ...\n"}},
			{"rules test --server unix:///x 1", result{2, "", "containerfs: --server goes before the command: containerfs --server ADDR rules test ...\n"}},
			{"--frob ls", result{2, "", "containerfs: there is no flag \"frob\"; see containerfs --help\n"}},
			{"ls --frob", result{2, "", "containerfs: there is no flag \"frob\"; see containerfs ls --help\n"}},
			{"ps -a", result{2, "", "containerfs: there is no flag \"a\"; see containerfs ps --help\n"}},
			{"rules check --frob", result{2, "", "containerfs: there is no flag \"frob\"; see containerfs rules check --help\n"}},
			{"ls -la", result{2, "", "containerfs: there is no flag \"la\"; see containerfs ls --help\n"}},
			{"run --frob true", result{125, "", "containerfs: there is no flag \"frob\"; see containerfs run --help\n"}},
			{"run -c", result{125, "", "containerfs: -c wants a value; see containerfs run --help\n"}},
			{"top -d", result{2, "", "containerfs: -d wants a value; see containerfs top --help\n"}},
			{"top /all --sort", result{2, "", "containerfs: --sort wants a value; see containerfs top --help\n"}},
			{"read", result{2, "", "containerfs: usage: containerfs read PATH...\n"}},
			{"write /all/tasks", result{2, "", "containerfs: usage: containerfs write PATH VALUE\n"}},
			{"write /all/tasks 1 2", result{2, "", "containerfs: usage: containerfs write PATH VALUE\n"}},
			{"mv /all/Zoe all/Yve", result{2, "", "containerfs: path \"all/Yve\" does not start with /\n"}},
			{"mkdir -m 1777 /all/x", result{2, "", "containerfs: mode \"1777\": want octal up to 777\n"}},
			{"mkdir -m rwx /all/x", result{2, "", "containerfs: mode \"rwx\": want octal up to 777\n"}},
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m, addr := serveMemory(t)
			t.Setenv("CONTAINERFS_SERVER", addr)
			for op, errno := range test.fail {
				m.failWith(op, errno)
			}
			for _, s := range test.steps {
				if got := command(nil, strings.Fields(s.args)...); got != s.want {
					t.Errorf("%s:\ngot  %+v\nwant %+v", s.args, got, s.want)
				}
			}
		})
	}
}

// TestRmdirParents: those above are removed as well as long as they are empty, but for the
// hierarchy's root, wherever the server shows it.
func TestRmdirParents(t *testing.T) {
	m, addr := serveMemory(t)
	m.mu.Lock()
	m.add("/all/release_agent", p9.ModeRegular|0o644, "")
	m.add("/own", p9.ModeDirectory|0o755, "") // a container, from a listener that is confined to the one above it
	m.mu.Unlock()
	m.failWith("rmdir /all/Zoe", linux.EBUSY)
	for _, s := range []struct {
		args string
		want result
	}{
		{"mkdir -p /all/a/b/c /all/Zoe/d /own/x", result{0, "", ""}},
		{"rmdir -p //all/a/b/c/ /own/x", result{0, "", ""}},
		{"rmdir /all/Zoe/d -p", result{5, "", "containerfs: rmdir /all/Zoe/d: parent /all/Zoe: device or resource busy\n"}},
		{"rmdir -p /all/no/x /all/Abe", result{3, "", "containerfs: rmdir /all/no/x: no such file or directory\n"}},
		{"rmdir -p /", result{5, "", "containerfs: rmdir /: device or resource busy\n"}},
		{"ls / /all", result{0, "/:\nall\n/all:\ntasks\ncpus\nZoe\nrelease_agent\n", ""}},
	} {
		if got := command(nil, append([]string{"--server", addr}, strings.Fields(s.args)...)...); got != s.want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", s.args, got, s.want)
		}
	}
}

// TestRmdirTree: a container goes after those below it. One that stays keeps those above it, and
// is named; the others go.
func TestRmdirTree(t *testing.T) {
	m, addr := serveMemory(t)
	m.mu.Lock()
	m.add("/all/release_agent", p9.ModeRegular|0o644, "")
	m.mu.Unlock()
	m.failWith("rmdir /all/a/b/c", linux.EBUSY)
	m.failWith("rmdir /all/x/y", linux.ENOENT) // somebody else has removed it
	for _, s := range []struct {
		args string
		want result
	}{
		{"mkdir -p /all/a/b/c /all/a/b/d/e /all/a/f /all/x/y /all/z", result{0, "", ""}},
		{"rmdir -r /all/a/ /all/z /all/no", result{5, "", "containerfs: rmdir /all/a/b/c: device or resource busy\ncontainerfs: rmdir /all/no: no such file or directory\n"}},
		{"ls /all /all/a /all/a/b", result{0, "/all:\ntasks\ncpus\nZoe\nAbe\nrelease_agent\na\nx\n/all/a:\nb\n/all/a/b:\nc\n", ""}},
		{"rmdir /all/x -r", result{0, "", ""}},
		{"rmdir -rp /all/a/b/c", result{5, "", "containerfs: rmdir /all/a/b/c: device or resource busy\n"}},
		{"mkdir -p /all/a/g/h/i", result{0, "", ""}},
		{"rmdir -rp /all/a/g/h", result{0, "", ""}}, // the server here has nothing against children
		{"ls /all", result{0, "tasks\ncpus\nZoe\nAbe\nrelease_agent\n", ""}},
		{"rmdir --kill /all/Zoe", result{2, "", "containerfs: --kill is for rmdir -r\n"}},
	} {
		if got := command(nil, append([]string{"--server", addr}, strings.Fields(s.args)...)...); got != s.want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", s.args, got, s.want)
		}
	}
	// Of a root, which cannot be removed, nothing is.
	m.failWith("rmdir /all", linux.EBUSY)
	for args, want := range map[string]string{"-r /all": "/all", "-r --kill /all": "/all", "-r //": "//"} {
		want = "containerfs: rmdir " + want + ": device or resource busy\n"
		if got := command(nil, append([]string{"--server", addr, "rmdir"}, strings.Fields(args)...)...); got.code != 5 || got.stderr != want {
			t.Errorf("%s: got %+v", args, got)
		}
	}
	if got := command(nil, "--server", addr, "ls", "/all/Zoe", "/all/Abe"); got.code != 0 {
		t.Errorf("%+v", got)
	}
	// The server goes away: that is said once.
	near := between(t, addr, func(c, far net.Conn, pass func(to, from net.Conn)) {
		pass(c, far)
		for buf := make([]byte, 64<<10); ; {
			n, err := c.Read(buf)
			if err != nil || bytes.Contains(buf[:n], []byte("Zoe")) {
				break
			}
			far.Write(buf[:n])
		}
	})
	m.mu.Lock()
	m.add("/all/Zoe/in", p9.ModeDirectory|0o755, "")
	m.mu.Unlock()
	if got := command(nil, "--server", "unix://"+near, "rmdir", "-r", "/all/Zoe", "/all/Abe"); got.code != exitUnavailable || strings.Count(got.stderr, "\n") != 1 {
		t.Errorf("got %+v", got)
	}
}

// TestTopRoot: what the kernel counts in a hierarchy's root is not of its processes.
func TestTopRoot(t *testing.T) {
	m, addr := serveMemory(t)
	m.mu.Lock()
	m.add("/all/release_agent", p9.ModeRegular|0o644, "")
	for _, dir := range []string{"/all", "/all/Abe"} {
		m.add(dir+"/memory.current", p9.ModeRegular|0o444, "4096\n")
	}
	m.add("/all/Abe/tasks", p9.ModeRegular|0o644, "")
	m.add("/all/Zoe/tasks", p9.ModeRegular|0o644, "")
	m.mu.Unlock()
	want := heading + `
      -       3         -  /all
      -       0      4.0K  /all/Abe
      -       0         -  /all/Zoe
`
	if got := command(nil, "--server", addr, "top", "-b", "-n", "1", "--sort", "path", "/all"); got.code != 0 || got.stdout != want {
		t.Errorf("got %+v, want\n%s", got, want)
	}
}

// TestExitCodes has the server answer every errno that SPEC names.
func TestExitCodes(t *testing.T) {
	m, addr := serveMemory(t)
	for errno, want := range map[linux.Errno]int{
		linux.ENOENT: 3, linux.ESRCH: 3, linux.ENODEV: 3,
		linux.EACCES: 4, linux.EPERM: 4, linux.EROFS: 4,
		linux.EBUSY:  5,
		linux.ESTALE: 75,
		linux.EINVAL: 1, linux.EEXIST: 1, linux.E2BIG: 1, linux.ENOSPC: 1, linux.EAGAIN: 1,
		linux.EOPNOTSUPP: 1, linux.EIO: 1, linux.ENOTDIR: 1, linux.ENAMETOOLONG: 1, linux.ERANGE: 1,
	} {
		m.failWith("rmdir /all/Zoe", errno)
		got := command(nil, "--server", addr, "rmdir", "/all/Zoe")
		if got.code != want || got.stderr != "containerfs: rmdir /all/Zoe: "+errno.Error()+"\n" {
			t.Errorf("%v: got %+v, want code %d", errno, got, want)
		}
	}
}

func TestAttachRefused(t *testing.T) {
	m, addr := serveMemory(t)
	m.failWith("attach /", linux.EACCES)
	want := result{4, "", "containerfs: attach " + addr + ": permission denied\n"}
	if got := command(nil, "--server", addr, "ls"); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestKillFrozen: what is frozen ends when it is thawed, which is said.
func TestKillFrozen(t *testing.T) {
	m, addr := serveMemory(t)
	m.mu.Lock()
	m.add("/all/Zoe/kill", p9.ModeRegular|0o200, "")
	m.add("/all/Zoe/in", p9.ModeDirectory|0o755, "")
	m.add("/all/Zoe/in/freezer.state", p9.ModeRegular|0o644, "FROZEN\n")
	m.mu.Unlock()
	m.failWith("write /all/Zoe/kill", linux.EAGAIN)
	want := result{1, "", "containerfs: kill /all/Zoe: resource temporarily unavailable: /all/Zoe/in is frozen, and ends when it is thawed: containerfs thaw /all/Zoe/in\n"}
	if got := command(nil, "--server", addr, "kill", "/all/Zoe"); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	m.mu.Lock()
	m.nodes["/all/Zoe/in/freezer.state"].content = "THAWED\n"
	m.mu.Unlock()
	want.stderr = "containerfs: kill /all/Zoe: resource temporarily unavailable\n"
	if got := command(nil, "--server", addr, "kill", "/all/Zoe"); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestPagesOfAnotherHost: pages are as large as those of the server's host.
func TestPagesOfAnotherHost(t *testing.T) {
	m, addr := serveMemory(t)
	m.mu.Lock()
	m.add("/all/Zoe/tasks", p9.ModeRegular|0o444, "1\n")
	m.add("/all/Zoe/bc.physpages.held", p9.ModeRegular|0o444, "48\n")
	m.mu.Unlock()
	top := func() string {
		return command(nil, "--server", addr, "top", "-b", "-n", "1", "-d", "0.1", "--json", "/all/Zoe").stdout
	}
	if got := top(); !strings.Contains(got, `"memory_bytes":3145728`) {
		t.Errorf("48 pages of 64 KiB: %s", got)
	}
	m.failWith("statfs /", linux.ENOSYS)
	if got := top(); !strings.Contains(got, `"memory_bytes":null`) {
		t.Errorf("48 pages of who knows what: %s", got)
	}
}

// TestWriteIsOneCommand: a value is one Twrite with echo's newline, standard
// input one without; what would have to be cut up is refused.
func TestWriteIsOneCommand(t *testing.T) {
	m, addr := serveMemory(t)
	long := strings.Repeat("x", maxCommand)
	for _, test := range []struct {
		value, stdin string
		code         int
		wrote        []string
	}{
		{"0-3", "", 0, []string{"/all/cpus 0-3\n"}},
		{"", "", 0, []string{"/all/cpus \n"}},
		{"-1", "", 0, []string{"/all/cpus -1\n"}},
		{"-", "7", 0, []string{"/all/cpus 7"}},
		{"-", "", 0, []string{"/all/cpus "}},
		{"-", long, 0, []string{"/all/cpus " + long}},
		{"-", long + "x", 1, nil},
		{long, "", 1, nil},
	} {
		got := command(strings.NewReader(test.stdin), "--server", addr, "write", "/all/cpus", test.value)
		wrote := m.takeWrites()
		if got.code != test.code || !slices.Equal(wrote, test.wrote) {
			t.Errorf("write %.9q with %.9q: got %+v and %.40q", test.value, test.stdin, got, wrote)
		}
		if want := "containerfs: write /all/cpus: a command has at most 4096 bytes: argument list too long\n"; got.code != 0 && got.stderr != want {
			t.Errorf("write %.9q with %.9q: it says %q", test.value, test.stdin, got.stderr)
		}
	}
}

// TestLostServer: a server that is not there, goes away or says nothing is 75,
// never the end of a file.
func TestLostServer(t *testing.T) {
	addr := filepath.Join(t.TempDir(), "sock")
	want := result{75, "", "containerfs: server unix!" + addr + " unavailable: connect: no such file or directory; " + noListener + "\n"}
	if got := command(nil, "--server", "unix!"+addr, "ls"); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}

	left, err := net.Listen("unix", addr)
	if err != nil {
		t.Fatal(err)
	}
	left.(*net.UnixListener).SetUnlinkOnClose(false)
	left.Close()
	want.stderr = "containerfs: server unix!" + addr + " unavailable: connect: connection refused; " + noListener + "\n"
	if got := command(nil, "--server", "unix!"+addr, "ls"); got != want {
		t.Errorf("at a socket that a server left: got %+v, want %+v", got, want)
	}
	os.Remove(addr)

	serveEach(t, "unix", addr, func(c net.Conn) {
		io.ReadFull(c, make([]byte, 7))
		c.Close()
	})
	want.stderr = "containerfs: server unix!" + addr + " unavailable: it hangs up\n"
	if got := command(nil, "--server", "unix!"+addr, "read", "/all/tasks", "/all/cpus"); got != want {
		t.Errorf("a server that closes: got %+v", got)
	}
}

// TestServerDiesDuringRead cuts the connection after the open, when the client
// is in its loop of reads.
func TestServerDiesDuringRead(t *testing.T) {
	m, addr := serveMemory(t)
	m.mu.Lock()
	m.nodes["/all/tasks"].content = strings.Repeat("1\n", 1<<20)
	m.mu.Unlock()
	near := between(t, addr, func(c, far net.Conn, pass func(to, from net.Conn)) {
		pass(far, c)
		io.CopyN(c, far, 100<<10)
	})
	got := command(nil, "--server", "unix://"+near, "read", "/all/tasks")
	if got.code != 75 || len(got.stdout) == 0 || got.stderr != "containerfs: read /all/tasks: the server went away\n" {
		t.Errorf("got code %d after %d bytes, %s", got.code, len(got.stdout), got.stderr)
	}
}

// TestServerDiesMeanwhile: who follows something is told when its server is gone, not what
// the socket says of it.
func TestServerDiesMeanwhile(t *testing.T) {
	for _, args := range []string{"watch /all/Zoe", "wait /all/Zoe", "top -b -d 0.1 /all", "freeze /all/Zoe"} {
		m, addr := serveMemory(t)
		m.mu.Lock()
		m.add("/all/events", p9.ModeRegular|0o444, "")
		m.add("/all/Zoe/tasks", p9.ModeRegular|0o444, "")
		m.add("/all/Abe/tasks", p9.ModeRegular|0o444, "")
		m.add("/all/Zoe/populated", p9.ModeRegular|0o444, "1\n")
		m.add("/all/Zoe/freezer.state", p9.ModeRegular|0o644, "FREEZING\n")
		m.mu.Unlock()
		near := cutWhenRead(t, m, addr)
		got := command(nil, append([]string{"--server", "unix://" + near}, strings.Fields(args)...)...)
		verb, _, _ := strings.Cut(args, " ")
		path := args[strings.LastIndex(args, "/all"):]
		if got.code != exitUnavailable || !strings.HasPrefix(got.stderr, "containerfs: "+verb+" "+path+": ") || !strings.HasSuffix(got.stderr, ": the server went away\n") || strings.Contains(got.stderr, "socket") {
			t.Errorf("%s: got code %d, %s", args, got.code, got.stderr)
		}
	}
}

// TestEndedWhileSilent: what follows something ends when it is told to, though its server
// answers no more.
func TestEndedWhileSilent(t *testing.T) {
	for _, args := range []string{"watch /all", "top -b -d 0.1 /all"} {
		m, addr := serveMemory(t)
		m.mu.Lock()
		m.add("/all/events", p9.ModeRegular|0o444, "")
		m.mu.Unlock()
		silent := make(chan struct{})
		near := silentWhenRead(t, m, addr, 6, silent)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		ended := make(chan result, 1)
		go func() {
			var stdout, stderr bytes.Buffer
			code := execute(ctx, append([]string{"containerfs", "--server", "unix://" + near}, strings.Fields(args)...), nil, &stdout, &stderr)
			ended <- result{code, "", stderr.String()}
		}()
		<-silent
		cancel()
		if got := <-ended; got != (result{}) {
			t.Errorf("%s: got %+v", args, got)
		}
	}
}

// TestTimeoutWhileSilent: the time that a command is given to wait is no longer for a server that
// answers no more.
func TestTimeoutWhileSilent(t *testing.T) {
	before := answerTime
	answerTime = 100 * time.Millisecond
	defer func() { answerTime = before }()
	for _, args := range []string{"wait --timeout 0 /all/Zoe", "freeze --timeout 0 /all/Zoe"} {
		m, addr := serveMemory(t)
		m.mu.Lock()
		m.add("/all/Zoe/tasks", p9.ModeRegular|0o444, "")
		m.add("/all/Zoe/populated", p9.ModeRegular|0o444, "1\n")
		m.add("/all/Zoe/freezer.state", p9.ModeRegular|0o644, "FREEZING\n")
		m.mu.Unlock()
		near := silentWhenRead(t, m, addr, 1, make(chan struct{}))
		got := command(nil, append([]string{"--server", "unix://" + near}, strings.Fields(args)...)...)
		verb, _, _ := strings.Cut(args, " ")
		if want := (result{exitUnavailable, "", "containerfs: " + verb + " /all/Zoe: the server does not answer\n"}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

// silentWhenRead relays one connection to a server, until so many reads have been answered: then
// silent is closed at the next request, which is not answered, nor is any other.
func silentWhenRead(t *testing.T, m *memory, addr string, reads int, silent chan<- struct{}) string {
	return between(t, addr, func(c, far net.Conn, pass func(to, from net.Conn)) {
		pass(c, far)
		said := false
		for buf := make([]byte, 64<<10); ; {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			m.mu.Lock()
			answered := m.reads < reads
			m.mu.Unlock()
			switch {
			case answered:
				far.Write(buf[:n])
			case !said:
				said = true
				close(silent)
			}
		}
	})
}

// cutWhenRead relays one connection to a server, until some reads have been asked for.
func cutWhenRead(t *testing.T, m *memory, addr string) string {
	return between(t, addr, func(c, far net.Conn, pass func(to, from net.Conn)) {
		pass(far, c)
		pass(c, far)
		for looked := 0; looked < 6; time.Sleep(time.Millisecond) {
			m.mu.Lock()
			looked = m.reads
			m.mu.Unlock()
		}
	})
}

// between stands between one client and a server until relay returns: both connections
// are closed then, which ends what passes on all that comes. It returns where the client
// connects to.
func between(t *testing.T, addr string, relay func(c, far net.Conn, pass func(to, from net.Conn))) string {
	t.Helper()
	near, err := net.Listen("unix", filepath.Join(t.TempDir(), "near"))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		c, err := near.Accept()
		if err != nil {
			return
		}
		var passing sync.WaitGroup
		defer passing.Wait()
		defer c.Close()
		far, err := net.Dial("unix", strings.TrimPrefix(addr, "unix://"))
		if err != nil {
			t.Error(err)
			return
		}
		defer far.Close()
		relay(c, far, func(to, from net.Conn) { passing.Go(func() { io.Copy(to, from) }) })
	}()
	t.Cleanup(func() { near.Close(); <-served })
	return near.Addr().String()
}

// serveEach listens until the test ends, and has do done with each who connects, one after the
// other. It returns where that is.
func serveEach(t *testing.T, network, address string, do func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			do(c)
		}
	}()
	t.Cleanup(func() { l.Close(); <-served })
	return l.Addr().String()
}

// silentServer accepts in the kernel and never answers. It returns its socket.
func silentServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

func TestSilentServer(t *testing.T) {
	addr := silentServer(t)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, err := connect(ctx, "unix://"+addr); exitCode(err) != exitUnavailable {
		t.Errorf("got %v", err)
	}
}

func TestBadAddr(t *testing.T) {
	for _, addr := range []string{"x", "tcp!h", "http://h:1"} {
		if got := command(nil, "--server", addr, "ls"); got.code != exitUsage {
			t.Errorf("%q: got %+v", addr, got)
		}
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"help"}, {"-h"}} {
		if got := command(nil, args...); got.code != 0 || got.stderr != "" || !strings.Contains(got.stdout, "containerfs mkdir /all/Charlie") {
			t.Errorf("%v: got %+v", args, got)
		}
	}
	for _, c := range app(nil, nil, nil).Commands {
		if c.Hidden || len(c.Subcommands) > 0 || c.Name == "help" {
			continue // the examples are those of the subcommands; help --help is all of it
		}
		// The usage line, and an example at least.
		got := command(nil, c.Name, "--help")
		_, description, _ := strings.Cut(got.stdout, "DESCRIPTION:")
		if got.code != 0 || got.stderr != "" || !strings.Contains(got.stdout, "containerfs "+c.Name) || !strings.Contains(description, "\n     containerfs "+c.Name) {
			t.Errorf("%s: got %+v", c.Name, got)
		}
	}
	for _, name := range []string{"tree", "rules", "rules test"} {
		words := strings.Fields(name)
		if got, want := command(nil, append([]string{"help"}, words...)...), command(nil, append(words, "--help")...); got != want || got.code != 0 || !strings.Contains(got.stdout, "containerfs "+name+" - ") {
			t.Errorf("help %s: got %+v", name, got)
		}
	}
	for _, flag := range []string{"--version", "-v"} {
		if got := command(nil, flag); got.code != 0 || got.stderr != "" || !strings.HasPrefix(got.stdout, "containerfs version ") || !strings.HasSuffix(got.stdout, " "+runtime.Version()+"\n") {
			t.Errorf("%s: got %+v", flag, got)
		}
	}
	if got := command(nil, "help", "frob"); got.code != exitUsage {
		t.Errorf("help frob: got %+v", got)
	}
}

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"Charlie":          "Charlie",
		"ünïcode 日本":       "ünïcode 日本",
		`a\x2db`:           `a\x2db`,
		"a\nb\tc\x1b[2J":   `a\nb\tc\x1b[2J`,
		"\xff\xfe":         `\xff\xfe`,
		"\u202egnp":        `\u202egnp`,
		"\ufffd":           "\ufffd",
		"\x7f\u0085\u2028": `\x7f\u0085\u2028`,
	} {
		if got := printable(text); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}

// TestNotNineP: who answers what is no 9P has not hung up, and has no listener with allow=.
func TestNotNineP(t *testing.T) {
	addr := serveEach(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
		t.Cleanup(func() { c.Close() })
		c.Write([]byte("SSH-2.0-OpenSSH_9.6\r\n"))
	})
	got := command(nil, "--server", "tcp://"+addr, "ls")
	if got.code != exitUnavailable || !strings.HasSuffix(got.stderr, " unavailable: what answers there does not speak 9P\n") {
		t.Errorf("got %+v", got)
	}
}

// TestClientsTLSFiles: what is wrong with the client's own files is no server's that is not there.
func TestClientsTLSFiles(t *testing.T) {
	dir := t.TempDir()
	key, cert := filepath.Join(dir, "key.pem"), filepath.Join(dir, "cert.pem")
	addr := "tls://127.0.0.1:1?cert=" + cert + "&key=" + key + "&ca=" + cert
	for _, test := range []struct{ file, want string }{
		{"", "stat " + key + ": no such file or directory"},
		{key, "open " + cert + ": no such file or directory"},
		{cert, "tls: failed to find any PEM data in certificate input"},
	} {
		if test.file != "" {
			if err := os.WriteFile(test.file, []byte("rubbish\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got := command(nil, "--server", addr, "ls")
		if got.code != exitUsage || !strings.HasPrefix(got.stderr, "containerfs: address \""+addr+"\": ") || !strings.HasSuffix(got.stderr, test.want+"\n") {
			t.Errorf("got %+v, want %s", got, test.want)
		}
	}
}
