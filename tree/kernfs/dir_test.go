package kernfs

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hierarchy gives a test its own named hierarchy, and fails it when anything
// of it is left.
func hierarchy(t testing.TB) *Dir {
	t.Helper()
	name := fmt.Sprintf("containerfs-test-k%d", os.Getpid())
	d, err := OpenNamed(name)
	if errors.Is(err, ErrRefused) {
		if os.Geteuid() == 0 && errors.Is(err, unix.EPERM) && capSysAdmin() {
			t.Fatalf("refused to root: %v", err)
		}
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Retire(d, 10*time.Second); err != nil {
			t.Error(err)
		}
		names, err := Names()
		if err != nil || slices.Contains(names, name) {
			t.Errorf("hierarchy %s is left: %v %v", name, names, err)
		}
	})
	return d
}

// TestPath: what errors call a file is its path, however its directory was opened.
func TestPath(t *testing.T) {
	top := t.TempDir()
	if err := os.MkdirAll(top+"/a/b", 0o700); err != nil {
		t.Fatal(err)
	}
	d, err := OpenDir(top)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, name := range []string{".", "a", ".", "b"} {
		if d, err = d.Open(name); err != nil {
			t.Fatal(err)
		}
		defer d.Close()
	}
	var got *OpError
	if _, err := d.Read("file", nil); !errors.As(err, &got) || got.Path != top+"/a/b/file" || d.Path() != top+"/a/b" {
		t.Errorf("%v, of %s", err, d.Path())
	}
}

// TestUnknownOption: where the kernel lacks one, all else is as before.
func TestUnknownOption(t *testing.T) {
	hierarchy(t) // skips where there can be none
	name := fmt.Sprintf("containerfs-test-o%d", os.Getpid())
	fd, err := configure(name, "none")
	if err != nil {
		t.Fatal(err)
	}
	err = setIfKnown(fd, "favorsomethingelse")
	if err == nil {
		err = unix.FsconfigCreate(fd)
	}
	var d *Dir
	if err == nil {
		d, err = mountDetached(fd, name)
	}
	unix.Close(fd)
	if err != nil {
		t.Fatal(err)
	}
	if err := Retire(d, 10*time.Second); err != nil {
		t.Error(err)
	}
}

func capSysAdmin() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&hdr, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}

// sleeper starts a process of the test's own to move about.
func sleeper(t testing.TB) int32 {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return int32(cmd.Process.Pid)
}

func TestDir(t *testing.T) {
	d := hierarchy(t)
	pid := sleeper(t)
	if err := d.Make("7"); err != nil {
		t.Fatal(err)
	}
	if err := d.Make("7"); !errors.Is(err, unix.EEXIST) {
		t.Fatalf("second Make: %v", err)
	}
	if names, err := d.Dirs(); err != nil || !slices.Equal(names, []string{"7"}) {
		t.Fatalf("Dirs: %v %v", names, err)
	}
	if n, err := d.Subdirs("7"); err != nil || n != 0 {
		t.Fatalf("Subdirs: %d %v", n, err)
	}
	sub, err := d.Open("7")
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	if err := sub.Make("1"); err != nil {
		t.Fatal(err)
	}
	if n, err := d.Subdirs("7"); err != nil || n != 1 {
		t.Fatalf("Subdirs: %d %v", n, err)
	}
	if err := sub.Remove("1"); err != nil {
		t.Fatal(err)
	}
	if err := d.Move("7", pid, true); err != nil {
		t.Fatal(err)
	}
	if ids, err := d.IDs("7/tasks"); err != nil || !slices.Equal(ids, []int32{pid}) {
		t.Fatalf("IDs: %v %v", ids, err)
	}
	if err := d.Remove("7"); !errors.Is(err, unix.EBUSY) {
		t.Fatalf("Remove with a task: %v", err)
	}
	if err := d.Move(".", pid, false); err != nil {
		t.Fatal(err)
	}
	// The list is made anew at each open: no memory of the task that left.
	if ids, err := d.IDs("7/tasks"); err != nil || len(ids) != 0 {
		t.Fatalf("IDs: %v %v", ids, err)
	}
	if err := d.Remove("7"); err != nil {
		t.Fatal(err)
	}
	if err := d.Move("7", pid, false); !IsGone(err) {
		t.Fatalf("Move to a directory that is gone: %v", err)
	}
	// One of the same name is another, also when somebody else has removed the first.
	if err := d.Make("7"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := errors.Join(d.Move("7", pid, true), d.Move(".", pid, true)); err != nil {
			t.Fatal(err)
		}
		if err := unix.Unlinkat(d.fd, "7", unix.AT_REMOVEDIR); err != nil {
			t.Fatal(err)
		}
		if err := d.Move("7", pid, true); !IsGone(err) {
			t.Fatalf("Move to a directory that somebody removed: %v", err)
		}
		if err := d.Make("7"); err != nil {
			t.Fatal(err)
		}
		if err := d.Move("7", pid, true); err != nil {
			t.Fatal(err)
		}
		if ids, err := d.IDs("7/tasks"); err != nil || !slices.Equal(ids, []int32{pid}) {
			t.Fatalf("IDs: %v %v", ids, err)
		}
	}
	// One that is renamed is another's.
	if err := unix.Renameat(d.fd, "7", d.fd, "8"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(renameTime)
	if err := d.Move("7", pid, true); !IsGone(err) {
		t.Fatalf("Move to a directory that somebody renamed: %v", err)
	}
	if err := errors.Join(d.Make("7"), d.Move(".", pid, true), d.Move("7", pid, true)); err != nil {
		t.Fatal(err)
	}
	if ids, err := d.IDs("7/tasks"); err != nil || !slices.Equal(ids, []int32{pid}) {
		t.Fatalf("IDs: %v %v", ids, err)
	}
	if err := errors.Join(d.Move(".", pid, true), d.Remove("7"), d.Remove("8")); err != nil {
		t.Fatal(err)
	}
	var op *OpError
	if err := d.Move(".", 1<<22+1, false); !errors.Is(err, unix.ESRCH) || !errors.As(err, &op) || op.Op != "write" {
		t.Fatalf("Move of nobody: %v", err)
	}
	// kthreadd and its children with a fixed placement stay where they are.
	if err := d.Move(".", 2, false); err != nil && !errors.Is(err, unix.EINVAL) {
		t.Fatalf("Move of kthreadd: %v", err)
	}
}

func TestDirStaysBeneath(t *testing.T) {
	d := hierarchy(t)
	for _, name := range []string{"..", "../..", "/", "/proc/self", "/proc/self/root/tmp"} {
		if sub, err := d.Open(name); err == nil {
			t.Errorf("Open(%q) gave %v", name, sub)
			sub.Close()
		}
		if err := d.Make(name); err == nil {
			t.Errorf("Make(%q) worked", name)
		}
		if err := d.Remove(name); err == nil {
			t.Errorf("Remove(%q) worked", name)
		}
	}
}

// TestClear: the tasks below are given away, and what stays keeps its directory.
func TestClear(t *testing.T) {
	d := hierarchy(t)
	pid := sleeper(t)
	for _, name := range []string{"..", ".", "", "1/2"} {
		if err := d.Clear(name, "tasks", nil); !errors.Is(err, unix.EINVAL) {
			t.Errorf("Clear(%q): %v", name, err)
		}
	}
	if err := d.Clear("1", "tasks", nil); err != nil {
		t.Errorf("of what is not there: %v", err)
	}
	if err := d.Make("1"); err != nil {
		t.Fatal(err)
	}
	sub, err := d.Open("1")
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	if err := errors.Join(sub.Make("2"), sub.Make("3"), sub.Move("2", pid, false)); err != nil {
		t.Fatal(err)
	}
	var given []int32
	for _, test := range []struct{ out, want error }{
		{unix.EPERM, unix.EPERM}, {nil, unix.EBUSY}, {unix.ESRCH, unix.EBUSY}, {unix.EINVAL, unix.EBUSY},
	} {
		given = nil
		err := d.Clear("1", "tasks", func(id int32) error { given = append(given, id); return test.out })
		if !errors.Is(err, test.want) || !slices.Equal(given, []int32{pid}) {
			t.Errorf("%v is given away, with %v: %v, want %v", given, test.out, err, test.want)
		}
	}
	// What was empty is gone.
	if names, err := sub.Dirs(); err != nil || !slices.Equal(names, []string{"2"}) {
		t.Errorf("left are %v, %v", names, err)
	}
	if err := d.Clear("1", "tasks", func(id int32) error { return d.Move(".", id, false) }); err != nil {
		t.Error(err)
	}
	if names, err := d.Dirs(); err != nil || len(names) > 0 {
		t.Errorf("left are %v, %v", names, err)
	}
}

// TestRetireWhatAnotherHas ends as EBUSY, with the directories removed.
func TestRetireWhatAnotherHas(t *testing.T) {
	hierarchy(t) // skips where there can be none
	name := fmt.Sprintf("containerfs-test-r%d", os.Getpid())
	d, err := OpenNamed(name)
	if err != nil {
		t.Fatal(err)
	}
	another, err := OpenNamed(name)
	if err != nil {
		t.Fatal(err)
	}
	pid := sleeper(t)
	if err := errors.Join(d.Make("1"), d.Move("1", pid, true)); err != nil {
		t.Fatal(err)
	}
	if err := Retire(d, 50*time.Millisecond); !errors.Is(err, unix.EBUSY) {
		t.Errorf("%v, want EBUSY", err)
	}
	if dirs, err := another.Dirs(); err != nil || len(dirs) > 0 {
		t.Errorf("left are %v, %v", dirs, err)
	}
	if ids, err := another.IDs("tasks"); err != nil || !slices.Contains(ids, pid) {
		t.Errorf("its task is not in the root: %v", err)
	}
	if err := Retire(another, 10*time.Second); err != nil {
		t.Error(err)
	}
	if names, err := Names(); err != nil || slices.Contains(names, name) {
		t.Errorf("hierarchy %s is left: %v %v", name, names, err)
	}
}

// TestNames: what the kernel takes is refused before it is asked, if it could be taken for
// something else.
func TestNames(t *testing.T) {
	for name, valid := range map[string]bool{
		"": false, "a": true, "azAZ09-_.": true, "a b": false, "a,b": false, "a/b": false, "a\n": false, "\u00e4": false, "a:b": false,
		"@": false, "[": false, "`": false, "{": false, "/": false, ":": false,
		strings.Repeat("a", MaxName): true, strings.Repeat("a", MaxName+1): false,
	} {
		if validName(name) != valid {
			t.Errorf("%q: valid %v, want %v", name, !valid, valid)
		}
		if valid {
			continue
		}
		if d, err := OpenNamed(name); !errors.Is(err, unix.EINVAL) {
			t.Errorf("OpenNamed(%q): %v, %v", name, d, err)
		}
	}
	for name, valid := range map[string]bool{
		"": false, ".": false, "..": false, "a/b": false, "/": false, "a\x00": false, "a": true, "...": true,
		strings.Repeat("a", unix.NAME_MAX): true, strings.Repeat("a", unix.NAME_MAX+1): false,
	} {
		if component(name) != valid {
			t.Errorf("%q: a component %v, want %v", name, !valid, valid)
		}
	}
}

func TestParseControllers(t *testing.T) {
	got := ParseControllers("#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t3\t7\t1\nmemory\t0\t1\t0\nshort\t1\n")
	want := map[string]Controller{"cpu": {"3", "7", true}, "memory": {"0", "1", false}}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func FuzzParseIDs(f *testing.F) {
	f.Add([]byte("1\n22\n0\n4194304\n"))
	f.Add([]byte("1\n\n2"))
	f.Add([]byte("99999999999999999999\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		ids, ok := parseIDs(data)
		if !ok {
			return
		}
		var want []int32
		for _, w := range splitLines(string(data)) {
			n, err := strconv.ParseInt(w, 10, 32)
			if err != nil {
				t.Fatalf("accepted %q: %v", w, err)
			}
			if n != 0 {
				want = append(want, int32(n))
			}
		}
		if !slices.Equal(ids, want) {
			t.Fatalf("%v, want %v", ids, want)
		}
	})
}

func splitLines(s string) (lines []string) {
	for at := 0; at < len(s); {
		end := at
		for end < len(s) && s[end] != '\n' {
			end++
		}
		lines = append(lines, s[at:end])
		at = end + 1
	}
	return lines
}

func FuzzParseNamed(f *testing.F) {
	f.Add("9:name=systemd:/\n4:memory:/a:b\n0::/\n12:cpu,name=x:/y\n")
	f.Add("1:name=\n:::\n")
	f.Fuzz(func(t *testing.T, text string) {
		ParseNamed(text, func(name string, controllers []string) {
			if !strings.Contains(text, strings.Join(append(controllers, "name="+name), ",")) {
				t.Errorf("%q has no %q with %q", text, name, controllers)
			}
		})
	})
}

func TestParseNamed(t *testing.T) {
	var got []string
	ParseNamed("9:name=systemd:/name=no\n4:memory:/a:name=b\n12:cpu,hugetlb,name=x:/y\n0::/name=z\nname=u\n7:name=v\n6:name=w:/",
		func(name string, controllers []string) { got = append(got, name+" "+strings.Join(controllers, "+")) })
	if want := []string{"systemd ", "x cpu+hugetlb"}; !slices.Equal(got, want) {
		t.Fatalf("%q, want %q", got, want)
	}
}

// free is a controller that a hierarchy can have here.
func free(t testing.TB) string {
	t.Helper()
	var why []string
	for _, controller := range []string{"hugetlb", "misc", "rdma"} {
		err := isFree(controller)
		if err == nil {
			return controller
		}
		why = append(why, fmt.Sprint(controller, ": ", err))
	}
	t.Skip("no controller is free: ", strings.Join(why, ", "))
	return ""
}

// TestController: a hierarchy has the controller that it was made with, whoever opens it,
// and nobody has it afterwards.
func TestController(t *testing.T) {
	hierarchy(t) // skips where there can be none
	controller := free(t)
	name := fmt.Sprintf("containerfs-test-c%d", os.Getpid())
	d, err := OpenNamedWith(name, controller)
	if errors.Is(err, unix.EBUSY) {
		t.Skip("version 2 uses ", controller, ": ", err)
	} else if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := Retire(d, 10*time.Second); err != nil {
			t.Error(err)
		}
		if err := isFree(controller); err != nil {
			t.Errorf("after the end: %v", err)
		}
	}()
	for _, again := range []string{"", controller} {
		d, err := OpenNamedWith(name, again)
		if err != nil {
			t.Fatalf("opened again with %q: %v", again, err)
		}
		d.Close()
		if has, err := Controllers(name); err != nil || !slices.Equal(has, []string{controller}) {
			t.Errorf("it has %v, %v; want %s", has, err, controller)
		}
	}
	pid := sleeper(t)
	if err := d.Make("1"); err != nil {
		t.Fatal(err)
	}
	if err := d.Move("1", pid, false); err != nil {
		t.Fatal(err)
	}
	if ids, err := d.IDs("1/tasks"); err != nil || !slices.Equal(ids, []int32{pid}) {
		t.Errorf("%v, %v", ids, err)
	}

	began := time.Now()
	if _, err := OpenNamedWith(name+"x", controller); !errors.Is(err, unix.EBUSY) || time.Since(began) >= 5*time.Second { // as without a controller
		t.Errorf("what another hierarchy has: %v after %v", err, time.Since(began))
	}
	if _, err := OpenNamedWith(name+"x", "nosuch"); !errors.Is(err, unix.ENODEV) {
		t.Errorf("a controller that there is not: %v", err)
	}
	if names, err := Names(); err != nil || slices.Contains(names, name+"x") {
		t.Errorf("%v, %v", names, err)
	}
}

// The option came with Linux 6.0.
func TestMovesAtOnce(t *testing.T) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	major, _, _ := strings.Cut(release, ".")
	n, err := strconv.Atoi(major)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Fsopen("cgroup", unix.FSOPEN_CLOEXEC)
	if err == nil {
		unix.Close(fd)
	}
	if want := n >= 6 && err == nil; MovesAtOnce() != want {
		t.Errorf("%v, with Linux %s", !want, release)
	}
}

// BenchmarkMove is a move among so many directories with tasks, in a hierarchy with
// and without a controller.
func BenchmarkMove(b *testing.B) {
	for _, with := range []bool{false, true} {
		for _, groups := range []int{1, 100, 1000} {
			b.Run(fmt.Sprintf("controller=%v/groups=%d", with, groups), func(b *testing.B) { benchmarkMove(b, with, groups) })
		}
	}
}

func benchmarkMove(b *testing.B, with bool, groups int) {
	d := hierarchy(b)
	if with {
		var err error
		if d, err = OpenNamedWith(fmt.Sprintf("containerfs-test-b%d", os.Getpid()), free(b)); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { Retire(d, 10*time.Second) })
	}
	for i := range groups {
		name := fmt.Sprint("group", i)
		if err := d.Make(name); err != nil {
			b.Fatal(err)
		}
		if err := d.Move(name, sleeper(b), false); err != nil {
			b.Fatal(err)
		}
	}
	pid := sleeper(b)
	for _, name := range []string{"1", "2"} {
		if err := d.Make(name); err != nil {
			b.Fatal(err)
		}
	}
	names := [2]string{"1", "2"}
	i := 0
	for b.Loop() {
		if err := d.Move(names[i&1], pid, false); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func BenchmarkMakeRemove(b *testing.B) {
	d := hierarchy(b)
	for b.Loop() {
		if err := d.Make("1"); err != nil {
			b.Fatal(err)
		}
		if err := d.Remove("1"); err != nil {
			b.Fatal(err)
		}
	}
}
