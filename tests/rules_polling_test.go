package tests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// startPolling starts a server with rules where there is no proc connector: in a
// network namespace of its own, as a user.
func startPolling(t *testing.T, uid int, rules string, args ...string) *ruled {
	t.Helper()
	r := &ruled{dir: openDir(t)}
	r.file = filepath.Join(r.dir, "rules.conf")
	writeFile(t, r.file, rules)
	metrics := filepath.Join(openDir(t), "m")
	os.Chown(filepath.Dir(metrics), uid, uid)
	args = append([]string{"--hierarchy", "net=debug", "--hierarchy", "cpu=numtasks", "--rules", r.file, "--metrics", "unix://" + metrics}, args...)
	r.server = startServerAs(t, func(c *exec.Cmd) {
		os.Chmod(filepath.Dir(c.Path), 0o755) // the user must reach it
		for _, arg := range c.Args {
			if sock, ok := strings.CutPrefix(arg, "unix://"); ok {
				os.Chown(filepath.Dir(sock), uid, uid)
			}
		}
		user := strconv.Itoa(uid)
		c.Args = append([]string{"unshare", "--net", "sh", "-c",
			`ip link set lo up && user=$1 && shift && exec setpriv --reuid=$user --regid=$user --clear-groups "$0" "$@"`, c.Path, user}, c.Args[1:]...)
		var err error
		if c.Path, err = exec.LookPath("unshare"); err != nil {
			t.Fatal(err)
		}
	}, args...)
	r.metrics = metrics
	for _, want := range []string{`level=WARN msg="events: polling /proc every 1s: `, `level=WARN msg="rules are followed by polling: `} {
		if !strings.Contains(r.log.String(), want) {
			t.Errorf("the log does not have %q", want)
		}
	}
	if ctl := r.run("read", "/ctl"); !strings.Contains(ctl, "# events: polling /proc every 1s: ") {
		t.Errorf("ctl does not tell:\n%s", ctl)
	}
	return r
}

// matched waits until a line has decided, without asking the server anything that
// would have it look before its next poll.
func (r *ruled) matched(line int) {
	r.t.Helper()
	name := fmt.Sprintf(`containerfs_rule_matches_total{line="%d"}`, line)
	waitFor(r.t, name, func() bool { return samples(r.t, "unix", r.metrics)[name] > 0 })
}

// polled waits until all that there is now has been looked at, and classified.
func (r *ruled) polled() {
	r.t.Helper()
	polls := func() float64 { return samples(r.t, "unix", r.metrics)["containerfs_resyncs_total"] }
	seen := polls() + 3 // one can have begun, and the classifier waits for up to a second
	waitFor(r.t, "the next polls", func() bool { return polls() >= seen })
	r.settled()
}

// TestRulesPolling: without the proc connector processes are classified by the next
// poll, which is said.
func TestRulesPolling(t *testing.T) {
	r := startPolling(t, 0, "*:script net scripts create\n64001:tool net tools create\n64001 cpu profs create\n@64005 net group-%g create\n")
	tool := r.program("tool")
	script := filepath.Join(r.dir, "script")
	writeFile(t, script, "#!/bin/sh\nread x\n")
	os.Chmod(script, 0o755)
	sh := startShell(t, professor)
	r.matched(3)
	r.in(sh.pid(), "/", "/profs")
	started := sh.start(tool + " 1000")
	r.matched(2)
	r.in(started, "/tools", "/profs")

	// A script's interpreter is the program of the shell that has started it.
	cmd := exec.Command("/bin/sh", "-c", `"$0"; read x`, script)
	cmd.Dir = "/"
	s := spawn(t, cmd)
	r.matched(1)
	r.run("read", "/cpu/tasks")
	if in := r.tasks("/net/scripts"); len(in) != 1 || in[0] == s.pid() {
		t.Errorf("the script is among %v, not %d, which has started it", in, s.pid())
	}

	// Ids, without an exec.
	p := startIDs(t)
	r.polled()
	r.in(p.pid(), "/", "/")
	p.change("gid", 64005)
	r.matched(4)
	r.in(p.pid(), "/group-64005", "/")
	p.change("uid", professor)
	r.in(p.pid(), "/group-64005", "/profs")
	for _, tid := range settledThreads(t, p.pid()) {
		r.in(tid, "/group-64005", "/profs")
	}

	// By hand, it stays until the next exec, and what it forks as well.
	cmd = exec.Command("sh", "-c", `read x; ( read x <&3; : ) & echo $!; read x; exec "$0" 1000`, tool)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: professor, Gid: professor}}
	hold, release, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer release.Close()
	cmd.ExtraFiles = []*os.File{hold}
	s = spawn(t, cmd)
	hold.Close()
	r.in(s.pid(), "/", "/profs")
	r.run("mkdir", "/net/hand", "/cpu/hand")
	for _, h := range []string{"/net", "/cpu"} {
		r.run("write", h+"/hand/tasks", fmt.Sprint(s.pid()))
	}
	fmt.Fprintln(s.in)
	line, err := s.out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	r.polled()
	r.in(s.pid(), "/hand", "/hand")
	r.in(number(t, line), "/hand", "/hand")
	fmt.Fprintln(s.in)
	r.in(s.pid(), "/tools", "/profs")
	r.in(number(t, line), "/hand", "/hand")
}

// TestRulesPollingUser: an ordinary user's server, which sees of other users' programs
// no more than the names.
func TestRulesPollingUser(t *testing.T) {
	r := startPolling(t, professor, "64001:tool net tools create\n64002:tool net others create\n64002:/* net never create\n64002 cpu students create\n")
	if ctl := r.run("read", "/ctl"); !strings.Contains(ctl, ", placement by polling alone: ") {
		t.Errorf("ctl does not tell where a child can be:\n%s", ctl)
	}
	tool := r.program("tool")
	r.in(startShell(t, professor).start(tool+" 1000"), "/tools", "/")
	other := startShell(t, student)
	r.in(other.start(tool+" 1000"), "/others", "/students")
	r.in(other.pid(), "/", "/students")
}
