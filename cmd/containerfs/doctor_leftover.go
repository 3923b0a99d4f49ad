package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"containerfs/ops"
	"containerfs/tree/hostproc"
	"containerfs/tree/kernfs"
)

// stateID is the form of the ids that state directories have.
var stateID = regexp.MustCompile(`^s[0-9a-f]{16}$`)

// leftovers looks for mirrors that are no running server's, nor those of the state directories
// that were looked at. One of a server without state the next server removes; that of a state
// directory it keeps for a server of that, which there will not be if the directory is lost.
func (x *examination) leftovers() {
	names, err := kernfs.Names()
	if err != nil {
		return
	}
	kept, sure := x.keptMirrors()
	for _, name := range names {
		id, ours := strings.CutPrefix(name, kernfs.MirrorPrefix)
		text := "the mirror " + name + " is no running server's"
		switch {
		case !ours || slices.Contains(kept, id):
		case hostproc.ServerGone(id):
			x.add(statusWarning, "left over", text, "the next server that starts with a mirror removes it")
		case stateID.MatchString(id) && sure:
			x.add(statusWarning, "left over", text+", nor of a state directory that was looked at",
				"if its state directory is lost: mount -t cgroup -o name="+name+" x DIR, write each pid in DIR/*/cgroup.procs to DIR/cgroup.procs, rmdir DIR/*/, and a second later umount DIR")
		}
	}
}

// keptMirrors are the ids of the mirrors of state directories: of those that some process of
// root's or ours has open, that were looked at, and of the default one. It is sure of them
// unless there is a server of which that cannot be found out. What other users' processes have
// open is not read: it can be a pipe, or have no end.
func (x *examination) keptMirrors() (ids []string, sure bool) {
	sure = inFirst("pid") // else servers that we do not see have mirrors that we do
	see := func(dirs ...string) bool {
		for _, dir := range dirs {
			if id, err := ops.MirrorOf(dir); err == nil {
				ids = append(ids, id)
				return true
			}
		}
		return false
	}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if !isTrusted(pid) {
			sure = sure && serveArgs(pid) == nil
		} else if dir := stateOf(pid); dir != "" {
			sure = see(filepath.Join(fmt.Sprintf("/proc/%d/root", pid), dir), dir) && sure
		} else if serveArgs(pid) != nil && openFiles(pid) == nil {
			sure = false
		}
	}
	see(x.states...)
	if dir, err := defaultState(); err == nil {
		see(dir)
	}
	return ids, sure
}

// inFirst reports whether we are in the first of a kind of namespaces.
func inFirst(kind string) bool {
	for _, ns := range initialNamespaces {
		if ns.kind != kind {
			continue
		}
		var st unix.Stat_t
		return unix.Stat("/proc/self/ns/"+kind, &st) == nil && st.Ino == ns.ino
	}
	return false
}
