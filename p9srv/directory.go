package p9srv

import (
	"io"
	"slices"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"containerfs/p9srv/wire"
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
	room := int(min(r.count, s.msize-wire.HeaderSize-4))
	if f.isSlow() {
		room = min(room, maxSlowRead)
	}
	sizeAt := len(out)
	out = append(out, 0, 0, 0, 0)
	start := len(out)
	offset, full := r.offset, false
	for more := true; more && !full; {
		want := min((room-(len(out)-start))/usualDirent+1, maxDirents)
		got := 0
		out = slices.Grow(out, min(want*usualDirent, room-(len(out)-start)))
		err := list(f.file, offset, want, func(q p9.QID, next uint64, name string) bool {
			if full = len(out)-start+direntSize+len(name) > room; full {
				return false
			}
			out = wire.AppendQID(out, q)
			out = wire.LE.AppendUint64(out, next)
			out = append(out, dirType(q))
			out = wire.AppendString(out, name)
			offset = next
			got++
			return got < want
		})
		if err != nil && err != io.EOF && len(out) == start && !full {
			return nil, err
		}
		more = err == nil && got == want
	}
	if full && len(out) == start {
		return nil, linux.EINVAL // as getdents(2): not even one fits
	}
	wire.LE.PutUint32(out[sizeAt:], uint32(len(out)-start))
	return out, nil
}

// lister is what a File implements that can yield its entries one by one, in
// place of making a list of them.
type lister interface {
	List(offset uint64, yield func(q p9.QID, offset uint64, name string) bool) error
}

// list yields up to so many entries behind an offset.
func list(f p9.File, offset uint64, count int, yield func(q p9.QID, offset uint64, name string) bool) error {
	if l, ok := f.(lister); ok {
		return l.List(offset, yield)
	}
	entries, err := f.Readdir(offset, uint32(count))
	for i := range entries {
		if e := &entries[i]; !yield(e.QID, e.Offset, e.Name) {
			break
		}
	}
	return err
}

func (s *session) mkdir(r *request, out []byte) ([]byte, error) {
	f, err := s.lookupDir(r.fid)
	if err != nil {
		return nil, err
	}
	qid, err := f.file.Mkdir(r.name, p9.FileMode(r.mode), p9.NoUID, p9.GID(r.gid))
	return wire.AppendQID(out, qid), err
}

func (s *session) symlink(r *request, out []byte) ([]byte, error) {
	f, err := s.lookupDir(r.fid)
	if err != nil {
		return nil, err
	}
	qid, err := f.file.Symlink(r.name2, r.name, p9.NoUID, p9.GID(r.gid))
	return wire.AppendQID(out, qid), err
}

func (s *session) mknod(r *request, out []byte) ([]byte, error) {
	f, err := s.lookupDir(r.fid)
	if err != nil {
		return nil, err
	}
	qid, err := f.file.Mknod(r.name, p9.FileMode(r.mode), r.major, r.minor, p9.NoUID, p9.GID(r.gid))
	return wire.AppendQID(out, qid), err
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
	return wire.AppendString(out, target), err
}
