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
// Nothing. A container's sum is not what setrlimit bounds: RLIMIT_NPROC is about
// all tasks of a user, RLIMIT_NOFILE and RLIMIT_MEMLOCK about one process by
// itself, so as many processes as a container has could each have all of it; and
// RSS has no limit at all. To pretend by lowering these would change processes for
// good without keeping what the files say. The kernel's pids and memory
// controllers keep numproc and physpages where they are enabled (SPEC §16). It is
// said at start.
//
// # Synchronization
//
// Accounts are guarded by the Tree's mu: callbacks that hold it count, writes and
// samples change them in Tree.Update. Processes are measured without the Tree's
// locks, one sample at a time. Accounts are made when a container first holds
// something or gets a bound: one that never does costs eight bytes.
package bc
