package p9srv

import (
	"github.com/hugelgupf/p9/linux"

	"containerfs/p9srv/wire"
)

func (s *session) getattr(r *request, out []byte) ([]byte, error) {
	f, err := s.lookup(r.fid)
	if err != nil {
		return nil, err
	}
	qid, valid, attr, err := f.file.GetAttr(attrMask(r.valid))
	if err != nil {
		return nil, err
	}
	return appendAttr(out, qid, valid, &attr), nil
}

func (s *session) setattr(r *request, out []byte) ([]byte, error) {
	f, err := s.lookup(r.fid)
	if err != nil {
		return nil, err
	}
	return out, f.file.SetAttr(setAttrMask(r.valid), r.attr)
}

func (s *session) statfs(r *request, out []byte) ([]byte, error) {
	f, err := s.lookup(r.fid)
	if err != nil {
		return nil, err
	}
	st, err := f.file.StatFS()
	if err != nil {
		return nil, err
	}
	out = wire.LE.AppendUint32(out, st.Type)
	out = wire.LE.AppendUint32(out, st.BlockSize)
	for _, v := range [...]uint64{st.Blocks, st.BlocksFree, st.BlocksAvailable, st.Files, st.FilesFree, st.FSID} {
		out = wire.LE.AppendUint64(out, v)
	}
	return wire.LE.AppendUint32(out, st.NameLength), nil
}

// xattr: anything but EOPNOTSUPP would be printed by ls.
func (s *session) xattr(*request, []byte) ([]byte, error) { return nil, linux.EOPNOTSUPP }
