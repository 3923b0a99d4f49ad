package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"containerfs/ops"
	"containerfs/p9srv"
	"containerfs/tree"
	"containerfs/tree/hostproc"
	"containerfs/tree/hostsim"
)

// within is a context that ends soon: for what is known to hang.
func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// TestLiveness: each of the things that have to work is missed when it does not, and
// what hangs is looked at by one goroutine, whoever asks.
func TestLiveness(t *testing.T) {
	host := hostsim.New()
	model, err := tree.New(tree.Config{Host: host})
	if err != nil {
		t.Fatal(err)
	}
	var hearErr atomic.Pointer[error]
	var heard atomic.Int32
	drain := make(chan struct{}, 1)
	drain <- struct{}{}
	l := livenessOf(func(context.Context) error {
		heard.Add(1)
		if err := hearErr.Load(); err != nil {
			return *err
		}
		return nil
	}, func() { drain <- <-drain }, model)
	defer l.wait()
	ok := func(what string) {
		t.Helper()
		if err := l.check(within(t, time.Minute)); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	hangs := func(at string) {
		t.Helper()
		was := heard.Load()
		check := func() error { return l.check(within(t, 20*time.Millisecond)) }
		// On a busy machine the look takes its time to get there.
		for end := time.Now().Add(time.Minute); time.Now().Before(end); {
			if err := check(); err == nil || strings.Contains(err.Error(), at) {
				break
			}
		}
		for range 5 {
			if err := check(); err == nil || !strings.Contains(err.Error(), at) {
				t.Errorf("got %v, want one about %q", err, at)
			}
		}
		if n := heard.Load() - was; n != 1 {
			t.Errorf("%d looks at once", n)
		}
	}
	// settled waits for the look that was left behind.
	settled := func() { l.wait() }
	ok("at the start")

	deaf := errors.New("deaf")
	hearErr.Store(&deaf)
	if err := l.check(within(t, time.Minute)); !errors.Is(err, deaf) {
		t.Errorf("got %v", err)
	}
	hearErr.Store(nil)
	ok("heard again")

	<-drain
	hangs("events on their way")
	drain <- struct{}{}
	settled()
	ok("drained again")

	release, locked := make(chan struct{}), make(chan struct{})
	go model.Change(func() error { close(locked); <-release; return nil })
	<-locked
	hangs("the lock of changes")
	close(release)
	settled()
	ok("changed again")

	release, locked = make(chan struct{}), make(chan struct{})
	go model.Update(func() { close(locked); <-release })
	<-locked
	hangs("the model")
	close(release)
	settled()
	ok("read again")
}

// TestHealthz: the reason is in the answer.
func TestHealthz(t *testing.T) {
	var sick error
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	h := metricsHandler(&sources{
		func() (hostproc.Stats, error) { return hostproc.Stats{}, nil },
		func() tree.Totals { return tree.Totals{} },
		func() p9srv.Stats { return p9srv.Stats{} },
		func() ops.RuleStats { return ops.RuleStats{} }, ops.NewAudit(log),
	}, func(context.Context) error { return sick })
	for _, tt := range []struct {
		sick error
		code int
		body string
	}{{nil, 200, "ok\n"}, {errors.New("no answer"), 503, "no answer\n"}} {
		sick = tt.sick
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/healthz", nil))
		if w.Code != tt.code || w.Body.String() != tt.body {
			t.Errorf("%v: %d %q", tt.sick, w.Code, w.Body)
		}
	}
}

// TestWatchdog: the service manager is told that the server is alive while it is, and
// not while it is not.
func TestWatchdog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "n")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "40000")
	t.Setenv("WATCHDOG_PID", "")
	var looks, sick atomic.Int32
	sick.Store(1)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		notifier{slog.New(slog.DiscardHandler)}.watchdog(ctx, func(context.Context) error {
			looks.Add(1)
			if sick.Load() != 0 {
				return errors.New("sick")
			}
			return nil
		})
	}()
	defer func() { stop(); <-done }()
	for looks.Load() < 5 {
		time.Sleep(time.Millisecond)
	}
	conn.SetReadDeadline(time.Now().Add(time.Millisecond))
	b := make([]byte, 100)
	if n, err := conn.Read(b); err == nil {
		t.Errorf("told %q of a server that is not alive", b[:n])
	}
	sick.Store(0)
	conn.SetReadDeadline(time.Now().Add(time.Minute))
	if n, err := conn.Read(b); err != nil || string(b[:n]) != "WATCHDOG=1" {
		t.Errorf("told %q, %v", b[:n], err)
	}
}
