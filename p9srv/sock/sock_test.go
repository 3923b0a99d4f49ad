package sock_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerfs/p9srv/sock"
)

// conn is a connection and what reads and writes it.
type conn struct {
	net.Conn
	in  *sock.Reader
	out *sock.Writer
}

// pair are the two ends of a connection.
func pair(t testing.TB, network string) (a, b conn) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "sock")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	one, err := net.Dial(network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	ends := [2]conn{{Conn: one}, {Conn: other}}
	for i := range ends {
		t.Cleanup(func() { ends[i].Close() })
		raw, err := ends[i].Conn.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		ends[i].in = sock.NewReader(raw)
		ends[i].out = ends[i].in.Writer()
	}
	return ends[0], ends[1]
}

func TestWriteAll(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		a, b := pair(t, network)
		sent := make([]byte, 20<<20) // more than fits, so that it has to wait
		for i := range sent {
			sent[i] = byte(i >> 7)
		}
		done := make(chan error)
		go func() { done <- errors.Join(a.out.WriteAll(sent), a.Close()) }()
		var got []byte
		buf := make([]byte, 1<<16)
		for {
			n, err := b.in.Read(buf)
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, buf[:n]...)
		}
		if err := <-done; err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%s: %v; %d bytes of %d came, or others", network, err, len(got), len(sent))
		}
		if err := a.out.WriteAll(sent); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: after Close: %v", network, err)
		}
		if err := errors.Join(b.out.WriteAll(sent), b.out.WriteAll(sent)); !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("%s: to nobody: %v", network, err)
		}
	}
}

func TestDeadlines(t *testing.T) {
	a, _ := pair(t, "unix")
	a.SetDeadline(time.Now().Add(20 * time.Millisecond))
	if err := a.out.WriteAll(make([]byte, 20<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a write that nobody takes: %v", err)
	}
	if n, err := a.in.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read %d, %v", n, err)
	}
}

// echoes is in the environment of a process that sends back what comes by descriptor 3.
const echoes = "SOCK_TEST_ECHOES"

func TestMain(m *testing.M) {
	if os.Getenv(echoes) == "" {
		os.Exit(m.Run())
	}
	b := make([]byte, 64)
	for {
		n, err := unix.Read(3, b)
		if err != nil || n == 0 {
			return
		}
		unix.Write(3, b[:n])
	}
}

// One operation is a message to another process and back. This one is idle meanwhile,
// as a server is that waits for the next request.
func BenchmarkEcho(b *testing.B) {
	for _, how := range []struct {
		name  string
		write func(c conn, b []byte) error
		read  func(c conn, b []byte) (int, error)
	}{
		{"net", func(c conn, b []byte) error { _, err := c.Write(b); return err }, conn.Read},
		{"sock", func(c conn, b []byte) error { return c.out.WriteAll(b) }, func(c conn, b []byte) (int, error) { return c.in.Read(b) }},
	} {
		b.Run(how.name, func(b *testing.B) {
			near, far := pair(b, "unix")
			file, err := far.Conn.(*net.UnixConn).File()
			if err != nil {
				b.Fatal(err)
			}
			if err := unix.SetNonblock(int(file.Fd()), false); err != nil {
				b.Fatal(err)
			}
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), echoes+"=1")
			cmd.ExtraFiles = []*os.File{file}
			if err := cmd.Start(); err != nil {
				b.Fatal(err)
			}
			far.Close()
			file.Close()
			defer cmd.Wait()
			defer near.Close()
			buf := make([]byte, 64)
			for b.Loop() {
				err := how.write(near, buf)
				if _, readErr := how.read(near, buf); err != nil || readErr != nil {
					b.Fatal(err, readErr)
				}
			}
		})
	}
}
