package tests

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// debian is a directory with what a script of this package makes of Debian's packages. A test
// that needs it is skipped where these cannot be had.
func debian(t *testing.T, script string) (dir string) {
	t.Helper()
	lacking(t, "guest", "")
	out, err := exec.Command("./" + script).Output()
	if err != nil {
		if exit, ok := err.(*exec.ExitError); ok {
			if exit.ExitCode() == 3 {
				t.Skipf("no %s of Debian from apt's sources:\n%s", script, exit.Stderr)
			}
			err = fmt.Errorf("%w\n%s", err, exit.Stderr)
		}
		t.Fatalf("no %s for the guest: %v", script, err)
	}
	return strings.TrimSpace(string(out))
}

// filesOf are the options that put what is in some roots into a guest's.
func filesOf(roots ...string) (options []string) {
	for _, from := range roots {
		for _, name := range []string{"/usr", "/etc", "/lib64"} {
			if _, err := os.Stat(from + name); err == nil {
				options = append(options, "--file", from+name+":"+name)
			}
		}
	}
	return options
}

// runUnderSystemd runs tests of this package in a guest that has booted systemd, with
// what `make install` installs.
func runUnderSystemd(t *testing.T, run string) {
	t.Helper()
	root := debian(t, "systemd")
	dir, err := static()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("CGO_ENABLED", "0") // the guest has no libraries but systemd's
	installed := install(t, "PREFIX=/usr")
	options := append(filesOf(root, installed), "--smp", "2", "--mem", "768")
	g := startGuest(t, map[string]string{"/root/bin/tests": dir + "/tests"}, `
		export CONTAINERFS_TEST_INSIDE=1
		chmod 755 /root
		mkdir /root/tests
		cd /root/tests
		exec ../bin/tests -test.v -test.timeout 2h -test.run '`+run+`' 2>&1
	`, options...)
	g.ranTests()
}

const (
	containerfsUnit = "containerfs.service"
	socketUnitsDir  = "/etc/systemd/system/"
	configOfUnit    = "/etc/containerfs.toml"
)

// TestSystemd has systemd itself run the units that are installed, with all that they
// take away from the server.
func TestSystemd(t *testing.T) {
	if !inside {
		runUnderSystemd(t, "^TestSystemd$")
		return
	}
	u := &installedUnit{server: &server{t: t, sock: "/run/containerfs/9p.sock"}, t: t}
	if got := u.systemctl("show", "-P", "Version"); !strings.Contains(got, ".") {
		t.Fatalf("systemd is %q", got)
	}
	for _, test := range []struct {
		name string
		run  func(*installedUnit)
	}{
		{"a client starts it", (*installedUnit).starts},
		{"active when ready", (*installedUnit).becomesReady},
		{"passed sockets", (*installedUnit).listens},
		{"what the sandbox leaves", (*installedUnit).works},
		{"placement", (*installedUnit).places},
		{"reload", (*installedUnit).reloads},
		{"stopped and started", (*installedUnit).stopsAndStarts},
		{"killed", (*installedUnit).isKilled},
		{"watchdog", (*installedUnit).hangs},
		{"the kernel's controllers", (*installedUnit).controls},
	} {
		if !t.Run(test.name, func(t *testing.T) {
			u.t, u.server.t = t, t
			test.run(u)
		}) {
			u.t, u.server.t = t, t
			t.Errorf("the unit's journal:\n%s", u.journal())
		}
	}
}

// installedUnit is the server as systemd runs it.
type installedUnit struct {
	*server
	t *testing.T
}

func (u *installedUnit) systemctl(args ...string) string {
	u.t.Helper()
	out, err := exec.Command("systemctl", args...).CombinedOutput()
	if err != nil {
		u.t.Fatalf("systemctl %q: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (u *installedUnit) is(name string) string { return propertyOf(u.t, containerfsUnit, name) }

func propertyOf(t testing.TB, unit, name string) string {
	t.Helper()
	out, err := exec.Command("systemctl", "show", "-P", name, unit).CombinedOutput()
	if err != nil {
		t.Fatalf("systemctl show -P %s %s: %v\n%s", name, unit, err, out)
	}
	return strings.TrimSpace(string(out))
}

// journal is what the unit has said, and systemd of it.
func (u *installedUnit) journal() string {
	u.t.Helper()
	if out, err := exec.Command("journalctl", "--sync").CombinedOutput(); err != nil {
		u.t.Fatalf("journalctl --sync: %v\n%s", err, out)
	}
	out, err := exec.Command("journalctl", "--no-pager", "-o", "cat", "-u", containerfsUnit).Output()
	if err != nil {
		u.t.Fatalf("journalctl: %v", err)
	}
	return string(out)
}

// configure writes the config file, and settings of the unit besides.
func (u *installedUnit) configure(config string, settings ...string) {
	u.t.Helper()
	writeFile(u.t, configOfUnit, config)
	if err := os.MkdirAll(socketUnitsDir+containerfsUnit+".d", 0o755); err != nil {
		u.t.Fatal(err)
	}
	// What the filter of system calls refuses must not go unnoticed.
	settings = append([]string{"[Service]", "SystemCallErrorNumber=kill"}, settings...)
	writeFile(u.t, socketUnitsDir+containerfsUnit+".d/test.conf", strings.Join(settings, "\n")+"\n")
	u.systemctl("daemon-reload")
}

// placeOf is where a process is: in systemd's tree, and in the mirror.
func placeOf(t testing.TB, pid int) (unit, mirror string) {
	t.Helper()
	unit = cgroupOf(t, pid, func(list string) bool { return list == "" })
	mirror = cgroupOf(t, pid, func(list string) bool { return strings.HasPrefix(list, "name=containerfs-") })
	return unit, mirror
}

// startJob has systemd run a process.
func (u *installedUnit) startJob(name string) (pid int) {
	u.t.Helper()
	out, err := exec.Command("systemd-run", "--quiet", "--unit", name, "/bin/sleep", "1000").CombinedOutput()
	if err != nil {
		u.t.Fatalf("systemd-run: %v\n%s", err, out)
	}
	u.t.Cleanup(func() { exec.Command("systemctl", "kill", "--signal=KILL", name).Run() })
	return number(u.t, propertyOf(u.t, name, "MainPID"))
}

// makeContainer makes one that processes can be moved to.
func (u *installedUnit) makeContainer(path string) {
	u.t.Helper()
	u.run("mkdir", path)
	u.run("write", path+"/cpuset.cpus", "0-1")
	u.run("write", path+"/cpuset.mems", "0")
}

// starts: a client starts the server, which is enabled as README says.
func (u *installedUnit) starts() {
	t := u.t
	writeFile(t, socketUnitsDir+"containerfs-net.socket", `[Socket]
ListenStream=127.0.0.1:5640
FileDescriptorName=net
Service=containerfs.service
`)
	writeFile(t, socketUnitsDir+"containerfs-vm.socket", `[Socket]
ListenStream=vsock::5641
FileDescriptorName=vm
Service=containerfs.service
`)
	u.configure(unitConfig)
	u.systemctl("enable", containerfsUnit, "containerfs.socket")
	u.systemctl("start", "containerfs.socket", "containerfs-net.socket", "containerfs-vm.socket")
	if got := u.is("ActiveState"); got != "inactive" {
		t.Fatalf("before any client the service is %s", got)
	}
	if got := u.run("ls", "/"); !strings.Contains(got, "h\n") {
		t.Errorf("the client got %q", got)
	}
	waitFor(t, "the service to be active", func() bool { return u.is("ActiveState") == "active" })
}

const unitConfig = `
hierarchy = ["h=cpuset,cpuacct,debug,bc"]
allow-release-agent = true
metrics = "unix:///run/containerfs/metrics.sock"
[[listen]]
addr = "systemd:containerfs.socket"
[[listen]]
addr = "systemd:net"
as = "user"
[[listen]]
addr = "systemd:vm"
[listen.cid.1]
as = "user"
`

// becomesReady: systemd takes the service for active when it is ready, not before.
func (u *installedUnit) becomesReady() {
	t := u.t
	ready := func() int { return strings.Count("\n"+u.journal(), "\nready\n") }
	u.systemctl("stop", containerfsUnit)
	before := ready()
	u.systemctl("start", "--no-block", containerfsUnit)
	waitFor(t, "the service to be active", func() bool { return u.is("ActiveState") == "active" })
	if got := ready(); got != before+1 {
		t.Errorf("active, it has been ready %d times, and before %d times", got, before)
	}
	// One that is active as soon as its process is started is so at the same instant.
	from, to := number(t, u.is("InactiveExitTimestampMonotonic")), number(t, u.is("ActiveEnterTimestampMonotonic"))
	if from >= to {
		t.Errorf("it was activating from %d to %d", from, to)
	}
}

// listens: the sockets of socket units are served on the terms of the config file.
func (u *installedUnit) listens() {
	t := u.t
	u.makeContainer("/h/user")
	for _, file := range []string{"/h/user", "/h/user/tasks"} {
		u.client("").setAttr(file, 1000, 0o755)
	}
	p := startSpawnerAs(t, 1000)
	for _, tt := range []struct {
		uid  uint32
		addr string
		args []string
		code int
	}{
		{0, "unix://" + u.sock, []string{"mkdir", "/h/root"}, ok},
		{1000, "unix://" + u.sock, []string{"mkdir", "/h/user/unix"}, ok},
		{stranger, "unix://" + u.sock, []string{"mkdir", "/h/stranger"}, notPermitted},
		{0, "tcp://127.0.0.1:5640", []string{"mkdir", "/h/tcp"}, notPermitted},
		{0, "tcp://127.0.0.1:5640", []string{"mkdir", "/h/user/tcp"}, ok},
		{1000, "unix://" + u.sock, []string{"write", "/h/user/tasks", fmt.Sprint(p.pid())}, ok},
		{0, "tcp://127.0.0.1:5640", []string{"write", "/h/user/tcp/cpuset.cpus", "1"}, ok},
		{0, "tcp://127.0.0.1:5640", []string{"write", "/h/user/tcp/cpuset.mems", "0"}, ok},
		{0, "tcp://127.0.0.1:5640", []string{"write", "/h/user/tcp/tasks", fmt.Sprint(p.pid())}, ok},
		{0, "tcp://127.0.0.1:5640", []string{"write", "/h/user/tcp/tasks", "1"}, notPermitted},
		{0, "vsock://1:5641", []string{"mkdir", "/h/vsock"}, notPermitted},
		{0, "vsock://1:5641", []string{"mkdir", "/h/user/vsock"}, ok},
	} {
		if code, out := commandAs(t, tt.uid, tt.addr, tt.args...); code != tt.code {
			t.Errorf("uid %d at %s: %q: exit code %d, want %d\n%s", tt.uid, tt.addr, tt.args, code, tt.code, out)
		}
	}
	if got := u.tasks("/h/user/tcp"); !slices.Equal(got, []int{p.pid()}) {
		t.Errorf("moved over TCP: %d, want %d", got, p.pid())
	}
	p.kill()
	waitFor(t, "the container to be empty", func() bool { return len(u.tasks("/h/user/tcp")) == 0 })
	for _, path := range []string{"/h/root", "/h/user/unix", "/h/user/tcp", "/h/user/vsock", "/h/user"} {
		u.run("rmdir", path)
	}
}

// isHealthy: doctor is content, but that the guest has no disk.
func (u *installedUnit) isHealthy() {
	u.t.Helper()
	_, found, _ := u.command("doctor")
	for line := range strings.Lines(found) {
		if !strings.HasPrefix(line, "ok ") && !strings.Contains(line, " state directory: /var/lib/containerfs is on tmpfs:") {
			u.t.Errorf("doctor: %s", line)
		}
	}
	if !strings.HasPrefix(found, "ok ") {
		u.t.Errorf("doctor says %q", found)
	}
}

// works: what the server does to the host it can do in its sandbox too; a system call
// that the unit refuses would kill it.
func (u *installedUnit) works() {
	t := u.t
	pid, restarts := u.is("MainPID"), u.is("NRestarts")
	u.isHealthy()
	if ctl := u.run("read", "/ctl"); !strings.Contains(ctl, "\n# mirror: on, ") || !strings.Contains(ctl, "\n# events: proc connector") {
		t.Errorf("/ctl:\n%s", ctl)
	}
	if log := u.journal(); !strings.Contains(log, "msg=counting subsystem=cpuacct finals=\"the scheduler's last switch") {
		t.Error("CPU time is not counted by the scheduler's switch")
	}
	p := startSpawnerAs(t, 1000) // of root's, less is needed
	u.run("mkdir", "/h/c")
	u.run("write", "/h/c/cpuset.cpus", "1")
	u.run("write", "/h/c/cpuset.mems", "0")
	u.run("write", "/h/c/cpuset.memory_migrate", "1")
	u.run("write", "/h/c/bc.numfile.barrier", "77")
	u.run("write", "/h/c/bc.numfile.limit", "77")
	u.run("write", "/h/c/tasks", fmt.Sprint(p.pid()))
	if got := cpusAllowed(t, p.pid(), p.pid()); got != "1" {
		t.Errorf("its CPUs are %s", got)
	}
	waitFor(t, "the limit of open files", func() bool {
		limits, _ := os.ReadFile(fmt.Sprintf("/proc/%d/limits", p.pid()))
		return slices.ContainsFunc(strings.Split(string(limits), "\n"), func(line string) bool {
			return strings.HasPrefix(line, "Max open files") && slices.Contains(strings.Fields(line), "77")
		})
	})
	child := p.fork()
	waitFor(t, "the child", func() bool { return slices.Contains(u.tasks("/h/c"), child) })
	waitFor(t, "its program", func() bool {
		for line := range strings.Lines(u.run("read", "/events")) {
			if strings.Contains(line, " exec ") && strings.Contains(line, fmt.Sprintf(" tgid=%d ", child)) {
				return strings.Contains(line, " exe=/bin/busybox")
			}
		}
		return false
	})
	if n := number(t, u.run("read", "/h/c/cpuacct.usage")); n <= 0 {
		t.Errorf("it used %d ns", n)
	}
	if code, body := get(t, "unix", "/run/containerfs/metrics.sock", "GET", "/healthz"); code != 200 {
		t.Errorf("/healthz: %d %s", code, body)
	}
	// The agent cleans up through the server that started it.
	writeFile(t, "/root/agent", `#!/bin/sh
for dir in /etc /root /tmp /run/containerfs; do echo >$dir/agent-was-here; done
/usr/bin/containerfs rmdir /h$1
`)
	os.Chmod("/root/agent", 0o755)
	u.run("write", "/h/release_agent", "/root/agent")
	u.run("write", "/h/c/notify_on_release", "1")
	u.run("write", "/h/c/kill", "1")
	waitFor(t, "the process to be killed", func() bool { return !lives(child) })
	waitFor(t, "the agent to remove the container", func() bool { return !u.lists("/h", "c") })
	for dir, writable := range map[string]bool{"/etc": false, "/root": false, "/tmp": false, "/run/containerfs": true} {
		if _, err := os.Stat(dir + "/agent-was-here"); (err == nil) != writable {
			t.Errorf("what the agent wrote to %s: %v", dir, err)
		}
	}
	if u.is("MainPID") != pid || u.is("NRestarts") != restarts {
		t.Error("the server has not lived through it")
	}
}

// places: moves change no cgroup of systemd's, which goes on to find its processes.
func (u *installedUnit) places() {
	t := u.t
	before := map[int]string{}
	for _, pid := range u.tasks("/h") {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err == nil {
			before[pid], _ = placeOf(t, pid)
		}
	}
	if before[1] != "/init.scope" || len(before) < 20 {
		t.Errorf("there are %d processes, the first in %s", len(before), before[1])
	}
	job, journald := u.startJob("placed"), number(t, propertyOf(t, "systemd-journald.service", "MainPID"))
	u.makeContainer("/h/a")
	u.run("write", "/h/a/tasks", fmt.Sprint(job))
	u.run("write", "/h/a/procs", fmt.Sprint(journald))
	for pid, want := range map[int]string{job: "/system.slice/placed.service", journald: "/system.slice/systemd-journald.service"} {
		unit, mirror := placeOf(t, pid)
		if unit != want || mirror == "/" || mirror == "" {
			t.Errorf("%d is in %s, and of the mirror in %q", pid, unit, mirror)
		}
	}
	for pid, was := range before {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err != nil {
			continue
		}
		if unit, _ := placeOf(t, pid); unit != was {
			t.Errorf("%d is in %s, was in %s", pid, unit, was)
		}
	}
	u.systemctl("stop", "placed.service")
	if lives(job) {
		t.Error("systemd no longer finds the process of its unit")
	}
	u.run("write", "/h/tasks", fmt.Sprint(journald))
	waitFor(t, "rmdir", func() bool { code, _, _ := u.command("rmdir", "/h/a"); return code == 0 })
}

// reloads: `systemctl reload` is over when the reload is, and a bad config file leaves
// all as it was.
func (u *installedUnit) reloads() {
	t := u.t
	pid := u.is("MainPID")
	open := u.client("")
	// The server reads a pipe until somebody has written it.
	if err := os.Remove(configOfUnit); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(configOfUnit, 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("systemctl", "reload", containerfsUnit)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	waitFor(t, "the reload to begin", func() bool { return u.is("ActiveState") == "reloading" })
	select {
	case err := <-done:
		t.Errorf("systemctl reload did not wait for the server: %v", err)
	case <-time.After(time.Second):
	}
	writeFile(t, configOfUnit, strings.Replace(unitConfig, `"h=cpuset`, `"second=numtasks", "h=cpuset`, 1))
	if err := <-done; err != nil {
		t.Errorf("systemctl reload: %v", err)
	}
	if !u.lists("/", "second") {
		t.Error("the reload is over, and what is new is not there")
	}

	if err := os.Remove(configOfUnit); err != nil {
		t.Fatal(err)
	}
	writeFile(t, configOfUnit, "hierarchy = 7\n")
	u.systemctl("reload", containerfsUnit)
	if log := u.journal(); !strings.Contains(log, "not reloaded, what was in force stays") {
		t.Error("nothing is said of a config file that is bad")
	}
	if got := u.is("StatusText"); !strings.Contains(got, "not reloaded") {
		t.Errorf("systemctl status says %q", got)
	}
	if u.is("ActiveState") != "active" || u.is("MainPID") != pid || !open.alive() || !u.lists("/", "second") {
		t.Error("a bad config file changed something")
	}
	if code, out := commandAs(t, 0, "tcp://127.0.0.1:5640", "ls", "/"); code != ok {
		t.Errorf("TCP: %d\n%s", code, out)
	}
	writeFile(t, configOfUnit, unitConfig)
	u.systemctl("reload", containerfsUnit)
	if got := u.is("StatusText"); got != "" {
		t.Errorf("systemctl status says %q", got)
	}
	u.run("write", "/ctl", "umount second")
}

// member is a container with a process of systemd's and one of the test's, and
// something that was set.
type member struct {
	u    *installedUnit
	path string
	unit string
	job  int
	p    *spawner
	pids []int
	was  string
}

func (u *installedUnit) startMember(name string) *member {
	u.t.Helper()
	path := "/h/" + name
	m := &member{u: u, path: path, unit: name + ".service", job: u.startJob(name), p: startSpawner(u.t)}
	m.was, _ = placeOf(u.t, m.job)
	u.makeContainer(path)
	u.run("write", path+"/notify_on_release", "0")
	u.run("write", path+"/cpuacct.usage", "0")
	u.run("write", path+"/bc.numproc.barrier", "55")
	for _, pid := range []int{m.job, m.p.pid()} {
		u.run("write", path+"/procs", fmt.Sprint(pid))
		m.pids = append(m.pids, pid)
	}
	m.fork()
	return m
}

func (m *member) fork() { m.pids = append(m.pids, m.p.fork()) }

// check: the processes live, are in the container, and are where systemd has them.
func (m *member) check(when string) {
	m.u.t.Helper()
	slices.Sort(m.pids)
	if got := m.u.tasks(m.path); !slices.Equal(got, m.pids) {
		m.u.t.Errorf("%s: %s has %d, want %d", when, m.path, got, m.pids)
	}
	if got := m.u.run("read", m.path+"/bc.numproc.barrier"); got != "55\n" {
		m.u.t.Errorf("%s: the limit is %q", when, got)
	}
	if unit, mirror := placeOf(m.u.t, m.job); unit != m.was || mirror == "/" || mirror == "" {
		m.u.t.Errorf("%s: it is in %s, and of the mirror in %q", when, unit, mirror)
	}
	if got := m.u.is("ActiveState"); got != "active" {
		m.u.t.Errorf("%s: the unit is %s", when, got)
	}
}

func (m *member) end() {
	m.p.kill()
	m.u.systemctl("stop", m.unit)
	waitFor(m.u.t, "rmdir", func() bool { code, _, _ := m.u.command("rmdir", m.path); return code == 0 })
}

// stopsAndStarts: what was acknowledged is there after a stop and a restart, and no
// process in a container has noticed.
func (u *installedUnit) stopsAndStarts() {
	t := u.t
	m := u.startMember("kept")
	defer m.end()
	m.check("before")
	u.systemctl("stop", containerfsUnit, "containerfs.socket", "containerfs-net.socket", "containerfs-vm.socket")
	if state, result, status := u.is("ActiveState"), u.is("Result"), u.is("ExecMainStatus"); state != "inactive" || result != "success" || status != "0" {
		t.Errorf("it ended as %s, %s, %s", state, result, status)
	}
	if _, err := os.Stat("/var/lib/containerfs"); err != nil {
		t.Error(err)
	}
	for _, pid := range m.pids {
		if !lives(pid) {
			t.Errorf("process %d in a container ended with the server", pid)
		}
	}
	m.fork() // nobody sees
	u.systemctl("start", "containerfs.socket", "containerfs-net.socket", "containerfs-vm.socket", containerfsUnit)
	m.check("started again")
	pid := u.is("MainPID")
	u.systemctl("restart", containerfsUnit)
	if u.is("MainPID") == pid {
		t.Error("it is the same server")
	}
	m.check("restarted")
}

// isKilled: a server that was killed is started again, and all is where it was.
func (u *installedUnit) isKilled() {
	t := u.t
	m := u.startMember("survives")
	defer m.end()
	restarts := number(t, u.is("NRestarts"))
	syscall.Kill(number(t, u.is("MainPID")), syscall.SIGKILL)
	m.fork()          // nobody sees
	u.run("ls", "/h") // the client waits for the next one
	waitFor(t, "the next server", func() bool { return u.is("ActiveState") == "active" })
	if got := number(t, u.is("NRestarts")); got != restarts+1 {
		t.Errorf("%d restarts", got-restarts)
	}
	m.check("after kill -9")
}

// hangs: a server that does nothing is killed and started again.
func (u *installedUnit) hangs() {
	t := u.t
	u.configure(unitConfig, "WatchdogSec=6")
	u.systemctl("restart", containerfsUnit)
	m := u.startMember("watched")
	defer m.end()
	pid := u.is("MainPID")
	syscall.Kill(number(t, pid), syscall.SIGSTOP)
	m.fork() // nobody sees
	waitFor(t, "the next server", func() bool { return u.is("MainPID") != pid && u.is("ActiveState") == "active" })
	if log := u.journal(); !strings.Contains(log, "Watchdog timeout") {
		t.Error("it was not the watchdog")
	}
	m.check("after the watchdog")
}

// controls: with the kernel's controllers the containers are in the unit's own part of
// systemd's tree, and what the unit is for itself does not meet those in it.
func (u *installedUnit) controls() {
	t := u.t
	u.configure(`
hierarchy = ["h=cpuset,cpuacct,debug,bc", "k=pids,memory,cpu"]
enable = ["pids", "memory", "cpu"]
`)
	u.run("write", "/h/release_agent", "")
	u.systemctl("stop", "containerfs-net.socket", "containerfs-vm.socket") // they would need terms
	u.systemctl("restart", containerfsUnit)
	u.isHealthy()
	own := u.is("ControlGroup")
	if unit, _ := placeOf(t, number(t, u.is("MainPID"))); unit != own+"/server" {
		t.Errorf("the server is in %s", unit)
	}
	job := u.startJob("limited")
	was, _ := placeOf(t, job)
	u.run("mkdir", "/k/a")
	u.run("mkdir", "/k/empty")
	u.run("write", "/k/a/memory.max", "64M")
	u.run("write", "/k/a/pids.max", "50")
	u.run("write", "/k/empty/pids.max", "60")
	u.run("write", "/k/a/procs", fmt.Sprint(job))
	// A device that a unit with a policy for devices does not let its processes have.
	fuse := startWaiter(t, "exec 3<>/dev/fuse && echo opened")
	u.run("write", "/k/a/procs", fuse.pid())
	fuse.run(t)
	waitFor(t, "the shell to try", func() bool { return strings.HasSuffix(fuse.output.String(), "\n") })
	if got := fuse.output.String(); got != "opened\n" {
		t.Errorf("in a container of the unit a shell says %q", got)
	}
	in, _ := placeOf(t, job)
	if !strings.HasPrefix(in, own+"/containerfs-") {
		t.Errorf("the process is in %s, want it below %s", in, own)
	}
	check := func(when string) {
		t.Helper()
		if got := u.tasks("/k/a"); !slices.Contains(got, job) {
			t.Errorf("%s: the container has %d, not %d", when, got, job)
		}
		if got, _ := placeOf(t, job); got != in {
			t.Errorf("%s: it is in %s, was in %s", when, got, in)
		}
		for file, want := range map[string]string{"/k/a/pids.max": "50\n", "/k/empty/pids.max": "60\n", "/k/a/memory.max": strconv.Itoa(64<<20) + "\n"} {
			if got := u.run("read", file); got != want {
				t.Errorf("%s: %s is %q, want %q", when, file, got, want)
			}
		}
	}
	check("moved")
	u.systemctl("stop", containerfsUnit, "containerfs.socket")
	if got, _ := placeOf(t, job); got != in || !lives(job) {
		t.Errorf("the server has ended, and the process is in %s", got)
	}
	u.systemctl("start", containerfsUnit)
	check("started again")
	syscall.Kill(number(t, u.is("MainPID")), syscall.SIGKILL)
	waitFor(t, "the next server", func() bool { return u.is("NRestarts") == "1" && u.is("ActiveState") == "active" })
	check("after kill -9")
	u.run("write", "/k/procs", fmt.Sprint(job))
	if got, _ := placeOf(t, job); got != was {
		t.Errorf("back in the root it is in %s, was in %s", got, was)
	}
	u.systemctl("stop", "limited.service")
	if lives(job) {
		t.Error("systemd no longer finds the process of its unit")
	}
}
