package p9srv_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"containerfs/p9srv"
	"containerfs/p9srv/p9test"
)

// raceEnabled: the race detector is on.
var raceEnabled bool

// inuse is the memory of the process that is not free to be used again.
func inuse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// growth is how much more is in use than before, at the most of so many looks.
func growth(before uint64, looks int) int64 {
	peak := uint64(0)
	for range looks {
		time.Sleep(10 * time.Millisecond)
		peak = max(peak, inuse())
	}
	return int64(peak) - int64(before)
}

// TestIdleConnections measures what an attached connection costs that has been
// busy once, and what the others notice of many of them: 10,000 with SOAK.
func TestIdleConnections(t *testing.T) {
	n := 1000
	if os.Getenv("SOAK") != "" {
		n = 10000
	}
	_, a := start(t, p9srv.Config{})
	busy := newRawClient(t, a)
	busy.hello(t)
	busy.latency(t)
	alone, alone99 := busy.latency(t)
	before := inuse()

	// Their other ends are in a process of their own: descriptors are few.
	clients := exec.Command(os.Args[0], "-test.run=^TestIdleClients$", "-test.timeout=5m")
	clients.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s", idleClients, n, a))
	in, _ := clients.StdinPipe()
	out, _ := clients.StdoutPipe()
	if err := clients.Start(); err != nil {
		t.Fatal(err)
	}
	defer clients.Wait()
	defer in.Close()
	line, err := bufio.NewReader(out).ReadString('\n')
	if line != "ready\n" {
		t.Fatalf("clients: %q %v", line, err)
	}

	each := (int64(inuse()) - int64(before)) / int64(n)
	among, among99 := busy.latency(t)
	t.Logf("%d bytes for each of %d idle connections", each, n)
	t.Logf("getattr alone: median %v, p99 %v; beside them: %v, %v", alone, alone99, among, among99)
	bytes := int64(16 << 10)
	if raceEnabled {
		bytes *= 2 // what it keeps on stacks
	}
	if each > bytes {
		t.Errorf("an idle connection costs %d bytes", each)
	}
	// The machine may have got other work in the meantime, which ends some time.
	most := 3*alone + 200*time.Microsecond
	for end := time.Now().Add(20 * time.Second); among > most && time.Now().Before(end); {
		among, _ = busy.latency(t)
	}
	if among > most {
		t.Errorf("beside %d idle connections a getattr takes %v, without them %v", n, among, alone)
	}
}

const idleClients = "P9SRV_TEST_IDLE_CLIENTS"

// TestIdleClients is the other process of TestIdleConnections.
func TestIdleClients(t *testing.T) {
	var n int
	var addr string
	if _, err := fmt.Sscan(os.Getenv(idleClients), &n, &addr); err != nil {
		t.SkipNow()
	}
	a, err := p9srv.ParseAddr(addr)
	if err != nil {
		t.Fatal(err)
	}
	data := strings.Repeat("x", 500<<10)
	for i := range n {
		c := newRawClient(t, a)
		c.hello(t)
		if i%100 == 0 {
			c.rpc(t, "Twalk 1 0 1 f")
			c.rpc(t, "Tlopen 1 1 2")
			c.rpc(t, "Twrite 1 1 0 "+data)
			c.rpc(t, "Tread 1 1 0 0xffffffff")
			c.rpc(t, "Tclunk 1 1")
		}
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}

// rawClient sends and receives without thinking about it.
type rawClient struct{ io.ReadWriteCloser }

func newRawClient(t testing.TB, a p9srv.Addr) rawClient {
	c := p9test.Dial(t, a)
	c.SetDeadline(time.Now().Add(5 * time.Minute))
	return rawClient{c}
}

func (c rawClient) hello(t testing.TB) {
	t.Helper()
	c.rpc(t, "Tversion ~ 1048576 9P2000.L")
	c.rpc(t, `Tattach 1 0 ~ "" "" ~`)
}

// rpc sends a message and drops the reply.
func (c rawClient) rpc(t testing.TB, message string) {
	t.Helper()
	b, err := p9test.Encode(message)
	if err != nil {
		t.Fatal(err)
	}
	c.call(t, b)
}

func (c rawClient) call(t testing.TB, frame []byte) {
	t.Helper()
	c.Write(frame)
	var head [4]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		t.Fatal(err)
	}
	io.CopyN(io.Discard, c, int64(binary.LittleEndian.Uint32(head[:])-4))
}

// latency is that of a getattr: the median and the 99th percentile.
func (c rawClient) latency(t testing.TB) (median, p99 time.Duration) {
	frame, _ := p9test.Encode("Tgetattr 1 0 0x7ff")
	all := make([]time.Duration, 3000)
	for i := range all {
		begin := time.Now()
		c.call(t, frame)
		all[i] = time.Since(begin)
	}
	slices.Sort(all)
	return all[len(all)/2], all[len(all)*99/100]
}
