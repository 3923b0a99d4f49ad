package ns

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"containerfs/tree"
	"containerfs/tree/hostproc"
)

// waiting is a command that tells when it runs, and waits for the end of its input.
var waiting = []string{"sh", "-c", "echo here; read end"}

// model is a Tree as the host tells it of events.
type model struct{ *tree.Tree }

func (m model) Resync(uint64) { _ = m.Tree.Resync() }

// real is a Tree with ns over this machine.
func real(t *testing.T) (*tree.Tree, *tree.Container) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making namespaces needs root")
	}
	host, err := hostproc.Open(hostproc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close() })
	if !host.Source().Connector {
		t.Skip(host.Source())
	}
	s := New(NewHost(), slog.New(slog.DiscardHandler))
	tr, err := tree.New(tree.Config{Host: host, Subsystems: []tree.Subsystem{s}})
	if err != nil {
		t.Fatal(err)
	}
	host.Start(model{tr})
	h, err := tr.Mount(tree.Mount{Subsystems: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.Close()
		if err := tr.Check(); err != nil {
			t.Error(err)
		}
	})
	return tr, h.Root()
}

// start starts what waits, behind another command if there is one; it ends with
// the test.
func start(t *testing.T, flags uintptr, argv ...string) int32 {
	t.Helper()
	argv = append(argv, waiting...)
	c := exec.Command(argv[0], argv[1:]...)
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = c.Wait()
	})
	if _, err := out.Read(make([]byte, 4)); err != nil {
		t.Fatalf("%q: %v", argv, err)
	}
	return int32(c.Process.Pid)
}

// wantIn waits until a process with all its threads is in a container.
func wantIn(t *testing.T, tr *tree.Tree, root *tree.Container, pid int32, want string) {
	t.Helper()
	got := map[string]bool{}
	for range 3000 {
		threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			t.Fatal(err)
		}
		tr.Drain()
		clear(got)
		tr.View(func() {
			for _, entry := range threads {
				tid, _ := strconv.Atoi(entry.Name())
				if task := tr.Task(int32(tid)); task != nil {
					got[task.Container(root.Hierarchy()).Path()] = true
				}
			}
		})
		if len(got) == 1 && got[want] {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("process %d is in %v, want %s", pid, got, want)
}

// childOf is the only child of a process.
func childOf(t *testing.T, pid int32) int32 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 32)
	if err != nil {
		t.Fatalf("children of %d: %q", pid, text)
	}
	return int32(n)
}

func TestRealProcesses(t *testing.T) {
	tr, root := real(t)
	t.Run("none", func(t *testing.T) {
		wantIn(t, tr, root, start(t, 0), "/")
	})
	t.Run("clone", func(t *testing.T) {
		pid := start(t, syscall.CLONE_NEWUTS|syscall.CLONE_NEWNS)
		wantIn(t, tr, root, pid, fmt.Sprintf("/node_%d", pid))
	})
	t.Run("unshare", func(t *testing.T) {
		pid := start(t, 0, "unshare", "--uts", "--ipc")
		wantIn(t, tr, root, pid, fmt.Sprintf("/node_%d", pid))
	})
	t.Run("unshare fork", func(t *testing.T) {
		// With a new pid namespace only the child has new ones.
		pid := start(t, 0, "unshare", "--pid", "--fork")
		child := childOf(t, pid)
		wantIn(t, tr, root, child, fmt.Sprintf("/node_%d", child))
		wantIn(t, tr, root, pid, "/")
	})
	t.Run("unshare, then fork", func(t *testing.T) {
		pid := start(t, 0, "unshare", "--uts", "--fork")
		wantIn(t, tr, root, childOf(t, pid), fmt.Sprintf("/node_%d", pid))
		wantIn(t, tr, root, pid, fmt.Sprintf("/node_%d", pid))
	})
}

// TestSettled: namespaces that change while they are read are read again.
func TestSettled(t *testing.T) {
	before, after := Set{1, 1}, Set{2, 2}
	for _, test := range []struct {
		reads []Set // a zero one fails
		want  Set
	}{
		{[]Set{before, before}, before},
		{[]Set{{1, 2}, after, after}, after},
		{[]Set{before, {1, 2}, after, after}, after},
		{[]Set{before, {}}, Set{}},
		{[]Set{{}}, Set{}},
	} {
		n := 0
		set, err := settled(func() (Set, error) {
			n++
			if s := test.reads[n-1]; s != (Set{}) {
				return s, nil
			}
			return Set{}, syscall.ESRCH
		})
		if set != test.want || n != len(test.reads) || (err != nil) != (test.want == Set{}) {
			t.Errorf("%v: %v, %v after %d", test.reads, set, err, n)
		}
	}
	n := uint64(0)
	if _, err := settled(func() (Set, error) { n++; return Set{n}, nil }); err != nil || n > maxReads+1 {
		t.Errorf("%d reads, %v", n, err)
	}
}

func TestNamespacesOfThisHost(t *testing.T) {
	mine, err := NewHost().Namespaces(int32(os.Getpid()))
	if err != nil || mine == (Set{}) {
		t.Errorf("own namespaces are %v, %v", mine, err)
	}
	if _, err := NewHost().Namespaces(1<<22 + 1); err != syscall.ESRCH {
		t.Errorf("of no process: %v", err)
	}
}
