package p9srv_test

import (
	"testing"
	"time"

	"containerfs/p9srv"
	"containerfs/p9srv/p9test"
)

// TestStats: every request is counted once, under its verb and its error.
func TestStats(t *testing.T) {
	tree := p9test.NewTree()
	tree.Put("d", nil)
	tree.Put("f", []byte("0-3\n"))
	const slowBy = 20 * time.Millisecond
	tree.SetGate(func(op, _ string) {
		if op == "mkdir" {
			time.Sleep(slowBy)
		}
	})
	srv, a := p9test.ServeAt(t, p9srv.Config{Attacher: tree}, p9srv.Addr{Network: "tcp", Address: "127.0.0.1:0"})
	if st := srv.Stats(); len(st.Requests) != 0 || st.Connections["tcp"] != 0 {
		t.Fatalf("at the start: %+v", st)
	}
	c := p9test.Dial(t, a)
	w := p9test.NewWire(t, c)
	w.Script(hello + `
		Twalk 1 0 1 f
		Rwalk...
		Twalk 1 0 2 nosuch
		Rlerror 1 ENOENT
		Twalk 1 0 2 nosuch
		Rlerror 1 ENOENT
		Twalk 1 77 2 f
		Rlerror 1 EBADF
		Tmkdir 1 0 e 0755 0
		Rmkdir...
		Tflush 2 1
		Rflush 2
		Tclunk 1 1
		Rclunk 1
	`)
	// Several of a kind that come at once.
	at := []byte{}
	for _, text := range []string{"Tgetattr 1 0 1", "Tgetattr 2 77 1", "Tgetattr 3 0 1"} {
		b, err := p9test.Encode(text)
		if err != nil {
			t.Fatal(err)
		}
		at = append(at, b...)
	}
	if _, err := w.Write(at); err != nil {
		t.Fatal(err)
	}
	w.Want("Rgetattr 1...", "Rlerror 2 EBADF", "Rgetattr 3...")
	w.Send("Tclunk ~ 1") // NOTAG
	w.Want("Rlerror...")
	st := srv.Stats()
	got := make(map[string]p9srv.VerbStats)
	for _, v := range st.Requests {
		got[v.Verb] = v
	}
	for verb, want := range map[string]struct {
		count  uint64
		errors map[string]uint64
	}{
		"version": {1, nil}, "attach": {1, nil}, "mkdir": {1, nil}, "flush": {1, nil},
		"walk":  {4, map[string]uint64{"ENOENT": 2, "EBADF": 1}},
		"clunk": {2, map[string]uint64{"EINVAL": 1}}, "getattr": {3, map[string]uint64{"EBADF": 1}},
	} {
		v := got[verb]
		good := v.Count
		for _, n := range v.Errors {
			good -= n
		}
		if v.Count != want.count || v.OK != good || len(v.Errors) != len(want.errors) {
			t.Errorf("%s: %d, %d of them good, errors %v", verb, v.Count, v.OK, v.Errors)
		}
		for errno, n := range want.errors {
			if v.Errors[errno] != n {
				t.Errorf("%s: %d times %s, want %d", verb, v.Errors[errno], errno, n)
			}
		}
		delete(got, verb)
	}
	for verb := range got {
		if verb != "mkdir" {
			t.Errorf("counted %s", verb)
		}
	}
	if st.Connections["tcp"] != 1 || st.Accepted["tcp"] != 1 || st.Refused != 0 {
		t.Errorf("connections: %+v", st)
	}

	// A latency is in a bucket that fits it.
	for _, v := range st.Requests {
		if v.Verb != "mkdir" {
			continue
		}
		if v.Sum < slowBy {
			t.Errorf("mkdir took %v", v.Sum)
		}
		for i, n := range v.Buckets {
			if n > 0 && (v.Sum >= p9srv.LatencyBound(i) || v.Sum < p9srv.LatencyBound(i)/2) {
				t.Errorf("%v is in the bucket below %v", v.Sum, p9srv.LatencyBound(i))
			}
		}
	}
	c.Close()
	waitFor(t, "the connection's end", func() bool { return srv.Stats().Connections["tcp"] == 0 })
}

// TestStatsRefused: who is not let in is counted, and is no connection.
func TestStatsRefused(t *testing.T) {
	e := parseExport(t, "tcp://127.0.0.1:0?allow=127.0.0.2")
	srv, a := p9test.ServeExport(t, p9srv.Config{Attacher: p9test.NewTree()}, e)
	c := p9test.Dial(t, a)
	c.SetDeadline(time.Now().Add(20 * time.Second))
	c.Read(make([]byte, 1))
	if st := srv.Stats(); st.Refused != 1 || st.Accepted["tcp"] != 0 || st.Connections["tcp"] != 0 {
		t.Errorf("%+v", st)
	}
}
