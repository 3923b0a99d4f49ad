// Package hold stops processes of a test while it looks at them, or moves them: what
// is stopped neither forks nor ends by itself.
package hold

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A Process was told to stop, by its pidfd: the number can be somebody else's by the
// time of the signal.
type Process struct {
	PID int32
	fd  int
}

// Begin tells a process to stop, if it is a member: that is asked while the number
// cannot be another's. It is nil if the process is gone or is none.
func Begin(pid int32, member func() bool) (*Process, error) {
	fd, err := unix.PidfdOpen(int(pid), 0)
	if err != nil {
		// Nobody's number any more, or a thread's.
		if err != unix.ESRCH && err != unix.EINVAL && err != unix.ENOENT {
			return nil, err
		}
		return nil, nil
	}
	if !member() || unix.PidfdSendSignal(fd, unix.SIGSTOP, nil, 0) != nil {
		unix.Close(fd)
		return nil, nil
	}
	return &Process{pid, fd}, nil
}

// Release lets the process go on.
func (p *Process) Release() {
	unix.PidfdSendSignal(p.fd, unix.SIGCONT, nil, 0)
	unix.Close(p.fd)
}

// Kill kills the process.
func (p *Process) Kill() { unix.PidfdSendSignal(p.fd, unix.SIGKILL, nil, 0) }

// Ended reports whether the process was killed while it was held.
func (p *Process) Ended() bool {
	fds := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 1000)
	for err == unix.EINTR {
		n, err = unix.Poll(fds, 1000)
	}
	return n == 1 && err == nil
}

// patience is how long Stop waits.
const patience = 30 * time.Millisecond

// Stop stops a process and returns its threads, which do not change until it is
// released or killed. It is nil when the process does not stop: it ends, or waits for
// a child by vfork.
func Stop(pid int32, member func() bool) (p *Process, tids []int32, err error) {
	p, err = Begin(pid, member)
	if p == nil {
		return nil, nil, err
	}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Microsecond) {
		// Twice, since a thread can be made behind the first look.
		if before := threads(pid); all(before, "T") {
			if after := threads(pid); all(after, "T") && len(after) == len(before) {
				for tid := range after {
					tids = append(tids, tid)
				}
				slices.Sort(tids)
				return p, tids, nil
			}
		}
	}
	p.Release()
	return nil, nil, nil
}

// Freeze stops all members, and what they fork until then, and returns what starts
// them again. List lists processes, of which those that are exiting need not be
// members any more.
func Freeze(list func() []int32, member func(pid int32) bool) (thaw func(), err error) {
	held := make(map[int32]*Process)
	thaw = func() {
		for _, p := range held {
			p.Release()
		}
	}
	quiet := 0
	for end := time.Now().Add(2 * time.Minute); quiet < 3; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			thaw()
			return nil, errors.New("processes do not stop")
		}
		quiet++
		for _, pid := range list() {
			if held[pid] == nil {
				p, err := Begin(pid, func() bool { return member(pid) })
				if err != nil {
					thaw()
					return nil, err
				}
				if p != nil {
					held[pid] = p
					quiet = 0
				}
			} else if !all(threads(pid), "TDZX") {
				// D: waits for a child by vfork, which is stopped.
				quiet = 0
			}
		}
	}
	return thaw, nil
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
		if bytes.IndexByte([]byte(states), s) < 0 {
			return false
		}
	}
	return len(threads) > 0
}
