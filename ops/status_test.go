package ops

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"containerfs/tree"
)

// TestStatus: the caller reads why his last command was refused, wherever he is, until one
// succeeds; nobody else does, and no listing has the file.
func TestStatus(t *testing.T) {
	w, k := aWorld(t, func(cfg *Config, _ *tree.Config) { cfg.Apart = []string{"late"} })
	al := w.as(alice)
	k.must(k.mkdir("m/a/b"))
	pid := w.fork(2000)
	for _, tt := range []struct {
		do   func() error
		want string
	}{
		{func() error { return k.write("m/a/notify_on_release", "+1") }, "write /m/a/notify_on_release\n\"+1\" is not decimal digits: invalid argument\n"},
		{func() error { return k.write("m/a/max.depth", "9999999999") }, "write /m/a/max.depth\n9999999999 is over 2147483647: numerical result out of range\n"},
		{func() error { return k.write("m/a/populated", "1") }, "write /m/a/populated\nit cannot be written: invalid argument\n"},
		{func() error { return k.write("events", "1") }, "write /events\nit cannot be written: invalid argument\n"},
		{func() error { return k.write("m/events", "1") }, "write /m/events\nit cannot be written: invalid argument\n"},
		{func() error { return k.write("m/a/kill", "2") }, "write /m/a/kill\nthe only command is 1: invalid argument\n"},
		{func() error { return k.write("m/a/kill", strings.Repeat("1", 5000)) }, "write /m/a/kill\na command has at most 4096 bytes: argument list too long\n"},
		{func() error { return k.write("m/a/tasks", "0") }, "write /m/a/tasks\n0 is nobody here, as the writer is not on this host: invalid argument\n"},
		{func() error { return k.write("m/a/tasks", "2\n3\n") }, "write /m/a/tasks\none number a write: \"2\\n3\" is not decimal digits: invalid argument\n"},
		{func() error { return k.write("ctl", "attach tasks 2\n/m/nosuch") }, "write /ctl\n/m/nosuch: no such file or directory\n"},
		{func() error { return k.write("ctl", "mount x zeta") }, "write /ctl\noption \"zeta\" is no subsystem: no such file or directory\n"},
		{func() error { return k.write("ctl", "mount x late") }, "write /ctl\nlate is only there when the server is started with --enable late: no such file or directory\n"},
		{func() error { _, _, _, err := k.root.Create("x", p9.WriteOnly, 0o644, 0, 0); return err }, "create /x\nthere is no such file, and only containers can be made, by mkdir: permission denied\n"},
		{func() error { return k.write("m/a/tasks", "2147483647") }, "write /m/a/tasks\nno such process\n"},
		{func() error { return k.write("ctl", "mount") }, "write /ctl\nit is `mount NAME [OPTIONS]`: invalid argument\n"},
		{func() error { return k.write("ctl", "mkdir") }, "write /ctl\nthe commands are mount, remount, umount, attach: invalid argument\n"},
		{func() error { return k.mkdir("m/a/b") }, "mkdir /m/a/b\nfile exists\n"},
		{func() error { return k.mkdir("m/a/" + StatusName) }, "mkdir /m/a/" + StatusName + "\nfile exists\n"},
		{func() error { return k.mkdir("m/a/x\ny") }, "mkdir /m/a/x: y\na name has no '\\n': invalid argument\n"},
		{func() error { return k.rmdir("m/a") }, "rmdir /m/a\nit has children: device or resource busy\n"},
		{func() error { return k.rename("m/a", "m/tasks") }, "rename /m/a to tasks\nfile exists\n"},
		{func() error { return k.chmod("proc", 0o700) }, "setattr /proc\noperation not permitted\n"},
		{func() error { _, err := k.root.Symlink("x", "y", 0, 0); return err }, "symlink /\noperation not permitted\n"},
	} {
		if tt.do() == nil {
			t.Errorf("no error, but %q is to be told", tt.want)
		}
		for _, at := range []string{"", "m/", "m/a/b/"} {
			if got, err := k.read(at + StatusName); err != nil || got != tt.want {
				t.Errorf("%s%s has %q, %v, not %q", at, StatusName, got, err, tt.want)
			}
		}
		al.want("m/"+StatusName, "ok\n")
	}
	k.read("m/a/tasks")
	k.write("m/a/notify_on_release", "x")
	k.must(k.write("m/a/notify_on_release", "1"))
	k.want(StatusName, "ok\n")

	if al.write("m/a/tasks", fmt.Sprint(pid)) == nil {
		t.Error("alice may write to m/a/tasks")
	}
	attr, err := k.attr("m/a/tasks")
	k.must(err)
	al.want("m/"+StatusName, fmt.Sprintf("open /m/a/tasks\nmode 0644, owner %d, group %d: permission denied\n", attr.UID, attr.GID))

	w.refused(linux.EINVAL, "write it", func() error { return k.write(StatusName, "ok") })
	for _, dir := range []string{"", "m", "m/a"} {
		for _, name := range k.names(dir) {
			if name == StatusName {
				t.Errorf("%s is listed in %q", name, dir)
			}
		}
	}
	if _, err := k.walk("proc/" + StatusName); errno(err) != linux.ENOENT {
		t.Errorf("in proc: %v", err)
	}
	// One that is open is of a removed container like any other file.
	f, err := k.open("m/a/b/"+StatusName, p9.ReadOnly)
	k.must(err)
	defer f.Close()
	k.must(k.rmdir("m/a/b"))
	if _, err := readAll(f); errno(err) != linux.ENODEV {
		t.Errorf("in a removed container: %v", err)
	}
	// What a confined client has for its root.
	c := w.attach(root, "m/a")
	if c.mkdir("x/y") == nil || c.write("notify_on_release", "") == nil {
		t.Error("no errors")
	}
	c.want(StatusName, "write /notify_on_release\nempty, where a number is wanted: invalid argument\n")
	if f, ok := c.root.(*file); !ok || f.Remove() == nil {
		t.Error("the root was removed")
	}
	c.want(StatusName, "rmdir /\ndevice or resource busy\n")
	// Whom what of a text is told.
	const text = "rename /m/a/b to c: /m/a/cpuset.cpus, /m/max.depth is 2; write /sys/fs/cgroup/pids/containerfs-1/2/pids.max: no"
	confined := &Caller{UID: 1000, Confined: "m/a"}
	for what, tt := range map[string]struct {
		k    *client
		want string
	}{
		"a stranger in m/a": {w.attach(confined, ""), "rename /b to c: /cpuset.cpus, .../max.depth is 2; write .../pids.max: no"},
		"alice":             {al, "rename /m/a/b to c: /m/a/cpuset.cpus, /m/max.depth is 2; write .../pids.max: no"},
		"root in m/a":       {c, "rename /b to c: /cpuset.cpus, /m/max.depth is 2; write /sys/fs/cgroup/pids/containerfs-1/2/pids.max: no"},
		"root":              {k, text},
	} {
		if got := tt.k.root.(*file).at.shown(text); got != tt.want {
			t.Errorf("%s sees %q, not %q", what, got, tt.want)
		}
	}
}

// TestStatusIsBounded: it holds some of what a hostile client has named, on two lines.
func TestStatusIsBounded(t *testing.T) {
	_, k := aWorld(t)
	name := strings.Repeat("\x01\n", 20000)
	if k.mkdir("m/"+name) == nil || k.rename("m/a", "m/"+name) == nil {
		t.Fatal("no error")
	}
	got, err := k.read(StatusName)
	if err != nil || len(got) > 2*(longestStatus+10) || strings.Count(got, "\n") != 2 || strings.ContainsAny(got, "\x01") {
		t.Errorf("%d bytes, %v: %.100q", len(got), err, got)
	}
}
