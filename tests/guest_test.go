package tests

import (
	"bufio"
	"bytes"
	"context"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// guestLimit is the longest that a guest may run, in seconds: it has no say in how
// busy the machine is.
var guestLimit = "600"

// guest is a script that runs in a virtual machine with a stock kernel (the
// program `guest` beside this file says what is in there). Its lines come as it
// writes them.
type guest struct {
	t      testing.TB
	cmd    *exec.Cmd
	lines  chan string // closed at the end of the output
	stderr lockedBuffer
	output strings.Builder // lines that were taken
	kill   context.CancelFunc
	ended  bool
}

// startGuest runs a script in a new guest, with host files copied in: guest
// path to host path. The guest ends with the test at the latest. Options are
// those of the program.
func startGuest(t testing.TB, files map[string]string, script string, options ...string) *guest {
	t.Helper()
	lacking(t, "guest", "")
	args := append([]string{"--timeout", guestLimit}, options...)
	for to, from := range files {
		args = append(args, "--file", from+":"+to)
	}
	ctx, kill := context.WithCancel(context.Background())
	g := &guest{t: t, lines: make(chan string), kill: kill}
	g.cmd = exec.CommandContext(ctx, "./guest", append(args, "--", "-")...)
	g.cmd.Cancel = func() error { return g.cmd.Process.Signal(syscall.SIGTERM) } // it ends its QEMU
	g.cmd.WaitDelay = 10 * time.Second
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	g.cmd.Stdin = strings.NewReader(script)
	g.cmd.Stderr = &g.stderr
	out, err := g.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := g.cmd.Start(); err != nil {
		kill()
		t.Fatal(err)
	}
	go func() {
		defer close(g.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			g.lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		if !g.ended {
			g.kill()
			g.wait()
		}
		if t.Failed() {
			t.Logf("guest's output:\n%s\nguest's standard error:\n%s", g.output.String(), g.stderr.String())
		}
	})
	return g
}

// expect takes lines up to one that is want, and fails if the script ends
// before.
func (g *guest) expect(want string) {
	g.t.Helper()
	for line := range g.lines {
		g.output.WriteString(line + "\n")
		if line == want {
			return
		}
	}
	g.t.Fatalf("the guest ended before it said %q", want)
}

// wait takes what is left of the output and returns the script's end.
func (g *guest) wait() error {
	for line := range g.lines {
		g.output.WriteString(line + "\n")
	}
	g.ended = true
	err := g.cmd.Wait()
	g.kill()
	return err
}

// finish fails the test if the script failed, and returns all its output.
func (g *guest) finish() string {
	g.t.Helper()
	if err := g.wait(); err != nil {
		g.t.Fatalf("guest: %v\n%s", err, g.stderr.String())
	}
	return g.output.String()
}

// lockedBuffer is a buffer that can be looked at while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestGuest(t *testing.T) {
	file := t.TempDir() + "/note"
	writeFile(t, file, "from the host\n")
	g := startGuest(t, map[string]string{"/root/note": file}, `
		grep -w 9p /proc/filesystems
		echo ready
		cat /root/note
		id -u
		exit 0
	`)
	g.expect("ready")
	if got, want := g.finish(), "nodev\t9p\nready\nfrom the host\n0\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestGuestStatus: a script that fails is seen to.
func TestGuestStatus(t *testing.T) {
	g := startGuest(t, nil, "echo here; echo why >&2; exit 3")
	if err := g.wait(); err == nil || g.cmd.ProcessState.ExitCode() != 3 {
		t.Errorf("got %v, want exit status 3", err)
	}
	if g.output.String() != "here\n" || g.stderr.String() != "why\n" {
		t.Errorf("got %q and %q", g.output.String(), g.stderr.String())
	}
}
