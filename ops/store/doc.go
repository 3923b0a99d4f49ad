// Package store keeps rows in a state directory, so that they outlive the server
// whatever ends it. It knows nothing of what is in them.
//
// # Vocabulary
//
// A row is a value with a key in a bucket. A change puts rows; each Put gives it
// a number. A commit is one transaction of the database, with everything that was
// put until it began: concurrent changes share commits. A change is kept when a
// commit with its number has succeeded, and never before.
//
// # Invariants
//
//   - What Wait has said is kept is read again by the next Open, or Open fails.
//   - A commit is all or nothing, also when the server is killed within it.
//   - A file that is damaged, truncated, of a newer format or in use is refused,
//     and not a byte of it written. Damage is found because every page that is
//     reachable is looked at, every row has a checksum that is of its key too, and
//     all checksums together have a sum. The free pages are not kept in the file
//     but found anew (bbolt's NoFreelistSync), so there is no list of them to be
//     wrong.
//   - A file of which hardly anything is used is written anew (shrink), and takes the
//     name of the other when it is whole and on disk: in the directory that was opened,
//     wherever that is by now, and only where the other has that name itself. One that
//     somebody has moved away, or that is elsewhere behind a link, stays.
//   - After a commit that failed nothing of it is kept: Undo is called, with the
//     keys, before anything else is committed.
//
// # Subsystems
//
// A subsystem has a bucket of its own by Own. It writes there with Write, which
// returns when that is kept, so that it can do something on the host afterwards
// that it has to be able to undo in another life.
//
// # Synchronization
//
// All methods may be called concurrently. The lock of a Store is a leaf. One
// goroutine commits, and writes the file anew, for which commits wait; Close ends it after a
// last commit. Put never blocks and may
// be called with any lock held, Wait must not be called with a lock that Undo
// takes, but for AwaitInside.
package store
