package tests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// plan9port finds a program of plan9port, which hardly any system packages: in
// $PLAN9/bin or PATH. Without it the test is skipped; what these programs send is
// tested in p9srv all the same.
func plan9port(t testing.TB, name string) string {
	t.Helper()
	if dir := os.Getenv("PLAN9"); dir != "" {
		if p, err := exec.LookPath(filepath.Join(dir, "bin", name)); err == nil {
			return p
		}
	}
	p, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("no %s of plan9port in $PLAN9/bin or PATH", name)
	}
	return p
}

// plan9pfuse finds plan9port's 9pfuse, as plan9port does, and what it mounts with.
func plan9pfuse(t testing.TB) string {
	t.Helper()
	fuse := plan9port(t, "9pfuse")
	if _, err := exec.LookPath("fusermount"); err != nil {
		t.Skip("9pfuse needs fusermount")
	}
	return fuse
}

// plan9Script runs a shell script in a mount name space of its own and returns
// all its output.
func plan9Script(t testing.TB, script string) string {
	t.Helper()
	c := exec.Command("bash", "-c", script)
	c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := c.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return string(out)
}

// TestClassic9p uses the server with plan9port's 9p.
func TestClassic9p(t *testing.T) {
	p9 := plan9port(t, "9p")
	s := startServer(t)
	s.run("mkdir", "/all/Charlie")
	got := plan9Script(t, fmt.Sprintf(`
		9p() { %s -a 'unix!%s' "$@" 2>&1 | sed 's/^[^ ]*9p: //'; }
		9p ls / | head -1
		9p ls -l /all | grep Charlie | cut -d' ' -f1,2,4,5
		printf 0 | 9p write all/Charlie/cpuset.cpus
		9p read all/Charlie/cpuset.cpus
		printf x | 9p write all/Charlie/cpuset.cpus
		9p create all/new
		9p rm all/tasks
		9p rm all/Charlie
		9p rm all/Charlie
	`, p9, s.sock))
	const want = `all
d-rwxr-xr-x M root root
0
write error: Invalid argument
create all/new: Permission denied
remove all/tasks: Operation not permitted
remove all/Charlie: file 'all/Charlie' not found
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// TestClassic9pfuse mounts with plan9port's 9pfuse.
func TestClassic9pfuse(t *testing.T) {
	fuse := plan9pfuse(t)
	s := startServer(t)
	p := startSpawner(t)
	dir := t.TempDir()
	got := plan9Script(t, fmt.Sprintf(`
		%s 'unix!%s' %[3]s || exit 1
		until mountpoint -q %[3]s; do sleep 0.1; done
		export LC_ALL=C
		cd %[3]s/all
		mkdir a
		mkdir a
		mv a b
		ls -d a b
		echo 0 > b/cpuset.cpus
		echo 0 > b/cpuset.mems
		cat b/cpuset.cpus
		echo 1 >> b/notify_on_release
		cat b/notify_on_release
		echo %[4]d > b/tasks
		grep -x %[4]d b/tasks > /dev/null && echo moved
		rmdir b
		echo %[4]d > tasks
		echo x | dd of=b/cpuset.cpus status=none
		: > b/cpuset.cpus
		cat b/cpuset.cpus
		mkdir b/c
		chmod 700 b/c
		touch b/c
		ls -ld b/c | cut -c1-10
		rmdir b
		rmdir b/c
		touch b/new
		rm b/tasks
		mv b/tasks b/x
		cat b/nosuch
		rmdir b
		ls -d b
		cd /
		fusermount -u %[3]s
	`, fuse, s.sock, dir, p.pid()))
	const want = `mkdir: cannot create directory 'a': File exists
ls: cannot access 'a': No such file or directory
b
0
1
moved
rmdir: failed to remove 'b': Device or resource busy
dd: error writing 'b/cpuset.cpus': Invalid argument
0
drwx------
rmdir: failed to remove 'b': Device or resource busy
touch: cannot touch 'b/new': Permission denied
rm: cannot remove 'b/tasks': Operation not permitted
mv: cannot move 'b/tasks' to 'b/x': Not a directory
cat: b/nosuch: No such file or directory
ls: cannot access 'b': No such file or directory
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// TestPersistent9pfuse: what 9pfuse has mounted through a proxy that persists goes on when the
// server was killed, and who reads meanwhile waits.
func TestPersistent9pfuse(t *testing.T) {
	fuse := plan9pfuse(t)
	state, dir := t.TempDir(), t.TempDir()
	t.Cleanup(func() { retireMirrors(t, state) })
	at := func(name string) string { return filepath.Join(dir, name) }
	start := func() *server {
		return startServer(t, "--state", state, "--hierarchy", "all=debug", "--listen", "unix://"+at("s"))
	}
	s := start()
	log := startProxy(t, at("p"), "unix://"+at("s"), "--persist", "1m")
	p := startSpawner(t)
	if err := os.Mkdir(at("mnt"), 0o700); err != nil {
		t.Fatal(err)
	}
	says := make(chan string)
	go func() {
		says <- plan9Script(t, fmt.Sprintf(`
			cd %s
			until_there() { until [ -e $1 ]; do sleep 0.05; done; }
			%s "unix!$PWD/p" mnt || exit 1
			until mountpoint -q mnt; do sleep 0.05; done
			mkdir mnt/all/a
			echo %[3]d > mnt/all/a/tasks
			exec 5< mnt/all/a/tasks
			: > mounted
			until_there killed
			cat mnt/all/a/tasks
			cat <&5
			rmdir mnt/all/a
			echo %[3]d > mnt/all/tasks
			exec 5<&-
			rmdir mnt/all/a && echo removed
			fusermount -u mnt
		`, dir, fuse, p.pid()))
	}()
	made := func(name string) bool { _, err := os.Stat(at(name)); return err == nil }
	waitFor(t, "the mount", func() bool { return made("mounted") })
	s.kill9()
	if err := os.WriteFile(at("killed"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the loss", func() bool { return strings.Contains(log.String(), "connection lost") })
	start()
	pid := fmt.Sprintln(p.pid())
	want := pid + pid + "rmdir: failed to remove 'mnt/all/a': Device or resource busy\nremoved\n"
	if got := <-says; got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}
