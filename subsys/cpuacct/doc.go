// Package cpuacct is the subsystem that counts the CPU time that tasks use while
// they are in a container (SPEC §12).
//
// # Vocabulary
//
// The run time of a task is the time that it was on a CPU since it started, as
// the scheduler counts it; user and system time are how often the timer found
// it in which mode. A reading is what the host says of a live task now, a final
// what it says of one when it has ended. Fold means: read a task and credit what
// it ran since it was read last to the container that it is in, and to all
// above. A task is tracked when it was read before, and its track says how far
// it is credited and to whom.
//
// The files: usage is the run time in nanoseconds; stat divides it into user
// and system time, in units of 1/100 s; load is the run time of the last full
// interval, in per cent of that interval, so of one CPU. An interval is 10 s or
// the little more that Enforce comes late.
//
// # What is counted
//
// Run time from the moment on at which the subsystem is bound to a hierarchy:
// then all tasks of the host are in the root, and what they ran before is not
// counted. The root counts all tasks. While the subsystem is bound nowhere
// nothing is counted and nothing is done at forks and exits; the root's values
// stay.
//
// A move leaves behind what the task ran until then, in the old container and
// above it, where it stays when the old container is removed: values include
// all descendants, those of before too. Writing 0 to usage makes usage and stat
// of that container start again from 0, of no other one; load is not changed.
//
// The kernel brings the run time of a running task up to date with each tick
// and each switch, for its own cpuacct as for what is read here: at a move, up
// to a tick of a running task counts as the new container's, with both.
//
// While there is no server nobody reads, but the scheduler counts on. A server that is
// closed keeps how far each task is credited, beside the totals; the next one, in the same
// boot, credits the rest to the container where it finds the task, in no interval's load.
// Who is not in what was kept has run since 0. It is removed before anything is credited
// by it, so that after a kill nothing is counted twice: then what tasks ran since the last
// checkpoint and until the start is counted for nobody, as is, always, what those ran who
// ended meanwhile.
//
// # Finals
//
// A task's last reading is not its end, and most tasks are never read. Where
// finals come from, best first; the log says at start which it is:
//
//   - A BPF program on the scheduler's last switch away from a task (bpf.go):
//     exact, at a price of some nanoseconds at every switch. Needs CAP_BPF and
//     CAP_PERFMON, and the kernel's own type information for the layout of a task.
//   - The records that taskstats sends at exit (taskstats.go). The kernel makes
//     them when the exit begins, without bringing run time up to date: what is
//     missing is up to a tick, and the end itself. Of processes that ran for 5 ms
//     a quarter was missing, of those that did nothing half, with 250 ticks a
//     second. Needs CAP_NET_ADMIN.
//   - Without either a task that ends is credited as it was read last, each 10 s.
//
// Finals and the events of the host come on different ways, in any order. A task
// that the model lost first is dying until its final comes, and a read waits for
// those, for a moment (grace); a final of a task that the model still has is
// unclaimed. What is not matched after a while is given up, counted, and said.
//
// Where the host's events are polled, tasks that come and go between two polls
// are never known to be anywhere: what they ran is said in the log, and credited
// to nobody. Nor is what a process runs after a thread that is not its first has executed a
// program, up to what the first had run: nothing tells of that exec, and the thread has the
// number and the start of the first one.
//
// # Decisions that SPEC leaves open
//
// A number but 0 written to usage is EINVAL, one of more than 64 bits ERANGE. A
// root can be reset like any other container. User and system time are what the
// ticks found, scaled to the run time as the kernel scales them, so that their
// sum is usage's.
//
// # Cost
//
// A container costs 64 bytes, and 16 more when its stat was read; a task that was
// read some 80 until it ends, one that is never read nothing. A fork costs a look
// at its start time, an exit a look into two tables. A read of usage costs some
// 5 µs for each live task in the container and below, of stat twice that; once in
// an interval all tasks of the host are read, and whenever what was counted is to be
// kept. In between nothing is done.
//
// # Invariants
//
// Each nanosecond that a task ran while somebody counts is credited to one container and those
// above it, once. The value of a container is at least the sum of its children's, as
// long as nobody resets it.
//
// # Synchronization
//
// mu is a leaf below the Tree's locks. It guards what is credited, the tracks,
// and the tables of finals; it is never held over a system call, so Exit and
// File.Read only ever wait for short work. The host is read with no lock at all
// (Prepare, Enforce) or under changeMu (Attach, Bind, Write). A reading is
// applied under View, so that no exit is in between, to the container that the
// track names; an attach changes that, when it has read the task. What a task ran between
// the moment that it is read by an attach, and another reading, can therefore
// never be credited twice or to the old container.
package cpuacct
