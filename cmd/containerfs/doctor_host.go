package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"containerfs/tree/kernfs"
)

// kernel looks at what this host's kernel has.
func (x *examination) kernel() {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		x.add(statusWarning, "controllers", err.Error(), "mount /proc")
		return
	}
	var v1, v2 []string
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if len(fields) < 4 {
			continue
		}
		switch fields[2] {
		case "cgroup":
			v1 = append(v1, v1Controllers(strings.Split(fields[3], ","))...)
		case "cgroup2":
			text, _ := os.ReadFile(filepath.Join(fields[1], "cgroup.controllers"))
			v2 = append(v2, strings.Fields(string(text))...)
		}
	}
	for _, list := range []struct {
		version string
		names   []string
	}{{"v1", v1}, {"v2", v2}} {
		if names := slices.Compact(slices.Sorted(slices.Values(list.names))); len(names) > 0 {
			x.ok("controllers "+list.version, "%s", strings.Join(names, " "))
		} else {
			x.ok("controllers "+list.version, "none")
		}
	}
	if len(v1) == 0 && len(v2) == 0 {
		x.add(statusWarning, "controllers", "no controller of the kernel is mounted", "what the kernel's controllers enforce is not there for --enable; mount cgroup2 at /sys/fs/cgroup")
	}
	x.client9P()
}

// v1Controllers are the controllers among the options of a cgroup mount.
func v1Controllers(options []string) []string {
	text, _ := os.ReadFile("/proc/cgroups")
	known := kernfs.ParseControllers(string(text))
	return slices.DeleteFunc(slices.Clone(options), func(o string) bool { _, ok := known[o]; return !ok })
}

// client9P looks for the kernel's 9p file system, built in or as a module.
func (x *examination) client9P() {
	if known, err := has9P(); err == nil && known {
		x.ok("9p client", "this kernel has it")
		return
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err == nil {
		dir := filepath.Join("/lib/modules", unix.ByteSliceToString(name.Release[:]))
		for _, file := range []string{"modules.dep", "modules.builtin"} {
			if text, err := os.ReadFile(filepath.Join(dir, file)); err == nil && strings.Contains(string(text), "/9p.ko") {
				x.ok("9p client", "this kernel has it as a module")
				return
			}
		}
	}
	x.add(statusWarning, "9p client", "this kernel has no 9p file system", "a server cannot be mounted on this host; the commands do without")
}
