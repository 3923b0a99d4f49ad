package hostproc

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerfs/tree/kernfs"
)

// refusedMain says what a process gets that has less.
func refusedMain() int {
	h, err := Open(Options{})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(h.Source())
	h.Start(newRecorder())
	h.Drain()
	h.Close()
	m, err := OpenMirror(fmt.Sprintf("test-refused-%d", os.Getpid()), "")
	fmt.Println(errors.Is(err, kernfs.ErrRefused), err)
	if err == nil {
		m.Retire(time.Second)
		return 1
	}
	return 0
}

// Who may not have the connector or the mirror is told why.
func TestRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give up privileges")
	}
	nobody := &syscall.Credential{Uid: 65534, Gid: 65534}
	for _, c := range []struct {
		name   string
		attr   syscall.SysProcAttr
		source []string // one of these
		mirror string
	}{
		// Linux 6.6 and later let everybody hear the events.
		{"user", syscall.SysProcAttr{Credential: nobody}, []string{"proc connector", "CAP_NET_ADMIN"}, "true fsopen cgroup: operation not permitted (no privilege: CAP_SYS_ADMIN is needed)"},
		{"pid namespace", syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}, []string{"first pid and user namespace"}, ""},
		{"network namespace", syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}, []string{"network namespace"}, ""},
		{"cgroup namespace", syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWCGROUP}, []string{"proc connector"}, "true make hierarchy"},
	} {
		cmd := exec.Command("/proc/self/exe", "refused")
		cmd.SysProcAttr = &c.attr
		out, _ := cmd.CombinedOutput()
		lines := bufio.NewScanner(strings.NewReader(string(out)))
		lines.Scan()
		if s := lines.Text(); !slices.ContainsFunc(c.source, func(want string) bool { return strings.Contains(s, want) }) {
			t.Errorf("%s: %s", c.name, out)
		}
		lines.Scan()
		if s := lines.Text(); !strings.Contains(s, c.mirror) {
			t.Errorf("%s: %s", c.name, out)
		}
		t.Logf("%s: %s", c.name, out)
	}
}
