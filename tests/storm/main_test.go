// Package storm has the test of exactness (SPEC §6): processes of the host fork
// by the thousand while they are moved, and at every look each of them must be
// in the containers that a second hierarchy of the kernel, the oracle, says.
//
// # Vocabulary
//
// A storm is a process with all its descendants, made by hostproc/storm. A place
// is one container per hierarchy. The oracle is a named hierarchy of the test's
// own with one directory per place. A move happens in the model and in the
// oracle, while the process that is moved is stopped: only then is it the same
// instant for both.
package storm

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerfs/tree/hostproc/storm"
	"containerfs/tree/kernfs"
)

// prefix begins the names of this package's hierarchies, after what all mirrors
// have.
const prefix = "test-storm-"

// The test binary runs itself as the storm, which begins when its input ends.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "storm" {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(storm.Main(os.Args[2:], os.Stdout, os.Stderr))
	}
	if len(os.Args) > 2 && os.Args[1] == "exec" {
		io.ReadFull(os.Stdin, make([]byte, 1))
		execOnAnotherThread(os.Args[2])
	}
	if err := removeLeftovers(); err != nil {
		fmt.Fprintln(os.Stderr, "what a killed run of this test has left:", err)
	}
	code := m.Run()
	names, err := kernfs.Names()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	for _, name := range names {
		if strings.Contains(name, prefix) && strings.HasSuffix(name, fmt.Sprint("-", os.Getpid())) {
			fmt.Fprintln(os.Stderr, "left behind:", name)
			code = 1
		}
	}
	os.Exit(code)
}

// removeLeftovers removes the hierarchies of runs that were killed, with their
// storms, which may be stopped for ever.
func removeLeftovers() error {
	names, err := kernfs.Names()
	slices.Sort(names)
	for _, name := range slices.Backward(names) { // the oracles first, since these end the storms
		var pid int
		at := strings.LastIndexByte(name, '-')
		if _, bad := fmt.Sscan(name[at+1:], &pid); !strings.Contains(name, prefix) || bad != nil || unix.Kill(pid, 0) != unix.ESRCH {
			continue
		}
		root, bad := kernfs.OpenNamed(name)
		if bad != nil {
			return bad
		}
		// In the oracle's directories nobody is but the storm.
		dirs, bad := root.Dirs()
		for n := 1; strings.Contains(name, "oracle") && n > 0; {
			n = 0
			for _, dir := range dirs {
				pids, _ := root.IDs(dir + "/cgroup.procs")
				for _, pid := range pids {
					unix.Kill(int(pid), unix.SIGKILL)
				}
				n += len(pids)
			}
			time.Sleep(time.Millisecond)
		}
		err = errors.Join(err, bad, kernfs.Retire(root, 10*time.Second))
	}
	return err
}

// refused ends a test to which the host refuses something: skipped when that is
// to be expected of this process, failed when it has every privilege.
func refused(t testing.TB, what any) {
	t.Helper()
	if why := unprivileged(t); why != "" {
		t.Skipf("%v: %s", what, why)
	}
	t.Fatalf("refused with every privilege: %v", what)
}

// unprivileged says what this process lacks to follow and move all processes of
// the host, "" if nothing.
func unprivileged(t testing.TB) string {
	t.Helper()
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&hdr, &caps[0]); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]int{"CAP_SYS_ADMIN": unix.CAP_SYS_ADMIN, "CAP_NET_ADMIN": unix.CAP_NET_ADMIN} {
		if caps[c/32].Effective&(1<<(c%32)) == 0 {
			return "no " + name
		}
	}
	// The numbers are the kernel's own, of the namespaces that it begins with.
	for kind, ino := range map[string]uint64{"pid": 0xEFFFFFFC, "user": 0xEFFFFFFD, "cgroup": 0xEFFFFFFB} {
		var st unix.Stat_t
		if err := unix.Stat("/proc/self/ns/"+kind, &st); err != nil {
			t.Fatal(err)
		}
		if st.Ino != ino {
			return "in a " + kind + " namespace of its own"
		}
	}
	return ""
}

// size is a number of forks: the one for every day, a smaller one with -short,
// and full with SOAK.
func size(normal, full int) int {
	switch {
	case os.Getenv("SOAK") != "":
		return full
	case testing.Short():
		return normal / 10
	}
	return normal
}
