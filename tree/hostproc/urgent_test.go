package hostproc

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func TestUrgently(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	nice := func() int {
		n, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
		if err != nil {
			t.Fatal(err)
		}
		return 20 - n
	}
	before, during := nice(), 0
	Urgently(func() { during = nice() })
	if after := nice(); after != before {
		t.Errorf("the thread has nice %d, had %d", after, before)
	}
	want := mostUrgent
	if unix.Setpriority(unix.PRIO_PROCESS, 0, before-1) != nil { // may not
		want = before
	} else if err := unix.Setpriority(unix.PRIO_PROCESS, 0, before); err != nil {
		t.Fatal(err)
	}
	if during != want {
		t.Errorf("meanwhile it had nice %d, want %d", during, want)
	}
}
