// Package hostproc is the real machine for package tree: its threads, the
// events of their lives, and the mirror, the kernel's own record of where each
// of them belongs.
//
// # Vocabulary
//
// A thread is known by its tid and the clock tick it started in; proc(5) calls
// the latter starttime. A source of events is the kernel's proc connector or,
// where that is refused, polling. A loss is an event that the connector made
// and could not deliver. A resync asks the Model to compare itself with Tasks,
// because events were lost or because there are none. The mirror is a named
// cgroup hierarchy with one directory per css group.
//
// # Invariants
//
// The Model's methods are called by one goroutine, in the order in which the
// kernel queued the events; a resync stands in that order where the loss was
// noticed, and what is received while it runs is delivered behind it. The first
// call is always a resync. Events of one CPU are in order. Events of different
// CPUs are in the order in which the kernel queued them, which can differ a
// little from the order of their time stamps.
//
// A fork's event is queued before fork returns to the parent and before the
// child runs: whoever knows of a task because it was told its pid, and then
// calls Drain, finds the FORK delivered. An exit's event is queued by the
// exiting thread after it has told its parent: who has reaped a child and then
// calls Drain need not find the EXIT delivered (1 in 1,000 on two CPUs); it is
// on its way, and Task says ESRCH. What Drain waits for is what was in the
// socket's queue and in this process at the call, not what comes later, so that
// it returns in a storm that never ends.
//
// While nobody drains, events that come one after the other are let gather for a nap of
// 2 ms (1 ms if that is Urgent), so that a storm wakes the reader 500 times a second and
// not with each event; the first after a pause is delivered at once. Whoever drains takes from the socket
// what is there and does not wait for the reader to wake. So what nobody asks for,
// such as a line of the event log, can be a nap late; what is read is never stale.
//
// # What the events do not say
//
// The parent in a FORK is the child's real_parent: for a thread that is the
// parent of its process, and for a child made with CLONE_PARENT the parent of
// its maker. A FORK has no start time: its stamp bounds it from above.
//
// A FORK is queued before the kernel has put the child into the directories of its
// maker: for a moment the child is shown in the root of every hierarchy (once in
// some 5,000 forks, to who looks when the FORK comes). Nothing marks that moment,
// but a thread that has run is past it, hence Where.
//
// An EXEC by a thread that is not the leader: the kernel ends all other threads
// of the process, the leader included, whose EXIT is delivered; then the thread
// takes over the leader's tid and start time, and the EXEC names only
// that. So after Exec(tgid) the process has exactly one thread, whose tid
// is tgid even if it had been seen to exit, and whose former tid has no EXIT.
//
// An EXIT comes after the thread's tid is free, so that in theory it can follow
// the FORK of another task with that tid, a whole round of tids later.
//
// A thread that has begun to exit is no thread any more for Tasks and Where, before
// its EXIT is delivered, nor for Task at the first look; one that was looked at before
// is, until it has come to its end or its EXIT is delivered. A leader that is dead while other
// threads of its process live is not listed; they are.
//
// # Synchronization
//
// All methods of Host and Mirror may be called concurrently. Host has two
// goroutines, the reader of the socket (or the ticker of polling) and the one
// that calls the Model; Close ends both and waits for them. The reader and those
// who drain receive one at a time, so that batches keep the socket's order. The Model must not
// call Drain or Close from its methods. The locks here are leaves: none is held
// while the Model runs.
package hostproc
