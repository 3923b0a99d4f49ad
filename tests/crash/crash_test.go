package crash

import (
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"containerfs/tree/kernfs"
)

var attrMask = p9.AttrMaskAll

// clients is how many change things at once.
const clients = 6

// TestCrashes kills servers while clients change things, one life after the other,
// on one state directory.
func TestCrashes(t *testing.T) {
	switch skip := os.Getenv("CONTAINERFS_SKIP"); {
	case slices.Contains(strings.Split(skip, ","), "host"):
		t.Skip("skipped by CONTAINERFS_SKIP=" + skip)
	case os.Geteuid() != 0:
		t.Fatal("following this host's processes needs root; CONTAINERFS_SKIP=host skips this")
	}
	crashes := 10
	if os.Getenv("SOAK") != "" {
		crashes = 200
	}
	dir := t.TempDir()
	args := []string{"--state", dir, "--hierarchy", "a=numtasks,debug", "--hierarchy", "b=bc"}
	oracles := [2]*oracle{newOracle(t, "a"), newOracle(t, "b")}
	s := startServer(t, true, args...)
	first, err := s.session()
	if err != nil {
		t.Fatal(err)
	}
	var cs []*client
	for n := range clients {
		cs = append(cs, newClient(t, n, first, oracles))
	}
	var took []time.Duration // until it was ready again
	changes, open, moves := 0, 0, 0
	var points [points]int // how often one was killed there
	for n := range crashes {
		var load sync.WaitGroup
		counts := make([]int, clients)
		for i, c := range cs {
			load.Go(func() {
				s, err := s.session()
				if err != nil {
					return // it was killed before
				}
				defer s.conn.Close()
				for c.change(s) {
					counts[i]++
				}
			})
		}
		if s.tap != nil {
			// Each of the points inside in turn.
			at := betweenPages + point(n/2)%(afterMeta-betweenPages+1)
			s.tap.kill(at, rand.IntN(30))
			s.killed(t, at)
			points[at]++
		} else {
			time.Sleep(time.Duration(rand.IntN(400_000)) * time.Microsecond)
			s.end(t, syscall.SIGKILL)
		}
		load.Wait()
		for i, c := range cs {
			changes += counts[i]
			if c.open != nil {
				open++
			}
			if c.moving != nil {
				moves++
			}
			c.fork() // without a server
		}
		// Every other one is killed inside of a commit.
		s = startServer(t, n%2 == 1, args...)
		took = append(took, s.took)
		look, err := s.session()
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cs {
			c.settle(look)
		}
		if t.Failed() {
			t.Fatal(s.text())
		}
		look.conn.Close()
	}
	compared := 0
	for _, c := range cs {
		compared += c.compared
	}
	slices.Sort(took)
	t.Logf("%d crashes, %d changes, %d of them open, %d of these moves; %d places of processes compared; ready again after %v, %v at most",
		crashes, changes, open, moves, compared, took[len(took)/2], took[len(took)-1])
	for at, n := range points {
		if n > 0 {
			t.Logf("%d killed %s", n, pointNames[at])
		}
	}
	if changes < crashes*clients || open == 0 || compared < crashes*clients*4 {
		t.Errorf("%d changes, %d open, %d places compared, in %d crashes", changes, open, compared, crashes)
	}
	last, err := s.session()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cs {
		c.end()
		c.remove(last)
	}
	// A server that is killed when all is gone leaves nothing to one that follows.
	s.end(t, syscall.SIGKILL)
	s = startServer(t, false, args...)
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		left := mirrorDirs(t, s)
		if len(left) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("css groups %v are left in the mirror", left)
		}
	}
	s.end(t, syscall.SIGTERM)
	if err := kernfs.Retire(mirror(t, dir), 20*time.Second); err != nil {
		t.Error(err)
	}
}

// mirrorDirs are the directories of a server's mirror.
func mirrorDirs(t testing.TB, s *server) []string {
	root, err := kernfs.OpenNamed(s.mirror())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	names, err := root.Dirs()
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// remove takes away the client's boxes, the innermost first.
func (c *client) remove(s *session) {
	var paths []string
	for n := range c.now.boxes {
		paths = append(paths, c.now.path(n))
	}
	slices.SortFunc(paths, func(a, b string) int { return len(b) - len(a) })
	for _, path := range paths {
		err := s.rmdir(path)
		// Who was killed takes a while to die.
		for end := time.Now().Add(30 * time.Second); errors.Is(err, linux.EBUSY) && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
			err = s.rmdir(path)
		}
		if err != nil {
			c.t.Errorf("rmdir %s: %v", path, err)
		}
	}
}
