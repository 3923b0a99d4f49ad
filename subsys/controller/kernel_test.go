package controller

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"containerfs/tree"
	"containerfs/tree/hostsim"
	"containerfs/tree/kernfs"
)

// bench is a Tree with controllers of this host's kernel. Its tasks are those that
// the test tells it of.
type bench struct {
	*tree.Tree
	t    *testing.T
	sim  *hostsim.Host
	subs []*Subsystem
	log  *lockedBuffer
	root *tree.Container
	cfg  Config
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// kept is what a state store would be.
type kept struct {
	rows map[key]Origin
	fail error // of Put
	lost error // of All
}

func (k *kept) Put(os ...Origin) error {
	if k.fail != nil {
		return k.fail
	}
	for _, o := range os {
		k.rows[o.key()] = o
	}
	return nil
}

func (k *kept) Delete(os ...Origin) error {
	for _, o := range os {
		delete(k.rows, o.key())
	}
	return nil
}

func (k *kept) All() (all []Origin, err error) {
	for _, o := range k.rows {
		all = append(all, o)
	}
	return all, k.lost
}

// need is a version 1 controller of this host.
func need(t *testing.T, name string) place {
	t.Helper()
	skip := slices.Contains(strings.Split(os.Getenv("CONTAINERFS_SKIP"), ","), "host")
	f, err := probe()
	if err == nil && os.Geteuid() == 0 {
		var p place
		if p, err = f.find(name); err == nil && p.version == 1 {
			return p
		}
	}
	if skip {
		t.Skip("skipped by CONTAINERFS_SKIP")
	}
	t.Fatalf("this host's %s of version 1 is needed, and root: %v; CONTAINERFS_SKIP=host skips this", name, err)
	return place{}
}

func newBench(t *testing.T, cfg Config) *bench {
	t.Helper()
	for _, name := range cfg.Names {
		need(t, name)
	}
	b := &bench{t: t, sim: hostsim.New(), log: &lockedBuffer{}}
	if cfg.ID == "" {
		cfg.ID = fmt.Sprintf("test-%d", os.Getpid())
	}
	cfg.Log = slog.New(slog.NewTextHandler(b.log, nil))
	b.cfg = cfg
	var err error
	if b.subs, err = Open(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.close)
	// Who asks for controllers is told what that takes from others.
	if len(b.subs) > 0 && !strings.Contains(b.log.String(), "what systemd or docker do for a task by its cgroup ends when it enters one") {
		t.Errorf("the start says nothing of what is lost:\n%s", b.log.String())
	}
	var all []tree.Subsystem
	for _, s := range b.subs {
		all = append(all, s)
	}
	b.Tree, err = tree.New(tree.Config{Host: b.sim, Mirror: b.sim.Mirror(), Subsystems: all, Log: cfg.Log})
	if err != nil {
		t.Fatal(err)
	}
	b.sim.Run(b.Tree)
	h, err := b.Mount(tree.Mount{Subsystems: 1<<len(all) - 1})
	if err != nil {
		t.Fatal(err)
	}
	b.root = h.Root()
	return b
}

func (b *bench) close() {
	for _, s := range b.subs {
		if err := s.Close(); err != nil {
			b.t.Error(err)
		}
	}
	for _, s := range b.subs {
		if _, err := os.Stat(s.t.mount + s.t.basePath()); err == nil && s.t.mount != "" && !b.cfg.Keep {
			b.t.Errorf("%s is left over", s.t.basePath())
		}
	}
	b.subs = nil
}

func (b *bench) mkdir(p *tree.Container, name string) *tree.Container {
	b.t.Helper()
	c, err := b.Mkdir(tree.MkdirRequest{Parent: p, Name: name})
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

func (b *bench) attach(c *tree.Container, tid int32) error {
	return b.Attach(tree.AttachRequest{Actor: &tree.Actor{Privileged: true}, To: c, ID: tid})
}

// sleeper is a process of the test's own, of which the Tree knows.
func (b *bench) sleeper() int32 {
	b.t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	tid := int32(cmd.Process.Pid)
	b.sim.ForkAs(hostsim.InitTID, tid)
	b.Drain()
	return tid
}

func (b *bench) path(c *tree.Container) string {
	n := b.subs[0].node(c)
	return b.subs[0].t.mount + b.subs[0].t.basePath() + "/" + n.path()
}

func (b *bench) where(tid int32) string {
	b.t.Helper()
	at, err := b.subs[0].t.where(tid)
	if err != nil {
		b.t.Fatal(err)
	}
	return at
}

func (b *bench) file(i int, name string) *tree.File {
	b.t.Helper()
	files := b.Files(i)
	at := slices.IndexFunc(files, func(f tree.File) bool { return f.Name == name })
	if at < 0 {
		b.t.Fatalf("no file %s", name)
	}
	return &files[at]
}

// foreign makes a cgroup of somebody else's with a task in it.
func (b *bench) foreign(name string, tid int32) string {
	b.t.Helper()
	dir := b.subs[0].t.mount + "/" + name
	if err := os.Mkdir(dir, 0o755); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if err := os.Remove(dir); err != nil && !os.IsNotExist(err) {
			b.t.Error(err)
		}
	})
	b.put(dir, tid)
	return dir
}

// put moves a task as somebody else does.
func (b *bench) put(dir string, tid int32) {
	b.t.Helper()
	if err := os.WriteFile(dir+"/tasks", fmt.Append(nil, tid), 0); err != nil {
		b.t.Fatal(err)
	}
}

func TestSeveralControllers(t *testing.T) {
	b := newBench(t, Config{Names: []string{"pids", "freezer"}})
	a := b.mkdir(b.root, "a")
	p := b.sleeper()
	if err := b.attach(a, p); err != nil {
		t.Fatal(err)
	}
	for _, s := range b.subs {
		want := fmt.Sprintf("%s/%d", s.t.basePath(), a.ID())
		if at, err := s.t.where(p); err != nil || at != want {
			t.Errorf("%s has it in %s, %v, want %s", s.name, at, err, want)
		}
	}
	// The second of two fails: the first is undone.
	if err := os.Remove(b.subs[0].t.mount + b.subs[0].t.basePath()); !errors.Is(err, unix.EBUSY) {
		t.Fatalf("the base can be removed: %v", err)
	}
	d := b.mkdir(b.root, "d")
	real := b.subs[1].t.baseDir.Load()
	nowhere, err := kernfs.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b.subs[1].t.baseDir.Store(nowhere)
	parent := b.subs[1].t.parent
	b.subs[1].t.parent = nowhere
	if err := b.attach(d, p); err == nil {
		t.Error("a directory is not there, and the attach succeeds")
	}
	b.subs[1].t.parent = parent
	b.subs[1].t.baseDir.Store(real)
	for _, s := range b.subs {
		want := fmt.Sprintf("%s/%d", s.t.basePath(), a.ID())
		if at, err := s.t.where(p); err != nil || at != want {
			t.Errorf("undone, %s has it in %s, %v, want %s", s.name, at, err, want)
		}
	}
	if err := b.Rmdir(a, nil); !errors.Is(err, unix.EBUSY) {
		t.Errorf("rmdir with a task: %v", err)
	}
	b.wantOrigins(1)
	if err := b.attach(b.root, p); err != nil {
		t.Fatal(err)
	}
	b.wantOrigins(0)
	dir := b.path(a)
	if err := b.Rmdir(a, nil); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", dir, err)
	}
}

func (b *bench) wantOrigins(want int) {
	b.t.Helper()
	for _, s := range b.subs {
		b.View(func() {
			if got := len(s.t.from); got != want {
				b.t.Errorf("%s has %d origins, want %d", s.name, got, want)
			}
		})
	}
}

// TestToTheBase: a task goes there when it cannot go back, and that is undone when
// the attach fails.
func TestToTheBase(t *testing.T) {
	b := newBench(t, Config{Names: []string{"pids", "freezer"}})
	a := b.mkdir(b.root, "a")
	p := b.sleeper()
	dir := b.foreign("containerfs-test-gone", p)
	if err := b.attach(a, p); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	at := b.where(p)
	b.subs[1].t.move = func(*kernfs.Dir, int32) error { return syscall.EIO }
	if err := b.attach(b.root, p); !errors.Is(err, syscall.EIO) {
		t.Errorf("the second fails: %v", err)
	}
	if got := b.where(p); got != at {
		t.Errorf("undone, it is in %s, was in %s", got, at)
	}
	b.wantOrigins(1)
	freezer := b.subs[1].t
	freezer.move = func(dir *kernfs.Dir, id int32) error { return dir.Move(".", id, false) }
	if err := b.attach(b.root, p); err != nil {
		t.Fatal(err)
	}
	if got := b.where(p); got != b.subs[0].t.basePath() {
		t.Errorf("it is in %s", got)
	}
	if !strings.Contains(b.log.String(), "it goes to the base") {
		t.Errorf("nothing is said of that:\n%s", b.log.String())
	}
}

// TestDeep: paths longer than the kernel takes at once.
func TestDeep(t *testing.T) {
	b := newBench(t, Config{Names: []string{"pids"}})
	deepest := b.root
	for range 1200 {
		deepest = b.mkdir(deepest, "d")
	}
	if n := len(b.subs[0].node(deepest).path()); n < 4200 {
		t.Fatalf("the path has only %d bytes", n)
	}
	p := b.sleeper()
	if err := b.attach(deepest, p); err != nil {
		t.Fatal(err)
	}
	if v, err := b.ReadFile(deepest, b.file(0, "current"), nil); err != nil || string(v) != "1\n" {
		t.Errorf("pids.current: %q, %v", v, err)
	}
	if err := b.attach(b.root, p); err != nil {
		t.Fatal(err)
	}
	for c := deepest; !c.IsRoot(); {
		up := c.Parent()
		if err := b.Rmdir(c, nil); err != nil {
			t.Fatal(err)
		}
		c = up
	}
}

// TestOrigins: what is recorded of where tasks came from outlives the server.
func TestOrigins(t *testing.T) {
	store := &kept{rows: map[key]Origin{}}
	cfg := Config{Names: []string{"pids"}, Origins: store, Keep: true, ID: fmt.Sprintf("test-o%d", os.Getpid())}
	b := newBench(t, cfg)
	p := b.sleeper()
	b.foreign("containerfs-test-was", p)
	a := b.mkdir(b.root, "a")
	store.fail = syscall.ENOSPC
	if err := b.attach(a, p); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("what cannot be kept is no success: %v", err)
	}
	if at := b.where(p); at != "/containerfs-test-was" {
		t.Fatalf("refused, it is in %s", at)
	}
	b.wantOrigins(0)
	store.fail = nil
	if err := b.attach(a, p); err != nil {
		t.Fatal(err)
	}
	if len(store.rows) != 1 {
		t.Fatalf("kept are %v", store.rows)
	}
	k := b.sleeper()
	b.put(b.path(a), k) // it is forked there, as far as the kernel is concerned
	b.Update(func() {
		b.subs[0].Fork(b.Task(p), b.Task(k), a)
	})
	b.subs[0].Enforce()
	if len(store.rows) != 2 {
		t.Errorf("with a child, kept are %v", store.rows)
	}
	stray := b.mkdir(b.root, "stray")
	strayDir := b.path(stray)
	b.close()

	// One that is refused leaves everything as it is.
	refused := cfg
	refused.Origins = &kept{lost: syscall.EIO}
	refused.Log = slog.New(slog.DiscardHandler)
	if _, err := Open(refused); !errors.Is(err, syscall.EIO) {
		t.Fatalf("origins that cannot be read: %v", err)
	}
	subs, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := subs[0].Close(); err != nil {
		t.Fatal(err)
	}
	if at, err := subs[0].t.find(p); err != nil || !subs[0].t.owns(at) {
		t.Fatalf("servers were refused, and the task is in %s, %v", at, err)
	}

	// The next server has the same containers but for one.
	c := newBench(t, cfg)
	if _, err := os.Stat(strayDir); err != nil {
		t.Fatalf("a directory did not outlive the server: %v", err)
	}
	if a = c.mkdir(c.root, "a"); a.ID() != stray.ID()-1 {
		t.Fatalf("ids are %d and %d: the test does not do what it says", a.ID(), stray.ID())
	}
	c.scan(p, k)
	c.Update(func() {
		for _, tid := range []int32{p, k} {
			c.subs[0].t.inherit(nil, c.Task(tid), a)
		}
	})
	c.subs[0].Enforce()
	if _, err := os.Stat(strayDir); !os.IsNotExist(err) {
		t.Errorf("a directory that no container has is left: %v", err)
	}
	for _, tid := range []int32{p, k} {
		c.root.Tree().View(func() {
			if c.subs[0].t.from[c.Task(tid)] == nil {
				t.Errorf("it is not known where %d came from", tid)
			}
		})
		undo, err := c.giveBack(tid)
		if err != nil || undo == nil {
			t.Fatal(err)
		}
		if at := c.where(tid); at != "/containerfs-test-was" {
			t.Errorf("%d went back to %s", tid, at)
		}
		undo()
		if at := c.where(tid); !c.subs[0].t.owns(at) {
			t.Errorf("undone, %d is in %s", tid, at)
		}
		if _, err := c.giveBack(tid); err != nil {
			t.Fatal(err)
		}
		c.put(c.subs[0].t.mount, tid)
	}
	if err := c.Rmdir(a, nil); err != nil {
		t.Fatal(err)
	}
	c.cfg.Keep, c.subs[0].t.keep = false, false
}

// scan has tasks found as a server finds those that are there when it starts.
func (b *bench) scan(tids ...int32) {
	b.t.Helper()
	for _, tid := range tids {
		b.sim.ForkAs(hostsim.InitTID, tid)
	}
	b.sim.Lose()
	if err := b.sim.Resync(b.Resync); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) giveBack(tid int32) (func(), error) {
	var undo func()
	err := b.Change(func() (err error) {
		undo, err = b.subs[0].t.attach(b.Task(tid), b.subs[0].t.base)
		return err
	})
	return undo, err
}

// TestSlowWrite: a write that the kernel takes its time with, which a pipe in a
// directory's place stands for, holds up nobody else.
func TestSlowWrite(t *testing.T) {
	b := newBench(t, Config{Names: []string{"pids"}})
	a := b.mkdir(b.root, "a")
	s := b.subs[0]
	fake := t.TempDir()
	slow := filepath.Join(fake, s.node(a).path())
	if err := os.Mkdir(slow, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(slow+"/pids.max", 0o600); err != nil {
		t.Fatal(err)
	}
	b.Update(func() { s.node(a).set.before = map[string]string{"pids.max": "max\n"} }) // or the pipe is read
	pipe, full := fill(t, slow+"/pids.max")
	opened := watch(t, slow+"/pids.max")
	dir, err := kernfs.OpenDir(fake)
	if err != nil {
		t.Fatal(err)
	}
	real := s.t.baseDir.Swap(dir)
	done := make(chan error, 1)
	go func() { done <- b.WriteFile(&tree.Actor{}, a, b.file(0, "max"), []byte("12345")) }()
	opened()
	if err := b.Rmdir(a, nil); !errors.Is(err, unix.EBUSY) {
		t.Errorf("rmdir of what is written to: %v", err)
	}
	s.t.baseDir.Store(real)
	d := b.mkdir(b.root, "d")
	p := b.sleeper()
	if err := b.attach(d, p); err != nil {
		t.Error(err)
	}
	if err := b.WriteFile(&tree.Actor{}, d, b.file(0, "max"), []byte("5")); err != nil {
		t.Error(err)
	}
	if v, err := b.ReadFile(d, b.file(0, "max"), nil); err != nil || string(v) != "5\n" {
		t.Errorf("pids.max: %q, %v", v, err)
	}
	if err := b.attach(b.root, p); err != nil {
		t.Error(err)
	}
	select {
	case err := <-done:
		t.Fatalf("the write has ended: %v", err)
	default:
	}
	if err := os.Remove(slow + "/pids.max"); err != nil { // or what is written is read back
		t.Fatal(err)
	}
	got := make([]byte, full+5)
	if _, err := io.ReadFull(pipe, got); err != nil || string(got[full:]) != "12345" {
		t.Errorf("written was %q, %v", got[full:], err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := b.Rmdir(a, nil); err != nil {
		t.Error(err)
	}
	dir.Close()
}

// fill opens a pipe and writes as much to it as it takes.
func fill(t *testing.T, path string) (pipe *os.File, full int) {
	t.Helper()
	pipe, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pipe.Close() })
	raw, err := pipe.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { // it does not block
		for err == nil {
			n := 0
			if n, err = unix.Write(int(fd), make([]byte, 4096)); err == nil {
				full += n
			}
		}
	})
	if err != unix.EAGAIN {
		t.Fatal(err)
	}
	return pipe, full
}

// watch returns what waits until somebody has opened a file.
func watch(t *testing.T, path string) (opened func()) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_OPEN); err != nil {
		t.Fatal(err)
	}
	return func() {
		if _, err := unix.Read(fd, make([]byte, 4096)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRefused: what the host lacks is refused as a whole, and nothing is left.
func TestRefused(t *testing.T) {
	p := need(t, "pids")
	id := fmt.Sprintf("test-r%d", os.Getpid())
	subs, err := Open(Config{Names: []string{"pids", "misc"}, ID: id, Log: slog.New(slog.DiscardHandler)})
	if err == nil || subs != nil || !strings.Contains(err.Error(), "enable misc: ") {
		t.Errorf("%v, %v", subs, err)
	}
	if _, err := os.Stat(p.mount + "/containerfs-" + id); !os.IsNotExist(err) {
		t.Errorf("the base is left over: %v", err)
	}
}

// TestBaseRemoved: the base can be removed by somebody else while it is empty, and is
// made again.
func TestBaseRemoved(t *testing.T) {
	b := newBench(t, Config{Names: []string{"pids"}, ID: fmt.Sprintf("test-b%d", os.Getpid())})
	s := b.subs[0].t
	base := s.mount + s.basePath()
	if err := os.Remove(base); err != nil {
		t.Fatal(err)
	}
	if _, err := b.ReadFile(b.root, b.file(0, "max"), nil); !errors.Is(err, syscall.ENODEV) {
		t.Errorf("a read of what is not there: %v", err)
	}
	a := b.mkdir(b.root, "a")
	p := b.sleeper()
	if err := b.attach(a, p); err != nil {
		t.Error(err)
	}
	if got, want := b.where(p), fmt.Sprintf("%s/%d", s.basePath(), a.ID()); got != want {
		t.Errorf("it is in %s, want %s", got, want)
	}
	if v, err := b.ReadFile(b.root, b.file(0, "max"), nil); err != nil || string(v) != "max\n" {
		t.Errorf("made again: %q, %v", v, err)
	}
	if !strings.Contains(b.log.String(), "somebody else removed the base") {
		t.Errorf("nothing is said of that:\n%s", b.log.String())
	}
	if err := b.attach(b.root, p); err != nil {
		t.Error(err)
	}
}

// TestLimitsOfRemoved: directories that somebody else has removed have the limits when
// they are made again.
func TestLimitsOfRemoved(t *testing.T) {
	b := newBench(t, Config{Names: []string{"pids"}, ID: fmt.Sprintf("test-l%d", os.Getpid())})
	s := b.subs[0].t
	a := b.mkdir(b.root, "a")
	for c, limit := range map[*tree.Container]string{b.root: "100", a: "5"} {
		if err := b.WriteFile(&tree.Actor{}, c, b.file(0, "max"), []byte(limit)); err != nil {
			t.Fatal(err)
		}
	}
	base := s.mount + s.basePath()
	for _, dir := range []string{fmt.Sprintf("%s/%d", base, a.ID()), base} {
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
	}
	p := b.sleeper()
	if err := b.attach(a, p); err != nil {
		t.Error(err)
	}
	for c, limit := range map[*tree.Container]string{b.root: "100\n", a: "5\n"} {
		if v, err := b.ReadFile(c, b.file(0, "max"), nil); err != nil || string(v) != limit {
			t.Errorf("the limit of %s is %q, %v, want %q", c.Path(), v, err, limit)
		}
	}
	if err := b.attach(b.root, p); err != nil {
		t.Error(err)
	}
}

// TestNoBase: where the base cannot be used, nothing of it is left.
func TestNoBase(t *testing.T) {
	p := need(t, "pids")
	id := fmt.Sprintf("test-n%d", os.Getpid())
	failing := &kept{rows: map[key]Origin{}, lost: syscall.EIO}
	if _, err := Open(Config{Names: []string{"pids"}, ID: id, Origins: failing, Log: slog.New(slog.DiscardHandler)}); !errors.Is(err, syscall.EIO) {
		t.Errorf("origins that cannot be read: %v", err)
	}
	if _, err := os.Stat(p.mount + "/containerfs-" + id); !os.IsNotExist(err) {
		t.Errorf("the base is left over: %v", err)
	}
}
