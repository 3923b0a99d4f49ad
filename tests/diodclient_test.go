package tests

import (
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// TestDiodClients: the clients of Debian's diod, a third implementation of 9P2000.L beside
// the kernel's and the p9 library's, list and read what they do.
func TestDiodClients(t *testing.T) {
	s := startServer(t, "--hierarchy", "all=debug")
	s.run("mkdir", "/all/Charlie")
	p := startSpawner(t)
	s.run("attach", "/all/Charlie", strconv.Itoa(p.pid()))
	diod := func(name string, args ...string) (string, error) {
		path, err := exec.LookPath(name)
		if err != nil {
			path = "/usr/sbin/" + name
		}
		out, err := exec.Command(path, append([]string{"-s", "127.0.0.1:" + s.port, "-a", "all"}, args...)...).CombinedOutput()
		return string(out), err
	}
	list, err := diod("diodls", "-l", ".")
	if err != nil || !strings.Contains(list, " Charlie\n") || !strings.Contains(list, " notify_on_release\n") {
		t.Errorf("diodls: %v\n%s", err, list)
	}
	var names []string
	for line := range strings.Lines(list) {
		fields := strings.Fields(line)
		names = append(names, fields[len(fields)-1])
	}
	if want, _ := s.client("all").names("/"); strings.Join(names, " ") != strings.Join(want, " ") {
		t.Errorf("diodls lists %q, want %q", names, want)
	}
	if text, err := diod("diodcat", "Charlie/tasks", "Charlie/notify_on_release"); err != nil || text != strconv.Itoa(p.pid())+"\n0\n" {
		t.Errorf("diodcat: %q, %v", text, err)
	}
	if text, err := diod("diodcat", "nothing"); err == nil || !strings.Contains(text, "No such file or directory") {
		t.Errorf("diodcat of nothing: %q, %v", text, err)
	}
}
