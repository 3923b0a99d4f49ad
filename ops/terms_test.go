package ops

import (
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"containerfs/tree/hostsim"
)

// The terms of a listener: access=ro and attach=.

// TestReadOnly tries whatever could change something, as the one who may do
// everything: EROFS, and nothing has changed. All can be read.
func TestReadOnly(t *testing.T) {
	w := newWorld(t)
	w.mount("mount m alpha")
	k := w.as(root)
	k.must(k.mkdir("m/a"))
	pid := w.fork(1000)
	ro := &Caller{UID: 0, GIDs: []uint32{0}, Local: true, ReadOnly: true}
	at := func(path string) p9.File {
		t.Helper()
		f, err := w.attach(ro, "").walk(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	open := func(path string, flags p9.OpenFlags) error { _, _, err := at(path).Open(flags); return err }
	write := func(path, data string) error { _, err := at(path).WriteAt([]byte(data), 0); return err }
	set := func(path string, valid p9.SetAttrMask, a p9.SetAttr) error { return at(path).SetAttr(valid, a) }
	for what, do := range map[string]func() error{
		"mkdir":                   func() error { _, err := at("m").Mkdir("b", 0o755, p9.NoUID, p9.NoGID); return err },
		"mkdir of what exists":    func() error { _, err := at("m").Mkdir("a", 0o755, p9.NoUID, p9.NoGID); return err },
		"mkdir in the top":        func() error { _, err := at("").Mkdir("b", 0o755, p9.NoUID, p9.NoGID); return err },
		"rmdir":                   func() error { return at("m").UnlinkAt("a", atRemovedir) },
		"unlink":                  func() error { return at("m").UnlinkAt("tasks", 0) },
		"remove":                  func() error { return at("m/a").(interface{ Remove() error }).Remove() },
		"renameat":                func() error { return at("m").RenameAt("a", at("m"), "b") },
		"rename":                  func() error { return at("m/a").Rename(at("m"), "b") },
		"chmod":                   func() error { return set("m/a", p9.SetAttrMask{Permissions: true}, p9.SetAttr{Permissions: 0o700}) },
		"chown":                   func() error { return set("m/a/tasks", p9.SetAttrMask{UID: true}, p9.SetAttr{UID: 5}) },
		"times":                   func() error { return set("m/a", p9.SetAttrMask{MTime: true}, p9.SetAttr{}) },
		"truncation":              func() error { return set("m/a/tasks", p9.SetAttrMask{Size: true}, p9.SetAttr{}) },
		"truncation at open":      func() error { return open("m/a/tasks", p9.ReadOnly|openTruncate) },
		"open for writing":        func() error { return open("m/a/tasks", p9.WriteOnly) },
		"open for both":           func() error { return open("m/a/notify_on_release", p9.ReadWrite) },
		"open of ctl":             func() error { return open("ctl", p9.WriteOnly) },
		"write":                   func() error { return write("m/a/notify_on_release", "1") },
		"write of tasks":          func() error { return write("m/a/tasks", fmt.Sprint(pid)) },
		"write of procs":          func() error { return write("m/a/procs", fmt.Sprint(pid)) },
		"write of kill":           func() error { return write("m/a/kill", "1") },
		"write of ctl":            func() error { return write("ctl", "mount x beta") },
		"write of an agent":       func() error { return write("m/release_agent", "/bin/true") },
		"create":                  func() error { _, _, _, err := at("m").Create("f", p9.ReadWrite, 0o644, p9.NoUID, p9.NoGID); return err },
		"symlink":                 func() error { _, err := at("m").Symlink("x", "y", p9.NoUID, p9.NoGID); return err },
		"link":                    func() error { return at("m").Link(at("m/tasks"), "y") },
		"mknod":                   func() error { _, err := at("m").Mknod("y", 0, 0, 0, p9.NoUID, p9.NoGID); return err },
		"attach that would mount": func() error { _, err := w.fs.Attach(ro, "beta"); return err },
	} {
		w.refused(linux.EROFS, what, do)
	}
	// What a walk or a clone leads to is read-only, too, and so is an attach by name.
	sub := w.attach(ro, "m/a")
	w.refused(linux.EROFS, "below", func() error { return sub.mkdir("x") })
	_, clone, err := at("m").Walk(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer clone.Close()
	w.refused(linux.EROFS, "clone", func() error { _, err := clone.Mkdir("x", 0o755, p9.NoUID, p9.NoGID); return err })

	r := w.attach(ro, "")
	if got := r.names("m"); !slices.Contains(got, "a") {
		t.Errorf("lists %v", got)
	}
	r.want("m/a/notify_on_release", "0\n")
	if s, err := r.read("ctl"); err != nil || !strings.HasPrefix(s, "m alpha") {
		t.Errorf("ctl: %q, %v", s, err)
	}
	if _, err := w.fs.Attach(&Caller{UID: 1000, ReadOnly: true}, "beta"); errno(err) != linux.EPERM {
		t.Errorf("who could not mount: %v", err)
	}
	// An option string of what is mounted is only a name for it.
	if got, err := w.attach(ro, "alpha").attr("a"); err != nil || got.NLink != 2 {
		t.Errorf("attach of what is mounted: %v, %v", got, err)
	}
}

// TestReadOnlyMethods: every method of a file is either known to change nothing or
// readOnly has one of its own.
func TestReadOnlyMethods(t *testing.T) {
	reads := []string{"Close", "FSync", "GetAttr", "GetXattr", "List", "ListXattrs", "Lock", "ReadAt", "Readdir", "Readlink",
		"RemoveXattr", "Renamed", "SetXattr", "Slow", "StatFS", "WalkGetAttr"} // xattrs are EOPNOTSUPP for everybody
	typ := reflect.TypeFor[readOnly]()
	for i := range typ.NumMethod() {
		m := typ.Method(i)
		pc := m.Func.Pointer()
		source, _ := runtime.FuncForPC(pc).FileLine(pc)
		if own := strings.HasSuffix(source, "readonly.go"); own == slices.Contains(reads, m.Name) {
			t.Errorf("%s of a read-only file is in %s", m.Name, source)
		}
	}
}

// TestConfined shows that a listener's attach= cannot be left, by no attach name and
// no walk, not even by root.
func TestConfined(t *testing.T) {
	w := newWorld(t)
	w.mount("mount m alpha")
	w.mount("mount n beta")
	k := w.as(root)
	for _, path := range []string{"m/vm", "m/vm/in", "m/vm/m", "m/vm/proc", "m/other", "n/vm"} {
		k.must(k.mkdir(path))
	}
	in := func(uid uint32, confined string) *Caller {
		return &Caller{UID: uid, GIDs: []uint32{uid}, Local: true, Confined: confined}
	}
	qid := func(path string) p9.QID {
		t.Helper()
		f, err := k.walk(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		q, _, _, _ := f.GetAttr(p9.AttrMask{})
		return q
	}
	for _, uid := range []uint32{0, 1000} {
		for aname, want := range map[string]string{
			"": "m/vm", "/": "m/vm", "in": "m/vm/in", "/in": "m/vm/in", "in/": "m/vm/in", "m": "m/vm/m", "proc": "m/vm/proc",
			"..": "m/vm", "../..": "m/vm", "/../other": "", "../other": "", "in/../../other": "", "in/..": "m/vm", "in/../..": "m/vm",
			"m/vm": "", "m/other": "", "n": "", "n/vm": "", "/n": "", "//n": "", "ctl": "", "containers": "", "events": "", "proc/1": "",
			"alpha": "", "cpuset": "", "beta": "", "all": "", "name=x+cpuset": "", "cpuset,noprefix": "", "m/vm/": "", "tasks": "file",
			"in/tasks": "file", "in/x": "", "\x00": "", "../../ctl": "",
		} {
			what := fmt.Sprintf("attach %q of uid %d", aname, uid)
			c := in(uid, "m/vm")
			if want == "" || want == "file" {
				errno := map[string]linux.Errno{"": linux.ENOENT, "file": linux.ENOTDIR}[want]
				w.refused(errno, what, func() error { _, err := w.fs.Attach(c, aname); return err })
				continue
			}
			sub := w.attach(c, aname)
			if q, _, _, _ := sub.root.GetAttr(p9.AttrMask{}); q != qid(want) {
				t.Errorf("%s is %v, want what is at %s", what, q, want)
			}
		}
		sub := w.attach(in(uid, "m/vm"), "")
		for path, want := range map[string]string{"..": "m/vm", "../..": "m/vm", "in/..": "m/vm", "in/../..": "m/vm", "in/../../..": "m/vm"} {
			f, err := sub.walk(path)
			if err != nil {
				t.Fatal(err)
			}
			if q, _, _, _ := f.GetAttr(p9.AttrMask{}); q != qid(want) {
				t.Errorf("%s of uid %d is %v", path, uid, q)
			}
			f.Close()
		}
		for _, path := range []string{"../other", "ctl", "../../ctl", "../../containers", "n", "../../n/vm", "in/../../other"} {
			if _, err := sub.walk(path); errno(err) != linux.ENOENT {
				t.Errorf("%s of uid %d: %v", path, uid, err)
			}
		}
		ents, err := sub.list("", 100)
		if err != nil || ents[1].Name != ".." || ents[1].QID != qid("m/vm") {
			t.Errorf("its .. is %v, %v", ents[1], err)
		}
	}
	// Its own name is not its own to change.
	sub := w.attach(in(0, "m/vm"), "")
	w.refused(linux.EBUSY, "rename of the root", func() error { return sub.root.Rename(sub.root, "x") })
	w.refused(linux.EBUSY, "removal of the root", func() error { return sub.root.(interface{ Remove() error }).Remove() })

	// What there is not, or is no container, lets nobody in.
	for confined, want := range map[string]linux.Errno{
		"ctl": linux.ENOENT, "proc": linux.ENOENT, "x": linux.ENOENT, "m/x": linux.ENOENT, "cpuset": linux.ENOENT, "m/tasks": linux.ENOTDIR,
		"m/..": 0, "m/vm/../../../n": linux.ENOENT,
	} {
		if want == 0 {
			sub := w.attach(in(0, confined), "")
			if q, _, _, _ := sub.root.GetAttr(p9.AttrMask{}); q != qid("m") {
				t.Errorf("%s is %v", confined, q)
			}
			continue
		}
		w.refused(want, "confined to "+confined, func() error { _, err := w.fs.Attach(in(0, confined), ""); return err })
	}
	// It can be made later, and go.
	w.refused(linux.ENOENT, "before", func() error { _, err := w.fs.Attach(in(0, "m/late"), ""); return err })
	k.must(k.mkdir("m/late"))
	late := w.attach(in(0, "m/late"), "")
	k.must(k.rmdir("m/late"))
	w.refused(linux.ENODEV, "after", func() error { return late.mkdir("x") })
}

// TestConfinedHierarchy: a whole hierarchy, with its own events and without the host's.
func TestConfinedHierarchy(t *testing.T) {
	w := newWorld(t)
	w.mount("mount m alpha")
	sub := w.attach(&Caller{UID: 0, Confined: "m"}, "")
	if got := sub.names(""); !slices.Contains(got, "tasks") || slices.Contains(got, "proc") || slices.Contains(got, "m") {
		t.Errorf("it shows %v", got)
	}
}

// TestNetworkRules: who is not local, and not uid 0, needs write permission on the tasks
// file that a task leaves; protected tasks move for a privileged local caller only.
func TestNetworkRules(t *testing.T) {
	w := newWorld(t)
	w.mount("mount m alpha")
	k := w.as(root)
	k.must(k.mkdir("m/from"))
	k.must(k.mkdir("m/to"))
	k.must(k.chown("m/to/tasks", 1000, 100))
	pid := w.fork(1000)
	from := func(mode p9.FileMode, uid, gid uint32) {
		t.Helper()
		k.must(k.write("m/from/tasks", fmt.Sprint(pid)))
		k.must(k.chown("m/from/tasks", uid, gid))
		k.must(k.chmod("m/from/tasks", mode))
	}
	for _, tt := range []struct {
		mode     p9.FileMode
		uid, gid uint32
		caller   *Caller
		want     linux.Errno
	}{
		{0o644, 0, 0, alice, 0},
		{0o644, 0, 0, netA, linux.EACCES},
		{0o644, 1000, 0, netA, 0},
		{0o664, 0, 100, netA, 0},
		{0o664, 0, 200, netA, linux.EACCES},
		{0o646, 0, 0, netA, 0},
		{0o466, 1000, 100, netA, linux.EACCES}, // the owner's bits are the owner's
		{0o000, 0, 0, netRoot, 0},
		{0o666, 0, 0, &Caller{UID: 2000}, linux.EACCES}, // not his task
	} {
		from(tt.mode, tt.uid, tt.gid)
		k.must(k.chmod("m/to/tasks", 0o666))
		err := w.as(tt.caller).write("m/to/tasks", fmt.Sprint(pid))
		if got := errno(err); got != tt.want {
			t.Errorf("%o %d:%d, caller %+v: %v, want %v", tt.mode, tt.uid, tt.gid, tt.caller, got, tt.want)
		}
	}
	k.must(k.chmod("m/to/procs", 0o666))
	for _, c := range []*Caller{netRoot, netA, alice} {
		w.refused(linux.EACCES, "pid 1", func() error { return w.as(c).write("m/to/procs", fmt.Sprint(hostsim.InitTID)) })
	}
	k.must(k.write("m/to/procs", fmt.Sprint(hostsim.InitTID)))
}
