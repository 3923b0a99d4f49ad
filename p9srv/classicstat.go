package p9srv

import (
	"io"

	"9fans.net/go/plan9"
	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"containerfs/p9srv/wire"
)

var statMask = p9.AttrMask{Mode: true, UID: true, GID: true, ATime: true, MTime: true, Size: true}

// usualStat is the size of a usual stat record, as usualDirent is.
const usualStat = 64

// statOf is the stat record of a file.
func statOf(name string, qid p9.QID, attr *p9.Attr) plan9.Dir {
	d := plan9.Dir{
		Qid:   plan9.Qid{Path: qid.Path, Vers: qid.Version, Type: byte(qid.Type) & plan9.QTDIR},
		Mode:  plan9.Perm(attr.Mode & 0o777),
		Atime: uint32(attr.ATimeSeconds),
		Mtime: uint32(attr.MTimeSeconds),
		Name:  name,
		Uid:   userNames.of(uint32(attr.UID)),
		Gid:   groupNames.of(uint32(attr.GID)),
	}
	d.Muid = d.Uid // nobody notes who wrote last
	if qid.Type&p9.TypeDir != 0 {
		d.Mode |= plan9.DMDIR
	} else {
		d.Length = attr.Size
	}
	return d
}

// nameOf is the name that a file has now. A File does not know its own, and the
// one that a fid was walked by is wrong after .. and after a rename: that of a
// directory is looked for in its parent. Where that cannot be searched, and for
// other files, it is the name of the walk.
func (s *session) nameOf(f *fid) string {
	if !f.isDir() || f.name == rootName {
		return f.name
	}
	if f.name != "" {
		qids, file, err := f.file.Walk([]string{"..", f.name})
		if err == nil {
			s.close(file)
			if qids[1].Path == f.qid.Path {
				return f.name
			}
		}
	}
	qids, up, err := f.file.Walk([]string{".."})
	if err != nil {
		return f.name
	}
	defer s.close(up)
	if qids[0].Path == f.qid.Path {
		return rootName
	}
	for offset := uint64(0); ; {
		entries, err := up.Readdir(offset, maxDirents)
		if err != nil || len(entries) == 0 {
			return f.name
		}
		for _, e := range entries {
			if offset = e.Offset; e.QID.Path == f.qid.Path && !isDot(e.Name) {
				f.name = e.Name
				return f.name
			}
		}
	}
}

// rootName is the name of what somebody has attached to.
const rootName = "/"

func isDot(name string) bool { return name == "." || name == ".." }

// stat is Tstat.
func (s *session) stat(r *request, out []byte) ([]byte, error) {
	f, err := s.lookup(r.fid)
	if err != nil {
		return nil, err
	}
	qid, _, attr, err := f.file.GetAttr(statMask)
	if err != nil {
		return nil, err
	}
	d := statOf(s.nameOf(f), qid, &attr)
	b, err := d.Bytes()
	return append(wire.LE.AppendUint16(out, uint16(len(b))), b...), err
}

// readAny is Tread: of a directory it gives stat records.
func (s *session) readAny(r *request, out []byte) ([]byte, error) {
	if f, err := s.lookup(r.fid); err != nil || !f.isDir() {
		return s.read(r, out)
	}
	return s.readRecords(r, out)
}

// readRecords puts as many whole stat records into the reply as there is room
// for. It begins at the start of the directory or where the last read ended. As
// it costs a walk for each, it is a short read at a large msize.
func (s *session) readRecords(r *request, out []byte) ([]byte, error) {
	f, err := s.lookup(r.fid)
	if err != nil {
		return nil, err
	}
	cookie := f.cookie
	switch {
	case !f.readable():
		return nil, linux.EBADF
	case r.offset == 0:
		cookie = 0
	case r.offset != f.readTo:
		return nil, linux.EINVAL
	}
	room := int(min(r.count, s.msize-wire.HeaderSize-4, maxSlowRead))
	sizeAt := len(out)
	out = append(out, 0, 0, 0, 0)
	start := len(out)
	for full := false; !full; {
		want := min((room-(len(out)-start))/usualStat+1, maxDirents)
		entries, err := f.file.Readdir(cookie, uint32(want))
		if err != nil && err != io.EOF && len(out) == start {
			return nil, err
		}
		for i := range entries {
			e := &entries[i]
			if !isDot(e.Name) {
				var record []byte
				if record, err = s.recordOf(f.file, e); err != nil {
					if len(out) == start {
						return nil, err
					}
					break // the next read tells it
				}
				if full = len(out)-start+len(record) > room; full {
					break
				}
				out = append(out, record...)
			}
			cookie = e.Offset
		}
		if full && len(out) == start {
			return nil, linux.EINVAL // as getdents(2): not even one fits
		}
		if err != nil || len(entries) < want {
			break
		}
	}
	n := len(out) - start
	f.cookie, f.readTo = cookie, r.offset+uint64(n)
	wire.LE.PutUint32(out[sizeAt:], uint32(n))
	return out, nil
}

// recordOf is the stat record of an entry, or nothing if that is gone. Who may list a
// directory but not search it sees names.
func (s *session) recordOf(dir p9.File, e *p9.Dirent) ([]byte, error) {
	d := plan9.Dir{Qid: plan9.Qid{Path: e.QID.Path, Type: byte(e.QID.Type) & plan9.QTDIR}, Name: e.Name, Uid: "?", Gid: "?", Muid: "?"}
	d.Mode = plan9.Perm(d.Qid.Type) << 24
	_, file, err := dir.Walk([]string{e.Name})
	if err == nil {
		defer s.close(file)
		var qid p9.QID
		var attr p9.Attr
		if qid, _, attr, err = file.GetAttr(statMask); err == nil {
			d = statOf(e.Name, qid, &attr)
		}
	}
	switch errno, _ := errnoOf(err); {
	case err == nil, errno == linux.EACCES:
		return d.Bytes()
	case errno == linux.ENOENT, errno == linux.ENODEV:
		return nil, nil
	}
	return nil, err
}
