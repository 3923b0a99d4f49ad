// Package ops is what a client sees: the name space of SPEC §2 as p9.Files, with
// names, modes, owners and text, over the model of package tree.
//
// # Vocabulary
//
// An attachment is one Tattach: who it is for, and the node that is its root. A node is a
// place in the name space: a container, one of its control files, or one of the fixed
// files and directories around them. A file is a fid's view of a node, and the only
// implementation of p9.File here (readOnly refuses what changes something). A row
// describes one control file; the rows that a container has follow from its hierarchy's
// subsystems and are its table. A deed is what a caller did or wanted to: its outcome is
// what told makes the reply, the audit line and the status file of. To keep is to have in
// the state directory, for another server.
//
// # Invariants
//
//   - Every rule is decided once, here or in tree, whatever the dialect.
//   - A check that depends on the model is made under the lock of the act: the
//     permission of a change inside the change (Allow), that of a walk or an open
//     in the same View as the look-up.
//   - The rules never move what a client has moved since its last exec, nor the
//     server, its ancestors and pid 1 (see Classifier).
//   - A caller's identity is the attachment's and never changes (SPEC §17).
//   - A refusal changes nothing.
//   - What files hold for reads to come is bounded for each user of a peer: EMFILE.
//   - qid.path is unique and never used again: it is made of a container's id,
//     or of a task's tid and start time.
//   - What outlives the server is kept by the Journal before it is acknowledged, and
//     before a client is shown it; what cannot be kept is undone.
//
// # State
//
// A change of the tree puts the rows of what it changed, as they are at its end, into
// the Journal, with the tree's locks held; told waits for its number outside of them,
// and look for that of what was seen. Package store commits whatever was put until a
// commit begins. A row is all that is kept of one thing (a hierarchy with its root, a
// container, a css group, a subsystem's root state), so that restoring after a start
// and undoing after a commit that failed are the same: the model is made what rows
// say. What a subsystem measures is put now and then (Checkpoint). Without a Journal
// nothing waits.
//
// # Synchronization
//
// Attributes (owner, mode, times) live in tree.Container.Data and in what New
// makes for fixed files. They are changed with both of the tree's locks held and
// may be read with either. A file's own fields are its session's: requests on one
// fid are served in order, one at a time. What a file reads of the model it reads
// in one tree.View, so that one read is one consistent value. The lock of the
// Classifier's queue is a leaf, and who delivers the host's events waits for nothing else
// of it; its worker is an ordinary caller of the tree. Who must not wait, as the loop of a
// session that has others' requests behind this one, writes by WriteNow: a command that
// takes microseconds is done, of any other nothing (row.now).
//
// Of who is not privileged one change that can take long waits for the tree's lock at a time
// (turns), and one file is measured that tells of many processes: whatever one user asks for,
// others wait for one of his.
//
// # Errors
//
// Methods of files return linux.Errno, log the reason (of a denial as a warning, of any
// other refusal at debug level), and keep it for the caller (StatusName).
package ops
