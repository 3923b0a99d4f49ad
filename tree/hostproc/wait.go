package hostproc

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A waiter is how the reader waits for its socket. The socket itself is not in the
// runtime's poller, which the kernel would wake for each event even while nobody
// waits for one. An epoll of its own is, and says so once for each wait.
type waiter struct {
	epoll int
	sock  int
	file  *os.File // owns epoll
	raw   syscall.RawConn
}

func newWaiter(sock int) (*waiter, error) {
	w, err := waiterFor(sock)
	if err != nil {
		return nil, &OpError{"poll", "proc connector", err}
	}
	return w, nil
}

func waiterFor(sock int) (*waiter, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	if err = unix.SetNonblock(epoll, true); err == nil { // which has the runtime take it
		err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, sock, &unix.EpollEvent{Events: unix.EPOLLONESHOT})
	}
	if err != nil {
		unix.Close(epoll)
		return nil, err
	}
	w := &waiter{epoll: epoll, sock: sock, file: os.NewFile(uintptr(epoll), "poll of the proc connector")}
	if w.raw, err = w.file.SyscallConn(); err != nil {
		w.file.Close()
		return nil, err
	}
	return w, nil
}

func (w *waiter) close() { w.file.Close() }

// wait returns when there is something to read, or with an error after stop.
func (w *waiter) wait() error {
	err := unix.EpollCtl(w.epoll, unix.EPOLL_CTL_MOD, w.sock, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT})
	if err != nil {
		return err
	}
	failed := w.raw.Read(func(uintptr) bool {
		var events [1]unix.EpollEvent
		n := 0
		for {
			if n, err = unix.EpollWait(w.epoll, events[:], 0); err != unix.EINTR {
				return n > 0 || err != nil
			}
		}
	})
	if failed != nil {
		return failed
	}
	return err
}

// stop ends this wait and all that follow.
func (w *waiter) stop() { w.file.SetReadDeadline(time.Unix(1, 0)) }
