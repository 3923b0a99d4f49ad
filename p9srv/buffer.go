package p9srv

import (
	"math/bits"
	"sync"
)

// Buffers are shared by all sessions, so that an idle one holds none. They come
// in powers of two, smallest first; a session takes the next size when one is full.
const (
	minBufferShift = 14 // 16 KiB: a window of small requests, or of their replies
	maxBufferShift = 21 // 2 MiB: a reply of the largest msize behind a full batch
)

type buffer struct{ b []byte }

var bufferPools [maxBufferShift - minBufferShift + 1]sync.Pool

// getBuffer returns an empty buffer of at least n bytes.
func getBuffer(n int) *buffer {
	shift := max(minBufferShift, bits.Len(uint(max(n, 1)-1)))
	if shift > maxBufferShift {
		return &buffer{make([]byte, 0, n)}
	}
	if b, ok := bufferPools[shift-minBufferShift].Get().(*buffer); ok {
		return b
	}
	return &buffer{make([]byte, 0, 1<<shift)}
}

// putBuffer gives a buffer back. It may have grown since getBuffer.
func putBuffer(b *buffer) {
	if b == nil || cap(b.b) < 1<<minBufferShift || cap(b.b) > 1<<maxBufferShift {
		return
	}
	b.b = b.b[:0]
	bufferPools[bits.Len(uint(cap(b.b)))-1-minBufferShift].Put(b)
}
