package hostproc

import (
	"context"
	"errors"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Hear has the kernel make an event, and returns when the reader has got one: it
// is how to tell a host where nothing happens from one that is not heard any more.
// Drain then tells whether the Model gets them. Polling hears nothing.
func (h *Host) Hear(ctx context.Context) error {
	if _, err := h.Stats(); err != nil {
		return err
	}
	if h.conn == nil {
		return nil
	}
	before := h.conn.heard.Load()
	if err := renameThread(); err != nil {
		return &OpError{"make an event for", "proc connector", err}
	}
	for h.conn.heard.Load() == before {
		select {
		case <-h.stop:
			return errors.New("hostproc: closed")
		case <-ctx.Done():
			return &OpError{"receive", "proc connector", errors.New("an event was made and did not come")}
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// renameThread gives a thread of this process the name that it has, which the kernel
// makes an event of.
func renameThread() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var name [16]byte
	if err := unix.Prctl(unix.PR_GET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0)
}
