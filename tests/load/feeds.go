package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A feed is a way to hear of the host's forks. Its reader does nothing with what it
// reads: what any listener of its kind costs. It goes on until its context ends.
type feed struct {
	name    string // of its row
	part    string // this program's
	refused func() error
	read    func(ctx context.Context, stdout, stderr io.Writer) error
}

var feeds = []feed{
	{"bare reader", "all", func() error { return nil }, func(ctx context.Context, stdout, stderr io.Writer) error {
		return readEvents(ctx, stdout, stderr, 0, false)
	}},
	{"bare reader, every 2 ms", "late", func() error { return nil }, func(ctx context.Context, stdout, stderr io.Writer) error {
		return readEvents(ctx, stdout, stderr, 0, true)
	}},
	{"bare reader, event mask", "mask", unmasked, func(ctx context.Context, stdout, stderr io.Writer) error {
		return readEvents(ctx, stdout, stderr, wantedEvents, false)
	}},
	{"bare reader, perf ring", "perf", ringless, readRings},
}

// offered are those of some feeds that this host has; why it has not the others is
// written a line each.
func offered(all []feed, left io.Writer) (have []feed) {
	for _, f := range all {
		if err := f.refused(); err != nil {
			fmt.Fprintf(left, "\nLeft out: %s: %v.\n", f.name, err)
			continue
		}
		have = append(have, f)
	}
	return have
}

// runReader reads a feed until this process is to end.
func runReader(part string) error {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	for _, f := range feeds {
		if f.part == part {
			return f.read(ctx, os.Stdout, os.Stderr)
		}
	}
	return fmt.Errorf("no feed %q", part)
}

// endReader has a reader end by itself, so that it tells what it has lost.
func endReader(c *exec.Cmd) error {
	late := time.AfterFunc(10*time.Second, func() { c.Process.Kill() })
	defer late.Stop()
	return errors.Join(c.Process.Signal(unix.SIGTERM), c.Wait())
}

// counts are the events that a reader has read.
type counts struct{ forks, execs, exits, ids, others int }

func (c *counts) print(stdout io.Writer) {
	fmt.Fprintln(stdout, c.forks, c.execs, c.exits, c.ids, c.others)
}

var native = binary.NativeEndian

// include/uapi/linux/cn_proc.h
const (
	mcastListen = 1
	mcastIgnore = 2

	eventNone = 0 // the answer to who has asked
	eventFork = 0x00000001
	eventExec = 0x00000002
	eventUID  = 0x00000004
	eventGID  = 0x00000040
	eventExit = 0x80000000

	wantedEvents = eventFork | eventExec | eventExit | eventUID | eventGID // by containerfs
)

// lateness is how long a reader that is not woken for each event has them gather, in
// ms: as long as containerfs does.
const lateness = 2

// readEvents is a reader of the proc connector: of all events, or with a mask of these
// kinds only. It is woken for each, or if late looks whether there are some.
func readEvents(ctx context.Context, stdout, stderr io.Writer, mask uint32, late bool) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_CONNECTOR)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		return err
	}
	if err := listen(fd, mask); err != nil {
		return err
	}
	fmt.Fprintln(stdout, "ready")

	// The end: the kernel is asked for everything again, and its answer is queued behind
	// all that was before; a socket with a mask gets no answer. In a full queue it is lost.
	var asked atomic.Int32
	ending, ended, gone := rand.Uint32(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		for <-ctx.Done(); ; {
			asked.Add(1)
			multicast(fd, mcastListen, 0, ending)
			select {
			case <-ended:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	var c counts
	overflows, flags := 0, 0
	if late {
		flags = unix.MSG_DONTWAIT
	}
	for b := make([]byte, 4096); ; {
		n, _, err := unix.Recvfrom(fd, b, flags)
		if err == unix.ENOBUFS {
			overflows++
		} else if late && err == unix.EAGAIN {
			unix.Poll(nil, lateness)
		} else if err != nil && err != unix.EINTR {
			return err
		}
		if err != nil || n < 40 {
			continue
		}
		switch native.Uint32(b[36:]) {
		case eventNone:
			if !answers(b[:n], ending) {
				continue
			}
			close(ended)
			<-gone
			// Kernels before 6.6 count every asking as a listener.
			for range 1 + asked.Load() {
				multicast(fd, mcastIgnore, 0, 0)
			}
			c.print(stdout)
			fmt.Fprintf(stderr, "proc connector: the queue overflowed %d times\n", overflows)
			return nil
		case eventFork:
			c.forks++
		case eventExec:
			c.execs++
		case eventExit:
			c.exits++
		case eventUID, eventGID:
			c.ids++
		default:
			c.others++
		}
	}
}

// listen has the kernel send events to a socket, with a mask of these kinds only. What
// it does without one it confirms.
func listen(fd int, mask uint32) error {
	const patience = 2 // s
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: patience}); err != nil {
		return err
	}
	began, ack := time.Now(), rand.Uint32()
	if err := multicast(fd, mcastListen, 0, ack); err != nil {
		return err
	}
	for b := make([]byte, 4096); ; {
		n, _, err := unix.Recvfrom(fd, b, 0)
		if err == nil && answers(b[:n], ack) {
			break
		}
		if err == unix.EAGAIN || time.Since(began) > patience*time.Second {
			return errors.New("the kernel does not confirm that it sends events here")
		} else if err != nil && err != unix.ENOBUFS && err != unix.EINTR {
			return err
		}
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{}); err != nil {
		return err
	}
	if mask == 0 {
		return nil
	}
	return multicast(fd, mcastListen, mask, 0)
}

// answers reports whether a message is the kernel's to who has asked with a number.
// Those to others come, too.
func answers(b []byte, ack uint32) bool {
	return len(b) >= 40 && native.Uint32(b[36:]) == eventNone && native.Uint32(b[28:]) == ack+1
}

// multicast tells the kernel whether to send events to a socket, and with a mask which.
func multicast(fd int, op, mask, ack uint32) error {
	// nlmsghdr, cn_msg of CN_IDX_PROC, and either an op or a struct proc_input.
	size := 40
	if mask != 0 {
		size = 44
	}
	var b [44]byte
	native.PutUint32(b[0:], uint32(size))
	native.PutUint16(b[4:], unix.NLMSG_DONE)
	native.PutUint32(b[16:], 1)
	native.PutUint32(b[20:], 1)
	native.PutUint32(b[28:], ack)
	native.PutUint16(b[32:], uint16(size-36))
	native.PutUint32(b[36:], op)
	native.PutUint32(b[40:], mask)
	return unix.Sendto(fd, b[:size], 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// unmasked says why the kernel has no event mask. Kernels before do not answer a request
// with one, nor heed it.
func unmasked() error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	return before66(unix.ByteSliceToString(u.Release[:]))
}

func before66(release string) error {
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return fmt.Errorf("kernel %q: %w", release, err)
	}
	if major < 6 || major == 6 && minor < 6 {
		return fmt.Errorf("it is in Linux 6.6, this is %s", release)
	}
	return nil
}
