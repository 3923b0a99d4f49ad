package tests

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestPersistentMount: a mount with the option persist outlives the server, one without
// does not.
func TestPersistentMount(t *testing.T) {
	if !inside {
		runInside(t, "^TestPersistentMount$")
		return
	}
	state := t.TempDir()
	start := func() *server {
		return startServer(t, "--state", state, "--hierarchy", "all=debug", "--listen", "tcp://127.0.0.1:5640?no_root_squash")
	}
	s := start()
	s.run("mkdir", "/all/a", "/all/b")
	mount := func(options string) (dir string) {
		dir = t.TempDir()
		os.Chmod(filepath.Dir(dir), 0o755) // for another user
		if out, err := exec.Command("containerfs", "mount", "-o", "aname=all"+options, "tcp://127.0.0.1:5640", dir).CombinedOutput(); err != nil {
			t.Fatalf("mount %s: %v\n%s", options, err, out)
		}
		t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
		return dir
	}
	patient, impatient, plain := mount(",persist=5m"), mount(",persist=1"), mount("")
	p := startSpawner(t)
	pid := strconv.Itoa(p.pid())
	held, err := os.Open(filepath.Join(patient, "a"))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	read := func(dir, path string) (string, error) {
		b, err := os.ReadFile(filepath.Join(dir, path))
		return string(b), err
	}
	for _, dir := range []string{patient, impatient, plain} {
		if _, err := read(dir, "a/tasks"); err != nil {
			t.Fatal(err)
		}
	}
	// Another user, who attaches for himself, and is in the mount.
	user := exec.Command("sh", "-c", "cat notify_on_release >/dev/null && echo && read line && cat notify_on_release ../b/notify_on_release")
	user.Dir = filepath.Join(patient, "a")
	user.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
	user.Stderr = os.Stderr
	hisIn, err := user.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	hisOut, err := user.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := user.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := hisOut.Read(make([]byte, 1)); err != nil {
		t.Fatalf("another user: %v", err)
	}
	s.kill9()

	// What comes while there is no server waits, or not for long; who is killed does not.
	wrote := make(chan error, 1)
	go func() { wrote <- os.WriteFile(filepath.Join(patient, "a/tasks"), []byte(pid), 0) }()
	begin := time.Now()
	if _, err := read(impatient, "a/tasks"); !errors.Is(err, syscall.EIO) || time.Since(begin) < time.Second {
		t.Errorf("without patience: %v after %v", err, time.Since(begin))
	}
	cat := exec.Command("cat", filepath.Join(patient, "b/tasks"))
	if err := cat.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond) // most likely it waits by then
	cat.Process.Kill()
	cat.Wait()
	select {
	case err := <-wrote:
		t.Errorf("a write was answered without a server: %v", err)
	default:
	}

	s = start()
	if err := <-wrote; err != nil {
		t.Errorf("a write that waited: %v", err)
	}
	for _, dir := range []string{patient, impatient} {
		waitFor(t, "the mount to work again", func() bool {
			_, err := read(dir, "a/tasks")
			return err == nil
		})
		if text, err := read(dir, "a/tasks"); err != nil || text != pid+"\n" {
			t.Errorf("tasks of a in a mount: %q, %v; want %s", text, err, pid)
		}
	}
	if _, err := read(plain, "a/tasks"); !errors.Is(err, syscall.EIO) {
		t.Errorf("a mount that does not persist: %v", err)
	}
	if names, err := held.Readdirnames(-1); err != nil || len(names) == 0 {
		t.Errorf("a directory that was open: %q, %v", names, err)
	}
	fmt.Fprintln(hisIn)
	if text, err := io.ReadAll(hisOut); err != nil || string(text) != "0\n0\n" || user.Wait() != nil {
		t.Errorf("another user reads %q, %v and ends with %v", text, err, user.ProcessState)
	}
	if err := os.Mkdir(filepath.Join(patient, "a/new"), 0o755); err != nil {
		t.Error(err)
	}
	s.run("stat", "/all/a/new")
	log, err := exec.Command("dmesg").Output()
	if said := string(log); err != nil || !strings.Contains(said, "containerfs: tcp://127.0.0.1:5640: connection lost") ||
		!strings.Contains(said, "containerfs: tcp://127.0.0.1:5640: connected again") {
		t.Errorf("the kernel's log, %v:\n%s", err, log)
	}

	// A server that is stopped, not killed, does the same.
	s.stop()
	go func() { wrote <- os.WriteFile(filepath.Join(patient, "b/tasks"), []byte(pid), 0) }()
	s = start()
	if err := <-wrote; err != nil {
		t.Errorf("a write across a restart: %v", err)
	}
	if got := s.tasks("/all/b"); len(got) != 1 || got[0] != p.pid() {
		t.Errorf("tasks of b: %v, want %s", got, pid)
	}

	// Nobody needs a server to unmount, and nothing is left then.
	held.Close()
	s.kill9()
	for _, dir := range []string{patient, impatient} {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	}
	waitFor(t, "the end of the relays", func() bool {
		out, _ := exec.Command("pgrep", "-f", "mount-relay").Output()
		return len(out) == 0
	})
	for _, bad := range []string{"persist=", "persist=0", "persist=-1", "persist=soon"} {
		if out, err := exec.Command("containerfs", "mount", "-o", bad, "tcp://127.0.0.1:5640", t.TempDir()).CombinedOutput(); err == nil || !strings.Contains(string(out), "persist") {
			t.Errorf("%s: %v, %s", bad, err, out)
		}
	}
}
