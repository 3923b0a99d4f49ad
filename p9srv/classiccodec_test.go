package p9srv

import (
	"fmt"
	"testing"

	"9fans.net/go/plan9"

	"containerfs/p9srv/wire"
)

// classicMessages have a different value in each field.
var classicMessages = []plan9.Fcall{
	{Type: plan9.Tauth, Afid: 1, Uname: "u", Aname: "an"},
	{Type: plan9.Tattach, Fid: 1, Afid: 2, Uname: "u", Aname: "an"},
	{Type: plan9.Twalk, Fid: 1, Newfid: 2, Wname: []string{}},
	{Type: plan9.Twalk, Fid: 1, Newfid: 2, Wname: []string{"a", "", "ccc"}},
	{Type: plan9.Twalk, Fid: 1, Newfid: 2, Wname: make([]string, 16)},
	{Type: plan9.Topen, Fid: 1, Mode: 0xfe},
	{Type: plan9.Tcreate, Fid: 1, Name: "n", Perm: 0x80010203, Mode: 0xfe},
	{Type: plan9.Tread, Fid: 1, Offset: 1<<63 + 2, Count: 1<<31 + 3},
	{Type: plan9.Twrite, Fid: 1, Offset: 1<<63 + 2, Data: []byte("data")},
	{Type: plan9.Tclunk, Fid: 1<<32 - 2},
	{Type: plan9.Tremove, Fid: 1},
	{Type: plan9.Tstat, Fid: 1},
	{Type: plan9.Twstat, Fid: 1, Stat: []byte("stat")},
}

// decodeClassic reads a frame as a session does, in the library's terms.
func decodeClassic(frame []byte) (*plan9.Fcall, bool) {
	r := request{typ: frame[4]}
	body := wire.Decode(frame[wire.HeaderSize:])
	row := classic.messages[r.typ]
	if row.serve == nil {
		return nil, false
	}
	if row.decode(&r, &body); !body.Finish() {
		return nil, false
	}
	f := &plan9.Fcall{Type: r.typ, Tag: wire.LE.Uint16(frame[5:]), Fid: r.fid}
	switch f.Type {
	case plan9.Tauth:
		f.Afid, f.Uname, f.Aname = r.afid, r.name, r.name2
	case plan9.Tattach:
		f.Afid, f.Uname, f.Aname = r.afid, r.name, r.name2
	case plan9.Twalk:
		f.Newfid, f.Wname = r.fid2, r.names
	case plan9.Topen:
		f.Mode = uint8(r.flags)
	case plan9.Tcreate:
		f.Name, f.Perm, f.Mode = r.name, plan9.Perm(r.mode), uint8(r.flags)
	case plan9.Tread:
		f.Offset, f.Count = r.offset, r.count
	case plan9.Twrite:
		f.Offset, f.Data = r.offset, r.data
	case plan9.Twstat:
		f.Stat = r.data
	}
	return f, true
}

func TestClassicDecode(t *testing.T) {
	seen := make(map[uint8]bool)
	for _, m := range classicMessages {
		seen[m.Type] = true
		m.Tag = 77
		frame, err := m.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		got, ok := decodeClassic(frame)
		if !ok || fmt.Sprintf("%+v", *got) != fmt.Sprintf("%+v", m) {
			t.Errorf("%v\nis %+v", &m, got)
		}
		for n := wire.HeaderSize; n < len(frame); n++ {
			if _, ok := decodeClassic(frame[:n]); ok {
				t.Errorf("%v: %d bytes of %d are whole", &m, n, len(frame))
			}
		}
		if _, ok := decodeClassic(append(frame, 0)); ok {
			t.Errorf("%v: a byte more is nothing", &m)
		}
	}
	for typ, row := range classic.messages {
		if row.serve != nil && !seen[uint8(typ)] {
			t.Errorf("%s is not tested", row.name)
		}
	}
}

// FuzzClassicDecode compares with the library whatever is taken for whole. (What is
// not makes the library write to standard error.)
func FuzzClassicDecode(f *testing.F) {
	for _, m := range classicMessages {
		b, _ := m.Bytes()
		f.Add(b[4], b[wire.HeaderSize:])
	}
	f.Fuzz(func(t *testing.T, typ byte, body []byte) {
		frame := wire.End(append(wire.Begin(nil, typ, 77), body...), 0)
		got, ok := decodeClassic(frame)
		if !ok {
			return
		}
		want, err := plan9.UnmarshalFcall(frame)
		if err != nil || fmt.Sprintf("%+v", *got) != fmt.Sprintf("%+v", *want) {
			t.Errorf("%+v, the library has %+v, %v", got, want, err)
		}
	})
}

// FuzzWstatRecord gives Twstat any record.
func FuzzWstatRecord(f *testing.F) {
	var d plan9.Dir
	d.Null()
	b, _ := d.Bytes()
	f.Add(b)
	d = plan9.Dir{Name: "n", Uid: "u", Gid: "g", Muid: "m", Mode: plan9.DMDIR | 0o755, Mtime: 7}
	b, _ = d.Bytes()
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := plan9.UnmarshalDir(b)
		if err != nil {
			return
		}
		now := plan9.Dir{Name: "n", Uid: "0", Gid: "0"}
		valid, set, err := changes(d, &now)
		if err == nil && (set.Permissions&^0o777 != 0 || set.Size != 0 || valid.Size || valid.UID && uint32(set.UID) == wire.NoUID) {
			t.Errorf("%v: %v %+v", d, valid, set)
		}
	})
}
