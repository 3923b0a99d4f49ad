package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"containerfs/tree/hostproc/storm"
)

// TestMain is the program itself where a test starts it as a reader.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "reader" {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestFeeds: each reader reads as many events of each kind as were made while it read,
// and a mask keeps away what it should.
func TestFeeds(t *testing.T) {
	const forks, renames = 300, 100
	for _, f := range feeds {
		t.Run(f.part, func(t *testing.T) {
			if err := f.refused(); err != nil {
				t.Skip(err)
			}
			c := child(exec.Command(os.Args[0], "reader", f.part))
			var stderr strings.Builder
			c.Stderr = &stderr
			out, err := c.StdoutPipe()
			if err == nil {
				err = c.Start()
			}
			if err != nil {
				t.Fatal(err)
			}
			defer kill(c)
			in := bufio.NewScanner(out)
			if !in.Scan() || in.Text() != "ready" {
				c.Wait()
				if why := unheard(t, stderr.String()); why != "" {
					t.Skip(why, ": ", stderr.String())
				}
				t.Fatalf("it says %q and %q", in.Text(), stderr.String())
			}
			for range forks {
				forkHere(t)
			}
			rename(t, renames)
			nobody := exec.Command("true")
			nobody.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			if err := nobody.Run(); err != nil {
				t.Fatal(err)
			}
			c.Process.Signal(unix.SIGTERM)
			var n counts
			in.Scan()
			if _, err := fmt.Sscan(in.Text(), &n.forks, &n.execs, &n.exits, &n.ids, &n.others); err != nil {
				t.Fatalf("it says %q: %v", in.Text(), err)
			}
			if err := c.Wait(); err != nil {
				t.Error(err)
			}
			t.Logf("%+v\n%s", n, stderr.String())
			if n.forks < forks+1 || n.exits < forks+1 || n.execs < 1 {
				t.Errorf("%+v of %d forks and exits and an exec", n, forks+1)
			}
			if f.part != "perf" && n.ids < 2 {
				t.Errorf("%d changes of a user or group, not 2", n.ids)
			}
			if others := n.others >= renames; others != (f.part == "all" || f.part == "late") {
				t.Errorf("%d other events, where there were %d", n.others, renames)
			}
			if s := stderr.String(); !strings.Contains(s, "lost") && !strings.Contains(s, "overflowed") {
				t.Errorf("it says nothing of losses: %q", s)
			}
		})
	}
}

// unheard says why no reader is sent events here, if one cannot be.
func unheard(t *testing.T, stderr string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		return "not root"
	}
	if strings.Contains(stderr, unix.ECONNREFUSED.Error()) {
		return "not in the first network namespace"
	}
	for kind, first := range map[string]string{"pid": "pid:[4026531836]", "user": "user:[4026531837]"} {
		if ns, err := os.Readlink("/proc/self/ns/" + kind); err != nil {
			t.Fatal(err)
		} else if ns != first {
			return "not in the first " + kind + " namespace"
		}
	}
	return ""
}

// rename makes events that no mask asks for: a thread takes the name it has.
func rename(t *testing.T, times int) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var name [16]byte
	err := unix.Prctl(unix.PR_GET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0)
	for range times {
		if err == nil {
			err = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestRing: what the kernel has no place for in a ring is counted, and records are read
// whole around its end.
func TestRing(t *testing.T) {
	if err := ringless(); err != nil {
		t.Skip(err)
	}
	rs, err := openRings(tracefs, os.Getpagesize())
	if err != nil {
		t.Fatal(err)
	}
	defer rs.close()
	// On one CPU, so that a ring in which something is lost has a next record. The
	// thread ends with the test.
	runtime.LockOSThread()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	for cpu := 0; one.Count() == 0; cpu++ {
		if all.IsSet(cpu) {
			one.Set(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	const full = 200 // forks and exits, some 150 bytes
	made := 0
	for made < full {
		forkHere(t)
		made++
	}
	// The next that has place says how many had not.
	for rs.lost == 0 {
		if err := rs.take(); err != nil {
			t.Fatal(err)
		}
		forkHere(t)
		if made++; made > 2*full {
			t.Fatalf("nothing is lost: %+v", rs.read)
		}
	}
	for range full { // around the end
		forkHere(t)
		made++
		if err := rs.take(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d forks: %+v, %d lost", made, rs.read, rs.lost)
	if n := rs.read.forks + rs.read.exits + int(rs.lost); n < 2*made {
		t.Errorf("%d forks and exits, read or lost, want %d", n, 2*made)
	}
	if rs.read.others != 0 {
		t.Errorf("%d other records", rs.read.others)
	}
	wrapped := false
	for _, r := range rs.cpus {
		wrapped = wrapped || r.wrap != nil
	}
	if !wrapped {
		t.Error("no record was around the end")
	}
}

// forkHere makes a child that ends at once.
func forkHere(t *testing.T) {
	t.Helper()
	pid, err := storm.Fork(0)
	if err == nil {
		_, err = unix.Wait4(pid, nil, 0, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestOffered: a feed that this host has not is left out, and why.
func TestOffered(t *testing.T) {
	var left strings.Builder
	have := offered([]feed{
		{name: "one", refused: func() error { return nil }},
		{name: "other", refused: func() error { return errors.New("it is not there") }},
	}, &left)
	if len(have) != 1 || have[0].name != "one" || left.String() != "\nLeft out: other: it is not there.\n" {
		t.Errorf("offered are %v; %q", have, left.String())
	}
	if rs, err := openRings(t.TempDir(), ringSize); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("rings without tracefs: %v, %v", rs, err)
	}
	for release, has := range map[string]bool{
		"4.19.0": false, "5.15.0-91-generic": false, "6.1.0-18-amd64": false, "6.5.13": false,
		"6.6.0": true, "6.6-rc1": true, "6.10.11": true, "7.0.0-rc3+": true, "": false, "six": false,
	} {
		if err := before66(release); (err == nil) != has {
			t.Errorf("Linux %q: %v", release, err)
		}
	}
}
