package p9srv

import (
	"fmt"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"containerfs/p9srv/wire"
)

// auth refuses in the way that clients take for "no authentication needed".
func (s *session) auth(*request, []byte) ([]byte, error) { return nil, errNoAuth }

// noAuth is what Plan 9 has instead of a number.
const noAuth = "authentication not required"

var errNoAuth = fmt.Errorf("%w: %s", linux.ENOENT, noAuth)

// attach makes a fid for a tree, with who the peer is at this moment.
func (s *session) attach(r *request, out []byte) ([]byte, error) {
	if r.afid != wire.NoFid {
		return nil, linux.EINVAL
	}
	if err := s.checkNew(r.fid); err != nil {
		return nil, err
	}
	caller, err := s.peer.caller(r.name, r.uid)
	if err != nil {
		s.srv.cfg.Audit.Denied(s.peer.from, "attach refused", "peer", s.peer.name,
			"uname", r.name, "n_uname", int32(r.uid), "aname", r.name2, "err", err)
		return nil, err
	}
	file, err := s.srv.cfg.Attacher.Attach(caller, r.name2)
	if err != nil {
		return nil, err
	}
	qid, _, _, err := file.GetAttr(p9.AttrMask{Mode: true})
	if err != nil {
		s.close(file)
		return nil, err
	}
	if err := s.insert(r.fid, &fid{file: file, of: newAttached(caller), qid: qid, name: rootName}); err != nil {
		return nil, err
	}
	return wire.AppendQID(out, qid), nil
}

// walk makes newfid for the file that the names lead to from fid. An open fid
// may be walked from, which 9P forbids and Linux does, but not moved.
func (s *session) walk(r *request, out []byte) ([]byte, error) {
	from, err := s.lookup(r.fid)
	if err != nil {
		return nil, err
	}
	switch {
	case r.fid2 != r.fid:
		err = s.checkNew(r.fid2)
	case from.open:
		err = linux.EINVAL
	case len(r.names) == 0:
		return wire.LE.AppendUint16(out, 0), nil
	}
	if err != nil {
		return nil, err
	}

	qids, file, err := from.file.Walk(r.names)
	if err != nil {
		if len(qids) == 0 || len(r.names) == 0 {
			return nil, err
		}
		return appendQIDs(out, qids), nil // as far as it went; newfid is not made
	}
	to := &fid{file: file, of: from.of, qid: from.qid, name: from.name}
	if n := len(r.names); n > 0 {
		to.qid, to.name = qids[n-1], r.names[n-1]
		if isDot(to.name) {
			to.name = ""
		}
	}
	if r.fid2 == r.fid {
		s.close(from.file)
		*from = *to
	} else if err := s.insert(r.fid2, to); err != nil {
		return nil, err
	}
	return appendQIDs(out, qids[:len(r.names)]), nil
}

func appendQIDs(out []byte, qids []p9.QID) []byte {
	out = wire.LE.AppendUint16(out, uint16(len(qids)))
	for _, q := range qids {
		out = wire.AppendQID(out, q)
	}
	return out
}

func (s *session) clunk(r *request, out []byte) ([]byte, error) { return out, s.drop(r.fid) }

// remove removes the very file that the fid was walked to, whatever its name is
// by now, and clunks the fid in any case.
func (s *session) remove(r *request, out []byte) ([]byte, error) {
	f, err := s.lookup(r.fid)
	if err != nil {
		return nil, err
	}
	defer s.drop(r.fid) // also if Remove panics
	f.orclose = false
	return out, remove(f.file)
}
