package p9srv

import (
	"9fans.net/go/plan9"
	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
)

// wstat is Twstat: all of what it asks for, or nothing. A field that is the same as
// before is not touched, so that a whole record can come back.
func (s *session) wstat(r *request, out []byte) ([]byte, error) {
	f, err := s.lookup(r.fid)
	if err != nil {
		return nil, err
	}
	d, err := plan9.UnmarshalDir(r.data)
	if err != nil {
		return nil, linux.EINVAL
	}
	if d.IsNull() { // stat(5): commit what was written
		if !f.open || f.isDir() {
			return out, nil
		}
		return out, f.file.FSync()
	}
	qid, _, attr, err := f.file.GetAttr(statMask)
	if err != nil {
		return nil, err
	}
	now := statOf(s.nameOf(f), qid, &attr)
	valid, set, err := changes(d, &now)
	if err != nil {
		return nil, err
	}
	rename := d.Name != "" && d.Name != now.Name
	if rename {
		if err := s.renameInPlace(f, d.Name); err != nil {
			return nil, err
		}
	}
	if valid == (p9.SetAttrMask{}) {
		return out, nil
	}
	// An attribute that is refused takes the name back: the other way round, a
	// group given away might not be had again.
	if err := f.file.SetAttr(valid, set); err != nil {
		if rename {
			if undo := s.renameInPlace(f, now.Name); undo != nil {
				s.log.Error("a name could not be taken back", "name", d.Name, "was", now.Name, "err", undo)
			}
		}
		return nil, err
	}
	return out, nil
}

// changes compares a stat record with that of now: what is to be set, but for the name.
func changes(d, now *plan9.Dir) (valid p9.SetAttrMask, set p9.SetAttr, err error) {
	var null plan9.Dir
	null.Null()
	switch {
	case d.Type != null.Type && d.Type != now.Type, d.Dev != null.Dev && d.Dev != now.Dev,
		d.Qid != null.Qid && d.Qid != now.Qid:
		return valid, set, linux.EPERM // nobody can change these, nor muid, which Linux sends with every name
	case d.Length != null.Length && d.Length != 0 && d.Length != now.Length:
		return valid, set, linux.EINVAL // 0 is a truncation, which is ignored
	}
	if d.Mode != null.Mode && d.Mode != now.Mode {
		if (d.Mode^now.Mode)&^0o777 != 0 {
			return valid, set, linux.EPERM // other bits than of permission
		}
		valid.Permissions, set.Permissions = true, p9.FileMode(d.Mode&0o777)
	}
	if d.Uid != "" && d.Uid != now.Uid {
		uid, err := userNames.id(d.Uid)
		if err != nil {
			return valid, set, err
		}
		valid.UID, set.UID = true, p9.UID(uid)
	}
	if d.Gid != "" && d.Gid != now.Gid {
		gid, err := groupNames.id(d.Gid)
		if err != nil {
			return valid, set, err
		}
		valid.GID, set.GID = true, p9.GID(gid)
	}
	if d.Atime != null.Atime && d.Atime != now.Atime {
		valid.ATime, valid.ATimeNotSystemTime, set.ATimeSeconds = true, true, uint64(d.Atime)
	}
	if d.Mtime != null.Mtime && d.Mtime != now.Mtime {
		valid.MTime, valid.MTimeNotSystemTime, set.MTimeSeconds = true, true, uint64(d.Mtime)
	}
	return valid, set, nil
}

// renameInPlace gives a file another name in its directory.
func (s *session) renameInPlace(f *fid, name string) error {
	_, dir, err := f.file.Walk([]string{".."})
	if err != nil {
		return err
	}
	defer s.close(dir)
	if err := f.file.Rename(dir, name); err != nil {
		return err
	}
	f.name = name
	return nil
}
