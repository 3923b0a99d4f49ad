//go:build linux

package localhost

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestIdentity(t *testing.T) {
	a, err := Identity()
	b, errB := Identity()
	if err != nil || errB != nil || a != b || len(a) != 24 {
		t.Errorf("got %q, %v and %q, %v", a, err, b, errB)
	}
	out, err := exec.Command("cat", "/proc/sys/kernel/random/boot_id").Output()
	if err != nil || strings.Contains(a, strings.TrimSpace(string(out))) {
		t.Errorf("%q has the boot's id; %v", a, err)
	}
}

func TestDescendants(t *testing.T) {
	sh := exec.Command("sh", "-c", "sh -c 'sleep 100 & echo; wait' & wait")
	out, err := sh.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := sh.Start(); err != nil {
		t.Fatal(err)
	}
	pid := sh.Process.Pid
	out.Read(make([]byte, 1)) // all are there
	below, err := Descendants([]int{pid})
	defer func() {
		for _, p := range append([]Process{{PID: pid}}, below...) {
			if q, err := os.FindProcess(p.PID); err == nil {
				q.Kill()
			}
		}
		sh.Wait()
	}()
	if err != nil || len(below) != 2 {
		t.Fatalf("got %v, %v", below, err)
	}
	if line := CommandLine(below[1].PID); line != "sleep 100" {
		t.Errorf("the last is %q", line)
	}
	if of, _ := Descendants([]int{os.Getpid()}); !slices.Contains(of, below[1]) || slices.ContainsFunc(of, func(p Process) bool { return p.PID == os.Getpid() }) {
		t.Errorf("ours are %v", of)
	}
	if of, err := Descendants([]int{pid, below[0].PID}); err != nil || !slices.Equal(of, below[1:]) {
		t.Errorf("below the first two are %v, %v", of, err)
	}
	if last := below[1]; last.Start == 0 || !last.Same() || (Process{last.PID, last.Start + 1}).Same() {
		t.Errorf("%+v is not the one that it is", last)
	}
}

// TestCgroups is on directories that look like the kernel's.
func TestCgroups(t *testing.T) {
	old := cgroups
	cgroups = t.TempDir()
	defer func() { cgroups = old }()
	for dir, procs := range map[string]string{
		"systemd": "1\n", "systemd/system.slice": "", "systemd/system.slice/web.service": "7\n9\n",
		"systemd/system.slice/web.service/worker": "8\n7\n0\n", "systemd/twice.service": "", "systemd/user.slice": "", "systemd/user.slice/twice.service": "",
		"memory": "1\n", "memory/docker": "", "memory/docker/3f": "5\n",
	} {
		if err := os.MkdirAll(filepath.Join(cgroups, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(cgroups, dir, "cgroup.procs"), []byte(procs), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"web", "web.service"} {
		dir, err := UnitDir(name)
		if err != nil || dir != cgroups+"/systemd/system.slice/web.service" {
			t.Errorf("%s: got %s, %v", name, dir, err)
		}
		if pids, err := cgroupPIDs(dir); err != nil || !slices.Equal(pids, []int{7, 8, 9}) {
			t.Errorf("got %v, %v", pids, err)
		}
	}
	for _, name := range []string{"/docker/3f", "docker/3f", "/memory/docker/3f", cgroups + "/memory/docker/3f"} {
		if dir, err := CgroupDir(name); err != nil || dir != cgroups+"/memory/docker/3f" {
			t.Errorf("%s: got %s, %v", name, dir, err)
		}
	}
	for _, name := range []string{"", "/", "..", "/memory", "memory/docker/..", cgroups, cgroups + "/systemd/"} {
		if dir, err := CgroupDir(name); !errors.Is(err, ErrEveryProcess) {
			t.Errorf("cgroup %q: got %s, %v", name, dir, err)
		}
	}
	for _, name := range []string{"no", "", "a/b", "..", "twice"} {
		if dir, err := UnitDir(name); err == nil {
			t.Errorf("unit %q: got %s", name, dir)
		}
	}
	outside := filepath.Dir(cgroups)
	os.WriteFile(outside+"/cgroup.procs", []byte("1\n"), 0o644)
	defer os.Remove(outside + "/cgroup.procs")
	for _, name := range []string{"../..", "/../" + filepath.Base(outside), "no"} {
		if dir, err := CgroupDir(name); err == nil && !strings.HasPrefix(dir, cgroups) || name == "no" && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("cgroup %q: got %s, %v", name, dir, err)
		}
	}
}
