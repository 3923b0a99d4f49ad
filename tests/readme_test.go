package tests

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestReadme runs each transcript in README as one shell session and compares what it
// prints with what README says.
func TestReadme(t *testing.T) {
	s := startServer(t)
	for _, want := range transcripts(t) {
		var session strings.Builder
		for line := range strings.Lines(want) {
			if command, ok := strings.CutPrefix(line, "# "); ok {
				quoted := "'" + strings.ReplaceAll(strings.TrimSuffix(line, "\n"), "'", `'\''`) + "'"
				session.WriteString("printf '%s\\n' " + quoted + "\n" + command)
			}
		}
		sh := exec.Command("bash", "-c", "exec 2>&1\ntrap 'kill $(jobs -p) 2>/dev/null' EXIT\n"+session.String())
		sh.Env = append(os.Environ(), "CONTAINERFS_SERVER=unix://"+s.sock)
		got, err := sh.Output()
		if err != nil || string(got) != want {
			t.Errorf("%v\ngot:\n%s\nREADME has:\n%s", err, got, want)
		}
	}
}

// TestReadmeRules: the rules in README are rules.
func TestReadmeRules(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(readme), "    # who[:process]")
	rules, _, _ := strings.Cut(rest, "\n\n")
	_, rules, _ = strings.Cut(rules, "\n")
	file := t.TempDir() + "/rules"
	writeFile(t, file, rules+"\n")
	out, err := exec.Command("containerfs", "rules", "check", file).CombinedOutput()
	if !found || err != nil || !strings.HasSuffix(string(out), ": 6 rules\n") {
		t.Errorf("%v\n%s\nof\n%s", err, out, rules)
	}
}

// TestReadmeTemplate: the template in README makes what its path says, with its limits.
func TestReadmeTemplate(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(readme), "    rules = \"/etc/containerfs.rules\"\n")
	text, _, ended := strings.Cut(rest, "\n\nA container that a rule makes")
	if !found || !ended {
		t.Fatal("README has no template")
	}
	config := openDir(t) + "/config.toml"
	writeFile(t, config, text+"\n")
	// Its subsystems, without the hierarchies that other tests of rules have.
	rules := openDir(t) + "/rules"
	writeFile(t, rules, "64001 cpu students/%u create\n")
	s := startServer(t, "--hierarchy", "cpu=cpuacct,numtasks,bc", "--rules", rules, "--config", config)
	r := &ruled{server: s}
	sh := startShell(t, professor)
	r.settled()
	if where := s.run("read", fmt.Sprintf("/proc/%d/container", sh.pid())); where != "cpuacct,numtasks,bc:/students/64001\n" {
		t.Fatalf("it is in %q:\n%s", where, s.log.String())
	}
	const set = "/cpu/students/64001/"
	for file, want := range map[string]string{"numtasks.shares": "max_shares=2,", "bc.numfile.barrier": "4096\n", "bc.numfile.limit": "4096\n"} {
		if got := s.run("read", set+file); !strings.Contains(got, want) {
			t.Errorf("%s has %q, want %q", file, got, want)
		}
		if strings.Count(text, `"`+file+`" = "`) != 1 {
			t.Errorf("README sets no %s in\n%s", file, text)
		}
	}
	if stat := s.run("stat", set); !strings.Contains(stat, "uid=64001 gid=64001 ") {
		t.Errorf("it is not its user's: %s", stat)
	}
}

// TestReadmeUsers: by README's recipe for a shared host a user has a container with the limits,
// which stay root's, divides it himself, and is seen by others, who change nothing. Here its limits
// are those of cgroup version 1, as it has them in comments.
func TestReadmeUsers(t *testing.T) {
	needHost(t)
	for _, name := range []string{"cpu", "memory", "pids"} {
		mountOf(t, name)
	}
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(readme), "*Limits for each user of a shared host*")
	text, _, ended := strings.Cut(text, "\n\n*")
	text, ruleText, cut := strings.Cut(text, "In `/etc/containerfs.rules`")
	if !found || !ended || !cut {
		t.Fatal("README has no such recipe")
	}
	dir := openDir(t)
	rules, config, view := dir+"/rules", dir+"/config.toml", "tcp://127.0.0.2:0"
	text = regexp.MustCompile(`(?m)^(    )".*# of cgroup version 1: (.*)$`).ReplaceAllString(text, "$1$2")
	for _, change := range [][2]string{
		{`"/etc/containerfs.rules"`, `"` + rules + `"`},
		{`"systemd:containerfs.socket"`, `"unix://` + dir + `/sock"`},
		{`"tcp://0.0.0.0:5640"`, `"` + view + `"`},
		{`["10.0.0.0/8"]`, `["127.0.0.0/8"]`},
	} {
		if strings.Count(text, change[0]) != 1 {
			t.Fatalf("not once %s in\n%s", change[0], text)
		}
		text = strings.Replace(text, change[0], change[1], 1)
	}
	indented := func(text string) string {
		var lines strings.Builder
		for line := range strings.Lines(text) {
			if line, ok := strings.CutPrefix(line, "    "); ok && !strings.HasPrefix(line, "alice$ ") {
				lines.WriteString(line)
			}
		}
		return lines.String()
	}
	writeFile(t, config, indented(text))
	writeFile(t, rules, strings.ReplaceAll(indented(ruleText), "@users", "64001"))
	if out, err := exec.Command("containerfs", "rules", "check", rules).Output(); err != nil || string(out) != rules+": 2 rules\n" {
		t.Fatalf("%v: %s", err, out)
	}
	s := startServer(t, "--config", config)
	sh := startShell(t, professor)
	waitFor(t, "the user's shell to be in a container of his", func() bool {
		return s.run("read", fmt.Sprintf("/proc/%d/container", sh.pid())) == "cpuacct,cpu,memory,pids:/64001\n"
	})
	const own = "/users/64001/"
	if got, want := s.run("get", own, "cpu.cfs_quota_us", "memory.limit_in_bytes", "pids.max"), "cpu.cfs_quota_us=200000\nmemory.limit_in_bytes=4294967296\npids.max=500\n"; got != want {
		t.Errorf("its limits are %q, want %q", got, want)
	}

	at := "unix://" + dir + "/sock"
	for _, tt := range []struct {
		addr string
		uid  uint32
		args []string
		code int
		says string
	}{
		{at, professor, []string{"set", own, "pids.max=501"}, notPermitted, "permission denied"},
		{at, professor, []string{"run", "--new", "--rm", "-c", own + "big", "--set", "pids.max=50", "--",
			"sh", "-c", "containerfs --server " + at + " ps $$"}, ok, "\t/users/64001/big\t"},
		{s.at("127.0.0.2"), stranger, []string{"top", "-b", "-n", "1"}, ok, "  /users/64001\n"},
		{s.at("127.0.0.2"), 0, []string{"rmdir", "-r", "--kill", own}, notPermitted, "read-only file system"},
	} {
		code, output := commandAs(t, tt.uid, tt.addr, tt.args...)
		if code != tt.code || !strings.Contains(output, tt.says) || strings.Contains(output, "warning") {
			t.Errorf("%v as %d: exit code %d, want %d; it says %q, not %q", tt.args, tt.uid, code, tt.code, output, tt.says)
		}
	}
}

// transcripts are what stands between the markers in README.
func transcripts(t testing.TB) (all []string) {
	t.Helper()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range strings.Split(string(readme), "<!-- transcript")[1:] {
		part, _, ended := strings.Cut(part, "<!-- end of transcript -->")
		_, part, fenced := strings.Cut(part, "```console\n")
		part, _, closed := strings.Cut(part, "```\n")
		if !ended || !fenced || !closed || !strings.Contains(part, "# ") {
			t.Fatalf("a transcript in README does not end: %s", part)
		}
		all = append(all, part)
	}
	if len(all) < 2 {
		t.Fatalf("README has %d transcripts between markers", len(all))
	}
	return all
}

// TestReadmeCertificates: by the certificates of README's commands a user is let in, as who he
// is, and can sign nobody else's.
func TestReadmeCertificates(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		lacking(t, "openssl", "no openssl here")
	}
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, begun := strings.Cut(string(readme), "<!-- certificates")
	text, _, ended := strings.Cut(text, "<!-- end of certificates -->")
	var commands []string
	for line := range strings.Lines(text) {
		if command, ok := strings.CutPrefix(line, "    $ "); ok {
			commands = append(commands, command)
		}
	}
	if !begun || !ended || len(commands) != 5 {
		t.Fatalf("README has the commands %q", commands)
	}
	dir := t.TempDir()
	script := strings.NewReplacer("DNS:host", "DNS:localhost", "user:alice", "user:daemon").Replace(strings.Join(commands, ""))
	sh := exec.Command("sh", "-ec", script)
	sh.Dir = dir
	if out, err := sh.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	in := func(who string) string {
		return "cert=" + dir + "/" + who + ".pem&key=" + dir + "/" + who + ".key&ca=" + dir + "/ca.pem"
	}
	s := startServer(t, "--listen", "tls://127.0.0.1:0?"+in("srv"))
	_, rest, _ := strings.Cut(s.log.String(), "listening on tls://127.0.0.1:")
	port, _, _ := strings.Cut(rest, "\n")
	addr := "tls://localhost:" + port + "?"
	if out, err := exec.Command("containerfs", "--server", addr+in("me"), "ls", "/all").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := exec.Command("containerfs", "--server", addr+in("me"), "mkdir", "/all/a").CombinedOutput(); err == nil {
		t.Errorf("a user makes a container of root's: %s", out)
	}
	for _, who := range []string{"me", "srv"} {
		out, err := exec.Command("openssl", "x509", "-in", dir+"/"+who+".pem", "-noout", "-ext", "basicConstraints").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "CA:FALSE") {
			t.Errorf("%s: %v\n%s", who, err, out)
		}
	}
}
