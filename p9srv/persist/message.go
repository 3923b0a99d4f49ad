package persist

import (
	"errors"
	"time"

	"containerfs/p9srv/wire"
)

// Types of T-messages whose meaning matters here; a reply's is one more. No number means
// one thing in 9P2000 and another in 9P2000.L.
const (
	tStatfs    = 8
	tLopen     = 12
	tLcreate   = 14
	tRename    = 20
	tReadlink  = 22
	tGetattr   = 24
	tXattrwalk = 30
	tReaddir   = 40
	tFsync     = 50
	tGetlock   = 54
	tLink      = 70
	tRenameat  = 74
	tVersion   = 100
	tAuth      = 102
	tAttach    = 104
	tFlush     = 108
	tWalk      = 110
	tOpen      = 112
	tCreate    = 114
	tRead      = 116
	tClunk     = 120
	tRemove    = 122
	tStat      = 124
	tWstat     = 126
)

// statName is how many bytes of Twstat are between the fid and the name: two sizes, then
// type[2] dev[4] qid[13] mode[4] atime[4] mtime[4] length[8].
const statName = 2 + 2 + 2 + 4 + 13 + 4 + 4 + 4 + 8

// Types of the replies that tell of an error.
const (
	rLerror = 7
	rError  = 107
)

// What is told to clients: the number, and the words where there are none.
const (
	eIO    = 5
	eStale = 116
)

var words = map[uint32]string{eIO: "Input/output error", eStale: "Stale file handle"}

// repeatable are those that do no harm if they are done twice, on a connection where the
// first time left nothing.
var repeatable = [256]bool{
	tStatfs: true, tLopen: true, tReadlink: true, tGetattr: true, tXattrwalk: true, tReaddir: true,
	tFsync: true, tGetlock: true, tVersion: true, tAuth: true, tAttach: true, tWalk: true, tOpen: true,
	tRead: true, tClunk: true, tStat: true,
}

// request is a T-message of the client's.
type request struct {
	typ   uint8
	tag   uint16
	seq   uint64      // in the order in which they came
	frame []byte      // nil when it is not needed any more
	sent  bool        // on the connection that there is
	timer *time.Timer // runs while it is held

	fid     uint32
	fid2    uint32   // newfid, or the other directory; wire.NoFid if there is none
	oldtag  uint16   // of a flush
	flushes *request // which that is, if it was sent
	names   []string
	name    string
	name2   string
	flags   uint32 // to open with
	offset  uint64
	at      attach
}

// attach is what was attached to, and as whom.
type attach struct {
	uname, aname string
	uid          uint32 // wire.NoUID in 9P2000
}

var errMessage = errors.New("malformed message")

// parse reads of a frame what matters here. It is the server who judges the rest.
func parse(frame []byte, l bool) (*request, error) {
	q := &request{typ: frame[4], tag: wire.LE.Uint16(frame[5:]), fid: wire.NoFid, fid2: wire.NoFid}
	d := wire.Decode(frame[wire.HeaderSize:])
	switch q.typ {
	case tVersion, tAuth:
	case tFlush:
		q.oldtag = d.U16()
	case tAttach:
		q.fid, _, q.at = d.U32(), d.U32(), attach{d.Str(), d.Str(), wire.NoUID}
		if l {
			q.at.uid = d.U32()
		}
	case tWalk:
		q.fid, q.fid2, q.names = d.U32(), d.U32(), d.Names(make([]string, wire.MaxWalk))
	case tLopen:
		q.fid, q.flags = d.U32(), d.U32()
	case tOpen:
		q.fid, q.flags = d.U32(), uint32(d.U8())
	case tLcreate:
		q.fid, q.name, q.flags = d.U32(), d.Str(), d.U32()
	case tCreate:
		q.fid, q.name, _, q.flags = d.U32(), d.Str(), d.U32(), uint32(d.U8())
	case tRead, tReaddir:
		q.fid, q.offset = d.U32(), d.U64()
	case tRename:
		q.fid, q.fid2, q.name = d.U32(), d.U32(), d.Str()
	case tRenameat:
		q.fid, q.name, q.fid2, q.name2 = d.U32(), d.Str(), d.U32(), d.Str()
	case tLink:
		q.fid, q.fid2 = d.U32(), d.U32()
	case tWstat:
		q.fid, _, q.name = d.U32(), d.Take(statName), d.Str()
	default:
		q.fid = d.U32()
	}
	if d.Bad() {
		return nil, errMessage
	}
	return q, nil
}

// appendError appends the reply that tells of an error.
func appendError(out []byte, l bool, tag uint16, errno uint32) []byte {
	start := len(out)
	if l {
		return wire.End(wire.LE.AppendUint32(wire.Begin(out, rLerror, tag), errno), start)
	}
	return wire.End(wire.AppendString(wire.Begin(out, rError, tag), words[errno]), start)
}

// appendEmpty appends a message without fields.
func appendEmpty(out []byte, typ uint8, tag uint16) []byte {
	start := len(out)
	return wire.End(wire.Begin(out, typ, tag), start)
}

// isError reports whether a reply tells of an error.
func isError(typ uint8) bool { return typ == rLerror || typ == rError }
