package p9srv

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fakeSSH has ssh be a shell script, which has the arguments of ssh.
func fakeSSH(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ssh"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// TestDialSSH: what ssh and the command say before the line that is waited for does no harm,
// and what they write to standard output is the connection, whose end is theirs.
func TestDialSSH(t *testing.T) {
	args := filepath.Join(t.TempDir(), "args")
	fakeSSH(t, `printf '%s\n' "$@" >`+args+`; echo "not ready" >&2; yes | head -c 100000 >&2; echo >&2; echo ready >&2
		head -n1; yes >&2 & cat >/dev/null; kill $!`)
	a, err := ParseAddr("ssh://alice@[::1]:2022/run/it's?command=/opt/c%20d")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := a.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := conn.Write([]byte("hello\n")); err != nil {
		t.Error(err)
	}
	b := make([]byte, 6)
	if _, err := io.ReadFull(conn, b); err != nil || string(b) != "hello\n" {
		t.Errorf("read %q, %v", b, err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	got, err := os.ReadFile(args)
	want := "-T -o ServerAliveInterval=15 -o ClearAllForwardings=yes -o RemoteCommand=none -p 2022 -l alice -- ::1 '/opt/c d' proxy - 'unix:///run/it%27s'"
	if text := strings.Join(strings.Fields(string(got)), " "); err != nil || text != want {
		t.Errorf("ssh has %s, %v, want %s", text, err, want)
	}
}

// TestDialSSHRefused: where there is no connection the error says what ssh did, at once when it
// has ended, though others have its standard error, and in time when it does not end.
func TestDialSSHRefused(t *testing.T) {
	for _, tt := range []struct {
		script, want string
		timeout      time.Duration
	}{
		{"echo one >&2; echo two >&2; exit 255", "ssh: one; two", time.Minute},
		{"echo ready; echo ' ready' >&2", "ssh:  ready", time.Minute},
		{"exit 1", "without a word", time.Minute},
		{"sleep 30 & echo no >&2; exit 1", "ssh: no", time.Minute},
		{"echo wait >&2; exec sleep 30", "wait", 300 * time.Millisecond},
		{"sleep 30 & echo wait >&2; wait", "deadline exceeded", 300 * time.Millisecond},
	} {
		fakeSSH(t, "exec </dev/null >/dev/null\n"+tt.script)
		ctx, cancel := context.WithTimeout(t.Context(), tt.timeout)
		begin := time.Now()
		conn, err := Addr{Network: "ssh", Address: "host"}.Dial(ctx)
		cancel()
		if err == nil {
			conn.Close()
			t.Errorf("%s: connected", tt.script)
		} else if !strings.Contains(err.Error(), tt.want) || (tt.timeout < time.Minute) != errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v, want %s", tt.script, err, tt.want)
		}
		if took := time.Since(begin); took > 20*time.Second {
			t.Errorf("%s: it took %v", tt.script, took)
		}
	}
	t.Setenv("PATH", "/nonexistent")
	if _, err := (Addr{Network: "ssh", Address: "host"}).Dial(t.Context()); err == nil || !strings.Contains(err.Error(), "ssh") {
		t.Errorf("without ssh: %v", err)
	}
}

// TestListenSSH: nobody can listen there, which is to be known before anybody tries.
func TestListenSSH(t *testing.T) {
	_, err := ParseExport("ssh://host")
	_, again := NewExport("ssh://host", nil)
	for _, err := range []error{err, again} {
		if o := (*OptionError)(nil); !errors.As(err, &o) || !strings.Contains(err.Error(), "network must be") {
			t.Errorf("%v", err)
		}
	}
}
