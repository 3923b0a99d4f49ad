package sock

import (
	"testing"

	"golang.org/x/sys/unix"
)

// The runtime is told of one read in some that do not wait, of none that do, and of each
// where the peer can send descriptors.
func TestReadsThatAreTold(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	told := 0
	defer func(f func(uintptr, []byte) (int, error)) { readTold = f }(readTold)
	was := readTold
	readTold = func(fd uintptr, b []byte) (int, error) { told++; return was(fd, b) }
	var r Reader
	b := make([]byte, 1)
	read := func(want error) {
		t.Helper()
		if _, err := r.TryRead(uintptr(fds[0]), b); err != want {
			t.Fatal(err)
		}
	}
	if _, err := unix.Write(fds[1], make([]byte, 10*toldEvery)); err != nil {
		t.Fatal(err)
	}
	for range 10 * toldEvery {
		read(nil)
	}
	if told != 10 {
		t.Errorf("told of %d of %d reads", told, 10*toldEvery)
	}
	told = 0
	read(unix.EAGAIN)
	for range 10 * toldEvery {
		if _, err := unix.Write(fds[1], b); err != nil {
			t.Fatal(err)
		}
		read(nil)
		read(unix.EAGAIN)
	}
	if told != 0 {
		t.Errorf("told of %d reads that were waited for", told)
	}
	r.told = true
	if _, err := unix.Write(fds[1], b); err != nil {
		t.Fatal(err)
	}
	read(nil)
	read(unix.EAGAIN)
	if told != 2 {
		t.Errorf("told of %d of 2 reads that can wait", told)
	}
}
