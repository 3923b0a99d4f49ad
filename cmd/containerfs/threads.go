package main

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// slice is for how long a thread of the server wants to run at a time. Linux has who
// wants it shorter run sooner after it wakes, since 6.12, for no more time in all: where
// client and server share a CPU the answer is there before the client has gone to sleep.
// The kernel's own is 0.7 to 3 ms, 1.4 with 2 CPUs. With 0.5 and less, batches are
// interrupted, and with many requests outstanding a fifth fewer are served.
const slice = time.Millisecond

// slack is how much later than it asked for a thread of the server can be woken by a timer.
// Go's runtime has a thread that watches over the others and sleeps 20 µs at a time after
// each pause; with the kernel's own slack of 50 µs it had an eighth of the time where client
// and server share a CPU.
const slack = 200 * time.Microsecond

// tuneThreads gives slice and slack to all threads that there are; those that are made
// later, and release agents, have them from who makes them. What somebody has chosen stays:
// a policy, or more slack.
func tuneThreads(log *slog.Logger) {
	eachThread(log, "slice", shortenSlice)
	eachThread(log, "timer slack", slackenTimers)
}

// eachThread sets something of all threads, until none was made by one that lacked it.
func eachThread(log *slog.Logger, what string, set func(tid int) (changed bool, err error)) {
	for again := true; again; {
		dirs, err := os.ReadDir("/proc/self/task")
		again = false
		for _, d := range dirs {
			tid, _ := strconv.Atoi(d.Name())
			var changed bool
			if changed, err = set(tid); errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) {
				err = nil // it has ended
			}
			if err != nil {
				break
			}
			again = again || changed
		}
		if err != nil {
			log.Info("threads are scheduled as others", "lack", what, "err", err)
			return
		}
	}
}

// shortenSlice shortens one thread's slice; changed is false where the kernel lets it be.
func shortenSlice(tid int) (changed bool, err error) {
	attr, err := unix.SchedGetAttr(tid, 0)
	if err != nil || attr.Policy != unix.SCHED_NORMAL && attr.Policy != unix.SCHED_BATCH || attr.Runtime == uint64(slice) {
		return false, err
	}
	attr.Runtime = uint64(slice)
	if err := unix.SchedSetAttr(tid, attr, 0); err != nil {
		return false, err
	}
	now, err := unix.SchedGetAttr(tid, 0)
	return err == nil && now.Runtime == uint64(slice), err
}

// slackenTimers gives one thread's timers slack; changed is false for one of a policy that
// has none.
func slackenTimers(tid int) (changed bool, err error) {
	file := "/proc/" + strconv.Itoa(tid) + "/timerslack_ns"
	has, err := timerSlack(file)
	if err != nil || has >= slack {
		return false, err
	}
	if err := os.WriteFile(file, strconv.AppendInt(nil, int64(slack), 10), 0); err != nil {
		return false, err
	}
	has, err = timerSlack(file)
	return err == nil && has >= slack, err
}

func timerSlack(file string) (time.Duration, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	ns, err := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64)
	return time.Duration(ns), err
}
