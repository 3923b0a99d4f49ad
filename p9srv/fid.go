package p9srv

import (
	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"containerfs/ops"
	"containerfs/p9srv/wire"
)

// fid is an entry of the fid table. Requests of one fid number are served one
// at a time (session.queues), so what is in it needs no lock; the table does.
type fid struct {
	file  p9.File
	of    *attached
	qid   p9.QID
	open  bool
	flags p9.OpenFlags // of Tlopen or Tlcreate, whole

	// What 9P2000 needs besides:
	name    string // by which it was walked to: see nameOf
	orclose bool   // it is opened to be removed at the end
	readTo  uint64 // the offset at which the last read of the directory ended
	cookie  uint64 // where that is for Readdir
}

// attached is an attach, for as long as there are fids that came from it: what its Files
// know of it, as who asked and what was refused him last, is so much larger than a fid.
type attached struct {
	fids int   // under session.mu
	cost int64 // for how many fids more it counts
}

// For how many fids more an attach counts: one, and one more for so many groups of who asked.
const (
	attachCost   = 15
	groupsForFid = 64
)

func newAttached(c *ops.Caller) *attached {
	return &attached{cost: attachCost + int64(len(c.GIDs)/groupsForFid)}
}

func (f *fid) isDir() bool    { return f.qid.Type&p9.TypeDir != 0 }
func (f *fid) readable() bool { return f.open && f.flags.Mode() != p9.WriteOnly }
func (f *fid) writable() bool { return f.open && f.flags.Mode() != p9.ReadOnly }

func (f *fid) isSlow() bool {
	if f.orclose {
		return true
	}
	s, ok := f.file.(slower)
	return ok && s.Slow()
}

// lookup finds a fid of the table.
func (s *session) lookup(n uint32) (*fid, error) {
	s.mu.Lock()
	f := s.fids[n]
	s.mu.Unlock()
	if f == nil {
		return nil, linux.EBADF
	}
	return f, nil
}

// lookupDir finds a fid that must be a directory.
func (s *session) lookupDir(n uint32) (*fid, error) {
	f, err := s.lookup(n)
	if err == nil && !f.isDir() {
		return nil, linux.ENOTDIR
	}
	return f, err
}

// checkNew reports whether a fid of number n can be made. Only an earlier
// request that names n could change the answer, and those have been served, but
// for the table getting full: insert looks again.
func (s *session) checkNew(n uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n == wire.NoFid || s.fids[n] != nil {
		return linux.EINVAL
	}
	if len(s.fids) >= s.srv.cfg.MaxFids || s.account.fids.Load() >= int64(s.srv.cfg.MaxAllFids) {
		return linux.EMFILE
	}
	return nil
}

// insert puts a new fid into the table, or closes its file.
func (s *session) insert(n uint32, f *fid) error {
	s.mu.Lock()
	cost := int64(1)
	if f.of.fids == 0 {
		cost += f.of.cost
	}
	if s.account.fids.Add(cost) <= int64(s.srv.cfg.MaxAllFids) && len(s.fids) < s.srv.cfg.MaxFids {
		if s.fids == nil {
			s.fids = make(map[uint32]*fid)
		}
		s.fids[n] = f
		f.of.fids++
		s.mostFids = max(s.mostFids, len(s.fids))
		s.mu.Unlock()
		return nil
	}
	s.account.fids.Add(-cost)
	s.mu.Unlock()
	s.close(f.file)
	return linux.EMFILE
}

// gaveUpLocked counts a fid that is in the table no more.
func (s *session) gaveUpLocked(f *fid) {
	cost := int64(1)
	if f.of.fids--; f.of.fids == 0 {
		cost += f.of.cost
	}
	s.account.fids.Add(-cost)
}

// drop takes a fid out of the table and discards it. With an error, too, it is gone.
func (s *session) drop(n uint32) error {
	s.mu.Lock()
	f := s.fids[n]
	delete(s.fids, n)
	s.shrinkFids()
	if f != nil {
		s.gaveUpLocked(f)
	}
	s.mu.Unlock()
	if f == nil {
		return linux.EBADF
	}
	return s.discard(f)
}

// shrinkFids makes the table anew when there were many more fids once: what a map has had
// to hold it keeps the room for. With mu held.
func (s *session) shrinkFids() {
	const few = 256
	if s.mostFids <= few || len(s.fids) > s.mostFids/8 {
		return
	}
	fids := make(map[uint32]*fid, len(s.fids))
	for n, f := range s.fids {
		fids[n] = f
	}
	s.fids, s.mostFids = fids, len(fids)
}

// dropAll empties the table. No worker is running.
func (s *session) dropAll() {
	s.mu.Lock()
	fids := s.fids
	s.fids, s.mostFids = nil, 0
	for _, f := range fids {
		s.gaveUpLocked(f)
	}
	s.mu.Unlock()
	for _, f := range fids {
		s.discard(f)
	}
}

// discard closes the file of a fid that is gone, and removes it if it was opened for that.
func (s *session) discard(f *fid) (err error) {
	defer s.close(f.file)
	if !f.orclose {
		return nil
	}
	defer func() {
		if v := recover(); v != nil {
			s.panicked("remove", v)
			err = linux.EIO
		}
	}()
	return remove(f.file)
}

// remover is what a File implements that can be removed whatever its name is.
type remover interface{ Remove() error }

func remove(f p9.File) error {
	if r, ok := f.(remover); ok {
		return r.Remove()
	}
	return linux.EPERM
}

// close closes a file that no fid has any more. As in close(2) of a 9P mount,
// nobody is told of an error; a panic is like one in any other method.
func (s *session) close(f p9.File) {
	defer func() {
		if v := recover(); v != nil {
			s.panicked("close", v)
		}
	}()
	f.Close()
}
