package kernfs_test

import (
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"containerfs/tree/kernfs"
)

func isOpen(fd kernfs.FD) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil
}

func devNull(t *testing.T) kernfs.FD {
	t.Helper()
	fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return kernfs.FD(fd)
}

// TestHeld: a descriptor is taken once, what is kept in its place closes it, and nothing
// is kept after the end.
func TestHeld(t *testing.T) {
	var h kernfs.Held[int32, kernfs.FD]
	_, ok, since := h.Take(1)
	if ok {
		t.Error("there is one to begin with")
	}
	a := devNull(t)
	h.Keep(1, a, since)
	if _, ok, _ := h.Take(2); ok {
		t.Error("another key's was taken")
	}
	if fd, ok, _ := h.Take(1); !ok || fd != a {
		t.Errorf("took %d, %v; want %d", fd, ok, a)
	}
	if _, ok, _ := h.Take(1); ok {
		t.Error("taken twice")
	}
	h.Keep(1, a, since)
	b := devNull(t)
	h.Keep(1, b, since) // of who found none, and opened another
	if isOpen(a) {
		t.Error("what lost its place is still open")
	}
	if !isOpen(b) {
		t.Error("what has the place is closed")
	}
	// More than there are places for.
	fds := []kernfs.FD{b}
	for key := range int32(2000) {
		fd := devNull(t)
		h.Keep(key+10, fd, since)
		fds = append(fds, fd)
	}
	var kept int
	for key := range int32(2010) {
		if fd, ok, since := h.Take(key); ok {
			kept++
			h.Keep(key, fd, since)
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
	_, _, since = h.Take(1)
	h.Keep(1, late, since)
	if _, ok, _ := h.Take(1); ok || isOpen(late) {
		t.Error("it was kept after the end")
	}
}

// TestHeldDrop: what was dropped is not kept either by who had it meanwhile.
func TestHeldDrop(t *testing.T) {
	for name, drop := range map[string]func(*kernfs.Held[int32, kernfs.FD]){
		"one": func(h *kernfs.Held[int32, kernfs.FD]) { h.Drop(1) },
		"all": (*kernfs.Held[int32, kernfs.FD]).DropAll,
	} {
		var h kernfs.Held[int32, kernfs.FD]
		_, _, since := h.Take(1)
		a, b, c := devNull(t), devNull(t), devNull(t)
		h.Keep(1, a, since)
		h.Keep(2, b, since)
		drop(&h)
		if isOpen(a) || isOpen(b) != (name == "one") {
			t.Errorf("%s: what was dropped is open: %v, the other: %v", name, isOpen(a), isOpen(b))
		}
		h.Keep(1, c, since)
		if _, ok, _ := h.Take(1); ok || isOpen(c) {
			t.Errorf("%s: kept by who had it meanwhile", name)
		}
		_, _, since = h.Take(1)
		d := devNull(t)
		h.Keep(1, d, since)
		if fd, ok, _ := h.Take(1); !ok || fd != d {
			t.Errorf("%s: what comes after it is not kept", name)
		}
		d.Close()
		h.Close()
	}
}

// TestHeldAtOnce: no two have one descriptor at once.
func TestHeldAtOnce(t *testing.T) {
	var h kernfs.Held[int, kernfs.FD]
	defer h.Close()
	var mu sync.Mutex
	used := make(map[kernfs.FD]bool)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := range 2000 {
				fd, ok, since := h.Take(i % 7)
				if !ok {
					n, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
					if err != nil {
						t.Error(err)
						return
					}
					fd = kernfs.FD(n)
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
				h.Keep(i%7, fd, since)
			}
		})
	}
	all.Wait()
}
