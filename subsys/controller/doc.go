// Package controller has the controllers of the host's kernel as subsystems, of
// version 1 and of version 2 of its cgroups (SPEC §16).
//
// # Vocabulary
//
// A trunk is a hierarchy of the kernel that has controllers which were asked for:
// one for each of version 1, or one for several that the host has mounted together;
// one for all of version 2. Its base is the directory containerfs-<id> that this
// server made there, below the kernel's root or below a directory that was delegated
// to the server. A node is the directory of a container, below its parent's, and
// named by the container's id. In version 2 a container's tasks are in a leaf of its
// node, since a directory has either tasks or directories with controllers.
//
// The origin of a task is the directory that it was in before it first entered a
// container: its path, and the kernel's number for it. Children have their forker's.
//
// # What happens to a task
//
// A task in the root container is wherever the host has put it; nothing is done to
// it. Entering a container moves it to the node, going back to the root moves it to
// its origin, or to the base if that is gone, is another directory by now, or is not
// known. Children are where the kernel forks them. The files of the root container
// are the base's.
//
// A task that is in neither the kernel's root nor the base was put there by
// somebody: it is taken away for a privileged caller only, and the log says so.
// What systemd or docker do for a task by its cgroup ends then, until it comes back.
//
// In version 2 the kernel moves processes: a single one of several threads cannot be
// attached (EOPNOTSUPP), wherever one of its controllers is bound.
//
// # Files
//
// A subsystem has the files that the base has with its name as prefix, whatever the
// kernel's version. They pass through: one read of the kernel's file, one write, and
// the kernel's errno. No lock is held over either, but over a change of `devices`. The
// subsystem `cgroup` has those of version 2's own files that move nothing: events, freeze,
// kill, pressure, stat.
//
// # Invariants
//
//   - Directories are made, changed and removed only in the base and below. Two
//     things are changed above it, in version 2: what the parent hands down, where a
//     controller that was asked for is missing there, which the log says and which
//     stays; and in a delegated directory the server itself moves to `server`.
//   - All controllers of a trunk that are bound are bound to one hierarchy.
//   - An origin is recorded before its task is moved, and kept before the attach
//     succeeds. Those of children are kept within a second.
//   - A node's directory goes with its container: at rmdir, or within seconds if the
//     kernel still has tasks there that are on their way out. What somebody else has
//     put there goes to the base then. At the end all tasks go back to their origins
//     and the base goes, unless the directories are to be kept for the next server.
//
// # What others do there
//
// Once a second some of the nodes are compared with their containers: a directory
// that somebody removed is made again, with what clients have set there; tasks that
// somebody moved out or in are named in the log, and left where they are, for a
// directory says only what limits apply. Which container a task is in is the
// mirror's to say. Attached again to where it is, a task is put right.
//
// # Synchronization
//
// What makes, removes and moves runs under changeMu. The leader of a trunk, the
// first of its subsystems that is bound, is the one that acts in callbacks. Origins
// are guarded by the Tree's mu. Reads and writes of files take a node from a View
// and hold nothing then, but for what notes the setting that a write has made.
package controller
