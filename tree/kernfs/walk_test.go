package kernfs

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestWalk: where the kernel has no openat2, the same is opened and the same refused.
func TestWalk(t *testing.T) {
	if !hasOpenat2() {
		t.Skip("this kernel has no openat2 to compare with")
	}
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a/b/file"), []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"link": "a", "a/file": "b/file", "out": "/etc", "dangling": "nothing"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	below, err := OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer below.Close()
	root, err := OpenDir("/")
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, tt := range []struct {
		at    *Dir
		name  string
		flags int
	}{
		{below, ".", unix.O_RDONLY | unix.O_DIRECTORY},
		{below, "a", unix.O_RDONLY | unix.O_DIRECTORY},
		{below, "a/b", unix.O_RDONLY | unix.O_DIRECTORY},
		{below, "a/./b/file", unix.O_RDONLY},
		{below, "a/b/file", unix.O_WRONLY},
		{below, "a/b/file", unix.O_RDONLY | unix.O_DIRECTORY},
		{below, "a/b/file/more", unix.O_RDONLY},
		{below, "a/nothing", unix.O_RDONLY},
		{below, "a/nothing/more", unix.O_RDONLY},
		{below, "a/file", unix.O_RDONLY},
		{below, "link", unix.O_RDONLY},
		{below, "link/b/file", unix.O_RDONLY},
		{below, "out", unix.O_RDONLY | unix.O_DIRECTORY},
		{below, "out/passwd", unix.O_RDONLY},
		{below, "dangling", unix.O_RDONLY},
		{below, "..", unix.O_RDONLY | unix.O_DIRECTORY},
		{below, "a/../..", unix.O_RDONLY | unix.O_DIRECTORY},
		{below, "/etc/passwd", unix.O_RDONLY},
		{root, "proc", unix.O_RDONLY | unix.O_DIRECTORY},
		{root, "proc/self/exe", unix.O_RDONLY},
		{root, "proc/1/cgroup", unix.O_RDONLY},
	} {
		where := func(fd int, err error) (uint64, error) {
			if err != nil {
				return 0, err
			}
			defer unix.Close(fd)
			var st unix.Stat_t
			return st.Ino, unix.Fstat(fd, &st)
		}
		want, wantErr := where(tt.at.openat(tt.name, tt.flags))
		got, err := where(tt.at.walkat(tt.name, tt.flags))
		// Of a link in the way it says that it is no directory.
		if got != want || (err == nil) != (wantErr == nil) || err != wantErr && !(wantErr == unix.ELOOP && err == unix.ENOTDIR) {
			t.Errorf("%s: %d, %v; openat2 gives %d, %v", tt.name, got, err, want, wantErr)
		}
	}
}

// TestMountApart: a hierarchy that was mounted by mount(2) is there for as long as it is
// open, and nowhere to be seen.
func TestMountApart(t *testing.T) {
	hierarchy(t) // skips where there can be none
	mounts := func() string {
		text, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	before := mounts()
	name := fmt.Sprintf("containerfs-test-a%d", os.Getpid())
	d, err := mountApart("cgroup", name, []string{"none", "name=" + name}, unix.ENOSYS)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Make("7"); err != nil {
		t.Error(err)
	}
	pid := sleeper(t)
	if err := d.Move("7", pid, true); err != nil {
		t.Error(err)
	}
	if ids, err := d.IDs("7/cgroup.procs"); err != nil || len(ids) != 1 || ids[0] != pid {
		t.Errorf("it has %d, %v; want %d", ids, err, pid)
	}
	if after := mounts(); after != before {
		t.Errorf("mounts:\n%s\nwere\n%s", after, before)
	}
	if err := Retire(d, 10*time.Second); err != nil {
		t.Error(err)
	}
	if _, err := mountApart("cgroup", "none", []string{"none"}, unix.EINVAL); err != unix.EINVAL {
		t.Errorf("of another error: %v", err)
	}
}
