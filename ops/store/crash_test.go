package store

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestTornCommit is a crash of the host within a commit: some of the pages that it
// writes are there and the meta page is not. What was kept before is found.
func TestTornCommit(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	path := filepath.Join(dir, FileName)
	rnd := rand.New(rand.NewPCG(5, 6))
	want := make(map[Key]string)
	var before []byte
	var was map[Key]string
	for round := range 60 {
		was = make(map[Key]string)
		for k, v := range want {
			was[k] = v
		}
		var err error
		if before, err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
		s.mu.Lock() // all in one commit
		for range 1 + rnd.IntN(40) {
			k := key(1 + rnd.Uint64N(300))
			v := strings.Repeat("v", rnd.IntN(900)) + fmt.Sprint(round)
			s.pending[k] = row{value: []byte(v)}
			want[k] = v
		}
		s.mu.Unlock()
		s.Put(key(1000), []byte("x"), nil)
		want[key(1000)] = "x"
		kept(t, s)
		after, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for try := range 10 {
			torn := append([]byte{}, after...)
			copy(torn, before[:2*pageSize]) // neither meta page
			for page := 2; page < len(before)/pageSize; page++ {
				if try > 0 && rnd.IntN(2) == 0 {
					copy(torn[page*pageSize:][:pageSize], before[page*pageSize:])
				}
			}
			if try == 1 {
				torn = torn[:len(before)]
			}
			got := make(map[Key]string)
			if _, err := check(torn, func(k Key, v []byte) error { got[k] = string(v); return nil }); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			same(t, got, was)
		}
	}
}

// childShrinks has it write the file anew after each commit.
const childShrinks = "CONTAINERFS_TEST_STORE_SHRINKS"

// childDir has the test binary be a server that TestKilled kills.
var childDir = os.Getenv("CONTAINERFS_TEST_STORE")

func TestMain(m *testing.M) {
	if childDir != "" {
		childMain(childDir)
		return
	}
	os.Exit(m.Run())
}

// childMain changes things as fast as it can, each in two rows, and says what is
// kept.
func childMain(dir string) {
	if os.Getenv(childShrinks) != "" {
		shrinkFrom, shrinkPart = 0, 1
	}
	s, err := Open(dir, func(Key, []byte) error { return nil })
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var out sync.Mutex
	const clients = 4
	for client := range uint64(clients) {
		go func() {
			for n := 1; ; n++ {
				v := fmt.Sprint(n, strings.Repeat("x", n%700))
				s.mu.Lock() // both in one commit, as a change of the tree is
				s.pending[key(client*2+1)] = row{value: []byte(v)}
				s.pending[key(client*2+2)] = row{value: []byte(v)}
				s.mu.Unlock() // a commit can begin here
				if err := s.Wait(s.Put(key(clients*2+1), []byte{'x'}, nil)); err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				out.Lock()
				fmt.Printf("%d %d\n", client, n)
				out.Unlock()
			}
		}()
	}
	select {}
}

// TestKilled kills a process that commits all the time, at any point: what it said
// is kept is there, and no change by half.
func TestKilled(t *testing.T) {
	rounds := 15
	if os.Getenv("SOAK") != "" {
		rounds = 300
	}
	rnd := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	for round := range rounds {
		dir := t.TempDir()
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "CONTAINERFS_TEST_STORE="+dir)
		if round%3 == 2 {
			cmd.Env = append(cmd.Env, childShrinks+"=1")
		}
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		in := bufio.NewScanner(out)
		said := make(map[uint64]int)
		lines := 20 + rnd.IntN(60)
		for in.Scan() {
			var client uint64
			var n int
			if _, err := fmt.Sscan(in.Text(), &client, &n); err == nil {
				said[client] = n
			}
			if lines--; lines == 0 {
				time.AfterFunc(time.Duration(rnd.IntN(3000))*time.Microsecond, func() { cmd.Process.Kill() })
			}
		}
		cmd.Wait()
		s, rows := open(t, dir)
		for client, n := range said {
			var first, second int
			fmt.Sscanf(strings.TrimRight(rows[key(client*2+1)], "x"), "%d", &first)
			fmt.Sscanf(strings.TrimRight(rows[key(client*2+2)], "x"), "%d", &second)
			if first < n || first > n+1 || first != second {
				t.Errorf("client %d was told that %d is kept, there are %d and %d", client, n, first, second)
			}
		}
		if len(said) == 0 {
			t.Error("nothing was said")
		}
		mustClose(t, s)
	}
}

// BenchmarkOpen reads a state of a million rows.
func BenchmarkOpen(b *testing.B) {
	for _, n := range []uint64{10_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			dir := b.TempDir()
			s, _ := open(b, dir)
			for i := range n {
				s.Put(key(i+1), []byte("a row as long as a container's, which is some 60 bytes or so"), nil)
			}
			kept(b, s)
			mustClose(b, s)
			for b.Loop() {
				s, err := Open(dir, func(Key, []byte) error { return nil })
				if err != nil {
					b.Fatal(err)
				}
				s.Close()
			}
		})
	}
}
