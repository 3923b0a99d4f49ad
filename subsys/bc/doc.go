// Package bc is the subsystem that accounts what containers hold of four
// resources, after UserBeanCounters (SPEC §15).
//
// # Vocabulary
//
// A container's account of a resource has what is held in it and below now, the
// most (maxheld) and the least (minheld) that was seen while it had tasks, a
// barrier and a limit, of which the barrier is never over the limit, and failcnt,
// how often held has crossed one of them upwards. Where one step crosses both, it
// crosses the limit. Each crossing is a limit event. A bound that nobody has set
// is 9223372036854775807, the most that UserBeanCounters can count. Containers
// count in what they are below of.
//
// # What is measured, and how
//
//   - numproc: tasks, that is threads as well, by membership. Exact, at any time.
//   - numfile: file descriptors of processes, by /proc/<pid>/fd. A file that
//     several descriptors are open on counts for each.
//   - physpages: pages that are resident, VmRSS of /proc/<pid>/status. A page that
//     several processes map counts for each.
//   - lockedpages: pages that are locked, VmLck there.
//
// The last three are samples: of a container when its files are read, and once a
// second of all but the root; of the root, which is the whole host, only if it has
// a barrier or a limit. What comes and goes between two samples is not seen. A
// process is where its first thread is, or another if that has ended. Sampling
// takes at most a tenth of one processor: with many processes it comes less often
// than once a second, which is logged. Where the host does not tell of a resource
// its files are not there; a process that it does not tell of holds nothing, and
// their number is logged.
//
// # What is enforced
//
// That no process has more to itself than its container, and those above, may have
// together: the limits of numfile and lockedpages become its RLIMIT_NOFILE and
// RLIMIT_MEMLOCK, both soft and hard, at once and for its children. Below them it
// keeps its own, and gets them back when it leaves or the limit is raised. Whom the
// kernel lets raise its rlimits (CAP_SYS_RESOURCE) has them lowered again within a
// second; CAP_IPC_LOCK locks memory beyond any. A process is where its first thread
// is. The limits of the root bound nobody: its processes are the whole host's. A
// server that has ended leaves rlimits as they are.
//
// With a state directory (Remember) what a process has of its own outlives the server:
// it is kept before the process is lowered, so that it is lost by no kill; where it
// cannot be kept the process is not lowered, and an attach fails. A child's is its
// forker's and has a row of its own within a second. One that is in a container and
// has none at the start, for it was born since, has its parent's, which is the one
// that adopted it where its forker has ended; where that has not been lowered either,
// what the child was born with is all that is known, and it keeps that.
//
// The sum of several processes is not what setrlimit bounds, so it can go over a
// limit, which is told; RLIMIT_NPROC is about all tasks of a user, and RSS has none
// at all, so numproc and physpages are only told of here. The kernel's pids and
// memory controllers keep these where they are enabled and bound to the same
// hierarchy (SPEC §16, see Limiter): numproc.limit is pids.max then, physpages.limit
// is memory.max or memory.limit_in_bytes, and what the kernel answers to that is
// the write's errno. What is in force
// is said at start.
//
// # Synchronization
//
// Accounts are guarded by the Tree's mu: callbacks that hold it count, writes and
// samples change them in Tree.Update. So are the caps of processes; the rlimits
// themselves are set under changeMu, and the rows of what was lowered written.
// Processes are measured without the Tree's locks, one sample at a time. Accounts are
// made when a container first holds something or gets a bound: one that never does
// costs eight bytes.
package bc
