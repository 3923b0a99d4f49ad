package ops

import (
	"testing"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
)

func TestAttachNames(t *testing.T) {
	w := newWorld(t)
	k := w.as(root)
	w.mount("mount m alpha")
	w.mount("mount beta cpuset") // a name that is an option string as well
	k.must(k.mkdir("m/a"))
	k.must(k.mkdir("m/a/b"))
	k.must(k.mkdir("m/a/m"))
	for aname, want := range map[string]string{
		"": "/", "/": "/",
		"m": "m", "/m": "m", "m/": "m", "/m/": "m",
		"m/a": "m/a", "/m/a": "m/a", "m/a/": "m/a", "m/a/b": "m/a/b", "/m/a/b/": "m/a/b", "m/a/m": "m/a/m",
		"m/.": "m", "m/a/.": "m/a", "m/..": "m", "m/a/..": "m", "m/a/../..": "m", "m/../../m": "",
		"beta": "beta", // not a mount of the subsystem
	} {
		if want == "" {
			w.refused(linux.ENOENT, aname, func() error { _, err := w.fs.Attach(alice, aname); return err })
			continue
		}
		for _, c := range []*Caller{root, netRoot, alice, netA} {
			got, err := w.attach(c, aname).attr("")
			wantAttr, _ := k.attr(want)
			if err != nil || got != wantAttr {
				t.Errorf("attach %q of %d: %v, %v; want what is at %s", aname, c.UID, got, err, want)
			}
			qid, _, _, _ := w.attach(c, aname).root.GetAttr(p9.AttrMask{})
			there, _ := k.walk(want)
			if wantQID, _, _, _ := there.GetAttr(p9.AttrMask{}); qid != wantQID {
				t.Errorf("attach %q: qid %v, want %v", aname, qid, wantQID)
			}
			there.Close()
		}
	}
	for aname, want := range map[string]linux.Errno{
		"x": linux.ENOENT, "//": linux.ENOENT, "//m": linux.ENOENT, "m//a": linux.ENOENT, "m//": linux.ENOENT,
		"m/x": linux.ENOENT, "m/a/x": linux.ENOENT, "x/a": linux.ENOENT, "M": linux.ENOENT, "ctl": linux.ENOENT,
		"proc": linux.ENOENT, "proc/1": linux.ENOENT, "m/tasks": linux.ENOTDIR, "m/tasks/x": linux.ENOTDIR,
		"cpuset": 0, "\x00": linux.ENOENT, "m\x00": linux.ENOENT, "m/a\n": linux.ENOENT, " m": linux.ENOENT,
	} {
		if want != 0 {
			for _, c := range []*Caller{root, alice, netA} {
				w.refused(want, "attach "+aname, func() error { _, err := w.fs.Attach(c, aname); return err })
			}
		}
	}
	k.must(k.chmod("m/a", 0o700))
	w.refused(linux.EACCES, "through a closed directory", func() error { _, err := w.fs.Attach(alice, "m/a/b"); return err })
}

// TestNoWayOutOfAnAttach shows that a client's world ends at its root.
func TestNoWayOutOfAnAttach(t *testing.T) {
	w := newWorld(t)
	k := w.as(root)
	w.mount("mount m alpha")
	k.must(k.mkdir("m/a"))
	k.must(k.mkdir("m/a/b"))
	k.must(k.mkdir("m/x"))
	inside := w.attach(root, "m/a")
	for _, path := range []string{"..", "../..", "b/../..", "./..", "b/../../x"} {
		want, _ := k.attr("m/a")
		if path == "b/../../x" {
			if _, err := inside.walk(path); errno(err) != linux.ENOENT {
				t.Errorf("%s: %v", path, err)
			}
			continue
		}
		if got, err := inside.attr(path); err != nil || got != want {
			t.Errorf("%s: %v, %v; want the root", path, got, err)
		}
	}
	ents, err := inside.list("", 100)
	if err != nil || ents[1].Name != ".." || ents[1].QID != ents[0].QID {
		t.Errorf("the root lists %v, %v as its parent", ents[1], err)
	}
	ents, err = inside.list("b", 100)
	if qid, _, _, _ := inside.root.GetAttr(p9.AttrMask{}); err != nil || ents[1].QID != qid {
		t.Errorf("b lists %v, %v as its parent", ents[1], err)
	}

	// What needs the directory above is refused: it is not of this world.
	k.must(k.rmdir("m/a/b"))
	r := inside.root.(*file)
	w.refused(linux.EBUSY, "remove the root", r.Remove)
	w.refused(linux.EINVAL, "rmdir .", func() error { return inside.rmdir(".") })
	w.refused(linux.EINVAL, "rmdir ..", func() error { return inside.rmdir("..") })
	w.refused(linux.EBUSY, "rename the root", func() error { return r.Rename(r, "y") })
	w.refused(linux.EINVAL, "rename .", func() error { return r.RenameAt(".", r, "y") })
	w.refused(linux.EINVAL, "rename ..", func() error { return r.RenameAt("..", r, "y") })
}

func TestHierarchyOfAttachesEndsWithTheLastFid(t *testing.T) {
	w := newWorld(t)
	k := w.as(root)
	open := func(c *Caller, aname string) p9.File {
		t.Helper()
		f, err := w.fs.Attach(c, aname)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	walk := func(f p9.File, names ...string) p9.File {
		t.Helper()
		_, to, err := f.Walk(names)
		if err != nil {
			t.Fatal(err)
		}
		return to
	}
	a := open(root, "alpha")
	byName, byOptions := open(alice, "alpha"), open(alice, "alpha,name=alpha")
	fromTop := walk(k.root, "alpha", "tasks")
	clone := walk(a)
	for _, f := range []p9.File{a, byName, byOptions, clone} {
		f.Close()
		k.want("ctl", "alpha alpha\n")
	}
	fromTop.Close()
	k.want("ctl", "")

	// With children it is unmounted, and stays.
	a = open(root, "alpha")
	if _, err := a.Mkdir("c", 0o755, 0, 0); err != nil {
		t.Fatal(err)
	}
	inC := walk(a, "c")
	a.Close()
	k.want("ctl", "alpha alpha\n")
	inC.Close()
	k.want("ctl", "alpha alpha (unmounted)\n")
	a = open(root, "alpha")
	k.want("ctl", "alpha alpha\n")

	// A mount of its own outlives the fids, and an unmount ends both.
	w.mount("mount m beta")
	open(root, "beta").Close()
	k.want("ctl", "alpha alpha\nm beta,name=m\n")
	w.mount("umount alpha")
	if err := a.UnlinkAt("c", atRemovedir); err != nil {
		t.Fatal(err)
	}
	k.want("ctl", "m beta,name=m\n")
	a.Close()

	// What a walk failed to reach, or an open, is not held.
	a = open(root, "cpuset")
	if _, _, err := a.Walk([]string{"tasks", "x"}); errno(err) != linux.ENOTDIR {
		t.Error(err)
	}
	a.Close()
	k.want("ctl", "m beta,name=m\n")
}

// TestLastFidWaitsForNoChange shows that clunks do not queue behind a slow change
// when there is nothing to unmount.
func TestLastFidWaitsForNoChange(t *testing.T) {
	w := newWorld(t)
	w.mount("mount m alpha")
	f, err := w.fs.Attach(root, "m")
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	w.tree.Change(func() error {
		go func() { f.Close(); close(closed) }()
		within(t, "clunk", closed)
		return nil
	})
}

// TestAttachWhileTheLastFidGoes has a client come between the last clunk and the
// unmount that it asks for.
func TestAttachWhileTheLastFidGoes(t *testing.T) {
	w := newWorld(t)
	last, err := w.fs.Attach(root, "alpha")
	if err != nil {
		t.Fatal(err)
	}
	var comes p9.File
	w.inOrder(last.Close, func() error { comes, err = w.fs.Attach(alice, "alpha"); return err })
	if err != nil {
		t.Fatal(err)
	}
	w.as(root).want("ctl", "alpha alpha\n")
	if _, f, err := comes.Walk([]string{"tasks"}); err != nil {
		t.Errorf("walk: %v", err)
	} else {
		f.Close()
	}
	comes.Close()
	w.as(root).want("ctl", "")
}
