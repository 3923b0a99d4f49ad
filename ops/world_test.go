package ops

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"containerfs/tree"
	"containerfs/tree/hostsim"
)

// world is a FS over a simulated host, checked when the test ends.
type world struct {
	t    testing.TB
	fs   *FS
	tree *tree.Tree
	host *simulated
	subs []*fake
	log  *logBuffer
}

// Who asks.
var (
	root    = &Caller{UID: 0, GIDs: []uint32{0}, Local: true}
	netRoot = &Caller{UID: 0, GIDs: []uint32{0}}
	alice   = &Caller{UID: 1000, GIDs: []uint32{100, 7}, Local: true}
	netA    = &Caller{UID: 1000, GIDs: []uint32{100, 7}}
	bob     = &Caller{UID: 2000, GIDs: []uint32{200, 7}, Local: true}
)

// configure changes what a world is made of.
type configure func(*Config, *tree.Config)

func newWorld(t testing.TB, with ...configure) *world {
	t.Helper()
	w := &world{t: t, log: new(logBuffer)}
	w.host = &simulated{Host: hostsim.New(), kernel: make(map[int32]bool), saved: make(map[int32]uint32)}
	w.subs = fakes()
	recorder := NewRecorder(64 << 10)
	tc := tree.Config{Host: w.host, Mirror: w.host.Mirror(), Observer: recorder}
	for _, s := range w.subs {
		tc.Subsystems = append(tc.Subsystems, s)
	}
	cfg := Config{
		Host: w.host, Recorder: recorder, Signal: w.host.signal, AllowReleaseAgent: true,
		Log: slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, f := range with {
		f(&cfg, &tc)
	}
	var err error
	if w.tree, err = tree.New(tc); err != nil {
		t.Fatal(err)
	}
	cfg.Tree = w.tree
	w.host.Run(w.tree)
	if err := w.tree.Resync(); err != nil {
		t.Fatal(err)
	}
	w.fs = New(cfg)
	rootsOwn(w.fs)
	t.Cleanup(w.end)
	return w
}

// rootsOwn makes a server root's, whoever runs the tests.
func rootsOwn(fs *FS) {
	fs.uid, fs.gid = 0, 0
	fs.eventsPerm.uid, fs.eventsPerm.gid = 0, 0
	fs.rules.serve(fs)
}

func (w *world) end() {
	w.fs.Close()
	w.tree.Drain()
	if err := w.tree.Check(); err != nil {
		w.t.Errorf("inconsistent at the end:\n%v", err)
	}
	if err := w.tree.CheckMirror(w.host.TIDs()); err != nil {
		w.t.Errorf("model and mirror differ at the end:\n%v", err)
	}
	containers, owned := 0, make(map[uint32]int)
	w.tree.View(func() {
		for h := range w.tree.Hierarchies {
			containers += h.Containers()
			eachBelow(h.Root(), func(c *tree.Container) { owned[attrsOf(c).dir.uid]++ })
		}
	})
	for _, s := range w.subs {
		want := 1 // the root state, wherever it is bound
		w.tree.View(func() {
			if h := w.tree.Bound(s.id); h != nil {
				want = h.Containers()
			}
		})
		if s.states != want {
			w.t.Errorf("%s has %d states, want %d", s.name, s.states, want)
		}
	}
	if got, want := fmt.Sprint(w.fs.recorder.owned), fmt.Sprint(owned); got != want {
		w.t.Errorf("containers are counted as owned by %s, are by %s", got, want)
	}
}

func eachBelow(c *tree.Container, f func(*tree.Container)) {
	c.Children(0, func(k *tree.Container) bool {
		f(k)
		eachBelow(k, f)
		return true
	})
}

// mount mounts by ctl's words and must succeed.
func (w *world) mount(words string) {
	w.t.Helper()
	w.as(root).must(w.as(root).write("ctl", words))
}

// container finds a container by hierarchy and path.
func (w *world) container(path string) (c *tree.Container) {
	w.t.Helper()
	f, err := w.as(root).walk(path)
	if err != nil {
		w.t.Fatalf("%s: %v", path, err)
	}
	defer f.Close()
	return f.(*file).n.(containerDir).c
}

// state is all that can be seen of the name space: every file of every active
// hierarchy with its attributes and contents.
func (w *world) state() string {
	w.t.Helper()
	w.tree.Drain()
	var b bytes.Buffer
	at := &attachment{fs: w.fs, caller: root, actor: tree.Actor{Privileged: true, Local: true}, root: topDir{}}
	w.dump(&b, at, topDir{}, "/")
	var hidden []*tree.Hierarchy
	w.tree.View(func() {
		for h := range w.tree.Hierarchies {
			if !h.Published() {
				hidden = append(hidden, h)
			}
		}
	})
	for _, h := range hidden {
		w.dump(&b, at, containerDir{h.Root()}, "("+h.Name()+")")
	}
	return b.String()
}

func (w *world) dump(b *bytes.Buffer, at *attachment, n node, path string) {
	w.t.Helper()
	// No hold: what is shown must not change by looking.
	f := &file{at: at, n: n}
	qid, _, attr, err := f.GetAttr(p9.AttrMask{})
	if err != nil {
		w.t.Fatalf("%s: %v", path, err)
	}
	fmt.Fprintf(b, "%s %v %o %d:%d nlink %d size %d atime %d.%d mtime %d.%d", path, qid, attr.Mode, attr.UID, attr.GID,
		attr.NLink, attr.Size, attr.ATimeSeconds, attr.ATimeNanoSeconds, attr.MTimeSeconds, attr.MTimeNanoSeconds)
	if _, _, err := f.Open(p9.ReadOnly); err != nil {
		w.t.Fatalf("open %s: %v", path, err)
	}
	d, ok := n.(directory)
	if !ok {
		if _, isLog := n.(stream); !isLog || n.(stream).stream(w.fs) == nil {
			fmt.Fprintf(b, " %q", f.content)
		}
		b.WriteByte('\n')
		return
	}
	b.WriteByte('\n')
	entries, err := f.Readdir(0, 1<<31)
	if err != nil {
		w.t.Fatalf("readdir %s: %v", path, err)
	}
	for _, e := range entries[2:] {
		var k node
		w.tree.View(func() { k, err = d.lookup(w.fs, e.Name) })
		if err != nil {
			w.t.Fatalf("%s lists %s: %v", path, e.Name, err)
		}
		w.dump(b, at, k, strings.TrimSuffix(path, "/")+"/"+e.Name)
	}
}

// refused does what must be refused: with the errno, and with everything as it
// was before.
func (w *world) refused(want linux.Errno, what string, do func() error) {
	w.t.Helper()
	before := w.state()
	if got := errno(do()); got != want {
		w.t.Errorf("%s: %v, want %v", what, got, want)
	}
	if after := w.state(); after != before {
		w.t.Errorf("%s: refused, but it changed\n%s", what, difference(before, after))
	}
}

// difference shows the lines that two texts do not share.
func difference(a, b string) string {
	la, lb := strings.Split(a, "\n"), strings.Split(b, "\n")
	var out []string
	for _, l := range la {
		if !slices.Contains(lb, l) {
			out = append(out, "- "+l)
		}
	}
	for _, l := range lb {
		if !slices.Contains(la, l) {
			out = append(out, "+ "+l)
		}
	}
	if len(out) > 12 {
		out = append(out[:12], "...")
	}
	return strings.Join(out, "\n")
}

// errno is the errno of an error, 0 for none. Files return nothing else.
func errno(err error) linux.Errno {
	var e linux.Errno
	switch {
	case err == nil, err == io.EOF:
		return 0
	case errors.As(err, &e):
		return e
	}
	panic(fmt.Sprintf("not an errno of the wire: %v", err))
}

// simulated is a host with kernel threads, saved uids and signals.
type simulated struct {
	*hostsim.Host
	mu     sync.Mutex
	kernel map[int32]bool
	saved  map[int32]uint32
	killed int
	immune map[int32]bool // processes that signals do not end
	refuse map[int32]bool // those that the server may not signal
	stops  map[int32]bool // those that are stopped
	onKill func(tgid int32)
	onStop func(tgid int32)
	onTask func(tid int32) // before a task is looked at
}

func (s *simulated) Task(tid int32) (tree.TaskInfo, error) {
	if s.onTask != nil {
		s.onTask(tid)
	}
	info, err := s.Host.Task(tid)
	s.mu.Lock()
	defer s.mu.Unlock()
	info.Kernel = s.kernel[tid]
	return info, err
}

func (s *simulated) Glance(int32) (info tree.TaskInfo, ok bool) { return info, false }

func (s *simulated) Owner(tid int32) (ruid, suid uint32, err error) {
	ruid, suid, err = s.Host.Owner(tid)
	s.mu.Lock()
	defer s.mu.Unlock()
	if u, ok := s.saved[tid]; ok {
		suid = u
	}
	return ruid, suid, err
}

func (s *simulated) signal(task tree.TaskInfo, sig syscall.Signal) error {
	if s.refuse[task.TGID] {
		return syscall.EPERM
	}
	switch sig {
	case syscall.SIGKILL:
	case syscall.SIGSTOP, syscall.SIGCONT: // nothing here runs by itself
		s.mu.Lock()
		if s.stops == nil {
			s.stops = make(map[int32]bool)
		}
		s.stops[task.TGID] = sig == syscall.SIGSTOP
		s.mu.Unlock()
		if s.onStop != nil && sig == syscall.SIGSTOP {
			s.onStop(task.TGID)
		}
		return nil
	default:
		return syscall.EINVAL
	}
	s.mu.Lock()
	immune, onKill := s.immune[task.TGID], s.onKill
	s.killed++
	s.mu.Unlock()
	if onKill != nil {
		onKill(task.TGID)
	}
	if immune {
		return nil
	}
	var tids []int32
	s.Tasks(task.TGID, func(i tree.TaskInfo) bool { tids = append(tids, i.TID); return true })
	if len(tids) == 0 {
		return syscall.ESRCH
	}
	for _, tid := range tids {
		s.Exit(tid)
	}
	return nil
}

// fork makes a process of a user.
func (w *world) fork(uid uint32) int32 {
	pid := w.host.Fork(hostsim.InitTID)
	w.host.SetOwner(pid, uid)
	return pid
}

// logBuffer is what was logged.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// within waits for something that must happen soon.
func within(t testing.TB, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Errorf("%s: not after a minute", what)
	}
}
