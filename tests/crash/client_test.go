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
	"time"

	"containerfs/tests/hold"
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

// ledger is what containers there are, as far as one client is concerned.
type ledger struct {
	boxes map[int]box // by a number of the client's own; a top is the hierarchy's index
}

func (l ledger) clone() ledger { return ledger{maps.Clone(l.boxes)} }

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
	var lines []string
	for n, b := range l.boxes {
		lines = append(lines, fmt.Sprintf("%s %o %d %q %q %q", l.path(n), b.mode, b.uid, b.notify, b.depth, b.setting))
	}
	slices.Sort(lines)
	return lines
}

// outside is the number that the root of a hierarchy has for a client.
const outside = -1

// move is an open one, of a process that is stopped until it is known where it is.
type move struct {
	process   *hold.Process
	hierarchy int
	to        int
}

// client changes its part of the tree.
type client struct {
	t    testing.TB
	name string
	rnd  *rand.Rand
	next int // number of the next box

	now ledger
	// open is what there is if the change that was under way when the server was
	// killed has happened, nil without one.
	open *ledger
	// moving is not nil if that change is a move.
	moving *move

	oracles [2]*oracle
	runner  *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
	kids    []int

	compared int // processes, each in each hierarchy
}

func newClient(t testing.TB, n int, s *session, oracles [2]*oracle) *client {
	c := &client{
		t: t, name: fmt.Sprint("client", n), rnd: rand.New(rand.NewPCG(rand.Uint64(), uint64(n))),
		next: len(hierarchies), now: ledger{make(map[int]box)}, oracles: oracles,
	}
	for i, h := range hierarchies {
		if err := s.mkdir("/"+h+"/"+c.name, 0o755); err != nil {
			t.Fatal(err)
		}
		c.now.boxes[i] = box{i, c.name, 0o755, 0, "0\n", "max\n", settings[i].initial}
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
	// Its first children can be forked before it is in both.
	p := c.stop(c.runner.Process.Pid)
	for end := time.Now().Add(10 * time.Second); p == nil && time.Now().Before(end); {
		p = c.stop(c.runner.Process.Pid)
	}
	if p == nil {
		t.Fatal("the runner does not stop")
	}
	for i := range hierarchies {
		if err := s.write(c.now.path(i)+"/procs", strconv.Itoa(c.runner.Process.Pid)); err != nil {
			t.Fatal(err)
		}
		c.oracles[i].move(c.dir(i), p.PID)
	}
	p.Release()
	c.fork()
	return c
}

// dir is the directory of an oracle that stands for a box, or for the root.
func (c *client) dir(n int) string { return fmt.Sprint(c.name, ".", n) }

// list are the client's processes, by an oracle, but for those forked before the first
// move.
func (c *client) list() (pids []int32) {
	for n := range c.everywhere() {
		for _, pid := range c.oracles[0].members(c.dir(n)) {
			pids = append(pids, int32(pid))
		}
	}
	return pids
}

// everywhere are the numbers of the boxes of the client, and of the root.
func (c *client) everywhere() map[int]bool {
	all := map[int]bool{outside: true}
	for n := range c.now.boxes {
		all[n] = true
	}
	return all
}

// stop stops one of the client's processes, nil if it does not stop.
func (c *client) stop(pid int) *hold.Process {
	// The number cannot be another's: it is not reaped before it has been killed.
	p, _, err := hold.Stop(int32(pid), func() bool { return true })
	if err != nil {
		c.t.Fatal(err)
	}
	return p
}

// end ends the client's processes.
func (c *client) end() {
	if c.runner.ProcessState == nil {
		syscall.Kill(-c.runner.Process.Pid, syscall.SIGKILL)
		c.runner.Wait()
	}
}

// fork has the runner fork, if that is not stopped. The child is where the runner is.
func (c *client) fork() {
	if c.moving != nil && int(c.moving.process.PID) == c.runner.Process.Pid {
		return
	}
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
		}
		return true
	case 11:
		pid := c.runner.Process.Pid
		if c.rnd.IntN(2) == 0 {
			pid = c.kids[c.rnd.IntN(len(c.kids))]
		}
		if c.rnd.IntN(6) == 0 {
			n, path = outside, "/"+hierarchies[h]
		}
		p := c.stop(pid)
		if p == nil {
			return true
		}
		c.moving = &move{p, h, n}
		do = func() error { return s.write(path+"/procs", strconv.Itoa(pid)) }
	}
	c.open = &next
	switch err := do(); {
	case err == nil:
		c.now = next
		c.moved(true)
	case refused(c.t, err):
		c.moved(false)
	default:
		return false
	}
	return true
}

// moved is the end of a change. If that was a move it has happened, or not.
func (c *client) moved(is bool) {
	c.open = nil
	m := c.moving
	if m == nil {
		return
	}
	c.moving = nil
	if is {
		c.oracles[m.hierarchy].move(c.dir(m.to), m.process.PID)
	}
	m.process.Release()
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
		var texts [3]string
		for i, file := range []string{"notify_on_release", "max.depth", settings[h].file} {
			if texts[i], err = s.read(path + "/" + file); err != nil {
				c.t.Fatalf("%s/%s: %v", path, file, err)
			}
		}
		lines = append(lines, fmt.Sprintf("%s %o %d %q %q %q", path, attr.Mode.Permissions(), attr.UID, texts[0], texts[1], texts[2]))
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
	c.settleMove(s)
	thaw, err := hold.Freeze(c.list, func(pid int32) bool { return c.oracles[0].where(pid) != "" })
	if err != nil {
		c.t.Fatal(err)
	}
	defer thaw()
	for _, pid := range append(slices.Clone(c.kids), c.runner.Process.Pid) {
		if !living(int32(pid)) {
			c.t.Errorf("process %d has ended", pid)
		}
	}
	for h := range hierarchies {
		c.compare(s, h)
		c.sweep(c.oracles[h])
	}
}

// sweep removes the directories of boxes that there are no more, which nobody is in.
func (c *client) sweep(o *oracle) {
	dirs, err := o.root.Dirs()
	if err != nil {
		c.t.Fatal(err)
	}
	there := make(map[string]bool)
	for n := range c.everywhere() {
		there[c.dir(n)] = true
	}
	for _, dir := range dirs {
		if !strings.HasPrefix(dir, c.name+".") || there[dir] {
			continue
		}
		if in := o.members(dir); len(in) > 0 {
			c.t.Errorf("%v are in %s, which was removed", in, dir)
		}
		o.root.Remove(dir) // where one is exiting, the next time
	}
}

// settleMove finds out whether an open move has happened.
func (c *client) settleMove(s *session) {
	m := c.moving
	if m == nil {
		c.open = nil
		return
	}
	pid := int(m.process.PID)
	from, to := c.oracles[m.hierarchy].where(m.process.PID), c.dir(m.to)
	is := slices.Contains(c.procs(s, m.hierarchy, m.to), pid)
	if was := c.numberOf(from); !is && !slices.Contains(c.procs(s, m.hierarchy, was), pid) {
		c.t.Errorf("process %d was in %s, to be moved to %s, and is in neither", pid, from, to)
	}
	c.moved(is)
}

// numberOf is the number of the box that a directory of an oracle is for.
func (c *client) numberOf(dir string) int {
	for n := range c.everywhere() {
		if c.dir(n) == dir {
			return n
		}
	}
	c.t.Fatalf("%s is no box's", dir)
	return 0
}

// procs are the processes that the server says are in a box, in order.
func (c *client) procs(s *session, h, n int) (pids []int) {
	path := "/" + hierarchies[h]
	if n != outside {
		path = c.now.path(n)
	}
	text, err := s.read(path + "/procs")
	if err != nil {
		c.t.Fatalf("%s/procs: %v", path, err)
	}
	for _, word := range strings.Fields(text) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			c.t.Fatalf("%s/procs: %q", path, text)
		}
		pids = append(pids, pid)
	}
	slices.Sort(pids)
	return pids
}

// compare has every process of the client, which are stopped, be where the oracle of a
// hierarchy says, at once. Only one that was about to end may take a moment for that.
func (c *client) compare(s *session, h int) {
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		wrong := ""
		stopped := false
		compared := 0
		for n := range c.everywhere() {
			if n != outside && c.now.hierarchy(n) != h {
				continue
			}
			want, is := c.oracles[h].members(c.dir(n)), c.procs(s, h, n)
			compared += len(want)
			for _, pid := range append(want, is...) {
				if slices.Contains(want, pid) == slices.Contains(is, pid) || n == outside && !slices.Contains(want, pid) {
					continue // the rest of the host is outside as well
				}
				state := stateOf(int32(pid))
				wrong += fmt.Sprintf("process %d, %c: in %s of /%s: %v, in the oracle: %v\n",
					pid, state, c.dir(n), hierarchies[h], slices.Contains(is, pid), slices.Contains(want, pid))
				stopped = stopped || state == 'T'
			}
		}
		if wrong == "" {
			c.compared += compared
			return
		}
		if stopped || time.Now().After(end) {
			c.t.Error(wrong)
			return
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
