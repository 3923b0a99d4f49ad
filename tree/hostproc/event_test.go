package hostproc

import (
	"testing"
)

// message makes what the kernel sends.
func message(k kind, seq, cpu uint32, ts int64, ids ...uint32) []byte {
	b := make([]byte, nlHeader+cnHeader+40)
	native.PutUint32(b, uint32(len(b)))
	native.PutUint16(b[4:], nlmsgDone)
	cn := b[nlHeader:]
	native.PutUint32(cn, cnIdxProc)
	native.PutUint32(cn[4:], cnValProc)
	native.PutUint32(cn[8:], seq)
	native.PutUint16(cn[16:], 40)
	e := cn[cnHeader:]
	native.PutUint32(e, uint32(k))
	native.PutUint32(e[4:], cpu)
	native.PutUint64(e[8:], uint64(ts))
	for i, id := range ids {
		native.PutUint32(e[16+4*i:], id)
	}
	return b
}

func TestDecode(t *testing.T) {
	e, h, ok := decode(message(kindFork, 7, 3, 99, 1, 2, 3, 4))
	if want := (event{kind: kindFork, id: [4]uint32{1, 2, 3, 4}, ts: 99}); !ok || e != want || h != (header{seq: 7, cpu: 3}) {
		t.Fatalf("%v %+v %+v", ok, e, h)
	}
	for what, spoil := range map[string]func([]byte){
		"length":  func(b []byte) { native.PutUint32(b, 1<<31) },
		"short":   func(b []byte) { native.PutUint32(b, 20) },
		"type":    func(b []byte) { b[4] = 2 },
		"idx":     func(b []byte) { b[nlHeader]++ },
		"val":     func(b []byte) { b[nlHeader+4]++ },
		"cn size": func(b []byte) { b[nlHeader+16] = 200 },
		"no ids":  func(b []byte) { b[nlHeader+16] = eventFixed },
		"resync":  func(b []byte) { native.PutUint32(b[nlHeader+cnHeader:], uint32(kindResync)) },
	} {
		b := message(kindFork, 7, 3, 99, 1, 2, 3, 4)
		spoil(b)
		if e, _, ok := decode(b); ok {
			t.Errorf("%s: accepted as %+v", what, e)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(message(kindFork, 7, 3, 99, 1, 2, 3, 4))
	f.Add(message(kindNone, 7, 3, 99))
	f.Add(message(kindExit, 1<<32-1, 1<<32-1, -1, 1<<32-1, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, h, ok := decode(b)
		if ok {
			var l ledger
			l.note(h)
			l.note(h)
		}
	})
}

func TestLedger(t *testing.T) {
	var l ledger
	note := func(cpu, seq uint32, want bool) {
		t.Helper()
		if got := l.note(header{cpu: cpu, seq: seq}); got != want {
			t.Fatalf("cpu %d seq %d: %v", cpu, seq, got)
		}
	}
	take := func(counted, want uint64) {
		t.Helper()
		if got := l.take(counted); got != want {
			t.Fatalf("take(%d) is %d, want %d", counted, got, want)
		}
	}
	note(0, 1<<32-2, true)
	note(2, 100, true)
	note(0, 1<<32-1, true)
	note(0, 0, true) // the number wraps
	take(0, 0)
	note(2, 104, false)
	take(0, 3)
	take(3, 0)  // the kernel counted the same
	take(10, 7) // and then a loss of which gaps show nothing yet
	note(0, 5, false)
	take(0, 0)
	note(2, 108, false)
	take(0, 0) // 3+4+3 are the 10
	note(2, 110, false)
	take(0, 1)
	note(2, 100, false) // backwards
	take(0, 1)
	note(1<<31, 5, true) // no CPU of ours
	if len(l.cpus) != 3 {
		t.Fatal(len(l.cpus))
	}
}
