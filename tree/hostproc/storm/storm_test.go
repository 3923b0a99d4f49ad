package storm

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "storm" {
		os.Exit(Main(os.Args[2:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

func TestStorm(t *testing.T) {
	p := Default
	p.Forks = 5003
	p.Life = 2 * time.Millisecond
	before := forks(t)
	cmd := exec.Command(os.Args[0], append([]string{"storm"}, p.Args()...)...)
	cmd.Stderr = os.Stderr
	began := time.Now()
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("forks %d\n", p.Forks); string(out) != want {
		t.Fatalf("%q, want %q", out, want)
	}
	// The host makes processes and threads of its own beside.
	if n := forks(t) - before; n < uint64(p.Forks) {
		t.Fatalf("the kernel counted %d forks", n)
	}
	t.Logf("%d forks in %v", p.Forks, time.Since(began))
}

func TestFork(t *testing.T) {
	began := time.Now()
	pid, err := Fork(20 * time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	var ws unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &ws, 0, nil)
		if err != unix.EINTR {
			break
		}
	}
	if !ws.Exited() || ws.ExitStatus() != 0 || time.Since(began) < 10*time.Millisecond {
		t.Fatalf("status %#x after %v", ws, time.Since(began))
	}
}

// forks reads the kernel's count of forks since boot.
func forks(t *testing.T) (n uint64) {
	t.Helper()
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(data), "\nprocesses ")
	if _, err := fmt.Sscan(rest, &n); !ok || err != nil {
		t.Fatal("no count of processes", err)
	}
	return n
}
