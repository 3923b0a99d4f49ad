package tests

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestEmptyCpuset: whoever cannot move a task for want of CPUs or nodes is told which
// file is empty, by whatever way it was asked for; the log is, of a rule.
func TestEmptyCpuset(t *testing.T) {
	dir := openDir(t)
	writeFile(t, filepath.Join(dir, "rules"), fmt.Sprintf("%d cpu profs create\n", professor))
	s := startServer(t, "--hierarchy", "cpu=cpuset,cpuacct", "--hierarchy", "n=debug", "--rules", filepath.Join(dir, "rules"))
	s.run("mkdir", "/cpu/a", "/cpu/a/b", "/n/a")
	p := startSpawner(t)
	pid := fmt.Sprint(p.pid())
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		want := "no space left on device: /cpu/a/" + file + " is empty\n"
		for _, args := range [][]string{
			{"write", "/cpu/a/tasks", pid},
			{"write", "/cpu/a/procs", pid},
			{"write", "/cpu//a/tasks/", pid},
			{"write", "/ctl", "attach procs " + pid + "\n/n/a\n/cpu/a"},
			{"attach", "/cpu/a", pid},
			{"attach", "/n/a", "/cpu/a", pid},
			{"run", "-c", "/cpu/a", "--", "true"},
		} {
			wantCode := 1
			if args[0] == "run" {
				wantCode = 125
			}
			if code, _, stderr := s.command(args...); code != wantCode || !strings.HasSuffix(stderr, want) {
				t.Errorf("%q: exit code %d\n%s, want ... %s", args, code, stderr, want)
			}
		}
		s.run("write", "/cpu/a/"+file, "0")
	}
	s.run("write", "/cpu/a/tasks", pid)

	// So is one that a rule leads to, if it was made by hand.
	s.run("mkdir", "/cpu/profs")
	startShell(t, professor)
	const line = `no space left on device: /cpu/profs/cpuset.cpus is empty"`
	waitFor(t, "the log of the rule", func() bool { return strings.Contains(s.log.String(), line) })

	p.kill()
	s.run("rmdir", "/cpu/a/b", "/cpu/a", "/n/a", "/cpu/profs")
}

// TestMountRefused: what is in the way of a hierarchy is told by name.
func TestMountRefused(t *testing.T) {
	s := startServer(t, "--hierarchy", "cpu=cpuset,cpuacct", "--hierarchy", "n=debug")
	s.run("mkdir", "/n/a")
	s.run("write", "/ctl", "umount n")
	for command, want := range map[string]string{
		"mount cpu cpuset":       "there is cpu=cpuset,cpuacct,name=cpu already",
		"mount x cpuset,cpuacct": "cpuset cpuacct are in the hierarchy cpu already",
		"mount x cpuset,bc":      "cpuset is in the hierarchy cpu already",
		"mount n debug,bc":       "there is n=debug,name=n (unmounted) already",
		"mount x":                "cpuset cpuacct are in the hierarchy cpu and debug is in the hierarchy n (unmounted) already",
	} {
		want = "containerfs: write /ctl: " + want + ": device or resource busy\n"
		if code, _, stderr := s.command("write", "/ctl", command); code != 5 || stderr != want {
			t.Errorf("%s: exit code %d\n%swant\n%s", command, code, stderr, want)
		}
	}
	s.run("write", "/ctl", "mount n debug")
	s.run("rmdir", "/n/a")
}

// TestAgentRefused: who may not name a release agent is told why.
func TestAgentRefused(t *testing.T) {
	s := startServer(t, "--hierarchy", "n=debug")
	code, _, stderr := s.command("write", "/n/release_agent", "/bin/true")
	if code != 4 || !strings.HasSuffix(stderr, ": operation not permitted\n") || !strings.Contains(stderr, "--allow-release-agent") {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
}

// TestLogWritten: who writes to a log is told that it cannot be written.
func TestLogWritten(t *testing.T) {
	s := startServer(t, "--hierarchy", "n=debug")
	code, _, stderr := s.command("write", "/events", "x")
	if want := "containerfs: write /events: it cannot be written: invalid argument\n"; code != 1 || stderr != want {
		t.Errorf("exit code %d\n%swant\n%s", code, stderr, want)
	}
}

// TestCtlFacts: ctl shows of each subsystem what the host allows, as the log has said.
func TestCtlFacts(t *testing.T) {
	s := startServer(t)
	ctl := s.run("read", "/ctl")
	for _, name := range []string{"cpuset", "cpuacct", "numtasks", "bc"} {
		_, fact, found := strings.Cut(ctl, "\n# "+name+": ")
		fact, _, _ = strings.Cut(fact, "\n")
		if !found || !strings.Contains(s.log.String(), fmt.Sprintf("msg=%q subsystem=%s", fact, name)) {
			t.Errorf("of %s ctl says %q, and the log something else:\n%s", name, fact, ctl)
		}
	}
}
