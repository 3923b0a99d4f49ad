// Load measures file servers that speak 9P2000.L: containerfs, diod exporting a
// cgroup v1 hierarchy of the kernel, and a floor, which answers constants and so
// shows what the wire and this program allow. `make bench` runs it. For moves there is
// another floor, which has the kernel move the task as well: what a server could
// reach that knows nothing.
//
// # Vocabulary
//
// A row is one kind of operation: a sequence of messages, each sent when the
// reply to the one before has come. A load is N connections with D operations
// outstanding on each; whoever has one of these D is a slot, with fids and a tag of
// its own. A target is a server that is measured, a place how it is reached. A
// measurement is one row under one load at one place; all targets are measured in
// turn, and that several times (reps), so that whatever else the machine does falls on
// all of them. What is published are medians of the reps, and ratios of medians.
//
// # What is compared
//
// All targets have the same containers and the same threads in them. The server's
// CPU time is the sum of what the scheduler counts for its threads; what the kernel
// does for its sockets is in there. Under the load 1×1 the server and this program
// share one CPU, so that no target gains from the other one's idle time.
//
// diod runs in a mount namespace of its own, in which alone the hierarchy is mounted.
//
// What it costs to follow the host's forks is compared with bare readers, one for each
// feed that the kernel offers: the proc connector, the same with an event mask (Linux
// 6.6), and tracepoints whose records are in a ring of perf's (tracefs, CAP_PERFMON). The
// ring is looked at every 2 ms, as events gather in containerfs; a reader of the connector
// that does so too shows what of the price is wake-ups. A reader's CPU time is that of its
// process; what the feed costs the kernel is in the forks per second.
package main
