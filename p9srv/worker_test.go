package p9srv_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"containerfs/p9srv"
	"containerfs/p9srv/p9test"

	"go.uber.org/goleak"
)

// gate holds up operations by name until it is opened.
type gate struct {
	op      string
	open    chan struct{}
	waiting atomic.Int32
	once    sync.Once
}

func hold(t testing.TB, tree *p9test.Tree, op string) *gate {
	g := &gate{op: op, open: make(chan struct{})}
	tree.SetGate(func(op, name string) {
		if op == g.op {
			g.waiting.Add(1)
			<-g.open
		}
	})
	t.Cleanup(g.release)
	return g
}

func (g *gate) release() { g.once.Do(func() { close(g.open) }) }

func (g *gate) await(t testing.TB, n int) {
	t.Helper()
	waitFor(t, fmt.Sprintf("%d in %s", n, g.op), func() bool { return int(g.waiting.Load()) >= n })
}

func TestSlowRequestHoldsUpNoOtherFid(t *testing.T) {
	tree, a := start(t, p9srv.Config{})
	g := hold(t, tree, "mkdir")
	w := dial(t, a)
	w.Script(hello + `
		Twalk 1 0 1
		Rwalk 1
		Tmkdir 2 1 slow 0755 0
		Tgetattr 3 0 1
		Rgetattr 3...`)
	g.await(t, 1)
	// Of its own fid everything waits, in order; newfids too.
	w.Script(`
		Twalk 4 1 5 slow
		Tgetattr 5 5 1
		Tclunk 6 5
		Tgetattr 7 0 1
		Rgetattr 7...`)
	g.release()
	w.Want("Rmkdir 2 d4", "Rwalk 4 d4", "Rgetattr 5 1 d4...", "Rclunk 6")
}

func TestRequestOfTwoFidsWaitsForBoth(t *testing.T) {
	tree, a := start(t, p9srv.Config{})
	g := hold(t, tree, "mkdir")
	w := dial(t, a)
	w.Script(hello + `
		Twalk 1 0 1
		Rwalk 1
		Twalk 1 0 2 d
		Rwalk 1 d2
		Tmkdir 2 1 a 0755 0
		Tmkdir 3 2 b 0755 0
		Trenameat 4 1 a 2 c
		Tgetattr 5 2 1
		Tgetattr 6 0 1
		Rgetattr 6...`)
	g.await(t, 2)
	g.release()
	got := map[string]bool{w.Receive()[:7]: true, w.Receive()[:7]: true}
	if !got["Rmkdir "] || len(got) != 1 {
		t.Fatalf("got %v before the two mkdirs", got)
	}
	w.Want("Rrenameat 4", "Rgetattr 5...")
}

// TestWorkersOwnTheirRequests has other frames take the place of those whose
// requests a worker still has.
func TestWorkersOwnTheirRequests(t *testing.T) {
	tree, a := start(t, p9srv.Config{})
	w := dial(t, a)
	w.Script(hello + `
		Twalk 1 0 1 f
		Rwalk 1 f3
		Tlopen 1 1 2
		Rlopen 1 f3 0
		Twalk 1 0 2
		Rwalk 1`)
	g := hold(t, tree, "write")
	// What is unfinished behind the write moves to the front of the buffer, over it.
	write, _ := p9test.Encode("Twrite 2 1 0 first")
	walk, _ := p9test.Encode("Twalk 3 0 3 f f f f f f f f f f")
	w.Write(append(write, walk[:len(walk)-1]...))
	g.await(t, 1)
	w.Write(walk[len(walk)-1:])
	w.Want("Rwalk 3 f3")
	g2 := hold(t, tree, "mkdir")
	w.Send("Tmkdir 4 2 e 0755 0", "Twalk 5 2 4 d")
	g2.await(t, 1)
	w.Script(`
		Twalk 6 0 5 f f f f f f f f f f
		Rwalk 6 f3`)
	g2.release()
	w.Want("Rmkdir 4 d4", "Rwalk 5 d2")
	g.release()
	w.Want("Rwrite 2 5")
	w.Script(`
		Tread 7 1 0 10
		Rread 7 "first"`)
}

// TestNewFidWaits has a quick request whose newfid a worker is about to make.
func TestNewFidWaits(t *testing.T) {
	tree, a := start(t, p9srv.Config{})
	w := dial(t, a)
	w.Script(hello + `
		Twalk 1 0 1
		Rwalk 1`)
	g := hold(t, tree, "attach")
	w.Send(`Tattach 2 5 ~ "" "" ~`, "Twalk 3 0 5 d", "Twalk 4 1 6 d")
	w.Want("Rwalk 4 d2")
	g.await(t, 1)
	g.release()
	w.Want("Rattach 2 d1", "Rlerror 3 EINVAL")
}

func TestFileThatIsSlow(t *testing.T) {
	tree, a := start(t, p9srv.Config{})
	tree.SetSlow(func(name string) bool { return name == "f" })
	g := hold(t, tree, "open")
	w := dial(t, a)
	w.Script(hello + `
		Twalk 1 0 1 f
		Rwalk 1 f3
		Tlopen 2 1 0
		Tread 3 1 0 100
		Tclunk 4 1
		Tgetattr 5 0 1
		Rgetattr 5...`)
	g.await(t, 1)
	g.release()
	w.Want("Rlopen 2 f3 0", "Rread 3 \"0-3\\n\"", "Rclunk 4")
}

func TestFlush(t *testing.T) {
	inEach(t, func(t *testing.T, d tongue) {
		tree, a := start(t, p9srv.Config{})
		g := hold(t, tree, "setattr")
		w := d.dial(t, a)
		w.Script(d.hello)
		d.try(t, w, d.clone, 1, 0, 1)
		w.Send(fmt.Sprintf(d.chmod, 2, 1),
			fmt.Sprintf(d.flush, 3, 2), // held back
			fmt.Sprintf(d.flush, 4, 2), // so is a second one
			fmt.Sprintf(d.flush, 5, 3), // and a flush of a flush
			fmt.Sprintf(d.flush, 6, 6)) // but not one of itself
		if name, tag := d.parse(t, w.Receive()); name != "Rflush" || tag != 6 {
			t.Errorf("%s %d", name, tag)
		}
		d.try(t, w, d.stat, 7, 0)
		g.await(t, 1)
		g.release()
		for _, want := range []int{2, 3, 5, 4} {
			if name, tag := d.parse(t, w.Receive()); tag != want || (name == "Rflush") != (tag > 2) {
				t.Errorf("%s %d, want that of %d", name, tag, want)
			}
		}
	})
}

// TestFlushStorm sees every Rflush after the reply to the request it names.
func TestFlushStorm(t *testing.T) {
	inEach(t, func(t *testing.T, d tongue) {
		_, a := start(t, p9srv.Config{})
		w := d.dial(t, a)
		w.Script(d.hello)
		const rounds, wide = 500, 16
		for i := range rounds {
			var batch []string
			send := func(format string, args ...any) { batch = append(batch, fmt.Sprintf(format, args...)) }
			for j := range wide {
				send(d.clone, 100+j, 0, 10+j)
			}
			for j := range wide {
				if (i+j)%2 == 0 {
					send(d.chmod, 200+j, 10+j)
				} else {
					send(d.stat, 200+j, 10+j)
				}
				send(d.flush, 300+j, 200+j)
			}
			for j := range wide {
				send(d.clunk, 400+j, 10+j)
			}
			// Tags are used again only when they are free.
			w.Send(batch...)
			var answered [1000]bool
			for range batch {
				reply := w.Receive()
				name, tag := d.parse(t, reply)
				if strings.HasSuffix(name, "error") {
					t.Fatalf("round %d: %s", i, reply)
				}
				answered[tag] = true
				if name == "Rflush" && !answered[tag-100] {
					t.Fatalf("round %d: Rflush %d before the reply of %d", i, tag, tag-100)
				}
			}
		}
	})
}

func TestDuplicateTag(t *testing.T) {
	for _, second := range []string{"Tgetattr 2 0 1", "Tflush 2 7", "Tbogus 2"} {
		tree, a := start(t, p9srv.Config{})
		g := hold(t, tree, "mkdir")
		w := dial(t, a)
		w.Script(hello + `
			Twalk 1 0 1
			Rwalk 1`)
		w.Send("Tmkdir 2 1 e 0755 0", "Tgetattr 3 0 1", second)
		w.Want("Rgetattr 3...")
		g.await(t, 1)
		w.WantClosed()
		g.release()
	}
	// The tag of a Tflush that is held back is outstanding as well.
	tree, a := start(t, p9srv.Config{})
	g := hold(t, tree, "mkdir")
	w := dial(t, a)
	w.Script(hello)
	w.Send("Tmkdir 2 0 e 0755 0", "Tflush 3 2", "Tgetattr 3 0 1")
	g.await(t, 1)
	w.WantClosed()
	g.release()
}

// TestNewVersionWaits sees the replies of the old version before the new one.
func TestNewVersionWaits(t *testing.T) {
	tree, a := start(t, p9srv.Config{})
	g := hold(t, tree, "mkdir")
	w := dial(t, a)
	w.Script(hello)
	w.Send("Tmkdir 2 0 a 0755 0", "Tmkdir 3 0 b 0755 0", "Tflush 4 3", "Tversion ~ 4096 9P2000.L", "Tgetattr 5 0 1")
	g.await(t, 1)
	g.release()
	w.Want("Rmkdir 2...", "Rmkdir 3...", "Rflush 4", "Rversion ~ 4096...", "Rlerror 5 EBADF")
	if n := tree.Open(); n != 0 {
		t.Fatalf("%d files survived a new version", n)
	}
}

// TestWindow fills the window: what is beyond it is not even read.
func TestWindow(t *testing.T) {
	const window = 4
	tree, a := start(t, p9srv.Config{MaxRequests: window})
	g := hold(t, tree, "mkdir")
	w := dial(t, a)
	w.Script(hello)
	var batch, replies []string
	for i := range 10 {
		batch = append(batch, fmt.Sprintf("Twalk %d 0 %d", 100+i, 10+i))
		replies = append(replies, fmt.Sprintf("Rwalk %d", 100+i))
	}
	w.Send(batch...)
	w.Want(replies...)
	batch = nil
	for i := range 10 {
		batch = append(batch, fmt.Sprintf("Tmkdir %d %d n%d 0755 0", i, 10+i, i))
	}
	w.Send(batch...)
	g.await(t, window)
	time.Sleep(20 * time.Millisecond)
	if n := g.waiting.Load(); n != window {
		t.Fatalf("%d requests run in a window of %d", n, window)
	}
	g.release()
	for range batch {
		if r := w.Receive(); !strings.HasPrefix(r, "Rmkdir") {
			t.Fatal(r)
		}
	}
}

// TestLongWrites: of what is longer than any command the beginning is written, and
// nothing more of it is held.
func TestLongWrites(t *testing.T) {
	const most = 16<<10 - 23
	_, a := start(t, p9srv.Config{})
	large := strings.ReplaceAll(hello, "8192", "1048576")
	w, classic := dial(t, a), trace(t, a)
	w.Script(large + `
		Twalk 1 0 1 f
		Rwalk 1 f3
		Tlopen 1 1 1
		Rlopen 1 f3 0`)
	classic.Script(strings.ReplaceAll(helloClassic, "8192", "1048576") + `
		Twalk tag 1 fid 0 newfid 1 wname f
		Rwalk tag 1 wqid [0x3.0]
		Topen tag 1 fid 1 mode OWRITE
		Ropen tag 1 qid 0x3.0 iounit 0`)
	for _, n := range []int{4096, most, most + 1, 900 << 10, 5} {
		data, done := strings.Repeat("x", n), min(n, most)
		w.Send("Twrite 1 1 0 " + data)
		w.Want(fmt.Sprintf("Rwrite 1 %d", done))
		classic.Send("Twrite tag 1 fid 1 offset 0 data '" + data + "'")
		classic.Want(fmt.Sprintf("Rwrite tag 1 count %d", done))
	}
	// A count that is not what comes with it is no write.
	long := make([]byte, 20<<10)
	binary.LittleEndian.PutUint32(long, uint32(len(long)))
	long[4] = 118
	if _, err := w.Write(long); err != nil {
		t.Fatal(err)
	}
	w.Want("Rlerror 0 EINVAL")
}

func TestPanic(t *testing.T) {
	for _, op := range []string{"getattr", "mkdir", "close"} {
		tree := p9test.NewTree()
		tree.Put("d", nil)
		a := p9test.Serve(t, p9srv.Config{Attacher: tree})
		w, other := dial(t, a), dial(t, a)
		other.Script(hello)
		w.Script(hello + `
			Twalk 1 0 1 d
			Rwalk 1 d2`)
		tree.SetGate(func(o, name string) {
			if o == op && name == "d" {
				panic("on purpose")
			}
		})
		w.Send(map[string]string{
			"getattr": "Tgetattr 2 1 1", "mkdir": "Tmkdir 2 1 e 0755 0", "close": "Tclunk 2 1",
		}[op])
		if op == "close" {
			w.Want("Rclunk 2")
		} else {
			w.Want("Rlerror 2 EIO")
		}
		w.WantClosed()
		other.Script(`
			Tgetattr 1 0 1
			Rgetattr 1...`)
		waitFor(t, "root closed", func() bool { return tree.Open() <= 2 })
	}
}

// TestVanish hangs up in the middle of everything.
func TestVanish(t *testing.T) {
	for _, op := range []string{"attach", "mkdir", "walk", "read", "write", "close", "open"} {
		t.Run(op, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			t.Cleanup(func() { goleak.VerifyNone(t, before) })
			tree, a := start(t, p9srv.Config{})
			w := dial(t, a)
			w.Script(hello + `
				Twalk 1 0 1 f
				Rwalk 1 f3
				Tlopen 1 1 2
				Rlopen 1 f3 0
				Twalk 1 0 2
				Rwalk 1`)
			g := hold(t, tree, op)
			w.Send("Tmkdir 2 0 e 0755 0", "Twrite 3 1 0 hello", "Tattach 4 5 ~ \"\" \"\" ~", "Tflush 5 2",
				"Twalk 6 0 7 d", "Tlopen 7 7 0", "Tread 8 1 0 10", "Tclunk 9 2")
			w.Write([]byte{100, 0, 0, 0, 110, 1}) // and half a frame
			g.await(t, 1)
			w.Close()
			time.Sleep(5 * time.Millisecond)
			g.release()
			waitFor(t, "every file closed", func() bool { return tree.Open() == 0 })
		})
	}
}

func TestShutdown(t *testing.T) {
	before := goleak.IgnoreCurrent()
	tree := p9test.NewTree()
	l, err := p9srv.Listen(p9srv.Export{Addr: p9srv.Addr{Network: "tcp", Address: "127.0.0.1:0"}, NoRootSquash: true})
	if err != nil {
		t.Fatal(err)
	}
	srv := p9srv.New(p9srv.Config{Attacher: tree})
	served := make(chan error)
	go func() { served <- srv.Serve(l) }()
	w, idle := dial(t, l.Addr()), dial(t, l.Addr())
	w.Script(hello)
	idle.Script(hello)
	g := hold(t, tree, "mkdir")
	w.Send("Tmkdir 2 0 a 0755 0", "Tmkdir 3 0 b 0755 0")
	g.await(t, 1)
	stopped := make(chan error)
	go func() { stopped <- srv.Shutdown(context.Background()) }()
	idle.WantClosed() // at once
	g.release()
	w.Want("Rmkdir 2...", "Rmkdir 3...") // what is in hand is answered
	w.WantClosed()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if tree.Open() != 0 {
		t.Error("files are left open")
	}
	goleak.VerifyNone(t, before)
}

// TestShutdownTimeout cuts connections whose requests do not come to an end.
func TestShutdownTimeout(t *testing.T) {
	tree := p9test.NewTree()
	l, err := p9srv.Listen(p9srv.Export{Addr: p9srv.Addr{Network: "tcp", Address: "127.0.0.1:0"}})
	if err != nil {
		t.Fatal(err)
	}
	srv := p9srv.New(p9srv.Config{Attacher: tree})
	go srv.Serve(l)
	w := dial(t, l.Addr())
	w.Script(hello)
	g := hold(t, tree, "mkdir")
	w.Send("Tmkdir 2 0 a 0755 0")
	g.await(t, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := srv.Shutdown(ctx); err != context.DeadlineExceeded {
		t.Errorf("shutdown: %v", err)
	}
	w.WantClosed()
	g.release()
	if err := srv.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
}

// TestRunningRequests: of those that can take their time only so many are served at once, of
// an account and of all, and the others when there is room.
func TestRunningRequests(t *testing.T) {
	tree := p9test.NewTree()
	for i := range 4 {
		tree.Put(fmt.Sprint("d", i), nil)
	}
	g := hold(t, tree, "mkdir")
	srv, a := p9test.ServeAt(t, p9srv.Config{Attacher: tree, MaxRunning: 3, MaxAllRunning: 5}, p9srv.Addr{Network: "tcp", Address: "127.0.0.1:0"})
	listen := func(at string) p9srv.Addr {
		l, err := p9srv.Listen(parseExport(t, at))
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error)
		go func() { served <- srv.Serve(l) }()
		t.Cleanup(func() {
			srv.Withdraw(l)
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
		return l.Addr()
	}
	other, own := listen("tcp://[::1]:0"), listen("unix://"+t.TempDir()+"/s")
	one, two, three := from(t, "127.0.0.1", a), from(t, "127.0.0.2", a), from(t, "::1", other)
	for i, w := range []*p9test.Wire{one, two, three} {
		for n := range 4 {
			w.Script(fmt.Sprintf(`
				Twalk 1 0 %d d%d
				Rwalk 1...`, n+1, n))
		}
		for n := range 4 {
			w.Send(fmt.Sprintf("Tmkdir %d %d %d 0755 0", n+1, n+1, i))
		}
		// Whoever is served by the loop is not in their way, nor waits.
		w.Script(`
			Tgetattr 9 0 1
			Rgetattr 9...`)
	}
	g.await(t, 5)
	root := dial(t, own)
	root.Script(hello)
	root.Send("Tmkdir 1 0 x 0755 0") // as the server's user
	g.await(t, 6)
	time.Sleep(20 * time.Millisecond)
	if n := g.waiting.Load(); n > 6 {
		t.Errorf("%d requests are served at once", n)
	}
	g.release()
	for _, w := range []*p9test.Wire{one, two, three} {
		for range 4 {
			if r := w.Receive(); !strings.HasPrefix(r, "Rmkdir") {
				t.Errorf("got %s", r)
			}
		}
	}
	root.Want("Rmkdir 1...")
}

// TestWaitingRequests: the requests of one account that wait for others of it have no more
// memory than they may have together, however many connections they come over; what the loop
// serves goes on, and in the end all are answered.
func TestWaitingRequests(t *testing.T) {
	const most, many, window = 1 << 20, 60, 64
	log := new(syncBuffer)
	t.Cleanup(func() { // after the server's end
		if strings.Contains(log.String(), "accounted for") {
			t.Error("an account ends with requests that nobody has")
		}
	})
	tree, a := start(t, p9srv.Config{MaxRunning: 2, MaxWaiting: most, Logger: slog.New(slog.NewTextHandler(log, nil))})
	g := hold(t, tree, "write")
	idle := dial(t, a)
	idle.Script(hello)
	var wires []*p9test.Wire
	for range many {
		w := dial(t, a)
		w.Script(strings.ReplaceAll(hello, "8192", "1048576"))
		for fid := range window {
			w.Send(fmt.Sprintf("Twalk 1 0 %d f", fid+1))
			w.Want("Rwalk 1 f3")
			w.Send(fmt.Sprintf("Tlopen 1 %d 1", fid+1))
			w.Want("Rlopen 1 f3 0")
		}
		wires = append(wires, w)
	}
	before := inuse()
	long := strings.Repeat("x", 16<<10-23)
	var sending sync.WaitGroup
	for _, w := range wires {
		sending.Go(func() {
			for i := range window {
				b, _ := p9test.Encode(fmt.Sprintf("Twrite %d %d 0 %s", i, i+1, long))
				if _, err := w.Write(b); err != nil {
					return
				}
			}
		})
	}
	g.await(t, 2)
	time.Sleep(100 * time.Millisecond)
	grown := growth(before, 5)
	t.Logf("%d writes of 16 KiB that wait: %d KiB", many*window, grown>>10)
	// Beside those that wait each connection has a buffer of requests. Unbounded it would be
	// 150 MiB.
	if grown > 4*most+many*100<<10 {
		t.Errorf("memory grew by %d KiB", grown>>10)
	}
	for range 100 {
		idle.Script("Tgetattr 1 0 1\nRgetattr 1...")
	}
	g.release()
	for _, w := range wires {
		for range window {
			if r := w.Receive(); !strings.HasPrefix(r, "Rwrite") {
				t.Fatal(r)
			}
		}
	}
	sending.Wait()
}

// TestWaitingFlushes: so it is with the Tflushes of a request.
func TestWaitingFlushes(t *testing.T) {
	const most, many, window = 64 << 10, 20, 64
	tree, a := start(t, p9srv.Config{MaxWaiting: most})
	g := hold(t, tree, "mkdir")
	first := dial(t, a)
	first.Script(hello)
	first.Send("Tmkdir 0 0 x 0755 0")
	g.await(t, 1)
	var wires []*p9test.Wire
	for range many {
		w := dial(t, a)
		w.Script(hello)
		wires = append(wires, w)
	}
	var flushes []string
	for tag := range window - 1 {
		flushes = append(flushes, fmt.Sprintf("Tflush %d 0", tag+1))
	}
	const leave = 50 // room for less than a Tmkdir
	first.Send(flushes[:leave]...)
	first.Script("Tflush 100 99\nRflush 100") // they have been read
	first.Send(flushes[leave:]...)            // more than there is room for
	for _, w := range wires {
		w.Script("Tgetattr 1 0 1\nRgetattr 1...")
		w.Send("Tmkdir 2 0 y 0755 0") // waits, too
	}
	time.Sleep(20 * time.Millisecond)
	if n := g.waiting.Load(); n != 1 {
		t.Errorf("%d requests are served beside the flushes of the first", n)
	}
	g.release()
	first.Want("Rmkdir 0...")
	for tag := range window - 1 {
		first.Want(fmt.Sprintf("Rflush %d", tag+1))
	}
	for _, w := range wires {
		if r := w.Receive(); !strings.HasPrefix(r, "Rmkdir 2") && !strings.HasPrefix(r, "Rlerror 2 EEXIST") {
			t.Error(r)
		}
	}
}
