package p9srv

import (
	"github.com/hugelgupf/p9/p9"

	"containerfs/p9srv/wire"
)

// dotL is 9P2000.L, what Linux and the p9 library's client speak.
var dotL = &dialect{version: "9P2000.L", appendError: appendRlerror}

// Filled in here since the handlers refer to dotL through the session.
func init() {
	dotL.messages = [256]message{
		8:   {"Tstatfs", decodeFid, quick, (*session).statfs},
		12:  {"Tlopen", decodeLopen, opens, (*session).lopen},
		14:  {"Tlcreate", decodeLcreate, slow, (*session).lcreate},
		16:  {"Tsymlink", decodeSymlink, slow, (*session).symlink},
		18:  {"Tmknod", decodeMknod, slow, (*session).mknod},
		20:  {"Trename", decodeRename, slow, (*session).rename},
		22:  {"Treadlink", decodeFid, quick, (*session).readlink},
		24:  {"Tgetattr", decodeGetattr, quick, (*session).getattr},
		26:  {"Tsetattr", decodeSetattr, slow, (*session).setattr},
		30:  {"Txattrwalk", decodeXattrwalk, quick, (*session).xattr},
		32:  {"Txattrcreate", decodeXattrcreate, quick, (*session).xattr},
		40:  {"Treaddir", decodeRead, asks, (*session).readdir},
		50:  {"Tfsync", decodeFsync, asks, (*session).fsync},
		52:  {"Tlock", decodeLock, quick, (*session).flock},
		54:  {"Tgetlock", decodeGetlock, quick, (*session).getlock},
		70:  {"Tlink", decodeLink, slow, (*session).link},
		72:  {"Tmkdir", decodeMkdir, slow, (*session).mkdir},
		74:  {"Trenameat", decodeRenameat, slow, (*session).renameat},
		76:  {"Tunlinkat", decodeUnlinkat, slow, (*session).unlinkat},
		102: {"Tauth", decodeAuth, quick, (*session).auth},
		104: {"Tattach", decodeAttach, slow, (*session).attach},
		110: {"Twalk", decodeWalk, quick, (*session).walk},
		116: {"Tread", decodeRead, asks, (*session).read},
		118: {"Twrite", decodeWrite, writes, (*session).write},
		120: {"Tclunk", decodeFid, asks, (*session).clunk},
		122: {"Tremove", decodeFid, slow, (*session).remove},
	}
}

func appendRlerror(out []byte, tag uint16, err error) []byte {
	start := len(out)
	errno, _ := errnoOf(err)
	out = wire.Begin(out, 7, tag)
	out = wire.LE.AppendUint32(out, uint32(errno))
	return wire.End(out, start)
}

// The bodies of the T-messages. Names of fields follow the protocol's; where a
// message has a directory, that is fid.

func decodeFid(r *request, d *wire.Decoder) { r.fid = d.U32() }

func decodeLopen(r *request, d *wire.Decoder) { r.fid, r.flags = d.U32(), d.U32() }

func decodeLcreate(r *request, d *wire.Decoder) {
	r.fid, r.name = d.U32(), d.Str()
	r.flags, r.mode, r.gid = d.U32(), d.U32(), d.U32()
}

func decodeSymlink(r *request, d *wire.Decoder) {
	r.fid, r.name, r.name2, r.gid = d.U32(), d.Str(), d.Str(), d.U32()
}

func decodeMknod(r *request, d *wire.Decoder) {
	r.fid, r.name, r.mode = d.U32(), d.Str(), d.U32()
	r.major, r.minor, r.gid = d.U32(), d.U32(), d.U32()
}

func decodeRename(r *request, d *wire.Decoder) { r.fid, r.fid2, r.name = d.U32(), d.U32(), d.Str() }

func decodeGetattr(r *request, d *wire.Decoder) { r.fid, r.valid = d.U32(), d.U64() }

func decodeSetattr(r *request, d *wire.Decoder) {
	r.fid, r.valid = d.U32(), uint64(d.U32())
	r.attr = p9.SetAttr{
		Permissions:      p9.FileMode(d.U32() & 07777),
		UID:              p9.UID(d.U32()),
		GID:              p9.GID(d.U32()),
		Size:             d.U64(),
		ATimeSeconds:     d.U64(),
		ATimeNanoSeconds: d.U64(),
		MTimeSeconds:     d.U64(),
		MTimeNanoSeconds: d.U64(),
	}
}

// Xattr messages are refused whatever they name: their fids count for nothing.
func decodeXattrwalk(_ *request, d *wire.Decoder) { d.U32(); d.U32(); d.Str() }

func decodeXattrcreate(_ *request, d *wire.Decoder) { d.U32(); d.Str(); d.U64(); d.U32() }

func decodeRead(r *request, d *wire.Decoder) { r.fid, r.offset, r.count = d.U32(), d.U64(), d.U32() }

// decodeFsync takes the datasync flag only if it is there: Linux sends it, the
// p9 library's client does not.
func decodeFsync(r *request, d *wire.Decoder) {
	r.fid = d.U32()
	if d.More() {
		d.U32()
	}
}

func decodeLock(r *request, d *wire.Decoder) {
	r.fid = d.U32()
	r.lock = lock{d.U8(), d.U32(), d.U64(), d.U64(), d.U32(), d.Str()}
}

func decodeGetlock(r *request, d *wire.Decoder) {
	r.fid = d.U32()
	r.lock = lock{d.U8(), 0, d.U64(), d.U64(), d.U32(), d.Str()}
}

func decodeLink(r *request, d *wire.Decoder) { r.fid, r.fid2, r.name = d.U32(), d.U32(), d.Str() }

func decodeMkdir(r *request, d *wire.Decoder) {
	r.fid, r.name, r.mode, r.gid = d.U32(), d.Str(), d.U32(), d.U32()
}

func decodeRenameat(r *request, d *wire.Decoder) {
	r.fid, r.name, r.fid2, r.name2 = d.U32(), d.Str(), d.U32(), d.Str()
}

func decodeUnlinkat(r *request, d *wire.Decoder) { r.fid, r.name, r.flags = d.U32(), d.Str(), d.U32() }

// An afid is never made, so it does not count as a fid.
func decodeAuth(r *request, d *wire.Decoder) {
	r.afid, r.name, r.name2, r.uid = d.U32(), d.Str(), d.Str(), d.U32()
}

func decodeAttach(r *request, d *wire.Decoder) {
	r.fid, r.afid, r.name, r.name2, r.uid = d.U32(), d.U32(), d.Str(), d.Str(), d.U32()
}

func decodeWalk(r *request, d *wire.Decoder) {
	r.fid, r.fid2 = d.U32(), d.U32()
	r.names = d.Names(r.nameArray[:])
}

func decodeWrite(r *request, d *wire.Decoder) { r.fid, r.offset, r.data = d.U32(), d.U64(), d.Data() }

func attrMask(bits uint64) p9.AttrMask {
	return p9.AttrMask{
		Mode:        bits&0x1 != 0,
		NLink:       bits&0x2 != 0,
		UID:         bits&0x4 != 0,
		GID:         bits&0x8 != 0,
		RDev:        bits&0x10 != 0,
		ATime:       bits&0x20 != 0,
		MTime:       bits&0x40 != 0,
		CTime:       bits&0x80 != 0,
		INo:         bits&0x100 != 0,
		Size:        bits&0x200 != 0,
		Blocks:      bits&0x400 != 0,
		BTime:       bits&0x800 != 0,
		Gen:         bits&0x1000 != 0,
		DataVersion: bits&0x2000 != 0,
	}
}

func attrBits(m p9.AttrMask) (bits uint64) {
	for i, set := range [...]bool{
		m.Mode, m.NLink, m.UID, m.GID, m.RDev, m.ATime, m.MTime, m.CTime,
		m.INo, m.Size, m.Blocks, m.BTime, m.Gen, m.DataVersion,
	} {
		if set {
			bits |= 1 << i
		}
	}
	return bits
}

func setAttrMask(bits uint64) p9.SetAttrMask {
	return p9.SetAttrMask{
		Permissions:        bits&0x1 != 0,
		UID:                bits&0x2 != 0,
		GID:                bits&0x4 != 0,
		Size:               bits&0x8 != 0,
		ATime:              bits&0x10 != 0,
		MTime:              bits&0x20 != 0,
		CTime:              bits&0x40 != 0,
		ATimeNotSystemTime: bits&0x80 != 0,
		MTimeNotSystemTime: bits&0x100 != 0,
	}
}

// dirType is the d_type that Linux shows in getdents(2).
func dirType(q p9.QID) byte {
	switch {
	case q.Type&p9.TypeDir != 0:
		return 4 // DT_DIR
	case q.Type&p9.TypeSymlink != 0:
		return 10 // DT_LNK
	default:
		return 8 // DT_REG
	}
}

func appendAttr(out []byte, q p9.QID, valid p9.AttrMask, a *p9.Attr) []byte {
	out = wire.LE.AppendUint64(out, attrBits(valid))
	out = wire.AppendQID(out, q)
	out = wire.LE.AppendUint32(out, uint32(a.Mode))
	out = wire.LE.AppendUint32(out, uint32(a.UID))
	out = wire.LE.AppendUint32(out, uint32(a.GID))
	for _, v := range [...]uint64{
		uint64(a.NLink), uint64(a.RDev), a.Size, a.BlockSize, a.Blocks,
		a.ATimeSeconds, a.ATimeNanoSeconds, a.MTimeSeconds, a.MTimeNanoSeconds,
		a.CTimeSeconds, a.CTimeNanoSeconds, a.BTimeSeconds, a.BTimeNanoSeconds,
		a.Gen, a.DataVersion,
	} {
		out = wire.LE.AppendUint64(out, v)
	}
	return out
}
