package crash

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// hierarchies are those that all clients use.
var hierarchies = []string{"a", "b"}

// box is a container, by what a client set in it.
type box struct {
	parent        int // of itself for a client's top
	name          string
	mode, uid     uint32
	notify, depth string
	setting       string // numtasks.shares or bc.numproc.limit
}

// settings are the files of box.setting, by hierarchy, with what they begin with.
var settings = []struct{ file, initial, format string }{
	{"numtasks.shares", "res=numtasks,min_shares=-3,max_shares=-3,child_shares_divisor=100\n", "res=numtasks,min_shares=-3,max_shares=-3,child_shares_divisor=%d\n"},
	{"bc.numproc.limit", "9223372036854775807\n", "%d\n"},
}

// ledger is what is there, as far as one client is concerned.
type ledger struct {
	boxes map[int]box    // by a number of the client's own; a top is the hierarchy's index
	at    map[int][2]int // where processes are
}

func (l ledger) clone() ledger { return ledger{maps.Clone(l.boxes), maps.Clone(l.at)} }

func (l ledger) path(n int) string {
	b := l.boxes[n]
	if b.parent == n {
		return "/" + hierarchies[n] + "/" + b.name
	}
	return l.path(b.parent) + "/" + b.name
}

// hierarchy is the index of that which a box is in.
func (l ledger) hierarchy(n int) int {
	for l.boxes[n].parent != n {
		n = l.boxes[n].parent
	}
	return n
}

// lines are the ledger as text, a line for each box.
func (l ledger) lines() []string {
	in := make(map[int][]int)
	for pid, at := range l.at {
		for _, n := range at {
			in[n] = append(in[n], pid)
		}
	}
	var lines []string
	for n, b := range l.boxes {
		slices.Sort(in[n])
		lines = append(lines, fmt.Sprintf("%s %o %d %q %q %q %v", l.path(n), b.mode, b.uid, b.notify, b.depth, b.setting, in[n]))
	}
	slices.Sort(lines)
	return lines
}

// client changes its part of the tree.
type client struct {
	t    testing.TB
	rnd  *rand.Rand
	next int // number of the next box

	now ledger
	// open is what there is if the change that was under way when the server was
	// killed has happened, nil without one.
	open *ledger

	runner *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	kids   []int
}

func newClient(t testing.TB, n int, s *session) *client {
	c := &client{t: t, rnd: rand.New(rand.NewPCG(rand.Uint64(), uint64(n))), next: len(hierarchies)}
	c.now = ledger{make(map[int]box), make(map[int][2]int)}
	for i, h := range hierarchies {
		name := fmt.Sprint("client", n)
		if err := s.mkdir("/"+h+"/"+name, 0o755); err != nil {
			t.Fatal(err)
		}
		c.now.boxes[i] = box{i, name, 0o755, 0, "0\n", "max\n", settings[i].initial}
	}
	c.runner = exec.Command(os.Args[0])
	c.runner.Env = append(os.Environ(), "CONTAINERFS_TEST_RUNNER=1")
	c.runner.Stderr = os.Stderr
	c.runner.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var err error
	if c.in, err = c.runner.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.runner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.out = bufio.NewReader(out)
	if err := c.runner.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.end)
	for i := range hierarchies {
		if err := s.write(c.now.path(i)+"/procs", strconv.Itoa(c.runner.Process.Pid)); err != nil {
			t.Fatal(err)
		}
	}
	c.now.at[c.runner.Process.Pid] = [2]int{0, 1}
	c.fork()
	return c
}

// end ends the client's processes.
func (c *client) end() {
	if c.runner.ProcessState == nil {
		syscall.Kill(-c.runner.Process.Pid, syscall.SIGKILL)
		c.runner.Wait()
	}
}

// fork has the runner fork. The child is where the runner is.
func (c *client) fork() {
	if _, err := io.WriteString(c.in, "\n"); err != nil {
		c.t.Fatal(err)
	}
	line, err := c.out.ReadString('\n')
	if err != nil {
		c.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		c.t.Fatal(err)
	}
	c.kids = append(c.kids, pid)
	c.now.at[pid] = c.now.at[c.runner.Process.Pid]
	if c.open != nil {
		c.open.at[pid] = c.open.at[c.runner.Process.Pid]
	}
}

// change makes one random change and reports whether the server is still there.
func (c *client) change(s *session) bool {
	next := c.now.clone()
	boxes := slices.Sorted(maps.Keys(c.now.boxes))
	n := boxes[c.rnd.IntN(len(boxes))]
	b := c.now.boxes[n]
	path := c.now.path(n)
	name := fmt.Sprint("box", c.rnd.IntN(20))
	h := c.now.hierarchy(n)
	var do func() error
	set := func(field *string, file, value string) {
		*field = value
		next.boxes[n] = b
		do = func() error { return s.write(path+"/"+file, value) }
	}
	switch c.rnd.IntN(12) {
	case 0, 1, 2:
		if len(boxes) > 14 {
			return true
		}
		mode := uint32(0o700 + c.rnd.IntN(0o100))
		next.boxes[c.next] = box{n, name, mode, 0, b.notify, "max\n", settings[h].initial}
		c.next++
		do = func() error { return s.mkdir(path+"/"+name, mode) }
	case 3, 4:
		if b.parent == n {
			return true
		}
		delete(next.boxes, n)
		do = func() error { return s.rmdir(path) }
	case 5:
		if b.parent == n {
			return true
		}
		b.name = name
		next.boxes[n] = b
		do = func() error { return s.rename(path, name) }
	case 6:
		b.mode, b.uid = uint32(0o700+c.rnd.IntN(0o100)), uint32(c.rnd.IntN(3)*1000)
		next.boxes[n] = b
		do = func() error { return s.setattr(path, b.mode, b.uid) }
	case 7:
		set(&b.notify, "notify_on_release", fmt.Sprintln(c.rnd.IntN(2)))
	case 8:
		set(&b.depth, "max.depth", fmt.Sprintln(c.rnd.IntN(9)+20))
	case 9:
		// Above what is there: it is to succeed.
		set(&b.setting, settings[h].file, fmt.Sprintf(settings[h].format, 1000+c.rnd.IntN(1000)))
		if h == 1 && c.rnd.IntN(2) == 0 {
			// A barrier first, so that the limit is refused below it.
			set(&b.setting, settings[h].file, fmt.Sprintf(settings[h].format, uint64(1)<<62))
		}
	case 10:
		c.fork()
		if len(c.kids) > 20 {
			pid := c.kids[0]
			c.kids = c.kids[1:]
			syscall.Kill(pid, syscall.SIGKILL)
			delete(c.now.at, pid)
		}
		return true
	case 11:
		pid := c.runner.Process.Pid
		if c.rnd.IntN(2) == 0 {
			pid = c.kids[c.rnd.IntN(len(c.kids))]
		}
		at := next.at[pid]
		at[h] = n
		next.at[pid] = at
		do = func() error { return s.write(path+"/procs", strconv.Itoa(pid)) }
	}
	c.open = &next
	switch err := do(); {
	case err == nil:
		c.now, c.open = next, nil
	case refused(c.t, err):
		c.open = nil
	default:
		return false
	}
	return true
}

// actual is what the server shows of the client's boxes.
func (c *client) actual(s *session) (lines []string) {
	var walk func(h int, path string)
	walk = func(h int, path string) {
		f, err := s.walk(path)
		if err != nil {
			c.t.Fatalf("%s: %v", path, err)
		}
		_, _, attr, err := f.GetAttr(attrMask)
		f.Close()
		if err != nil {
			c.t.Fatalf("%s: %v", path, err)
		}
		var texts [4]string
		for i, file := range []string{"notify_on_release", "max.depth", settings[h].file, "procs"} {
			if texts[i], err = s.read(path + "/" + file); err != nil {
				c.t.Fatalf("%s/%s: %v", path, file, err)
			}
		}
		var pids []int
		for _, word := range strings.Fields(texts[3]) {
			pid, _ := strconv.Atoi(word)
			pids = append(pids, pid)
		}
		lines = append(lines, fmt.Sprintf("%s %o %d %q %q %q %v", path, attr.Mode.Permissions(), attr.UID, texts[0], texts[1], texts[2], pids))
		dirs, err := s.dirs(path)
		if err != nil {
			c.t.Fatalf("%s: %v", path, err)
		}
		for _, name := range dirs {
			walk(h, path+"/"+name)
		}
	}
	for i := range hierarchies {
		walk(i, c.now.path(i))
	}
	slices.Sort(lines)
	return lines
}

// settle compares the server with the ledger after a crash, and finds out whether the
// open change has happened.
func (c *client) settle(s *session) {
	is := c.actual(s)
	if c.open != nil && slices.Equal(is, c.open.lines()) {
		c.now = *c.open
	} else if was := c.now.lines(); !slices.Equal(is, was) {
		c.t.Errorf("there is not what was acknowledged, nor what was asked for:\n%s", difference(was, is))
		if c.open != nil {
			c.t.Errorf("or:\n%s", difference(c.open.lines(), is))
		}
	}
	c.open = nil
	for pid := range c.now.at {
		if err := syscall.Kill(pid, 0); err != nil {
			c.t.Errorf("process %d: %v", pid, err)
		}
	}
}

func difference(want, is []string) string {
	var out []string
	for _, l := range want {
		if !slices.Contains(is, l) {
			out = append(out, "want "+l)
		}
	}
	for _, l := range is {
		if !slices.Contains(want, l) {
			out = append(out, "is   "+l)
		}
	}
	return strings.Join(out, "\n")
}
