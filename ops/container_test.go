package ops

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
)

// aWorld has a hierarchy m with a container a.
func aWorld(t testing.TB, with ...configure) (*world, *client) {
	t.Helper()
	w := newWorld(t, with...)
	w.mount("mount m alpha,cpuset")
	k := w.as(root)
	k.must(k.mkdir("m/a"))
	return w, k
}

func TestContainerNames(t *testing.T) {
	w, k := aWorld(t)
	dir, err := k.walk("m/a")
	k.must(err)
	defer dir.Close()
	for _, name := range []string{
		"b", " ", "a b", "=", "a=b", "\"", "\\", "ä", "名前", "-", "...", ".a", "a.", "~", "a,b+c", "ctl", "proc", "0",
		"\u2028", "\u200b", strings.Repeat("n", 255), strings.Repeat("ä", 127),
		"\xff", "a\x85b", "\xc3", // no UTF-8, but bytes that are no control characters
	} {
		if _, err := dir.Mkdir(name, 0o755, 0, 0); err != nil {
			t.Errorf("mkdir %q: %v", name, err)
			continue
		}
		if _, f, err := dir.Walk([]string{name}); err != nil {
			t.Errorf("walk %q: %v", name, err)
		} else {
			f.Close()
		}
		if got := k.names("m/a"); got[len(got)-1] != name {
			t.Errorf("%q is listed as %q", name, got[len(got)-1])
		}
		if err := dir.RenameAt(name, dir, "z"); err != nil {
			t.Errorf("rename %q: %v", name, err)
		}
		if err := dir.RenameAt("z", dir, name); err != nil {
			t.Errorf("rename z to %q: %v", name, err)
		}
		if err := dir.UnlinkAt(name, atRemovedir); err != nil {
			t.Errorf("rmdir %q: %v", name, err)
		}
	}
	if _, err := dir.Mkdir("b", 0o755, 0, 0); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]linux.Errno{
		"": linux.EINVAL, ".": linux.EINVAL, "..": linux.EINVAL, "/": linux.EINVAL, "a/b": linux.EINVAL, "/a": linux.EINVAL, "b/": linux.EINVAL,
		"a\nb": linux.EINVAL, "\n": linux.EINVAL, "a\x00": linux.EINVAL, "\x01": linux.EINVAL, "\x1f": linux.EINVAL, "\x7f": linux.EINVAL,
		"\t": linux.EINVAL, "\r": linux.EINVAL, "\x1b[2J": linux.EINVAL, "\u0085": linux.EINVAL, "\u009b": linux.EINVAL,
		strings.Repeat("n", 256): linux.ENAMETOOLONG, strings.Repeat("ä", 128): linux.ENAMETOOLONG, strings.Repeat("/", 256): linux.ENAMETOOLONG,
		"tasks": linux.EEXIST, "kill": linux.EEXIST, "alpha.value": linux.EEXIST, "cpuset.weight": linux.EEXIST, "b": linux.EEXIST,
	} {
		w.refused(want, fmt.Sprintf("mkdir %.20q", name), func() error { _, err := dir.Mkdir(name, 0o755, 0, 0); return err })
		if name == "b" {
			continue
		}
		w.refused(want, fmt.Sprintf("rename to %.20q", name), func() error { return dir.RenameAt("b", dir, name) })
	}
	// A root has other files than a child.
	w.refused(linux.EEXIST, "release_agent", func() error { return k.mkdir("m/release_agent") })
	k.must(k.mkdir("m/kill"))
	k.must(k.mkdir("m/a/release_agent"))
}

func TestMkdir(t *testing.T) {
	w, k := aWorld(t)
	k.must(k.write("m/a/notify_on_release", "1"))
	k.must(k.mkdirMode("m/a/b", 0o7750))
	if a, err := k.attr("m/a/b"); err != nil || a.Mode != p9.ModeDirectory|0o750 || a.UID != 0 || a.NLink != 2 {
		t.Errorf("attributes %v, %v", a, err)
	}
	k.want("m/a/b/notify_on_release", "1\n")
	k.want("m/a/b/tasks", "")
	k.want("m/a/b/alpha.value", "0\n")
	k.must(k.chmod("m/a", 0o777))
	al := w.as(alice)
	al.must(al.mkdirMode("m/a/c", 0o700))
	for _, path := range []string{"m/a/c", "m/a/c/tasks", "m/a/c/alpha.value"} {
		if a, err := k.attr(path); err != nil || a.UID != 1000 || a.GID != 100 {
			t.Errorf("%s of alice's belongs to %d:%d, %v", path, a.UID, a.GID, err)
		}
	}
	nobody := w.as(&Caller{UID: 3000, Local: true})
	nobody.must(nobody.mkdir("m/a/d"))
	if a, _ := k.attr("m/a/d"); a.GID != 65534 {
		t.Errorf("of who has no group: gid %d", a.GID)
	}
	w.refused(linux.EPERM, "in /", func() error { return k.mkdir("x") })
	w.refused(linux.EPERM, "existing in /", func() error { return k.mkdir("m") })
	w.refused(linux.EPERM, "in proc", func() error { return k.mkdir("proc/x") })
	w.refused(linux.EEXIST, "existing", func() error { return k.mkdir("m/a") })

	// What exists is EEXIST for who may look, whatever else stands in the way.
	w.refused(linux.EEXIST, "existing, no permission", func() error { return al.mkdir("m/a") })
	w.refused(linux.EEXIST, "existing file, no permission", func() error { return al.mkdir("m/tasks") })
	w.refused(linux.EACCES, "no permission", func() error { return al.mkdir("m/x") })
	bo := w.as(bob)
	dir, err := bo.walk("m/a/c")
	bo.must(err)
	defer dir.Close()
	for _, name := range []string{"tasks", "x"} {
		w.refused(linux.EACCES, "no search permission", func() error { _, err := dir.Mkdir(name, 0o755, 0, 0); return err })
	}
}

func TestMkdirIsAllOrNothing(t *testing.T) {
	w, k := aWorld(t)
	w.subs[2].create = syscall.ENOLCK
	w.refused(linux.ENOLCK, "create fails", func() error { return k.mkdir("m/a/b") })
	w.subs[2].create = nil
	k.must(k.mkdir("m/a/b"))
}

func TestLongestPath(t *testing.T) {
	w, k := aWorld(t)
	dir, err := k.walk("m/a")
	k.must(err)
	length := len("/a")
	for length+256 <= 4095 {
		if _, err := dir.Mkdir(strings.Repeat("n", 255), 0o755, 0, 0); err != nil {
			t.Fatal(err)
		}
		_, next, err := dir.Walk([]string{strings.Repeat("n", 255)})
		k.must(err)
		dir.Close()
		dir = next
		length += 256
	}
	defer dir.Close()
	fits := strings.Repeat("m", 4095-length-1)
	w.refused(linux.ENAMETOOLONG, "mkdir", func() error { _, err := dir.Mkdir(fits+"m", 0o755, 0, 0); return err })
	_, err = dir.Mkdir(fits, 0o755, 0, 0)
	k.must(err)
	w.refused(linux.ENAMETOOLONG, "rename far above", func() error { return k.rename("m/a", "m/aa") })
	k.must(k.rename("m/a", "m/b"))
	w.refused(linux.ENAMETOOLONG, "rename", func() error { return dir.RenameAt(fits, dir, fits+"m") })
	k.must(dir.RenameAt(fits, dir, fits[1:]))
	k.must(dir.RenameAt(fits[1:], dir, fits))
}

func TestRmdir(t *testing.T) {
	w, k := aWorld(t)
	k.must(k.mkdir("m/a/b"))
	pid := w.fork(0)
	k.must(k.write("m/a/b/tasks", fmt.Sprint(pid)))
	w.refused(linux.EBUSY, "with children", func() error { return k.rmdir("m/a") })
	w.refused(linux.EBUSY, "with tasks", func() error { return k.rmdir("m/a/b") })
	w.refused(linux.EBUSY, "a hierarchy", func() error { return k.rmdir("m") })
	w.refused(linux.EBUSY, "a hierarchy by its fid", func() error { return remove(k, "m") })
	w.refused(linux.EPERM, "proc", func() error { return k.rmdir("proc") })
	w.refused(linux.EPERM, "proc by its fid", func() error { return remove(k, "proc") })
	w.refused(linux.EPERM, "proc/1", func() error { return k.rmdir("proc/1") })
	w.refused(linux.ENOENT, "a process that there is not", func() error { return k.rmdir("proc/12345") })
	w.refused(linux.ENOENT, "a process that there is not, renamed", func() error { return k.rename("proc/12345", "x") })
	w.refused(linux.EPERM, "the root", func() error { return remove(k, "") })
	w.refused(linux.ENOENT, "what is not there", func() error { return k.rmdir("m/a/x") })
	w.refused(linux.ENOTDIR, "a file", func() error { return k.rmdir("m/a/tasks") })
	w.refused(linux.ENOTDIR, "ctl", func() error { return k.rmdir("ctl") })
	w.refused(linux.EPERM, "unlink of a file", func() error { return k.unlink("m/a/tasks") })
	w.refused(linux.EPERM, "unlink of a file by its fid", func() error { return remove(k, "m/a/alpha.value") })
	w.refused(linux.EPERM, "unlink of ctl", func() error { return k.unlink("ctl") })
	w.refused(linux.EISDIR, "unlink of a container", func() error { return k.unlink("m/a") })
	al := w.as(alice)
	w.refused(linux.EPERM, "unlink of a file by another", func() error { return al.unlink("m/a/tasks") })

	c := w.container("m/a/b")
	w.host.Exit(pid) // nobody has told the model
	c.Get()
	w.refused(linux.EBUSY, "with a reference", func() error { return k.rmdir("m/a/b") })
	c.Put()
	w.refused(linux.EACCES, "without permission", func() error { return al.rmdir("m/a/b") })
	k.must(k.rmdir("m/a/b"))
	w.refused(linux.ENOENT, "again", func() error { return k.rmdir("m/a/b") })
	k.must(remove(k, "m/a"))
}

// remove is Tremove of a path.
func remove(k *client, path string) error {
	f, err := k.walk(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.(*file).Remove()
}

func TestWhatCannotBeMade(t *testing.T) {
	w, k := aWorld(t)
	for _, path := range []string{"", "m", "m/a", "proc"} {
		f, err := k.walk(path)
		k.must(err)
		w.refused(linux.EACCES, "create", func() error { _, _, _, err := f.Create("x", p9.ReadWrite, 0o644, 0, 0); return err })
		w.refused(linux.EPERM, "symlink", func() error { _, err := f.Symlink("/", "x", 0, 0); return err })
		w.refused(linux.EPERM, "link", func() error { return f.Link(f, "x") })
		w.refused(linux.EPERM, "mknod", func() error { _, err := f.Mknod("x", 0o644, 0, 0, 0, 0); return err })
		w.refused(linux.EINVAL, "readlink", func() error { _, err := f.Readlink(); return err })
		w.refused(linux.EOPNOTSUPP, "setxattr", func() error { return f.SetXattr("user.x", nil, 0) })
		w.refused(linux.EOPNOTSUPP, "getxattr", func() error { _, err := f.GetXattr("security.capability"); return err })
		w.refused(linux.EOPNOTSUPP, "listxattr", func() error { _, err := f.ListXattrs(); return err })
		w.refused(linux.EOPNOTSUPP, "removexattr", func() error { return f.RemoveXattr("user.x") })
		w.refused(linux.EISDIR, "read", func() error { _, err := f.ReadAt(make([]byte, 1), 0); return err })
		w.refused(0, "fsync", f.FSync)
		f.Close()
	}
	f, err := k.walk("m/a/tasks")
	k.must(err)
	defer f.Close()
	w.refused(linux.ENOTDIR, "readdir of a file", func() error { _, err := f.Readdir(0, 10); return err })
}

// TestRemovedContainerIsENODEV asks a fid in a removed container for everything.
func TestRemovedContainerIsENODEV(t *testing.T) {
	w, k := aWorld(t)
	k.must(k.mkdir("m/a/b"))
	dir, err := k.walk("m/a/b")
	k.must(err)
	defer dir.Close()
	listing, err := k.open("m/a/b", p9.ReadOnly)
	k.must(err)
	defer listing.Close()
	var files []p9.File
	for _, name := range k.names("m/a/b") {
		for _, flags := range []p9.OpenFlags{p9.ReadOnly, p9.ReadWrite} {
			f, err := k.open("m/a/b/"+name, flags)
			k.must(err)
			defer f.Close()
			files = append(files, f)
		}
	}
	unopened, err := k.walk("m/a/b/alpha.value")
	k.must(err)
	defer unopened.Close()
	k.must(k.rmdir("m/a/b"))
	k.must(k.mkdir("m/a/b")) // another of the same name

	b := make([]byte, 10)
	big := make([]byte, MaxWrite+1)
	check := func(what string, do func() error) {
		t.Helper()
		w.refused(linux.ENODEV, what, do)
	}
	check("fsync", func() error { return files[0].FSync() })
	check("lock", func() error { _, err := files[0].Lock(1, p9.WriteLock, 0, 0, 0, ""); return err })
	check("walk", func() error { _, _, err := dir.Walk([]string{"tasks"}); return err })
	check("walk ..", func() error { _, _, err := dir.Walk([]string{".."}); return err })
	check("getattr", func() error { _, _, _, err := dir.GetAttr(p9.AttrMask{}); return err })
	check("setattr", func() error {
		return dir.SetAttr(p9.SetAttrMask{Permissions: true}, p9.SetAttr{Permissions: 0o777})
	})
	check("truncate", func() error { return unopened.SetAttr(p9.SetAttrMask{Size: true}, p9.SetAttr{}) })
	check("mkdir", func() error { _, err := dir.Mkdir("x", 0o755, 0, 0); return err })
	check("mkdir of a bad name", func() error { _, err := dir.Mkdir("\n", 0o755, 0, 0); return err })
	check("create", func() error { _, _, _, err := dir.Create("x", 0, 0o644, 0, 0); return err })
	check("symlink", func() error { _, err := dir.Symlink("x", "y", 0, 0); return err })
	check("mknod", func() error { _, err := dir.Mknod("x", 0, 0, 0, 0, 0); return err })
	check("link", func() error { return dir.Link(unopened, "x") })
	check("rmdir in it", func() error { return dir.UnlinkAt("x", atRemovedir) })
	check("rename in it", func() error { return dir.RenameAt("x", dir, "y") })
	check("remove", dir.(*file).Remove)
	check("rename", func() error { return dir.Rename(k.parentOf("m/a/b"), "y") })
	check("open", func() error { _, _, err := dir.Open(p9.ReadOnly); return err })
	check("open a file", func() error { _, _, err := unopened.Open(p9.ReadOnly); return err })
	check("readdir", func() error { _, err := listing.Readdir(0, 10); return err })
	check("readdir on", func() error { _, err := listing.Readdir(5, 10); return err })
	check("statfs", func() error { _, err := dir.StatFS(); return err })
	for _, f := range files {
		name := f.(*file).n.(controlFile).r.name
		if name != "tasks" && name != "procs" {
			check("read "+name, func() error { _, err := f.ReadAt(b, 0); return err })
		}
		check("write "+name, func() error { _, err := f.WriteAt([]byte("x"), 0); return err })
		check("write too much "+name, func() error { _, err := f.WriteAt(big, 0); return err })
		check("getattr "+name, func() error { _, _, _, err := f.GetAttr(p9.AttrMask{}); return err })
	}
}

// parentOf is the directory of a path's last element, for as long as the test.
func (k *client) parentOf(path string) p9.File {
	dir, _, err := k.parent(path)
	k.must(err)
	k.t.Cleanup(func() { dir.Close() })
	return dir
}
