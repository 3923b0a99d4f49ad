package tests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/hugelgupf/p9/p9"
)

// TestMountListsMany: a mount lists a directory of 100,000, with SOAK, whole and in order,
// while it changes.
func TestMountListsMany(t *testing.T) {
	if !inside {
		var settings []string
		if soaking {
			settings = append(settings, "SOAK=1")
		}
		runInside(t, "^TestMountListsMany$", settings...)
		return
	}
	n := 5000
	if soaking {
		n = 100_000
	}
	s := startServer(t)
	c := s.client("all")
	if err := c.mkdir("/many"); err != nil {
		t.Fatal(err)
	}
	many, err := c.walk("/many")
	if err != nil {
		t.Fatal(err)
	}
	defer many.Close()
	mkdir := func(name string) error {
		_, err := many.Mkdir(name, 0o755, p9.NoUID, p9.NoGID)
		return err
	}
	began := time.Now()
	for i := range n {
		if err := mkdir(fmt.Sprintf("c%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d made in %v", n, time.Since(began))
	dir := t.TempDir()
	if out, err := exec.Command(commandPath(), "mount", "-o", "aname=all", "unix://"+s.sock, dir).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v\n%s", err, out)
	}
	defer func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	}()

	d, err := os.Open(filepath.Join(dir, "many"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	began = time.Now()
	next, late := 0, 0
	for page := 0; ; page++ {
		names, err := d.Readdirnames(1000)
		for _, name := range names {
			var i int
			switch k, _ := fmt.Sscanf(name, "late%d", &i); {
			case k == 1:
				late++
			case name == fmt.Sprintf("c%d", next):
				next++
			case name[0] == 'c' && name[1] >= '0' && name[1] <= '9':
				t.Fatalf("%s where c%d should be", name, next)
			}
		}
		if len(names) == 0 {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		// What comes meanwhile moves nothing; once there is nothing else it ends.
		if next < n {
			if err := mkdir(fmt.Sprintf("late%d", page)); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%d listed in %v, %d of them made meanwhile", next+late, time.Since(began), late)
	if next != n {
		t.Errorf("listed %d of %d", next, n)
	}
}
