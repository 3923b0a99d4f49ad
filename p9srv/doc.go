// Package p9srv serves p9.Files over the network: listeners, who the peer is,
// sessions, fid and tag tables, and the dialects of 9P.
//
// # Vocabulary
//
// A session is what one connection carries. A message is one request (T) or
// its reply (R); the bytes of a message on the wire are a frame. A tag names a
// request until its reply; a fid names a file until it is clunked. A fid is
// open after Topen or Tcreate (Tlopen, Tlcreate). A dialect is a version of
// the protocol: a table with one row per message, how errors are told, and
// nothing else; the fid table, the tag table and what a request does to a File
// are shared. An attach gives a fid the root of a tree, and the identity that
// the kernel knows of the peer.
//
// An Export is what a listener serves: where, to whom, and on which terms. A peer is
// the other end of a connection; who it is, is told at each attach (SPEC §17), and
// what a fid may do is what its attach may.
//
// 9P2000.L is what Linux speaks; 9P2000 (classic*.go) what Plan 9, its ports and
// 9pfuse do. Where the latter has no counterpart in a File:
//
//   - A stat record has the name that a directory has now, found in its parent; and
//     users as names of the server's passwd and group, digits without one.
//   - A directory is read in whole records, from its start or from where the last read
//     ended: any other offset is EINVAL.
//   - Tcreate with DMDIR is Mkdir, Walk and Open; its maker may have it open, whatever its mode.
//   - ORCLOSE is honoured for all that Remove is, at clunk, a new version and hang-up.
//   - Twstat is all or nothing; length 0 is a truncation, which is ignored like OTRUNC.
//   - Errors are strerror(3)'s texts, which Linux and 9pfuse turn into numbers.
//
// A listener's Export can be changed while it listens (Server.Prepare), and a listener
// be withdrawn. A connection goes on as long as it would be let in on the same terms.
//
// # Invariants
//
//   - No size on the wire is believed before it has been compared with its bound,
//     and no buffer grows because of what was announced, only of what arrived.
//   - Every File that a session was given is closed exactly once: by clunk,
//     remove, a walk that moves its fid, a new version, or the session's end.
//   - Requests that name the same fid number run in order of arrival, never two
//     at once; therefore the fields of a fid need no lock.
//   - A tag is outstanding until its reply is in the buffer of replies. An Rflush
//     is never before the reply to the request that it names.
//   - A session's memory is bounded by Config's limits, but for what its Files keep,
//     which is theirs to bound, whatever the peer sends and whether it reads or not. So
//     is what all sessions of an account, an address or a uid, have of requests that wait
//     for workers, beyond which nothing is read, and of replies that were not taken: who
//     wants more waits, and who left his lying is hung up on.
//   - A system call that the runtime is not told of does not wait. A read of a unix socket
//     can, where the kernel does not refuse the descriptors that peers send (package sock):
//     then the runtime is told.
//   - uid 0 is never the outcome of a doubt: a peer that cannot be told for
//     certain is refused with EACCES.
//   - Nothing is read from a peer that its listener does not allow, and no frame
//     from one whose TLS handshake has not ended well.
//
// # Concurrency
//
// One goroutine per connection (the session's loop) reads all that has arrived,
// serves its frames in order and writes all replies in one call. A request that
// can change state or wait for the host is a worker's: a goroutine that has nothing
// else meanwhile, so that it holds up no other fid's. So is whatever came later for a fid
// that a worker still has. The exception is a write that its File does now, since that takes
// microseconds (WriteNow). A worker's reply goes into the next write of the
// loop; when the loop is waiting for input, the worker writes it, with those that
// its fellows finished meanwhile. The window of outstanding requests bounds
// the number of workers; while it is full, the loop does not read. Of an account's workers, and
// of all together, only so many serve at once (serveSlowly): each may need a thread.
//
// The loop waits for its workers before the session ends; Server.Shutdown waits
// for all sessions.
//
// Lock order: Server.mu and session.mu are never held together, and neither is
// held over a call of a File, a system call or a write to the peer. (The one
// exception is setting a read deadline, which does not block.) The lock of an
// account is a leaf.
//
// # What a File must be
//
// More than the p9 library asks for, since nothing here locks on its behalf:
//
//   - Its methods may be called from any goroutine, those of different Files (also of
//     one node) at once; those of one File are never called two at a time, but
//     for being an argument of another's Link, Rename or RenameAt.
//   - Walk takes up to 16 names, with ".." and whatever else a client puts there. When
//     the i-th fails it returns the qids before it and the error. The slice of
//     names is the session's again afterwards. Walk(nil) is a clone.
//   - Open is called once, with all flags of Tlopen; not for writing on a directory.
//   - WriteAt is given at most 16 KiB less a header of what one Twrite has.
//   - ReadAt may be called several times for one Tread, until it returns less than
//     it was asked for. Readdir goes on behind the Offset of an entry.
//   - Directories are told by the type in the qid; nothing of a directory is called on
//     what is none.
//   - Readdir needs no Open: 9P2000 looks for names in directories that are not open.
//   - Optional: Remove() error removes what the File stands for, whatever its name
//     (without it, Tremove and ORCLOSE are EPERM); List is Readdir without a list;
//     Slow() bool says that open for reading, read, fsync or close may wait for the host;
//     WriteNow is WriteAt if that takes microseconds, else ops.ErrWouldWait.
//     Whatever else changes state is taken for slow.
//
// # Errors
//
//	broken framing (size under 7 or over the bound)   close
//	R-message, request before version                 close
//	tag of an outstanding request                     close: any answer would be taken for the first one's
//	Tversion with a malformed body                    close: there is no dialect to answer in
//	any other malformed body                          EINVAL with the frame's tag
//	NOTAG on anything but Tversion                    EINVAL
//	unknown message type                              EOPNOTSUPP
//	unknown fid                                       EBADF
//	newfid in use, fid opened twice                   EINVAL
//	I/O on a fid not opened for it                    EBADF
//	Tread of a directory, Tlopen of one for writing   EISDIR
//	directory operation on a file                     ENOTDIR
//	fid table full                                    EMFILE
//	xattr messages                                    EOPNOTSUPP
//	Tauth                                             ENOENT, or "authentication not required"
//	msize under 4096                                  EMSGSIZE, no version agreed
//	a File that panics                                EIO, logged with its stack; the connection ends
package p9srv
