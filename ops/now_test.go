package ops

import (
	"fmt"
	"slices"
	"testing"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"containerfs/tree"
)

// quickly has attaches of one thread take microseconds where "through" alone is bound.
func quickly(_ *Config, tc *tree.Config) {
	tc.Prompt = func() bool { return true }
	tc.Subsystems = append(tc.Subsystems, new(through))
}

// prompter is what p9srv asks a file for.
type prompter interface {
	WriteNow(p []byte, offset int64) (int, error)
}

// writeNow writes to a file without a wait.
func (k *client) writeNow(path, data string) (done bool, err error) {
	k.t.Helper()
	f, err := k.open(path, p9.WriteOnly)
	if err != nil {
		k.t.Fatal(err)
	}
	defer f.Close()
	n, err := f.(prompter).WriteNow([]byte(data), 0)
	done = err != ErrWouldWait
	if done && err == nil && n != len(data) {
		k.t.Errorf("wrote %d of %d", n, len(data))
	}
	return done, err
}

func TestWriteNow(t *testing.T) {
	for _, kept := range []bool{false, true} {
		t.Run(fmt.Sprint("kept=", kept), func(t *testing.T) {
			with := []configure{quickly}
			if kept {
				with = append(with, keepIn(t, t.TempDir()))
			}
			w := newWorld(t, with...)
			w.mount("mount m through")
			k := w.as(root)
			k.must(k.mkdir("m/a"))
			p := w.host.Fork(1)
			pid := fmt.Sprint(p)
			for range 2 {
				k.must(k.write("m/a/tasks", pid)) // its css group is there, and kept
				k.must(k.write("m/tasks", pid))
			}
			if done, err := k.writeNow("m/a/tasks", pid); !done || err != nil {
				t.Fatalf("a move: %v, %v", done, err)
			}
			k.want("m/a/tasks", pid+"\n")
			if done, err := k.writeNow("m/a/tasks", "99999"); !done || errno(err) != linux.ESRCH {
				t.Errorf("a move of nobody: %v, %v", done, err)
			}
			if done, err := k.writeNow("m/a/tasks", "x"); !done || errno(err) != linux.EINVAL {
				t.Errorf("no number: %v, %v", done, err)
			}
			// What is to be kept is waited for.
			if done, err := k.writeNow("m/a/notify_on_release", "1"); done == kept || err != nil && done {
				t.Errorf("a setting: %v, %v", done, err)
			}
			want := "1\n"
			if kept {
				want = "0\n"
			}
			k.want("m/a/notify_on_release", want)
			for _, name := range []string{"procs", "kill", "max.depth", "attributes"} {
				if !slices.Contains(k.names("m/a"), name) {
					continue
				}
				if done, _ := k.writeNow("m/a/"+name, "1"); done {
					t.Errorf("%s was written to at once", name)
				}
			}
			k.want("m/a/tasks", pid+"\n")
		})
	}
}

// Nothing is told, or done, of a write that has to wait.
func TestWriteNowThatHasToWait(t *testing.T) {
	w := newWorld(t, quickly)
	w.mount("mount m through")
	k := w.as(root)
	k.must(k.mkdir("m/a"))
	p := w.host.Fork(1)
	w.tree.Drain()
	begun, end, ended := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() { ended <- w.tree.Change(func() error { close(begun); <-end; return nil }) }()
	<-begun
	logged := w.log.String()
	for name, data := range map[string]string{"tasks": fmt.Sprint(p), "notify_on_release": "1"} {
		if done, err := k.writeNow("m/a/"+name, data); done {
			t.Errorf("%s: %v, %v", name, done, err)
		}
	}
	if now := w.log.String(); now != logged {
		t.Errorf("logged %q", now[len(logged):])
	}
	close(end)
	k.must(<-ended)
	k.want("m/a/tasks", "")
	k.want("m/a/notify_on_release", "0\n")
}

// Who may change nothing does not either at once.
func TestWriteNowReadOnly(t *testing.T) {
	w := newWorld(t, quickly)
	w.mount("mount m through")
	p := w.host.Fork(1)
	w.as(root).must(w.as(root).mkdir("m/a"))
	f, err := w.as(&Caller{UID: 0, Local: true, ReadOnly: true}).walk("m/a/tasks")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.(prompter).WriteNow([]byte(fmt.Sprint(p)), 0); errno(err) != linux.EROFS {
		t.Error(err)
	}
	w.as(root).want("m/a/tasks", "")
}
