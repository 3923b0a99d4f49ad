package gated

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain: the test binary starts itself, to be somebody who starts a process with
// "gated ARGS...", and lets it go when something comes on its input.
func TestMain(m *testing.M) {
	if len(os.Args) < 3 || os.Args[1] != "gated" {
		os.Exit(m.Run())
	}
	p, err := Start(os.Args[2], os.Args[2:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stderr, p.Pid)
	if n, _ := os.Stdin.Read(make([]byte, 1)); n == 0 {
		os.Exit(0) // without a word to the process
	}
	if err := p.Go(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	state, err := p.Wait()
	fmt.Fprintln(os.Stderr, state, err)
	os.Exit(0)
}

// run has a process started and let go, by somebody whom sh starts after setup.
func run(t *testing.T, setup string, args ...string) (stdout, stderr string) {
	t.Helper()
	cmd := exec.Command("sh", append([]string{"-c", setup + `; exec "$0" gated "$@"`, os.Args[0]}, args...)...)
	cmd.Stdin = strings.NewReader("go\n")
	var out, log strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Run(); err != nil {
		t.Error(err, log.String())
	}
	return out.String(), log.String()
}

// TestAsStarted: the program has the limit of files, the ignored signals and the descriptors that
// we were started with, and its arguments.
func TestAsStarted(t *testing.T) {
	const show = `ulimit -Sn; grep -E '^Sig(Blk|Ign|Pnd)' /proc/self/status; ls /proc/$$/fd`
	out, log := run(t, "ulimit -Sn 100; trap '' HUP;"+show+"; echo and", "/bin/sh", "-c", show+`; printf "<%s>" "$0" "$@"`, "name", "a b", "")
	before, after, _ := strings.Cut(out, "and\n")
	if !strings.HasPrefix(before, "100\n") || after != before+"<name><a b><>" {
		t.Errorf("before:\n%s\nafter:\n%s\n%s", before, after, log)
	}
}

func TestFailedExec(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	for program, want := range map[string]error{
		file:        syscall.ENOEXEC,
		file + "no": syscall.ENOENT,
		"/":         syscall.EACCES,
	} {
		p, err := Start(program, []string{"x"})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Go(); err != want {
			t.Errorf("%s: %v, want %v", program, err, want)
		}
		if state, err := p.Wait(); err != nil || state.ExitCode() != 127 {
			t.Errorf("%v %v", state, err)
		}
	}
}

// TestWaits: until it is let go the process is one thread, and its program is not executed; a
// signal waits with it, which then ends it.
func TestWaits(t *testing.T) {
	p, err := Start("/bin/sleep", []string{"sleep", "1000"})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	threads, err := os.ReadDir("/proc/" + strconv.Itoa(p.Pid) + "/task")
	if err != nil || len(threads) != 1 {
		t.Errorf("%d threads, %v", len(threads), err)
	}
	comm, err := os.ReadFile("/proc/" + strconv.Itoa(p.Pid) + "/comm")
	if err != nil || string(comm) == "sleep\n" {
		t.Errorf("%q, %v: it has not waited", comm, err)
	}
	if err := p.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.Go(); err != nil {
		t.Error(err)
	}
	state, err := p.Wait()
	if status := state.Sys().(syscall.WaitStatus); err != nil || !status.Signaled() || status.Signal() != unix.SIGTERM {
		t.Errorf("%v %v", state, err)
	}
}

// TestNotLetGo: it ends, when it is told to and with who made it.
func TestNotLetGo(t *testing.T) {
	p, err := Start("/bin/sleep", []string{"sleep", "1000"})
	if err != nil {
		t.Fatal(err)
	}
	p.End()
	if err := unix.Kill(p.Pid, 0); err != unix.ESRCH {
		t.Error(err)
	}

	cmd := exec.Command(os.Args[0], "gated", "/bin/sleep", "1000")
	log, err := cmd.CombinedOutput() // its input is at the end
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(log)))
	if err != nil {
		t.Fatal(err)
	}
	for due := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		comm, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if errors.Is(err, os.ErrNotExist) || strings.Contains(string(comm), ") Z") {
			return
		}
		if time.Now().After(due) {
			t.Fatalf("%d lives on: %s", pid, comm)
		}
	}
}
