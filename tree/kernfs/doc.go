// Package kernfs works in file systems of the kernel's by descriptors. In those of
// cgroups it makes, removes and lists directories, moves tasks between them, and reads
// and writes their control files. Of procfs it has an instance that nobody else can hold
// up (Proc), for the packages that read it.
//
// # Vocabulary
//
// A Dir is a directory of a cgroup file system, held by a descriptor. A named
// hierarchy is a cgroup v1 hierarchy without controllers; the kernel keeps it
// for as long as somebody has it open or it has directories of its own, and
// finds it again by its name. It needs no mount point: OpenNamed gives a
// detached mount, which shows nowhere. Where the kernel can (6.0, favordynmods) tasks
// are moved in it without waiting for what the other CPUs are about.
//
// # Invariants
//
// Everything is reached from a Dir's descriptor with openat2 and
// RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_MAGICLINKS and
// RESOLVE_NO_XDEV, or where the kernel lacks that name by name with the same refusals:
// whatever a name says, nothing outside of the directory is touched. A Dir keeps its own descriptor and, for the moves to come, up to 512 of the
// files that it has moved tasks by (Held); no other one outlives the call that opened it.
// So the number of cgroups makes no difference.
//
// Errors are *OpError and carry operation, path and the kernel's errno, which
// errors.Is finds.
//
// # Synchronization
//
// All methods of a Dir can be called concurrently, except Close, which must be the last.
// So can those of a Held.
package kernfs
