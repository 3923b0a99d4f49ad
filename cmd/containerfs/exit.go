package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
	"github.com/urfave/cli/v2"

	"containerfs/p9srv"
	"containerfs/subsys"
)

// Exit codes. 75 is sysexits' EX_TEMPFAIL: trying again later can help.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitPermission  = 4
	exitBusy        = 5
	exitPartly      = 6 // some of it was done, and the message says what
	exitUnavailable = 75

	// Of a command that is run: 125 is our own failure, as env, nice and timeout have it,
	// and the others are as the shell has them.
	exitNotRun    = 125
	exitCannotRun = 126
	exitNoCommand = 127
)

// exitError is an error with an exit code of its own.
type exitError struct {
	Code int
	Err  error
}

func (e *exitError) Error() string { return e.Err.Error() }
func (e *exitError) Unwrap() error { return e.Err }

// usageError is a command line that makes no sense, whatever the server holds.
type usageError struct{ message string }

func (e *usageError) Error() string { return e.message }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// mistake is an error of what the server was told to be: whoever starts it again with the
// same will have the same, and so the unit does not (RestartPreventExitStatus=).
func mistake(err error) error { return &exitError{exitUsage, err} }

// pathError is what an operation on a path came to.
type pathError struct {
	Op, Path string
	Err      error
}

func (e *pathError) Error() string { return e.Op + " " + e.Path + ": " + errorText(e.Err) }
func (e *pathError) Unwrap() error { return e.Err }

// errorText is an error's text without what the socket says of a server that went away. One
// that was not there is told with the reason.
func errorText(err error) string {
	text := err.Error()
	var lost p9.ConnError
	if unavailable := (*unavailableError)(nil); !errors.As(err, &lost) || errors.As(err, &unavailable) {
		return text
	}
	for _, during := range []string{"send: ", "wait: ", ""} { // as the client library has it
		text = strings.ReplaceAll(text, during+lost.Error(), "the server went away")
	}
	return text
}

// unavailableError is a server that cannot be talked to.
type unavailableError struct {
	Server string
	Err    error
}

func (e *unavailableError) Error() string {
	return "server " + e.Server + " unavailable: " + e.Err.Error()
}
func (e *unavailableError) Unwrap() error { return e.Err }

// reported is an error whose line has been written already.
type reported struct{ error }

func (e *reported) Unwrap() error { return e.error }

func exitCode(err error) int {
	var (
		own         *exitError
		usage       *usageError
		option      *p9srv.OptionError
		absent      *subsys.AbsentError
		unavailable *unavailableError
		lost        p9.ConnError
		library     cli.ExitCoder
		errno       linux.Errno
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &own):
		return own.Code
	case errors.As(err, &usage), errors.As(err, &library), errors.As(err, &option), errors.As(err, &absent):
		return exitUsage
	case errors.As(err, &unavailable), errors.As(err, &lost):
		return exitUnavailable
	case !errors.As(err, &errno):
		return exitFailed
	}
	switch errno {
	case linux.ENOENT, linux.ESRCH, linux.ENODEV: // no such path, task, container any more
		return exitNotFound
	case linux.EACCES, linux.EPERM, linux.EROFS:
		return exitPermission
	case linux.EBUSY:
		return exitBusy
	case linux.ESTALE: // a proxy's: the server is another by now
		return exitUnavailable
	}
	return exitFailed
}

// printable makes text safe for a terminal: what cannot be printed is shown as
// Go writes it in a string. A backslash stays itself, since names with one are
// common on systemd hosts and scripts read these names; so the result is for
// eyes, it cannot be undone.
func printable(text string) string {
	var b strings.Builder
	for i, r := range text {
		switch {
		case r == unicode.ReplacementChar && !strings.HasPrefix(text[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, text[i]) // not UTF-8
		case strconv.IsPrint(r):
			b.WriteRune(r)
		default:
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		}
	}
	return b.String()
}
