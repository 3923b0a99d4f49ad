// Package subsystest is the conformance suite of subsystems: what holds for any
// of them, whatever it measures or limits. A subsystem's tests call Run, with a
// Setup that says how it is made on a simulated host.
//
// The rules are the list rules. Each makes a Tree of its own, of the subsystem
// and of one that comes after it and fails when it is told to, and ends with
// Tree.Check.
package subsystest

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"containerfs/tree"
	"containerfs/tree/hostsim"
)

// Setup is a subsystem that is to be tested.
type Setup struct {
	// New makes it for the tasks of a host. It is closed if it is an
	// io.Closer.
	New func(sim *hostsim.Host) tree.Subsystem

	// Ready are writes, by file, in this order, that let tasks enter a new
	// container.
	Ready []Write

	// Values are writes that change what a ready child shows, RootValues
	// what the root shows.
	Values, RootValues []Write

	// OfHost: what is set is the host's, which has no value for nothing.
	OfHost bool

	// Volatile are the files that may show something else without a reason.
	Volatile []string
}

// Write is a text for a file.
type Write struct{ File, Text string }

// Run tests a subsystem.
func Run(t *testing.T, s Setup) {
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			if err := s.check(r); err != nil {
				t.Error(err)
			}
		})
	}
}

type rule struct {
	name  string
	check func(*world) error
}

var rules = []rule{
	{"table of files", (*world).table},
	{"create and destroy pair up", (*world).pairs},
	{"a refused attach changes nothing", (*world).refusedAttach},
	{"files are readable while empty", (*world).readable},
	{"a refused write changes nothing", (*world).refusedWrite},
	{"siblings are independent", (*world).siblings},
	{"bind and unbind keep the root's state", (*world).binding},
	{"tasks come and go", (*world).tasks},
	{"saved and restored state is equal", (*world).saved},
}

func (s Setup) check(r rule) error {
	w, err := newWorld(s)
	if err != nil {
		return err
	}
	err = r.check(w)
	if c, ok := w.subject.(io.Closer); ok {
		err = errors.Join(err, c.Close())
	}
	w.tree.Drain()
	return errors.Join(err, w.tree.Check())
}

// world is a Tree with the subject, mounted.
type world struct {
	Setup
	subject tree.Subsystem
	later   *later
	spy     *spy
	sim     *hostsim.Host
	server  int32 // the process that the tests are
	tree    *tree.Tree
	root    *tree.Container
}

// boss is who asks for everything.
var boss = &tree.Actor{Privileged: true, Local: true}

func newWorld(s Setup) (*world, error) {
	w := &world{Setup: s, sim: hostsim.New(), server: int32(os.Getpid()), later: new(later)}
	w.subject = s.New(w.sim)
	w.spy = &spy{Subsystem: w.subject, made: make(map[*tree.Container]tree.State)}
	var err error
	w.tree, err = tree.New(tree.Config{
		Host: w.sim, Mirror: w.sim.Mirror(), Log: slog.New(slog.DiscardHandler),
		Subsystems: []tree.Subsystem{w.spy, w.later},
	})
	if err != nil {
		return nil, err
	}
	w.sim.ForkAs(hostsim.InitTID, w.server)
	w.sim.Run(w.tree)
	if err := w.tree.Resync(); err != nil {
		return nil, err
	}
	return w, w.mount("first", 3)
}

func (w *world) mount(name string, set tree.SubsystemSet) error {
	h, err := w.tree.Mount(tree.Mount{Subsystems: set, Name: name})
	if err == nil {
		w.root = h.Root()
	}
	return err
}

// mkdir makes a container that tasks can enter.
func (w *world) mkdir(p *tree.Container, name string) (*tree.Container, error) {
	c, err := w.tree.Mkdir(tree.MkdirRequest{Actor: boss, Parent: p, Name: name})
	if err == nil {
		err = w.writeAll(c, w.Ready)
	}
	return c, err
}

func (w *world) file(name string) *tree.File {
	files := w.tree.Files(0)
	if i := slices.IndexFunc(files, func(f tree.File) bool { return f.Name == name }); i >= 0 {
		return &files[i]
	}
	return &tree.File{Name: name}
}

func (w *world) writeAll(c *tree.Container, writes []Write) error {
	for _, v := range writes {
		if err := w.tree.WriteFile(boss, c, w.file(v.File), []byte(v.Text)); err != nil {
			return fmt.Errorf("writing %q to %s of %s: %w", v.Text, v.File, c.Path(), err)
		}
	}
	return nil
}

func (w *world) attach(c *tree.Container, tid int32) error {
	return w.tree.Attach(tree.AttachRequest{Actor: boss, To: c, ID: tid})
}

// shown is what the files of containers show, but for the volatile ones.
type shown map[string]string

// show reads all files. Each must be readable, or have no reader.
func (w *world) show(containers ...*tree.Container) (shown, error) {
	w.tree.Drain()
	s := make(shown)
	for _, c := range containers {
		files := w.tree.Files(0)
		for i := range files {
			f := &files[i]
			b, err := w.tree.ReadFile(c, f, nil)
			switch {
			case f.Read == nil && f.Fetch == nil && errors.Is(err, syscall.EINVAL):
				continue
			case err != nil:
				return nil, fmt.Errorf("reading %s of %s: %w", f.Name, c.Path(), err)
			case len(b) > 0 && b[len(b)-1] != '\n':
				return nil, fmt.Errorf("%s of %s ends without a newline: %q", f.Name, c.Path(), b)
			}
			if !slices.Contains(w.Volatile, f.Name) {
				s[c.Path()+" "+f.Name] = string(b)
			}
		}
	}
	return s, nil
}

// same is an error that says where two differ.
func (s shown) same(o shown) error {
	for _, k := range slices.Sorted(maps.Keys(s)) {
		if s[k] != o[k] {
			return fmt.Errorf("%s was %q, is %q", k, s[k], o[k])
		}
	}
	return nil
}

// unchanged does something and reports what it changed in containers.
func (w *world) unchanged(what string, do func() error, containers ...*tree.Container) error {
	before, err := w.show(containers...)
	if err != nil {
		return err
	}
	if err := do(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	after, err := w.show(containers...)
	if err == nil {
		err = before.same(after)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// heap is what is allocated.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// errAsked is the error that a test asked for.
var errAsked = fmt.Errorf("asked for: %w", syscall.EDOM)

func wantAsked(what string, err error) error {
	if !errors.Is(err, errAsked) {
		return fmt.Errorf("%s: %v, want the error that was asked for", what, err)
	}
	return nil
}
