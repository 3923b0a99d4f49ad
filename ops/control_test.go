package ops

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"containerfs/tree"
)

// numbers are what SPEC §4 says of numbers, with the value or the errno.
var numberTests = []struct {
	in   string
	want uint64
	err  linux.Errno
}{
	{"0", 0, 0}, {"1\n", 1, 0}, {"007", 7, 0}, {"4294967295", 1<<32 - 1, 0}, {strings.Repeat("0", 4000) + "1", 1, 0},
	{"", 0, linux.EINVAL}, {"\n", 0, linux.EINVAL}, {"1\n\n", 0, linux.EINVAL}, {"\n1", 0, linux.EINVAL}, {"+1", 0, linux.EINVAL},
	{"-1", 0, linux.EINVAL}, {"-0", 0, linux.EINVAL}, {"0x1", 0, linux.EINVAL}, {"1e1", 0, linux.EINVAL}, {"1.0", 0, linux.EINVAL},
	{" 1", 0, linux.EINVAL}, {"1 ", 0, linux.EINVAL}, {"1 2", 0, linux.EINVAL}, {"1\t", 0, linux.EINVAL}, {"1\r\n", 0, linux.EINVAL},
	{"1\x00", 0, linux.EINVAL}, {"\x00", 0, linux.EINVAL}, {"1,2", 0, linux.EINVAL}, {"1_000", 0, linux.EINVAL}, {"abc", 0, linux.EINVAL},
	{"1a", 0, linux.EINVAL}, {"a1", 0, linux.EINVAL}, {"٣", 0, linux.EINVAL}, {"１", 0, linux.EINVAL}, {"max", 0, linux.EINVAL},
	{"4294967296", 0, linux.ERANGE}, {"18446744073709551615", 0, linux.ERANGE}, {"18446744073709551616", 0, linux.ERANGE},
	{"18446744073709551617", 0, linux.ERANGE}, {"99999999999999999999", 0, linux.ERANGE}, {"184467440737095516160", 0, linux.ERANGE},
	{strings.Repeat("9", 4000), 0, linux.ERANGE}, {strings.Repeat("9", 4000) + "x", 0, linux.EINVAL},
}

func TestNumbers(t *testing.T) {
	for _, test := range numberTests {
		got, err := tree.ParseNumber([]byte(test.in), 1<<32-1)
		if got != test.want || errno(wire(err)) != test.err {
			t.Errorf("%.30q: %d, %v; want %d, %v", test.in, got, err, test.want, test.err)
		}
	}
	if v, err := tree.ParseNumber([]byte("18446744073709551615"), 1<<64-1); v != 1<<64-1 || err != nil {
		t.Errorf("the largest number: %d, %v", v, err)
	}
	if _, err := tree.ParseNumber([]byte("18446744073709551616"), 1<<64-1); errno(wire(err)) != linux.ERANGE {
		t.Errorf("one more: %v", err)
	}
}

func TestFlags(t *testing.T) {
	w, k := aWorld(t)
	for in, want := range map[string]string{"1": "1\n", "0": "0\n", "2\n": "1\n", "00": "0\n", "18446744073709551615": "1\n", "0\n": "0\n"} {
		k.must(k.write("m/a/notify_on_release", in))
		k.want("m/a/notify_on_release", want)
	}
	for _, test := range numberTests {
		if test.err == linux.EINVAL {
			w.refused(test.err, fmt.Sprintf("%.20q", test.in), func() error { return k.write("m/a/notify_on_release", test.in) })
		}
	}
	w.refused(linux.ERANGE, "too large", func() error { return k.write("m/a/notify_on_release", "18446744073709551616") })
}

func TestOneWriteIsOneCommand(t *testing.T) {
	w, k := aWorld(t)
	for _, path := range []string{"ctl", "m/a/tasks", "m/a/procs", "m/a/notify_on_release", "m/a/kill", "m/a/max.depth", "m/a/alpha.value", "m/release_agent", "m/a/alpha.sum"} {
		w.refused(linux.E2BIG, path, func() error { return k.write(path, strings.Repeat("0", MaxWrite)+"1") })
	}
	longest := strings.Repeat("x", MaxWrite)
	k.must(k.write("m/a/alpha.value", longest))
	k.want("m/a/alpha.value", longest)

	// Where it is written does not matter, and nothing is put together.
	f, err := k.open("m/a/alpha.value", p9.ReadWrite)
	k.must(err)
	defer f.Close()
	for _, offset := range []int64{0, 1, 5, 4096, 1 << 62} {
		value := fmt.Sprint("at ", offset)
		if n, err := f.WriteAt([]byte(value), offset); n != len(value) || err != nil {
			t.Errorf("write at %d: %d, %v", offset, n, err)
		}
		k.want("m/a/alpha.value", value)
	}
	w.refused(linux.EDOM, "the subsystem's errno", func() error { return writeTo(f, "bad") })
	w.refused(linux.EINVAL, "empty", func() error { return k.write("m/a/notify_on_release", "") })
}

// TestOpenToTruncateOrAppend: of a command there is nothing to truncate, and no end.
func TestOpenToTruncateOrAppend(t *testing.T) {
	_, k := aWorld(t)
	const appends p9.OpenFlags = 0o2000
	k.must(k.write("m/a/alpha.value", "before"))
	for _, flags := range []p9.OpenFlags{openTruncate, appends, openTruncate | appends} {
		f, err := k.open("m/a/alpha.value", p9.ReadWrite|flags)
		k.must(err)
		k.want("m/a/alpha.value", "before")
		if got, err := readAll(f); got != "before" || err != nil {
			t.Errorf("opened with %o: %q, %v", flags, got, err)
		}
		k.must(writeTo(f, "after"))
		k.want("m/a/alpha.value", "after")
		k.must(writeTo(f, "before"))
		f.Close()
	}
	f, err := k.open("m/a/releasable", p9.ReadOnly|openTruncate) // which cannot be written
	k.must(err)
	f.Close()
}

func TestReadsSeeOneValuePerOpen(t *testing.T) {
	_, k := aWorld(t)
	long := strings.Repeat("0123456789", 300)
	k.must(k.write("m/a/alpha.value", long))
	f, err := k.open("m/a/alpha.value", p9.ReadWrite)
	k.must(err)
	defer f.Close()
	b := make([]byte, 1000)
	read := func(offset int64) string {
		t.Helper()
		n, err := f.ReadAt(b, offset)
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	first := read(0)
	k.must(k.write("m/a/alpha.value", "other"))
	if got := first + read(1000) + read(2000) + read(3000) + read(1<<40); got != long {
		t.Errorf("paged %d bytes of two values", len(got))
	}
	if got := read(0); got != long[:1000] {
		t.Errorf("read again: %q", got)
	}
	k.must(writeTo(f, "mine"))
	if got := read(1000); got != long[1000:2000] {
		t.Errorf("the rest of the old value: %q", got)
	}
	if got := read(0) + read(4); got != "mine" {
		t.Errorf("from the start after a write: %q", got)
	}
	k.must(k.write("m/a/alpha.value", "theirs"))
	if got := read(0); got != "mine" {
		t.Errorf("after a write by another: %q", got)
	}
	if err := writeTo(f, "bad"); errno(err) != linux.EDOM {
		t.Fatal(err)
	}
	if got := read(0); got != "mine" {
		t.Errorf("after a write that failed: %q", got)
	}
}

func TestNoReaderAndNoWriter(t *testing.T) {
	w, k := aWorld(t)
	pid := w.fork(0)
	k.must(k.write("m/a/tasks", fmt.Sprint(pid)))
	for _, path := range []string{"m/a/kill", "m/a/alpha.poke"} {
		w.refused(linux.EINVAL, "read "+path, func() error { _, err := k.read(path); return err })
		if a, _ := k.attr(path); a.Mode != p9.ModeRegular|0o200 {
			t.Errorf("%s has mode %o", path, a.Mode)
		}
	}
	for path, mode := range map[string]p9.FileMode{
		"m/a/releasable": 0o444, "m/a/populated": 0o444, "m/a/alpha.sum": 0o444, "m/events": 0o440,
		"containers": 0o444, "events": 0o440, "proc/1/container": 0o444, "proc/1/cpuset": 0o444,
	} {
		w.refused(linux.EINVAL, "write "+path, func() error { return k.write(path, "1") })
		if a, _ := k.attr(path); a.Mode != p9.ModeRegular|mode {
			t.Errorf("%s has mode %o, want %o", path, a.Mode, mode)
		}
	}
	for _, path := range []string{"m/a/tasks", "m/a/procs", "m/a/notify_on_release", "m/a/max.depth", "m/a/max.descendants", "m/release_agent", "m/a/alpha.value"} {
		if a, _ := k.attr(path); a.Mode != p9.ModeRegular|0o644 {
			t.Errorf("%s has mode %o", path, a.Mode)
		}
	}
	if a, _ := k.attr("ctl"); a.Mode != p9.ModeRegular|0o666 { // writing is refused, not opening
		t.Errorf("ctl has mode %o", a.Mode)
	}
}

func TestSnapshotOfTasksOutlivesTheContainer(t *testing.T) {
	w, k := aWorld(t)
	var want strings.Builder
	var pids []int32
	for range 200 {
		pid := w.fork(0)
		pids = append(pids, pid)
		k.must(k.write("m/a/tasks", fmt.Sprint(pid)))
		fmt.Fprintln(&want, pid)
	}
	var open []p9.File
	for _, name := range []string{"tasks", "procs"} {
		f, err := k.open("m/a/"+name, p9.ReadOnly)
		k.must(err)
		defer f.Close()
		open = append(open, f)
		if n, err := f.ReadAt(make([]byte, 10), 0); n != 10 || err != nil {
			t.Fatal(n, err)
		}
	}
	for _, pid := range pids {
		w.host.Exit(pid)
	}
	k.must(k.rmdir("m/a"))
	for _, f := range open {
		if got, err := readAll(f); got != want.String() || err != nil {
			t.Errorf("%d bytes, %v; want %d", len(got), err, want.Len())
		}
	}
}
