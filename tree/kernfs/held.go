package kernfs

import (
	"hash/maphash"
	"sync"

	"golang.org/x/sys/unix"
)

// heldPlaces is how many descriptors a Held keeps.
const heldPlaces = 512

// Held keeps some descriptors open that may be wanted again soon: to open a file of
// /proc or of a cgroup costs more than the call that it is opened for. A key has its
// place, where it takes turns with others. The zero value is empty.
type Held[K comparable] struct {
	mu     sync.Mutex
	seed   maphash.Seed
	places []heldPlace[K]
	closed bool
}

type heldPlace[K comparable] struct {
	key  K
	fd   int
	full bool
}

// Take returns the descriptor of a key, if there is one. It is the caller's alone, who
// keeps it again or closes it.
func (h *Held[K]) Take(key K) (fd int, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.places == nil {
		return 0, false
	}
	p := h.placeLocked(key)
	if !p.full || p.key != key {
		return 0, false
	}
	p.full = false
	return p.fd, true
}

// Keep takes a descriptor over.
func (h *Held[K]) Keep(key K, fd int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		unix.Close(fd)
		return
	}
	if h.places == nil {
		h.seed = maphash.MakeSeed()
		h.places = make([]heldPlace[K], heldPlaces)
	}
	p := h.placeLocked(key)
	if p.full {
		unix.Close(p.fd)
	}
	*p = heldPlace[K]{key, fd, true}
}

func (h *Held[K]) placeLocked(key K) *heldPlace[K] {
	return &h.places[maphash.Comparable(h.seed, key)%heldPlaces]
}

// Close closes what is kept, and what will be.
func (h *Held[K]) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for _, p := range h.places {
		if p.full {
			unix.Close(p.fd)
		}
	}
	h.places = nil
}
