package hostproc

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerfs/tree"
	"containerfs/tree/kernfs"
)

func TestMirror(t *testing.T) {
	m := mirrored(t, "mirror")
	cmd := sleeper(t)
	pid := int32(cmd.Process.Pid)
	where := func(want uint64) {
		t.Helper()
		if got, err := m.Where(pid); err != nil || got != want {
			t.Fatalf("Where: %d %v, want %d", got, err, want)
		}
	}
	where(0)
	if err := m.Move(5, pid, false); !kernfs.IsGone(err) {
		t.Fatalf("Move to a group that was not made: %v", err)
	}
	for range 2 {
		if err := errors.Join(m.Make(0), m.Make(5), m.Make(1<<63)); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Move(5, pid, false); err != nil {
		t.Fatal(err)
	}
	where(5)
	if tids, err := m.Members(5); err != nil || !slices.Equal(tids, []int32{pid}) {
		t.Fatalf("Members: %v %v", tids, err)
	}
	if tids, err := m.Members(0); err != nil || !slices.Contains(tids, int32(os.Getpid())) || slices.Contains(tids, pid) {
		t.Fatalf("Members of the root: %v %v", tids, err)
	}
	if busy := m.Remove([]uint64{0, 5, 1 << 63, 77}); !slices.Equal(busy, []uint64{5}) {
		t.Fatalf("Remove: busy %v", busy)
	}
	if groups, err := m.Groups(); err != nil || !slices.Equal(groups, []uint64{5}) {
		t.Fatalf("Groups: %v %v", groups, err)
	}
	if err := m.Move(0, pid, true); err != nil {
		t.Fatal(err)
	}
	where(0)
	// Somebody removes the directory of a group of ours: it comes back.
	if err := m.root.Remove("5"); err != nil {
		t.Fatal(err)
	}
	if tids, err := m.Members(5); err != nil || len(tids) != 0 {
		t.Fatalf("Members of nothing: %v %v", tids, err)
	}
	if err := m.Move(5, pid, true); err != nil {
		t.Fatal(err)
	}
	where(5)
	cmd.Process.Kill()
	for range 1000 { // until it is a zombie, which nobody has waited for
		if _, err := m.proc.task(pid); err == unix.ESRCH {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if g, err := m.Where(pid); !errors.Is(err, unix.ESRCH) {
		t.Fatalf("Where of a zombie: %d %v", g, err)
	}
	cmd.Wait()
	if _, err := m.Where(pid); !errors.Is(err, unix.ESRCH) {
		t.Fatalf("Where of nobody: %v", err)
	}
	if err := m.Move(5, pid, true); !errors.Is(err, unix.ESRCH) {
		t.Fatalf("Move of nobody: %v", err)
	}
}

func TestMirrorForeign(t *testing.T) {
	m := mirrored(t, "foreign")
	pid := int32(sleeper(t).Process.Pid)
	strangers := func(want ...int32) {
		t.Helper()
		if tids, err := m.Members(tree.ForeignGroup); err != nil || !slices.Equal(tids, want) {
			t.Fatalf("strangers are %v %v, want %v", tids, err, want)
		}
	}
	strangers()
	for _, name := range []string{"9", "x", "010"} {
		if err := m.root.Make(name); err != nil {
			t.Fatal(err)
		}
		if err := m.root.Move(name, pid, true); err != nil {
			t.Fatal(err)
		}
		if g, err := m.Where(pid); !errors.Is(err, tree.ErrForeignGroup) {
			t.Fatalf("%s: %d %v", name, g, err)
		}
		strangers(pid)
	}
	// Below a directory of ours: not that group.
	if err := m.Make(3); err != nil {
		t.Fatal(err)
	}
	sub, err := m.root.Open("3")
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	if err := errors.Join(sub.Make("4"), sub.Move("4", pid, true)); err != nil {
		t.Fatal(err)
	}
	if g, err := m.Where(pid); !errors.Is(err, tree.ErrForeignGroup) {
		t.Fatalf("%d %v", g, err)
	}
	strangers(pid)
	if err := m.Move(3, pid, true); err != nil {
		t.Fatal(err)
	}
	strangers()
	if err := sub.Move("4", pid, true); err != nil {
		t.Fatal(err)
	}
	// The clean-up takes all of it down, with the sleeper in it.
}

// A thread moves alone, and a process with all threads.
func TestMirrorThreads(t *testing.T) {
	m := mirrored(t, "threads")
	if err := errors.Join(m.Make(1), m.Make(2)); err != nil {
		t.Fatal(err)
	}
	tids, quit := make(chan int32), make(chan struct{})
	defer close(quit)
	tid, pid := int32(0), int32(os.Getpid())
	for tid == 0 || tid == pid { // one of two is not the first thread
		go func() {
			runtime.LockOSThread()
			tids <- int32(unix.Gettid())
			<-quit
		}()
		tid = <-tids
	}
	if err := m.Move(1, tid, false); err != nil {
		t.Fatal(err)
	}
	a, err1 := m.Where(tid)
	b, err2 := m.Where(pid)
	if a != 1 || b != 0 || err1 != nil || err2 != nil {
		t.Fatal(a, b, err1, err2)
	}
	if err := m.Move(2, tid, true); err != nil {
		t.Fatal(err)
	}
	err := m.proc.tasks(pid, func(ti tree.TaskInfo) bool {
		if g, err := m.Where(ti.TID); err != nil && !errors.Is(err, unix.ESRCH) || err == nil && g != 2 {
			t.Errorf("%+v is in %d: %v", ti, g, err)
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Move(0, pid, true); err != nil {
		t.Fatal(err)
	}
}

// kthreadd is one of the kernel's threads that it does not move.
func TestMirrorKernelThread(t *testing.T) {
	m := mirrored(t, "kernel")
	info, err := m.proc.task(2)
	if err == unix.ESRCH || err == nil && !info.Kernel {
		if first(t) {
			t.Fatal("no kernel thread 2 in the first pid namespace")
		}
		t.Skip("no kernel threads are seen from this pid namespace")
	} else if err != nil {
		t.Fatal(err)
	}
	if err := m.Make(1); err != nil {
		t.Fatal(err)
	}
	if err := m.Move(1, 2, false); !errors.Is(err, unix.EINVAL) {
		t.Fatalf("kthreadd: %v", err)
	}
	if g, err := m.Where(2); err != nil || g != 0 {
		t.Fatal(g, err)
	}
}

// serverMain is a server that dies before it can clean up.
func serverMain() int {
	id, err := ServerID()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	m, err := OpenMirror(id, "")
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	if err := errors.Join(m.Make(1), m.Make(2), m.Move(2, int32(os.Getpid()), true)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(m.Name())
	time.Sleep(time.Minute)
	return 0
}

func TestRemoveLeftovers(t *testing.T) {
	mirrored(t, "probe")
	live, liveName := start(t, "server")
	dead, deadName := start(t, "server")
	defer func() {
		// The live one is not cleaned up by its own hand either.
		live.Process.Kill()
		live.Wait()
		if removed, err := RemoveLeftovers(10 * time.Second); err != nil || !slices.Contains(removed, liveName) {
			t.Errorf("%v %v", removed, err)
		}
	}()
	// A task that outlives its server stays in the directory until then.
	orphan := sleeper(t)
	root, err := kernfs.OpenNamed(deadName)
	if err != nil {
		t.Fatal(err)
	}
	if err := root.Move("1", int32(orphan.Process.Pid), true); err != nil {
		t.Fatal(err)
	}
	root.Close()
	dead.Process.Kill()
	dead.Wait()
	removed, err := RemoveLeftovers(10 * time.Second)
	if err != nil || !slices.Contains(removed, deadName) || slices.Contains(removed, liveName) {
		t.Fatalf("%v %v, dead %s, live %s", removed, err, deadName, liveName)
	}
	names, err := kernfs.Names()
	if err != nil || slices.Contains(names, deadName) || !slices.Contains(names, liveName) {
		t.Fatalf("%v %v", names, err)
	}
	if err := orphan.Process.Signal(unix.Signal(0)); err != nil {
		t.Fatal(err)
	}
}

func TestParseServerName(t *testing.T) {
	for _, c := range []struct {
		name, space string
		ok          bool
	}{
		{"containerfs-12-345", "", true},
		{"containerfs-12-345-4026531836-4026531834", "-4026531836-4026531834", true},
		{"containerfs-12-345-4026531836-4026531834", "", false},
		{"containerfs-12-345", "-4026531836-4026531834", false},
		{"containerfs-test-mirror-12", "", false},
		{"containerfs-12", "", false},
		{"containerfs-12-", "", false},
		{"containerfs-012-3", "", false},
		{"containerfs-12-03", "", false},
		{"containerfs-12-+3", "", false},
		{"containerfs-0-3", "", false},
		{"containerfs--12-3", "", false},
		{"containerfs-99999999999-3", "", false},
		{"systemd", "", false},
		{"12-345", "", false},
	} {
		pid, start, ok := parseServerName(c.name, c.space)
		if ok != c.ok || ok && (pid != 12 || start != 345) {
			t.Errorf("%s%s: %d %d %v", c.name, c.space, pid, start, ok)
		}
	}
}

func BenchmarkMirrorMove(b *testing.B) {
	m := mirrored(b, "bench")
	pid := int32(sleeper(b).Process.Pid)
	if err := errors.Join(m.Make(1), m.Make(2)); err != nil {
		b.Fatal(err)
	}
	group := uint64(1)
	for b.Loop() {
		if err := m.Move(group, pid, false); err != nil {
			b.Fatal(err)
		}
		group = 3 - group
	}
}

func BenchmarkMirrorWhere(b *testing.B) {
	m := mirrored(b, "bench")
	pid := int32(sleeper(b).Process.Pid)
	for _, group := range []uint64{0, 1} {
		if err := errors.Join(m.Make(group), m.Move(group, pid, false)); err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprint("group=", group), func(b *testing.B) {
			for b.Loop() {
				if _, err := m.Where(pid); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
