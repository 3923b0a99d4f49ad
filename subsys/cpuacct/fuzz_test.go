package cpuacct

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"testing"
)

func FuzzSchedstat(f *testing.F) {
	f.Add([]byte("89037 0 1\n"))
	f.Add([]byte("18446744073709551615 0 1\n"))
	f.Add([]byte("-1 2 3"))
	f.Fuzz(func(t *testing.T, text []byte) {
		run, ok := parseSchedstat(text)
		if ok && !bytes.HasPrefix(bytes.TrimLeft(text, "0"), bytes.TrimLeft(fmt.Appendf(nil, "%d ", run), "0")) {
			t.Errorf("%q is %d", text, run)
		}
	})
}

func FuzzStat(f *testing.F) {
	if text, err := os.ReadFile("/proc/self/stat"); err == nil {
		f.Add(text)
	}
	f.Add([]byte("1 (a) b) c) S 0 1 1 0 -1 0 0 0 0 0 7 9 0 0 20 0 1 0 1 0 0"))
	f.Fuzz(func(t *testing.T, text []byte) {
		user, system, ok := parseStat(text)
		if !ok {
			return
		}
		fields := strings.Split(string(text[bytes.LastIndexByte(text, ')')+1:]), " ")
		for i, ns := range map[int]uint64{12: user, 13: system} {
			want := strings.TrimLeft(fields[i], "0")
			if got := strings.TrimLeft(fmt.Sprint(ns/1e7), "0"); got != want || ns%1e7 != 0 {
				t.Errorf("field %d of %q is %d", i+2, text, ns)
			}
		}
	})
}

// datagram is one record as the kernel sends it.
func datagram(family uint16, pid uint32, stats []byte) []byte {
	task := attribute(typePID, binary.NativeEndian.AppendUint32(nil, pid))
	task = append(task, attribute(typeStats, stats)...)
	body := append([]byte{taskstatsNew, 1, 0, 0}, attribute(typeAggrPID, task)...)
	m := binary.NativeEndian.AppendUint32(nil, uint32(nlHeader+len(body)))
	m = binary.NativeEndian.AppendUint16(m, family)
	m = append(m, make([]byte, nlHeader-6)...)
	return append(m, body...)
}

// stats is a structure in the layout with that shift.
func stats(shift int, pid uint32, t Times) []byte {
	b := make([]byte, statsLength+shift)
	put := func(at int, v uint64) { binary.NativeEndian.PutUint64(b[at+shift:], v) }
	put(statsRun, t.Run)
	put(statsUser, t.User/1000)
	put(statsSystem, t.System/1000)
	binary.NativeEndian.PutUint32(b[statsPID+shift:], pid)
	return b
}

func TestDecodeTaskstats(t *testing.T) {
	want := Times{Run: 123456789, User: 100000, System: 23000}
	for _, shift := range shifts {
		s := stats(shift, 77, want)
		if got, err := shiftOf(s, 77); err != nil || got != shift {
			t.Errorf("the layout with shift %d is taken for %d: %v", shift, got, err)
		}
		d := &taskstats{family: 30, shift: shift}
		two := append(datagram(30, 77, s), datagram(30, 78, s)...)
		fs := d.decode(two, nil)
		if len(fs) != 2 || fs[0].Times != want || fs[0].TID != 77 || fs[1].TID != 78 {
			t.Errorf("decoded %v", fs)
		}
		if fs := d.decode(datagram(31, 77, s), nil); len(fs) != 0 {
			t.Errorf("another family's is decoded as %v", fs)
		}
		for n := range two {
			if fs := d.decode(two[:n], nil); len(fs) > 1 || n < len(two)/2 && len(fs) > 0 {
				t.Fatalf("%d bytes are decoded as %v", n, fs)
			}
		}
	}
	if _, err := shiftOf(make([]byte, 400), 77); err == nil {
		t.Error("an unknown layout is taken for a known one")
	}
}

func FuzzTaskstats(f *testing.F) {
	f.Add(datagram(30, 77, stats(0, 77, Times{Run: 1, User: 2000, System: 3000})), 0)
	f.Add(datagram(30, 77, nil), 1)
	f.Add(append(datagram(30, 1, stats(48, 1, Times{})), 1, 2, 3), 2)
	f.Fuzz(func(t *testing.T, b []byte, shift int) {
		d := &taskstats{family: 30, shift: shifts[uint(shift)%uint(len(shifts))]}
		fs := d.decode(b, nil)
		if len(fs)*(nlHeader+genlHeader+statsLength) > len(b) {
			t.Errorf("%d records in %d bytes", len(fs), len(b))
		}
		for _, r := range fs {
			if r.TID <= 0 {
				t.Errorf("a task has the number %d", r.TID)
			}
		}
		_, _ = shiftOf(b, 77)
	})
}

func FuzzRecord(f *testing.F) {
	f.Add(make([]byte, recordSize))
	f.Add(binary.NativeEndian.AppendUint64(nil, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, ok := decodeRecord(b); ok && (len(b) < recordSize || r.TID <= 0) {
			t.Errorf("%x is %v", b, r)
		}
	})
}
