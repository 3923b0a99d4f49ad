package bc

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseStatus(t *testing.T) {
	for _, test := range []struct {
		text             string
		locked, resident int64
	}{
		{"Name:\tx\nVmPeak:\t  9 kB\nVmLck:\t       8 kB\nVmHWM:\t 4 kB\nVmRSS:\t     100 kB\nThreads:\t1\n", 8 << 10, 100 << 10},
		{"Name:\tkthreadd\nThreads:\t1\n", 0, 0},
		{"VmLck:\t 8\nVmRSS:\tx kB\n", 0, 0},
		{"VmRSS:\t99999999999999999999 kB", 0, 0},
		{"", 0, 0},
	} {
		if l, r := parseStatus([]byte(test.text)); l != test.locked || r != test.resident {
			t.Errorf("%q: %d, %d", test.text, l, r)
		}
	}
}

// TestUsageOfThisProcess has what the process takes show up.
func TestUsageOfThisProcess(t *testing.T) {
	host, pid := NewHost(), int32(os.Getpid())
	can := host.Measures()
	if !can[physpages] || !can[lockedpages] || can[numfile] != (os.Geteuid() == 0) {
		t.Errorf("measures %v", can)
	}
	before, err := host.Usage(pid)
	if err != nil {
		t.Fatal(err)
	}
	const files, pages = 10, 4
	for range files {
		f, err := os.Open("/dev/null")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
	}
	mem, err := unix.Mmap(-1, 0, pages*os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	if err := unix.Mlock(mem); err != nil {
		t.Fatal(err)
	}
	after, err := host.Usage(pid)
	if err != nil {
		t.Fatal(err)
	}
	if n := after[numfile] - before[numfile]; n != files {
		t.Errorf("%d files more, want %d", n, files)
	}
	if n := after[lockedpages] - before[lockedpages]; n != pages {
		t.Errorf("%d locked pages more, want %d", n, pages)
	}
	if after[physpages] < 100 {
		t.Errorf("%d resident pages", after[physpages])
	}
	if _, err := host.Usage(1<<22 + 1); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("of no process: %v", err)
	}
}

func FuzzParseStatus(f *testing.F) {
	f.Add([]byte("VmLck:\t 8 kB\nVmRSS:\t 1 kB\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if l, r := parseStatus(text); l < 0 || r < 0 {
			t.Fatalf("%q: %d, %d", text, l, r)
		}
	})
}
