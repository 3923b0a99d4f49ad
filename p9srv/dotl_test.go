package p9srv

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"testing"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"containerfs/p9srv/wire"
)

// TestDecodeRows reads the body of each T-message, in which every field's bytes differ.
func TestDecodeRows(t *testing.T) {
	body := func(layout string) (b []byte) {
		for i, f := range layout {
			switch f {
			case 's':
				b = append(b, 1, 0, byte('A'+i))
			default:
				b = append(b, bytes.Repeat([]byte{byte(i + 1)}, int(f-'0'))...)
			}
		}
		return b
	}
	const w = 0x01010101 // times the field's place
	for _, tt := range []struct {
		typ    uint8
		layout string
		want   request
	}{
		{8, "4", request{fid: w}},
		{12, "44", request{fid: w, flags: 2 * w}},
		{14, "4s444", request{fid: w, name: "B", flags: 3 * w, mode: 4 * w, gid: 5 * w}},
		{16, "4ss4", request{fid: w, name: "B", name2: "C", gid: 4 * w}},
		{18, "4s4444", request{fid: w, name: "B", mode: 3 * w, major: 4 * w, minor: 5 * w, gid: 6 * w}},
		{20, "44s", request{fid: w, fid2: 2 * w, name: "C"}},
		{22, "4", request{fid: w}},
		{24, "48", request{fid: w, valid: 0x0202020202020202}},
		{26, "4444488888", request{fid: w, valid: 2 * w, attr: p9.SetAttr{
			Permissions: 3 * w & 07777, UID: 4 * w, GID: 5 * w, Size: 0x0606060606060606,
			ATimeSeconds: 0x0707070707070707, ATimeNanoSeconds: 0x0808080808080808,
			MTimeSeconds: 0x0909090909090909, MTimeNanoSeconds: 0x0a0a0a0a0a0a0a0a}}},
		{40, "484", request{fid: w, offset: 0x0202020202020202, count: 3 * w}},
		{50, "4", request{fid: w}},
		{50, "44", request{fid: w}},
		{52, "414884s", request{fid: w, lock: lock{2, 3 * w, 0x0404040404040404, 0x0505050505050505, 6 * w, "G"}}},
		{54, "41884s", request{fid: w, lock: lock{2, 0, 0x0303030303030303, 0x0404040404040404, 5 * w, "F"}}},
		{70, "44s", request{fid: w, fid2: 2 * w, name: "C"}},
		{72, "4s44", request{fid: w, name: "B", mode: 3 * w, gid: 4 * w}},
		{74, "4s4s", request{fid: w, name: "B", fid2: 3 * w, name2: "D"}},
		{76, "4s4", request{fid: w, name: "B", flags: 3 * w}},
		{102, "4ss4", request{afid: w, name: "B", name2: "C", uid: 4 * w}},
		{104, "44ss4", request{fid: w, afid: 2 * w, name: "C", name2: "D", uid: 5 * w}},
		{116, "484", request{fid: w, offset: 0x0202020202020202, count: 3 * w}},
		{120, "4", request{fid: w}},
		{122, "4", request{fid: w}},
	} {
		m := dotL.messages[tt.typ]
		var got request
		d := wire.Decode(body(tt.layout))
		if m.decode(&got, &d); !d.Finish() || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", tt.want) {
			t.Errorf("%s:\n%+v\nwant\n%+v", m.name, got, tt.want)
		}
	}
}

func TestMasks(t *testing.T) {
	for i := range 14 {
		if got := attrBits(attrMask(1 << i)); got != 1<<i {
			t.Errorf("attribute bit %#x is %#x", 1<<i, got)
		}
	}
	if attrMask(1<<14-1) != p9.AttrMaskAll || attrMask(1<<14) != (p9.AttrMask{}) {
		t.Error("mask of all attributes")
	}
	if m := setAttrMask(0x1ff); !m.Permissions || !m.UID || !m.GID || !m.Size || !m.ATime || !m.MTime || !m.CTime || !m.ATimeNotSystemTime || !m.MTimeNotSystemTime {
		t.Errorf("%+v", m)
	}
}

func TestErrnoOf(t *testing.T) {
	for _, tt := range []struct {
		err   error
		want  linux.Errno
		known bool
	}{
		{linux.ENOTEMPTY, linux.ENOTEMPTY, true},
		{syscall.EPERM, linux.EPERM, true},
		{syscall.ENOTEMPTY, linux.ENOTEMPTY, true},
		{fmt.Errorf("rmdir: %w", linux.EBUSY), linux.EBUSY, true},
		{&os.PathError{Op: "open", Path: "x", Err: syscall.EXDEV}, linux.EXDEV, true},
		{linux.Errno(0), linux.EIO, false},
		{syscall.Errno(0), linux.EIO, false},
		{io.EOF, linux.EIO, false},
		{errors.New("?"), linux.EIO, false},
	} {
		if got, known := errnoOf(tt.err); known != tt.known || got != tt.want {
			t.Errorf("%v: %v, %v", tt.err, got, known)
		}
	}
	for _, err := range []error{linux.Errno(0), errors.New("?")} {
		if b := appendRlerror(nil, 1, err); b[7] != byte(linux.EIO) {
			t.Errorf("%v is told as %d", err, b[7])
		}
	}
}
