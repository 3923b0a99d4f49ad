package tests

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// screen is a terminal with a command in it.
type screen struct {
	t    *testing.T
	cmd  *exec.Cmd
	keys *os.File
	text lockedBuffer
	read chan struct{} // closed when nothing more comes
}

// startInTerminal starts a command as a shell in a new terminal would: it leads a
// session, and the terminal is its own.
func startInTerminal(t *testing.T, s *server, args ...string) *screen {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	c := &screen{t: t, keys: master, read: make(chan struct{})}
	c.resize(100, 10)
	c.cmd = exec.Command(args[0], args[1:]...)
	c.cmd.Env = append(os.Environ(), "CONTAINERFS_SERVER=unix://"+s.sock)
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = slave, slave, slave
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(c.read)
		io.Copy(&c.text, master) // an EIO when all have closed the other side
	}()
	t.Cleanup(func() { c.cmd.Process.Kill() })
	return c
}

func (c *screen) resize(columns, rows uint16) {
	c.t.Helper()
	if err := unix.IoctlSetWinsize(int(c.keys.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows}); err != nil {
		c.t.Fatal(err)
	}
}

// press types a key.
func (c *screen) press(key string) {
	c.t.Helper()
	if _, err := io.WriteString(c.keys, key); err != nil {
		c.t.Fatal(err)
	}
}

// wait waits until a text comes, behind what came before.
func (c *screen) wait(from int, text string) (end int) {
	c.t.Helper()
	for late := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		shown := c.text.String()
		if i := strings.Index(shown[from:], text); i >= 0 {
			return from + i + len(text)
		}
		if time.Now().After(late) {
			c.t.Fatalf("no %q in %q", text, shown[from:])
		}
	}
}

// end waits for the command's end and returns its exit code.
func (c *screen) end() int {
	c.t.Helper()
	late := time.AfterFunc(30*time.Second, func() { c.cmd.Process.Kill() })
	defer late.Stop()
	c.cmd.Wait()
	<-c.read
	return c.cmd.ProcessState.ExitCode()
}

// TestTopKeys sorts, resizes and ends top in a terminal.
func TestTopKeys(t *testing.T) {
	s := startServer(t, "--hierarchy", "num=numtasks")
	s.run("mkdir", "/num/"+strings.Repeat("long", 20))
	c := startInTerminal(t, s, "containerfs", "top", "-d", "1h", "/num")
	at := c.wait(0, "sorted by cpu")
	at = c.wait(at, "CONTAINER")
	at = c.wait(at, "/num/longlong")
	c.press("p")
	at = c.wait(at, "sorted by path")
	c.press("r")
	at = c.wait(at, "sorted by path, reversed")
	c.press("t")
	at = c.wait(at, "sorted by tasks, reversed")

	// In a small terminal what does not fit is left out.
	from := c.wait(at, "\x1b[J")
	c.resize(30, 4)
	at = c.wait(from, "\x1b[J")
	drawn := c.text.String()[from:at]
	if lines := strings.Split(drawn, "\r\n"); len(lines) != 4 {
		t.Errorf("%d lines in 4: %q", len(lines), drawn)
	}
	if strings.Contains(drawn, "/num") || !strings.Contains(drawn, "/nu") {
		t.Errorf("lines of 30 columns: %q", drawn)
	}
	c.press("q")
	if code := c.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	// The screen and the cursor are given back.
	if shown := c.text.String(); !strings.HasSuffix(shown, "\x1b[?25h\x1b[?1049l") {
		t.Errorf("the end is %q", shown[max(0, len(shown)-100):])
	}
}

// TestRunTerminal has a command run with the terminal's keys: they are for it, once.
func TestRunTerminal(t *testing.T) {
	s := startServer(t, "--hierarchy", "num=numtasks")
	s.run("mkdir", "/num/a")
	c := startInTerminal(t, s, "containerfs", "run", "-c", "/num/a", "--", "sh", "-c", `
		trap 'n=$((n+1))' INT
		tty >/dev/null && echo rea''dy
		until read line && [ "$line" ]; do :; done # a signal ends a read
		echo "read $line after $n"
		exit 5`)
	at := c.wait(0, "ready")
	c.press("\x03") // Ctrl-C
	at = c.wait(at, "^C")
	c.press("word\n")
	c.wait(at, "read word after 1")
	if code := c.end(); code != 5 {
		t.Errorf("exit code %d, and %q", code, c.text.String())
	}
}

// TestRunStops has a shell get the terminal back when a command is stopped.
func TestRunStops(t *testing.T) {
	s := startServer(t, "--hierarchy", "num=numtasks")
	s.run("mkdir", "/num/a")
	c := startInTerminal(t, s, "bash", "--norc", "--noprofile", "-i")
	c.press("PS1=; containerfs run -c /num/a -- sh -c 'echo rea''dy; read line; echo \"got $line\"; exit 7'\n")
	at := c.wait(0, "ready\r\n")
	c.press("\x1a") // Ctrl-Z
	at = c.wait(at, "Stopped")
	c.press("echo in the sh''ell; fg\n")
	at = c.wait(at, "in the shell")
	c.press("word\n")
	at = c.wait(at, "got word")
	c.press("echo co''de $?; exit\n")
	c.wait(at, "code 7")
	c.end()
}

// TestWaitTerminal has wait say how long it has waited, and take that away.
func TestWaitTerminal(t *testing.T) {
	s := startServer(t, "--hierarchy", "num=numtasks")
	s.run("mkdir", "/num/a")
	p := startSpawner(t)
	s.run("attach", "/num/a", fmt.Sprint(p.pid()))
	c := startInTerminal(t, s, "containerfs", "wait", "/num/a")
	at := c.wait(0, "\r\x1b[Kwait /num/a: for ")
	at = c.wait(at, "\r\x1b[Kwait /num/a: for ")
	p.kill()
	if code := c.end(); code != 0 {
		t.Errorf("exit code %d, and %q", code, c.text.String())
	}
	if shown := c.text.String(); !strings.HasSuffix(shown, "\r\x1b[K") {
		t.Errorf("the end is %q", shown[at:])
	}
}
