package ops

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"containerfs/tree"
)

// TestEverythingAtOnce has clients do whatever they can at the same time, mounts
// and remounts included. No answer may be an errno that the request cannot have,
// nothing may hang, and the model must be whole at the end, with every state
// destroyed and every container counted.
func TestEverythingAtOnce(t *testing.T) {
	w, k := aWorld(t, func(c *Config, _ *tree.Config) { c.MaxContainersPerUser = 50 })
	k.must(k.chmod("m", 0o777))
	k.must(k.chmod("m/tasks", 0o666))
	k.must(k.write("m/release_agent", "/bin/true"))
	var running sync.WaitGroup
	for i := range 8 {
		running.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 7))
			c := []*Caller{root, netRoot, alice, bob}[r.IntN(4)]
			at, err := w.fs.Attach(c, "")
			if err != nil {
				t.Error(err)
				return
			}
			defer at.Close()
			u := &client{t, at}
			for range 400 {
				what, err := something(w, u, c, r)
				switch errno(err) {
				case 0, linux.ENOENT, linux.EEXIST, linux.EBUSY, linux.ENODEV, linux.ESRCH, linux.EACCES, linux.EPERM, linux.EAGAIN, linux.EIO:
				default:
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
	running.Wait()
	w.fs.recorder.releases.idle(t)
}

func something(w *world, u *client, c *Caller, r *rand.Rand) (what string, err error) {
	name := func() string { return string(rune('a' + r.IntN(4))) }
	path := func() string {
		p := "m/" + name()
		for r.IntN(2) == 0 {
			p += "/" + name()
		}
		return p
	}
	tids := w.host.TIDs()
	tid := tids[r.IntN(len(tids))]
	switch r.IntN(18) {
	case 0, 1, 2:
		return "mkdir", u.mkdirMode(path(), 0o777)
	case 3:
		return "rmdir", u.rmdir(path())
	case 4:
		p := path()
		return "rename", u.rename(p, p[:len(p)-1]+name())
	case 5:
		w.host.SetOwner(w.fork(c.UID), c.UID)
		return "fork", nil
	case 6:
		if len(tids) > 30 && tid != 1 {
			w.host.Exit(tid)
		}
		return "exit", nil
	case 7, 8:
		return "attach", u.write(path()+"/tasks", fmt.Sprint(tid))
	case 9:
		return "attach process", u.write(path()+"/procs", fmt.Sprint(tid))
	case 10:
		_, err := u.read(path() + "/" + []string{"tasks", "procs", "alpha.value", "populated", "releasable"}[r.IntN(5)])
		return "read", err
	case 11:
		_, err := u.list([]string{"", "m", "proc", path()}[r.IntN(4)], 3)
		return "list", err
	case 12:
		return "kill", u.write(path()+"/kill", "1")
	case 13:
		return "chown", u.chown(path(), uint32(r.IntN(3)*1000), 7)
	case 14:
		return "set", u.write(path()+"/"+[]string{"alpha.value", "notify_on_release"}[r.IntN(2)], "1")
	case 15:
		f, err := w.fs.Attach(c, []string{"beta", "beta+delta", "m/a", "m", "name=m,alpha,cpuset"}[r.IntN(5)])
		if err == nil {
			if _, clone, err := f.Walk(nil); err == nil {
				defer clone.Close()
			}
			f.Mkdir("x", 0o777, 0, 0)
			f.UnlinkAt("x", atRemovedir)
			f.Close()
		}
		return "attach and detach", err
	case 16:
		words := []string{"umount m", "mount m alpha,cpuset", "mount n delta", "remount n delta,beta", "umount n"}[r.IntN(5)]
		return words, u.write("ctl", words)
	default:
		_, err := u.read(fmt.Sprintf("proc/%d/container", tid))
		w.fs.Attach(&Caller{UID: 1}, "nothing")
		f, openErr := u.open("events", p9.ReadOnly)
		if openErr == nil {
			f.ReadAt(make([]byte, 5000), 0)
			f.Close()
		}
		return "proc", err
	}
}
