package tests

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// between: somebody else removes a directory, fills one and moves tasks while there is
// no server. The next one makes what it can as it was, and says the rest.
func (k controllers) between(t *testing.T) {
	state := t.TempDir()
	start := func() *server {
		return startServer(t, "--state", state, "--enable", "pids", "--hierarchy", "h=pids")
	}
	s := start()
	base := s.base()
	for _, path := range []string{"/h/gone", "/h/a", "/h/a/b"} {
		s.run("mkdir", path)
		s.run("write", path+"/pids.max", "99")
	}
	p, q, r := startSpawner(t), startSpawner(t), startSpawner(t)
	outside := k.root["pids"] + k.dir(t, "pids", q.pid())
	s.run("write", "/h/a/b/procs", fmt.Sprint(p.pid()))
	in := k.root["pids"] + k.dir(t, "pids", p.pid())
	s.run("write", "/h/gone/procs", fmt.Sprint(r.pid()))
	gone := k.root["pids"] + strings.TrimSuffix(k.dir(t, "pids", r.pid()), "/leaf")
	s.run("write", "/h/procs", fmt.Sprint(r.pid()))

	s.kill9()
	os.Remove(s.sock)
	if err := os.Remove(gone + "/leaf"); err != nil && !errors.Is(err, syscall.ENOENT) {
		t.Fatal(err)
	}
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	writeFile(t, outside+"/cgroup.procs", fmt.Sprint(p.pid()))
	writeFile(t, in+"/cgroup.procs", fmt.Sprint(q.pid()))
	filled := k.root["pids"] + base + "/filled"
	if err := os.Mkdir(filled, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(filled) })
	writeFile(t, filled+"/cgroup.procs", fmt.Sprint(r.pid()))
	s = start()
	says := func(what string) {
		t.Helper()
		waitFor(t, "the log to say "+what, func() bool { return strings.Contains(s.log.String(), what) })
	}
	says("somebody else moved tasks in the kernel")
	says("out=[" + fmt.Sprint(p.pid()) + "]")
	says("in=[" + fmt.Sprint(q.pid()) + "]")
	if got := s.tasks("/h/a/b"); !slices.Equal(got, []int{p.pid()}) {
		t.Errorf("/h/a/b has %v, want %d", got, p.pid())
	}
	for _, path := range []string{"/h/gone", "/h/a", "/h/a/b"} {
		if got := s.run("read", path+"/pids.max"); got != "99\n" {
			t.Errorf("pids.max of %s is %q", path, got)
		}
	}
	s.run("write", "/h/gone/procs", fmt.Sprint(r.pid()))
	if got := k.root["pids"] + strings.TrimSuffix(k.dir(t, "pids", r.pid()), "/leaf"); got != gone {
		t.Errorf("it is in %s, want %s", got, gone)
	}
	// Attached again to where they are, who was taken out is back, and who was put in
	// is out.
	s.run("write", "/h/procs", fmt.Sprint(q.pid()))
	if got := k.dir(t, "pids", q.pid()); strings.TrimSuffix(got, "/leaf") != base {
		t.Errorf("the stranger is in %s, want %s", got, base)
	}
	s.run("write", "/h/a/b/procs", fmt.Sprint(p.pid()))
	if got := k.root["pids"] + k.dir(t, "pids", p.pid()); got != in {
		t.Errorf("it is in %s, want %s", got, in)
	}
	for _, c := range []*spawner{p, q, r} {
		c.kill()
	}
	for _, path := range []string{"/h/a/b", "/h/a", "/h/gone"} {
		waitFor(t, "rmdir", func() bool { code, _, _ := s.command("rmdir", path); return code == 0 })
	}
	s.run("write", "/ctl", "umount h")
	s.stop()
	if _, err := os.Stat(k.root["pids"] + base); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v\n%s", base, err, s.log.String())
	}
	retireMirrors(t, state)
}
