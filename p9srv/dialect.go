package p9srv

import (
	"strings"
	"time"

	"github.com/hugelgupf/p9/p9"

	"containerfs/p9srv/wire"
)

// Types of messages that are looked at outside of the tables of dialects. One has the same
// meaning in all dialects that have it.
const (
	msgTreaddir uint8 = 40
	msgTgetlock uint8 = 54
	msgTversion uint8 = 100
	msgTflush   uint8 = 108
	msgTread    uint8 = 116
	msgTwrite   uint8 = 118
)

// dialect is a version of the protocol. Tversion and Tflush are the session's
// own and have no rows.
type dialect struct {
	version  string
	messages [256]message // by the type of the T-message; a zero row is unknown

	// appendError appends the whole reply that tells err.
	appendError func(out []byte, tag uint16, err error) []byte
}

// message is a row: how the body is read and what it does. serve appends the
// body of the reply to out; with an error, whatever it appended is dropped.
type message struct {
	name   string
	decode func(*request, *wire.Decoder)
	pace   pace
	serve  func(s *session, r *request, out []byte) ([]byte, error)
}

// pace says which goroutine a message is for.
type pace uint8

const (
	quick  pace = iota // the loop
	slow               // a worker
	asks               // a worker if the fid's File says that it is Slow
	opens              // the same, but what is opened for writing only reads nothing
	writes             // a worker, unless the fid's File can do it now
)

// slower is what a File implements whose open, read, fsync or close can wait
// for the host.
type slower interface{ Slow() bool }

// prompter is what a File implements for which WriteAt can take microseconds: then
// WriteNow is it, else ops.ErrWouldWait.
type prompter interface {
	WriteNow(p []byte, offset int64) (int, error)
}

// request is a decoded T-message of any dialect: the union of their fields,
// of which a message's row reads and serves its own.
type request struct {
	tag   uint16
	typ   uint8
	msg   *message
	taken time.Duration // when the session took it up, by the clock of the counters
	held  int64         // of the account's allowance, for a worker's reply
	cost  int64         // of another, until it is answered: see reserveWaiting

	fid    uint32
	fid2   uint32 // newfid, or the other directory; wire.NoFid if there is none
	names  []string
	name   string
	name2  string
	offset uint64
	count  uint32
	flags  uint32
	mode   uint32
	major  uint32
	minor  uint32
	uid    uint32
	gid    uint32
	afid   uint32
	valid  uint64 // of getattr and setattr
	attr   p9.SetAttr
	data   []byte // the frame's until the request is a worker's
	lock   lock
	now    bool // a write that must not wait

	nameArray [wire.MaxWalk]string

	// Of a request that is outstanding with a worker, under session.mu:
	waits   int        // queues (see session.queues) in which others are before it
	flushes []*request // Tflushes that are answered right after it
}

// lock is the body of Tlock and Tgetlock.
type lock struct {
	typ           uint8
	flags         uint32
	start, length uint64
	pid           uint32
	client        string
}

// forWorker returns a copy that does not share the frame.
func (r *request) forWorker() *request {
	c := new(request)
	*c = *r
	if r.names != nil {
		c.names = c.nameArray[:len(r.names)]
	}
	if r.data != nil {
		c.data = append([]byte(nil), r.data...)
	}
	return c
}

// dialectOf finds the dialect to answer a Tversion with: never higher than what
// was asked for. What follows a period is an extension that may be ignored, says
// version(5): 9P2000.L.Google.7, which the p9 library's client asks for, is
// 9P2000.L; 9P2000.u is 9P2000.
func dialectOf(version string) *dialect {
	for _, d := range []*dialect{dotL, classic} {
		if version == d.version || strings.HasPrefix(version, d.version+".") {
			return d
		}
	}
	return nil
}
