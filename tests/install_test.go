package tests

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// install installs into a directory of the test's own.
func install(t testing.TB, settings ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	c := exec.Command("make", append([]string{"-C", "..", "install", "DESTDIR=" + dir}, settings...)...)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("make install: %v\n%s", err, out)
	}
	return dir
}

// TestInstall: everything is in place, and the unit starts what was installed.
func TestInstall(t *testing.T) {
	dir := install(t, "PREFIX=/usr")
	var got []string
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			got = append(got, strings.TrimPrefix(path, dir))
		}
		return err
	})
	want := []string{
		"/etc/containerfs.toml",
		"/sbin/mount.containerfs",
		"/usr/bin/containerfs",
		"/usr/lib/systemd/system/containerfs.service",
		"/usr/lib/systemd/system/containerfs.socket",
		"/usr/share/bash-completion/completions/containerfs",
		"/usr/share/man/man1/containerfs.1",
		"/usr/share/man/man7/containerfs-files.7",
		"/usr/share/man/man8/containerfs-serve.8",
		"/usr/share/man/man8/mount.containerfs.8",
	}
	if !slices.Equal(got, want) {
		t.Errorf("installed %q, want %q", got, want)
	}
	if to, err := os.Readlink(dir + "/sbin/mount.containerfs"); err != nil || to != "/usr/bin/containerfs" {
		t.Errorf("mount.containerfs is a link to %q, %v", to, err)
	}
	if out, err := exec.Command(dir+"/usr/bin/containerfs", "--help").Output(); err != nil || !strings.Contains(string(out), "serve") {
		t.Errorf("what was installed does not run: %v\n%s", err, out)
	}
	checkPages(t, dir+"/usr/share/man")
	checkCompletion(t, dir+"/usr/share/bash-completion/completions/containerfs")

	if out, err := exec.Command("make", "-C", "..", "uninstall", "DESTDIR="+dir, "PREFIX=/usr").CombinedOutput(); err != nil {
		t.Errorf("make uninstall: %v\n%s", err, out)
	}
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if name := strings.TrimPrefix(path, dir); err == nil && !d.IsDir() && name != "/etc/containerfs.toml" {
			t.Errorf("make uninstall has left %s", name)
		}
		return err
	})
	if _, err := os.Stat(dir + "/etc/containerfs.toml"); err != nil {
		t.Errorf("of the config file: %v", err)
	}

	// Elsewhere, the unit and the link follow, and a config file stays as it is.
	dir = t.TempDir()
	writeFile(t, dir+"/containerfs.toml", "# mine\n")
	etc := strings.TrimPrefix(dir, "/")
	c := exec.Command("make", "-C", "..", "install", "DESTDIR=/", "PREFIX="+etc+"/opt", "MOUNTDIR="+etc+"/sbin", "SYSCONFDIR="+etc)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("make install: %v\n%s", err, out)
	}
	if b, err := os.ReadFile(dir + "/containerfs.toml"); err != nil || string(b) != "# mine\n" {
		t.Errorf("the config file is now %q, %v", b, err)
	}
	service, err := os.ReadFile(dir + "/opt/lib/systemd/system/containerfs.service")
	if start := "\nExecStart=" + etc + "/opt/bin/containerfs serve --config " + etc + "/containerfs.toml\n"; err != nil || !strings.Contains(string(service), start) {
		t.Errorf("the unit has no %q: %v\n%s", start, err, service)
	}
}

// checkPages looks at what the manual must have, and has man(1) and groff, where they
// are, format it.
func checkPages(t *testing.T, dir string) {
	t.Helper()
	for _, p := range []struct {
		file string
		has  []string // beside the sections
	}{
		{"man1/containerfs.1", []string{".SS ls [PATH]...", ".SS write PATH VALUE", `\fB\-\-server\fR \fIADDR\fR`, "where it is not given, $CONTAINERFS_SERVER is it", ".SH EXIT STATUS\n", "75 server unavailable;", ".SH ENVIRONMENT\n", "containerfs write /all/Charlie/tasks $$"}},
		{"man8/containerfs-serve.8", []string{`\fB\-\-listen\fR \fIADDR\fR`, `\fB\-\-metrics\fR`, "no_root_squash     root stays root", "SIGHUP has it read"}},
		{"man7/containerfs-files.7", []string{`\fBtasks\fR (0644)`, `\fBumount\fR \fINAME\fR`}},
		{"man8/mount.containerfs.8", []string{"_netdev,persist,aname=cpu  0  0", "32 when the mount failed"}},
	} {
		path := filepath.Join(dir, p.file)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
			continue
		}
		text := string(b)
		for _, has := range append(p.has, ".TH ", "\n.SH NAME\n", "\n.SH SYNOPSIS\n", "\n.SH DESCRIPTION\n", "\n.SH SEE ALSO\n") {
			if !strings.Contains(text, has) {
				t.Errorf("%s has no %q", p.file, has)
			}
		}
		if strings.Count(text, "\n.EX\n") != strings.Count(text, "\n.EE\n") {
			t.Errorf("%s: examples begin and do not end", p.file)
		}
		known := map[string]bool{"TH": true, "SH": true, "SS": true, "PP": true, "TP": true, "EX": true, "EE": true, "B": true, "BR": true}
		for line := range strings.Lines(text) {
			if word, _, _ := strings.Cut(strings.TrimSpace(line), " "); strings.HasPrefix(line, ".") && !known[word[1:]] || strings.HasPrefix(line, "'") {
				t.Errorf("%s: a line is taken for a request: %q", p.file, line)
			}
		}
		for _, format := range [][]string{
			{"man", "-l", path},
			{"groff", "-man", "-ww", "-Tutf8", "-P-cbou", path},
			{"mandoc", "-T", "lint", "-W", "error", path},
		} {
			if _, err := exec.LookPath(format[0]); err != nil {
				t.Logf("no %s here: its structure has been looked at", format[0])
				continue
			}
			c := exec.Command(format[0], format[1:]...)
			c.Env = append(os.Environ(), "MANPAGER=cat", "LC_ALL=C.UTF-8")
			var stderr strings.Builder
			c.Stderr = &stderr
			out, err := c.Output()
			if err != nil || stderr.Len() > 0 || format[0] != "mandoc" && !strings.Contains(string(out), "SYNOPSIS") {
				t.Errorf("%q: %v\n%s", format, err, stderr.String())
			}
		}
	}
}

// checkCompletion has bash complete command lines.
func checkCompletion(t *testing.T, script string) {
	t.Helper()
	s := startServer(t)
	s.run("mkdir", "/all/Charlie", "/all/vm:3 x")
	const complete = `set -u
source "$1"
complete -p containerfs >/dev/null || exit 1
COMP_LINE=$2 COMP_POINT=${#2}
_containerfs
((${#COMPREPLY[@]})) && printf '%s\n' "${COMPREPLY[@]}"
exit 0`
	for _, tt := range []struct {
		line, want string // of which there is nothing else, unless it ends in ...
	}{
		{"containerfs mk", "mkdir\n"},
		{"containerfs --server tcp://1.2.3.4:5 mk", "mkdir\n"},
		{"containerfs --server=x rmd", "rmdir\n"},
		{"containerfs --ser", "--server\n"},
		{"containerfs serve --max-containers-per", "--max-containers-per-user\n"},
		{"containerfs serve --mirror off --conf", "--config\n"},
		{"containerfs man", ""}, // hidden
		{"containerfs nosuch", ""},
		{"containerfs write /all/Ch", "/all/Charlie/\n"},
		{"containerfs write /all/Charlie/tas", "/all/Charlie/tasks \n"},
		{"containerfs chown root /all/Charlie/tas", "/all/Charlie/tasks \n"},
		{"containerfs get /all/Ch", "/all/Charlie/\n"},
		{"containerfs get /all/Charlie/tas", ""}, // it wants a container, and names behind it
		{"containerfs get /all/Charlie/ cpuset.c", "cpuset.cpus \ncpuset.cpu_exclusive \n"},
		{"containerfs get -v /all/Charlie cpuset.cpus tas", "tasks \n"},
		{"containerfs get /all/Charlie kil", ""}, // which cannot be read
		{"containerfs --server unix:///nosuch get /all/Charlie tas", ""},
		{"containerfs set /all/Charlie cpuset.cpus=0 cpuset.m", "cpuset.mems=\ncpuset.mem_exclusive=\ncpuset.memory_migrate=\n"},
		{"containerfs set /all/Charlie kil", "kill=\n"},
		{"containerfs set /all/Charlie numtasks.li", ""}, // which cannot be written
		{"containerfs set /all/Charlie cpuset.cpus=0", ""},
		{"containerfs rmdir /all/vm:", "3\\ x/\n"},
		{"containerfs run -c /all/Ch", "/all/Charlie/\n"},
		{"containerfs run -c /all/Charlie -c /all/Charlie/tas", ""}, // no container
		{"containerfs attach --from /all/Ch", "/all/Charlie/\n"},
		{"containerfs run -c /all/Charlie --", "--new\n..."},
		{"containerfs run -c /all/Charlie --ne", "--new\n"},
		{"containerfs run -c /all/Charlie --set cpuset.m", "cpuset.mems=\ncpuset.mem_exclusive=\ncpuset.memory_migrate=\n"},
		{"containerfs run --new -c /all/new --set x=y --set cpuset.cpus", "cpuset.cpus=\n"},
		{"containerfs run --new -c /all/new --set cpuset.cpus=0", ""},
		{"containerfs run --set cpuset.cpus", ""},
		{"containerfs run -c /all/Charlie -- containerf", "containerfs\n..."},
		{"containerfs run -c /all/Charlie -- containerfs /al", ""}, // a file
		{"containerfs run -c /all/Charlie containerfs --ser", ""},
		{"containerfs rmdir /all/Charlie/tas", ""},
		{"containerfs rmdir -r --ki", "--kill\n"},
		{"containerfs rmdir -r --kill /all/Ch", "/all/Charlie/\n"},
		{"containerfs attach -r /all/Charlie/", ""},
		{"containerfs attach --unit x -- /all/Ch", "/all/Charlie/\n"},
		{"containerfs top --sort mem", "memory\n"},
		{"containerfs watch /all --kind ren", "rename\n"},
		{"containerfs serve --mirror hu", "hugetlb\n"},
		{"containerfs serve --enable cpu", "cpu\ncpuset\ncpuacct\n"},
		{"containerfs serve --log-level e", "error\n"},
		{"containerfs serve --log-format j", "json\n"},
		{"containerfs help mk", "mkdir\n"},
		{"containerfs rules test /al", ""},
		{"containerfs rules test --exe /al", ""},
		{"containerfs ls /al", "/all/\n"},
		{"containerfs ls -l /ct", "/ctl \n"},
		{"containerfs --server unix:///nosuch ls /", ""},
		{"containerfs ", "serve\nls\n..."},
	} {
		want, more := strings.CutSuffix(tt.want, "...")
		var out []byte
		var err error
		for range 5 { // the script gives a server two seconds
			c := exec.Command("bash", "-c", complete, "bash", script, tt.line)
			c.Env = append(os.Environ(), "CONTAINERFS_SERVER=unix://"+s.sock)
			if out, err = c.CombinedOutput(); err != nil || len(out) > 0 || want == "" {
				break
			}
		}
		if err != nil || string(out) != want && !(more && strings.HasPrefix(string(out), want)) {
			t.Errorf("%q: got %q, %v, want %q", tt.line, out, err, tt.want)
		}
	}
	s.run("rmdir", "/all/Charlie", "/all/vm:3 x")
}
