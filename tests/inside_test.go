package tests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// inside is set in a guest that this test binary was started in, with the
// command, by runInside. There the server has a kernel and processes of its own.
var inside = os.Getenv("CONTAINERFS_TEST_INSIDE") != ""

// soaking has tests run at full size.
var soaking = os.Getenv("SOAK") != ""

func init() {
	if soaking {
		guestLimit = "7200"
	}
}

// commandPath is where the command is that is tested.
func commandPath() string {
	path, _ := exec.LookPath("containerfs") // TestMain has put it there
	return path
}

// static are the command and the tests of this package, for a guest, which has
// no libraries. They are beside the command, and go with it.
var static = sync.OnceValues(func() (dir string, err error) {
	dir = filepath.Join(filepath.Dir(commandPath()), "static")
	for _, args := range [][]string{
		{"build", "-buildvcs=false", "-o", dir + "/containerfs", "../cmd/containerfs"},
		{"test", "-c", "-ldflags=-s -w", "-o", dir + "/tests", "."},
	} {
		cmd := exec.Command("go", args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("go %s: %w\n%s", args[0], err, out)
		}
	}
	return dir, nil
})

// runInside runs tests of this package in a guest, as root, with the userlands
// of busybox and of Debian; they fail here if they fail there.
func runInside(t *testing.T, run string, settings ...string) {
	t.Helper()
	runInsideOn(t, machine{}, run, settings...)
}

// machine is what a guest has more than one of, and the words that its kernel is
// given besides.
type machine struct {
	cpus, nodes int
	words       string
}

// runInsideOn runs them in a guest that is such a machine.
func runInsideOn(t *testing.T, m machine, run string, settings ...string) {
	t.Helper()
	lacking(t, "guest", "")
	dir, err := static()
	if err != nil {
		t.Fatal(err)
	}
	gnu, err := exec.Command("./userland").Output()
	if err != nil {
		t.Fatalf("no userland for the guest: %v", err)
	}
	root := strings.TrimSpace(string(gnu))
	scenarios, err := filepath.Abs("scenario")
	if err != nil {
		t.Fatal(err)
	}
	g := startGuest(t, map[string]string{
		"/root/bin":             dir,
		"/root/tests/scenario":  scenarios,
		"/gnu/bin":              root + "/bin",
		"/lib/x86_64-linux-gnu": root + "/lib",
		"/lib64":                root + "/lib64",
	}, `
		export PATH=/root/bin:$PATH CONTAINERFS_TEST_INSIDE=1 `+strings.Join(settings, " ")+`
		chmod 755 /root
		cd /root/tests
		exec tests -test.v -test.timeout 2h -test.run '`+run+`' 2>&1
	`, "--smp", strconv.Itoa(max(1, m.cpus)), "--numa", strconv.Itoa(max(1, m.nodes)), "--append", m.words)
	g.ranTests()
}

// ranTests waits for a guest that runs tests of this package, at least one.
func (g *guest) ranTests() {
	g.t.Helper()
	out := g.finish()
	if !strings.Contains(out, "--- PASS") {
		g.t.Errorf("the guest ran nothing:\n%s", out)
	}
	g.t.Log(out)
}
