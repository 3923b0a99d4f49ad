package main

import (
	"strconv"
)

// slot is one of the operations that a connection has outstanding.
type slot struct {
	tag   uint16
	fid   uint32    // what the row walks to
	dirs  [2]uint32 // containers of its own
	open  uint32    // notify_on_release of the first one, open for reading
	big   [2]uint32 // the containers with many children and many threads
	pid   []byte    // a process of its own
	tally uint64    // operations begun

	step   int
	offset uint64 // of the next read
	began  int64
}

// step is a message of an operation. done looks at the body of the reply and
// says whether the step is over; nil is at once.
type step struct {
	send func(b []byte, s *slot) []byte
	done func(s *slot, body []byte) bool
}

// row is a kind of operation.
type row struct {
	name  string
	short string // in the plot
	steps []step
	goals goals
}

// goals are ratios to diod's rate in the same run; 0 is no goal.
type goals struct{ pinned, deep, wide float64 }

var (
	usual   = goals{1, 3, 3}
	simple  = goals{1, 4, 5}
	listing = goals{1, 2, 2}
)

var rows = []row{
	{"getattr", "getattr", []step{{getattr, nil}}, simple},
	{"read of an open file", "read", []step{{readOpen, nil}}, simple},
	{"walk+open+read+clunk of notify_on_release", "cat", []step{
		{walkTo("notify_on_release"), nil}, {open(0), nil}, {readAt, nil}, {clunk, nil}}, usual},
	{"walk+open+write+clunk of notify_on_release", "echo", []step{
		{walkTo("notify_on_release"), nil}, {open(1), nil}, {writeFlag, nil}, {clunk, nil}}, usual},
	{"walk+open+write+clunk of a pid to tasks, which moves it", "move", []step{
		{walkTo("tasks"), nil}, {open(1), nil}, {writePID, nil}, {clunk, nil}}, usual},
	{"walk+open+write+clunk of a pid to tasks, which has it", "stay", []step{
		{walkStay, nil}, {open(1), nil}, {writePID, nil}, {clunk, nil}}, usual},
	// diod has no Tunlinkat: Linux falls back to this.
	{"mkdir+walk+remove", "mkdir", []step{{mkdir, nil}, {walkChild, nil}, {remove, nil}}, usual},
	{"readdir of 1,000 children", "ls 1k", []step{
		{walkChildren(0), nil}, {open(0), nil}, {readdir, listed}, {clunk, nil}}, listing},
	{"readdir of 10,000 children", "ls 10k", []step{
		{walkChildren(1), nil}, {open(0), nil}, {readdir, listed}, {clunk, nil}}, listing},
	{"tasks with 1,000 threads", "tasks 1k", []step{
		{walkThreads(0), nil}, {open(0), nil}, {readAt, readAll}, {clunk, nil}}, usual},
	{"tasks with 10,000 threads", "tasks 10k", []step{
		{walkThreads(1), nil}, {open(0), nil}, {readAt, readAll}, {clunk, nil}}, usual},
}

// Numbers of fids. The floor knows by them how much there is to read.
const (
	fidDirs  = 10000 // a slot's first container, and secondDir further on its second
	fidOpen  = 20000
	fidBig   = 30000
	fidSmall = 50000 // walked to by an operation, a few bytes
	fidKilo  = 51000 // a thousand entries
	fidMany  = 52000 // ten thousand

	secondDir = 1000
)

func newSlot(i int) slot {
	n := uint32(i)
	return slot{
		tag:  uint16(i),
		fid:  fidSmall + n,
		dirs: [2]uint32{fidDirs + n, fidDirs + secondDir + n},
		open: fidOpen + n,
		big:  [2]uint32{fidBig, fidBig + 1},
	}
}

// sized gives the slot a fid that tells the floor how much is behind it.
func (s *slot) sized(i int) { s.fid = fidKilo + uint32(i)*(fidMany-fidKilo) + uint32(s.tag) }

func getattr(b []byte, s *slot) []byte  { return appendGetattr(b, s.tag, s.dirs[0]) }
func readOpen(b []byte, s *slot) []byte { return appendRead(b, tread, s.tag, s.open, 0, 4096) }
func clunk(b []byte, s *slot) []byte    { return appendClunk(b, s.tag, s.fid) }

func walkTo(name string) func([]byte, *slot) []byte {
	return func(b []byte, s *slot) []byte {
		s.offset = 0
		return appendWalk(b, s.tag, s.dirs[s.tally%2], s.fid, name)
	}
}

func walkStay(b []byte, s *slot) []byte { return appendWalk(b, s.tag, s.dirs[0], s.fid, "tasks") }

func walkChildren(i int) func([]byte, *slot) []byte {
	return func(b []byte, s *slot) []byte {
		s.sized(i)
		s.offset = 0
		return appendWalk(b, s.tag, s.big[i], s.fid)
	}
}

func walkThreads(i int) func([]byte, *slot) []byte {
	return func(b []byte, s *slot) []byte {
		s.sized(i)
		s.offset = 0
		return appendWalk(b, s.tag, s.big[i], s.fid, "tasks")
	}
}

func open(flags uint32) func([]byte, *slot) []byte {
	return func(b []byte, s *slot) []byte { return appendOpen(b, s.tag, s.fid, flags) }
}

func readAt(b []byte, s *slot) []byte {
	return appendRead(b, tread, s.tag, s.fid, s.offset, msize-24)
}

// readAll goes on to the end of the file, as cat(1) does.
func readAll(s *slot, body []byte) bool {
	n := le.Uint32(body)
	s.offset += uint64(n)
	return n == 0
}

func readdir(b []byte, s *slot) []byte {
	return appendRead(b, treaddir, s.tag, s.fid, s.offset, msize-24)
}

// listed goes on behind the last entry.
func listed(s *slot, body []byte) bool {
	data := body[4:]
	for len(data) > 0 {
		s.offset = le.Uint64(data[13:])
		data = data[24+int(le.Uint16(data[22:])):]
	}
	return len(body) == 4
}

func writeFlag(b []byte, s *slot) []byte {
	return appendWrite(b, s.tag, s.fid, []byte{'0' + byte(s.tally/2%2), '\n'})
}

func writePID(b []byte, s *slot) []byte { return appendWrite(b, s.tag, s.fid, s.pid) }

func mkdir(b []byte, s *slot) []byte { return appendMkdir(b, s.tag, s.dirs[0], s.child()) }

func walkChild(b []byte, s *slot) []byte {
	return appendWalk(b, s.tag, s.dirs[0], s.fid, s.child())
}

func remove(b []byte, s *slot) []byte { return appendRemove(b, s.tag, s.fid) }

func (s *slot) child() string { return "m" + strconv.FormatUint(s.tally%1000, 10) }
