package storm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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

// threads lists the threads of a process with their states as in /proc/<pid>/stat.
func threads(pid int32) map[int32]byte {
	states := make(map[int32]byte)
	names, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid)) // as far as it came
	for _, n := range names {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/stat", pid, n.Name()))
		if err != nil {
			continue
		}
		tid, err := strconv.ParseInt(n.Name(), 10, 32)
		if at := bytes.LastIndexByte(text, ')'); err == nil && at > 0 && at+2 < len(text) {
			states[int32(tid)] = text[at+2]
		}
	}
	return states
}

// all is true if every thread is in one of the states.
func all(threads map[int32]byte, states string) bool {
	for _, s := range threads {
		if strings.IndexByte(states, s) < 0 {
			return false
		}
	}
	return len(threads) > 0
}

// A hold is a process that was told to stop, by its pidfd: the number can be
// somebody else's by the time of the signal.
type hold struct {
	pid int32
	fd  int
}

// hold tells a process of the storm to stop. It is nil if that is gone.
func (o *oracle) hold(pid int32) *hold {
	fd, err := unix.PidfdOpen(int(pid), 0)
	if err != nil {
		// Nobody's number any more, or a thread's.
		if err != unix.ESRCH && err != unix.EINVAL && err != unix.ENOENT {
			o.t.Fatal(err)
		}
		return nil
	}
	h := &hold{pid, fd}
	// Asked while the descriptor is of a process that lives, so of that one.
	_, member := o.where(pid)
	if !member || unix.PidfdSendSignal(fd, unix.SIGSTOP, nil, 0) != nil {
		unix.Close(fd)
		return nil
	}
	return h
}

func (h *hold) release() {
	unix.PidfdSendSignal(h.fd, unix.SIGCONT, nil, 0)
	unix.Close(h.fd)
}

// ended reports whether the process was killed while it was held.
func (h *hold) ended() bool {
	fds := []unix.PollFd{{Fd: int32(h.fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 1000)
	for err == unix.EINTR {
		n, err = unix.Poll(fds, 1000)
	}
	return n == 1 && err == nil
}

// stop stops a process and returns its threads, which do not change until it is
// released or killed. It is nil when the process does not stop: it ends, or waits for
// a child by vfork.
func (o *oracle) stop(pid int32) (h *hold, tids []int32) {
	h = o.hold(pid)
	if h == nil {
		return nil, nil
	}
	for end := time.Now().Add(30 * time.Millisecond); time.Now().Before(end); time.Sleep(50 * time.Microsecond) {
		// Twice, since a thread can be made behind the first look.
		if before := threads(pid); all(before, "T") {
			if after := threads(pid); all(after, "T") && len(after) == len(before) {
				for tid := range after {
					tids = append(tids, tid)
				}
				slices.Sort(tids)
				return h, tids
			}
		}
	}
	h.release()
	return nil, nil
}

// freeze stops the whole storm and returns what starts it again.
func (o *oracle) freeze() (thaw func()) {
	o.t.Helper()
	held := make(map[int32]*hold)
	thaw = func() {
		for _, h := range held {
			h.release()
		}
	}
	quiet := 0
	for end := time.Now().Add(20 * time.Second); quiet < 3; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			thaw()
			o.t.Fatal("the storm does not stop")
		}
		quiet++
		for pid := range o.members("cgroup.procs") {
			if held[pid] == nil {
				if h := o.hold(pid); h != nil {
					held[pid] = h
					quiet = 0
				}
			} else if !all(threads(pid), "TDZX") {
				// D: waits for a child by vfork, which is stopped.
				quiet = 0
			}
		}
	}
	return thaw
}
