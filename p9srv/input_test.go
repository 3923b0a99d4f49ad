package p9srv

import (
	"bytes"
	"net"
	"slices"
	"testing"
	"time"

	"containerfs/p9srv/wire"
)

// TestIdleInputHasNoBuffer reads from a connection that cannot be asked whether it
// is readable, as TLS cannot: whatever came, it waits without a buffer.
func TestIdleInputHasNoBuffer(t *testing.T) {
	server, client := net.Pipe()
	defer client.Close()
	defer server.Close()
	var in input
	in.open(server)
	if in.raw != nil {
		t.Fatal("a pipe is the kernel's own?")
	}
	frame := func(n int) []byte {
		b := make([]byte, n)
		wire.LE.PutUint32(b, uint32(n))
		b[min(n, maxKept)-1] = byte(n)
		return b
	}
	for _, sizes := range [][]int{{7}, {100}, {511}, {512, 7}, {513}, {7, 8, 9, 500, 600, 7}, {maxKept - 1}, {maxKept}, {maxKept + 1}, {40000, 7}, {1 << 20}, {7, 20000, 9, 20000}, {7}} {
		var want, got [][]byte
		for _, n := range sizes {
			want = append(want, frame(n))
		}
		go client.Write(slices.Concat(want...))
		for len(got) < len(want) {
			if err := in.fill(); err != nil {
				t.Fatal(err)
			}
			for {
				f, err := in.frame(1 << 20)
				if err != nil {
					t.Fatal(err)
				}
				if f == nil {
					break
				}
				got = append(got, bytes.Clone(f))
			}
			if in.buf != nil && cap(in.buf.b) > maxKept {
				t.Errorf("%v: a buffer of %d bytes", sizes, cap(in.buf.b))
			}
		}
		for i := range want {
			want[i] = want[i][:min(len(want[i]), maxKept)]
		}
		for in.unfinished() { // the end of one that was not kept
			if err := in.fill(); err != nil {
				t.Fatal(err)
			}
			if f, err := in.frame(1 << 20); f != nil || err != nil {
				t.Fatalf("%v: a frame of %d bytes more, %v", sizes, len(f), err)
			}
		}
		if !slices.EqualFunc(got, want, bytes.Equal) {
			t.Errorf("%v: frames of other sizes or contents", sizes)
		}
		server.SetReadDeadline(time.Now().Add(time.Millisecond))
		if err := in.fill(); err == nil {
			t.Errorf("%v: more than was sent", sizes)
		}
		server.SetReadDeadline(time.Time{})
		if in.w != in.r {
			t.Errorf("%v: %d bytes are left", sizes, in.w-in.r)
		}
	}
}

// TestWaitingInputHoldsNothing looks at an input in the middle of its wait.
func TestWaitingInputHoldsNothing(t *testing.T) {
	server, client := net.Pipe()
	defer client.Close()
	defer server.Close()
	waits := &watched{Conn: server, reads: make(chan int, 10)}
	var in input
	in.open(waits)
	for range 2 { // before the first message and after one
		done := make(chan error)
		go func() { done <- in.fill() }()
		if n := <-waits.reads; n != firstRead || in.buf != nil {
			t.Errorf("waits with %d bytes and buffer %v", n, in.buf)
		}
		client.Write([]byte{7, 0, 0, 0, 120, 1, 0})
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if f, err := in.frame(7); len(f) != 7 || err != nil {
			t.Fatal(f, err)
		}
	}
}

// watched tells the room of each read before it waits.
type watched struct {
	net.Conn
	reads chan int
}

func (w *watched) Read(b []byte) (int, error) {
	w.reads <- len(b)
	return w.Conn.Read(b)
}
