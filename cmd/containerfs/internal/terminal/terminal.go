//go:build linux

// Package terminal is the terminal that a command is used in: whether there is
// one, how large it is, and its keys one by one.
package terminal

import (
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// Is reports whether a stream is a terminal, and gives its file.
func Is(stream any) (*os.File, bool) {
	f, ok := stream.(*os.File)
	if !ok || f == nil {
		return nil, false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return f, err == nil
}

// Size is how many columns and rows a terminal has: 80 and 24 where it does not
// say.
func Size(f *os.File) (columns, rows int) {
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil || ws.Col == 0 || ws.Row == 0 {
		return 80, 24
	}
	return int(ws.Col), int(ws.Row)
}

// Foreground reports whether this process is in the foreground of its controlling
// terminal, so that the terminal's keys signal all of its process group.
func Foreground() bool {
	fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// Keys has a terminal give keys as they are pressed, unseen, until restore is
// called. Keys that signal still do.
func Keys(f *os.File) (keys <-chan byte, restore func(), err error) {
	fd := int(f.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, nil, err
	}
	raw := *old
	raw.Lflag &^= unix.ECHO | unix.ICANON
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &raw); err != nil {
		return nil, nil, err
	}
	pressed := make(chan byte)
	done := make(chan struct{})
	go func() {
		// It is left in its read at the end, which is that of the process.
		defer close(pressed)
		var b [1]byte
		for {
			if _, err := io.ReadFull(f, b[:]); err != nil {
				return
			}
			select {
			case pressed <- b[0]:
			case <-done:
				return
			}
		}
	}()
	return pressed, func() {
		close(done)
		unix.IoctlSetTermios(fd, unix.TCSETS, old)
	}, nil
}

// Resizes has something in it whenever the terminal has another size.
func Resizes() <-chan os.Signal {
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGWINCH)
	return c
}
