package ops

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
)

func TestListing(t *testing.T) {
	w, k := aWorld(t)
	w.mount("mount z beta,noprefix")
	for _, path := range []string{"m/c", "m/b", "m/a/x"} {
		k.must(k.mkdir(path))
	}
	for path, want := range map[string]string{
		"":       "ctl containers events rules proc m z",
		"m":      "tasks procs notify_on_release releasable populated release_agent events alpha.value alpha.sum alpha.poke cpuset.weight a c b",
		"m/a":    "tasks procs notify_on_release releasable populated kill max.descendants max.depth alpha.value alpha.sum alpha.poke cpuset.weight x",
		"z":      "tasks procs notify_on_release releasable populated release_agent events value",
		"proc":   "1",
		"proc/1": "container cpuset",
	} {
		if got := strings.Join(k.names(path), " "); got != want {
			t.Errorf("%q lists\n%s, want\n%s", path, got, want)
		}
	}
	k.must(k.rename("m/c", "m/zz")) // keeps its place
	if got := k.names("m"); !slices.Equal(got[len(got)-3:], []string{"a", "zz", "b"}) {
		t.Errorf("after rename %q", got)
	}
	// In pieces of any size, and every entry is what a walk finds.
	for _, path := range []string{"", "m", "m/a", "proc", "proc/1"} {
		whole, err := k.list(path, 1000)
		k.must(err)
		if whole[0].Name != "." || whole[1].Name != ".." {
			t.Errorf("%q begins with %q and %q", path, whole[0].Name, whole[1].Name)
		}
		for _, count := range []uint32{1, 2, 3, 7} {
			if got, err := k.list(path, count); err != nil || !slices.Equal(got, whole) {
				t.Errorf("%q by %d: %v, %v; want %v", path, count, got, err, whole)
			}
		}
		for i, e := range whole {
			f, err := k.walk(path + "/" + e.Name)
			k.must(err)
			qid, _, attr, err := f.GetAttr(p9.AttrMask{})
			k.must(err)
			f.Close()
			if qid != e.QID || e.Type != qid.Type || (qid.Type == p9.TypeDir) != attr.Mode.IsDir() || qid.Version != 0 {
				t.Errorf("%s/%s: entry %v, attributes %v %v", path, e.Name, e, qid, attr.Mode)
			}
			if i > 0 && e.Offset <= whole[i-1].Offset {
				t.Errorf("%s/%s: offset %d after %d", path, e.Name, e.Offset, whole[i-1].Offset)
			}
		}
		f, err := k.open(path, p9.ReadOnly)
		k.must(err)
		if got, err := f.Readdir(0, 0); len(got) != 0 || err != nil {
			t.Errorf("no entries of %q: %v, %v", path, got, err)
		}
		for _, offset := range []uint64{1 << 62, 1<<64 - 1, 1<<63 + 5} {
			if got, err := f.Readdir(offset, 10); len(got) != 0 || err != nil {
				t.Errorf("%q beyond the end: %v, %v", path, got, err)
			}
		}
		f.Close()
	}
}

// TestNlinkCountsDirectories: find(1) relies on it.
func TestNlinkCountsDirectories(t *testing.T) {
	w, k := aWorld(t)
	k.must(k.mkdir("m/b"))
	k.must(k.mkdir("m/a/x"))
	w.mount("mount n beta")
	w.host.Thread(w.fork(0))
	w.tree.Drain()
	for _, path := range []string{"", "m", "m/a", "m/b", "n", "proc", "proc/1"} {
		ents, err := k.list(path, 1000)
		k.must(err)
		want := 2
		for _, e := range ents[2:] {
			if e.Type == p9.TypeDir {
				want++
			}
		}
		if a, err := k.attr(path); err != nil || int(a.NLink) != want {
			t.Errorf("%q has nlink %d, %v; want %d", path, a.NLink, err, want)
		}
	}
}

func TestQidsAreUniqueForEver(t *testing.T) {
	w, k := aWorld(t)
	w.mount("mount n beta")
	seen := make(map[uint64]string)
	var note func(round int, path string)
	note = func(round int, path string) {
		ents, err := k.list(path, 1000)
		k.must(err)
		for _, e := range ents[2:] {
			p := path + "/" + e.Name
			if strings.HasPrefix(p+"/", "/m/a/") {
				p = fmt.Sprint(p, " of round ", round)
			}
			if old, ok := seen[e.QID.Path]; ok && old != p {
				t.Errorf("%s has the qid of %s", p, old)
			}
			seen[e.QID.Path] = p
			if e.Type == p9.TypeDir {
				note(round, path+"/"+e.Name)
			}
		}
	}
	for round := range 3 {
		for range 5 {
			w.fork(0)
		}
		w.tree.Drain()
		note(round, "")
		k.must(k.rmdir("m/a"))
		k.must(k.mkdir("m/a"))
	}
}

// TestOffsetsStayValid lists while entries come and go: what is there all the
// time is listed exactly once.
func TestOffsetsStayValid(t *testing.T) {
	w, k := aWorld(t)
	var want []string
	for i := range 200 {
		k.must(k.mkdir(fmt.Sprint("m/keep", i)))
		k.must(k.mkdir(fmt.Sprint("m/go", i)))
		want = append(want, fmt.Sprint("keep", i))
	}
	f, err := k.open("m", p9.ReadOnly)
	k.must(err)
	defer f.Close()
	var got []string
	for offset, i := uint64(0), 0; ; i++ {
		ents, err := f.Readdir(offset, 9)
		k.must(err)
		if len(ents) == 0 {
			break
		}
		for _, e := range ents {
			if strings.HasPrefix(e.Name, "keep") {
				got = append(got, e.Name)
			}
		}
		offset = ents[len(ents)-1].Offset
		if i < 40 {
			for j := range 5 {
				k.must(k.rmdir(fmt.Sprint("m/go", i*5+j)))
			}
			k.must(k.mkdir(fmt.Sprint("m/new", i)))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed %q", got)
	}

	// A listing of processes, and one that starts over.
	f, err = k.open("proc", p9.ReadOnly)
	k.must(err)
	defer f.Close()
	first, err := f.Readdir(0, 3)
	k.must(err)
	pid := w.fork(0)
	again, err := f.Readdir(0, 100)
	k.must(err)
	if len(first) != 3 || len(again) != 4 || again[3].Name != fmt.Sprint(pid) {
		t.Errorf("%v, started over %v", first, again)
	}
	w.host.Exit(pid)
	w.tree.Drain()
	if rest, err := f.Readdir(again[2].Offset, 100); err != nil || len(rest) != 0 {
		t.Errorf("a process that is gone: %v, %v", rest, err)
	}
}

// TestOffsetsDuringARemount: a file that is there all the time is listed exactly once.
func TestOffsetsDuringARemount(t *testing.T) {
	w, k := aWorld(t)
	k.must(k.rmdir("m/a"))
	for after := range k.names("m") {
		for _, words := range []string{"remount m beta,cpuset", "remount m cpuset", "remount m alpha,beta,cpuset", "remount m alpha,cpuset"} {
			f, err := k.open("m", p9.ReadOnly)
			k.must(err)
			ents, err := f.Readdir(0, uint32(after+3))
			k.must(err)
			w.mount(words)
			rest, err := f.Readdir(ents[len(ents)-1].Offset, 100)
			k.must(err)
			f.Close()
			counts := make(map[string]int)
			for _, e := range append(ents, rest...) {
				counts[e.Name]++
			}
			for _, name := range append([]string{"cpuset.weight"}, k.names("m")[:7]...) {
				if counts[name] != 1 {
					t.Errorf("%s after %d entries: %s is listed %d times", words, after+3, name, counts[name])
				}
			}
		}
	}
}

// TestListingFromFarBehind shows that the cost does not grow with the offset.
func TestListingFromFarBehind(t *testing.T) {
	_, k := aWorld(t)
	const many = 30000
	dir, err := k.open("m/a", p9.ReadOnly)
	k.must(err)
	defer dir.Close()
	for i := range many {
		if _, err := dir.Mkdir(fmt.Sprint(i), 0o755, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	ents, err := dir.Readdir(0, many+100)
	k.must(err)
	// The shortest of some times: in the others the CPU may have been somebody else's.
	took := func(offset uint64) time.Duration {
		shortest := time.Hour
		for range 10 {
			start := time.Now()
			for range 200 {
				if _, err := dir.Readdir(offset, 10); err != nil {
					t.Fatal(err)
				}
			}
			shortest = min(shortest, time.Since(start))
		}
		return shortest
	}
	if near, far := took(ents[20].Offset), took(ents[many-100].Offset); far > 20*near {
		t.Errorf("200 readdirs take %v at the start and %v at the end", near, far)
	}
}

func TestAttributes(t *testing.T) {
	_, k := aWorld(t)
	if st, err := k.root.StatFS(); err != nil || st.Type != 0x27e0eb || st.NameLength != 255 || int(st.BlockSize) != os.Getpagesize() {
		t.Errorf("statfs %+v, %v", st, err)
	}
	k.must(k.write("m/a/alpha.value", "some text"))
	for _, path := range []string{"", "ctl", "containers", "proc", "m", "m/a", "m/a/tasks", "m/a/alpha.value", "proc/1/container"} {
		a, err := k.attr(path)
		if err != nil || a.Size != 0 || (!a.Mode.IsDir() && a.NLink != 1) || a.UID != 0 || a.GID != 0 || a.MTimeSeconds == 0 {
			t.Errorf("%q: %v, %v", path, a, err)
		}
	}
	for _, path := range []string{"events", "m/events"} {
		before, err := k.attr(path)
		k.must(err)
		text, err := k.read(path)
		if err != nil || uint64(len(text)) != before.Size || len(text) == 0 {
			t.Errorf("%s: size %d, %d bytes, %v", path, before.Size, len(text), err)
		}
		k.must(k.mkdir("m/b"))
		k.must(k.rmdir("m/b"))
		if after, _ := k.attr(path); after.Size <= before.Size {
			t.Errorf("%s: size %d, was %d", path, after.Size, before.Size)
		}
	}
	if _, err := k.walk("m/x"); errno(err) != linux.ENOENT {
		t.Error(err)
	}
}
