package p9srv_test

import (
	"sync/atomic"
	"testing"

	"containerfs/p9srv"
	"containerfs/p9srv/p9test"
)

// TestRemoveOnCloseAtHangup removes what a client that is gone had open for that.
func TestRemoveOnCloseAtHangup(t *testing.T) {
	tree, a := start(t, p9srv.Config{})
	w, other := trace(t, a), dial(t, a)
	other.Script(hello)
	w.Script(helloClassic + `
		Tcreate tag 1 fid 0 name e perm d-rwxr-xr-x mode ORCLOSE
		Rcreate tag 1 qid 0x4.0.d iounit 0`)
	other.Script(`
		Twalk 1 0 1 e
		Rwalk 1 d4`)
	w.Close()
	waitFor(t, "its files closed", func() bool { return tree.Open() == 2 })
	other.Script(`
		Twalk 1 0 2 e
		Rlerror 1 ENOENT`)
}

// TestRemoveOnCloseIsSlow has the removal hold up no other fid.
func TestRemoveOnCloseIsSlow(t *testing.T) {
	tree, a := start(t, p9srv.Config{})
	w := trace(t, a)
	w.Script(helloClassic + `
		Twalk tag 1 fid 0 newfid 1
		Rwalk tag 1 wqid []
		Tcreate tag 1 fid 1 name e perm d-rwxr-xr-x mode ORCLOSE
		Rcreate tag 1 qid 0x4.0.d iounit 0`)
	g := hold(t, tree, "remove")
	w.Script(`
		Tclunk tag 1 fid 1
		Tstat tag 2 fid 0
		Rstat tag 2...`)
	g.await(t, 1)
	g.release()
	w.Want("Rclunk tag 1")
}

// TestRemovedOnce has Tremove of a fid that is opened to be removed remove it once.
func TestRemovedOnce(t *testing.T) {
	tree, a := start(t, p9srv.Config{})
	var times atomic.Int32
	tree.SetGate(func(op, _ string) {
		if op == "remove" {
			times.Add(1)
		}
	})
	trace(t, a).Script(helloClassic + `
		Tcreate tag 1 fid 0 name e perm d-rwxr-xr-x mode ORCLOSE
		Rcreate tag 1 qid 0x4.0.d iounit 0
		Tremove tag 1 fid 0
		Rremove tag 1`)
	if n := times.Load(); n != 1 {
		t.Errorf("removed %d times", n)
	}
}

// TestPanicInRemoveOnClose: even then the file is closed, and the others go on.
func TestPanicInRemoveOnClose(t *testing.T) {
	for _, last := range []string{"Tclunk tag 1 fid 1", "Tversion tag 65535 msize 8192 version 9P2000"} {
		tree := p9test.NewTree()
		a := p9test.Serve(t, p9srv.Config{Attacher: tree})
		other := dial(t, a)
		other.Script(hello)
		w := trace(t, a)
		w.Script(helloClassic + `
			Twalk tag 1 fid 0 newfid 1
			Rwalk tag 1 wqid []
			Tcreate tag 1 fid 1 name e perm d-rwxr-xr-x mode ORCLOSE
			Rcreate tag 1 qid 0x2.0.d iounit 0`)
		tree.SetGate(func(op, _ string) {
			if op == "remove" {
				panic("on purpose")
			}
		})
		w.Send(last)
		waitFor(t, "its files closed", func() bool { return tree.Open() == 1 })
		other.Script(`
			Tgetattr 1 0 1
			Rgetattr 1...`)
		for _, f := range tree.Faults() {
			t.Error(f)
		}
	}
}
