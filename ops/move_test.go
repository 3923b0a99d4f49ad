package ops

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/hugelgupf/p9/linux"
)

// severalWorld has two hierarchies, in each of which alice may write to the tasks and
// procs of a container.
func severalWorld(t *testing.T) (*world, *client) {
	t.Helper()
	w, k := aWorld(t)
	w.mount("mount n beta")
	k.must(k.mkdir("n/b"))
	for _, c := range []string{"m/a", "n/b"} {
		for _, file := range []string{"tasks", "procs"} {
			k.must(k.chmod(c+"/"+file, 0o666))
		}
	}
	return w, k
}

func TestAttachPaths(t *testing.T) {
	w, k := severalWorld(t)
	p := w.fork(1000)
	th := w.host.Thread(p)
	alice := w.as(alice)
	alice.must(alice.write("ctl", fmt.Sprintf("attach procs %d\n/m/a\n/n/b\n", p)))
	for _, c := range []string{"m/a", "n/b"} {
		k.want(c+"/tasks", fmt.Sprintf("%d\n%d\n", p, th))
	}
	// Where a task is already it stays, in whatever order they come.
	alice.must(alice.write("ctl", fmt.Sprintf("attach tasks %d\n/n/b\n/m/a", p)))
	k.must(k.write("ctl", fmt.Sprintf("attach tasks %d\n/n/b\n/m", th)))
	k.want("m/a/tasks", fmt.Sprintln(p))
	k.want("n/b/tasks", fmt.Sprintf("%d\n%d\n", p, th))
}

// TestAttachPathsRefused: nothing is moved anywhere.
func TestAttachPathsRefused(t *testing.T) {
	w, k := severalWorld(t)
	p := w.fork(1000)
	theirs := w.fork(2000)
	write := func(as *client, format string, args ...any) func() error {
		return func() error { return as.write("ctl", fmt.Sprintf(format, args...)) }
	}
	for _, test := range []struct {
		want linux.Errno
		text string
	}{
		{linux.EINVAL, "attach"},
		{linux.EINVAL, "attach "},
		{linux.EINVAL, "attach procs 5"},
		{linux.EINVAL, "attach procs 5\n"},
		{linux.EINVAL, "attach procs 5\n\n"},
		{linux.EINVAL, "attach procs 5\nm/a"},
		{linux.EINVAL, "attach procs 5\n/"},
		{linux.EINVAL, "attach procs 5 /m/a"},
		{linux.EINVAL, "attach releasable 5\n/m/a"},
		{linux.EINVAL, "attach procs 0\n/m/a"},
		{linux.EINVAL, "attach procs -5\n/m/a"},
		{linux.ERANGE, "attach procs 2147483648\n/m/a"},
		{linux.ENOENT, "attach procs 5\n/m/a\n/n/nothing"},
		{linux.ENOENT, "attach procs 5\n/m/a\n/nothing"},
		{linux.ENOENT, "attach procs 5\n/proc/1"},
		{linux.ENOTDIR, "attach procs 5\n/m/a/tasks"},
		{linux.EINVAL, "attach procs 5" + strings.Repeat("\n/m/a", maxPaths+1)},
		{linux.ESRCH, "attach procs 4999\n/m/a\n/n/b"},
	} {
		w.refused(test.want, test.text, write(k, "%s", test.text))
	}
	w.refused(linux.EINVAL, "twice in one hierarchy", write(k, "attach procs %d\n/m/a\n/m", p))
	u := w.as(alice)
	w.refused(linux.EACCES, "another's", write(u, "attach procs %d\n/m/a\n/n/b", theirs))
	w.refused(linux.EACCES, "to where she may not write", write(u, "attach procs %d\n/m/a\n/n", p))
	k.must(k.chmod("n/b", 0o700))
	w.refused(linux.EACCES, "to where she may not go", write(u, "attach procs %d\n/m/a\n/n/b", p))
	k.must(k.chmod("n/b", 0o755))
	far := w.as(netA)
	w.refused(linux.EACCES, "over the network, out of what is not hers", write(far, "attach procs %d\n/m/a\n/n/b", p))

	beta := w.subs[1]
	beta.canAttach = syscall.ENOTTY
	w.refused(linux.ENOTTY, "can_attach in the second", write(k, "attach procs %d\n/m/a\n/n/b", p))
	beta.canAttach, beta.attach = nil, syscall.EDOM
	n := w.subs[0].attached
	w.refused(linux.EDOM, "attach in the second", write(k, "attach procs %d\n/m/a\n/n/b", p))
	if w.subs[0].attached != n {
		t.Error("the first hierarchy's attach was not undone")
	}
	beta.attach = nil
	k.must(write(k, "attach procs %d\n/m/a\n/n/b", p)())
}
