package tests

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestRunRules: run says where the rules have its command moved as it is executed, and the line
// that it names for it keeps it.
func TestRunRules(t *testing.T) {
	rules := `
*:cfs-tool     net     tools       create
*:cfs-job      cpu     jobs/%P     create
*:cfs-lost     cpu     nowhere
*:cfs-kept     net     ci          ignore
*:cfs-kept     *       kept        create
*:cfs-cat      net     scripts     create
`
	r := startRuled(t, rules)
	t.Setenv("CONTAINERFS_SERVER", "unix://"+r.sock)
	tool := r.copyOf("sh", "cfs-tool")
	kept, lost := r.program("cfs-kept"), r.program("cfs-lost")
	link := filepath.Join(r.dir, "link")
	if err := os.Symlink("cfs-tool", link); err != nil {
		t.Fatal(err)
	}
	job := filepath.Join(r.dir, "cfs-job")
	writeFile(t, job, "#!/bin/sh\ntrue\n")
	interpreted := filepath.Join(r.dir, "interpreted")
	// Its interpreter is a link, to what it is called by rules.
	writeFile(t, interpreted, "#! "+link+"-cat\n")
	if err := os.Symlink("cfs-cat", link+"-cat"); err != nil {
		t.Fatal(err)
	}
	r.copyOf("cat", "cfs-cat")
	for _, script := range []string{job, interpreted} {
		if err := os.Chmod(script, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r.run("mkdir", "/net/ci", "/net/ci/50%used", "/net/ci/a b", "/cpu/ci", "/net/tools")
	until := func(condition string) string {
		return "for i in $(seq 200); do " + condition + " && break; [ $i -lt 200 ] || exit 9; sleep 0.05; done"
	}
	toTools := func(name, from string) string {
		return "containerfs: warning: line 2 of the rules (*:cfs-tool net tools create) has " + name + " moved from /net" + from + " to /net/tools as it is executed"
	}
	keep := func(path string) string {
		return "; a line `root net " + path + " ignore` before it keeps it there\n"
	}
	for _, tt := range []struct {
		args []string
		want string // on standard error; what is after * is not looked at
	}{
		{[]string{"-c", "/net/ci", "-c", "/cpu/ci", "--", tool, "-c", until("containerfs read /proc/$$/container | grep -q ^debug:/tools")}, toTools(tool, "/ci") + keep("/ci")},
		{[]string{"-c", "/net//ci/", "--", link, "-c", ":"}, toTools(link, "/ci") + keep("/ci")},
		{[]string{"-c", "/net", "--", tool, "-c", ":"}, toTools(tool, "") + keep("/")},
		{[]string{"-c", "/net/ci/50%used", "--", tool, "-c", ":"}, toTools(tool, "/ci/50%used") + keep(`/ci/50\%used`)},
		{[]string{"-c", "/net/ci/a b", "--", tool, "-c", ":"}, toTools(tool, "/ci/a b") + "\n"},
		{[]string{"-c", "/net/tools", "--", tool, "-c", ":"}, ""},
		{[]string{"-c", "/cpu/ci", "--", tool, "-c", ":"}, ""},
		{[]string{"-c", "/cpu/ci", "-c", "/net/ci", "--", job}, "containerfs: warning: line 3 of the rules (*:cfs-job cpu jobs/%P create) has " + job + " moved from /cpu/ci to /cpu/jobs/*"},
		{[]string{"-c", "/cpu/ci", "--", lost, "0"}, ""}, // it stays: there is no such container
		{[]string{"-c", "/net/ci", "--", kept, "0"}, ""},
		{[]string{"-c", "/net/tools", "--", kept, "0"}, "containerfs: warning: line 6 of the rules (*:cfs-kept * kept create) has " + kept + " moved from /net/tools to /net/kept as *"},
		{[]string{"-c", "/net/ci", "--", interpreted}, "containerfs: warning: line 7 of the rules (*:cfs-cat net scripts create) has *"},
		{[]string{"-c", "/cpu/ci", "-c", "/net/ci", "--", "true"}, ""},
	} {
		code, _, stderr := r.command(append([]string{"run"}, tt.args...)...)
		want, more := strings.CutSuffix(tt.want, "*")
		if code != 0 || stderr != want && !(more && strings.HasPrefix(stderr, want)) || strings.Count(stderr, "\n") > 1 {
			t.Errorf("%q: exit code %d\n%s, want\n%s", tt.args, code, stderr, tt.want)
		}
	}

	writeFile(t, r.file, "root net /ci ignore\n"+rules)
	r.cmd.Process.Signal(syscall.SIGHUP)
	waitFor(t, "the new rules", func() bool { return strings.Contains(r.run("read", "/rules"), "\t# line=1 ") })
	code, stdout, stderr := r.command("run", "-c", "/net/ci", "--", tool, "-c",
		until(`containerfs read /rules | grep -q "line=1 matches=[1-9]"`)+" && containerfs read /proc/$$/container")
	if code != 0 || stderr != "" || !strings.Contains(stdout, "debug:/ci\n") {
		t.Errorf("exit code %d: it is in\n%s%s", code, stdout, stderr)
	}
}
