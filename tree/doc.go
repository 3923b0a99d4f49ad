// Package tree is the model of containerfs: which containers exist, which
// subsystems are bound where, and which container of each hierarchy every task
// of the host is in. It knows no text formats, no users and no protocol, and
// does no I/O of its own: the host is behind the Host and Mirror interfaces.
//
// # Vocabulary
//
// A task is one thread of the host, identified by its tid and its start time; a
// process is a thread group. A container is a node of a hierarchy and has one
// State per subsystem bound to that hierarchy. A hierarchy is a tree of
// containers; every task is in exactly one container of every hierarchy, in its
// root if nobody moved it. The default hierarchy holds the subsystems that are
// bound nowhere, has one container, and is not published.
//
// A css group is one combination of containers, one per hierarchy, shared by
// all tasks that have that combination. A group is written as the list of its
// containers that are not roots, ordered by hierarchy. The group with the empty
// list, number 0, is the root group. It follows that mounting and unmounting a
// hierarchy, which are possible only while its root has no children (or leave
// the tree as it is), change no group and touch no task.
//
// The mirror is the kernel's copy of the groups: a task is in group n when the
// kernel has it in the mirror's directory n. Where the two disagree the mirror
// is right. Without a mirror the events of the host decide.
//
// # Invariants
//
// Check verifies them; every test ends with it.
//
//   - Each live task is in exactly one group, and in that group's list.
//   - A group is linked into its containers if and only if it has tasks. So a
//     container has a task in it if and only if it has a link, and its subtree
//     has one if and only if its populated count is not 0.
//   - Groups are unique per combination and are found by hash.
//   - A subsystem is bound to exactly one hierarchy (the default one included),
//     and every container of that hierarchy has a State of it.
//   - Siblings have distinct names; a children list is in order of creation,
//     which is the order of container ids. Ids and group numbers are never used
//     twice.
//
// # Synchronization
//
// There are two locks, in this order:
//
//   - changeMu, the container_mutex of the original framework, serialises
//     changes: mount, mkdir, rmdir, rename, attach, writes to control files. It
//     may be held over effects on the host. Changes that take microseconds are
//     told apart (change.go), for callers that must not wait for others.
//   - mu guards the model. Events of the host (Fork, Exec, Exit, Resync) and
//     readers take it alone. It is never held over a system call, so neither
//     ever waits for the host, or for a change.
//
// What is only changed with both locks held may be read with either of them.
// Functions with the suffix Locked need mu; those that change the model need it
// for writing. Host.Drain may be called with changeMu held, never with mu:
// delivering events takes mu, and must therefore never take changeMu.
//
// # The path of an attach
//
// Under changeMu (attach.go, move.go): drain the host's events; look the task up on
// the host; ask the caller's Allow; with mu, ask each subsystem's CanAttach and
// find or make the css group, which is one however many hierarchies the attach
// is about; without mu, move the task in the mirror, which is
// the instant at which the kernel decides what its children inherit, then run
// each subsystem's Attach; look at the start time again; drain; with mu, switch
// the model. Tasks forked in between are placed by the mirror (without it by
// their time stamps) and get the effects as well (meanwhile.go). Any failure undoes what
// was done, in reverse, and leaves the model as it was (moveback.go).
//
// # What outlives the server
//
// A Keeper is told of every change at its end, with mu held, and keeps it later. A
// css group is kept before a task is in it: the attach that needs a new one gives up,
// waits outside of both locks, and begins anew. So no task is in what is not kept, and
// Revert can take it away when it cannot be kept. Restore... builds what was kept
// before the first Resync, which then places tasks by the mirror, or by a list. What
// tasks had of their own on the host, before a subsystem changed it, is in a Memory.
//
// # Numbers that are used again
//
// The mirror moves by number. A task that has the number of one that ended during an attach
// may be moved in its place, and until it is put back its children are forked there. Of all
// these the mirror is wrong: they are placed by their events, and put back.
//
// # Fork events that can be wrong
//
// The kernel's fork event names the real parent, which is not the forking task
// for CLONE_PARENT children, nor the forking thread for new threads (SPEC §6).
// The forking task is then a sibling of the child or a thread of the process.
// A Process is therefore mixed when a thread of it, or of a process below it, may
// be in another group than itself; only forks that name a mixed or a moving
// process are looked up in the mirror. Of the processes below, not of the children
// alone: those of a process that ends are adopted by an ancestor, no event says by
// which, and the end itself is told after that.
//
// One whose ancestors are outside of its pid namespace, which has been entered with setns(2), is
// adopted by the first process there. That is known from when the orphan is looked at: what it
// forks before with CLONE_PARENT is where that process is, until the next audit.
//
// # Exits that are late, or never told
//
// A task tells of its own exit when nothing shows it any more. Who has looked at the host
// and found it gone removes it before (RemoveGone), and notes that its exit is owed, so that
// it is not taken for that of the next task with its number.
//
// A thread that is not the first, and executes a program, gets the process's number when the
// others have ended, the first one included, and tells of the exec when the program is
// loaded. Until then its own number shows nobody. If it ends before that, all that is told is
// that the process's number has ended, for the second time. An attach that finds the number in
// use, after the first one's exit, gives it to that thread at once.
//
// The exits of the others can be told after the exec. Nothing says which thread executed the
// program, only how many exits there are: one less than there were threads. So all of them are
// owed until so many have come (debt), and then none. Linux 5.8 and later exchange the two
// numbers: an exit of the first one that is told after that is told with the other's. Where that
// comes before the exec, it seems to be the first one that lives: so the mirror is asked, where
// they can have been in different groups. A scan that was made after the exec shows nothing of
// the others: the first thread of a process that a scan has shown is looked at when its exit is
// told.
package tree
