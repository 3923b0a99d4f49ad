package ops

import (
	"bytes"
	"math/big"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unicode"
	"unicode/utf8"

	"containerfs/tree"
)

// FuzzNumber compares with arithmetic that has no limits.
func FuzzNumber(f *testing.F) {
	for _, test := range numberTests {
		f.Add([]byte(test.in), uint64(1<<32-1))
	}
	f.Fuzz(func(t *testing.T, data []byte, limit uint64) {
		digits := strings.TrimSuffix(string(data), "\n")
		var want syscall.Errno
		n, ok := new(big.Int), digits != "" && strings.Trim(digits, "0123456789") == ""
		if ok {
			n, ok = n.SetString(digits, 10)
		}
		switch {
		case !ok:
			want = syscall.EINVAL
		case n.Cmp(new(big.Int).SetUint64(limit)) > 0:
			want = syscall.ERANGE
		}
		got, err := tree.ParseNumber(data, limit)
		if errnoOf(err) != want || (err == nil && got != n.Uint64()) {
			t.Errorf("%q up to %d: %d, %v; want %v, %v", data, limit, got, err, n, want)
		}
	})
}

// FuzzOptions parses what is shown of what was parsed: it must mean the same.
func FuzzOptions(f *testing.F) {
	for _, s := range []string{"all", "alpha,beta", "alpha+noprefix", "name=x,alpha", "alpha,release_agent=/x", "alpha,,", "+", "", "alpha,name=x,name=y"} {
		f.Add(s, true)
	}
	fs := &FS{names: []string{"alpha", "beta", "cpuset"}, all: 7}
	f.Fuzz(func(t *testing.T, s string, agents bool) {
		o, err := fs.parseOptions(s, true, agents)
		if err != nil {
			if !slices.Contains([]syscall.Errno{syscall.EINVAL, syscall.ENOENT, syscall.EPERM, syscall.ENAMETOOLONG}, errnoOf(err)) {
				t.Fatalf("%q: %v", s, err)
			}
			if o != (options{}) {
				t.Fatalf("%q: %v, and %+v", s, err, o)
			}
			return
		}
		if o.subsystems == 0 || o.subsystems&^fs.all != 0 || (o.hasAgent && !agents) ||
			(o.releaseAgent != "" && (o.releaseAgent[0] != '/' || strings.ContainsAny(o.releaseAgent, "\x00\n"))) ||
			(o.name != "" && (!validHierarchyName(o.name) || len(o.name) > 50)) {
			t.Fatalf("%q: %+v", s, o)
		}
		shown := o.show(fs.names)
		if again, err := fs.parseOptions(shown, true, true); err != nil || again != o {
			t.Errorf("%q: %+v, shown as %q: %+v, %v", s, o, shown, again, err)
		}
		if plus, err := fs.parseOptions(strings.ReplaceAll(shown, ",", "+"), true, true); err != nil || plus != o {
			t.Errorf("%q with +: %+v, %v", shown, plus, err)
		}
	})
}

func (o options) show(names []string) string {
	var tokens []string
	for id, name := range names {
		if o.subsystems.Has(id) {
			tokens = append(tokens, name)
		}
	}
	if o.noprefix {
		tokens = append(tokens, "noprefix")
	}
	if o.name != "" {
		tokens = append(tokens, "name="+o.name)
	}
	if o.hasAgent {
		tokens = append(tokens, "release_agent="+o.releaseAgent)
	}
	return strings.Join(tokens, ",")
}

// FuzzContainerName makes what it may, and finds it by its name.
func FuzzContainerName(f *testing.F) {
	for _, name := range []string{"a", "", ".", "..", "a/b", "a\nb", "\x00", "\xff\xfe", "ä", "\u0085", strings.Repeat("n", 256), "tasks", "\"", "a=b"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		err := checkName(name)
		control := strings.ContainsFunc(name, unicode.IsControl) || strings.Contains(name, "/")
		switch {
		case len(name) > 255:
			if errnoOf(err) != syscall.ENAMETOOLONG {
				t.Fatalf("%q: %v", name, err)
			}
		case name == "" || name == "." || name == ".." || control:
			if errnoOf(err) != syscall.EINVAL {
				t.Fatalf("%q: %v", name, err)
			}
		case err != nil:
			t.Fatalf("%q: %v", name, err)
		}
		if err != nil {
			return
		}
		// No byte below space comes through, valid UTF-8 or not.
		if i := strings.IndexFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }); i >= 0 {
			t.Fatalf("%q", name)
		}
		l := line{[]byte("1 mkdir")}
		l.text("path", "/"+name)
		l.text("from", name)
		checkLine(t, l.b, "/"+name, name)
	})
}

// FuzzEventQuoting puts any two values into a line and takes them out again.
func FuzzEventQuoting(f *testing.F) {
	for _, s := range []string{"a", "", " ", "a b", "a=b", "\"", "\\", "a\nb 2 exit pid=1", "\xff", "\u2028", "\" b=\"", "ä"} {
		f.Add(s, "x")
		f.Add("x", s)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		l := line{[]byte("1 exec")}
		l.text("exe", a)
		l.text("from", b)
		checkLine(t, l.b, a, b)
	})
}

func checkLine(t *testing.T, l []byte, values ...string) {
	t.Helper()
	if bytes.ContainsFunc(l, func(r rune) bool { return r < ' ' || r >= 0x7f }) || !utf8.Valid(l) {
		t.Fatalf("line %q", l)
	}
	events, err := parseEvents(string(l) + "\n")
	if err != nil || len(events) != 1 || len(events[0].fields) != len(values) {
		t.Fatalf("line %q: %v, %v", l, events, err)
	}
	for i, v := range values {
		if got := events[0].fields[i][1]; got != v {
			t.Fatalf("line %q: %q, want %q", l, got, v)
		}
	}
}

// FuzzCtl gives ctl anything: it answers with an errno of SPEC or does it, and the
// model is whole.
func FuzzCtl(f *testing.F) {
	for _, s := range []string{"mount n beta", "mount m alpha", "umount m", "remount m alpha,beta", "remount m", "mount n", "mount n beta,noprefix,release_agent=/x", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, words string) {
		if len(words) > MaxWrite {
			return
		}
		w := newWorld(t)
		w.mount("mount m alpha")
		before := w.state()
		err := w.as(root).write("ctl", words)
		switch errno(err) {
		case 0:
		case 1, 2, 16, 22, 36: // EPERM ENOENT EBUSY EINVAL ENAMETOOLONG
			if after := w.state(); after != before {
				t.Errorf("%q: %v, but it changed\n%s", words, err, difference(before, after))
			}
		default:
			t.Errorf("%q: %v", words, err)
		}
	})
}

// FuzzAttachName attaches to anything.
func FuzzAttachName(f *testing.F) {
	for _, s := range []string{"", "/", "m", "m/a", "m/..", "beta", "all", "beta,name=x", "m/tasks", "//", "m//"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, aname string) {
		w := newWorld(t)
		w.mount("mount m alpha")
		w.as(root).must(w.as(root).mkdir("m/a"))
		for _, c := range []*Caller{alice, root} {
			f, err := w.fs.Attach(c, aname)
			if err == nil {
				_, up, err := f.Walk([]string{"..", ".."})
				if err != nil || up.(*file).n != f.(*file).n {
					t.Errorf("%q: .. is %v, %v", aname, up, err)
				}
				up.Close()
				f.Close()
			}
		}
		// Whatever was mounted is gone with its last fid.
		var now int
		w.tree.View(func() { w.tree.Hierarchies(func(*tree.Hierarchy) bool { now++; return true }) })
		if now != 1 {
			t.Errorf("%q leaves %d hierarchies", aname, now)
		}
	})
}
