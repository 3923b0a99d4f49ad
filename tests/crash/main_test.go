// Package crash has the crash run (SPEC §19): servers are killed at random points
// while clients change things, and each that comes after must know all that was
// acknowledged, and nothing by half.
//
// # Vocabulary
//
// A client has a subtree in each hierarchy to itself, and a ledger of what the
// server has acknowledged there. When the server is killed one change of each
// client is open: it may have happened as a whole, or not. A runner is a process of
// a client's that forks on demand and is moved about; where its children are
// follows from when they were forked, whoever was told of that.
package crash

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// raceFlag has the server watched for races when the tests are.
var raceFlag []string

// The test binary is its own runner.
func TestMain(m *testing.M) {
	if os.Getenv("CONTAINERFS_TEST_RUNNER") != "" {
		runnerMain()
		return
	}
	os.Exit(withCommand(m.Run))
}

// runnerMain forks a child, which sleeps, for each line, and says its pid.
func runnerMain() {
	var children []*exec.Cmd
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		c := exec.Command("sleep", "1000")
		if err := c.Start(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		children = append(children, c)
		fmt.Println(c.Process.Pid)
	}
	for _, c := range children {
		c.Process.Kill()
		c.Wait()
	}
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
