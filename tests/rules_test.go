package tests

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Users of nobody else: rules for them move nothing but what these tests start.
const (
	professor = 64001
	student   = 64002
)

// ruled is a server with rules, and a directory that everybody can execute in.
type ruled struct {
	*server
	dir, file string
	metrics   string // a socket, where there is one
}

func startRuled(t *testing.T, rules string, args ...string) *ruled {
	t.Helper()
	r := &ruled{dir: openDir(t)}
	r.file = filepath.Join(r.dir, "rules.conf")
	writeFile(t, r.file, rules)
	r.server = startServer(t, append([]string{"--hierarchy", "net=debug", "--hierarchy", "cpu=numtasks", "--rules", r.file}, args...)...)
	return r
}

// openDir is a directory that everybody can go through, with a path short enough for
// sockets.
func openDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cfs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// program copies sleep(1) to a program of another name.
func (r *ruled) program(name string) string {
	r.t.Helper()
	return r.copyOf("sleep", name)
}

// copyOf copies a program to one of another name.
func (r *ruled) copyOf(program, name string) string {
	r.t.Helper()
	from, err := exec.LookPath(program)
	if err != nil {
		r.t.Fatal(err)
	}
	text, err := os.ReadFile(from)
	if err != nil {
		r.t.Fatal(err)
	}
	to := filepath.Join(r.dir, name)
	if err := os.WriteFile(to, text, 0o755); err != nil {
		r.t.Fatal(err)
	}
	return to
}

// in waits until a process is where it belongs: paths by hierarchy.
func (r *ruled) in(pid int, net, cpu string) {
	r.t.Helper()
	want := "numtasks:" + cpu + "\ndebug:" + net + "\n"
	got := ""
	for deadline := time.Now().Add(20 * time.Second); got != want && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		got = r.run("read", fmt.Sprintf("/proc/%d/container", pid))
	}
	if got != want {
		r.t.Errorf("%d is in\n%swant\n%s/rules:\n%s", pid, got, want, r.run("read", "/rules"))
	}
}

// settled waits until nothing waits to be classified, of what happened before.
func (r *ruled) settled() {
	r.t.Helper()
	r.run("read", "/cpu/tasks") // which drains the events
	waitFor(r.t, "the queue to be empty", func() bool { return strings.Contains(r.run("read", "/rules"), " waiting=0 ") })
}

// counts are the matches and failures of a line.
func (r *ruled) counts(line int) (matches, failures int) {
	r.t.Helper()
	m := regexp.MustCompile(fmt.Sprintf(`\t# line=%d matches=(\d+) failures=(\d+)\n`, line)).FindStringSubmatch(r.run("read", "/rules"))
	if m == nil {
		r.t.Fatalf("no line %d in\n%s", line, r.run("read", "/rules"))
	}
	return number(r.t, m[1]), number(r.t, m[2])
}

// shell is a user's shell, which starts what it is told to.
type shell struct{ *spawner }

func startShell(t *testing.T, uid int, wrap ...string) shell {
	t.Helper()
	args := append(wrap, "sh", "-c", `while read line; do $line </dev/null >/dev/null & kids="$kids $!"; echo $!; done
		[ -z "$kids" ] || kill -9 $kids 2>/dev/null; wait`)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	return shell{spawn(t, cmd)}
}

func (s shell) start(command string) int {
	s.t.Helper()
	if _, err := io.WriteString(s.in, command+"\n"); err != nil {
		s.t.Fatal(err)
	}
	line, err := s.out.ReadString('\n')
	if err != nil {
		s.t.Fatal(err)
	}
	child := number(s.t, line)
	s.children = append(s.children, child)
	return child
}

// TestRulesBrowser is the browser example of the original framework: who starts one
// is in the browsers' network container, and in his own for the CPU.
func TestRulesBrowser(t *testing.T) {
	r := startRuled(t, `
# the class of a program, and that of a user
*:browser       net     browsers   create
64001           cpu     professors
64002           cpu     /students/
`)
	browser := r.program("browser")
	r.run("mkdir", "/cpu/professors", "/cpu/students", "/net/fast")
	for _, user := range []struct {
		uid int
		cpu string
	}{{professor, "/professors"}, {student, "/students"}} {
		sh := startShell(t, user.uid)
		r.in(sh.pid(), "/", user.cpu)
		b := sh.start(browser + " 1000")
		r.in(b, "/browsers", user.cpu)
		// The administrator gives it another network class for a while.
		r.run("write", "/net/fast/tasks", fmt.Sprint(b))
		r.settled()
		r.in(b, "/fast", user.cpu)
	}
	if m, f := r.counts(3); m != 2 || f != 0 {
		t.Errorf("the browsers' line: %d matches, %d failures", m, f)
	}
	if stat := r.run("stat", "/net/browsers"); !strings.Contains(stat, "mode=0755 uid=0 gid=0 ") {
		t.Errorf("the container that was made: %s", stat)
	}
	if !regexp.MustCompile(`(?m)^\d+ attach pid=\d+ tgid=\d+ hierarchy=net from=/ to=/browsers by=rules$`).MatchString(r.run("read", "/events")) {
		t.Errorf("no event of a move by a rule:\n%s", r.run("read", "/net/events"))
	}
	for _, line := range []string{`msg=change op=mkdir path=/net/browsers uid=0 peer=rules`, `msg=change op=move path=/net/browsers uid=0 peer=rules data=\d+ set="line=3"`} {
		if !regexp.MustCompile(line).MatchString(r.log.String()) {
			t.Errorf("no line %q in the log", line)
		}
	}
	placements := regexp.MustCompile(`# placements: count=(\d+) p50_us=(\d+) p99_us=(\d+)\n`).FindStringSubmatch(r.run("read", "/rules"))
	if placements == nil || number(t, placements[1]) < 4 || number(t, placements[2]) == 0 {
		t.Errorf("placements: %q", placements)
	}
}

// idsMain is a process that changes its user and group as it is told, and executes
// nothing.
func idsMain() {
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var what string
		var id int
		fmt.Sscan(in.Text(), &what, &id)
		var err error
		switch what {
		case "uid":
			err = syscall.Setresuid(-1, id, -1)
		case "gid":
			err = syscall.Setresgid(-1, id, -1)
		}
		fmt.Println(what, err)
	}
}

func startIDs(t *testing.T) *spawner {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "CONTAINERFS_TEST_IDS=1")
	return spawn(t, cmd)
}

func (s *spawner) change(what string, id int) {
	s.t.Helper()
	fmt.Fprintln(s.in, what, id)
	if line, err := s.out.ReadString('\n'); err != nil || line != what+" <nil>\n" {
		s.t.Fatalf("%q, %v", line, err)
	}
}

// TestRulesFollowIDs: a task is classified when its user or group changes, without
// an exec, with all its threads.
func TestRulesFollowIDs(t *testing.T) {
	r := startRuled(t, "64001 cpu profs create\n@64005 net group-%g create\n@64006 net group-%G/%U create\n")
	p := startIDs(t)
	r.settled()
	r.in(p.pid(), "/", "/")
	p.change("gid", 64005)
	r.in(p.pid(), "/group-64005", "/")
	p.change("uid", professor)
	r.in(p.pid(), "/group-64005", "/profs")
	for _, tid := range settledThreads(t, p.pid()) {
		r.in(tid, "/group-64005", "/profs")
	}
	p.change("uid", 0) // no rule for root: it stays
	p.change("gid", 64006)
	r.in(p.pid(), "/group-64006/0", "/profs")

	// By hand, it stays through changes of ids.
	r.run("write", "/net/procs", fmt.Sprint(p.pid()))
	p.change("gid", 64005)
	r.settled()
	r.in(p.pid(), "/", "/profs")
}

// TestRulesFollowSu: what su and setpriv start is its user's, and its groups'.
func TestRulesFollowSu(t *testing.T) {
	r := startRuled(t, "nobody:sleep cpu nobodies create\n64001:sleep cpu profs create\n@64007 net seven create\n")
	for _, tt := range []struct {
		wrap     []string
		net, cpu string
	}{
		{[]string{"su", "-s", "/bin/sh", "nobody", "-c"}, "/", "/nobodies"},
		{[]string{"setpriv", "--reuid=64001", "--regid=64001", "--groups=64009,64007", "sh", "-c"}, "/seven", "/profs"},
		{[]string{"setpriv", "--reuid=64002", "--regid=64007", "--clear-groups", "sh", "-c"}, "/seven", "/"},
	} {
		cmd := exec.Command(tt.wrap[0], append(tt.wrap[1:], "echo $$; exec sleep 1000 >/dev/null")...)
		cmd.Dir = "/"
		s := spawn(t, cmd)
		line, err := s.out.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		pid := number(t, line)
		r.in(pid, tt.net, tt.cpu)
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

// TestRulesOptions: templates, ignore, create, and what cannot be followed.
func TestRulesOptions(t *testing.T) {
	r := startRuled(t, `
64001:tool      net     by-hand                  ignore
64001:tool      net     users/%U-%u/\%p/%p       create
64001           cpu     missing
64002           *       both                     create
%               net     never
`)
	tool := r.program("tool")
	sh := startShell(t, professor)
	p := sh.start(tool + " 1000")
	r.in(p, "/users/64001-64001/%p/tool", "/")
	waitFor(t, "the failures to be counted", func() bool { _, f := r.counts(4); return f >= 2 }) // the shell and the tool
	if !strings.Contains(r.log.String(), "a rule could not be followed") || !strings.Contains(r.log.String(), "line=4 hierarchy=cpu") {
		t.Error("the log does not say which rule could not be followed")
	}

	// Under ignore, it stays for good.
	r.run("mkdir", "/net/by-hand", "/net/by-hand/in")
	r.run("write", "/net/by-hand/in/tasks", fmt.Sprint(sh.pid()))
	r.in(sh.pid(), "/by-hand/in", "/")
	q := sh.start(tool + " 1000") // which executes tool where ignore has it stay
	r.settled()
	r.in(q, "/by-hand/in", "/")
	if m, _ := r.counts(2); m != 1 {
		t.Errorf("ignore decided %d times", m)
	}

	// The same user in both, and the later line never decides.
	r.in(startShell(t, student).pid(), "/both", "/both")
	if m, f := r.counts(6); m != 0 || f != 0 {
		t.Errorf("a line after the first: %d, %d", m, f)
	}
}

// TestRulesExisting: with --rules-existing, what is there at start is classified;
// without, what executes or changes later is.
func TestRulesExisting(t *testing.T) {
	needHost(t)
	for _, existing := range []bool{false, true} {
		sh := startShell(t, professor)
		child := sh.start("sleep 1000")
		var args []string
		where := "/"
		if existing {
			args, where = []string{"--rules-existing"}, "/profs"
		}
		r := startRuled(t, "64001 cpu profs create\n", args...)
		if existing {
			r.in(sh.pid(), "/", where)
		}
		r.settled()
		r.in(child, "/", where)
		r.in(sh.pid(), "/", where)
		r.in(sh.start("sleep 1000"), "/", "/profs")
	}
}

// TestRulesReload: SIGHUP has the file read; a bad one changes nothing.
func TestRulesReload(t *testing.T) {
	r := startRuled(t, "64001 cpu old create\n")
	sh := startShell(t, professor)
	r.in(sh.pid(), "/", "/old")
	writeFile(t, r.file, "# new\n64001 cpu new create\nbad\n")
	before := r.run("read", "/rules")
	r.cmd.Process.Signal(syscall.SIGHUP)
	waitFor(t, "the refusal", func() bool { return strings.Contains(r.log.String(), "rules.conf:3: 1 fields") })
	if after := r.run("read", "/rules"); after != before {
		t.Errorf("a bad file changed the rules from\n%sto\n%s", before, after)
	}
	r.in(sh.start("sleep 1000"), "/", "/old")
	writeFile(t, r.file, "# new\n64001 cpu new create\n")
	r.cmd.Process.Signal(syscall.SIGHUP)
	waitFor(t, "the new rules", func() bool {
		return strings.Contains(r.run("read", "/rules"), "64001\tcpu\tnew\tcreate\t# line=2 matches=0 failures=0\n")
	})
	r.settled()
	r.in(sh.pid(), "/", "/old")
	r.in(sh.start("sleep 1000"), "/", "/new")
}

// TestRulesTemplate: each user's container has the limits of the template before his process is
// in it, and is his to divide, but for them. SIGHUP has the templates read, too.
func TestRulesTemplate(t *testing.T) {
	dir := openDir(t)
	config := filepath.Join(dir, "config.toml")
	write := func(shares, more string) {
		writeFile(t, config, `[[template]]
path = "/cpu/users/%U"
delegate = true
set = { "numtasks.shares" = "`+shares+`", "notify_on_release" = "1" }
`+more)
	}
	write("max_shares=20", "")
	r := startRuled(t, "64001 cpu users/%U create\n64002 cpu users/%U create\n", "--config", config)
	mine := func(who, name string) string { return r.run("read", fmt.Sprint("/cpu/users/", who, "/", name)) }

	sh := startShell(t, professor)
	r.in(sh.pid(), "/", "/users/64001")
	if got := mine("64001", "numtasks.shares"); !strings.Contains(got, "max_shares=20,") {
		t.Errorf("the shares are %q", got)
	}
	if got := mine("64001", "notify_on_release"); got != "1\n" {
		t.Errorf("notify_on_release is %q", got)
	}
	for _, c := range []struct {
		line string
		code int
	}{
		{"mkdir /cpu/users/64001/mine", ok},
		{"write /cpu/users/64001/max.depth 3", ok},
		{"write /cpu/users/64001/numtasks.shares max_shares=100", notPermitted},
		{"mkdir /cpu/users/mine", notPermitted},
	} {
		if code, out := commandAs(t, professor, "tcp://127.0.0.1:"+r.port, strings.Fields(c.line)...); code != c.code {
			t.Errorf("%s by its user: exit code %d, want %d: %s", c.line, code, c.code, out)
		}
	}

	write("max_shares=20", "[[template]]\npath = \"/cpu/users/%g\"\ndelegate = true\n")
	r.cmd.Process.Signal(syscall.SIGHUP)
	waitFor(t, "the refusal", func() bool {
		return strings.Contains(r.log.String(), `config.toml:6: template.1.path: \"/cpu/users/%g\": what is delegated has %u or %U`)
	})
	write("max_shares=7", "")
	r.cmd.Process.Signal(syscall.SIGHUP)
	waitFor(t, "the new template", func() bool { return strings.Contains(r.log.String(), "msg=reloaded") })
	r.in(startShell(t, student).pid(), "/", "/users/64002")
	if got := mine("64002", "numtasks.shares"); !strings.Contains(got, "max_shares=7,") {
		t.Errorf("the shares of the new template are %q", got)
	}
	if got := mine("64001", "numtasks.shares"); !strings.Contains(got, "max_shares=20,") {
		t.Errorf("what there was has the shares %q", got)
	}
	if text := r.run("read", "/rules"); !strings.Contains(text, `# template="/cpu/users/%U" made=1`+"\n") {
		t.Errorf("rules has\n%s", text)
	}
}

// TestRulesDivided: what a user puts into containers in his own stays there when it executes
// programs, by a line with ignore; what begins elsewhere goes to his own.
func TestRulesDivided(t *testing.T) {
	dir := openDir(t)
	config := filepath.Join(dir, "config.toml")
	writeFile(t, config, "[[template]]\npath = \"/cpu/users/%U\"\ndelegate = true\n")
	r := startRuled(t, "64001 cpu users/%U ignore\n% cpu users/%U create\n", "--config", config)
	sh := startShell(t, professor)
	r.in(sh.pid(), "/", "/users/64001")
	for _, line := range []string{"mkdir /cpu/users/64001/jobs", fmt.Sprint("write /cpu/users/64001/jobs/procs ", sh.pid())} {
		if code, out := commandAs(t, professor, "tcp://127.0.0.1:"+r.port, strings.Fields(line)...); code != ok {
			t.Fatalf("%s by its user: exit code %d: %s", line, code, out)
		}
	}
	job := sh.start("sleep 1000")
	r.settled()
	r.in(job, "/", "/users/64001/jobs")
	r.in(startShell(t, professor).pid(), "/", "/users/64001")
}

// TestRulesTemplateBesideExclusive: what a template sets of a cpuset is what counts, also
// beside CPUs that the container could not have with its parent's.
func TestRulesTemplateBesideExclusive(t *testing.T) {
	dir := openDir(t)
	config := filepath.Join(dir, "config.toml")
	writeFile(t, config, "[[template]]\npath = \"/mem/users\"\nset = { \"cpuset.cpus\" = \"1\", \"cpuset.cpu_exclusive\" = \"1\" }\n"+
		"[[template]]\npath = \"/mem/users/%U\"\ndelegate = true\n")
	r := startRuled(t, "64001 mem users/%U create\n", "--config", config, "--hierarchy", "mem=cpuset")
	if online := r.run("read", "/mem/cpuset.cpus"); !strings.HasPrefix(online, "0-") {
		t.Skipf("there is one CPU: %s", online)
	}
	r.run("mkdir", "/mem/system")
	r.run("set", "/mem/system", "cpuset.cpus=0", "cpuset.mems=0", "cpuset.cpu_exclusive=1")
	sh := startShell(t, professor)
	r.settled()
	if where := r.run("read", fmt.Sprintf("/proc/%d/cpuset", sh.pid())); where != "/users/64001\n" {
		t.Errorf("it is in %q:\n%s", where, r.log.String())
	}
	mems := r.run("read", "/mem/cpuset.mems")
	for file, want := range map[string]string{
		"/mem/users/cpuset.cpus": "1\n", "/mem/users/cpuset.mems": mems, "/mem/users/cpuset.cpu_exclusive": "1\n",
		"/mem/users/64001/cpuset.cpus": "1\n", "/mem/users/64001/cpuset.mems": mems,
	} {
		if got := r.run("read", file); got != want {
			t.Errorf("%s has %q, want %q", file, got, want)
		}
	}
	for file, want := range map[string]string{"tasks": "uid=64001 ", "cpuset.cpus": "uid=0 "} {
		if stat := r.run("stat", "/mem/users/64001/"+file); !strings.Contains(stat, want) {
			t.Errorf("%s: not %s: %s", file, want, stat)
		}
	}
}

// TestRulesCatchChildren: what a task forks between its exec and its placement is
// not left behind.
func TestRulesCatchChildren(t *testing.T) {
	r := startRuled(t, "64001:forker cpu forkers create\n")
	forker := filepath.Join(r.dir, "forker")
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(sh)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(forker, text, 0o755); err != nil {
		t.Fatal(err)
	}
	rounds := 50
	if soaking {
		rounds = 2000
	}
	for range rounds {
		// A shell that forks at once: subshells, which execute nothing.
		cmd := exec.Command(forker, "-c", `( read x <&3; : ) & a=$!; ( ( read x <&3; : ) & echo $!; read x <&3; : ) & echo $a $!; read x <&3; :`)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: professor, Gid: professor}}
		hold, release, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.ExtraFiles = []*os.File{hold}
		s := spawn(t, cmd)
		hold.Close()
		pids := []int{s.pid()}
		for len(pids) < 4 {
			line, err := s.out.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range strings.Fields(line) {
				pids = append(pids, number(t, f))
			}
		}
		for _, pid := range pids {
			r.in(pid, "/", "/forkers")
		}
		release.Close()
		s.kill()
		if t.Failed() {
			break
		}
	}
}

// TestRulesAreUrgent: who reads the host's events, who delivers them and who classifies
// go before processes that take all the time there is; without rules nobody does.
func TestRulesAreUrgent(t *testing.T) {
	urgent := func(s *server) (n int) {
		t.Helper()
		s.run("read", "/ctl")
		stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", s.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range stats {
			stat, err := os.ReadFile(name)
			if err != nil {
				continue // the thread has ended
			}
			if w := strings.Fields(string(stat[strings.LastIndex(string(stat), ")")+2:])); w[16] == "-20" {
				n++
			}
		}
		return n
	}
	if n := urgent(startServer(t)); n != 0 {
		t.Errorf("%d urgent threads without rules", n)
	}
	r := startRuled(t, "64001 cpu x create\n")
	// A fourth one is there while the server looks after what it serves; one that Go
	// made of an urgent one would be there all the time.
	waitFor(t, "three urgent threads", func() bool { return urgent(r.server) == 3 })
}

// TestRulesCreateCpuset: what a rule makes takes tasks, also where a container of mkdir has
// no cpus.
func TestRulesCreateCpuset(t *testing.T) {
	r := startRuled(t, fmt.Sprintf("%d set jobs/%%U create\n", student), "--hierarchy", "set=cpuset")
	r.run("mkdir", "/set/byhand")
	if cpus := r.run("read", "/set/byhand/cpuset.cpus"); cpus != "\n" {
		t.Errorf("by mkdir it has the cpus %q", cpus)
	}
	pid := startShell(t, student).start(r.program("work") + " 1000")
	waitFor(t, "the process to be in its container", func() bool {
		return strings.Contains(r.run("read", fmt.Sprintf("/proc/%d/container", pid)), fmt.Sprintf("cpuset:/jobs/%d\n", student))
	})
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		want := r.run("read", "/set/"+file)
		for _, c := range []string{"jobs", fmt.Sprint("jobs/", student)} {
			if got := r.run("read", "/set/"+c+"/"+file); got != want {
				t.Errorf("%s of %s: %q, want the root's %q", file, c, got, want)
			}
		}
	}
	if _, failures := r.counts(1); failures != 0 {
		t.Errorf("%d failures", failures)
	}
}
