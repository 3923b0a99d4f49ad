package kernfs

import (
	"sync"

	"golang.org/x/sys/unix"
)

// heldMost is how many descriptors a Held keeps.
const heldMost = 512

// Held keeps some descriptors open that may be wanted again soon: to open a file of
// /proc or of a cgroup costs more than the call that it is opened for. The zero value is
// empty.
type Held[K comparable] struct {
	mu     sync.Mutex
	fds    map[K]int
	closed bool
}

// Take returns the descriptor of a key, if there is one. It is the caller's alone, who
// keeps it again or closes it.
func (h *Held[K]) Take(key K) (fd int, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if fd, ok = h.fds[key]; ok {
		delete(h.fds, key)
	}
	return fd, ok
}

// Keep takes a descriptor over. Where there are too many, any other is closed.
func (h *Held[K]) Keep(key K, fd int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		unix.Close(fd)
		return
	}
	if h.fds == nil {
		h.fds = make(map[K]int)
	}
	if was, ok := h.fds[key]; ok {
		unix.Close(was)
	} else if len(h.fds) == heldMost {
		for other, fd := range h.fds {
			unix.Close(fd)
			delete(h.fds, other)
			break
		}
	}
	h.fds[key] = fd
}

// Close closes what is kept, and what will be.
func (h *Held[K]) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for _, fd := range h.fds {
		unix.Close(fd)
	}
	h.fds = nil
}
