package tests

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"containerfs/p9srv"
	"containerfs/p9srv/p9test"
	"containerfs/subsys/debug"
	"containerfs/tree/hostsim"
)

// Linearizability: whatever clients do at once, there is an order in which they
// could have done it one after the other, with the same answers.
//
// A history is of many clients in a few subtrees. Nothing that is done in one
// subtree says anything of another, so each is checked by itself, which keeps the
// search small. An operation is one message, on fids that were walked to before:
// a walk, a write to tasks, a listing. A path of several messages is not atomic,
// and is not meant to be.
const (
	linearClients  = 32
	linearSubtrees = 8
	linearNames    = 3 // of containers in a subtree
	linearTasks    = 3 // of a subtree
	linearOps      = 12
)

// histories is how many to check.
func histories() int {
	if os.Getenv("SOAK") != "" {
		return 1000
	}
	return 50
}

func TestLinearizable(t *testing.T) {
	s := newSimulation(t, debug.Subsystem{})
	if err := s.fs.Mount("m", "debug"); err != nil {
		t.Fatal(err)
	}
	addr := p9test.Serve(t, p9srv.Config{Attacher: s.fs})
	var clients []p9.File
	for range linearClients {
		clients = append(clients, p9test.Client(t, p9test.Dial(t, addr)))
	}
	for n := range histories() {
		h := recordHistory(t, s, clients, uint64(n))
		if !checkHistory(t, h) {
			t.Fatalf("history %d is not linearizable", n)
		}
	}
}

// checkHistory reports whether a history is linearizable, and shows the part of it
// that is not.
func checkHistory(t testing.TB, h []porcupine.Operation) bool {
	t.Helper()
	for _, part := range bySubtree(h) {
		switch porcupine.CheckOperationsTimeout(linearModel, part, time.Minute) {
		case porcupine.Ok:
			continue
		case porcupine.Unknown:
			t.Fatalf("undecided after a minute, %d operations", len(part))
		}
		slices.SortFunc(part, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
		for _, op := range part {
			t.Logf("%9d-%9d client %2d: %v: %v", op.Call, op.Return, op.ClientId, op.Input, op.Output)
		}
		return false
	}
	return true
}

// TestLinearizabilityCheckerCanFail spoils one answer of a history at a time. Where one
// client asks for all, no order of requests but one explains the answers, and each that
// is wrong is found out. Where there are two, a wrong one can have come about in another
// order, if nothing that was asked later says more.
func TestLinearizabilityCheckerCanFail(t *testing.T) {
	for clients := 1; clients <= 2; clients++ {
		seen, spoiled := spoilAnswers(t, clients)
		for op, n := range seen {
			if spoiled[op] < n && clients == 1 || spoiled[op] < n*3/4 {
				t.Errorf("%d clients: %s: of %d spoiled answers %d were found out", clients, op, n, spoiled[op])
			}
		}
		if len(seen) != 7 {
			t.Errorf("%d clients: the history has only %v", clients, seen)
		}
	}
}

// spoilAnswers counts the answers of a history, by what was asked, and how many of them
// are found out when they are wrong.
func spoilAnswers(t *testing.T, n int) (seen, spoiled map[string]int) {
	t.Helper()
	s := newSimulation(t, debug.Subsystem{})
	if err := s.fs.Mount("m", "debug"); err != nil {
		t.Fatal(err)
	}
	addr := p9test.Serve(t, p9srv.Config{Attacher: s.fs})
	var clients []p9.File
	for range n {
		clients = append(clients, p9test.Client(t, p9test.Dial(t, addr)))
	}
	h := recordHistory(t, s, clients, 0)
	if !checkHistory(t, h) {
		t.Fatal("the history is not linearizable as it is")
	}
	spoiled, seen = make(map[string]int), make(map[string]int)
	for i := range h {
		op := h[i].Input.(linearOp).op
		out := h[i].Output.(linearAnswer)
		wrong := out
		switch {
		case out.errno != 0:
			wrong = linearAnswer{id: 1, ids: out.ids}
		case op == "list" || op == "read":
			wrong.ids += "+"
		case op == "walk":
			wrong.id++
		default:
			wrong = linearAnswer{errno: linux.ENOENT}
		}
		seen[op]++
		h[i].Output = wrong
		for _, part := range bySubtree(h) {
			if porcupine.CheckOperationsTimeout(linearModel, part, time.Minute) == porcupine.Illegal {
				spoiled[op]++
			}
		}
		h[i].Output = out
	}
	return seen, spoiled
}

// linearOp is one request. Containers are named by their id, the subtree's own
// being 0, tasks by their index.
type linearOp struct {
	subtree  int
	op       string // mkdir rmdir rename walk attach read list
	name, to int
	id       uint64
	task     int
}

func (o linearOp) String() string {
	return fmt.Sprintf("%s in %d, name %d to %d, container %d, task %d", o.op, o.subtree, o.name, o.to, o.id, o.task)
}

// linearAnswer is what a request was answered.
type linearAnswer struct {
	errno linux.Errno
	id    uint64 // of mkdir and walk
	ids   string // of read: tasks; of list: names and ids
}

func (a linearAnswer) String() string {
	if a.errno != 0 {
		return fmt.Sprint(a.errno)
	}
	return fmt.Sprint("ok ", a.id, " ", a.ids)
}

// linearState is a subtree: which container has which name, and where the tasks
// are.
type linearState struct {
	ids [linearNames]uint64 // 0: nobody has the name
	at  [linearTasks]uint64
}

func (s *linearState) alive(id uint64) bool { return id == 0 || slices.Contains(s.ids[:], id) }

func (s *linearState) tasks(id uint64) string {
	var in []int
	for i, at := range s.at {
		if at == id {
			in = append(in, i)
		}
	}
	return fmt.Sprint(in)
}

// listing is in order of creation, which is that of ids.
func (s *linearState) listing() string {
	var names []int
	for i, id := range s.ids {
		if id != 0 {
			names = append(names, i)
		}
	}
	slices.SortFunc(names, func(a, b int) int { return int(s.ids[a]) - int(s.ids[b]) })
	var b strings.Builder
	for _, i := range names {
		fmt.Fprint(&b, i, ":", s.ids[i], " ")
	}
	return b.String()
}

// bySubtree takes a history apart.
func bySubtree(h []porcupine.Operation) [][]porcupine.Operation {
	parts := make([][]porcupine.Operation, linearSubtrees)
	for _, op := range h {
		i := op.Input.(linearOp).subtree
		parts[i] = append(parts[i], op)
	}
	return parts
}

var linearModel = porcupine.Model{
	Init: func() any { return linearState{} },
	Step: func(state, input, output any) (bool, any) {
		s, in, out := state.(linearState), input.(linearOp), output.(linearAnswer)
		want := s.apply(in, out.id)
		return out == want, s
	},
}

// apply does a request and returns what it must be answered; made is the id that
// the server gave a container that was made.
func (s *linearState) apply(in linearOp, made uint64) linearAnswer {
	id := s.ids[in.name]
	switch in.op {
	case "mkdir":
		if id != 0 {
			return linearAnswer{errno: linux.EEXIST}
		}
		if made == 0 || s.alive(made) {
			return linearAnswer{id: made + 1} // no id that it could have
		}
		s.ids[in.name] = made
		return linearAnswer{id: made}
	case "rmdir":
		switch {
		case id == 0:
			return linearAnswer{errno: linux.ENOENT}
		case s.tasks(id) != "[]":
			return linearAnswer{errno: linux.EBUSY}
		}
		s.ids[in.name] = 0
	case "rename":
		switch {
		case id == 0:
			return linearAnswer{errno: linux.ENOENT}
		case in.to == in.name:
		case s.ids[in.to] != 0:
			return linearAnswer{errno: linux.EEXIST}
		default:
			s.ids[in.name], s.ids[in.to] = 0, id
		}
	case "walk":
		if id == 0 {
			return linearAnswer{errno: linux.ENOENT}
		}
		return linearAnswer{id: id}
	case "attach":
		if !s.alive(in.id) {
			return linearAnswer{errno: linux.ENODEV}
		}
		s.at[in.task] = in.id
	case "read":
		if !s.alive(in.id) {
			return linearAnswer{errno: linux.ENODEV}
		}
		return linearAnswer{ids: s.tasks(in.id)}
	case "list":
		return linearAnswer{ids: s.listing()}
	}
	return linearAnswer{}
}

// subtree is a container of its own for each history, with tasks in it.
type subtree struct {
	path string
	tids []int32
}

// recordHistory lets the clients loose on new subtrees.
func recordHistory(t testing.TB, s *simulation, clients []p9.File, seed uint64) []porcupine.Operation {
	t.Helper()
	var subtrees []subtree
	m := walkTo(t, clients[0], "m")
	defer m.Close()
	for i := range linearSubtrees {
		sub := subtree{path: fmt.Sprintf("%d-%d", seed, i)}
		if _, err := m.Mkdir(sub.path, 0o755, 0, 0); err != nil {
			t.Fatal(err)
		}
		for range linearTasks {
			tid := s.host.Fork(hostsim.InitTID)
			writeTo(t, m, sub.path+"/tasks", strconv.Itoa(int(tid)))
			sub.tids = append(sub.tids, tid)
		}
		subtrees = append(subtrees, sub)
	}
	var mu sync.Mutex
	var history []porcupine.Operation
	var running sync.WaitGroup
	start := time.Now()
	for i, root := range clients {
		running.Go(func() {
			c := linearClient{t: t, id: i, rnd: rand.New(rand.NewPCG(seed, uint64(i))), start: start}
			for _, sub := range subtrees {
				dir := walkTo(t, root, "m", sub.path)
				defer dir.Close()
				c.views = append(c.views, &view{subtree: sub, dir: dir, fid: walkTo(t, dir)})
			}
			defer c.close()
			for range linearOps * linearClients / len(clients) {
				c.step()
			}
			mu.Lock()
			defer mu.Unlock()
			history = append(history, c.history...)
		})
	}
	running.Wait()
	for _, sub := range subtrees {
		for _, tid := range sub.tids {
			s.host.Exit(tid)
		}
	}
	return history
}

// view is what a client has of a subtree: a fid of it and one of a container that
// it has walked to, at first the subtree itself.
type view struct {
	subtree
	dir, fid p9.File
	id       uint64
}

type linearClient struct {
	t       testing.TB
	id      int
	rnd     *rand.Rand
	start   time.Time
	views   []*view
	history []porcupine.Operation
}

func (c *linearClient) close() {
	for _, v := range c.views {
		v.fid.Close()
	}
}

// do notes a request with its answer. The times enclose its one message.
func (c *linearClient) do(in linearOp, request func() (linearAnswer, error)) linearAnswer {
	call := time.Since(c.start)
	out, err := request()
	back := time.Since(c.start)
	if out.errno = errnoOf(err); out.errno != 0 {
		out = linearAnswer{errno: out.errno}
	}
	c.history = append(c.history, porcupine.Operation{ClientId: c.id, Input: in, Call: int64(call), Output: out, Return: int64(back)})
	return out
}

func errnoOf(err error) linux.Errno {
	var e linux.Errno
	if err != nil && err != io.EOF && !errors.As(err, &e) {
		return linux.EIO
	}
	return e
}

// step does something in some subtree.
func (c *linearClient) step() {
	i := c.rnd.IntN(len(c.views))
	v := c.views[i]
	in := linearOp{subtree: i, name: c.rnd.IntN(linearNames)}
	name := strconv.Itoa(in.name)
	switch n := c.rnd.IntN(16); {
	case n < 3:
		in.op = "mkdir"
		c.do(in, func() (linearAnswer, error) {
			qid, err := v.dir.Mkdir(name, 0o755, 0, 0)
			return linearAnswer{id: qid.Path}, err
		})
	case n < 5:
		in.op = "rmdir"
		c.do(in, func() (linearAnswer, error) { return linearAnswer{}, v.dir.UnlinkAt(name, 0x200) })
	case n < 7:
		in.op, in.to = "rename", c.rnd.IntN(linearNames)
		c.do(in, func() (linearAnswer, error) {
			return linearAnswer{}, v.dir.RenameAt(name, v.dir, strconv.Itoa(in.to))
		})
	case n < 10:
		in.op = "walk"
		var fid p9.File
		out := c.do(in, func() (linearAnswer, error) {
			qids, f, err := v.dir.Walk([]string{name})
			if err != nil {
				return linearAnswer{}, err
			}
			fid = f
			return linearAnswer{id: qids[0].Path}, nil
		})
		if fid != nil {
			v.fid.Close()
			v.fid, v.id = fid, out.id
		}
	case n < 14:
		c.tasks(v, in, n < 12)
	default:
		in.op, in.name = "list", 0
		f := walkTo(c.t, v.dir)
		defer f.Close()
		if _, _, err := f.Open(p9.ReadOnly); err != nil {
			c.t.Error(err)
			return
		}
		c.do(in, func() (linearAnswer, error) {
			ents, err := f.Readdir(0, 60000) // all fit into one message
			var b strings.Builder
			for _, e := range ents {
				if e.QID.Type == p9.TypeDir && e.Name[0] != '.' {
					fmt.Fprint(&b, e.Name, ":", e.QID.Path, " ")
				}
			}
			return linearAnswer{ids: b.String()}, err
		})
	}
}

// tasks writes to, or reads, the tasks of the container that the view is of. A
// client that comes to a container that is removed goes back to the subtree.
func (c *linearClient) tasks(v *view, in linearOp, write bool) {
	in.id, in.name = v.id, 0
	_, f, err := v.fid.Walk([]string{"tasks"})
	if err != nil {
		if errnoOf(err) != linux.ENODEV {
			c.t.Error(err)
		}
		v.fid.Close()
		v.fid, v.id = walkTo(c.t, v.dir), 0
		return
	}
	defer f.Close()
	if write {
		if _, _, err := f.Open(p9.WriteOnly); err != nil {
			return // it is removed by now
		}
		in.op, in.task = "attach", c.rnd.IntN(linearTasks)
		c.do(in, func() (linearAnswer, error) {
			_, err := f.WriteAt([]byte(strconv.Itoa(int(v.tids[in.task]))), 0)
			return linearAnswer{}, err
		})
		return
	}
	in.op = "read"
	c.do(in, func() (linearAnswer, error) {
		if _, _, err := f.Open(p9.ReadOnly); err != nil {
			return linearAnswer{}, err
		}
		b := make([]byte, 1000)
		n, err := f.ReadAt(b, 0)
		var in []int
		for _, tid := range numbers(c.t, string(b[:n])) {
			in = append(in, slices.Index(v.tids, int32(tid)))
		}
		return linearAnswer{ids: fmt.Sprint(in)}, err
	})
}

// walkTo walks to what must be there.
func walkTo(t testing.TB, f p9.File, names ...string) p9.File {
	t.Helper()
	_, to, err := f.Walk(names)
	if err != nil {
		t.Fatalf("walk %q: %v", names, err)
	}
	return to
}

func writeTo(t testing.TB, dir p9.File, path, data string) {
	t.Helper()
	f := walkTo(t, dir, strings.Split(path, "/")...)
	defer f.Close()
	if _, _, err := f.Open(p9.WriteOnly); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(data), 0); err != nil {
		t.Fatalf("write %q to %s: %v", data, path, err)
	}
}
