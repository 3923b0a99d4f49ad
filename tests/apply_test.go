package tests

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestApplyOwner: who is given a container by apply can move, set, kill and make in it,
// and not change the file that stays another's; and what save writes of a user's
// container comes back as it was.
func TestApplyOwner(t *testing.T) {
	s := startServer(t, "--hierarchy", "n=numtasks")
	s.run("mkdir", "/n/there")
	dir := openDir(t)
	file := filepath.Join(dir, "given.toml")
	text := "schema = 1\n"
	for _, path := range []string{"/n/there", "/n/new"} {
		text += fmt.Sprintf("[[container]]\npath = %q\nuid = %d\ngid = %[2]d\n[container.file.\"numtasks.shares\"]\nuid = 0\n", path, student)
	}
	writeFile(t, file, text)
	s.run("apply", file)
	if again := s.run("apply", "--dry-run", file); again != "" {
		t.Errorf("apply has left\n%s", again)
	}

	path, err := exec.LookPath("containerfs")
	if err != nil {
		t.Fatal(err)
	}
	theirs := filepath.Join(dir, "containerfs")
	if out, err := exec.Command("cp", path, theirs).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	as := func(args ...string) (code int) {
		c := exec.Command(theirs, append([]string{"--server", "unix://" + s.sock}, args...)...)
		c.Dir = "/"
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: student, Gid: student}}
		c.Run()
		return c.ProcessState.ExitCode()
	}
	if err := exec.Command("chmod", "755", filepath.Dir(s.sock)).Run(); err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{"/n/there", "/n/new"} {
		p := startSpawnerAs(t, student)
		pid := fmt.Sprint(p.pid())
		for _, tt := range []struct {
			want int
			args []string
		}{
			{0, []string{"write", at + "/tasks", pid}},
			{0, []string{"write", at + "/max.depth", "3"}},
			{4, []string{"write", at + "/numtasks.shares", "max_shares=1"}},
			{0, []string{"mkdir", at + "/k"}},
			{0, []string{"write", at + "/k/numtasks.shares", "max_shares=1"}},
			{0, []string{"write", at + "/k/procs", pid}},
			{0, []string{"write", at + "/procs", pid}},
			{0, []string{"rmdir", at + "/k"}},
			{0, []string{"kill", at}},
			{4, []string{"mkdir", "/n/other"}},
		} {
			if code := as(tt.args...); code != tt.want {
				t.Errorf("%q: exit code %d, want %d", tt.args, code, tt.want)
			}
		}
	}

	saved := s.run("save", "/n")
	if strings.Contains(saved, "[container.file.\"tasks\"]") {
		t.Errorf("tasks is not its container's owner's:\n%s", saved)
	}
	writeFile(t, file, saved)
	s.run("rmdir", "/n/there", "/n/new")
	s.run("apply", file)
	if now := s.run("save", "/n"); now != saved {
		t.Errorf("saved\n%sand came back as\n%s", saved, now)
	}
	s.run("rmdir", "/n/there", "/n/new")
}

// TestApplyInterrupted: of an apply that is interrupted nothing is left.
func TestApplyInterrupted(t *testing.T) {
	s := startServer(t, "--hierarchy", "n=numtasks")
	file := filepath.Join(t.TempDir(), "many.toml")
	text := "schema = 1\n"
	for i := range 5000 {
		text += fmt.Sprintf("[[container]]\npath = \"/n/c%d\"\n", i)
	}
	writeFile(t, file, text)
	made := func() int { return strings.Count(s.run("ls", "/n"), "\nc") }
	cmd := exec.Command("containerfs", "--server", "unix://"+s.sock, "apply", file)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "some to be made", func() bool { return made() > 10 })
	cmd.Process.Signal(syscall.SIGINT)
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(stderr.String(), "interrupted") {
		t.Errorf("exit code %d, want 1: %s", code, stderr.String())
	}
	if n := made(); n != 0 {
		t.Errorf("%d containers are left", n)
	}
}

// TestSaveBesideNames: a name that cannot be in a file of TOML, which any user can have made, keeps
// nothing else out of it.
func TestSaveBesideNames(t *testing.T) {
	s := startServer(t, "--hierarchy", "n=numtasks", "--hierarchy", "o=debug")
	const odd = "/n/a/\xff"
	s.run("mkdir", "/n/a", odd, odd+"/below", "/n/b", "/o/c")
	want := s.run("save", "/n/b") + strings.TrimPrefix(s.run("save", "/o"), "schema = 1\n")
	code, out, errs := s.command("save")
	if said := "containerfs: save /n/a/\\xff: its name is not UTF-8, which TOML is\n"; code != 6 || errs != said {
		t.Errorf("exit code %d and %q, want 6 and %q", code, errs, said)
	}
	for part := range strings.SplitSeq(want, "\n\n") {
		if !strings.Contains(out, part) {
			t.Errorf("no\n%s\nin\n%s", part, out)
		}
	}
	if strings.Contains(out, "below") {
		t.Errorf("what is below has no place:\n%s", out)
	}
	file := filepath.Join(t.TempDir(), "saved.toml")
	writeFile(t, file, out)
	if again := s.run("apply", "--dry-run", file); again != "" {
		t.Errorf("apply would change\n%s", again)
	}
	if code, _, _ := s.command("save", odd); code != 1 {
		t.Errorf("by itself: exit code %d, want 1", code)
	}
}

// TestSaveNoprefix: what save writes of a hierarchy without prefixes is its settings, too, which
// apply has nothing to do for: no counts, and no file that does something.
func TestSaveNoprefix(t *testing.T) {
	needHost(t)
	for _, name := range []string{"freezer", "memory"} {
		mountOf(t, name) // where the host has version 1
	}
	s := startServer(t, "--hierarchy", "all=all,noprefix", "--enable", "freezer", "--enable", "memory", "--hierarchy", "k=freezer,memory,noprefix")
	s.run("mkdir", "/all/a", "/k/a")
	s.run("set", "/all/a", "cpus=0", "mems=0", "shares=max_shares=3")
	s.run("set", "/k/a", "limit_in_bytes=64M")
	saved := s.run("save")
	for file, want := range map[string]bool{"cpus": true, "shares": true, "limit_in_bytes": true, "usage": false, "state": false, "oom_control": false} {
		if strings.Contains(saved, fmt.Sprintf("\n%q = ", file)) != want {
			t.Errorf("whether %s is saved is not %v:\n%s", file, want, saved)
		}
	}
	file := filepath.Join(t.TempDir(), "saved.toml")
	writeFile(t, file, saved)
	if changed := s.run("apply", file); changed != "" {
		t.Errorf("apply of what was saved changes\n%s", changed)
	}
	s.run("rmdir", "/all/a", "/k/a")
	s.run("apply", file)
	if got := s.run("get", "-v", "/all/a", "shares"); !strings.Contains(got, "max_shares=3,") {
		t.Errorf("applied, shares are %s", got)
	}
	s.run("rmdir", "/all/a", "/k/a")
}

// TestApplyOptions: what apply has made of a file it has nothing to do for, however its options
// are written; other options are another hierarchy.
func TestApplyOptions(t *testing.T) {
	s := startServer(t, "--hierarchy", "c=cpuset")
	s.run("write", "/ctl", "umount c")
	file := filepath.Join(t.TempDir(), "h.toml")
	write := func(options string) {
		writeFile(t, file, fmt.Sprintf("schema = 1\n[[hierarchy]]\nname = \"x\"\noptions = %q\n", options))
	}
	for _, options := range []string{"debug", "debug,name=x", "noprefix+debug", "bc,numtasks", "bc,name=x,numtasks+bc", "all", "debug,all"} {
		write(options)
		if got, want := s.run("apply", file), "+ hierarchy x "+options+"\n"; got != want {
			t.Errorf("apply of %s says %q", options, got)
		}
		if code, out, errs := s.command("apply", file); code != 0 || out != "" || errs != "" {
			t.Errorf("apply of %s again: exit code %d, %q, %s", options, code, out, errs)
		}
		for _, other := range []string{"cpuacct", options + ",noprefix,cpuacct", options + ",name=y", options + ","} {
			write(other)
			if code, out, _ := s.command("apply", file); code != 5 && other != options+"," || code == 0 || out != "" {
				t.Errorf("apply of %s after %s: exit code %d, %q", other, options, code, out)
			}
		}
		s.run("write", "/ctl", "umount x")
	}
}
