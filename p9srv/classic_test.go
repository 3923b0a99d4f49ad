package p9srv_test

import (
	"fmt"
	"os/user"
	"strings"
	"testing"

	"containerfs/ops"
	"containerfs/p9srv"
	"containerfs/p9srv/p9test"

	"github.com/hugelgupf/p9/fsimpl/templatefs"
	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
)

func trace(t testing.TB, a p9srv.Addr) *p9test.Wire {
	t.Helper()
	return p9test.NewTrace(t, p9test.Dial(t, a))
}

// asMyself has whoever runs the tests attach as himself where a script says root.
func asMyself(t testing.TB, script string) string {
	t.Helper()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(script, "uname root", "uname "+me.Username)
}

const helloClassic = `
	Tversion tag 0xffff msize 8192 version 9P2000
	Rversion tag 65535 msize 8192 version '9P2000'
	Tattach tag 1 fid 0 afid NOFID
	Rattach tag 1 qid 0x1.0.d
`

// TestClassicScripts are as TestScripts: d is 0x2, f is 0x3, what is made comes after.
func TestClassicScripts(t *testing.T) {
	for name, script := range map[string]string{
		"version": `
			Tversion tag 0xffff msize 8192 version 9P2000.u
			Rversion tag 65535 msize 8192 version '9P2000'
			Tversion tag 0xffff msize 4095 version 9P2000
			Rerror tag 65535 ename Message too long`,
		"attach": helloClassic + `
			Tauth tag 1 afid 9 uname root
			Rerror tag 1 ename authentication not required
			Tattach tag 1 fid 1 afid 9
			Rerror tag 1 ename Invalid argument
			Tattach tag 1 fid 1 afid NOFID aname nosuch
			Rerror tag 1 ename No such file or directory
			Tattach tag 1 fid 1 afid NOFID uname nosuchuser
			Rerror tag 1 ename Operation not permitted
			Tattach tag 1 fid 0 afid NOFID
			Rerror tag 1 ename Invalid argument
			Tattach tag 1 fid 1 afid NOFID uname root aname /
			Rattach tag 1 qid 0x1.0.d`,
		"walk": helloClassic + `
			Twalk tag 1 fid 0 newfid 1 wname d
			Rwalk tag 1 wqid [0x2.0.d]
			Twalk tag 1 fid 1 newfid 2 wname ..
			Rwalk tag 1 wqid [0x1.0.d]
			Twalk tag 1 fid 2 newfid 2 wname ..
			Rwalk tag 1 wqid [0x1.0.d]
			Twalk tag 1 fid 0 newfid 3 wname [d x y]
			Rwalk tag 1 wqid [0x2.0.d]
			Tclunk tag 1 fid 3
			Rerror tag 1 ename Bad file descriptor
			Twalk tag 1 fid 0 newfid 3 wname [x d]
			Rerror tag 1 ename No such file or directory
			Twalk tag 1 fid 0 newfid 3
			Rwalk tag 1 wqid []
			Twalk tag 1 fid 0 newfid 3
			Rerror tag 1 ename Invalid argument`,
		"open": helloClassic + `
			Twalk tag 1 fid 0 newfid 1 wname f
			Rwalk tag 1 wqid [0x3.0]
			Tread tag 1 fid 1 count 10
			Rerror tag 1 ename Bad file descriptor
			Topen tag 1 fid 1 mode 8
			Rerror tag 1 ename Invalid argument
			Topen tag 1 fid 1 mode OEXEC        # 0644
			Rerror tag 1 ename Permission denied
			Topen tag 1 fid 1 mode ORDWR|OTRUNC|OCEXEC
			Ropen tag 1 qid 0x3.0 iounit 0
			Topen tag 1 fid 1 mode OREAD
			Rerror tag 1 ename Invalid argument
			Tread tag 1 fid 1 count 10          # not truncated
			Rread tag 1 count 4 "0-3\n"
			Twrite tag 1 fid 1 offset 2 data zz
			Rwrite tag 1 count 2
			Tread tag 1 fid 1 offset 1 count 0xffffffff
			Rread tag 1 count 3 "-zz"
			Twalk tag 1 fid 1 newfid 1 wname ..
			Rerror tag 1 ename Invalid argument
			Twalk tag 1 fid 0 newfid 2 wname f
			Rwalk tag 1 wqid [0x3.0]
			Topen tag 1 fid 2 mode OWRITE
			Ropen tag 1 qid 0x3.0 iounit 0
			Tread tag 1 fid 2 count 10
			Rerror tag 1 ename Bad file descriptor
			Topen tag 1 fid 0 mode OWRITE
			Rerror tag 1 ename Is a directory
			Topen tag 1 fid 0 mode OREAD|OTRUNC
			Rerror tag 1 ename Is a directory`,
		"a directory is read in whole records": helloClassic + `
			Twalk tag 1 fid 0 newfid 1
			Rwalk tag 1 wqid []
			Tread tag 1 fid 1 count 1000        # not open
			Rerror tag 1 ename Bad file descriptor
			Topen tag 1 fid 1 mode OEXEC
			Ropen tag 1 qid 0x1.0.d iounit 0
			Tread tag 1 fid 1 count 61          # not even one
			Rerror tag 1 ename Invalid argument
			Tread tag 1 fid 1 count 62
			Rread tag 1 count 62 [(` + statD + `)]
			Tread tag 1 fid 1 count 120
			Rread tag 1 count 62 [(` + statD + `)]
			Tread tag 1 fid 1 offset 61 count 1000
			Rerror tag 1 ename Invalid argument
			Tread tag 1 fid 1 offset 62 count 1000
			Rread tag 1 count 62 [(` + statF + `)]
			Tread tag 1 fid 1 offset 124 count 1000
			Rread tag 1 count 0 []
			Tread tag 1 fid 1 offset 62 count 1000
			Rerror tag 1 ename Invalid argument
			Tread tag 1 fid 1 offset 0 count 1000
			Rread tag 1 count 124 [(` + statD + `) (` + statF + `)]
			Tcreate tag 1 fid 0 name e perm d-rwxr-xr-x
			Rcreate tag 1 qid 0x4.0.d iounit 0
			Tread tag 1 fid 1 offset 124 count 1000
			Rread tag 1 count 62 [(name 'e' ` + strings.Replace(dirStat, "0x2", "0x4", 1) + `)]`,
		"stat": helloClassic + `
			Tstat tag 1 fid 0
			Rstat tag 1 stat name '/' ` + strings.Replace(dirStat, "0x2", "0x1", 1) + `
			Twalk tag 1 fid 0 newfid 1 wname d
			Twalk tag 1 fid 0 newfid 2 wname f
			Tstat tag 1 fid 1
			Tstat tag 1 fid 2
			Rwalk tag 1 wqid [0x2.0.d]
			Rwalk tag 1 wqid [0x3.0]
			Rstat tag 1 stat ` + statD + `
			Rstat tag 1 stat ` + statF + `
			Topen tag 1 fid 2 mode ORDWR
			Ropen tag 1 qid 0x3.0 iounit 0
			Tstat tag 1 fid 2
			Rstat tag 1 stat ` + statF + `
			Twalk tag 1 fid 1 newfid 3          # a clone has the name
			Tstat tag 1 fid 3
			Rwalk tag 1 wqid []
			Rstat tag 1 stat ` + statD + `
			Twalk tag 1 fid 1 newfid 4 wname ..
			Tstat tag 1 fid 4
			Rwalk tag 1 wqid [0x1.0.d]
			Rstat tag 1 stat name '/'...`,
		"the name is that of now": helloClassic + `
			Twalk tag 1 fid 0 newfid 1 wname d
			Twalk tag 1 fid 0 newfid 2 wname d
			Rwalk tag 1 wqid [0x2.0.d]
			Rwalk tag 1 wqid [0x2.0.d]
			Twalk tag 1 fid 1 newfid 3
			Rwalk tag 1 wqid []
			Tcreate tag 1 fid 3 name sub perm d-rwxr-xr-x
			Rcreate tag 1 qid 0x4.0.d iounit 0
			Twalk tag 1 fid 3 newfid 4 wname ..
			Rwalk tag 1 wqid [0x2.0.d]
			Tstat tag 1 fid 4                   # after a walk to ..
			Rstat tag 1 stat name 'd'...
			Twstat tag 1 fid 1 stat (name g)
			Rwstat tag 1
			Tstat tag 1 fid 1
			Tstat tag 1 fid 2
			Tstat tag 1 fid 3
			Tstat tag 1 fid 4
			Rstat tag 1 stat name 'g'...
			Rstat tag 1 stat name 'g'...
			Rstat tag 1 stat name 'sub'...
			Rstat tag 1 stat name 'g'...
			Twalk tag 1 fid 0 newfid 5          # another one takes the old name
			Rwalk tag 1 wqid []
			Tcreate tag 1 fid 5 name d perm d-rwxr-xr-x
			Rcreate tag 1 qid 0x5.0.d iounit 0
			Tstat tag 1 fid 2
			Rstat tag 1 stat name 'g'...`,
		"create": helloClassic + `
			Twalk tag 1 fid 0 newfid 1
			Rwalk tag 1 wqid []
			Tcreate tag 1 fid 1 name d perm d-rwxr-xr-x
			Rerror tag 1 ename File exists
			Tcreate tag 1 fid 1 name e perm d-rwxr-xr-x mode OWRITE
			Rerror tag 1 ename Is a directory
			Tcreate tag 1 fid 1 name e perm d-rwxr-xr-x mode OREAD|OTRUNC
			Rerror tag 1 ename Is a directory
			Tcreate tag 1 fid 1 name e perm D-rwxr-xr-x
			Rerror tag 1 ename Operation not permitted
			Tcreate tag 1 fid 1 name e perm d-rwxr-x--- mode OREAD
			Rcreate tag 1 qid 0x4.0.d iounit 0
			Tread tag 1 fid 1 count 1000
			Rread tag 1 count 0 []
			Tstat tag 1 fid 1
			Rstat tag 1 stat name 'e' uid 'root' gid 'root' muid 'root' qid 0x4.0.d mode d-rwxr-x--- atime...
			Tcreate tag 1 fid 1 name x perm d-rwxr-xr-x
			Rerror tag 1 ename Invalid argument  # open
			Tcreate tag 1 fid 0 name n perm --rw-r--r-- mode ORDWR
			Rcreate tag 1 qid 0x5.0 iounit 0
			Twrite tag 1 fid 0 data text
			Rwrite tag 1 count 4
			Tstat tag 1 fid 0
			Rstat tag 1 stat name 'n'...
			Tcreate tag 1 fid 0 name n perm --rw-r--r--
			Rerror tag 1 ename Not a directory`,
		"remove": helloClassic + `
			Twalk tag 1 fid 0 newfid 1 wname d
			Rwalk tag 1 wqid [0x2.0.d]
			Twalk tag 1 fid 0 newfid 2 wname d
			Rwalk tag 1 wqid [0x2.0.d]
			Tcreate tag 1 fid 2 name e perm d-rwxr-xr-x
			Rcreate tag 1 qid 0x4.0.d iounit 0
			Tremove tag 1 fid 1                 # clunks even when it fails
			Rerror tag 1 ename Directory not empty
			Tstat tag 1 fid 1
			Rerror tag 1 ename Bad file descriptor
			Tremove tag 1 fid 2                 # an open fid
			Rremove tag 1
			Twalk tag 1 fid 0 newfid 1 wname [d e]
			Rwalk tag 1 wqid [0x2.0.d]`,
		"remove on close": helloClassic + `
			Twalk tag 1 fid 0 newfid 1
			Rwalk tag 1 wqid []
			Tcreate tag 1 fid 1 name e perm d-rwxr-xr-x mode ORCLOSE
			Rcreate tag 1 qid 0x4.0.d iounit 0
			Twalk tag 1 fid 0 newfid 2 wname e
			Rwalk tag 1 wqid [0x4.0.d]
			Tclunk tag 1 fid 1
			Rclunk tag 1
			Twalk tag 1 fid 0 newfid 1 wname e
			Rerror tag 1 ename No such file or directory
			Twalk tag 1 fid 0 newfid 3 wname d
			Rwalk tag 1 wqid [0x2.0.d]
			Topen tag 1 fid 3 mode ORCLOSE
			Ropen tag 1 qid 0x2.0.d iounit 0
			Tremove tag 1 fid 3                 # once
			Rremove tag 1
			Twalk tag 1 fid 0 newfid 3 wname f
			Rwalk tag 1 wqid [0x3.0]
			Topen tag 1 fid 3 mode ORCLOSE
			Ropen tag 1 qid 0x3.0 iounit 0
			Tremove tag 1 fid 0
			Rerror tag 1 ename Device or resource busy
			Tversion tag 0xffff msize 8192 version 9P2000
			Rversion tag 65535 msize 8192 version '9P2000'
			Tattach tag 1 fid 0 afid NOFID
			Rattach tag 1 qid 0x1.0.d
			Twalk tag 1 fid 0 newfid 1 wname f
			Rerror tag 1 ename No such file or directory`,
		"remove on close that fails": helloClassic + `
			Twalk tag 1 fid 0 newfid 1
			Rwalk tag 1 wqid []
			Tcreate tag 1 fid 1 name e perm d-rwxr-xr-x mode ORCLOSE
			Rcreate tag 1 qid 0x4.0.d iounit 0
			Twalk tag 1 fid 0 newfid 2 wname e
			Rwalk tag 1 wqid [0x4.0.d]
			Tcreate tag 1 fid 2 name sub perm d-rwxr-xr-x
			Rcreate tag 1 qid 0x5.0.d iounit 0
			Tclunk tag 1 fid 1
			Rerror tag 1 ename Directory not empty
			Tclunk tag 1 fid 1
			Rerror tag 1 ename Bad file descriptor`,
		"flush": helloClassic + `
			Tflush tag 1 oldtag 2
			Rflush tag 1
			Tflush tag 1 oldtag 1
			Rflush tag 1`,
		"messages of other dialects": helloClassic + `
			Tstat tag 65535 fid 0
			Rerror tag 65535 ename Invalid argument`,
	} {
		t.Run(name, func(t *testing.T) {
			_, a := start(t, p9srv.Config{})
			trace(t, a).Script(asMyself(t, script))
		})
	}
}

// TestDirectoryReadIsShort has as much of a large directory in a reply as a worker's
// reply may have.
func TestDirectoryReadIsShort(t *testing.T) {
	tree, a := start(t, p9srv.Config{})
	for i := range 2000 {
		tree.Put(fmt.Sprintf("%04d", i), nil)
	}
	w := trace(t, a)
	w.Script(tongues[1].version1M + `
		Topen tag 1 fid 0 mode OREAD
		Ropen tag 1 qid 0x1.0.d iounit 0`)
	w.Send("Tread tag 1 fid 0 count 0xffffffff")
	var count int
	if _, err := fmt.Sscanf(w.Receive(), "Rread tag 1 count %d ", &count); err != nil || count < 30<<10 || count > 32<<10 {
		t.Errorf("a reply with %d bytes, %v", count, err)
	}
}

// shifty is a directory whose entries are gone, or may not be looked at, when they are
// walked to.
type shifty struct {
	templatefs.NotImplementedFile
	templatefs.NilSyncer
	templatefs.NoopRenamed
	p9.DefaultWalkGetAttr
}

var shiftyEntries = map[string]error{"gone": linux.ENOENT, "removed": linux.ENODEV, "secret": linux.EACCES, "clumsy": linux.EIO}

func (f shifty) Attach(*ops.Caller, string) (p9.File, error) { return f, nil }
func (shifty) Close() error                                  { return nil }

func (shifty) GetAttr(req p9.AttrMask) (p9.QID, p9.AttrMask, p9.Attr, error) {
	return p9.QID{Type: p9.TypeDir, Path: 1}, req, p9.Attr{Mode: p9.ModeDirectory | 0o755}, nil
}

func (f shifty) Walk(names []string) ([]p9.QID, p9.File, error) {
	if len(names) == 0 {
		return nil, f, nil
	}
	return nil, nil, shiftyEntries[names[0]]
}

func (shifty) Open(p9.OpenFlags) (p9.QID, uint32, error) {
	return p9.QID{Type: p9.TypeDir, Path: 1}, 0, nil
}

func (shifty) Readdir(offset uint64, _ uint32) (list p9.Dirents, err error) {
	for i, name := range []string{"gone", "removed", "secret", "clumsy"} {
		if cookie := uint64(i + 1); cookie > offset {
			list = append(list, p9.Dirent{QID: p9.QID{Type: p9.TypeDir, Path: 7}, Offset: cookie, Name: name})
		}
	}
	return list, nil
}

func TestEntriesThatCannotBeLookedAt(t *testing.T) {
	a := p9test.Serve(t, p9srv.Config{Attacher: shifty{}})
	trace(t, a).Script(helloClassic + `
		Twalk tag 1 fid 0 newfid 1
		Rwalk tag 1 wqid []
		Topen tag 1 fid 1 mode OREAD
		Ropen tag 1 qid 0x1.0.d iounit 0
		Tread tag 1 fid 1 count 4096
		Rread tag 1 count 58 [(name 'secret' uid '?' gid '?' muid '?' qid 0x7.0.d mode d---------- atime 0 mtime 0 length 0 type 0 dev 0)]
		Tread tag 1 fid 1 offset 58 count 4096
		Rerror tag 1 ename Input/output error`)
}

const (
	dirStat  = "uid 'root' gid 'root' muid 'root' qid 0x2.0.d mode d-rwxr-xr-x atime 0 mtime 0 length 0 type 0 dev 0"
	statD    = "name 'd' uid 'root' gid 'root' muid 'root' qid 0x2.0.d mode d-rw-r--r-- atime 0 mtime 0 length 0 type 0 dev 0"
	statF    = "name 'f' " + fileStat
	fileStat = "uid 'root' gid 'root' muid 'root' qid 0x3.0 mode --rw-r--r-- atime 0 mtime 0 length 4 type 0 dev 0"
)
