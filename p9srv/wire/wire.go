// Package wire is the bytes of 9P messages: size[4] type[1] tag[2], then fields, which are
// little-endian numbers, strings behind their length in two bytes, and data behind its
// length in four. What the fields of a message are, its reader knows.
package wire

import (
	"encoding/binary"

	"github.com/hugelgupf/p9/p9"
)

// HeaderSize is size[4] type[1] tag[2].
const HeaderSize = 7

// What stands for none.
const (
	NoTag uint16 = 0xffff
	NoFid uint32 = 0xffffffff
	NoUID uint32 = 0xffffffff
)

// MaxWalk is the most elements that a walk may name.
const MaxWalk = 16

// Decoder takes fields off the front of a frame's body. Running past the end
// makes it bad, and everything after that is zero.
type Decoder struct {
	b   []byte
	bad bool
}

// Decode begins with the first field of a body.
func Decode(body []byte) Decoder { return Decoder{b: body} }

// Finish reports whether the body held exactly what was taken from it.
func (d *Decoder) Finish() bool { return !d.bad && len(d.b) == 0 }

// Bad reports whether more was taken than the body held.
func (d *Decoder) Bad() bool { return d.bad }

// More reports whether something is left.
func (d *Decoder) More() bool { return len(d.b) > 0 }

// Take takes n bytes. They stay those of the frame.
func (d *Decoder) Take(n int) []byte {
	if len(d.b) < n {
		d.b, d.bad = nil, true
		return nil
	}
	p := d.b[:n]
	d.b = d.b[n:]
	return p
}

// U8 takes one byte.
func (d *Decoder) U8() uint8 {
	if p := d.Take(1); p != nil {
		return p[0]
	}
	return 0
}

// U16 takes two bytes.
func (d *Decoder) U16() uint16 {
	if p := d.Take(2); p != nil {
		return binary.LittleEndian.Uint16(p)
	}
	return 0
}

// U32 takes four bytes.
func (d *Decoder) U32() uint32 {
	if p := d.Take(4); p != nil {
		return binary.LittleEndian.Uint32(p)
	}
	return 0
}

// U64 takes eight bytes.
func (d *Decoder) U64() uint64 {
	if p := d.Take(8); p != nil {
		return binary.LittleEndian.Uint64(p)
	}
	return 0
}

// Str takes a string.
func (d *Decoder) Str() string { return string(d.Take(int(d.U16()))) }

// Names takes count[2] and as many strings, for which there is room.
func (d *Decoder) Names(room []string) []string {
	n := int(d.U16())
	if n > len(room) {
		d.b, d.bad = nil, true
		return nil
	}
	for i := range n {
		room[i] = d.Str()
	}
	return room[:n]
}

// Data takes count[4] and as many bytes. They stay those of the frame.
func (d *Decoder) Data() []byte {
	n := d.U32()
	if uint64(n) > uint64(len(d.b)) {
		d.b, d.bad = nil, true
		return nil
	}
	return d.Take(int(n))
}

// QID takes type[1] version[4] path[8].
func (d *Decoder) QID() p9.QID {
	return p9.QID{Type: p9.QIDType(d.U8()), Version: d.U32(), Path: d.U64()}
}

// LE is the order of a number's bytes.
var LE = binary.LittleEndian

// AppendString appends a string, of which the length fits.
func AppendString(out []byte, s string) []byte {
	return append(LE.AppendUint16(out, uint16(len(s))), s...)
}

// AppendQID appends what Decoder.QID takes.
func AppendQID(out []byte, q p9.QID) []byte {
	out = append(out, byte(q.Type))
	out = LE.AppendUint32(out, q.Version)
	return LE.AppendUint64(out, q.Path)
}

// Begin appends the header of a message whose size is not known yet.
func Begin(out []byte, typ uint8, tag uint16) []byte {
	return append(out, 0, 0, 0, 0, typ, byte(tag), byte(tag>>8))
}

// End fills in the size of the message that begins at start.
func End(out []byte, start int) []byte {
	LE.PutUint32(out[start:], uint32(len(out)-start))
	return out
}
