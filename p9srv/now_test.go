package p9srv_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"containerfs/p9srv"
	"containerfs/p9srv/p9test"
)

// openFiles opens f0, f1, ... as fids 1, 2, ...
func openFiles(w *p9test.Wire, n int) {
	w.Script(hello)
	for i := range n {
		w.Script(fmt.Sprintf(`
			Twalk 1 0 %[1]d
			Rwalk 1
			Tlcreate 1 %[1]d f%[2]d 2 0644 0
			Rlcreate 1...`, i+1, i))
	}
}

// writesSeen has the gate note which of the two ways each write goes.
func writesSeen(tree *p9test.Tree, during func(op, name string)) (seen func() []string) {
	var mu sync.Mutex
	var ops []string
	tree.SetGate(func(op, name string) {
		if !strings.HasPrefix(op, "write") {
			return
		}
		mu.Lock()
		ops = append(ops, op)
		mu.Unlock()
		during(op, name)
	})
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(ops)
	}
}

func TestWriteThatNeedNotWait(t *testing.T) {
	tree := p9test.NewTree()
	srv, a := p9test.ServeAt(t, p9srv.Config{Attacher: tree}, p9srv.Addr{Network: "tcp", Address: "127.0.0.1:0"})
	w := dial(t, a)
	openFiles(w, 1)
	held := make(chan struct{})
	seen := writesSeen(tree, func(op, _ string) {
		if op == "write" {
			<-held
		}
	})
	tree.SetPrompt(true)
	w.Script(`
		Twrite 2 1 0 now
		Rwrite 2 3`)
	// One that has to wait is a worker's, and nothing has been done before.
	tree.SetPrompt(false)
	w.Script(`
		Twrite 3 1 3 later
		Tgetattr 4 0 1
		Rgetattr 4...`)
	// So is what comes after it.
	tree.SetPrompt(true)
	w.Send("Twrite 5 1 8 too")
	w.Script(`
		Tgetattr 6 0 1
		Rgetattr 6...`)
	close(held)
	w.Want("Rwrite 3 5", "Rwrite 5 3")
	w.Script(`
		Tread 7 1 0 20
		Rread 7 "nowlatertoo"`)
	if got, want := seen(), []string{"write now", "write now", "write", "write"}; !slices.Equal(got, want) {
		t.Errorf("writes were asked for as %q, want %q", got, want)
	}
	for _, v := range srv.Stats().Requests {
		if v.Verb == "write" && (v.Count != 3 || v.OK != 3) {
			t.Errorf("counted %d, %d without error, of 3", v.Count, v.OK)
		}
	}
	// What is no file to be written to is refused the same.
	w.Script(`
		Twrite 2 0 0 x
		Rlerror 2 EBADF
		Twrite 2 9 0 x
		Rlerror 2 EBADF`)
}

func TestPanicOfAWriteThatNeedNotWait(t *testing.T) {
	tree, a := start(t, p9srv.Config{})
	w, other := dial(t, a), dial(t, a)
	openFiles(w, 1)
	tree.SetPrompt(true)
	writesSeen(tree, func(string, string) { panic("on purpose") })
	w.Script(`
		Twrite 2 1 0 x
		Rlerror 2 EIO`)
	writesSeen(tree, func(string, string) {})
	other.Script(hello + `
		Twalk 1 0 1 f0
		Rwalk 1...
		Tlopen 1 1 1
		Rlopen 1...
		Twrite 2 1 0 y
		Rwrite 2 1`)
}

// Replies do not wait for a long batch of writes to end.
func TestRepliesOfALongBatchOfWrites(t *testing.T) {
	tree, a := start(t, p9srv.Config{})
	tree.SetPrompt(true)
	w := dial(t, a)
	openFiles(w, 2)
	held := make(chan struct{})
	writesSeen(tree, func(_, name string) {
		if name == "f1" {
			<-held
			return
		}
		time.Sleep(time.Millisecond)
	})
	w.Send("Twrite 2 1 0 x", "Twrite 3 2 0 x")
	w.Want("Rwrite 2 1")
	close(held)
	w.Want("Rwrite 3 1")
}

// The other dialect, and a connection that is not the kernel's own.
func TestWriteNowElsewhere(t *testing.T) {
	for _, now := range []bool{true, false} {
		tree, a := start(t, p9srv.Config{})
		tree.SetPrompt(now)
		seen := writesSeen(tree, func(string, string) {})
		trace(t, a).Script(helloClassic + `
			Twalk tag 1 fid 0 newfid 1 wname f
			Rwalk tag 1 wqid [0x3.0]
			Topen tag 1 fid 1 mode ORDWR
			Ropen tag 1 qid 0x3.0 iounit 0
			Twrite tag 1 fid 1 offset 2 data zz
			Rwrite tag 1 count 2
			Tread tag 1 fid 1 offset 1 count 0xffffffff
			Rread tag 1 count 3 "-zz"`)
		want := []string{"write now"}
		if !now {
			want = append(want, "write")
		}
		if got := seen(); !slices.Equal(got, want) {
			t.Errorf("9P2000: writes were asked for as %q, want %q", got, want)
		}

		ca := p9test.NewAuthority(t)
		tree = p9test.NewTree()
		tree.Put("f", []byte("0"))
		tree.SetPrompt(now)
		seen = writesSeen(tree, func(string, string) {})
		tls := listenTLS(t, tree, ca.Server(), "&as=daemon")
		tls.TLS = ca.Client()
		dial(t, tls).Script(hello + `
			Twalk 1 0 1 f
			Rwalk 1...
			Tlopen 1 1 1
			Rlopen 1...
			Twrite 2 1 0 text
			Rwrite 2 4`)
		if got := seen(); !slices.Equal(got, want) {
			t.Errorf("TLS: writes were asked for as %q, want %q", got, want)
		}
	}
}
