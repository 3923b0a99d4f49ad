//go:build linux

// Package localhost is what a client sees of the host that it runs on: its
// processes, its kernel's cgroups, and whether a server is on the same host.
//
// What is read here changes while it is read: a process that ends meanwhile is
// left out, it is no error.
package localhost

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Identity names the host and the pid namespace that this process is in: where
// two processes have the same, a pid is the same process to both. It is a hash,
// since the id of a boot is not everybody's to know.
func Identity() (string, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	var ns unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &ns); err != nil {
		return "", &os.PathError{Op: "stat", Path: "/proc/self/ns/pid", Err: err}
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "containerfs %s %d", bytes.TrimSpace(boot), ns.Ino))
	return fmt.Sprintf("%x", sum[:12]), nil
}

// Monotonic is CLOCK_MONOTONIC, in nanoseconds.
func Monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic("localhost: no clock: " + err.Error()) // every kernel has it
	}
	return ts.Nano()
}

// maxCommandLine bounds what is shown of a process.
const maxCommandLine = 4096

// CommandLine is a process's command line as it would be typed, or its name in
// brackets for a kernel thread. It is empty for a process that is gone, and made of
// whatever bytes the process has put there.
func CommandLine(pid int) string {
	dir := "/proc/" + strconv.Itoa(pid)
	b, err := os.ReadFile(dir + "/cmdline")
	if err != nil {
		return ""
	}
	b = b[:min(len(b), maxCommandLine)]
	if b = bytes.TrimRight(b, "\x00"); len(b) > 0 {
		return string(bytes.ReplaceAll(b, []byte{0}, []byte{' '}))
	}
	name, err := os.ReadFile(dir + "/comm")
	if err != nil {
		return ""
	}
	return "[" + strings.TrimSuffix(string(name), "\n") + "]"
}

// Process is a process of this host. Its start time tells it from another that gets
// its number later.
type Process struct {
	PID   int
	Start uint64 // in ticks since the boot
}

// Same reports whether the process is still the one of its number.
func (p Process) Same() bool {
	_, start, err := stat(p.PID)
	return err == nil && start == p.Start
}

// stat is a process's parent and start time.
func stat(pid int) (parent int, start uint64, err error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, err
	}
	// A name may hold anything, a parenthesis too. Behind it is the third field.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 20 {
		return 0, 0, unix.EIO
	}
	if parent, err = strconv.Atoi(fields[1]); err != nil {
		return 0, 0, err
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return parent, start, err
}

// Descendants are the processes below those given, which are not among them,
// parents before their children.
func Descendants(pids []int) ([]Process, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	children := make(map[int][]Process)
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if parent, start, err := stat(pid); err == nil {
			children[parent] = append(children[parent], Process{pid, start})
		}
	}
	seen := make(map[int]bool)
	for _, pid := range pids {
		seen[pid] = true
	}
	var found []Process
	for next := pids; len(next) > 0; {
		var below []int
		for _, pid := range next {
			for _, child := range children[pid] {
				if !seen[child.PID] {
					seen[child.PID] = true
					below = append(below, child.PID)
					found = append(found, child)
				}
			}
		}
		next = below
	}
	return found, nil
}

// cgroups is where the kernel's cgroups are mounted; another place in tests.
var cgroups = "/sys/fs/cgroup"

// roots are the directories of hierarchies: those of v1, and v2's, which may be all
// of it. The ones in which systemd keeps its units come first.
func roots() []string {
	found := []string{cgroups, cgroups + "/systemd", cgroups + "/unified"}
	entries, _ := os.ReadDir(cgroups)
	for _, e := range entries {
		dir := filepath.Join(cgroups, e.Name())
		if _, err := os.Stat(dir + "/cgroup.procs"); err == nil && !slices.Contains(found, dir) {
			found = append(found, dir)
		}
	}
	return slices.DeleteFunc(found, func(dir string) bool {
		_, err := os.Stat(dir + "/cgroup.procs")
		return err != nil
	})
}

// ErrEveryProcess is the error of what stands for all processes of the host.
var ErrEveryProcess = errors.New("that is every process of the host; name PIDs")

// CgroupDir finds the directory of a cgroup, which may be named by its path below
// the mount points, as /proc/PID/cgroup has it, or by its directory. A root is
// ErrEveryProcess, as is no name.
func CgroupDir(name string) (string, error) {
	path := filepath.Clean("/" + name)
	if path == cgroups {
		path = "/"
	} else if rest, ok := strings.CutPrefix(path, cgroups+"/"); ok {
		path = "/" + rest
	}
	if path == "/" {
		return "", fmt.Errorf("cgroup %q: %w", name, ErrEveryProcess)
	}
	for _, root := range append([]string{cgroups}, roots()...) {
		dir := filepath.Join(root, path)
		if _, err := os.Stat(dir + "/cgroup.procs"); err != nil {
			continue
		}
		if isRoot(dir) {
			return "", fmt.Errorf("cgroup %q: %w", name, ErrEveryProcess)
		}
		return dir, nil
	}
	return "", fmt.Errorf("cgroup %s: %w", name, unix.ENOENT)
}

// isRoot reports whether a directory of a cgroup is its hierarchy's root, or that of a
// mount somewhere else. It is if it cannot be looked at.
func isRoot(dir string) bool {
	var at, above unix.Stat_t
	if unix.Stat(dir, &at) != nil || unix.Stat(dir+"/..", &above) != nil || at.Dev != above.Dev {
		return true
	}
	return slices.ContainsFunc(roots(), func(root string) bool {
		var st unix.Stat_t
		return unix.Stat(root, &st) == nil && st.Dev == at.Dev && st.Ino == at.Ino
	})
}

// UnitDir finds the directory of a systemd unit's cgroup. A name without a suffix
// is a service's.
func UnitDir(name string) (string, error) {
	if name == "" || strings.ContainsAny(name, "/\x00") {
		return "", fmt.Errorf("unit %q: %w", name, unix.EINVAL)
	}
	if !strings.Contains(name, ".") {
		name += ".service"
	}
	for _, root := range roots() {
		var found []string
		err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			switch {
			case err != nil && path == root:
				return err
			case err != nil: // gone
				return nil
			case !d.IsDir():
				return nil
			case root == cgroups && filepath.Dir(path) == cgroups && slices.Contains(roots(), path):
				return filepath.SkipDir // another hierarchy's
			case d.Name() == name:
				found = append(found, path)
				return filepath.SkipDir
			}
			return nil
		})
		switch {
		case err != nil:
			return "", err
		case len(found) > 1:
			return "", fmt.Errorf("unit %s: there are several: %s; name one by --cgroup", name, strings.Join(found, ", "))
		case len(found) == 1:
			return found[0], nil
		}
	}
	return "", fmt.Errorf("unit %s: %w", name, unix.ENOENT)
}

// CgroupProcesses are the processes in a cgroup and below it, ascending.
func CgroupProcesses(dir string) ([]Process, error) {
	pids, err := cgroupPIDs(dir)
	if err != nil {
		return nil, err
	}
	var found []Process
	for _, pid := range pids {
		if _, start, err := stat(pid); err == nil {
			found = append(found, Process{pid, start})
		}
	}
	// A number that was another's by the time its start was read is not there, unless
	// that one is there as well.
	still, err := cgroupPIDs(dir)
	return slices.DeleteFunc(found, func(p Process) bool { return !slices.Contains(still, p.PID) }), err
}

// cgroupPIDs are the numbers of a cgroup's processes, ascending.
func cgroupPIDs(dir string) ([]int, error) {
	var pids []int
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			if path == dir {
				return err
			}
			return nil // gone
		}
		if !d.IsDir() {
			return nil
		}
		b, err := os.ReadFile(path + "/cgroup.procs")
		if err != nil && path == dir {
			return err
		}
		for line := range strings.Lines(string(b)) {
			// 0 is a process that this namespace does not see.
			if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	slices.Sort(pids)
	return slices.Compact(pids), err
}
