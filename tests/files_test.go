package tests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"containerfs/ops"
	"containerfs/subsys"
	"containerfs/subsys/controller"
)

// TestFilesPage: the manual names every control file that a server has, with its mode,
// every file of the top directory and every command of ctl; and nothing else.
func TestFilesPage(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("containerfs", "man", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b, err := os.ReadFile(filepath.Join(dir, "man7", "containerfs-files.7"))
	if err != nil {
		t.Fatal(err)
	}
	page := strings.ReplaceAll(string(b), `\-`, "-")

	documented := make(map[string]string) // modes
	entry := regexp.MustCompile(`(?m)^\.TP\n(\\fB.*\\fR) \((0[0-7]{3})\)$`)
	for _, m := range entry.FindAllStringSubmatch(page, -1) {
		for name := range strings.SplitSeq(m[1], ", ") {
			name = strings.TrimSuffix(strings.TrimPrefix(name, `\fB`), `\fR`)
			if was, twice := documented[name]; twice && was != m[2] {
				t.Errorf("%s is %s and %s", name, was, m[2])
			}
			documented[name] = m[2]
		}
	}
	var commands []string
	for _, m := range regexp.MustCompile(`(?m)^\.TP\n\\fB([a-z]+)\\fR \\fI`).FindAllStringSubmatch(page, -1) {
		commands = append(commands, m[1])
	}
	if got, want := slices.Sorted(slices.Values(commands)), slices.Sorted(slices.Values(ops.CtlCommands())); !slices.Equal(got, want) {
		t.Errorf("the page has the commands %q of ctl, which has %q", got, want)
	}
	for _, name := range subsys.Optional {
		if !regexp.MustCompile(`\b` + name + `\b`).MatchString(page) {
			t.Errorf("the page does not name the subsystem %s", name)
		}
	}

	// The kernel's cpuset brings files of its own, where it can be had.
	kernel, err := controller.Open(controller.Config{Names: []string{"cpuset"}, ID: fmt.Sprintf("test-files-%d", os.Getpid())})
	withKernel := err == nil
	for _, k := range kernel {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	}
	args := []string{"--enable", "ns", "--hierarchy", "all=all", "--hierarchy", "ns=ns"}
	if withKernel {
		args = append(args, "--enable", "cpuset")
	}
	s := startServer(t, args...)
	s.run("mkdir", "/all/Charlie", "/ns/Charlie")
	there := make(map[string]bool)
	has := func(prefix, dir string) {
		t.Helper()
		for line := range strings.Lines(s.run("ls", "-l", dir)) {
			f := strings.Fields(line)
			if len(f) != 4 || strings.HasPrefix(f[0], "d") {
				continue
			}
			name, mode := prefix+f[3], octalMode(f[0])
			there[name] = true
			if documented[name] != mode {
				t.Errorf("%s/%s has mode %s, and the page says %q of %s", dir, f[3], mode, documented[name], name)
			}
		}
	}
	has("", "/")
	has("proc/PID/", fmt.Sprintf("/proc/%d", os.Getpid()))
	for _, h := range []string{"/all", "/ns"} {
		has("", h)
		has("", h+"/Charlie")
	}
	for name := range documented {
		if !there[name] && withKernel {
			t.Errorf("the page has %s, and the server has not", name)
		}
	}
	s.run("rmdir", "/all/Charlie", "/ns/Charlie")
}

// octalMode is a mode as ls shows it.
func octalMode(text string) string {
	n := 0
	for _, c := range text[1:] {
		n <<= 1
		if c != '-' {
			n |= 1
		}
	}
	return fmt.Sprintf("0%03o", n)
}
