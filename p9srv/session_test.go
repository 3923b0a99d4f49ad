package p9srv_test

import (
	"net"
	"testing"
	"time"

	"containerfs/ops"
	"containerfs/p9srv"
	"containerfs/p9srv/p9test"

	"github.com/hugelgupf/p9/fsimpl/templatefs"
	"github.com/hugelgupf/p9/p9"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start serves a tree with a directory d and a file f, and checks at the end of
// the test that every File was closed exactly once.
func start(t testing.TB, cfg p9srv.Config) (*p9test.Tree, p9srv.Addr) {
	tree := p9test.NewTree()
	tree.Put("d", nil)
	tree.Put("f", []byte("0-3\n"))
	t.Cleanup(func() {
		if n := tree.Open(); n != 0 {
			t.Errorf("%d files are left open", n)
		}
		for _, f := range tree.Faults() {
			t.Error(f)
		}
	})
	cfg.Attacher = tree
	return tree, p9test.Serve(t, cfg)
}

func dial(t testing.TB, a p9srv.Addr) *p9test.Wire {
	t.Helper()
	return p9test.NewWire(t, p9test.Dial(t, a))
}

const hello = `
	Tversion ~ 8192 9P2000.L
	Rversion ~ 8192 "9P2000.L"
	Tattach 1 0 ~ "" "" ~
	Rattach 1 d1
`

// waitFor waits for what happens in other goroutines.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not after a minute", what)
		}
	}
}

// TestCreateOnOpenFid: a directory that is open stays what the fid stands for.
func TestCreateOnOpenFid(t *testing.T) {
	_, a := start(t, p9srv.Config{})
	dial(t, a).Script(hello + `
		Twalk 1 0 1 d
		Rwalk...
		Tlopen 1 1 0
		Rlopen...
		Tlcreate 1 1 x 0 0644 0
		Rlerror 1 EINVAL
		Treaddir 1 1 0 8000
		Rreaddir...
		Twalk 1 0 2 d x
		Rwalk 1 d2
		Tclunk 1 2
		Rlerror 1 EBADF`)
}

// TestUnknownFid: every request that names a fid is refused for one that there is not, be
// it the second one.
func TestUnknownFid(t *testing.T) {
	_, a := start(t, p9srv.Config{})
	w := dial(t, a)
	w.Script(hello + `
		Twalk 1 0 1 f
		Rwalk...`)
	for _, request := range []string{
		"Tstatfs 1 77", "Tlopen 1 77 0", "Tlcreate 1 77 x 0 0644 0", "Tsymlink 1 77 x y 0", "Tmknod 1 77 x 0 0 0 0",
		"Trename 1 77 0 x", "Trename 1 1 77 x", "Treadlink 1 77", "Tgetattr 1 77 1", "Tsetattr 1 77 1 0 0 0 0 0 0 0 0",
		"Treaddir 1 77 0 100", "Tfsync 1 77 0", "Tlock 1 77 0 0 0 0 0 x", "Tgetlock 1 77 0 0 0 0 x",
		"Tlink 1 77 1 x", "Tlink 1 0 77 x", "Tmkdir 1 77 x 0755 0", "Trenameat 1 77 f 0 x", "Trenameat 1 0 f 77 x", "Tunlinkat 1 77 f 0",
		"Twalk 1 77 2 f", "Twalk 1 77 2", "Tread 1 77 0 1", "Twrite 1 77 0 x", "Tclunk 1 77", "Tremove 1 77",
	} {
		w.Send(request)
		if got := w.Receive(); got != "Rlerror 1 EBADF" {
			t.Errorf("%s: %s", request, got)
		}
	}
	w.Script(`
		Tclunk 1 1
		Rclunk 1
		Tclunk 1 0
		Rclunk 1`)
}

func TestLibraryClient(t *testing.T) {
	_, a := start(t, p9srv.Config{})
	root := p9test.Client(t, p9test.Dial(t, a))
	if _, err := root.Mkdir("e", 0o755, 0, 0); err != nil {
		t.Fatal(err)
	}
	_, e, err := root.Walk([]string{"e"})
	if err != nil {
		t.Fatal(err)
	}
	_, w, _ := e.Walk(nil)
	if _, _, _, err := w.Create("f", p9.ReadWrite, 0o644, 0, 0); err != nil {
		t.Fatal(err)
	}
	if n, err := w.WriteAt([]byte("hello"), 0); n != 5 || err != nil {
		t.Fatal(n, err)
	}
	var buf [10]byte
	if n, err := w.ReadAt(buf[:], 0); n != 5 || err != nil {
		t.Fatal(n, err)
	}
	if _, _, err := e.Open(p9.ReadOnly); err != nil {
		t.Fatal(err)
	}
	if list, err := e.Readdir(0, 4096); err != nil || len(list) != 3 {
		t.Fatal(list, err)
	}
}

// TestScripts are dialogues with a tree that has a directory d and a file f in
// its root; their qids are d1 (root), d2 and f3.
func TestScripts(t *testing.T) {
	for name, script := range map[string]string{
		"version is never higher than asked": `
			Tversion ~ 8192 9P2000
			Rversion ~ 8192 "9P2000"
			Tversion ~ 8192 9P2000.u
			Rversion ~ 8192 "9P2000"
			Tversion ~ 8192 9P2000.Lx
			Rversion ~ 8192 "9P2000"
			Tversion ~ 8192 9P2000L
			Rversion ~ 8192 "unknown"
			Tversion ~ 8192 9P
			Rversion ~ 8192 "unknown"
			Tversion ~ 8192 ""
			Rversion ~ 8192 "unknown"
			Tversion ~ 8192 9P1999
			Rversion ~ 8192 "unknown"
			Tversion 1 8192 9P2000.L.Google.7
			Rversion 1 8192 "9P2000.L"`,
		"msize is bounded": `
			Tversion ~ 4095 9P2000.L
			Rlerror ~ EMSGSIZE
			Tversion ~ 4096 9P2000.L
			Rversion ~ 4096 "9P2000.L"
			Tversion ~ 0xffffffff 9P2000.L
			Rversion ~ 1048576 "9P2000.L"`,
		"msize too small agrees on nothing": `
			Tversion ~ 4095 9P2000.L
			Rlerror ~ EMSGSIZE
			Tattach 1 0 ~ "" "" ~
			closed`,
		"nothing before version": `
			Tattach 1 0 ~ "" "" ~
			closed`,
		"unknown version agrees on nothing": `
			Tversion ~ 8192 9P1999
			Rversion ~ 8192 "unknown"
			Tattach 1 0 ~ "" "" ~
			closed`,
		"a new version clunks everything": hello + `
			Twalk 1 0 1 f
			Rwalk 1 f3
			Tversion ~ 8192 9P2000.L
			Rversion ~ 8192 "9P2000.L"
			Tgetattr 1 0 1
			Rlerror 1 EBADF
			Tattach 1 1 ~ "" "" ~
			Rattach 1 d1`,
		"an unknown version ends the old one": hello + `
			Tversion ~ 8192 9P1999
			Rversion ~ 8192 "unknown"
			Tgetattr 1 0 1
			closed`,
		"attach": hello + `
			Tauth 1 9 "" "" ~
			Rlerror 1 ENOENT
			Tattach 1 1 9 "" "" ~     # with an afid
			Rlerror 1 EINVAL
			Tattach 1 0 ~ "" "" ~     # fid in use
			Rlerror 1 EINVAL
			Tattach 1 ~ ~ "" "" ~     # NOFID
			Rlerror 1 EINVAL
			Tattach 1 1 ~ "" nosuch ~
			Rlerror 1 ENOENT
			Tattach 1 1 ~ nobody / ~
			Rattach 1 d1`,
		"walk": hello + `
			Twalk 1 0 1 d
			Rwalk 1 d2
			Twalk 1 1 2 .. f
			Rwalk 1 d1 f3
			Twalk 1 0 3               # clone
			Rwalk 1
			Tgetattr 1 3 1
			Rgetattr 1 1 d1...
			Twalk 1 0 4 d x y         # as far as it goes; 4 is not made
			Rwalk 1 d2
			Tclunk 1 4
			Rlerror 1 EBADF
			Twalk 1 0 4 x d
			Rlerror 1 ENOENT
			Twalk 1 2 4 x             # from a file
			Rlerror 1 ENOTDIR
			Twalk 1 0 1 f             # newfid in use
			Rlerror 1 EINVAL
			Twalk 1 0 ~ f
			Rlerror 1 EINVAL
			Twalk 1 9 4
			Rlerror 1 EBADF
			Twalk 1 1 1 .. f          # moves the fid
			Rwalk 1 d1 f3
			Tgetattr 1 1 1
			Rgetattr 1 1 f3...
			Twalk 1 1 1               # stays
			Rwalk 1
			Twalk 1 3 3 nosuch        # stays too
			Rlerror 1 ENOENT
			Twalk 1 3 3 d nosuch      # and here
			Rwalk 1 d2
			Tgetattr 1 3 1
			Rgetattr 1 1 d1...`,
		"walk of too many elements": hello + `
			Twalk 1 0 1 .. .. .. .. .. .. .. .. .. .. .. .. .. .. .. ..
			Rwalk 1 d1 d1 d1 d1 d1 d1 d1 d1 d1 d1 d1 d1 d1 d1 d1 d1
			Twalk 1 0 2 .. .. .. .. .. .. .. .. .. .. .. .. .. .. .. .. ..
			Rlerror 1 EINVAL`,
		"open": hello + `
			Twalk 1 0 1 f
			Rwalk 1 f3
			Tread 1 1 0 10            # not open
			Rlerror 1 EBADF
			Twrite 1 1 0 x
			Rlerror 1 EBADF
			Tfsync 1 1 0
			Rlerror 1 EBADF
			Tlopen 1 1 0x8000         # O_LARGEFILE
			Rlopen 1 f3 0
			Tlopen 1 1 0
			Rlerror 1 EINVAL
			Twrite 1 1 0 x            # not for writing
			Rlerror 1 EBADF
			Tread 1 1 0 10
			Rread 1 "0-3\n"
			Tread 1 1 2 1
			Rread 1 "3"
			Tread 1 1 100 10
			Rread 1 ""
			Tread 1 1 0xffffffffffffffff 10
			Rlerror 1 EINVAL
			Tread 1 1 0 0xffffffff
			Rread 1 "0-3\n"
			Twalk 1 1 2               # an open fid can be cloned
			Rwalk 1
			Twalk 1 1 1               # but not moved
			Rlerror 1 EINVAL
			Tlopen 1 2 1
			Rlopen 1 f3 0
			Tread 1 2 0 10            # not for reading
			Rlerror 1 EBADF
			Twrite 1 2 2 77
			Rwrite 1 2
			Twrite 1 2 0x8000000000000000 x
			Rlerror 1 EINVAL
			Tread 1 1 0 10
			Rread 1 "0-77"
			Treaddir 1 1 0 100
			Rlerror 1 ENOTDIR
			Tfsync 1 1 0
			Rfsync 1
			Tlock 1 1 1 0 0 0 7 host
			Rlock 1 0
			Tgetlock 1 1 1 0 0 7 host
			Rgetlock 1 2 0 0 7 "host"`,
		"directories": hello + `
			Twalk 1 0 1
			Rwalk 1
			Tlopen 1 1 2
			Rlerror 1 EISDIR
			Treaddir 1 1 0 1000       # not open
			Rlerror 1 EBADF
			Tlopen 1 1 0
			Rlopen 1 d1 0
			Tread 1 1 0 10
			Rlerror 1 EISDIR
			Treaddir 1 1 0 24         # not even . fits
			Rlerror 1 EINVAL
			Treaddir 1 1 0 25
			Rreaddir 1 "\x80\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x04\x01\x00."
			Treaddir 1 1 3 1000
			Rreaddir 1 "\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\b\x01\x00f"
			Treaddir 1 1 4 1000
			Rreaddir 1 ""
			Tmkdir 1 0 e 0755 0
			Rmkdir 1 d4
			Tmkdir 1 0 e 0755 0
			Rlerror 1 EEXIST
			Trenameat 1 0 e 0 g
			Rrenameat 1
			Tunlinkat 1 0 g 0
			Rlerror 1 EISDIR
			Tunlinkat 1 0 g 0x200
			Runlinkat 1
			Tunlinkat 1 0 g 0x200
			Rlerror 1 ENOENT
			Tmknod 1 0 n 0 0 0 0
			Rlerror 1 EPERM
			Tsymlink 1 0 n target 0
			Rlerror 1 EPERM
			Tlink 1 0 1 n
			Rlerror 1 EPERM
			Treadlink 1 0
			Rlerror 1 EINVAL
			Tstatfs 1 0
			Rstatfs 1 ebe02700...
			Tsetattr 1 0 1 0700 0 0 0 0 0 0 0
			Rsetattr 1`,
		"directory operations on a file": hello + `
			Twalk 1 0 1 f
			Rwalk 1 f3
			Tmkdir 1 1 e 0755 0
			Rlerror 1 ENOTDIR
			Tlcreate 1 1 e 0 0644 0
			Rlerror 1 ENOTDIR
			Tunlinkat 1 1 e 0
			Rlerror 1 ENOTDIR
			Trenameat 1 0 f 1 g
			Rlerror 1 ENOTDIR
			Trename 1 0 1 g
			Rlerror 1 ENOTDIR
			Tlink 1 1 0 g
			Rlerror 1 ENOTDIR`,
		"create moves the fid": hello + `
			Twalk 1 0 1
			Rwalk 1
			Tlcreate 1 1 f 2 0644 0
			Rlerror 1 EEXIST
			Tlcreate 1 1 new 2 0644 0
			Rlcreate 1 f4 0
			Twrite 1 1 0 x
			Rwrite 1 1
			Tlcreate 1 1 other 2 0644 0
			Rlerror 1 ENOTDIR`,
		"remove": hello + `
			Twalk 1 0 1 f
			Rwalk 1 f3
			Trename 1 1 0 g           # the fid stands for the file, not for its name
			Rrename 1
			Tlcreate 1 0 f 1 0644 0
			Rlcreate 1 f4 0
			Tremove 1 1
			Rremove 1
			Tremove 1 1
			Rlerror 1 EBADF
			Tattach 1 5 ~ "" "" ~
			Rattach 1 d1
			Twalk 1 5 2 g
			Rlerror 1 ENOENT
			Twalk 1 5 2 f
			Rwalk 1 f4
			Tremove 1 5               # clunks even when it fails
			Rlerror 1 EBUSY
			Tgetattr 1 5 1
			Rlerror 1 EBADF`,
		"xattr, unknown messages, NOTAG": hello + `
			Txattrwalk 1 0 1 user.x
			Rlerror 1 EOPNOTSUPP
			Txattrcreate 1 0 user.x 0 0
			Rlerror 1 EOPNOTSUPP
			Tbogus 1
			Rlerror 1 EOPNOTSUPP
			Tgetattr ~ 0 1
			Rlerror ~ EINVAL
			Tflush ~ 1
			Rlerror ~ EINVAL`,
		"R-message": hello + `
			Rclunk 1`,
		"flush of nothing, of itself, of the past": hello + `
			Tflush 1 2
			Rflush 1
			Tflush 1 1
			Rflush 1
			Tgetattr 2 0 1
			Tflush 1 2
			Rgetattr 2...
			Rflush 1`,
	} {
		t.Run(name, func(t *testing.T) {
			_, a := start(t, p9srv.Config{})
			if name == "R-message" {
				w := dial(t, a)
				w.Script(hello)
				w.Send("Rclunk 1")
				w.WantClosed()
				return
			}
			dial(t, a).Script(script)
		})
	}
}

func TestFidLimit(t *testing.T) {
	_, a := start(t, p9srv.Config{MaxFids: 3})
	w := dial(t, a)
	w.Script(hello + `
		Twalk 1 0 1
		Rwalk 1
		Twalk 1 0 2
		Rwalk 1
		Twalk 1 0 3
		Rlerror 1 EMFILE
		Tattach 1 3 ~ "" "" ~
		Rlerror 1 EMFILE
		Tclunk 1 2
		Rclunk 1
		Twalk 1 0 3
		Rwalk 1`)
}

// TestAttachLimitOfAll: an attach counts for more than a fid, until no fid is left that came
// from it.
func TestAttachLimitOfAll(t *testing.T) {
	_, a := start(t, p9srv.Config{MaxAllFids: 2*16 + 15})
	dial(t, a).Script(hello + `
		Tattach 1 1 ~ "" "" ~
		Rattach 1 d1
		Tattach 1 2 ~ "" "" ~
		Rlerror 1 EMFILE
		Twalk 1 1 3
		Rwalk 1
		Tclunk 1 1
		Rclunk 1
		Twalk 1 3 3
		Rwalk 1
		Tattach 1 2 ~ "" "" ~
		Rlerror 1 EMFILE
		Tclunk 1 3
		Rclunk 1
		Tattach 1 2 ~ "" "" ~
		Rattach 1 d1
		Tclunk 1 2
		Rclunk 1` + hello + `
		Tattach 1 1 ~ "" "" ~
		Rattach 1 d1
		Tattach 1 2 ~ "" "" ~
		Rlerror 1 EMFILE`)
}

// TestFidLimitOfAll: the connections of a peer share a number of fids, and give them back by
// a clunk, a new version and their end.
func TestFidLimitOfAll(t *testing.T) {
	_, a := start(t, p9srv.Config{MaxAllFids: 4 + 2*15})
	one, two := dial(t, a), dial(t, a)
	one.Script(hello + `
		Twalk 1 0 1
		Rwalk 1`)
	two.Script(hello + `
		Twalk 1 0 1
		Rwalk 1
		Twalk 1 0 2
		Rlerror 1 EMFILE`)
	one.Script(`
		Twalk 1 0 2
		Rlerror 1 EMFILE
		Tclunk 1 1
		Rclunk 1`)
	two.Script(`
		Twalk 1 0 2
		Rwalk 1
		Twalk 1 0 3
		Rlerror 1 EMFILE`)
	one.Script(hello)
	two.Script(`
		Twalk 1 0 3
		Rlerror 1 EMFILE`)
	one.Close()
	waitFor(t, "fid of a connection that is gone", func() bool {
		w := dial(t, a)
		defer w.Close()
		b, _ := p9test.Encode("Tversion ~ 8192 9P2000.L")
		w.Write(b)
		w.Read(make([]byte, 100))
		b, _ = p9test.Encode(`Tattach 1 0 ~ "" "" ~`)
		w.Write(b)
		reply := make([]byte, 100)
		n, _ := w.Read(reply)
		return n > 4 && reply[4] == 105 // Rattach
	})
}

func TestConnectionLimit(t *testing.T) {
	_, a := start(t, p9srv.Config{MaxConns: 2})
	one, two := dial(t, a), dial(t, a)
	one.Script(hello)
	two.Script(hello)
	three, begin := dial(t, a), time.Now()
	if three.WantClosed(); time.Since(begin) > 5*time.Second {
		t.Error("only closed for not sending a version")
	}
	two.Close()
	waitFor(t, "place of a connection that is gone", func() bool {
		w := dial(t, a)
		b, _ := p9test.Encode("Tversion ~ 8192 9P2000.L")
		w.Write(b)
		return w.Receive() == `Rversion ~ 8192 "9P2000.L"`
	})
}

// TestConnectionLimitOfLoopback: who is on this host has one allowance for all addresses of
// the loopback.
func TestConnectionLimitOfLoopback(t *testing.T) {
	_, a := p9test.ServeAt(t, p9srv.Config{Attacher: p9test.NewTree(), MaxConns: 2, VersionTimeout: time.Minute}, p9srv.Addr{Network: "tcp", Address: "127.0.0.1:0"})
	from(t, "127.0.0.1", a)
	from(t, "127.0.0.2", a)
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 3, 0, 3)}}
	third, err := d.Dial("tcp", a.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	third.SetDeadline(time.Now().Add(20 * time.Second))
	p9test.NewWire(t, third).WantClosed()
}

// numbered is a file whose attributes are all different.
type numbered struct {
	templatefs.NotImplementedFile
	templatefs.NilSyncer
	templatefs.NoopRenamed
	p9.DefaultWalkGetAttr
	valid *p9.SetAttrMask
	set   *p9.SetAttr
}

var (
	numberedAttr = p9.Attr{Mode: p9.ModeRegular | 1, UID: 2, GID: 3, NLink: 4, RDev: 5, Size: 6, BlockSize: 7, Blocks: 8,
		ATimeSeconds: 9, ATimeNanoSeconds: 10, MTimeSeconds: 11, MTimeNanoSeconds: 12, CTimeSeconds: 13, CTimeNanoSeconds: 14,
		BTimeSeconds: 15, BTimeNanoSeconds: 16, Gen: 17, DataVersion: 18}
	numberedStat = p9.FSStat{Type: 1, BlockSize: 2, Blocks: 3, BlocksFree: 4, BlocksAvailable: 5, Files: 6, FilesFree: 7, FSID: 8, NameLength: 9}
	numberedQID  = p9.QID{Type: p9.TypeSymlink, Version: 1<<32 - 2, Path: 1<<64 - 3}
)

func (f numbered) Attach(*ops.Caller, string) (p9.File, error) { return f, nil }
func (f numbered) Close() error                                { return nil }
func (f numbered) StatFS() (p9.FSStat, error)                  { return numberedStat, nil }
func (f numbered) Readlink() (string, error)                   { return "target", nil }
func (f numbered) GetAttr(req p9.AttrMask) (p9.QID, p9.AttrMask, p9.Attr, error) {
	return numberedQID, req, numberedAttr, nil
}
func (f numbered) SetAttr(valid p9.SetAttrMask, set p9.SetAttr) error {
	*f.valid, *f.set = valid, set
	return nil
}

// TestFieldsInOrder has the library decode what we encode, and the other way round.
func TestFieldsInOrder(t *testing.T) {
	f := numbered{valid: new(p9.SetAttrMask), set: new(p9.SetAttr)}
	root := p9test.Client(t, p9test.Dial(t, p9test.Serve(t, p9srv.Config{Attacher: f})))
	for _, mask := range []p9.AttrMask{p9.AttrMaskAll, {Size: true, CTime: true}} {
		qid, valid, attr, err := root.GetAttr(mask)
		if err != nil || qid != numberedQID || valid != mask || attr != numberedAttr {
			t.Errorf("%v %v %v %v", qid, valid, attr, err)
		}
	}
	if st, err := root.StatFS(); err != nil || st != numberedStat {
		t.Errorf("%+v %v", st, err)
	}
	if target, err := root.Readlink(); err != nil || target != "target" {
		t.Errorf("%q %v", target, err)
	}
	valid := p9.SetAttrMask{UID: true, MTime: true, ATimeNotSystemTime: true}
	set := p9.SetAttr{Permissions: 0o1750, UID: 1, GID: 2, Size: 3, ATimeSeconds: 4, ATimeNanoSeconds: 5, MTimeSeconds: 6, MTimeNanoSeconds: 7}
	if err := root.SetAttr(valid, set); err != nil || *f.valid != valid || *f.set != set {
		t.Errorf("%v %v %v", *f.valid, *f.set, err)
	}
}
