package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// restarted: tasks, limits and where tasks came from outlive the server, however it
// ends.
func (k controllers) restarted(t *testing.T) {
	const name = "containerfs-test-home"
	home := filepath.Join(k.root["pids"], name)
	if err := os.Mkdir(home, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		waitFor(t, "the origin to be empty", func() bool { return os.Remove(home) == nil })
	})
	p := startSpawner(t)
	t.Cleanup(p.kill)
	writeFile(t, home+"/cgroup.procs", fmt.Sprint(p.pid()))
	state := t.TempDir()
	start := func() *server {
		return startServer(t, "--state", state, "--enable", "pids", "--hierarchy", "h=pids")
	}
	s := start()
	base := s.base()
	s.run("mkdir", "/h/a")
	s.run("mkdir", "/h/a/b")
	s.run("mkdir", "/h/gone")
	s.run("write", "/h/a/pids.max", "99")
	s.run("write", "/h/a/b/procs", fmt.Sprint(p.pid()))
	child := p.fork()
	in := k.dir(t, "pids", p.pid())
	ends := map[string]func(){
		"killed": func() {
			s.cmd.Process.Kill()
			<-s.done
			s.cmd.Wait()
			os.Remove(s.sock)
		},
		"stopped": func() { s.stop() },
	}
	for how, end := range ends {
		end()
		for _, pid := range []int{p.pid(), child} {
			if got := k.dir(t, "pids", pid); got != in {
				t.Fatalf("%s, and %d is in %s", how, pid, got)
			}
		}
		s = start()
		if got := s.base(); got != base {
			t.Fatalf("%s: the base is %s, was %s", how, got, base)
		}
		if got := s.run("read", "/h/a/pids.max"); got != "99\n" {
			t.Errorf("%s: pids.max is %q", how, got)
		}
		if got := s.tasks("/h/a/b"); fmt.Sprint(got) != fmt.Sprint(sorted(p.pid(), child)) {
			t.Errorf("%s: the container has %d", how, got)
		}
	}
	s.run("write", "/h/procs", fmt.Sprint(p.pid()))
	s.run("write", "/h/procs", fmt.Sprint(child))
	for _, pid := range []int{p.pid(), child} {
		if got := k.dir(t, "pids", pid); got != "/"+name {
			t.Errorf("%d went back to %s:\n%s", pid, got, s.log.String())
		}
	}
	// A child whose forker is gone, too, some time after it was born.
	s.run("write", "/h/a/b/procs", fmt.Sprint(p.pid()))
	late := p.fork()
	waitFor(t, "where the child came from to be kept", func() bool { // that is once a second
		time.Sleep(100 * time.Millisecond)
		return keptRow(t, state, "origins", fmt.Sprint(late))
	})
	syscall.Kill(p.pid(), syscall.SIGKILL)
	p.cmd.Wait()
	ends["killed"]()
	s = start()
	s.run("write", "/h/procs", fmt.Sprint(late))
	if got := k.dir(t, "pids", late); got != "/"+name {
		t.Errorf("the orphan went back to %s", got)
	}
	syscall.Kill(late, syscall.SIGKILL)
	syscall.Kill(child, syscall.SIGKILL)

	for _, path := range []string{"/h/a/b", "/h/a", "/h/gone"} {
		waitFor(t, "rmdir", func() bool { code, _, _ := s.command("rmdir", path); return code == 0 })
	}
	s.run("write", "/ctl", "umount h")
	s.stop()
	if _, err := os.Stat(k.root["pids"] + base); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", base, err)
	}
	if strings.Contains(s.log.String(), "left over") {
		t.Errorf("something is left over:\n%s", s.log.String())
	}
}
