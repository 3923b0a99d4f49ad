package tests

import (
	"encoding/binary"
	"io"
	"testing"
)

// Messages of 9P2000.L as bytes, for clients that no library would be.

const (
	rlerror = 7
	tlopen  = 12
	tversn  = 100
	tattach = 104
	rattach = 105
	twalk   = 110
	tread   = 116
	twrite  = 118
	tclunk  = 120
	tmkdir  = 72
)

const (
	noTag = uint16(0xffff)
	noFID = uint32(0xffffffff)
)

// frame makes a message of its fields: integers of their own width, strings
// with their length before them, byte slices as they are.
func frame(kind byte, tag uint16, fields ...any) []byte {
	b := []byte{0, 0, 0, 0, kind}
	b = binary.LittleEndian.AppendUint16(b, tag)
	for _, f := range fields {
		switch f := f.(type) {
		case uint8:
			b = append(b, f)
		case uint16:
			b = binary.LittleEndian.AppendUint16(b, f)
		case uint32:
			b = binary.LittleEndian.AppendUint32(b, f)
		case uint64:
			b = binary.LittleEndian.AppendUint64(b, f)
		case string:
			b = binary.LittleEndian.AppendUint16(b, uint16(len(f)))
			b = append(b, f...)
		case []byte:
			b = append(b, f...)
		default:
			panic("frame: a field of no wire type")
		}
	}
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	return b
}

func versionFrame() []byte { return frame(tversn, noTag, uint32(8192), "9P2000.L") }

func attachFrame(tag uint16, fid uint32, aname string) []byte {
	return frame(tattach, tag, fid, noFID, "nobody", aname, ^uint32(0))
}

// readFrame reads one message and returns its kind and what follows the tag.
func readFrame(t testing.TB, r io.Reader) (kind byte, body []byte, err error) {
	t.Helper()
	head := make([]byte, 7)
	if _, err := io.ReadFull(r, head); err != nil {
		return 0, nil, err
	}
	size := binary.LittleEndian.Uint32(head)
	if size < 7 || size > 1<<20 {
		t.Fatalf("the server sent a frame of %d bytes", size)
	}
	body = make([]byte, size-7)
	_, err = io.ReadFull(r, body)
	return head[4], body, err
}
