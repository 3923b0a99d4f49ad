package tests

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/hugelgupf/p9/linux"
)

// TestUnkeptKernelSetting: a setting of the kernel's that cannot be kept is taken back,
// the first of a file as well.
func TestUnkeptKernelSetting(t *testing.T) {
	onTmpfs(t, "1m", func(t *testing.T, dir string) {
		state := filepath.Join(dir, "state")
		s := startServer(t, "--state", state, "--enable", "pids", "--hierarchy", "n=pids")
		c := s.client("/")
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Error(err)
			}
		}
		must(c.mkdir("/n/a"))
		must(c.mkdir("/n/b"))
		must(c.write("/n/b/pids.max", "9"))
		ballast := filepath.Join(dir, "ballast")
		fill(t, ballast)
		for n, err := 0, error(nil); err == nil && n < 5000; n++ {
			err = c.mkdir(fmt.Sprintf("/n/%0200d", n))
		}
		for name, want := range map[string]string{"a": "max\n", "b": "9\n"} {
			err := c.write("/n/"+name+"/pids.max", "7")
			if !errors.Is(err, linux.ENOSPC) && !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("%s: %v, want ENOSPC", name, err)
			}
			if got, err := c.read("/n/" + name + "/pids.max"); got != want || err != nil {
				t.Errorf("%s: the limit is %q, %v, want %q", name, got, err, want)
			}
		}
		must(os.Remove(ballast))
		s.run("write", "/n/b/pids.max", "8")
		for _, name := range []string{"a", "b"} {
			s.run("rmdir", "/n/"+name)
		}
		s.stop()
		retireMirrors(t, state)
	})
}
