package storm

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerfs/tests/hold"
	"containerfs/tree/kernfs"
)

// An oracle is the kernel's own account of where the tasks of a storm are.
type oracle struct {
	t    testing.TB
	root *kernfs.Dir
	name string
	dirs map[place]string
}

func newOracle(t testing.TB) *oracle {
	t.Helper()
	o := &oracle{t: t, name: fmt.Sprint("containerfs-", prefix, "oracle-", os.Getpid()), dirs: make(map[place]string)}
	var err error
	if o.root, err = kernfs.OpenNamed(o.name); errors.Is(err, kernfs.ErrRefused) {
		refused(t, err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := kernfs.Retire(o.root, 10*time.Second); err != nil {
			t.Error(err)
		}
	})
	for _, p := range places() {
		o.dirs[p] = p.String()
		if err := o.root.Make(o.dirs[p]); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// members are the storm's threads, or processes, and where they are. Those
// that are exiting can be among them.
func (o *oracle) members(file string) map[int32]place {
	o.t.Helper()
	in := make(map[int32]place)
	for p, dir := range o.dirs {
		ids, err := o.root.IDs(dir + "/" + file)
		if err != nil {
			o.t.Fatal(err)
		}
		for _, id := range ids {
			in[id] = p
		}
	}
	return in
}

// where looks one thread up. ok is false when it is none of the storm's, which
// one that is exiting is not any more.
func (o *oracle) where(tid int32) (p place, ok bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", tid))
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
			o.t.Fatal(err)
		}
		return p, false
	}
	_, path, ok := strings.Cut(string(text), ":name="+o.name+":/")
	if !ok {
		o.t.Fatalf("task %d is not in the oracle: %q", tid, text)
	}
	path, _, _ = strings.Cut(path, "\n")
	for p, dir := range o.dirs {
		if dir == path {
			return p, true
		}
	}
	return p, false
}

// member reports whether a process is the storm's.
func (o *oracle) member(pid int32) bool {
	_, ok := o.where(pid)
	return ok
}

// stop stops a process and returns its threads: see hold.Stop.
func (o *oracle) stop(pid int32) (h *hold.Process, tids []int32) {
	h, tids, err := hold.Stop(pid, func() bool { return o.member(pid) })
	if err != nil {
		o.t.Fatal(err)
	}
	return h, tids
}

// freeze stops the whole storm and returns what starts it again.
func (o *oracle) freeze() (thaw func()) {
	o.t.Helper()
	thaw, err := hold.Freeze(func() []int32 {
		return slices.Collect(maps.Keys(o.members("cgroup.procs")))
	}, o.member)
	if err != nil {
		o.t.Fatal(err)
	}
	return thaw
}
