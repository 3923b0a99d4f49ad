// Package cpuset is the subsystem that says on which CPUs the tasks of a
// container run, and in which memory nodes their memory is (SPEC §11).
//
// # Vocabulary
//
// What was written to a container's cpus or mems is configured. What is in force
// is what the file shows: the configured set cut to what is in force in the
// parent; where that leaves nothing, the parent's itself. In a root the CPUs and
// nodes that are online are in force. So, as long as nothing goes offline, the
// two are the same. An offline CPU stays configured and comes back with it, and
// a set that lost all it had takes its nearest ancestor's that has something.
//
// A member is a task in a container that is not a root. Its origin is the mask
// that it had in the root, before it left it, or that its forker had; unknown
// for a task that was found in a container when the server started, unless an
// earlier one kept it (Remember), and for one whose forker the kernel does not name.
//
// # Effect on the host
//
// The affinity mask of a member is within the cpus in force. It is set when the
// task is attached, for all members when the cpus in force change, and by Enforce,
// once a second, for members that took bits outside: no event tells of a
// sched_setaffinity. A mask within cpus is the member's own business until then.
// A task that goes back to the root has its origin restored, or all online CPUs
// where that is unknown. Tasks in the root are never touched.
//
// A mask is read back after it was set. Where the kernel has cut it, for its own
// cpuset controller leaves the task no more, the log says so. Where the kernel
// refuses, an attach fails and is undone, and a write to cpus names in the log
// whom it missed.
//
// Memory follows only where memory_migrate is set: then the pages of a process
// whose first thread is attached, or is a member when mems change, move from the
// old nodes to the new ones. Where new pages come from is not limited: that takes
// the kernel's own cpuset controller.
//
// # Decisions that SPEC leaves open
//
// A CPU or node that is not online is what the machine lacks: EINVAL, found
// before any other rule is looked at, but after EACCES for a root's file. A number
// too big for any machine is the same. The root's exclusive flags start as 1, as
// the original's do: no container could have them otherwise. They can be cleared,
// since a root is only asked whether its children are still contained. The online
// sets are read again before each write and by each Enforce, and not by reads,
// which must not wait for the host.
//
// # Synchronization
//
// The state of a container, and which task is a member with what origin, are
// guarded by the Tree's mu, and are changed by callbacks that hold it or, under
// changeMu, in Tree.Update. Effects on the host run under changeMu without mu;
// only Enforce looks at masks with neither, and looks again with changeMu before
// it sets one. Page migrations run in a goroutine of their own, without any lock
// (see migrator).
//
// An event can tell of a child between the steps of an attach. So an origin is
// noted before the mask is set: a child whose event comes earlier was forked with
// the old mask. And an origin that was restored is kept until the next change,
// for children whose forks are told of before the attach is committed.
package cpuset
