package tree

import "errors"

// TaskInfo is what the host says of one thread at one instant.
type TaskInfo struct {
	TID  int32
	TGID int32
	PPID int32 // tgid of the real parent, 0 when there is none

	// Start is the time the thread started, in clock ticks after boot
	// (proc(5), stat field 22). Together with the tid it is the thread's
	// identity: a tid comes back, the pair does not.
	Start uint64

	// Kernel is set for a kernel thread.
	Kernel bool
}

// Host is the machine whose tasks a Tree places. hostproc has the real one,
// package hostsim a simulated one for tests of the model.
//
// Methods may block; a Tree never calls them while it holds mu. All of them
// may be called concurrently.
type Host interface {
	// Task looks a thread up now. It fails with ESRCH when there is no such
	// thread, or when it is a zombie, or exiting and the Tree was told of its exit. One that
	// is exiting may be shown before.
	Task(tid int32) (TaskInfo, error)

	// Owner returns the real and the saved uid of a thread, or ESRCH.
	Owner(tid int32) (ruid, suid uint32, err error)

	// Tasks yields every live thread of one process, or of the whole host
	// when tgid is 0. A process that is gone yields nothing. The list is not
	// a snapshot: threads come and go while it is made.
	Tasks(tgid int32, yield func(TaskInfo) bool) error

	// Drain returns when every event that happened before the call has been
	// delivered to the Tree (Fork, Exit, Exec). It must be cheap when
	// nothing is outstanding.
	Drain()

	// Now is the clock that stamps events: CLOCK_MONOTONIC in nanoseconds.
	Now() int64
}

// Glancer is implemented by Hosts that can tell at once what Drain followed by Task would.
type Glancer interface {
	// Glance tells of a thread, all but its parent (0), if nothing is outstanding that the
	// Tree was not told of; not ok if it cannot say, or if there is no such thread. It
	// does not block.
	Glance(tid int32) (info TaskInfo, ok bool)
}

// Mirror is the kernel's own record of which css group a task is in: one
// directory per css group in a named cgroup hierarchy (SPEC §6). Group numbers
// are the Tree's; 0 is the mirror's root directory, which always exists.
//
// Methods may block; a Tree never calls them while it holds mu.
type Mirror interface {
	// Make makes the directory of a group. A directory that exists already
	// is success.
	Make(group uint64) error

	// Remove removes the directories of groups without tasks and returns the
	// groups whose directories could not be removed, because the kernel still
	// has a task there.
	Remove(groups []uint64) (busy []uint64)

	// Move moves the thread id, or with process set every thread of the
	// process id, those being born included. The kernel's errno comes back:
	// ESRCH for a thread that is gone, EINVAL for a kernel thread that the
	// kernel does not move.
	Move(group uint64, id int32, process bool) error

	// Where returns the group whose directory a thread is in. A directory
	// that no group has is reported with ErrForeignGroup. ESRCH when the
	// thread is gone.
	Where(tid int32) (group uint64, err error)

	// Members lists the threads in a group's directory.
	Members(group uint64) ([]int32, error)
}

// ErrForeignGroup is returned by Mirror.Where for a thread in a directory that
// the mirror did not make. Members of ForeignGroup are all such threads.
var ErrForeignGroup = errors.New("in a directory of the mirror that is nobody's css group")

// ForeignGroup is no css group's number.
const ForeignGroup = ^uint64(0)
