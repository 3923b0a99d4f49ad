package kernfs_test

import (
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"containerfs/tree/kernfs"
)

func isOpen(fd int) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil
}

func devNull(t *testing.T) int {
	t.Helper()
	fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// TestHeld: a descriptor is taken once, what is kept in its place closes it, and nothing
// is kept after the end.
func TestHeld(t *testing.T) {
	var h kernfs.Held[int32]
	if _, ok := h.Take(1); ok {
		t.Error("there is one to begin with")
	}
	a := devNull(t)
	h.Keep(1, a)
	if _, ok := h.Take(2); ok {
		t.Error("another key's was taken")
	}
	if fd, ok := h.Take(1); !ok || fd != a {
		t.Errorf("took %d, %v; want %d", fd, ok, a)
	}
	if _, ok := h.Take(1); ok {
		t.Error("taken twice")
	}
	h.Keep(1, a)
	b := devNull(t)
	h.Keep(1, b) // of who found none, and opened another
	if isOpen(a) {
		t.Error("what lost its place is still open")
	}
	if !isOpen(b) {
		t.Error("what has the place is closed")
	}
	// More than there are places for.
	fds := []int{b}
	for key := range int32(2000) {
		fd := devNull(t)
		h.Keep(key+10, fd)
		fds = append(fds, fd)
	}
	var kept int
	for key := range int32(2010) {
		if fd, ok := h.Take(key); ok {
			kept++
			h.Keep(key, fd)
		}
	}
	if kept == 0 || kept > 1000 {
		t.Errorf("%d of 2000 are kept", kept)
	}
	h.Close()
	for _, fd := range fds {
		if isOpen(fd) {
			t.Fatalf("%d is open after the end", fd)
		}
	}
	late := devNull(t)
	h.Keep(1, late)
	if _, ok := h.Take(1); ok || isOpen(late) {
		t.Error("it was kept after the end")
	}
}

// TestHeldAtOnce: no two have one descriptor at once.
func TestHeldAtOnce(t *testing.T) {
	var h kernfs.Held[int]
	defer h.Close()
	var mu sync.Mutex
	used := make(map[int]bool)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := range 2000 {
				fd, ok := h.Take(i % 7)
				if !ok {
					var err error
					if fd, err = unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
						t.Error(err)
						return
					}
				}
				mu.Lock()
				if used[fd] {
					t.Errorf("%d is used by two", fd)
				}
				used[fd] = true
				mu.Unlock()
				mu.Lock()
				used[fd] = false
				mu.Unlock()
				h.Keep(i%7, fd)
			}
		})
	}
	all.Wait()
}
