package tests

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hugelgupf/p9/linux"
)

// TestBadInput asks for what must be refused: with the errno of SPEC, in
// bounded time, and with everything as it was before.
func TestBadInput(t *testing.T) {
	s := startServer(t, "--hierarchy", "all=all")
	c := s.client("")
	p := startSpawner(t)
	pid := strconv.Itoa(p.pid())
	for _, name := range []string{"/all/busy", "/all/parent", "/all/parent/child", "/all/empty"} {
		if err := c.mkdir(name); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"/all/busy/cpuset.cpus", "/all/busy/cpuset.mems"} {
		if err := c.write(file, "0\n"); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.write("/all/busy/tasks", pid); err != nil {
		t.Fatal(err)
	}

	dead := startThreadedSpawner(t)
	deadTids := threads(t, dead.pid())
	dead.kill()
	pidMax, err := os.ReadFile("/proc/sys/kernel/pid_max")
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("n", 256)

	write := func(path, value string) func() error {
		return func() error { return c.write(path, value) }
	}
	mkdir := func(path string) func() error { return func() error { return c.mkdir(path) } }
	rmdir := func(path string) func() error { return func() error { return c.rmdir(path) } }
	rename := func(path, to string) func() error { return func() error { return c.rename(path, to) } }
	attach := func(aname string) func() error {
		return func() error {
			conn := s.dial()
			defer conn.Close()
			_, err := attach(conn, aname)
			return err
		}
	}

	type refused struct {
		what string
		do   func() error
		want linux.Errno
	}
	var cases []refused
	// The one that is in the container already and one elsewhere: where the
	// task is makes no difference to what is a number.
	for _, file := range []string{"/all/busy/tasks", "/all/busy/procs", "/all/tasks"} {
		for _, bad := range []string{
			"", "\n", "x", pid + "x", "x" + pid, pid + " " + pid, pid + "\n" + pid + "\n", pid + "," + pid,
			" " + pid, pid + " ", pid + "\n\n", pid + "\r\n", pid + "\x00", "+" + pid, "-" + pid, "-1", "0x10", "1e3", "0", "٣",
		} {
			cases = append(cases, refused{fmt.Sprintf("%q to %s", bad, file), write(file, bad), linux.EINVAL})
		}
		cases = append(cases,
			refused{"a number over 64 bits to " + file, write(file, "18446744073709551617"), linux.ERANGE},
			refused{"4097 bytes to " + file, write(file, pid+strings.Repeat("\n", 4097-len(pid))), linux.E2BIG},
			refused{"a dead pid to " + file, write(file, strconv.Itoa(dead.pid())), linux.ESRCH},
			refused{"a thread of a dead process to " + file, write(file, strconv.Itoa(deadTids[len(deadTids)-1])), linux.ESRCH},
			refused{"a zombie to " + file, write(file, strconv.Itoa(zombie(t))), linux.ESRCH},
			refused{"a pid over pid_max to " + file, write(file, strconv.Itoa(number(t, string(pidMax))+1)), linux.ESRCH},
		)
	}
	if name, err := os.ReadFile("/proc/2/comm"); err == nil && string(name) == "kthreadd\n" {
		cases = append(cases, refused{"kthreadd to tasks", write("/all/busy/tasks", "2"), linux.EINVAL})
	} else {
		t.Log("no kernel threads in this pid namespace: moving one is not tried")
	}
	for _, bad := range []string{"0-20000000", "3-1", "0-4294967295", "18446744073709551615", "0,,0", ",", ",0", "0-", "-0", "x", "0 0", "0-0-0", "0:1", "0/2", "0x0", "20000000"} {
		cases = append(cases,
			refused{fmt.Sprintf("%q to cpus", bad), write("/all/busy/cpuset.cpus", bad), linux.EINVAL},
			refused{fmt.Sprintf("%q to mems", bad), write("/all/empty/cpuset.mems", bad), linux.EINVAL})
	}
	cases = append(cases,
		refused{"4097 bytes to cpus", write("/all/busy/cpuset.cpus", strings.Repeat("0,", 2048)+"0"), linux.E2BIG},
		refused{"cpus of the root", write("/all/cpuset.cpus", "0"), linux.EACCES},
		refused{"no cpus where tasks are", write("/all/busy/cpuset.cpus", ""), linux.ENOSPC},
		refused{"a task where no cpus are", write("/all/empty/tasks", pid), linux.ENOSPC},
		refused{"2 to a flag", write("/all/busy/notify_on_release", "x"), linux.EINVAL},

		refused{"mkdir newline", mkdir("/all/a\nb"), linux.EINVAL},
		refused{"mkdir control character", mkdir("/all/a\x1bb"), linux.EINVAL},
		refused{"mkdir DEL", mkdir("/all/a\x7fb"), linux.EINVAL},
		refused{"mkdir NUL", mkdir("/all/a\x00b"), linux.EINVAL},
		refused{"mkdir 256 bytes", mkdir("/all/" + long), linux.ENAMETOOLONG},
		refused{"mkdir ..", mkdir("/all/.."), linux.EINVAL},
		refused{"mkdir .", mkdir("/all/."), linux.EINVAL},
		refused{"mkdir of what exists", mkdir("/all/busy"), linux.EEXIST},
		refused{"mkdir of a control file", mkdir("/all/tasks"), linux.EEXIST},
		refused{"mkdir in /", mkdir("/other"), linux.EPERM},
		refused{"rename to newline", rename("/all/empty", "a\nb"), linux.EINVAL},
		refused{"rename to 256 bytes", rename("/all/empty", long), linux.ENAMETOOLONG},
		refused{"rename to ..", rename("/all/empty", ".."), linux.EINVAL},
		refused{"rename to what exists", rename("/all/empty", "busy"), linux.EEXIST},
		refused{"rename of a control file", rename("/all/tasks", "chores"), linux.ENOTDIR},

		refused{"rmdir with tasks", rmdir("/all/busy"), linux.EBUSY},
		refused{"rmdir with a child", rmdir("/all/parent"), linux.EBUSY},
		refused{"rmdir of a root", rmdir("/all"), linux.EBUSY},
		refused{"rmdir of nothing", rmdir("/all/nothing"), linux.ENOENT},

		refused{"mount of a bound subsystem", write("/ctl", "mount other cpuset\n"), linux.EBUSY},
		refused{"mount under another name", write("/ctl", "mount other all\n"), linux.EBUSY},
		refused{"mount of an unknown subsystem", write("/ctl", "mount other nothing\n"), linux.ENOENT},
		refused{"mount with an empty token", write("/ctl", "mount other cpuset,,debug\n"), linux.EINVAL},
		refused{"mount of nothing", write("/ctl", "mount other noprefix\n"), linux.EINVAL},
		refused{"mount without a name", write("/ctl", "mount\n"), linux.EINVAL},
		refused{"no command", write("/ctl", "frobnicate\n"), linux.EINVAL},
		refused{"attach to a bound subsystem", attach("cpuset"), linux.EBUSY},
		refused{"attach to an unknown name", attach("nothing"), linux.ENOENT},
		refused{"attach to an unknown container", attach("all/nothing"), linux.ENOENT},
	)

	before := state(t, c, p.pid())
	for _, r := range cases {
		start := time.Now()
		err := r.do()
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("%s: took %v", r.what, took)
		}
		if err != r.want {
			t.Errorf("%s: %v, want %v", r.what, err, r.want)
		}
		if after := state(t, c, p.pid()); after != before {
			t.Fatalf("%s changed the state from\n%s\nto\n%s", r.what, before, after)
		}
	}

	// What is just within the limits is not refused.
	for _, do := range []func() error{
		write("/all/busy/tasks", pid), write("/all/busy/tasks", pid+"\n"), write("/all/busy/procs", pid),
		write("/all/busy/cpuset.cpus", "0,"), mkdir("/all/" + long[:255]), rmdir("/all/" + long[:255]),
		mkdir("/all/ünïcode"), rmdir("/all/ünïcode"), rename("/all/empty", "full"),
	} {
		if err := do(); err != nil {
			t.Error(err)
		}
	}
}

// state is what a refused request must leave alone: the hierarchies, every
// container below the roots with its files, and where a task is and may run.
// What the host's other processes change is left out.
func state(t testing.TB, c *client, pid int) string {
	t.Helper()
	var b strings.Builder
	for _, file := range []string{"/ctl", "/containers", fmt.Sprintf("/proc/%d/container", pid)} {
		text, err := c.read(file)
		fmt.Fprintf(&b, "%s: %q %v\n", file, text, err)
	}
	fmt.Fprintf(&b, "cpus allowed: %s\n", cpusAllowed(t, pid, pid))
	containerState(t, c, "/all", &b)
	return b.String()
}

func containerState(t testing.TB, c *client, path string, b *strings.Builder) {
	t.Helper()
	names, err := c.names(path)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(b, "%s: %q\n", path, names)
	root := strings.Count(path, "/") == 1
	for _, name := range names {
		file := path + "/" + name
		if name == "." || name == ".." || measures(name) {
			continue
		}
		text, err := c.read(file)
		switch {
		case err == linux.EISDIR:
			containerState(t, c, file, b)
		case root && slices.Contains([]string{"tasks", "procs", "events"}, name):
		default:
			fmt.Fprintf(b, "%s: %q %v\n", file, text, err)
		}
	}
}

// measures reports whether a file shows what tasks do, rather than what was set.
func measures(name string) bool {
	subsystem, file, _ := strings.Cut(name, ".")
	switch subsystem {
	case "debug", "cpuacct":
		return true
	case "bc":
		return !strings.HasSuffix(file, ".barrier") && !strings.HasSuffix(file, ".limit")
	}
	return name == "numtasks.stats"
}
