// Package numtasks is the subsystem that limits how many tasks a container has,
// by the shares of ResGroups (SPEC §14).
//
// # Vocabulary
//
// The usage of a container is the number of tasks in it and below: threads, not
// processes. So a container's tasks count against its ancestors' limits too, as in
// the kernel's pids controller, and a parent's absolute is what its children
// divide.
//
// min_shares is what a container is guaranteed of its parent, max_shares what it
// may have at most; both are parts of the parent's child_shares_divisor. A share
// can be -3, don't care. The absolute of a container, numtasks.limit, is
//
//	parent's absolute × max_shares / parent's child_shares_divisor
//
// rounded down, 0 where the divisor is 0. Don't care propagates: who does not care
// has no limit of its own, nor have those below, whatever their shares say; but
// the limits above hold. The root's absolute is how many tasks the machine can
// have, the lesser of kernel.threads-max and kernel.pid_max at start; none where
// these cannot be read.
//
// min_shares are guarantees towards the siblings, not reservations: they bound
// what the siblings can be guaranteed, and no fork is refused for them.
//
// # What is enforced
//
// Nothing by default: no process can make another's fork fail. A fork that takes
// the usage of the container, or of one above, over its limit is counted as a
// failure in that container, and a limit event tells of it; others are successes.
// With numtasks.policy=kill (default: count) the newcomer is killed besides; a
// thread cannot be killed alone, so with a new thread its whole process ends. Only
// a privileged caller can set that, since what it kills can be anybody's. The
// server, its ancestors and process 1 are never killed. What a scan of the host
// found instead of being told of its fork is counted, but neither a success nor a
// failure; unless the host tells of no forks at all (see JudgeFound).
//
// Where the kernel's pids controller is enabled, and bound to the same hierarchy, a
// fork over a limit fails with EAGAIN instead (see Limiter): a write to shares sets
// pids.max of the container and of those below, and the kernel's refusals count as
// failures when stats is read, and when counts are to be kept: for ever, whereas the kernel
// counts anew after a boot. Version 2 says since Linux 6.11 whose limit it was; else the kernel
// only says where the fork was made, and there the failure is. Nothing tells of them, so there
// is no limit event.
// Who writes pids.max himself has his value until the next write to shares.
//
// Attach is never limited: it can take the usage over the limit.
//
// There is no limit on the rate of forks, so forkrate failures are always 0.
//
// # Writing numtasks.shares
//
// key=value pairs joined by `,`: res, which must be numtasks, min_shares,
// max_shares, child_shares_divisor, each at most once. -1 leaves a value as it is.
// -2, which says that a resource has no such share, is no value of this one. A
// divisor must be a number, for it is what others are parts of. The root has no
// parent to have a share of: its min_shares and max_shares can only be -3. The
// text that is read can be written back.
//
// # Synchronization
//
// The state of a container is guarded by the Tree's mu; its settings are changed
// in Tree.Update under changeMu, its counts by callbacks with mu held. Killing is
// left to a goroutine that lives as long as there is something to kill (package
// backlog).
package numtasks
