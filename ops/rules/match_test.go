package rules

import (
	"errors"
	"fmt"
	"os/user"
	"strconv"
	"strings"
	"testing"
	"time"
)

func parse(t *testing.T, text string) *File {
	t.Helper()
	f, err := Parse("f", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestMatching(t *testing.T) {
	root, err := user.LookupId("0")
	if err != nil {
		t.Fatal(err)
	}
	group, err := user.LookupGroupId(root.Gid)
	if err != nil {
		t.Fatal(err)
	}
	member := &Subject{UID: 0, GID: 4001, Exe: "/usr/bin/x y"}
	s := &Subject{UID: 4000, GID: 4001, Groups: []uint32{4002, 4003}, Exe: "/usr/lib/firefox/firefox-bin", Comm: "firefox"}
	long := &Subject{UID: 4000, Exe: "/bin/sh", Comm: "a-script-of-the"}
	none := &Subject{UID: 4000, Comm: "kthread"}
	for _, test := range []struct {
		rule string
		s    *Subject
		why  string // "" if it does not fit
	}{
		{"* h c", s, "everybody, any process"},
		{"*:* h c", s, "everybody, any process"},
		{"4000 h c", s, "user 4000, any process"},
		{"4001 h c", s, ""},
		{"root h c", s, ""},
		{"nobody-of-that-name h c", s, ""},
		{"@nobody-of-that-name h c", s, ""},
		{"@nobody-of-that-name h c", &Subject{}, ""},
		{"4294967295 h c", &Subject{UID: ^uint32(0)}, ""},
		{"@4001 h c", s, "group 4001, any process"},
		{"@4003 h c", s, "supplementary group 4003, any process"},
		{"@4000 h c", s, ""},
		{"root h c", member, "user root, any process"},
		{"@" + group.Name + " h c", member, "member of group " + group.Name + ", any process"},
		{"*:firefox-bin h c", s, "everybody, name of " + s.Exe},
		{"*:firefox h c", s, "everybody, process name firefox"},
		{"*:firefox* h c", s, "everybody, name of " + s.Exe},
		{"*:fire* h c", s, "everybody, name of " + s.Exe},
		{"*:fir h c", s, ""},
		{"*:Firefox h c", s, ""},
		{"*:firefox-bin-x h c", s, ""},
		{"*:/usr/lib/firefox/firefox-bin h c", s, "everybody, path " + s.Exe},
		{"*:/usr/lib/* h c", s, "everybody, path " + s.Exe},
		{"*:/usr/lib/firefox/ h c", s, ""},
		{"*:/bin/firefox h c", s, ""},
		{"4000:firefox-bin h c", s, "user 4000, name of " + s.Exe},
		{"4001:firefox-bin h c", s, ""},
		{"*:a-script-of-the-admins h c", long, "everybody, process name a-script-of-the"},
		{"*:a-script-of-th h c", long, ""},
		{"*:sh h c", long, "everybody, name of /bin/sh"},
		{"*:/a-script-of-the h c", long, ""},
		{"*:kthread h c", none, "everybody, process name kthread"},
		{"*:/* h c", none, ""},
		{"*:. h c", none, ""},
	} {
		var n Names
		f := parse(t, test.rule)
		why, fits := f.Rules[0].Why(test.s, &n)
		if fits != (test.why != "") || fits && why != test.why || !fits && why == "" {
			t.Errorf("%s: %q, %v; want %q", test.rule, why, fits, test.why)
		}
		if n := len(f.Matching(test.s, &n)); (n == 1) != fits {
			t.Errorf("%s: %d match", test.rule, n)
		}
	}
	for s, want := range map[*Subject]string{s: s.Exe, none: "kthread"} {
		if why, _ := parse(t, "*:x h c").Rules[0].Why(s, new(Names)); why != want+" is not the process x" {
			t.Errorf("why not: %q", why)
		}
	}
}

func TestMatchingKeepsOrder(t *testing.T) {
	f := parse(t, "4000:x a,b c\n4001 * d\n% b e\n4000 b c\n*:x * f\n")
	got := ""
	for _, r := range f.Matching(&Subject{UID: 4000, Exe: "/x"}, new(Names)) {
		got += fmt.Sprint(r.Line, r.Concerns("a"), r.Concerns("b"), r.Concerns("z"), " ")
	}
	if want := "1 true true false 4 false true false 5 true true true "; got != want {
		t.Errorf("got %q", got)
	}
}

func TestPath(t *testing.T) {
	root, err := user.LookupId("0")
	if err != nil {
		t.Fatal(err)
	}
	group, err := user.LookupGroupId("0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Subject{PID: 77, UID: 0, GID: 0, Exe: "/usr/bin/a.b"}
	for dest, want := range map[string]string{
		"/": "", "//a//b/": "a b", "a": "a", "%u": root.Username, "%U": "0", "%g": group.Name, "%G": "0", "%p": "a.b", "%P": "77",
		`x%u-%U/%p\%p\\%P`: "x" + root.Username + "-0 a.b%p\\77", "%x%%": "%x%%", "%": "%", `\a\/b`: "a b", "...": "...", "groups": "groups",
	} {
		names, err := parse(t, "* h "+dest).Rules[0].Path(s, new(Names))
		if got := strings.Join(names, " "); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", dest, got, err, want)
		}
	}
	nobody := &Subject{PID: 77, UID: 4000000, GID: 4000001}
	names, err := parse(t, "* h %u.%g.%p").Rules[0].Path(nobody, new(Names))
	if got := strings.Join(names, " "); err != nil || got != "4000000.4000001.77" {
		t.Errorf("who has no name: %q, %v", got, err)
	}
	// A program cannot choose a place by its name.
	for _, exe := range []string{"/bin/..", "/bin/.", "/"} {
		if names, err := parse(t, "* h a/%p").Rules[0].Path(&Subject{Exe: exe}, new(Names)); err == nil && (len(names) != 2 || names[1] == "/") {
			t.Errorf("%s leads to %q", exe, names)
		}
	}
	program := &Subject{Exe: "/" + strings.Repeat("a", 89)}
	for dest, fits := range map[string]bool{strings.Repeat("%p", 46): true, strings.Repeat("%p", 46) + "x": false} {
		names, err := parse(t, "* h "+dest).Rules[0].Path(program, new(Names))
		if length := len("/" + strings.Join(names, "/")); (err == nil) != fits || fits && length != maxPath {
			t.Errorf("a path of %d bytes: %v", length, err)
		}
	}
}

func TestUnknown(t *testing.T) {
	f := parse(t, "root h c\nnobody-of-that-name h c\n* h c\n@nobody-of-that-name h c\n12 h c\n@12 h c\n")
	got := ""
	for _, r := range f.Unknown(new(Names)) {
		got += fmt.Sprint(r.Line, " ")
	}
	if got != "2 4 " {
		t.Errorf("unknown are the users of lines %s", got)
	}
}

// TestNamesAreRemembered for a while, and only so many.
func TestNamesAreRemembered(t *testing.T) {
	var n Names
	if got := n.User(4000000); got != "4000000" {
		t.Fatalf("who has no name is %q", got)
	}
	n.Group(4000000)
	if len(n.kept) != 2 {
		t.Errorf("%d answers of 2 are kept", len(n.kept))
	}
	q := question{'U', "4000000"}
	a := n.kept[q]
	if a.until.IsZero() || time.Until(a.until) > namesKeptFor {
		t.Errorf("an answer is kept until %v", a.until)
	}
	a.text, a.ok, a.until = "named", true, time.Now().Add(time.Hour)
	n.kept[q] = a
	if got := n.User(4000000); got != "named" {
		t.Errorf("%q was asked for again", got)
	}
	a.until = time.Now()
	n.kept[q] = a
	if got := n.User(4000000); got != "4000000" {
		t.Errorf("%q is remembered for too long", got)
	}
	for i := len(n.kept); i < namesKept; i++ {
		n.kept[question{'x', strconv.Itoa(i)}] = answer{}
	}
	n.User(4000000)
	if len(n.kept) != namesKept {
		t.Errorf("%d answers are kept", len(n.kept))
	}
	n.User(4000001)
	if len(n.kept) != 1 {
		t.Errorf("%d answers are kept, one more than may be", len(n.kept))
	}
}

// TestNamesThatCannotBeAsked: what the databases have said holds for as long as they cannot be
// asked, and no longer.
func TestNamesThatCannotBeAsked(t *testing.T) {
	defer func(f func(question) (answer, error)) { look = f }(look)
	var n Names
	later := func() {
		for q, a := range n.kept {
			a.until = time.Now().Add(-time.Second)
			n.kept[q] = a
		}
	}
	answers := func() string {
		later()
		uid, known := n.uid("daemon")
		gid, knownGroup := n.gid("daemon")
		return fmt.Sprint(uid, " ", known, " ", gid, " ", knownGroup, " ", n.User(1), " ", n.Group(1), " ", n.member(1, 1))
	}
	said := answer{text: "1", groups: []string{"1"}, ok: true}
	var err error
	look = func(question) (answer, error) { return said, err }
	want := answers()
	if want != "1 true 1 true 1 1 true" {
		t.Fatal(want)
	}
	said, err = answer{}, errors.New("the database is away")
	if got := answers(); got != want {
		t.Errorf("they cannot be asked: %s, want %s", got, want)
	}
	err = nil
	if got := answers(); got == want {
		t.Errorf("nobody has the names any more: %s", got)
	}

	look = inDatabases
	for _, q := range []question{{'u', "nobody-of-that-name"}, {'g', "nobody-of-that-name"}, {'U', "4000000"}, {'G', "4000000"}, {'m', "4000000"}} {
		if a, err := look(q); err != nil || a.ok {
			t.Errorf("%c %s: %+v, %v", q.what, q.name, a, err)
		}
	}
}
