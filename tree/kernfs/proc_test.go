package kernfs

import (
	"os"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestProc: processes are looked at in a procfs that nobody else has, or in the one that all
// have where the kernel gives us none.
func TestProc(t *testing.T) {
	var st, shared unix.Stat_t
	if err := unix.Fstat(Proc(), &st); err != nil {
		t.Fatal(err)
	}
	if err := unix.Stat("/proc", &shared); err != nil {
		t.Fatal(err)
	}
	if own := st.Dev != shared.Dev; own != ProcIsOwn() {
		t.Errorf("its own: %v, and says %v", own, ProcIsOwn())
	}
	another, err := openProc()
	if err == nil {
		another.Close()
	}
	if (err == nil) != ProcIsOwn() {
		t.Errorf("another: %v", err)
	}
	t.Logf("an instance of its own: %v", ProcIsOwn())
	self := strconv.Itoa(os.Getpid()) + "/cgroup"
	got, err := ReadProc(self)
	want, wantErr := os.ReadFile("/proc/" + self)
	if err != nil || wantErr != nil || string(got) != string(want) {
		t.Errorf("%s: %q, %v; want %q, %v", self, got, err, want, wantErr)
	}
	if _, err := ReadProc("0/cgroup"); !os.IsNotExist(err) && errnoOf(err) != syscall.ENOENT {
		t.Errorf("of nobody: %v", err)
	}
}

func errnoOf(err error) error {
	if e, ok := err.(*OpError); ok {
		return e.Err
	}
	return err
}

// TestOthersCannotReadDirectories: who can read a directory can keep it locked.
func TestOthersCannotReadDirectories(t *testing.T) {
	root := hierarchy(t)
	modeOf := func(name string) (mode uint32) {
		var st unix.Stat_t
		if err := unix.Fstatat(root.fd, name, &st, 0); err != nil {
			t.Fatal(err)
		}
		return st.Mode & 0o777
	}
	if err := root.Make("new"); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkdirat(root.fd, "old", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := root.Make("old"); err != unix.EEXIST && errnoOf(err) != unix.EEXIST {
		t.Errorf("make it again: %v", err)
	}
	for _, name := range []string{".", "new", "old"} {
		if mode := modeOf(name); mode != dirMode {
			t.Errorf("%s has mode %04o, not %04o", name, mode, dirMode)
		}
	}
}
