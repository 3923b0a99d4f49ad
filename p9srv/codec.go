package p9srv

import (
	"encoding/binary"

	"github.com/hugelgupf/p9/p9"
)

// headerSize is size[4] type[1] tag[2].
const headerSize = 7

const (
	noTag uint16 = 0xffff
	noFid uint32 = 0xffffffff
	noUID uint32 = 0xffffffff
)

// maxWalk is the most elements that a walk may name.
const maxWalk = 16

// decoder takes fields off the front of a frame's body. Running past the end
// makes it bad, and everything after that is zero.
type decoder struct {
	b   []byte
	bad bool
}

// finish reports whether the body held exactly what was taken from it.
func (d *decoder) finish() bool { return !d.bad && len(d.b) == 0 }

func (d *decoder) take(n int) []byte {
	if len(d.b) < n {
		d.b, d.bad = nil, true
		return nil
	}
	p := d.b[:n]
	d.b = d.b[n:]
	return p
}

func (d *decoder) u8() uint8 {
	if p := d.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (d *decoder) u16() uint16 {
	if p := d.take(2); p != nil {
		return binary.LittleEndian.Uint16(p)
	}
	return 0
}

func (d *decoder) u32() uint32 {
	if p := d.take(4); p != nil {
		return binary.LittleEndian.Uint32(p)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if p := d.take(8); p != nil {
		return binary.LittleEndian.Uint64(p)
	}
	return 0
}

func (d *decoder) str() string { return string(d.take(int(d.u16()))) }

// data takes count[4] and as many bytes. They stay those of the frame.
func (d *decoder) data() []byte {
	n := d.u32()
	if uint64(n) > uint64(len(d.b)) {
		d.b, d.bad = nil, true
		return nil
	}
	return d.take(int(n))
}

var le = binary.LittleEndian

func appendString(out []byte, s string) []byte {
	return append(le.AppendUint16(out, uint16(len(s))), s...)
}

func appendQID(out []byte, q p9.QID) []byte {
	out = append(out, byte(q.Type))
	out = le.AppendUint32(out, q.Version)
	return le.AppendUint64(out, q.Path)
}

// beginReply appends the header of a reply whose size is not known yet.
func beginReply(out []byte, typ uint8, tag uint16) []byte {
	return append(out, 0, 0, 0, 0, typ, byte(tag), byte(tag>>8))
}

// endReply fills in the size of the reply that begins at start.
func endReply(out []byte, start int) []byte {
	le.PutUint32(out[start:], uint32(len(out)-start))
	return out
}
