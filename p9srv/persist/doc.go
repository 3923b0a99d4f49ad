// Package persist keeps a 9P session over the loss of its connection, for clients that
// take such a loss for the end, as Linux and 9pfuse do. A Relay stands between a client
// and a server. When the connection to the server is lost it makes another, and there
// gives each of the client's fids what it was: attached, walked to, opened. The idea
// and its name are those of Cardona, Cox and Van Hensbergen, Persistent 9P Sessions for
// Plan 9.
//
// # Vocabulary
//
// A request is outstanding until it is answered. It is held while there is no
// connection that it could be sent on. It is repeatable when it does no harm if it is
// done twice. A fid is known when the Relay has seen how it came to be. It is stale while
// what it named is not there, may not be attached to, or is another: a file is told by its
// qid, which no other has. Each connection may find it again.
//
// # What a client notices
//
//   - A request waits while there is no connection, at most Config.Patience: then it
//     is EIO. The connection is tried for as long as the client is there, at times that differ
//     from one Relay to the next: who has lost a server with others does not come back in the
//     same moment as these.
//   - What was sent and not answered when the connection was lost is sent again if it is
//     repeatable; else it is EIO, since nobody knows whether it was done.
//   - What names a stale fid is ESTALE, but for clunk and remove, which end it.
//   - An open file is opened anew, so that its contents are new. Who does not read it from
//     offset 0 first gets ESTALE, not the one's beginning and the other's end.
//   - A flush of what is held ends it. Clunks need no connection, but for those that remove
//     (ORCLOSE).
//   - A server at which nothing can be attached to is none, and is tried again.
//
// # Invariants
//
//   - Requests that name one fid go to the server in the order in which they came.
//   - No request is sent on a connection before all fids that are known have been put
//     back on it, or are stale.
//   - Each request is answered once, unless it was flushed.
//
// # Concurrency
//
// Serve reads from the client. Each connection to a server has a goroutine that reads, and
// each stream, to a server or to the client, one that writes; one more goroutine makes the
// next connection while there is none. All state is under Relay.mu, which is not held
// over I/O. Who reads waits while what he would add to is too long.
package persist
