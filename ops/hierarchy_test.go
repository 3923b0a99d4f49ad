package ops

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"containerfs/tree"
)

// TestOptionStrings has a row per rule of SPEC §1's table.
func TestOptionStrings(t *testing.T) {
	agent := "/" + strings.Repeat("a", maxAgent-1)
	for _, test := range []struct {
		opts string
		want linux.Errno
		show string
	}{
		{"all", 0, "alpha,beta,cpuset,delta"},
		{"alpha", 0, "alpha"},
		{"beta,alpha", 0, "alpha,beta"},
		{"beta+alpha", 0, "alpha,beta"},
		{"alpha,alpha+alpha", 0, "alpha"},
		{"alpha,all", 0, "alpha,beta,cpuset,delta"},
		{"alpha,noprefix", 0, "alpha,noprefix"},
		{"noprefix,noprefix,alpha", 0, "alpha,noprefix"},
		{"alpha,name=m", 0, "alpha"},
		{"alpha,release_agent=/x", 0, "alpha,release_agent=/x"},
		{"alpha,release_agent=", 0, "alpha"},
		{"alpha,release_agent=/x=y", 0, "alpha,release_agent=/x=y"},
		{"alpha,release_agent=" + agent, 0, "alpha,release_agent=" + agent},

		{"", linux.EINVAL, ""},
		{",alpha", linux.EINVAL, ""},
		{"alpha,", linux.EINVAL, ""},
		{"alpha+", linux.EINVAL, ""},
		{"alpha,,beta", linux.EINVAL, ""},
		{"alpha,+beta", linux.EINVAL, ""},
		{"noprefix", linux.EINVAL, ""},
		{"name=m", linux.EINVAL, ""},
		{"release_agent=/x", linux.EINVAL, ""},
		{"Alpha", linux.ENOENT, ""},
		{"alph", linux.ENOENT, ""},
		{"alpha=", linux.ENOENT, ""},
		{"name", linux.ENOENT, ""},
		{"none", linux.ENOENT, ""},
		{"ALL", linux.ENOENT, ""},
		{"alpha,name=m,name=m", linux.EINVAL, ""},
		{"alpha,name=", linux.EINVAL, ""},
		{"alpha,name=a/b", linux.EINVAL, ""},
		{"alpha,name=.m", linux.EINVAL, ""},
		{"alpha,name=-m", linux.EINVAL, ""},
		{"alpha,name=_m", linux.EINVAL, ""},
		{"alpha,name=" + strings.Repeat("n", 51), linux.EINVAL, ""},
		{"alpha,name=other", linux.EINVAL, ""}, // ctl says another
		{"alpha,release_agent=/x,release_agent=/x", linux.EINVAL, ""},
		{"alpha,release_agent=,release_agent=", linux.EINVAL, ""},
		{"alpha,release_agent=x", linux.EINVAL, ""},
		{"alpha,release_agent=" + agent + "a", linux.ENAMETOOLONG, ""},

		// The first error wins.
		{"bogus,", linux.ENOENT, ""},
		{",bogus", linux.EINVAL, ""},
		{"name=/,bogus", linux.EINVAL, ""},
		{"bogus,name=/", linux.ENOENT, ""},
		{"release_agent=x,bogus", linux.EINVAL, ""},
		{"release_agent=" + agent + "a,bogus", linux.ENAMETOOLONG, ""},

		// Two files of one name.
		{"alpha,beta,noprefix", linux.EINVAL, ""},
		{"delta,noprefix", linux.EINVAL, ""},
	} {
		t.Run(test.opts[:min(40, len(test.opts))], func(t *testing.T) {
			w := newWorld(t)
			mount := func() error { return w.as(root).write("ctl", "mount m "+test.opts) }
			if len(test.opts) > 4000 { // longer than a command can be
				mount = func() error { return wire(w.fs.Mount("m", test.opts)) }
			}
			if test.want != 0 {
				w.refused(test.want, test.opts, mount)
				return
			}
			if err := mount(); err != nil {
				t.Fatal(err)
			}
			show := test.show
			if i := strings.Index(show, ",release_agent"); i >= 0 {
				show = show[:i] + ",name=m" + show[i:]
			} else {
				show += ",name=m"
			}
			w.as(root).want("ctl", "m "+show+"\n")
		})
	}
}

func TestNoOptionsAreAll(t *testing.T) {
	w := newWorld(t)
	w.mount("mount m")
	w.as(root).want("ctl", "m alpha,beta,cpuset,delta,name=m\n")
}

// TestAllIsNotWhatStandsApart: ns and the kernel's controllers are there when they are asked for,
// and in a hierarchy when they are named.
func TestAllIsNotWhatStandsApart(t *testing.T) {
	w := newWorld(t, func(c *Config, _ *tree.Config) { c.Apart = []string{"beta", "late"} })
	w.mount("mount m all")
	w.as(root).want("ctl", "m alpha,cpuset,delta,name=m\n")
	w.mount("remount m")
	w.as(root).want("ctl", "m alpha,cpuset,delta,name=m\n")
	w.mount("remount m all,beta")
	w.as(root).want("ctl", "m alpha,beta,cpuset,delta,name=m\n")
}

func TestUnnamedHierarchyHasItsCanonicalName(t *testing.T) {
	w := newWorld(t)
	w.attach(root, "noprefix,cpuset+alpha")
	w.attach(root, "beta")
	w.as(root).want("ctl", "alpha+cpuset+noprefix alpha,cpuset,noprefix\nbeta beta\n")
	w.as(root).want("alpha+cpuset+noprefix/weight", "0\n")
}

// TestCanonicalNameIsTaken: a hierarchy that only its children keep, and that nobody named, is
// given back by ctl as well.
func TestCanonicalNameIsTaken(t *testing.T) {
	w := newWorld(t)
	k := w.as(root)
	held := w.attach(root, "beta+alpha")
	k.must(held.mkdir("a"))
	k.must(held.root.Close())
	k.want("ctl", "alpha+beta alpha,beta (unmounted)\n")
	for _, words := range []string{"mount beta+alpha alpha,beta", "mount alpha+beta alpha", "mount alpha+beta beta,alpha,noprefix", "mount alpha+beta beta,alpha,name=x"} {
		w.refused(linux.EINVAL, words, func() error { return k.write("ctl", words) })
	}
	k.must(k.write("ctl", "mount alpha+beta beta,alpha"))
	k.want("ctl", "alpha+beta alpha,beta\n")
	k.want("alpha+beta/a/tasks", "")
}

// TestCanonicalNameIsNotGiven: who says to ctl what a hierarchy would be named anyway has not
// given it a name, where that could not be one.
func TestCanonicalNameIsNotGiven(t *testing.T) {
	w := newWorld(t)
	k := w.as(root)
	w.mount("mount alpha+beta alpha,beta")
	k.must(k.write("ctl", "remount alpha+beta beta"))
	k.want("ctl", "beta beta\n")
	k.must(k.write("ctl", "remount beta beta,cpuset"))
	k.want("ctl", "beta+cpuset beta,cpuset\n")
	w.refused(linux.EBUSY, "another name", func() error { return k.write("ctl", "mount m beta,cpuset") })
	w.mount("mount alpha alpha") // one that can be given
	k.must(k.write("ctl", "remount alpha delta"))
	k.want("ctl", "beta+cpuset beta,cpuset\nalpha delta,name=alpha\n")
	w.refused(linux.EBUSY, "what has a name", func() error { return k.write("ctl", "mount delta delta") })
	k.must(k.write("ctl", "umount beta+cpuset"))
	w.mount("mount m beta,cpuset")
	w.refused(linux.EBUSY, "what has another", func() error { return k.write("ctl", "mount beta+cpuset beta,cpuset") })
}

func TestHierarchyNames(t *testing.T) {
	for _, name := range []string{"a", "0", "A.b_c-9", strings.Repeat("n", 50), "all", "alpha", "mount"} {
		w := newWorld(t)
		w.mount("mount " + name + " beta")
		w.as(root).want(name+"/tasks", "1\n")
	}
	w := newWorld(t)
	for _, name := range []string{
		"ctl", "containers", "events", "proc", "rules", "self", "noprefix",
		"", ".", "..", "a\n", "-a", "_a", "a/b", "/a", "a+b", "a,b", "a=b", "a\tb", "a\x00b", "ä", strings.Repeat("n", 51),
	} {
		w.refused(linux.EINVAL, "mount "+name, func() error { return w.as(root).write("ctl", "mount "+name+" beta") })
		if !strings.ContainsAny(name, "+,") {
			w.refused(linux.EINVAL, "attach name="+name, func() error {
				_, err := w.fs.Attach(root, "beta,name="+name)
				return err
			})
		}
	}
}

func TestMountReusesTheSameSet(t *testing.T) {
	w := newWorld(t)
	w.mount("mount m alpha,beta,release_agent=/x")
	k := w.as(root)
	k.must(k.mkdir("m/a"))
	before := w.state()
	w.mount("mount m beta+alpha")
	w.mount("mount m alpha,beta,release_agent=/x")
	w.attach(root, "beta,alpha").want("a/tasks", "")
	w.attach(alice, "beta,alpha").want("a/tasks", "")
	w.attach(alice, "beta,alpha,name=m").want("a/tasks", "")
	if after := w.state(); after != before {
		t.Errorf("changed:\n%s", difference(before, after))
	}
	ctl := func(words string) func() error { return func() error { return k.write("ctl", words) } }
	w.refused(linux.EBUSY, "other name", ctl("mount n alpha,beta"))
	w.refused(linux.EBUSY, "other agent", ctl("mount m alpha,beta,release_agent=/y"))
	w.refused(linux.EBUSY, "no agent", ctl("mount m alpha,beta,release_agent="))
	w.refused(linux.EBUSY, "other set", ctl("mount n alpha"))
	w.refused(linux.EBUSY, "larger set", ctl("mount n alpha,beta,cpuset"))
	w.refused(linux.EBUSY, "other prefix", ctl("mount n alpha,cpuset,noprefix"))
	w.refused(linux.EBUSY, "taken name", ctl("mount m cpuset"))
	w.refused(linux.EBUSY, "taken name in options", func() error {
		_, err := w.fs.Attach(root, "cpuset,name=m")
		return err
	})
}

func TestOnlyThePrivilegedMount(t *testing.T) {
	w := newWorld(t)
	w.mount("mount m alpha")
	k := w.as(root)
	k.must(k.mkdir("m/a"))
	for _, c := range []*Caller{alice, netA} {
		// As ctl's mode says; and where a fid of ctl is had, as SPEC §1 says.
		w.refused(linux.EPERM, "write ctl", func() error { return w.as(c).write("ctl", "mount n beta") })
		for _, words := range []string{"mount n beta", "remount m beta", "umount m", "junk"} {
			w.refused(linux.EPERM, words, func() error {
				f, err := w.as(c).walk("ctl")
				if err != nil {
					return err
				}
				defer f.Close()
				return writeTo(f, words)
			})
		}
		for _, aname := range []string{"beta", "all", "alpha+beta", "alpha,noprefix", "alpha,name=n", "alpha,release_agent=/x"} {
			w.refused(linux.EPERM, "attach "+aname, func() error { _, err := w.fs.Attach(c, aname); return err })
		}
		w.attach(c, "alpha").want("tasks", "1\n")
	}
	// An agent is nothing that a network can give, and its error comes first.
	for _, aname := range []string{"beta,release_agent=/x", "release_agent=/x,bogus", "release_agent=x"} {
		w.refused(linux.EPERM, "attach "+aname, func() error { _, err := w.fs.Attach(netRoot, aname); return err })
		w.refused(linux.EPERM, "attach "+aname, func() error { _, err := w.fs.Attach(alice, aname); return err })
	}
	w.attach(netRoot, "beta").want("beta.value", "0\n")
}

// TestTheServersUserIsPrivileged as root is.
func TestTheServersUserIsPrivileged(t *testing.T) {
	w := newWorld(t)
	w.fs.uid = alice.UID
	for _, c := range []*Caller{alice, netA, root, netRoot} {
		u := w.as(c)
		u.must(u.write("ctl", "mount m alpha"))
		u.must(u.write("ctl", "umount m"))
	}
	w.refused(linux.EPERM, "another's mount", func() error { return w.as(bob).write("ctl", "mount m alpha") })
}

func TestRemount(t *testing.T) {
	w := newWorld(t)
	k := w.as(root)
	w.mount("mount m alpha")
	w.mount("mount n cpuset")
	ctl := func(words string) func() error { return func() error { return k.write("ctl", words) } }
	k.must(k.write("m/alpha.value", "kept\n"))

	w.refused(linux.ENOENT, "unknown", ctl("remount x alpha"))
	w.refused(linux.ENOENT, "bad option", ctl("remount m bogus"))
	w.refused(linux.ENOENT, "options before the name", ctl("remount x bogus"))
	w.refused(linux.EINVAL, "noprefix", ctl("remount m alpha,noprefix"))
	w.refused(linux.EINVAL, "noprefix before busy", ctl("remount m cpuset,noprefix"))
	w.refused(linux.EINVAL, "other name", ctl("remount m alpha,name=y"))
	w.refused(linux.EBUSY, "bound elsewhere", ctl("remount m alpha,cpuset"))
	w.refused(linux.EBUSY, "all, with one bound elsewhere", ctl("remount m"))
	w.refused(linux.EINVAL, "empty option", ctl("remount m "))

	k.must(k.write("ctl", "remount m alpha,beta,release_agent=/x"))
	k.want("ctl", "m alpha,beta,name=m,release_agent=/x\nn cpuset,name=n\n")
	k.want("m/alpha.value", "kept\n")
	k.want("m/beta.value", "0\n")
	k.want("m/release_agent", "/x\n")
	k.must(k.write("m/beta.value", "b\n"))
	k.must(k.write("ctl", "remount m beta"))
	if w.subs[0].bound == w.container("m") || w.subs[1].bound != w.container("m") {
		t.Error("bind was not told where the subsystems are now")
	}
	k.want("m/release_agent", "/x\n") // none was given
	k.must(k.mkdir("m/a"))
	w.refused(linux.EBUSY, "child, equal set", ctl("remount m beta"))
	w.refused(linux.EBUSY, "child", ctl("remount m alpha,beta"))
	w.refused(linux.EINVAL, "noprefix before child", ctl("remount m beta,noprefix"))
	k.must(k.rmdir("m/a"))
	k.must(k.write("ctl", "remount m alpha,beta"))
	k.want("m/alpha.value", "kept\n")
	k.want("m/beta.value", "b\n")
}

func TestUnnamedHierarchyIsNamedByItsOptionsAfterRemount(t *testing.T) {
	w := newWorld(t)
	a := w.attach(root, "alpha")
	k := w.as(root)
	k.must(k.write("ctl", "remount alpha beta"))
	k.want("ctl", "beta beta\n")
	a.want("beta.value", "0\n")
	w.attach(root, "alpha").want("alpha.value", "0\n")
	w.mount("mount cpuset delta") // a name that it was given
	w.refused(linux.EBUSY, "the new name is another's", func() error { return k.write("ctl", "remount beta cpuset") })
}

func TestRemountRenewsTheFilesOfTheRoot(t *testing.T) {
	w := newWorld(t)
	k := w.as(root)
	w.mount("mount m alpha,beta")
	open, err := k.open("m/beta.value", p9.ReadWrite)
	k.must(err)
	defer open.Close()
	k.must(k.chown("m/beta.value", 1000, 100))
	k.must(k.chmod("m/alpha.value", 0o600))
	k.must(k.write("ctl", "remount m alpha"))
	for what, err := range map[string]error{
		"getattr": func() error { _, _, _, err := open.GetAttr(p9.AttrMask{}); return err }(),
		"write":   writeTo(open, "x"),
		"read":    func() error { _, err := readAll(open); return err }(),
		"chmod":   open.SetAttr(p9.SetAttrMask{Permissions: true}, p9.SetAttr{Permissions: 0o777}),
	} {
		if errno(err) != linux.ENODEV {
			t.Errorf("%s of a file that is no more: %v, want ENODEV", what, err)
		}
	}
	k.must(k.write("ctl", "remount m alpha,beta"))
	if a, err := k.attr("m/beta.value"); err != nil || a.UID != 0 || a.Mode.Permissions() != 0o644 {
		t.Errorf("the new file has the old one's owner and mode: %v, %v", a, err)
	}
	// What was open of the old one is not open of the new one, which another may not open.
	for what, err := range map[string]error{
		"getattr": func() error { _, _, _, err := open.GetAttr(p9.AttrMask{}); return err }(),
		"write":   writeTo(open, "x"),
		"read":    func() error { _, err := readAll(open); return err }(),
	} {
		if errno(err) != linux.ENODEV {
			t.Errorf("%s of the old file where there is a new one: %v, want ENODEV", what, err)
		}
	}
	k.want("m/beta.value", "0\n")
	if a, err := k.attr("m/alpha.value"); err != nil || a.Mode.Permissions() != 0o600 {
		t.Errorf("the file that stayed lost its mode: %v, %v", a, err)
	}
}

func TestUnmount(t *testing.T) {
	w := newWorld(t)
	k := w.as(root)
	w.mount("mount m alpha,name=m,release_agent=/x")
	ctl := func(words string) func() error { return func() error { return k.write("ctl", words) } }
	w.refused(linux.ENOENT, "unknown", ctl("umount x"))
	w.refused(linux.EINVAL, "two words", ctl("umount m m"))
	k.must(k.mkdir("m/a"))
	k.must(k.mkdir("m/a/b"))
	k.must(k.write("m/a/notify_on_release", "1"))
	pid := w.fork(0)
	k.must(k.write("m/a/b/tasks", fmt.Sprint(pid)))
	inside := w.attach(root, "m/a")

	k.must(k.write("ctl", "umount m"))
	k.want("ctl", "m alpha,name=m,release_agent=/x (unmounted)\n")
	if _, err := k.walk("m"); errno(err) != linux.ENOENT {
		t.Errorf("it is still in the name space: %v", err)
	}
	w.refused(linux.ENOENT, "again", ctl("umount m"))
	w.refused(linux.ENOENT, "remount", ctl("remount m alpha"))
	w.refused(linux.ENOENT, "attach", func() error { _, err := w.fs.Attach(alice, "m"); return err })
	w.refused(linux.EPERM, "attach by options", func() error { _, err := w.fs.Attach(alice, "alpha"); return err })
	w.refused(linux.EBUSY, "its subsystem", ctl("mount n alpha,beta"))
	w.refused(linux.EBUSY, "its name", ctl("mount m beta"))
	w.refused(linux.EBUSY, "another name", ctl("mount n alpha"))
	w.refused(linux.EBUSY, "another agent", ctl("mount m alpha,release_agent=/y"))

	// It lives: membership, inheritance, fids.
	kid := w.host.Fork(pid)
	inside.want("b/tasks", fmt.Sprintf("%d\n%d\n", pid, kid))
	k.want(fmt.Sprintf("proc/%d/container", kid), "alpha:/a/b\n")
	inside.want("notify_on_release", "1\n")
	inside.must(inside.mkdir("c"))
	k.want("containers", "#subsys_name\thierarchy\tnum_containers\tenabled\nalpha\t1\t4\t1\nbeta\t0\t1\t1\ncpuset\t0\t1\t1\ndelta\t0\t1\t1\n")

	// And it comes back whole.
	k.must(k.write("ctl", "mount m alpha"))
	k.want("m/a/b/tasks", fmt.Sprintf("%d\n%d\n", pid, kid))

	// Without children it is gone, with its fids.
	k.must(k.write("ctl", "umount m"))
	w.host.Exit(pid)
	w.host.Exit(kid)
	inside.must(inside.rmdir("b"))
	inside.must(inside.rmdir("c"))
	f, err := inside.walk("tasks")
	k.must(err)
	defer f.Close()
	if err := inside.root.(*file).Remove(); errno(err) != linux.EBUSY {
		t.Errorf("the root of an attach was removed: %v", err)
	}
	w.mount("mount m alpha")
	k.must(k.rmdir("m/a"))
	k.must(k.write("ctl", "umount m"))
	if _, _, _, err := f.GetAttr(p9.AttrMask{}); errno(err) != linux.ENODEV {
		t.Errorf("a fid of it: %v, want ENODEV", err)
	}
	k.want("ctl", "")
	w.mount("mount n alpha,beta")
}

func TestUnmountedHierarchyGoesWithItsLastChild(t *testing.T) {
	w := newWorld(t)
	k := w.as(root)
	w.mount("mount m alpha")
	k.must(k.mkdir("m/a"))
	f, err := k.walk("m")
	k.must(err)
	defer f.Close()
	k.must(k.write("ctl", "umount m"))
	k.must(f.UnlinkAt("a", atRemovedir))
	k.want("ctl", "")
	if _, _, err := f.Walk([]string{"tasks"}); errno(err) != linux.ENODEV {
		t.Errorf("walk in it: %v, want ENODEV", err)
	}
	if _, err := f.StatFS(); errno(err) != linux.ENODEV {
		t.Errorf("statfs in it: %v, want ENODEV", err)
	}
}

func TestCtlWords(t *testing.T) {
	w := newWorld(t)
	k := w.as(root)
	w.mount("mount m alpha\n")
	for _, words := range []string{
		"", "\n", "mount", "mount ", "mount  n beta", "mount n  beta", "mount n beta ", " mount n beta", "mount n beta x",
		"mount\tn beta", "mount n beta\n\n", "mount n beta\numountm", "mount n beta\x00", "umount", "umount ", "umount m ",
		"remount", "remount m alpha x", "Mount n beta", "unmount m", "help",
	} {
		want := linux.EINVAL
		switch words {
		case "mount n beta\x00", "mount n beta\n\n", "mount n beta\numountm", "umount ":
			want = linux.ENOENT // no such subsystem, no such hierarchy
		}
		w.refused(want, fmt.Sprintf("%q", words), func() error { return k.write("ctl", words) })
	}
	w.refused(linux.E2BIG, "too long", func() error { return k.write("ctl", strings.Repeat(" ", MaxWrite+1)) })
}

// TestMountSaysWhatIsWrong: a start that is refused tells more than the number.
func TestMountSaysWhatIsWrong(t *testing.T) {
	w := newWorld(t)
	w.mount("mount m alpha,cpuset")
	for _, test := range []struct {
		name, opts string
		want       syscall.Errno
		says       string
	}{
		{"x", "beta,nosuch", syscall.ENOENT, `"nosuch"`},
		{"x", "all", syscall.EBUSY, "alpha cpuset are in the hierarchy m already"},
		{"x", "alpha,cpuset", syscall.EBUSY, "alpha cpuset are in the hierarchy m already"},
		{"x", "beta,cpuset", syscall.EBUSY, "cpuset is in the hierarchy m already"},
		{"m", "beta", syscall.EBUSY, "there is m=alpha,cpuset,name=m already"},
		{"proc", "beta", syscall.EINVAL, `"proc"`},
	} {
		err := w.fs.Mount(test.name, test.opts)
		if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("mount %s %s: %v, want %v and %s", test.name, test.opts, err, test.want, test.says)
		}
	}
}
