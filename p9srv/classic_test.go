package p9srv_test

import (
	"strings"
	"testing"

	"containerfs/p9srv"
	"containerfs/p9srv/p9test"
)

func trace(t testing.TB, a p9srv.Addr) *p9test.Wire {
	t.Helper()
	return p9test.NewTrace(t, p9test.Dial(t, a))
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
			Tcreate tag 1 fid 3 name sub perm d-rwxr-xr-x
			Rwalk tag 1 wqid []
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
			trace(t, a).Script(script)
		})
	}
}

const (
	dirStat  = "uid 'root' gid 'root' muid 'root' qid 0x2.0.d mode d-rwxr-xr-x atime 0 mtime 0 length 0 type 0 dev 0"
	statD    = "name 'd' uid 'root' gid 'root' muid 'root' qid 0x2.0.d mode d-rw-r--r-- atime 0 mtime 0 length 0 type 0 dev 0"
	statF    = "name 'f' " + fileStat
	fileStat = "uid 'root' gid 'root' muid 'root' qid 0x3.0 mode --rw-r--r-- atime 0 mtime 0 length 4 type 0 dev 0"
)
