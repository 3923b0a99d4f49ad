package kernfs

import (
	"sync"

	"golang.org/x/sys/unix"
)

// heldMost is how many files a Held keeps.
const heldMost = 512

// Held keeps some open files that may be wanted again soon: to open a file of /proc or
// of a cgroup costs more than the call that it is opened for. The zero value is empty.
type Held[K comparable, V interface{ Close() }] struct {
	mu      sync.Mutex
	files   map[K]V
	dropped uint64 // how often something was
	closed  bool
}

// FD is an open file by its descriptor.
type FD int

// Close gives the descriptor back.
func (fd FD) Close() { unix.Close(int(fd)) }

// Since is a point in time for a Held.
type Since uint64

// Take returns the file of a key, if there is one. It is the caller's alone, who
// keeps it again, or the one that is opened in its place, or closes it.
func (h *Held[K, V]) Take(key K) (f V, ok bool, since Since) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f, ok = h.files[key]; ok {
		delete(h.files, key)
	}
	return f, ok, Since(h.dropped)
}

// Keep takes a file over, unless something was dropped since Take: it may be what was
// meant. Where there are too many, any other is closed.
func (h *Held[K, V]) Keep(key K, f V, since Since) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || Since(h.dropped) != since {
		f.Close()
		return
	}
	if h.files == nil {
		h.files = make(map[K]V)
	}
	if was, ok := h.files[key]; ok {
		was.Close()
	} else if len(h.files) == heldMost {
		for other, f := range h.files {
			f.Close()
			delete(h.files, other)
			break
		}
	}
	h.files[key] = f
}

// Drop closes the file of a key, also when somebody has it who would keep it.
func (h *Held[K, V]) Drop(key K) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dropped++
	if f, ok := h.files[key]; ok {
		f.Close()
		delete(h.files, key)
	}
}

// DropAll is Drop of all.
func (h *Held[K, V]) DropAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dropped++
	for _, f := range h.files {
		f.Close()
	}
	clear(h.files)
}

// Close closes what is kept, and what will be.
func (h *Held[K, V]) Close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.DropAll()
}
