package ops

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"containerfs/ops/store"
	"containerfs/tree"
	"containerfs/tree/hostsim"
)

// keepIn has a world keep what it is in a directory, and be what was kept there.
func keepIn(t testing.TB, dir string) configure {
	return func(c *Config, tc *tree.Config) {
		j, err := OpenJournal(dir, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { j.Close() })
		j.Anchor(true)
		c.Journal, tc.Keeper = j, j
	}
}

// keptWorld is a world with a state directory. The mirror of another is not taken
// over: its tasks are in the roots.
func keptWorld(t testing.TB, dir string) *world {
	t.Helper()
	w := newWorld(t, keepIn(t, dir))
	if _, err := w.fs.Restore(map[uint64]bool{}); err != nil {
		t.Fatal(err)
	}
	if err := w.fs.journal.Begin(); err != nil {
		t.Fatal(err)
	}
	return w
}

// lasting is what the rows are about: all of state but for logs, tasks and the times of
// what is made with the server.
func (w *world) lasting() map[string]string {
	w.t.Helper()
	lines := make(map[string]string)
	for line := range strings.Lines(w.state()) {
		path, rest, _ := strings.Cut(line, " ")
		if strings.HasPrefix(path, "/proc") || strings.HasSuffix(path, "/events") || path == "/ctl" || path == "/rules" || path == "/containers" || path == "/" {
			_, _, rest = "", "", ""
		}
		for _, moment := range []string{"/tasks", "/procs", "/releasable", "/populated"} {
			if strings.HasSuffix(path, moment) {
				rest = rest[:strings.LastIndex(rest, " ")]
			}
		}
		lines[path] = rest
	}
	maps.DeleteFunc(lines, func(path, _ string) bool { return strings.HasPrefix(path, "/proc") })
	ctl, err := w.as(root).read("ctl")
	if err != nil {
		w.t.Fatal(err)
	}
	lines["ctl"] = ctl
	return lines
}

func (w *world) sameLasting(what string, before, after map[string]string) {
	w.t.Helper()
	shown := 0
	for _, path := range slices.Sorted(maps.Keys(before)) {
		if after[path] != before[path] && shown < 8 {
			w.t.Errorf("%s: %s\nwas %q\nis  %q", what, path, before[path], after[path])
			shown++
		}
	}
	for path := range after {
		if _, ok := before[path]; !ok {
			w.t.Errorf("%s: %s was not there", what, path)
		}
	}
	if w.t.Failed() {
		w.t.FailNow()
	}
}

// anyChange makes a random change, as a client asks for it.
func (w *world) anyChange(k *client, rnd *rand.Rand) (what string, err error) {
	var dirs []string
	var walk func(path string)
	walk = func(path string) {
		dirs = append(dirs, path)
		ents, err := k.list(path, 1000)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, e := range ents[2:] {
			if e.Type == p9.TypeDir {
				walk(path + "/" + e.Name)
			}
		}
	}
	for _, h := range []string{"m", "n", "o"} {
		if _, err := k.attr(h); err == nil {
			walk(h)
		}
	}
	if len(dirs) == 0 {
		return "mount", k.write("ctl", "mount m alpha,beta")
	}
	at := dirs[rnd.IntN(len(dirs))]
	name := fmt.Sprint("c", rnd.IntN(6))
	switch rnd.IntN(17) {
	case 0, 1, 2, 3:
		return "mkdir " + at + "/" + name, k.mkdirMode(at+"/"+name, p9.FileMode(rnd.IntN(0o1000)))
	case 4, 5:
		return "rmdir " + at, k.rmdir(at)
	case 6, 7:
		i := max(strings.LastIndexByte(at, '/'), 0)
		return "rename " + at + " to " + name, k.rename(at, at[:i]+"/"+name)
	case 8:
		return "chmod " + at, k.chmod(at, p9.FileMode(rnd.IntN(0o1000)))
	case 9:
		return "chown " + at, k.chown(at, uint32(rnd.IntN(3)*1000), 7)
	case 10:
		return "chown of tasks in " + at, k.chown(at+"/tasks", uint32(rnd.IntN(3)*1000), 7)
	case 11:
		return "notify " + at, k.write(at+"/notify_on_release", fmt.Sprint(rnd.IntN(2)))
	case 12:
		return "limit " + at, k.write(at+"/max.depth", fmt.Sprint(rnd.IntN(9)+4))
	case 13, 14:
		for _, f := range []string{"alpha.value", "beta.value", "cpuset.weight"} {
			if err = k.write(at+"/"+f, fmt.Sprintln(rnd.Int())); err == nil {
				return "write " + at + "/" + f, nil
			}
		}
		return "write " + at, err
	case 15:
		attr := p9.SetAttr{MTimeSeconds: uint64(rnd.IntN(9)), ATimeSeconds: uint64(rnd.IntN(9))}
		valid := p9.SetAttrMask{MTime: rnd.IntN(2) > 0, MTimeNotSystemTime: rnd.IntN(2) > 0, ATime: rnd.IntN(2) > 0, ATimeNotSystemTime: rnd.IntN(2) > 0}
		path := at + []string{"", "/tasks"}[rnd.IntN(2)]
		return fmt.Sprintf("utimes of %s, %+v", path, valid), k.setattr(path, valid, attr)
	}
	words := []string{
		"mount m alpha,beta", "mount n cpuset", "mount o delta", "umount m", "umount n", "umount o",
		"remount m alpha", "remount n cpuset,delta", "mount m beta", "remount o alpha,delta",
	}
	word := words[rnd.IntN(len(words))]
	return word, k.write("ctl", word)
}

// TestUndo has commits fail in the midst of random changes: each is answered by the
// errno, everything is as it was before it, and the next change succeeds again. In
// the end all of it is what another server finds.
func TestUndo(t *testing.T) {
	for seed := range uint64(3) {
		dir := t.TempDir()
		w := keptWorld(t, dir)
		w.mount("mount m alpha,beta")
		k := w.as(root)
		rnd := rand.New(rand.NewPCG(seed, 7))
		var failing atomic.Bool
		w.fs.journal.store.InCommit = func() error {
			if failing.Load() {
				return syscall.ENOSPC
			}
			return nil
		}
		undone := 0
		for range 150 {
			fails := rnd.IntN(3) == 0
			var before map[string]string
			if fails {
				before = w.lasting()
			}
			failing.Store(fails)
			what, err := w.anyChange(k, rnd)
			failing.Store(false)
			if !fails {
				continue
			}
			if err == nil {
				// One that changes nothing has nothing to keep.
				w.sameLasting(what+", which succeeded with the disk full", before, w.lasting())
				continue
			}
			if errno(err) == linux.ENOSPC {
				undone++
			}
			w.sameLasting(what+", refused by "+err.Error(), before, w.lasting())
			if err := w.tree.Check(); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
		if undone < 12 {
			t.Errorf("%d changes were undone", undone)
		}
		before := w.lasting()
		if err := w.fs.journal.Close(); err != nil {
			t.Fatal(err)
		}
		again := keptWorld(t, dir)
		again.sameLasting("in another life", before, again.lasting())
	}
}

// TestUndoneRemountKeepsFids: what is open of a file that a remount took away goes on when that
// is undone.
func TestUndoneRemountKeepsFids(t *testing.T) {
	w := keptWorld(t, t.TempDir())
	w.mount("mount m alpha,beta")
	k := w.as(root)
	f, err := k.open("m/beta.value", p9.ReadWrite)
	k.must(err)
	defer f.Close()
	w.fs.journal.store.InCommit = func() error { return syscall.ENOSPC }
	if err := k.write("ctl", "remount m alpha"); errno(err) != linux.ENOSPC {
		t.Errorf("a remount that cannot be kept: %v", err)
	}
	w.fs.journal.store.InCommit = nil
	k.must(writeTo(f, "x"))
	k.want("m/beta.value", "x")
}

// TestUndoAtOnce has many clients change things while commits fail and succeed: what
// was acknowledged is there afterwards, and what was refused is not.
func TestUndoAtOnce(t *testing.T) {
	dir := t.TempDir()
	w := keptWorld(t, dir)
	w.mount("mount m alpha,beta")
	var commits atomic.Int64
	w.fs.journal.store.InCommit = func() error {
		if commits.Add(1)%3 == 0 {
			return syscall.ENOSPC
		}
		return nil
	}
	const clients = 8
	values := make([]map[string]string, clients)
	var all sync.WaitGroup
	for n := range clients {
		k := w.as(root)
		values[n] = make(map[string]string)
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(n), 1))
			for i := range 60 {
				path := fmt.Sprintf("m/c%d-%d", n, rnd.IntN(5))
				switch rnd.IntN(3) {
				case 0:
					if k.mkdir(path) == nil {
						values[n][path] = "0\n"
					}
				case 1:
					v := fmt.Sprintln(i)
					if k.write(path+"/alpha.value", v) == nil {
						values[n][path] = v
					}
				case 2:
					if k.rmdir(path) == nil {
						delete(values[n], path)
					}
				}
				// A read shows what was acknowledged, and nothing else.
				got, err := k.read(path + "/alpha.value")
				if want := values[n][path]; got != want {
					t.Errorf("%s has %q, %v; want %q", path, got, err, want)
				}
			}
		})
	}
	all.Wait()
	w.fs.journal.store.InCommit = nil
	if err := w.fs.journal.Close(); err != nil {
		t.Fatal(err)
	}
	again := keptWorld(t, dir)
	want := make(map[string]string)
	for _, v := range values {
		maps.Copy(want, v)
	}
	k := again.as(root)
	var names []string
	for _, e := range k.names("m") {
		if strings.HasPrefix(e, "c") {
			names = append(names, "m/"+e)
			k.want("m/"+e+"/alpha.value", want["m/"+e])
		}
	}
	if len(names) != len(want) {
		t.Errorf("there are %v, want %v", names, want)
	}
}

// TestUnkeptGroup: no task is in a css group that is not kept. While that is being
// kept others can make changes.
func TestUnkeptGroup(t *testing.T) {
	w := keptWorld(t, t.TempDir())
	w.mount("mount m alpha")
	k := w.as(root)
	k.must(k.mkdir("m/a"))
	c := w.container("m/a")
	pid := w.fork(0)
	failing := true
	w.fs.journal.store.InCommit = func() error {
		w.tree.View(func() {
			if c.NumTasks() > 0 {
				t.Error("a task is in a css group that is not kept")
			}
		})
		if failing {
			return syscall.ENOSPC
		}
		return w.tree.Change(func() error { return nil }) // nobody holds that
	}
	if err := k.write("m/a/tasks", fmt.Sprint(pid)); errno(err) != linux.ENOSPC {
		t.Errorf("%v, want ENOSPC", err)
	}
	k.want("m/a/tasks", "")
	failing = false
	k.must(k.write("m/a/tasks", fmt.Sprint(pid)))
	k.want("m/a/tasks", fmt.Sprintln(pid))
	w.fs.journal.store.InCommit = nil
}

// TestMoveAfterARefusal: a move into a container of which a change was refused is not answered by
// what became of that.
func TestMoveAfterARefusal(t *testing.T) {
	w := keptWorld(t, t.TempDir())
	w.mount("mount m alpha")
	k := w.as(root)
	k.must(k.mkdir("m/a"))
	pid := w.fork(0)
	k.must(k.write("m/a/tasks", fmt.Sprint(pid)))
	k.must(k.write("m/tasks", fmt.Sprint(pid)))
	w.fs.journal.store.InCommit = func() error { return syscall.ENOSPC }
	for _, path := range []string{"m", "m/a"} {
		if err := k.chmod(path, 0o700); errno(err) != linux.ENOSPC {
			t.Errorf("%v, want ENOSPC", err)
		}
	}
	w.fs.journal.store.InCommit = nil
	for _, path := range []string{"m/a/tasks", "m/tasks"} {
		if err := k.write(path, fmt.Sprint(pid)); err != nil {
			t.Errorf("moved to %s: %v", path, err)
		}
	}
	if err := w.fs.Mount("m", "alpha"); err != nil {
		t.Errorf("mounted as it is: %v", err)
	}
	if _, err := w.fs.Attach(root, "alpha"); err != nil {
		t.Errorf("attached by its options: %v", err)
	}
}

// TestReadsWait: what is not kept is not shown.
func TestReadsWait(t *testing.T) {
	w := keptWorld(t, t.TempDir())
	w.mount("mount m alpha")
	k, other := w.as(root), w.as(alice)
	k.must(k.mkdir("m/old"))
	dir, err := other.open("m", p9.ReadOnly)
	k.must(err)
	defer dir.Close()
	lists := func() string {
		ents, err := dir.Readdir(0, 1000)
		return fmt.Sprint(slices.ContainsFunc(ents, func(e p9.Dirent) bool { return e.Name == "a" }), err)
	}
	for _, tt := range []struct {
		change func() error
		look   func() string
		want   string
	}{
		{func() error { return k.mkdir("m/a") }, func() string { return fmt.Sprint(slices.Contains(other.names("m"), "a")) }, "false"},
		{func() error { return k.mkdir("m/a") }, func() string { _, err := other.attr("m/a"); return fmt.Sprint(err) }, linux.ENOENT.Error()},
		{func() error { return k.mkdir("m/a") }, lists, "false <nil>"},
		{func() error { return k.rmdir("m/old") }, func() string { _, err := other.attr("m/old"); return fmt.Sprint(err) }, "<nil>"},
		{func() error { return k.write("m/old/alpha.value", "7\n") }, func() string { s, _ := other.read("m/old/alpha.value"); return s }, "0\n"},
		{func() error { return k.chmod("m/old", 0o711) }, func() string { a, _ := other.attr("m/old"); return fmt.Sprintf("%o", a.Mode.Permissions()) }, "755"},
		{func() error { return k.chmod("events", 0o444) }, func() string { a, _ := other.attr("events"); return fmt.Sprintf("%o", a.Mode.Permissions()) }, "440"},
		{func() error { return k.write("ctl", "mount d delta") }, func() string { return fmt.Sprint(slices.Contains(other.names(""), "d")) }, "false"},
		{func() error { return k.rename("m/old", "m/new") }, func() string { return fmt.Sprint(slices.Contains(other.names("m"), "new")) }, "false"},
	} {
		began, fail := make(chan bool), make(chan bool)
		w.fs.journal.store.InCommit = func() error {
			began <- true
			<-fail
			return syscall.EIO
		}
		refused := make(chan error, 1)
		go func() { refused <- tt.change() }()
		<-began
		shown := make(chan string, 1)
		go func() { shown <- tt.look() }()
		for len(shown) == 0 && goroutinesIn("store.(*Store).Wait(") < 2 { // the change waits as well
			time.Sleep(time.Millisecond)
		}
		fail <- true
		if err := <-refused; errno(err) != linux.EIO {
			t.Errorf("%v, want EIO", err)
		}
		if got := <-shown; got != tt.want {
			t.Errorf("shown was %q before it was kept, want %q", got, tt.want)
		}
		w.fs.journal.store.InCommit = nil
	}

	// When it is kept it is shown to who has waited.
	began, done := make(chan bool), make(chan bool)
	w.fs.journal.store.InCommit = func() error {
		began <- true
		<-done
		return nil
	}
	made := make(chan error, 1)
	go func() { made <- k.mkdir("m/a") }()
	<-began
	shown := make(chan string, 1)
	go func() { shown <- lists() }()
	for len(shown) == 0 && goroutinesIn("store.(*Store).Wait(") < 2 {
		time.Sleep(time.Millisecond)
	}
	w.fs.journal.store.InCommit = nil
	done <- true
	if got := <-shown; got != "true <nil>" {
		t.Errorf("listed is %q when it is kept", got)
	}
	k.must(<-made)
}

// TestNeitherKeptNorUndone: where what is kept cannot be read either, nothing is changed any more.
func TestNeitherKeptNorUndone(t *testing.T) {
	w := keptWorld(t, t.TempDir())
	w.mount("mount m alpha")
	k := w.as(root)
	k.must(k.mkdir("m/a"))
	j := w.fs.journal
	k.must(j.Await(j.store.Put(containerKey(w.container("m/a")), []byte("\xff"), nil), false))
	j.store.InCommit = func() error { return syscall.ENOSPC }
	// That it could not be undone either may be known by the time that it is waited for.
	if err := k.write("m/a/max.depth", "3"); errno(err) != linux.ENOSPC && errno(err) != linux.EIO {
		t.Errorf("%v, want ENOSPC, or EIO", err)
	}
	j.store.InCommit = nil
	pid := w.fork(0)
	for what, do := range map[string]func() error{
		"mkdir":   func() error { return k.mkdir("m/b") },
		"rmdir":   func() error { return k.rmdir("m/a") },
		"rename":  func() error { return k.rename("m/a", "m/b") },
		"chmod":   func() error { return k.chmod("m/a", 0o700) },
		"write":   func() error { return k.write("m/a/max.depth", "4") },
		"move":    func() error { return k.write("m/a/tasks", fmt.Sprint(pid)) },
		"mount":   func() error { return k.write("ctl", "mount n beta") },
		"options": func() error { _, err := w.fs.Attach(root, "beta"); return err },
	} {
		w.refused(linux.EIO, what, do)
	}
	k.want("m/tasks", fmt.Sprintf("1\n%d\n", pid)) // what does not change is shown
}

// TestMountOfTheCommandLine is kept when it returns, or not there.
func TestMountOfTheCommandLine(t *testing.T) {
	dir := t.TempDir()
	w := keptWorld(t, dir)
	w.fs.journal.store.InCommit = func() error { return syscall.ENOSPC }
	if err := w.fs.Mount("m", "alpha"); errno(wire(err)) != linux.ENOSPC {
		t.Errorf("%v, want ENOSPC", err)
	}
	w.refused(linux.ENOENT, "what could not be kept", func() error { _, err := w.as(root).walk("m"); return err })
	w.fs.journal.store.InCommit = nil
	for range 2 { // it is there already
		if err := w.fs.Mount("m", "alpha"); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.fs.journal.Close(); err != nil {
		t.Fatal(err)
	}
	keptWorld(t, dir).as(root).want("m/tasks", "1\n")
}

// live is a server on a host that another was on before, with what that has kept in a directory.
func live(t *testing.T, host *simulated, dir string, mirror bool) *world {
	t.Helper()
	w := &world{t: t, host: host, subs: fakes(), log: new(logBuffer)}
	recorder := NewRecorder(64 << 10)
	j, err := OpenJournal(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	j.Anchor(mirror)
	tc := tree.Config{Host: host, Observer: recorder, Keeper: j}
	var exists map[uint64]bool
	if mirror {
		tc.Mirror = host.Mirror()
		exists = make(map[uint64]bool)
		for _, g := range j.KeptGroups() {
			exists[g] = slices.Contains(host.Groups(), g)
		}
	}
	for _, s := range w.subs {
		tc.Subsystems = append(tc.Subsystems, s)
	}
	if w.tree, err = tree.New(tc); err != nil {
		t.Fatal(err)
	}
	host.Run(w.tree)
	w.fs = New(Config{Tree: w.tree, Host: host, Recorder: recorder, Journal: j, Log: slog.New(slog.NewTextHandler(w.log, nil))})
	t.Cleanup(w.fs.Close)
	rootsOwn(w.fs)
	if _, err := w.fs.Restore(exists); err != nil {
		t.Fatal(err)
	}
	if err := host.Resync(w.tree.Resync); err != nil {
		t.Fatal(err)
	}
	if err := w.fs.journal.Begin(); err != nil {
		t.Fatal(err)
	}
	return w
}

// TestAnotherLife: tasks are where they were, by the mirror or by the list, unless what is known
// of them is of another boot, of a copy, or of a server that knew it the other way.
func TestAnotherLife(t *testing.T) {
	for _, mirror := range []bool{true, false} {
		host := &simulated{Host: hostsim.New(), kernel: make(map[int32]bool), saved: make(map[int32]uint32)}
		dir := t.TempDir()
		w := live(t, host, dir, mirror)
		if s := w.fs.journal.State(); !s.Fresh || s.void() || s.Mirror == "" {
			t.Errorf("a new directory is %+v", s)
		}
		id := w.fs.journal.State().Mirror
		w.mount("mount m alpha")
		w.mount("mount n beta")
		k := w.as(root)
		k.must(k.mkdir("m/a"))
		k.must(k.mkdir("n/b"))
		k.must(k.chmod("events", 0o444))
		p, q, ends := w.fork(0), w.fork(0), w.fork(0)
		for _, pid := range []int32{p, q, ends} {
			k.must(k.write("m/a/tasks", fmt.Sprint(pid)))
		}
		k.must(k.write("n/b/tasks", fmt.Sprint(p)))
		if !mirror { // what was acknowledged is there, however the server ends
			kept := make(map[uint64]bool)
			if _, err := store.Read(dir, func(k store.Key, _ []byte) error {
				if k.Bucket == store.Tasks {
					kept[k.Num] = true
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			for _, pid := range []int32{p, q, ends} {
				if !kept[uint64(pid)] {
					t.Errorf("where %d is was not kept", pid)
				}
			}
		}
		host.Exit(ends)
		w.tree.Drain()
		w.fs.journal.SaveTasks()
		copied, refused := t.TempDir(), t.TempDir()
		stop := func(w *world) {
			t.Helper()
			w.fs.Close()
			if err := w.fs.journal.Close(); err != nil {
				t.Fatal(err)
			}
		}
		stop(w)
		text, err := os.ReadFile(filepath.Join(dir, store.FileName))
		k.must(err)
		for _, copy := range []string{copied, refused} {
			k.must(os.WriteFile(filepath.Join(copy, store.FileName), text, 0o600))
		}
		groups := func(dir string, want int) {
			t.Helper()
			j, err := OpenJournal(dir, slog.New(slog.DiscardHandler))
			k.must(err)
			j.Anchor(mirror)
			if got := j.KeptGroups(); len(got) != want {
				t.Errorf("there are the css groups %v, want %d", got, want)
			}
			k.must(j.Close())
		}
		groups(dir, 2)
		if got, err := MirrorOf(dir); got != id || err != nil {
			t.Errorf("the mirror of the directory is %q, %v; want %q", got, err, id)
		}

		w = live(t, host, dir, mirror)
		if s := w.fs.journal.State(); s != (State{Mirror: id}) {
			t.Errorf("the same directory is %+v", s)
		}
		k = w.as(root)
		k.want("m/a/tasks", fmt.Sprintf("%d\n%d\n", p, q))
		k.want("n/b/tasks", fmt.Sprintln(p))
		if a, err := k.attr("events"); err != nil || a.Mode.Permissions() != 0o444 {
			t.Errorf("events has mode %o, %v", a.Mode.Permissions(), err)
		}
		if err := w.tree.Check(); err != nil {
			t.Error(err)
		}

		void := func(what string, w *world, want State) {
			t.Helper()
			if s := w.fs.journal.State(); s.Mirror == "" || s.Copied != want.Copied || s.Rebooted != want.Rebooted || s.Unanchored != want.Unanchored {
				t.Errorf("%s: it is %+v", what, s)
			} else if (s.Mirror != id) != want.Copied {
				t.Errorf("%s: its mirror is %q, was %q", what, s.Mirror, id)
			}
			k := w.as(root)
			k.want("m/a/tasks", "")
			k.want("n/tasks", fmt.Sprintf("1\n%d\n%d\n", p, q))
			stop(w)
		}
		void("a copy", live(t, host, copied, mirror), State{Copied: true})
		groups(refused, 0) // by a server that has not begun
		after := live(t, host, refused, mirror)
		after.as(root).want("m/a/tasks", "")
		stop(after)
		w.fs.journal.store.Put(bootKey, []byte("another"), nil)
		stop(w)
		groups(dir, 0)
		void("another boot", live(t, host, dir, mirror), State{Rebooted: true})
		void("known the other way", live(t, host, dir, !mirror), State{Unanchored: true})
	}
}

// TestCheckpoint keeps what has changed by itself where there are tasks, and in the roots; once
// more where the last has left.
func TestCheckpoint(t *testing.T) {
	dir := t.TempDir()
	w := keptWorld(t, dir)
	w.mount("mount m alpha")
	k := w.as(root)
	paths := []string{"m", "m/a", "m/a/b", "m/left", "m/empty", "m/jobs", "m/jobs/short"}
	for _, path := range paths[1:] {
		k.must(k.mkdir(path))
	}
	measure := func(value string) {
		for _, path := range paths {
			c := w.container(path)
			w.tree.Update(func() { c.State(0).(*fakeState).value = []byte(value) })
		}
	}
	last := func() uint64 { return w.fs.journal.store.Last() }
	inside, leaves := w.fork(0), w.fork(0)
	k.must(k.write("m/a/b/tasks", fmt.Sprint(inside)))
	k.must(k.write("m/left/tasks", fmt.Sprint(leaves)))
	measure("1\n")
	w.fs.journal.Checkpoint()
	before := last()
	w.fs.journal.Checkpoint()
	if now := last(); now != before {
		t.Errorf("%d rows are kept of what has not changed", now-before)
	}
	for _, path := range []string{"m/jobs/short", "m"} { // there and gone between two checkpoints
		k.must(k.write(path+"/tasks", fmt.Sprint(leaves)))
	}
	w.fs.journal.Checkpoint()
	measure("2\n") // what they ran at their end is told late
	w.fs.journal.Checkpoint()
	measure("3\n")
	k.must(k.write("m/a/b/alpha.value", "4\n"))
	if err := w.fs.journal.Close(); err != nil {
		t.Fatal(err)
	}
	again := keptWorld(t, dir).as(root)
	for path, want := range map[string]string{"m": "2\n", "m/a": "2\n", "m/a/b": "4\n", "m/left": "2\n", "m/empty": "0\n", "m/jobs": "2\n", "m/jobs/short": "2\n"} {
		again.want(path+"/alpha.value", want)
	}
}

// TestCheckpointFails: what could not be kept by one checkpoint is kept by the next one, also where
// nobody has been since.
func TestCheckpointFails(t *testing.T) {
	dir := t.TempDir()
	w := keptWorld(t, dir)
	w.mount("mount m alpha")
	k := w.as(root)
	paths := []string{"m", "m/jobs", "m/jobs/short", "m/stays"}
	for _, path := range paths[1:] {
		k.must(k.mkdir(path))
	}
	k.must(k.write("m/stays/tasks", fmt.Sprint(w.fork(0))))
	measure := func(paths ...string) { // what is put back forgets no measured value
		for _, path := range paths {
			c := w.container(path)
			w.tree.Update(func() { c.State(0).(*fakeState).value = []byte("1\n") })
		}
	}
	visitor := fmt.Sprint(w.fork(0))
	k.must(k.write("m/jobs/short/tasks", visitor))
	k.must(k.write("m/tasks", visitor))
	w.fs.journal.store.InCommit = func() error { return syscall.ENOSPC }
	measure("m/jobs/short", "m/stays") // what is above may be as it was
	w.fs.journal.Checkpoint()
	if err := w.fs.journal.store.Wait(w.fs.journal.store.Last()); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v, want ENOSPC", err)
	}
	w.fs.journal.store.InCommit = nil
	measure("m/jobs/short", "m/stays")
	w.fs.journal.Checkpoint()
	if err := w.fs.journal.Close(); err != nil {
		t.Fatal(err)
	}
	again := keptWorld(t, dir).as(root)
	for _, path := range []string{"m/jobs/short", "m/stays"} {
		again.want(path+"/alpha.value", "1\n")
	}
}

// TestRestoreRefused: rows that do not fit together are refused.
func TestRestoreRefused(t *testing.T) {
	for _, tt := range []struct {
		key   store.Key
		value string
		want  string
	}{
		{store.Key{Bucket: store.Containers, Num: 99}, "\xff", "container 99"},
		{store.Key{Bucket: store.Hierarchies, Num: 99}, "\x01x\x00\x01\x02zz\x63\x00\x00\x00\x00\x00\x00\x00\x00\x00", "subsystem zz"},
		{store.Key{Bucket: store.Facts, Name: "next"}, "\x01", "invalid argument"},
	} {
		dir := t.TempDir()
		w := keptWorld(t, dir)
		w.mount("mount m alpha")
		w.fs.journal.store.Put(tt.key, []byte(tt.value), nil)
		if err := w.fs.journal.Close(); err != nil {
			t.Fatal(err)
		}
		whole, err := os.ReadFile(filepath.Join(dir, "state.db"))
		if err != nil {
			t.Fatal(err)
		}
		again := newWorld(t, keepIn(t, dir))
		if _, err := again.fs.Restore(nil); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v, want %s", tt.key, err, tt.want)
		}
		again.fs.journal.Close()
		if after, err := os.ReadFile(filepath.Join(dir, "state.db")); err != nil || string(after) != string(whole) {
			t.Errorf("%v: refused, and changed", tt.key)
		}
	}
}

// FuzzRows reads rows that nobody wrote.
func FuzzRows(f *testing.F) {
	w := keptWorld(f, f.TempDir())
	w.mount("mount m alpha,beta")
	k := w.as(root)
	k.must(k.mkdir("m/a"))
	k.must(k.write("m/a/max.depth", "3"))
	k.must(k.chown("m/a/tasks", 1, 2))
	c := w.container("m/a")
	w.tree.View(func() {
		f.Add(w.fs.containerRow(c))
		f.Add(w.fs.hierarchyRow(c.Hierarchy()))
	})
	f.Fuzz(func(t *testing.T, row []byte) {
		if _, k, a, err := readContainerRow(1, row); err == nil && len(k.States)+len(a.files) > len(row) {
			t.Error("more than there is")
		}
		w.fs.readHierarchyRow(1, row)
		readGroupRow(row)
		readPlaceRow(row)
	})
}

// TestNumbersNotUsedAgain: what was removed, or could not be kept, has given its id
// away for ever.
func TestNumbersNotUsedAgain(t *testing.T) {
	dir := t.TempDir()
	last := uint64(0)
	for range 4 {
		w := keptWorld(t, dir)
		k := w.as(root)
		if last == 0 {
			k.must(k.write("ctl", "mount m alpha"))
		}
		k.must(k.mkdir("m/a"))
		id := w.container("m/a").ID()
		if id <= last {
			t.Errorf("id %d after %d", id, last)
		}
		w.fs.journal.store.InCommit = func() error { return syscall.EIO }
		if err := k.mkdir("m/b"); errno(err) != linux.EIO {
			t.Errorf("%v, want EIO", err)
		}
		w.fs.journal.store.InCommit = nil
		k.must(k.mkdir("m/b"))
		last = w.container("m/b").ID()
		k.must(k.rmdir("m/b"))
		k.must(k.rmdir("m/a"))
		if err := w.fs.journal.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestStatusWaitsForNobody: the reason of a refusal is had while another's change is being
// kept.
func TestStatusWaitsForNobody(t *testing.T) {
	w := keptWorld(t, t.TempDir())
	w.mount("mount m alpha")
	w.mount("mount n beta")
	k, other := w.as(root), w.as(alice)
	k.must(k.mkdir("n/a"))
	w.refused(linux.EACCES, "mkdir", func() error { return other.mkdir("n/a/b") })
	began, done := make(chan bool), make(chan bool)
	w.fs.journal.store.InCommit = func() error {
		began <- true
		<-done
		return nil
	}
	kept := make(chan error, 1)
	go func() { kept <- k.mkdir("m/a") }()
	<-began
	shown := make(chan string, 1)
	go func() { s, _ := other.read("n/a/" + StatusName); shown <- s }()
	select {
	case got := <-shown:
		if !strings.Contains(got, "mkdir /n/a/b") {
			t.Errorf("%q", got)
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits")
	}
	w.fs.journal.store.InCommit = nil
	done <- true
	k.must(<-kept)
}

// TestHierarchyAtOnce: a hierarchy and the numbers that it took are kept by one change: with the
// numbers alone the state would be one of which it was unmounted.
func TestHierarchyAtOnce(t *testing.T) {
	w := keptWorld(t, t.TempDir())
	s := w.fs.journal.store
	before := s.Last()
	w.mount("mount m alpha")
	if n := s.Last() - before; n != 1 {
		t.Errorf("in %d changes, want 1", n)
	}
	for _, k := range []store.Key{nextKey, hierarchyKey(w.container("m").Hierarchy())} {
		if row, err := s.Get(k); row == nil || err != nil {
			t.Errorf("%v is %q, %v", k, row, err)
		}
	}
}

// TestBeginAtOnce: what a server begins with is kept as a whole or not at all: what is known of
// tasks of another boot must not be of this one.
func TestBeginAtOnce(t *testing.T) {
	dir := t.TempDir()
	w := keptWorld(t, dir)
	for tid := range uint64(20_000) {
		w.fs.journal.store.Put(store.Key{Bucket: store.Tasks, Num: tid + 1}, placeRow(tree.Place{Start: 1, Group: 1}), nil)
	}
	w.fs.journal.store.Put(bootKey, []byte("another"), nil)
	if err := w.fs.journal.Close(); err != nil {
		t.Fatal(err)
	}
	again := newWorld(t, keepIn(t, dir))
	if _, err := again.fs.Restore(map[uint64]bool{}); err != nil {
		t.Fatal(err)
	}
	commits := 0
	again.fs.journal.store.InCommit = func() error { commits++; return nil }
	if err := again.fs.journal.Begin(); err != nil {
		t.Fatal(err)
	}
	if commits != 1 {
		t.Errorf("in %d commits, want 1", commits)
	}
}
