package crash

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerfs/tree/kernfs"
)

// An oracle is the kernel's own account of where the processes of the clients are in
// one of the server's hierarchies. It knows nothing of the server: a named hierarchy
// with a directory for each box that a process was moved to. The children of a process
// are in both where it was.
type oracle struct {
	t    testing.TB
	root *kernfs.Dir
	name string
}

func newOracle(t testing.TB, hierarchy string) *oracle {
	t.Helper()
	o := &oracle{t: t, name: fmt.Sprint("containerfs-test-crash-oracle-", hierarchy, "-", os.Getpid())}
	var err error
	if o.root, err = kernfs.OpenNamed(o.name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := kernfs.Retire(o.root, 20*time.Second); err != nil {
			t.Error(err)
		}
	})
	return o
}

// move puts a process, which is stopped, into a directory.
func (o *oracle) move(dir string, pid int32) {
	o.t.Helper()
	if err := o.root.Make(dir); err != nil && !errors.Is(err, unix.EEXIST) {
		o.t.Fatal(err)
	}
	if err := o.root.Move(dir, pid, true); err != nil {
		o.t.Fatal(err)
	}
}

// where is the directory that a process is in: "" for the root, or when it is gone.
func (o *oracle) where(pid int32) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return ""
	}
	_, path, ok := strings.Cut(string(text), ":name="+o.name+":/")
	if !ok {
		o.t.Fatalf("process %d is not in the oracle: %q", pid, text)
	}
	path, _, _ = strings.Cut(path, "\n")
	return path
}

// members are the processes in a directory, in order, but for those that have ended.
func (o *oracle) members(dir string) (pids []int) {
	o.t.Helper()
	ids, err := o.root.IDs(dir + "/cgroup.procs")
	if err != nil && !kernfs.IsGone(err) {
		o.t.Fatal(err)
	}
	for _, id := range ids {
		if living(id) {
			pids = append(pids, int(id))
		}
	}
	slices.Sort(pids)
	return pids
}

// living is true of a process that is neither gone nor a zombie.
func living(pid int32) bool {
	state := stateOf(pid)
	return state != 'Z' && state != 'X'
}

// stateOf is the state of a process as in /proc/<pid>/stat: X when it is gone.
func stateOf(pid int32) byte {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if at := bytes.LastIndexByte(text, ')'); err == nil && at > 0 && at+2 < len(text) {
		return text[at+2]
	}
	return 'X'
}
