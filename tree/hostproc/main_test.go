package hostproc

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerfs/tree/hostproc/storm"
	"containerfs/tree/kernfs"
)

// The test binary runs itself for processes that need to be their own.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "storm":
			os.Exit(storm.Main(os.Args[2:], os.Stdout, os.Stderr))
		case "server":
			os.Exit(serverMain())
		case "refused":
			os.Exit(refusedMain())
		case "exec-thread":
			execThreadMain()
		case "dead-leader":
			deadLeaderMain()
		case "dying-leader":
			dyingLeaderMain()
		}
	}
	code := m.Run()
	// Whatever failed, no hierarchy of the tests may stay on the host.
	if names, err := kernfs.Names(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	} else {
		for _, name := range names {
			// Those of other tests may be there still.
			if strings.HasPrefix(name, kernfs.MirrorPrefix+"test-") && strings.HasSuffix(name, fmt.Sprint("-", os.Getpid())) {
				fmt.Fprintln(os.Stderr, "left behind:", name)
				code = 1
			}
		}
	}
	os.Exit(code)
}

func can(t testing.TB, capability int) bool {
	t.Helper()
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		t.Fatal(err)
	}
	return data[capability/32].Effective&(1<<(capability%32)) != 0
}

// first is true in the namespaces that the host began with, of the kinds that matter.
func first(t testing.TB) bool {
	t.Helper()
	for kind, ino := range map[string]uint64{"pid": firstPidNamespace, "user": 0xEFFFFFFD, "cgroup": 0xEFFFFFFB} {
		if n, err := namespace(kind, ino); err != nil {
			t.Fatal(err)
		} else if n != ino {
			return false
		}
	}
	return true
}

// connected opens the host with the connector. A test is skipped only if the
// refusal is one that is to be expected here.
func connected(t testing.TB, opts Options) *Host {
	t.Helper()
	h, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	if !h.Source().Connector {
		if first(t) && can(t, unix.CAP_NET_ADMIN) {
			t.Fatal("refused with every privilege: ", h.Source())
		}
		t.Skip(h.Source())
	}
	return h
}

func mirrored(t testing.TB, id string) *Mirror {
	t.Helper()
	m, err := OpenMirror(fmt.Sprintf("test-%s-%d", id, os.Getpid()), "")
	if errors.Is(err, kernfs.ErrRefused) {
		if first(t) && can(t, unix.CAP_SYS_ADMIN) && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ENOENT) {
			t.Fatal("refused with every privilege: ", err)
		}
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Retire(10 * time.Second); err != nil {
			t.Error(err)
		}
	})
	return m
}

// start runs this binary as one of the processes of TestMain and returns the
// first line that it writes.
func start(t testing.TB, args ...string) (cmd *exec.Cmd, line string) {
	t.Helper()
	return startWith(t, nil, args...)
}

// startWith gives it an input, too.
func startWith(t testing.TB, stdin *os.File, args ...string) (cmd *exec.Cmd, line string) {
	t.Helper()
	cmd = exec.Command(os.Args[0], args...)
	cmd.Stderr = os.Stderr
	if stdin != nil {
		cmd.Stdin = stdin
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	line, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return cmd, strings.TrimSpace(line)
}

func sleeper(t testing.TB) *exec.Cmd { return started(t, exec.Command("sleep", "1000")) }

// sleeperAs runs as another user.
func sleeperAs(t testing.TB, uid uint32) *exec.Cmd {
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	return started(t, cmd)
}

func started(t testing.TB, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}
