package p9srv_test

import (
	"fmt"
	"strings"
	"testing"

	"containerfs/p9srv"
	"containerfs/p9srv/p9test"
)

// tongue is a dialect as tests speak it that are for all of them. Messages are formats
// of a tag, a fid and what follows.
type tongue struct {
	name    string
	version string
	dial    func(testing.TB, p9srv.Addr) *p9test.Wire
	encode  func(string) ([]byte, error)
	hello   string // a script: version with msize 8192, attach of fid 0

	walk  string // tag, fid, newfid, one name
	clone string // tag, fid, newfid
	open  string // for reading and writing
	stat  string
	chmod string // of a directory, to 0700; slow
	read  string // tag, fid, count
	clunk string
	flush string // tag, old tag

	invalid, unsupported, badFid string // replies: tag
	version1M                    string // a script
}

var tongues = []tongue{
	{
		name: "9P2000.L", version: "Tversion ~ 8192 9P2000.L", dial: dial, encode: p9test.Encode, hello: hello,
		walk: "Twalk %d %d %d %s", clone: "Twalk %d %d %d", open: "Tlopen %d %d 2", stat: "Tgetattr %d %d 1",
		chmod: "Tsetattr %d %d 1 0700 0 0 0 0 0 0 0", read: "Tread %d %d 0 %d", clunk: "Tclunk %d %d", flush: "Tflush %d %d",
		invalid: "Rlerror %d EINVAL", unsupported: "Rlerror %d EOPNOTSUPP", badFid: "Rlerror %d EBADF",
		version1M: "Tversion ~ 1048576 9P2000.L\nRversion ~ 1048576 \"9P2000.L\"\nTattach 1 0 ~ \"\" \"\" ~\nRattach 1 d1",
	},
	{
		name: "9P2000", version: "Tversion tag 65535 msize 8192 version 9P2000", dial: trace, encode: p9test.EncodeTrace, hello: helloClassic,
		walk: "Twalk tag %d fid %d newfid %d wname %s", clone: "Twalk tag %d fid %d newfid %d", open: "Topen tag %d fid %d mode ORDWR",
		stat: "Tstat tag %d fid %d", chmod: "Twstat tag %d fid %d stat (mode d-rwx------)", read: "Tread tag %d fid %d count %d",
		clunk: "Tclunk tag %d fid %d", flush: "Tflush tag %d oldtag %d",
		invalid: "Rerror tag %d ename Invalid argument", unsupported: "Rerror tag %d ename Operation not supported",
		badFid:    "Rerror tag %d ename Bad file descriptor",
		version1M: "Tversion tag 65535 msize 1048576 version 9P2000\nRversion tag 65535 msize 1048576 version '9P2000'\nTattach tag 1 fid 0 afid NOFID\nRattach tag 1 qid 0x1.0.d",
	},
}

// inEach runs a test in each dialect.
func inEach(t *testing.T, test func(t *testing.T, d tongue)) {
	for _, d := range tongues {
		t.Run(d.name, func(t *testing.T) { test(t, d) })
	}
}

// frame is a message as bytes.
func (d tongue) frame(t testing.TB, format string, args ...any) []byte {
	t.Helper()
	b, err := d.encode(fmt.Sprintf(format, args...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// try sends a message that must succeed.
func (d tongue) try(t testing.TB, w *p9test.Wire, format string, args ...any) string {
	t.Helper()
	w.Send(fmt.Sprintf(format, args...))
	reply := w.Receive()
	if name, _ := d.parse(t, reply); name == "Rlerror" || name == "Rerror" || name[0] != 'R' {
		t.Fatalf(format+": %s", append(args, reply)...)
	}
	return reply
}

// parse takes the name and the tag out of a reply.
func (d tongue) parse(t testing.TB, reply string) (name string, tag int) {
	t.Helper()
	if _, err := fmt.Sscanf(strings.Replace(reply, " tag ", " ", 1), "%s %d", &name, &tag); err != nil {
		t.Fatalf("reply %q", reply)
	}
	return name, tag
}

func TestSlowHoldsUpNoOtherFid(t *testing.T) {
	inEach(t, func(t *testing.T, d tongue) {
		tree, a := start(t, p9srv.Config{})
		g := hold(t, tree, "setattr")
		w := d.dial(t, a)
		w.Script(d.hello)
		d.try(t, w, d.clone, 1, 0, 1)
		w.Send(fmt.Sprintf(d.chmod, 2, 1))
		g.await(t, 1)
		d.try(t, w, d.stat, 3, 0)
		w.Send(fmt.Sprintf(d.clone, 4, 1, 5), fmt.Sprintf(d.stat, 5, 5)) // of its own everything waits
		d.try(t, w, d.stat, 3, 0)
		g.release()
		for _, want := range []int{2, 4, 5} {
			reply := w.Receive()
			if _, tag := d.parse(t, reply); tag != want || strings.Contains(reply, "error") {
				t.Errorf("%s, want the reply to %d", reply, want)
			}
		}
	})
}

// TestVersionOfAnotherDialect changes the language in the middle of everything.
func TestVersionOfAnotherDialect(t *testing.T) {
	tree, a := start(t, p9srv.Config{})
	g := hold(t, tree, "setattr")
	conn := p9test.Dial(t, a)
	l, c := p9test.NewWire(t, conn), p9test.NewTrace(t, conn)
	l.Script(hello + `
		Twalk 1 0 1 f
		Rwalk 1 f3
		Tlopen 1 1 2
		Rlopen 1 f3 0`)
	l.Send("Tsetattr 2 0 1 0700 0 0 0 0 0 0 0", "Tflush 3 2", "Tversion ~ 4096 9P2000")
	g.await(t, 1)
	g.release()
	l.Want("Rsetattr 2", "Rflush 3", `Rversion ~ 4096 "9P2000"`)
	if n := tree.Open(); n != 0 {
		t.Errorf("%d files survived a new version", n)
	}
	c.Script(`
		Tstat tag 2 fid 1
		Rerror tag 2 ename Bad file descriptor
		Tattach tag 2 fid 1 afid NOFID
		Rattach tag 2 qid 0x1.0.d
		Twalk tag 2 fid 1 newfid 2
		Rwalk tag 2 wqid []
		Tcreate tag 2 fid 2 name e perm d-rwxr-xr-x mode ORCLOSE
		Rcreate tag 2 qid 0x4.0.d iounit 0`)
	// Remove on close belongs to what a version resets.
	l.Script(`
		Tversion ~ 8192 9P2000.L
		Rversion ~ 8192 "9P2000.L"
		Tattach 1 0 ~ "" "" ~
		Rattach 1 d1
		Twalk 1 0 1 e
		Rlerror 1 ENOENT
		Tread 1 0 0 100
		Rlerror 1 EBADF`)
}
