// Package kernfs works in the kernel's cgroup file systems: it makes, removes
// and lists directories there, moves tasks between them, and reads and writes
// their control files.
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
// RESOLVE_NO_XDEV: whatever a name says, nothing outside of the directory is
// touched. No descriptor outlives the call that opened it, except the Dir's
// own, so that ten thousand cgroups cost one descriptor.
//
// Errors are *OpError and carry operation, path and the kernel's errno, which
// errors.Is finds.
//
// # Synchronization
//
// A Dir has no state but its descriptor. All methods can be called
// concurrently, except Close, which must be the last.
package kernfs
