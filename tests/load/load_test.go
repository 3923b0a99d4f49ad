package main

import (
	"bufio"
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerfs/tree/kernfs"
)

// aFloor starts a floor in this process.
func aFloor(t *testing.T, root *kernfs.Dir) *target {
	t.Helper()
	dir, err := os.MkdirTemp("", "cfsload") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r, w := io.Pipe()
	go serveFloor(w, filepath.Join(dir, "floor"), root)
	addr, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	f := &target{name: "floor", process: os.Getpid(), places: []place{{"tcp", strings.TrimSpace(addr)}, {"unix", filepath.Join(dir, "floor")}}}
	for range maxSlots {
		f.pids = append(f.pids, []byte("1"))
	}
	return f
}

// TestRows runs each row under each load against the floor: every reply is one to the
// request, and an operation has as many messages as it should.
func TestRows(t *testing.T) {
	f := aFloor(t, nil)
	b := &book{settings: &settings{time: 5 * time.Millisecond, reps: 1, rows: regexp.MustCompile("")}}
	b.loads = regexp.MustCompile("^(1x32|8x8)") // 1x1 pins this process
	if err := b.measureAll(peers, []*target{f}, 0, loads); err != nil {
		t.Fatal(err)
	}
	if err := b.measureAll(peers, []*target{f}, 1, loads); err != nil {
		t.Fatal(err)
	}
	for k, all := range b.results {
		if r := all[0]; r.rate <= 0 || r.p50 <= 0 || r.p99 < r.p50 || r.cpu <= 0 {
			t.Errorf("%s at %v over %s: %+v", k.row.name, k.load, k.network, r)
		}
	}
	if want := 2 * 2 * len(rows); len(b.results) != want {
		t.Errorf("%d results, want %d", len(b.results), want)
	}
	// As many bytes are read of a large file as there are.
	k, err := newClient(f.places[0], f, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	for i := range rows {
		k.row, k.slots[0].offset = &rows[i], 0
		if err := k.run(time.Now()); err != nil {
			t.Fatal(err)
		}
		want := map[string]uint64{"ls 1k": 1000, "ls 10k": 10000, "tasks 1k": 6000, "tasks 10k": 60000}[rows[i].short]
		if got := k.slots[0].offset; got != want {
			t.Errorf("%s ends at %d, want %d", rows[i].name, got, want)
		}
	}
}

// TestMover: the floor that moves has the kernel move each slot's task to and fro.
func TestMover(t *testing.T) {
	root, err := kernfs.OpenNamed(hierarchy(os.Getpid()))
	if errors.Is(err, unix.EPERM) && os.Geteuid() != 0 {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := kernfs.Retire(root, 20*time.Second); err != nil {
			t.Error(err)
		}
	})
	f := aFloor(t, root)
	var where [2]string
	for i := range where {
		c := child(exec.Command("sleep", "1000"))
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { kill(c) })
		f.pids[i] = strconv.AppendInt(nil, int64(c.Process.Pid), 10)
		where[i] = fmt.Sprintf("/proc/%d/cgroup", c.Process.Pid)
	}
	k, err := newClient(f.places[0], f, 2, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	at := slices.IndexFunc(rows, func(r row) bool { return r.short == "move" })
	for n := range 3 {
		for i := range k.slots {
			k.slots[i].tally = uint64(n + i)
		}
		k.row = &rows[at]
		if err := k.run(time.Now()); err != nil {
			t.Fatal(err)
		}
		for i, name := range where {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if want := fmt.Sprintf("name=%s:/%s.%d\n", hierarchy(os.Getpid()), f.pids[i], (n+i)%2); !strings.Contains(string(text), want) {
				t.Errorf("after %d moves of slot %d there is no %q in %s", n+1, i, want, text)
			}
		}
	}
}

// TestErrors: an operation that fails ends the measurement, and says what failed.
func TestErrors(t *testing.T) {
	f := aFloor(t, nil)
	k, err := newClient(f.places[0], f, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	k.row = &row{name: "nothing", steps: []step{{func(b []byte, s *slot) []byte { return end(begin(b, 99, s.tag), len(b)) }, nil}}}
	if err := k.run(time.Now()); !errors.Is(err, io.EOF) {
		t.Errorf("the floor hangs up: %v", err)
	}
	refused := end(append(begin(nil, rlerror, 1), 13, 0, 0, 0), 0)
	if err := replyError(refused); err == nil || !strings.Contains(err.Error(), "13") {
		t.Errorf("an Rlerror is told as %v", err)
	}
}

// TestPublish: tables have a cell for each column, and the plot is XML with a bar for
// each row and load.
func TestPublish(t *testing.T) {
	b := &book{settings: new(settings), results: make(map[key][]result)}
	for _, l := range loads {
		tab := loadTable{part: peers, network: "tcp", load: l, targets: []string{"containerfs", "diod", "floor"}}
		for i := range rows {
			tab.rows = append(tab.rows, &rows[i])
			for n, name := range tab.targets {
				k := tab.key(&rows[i], name)
				for _, rate := range []float64{1, 500, 100} { // the median is 100
					b.results[k] = append(b.results[k], result{rate: rate / float64(n+1), p50: 1, p99: 2, cpu: time.Duration(n+1) * time.Microsecond})
				}
			}
		}
		b.loadTables = append(b.loadTables, tab)
	}
	var out strings.Builder
	b.table(&out, &b.loadTables[1])
	columns := 0
	for line := range strings.Lines(out.String()) {
		if !strings.HasPrefix(line, "|") {
			continue
		}
		if n := strings.Count(line, "|"); columns == 0 {
			columns = n
		} else if n != columns {
			t.Errorf("%d columns, not %d: %s", n-1, columns-1, line)
		}
	}
	if want := "| getattr | 100 | 50 | 33 | 2.00 | 3.00 | 4 **missed**, CPU 1/2.0 |"; !strings.Contains(out.String(), want) {
		t.Errorf("no %s in\n%s", want, out.String())
	}
	bars := 0
	for d := xml.NewDecoder(bytes.NewReader(b.draw())); ; {
		tok, err := d.Token()
		if err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if e, ok := tok.(xml.StartElement); ok && e.Name.Local == "rect" {
			bars++
		}
	}
	if want := 1 + len(loads) + len(loads)*len(rows); bars != want {
		t.Errorf("%d rectangles, want %d", bars, want)
	}
}
