// Package ns is the subsystem that gives every process with new namespaces a
// container of its own (SPEC §10). It measures and limits nothing; its rules make
// the tree of containers follow the tree of namespaces. It has no files.
//
// # Vocabulary
//
// The namespaces of a process are those of its first thread: cgroup, ipc, mnt,
// net, pid, time, user and uts, by the inode numbers of /proc/<pid>/ns. Those that
// its children will get (pid_for_children, time_for_children) are the children's.
//
// A container stands for the namespaces of the process that it was made for; the
// root stands for those of process 1, or the server's own where these cannot be
// seen. What was made by mkdir stands for none.
//
// # When a process is cloned
//
// A process is looked at when it forks, when it is forked and when it executes a
// program. It has new namespaces when no container stands for them from its own up
// to the root, and its parent has others. Then it gets a child of its container,
// node_<pid>, by Tree.Clone, with all of its threads.
//
// unshare(2) by itself is no event: a process that calls it is seen when it forks
// or executes next. Children that it forked meanwhile have its namespaces but are
// where it was before: when one of them is looked at, and the container of its
// parent is a child of its own that stands for them, it joins its parent there.
//
// What this does not see: a process that is gone when it is looked at; namespaces
// that a single thread, not the first, has to itself; a namespace with the inode
// number of one that has ended. Entering existing namespaces with setns(2) is
// taken for new ones where the above says so. A process whose forker has ended is
// compared with the nearest ancestor that lives.
//
// # Rules
//
// A task moves only from a container into a direct child without tasks, and only
// for a privileged caller; mkdir is for privileged callers; everything else is
// EPERM. What the subsystem does by itself passes, and is bounded by the limits
// on containers (SPEC §3): who may make user namespaces, which is everybody on
// many hosts, makes containers here, and max.descendants of the parent bounds
// them. They belong to the server's user, and stay when they are empty: a host that starts
// many has a release agent remove them.
//
// # Synchronization
//
// Callbacks that hold the Tree's mu only put processes into a queue (package backlog).
// Its goroutine looks at them, without any lock, and clones by a change like any other.
// The queue is bounded; what it could not take is counted and logged. What a container stands
// for is written before it can be seen, and never changes.
package ns
