package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"containerfs/p9srv"
)

const (
	// messageSize is what the client asks for. It never learns what the server
	// grants, so it must not ask for more than any server gives.
	messageSize = 64 << 10

	// maxWalk is 9P's limit on names in one Twalk (MAXWELEM).
	maxWalk = 16
)

// greetingTime bounds what it takes to connect and attach. Requests after that are not
// bounded: a write can rightly take long. By ssh somebody may have to say who he is.
func greetingTime(a p9srv.Addr) time.Duration {
	if a.Network == "ssh" {
		return time.Minute
	}
	return 10 * time.Second
}

// session is one connection to a server, attached at its root directory.
type session struct {
	client *p9.Client
	root   explainedFile

	pageSize func() (int64, error) // askPageSize, once
}

// connect dials a server and attaches to its root.
func connect(ctx context.Context, addr string) (*session, error) {
	a, err := p9srv.ParseAddr(addr)
	if err != nil {
		return nil, usagef("%v", err)
	}
	ctx, cancel := context.WithTimeout(ctx, greetingTime(a))
	defer cancel()
	deadline, _ := ctx.Deadline()
	within := time.Until(deadline).Round(10 * time.Millisecond)
	conn, err := a.Dial(ctx)
	if option := (*p9srv.OptionError)(nil); errors.As(err, &option) { // its files
		return nil, usagef("address %q: %v", addr, err)
	}
	if errors.Is(err, os.ErrPermission) {
		return nil, &pathError{"connect", addr, linux.EACCES} // of the socket's file
	}
	if err != nil {
		if op := (*net.OpError)(nil); errors.As(err, &op) {
			err = op.Err // its text names the address again
		}
		if a.Network == "tls" && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)) {
			err = hungUp(a.Network)
		}
		if a.Network == "unix" && isNoListener(err) {
			err = fmt.Errorf("%w; %s", err, noListener)
		}
		return nil, &unavailableError{addr, err}
	}
	conn.SetDeadline(deadline)
	client, err := p9.NewClient(conn, p9.WithMessageSize(messageSize))
	if err != nil {
		conn.Close()
		var lost p9.ConnError
		switch {
		case !errors.As(err, &lost):
		case !time.Now().Before(deadline):
			err = fmt.Errorf("no answer within %v", within)
		case errors.Is(err, io.EOF), a.Network != "tls" && isHangUp(lost):
			err = hungUp(a.Network)
		case strings.HasPrefix(lost.Error(), "socket error: message too large "): // text for a header
			err = errors.New("what answers there does not speak 9P")
		default: // over TLS what it says of the certificate
			err = errors.New(strings.TrimPrefix(lost.Error(), "socket error: "))
		}
		return nil, &unavailableError{addr, err}
	}
	root, err := client.Attach("")
	if err != nil {
		client.Close()
		if errors.Is(err, linux.ENOENT) {
			err = errNoTop
		}
		return nil, &pathError{"attach", addr, err}
	}
	conn.SetDeadline(time.Time{})
	s := &session{client: client}
	s.root = explainedFile{root, s}
	s.pageSize = sync.OnceValues(s.askPageSize)
	return s, nil
}

// noListener is what to do about a socket at which nobody listens.
const noListener = "start it with `containerfs serve`, or name it by --server"

func isNoListener(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// errNoTop: every server has a top directory, but what its listener shows in its place can
// be missing.
var errNoTop = fmt.Errorf("what its listener is confined to by attach= is not there: %w", linux.ENOENT)

// isHangUp reports whether the connection was closed or reset. The library's error is not unwrapped.
func isHangUp(lost p9.ConnError) bool {
	text := lost.Error()
	return strings.HasSuffix(text, syscall.ECONNRESET.Error()) || strings.HasSuffix(text, syscall.EPIPE.Error())
}

// hungUp is a server of a network that hung up before it said anything, and says why to its
// log only.
func hungUp(network string) error {
	const text = "it hangs up"
	switch network {
	case "tcp":
		return errors.New(text + ": its listener does not let this host in (allow=), has too many connections, or wants tls://")
	case "tls":
		return errors.New(text + ": its listener does not let this host in (allow=), has too many connections, or is not one of tls://")
	case "vsock":
		return errors.New(text + ": its listener does not let this CID in, or has too many connections")
	}
	return errors.New(text)
}

// close ends the session; the server clunks what is left.
func (s *session) close() { s.client.Close() }

// closeWith ends the session when ctx is done, so that a server that does not answer keeps
// nobody, until stop is called.
func (s *session) closeWith(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, s.close)
}

// answerTime is how long an answer is waited for when the time that was given is over.
var answerTime = 10 * time.Second

// until does what looks again and again until a time, zero for without end, and ends it when
// the server does not answer the last look either.
func (s *session) until(end time.Time, do func() error) error {
	if end.IsZero() {
		return do()
	}
	if now := time.Now(); end.Before(now) {
		end = now
	}
	ctx, cancel := context.WithDeadline(context.Background(), end.Add(answerTime))
	defer cancel()
	defer s.closeWith(ctx)()
	err := do()
	if err != nil && ctx.Err() != nil {
		err = &exitError{exitUnavailable, errors.New("the server does not answer")}
	}
	return err
}

// walk goes to the file of a path. The caller closes it.
func (s *session) walk(path string) (p9.File, error) {
	return walk(s.root, split(path))
}

// walkParent goes to the directory that holds a path's last name, for what is
// done to an entry of a directory. The name is the server's to judge.
func (s *session) walkParent(path string) (dir p9.File, name string, err error) {
	names := split(path)
	if len(names) == 0 {
		return nil, "", linux.EBUSY // the root is no directory's entry
	}
	last := len(names) - 1
	dir, err = walk(s.root, names[:last])
	return dir, names[last], err
}

func checkPath(path string) error {
	if !strings.HasPrefix(path, "/") {
		return usagef("path %q does not start with /", path)
	}
	return nil
}

// split takes a path apart. Doubled and trailing slashes mean nothing.
func split(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

// walk goes from dir along names. The library's own Walk sends any number of
// names in one message and takes a walk that ended early for a whole one: its
// file then does not exist on the server.
func walk(dir p9.File, names []string) (p9.File, error) {
	qids, file, err := dir.Walk(names[:min(len(names), maxWalk)])
	if err != nil {
		return nil, err
	}
	switch {
	case len(qids) == len(names):
		return file, nil
	case len(qids) == maxWalk:
	case len(qids) == 0:
		return nil, linux.ENOENT // never: a first name that fails is an error
	default:
		// Where the walk ended, once more for the reason.
		if _, file, err = dir.Walk(names[:len(qids)]); err != nil {
			return nil, err
		}
	}
	defer file.Close()
	return walk(file, names[len(qids):])
}
