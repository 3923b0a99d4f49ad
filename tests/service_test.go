package tests

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const unitDir = "../cmd/containerfs/systemd/"

// unit are the keys of a unit file with all their values, as KEY or SECTION/KEY.
func unit(t testing.TB, name string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(unitDir + name)
	if err != nil {
		t.Fatal(err)
	}
	keys := make(map[string][]string)
	section := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#':
			continue
		case line[0] == '[' && strings.HasSuffix(line, "]"):
			section = line[1 : len(line)-1]
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || section == "" {
			t.Fatalf("%s: %q", name, line)
		}
		for _, k := range []string{key, section + "/" + key} {
			keys[k] = append(keys[k], value)
		}
	}
	return keys
}

// manager plays the service manager: it has the socket that a service notifies.
type manager struct {
	t    testing.TB
	conn *net.UnixConn
	done chan struct{}

	mu     sync.Mutex
	states []string // what was told, in order
	pids   []int32  // by whom
}

func startManager(t testing.TB) *manager {
	t.Helper()
	dir, err := os.MkdirTemp("", "cfs")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: filepath.Join(dir, "notify")})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
	}
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{t: t, conn: conn, done: make(chan struct{})}
	go func() {
		defer close(m.done)
		b, oob := make([]byte, 4096), make([]byte, 256)
		for {
			n, noob, _, _, err := conn.ReadMsgUnix(b, oob)
			if err != nil {
				return
			}
			pid := int32(0)
			if msgs, err := unix.ParseSocketControlMessage(oob[:noob]); err == nil && len(msgs) == 1 {
				if cred, err := unix.ParseUnixCredentials(&msgs[0]); err == nil {
					pid = cred.Pid
				}
			}
			m.mu.Lock()
			m.states, m.pids = append(m.states, string(b[:n])), append(m.pids, pid)
			m.mu.Unlock()
		}
	}()
	// After the server, which is started later, has ended.
	t.Cleanup(func() {
		conn.Close()
		<-m.done
		os.RemoveAll(dir)
	})
	return m
}

func (m *manager) env() string { return "NOTIFY_SOCKET=" + m.conn.LocalAddr().String() }

// told are the states told so far that begin with a word.
func (m *manager) told(word string) (list []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.states {
		if strings.HasPrefix(s, word) {
			list = append(list, s)
		}
	}
	return list
}

// pass has a command started as sd_listen_fds(3) says, with sockets by name.
func pass(names []string, files []*os.File, env ...string) func(*exec.Cmd) {
	return func(c *exec.Cmd) {
		c.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, c.Path}, c.Args[1:]...)
		c.Path = "/bin/sh"
		c.ExtraFiles = files
		c.Env = append(os.Environ(), append(env, "LISTEN_FDS="+strconv.Itoa(len(files)), "LISTEN_FDNAMES="+strings.Join(names, ":"))...)
	}
}

func monotonic() int64 {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano() / 1000
}

// TestServiceUnit has the server do what its unit tells the service manager that it
// does, with the config file that is installed.
func TestServiceUnit(t *testing.T) {
	keys := unit(t, "containerfs.service")
	socketUnit := unit(t, "containerfs.socket")
	for key, want := range map[string]string{
		"Type": "notify-reload", "NotifyAccess": "main",
		// Processes of others can be in the unit's cgroup.
		"Delegate": "yes", "DelegateSubgroup": "server", "KillMode": "process", "OOMPolicy": "continue", "TasksMax": "infinity",
		"StateDirectory": "containerfs", "RuntimeDirectory": "containerfs", "RuntimeDirectoryPreserve": "yes",
		"RestartPreventExitStatus": strconv.Itoa(usage),
	} {
		if got := keys["Service/"+key]; !slices.Equal(got, []string{want}) {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	for _, key := range []string{"MemoryMax", "DevicePolicy", "IPAddressDeny", "PrivateNetwork", "PrivateUsers", "ProtectProc", "ProcSubset", "RestrictSUIDSGID"} {
		if v, ok := keys[key]; ok {
			t.Errorf("%s=%s keeps the server from its work, or meets processes of others", key, v)
		}
	}
	if got := socketUnit["ListenStream"]; !slices.Equal(got, []string{"/run/" + keys["RuntimeDirectory"][0] + "/9p.sock"}) {
		t.Errorf("the socket is %q", got)
	}
	if number(t, keys["WatchdogSec"][0]) < 10 || keys["ReloadSignal"] != nil {
		t.Errorf("WatchdogSec is %q, ReloadSignal %q", keys["WatchdogSec"], keys["ReloadSignal"])
	}
	command := strings.Fields(keys["ExecStart"][0])
	if !slices.Equal(command, []string{"/usr/bin/containerfs", "serve", "--config", "/etc/containerfs.toml"}) {
		t.Fatalf("ExecStart is %q", command)
	}

	m := startManager(t)
	s := startServerAs(t, func(c *exec.Cmd) {
		c.Env = append(os.Environ(), m.env(), "WATCHDOG_USEC=2000000")
	}, "--config", unitDir+"containerfs.toml")
	waitFor(t, "READY=1", func() bool { return len(m.told("READY=1")) == 1 })
	waitFor(t, "WATCHDOG=1, more than once", func() bool { return len(m.told("WATCHDOG=1")) > 2 })
	if n := len(m.told("READY=1")); n != 1 {
		t.Errorf("%d times READY=1", n)
	}

	for reload := 1; reload < 3; reload++ {
		before := monotonic()
		s.cmd.Process.Signal(syscall.SIGHUP)
		waitFor(t, "READY=1 after the reload", func() bool { return len(m.told("READY=1")) == reload+1 })
		told := m.told("RELOADING=1")
		if len(told) != reload {
			t.Fatalf("RELOADING=1: %q", told)
		}
		_, stamp, _ := strings.Cut(told[reload-1], "\nMONOTONIC_USEC=")
		if at, err := strconv.ParseInt(stamp, 10, 64); err != nil || at < before || at > monotonic() {
			t.Errorf("reload at %d until %d is told as %q", before, monotonic(), told[reload-1])
		}
	}
	s.stop()
	waitFor(t, "STOPPING=1", func() bool { return m.told("STOPPING=1") != nil })
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, pid := range m.pids {
		if int(pid) != s.cmd.Process.Pid {
			t.Errorf("%q was told by pid %d, which is not the main process", m.states[i], pid)
		}
	}

	// What a restart does not help.
	bad := filepath.Join(t.TempDir(), "bad.toml")
	writeFile(t, bad, "mirror = \"sometimes\"\n")
	out, err := exec.Command("containerfs", "serve", "--config", bad).CombinedOutput()
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != usage || !strings.Contains(string(out), "bad.toml:1: mirror") {
		t.Errorf("a bad config: %v\n%s", err, out)
	}
}

// TestCrash: a server that crashes, or that the watchdog aborts, ends by a signal. Go's
// own exit code for that is the one of usage errors, after which the unit has it stay down.
func TestCrash(t *testing.T) {
	s := startServerAs(t, func(c *exec.Cmd) { c.Dir = t.TempDir() }) // for a core
	s.cmd.Process.Signal(syscall.SIGABRT)
	<-s.done
	s.cmd.Wait()
	os.Remove(s.sock)
	if status := s.cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGABRT {
		t.Errorf("it ended with %v", s.cmd.ProcessState)
	}
}

// TestServiceCapabilities: with the capabilities that its unit leaves it, the server
// can do all that it can do with all of them.
func TestServiceCapabilities(t *testing.T) {
	setpriv, err := exec.LookPath("setpriv") // of util-linux, as mount is
	if err != nil {
		t.Fatal(err)
	}
	set := "-all"
	for _, line := range unit(t, "containerfs.service")["CapabilityBoundingSet"] {
		for c := range strings.FieldsSeq(line) {
			set += ",+" + strings.ToLower(strings.TrimPrefix(c, "CAP_"))
		}
	}
	facts := func(s *server) (list []string) {
		for line := range strings.Lines(s.run("read", "/ctl")) {
			if fact, ok := strings.CutPrefix(line, "# "); ok {
				// The name of a mirror has the server's pid in it.
				list = append(list, strings.Split(fact, ", containerfs-")[0])
			}
		}
		for line := range strings.Lines(s.log.String()) {
			if strings.Contains(line, "msg=counting") || strings.Contains(line, "level=WARN") && !strings.Contains(line, "listener") {
				_, what, _ := strings.Cut(line, "level=")
				list = append(list, what)
			}
		}
		return list
	}
	want := facts(startServer(t))
	s := startServerAs(t, func(c *exec.Cmd) {
		c.Args = append([]string{"setpriv", "--bounding-set", set, "--no-new-privs", c.Path}, c.Args[1:]...)
		c.Path = setpriv
	})
	if got := facts(s); !slices.Equal(got, want) {
		t.Errorf("with %s:\n%q\nwith all:\n%q", set, got, want)
	}
	p := startSpawnerAs(t, stranger) // of root's, less is needed
	s.run("mkdir", "/all/c")
	s.run("write", "/all/c/cpuset.cpus", "0")
	s.run("write", "/all/c/cpuset.mems", "0")
	s.run("write", "/all/c/tasks", strconv.Itoa(p.pid()))
	if got := s.tasks("/all/c"); !slices.Equal(got, []int{p.pid()}) {
		t.Errorf("tasks: %v", got)
	}
	var cpus unix.CPUSet
	if err := unix.SchedGetaffinity(p.pid(), &cpus); err != nil || cpus.Count() != 1 {
		t.Errorf("it may run on %d CPUs, %v", cpus.Count(), err)
	}
	child := fmt.Sprintf(" tgid=%d ", p.fork())
	for line := range strings.Lines(s.run("read", "/events")) {
		if strings.Contains(line, " fork ") && strings.Contains(line, child) && !strings.Contains(line, " exe=/") {
			t.Errorf("the program of another user's process is not known: %s", line)
		}
	}
	s.run("write", "/all/c/kill", "1")
	waitFor(t, "the process to be killed", func() bool { return len(s.tasks("/all/c")) == 0 })
	s.run("rmdir", "/all/c")
}

// TestUnitVerified: systemd, where it is, knows the keys of the units.
func TestUnitVerified(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Log("no systemd-analyze here: TestServiceUnit and TestInstall have looked at the keys")
		return
	}
	version, err := exec.Command(analyze, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(version))
	old := len(fields) > 1 && number(t, fields[1]) < 254
	// It looks for the program that is started.
	dir := t.TempDir()
	for _, name := range []string{"containerfs.service", "containerfs.socket"} {
		text, err := os.ReadFile(unitDir + name)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, name), strings.ReplaceAll(string(text), "/usr/bin/containerfs", commandPath()))
	}
	out, err := exec.Command(analyze, "verify", "--man=no", dir+"/containerfs.service", dir+"/containerfs.socket").CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if old && (strings.Contains(line, "Failed to parse service type, ignoring: notify-reload") ||
			strings.Contains(line, "Unknown key 'DelegateSubgroup'")) {
			continue
		}
		if strings.Contains(line, "containerfs") {
			t.Errorf("systemd-analyze: %s", line)
		}
	}
	if err != nil {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// inherit makes a listening socket to be passed.
func inherit(t testing.TB, l net.Listener, err error) *os.File {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	f, err := l.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	t.Cleanup(func() { f.Close() })
	return f
}

// TestSocketActivation: the sockets of a service manager are served on the terms that
// belong to their names, and are there before the server and after it.
func TestSocketActivation(t *testing.T) {
	dir := openDir(t)
	path := dir + "/9p.sock"
	u, err := net.Listen("unix", path)
	unixSocket := inherit(t, u, err)
	os.Chmod(path, 0o666)
	l1, err := net.Listen("tcp", "127.0.0.1:0")
	first := inherit(t, l1, err)
	l2, err := net.Listen("tcp", "127.0.0.2:0")
	second := inherit(t, l2, err)
	l3, err := net.Listen("tcp", "127.0.0.3:0")
	unused := inherit(t, l3, err)
	vsockSocket, vsockPort := listenVsock(t)

	// Who is early waits.
	early, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer early.Close()
	names := []string{"containerfs.socket", "net", "net", "other", "guests"}
	as := pass(names, []*os.File{unixSocket, first, second, unused, vsockSocket})
	start := func() *server {
		return startServerAs(t, as, "--listen", "systemd:containerfs.socket", "--listen", "systemd:net?as=daemon&access=ro",
			"--listen", "systemd:guests?cid.3.as=daemon")
	}
	s := start()
	if _, err := attach(early, ""); err != nil {
		t.Errorf("who came before the server: %v", err)
	}
	for _, at := range []string{"unix://" + path, "tcp://" + l1.Addr().String(), "tcp://" + l2.Addr().String(), "vsock://*:" + vsockPort} {
		if !strings.Contains(s.log.String(), "listening on "+at+"\n") {
			t.Errorf("not listening on %s", at)
		}
	}
	if !strings.Contains(s.log.String(), `is not listened on" name=other at=tcp://`+l3.Addr().String()) {
		t.Errorf("nothing is said of a socket that is not listened on:\n%s", s.log.String())
	}
	for _, tt := range []struct {
		uid  uint32
		addr string
		code int
	}{
		{0, "unix://" + path, ok},
		{stranger, "unix://" + path, notPermitted},
		{0, "tcp://" + l1.Addr().String(), notPermitted},
		{0, "tcp://" + l2.Addr().String(), notPermitted},
	} {
		if code, out := commandAs(t, tt.uid, tt.addr, "mkdir", fmt.Sprintf("/all/%d", tt.uid)); code != tt.code {
			t.Errorf("uid %d at %s: exit code %d, want %d\n%s", tt.uid, tt.addr, code, tt.code, out)
		}
	}
	s.run("rmdir", "/all/0")
	s.stop()

	// While it restarts, a client waits.
	between, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the socket is gone with the server: %v", err)
	}
	defer between.Close()
	start()
	if _, err := attach(between, ""); err != nil {
		t.Errorf("who came between two servers: %v", err)
	}
}

// listenVsock makes a vsock socket to be passed.
func listenVsock(t testing.TB) (f *os.File, port string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: unix.VMADDR_PORT_ANY})
	}
	if err == nil {
		err = unix.Listen(fd, 5)
	}
	if err != nil {
		t.Fatalf("vsock: %v", err)
	}
	a, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	f = os.NewFile(uintptr(fd), "vsock")
	t.Cleanup(func() { f.Close() })
	return f, strconv.FormatUint(uint64(a.(*unix.SockaddrVM).Port), 10)
}

// TestActivatedVsock: a vsock socket that was passed lets in the CIDs of its listener.
func TestActivatedVsock(t *testing.T) {
	if !inside {
		runInside(t, "^TestActivatedVsock$")
		return
	}
	f, port := listenVsock(t)
	s := startServerAs(t, pass([]string{"guests"}, []*os.File{f}), "--listen", "systemd:guests?cid.1.as=user&cid.1.attach=/all/vm")
	s.run("mkdir", "/all/vm")
	s.client("").setAttr("/all/vm", 1000, 0o755)
	for path, want := range map[string]int{"/mine": ok, "/all/mine": notFound} {
		c := exec.Command("containerfs", "--server", "vsock://1:"+port, "mkdir", path)
		if out, err := c.CombinedOutput(); c.ProcessState.ExitCode() != want {
			t.Errorf("mkdir %s: %v, want %d\n%s", path, err, want, out)
		}
	}
}

// TestNoSocketPassed: a listener on a socket that there is not is a usage error.
func TestNoSocketPassed(t *testing.T) {
	l, err := net.Listen("tcp", "0.0.0.0:0")
	open := inherit(t, l, err)
	for _, tt := range []struct {
		names []string
		args  []string
		code  int
		says  string
	}{
		{nil, []string{"--listen", "systemd:x"}, usage, `no socket "x", nor any other`},
		{[]string{"y"}, []string{"--listen", "systemd:x"}, usage, `no socket "x", but ["y"]`},
		{[]string{"y"}, []string{"--listen", "systemd:y?as=daemon", "--listen", "systemd:y?trust=uname"}, usage, `"y" of the service manager is given twice`},
		{[]string{"y"}, []string{"--listen", "systemd:y?as=daemon&nosuch=1"}, usage, `unknown option`},
		{[]string{"y"}, []string{"--listen", "systemd:y"}, usage, "not a loopback address"},
		{[]string{"y"}, nil, usage, "not a loopback address"}, // what is passed is the default
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // one that serves does not end
		defer cancel()
		c := exec.CommandContext(ctx, commandPath(), append([]string{"serve"}, tt.args...)...)
		if tt.names != nil {
			pass(tt.names, []*os.File{open})(c)
		}
		out, err := c.CombinedOutput()
		if c.ProcessState == nil || c.ProcessState.ExitCode() != tt.code || !strings.Contains(string(out), tt.says) {
			t.Errorf("%q with %q: %v\n%s", tt.args, tt.names, err, out)
		}
	}
}
