package ops

import (
	"fmt"
	"testing"
	"time"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
)

// TestModeBits asks for everything that a mode decides, as the owner, one of the
// group, and anybody else, with the one bit that it takes and with all others.
func TestModeBits(t *testing.T) {
	w, k := aWorld(t)
	k.must(k.mkdir("m/a/b"))
	k.must(k.mkdir("m/a/b/c"))
	carol := &Caller{UID: 3000, GIDs: []uint32{300}, Local: true}
	k.must(k.chmod("m/a/b/alpha.value", 0o666))
	for who, c := range map[uint]*Caller{6: alice, 3: bob, 0: carol} {
		// b belongs to alice and to the group that bob is in as well.
		k.must(k.chown("m/a/b", 1000, 7))
		u := w.as(c)
		dir, err := u.walk("m/a/b")
		u.must(err)
		for _, test := range []struct {
			what  string
			needs p9.FileMode
			do    func() error
		}{
			{"list", 4, func() error { _, err := u.list("m/a/b", 10); return err }},
			{"walk", 1, func() error { _, err := u.walk("m/a/b/tasks"); return err }},
			{"walk through", 1, func() error { _, err := u.walk("m/a/b/c/tasks"); return err }},
			{"walk ..", 1, func() error { _, err := u.walk("m/a/b/.."); return err }},
			{"walk .", 1, func() error { _, err := u.walk("m/a/b/."); return err }},
			{"mkdir", 3, func() error { _, err := dir.Mkdir("n", 0o755, 0, 0); return err }},
			{"rename", 3, func() error { return dir.RenameAt("c", dir, "z") }},
			{"rmdir", 3, func() error { return dir.UnlinkAt("c", atRemovedir) }},
			{"read", 1, func() error { _, err := u.read("m/a/b/alpha.value"); return err }},
			{"write", 1, func() error { return u.write("m/a/b/alpha.value", "1") }},
			{"getattr", 0, func() error { _, _, _, err := dir.GetAttr(p9.AttrMask{}); return err }},
		} {
			name := fmt.Sprintf("%s as the %d bits", test.what, who)
			for bit := range p9.FileMode(3) {
				if missing := p9.FileMode(1) << bit; test.needs&missing != 0 {
					k.must(k.chmod("m/a/b", 0o777&^(missing<<who)))
					w.refused(linux.EACCES, fmt.Sprintf("%s without %o", name, missing), test.do)
				}
			}
			k.must(k.chmod("m/a/b", test.needs<<who)) // and nothing for anybody else
			if err := test.do(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			k.must(k.chmod("m/a/b", 0o777))
			// What was made, renamed or removed is put back.
			k.rename("m/a/b/z", "m/a/b/c")
			k.mkdir("m/a/b/c")
			k.rmdir("m/a/b/n")
		}
		// A file's own mode, at open.
		k.must(k.chown("m/a/b/alpha.value", 1000, 7))
		for flags, needs := range map[p9.OpenFlags]p9.FileMode{p9.ReadOnly: 4, p9.WriteOnly: 2, p9.ReadWrite: 6} {
			open := func() error {
				f, err := u.open("m/a/b/alpha.value", flags)
				if err == nil {
					f.Close()
				}
				return err
			}
			for bit := range p9.FileMode(3) {
				if missing := p9.FileMode(1) << bit; needs&missing != 0 {
					k.must(k.chmod("m/a/b/alpha.value", 0o777&^(missing<<who)))
					w.refused(linux.EACCES, fmt.Sprintf("open %d as the %d bits without %o", flags, who, missing), open)
				}
			}
			k.must(k.chmod("m/a/b/alpha.value", needs<<who))
			if err := open(); err != nil {
				t.Errorf("open %d as the %d bits with %o: %v", flags, who, needs, err)
			}
		}
		k.must(k.chown("m/a/b/alpha.value", 0, 0))
		k.must(k.chmod("m/a/b/alpha.value", 0o666))
		dir.Close()
	}
	for _, c := range []*Caller{root, netRoot} {
		k.must(k.chmod("m/a/b", 0))
		k.must(k.chmod("m/a/b/alpha.value", 0))
		r := w.as(c)
		r.must(r.write("m/a/b/alpha.value", "1"))
		r.must(r.mkdir("m/a/b/n"))
		r.must(r.rmdir("m/a/b/n"))
	}
}

func TestChange(t *testing.T) {
	w, k := aWorld(t)
	k.must(k.mkdir("m/a/b"))
	perm := func(mode p9.FileMode) (p9.SetAttrMask, p9.SetAttr) {
		return p9.SetAttrMask{Permissions: true}, p9.SetAttr{Permissions: mode}
	}
	al, bo := w.as(alice), w.as(bob)
	for _, path := range []string{"m/a/b", "m/a/b/alpha.value", "m/a/b/tasks"} {
		k.must(k.chown(path, 1000, 100))
		refused := func(want linux.Errno, what string, who *client, valid p9.SetAttrMask, a p9.SetAttr) {
			t.Helper()
			w.refused(want, what+" of "+path, func() error { return who.setattr(path, valid, a) })
		}
		v, a := perm(0o777)
		refused(linux.EPERM, "chmod by another", bo, v, a)
		refused(linux.EPERM, "chown by another", bo, p9.SetAttrMask{UID: true}, p9.SetAttr{UID: 2000})
		refused(linux.EPERM, "chown by the owner", al, p9.SetAttrMask{UID: true}, p9.SetAttr{UID: 2000})
		refused(linux.EPERM, "chgrp to no group of his", al, p9.SetAttrMask{GID: true}, p9.SetAttr{GID: 200})
		refused(linux.EPERM, "chgrp by another, in both groups", bo, p9.SetAttrMask{GID: true}, p9.SetAttr{GID: 7})
		refused(linux.EPERM, "all of it for one part", al, p9.SetAttrMask{Permissions: true, UID: true}, p9.SetAttr{Permissions: 0o777, UID: 5})
		refused(linux.EPERM, "utimes by another", bo, p9.SetAttrMask{MTime: true, MTimeNotSystemTime: true}, p9.SetAttr{MTimeSeconds: 5})
		refused(linux.EPERM, "atime by another", bo, p9.SetAttrMask{ATime: true, ATimeNotSystemTime: true}, p9.SetAttr{})
		refused(linux.EACCES, "touch by who may not write", bo, p9.SetAttrMask{MTime: true, ATime: true}, p9.SetAttr{})
		refused(linux.EACCES, "touch -a by who may not write", bo, p9.SetAttrMask{ATime: true}, p9.SetAttr{})
		refused(linux.EACCES, "touch -m by who may not write", bo, p9.SetAttrMask{MTime: true}, p9.SetAttr{})
		refused(linux.EINVAL, "size", k, p9.SetAttrMask{Size: true}, p9.SetAttr{Size: 1})
		refused(linux.EINVAL, "a bad time", k, p9.SetAttrMask{MTime: true, MTimeNotSystemTime: true}, p9.SetAttr{MTimeNanoSeconds: 1e9})
		refused(0, "truncation", al, p9.SetAttrMask{Size: true}, p9.SetAttr{})
		refused(0, "O_TRUNC", al, p9.SetAttrMask{Size: true, MTime: true, CTime: true}, p9.SetAttr{})
		refused(0, "nothing", bo, p9.SetAttrMask{}, p9.SetAttr{})
		refused(0, "ctime", bo, p9.SetAttrMask{CTime: true}, p9.SetAttr{})

		al.must(al.chmod(path, 0o7602))
		al.must(al.setattr(path, p9.SetAttrMask{GID: true}, p9.SetAttr{GID: 7}))
		al.must(al.setattr(path, p9.SetAttrMask{UID: true}, p9.SetAttr{UID: 1000})) // no change
		got, err := k.attr(path)
		if err != nil || got.Mode.Permissions() != 0o602 || got.UID != 1000 || got.GID != 7 {
			t.Errorf("%s: %v, %v", path, got, err)
		}
		for _, sec := range []int64{0, 1, 1e9, -1, -1e9, 1 << 33, -1 << 33} {
			al.must(al.setattr(path, p9.SetAttrMask{MTime: true, MTimeNotSystemTime: true},
				p9.SetAttr{MTimeSeconds: uint64(sec), MTimeNanoSeconds: 999999999}))
			if got, _ := k.attr(path); int64(got.MTimeSeconds) != sec || got.MTimeNanoSeconds != 999999999 {
				t.Errorf("%s: mtime %d is %d.%d", path, sec, int64(got.MTimeSeconds), got.MTimeNanoSeconds)
			}
		}
		// atime is mtime until it is set, or mtime is without it.
		times := func(atime, mtime uint64) {
			t.Helper()
			if got, _ := k.attr(path); got.ATimeSeconds != atime || got.MTimeSeconds != mtime {
				t.Errorf("%s: atime %d, mtime %d, want %d, %d", path, got.ATimeSeconds, got.MTimeSeconds, atime, mtime)
			}
		}
		set := func(atime, mtime bool, a p9.SetAttr) {
			t.Helper()
			al.must(al.setattr(path, p9.SetAttrMask{ATime: atime, ATimeNotSystemTime: atime, MTime: mtime, MTimeNotSystemTime: mtime}, a))
		}
		al.must(al.setattr(path, p9.SetAttrMask{MTime: true, ATime: true}, p9.SetAttr{}))
		if got, _ := k.attr(path); got.ATimeSeconds != got.MTimeSeconds || got.ATimeNanoSeconds != got.MTimeNanoSeconds {
			t.Errorf("%s: touched at %d, %d", path, got.ATimeSeconds, got.MTimeSeconds)
		}
		set(false, true, p9.SetAttr{MTimeSeconds: 7})
		if got, _ := k.attr(path); time.Since(time.Unix(int64(got.ATimeSeconds), 0)) > time.Hour || got.MTimeSeconds != 7 {
			t.Errorf("%s: mtime alone is set: atime %d, mtime %d", path, got.ATimeSeconds, got.MTimeSeconds)
		}
		set(true, true, p9.SetAttr{ATimeSeconds: 5, MTimeSeconds: 7})
		times(5, 7)
		set(false, true, p9.SetAttr{MTimeSeconds: 9})
		times(5, 9)
		set(true, false, p9.SetAttr{ATimeSeconds: 3, ATimeNanoSeconds: 999999999})
		times(3, 9)
		al.must(al.chmod(path, 0o602))
		times(3, 9)
		refused(linux.EINVAL, "a bad atime", k, p9.SetAttrMask{ATime: true, ATimeNotSystemTime: true}, p9.SetAttr{ATimeNanoSeconds: 1e9})
		refused(linux.EINVAL, "nobody's uid", k, p9.SetAttrMask{UID: true}, p9.SetAttr{UID: 1<<32 - 1})
		refused(linux.EINVAL, "no group", k, p9.SetAttrMask{GID: true}, p9.SetAttr{GID: 1<<32 - 1})
		times(3, 9)

		// Of now is the one that is asked for, and the other as it was.
		recent := func(sec uint64) bool { return time.Since(time.Unix(int64(sec), 0)) < time.Hour }
		al.must(al.setattr(path, p9.SetAttrMask{MTime: true}, p9.SetAttr{}))
		if got, _ := k.attr(path); got.ATimeSeconds != 3 || !recent(got.MTimeSeconds) {
			t.Errorf("%s: touch -m: atime %d, mtime %d", path, got.ATimeSeconds, got.MTimeSeconds)
		}
		set(false, true, p9.SetAttr{MTimeSeconds: 9})
		al.must(al.setattr(path, p9.SetAttrMask{ATime: true}, p9.SetAttr{}))
		if got, _ := k.attr(path); got.MTimeSeconds != 9 || !recent(got.ATimeSeconds) {
			t.Errorf("%s: touch -a: atime %d, mtime %d", path, got.ATimeSeconds, got.MTimeSeconds)
		}
		al.must(al.setattr(path, p9.SetAttrMask{ATime: true, MTime: true, MTimeNotSystemTime: true}, p9.SetAttr{MTimeSeconds: 8}))
		if got, _ := k.attr(path); got.MTimeSeconds != 8 || !recent(got.ATimeSeconds) {
			t.Errorf("%s: atime of now, mtime not: %d, %d", path, got.ATimeSeconds, got.MTimeSeconds)
		}

		// A time out of reach is the nearest one.
		al.must(al.setattr(path, p9.SetAttrMask{MTime: true, MTimeNotSystemTime: true}, p9.SetAttr{MTimeSeconds: 1<<63 - 1}))
		if got, _ := k.attr(path); got.MTimeSeconds != maxSeconds {
			t.Errorf("%s: the last time is %d", path, got.MTimeSeconds)
		}
		k.must(k.chmod(path, 0o626))
		bo.must(bo.setattr(path, p9.SetAttrMask{MTime: true, ATime: true}, p9.SetAttr{}))
		if got, _ := k.attr(path); time.Since(time.Unix(int64(got.MTimeSeconds), 0)) > time.Minute {
			t.Errorf("%s: touched at %d", path, got.MTimeSeconds)
		}
		k.must(k.chmod(path, 0o755))
	}
	for _, path := range []string{"", "ctl", "containers", "proc", "proc/1", "proc/1/container"} {
		for _, u := range []*client{k, al} {
			w.refused(linux.EPERM, "chmod of "+path, func() error { return u.chmod(path, 0o777) })
			w.refused(linux.EPERM, "chown of "+path, func() error { return u.chown(path, 1, 1) })
		}
		w.refused(0, "truncate "+path, func() error { return k.setattr(path, p9.SetAttrMask{Size: true}, p9.SetAttr{}) })
		w.refused(0, "O_TRUNC of "+path, func() error {
			return k.setattr(path, p9.SetAttrMask{Size: true, MTime: true, CTime: true}, p9.SetAttr{})
		})
	}
}

// TestDelegation gives a subtree to another user, who then needs nobody.
func TestDelegation(t *testing.T) {
	w, k := aWorld(t)
	k.must(k.chown("m/a", 1000, 100))
	for _, c := range []*Caller{alice, netA} {
		u := w.as(c)
		u.must(u.mkdir("m/a/b"))
		u.must(u.write("m/a/b/alpha.value", "1\n"))
		u.must(u.write("m/a/b/notify_on_release", "1\n"))
		u.must(u.write("m/a/b/max.depth", "4"))
		w.refused(linux.EACCES, "a file of what was given", func() error { return u.write("m/a/alpha.value", "1") })
		w.refused(linux.EACCES, "tasks of what was given", func() error { return u.write("m/a/tasks", "1") })
		w.refused(linux.EACCES, "beside it", func() error { return u.mkdir("m/b") })
		w.refused(linux.EACCES, "itself", func() error { return u.rmdir("m/a") })
		u.must(u.rmdir("m/a/b"))
	}
	k.must(k.chown("m/a/tasks", 1000, 100))
	al := w.as(alice)
	al.must(al.mkdir("m/a/b"))
	pid := w.fork(1000)
	al.must(al.write("m/a/tasks", fmt.Sprint(pid)))
	al.must(al.write("m/a/b/procs", fmt.Sprint(pid)))
	k.want("m/a/b/tasks", fmt.Sprintln(pid))
}
