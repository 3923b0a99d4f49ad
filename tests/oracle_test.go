package tests

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"syscall"
	"testing"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"containerfs/ops"
	"containerfs/p9srv"
	"containerfs/p9srv/p9test"
	"containerfs/tree"
	"containerfs/tree/hostsim"
)

// simulation is a FS over a simulated host.
type simulation struct {
	fs   *ops.FS
	host *hostsim.Host
	tree *tree.Tree
}

func newSimulation(t testing.TB, subsystems ...tree.Subsystem) *simulation {
	t.Helper()
	host := hostsim.New()
	recorder := ops.NewRecorder(1 << 20)
	tr, err := tree.New(tree.Config{Host: host, Mirror: host.Mirror(), Subsystems: subsystems, Observer: recorder})
	if err != nil {
		t.Fatal(err)
	}
	host.Run(tr)
	if err := tr.Resync(); err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	fs := ops.New(ops.Config{Tree: tr, Host: host, Recorder: recorder, Log: quiet, Signal: func(tree.TaskInfo, syscall.Signal) error { return syscall.EPERM }})
	t.Cleanup(func() {
		fs.Close()
		tr.Drain()
		if err := errors.Join(tr.Check(), tr.CheckMirror(host.TIDs())); err != nil {
			t.Errorf("inconsistent at the end:\n%v", err)
		}
	})
	return &simulation{fs, host, tr}
}

// value is a subsystem with a value per container.
type value struct{}

func (value) Name() string                               { return "value" }
func (value) Create(*tree.Container) (tree.State, error) { return new([]byte), nil }
func (value) Destroy(*tree.Container, tree.State)        {}

func (value) Files() []tree.File {
	return []tree.File{
		{
			Name: "text",
			Read: func(c *tree.Container, b []byte) ([]byte, error) { return append(b, *c.State(0).(*[]byte)...), nil },
			Write: func(_ *tree.Actor, c *tree.Container, data []byte) error {
				if len(data) == 0 {
					return syscall.EDOM
				}
				c.Tree().Update(func() { *c.State(0).(*[]byte) = bytes.Clone(data) })
				return nil
			},
		},
		{Name: "constant", Read: func(_ *tree.Container, b []byte) ([]byte, error) { return append(b, "one\n"...), nil }},
		{Name: "ignored", Write: func(*tree.Actor, *tree.Container, []byte) error { return nil }},
	}
}

// library serves a FS to the library's server, which does not say who attaches.
type library struct {
	fs     *ops.FS
	caller *ops.Caller
}

func (l library) Attach() (p9.File, error) {
	f, err := l.fs.Attach(l.caller, "")
	return typed{f}, err
}

// typed is a file whose entries have the types of getdents(2), which Linux needs.
// p9srv puts them in itself, the library's server sends what it is given.
type typed struct{ p9.File }

func (f typed) Walk(names []string) ([]p9.QID, p9.File, error) {
	qids, to, err := f.File.Walk(names)
	if to != nil {
		to = typed{to}
	}
	return qids, to, err
}

func (f typed) Readdir(offset uint64, count uint32) (p9.Dirents, error) {
	ents, err := f.File.Readdir(offset, count)
	for i := range ents {
		if ents[i].Type = 8; ents[i].QID.Type == p9.TypeDir {
			ents[i].Type = 4
		}
	}
	return ents, err
}

func (f typed) RenameAt(oldName string, newDir p9.File, newName string) error {
	return f.File.RenameAt(oldName, newDir.(typed).File, newName)
}

func (f typed) Rename(newDir p9.File, newName string) error {
	return f.File.Rename(newDir.(typed).File, newName)
}

var oracleRuns = flag.Int("oracle", 20, "how many random sequences to compare with the library's server")

// TestDispatcherAgainstTheLibrary sends the same requests to p9srv and to the
// library's server, each over a name space of its own of the same making.
func TestDispatcherAgainstTheLibrary(t *testing.T) {
	for seed := range uint64(*oracleRuns) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			prepare := func() *simulation {
				s := newSimulation(t, value{})
				if err := s.fs.Mount("m", "value"); err != nil {
					t.Fatal(err)
				}
				root, err := s.fs.Attach(&ops.Caller{Local: true}, "m")
				if err != nil {
					t.Fatal(err)
				}
				defer root.Close()
				for range 5 {
					s.host.Fork(hostsim.InitTID)
				}
				a := walkTo(t, root)
				defer a.Close()
				for _, name := range []string{"a", "b"} {
					if _, err := a.Mkdir(name, 0o755, 0, 0); err != nil {
						t.Fatal(err)
					}
				}
				return s
			}
			ours, theirs := prepare(), prepare()
			addr := p9test.Serve(t, p9srv.Config{Attacher: ours.fs})
			p9test.Oracle{
				Root:    []string{"m", "a"},
				Names:   []string{"a", "b", "c", "d", "tasks", "value.text", "bad\nname"},
				Files:   []string{"tasks", "procs", "value.text", "value.constant", "value.ignored", "notify_on_release", "max.depth", "max.descendants", "releasable", "populated", "x"},
				Values:  []string{"0", "1", "2\n", "5", "9", "max", "", "some longer text\n", "-1"},
				Differs: differs,
			}.Run(t, seed, 500, p9test.Client(t, p9test.Dial(t, addr)),
				p9test.Client(t, p9test.ServeLibrary(t, library{theirs.fs, &ops.Caller{Local: true}})))
		})
	}
}

// differs are the deliberate differences: those of the dispatchers, and what the
// library's server does not ask its files about.
func differs(op string, tested, library linux.Errno) bool {
	switch {
	case (op == "rename" || op == "renameat") && tested == linux.ENOTDIR && library == 0:
		return true // a control file to its own name is no change for it
	case library == linux.ENOENT && tested == linux.ENODEV:
		return true // it knows that the directory is removed (SPEC §3: ENODEV)
	}
	return p9test.LibraryDiffers(op, tested, library)
}
