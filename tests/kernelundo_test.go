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
		containers := []string{"a", "b"}
		for n, err := 0, error(nil); err == nil && n < 5000; n++ {
			name := fmt.Sprintf("%0200d", n)
			if err = c.mkdir("/n/" + name); err == nil {
				containers = append(containers, name)
			}
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
		for _, name := range containers {
			s.run("rmdir", "/n/"+name)
		}
		base := s.base() // which stays while there are containers
		s.stop()
		for _, where := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
			if left, _ := filepath.Glob(where + base); len(left) > 0 {
				t.Errorf("left over: %q", left)
			}
		}
		retireMirrors(t, state)
	})
}
