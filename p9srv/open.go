package p9srv

import (
	"io"
	"math"
	"slices"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"containerfs/p9srv/wire"
)

// A read is done in pieces that double, so that a reply grows with what there
// is to read and not with what was asked for.
const (
	firstPiece = 4 << 10
	lastPiece  = 64 << 10
)

// maxSlowRead is the most that a worker's read returns, header and all: a short
// read is in order, and a window full of them stays bounded at any msize.
const maxSlowRead = 32<<10 - wire.HeaderSize - 4

func (s *session) lopen(r *request, out []byte) ([]byte, error) {
	f, err := s.lookup(r.fid)
	if err != nil {
		return nil, err
	}
	flags := p9.OpenFlags(r.flags)
	switch {
	case f.open:
		return nil, linux.EINVAL
	case f.isDir() && flags.Mode() != p9.ReadOnly:
		return nil, linux.EISDIR
	}
	qid, iounit, err := f.file.Open(flags)
	if err != nil {
		return nil, err
	}
	f.open, f.flags = true, flags
	return wire.LE.AppendUint32(wire.AppendQID(out, qid), iounit), nil
}

// lcreate moves the fid from the directory to the file that it makes in it.
func (s *session) lcreate(r *request, out []byte) ([]byte, error) {
	f, err := s.lookupDir(r.fid)
	if err != nil {
		return nil, err
	}
	if f.open {
		return nil, linux.EINVAL
	}
	flags := p9.OpenFlags(r.flags)
	file, qid, iounit, err := f.file.Create(r.name, flags, p9.FileMode(r.mode), p9.NoUID, p9.GID(r.gid))
	if err != nil {
		return nil, err
	}
	s.close(f.file)
	*f = fid{file: file, of: f.of, qid: qid, open: true, flags: flags}
	return wire.LE.AppendUint32(wire.AppendQID(out, qid), iounit), nil
}

func (s *session) read(r *request, out []byte) ([]byte, error) {
	f, err := s.lookup(r.fid)
	switch {
	case err != nil:
		return nil, err
	case f.open && f.isDir():
		return nil, linux.EISDIR
	case !f.readable():
		return nil, linux.EBADF
	case r.offset > math.MaxInt64-uint64(r.count):
		return nil, linux.EINVAL
	}
	count := int(min(r.count, s.msize-wire.HeaderSize-4))
	if f.isSlow() {
		count = min(count, maxSlowRead)
	}
	sizeAt := len(out)
	out = append(out, 0, 0, 0, 0)
	start := len(out)
	for piece := firstPiece; len(out)-start < count; piece = min(2*piece, lastPiece) {
		piece = min(piece, count-(len(out)-start))
		out = slices.Grow(out, piece)
		n, err := f.file.ReadAt(out[len(out):len(out)+piece], int64(r.offset)+int64(len(out)-start))
		out = out[:len(out)+n]
		if err != nil && err != io.EOF && len(out) == start {
			return nil, err
		}
		if err != nil || n < piece {
			break
		}
	}
	wire.LE.PutUint32(out[sizeAt:], uint32(len(out)-start))
	return out, nil
}

func (s *session) write(r *request, out []byte) ([]byte, error) {
	f, err := s.lookup(r.fid)
	switch {
	case err != nil:
		return nil, err
	case !f.writable():
		return nil, linux.EBADF
	case r.offset > math.MaxInt64:
		return nil, linux.EINVAL
	}
	var n int
	if r.now {
		n, err = f.file.(prompter).WriteNow(r.data, int64(r.offset))
	} else {
		n, err = f.file.WriteAt(r.data, int64(r.offset))
	}
	if err != nil && n <= 0 {
		return nil, err
	}
	return wire.LE.AppendUint32(out, uint32(n)), nil
}

func (s *session) fsync(r *request, out []byte) ([]byte, error) {
	f, err := s.lookup(r.fid)
	if err != nil {
		return nil, err
	}
	if !f.open {
		return nil, linux.EBADF
	}
	return out, f.file.FSync()
}

func (s *session) flock(r *request, out []byte) ([]byte, error) {
	f, err := s.lookup(r.fid)
	if err != nil {
		return nil, err
	}
	l := &r.lock
	status, err := f.file.Lock(int(int32(l.pid)), p9.LockType(l.typ), p9.LockFlags(l.flags), l.start, l.length, l.client)
	return append(out, byte(status)), err
}

// getlock says that nothing stands in the way: p9.File cannot be asked.
func (s *session) getlock(r *request, out []byte) ([]byte, error) {
	if _, err := s.lookup(r.fid); err != nil {
		return nil, err
	}
	l := &r.lock
	out = append(out, byte(p9.Unlock))
	out = wire.LE.AppendUint64(out, l.start)
	out = wire.LE.AppendUint64(out, l.length)
	out = wire.LE.AppendUint32(out, l.pid)
	return wire.AppendString(out, l.client), nil
}
