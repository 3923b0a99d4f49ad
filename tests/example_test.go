package tests

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// example is a subsystem as somebody else would write it, in a module of their
// own: it counts the programs that are executed in a container.
// tree.Subsystem's documentation refers to it.
const example = `// Package execs counts the programs that are executed in a container.
package execs

import (
	"strconv"

	"containerfs/tree"
)

// Subsystem is the execs subsystem of one Tree.
type Subsystem struct{ id int }

func (s *Subsystem) Name() string { return "execs" }

func (s *Subsystem) Create(c *tree.Container) (tree.State, error) {
	if c.IsRoot() {
		s.id = c.Tree().SubsystemID(s.Name())
	}
	return new(int64), nil
}

func (s *Subsystem) Destroy(*tree.Container, tree.State) {}

func (s *Subsystem) count(c *tree.Container) *int64 { return c.State(s.id).(*int64) }

// Exec is tree.Execer's.
func (s *Subsystem) Exec(_ *tree.Task, c *tree.Container) { *s.count(c)++ }

func (s *Subsystem) Files() []tree.File {
	return []tree.File{{Name: "count", Read: s.read}}
}

func (s *Subsystem) read(c *tree.Container, b []byte) ([]byte, error) {
	return append(strconv.AppendInt(b, *s.count(c), 10), '\n'), nil
}
`

// exampleTest is the example's own test: it passes the conformance suite, and
// counts.
const exampleTest = `package execs

import (
	"testing"

	"containerfs/subsys/subsystest"
	"containerfs/tree"
	"containerfs/tree/hostsim"
)

var _ tree.Execer = (*Subsystem)(nil)

func TestConformance(t *testing.T) {
	subsystest.Run(t, subsystest.Setup{
		New: func(*hostsim.Host) tree.Subsystem { return new(Subsystem) },
	})
}

func TestCount(t *testing.T) {
	sim, s := hostsim.New(), new(Subsystem)
	tr, err := tree.New(tree.Config{Host: sim, Subsystems: []tree.Subsystem{s}})
	if err != nil {
		t.Fatal(err)
	}
	sim.Run(tr)
	if err := tr.Resync(); err != nil {
		t.Fatal(err)
	}
	h, err := tr.Mount(tree.Mount{Subsystems: 1})
	if err != nil {
		t.Fatal(err)
	}
	sim.Exec(hostsim.InitTID)
	tr.Drain()
	if b, err := tr.ReadFile(h.Root(), &tr.Files(0)[0], nil); string(b) != "1\n" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}
`

// TestExampleSubsystem builds a subsystem outside of the repository against it.
func TestExampleSubsystem(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(example, "\n"); n > 42 {
		t.Errorf("the example has %d lines", n)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":        "module example.org/execs\n\ngo 1.26\n\nrequire containerfs v0.0.0\n\nreplace containerfs => " + root + "\n",
		"execs.go":      example,
		"execs_test.go": exampleTest,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"vet", "."}, {"test", "-count=1", "."}} {
		c := exec.Command("go", args...)
		c.Dir = dir
		c.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}
