package ops

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"containerfs/tree"
)

// through is a subsystem whose files are the host's.
type through struct {
	value   string
	fetch   error
	pass    chan error // what a write waits for
	entered chan bool
	kills   int // writes to the file that kills
}

func (*through) Name() string                               { return "through" }
func (*through) Create(*tree.Container) (tree.State, error) { return nil, nil }
func (*through) Destroy(*tree.Container, tree.State)        {}
func (s *through) get(*tree.Container) ([]byte, error)      { return []byte(s.value), s.fetch }
func (s *through) set(*tree.Actor, *tree.Container, []byte) error {
	s.entered <- true
	return <-s.pass
}

func (s *through) kill(*tree.Actor, *tree.Container, []byte) error { s.kills++; return nil }

func (s *through) Files() []tree.File {
	return []tree.File{{Name: "both", Fetch: s.get, Pass: s.set}, {Name: "in", Pass: s.set}, {Name: "out", Fetch: s.get}, {Name: "end", Kills: true, Pass: s.kill}}
}

func TestFilesOfTheHost(t *testing.T) {
	s := &through{value: "one\n", pass: make(chan error), entered: make(chan bool)}
	w := newWorld(t, func(_ *Config, tc *tree.Config) { tc.Subsystems = append(tc.Subsystems, s) })
	w.mount("mount h through,alpha")
	k := w.as(root)
	k.must(k.mkdir("h/a"))
	for name, mode := range map[string]p9.FileMode{"both": 0o644, "in": 0o200, "out": 0o444} {
		a, err := k.attr("h/a/through." + name)
		if err != nil || a.Mode.Permissions() != mode {
			t.Errorf("%s has mode %o, %v", name, a.Mode, err)
		}
	}
	k.want("h/a/through.both", "one\n")
	if _, err := k.read("h/a/through.in"); err != linux.EINVAL {
		t.Errorf("a file without a reader: %v", err)
	}
	if err := k.write("h/a/through.out", "x"); err != linux.EINVAL {
		t.Errorf("a file without a writer: %v", err)
	}
	s.fetch = syscall.EOPNOTSUPP
	if _, err := k.read("h/a/through.out"); err != linux.EOPNOTSUPP {
		t.Errorf("the host's errno: %v", err)
	}
	s.fetch = syscall.EINVAL
	if _, err := k.read("h/a/through.out"); err != linux.EINVAL {
		t.Errorf("the host's errno: %v", err)
	}
	s.fetch = nil

	// A fid shows what there was when it was opened, and after its own write
	// what there is.
	f, err := k.open("h/a/through.both", p9.ReadWrite)
	k.must(err)
	s.value = "two\n"
	if got, err := readAll(f); got != "one\n" || err != nil {
		t.Errorf("it shows %q, %v", got, err)
	}
	written := make(chan error)
	go func() { written <- writeTo(f, "x") }()
	<-s.entered

	// Others go on while the host takes its time.
	o := w.as(bob)
	o.want("h/a/through.both", "two\n")
	k.must(k.write("h/a/alpha.value", "7"))
	k.must(k.mkdir("h/b"))
	tid := w.fork(0)
	k.must(k.write("h/b/tasks", fmt.Sprint(tid)))
	if err := k.rmdir("h/a"); err != linux.EBUSY {
		t.Errorf("rmdir of what is written to: %v", err)
	}
	s.pass <- nil
	if err := <-written; err != nil {
		t.Error(err)
	}
	if got, err := readAll(f); got != "two\n" || err != nil {
		t.Errorf("after its write it shows %q, %v", got, err)
	}
	k.must(k.rmdir("h/a"))
	if err := writeTo(f, "x"); err != linux.ENODEV {
		t.Errorf("a write to what is removed: %v", err)
	}
	if _, err := readAll(f); err != linux.ENODEV {
		t.Errorf("a read of what is removed: %v", err)
	}
}

// TestKillsByTheHost: by a file with which the kernel kills nobody kills more than by kill.
func TestKillsByTheHost(t *testing.T) {
	s := new(through)
	w := newWorld(t, func(_ *Config, tc *tree.Config) { tc.Subsystems = append(tc.Subsystems, s) })
	w.mount("mount h through,alpha")
	k := w.as(root)
	k.must(k.mkdir("h/a"))
	k.must(k.mkdir("h/a/b"))
	for _, path := range []string{"h/a/through.end", "h/a/kill"} {
		k.must(k.chown(path, alice.UID, 100))
	}
	al := w.as(alice)
	hers, roots := w.fork(alice.UID), w.fork(0)
	k.must(k.write("h/a/procs", fmt.Sprint(hers)))
	al.must(al.write("h/a/through.end", "1"))
	k.must(k.write("h/a/b/procs", fmt.Sprint(roots)))
	for _, path := range []string{"h/a/through.end", "h/a/kill"} {
		w.refused(linux.EACCES, path, func() error { return al.write(path, "1") })
	}
	k.must(k.write("h/a/through.end", "1"))
	k.must(k.write("h/through.end", "1")) // which has the host's in the kernel's root, not here
	w.host.Exit(roots)
	al.must(al.write("h/a/through.end", "1"))
	if s.kills != 4 {
		t.Errorf("the kernel was asked %d times", s.kills)
	}
	info, err := w.host.Task(hers)
	k.must(err)
	w.fs.protected[hers] = info.Start
	w.refused(linux.EACCES, "of the protected", func() error { return k.write("h/a/through.end", "1") })
}
