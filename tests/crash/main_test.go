// Package crash has the crash run (SPEC §19): servers are killed at random points
// while clients change things, and each that comes after must know all that was
// acknowledged, and nothing by half.
//
// # Vocabulary
//
// A client has a subtree in each hierarchy to itself, and a ledger of what the
// server has acknowledged there. When the server is killed one change of each
// client is open: it may have happened as a whole, or not. A runner is a process of
// a client's that forks, on demand and all the time, with a server and without; it and
// those it forked on demand are moved about.
//
// Where processes must be is not in the ledger, but the kernel's to say: an oracle is a
// hierarchy of the test's own, in which a process that was moved in the server's is
// moved when that is acknowledged. Meanwhile it is stopped, so that it is the same
// instant for both; with an open move it stays so until it was seen what came of it.
//
// A tap has the kernel ask before each write and sync of a server, so that it can be
// killed at a chosen point of a commit.
package crash

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// raceFlag has the server watched for races when the tests are.
var raceFlag []string

// The test binary is its own runner, and launches servers that are tapped.
func TestMain(m *testing.M) {
	if os.Getenv("CONTAINERFS_TEST_RUNNER") != "" {
		runnerMain()
		return
	}
	if os.Getenv("CONTAINERFS_TEST_LAUNCHER") != "" {
		launcherMain()
	}
	os.Exit(withCommand(m.Run))
}

// runnerMain forks a child, which sleeps, for each line, and says its pid; and others,
// with children of theirs, which end soon.
func runnerMain() {
	start := func(name string, args ...string) *exec.Cmd {
		c := exec.Command(name, args...)
		if err := c.Start(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		go c.Wait()
		return c
	}
	go func() {
		for {
			start("sh", "-c", "sleep 0.3 & (sleep 0.2 &) & sleep 0.1")
			time.Sleep(rand.N(100 * time.Millisecond))
		}
	}()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		fmt.Println(start("sleep", "1000").Process.Pid)
	}
	syscall.Kill(0, syscall.SIGKILL) // all of them
}

func withCommand(fn func() int) int {
	dir, err := os.MkdirTemp("", "containerfs-crash")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	args := append([]string{"build", "-buildvcs=false"}, raceFlag...)
	if out, err := exec.Command("go", append(args, "-o", filepath.Join(dir, "containerfs"), "../../cmd/containerfs")...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	os.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return fn()
}
