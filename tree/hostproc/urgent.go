package hostproc

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// mostUrgent is the nice value of who goes before everybody else.
const mostUrgent = -20

// Urgently runs f on a thread that the scheduler prefers to others: what goes after
// processes that take all the time there is must not get a two-hundredth of it. Without
// CAP_SYS_NICE it just runs f.
func Urgently(f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// The system call gives 20 less the nice value, for errors are negative.
	if was, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err == nil {
		if unix.Setpriority(unix.PRIO_PROCESS, 0, mostUrgent) == nil {
			defer unix.Setpriority(unix.PRIO_PROCESS, 0, 20-was)
		}
	}
	f()
}
