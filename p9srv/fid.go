package p9srv

import (
	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
)

// fid is an entry of the fid table. Requests of one fid number are served one
// at a time (session.queues), so what is in it needs no lock; the table does.
type fid struct {
	file  p9.File
	qid   p9.QID
	open  bool
	flags p9.OpenFlags // of Tlopen or Tlcreate, whole
}

func (f *fid) isDir() bool    { return f.qid.Type&p9.TypeDir != 0 }
func (f *fid) readable() bool { return f.open && f.flags.Mode() != p9.WriteOnly }
func (f *fid) writable() bool { return f.open && f.flags.Mode() != p9.ReadOnly }

func (f *fid) isSlow() bool {
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
	if n == noFid || s.fids[n] != nil {
		return linux.EINVAL
	}
	if len(s.fids) >= s.srv.cfg.MaxFids {
		return linux.EMFILE
	}
	return nil
}

// insert puts a new fid into the table, or closes its file.
func (s *session) insert(n uint32, f *fid) error {
	s.mu.Lock()
	if len(s.fids) < s.srv.cfg.MaxFids {
		if s.fids == nil {
			s.fids = make(map[uint32]*fid)
		}
		s.fids[n] = f
		s.mu.Unlock()
		return nil
	}
	s.mu.Unlock()
	s.close(f.file)
	return linux.EMFILE
}

// drop takes a fid out of the table and closes its file.
func (s *session) drop(n uint32) error {
	s.mu.Lock()
	f := s.fids[n]
	delete(s.fids, n)
	s.mu.Unlock()
	if f == nil {
		return linux.EBADF
	}
	s.close(f.file)
	return nil
}

// dropAll empties the table. No worker is running.
func (s *session) dropAll() {
	s.mu.Lock()
	fids := s.fids
	s.fids = nil
	s.mu.Unlock()
	for _, f := range fids {
		s.close(f.file)
	}
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
