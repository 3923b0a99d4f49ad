package main

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
	"github.com/urfave/cli/v2"

	"containerfs/cmd/containerfs/internal/localhost"
)

// TestJobNotStarted: what was made is removed where the command is not started, and what cannot
// be is said; the exit code is run's own.
func TestJobNotStarted(t *testing.T) {
	m, addr := serveMemory(t)
	host, err := localhost.Identity()
	if err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	m.add("/ctl", p9.ModeRegular|0o666, "# "+hostFact+host+"\n")
	m.mu.Unlock()
	run := func(args ...string) result {
		return command(nil, append([]string{"--server", addr, "run", "--new", "-c", "/all/j"}, args...)...)
	}
	// Its files are missing, so nothing can be moved there.
	want := result{exitNotRun, "", "containerfs: attach /all/j: no such file or directory\n"}
	if got := run("--", "true"); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	want.stderr = "containerfs: mkdir /all/Zoe: file exists\n"
	if got := run("-c", "/all/Zoe", "--", "true"); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := command(nil, "--server", addr, "ls", "/all"); got.stdout != "tasks\ncpus\nZoe\nAbe\n" {
		t.Errorf("what is left: %+v", got)
	}
	// Where --new is forgotten it is not the file of --set that is missing.
	want.stderr = "containerfs: run in /all/j: no such file or directory; --new makes it\n"
	if got := command(nil, "--server", addr, "run", "-c", "/all/Zoe", "-c", "/all/j", "--set", "tasks=1", "--", "true"); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	m.failWith("rmdir /all/j", linux.EBUSY)
	want.stderr = "containerfs: attach /all/j: no such file or directory; and could not be put back: rmdir /all/j: device or resource busy\n"
	if got := run("--", "true"); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestExecuted: what a program is to the rules is known before it is executed.
func TestExecuted(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	for name, text := range map[string]string{
		"program":                      "\x7fELF",
		"empty":                        "",
		"shebang":                      "#!\n",
		"script":                       "#!" + in("link") + "\n",
		"script-with-arguments":        "#! \t" + in("program") + " -x\n",
		"without-an-end":               "#!" + in("program"),
		"of-a-script-with-a-long-name": "#!" + in("script") + " -x\n",
		"lost":                         "#!" + in("no") + "\n",
		"circle":                       "#!" + in("circle") + "\n",
	} {
		if err := os.WriteFile(in(name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("program", in("link")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][2]string{
		"program":                      {"program", "program"},
		"link":                         {"program", "link"},
		"empty":                        {"empty", "empty"},
		"shebang":                      {"shebang", "shebang"},
		"script":                       {"program", "script"},
		"script-with-arguments":        {"program", "script-with-arg"},
		"without-an-end":               {"program", "without-an-end"},
		"of-a-script-with-a-long-name": {"program", "of-a-script-wit"},
		"lost":                         {"", "lost"},
		"circle":                       {"circle", "circle"},
	} {
		if want[0] != "" {
			want[0] = in(want[0])
		}
		if exe, comm := executed(in(name)); exe != want[0] || comm != want[1] {
			t.Errorf("%s: %q, %q", name, exe, comm)
		}
	}
	t.Chdir(dir)
	if exe, comm := executed("./link"); exe != in("program") || comm != "link" {
		t.Errorf("%q, %q", exe, comm)
	}
}

// TestJobUnmeasured: what was not measured is not told as nothing.
func TestJobUnmeasured(t *testing.T) {
	m, addr := serveMemory(t)
	m.mu.Lock()
	for name, text := range map[string]string{"cpuacct.usage": "9\n", "bc.physpages.maxheld": "0\n", "bc.numproc.maxheld": "3\n"} {
		m.add("/all/Zoe/"+name, p9.ModeRegular|0o444, text)
	}
	m.mu.Unlock()
	s, err := connect(context.Background(), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for before, want := range map[int64]string{4: "elapsed=0.000s cpu=0.000s tasks_peak=3", 9: "elapsed=0.000s tasks_peak=3", 12: "elapsed=0.000s tasks_peak=3"} {
		j := &job{dirs: []string{"/all/Zoe"}, before: jobUsage{CPU: &before}}
		if u := j.used(s); u.String() != want {
			t.Errorf("where usage was %d: %s, want %s", before, u.String(), want)
		}
	}
}

func TestJobUsageString(t *testing.T) {
	cpu, memory, tasks := int64(97_310_400_000), int64(62_000_000), int64(12)
	for want, u := range map[string]jobUsage{
		"elapsed=61.204s cpu=97.310s memory_peak=59.1M tasks_peak=12": {Elapsed: 61_204_000_000, CPU: &cpu, MemoryPeak: &memory, TasksPeak: &tasks},
		"elapsed=0.002s": {Elapsed: 2_000_000},
	} {
		if got := u.String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// TestUsageFileOfFailed: the exit code in the file is that of run.
func TestUsageFileOfFailed(t *testing.T) {
	m, addr := serveMemory(t)
	m.mu.Lock()
	m.add("/all/Zoe/kill", p9.ModeRegular|0o222, "")
	m.mu.Unlock()
	m.failWith("rmdir /all/Zoe", linux.EBUSY)
	name := filepath.Join(t.TempDir(), "usage")
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	flags.String("server", addr, "")
	var stderr bytes.Buffer
	c := cli.NewContext(&cli.App{ErrWriter: &stderr}, flags, nil)
	c.Context = context.Background()
	j := &job{c: c, dirs: []string{"/all/Zoe"}, rm: true, usage: true, usageFile: file, started: time.Now(), ended: time.Now()}
	err = j.finish()
	if err != nil {
		err = notRun(err)
	}
	text, _ := os.ReadFile(name)
	if exitCode(err) != exitNotRun || !strings.Contains(string(text), `"exit_code":125`) {
		t.Errorf("run exits %d, the file has %s", exitCode(err), text)
	}
	if lines := strings.Split(strings.TrimSpace(stderr.String()), "\n"); !strings.HasPrefix(lines[len(lines)-1], "containerfs: usage: ") {
		t.Errorf("usage is not the last line of %q", stderr.String())
	}
}
