package p9srv_test

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"containerfs/p9srv"
	"containerfs/p9srv/p9test"
)

// TestGroupsAreCounted: a user can have 65,536 groups, in a user namespace without being anybody
// else. His connections hold none of them, and his attaches count for as many fids as these
// take the place of.
func TestGroupsAreCounted(t *testing.T) {
	const groups, most, many = 65536, 2, 30
	_, a := start(t, p9srv.Config{MaxAllFids: most * (16 + groups/64)})
	before := inuse()
	var wires []*p9test.Wire
	for range many {
		wires = append(wires, p9test.NewWire(t, dialWithGroups(t, a, groups)))
	}
	for _, w := range wires {
		w.Script("Tversion ~ 8192 9P2000.L\nRversion...")
	}
	grown := growth(before, 3)
	t.Logf("%d connections of a user with %d groups: %d KiB", many, groups, grown>>10)
	if grown > many*groups {
		t.Errorf("memory grew by %d KiB", grown>>10)
	}
	for i, w := range wires {
		w.Send(`Tattach 1 0 ~ "" "" ~`)
		if r, want := w.Receive(), i < most; strings.HasPrefix(r, "Rattach") != want {
			t.Errorf("attach %d: %s", i, r)
		}
	}
	wires[0].Script("Tclunk 1 0\nRclunk 1")
	wires[most].Script(`Tattach 1 0 ~ "" "" ~` + "\nRattach 1...")
}

// dialWithGroups connects with so many groups, which nobody else here gets.
func dialWithGroups(t *testing.T, a p9srv.Addr, n int) net.Conn {
	t.Helper()
	gids := make([]uint32, n)
	for i := range gids {
		gids[i] = uint32(100_000 + i)
	}
	fd, errs := -1, make(chan error)
	var connect func()
	connect = func() {
		runtime.LockOSThread() // which ends with this function
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			done := make(chan struct{})
			go func() { defer close(done); connect() }()
			<-done
			return
		}
		errs <- func() (err error) {
			if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(n), uintptr(unsafe.Pointer(&gids[0])), 0); errno != 0 {
				return fmt.Errorf("setgroups: %w", errno)
			}
			if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
				return err
			}
			return unix.Connect(fd, &unix.SockaddrUnix{Name: a.Address})
		}()
	}
	go connect()
	if err := <-errs; err != nil {
		if os.Geteuid() != 0 {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}
