package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// kernelDirs are the kernel's directories of a server, in all hierarchies of the host.
func kernelDirs(base string) (dirs []string) {
	for _, where := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		found, _ := filepath.Glob(where + base)
		dirs = append(dirs, found...)
	}
	return dirs
}

// forgetKernelDirs removes them, with what is below, as a boot does.
func forgetKernelDirs(t *testing.T, base string) {
	t.Helper()
	for _, top := range kernelDirs(base) {
		var dirs []string
		filepath.WalkDir(top, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for _, d := range slices.Backward(dirs) {
			if err := os.Remove(d); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestUnkeptKernelSetting: a setting of the kernel's that cannot be kept is taken back,
// the first of a file as well.
func TestUnkeptKernelSetting(t *testing.T) {
	onTmpfs(t, "1m", func(t *testing.T, dir string) {
		state := filepath.Join(dir, "state")
		s := startServer(t, "--state", state, "--enable", "pids", "--hierarchy", "n=pids")
		c := s.client("/")
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Error(err)
			}
		}
		must(c.mkdir("/n/a"))
		must(c.mkdir("/n/b"))
		must(c.write("/n/b/pids.max", "9"))
		ballast := filepath.Join(dir, "ballast")
		fill(t, ballast)
		containers := []string{"a", "b"}
		containers = append(containers, c.mkdirUntilFull("/n/")...)
		for name, want := range map[string]string{"a": "max\n", "b": "9\n"} {
			err := c.write("/n/"+name+"/pids.max", "7")
			if !isFull(err) {
				t.Errorf("%s: %v, want ENOSPC", name, err)
			}
			if got, err := c.read("/n/" + name + "/pids.max"); got != want || err != nil {
				t.Errorf("%s: the limit is %q, %v, want %q", name, got, err, want)
			}
		}
		must(os.Remove(ballast))
		s.run("write", "/n/b/pids.max", "8")
		for _, name := range containers {
			s.run("rmdir", "/n/"+name)
		}
		base := s.base() // which stays while there are containers
		s.stop()
		if left := kernelDirs(base); len(left) > 0 {
			t.Errorf("left over: %q", left)
		}
		retireMirrors(t, state)
	})
}

// TestUnkeptLimits: limits that are given to the kernel with another subsystem's are taken back,
// too, in the containers below as well, and as soon as a server has started. What was kept is in
// force in another life: of two limits the lesser, and each where the kernel has forgotten it.
func TestUnkeptLimits(t *testing.T) {
	onTmpfs(t, "1m", func(t *testing.T, dir string) {
		state := filepath.Join(dir, "state")
		start := func() *server {
			return startServer(t, "--state", state, "--enable", "pids", "--hierarchy", "n=numtasks,bc,pids")
		}
		s := start()
		containers := []string{"a", "b", "c", "c/x"}
		for _, name := range containers {
			s.run("mkdir", "/n/"+name)
		}
		s.run("write", "/n/numtasks.shares", "child_shares_divisor="+strings.TrimSpace(s.run("read", "/n/numtasks.limit")))
		s.run("write", "/n/a/bc.numproc.barrier", "10")
		s.run("write", "/n/a/bc.numproc.limit", "10")
		s.run("write", "/n/c/numtasks.shares", "max_shares=90,child_shares_divisor=100")
		s.run("write", "/n/c/x/numtasks.shares", "max_shares=50")
		limits := func(what string, want ...string) {
			t.Helper()
			for i, name := range []string{"a", "b", "c", "c/x"} {
				if got := s.run("read", "/n/"+name+"/pids.max"); got != want[i]+"\n" {
					t.Errorf("%s: the kernel's limit of %s is %q, want %s", what, name, got, want[i])
				}
			}
		}
		limits("in force", "10", "max", "90", "45")
		s.run("write", "/n/c/numtasks.shares", "max_shares=80")
		limits("changed", "10", "max", "80", "40")

		s.kill9()
		s = start()
		ballast := filepath.Join(dir, "ballast")
		fill(t, ballast)
		refused := func(path, value string) {
			t.Helper()
			if err := s.client("/").write(path, value); !isFull(err) {
				t.Errorf("%s: %v, want ENOSPC", path, err)
			}
			limits("refused "+path, "10", "max", "80", "40")
		}
		c := s.client("/")
		containers = append(containers, c.mkdirUntilFull("/n/")...)
		refused("/n/c/x/pids.max", "7")
		refused("/n/b/numtasks.shares", "max_shares=33")
		refused("/n/c/numtasks.shares", "max_shares=20")
		refused("/n/a/bc.numproc.limit", "700")
		if err := os.Remove(ballast); err != nil {
			t.Error(err)
		}
		s.run("write", "/n/a/numtasks.shares", "max_shares=40")
		limits("of two the lesser", "10", "max", "80", "40")

		base := s.base()
		s.kill9()
		forgetKernelDirs(t, base)
		s = start()
		limits("as after a boot", "10", "max", "80", "40")
		s.run("write", "/n/a/numtasks.shares", "max_shares=5")
		s.run("write", "/n/a/bc.numproc.limit", "11")
		limits("of two the lesser again", "5", "max", "80", "40")
		for _, name := range slices.Backward(containers) {
			s.run("rmdir", "/n/"+name)
		}
		s.stop()
		if left := kernelDirs(base); len(left) > 0 {
			t.Errorf("left over: %q", left)
		}
		retireMirrors(t, state)
	})
}

// TestUnkeptKernelCpuset: so is what the kernel's cpusets have, and members have their CPUs back.
func TestUnkeptKernelCpuset(t *testing.T) {
	needHost(t)
	mount := mountOf(t, "cpuset") // where the host has version 1
	if online, err := os.ReadFile("/sys/devices/system/cpu/online"); err != nil || !strings.HasPrefix(string(online), "0-") {
		t.Skipf("this is for two CPUs: %s, %v", online, err)
	}
	onTmpfs(t, "1m", func(t *testing.T, dir string) {
		state := filepath.Join(dir, "state")
		s := startServer(t, "--state", state, "--hierarchy", "cs=cpuset", "--enable", "cpuset")
		containers := []string{"a", "a/b", "new"}
		for _, name := range containers {
			s.run("mkdir", "/cs/"+name)
		}
		var members []*spawner
		for i, cpus := range []string{"0-1", "0"} {
			at := "/cs/" + containers[i]
			s.run("write", at+"/cpuset.cpus", cpus)
			s.run("write", at+"/cpuset.mems", "0")
			p := startSpawner(t)
			s.run("write", at+"/procs", fmt.Sprint(p.pid()))
			members = append(members, p)
		}
		ballast := filepath.Join(dir, "ballast")
		fill(t, ballast)
		c := s.client("/")
		containers = append(containers, c.mkdirUntilFull("/cs/")...)
		base := s.base()
		for _, change := range [][2]string{{"a/b/cpuset.cpus", "1"}, {"a/b/cpuset.cpus", "0-1"}, {"a/cpuset.mems", ""}, {"new/cpuset.cpus", "1"}, {"new/cpuset.mems", "0"}} {
			if err := c.write("/cs/"+change[0], change[1]+"\n"); err == nil {
				t.Errorf("%s: it is kept", change[0])
			}
			for i, want := range []string{"0-1", "0"} {
				if got := cpusAllowed(t, members[i].pid(), members[i].pid()); got != want {
					t.Errorf("%s is refused, and the member of %s has %s, want %s", change[0], containers[i], got, want)
				}
			}
			for _, file := range []string{"cpus", "mems"} {
				for _, dir := range []string{"/*", "/*/*"} {
					files, _ := filepath.Glob(mount + base + dir + "/cpuset." + file)
					for i, f := range files {
						want := map[string]string{"cpus/*": "0-1", "cpus/*/*": "0", "mems/*": "0", "mems/*/*": "0"}[file+dir]
						if i > 0 {
							want = ""
						}
						if text, err := os.ReadFile(f); err != nil || strings.TrimSpace(string(text)) != want {
							t.Errorf("%s is refused, and the kernel has %q, %v in %s, want %q", change[0], text, err, f, want)
						}
					}
				}
			}
		}
		if err := os.Remove(ballast); err != nil {
			t.Error(err)
		}
		for _, p := range members {
			p.kill()
		}
		for _, name := range slices.Backward(containers) {
			s.run("rmdir", "/cs/"+name)
		}
		s.stop()
		for line := range strings.Lines(s.log.String()) {
			if strings.Contains(line, "level=WARN") && strings.Contains(line, "cpus=") {
				t.Error(line)
			}
		}
		retireMirrors(t, state)
	})
}

// TestPassedCpusetFiles: what is set in the kernel's cpuset files that pass through is kept as all
// else is: it is there after a boot, and taken back where it cannot be kept. A server without the
// kernel's cpuset has no such files, and says so.
func TestPassedCpusetFiles(t *testing.T) {
	needHost(t)
	mountOf(t, "cpuset")
	const file = "/cs/a/cpuset.memory_spread_page"
	onTmpfs(t, "1m", func(t *testing.T, dir string) {
		state := filepath.Join(dir, "state")
		start := func(flags ...string) *server {
			return startServer(t, append([]string{"--state", state, "--hierarchy", "cs=cpuset"}, flags...)...)
		}
		s := start("--enable", "cpuset")
		set := func(want string) {
			t.Helper()
			if got := s.run("read", file); got != want+"\n" {
				t.Errorf("%s is %q, want %s", file, got, want)
			}
			if got := s.run("read", "/cs/a/cpuset.cpus"); got != "0\n" {
				t.Errorf("cpus are %q", got)
			}
		}
		again := func(flags ...string) {
			base := s.base()
			s.kill9()
			forgetKernelDirs(t, base)
			s = start(flags...)
		}
		s.run("mkdir", "/cs/a")
		s.run("write", "/cs/a/cpuset.cpus", "0")
		set("0")
		s.run("write", file, "1")
		ballast := filepath.Join(dir, "ballast")
		fill(t, ballast)
		c := s.client("/")
		containers := append(c.mkdirUntilFull("/cs/"), "a")
		if err := c.write(file, "0"); !isFull(err) {
			t.Errorf("%v, want ENOSPC", err)
		}
		set("1")
		if err := os.Remove(ballast); err != nil {
			t.Error(err)
		}
		again("--enable", "cpuset")
		set("1")

		again()
		if got := s.run("read", "/cs/a/cpuset.cpus"); got != "0\n" {
			t.Errorf("cpus are %q", got)
		}
		if log := s.log.String(); !strings.Contains(log, "memory_spread_page") {
			t.Errorf("the log says nothing: %s", log)
		}
		for _, name := range containers {
			s.run("rmdir", "/cs/"+name)
		}
		s.stop()
		retireMirrors(t, state)
	})
}
