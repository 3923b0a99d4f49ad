package tests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// raceFlag has the server watched for races when the tests are.
var raceFlag []string

// The command is built rather than linked in: a main package cannot be
// imported, and what is tested so is what is installed.
func TestMain(m *testing.M) {
	if os.Getenv("CONTAINERFS_TEST_SPAWNER") != "" {
		spawnerMain()
		return
	}
	if what := os.Getenv("CONTAINERFS_TEST_LACKS"); what != "" {
		fmt.Fprintln(os.Stderr, lacksMain(what))
		os.Exit(1)
	}
	if os.Getenv("CONTAINERFS_TEST_EXECS") != "" {
		if err := execsMain(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if os.Getenv("CONTAINERFS_TEST_IDS") != "" {
		idsMain()
		return
	}
	if role := os.Getenv("CONTAINERFS_TEST_BOMB"); role != "" {
		bombMain(role)
		return
	}
	// Servers of tests share nothing, unless they are told so.
	os.Setenv("CONTAINERFS_STATE", "none")
	if inside {
		os.Exit(m.Run()) // the command is there
	}
	os.Exit(withCommand(m.Run))
}

// withCommand runs fn with the containerfs command first in PATH.
func withCommand(fn func() int) int {
	dir, err := os.MkdirTemp("", "containerfs-tests")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	args := slices.Concat([]string{"build", "-buildvcs=false"}, raceFlag, []string{"-o", filepath.Join(dir, "containerfs"), "../cmd/containerfs"})
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go %s: %v\n%s", strings.Join(args, " "), err, out)
		return 1
	}
	// A program with the race detector sleeps for a second before it exits.
	os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	os.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return fn()
}

// lacking ends a test that cannot run here: it fails, unless CONTAINERFS_SKIP
// names what is lacking.
func lacking(t testing.TB, what, why string) {
	t.Helper()
	if slices.Contains(strings.Split(os.Getenv("CONTAINERFS_SKIP"), ","), what) {
		t.Skipf("skipped by CONTAINERFS_SKIP=%s", os.Getenv("CONTAINERFS_SKIP"))
	}
	if why != "" {
		t.Fatalf("%s; CONTAINERFS_SKIP=%s skips this", why, what)
	}
}

// needHost ends a test that moves processes of this host, where that is not
// possible or not wanted.
func needHost(t testing.TB) {
	t.Helper()
	why := ""
	if os.Geteuid() != 0 {
		why = "following this host's processes needs root"
	}
	lacking(t, "host", why)
}
