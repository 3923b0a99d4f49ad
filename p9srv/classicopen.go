package p9srv

import (
	"9fans.net/go/plan9"
	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"containerfs/p9srv/wire"
)

// classicFlags are those of an open mode. Truncation is the File's business only in
// that a directory cannot be; OCEXEC is the client's own.
func classicFlags(mode uint32) (p9.OpenFlags, error) {
	const known = 3 | plan9.OTRUNC | plan9.OCEXEC | plan9.ORCLOSE | plan9.ODIRECT
	if mode&^known != 0 {
		return 0, linux.EINVAL
	}
	if mode&3 == plan9.OEXEC {
		return p9.ReadOnly, nil
	}
	return p9.OpenFlags(mode & 3), nil
}

// openTruncate is O_TRUNC of Linux, which a File may refuse.
const openTruncate p9.OpenFlags = 0o1000

// open is Topen.
func (s *session) open(r *request, out []byte) ([]byte, error) {
	f, err := s.lookup(r.fid)
	if err != nil {
		return nil, err
	}
	flags, err := classicFlags(r.flags)
	switch {
	case err != nil:
		return nil, err
	case f.open:
		return nil, linux.EINVAL
	case f.isDir() && (flags != p9.ReadOnly || r.flags&plan9.OTRUNC != 0):
		return nil, linux.EISDIR
	case !f.isDir() && r.flags&3 == plan9.OEXEC:
		// Access(2) of 9pfuse asks in this way.
		if _, _, attr, err := f.file.GetAttr(p9.AttrMask{Mode: true}); err != nil {
			return nil, err
		} else if attr.Mode&0o111 == 0 {
			return nil, linux.EACCES
		}
	}
	if _, ok := f.file.(remover); !ok && r.flags&plan9.ORCLOSE != 0 {
		return nil, linux.EPERM
	}
	how := flags
	if r.flags&plan9.OTRUNC != 0 {
		how |= openTruncate
	}
	qid, iounit, err := f.file.Open(how)
	if err != nil {
		return nil, err
	}
	f.open, f.flags, f.orclose = true, flags, r.flags&plan9.ORCLOSE != 0
	return wire.LE.AppendUint32(wire.AppendQID(out, qid), iounit), nil
}

// create is Tcreate: it moves the fid from the directory to what it makes in it.
func (s *session) create(r *request, out []byte) ([]byte, error) {
	f, err := s.lookupDir(r.fid)
	if err != nil {
		return nil, err
	}
	flags, err := classicFlags(r.flags)
	dir := r.mode&plan9.DMDIR != 0
	switch {
	case err != nil:
		return nil, err
	case f.open:
		return nil, linux.EINVAL
	case dir && (flags != p9.ReadOnly || r.flags&plan9.OTRUNC != 0):
		return nil, linux.EISDIR
	case r.mode&(plan9.DMSYMLINK|plan9.DMDEVICE|plan9.DMNAMEDPIPE|plan9.DMSOCKET|plan9.DMAUTH|plan9.DMMOUNT) != 0:
		return nil, linux.EPERM
	}
	made := fid{of: f.of, open: true, flags: flags, name: r.name, orclose: r.flags&plan9.ORCLOSE != 0}
	var iounit uint32
	if dir {
		made.file, made.qid, err = s.makeDir(f.file, r.name, p9.FileMode(r.mode&0o777))
	} else {
		made.file, made.qid, iounit, err = f.file.Create(r.name, flags, p9.FileMode(r.mode&0o777), p9.NoUID, p9.NoGID)
	}
	if err != nil {
		return nil, err
	}
	s.close(f.file)
	*f = made
	return wire.LE.AppendUint32(wire.AppendQID(out, f.qid), iounit), nil
}

// makeDir makes a directory and opens it. Whoever made it may have it open, whatever
// its mode lets others: Linux' open(2) and create(5) say the same.
func (s *session) makeDir(parent p9.File, name string, mode p9.FileMode) (p9.File, p9.QID, error) {
	made, err := parent.Mkdir(name, mode, p9.NoUID, p9.NoGID)
	if err != nil {
		return nil, made, err
	}
	qids, file, err := parent.Walk([]string{name})
	if err != nil {
		return nil, made, err
	}
	if qids[0].Path != made.Path { // renamed already, and another one made
		s.close(file)
		return nil, made, linux.ENOENT
	}
	if _, _, err := file.Open(p9.ReadOnly); err != nil {
		if errno, _ := errnoOf(err); errno != linux.EACCES {
			remove(file) // as if it had not been made
			s.close(file)
			return nil, made, err
		}
	}
	return file, made, nil
}
