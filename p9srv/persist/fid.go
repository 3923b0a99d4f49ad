package persist

import (
	"slices"

	"github.com/hugelgupf/p9/p9"

	"containerfs/p9srv/wire"
)

// fid is how to come again to what the client's fid names.
type fid struct {
	at    attach
	root  p9.QID // of what was attached to
	path  []string
	qid   p9.QID
	open  bool
	flags uint32
	anew  bool // it was opened again, and not read from 0 since
	stale bool
}

// named are the fids that a request names and that are there before it.
func (r *Relay) named(q *request) (fs [2]*fid) {
	fs[0] = r.fids[q.fid]
	if q.typ != tWalk || q.fid2 == q.fid {
		fs[1] = r.fids[q.fid2]
	}
	return fs
}

// isStale reports whether a request cannot be sent, for what its fid has become.
func (r *Relay) isStale(q *request) bool {
	for _, f := range r.named(q) {
		if f != nil && f.stale {
			return true
		}
	}
	f := r.fids[q.fid]
	switch {
	case f == nil || !f.anew || q.typ != tRead && q.typ != tReaddir:
		return false
	case q.offset == 0:
		f.anew = false
		return false
	}
	return true
}

// done does to the fids what a request that succeeded did to the server's.
func (r *Relay) done(q *request, d wire.Decoder) {
	f := r.fids[q.fid]
	switch q.typ {
	case tAttach:
		qid := d.QID()
		r.fids[q.fid] = &fid{at: q.at, root: qid, qid: qid}
		return
	case tRenameat:
		if from, to := f, r.fids[q.fid2]; from != nil && to != nil {
			r.renamed(from.at, child(from.path, q.name), to, q.name2)
		}
		return
	}
	if f == nil {
		return
	}
	switch q.typ {
	case tWalk:
		n := int(d.U16())
		if n < len(q.names) {
			return // as far as it went: newfid was not made
		}
		to := &fid{at: f.at, root: f.root, path: f.path, qid: f.qid}
		for _, name := range q.names {
			to.path, to.qid = child(to.path, name), d.QID()
		}
		r.fids[q.fid2] = to
	case tLopen, tOpen:
		f.open, f.flags = true, q.flags
	case tLcreate, tCreate:
		f.path, f.qid = child(f.path, q.name), d.QID()
		f.open, f.flags = true, q.flags
	case tRename:
		if to := r.fids[q.fid2]; to != nil {
			r.renamed(f.at, f.path, to, q.name)
		}
	case tWstat:
		if q.name != "" {
			r.renamed(f.at, f.path, &fid{at: f.at, path: child(f.path, "..")}, q.name)
		}
	}
}

// renamed has the fids below a directory's new name be found there.
func (r *Relay) renamed(at attach, from []string, dir *fid, name string) {
	if at.aname != dir.at.aname {
		return
	}
	for _, f := range r.fids {
		if f.at.aname == at.aname && len(f.path) >= len(from) && slices.Equal(f.path[:len(from)], from) {
			f.path = slices.Concat(child(dir.path, name), f.path[len(from):])
		}
	}
}

// child is a path with one more element, in memory of its own. In a tree without links
// ".." is the element before.
func child(path []string, name string) []string {
	switch name {
	case "", ".":
		return path
	case "..":
		return path[:max(len(path)-1, 0)]
	}
	return append(slices.Clip(path), name)
}

// Flags that are for the first time, and one that has a clunk remove the file.
const (
	lFirst  = 0o100 | 0o200 | 0o1000 // O_CREAT, O_EXCL, O_TRUNC
	first   = 0x10                   // OTRUNC
	orclose = 0x40                   // of 9P2000
)

// clunkRemoves reports whether the end of a fid is a change.
func (r *Relay) clunkRemoves(n uint32) bool {
	f := r.fids[n]
	return f != nil && f.open && !r.l && f.flags&orclose != 0
}

// again are the flags to open with once more.
func (f *fid) again(l bool) uint32 {
	if l {
		return f.flags &^ lFirst
	}
	return f.flags &^ first
}
