package ops

import (
	"sync"
	"sync/atomic"
	"time"

	"containerfs/ops/rules"
	"containerfs/tree"
)

// DefaultRuleQueue is how many tasks may wait to be classified.
const DefaultRuleQueue = 1 << 16

// job is a task to be classified, or a process.
type job struct {
	task  *tree.Task
	tgid  int32
	whole bool
	seen  *rules.Subject // what the process was after the event, unless nobody looked
	at    int64          // of the event
	look  uint64         // its number among those that wait to be looked at
}

// ruleQueue has what the Classifier's worker is to do. All methods may be called
// concurrently, and none but next waits for anything; its lock is a leaf.
type ruleQueue struct {
	limit   int
	lost    atomic.Uint64 // did not find room
	pending atomic.Int64  // jobs that wait, or are in hand

	mu       sync.Mutex
	wake     sync.Cond
	todo     todo
	inHand   map[int32]int // of pending, by tgid
	compared time.Time     // when all processes were last compared
	later    bool          // and will be again
	busy     bool          // the worker is at something
	closed   bool

	// The numbers of what waits to be looked at, by tgid, unless something of the whole
	// process comes behind it. looks is the last one given.
	unlooked map[int32]map[look]uint64
	looks    uint64
}

// look is of a task, or of its process: whatever events there were before it, one is enough.
// A program can change its group a hundred thousand times a second, and others wait behind it.
type look struct {
	task  *tree.Task
	whole bool
}

// todo is what there is to do at a time.
type todo struct {
	jobs    []job
	missed  int64  // the time of the first that found no room; 0 if all did
	dropped uint64 // since that
	compare bool   // events may have been lost
}

func (q *ruleQueue) init(limit int) {
	q.limit, q.inHand, q.unlooked = limit, make(map[int32]int), make(map[int32]map[look]uint64)
	q.wake.L = &q.mu
}

// begin says that the worker is at something, before it asks for the next.
func (q *ruleQueue) begin() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.busy = true
}

// add adds a job, if there is room and none waits that will see the same. By noted, the time of
// an event, it is found otherwise.
func (q *ruleQueue) add(j job, noted int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := look{j.task, j.whole}
	switch {
	case q.closed || j.seen == nil && q.unlooked[j.tgid][l] != 0:
		return
	case int(q.pending.Load()) >= q.limit:
		q.lost.Add(1)
		q.todo.dropped++
		if q.todo.missed == 0 || noted < q.todo.missed {
			q.todo.missed = noted
		}
	default:
		if j.whole {
			// It takes all threads along, and what was seen can be old by then: a look
			// before it is not enough for what comes behind it.
			delete(q.unlooked, j.tgid)
		}
		if j.seen == nil {
			q.looks++
			j.look = q.looks
			q.unlookedOf(j.tgid)[l] = j.look
		}
		q.todo.jobs = append(q.todo.jobs, j)
		q.inHand[j.tgid]++
		q.pending.Add(1)
	}
	q.wake.Signal()
}

// next waits until there is something to do, and takes it: false when the queue is closed.
func (q *ruleQueue) next() (t todo, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.busy = false
	for len(q.todo.jobs) == 0 && q.todo.missed == 0 && !q.todo.compare && !q.closed {
		q.wake.Wait()
	}
	t, q.todo, q.busy = q.todo, todo{}, true
	return t, !q.closed
}

// begun is told of a job before its task is looked at: what happens from now on may not be seen.
func (q *ruleQueue) begun(j job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l, looks := look{j.task, j.whole}, q.unlooked[j.tgid]
	if j.look == 0 || looks[l] != j.look {
		return
	}
	if delete(looks, l); len(looks) == 0 {
		delete(q.unlooked, j.tgid)
	}
}

// unlookedOf are the looks of a process. With mu.
func (q *ruleQueue) unlookedOf(tgid int32) map[look]uint64 {
	looks := q.unlooked[tgid]
	if looks == nil {
		looks = make(map[look]uint64)
		q.unlooked[tgid] = looks
	}
	return looks
}

// hold has a job in hand that was not in the queue, until it is done.
func (q *ruleQueue) hold(tgid int32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.inHand[tgid]++
	q.pending.Add(1)
}

// done is told that a job of a process is done.
func (q *ruleQueue) done(tgid int32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.inHand[tgid]--; q.inHand[tgid] == 0 {
		delete(q.inHand, tgid)
	}
	q.pending.Add(-1)
}

// has reports whether a job of a process waits, or is in hand.
func (q *ruleQueue) has(tgid int32) bool {
	if q.pending.Load() == 0 {
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.inHand[tgid] > 0
}

// askToCompare has all processes compared, at most once in compareEvery.
func (q *ruleQueue) askToCompare() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if wait := time.Until(q.compared.Add(compareEvery)); wait > 0 {
		if !q.later {
			q.later = true
			time.AfterFunc(wait, func() {
				q.mu.Lock()
				defer q.mu.Unlock()
				q.later, q.todo.compare = false, true
				q.wake.Signal()
			})
		}
		return
	}
	q.todo.compare = true
	q.wake.Signal()
}

const compareEvery = time.Second

// hasCompared is told that all processes were compared.
func (q *ruleQueue) hasCompared() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.compared = time.Now()
}

func (q *ruleQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.wake.Signal()
}

func (q *ruleQueue) isClosed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed
}
