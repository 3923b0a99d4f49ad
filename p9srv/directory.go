package p9srv

import (
	"io"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
)

const (
	// direntSize is the size of a directory entry without its name.
	direntSize = 13 + 8 + 1 + 2

	// A File is asked for so many entries at a time: the first of what is left
	// of the reply's room divided by a usual entry, bounded by the second.
	usualDirent = direntSize + 16
	maxDirents  = 512
)

// readdir puts as many whole entries into the reply as there is room for.
func (s *session) readdir(r *request, out []byte) ([]byte, error) {
	f, err := s.lookupDir(r.fid)
	if err != nil {
		return nil, err
	}
	if !f.readable() {
		return nil, linux.EBADF
	}
	room := int(min(r.count, s.msize-headerSize-4))
	if f.isSlow() {
		room = min(room, maxSlowRead)
	}
	sizeAt := len(out)
	out = append(out, 0, 0, 0, 0)
	start := len(out)
	offset := r.offset
	for full := false; !full; {
		want := min((room-(len(out)-start))/usualDirent+1, maxDirents)
		entries, err := f.file.Readdir(offset, uint32(want))
		if err != nil && err != io.EOF && len(out) == start {
			return nil, err
		}
		for i := range entries {
			e := &entries[i]
			if len(out)-start+direntSize+len(e.Name) > room {
				full = true
				break
			}
			out = appendQID(out, e.QID)
			out = le.AppendUint64(out, e.Offset)
			out = append(out, dirType(e.QID))
			out = appendString(out, e.Name)
			offset = e.Offset
		}
		if full && len(out) == start {
			return nil, linux.EINVAL // as getdents(2): not even one fits
		}
		if err != nil || len(entries) < want {
			break
		}
	}
	le.PutUint32(out[sizeAt:], uint32(len(out)-start))
	return out, nil
}

func (s *session) mkdir(r *request, out []byte) ([]byte, error) {
	f, err := s.lookupDir(r.fid)
	if err != nil {
		return nil, err
	}
	qid, err := f.file.Mkdir(r.name, p9.FileMode(r.mode), p9.NoUID, p9.GID(r.gid))
	return appendQID(out, qid), err
}

func (s *session) symlink(r *request, out []byte) ([]byte, error) {
	f, err := s.lookupDir(r.fid)
	if err != nil {
		return nil, err
	}
	qid, err := f.file.Symlink(r.name2, r.name, p9.NoUID, p9.GID(r.gid))
	return appendQID(out, qid), err
}

func (s *session) mknod(r *request, out []byte) ([]byte, error) {
	f, err := s.lookupDir(r.fid)
	if err != nil {
		return nil, err
	}
	qid, err := f.file.Mknod(r.name, p9.FileMode(r.mode), r.major, r.minor, p9.NoUID, p9.GID(r.gid))
	return appendQID(out, qid), err
}

func (s *session) link(r *request, out []byte) ([]byte, error) {
	dir, err := s.lookupDir(r.fid)
	if err != nil {
		return nil, err
	}
	target, err := s.lookup(r.fid2)
	if err != nil {
		return nil, err
	}
	return out, dir.file.Link(target.file, r.name)
}

func (s *session) unlinkat(r *request, out []byte) ([]byte, error) {
	f, err := s.lookupDir(r.fid)
	if err != nil {
		return nil, err
	}
	return out, f.file.UnlinkAt(r.name, r.flags)
}

func (s *session) renameat(r *request, out []byte) ([]byte, error) {
	from, err := s.lookupDir(r.fid)
	if err != nil {
		return nil, err
	}
	to, err := s.lookupDir(r.fid2)
	if err != nil {
		return nil, err
	}
	return out, from.file.RenameAt(r.name, to.file, r.name2)
}

// rename is about the file that the fid stands for, not about a name of it.
func (s *session) rename(r *request, out []byte) ([]byte, error) {
	f, err := s.lookup(r.fid)
	if err != nil {
		return nil, err
	}
	dir, err := s.lookupDir(r.fid2)
	if err != nil {
		return nil, err
	}
	return out, f.file.Rename(dir.file, r.name)
}

func (s *session) readlink(r *request, out []byte) ([]byte, error) {
	f, err := s.lookup(r.fid)
	if err != nil {
		return nil, err
	}
	target, err := f.file.Readlink()
	return appendString(out, target), err
}
