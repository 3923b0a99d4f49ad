package p9srv_test

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"9fans.net/go/plan9"
	"9fans.net/go/plan9/client"

	"containerfs/p9srv"
	"containerfs/p9srv/p9test"
)

// TestPlan9Client uses the server as programs of Plan 9 ports in Go do.
func TestPlan9Client(t *testing.T) {
	tree, a := start(t, p9srv.Config{})
	tree.Put("big", []byte(strings.Repeat("0123456789", 50000)))
	conn, err := client.NewConn(p9test.Dial(t, a))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Auth("root", ""); err == nil || err.Error() != "authentication not required" {
		t.Errorf("auth: %v", err)
	}
	fsys, err := conn.Attach(nil, "", "")
	if err != nil {
		t.Fatal(err)
	}
	try := func(what string, err error, want string) {
		t.Helper()
		if got := fmt.Sprint(err); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	names := func(dir string) (out []string) {
		t.Helper()
		f, err := fsys.Open(dir, plan9.OREAD)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		list, err := f.Dirreadall()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range list {
			out = append(out, d.Name)
		}
		return out
	}

	for i := range 3000 { // several messages of any size
		f, err := fsys.Create(fmt.Sprintf("d/%04d", i), plan9.OREAD, plan9.DMDIR|0o755)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	list := names("d")
	if len(list) != 3000 || !slices.IsSorted(list) || list[2999] != "2999" {
		t.Errorf("%d names, the last is %s", len(list), list[len(list)-1])
	}
	if got := names("d/0000"); len(got) != 0 {
		t.Errorf("an empty directory has %v", got)
	}
	_, err = fsys.Create("d/0001", plan9.OREAD, plan9.DMDIR|0o755)
	try("mkdir", err, "File exists")
	try("remove", fsys.Remove("d"), "Directory not empty")
	try("remove", fsys.Remove("d/0001"), "<nil>")
	try("remove", fsys.Remove("d/0001"), "file 'd/0001' not found") // the client's own words
	_, err = fsys.Open("f/x", plan9.OREAD)
	try("walk through a file", err, "file 'f/x' not found")

	var d plan9.Dir
	d.Null()
	d.Name = "renamed"
	try("wstat", fsys.Wstat("d/0002", &d), "<nil>")
	now, err := fsys.Stat("d/renamed")
	try("stat", err, "<nil>")
	if now.Name != "renamed" || now.Mode != plan9.DMDIR|0o755 || now.Qid.Type != plan9.QTDIR {
		t.Errorf("%v", now)
	}
	try("access", fsys.Access("f", plan9.AREAD), "<nil>")
	try("access", fsys.Access("f", plan9.AEXEC), "Permission denied")

	f, err := fsys.Open("big", plan9.ORDWR)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err != nil || len(b) != 500000 || string(b[499990:]) != "0123456789" {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	n, err := f.WriteAt([]byte("xyz"), 3)
	if n != 3 || err != nil {
		t.Errorf("%d %v", n, err)
	}
	if n, err = f.ReadAt(b[:6], 2); n != 6 || string(b[:6]) != "2xyz67" {
		t.Errorf("%q %v", b[:n], err)
	}
	f.Close()
}

// TestClientSequences sends what clients were seen to send.
func TestClientSequences(t *testing.T) {
	for name, script := range map[string]string{
		"9pfuse": `
			Tversion tag 0xffff msize 8192 version 9P2000
			Rversion tag 65535 msize 8192 version '9P2000'
			Tattach tag 0 fid 0 afid NOFID uname root
			Rattach tag 0 qid 0x1.0.d
			Tstat tag 0 fid 0                          # stat of the mount
			Rstat tag 0 stat name '/'...
			Twalk tag 0 fid 0 newfid 1 wname a         # mkdir a: lookup, create, stat open, walk again
			Rerror tag 0 ename No such file or directory
			Twalk tag 0 fid 0 newfid 1
			Rwalk tag 0 wqid []
			Tcreate tag 0 fid 1 name a perm d-rwxr-xr-x mode OREAD
			Rcreate tag 0 qid 0x4.0.d iounit 0
			Tstat tag 0 fid 1
			Rstat tag 0 stat name 'a'...
			Twalk tag 0 fid 0 newfid 2 wname a
			Rwalk tag 0 wqid [0x4.0.d]
			Tclunk tag 0 fid 1
			Rclunk tag 0
			Twalk tag 0 fid 0 newfid 1 wname a         # mv a b
			Rwalk tag 0 wqid [0x4.0.d]
			Twstat tag 0 fid 1 stat (name b)
			Rwstat tag 0
			Tclunk tag 0 fid 1
			Rclunk tag 0
			Tstat tag 0 fid 2                          # the node stays
			Rstat tag 0 stat name 'b'...
			Twalk tag 0 fid 0 newfid 3 wname f         # echo > f: lookup, stat, truncate, open, write
			Rwalk tag 0 wqid [0x3.0]
			Tstat tag 0 fid 3
			Rstat tag 0 stat name 'f'...
			Twalk tag 0 fid 3 newfid 4
			Rwalk tag 0 wqid []
			Topen tag 0 fid 4 mode OWRITE|OTRUNC
			Ropen tag 0 qid 0x3.0 iounit 0
			Tclunk tag 0 fid 4
			Rclunk tag 0
			Twalk tag 0 fid 3 newfid 4
			Rwalk tag 0 wqid []
			Topen tag 0 fid 4 mode OWRITE
			Ropen tag 0 qid 0x3.0 iounit 0
			Twstat tag 0 fid 4 stat (length 0)         # with a handle
			Rwstat tag 0
			Twrite tag 0 fid 4 data 7777
			Rwrite tag 0 count 2
			Tclunk tag 0 fid 4
			Rclunk tag 0
			Twstat tag 0 fid 2 stat (mode d-rwx------) # chmod 700 b
			Rwstat tag 0
			Twstat tag 0 fid 2 stat (atime 7 mtime 7)  # touch b
			Rwstat tag 0
			Twalk tag 0 fid 0 newfid 4                 # ls
			Rwalk tag 0 wqid []
			Topen tag 0 fid 4 mode OREAD
			Ropen tag 0 qid 0x1.0.d iounit 0
			Tread tag 0 fid 4 offset 0 count 4096
			Rread tag 0 count 186 [(name 'd'...
			Tread tag 0 fid 4 offset 186 count 4096
			Rread tag 0 count 0 []
			Tclunk tag 0 fid 4
			Rclunk tag 0
			Twalk tag 0 fid 0 newfid 4 wname b         # rmdir b
			Rwalk tag 0 wqid [0x4.0.d]
			Tremove tag 0 fid 4
			Rremove tag 0`,
		"9p": `
			Tversion tag 0xffff msize 8192 version 9P2000
			Rversion tag 65535 msize 8192 version '9P2000'
			Tauth tag 0 afid 0 uname root
			Rerror tag 0 ename authentication not required
			Tattach tag 0 fid 0 afid NOFID uname root
			Rattach tag 0 qid 0x1.0.d
			Twalk tag 0 fid 0 newfid 1 wname f         # 9p read f
			Rwalk tag 0 wqid [0x3.0]
			Topen tag 0 fid 1 mode OREAD
			Ropen tag 0 qid 0x3.0 iounit 0
			Tread tag 0 fid 1 offset 0 count 4096
			Rread tag 0 count 4 "0-3\n"
			Tread tag 0 fid 1 offset 4 count 4096
			Rread tag 0 count 0 []
			Tclunk tag 0 fid 1
			Rclunk tag 0
			Twalk tag 0 fid 0 newfid 1                 # 9p create new
			Rwalk tag 0 wqid []
			Tcreate tag 0 fid 1 name new perm --rw-r--r-- mode OREAD
			Rcreate tag 0 qid 0x4.0 iounit 0
			Tclunk tag 0 fid 1
			Rclunk tag 0`,
		"9front": `
			Tversion tag 0xffff msize 8216 version 9P2000
			Rversion tag 65535 msize 8216 version '9P2000'
			Tauth tag 1 afid 100 uname glenda
			Rerror tag 1 ename authentication not required
			Tattach tag 1 fid 100 afid NOFID
			Rattach tag 1 qid 0x1.0.d
			Twalk tag 1 fid 100 newfid 101 wname d     # cd d
			Rwalk tag 1 wqid [0x2.0.d]
			Topen tag 1 fid 101 mode OREAD
			Ropen tag 1 qid 0x2.0.d iounit 0
			Twalk tag 1 fid 101 newfid 102 wname ..    # from the open directory, by itself
			Rwalk tag 1 wqid [0x1.0.d]
			Twalk tag 1 fid 102 newfid 102 wname f
			Rwalk tag 1 wqid [0x3.0]
			Topen tag 1 fid 102 mode OREAD|OCEXEC
			Ropen tag 1 qid 0x3.0 iounit 0
			Tread tag 1 fid 102 offset 0 count 8192
			Rread tag 1 count 4 "0-3\n"
			Tflush tag 2 oldtag 1
			Rflush tag 2
			Twalk tag 1 fid 100 newfid 103             # mkdir: create, then fid is the directory
			Rwalk tag 1 wqid []
			Tcreate tag 1 fid 103 name bin perm d-rwxrwxr-x mode OREAD
			Rcreate tag 1 qid 0x4.0.d iounit 0
			Tclunk tag 1 fid 103
			Rclunk tag 1
			Twalk tag 1 fid 100 newfid 103 wname bin   # chgrp, with a whole record of nothing else
			Rwalk tag 1 wqid [0x4.0.d]
			Twstat tag 1 fid 103 stat (gid daemon)
			Rwstat tag 1
			Tremove tag 1 fid 103
			Rremove tag 1`,
	} {
		t.Run(name, func(t *testing.T) {
			_, a := start(t, p9srv.Config{})
			trace(t, a).Script(asMyself(t, script))
		})
	}
}
