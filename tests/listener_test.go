package tests

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"9fans.net/go/plan9"
	plan9client "9fans.net/go/plan9/client"
	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"containerfs/p9srv"
	"containerfs/p9srv/p9test"
)

// at is the address of the server's listener on a host: one that says
// `listening on` it.
func (s *server) at(host string) string {
	s.t.Helper()
	for line := range strings.Lines(s.log.String()) {
		if at, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on "); ok && strings.Contains(at, "://"+host+":") {
			return at
		}
	}
	s.t.Fatalf("no listener on %s:\n%s", host, s.log.String())
	return ""
}

// commandAs runs a client command as a user, over an address.
func commandAs(t testing.TB, uid uint32, addr string, args ...string) (code int, output string) {
	t.Helper()
	path, err := exec.LookPath("containerfs")
	if err != nil {
		t.Fatal(err)
	}
	os.Chmod(filepath.Dir(path), 0o755) // others must reach it
	c := exec.Command(path, append([]string{"--server", addr}, args...)...)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	c.Dir = "/"
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err = c.Run()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		t.Fatal(err)
	}
	return c.ProcessState.ExitCode(), out.String()
}

// Exit codes of commands.
const (
	ok            = 0
	usage         = 2
	notFound      = 3
	notPermitted  = 4
	stranger      = 4321
	otherStranger = 4322
)

// setAttr changes a file's owner and mode.
func (c *client) setAttr(path string, uid int, mode p9.FileMode) {
	c.t.Helper()
	f, err := c.walk(path)
	if err == nil {
		err = f.SetAttr(p9.SetAttrMask{UID: true, Permissions: true}, p9.SetAttr{UID: p9.UID(uid), Permissions: mode})
		f.Close()
	}
	if err != nil {
		c.t.Fatalf("setattr %s: %v", path, err)
	}
}

// TestNetworkRules: what SPEC §17 asks of who moves a task, over sockets.
func TestNetworkRules(t *testing.T) {
	s := startServer(t, "--listen", "tcp://127.0.0.2:0")
	local, squashed, trusted := "unix://"+s.sock, s.at("127.0.0.2"), "tcp://127.0.0.1:"+s.port
	os.Chmod(filepath.Dir(s.sock), 0o755)
	c := s.client("")
	for _, name := range []string{"/all/a", "/all/b"} {
		s.run("mkdir", name)
		s.run("write", name+"/cpuset.cpus", "0")
		s.run("write", name+"/cpuset.mems", "0")
		c.setAttr(name+"/tasks", stranger, 0o644)
		c.setAttr(name+"/procs", stranger, 0o644)
	}
	pid := fmt.Sprint(startSpawnerAs(t, stranger).pid())
	others := fmt.Sprint(startSpawnerAs(t, otherStranger).pid())
	server := fmt.Sprint(s.cmd.Process.Pid)
	for _, tt := range []struct {
		what string
		uid  uint32
		addr string
		args []string
		want int
	}{
		{"from where he may not write, over the network", stranger, squashed, []string{"write", "/all/a/tasks", pid}, notPermitted},
		{"the same of a process", stranger, squashed, []string{"write", "/all/a/procs", pid}, notPermitted},
		{"the same locally", stranger, local, []string{"write", "/all/a/tasks", pid}, ok},
		{"from where he may write, over the network", stranger, squashed, []string{"write", "/all/b/tasks", pid}, ok},
		{"another's task", stranger, local, []string{"write", "/all/a/tasks", others}, notPermitted},
		{"another's task, over the network", stranger, squashed, []string{"write", "/all/a/tasks", others}, notPermitted},
		{"to where he may not write", otherStranger, local, []string{"write", "/all/a/tasks", others}, notPermitted},
		{"root, over the network", 0, squashed, []string{"write", "/all/a/tasks", pid}, notPermitted},
		{"root makes a container over the network", 0, squashed, []string{"mkdir", "/all/c"}, notPermitted},
		{"root that is let in, over the network", 0, trusted, []string{"write", "/all/a/tasks", pid}, ok},
		{"protected, by root over the network", 0, trusted, []string{"write", "/all/a/procs", server}, notPermitted},
		{"pid 1, by root over the network", 0, trusted, []string{"write", "/all/a/tasks", "1"}, notPermitted},
		{"an agent, by root over the network", 0, trusted, []string{"write", "/all/release_agent", "/bin/true"}, notPermitted},
		{"protected, by who is not root", stranger, local, []string{"write", "/all/a/procs", server}, notPermitted},
		{"protected, by root here", 0, local, []string{"write", "/all/a/procs", server}, ok},
		{"and back", 0, local, []string{"write", "/all/procs", server}, ok},
		{"mount, by who is not root", stranger, local, []string{"write", "/ctl", "umount all"}, notPermitted},
		{"mount, by root over the network", 0, squashed, []string{"write", "/ctl", "umount all"}, notPermitted},
	} {
		if code, output := commandAs(t, tt.uid, tt.addr, tt.args...); code != tt.want {
			t.Errorf("%s: exit code %d, want %d\n%s", tt.what, code, tt.want, output)
		}
	}
	// Each has left its line.
	log := s.log.String()
	for _, line := range []string{
		fmt.Sprintf(`level=WARN msg=denied op=write path=/all/a/tasks uid=%d peer="tcp 127.0.0.1:`, stranger),
		fmt.Sprintf(`level=INFO msg=change op=write path=/all/a/tasks uid=%d peer="unix uid %d" data="%s\n"`, stranger, stranger, pid),
		`level=WARN msg=denied op=mkdir path=/all/c uid=65534 peer="tcp 127.0.0.1:`,
		`level=WARN msg=denied op=write path=/all/a/procs uid=0 peer="tcp 127.0.0.1:`,
		`: init, the server and its ancestors are moved by root and the server's user alone, on a unix socket: permission denied"`,
	} {
		if !strings.Contains(log, line) {
			t.Errorf("no line with %s", line)
		}
	}
}

// TestReadOnlyListener: root can read all on it and change nothing.
func TestReadOnlyListener(t *testing.T) {
	s := startServer(t, "--listen", "tcp://127.0.0.2:0?access=ro&no_root_squash")
	ro := s.at("127.0.0.2")
	s.run("mkdir", "/all/a")
	before := s.run("ls", "/all", "/all/a") + s.run("read", "/ctl", "/all/a/notify_on_release")
	pid := fmt.Sprint(startSpawner(t).pid())
	for _, args := range [][]string{
		{"mkdir", "/all/b"}, {"rmdir", "/all/a"}, {"mv", "/all/a", "/all/b"}, {"write", "/all/a/tasks", pid}, {"write", "/all/a/procs", pid},
		{"write", "/all/a/notify_on_release", "1"}, {"write", "/all/a/kill", "1"}, {"write", "/ctl", "mount x debug"}, {"write", "/ctl", "umount all"},
	} {
		if code, output := commandAs(t, 0, ro, args...); code != notPermitted || !strings.Contains(output, "read-only file system") {
			t.Errorf("%v: exit code %d\n%s", args, code, output)
		}
	}
	for _, args := range [][]string{{"ls", "/"}, {"ls", "/all/a"}, {"read", "/all/tasks"}, {"read", "/ctl"}, {"stat", "/all/a"}} {
		if code, output := commandAs(t, 0, ro, args...); code != ok {
			t.Errorf("%v: exit code %d\n%s", args, code, output)
		}
	}
	tryClassic(t, ro)
	if after := s.run("ls", "/all", "/all/a") + s.run("read", "/ctl", "/all/a/notify_on_release"); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
	// By attach name, too.
	for aname, want := range map[string]error{"all": nil, "debug+name=x": linux.ENOENT} {
		conn := dialAddr(t, ro)
		_, err := attach(conn, aname)
		if conn.Close(); (err == nil) != (want == nil) {
			t.Errorf("attach %q: %v", aname, err)
		}
	}
	if ctl := s.run("read", "/ctl"); strings.Contains(ctl, "x ") && strings.Contains(ctl, "\nx ") {
		t.Errorf("something was mounted:\n%s", ctl)
	}
}

// tryClassic changes what it can on a read-only listener by plain 9P2000.
func tryClassic(t testing.TB, addr string) {
	t.Helper()
	conn, err := plan9client.NewConn(dialAddr(t, addr))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	all, err := conn.Attach(nil, "", "all")
	if err != nil {
		t.Fatal(err)
	}
	open := func(name string, mode uint8) error { _, err := all.Open(name, mode); return err }
	wstat := func(set func(*plan9.Dir)) error {
		var d plan9.Dir
		d.Null()
		set(&d)
		return all.Wstat("a", &d)
	}
	for what, err := range map[string]error{
		"Topen to write":             open("a/tasks", plan9.OWRITE),
		"Topen to truncate":          open("a/tasks", plan9.OREAD|plan9.OTRUNC),
		"Topen to write and to read": open("a/notify_on_release", plan9.ORDWR),
		"Twstat of the name":         wstat(func(d *plan9.Dir) { d.Name = "b" }),
		"Twstat of the mode":         wstat(func(d *plan9.Dir) { d.Mode = plan9.DMDIR | 0o700 }),
		"Tremove":                    all.Remove("a"),
		"Tcreate": func() error {
			_, err := all.Create("b", plan9.OREAD, plan9.DMDIR|0o755)
			return err
		}(),
	} {
		if err == nil || !strings.Contains(strings.ToLower(err.Error()), "read-only") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := open("a/tasks", plan9.OREAD); err != nil {
		t.Error(err)
	}
}

// dialAddr connects to a tcp:// address.
func dialAddr(t testing.TB, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(addr, "tcp://"))
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// TestConfinedListener: what is outside cannot be named.
func TestConfinedListener(t *testing.T) {
	s := startServer(t, "--listen", "tcp://127.0.0.2:0?attach=/all/vm&no_root_squash", "--listen", "tcp://127.0.0.3:0?attach=proc&no_root_squash")
	in := s.at("127.0.0.2")
	s.run("mkdir", "/all/vm", "/all/vm/sub", "/all/other")
	for _, tt := range []struct {
		args []string
		want int
	}{
		{[]string{"ls", "/"}, ok}, {[]string{"read", "/tasks"}, ok}, {[]string{"mkdir", "/mine"}, ok}, {[]string{"rmdir", "/mine"}, ok},
		{[]string{"read", "/ctl"}, notFound}, {[]string{"read", "/containers"}, notFound}, {[]string{"read", "/events"}, notFound},
		{[]string{"ls", "/proc"}, notFound}, {[]string{"read", "/proc/1/container"}, notFound}, {[]string{"ls", "/all"}, notFound},
		{[]string{"ls", "/../other"}, notFound}, {[]string{"ls", "/sub/../../other"}, notFound},
		{[]string{"write", "/../ctl", "umount all"}, notFound}, {[]string{"read", "/../../proc/1/container"}, notFound},
	} {
		if code, output := commandAs(t, 0, in, tt.args...); code != tt.want {
			t.Errorf("%v: exit code %d, want %d\n%s", tt.args, code, tt.want, output)
		}
	}
	for aname, want := range map[string]bool{
		"": true, "/": true, "sub": true, "/sub/": true, "..": true, "all": false, "/all": false, "all/vm": false, "all/other": false,
		"../other": false, "debug": false, "cpuset+debug": false, "name=x+debug": false, "proc": false, "ctl": false, "/proc/1": false,
	} {
		conn := dialAddr(t, in)
		root, err := attach(conn, aname)
		if (err == nil) != want {
			t.Errorf("attach %q: %v", aname, err)
		}
		if err == nil {
			c := &client{t, root}
			if names, err := c.names("/.."); err != nil || slices.Contains(names, "other") || slices.Contains(names, "proc") {
				t.Errorf("attach %q shows %v, %v", aname, names, err)
			}
		}
		conn.Close()
	}
	if code, output := commandAs(t, 0, s.at("127.0.0.3"), "ls", "/"); code == ok {
		t.Errorf("proc was exported:\n%s", output)
	}
}

// TestRefusedListeners: a server that would let strangers in, or nobody, does not
// start, and says why.
func TestRefusedListeners(t *testing.T) {
	for _, tt := range []struct {
		listener, want string
		code           int
	}{
		{"tcp://0.0.0.0:0", "peers from elsewhere have no identity", usage},
		{"tcp://[::]:0?allow=10.0.0.0/8&access=ro", "peers from elsewhere have no identity", usage},
		{"tcp://127.0.0.1:0?as=no-such-user", "no-such-user", usage},
		{"tls://0.0.0.0:0?cert=/nonexistent&key=/nonexistent&ca=/nonexistent", "/nonexistent", usage},
		{"tls://0.0.0.0:0", "cert=, key= and ca=", usage},
		{"vsock://:1", "CIDs", usage},
		{"tcp://127.0.0.1:0?frob", "frob", usage},
		{"tcp://127.0.0.1:0?as=daemon&trust=uname", "exclude each other", usage},
	} {
		c := exec.Command("containerfs", "serve", "--listen", tt.listener)
		out, err := c.CombinedOutput()
		if err == nil || c.ProcessState.ExitCode() != tt.code || !strings.Contains(string(out), tt.want) || strings.Contains(string(out), "ready") {
			t.Errorf("%s: %v, want exit code %d and %q\n%s", tt.listener, err, tt.code, tt.want, out)
		}
	}
}

// TestConfinedToNothing: a listener for a container that there is not is warned of, one
// for a container that there is is not.
func TestConfinedToNothing(t *testing.T) {
	s := startServer(t, "--hierarchy", "m=debug", "--listen", "tcp://127.0.0.2:0?attach=/nope", "--listen", "tcp://127.0.0.3:0?attach=/m/no", "--listen", "tcp://127.0.0.4:0?attach=/m")
	for attach, want := range map[string]bool{"nope": true, "m/no": true, "m": false} {
		said := strings.Contains(s.log.String(), `level=WARN msg="listener: attach=`+attach+`"`)
		if said != want {
			t.Errorf("attach=%s: warned of: %v, want %v:\n%s", attach, said, want, s.log.String())
		}
	}
}

// TestOwnSocket: a user's own server is where the user's commands look for it; without a
// place for it that is said.
func TestOwnSocket(t *testing.T) {
	needHost(t)
	own := openDir(t)
	if err := os.Chown(own, stranger, stranger); err != nil {
		t.Fatal(err)
	}
	os.Chmod(filepath.Dir(commandPath()), 0o755) // others must reach it
	command := func(runtime string, args ...string) *exec.Cmd {
		c := exec.Command(commandPath(), args...)
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: stranger, Gid: stranger}, Pdeathsig: syscall.SIGTERM}
		c.Dir, c.Env = "/", []string{"XDG_RUNTIME_DIR=" + runtime}
		return c
	}
	out, err := command("", "serve", "--state", "none").CombinedOutput()
	if _, there := os.Stat("/run/containerfs"); there == nil {
		t.Log("the host has a server, whose directory is in the way")
	} else if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 1 || !strings.HasSuffix(string(out), "permission denied; say where by --listen, or set XDG_RUNTIME_DIR\n") {
		t.Errorf("without XDG_RUNTIME_DIR: %v\n%s", err, out)
	}
	serve := command(own, "serve", "--state", "none")
	var log lockedBuffer
	serve.Stderr = &log
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		serve.Process.Signal(syscall.SIGTERM)
		serve.Wait()
	}()
	waitFor(t, "the server to be ready", func() bool { return strings.Contains(log.String(), "\nready\n") })
	if out, err := command(own, "ls", "/").CombinedOutput(); err != nil || !strings.Contains(string(out), "\nall\n") {
		t.Errorf("a command of the same user: %v\n%s", err, out)
	}

	// What its host does not allow it is told in many words, which are no hierarchies.
	if out, err := command(own, "mounts").CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "all\t") || strings.Count(string(out), "\n") != 1 {
		t.Errorf("its hierarchies: %v\n%s", err, out)
	}

	// Whoever asks, it is the server's user and environment that say where that is.
	sock := filepath.Join(own, "containerfs", "9p.sock")
	doctor := command(own, "--server", "unix://"+sock, "doctor")
	doctor.SysProcAttr.Credential = nil
	out, _ = doctor.Output()
	for _, want := range []string{"ok       listener: unix://" + sock + "\n", "ok       socket: " + sock + ", in a directory with the mode 0711\n"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("doctor as root: no %q in\n%s", want, out)
		}
	}
	doctor = command("/nosuch", "--server", "unix://"+sock, "doctor")
	doctor.SysProcAttr.Credential = &syscall.Credential{Uid: stranger + 1, Gid: stranger + 1}
	if out, _ := doctor.Output(); !strings.Contains(string(out), "warning  listener: what the service manager has passed is not known: ") || strings.Contains(string(out), "9p.sock: no such file") {
		t.Errorf("doctor as another user:\n%s", out)
	}
}

// TestNotLetIn: a command says what can be why a listener hangs up on it, or does not show it
// what it asks for.
func TestNotLetIn(t *testing.T) {
	ca := p9test.NewAuthority(t)
	files := func(f p9srv.TLS) string { return "?cert=" + f.Cert + "&key=" + f.Key + "&ca=" + f.CA }
	s := startServer(t, "--listen", "tcp://127.0.0.2:0?allow=127.0.0.9", "--listen", "tcp://127.0.0.3:0?attach=/all/vm",
		"--listen", "tls://127.0.0.5:0"+files(ca.Server()), "--listen", "tls://127.0.0.4:0"+files(ca.Server())+"&allow=127.0.0.9")
	plain := func(host string) string {
		at, _, _ := strings.Cut(s.at(host), "?")
		return at[len("tcp://"):]
	}
	user := files(ca.Client("containerfs:user:nobody"))
	stranger := p9test.NewAuthority(t).Client("containerfs:user:nobody")
	stranger.CA = ca.Client("containerfs:user:nobody").CA
	const hangs = " unavailable: it hangs up: its listener does not let this host in (allow=), has too many connections, or "
	expect := func(addr string, code int, says string, args ...string) {
		t.Helper()
		got, output := commandAs(t, 0, addr, args...)
		if got != code || !strings.HasPrefix(output, "containerfs: ") || !strings.HasSuffix(output, says+"\n") {
			t.Errorf("%v at %s: exit code %d, want %d; it says %q, not %q", args, addr, got, code, output, says)
		}
	}
	for _, at := range []string{"tcp://" + plain("127.0.0.2"), "tcp://" + plain("127.0.0.5")} {
		expect(at, 75, at+hangs+"wants tls://", "ls")
	}
	for _, at := range []string{"tls://" + plain("127.0.0.3") + user, "tls://" + plain("127.0.0.4") + user} {
		expect(at, 75, hangs+"is not one of tls://", "ls")
	}
	// Of a certificate that it does not take it says so, and hangs up as well: what is known first.
	if code, output := commandAs(t, 0, "tls://"+plain("127.0.0.5")+files(stranger)+"&name=127.0.0.1", "ls"); code != 75 || strings.Contains(output, "it hangs up") {
		t.Errorf("by a certificate of another authority: exit code %d: %s", code, output)
	}

	at := s.at("127.0.0.3")
	expect(at, notFound, "attach "+at+": what its listener is confined to by attach= is not there: no such file or directory", "ls")
	s.run("mkdir", "/all/vm")
	expect(at, notFound, "read /ctl: its listener shows one hierarchy or container only (attach=), which has none: no such file or directory", "mounts")
	expect(at, notFound, "watch /: its listener shows one hierarchy or container only (attach=), which has no log here: no such file or directory", "watch", "-n", "1")
	s.run("mkdir", "/all/vm/in")
	expect(at, notFound, "watch /in: its listener shows one hierarchy or container only (attach=), which has no log here: no such file or directory", "watch", "-n", "1", "/in")
	expect(at, notFound, "watch /nosuch: no such file or directory", "watch", "-n", "1", "/nosuch")
}

// TestConfigFile starts a server from a file.
func TestConfigFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.toml")
	writeFile(t, path, "hierarchy = [\"m=debug\"]\n[[listen]]\naddr = \"tcp://127.0.0.2:0\"\nas = \"daemon\"\nattach = \"/m/d\"\n")
	s := startServer(t, "--config", path)
	s.run("mkdir", "/m/d")
	c := s.client("")
	c.setAttr("/m/d", 1, 0o755)
	for _, uid := range []uint32{0, stranger} {
		if code, output := commandAs(t, uid, s.at("127.0.0.2"), "mkdir", fmt.Sprintf("/by%d", uid)); code != ok {
			t.Errorf("uid %d: exit code %d\n%s", uid, code, output)
		}
		if got := strings.Fields(s.run("stat", fmt.Sprintf("/m/d/by%d", uid))); !slices.Contains(got, "1") && !strings.Contains(strings.Join(got, " "), "uid=1") {
			t.Errorf("uid %d made %v", uid, got)
		}
	}
	if log := s.log.String(); !strings.Contains(log, `msg=listener at=tcp://127.0.0.2:`) || !strings.Contains(log, `lets_in="peers from everywhere as daemon, to read and write, in /m/d"`) {
		t.Errorf("no line says what is let in:\n%s", log)
	}
}

// TestStrangersOfNamespace: where the users of the host have no numbers in the server's user
// namespace, all are shown by one, which can be the server's own: none of them is let in.
func TestStrangersOfNamespace(t *testing.T) {
	s := startServerAs(t, func(cmd *exec.Cmd) {
		// The namespace has no privileges for what is root's.
		if err := os.Chmod(filepath.Dir(strings.TrimPrefix(cmd.Args[3], "unix://")), 0o777); err != nil {
			t.Fatal(err)
		}
		path, err := exec.LookPath("unshare")
		if err != nil {
			t.Fatal(err)
		}
		cmd.Args = append([]string{path, "--user", cmd.Path}, cmd.Args[1:]...)
		cmd.Path = path
	}, "--state", "none")
	for _, server := range []string{"unix://" + s.sock, "tcp://127.0.0.1:" + s.port} {
		out, err := exec.Command("containerfs", "--server", server, "ls", "/").CombinedOutput()
		if err == nil || !strings.Contains(string(out), "permission denied") {
			t.Errorf("%s: %v\n%s", server, err, out)
		}
	}
	waitFor(t, "the log to say why", func() bool { return strings.Contains(s.log.String(), "all users who have none") })
}
