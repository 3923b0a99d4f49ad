package tests

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLogReaderEnds: a server outlives who reads its log.
func TestLogReaderEnds(t *testing.T) {
	needHost(t)
	sock := filepath.Join(t.TempDir(), "s")
	cmd := exec.Command("containerfs", "serve", "--listen", "unix://"+sock, "--hierarchy", "n=numtasks")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for in := bufio.NewScanner(stderr); in.Scan() && in.Text() != "ready"; {
	}
	stderr.Close()
	s := &server{t: t, sock: sock}
	for _, name := range []string{"a", "b", "c"} {
		if code, _, stderr := s.command("mkdir", "/n/"+name); code != 0 {
			t.Errorf("mkdir of %s: %s", name, stderr)
		}
	}
	if got := s.run("ls", "/n"); !strings.Contains(got, "c") {
		t.Errorf("ls: %s", got)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
	if err := cmd.Wait(); err != nil {
		t.Errorf("the server ended with %v", err)
	}
}

// TestLogReaderStandsStill: nor does it wait for one who does not take its log. What he
// missed is counted.
func TestLogReaderStandsStill(t *testing.T) {
	needHost(t)
	sock := filepath.Join(t.TempDir(), "s")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command("containerfs", "serve", "--listen", "unix://"+sock, "--hierarchy", "n=numtasks")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
	in := bufio.NewReader(r)
	for line := ""; line != "ready\n"; {
		if line, err = in.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	// Nobody reads from now on, and there is no room.
	full, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", w.Fd()), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = unix.Write(full, []byte("x"))
	}
	unix.Close(full)
	s := &server{t: t, sock: sock}
	for _, name := range []string{"a", "b", "c"} {
		s.run("mkdir", "/n/"+name)
	}
	said := make(chan bool)
	go func() {
		text, _ := io.ReadAll(in)
		said <- strings.Contains(string(text), "lines of the log were lost")
	}()
	waitFor(t, "room", func() bool {
		n, err := unix.IoctlGetInt(int(r.Fd()), unix.TIOCINQ)
		return n == 0 && err == nil
	})
	s.run("mkdir", "/n/d")
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil || !late.Stop() {
		t.Errorf("the server ended with %v", err)
	}
	w.Close()
	if !<-said {
		t.Error("that lines were lost is not said")
	}
}
