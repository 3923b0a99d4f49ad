package tests

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// lacks is a host on which some system calls fail: since its kernel is older than they are,
// or because of a filter.
type lacks struct {
	name  string
	errno syscall.Errno
	calls []int
}

// Calls by the version of Linux that has brought them.
var (
	since516 = []int{unix.SYS_CLOSE_RANGE} // 5.9, and 5.11 with the flag
	since508 = append([]int{unix.SYS_OPENAT2, unix.SYS_PIDFD_GETFD, unix.SYS_FACCESSAT2}, since516...)
	since501 = append([]int{
		unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT,
		unix.SYS_PIDFD_SEND_SIGNAL, unix.SYS_PIDFD_OPEN,
	}, since508...)
)

// lackingHosts are as old as those that are in use, and one with a filter that refuses what
// it does not know, as that of a container.
var lackingHosts = []lacks{
	{"Linux 5.10", unix.EINVAL, since516},
	{"Linux 5.4", unix.ENOSYS, since508},
	{"Linux 4.18", unix.ENOSYS, append([]int{unix.SYS_CLONE3}, since501...)},
	{"filter", unix.EPERM, since501},
}

// wrap has a command run on such a host: started by this program, which has the kernel
// refuse the calls to itself and to all that it executes.
func (l lacks) wrap(cmd *exec.Cmd) {
	var numbers []string
	for _, n := range l.calls {
		numbers = append(numbers, strconv.Itoa(n))
	}
	cmd.Env = append(cmd.Environ(), fmt.Sprintf("CONTAINERFS_TEST_LACKS=%d:%s", l.errno, strings.Join(numbers, ",")))
	cmd.Args = append([]string{"tests", cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/proc/self/exe"
}

// lacksMain is the program that wrap starts.
func lacksMain(what string) error {
	os.Unsetenv("CONTAINERFS_TEST_LACKS")
	runtime.LockOSThread()
	errno, calls, _ := strings.Cut(what, ":")
	refusal, err := strconv.Atoi(errno)
	if err != nil {
		return err
	}
	const number = 0 // in struct seccomp_data
	program := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: number}}
	for call := range strings.SplitSeq(calls, ",") {
		n, err := strconv.Atoi(call)
		if err != nil {
			return err
		}
		program = append(program,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(n), Jf: 1},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(refusal)})
	}
	program = append(program, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	err = unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&filter)), 0, 0)
	if err == unix.EACCES { // without CAP_SYS_ADMIN
		if err = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err == nil {
			err = unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&filter)), 0, 0)
		}
	}
	if err != nil {
		return fmt.Errorf("filter: %w", err)
	}
	return syscall.Exec(os.Args[1], os.Args[1:], os.Environ())
}

// TestLackingHosts: with the kernels and filters that there are, a server does what it
// does elsewhere.
func TestLackingHosts(t *testing.T) {
	needHost(t)
	for _, host := range lackingHosts {
		t.Run(host.name, host.test)
	}
}

func (l lacks) test(t *testing.T) {
	s := startServerAs(t, l.wrap, "--enable", "pids", "--hierarchy", "h=pids,debug", "--hierarchy", "g=numtasks,bc", "--allow-release-agent")
	if got := s.run("read", "/ctl"); !strings.Contains(got, "\n# mirror: on, ") {
		t.Errorf("no mirror:\n%s", got)
	}
	if log := s.log.String(); strings.Contains(log, unix.Errno(l.errno).Error()) {
		t.Errorf("something was refused:\n%s", log)
	}

	p := startSpawner(t)
	s.run("mkdir", "/h/a", "/h/a/b", "/g/a")
	s.run("write", "/h/a/b/pids.max", "50")
	s.run("write", "/h/a/b/procs", fmt.Sprint(p.pid()))
	s.run("write", "/g/a/procs", fmt.Sprint(p.pid()))
	child := p.fork()
	want := fmt.Sprintln(p.pid()) + fmt.Sprintln(child)
	if child < p.pid() {
		want = fmt.Sprintln(child) + fmt.Sprintln(p.pid())
	}
	for _, path := range []string{"/h/a/b", "/g/a"} {
		if got := s.run("read", path+"/procs"); got != want {
			t.Errorf("%s has %q, want %q", path, got, want)
		}
	}
	if got := s.run("read", "/h/a/b/pids.current"); got != "2\n" {
		t.Errorf("pids.current is %q", got)
	}
	if got := s.run("read", "/h/a/b/pids.max"); got != "50\n" {
		t.Errorf("pids.max is %q", got)
	}
	waitFor(t, "what bc measures", func() bool { return s.run("read", "/g/a/bc.numfile.held") != "0\n" })

	agent, dir := agentScript(t, s, `ls -l /proc/self/fd | grep -c socket >DIR/sockets; echo "$1" >DIR/new; mv DIR/new DIR/path`)
	s.run("write", "/h/a/b/notify_on_release", "1")
	s.run("write", "/g/a/kill", "1")
	for _, pid := range []int{p.pid(), child} {
		waitFor(t, "it to be killed", func() bool { return !lives(pid) })
	}
	waitFor(t, "the agent "+agent, func() bool {
		_, err := os.Stat(dir + "/path")
		return err == nil || strings.Contains(s.log.String(), "release agent failed")
	})
	path, err := os.ReadFile(dir + "/path")
	if string(path) != "/a/b\n" {
		t.Errorf("the agent was given %q: %v", path, err)
	}
	if sockets, _ := os.ReadFile(dir + "/sockets"); err == nil && string(sockets) != "0\n" {
		t.Errorf("the agent has %s of the server's sockets", sockets)
	}
	s.run("rmdir", "/h/a/b", "/h/a", "/g/a")
	if code, found, _ := s.command("doctor"); strings.Contains(found, unix.Errno(l.errno).Error()) {
		t.Errorf("doctor, exit code %d:\n%s", code, found)
	}
}
