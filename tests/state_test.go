package tests

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"containerfs/ops/store"
	"containerfs/tree/kernfs"
)

// mirrorOf is the name of the mirror of a state directory, which no server has
// open.
func mirrorOf(t testing.TB, dir string) (name string) {
	t.Helper()
	s, err := store.Open(dir, func(k store.Key, value []byte) error {
		if k == (store.Key{Bucket: store.Facts, Name: "mirror"}) {
			name = "containerfs-" + string(value)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	return name
}

// keptRow reports whether a state directory that may be in use has a row, of a key or of
// one that ends with it as its last word.
func keptRow(t testing.TB, dir, subsystem, key string) (found bool) {
	t.Helper()
	db, err := os.ReadFile(filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "state.db")
	if err := os.WriteFile(path, db, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(filepath.Dir(path), func(store.Key, []byte) error { return nil })
	if err != nil {
		return false // it was read in the midst of a commit
	}
	defer s.Close()
	if err := s.Own(subsystem).All(func(k string, _ []byte) { found = found || k == key || strings.HasSuffix(k, " "+key) }); err != nil {
		t.Fatal(err)
	}
	return found
}

// retireMirrors takes away the mirror of a state directory that is not needed any
// more, and reports what is left in it: there must be no directory.
func retireMirrors(t testing.TB, dir string) {
	t.Helper()
	name := mirrorOf(t, dir)
	names, err := kernfs.Names()
	if err != nil {
		t.Fatal(err)
	}
	if name == "" || !strings.Contains(strings.Join(names, " "), name) {
		return
	}
	root, err := kernfs.OpenNamed(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := kernfs.Retire(root, 20*time.Second); err != nil {
		t.Errorf("the mirror %s is left over: %v", name, err)
	}
}

// refusedStart starts a server that must not come up.
func refusedStart(t testing.TB, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	needHost(t)
	sock := filepath.Join(t.TempDir(), "s")
	var out, errs bytes.Buffer
	c := exec.Command("timeout", append([]string{"20", "containerfs", "serve", "--listen", "unix://" + sock}, args...)...)
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		t.Fatal(err)
	}
	if c.ProcessState.ExitCode() == 124 {
		t.Errorf("serve %q was not refused", args)
	}
	return c.ProcessState.ExitCode(), out.String(), errs.String()
}

// TestCannotBegin: a state directory that the server cannot write to when it makes it its own is
// an error that is told.
func TestCannotBegin(t *testing.T) {
	needHost(t)
	dir, other := t.TempDir(), t.TempDir()
	t.Cleanup(func() { retireMirrors(t, dir) })
	startServer(t, "--state", dir).stop()
	content, err := os.ReadFile(filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(other, "state.db"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("sh", "-c", `trap "" XFSZ; ulimit -f 16; exec timeout 20 containerfs serve --mirror off --state "$1" --listen "unix://$1/s"`, "sh", other).CombinedOutput()
	exit, _ := errors.AsType[*exec.ExitError](err)
	if exit == nil || exit.ExitCode() != 1 || !strings.HasSuffix(string(out), "file too large\n") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestLeftover: the mirror of a state directory that is lost is told by doctor, and the
// README's commands remove it; that of a server that runs, or of a state directory that
// doctor looks at, is not left over.
func TestLeftover(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := startServer(t, "--state", dir, "--hierarchy", "d=debug")
	s.run("mkdir", "/d/a")
	p := startSpawner(t)
	s.run("attach", "/d/a", strconv.Itoa(p.pid()))
	mirror := ""
	for line := range strings.Lines(s.log.String()) {
		if _, name, ok := strings.Cut(strings.TrimSpace(line), `msg="mirror: on, `); ok {
			mirror = strings.TrimSuffix(name, `"`)
		}
	}
	if mirror == "" {
		t.Fatalf("there is no mirror:\n%s", s.log.String())
	}
	leftOver := func(state string) bool {
		t.Helper()
		c := exec.Command("containerfs", "--server", "unix:///nonexistent", "doctor")
		c.Env = append(os.Environ(), "CONTAINERFS_STATE="+state)
		out, _ := c.Output()
		return strings.Contains(string(out), "warning  left over: the mirror "+mirror+" is no running server's")
	}
	if leftOver("none") {
		t.Error("left over while the server runs")
	}
	s.kill9()
	if leftOver(dir) {
		t.Error("left over while there is its state directory")
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if !leftOver("none") {
		t.Error("not left over without a server and its state directory")
	}
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	at := t.TempDir()
	var commands []string
	for line := range strings.Lines(string(readme)) {
		if command, ok := strings.CutPrefix(line, "    # "); ok && strings.Contains(line, "/tmp/left") {
			commands = append(commands, strings.NewReplacer("mkdir /tmp/left && ", "", "/tmp/left", at, "containerfs-ID", mirror).Replace(command))
		}
	}
	if out, err := exec.Command("sh", "-ec", strings.Join(commands, "")).CombinedOutput(); err != nil || len(commands) != 3 {
		t.Errorf("%q: %v\n%s", commands, err, out)
	}
	waitFor(t, "the mirror to be gone", func() bool {
		names, err := kernfs.Names()
		return err == nil && !slices.Contains(names, mirror)
	})
	p.kill()
}
