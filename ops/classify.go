package ops

import (
	"cmp"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"containerfs/ops/rules"
	"containerfs/tree"
)

// Classifier does what the rules say (SPEC §21). It is told of programs that are
// executed and of ids that change by who delivers the host's events, who never waits
// for it: what is to be classified waits in a queue, which a goroutine of its own
// works off, ahead of what the host's processes do (see Config.Urgently). It never
// looks at what a task was before its event, but at what it is after: a later event of
// it comes later.
//
// What does not find room in the queue is looked for among all processes, by the time
// of their last event (see Program).
type Classifier struct {
	look func(tid int32) (rules.Subject, error)
	log  *slog.Logger

	fs    *FS
	at    *attachment // as whom containers are made and tasks moved
	names rules.Names

	set     atomic.Pointer[ruleSet]
	placed  latencies // from the event to the placement of what was moved
	scanned bool      // by the worker, once
	untold  []done    // the worker's; see tell
	queue   ruleQueue
	worker  sync.WaitGroup
}

// ruleSet is rules in force.
type ruleSet struct {
	file      *rules.File
	counts    map[*rules.Rule]*ruleCounts
	templates []*template // the first one decides
}

type ruleCounts struct{ matches, failures atomic.Uint64 }

// NewClassifier makes a Classifier without rules. Look tells what a thread is now.
func NewClassifier(limit int, look func(tid int32) (rules.Subject, error), log *slog.Logger) *Classifier {
	c := &Classifier{look: look, log: log}
	c.queue.init(limit)
	c.Set(&rules.File{}, nil)
	return c
}

// Set puts rules in force, with what there is for containers that they make, from the next
// task on.
func (c *Classifier) Set(f *rules.File, templates []*rules.Template) {
	s := &ruleSet{file: f, counts: make(map[*rules.Rule]*ruleCounts)}
	for _, r := range f.Rules {
		s.counts[r] = new(ruleCounts)
	}
	for _, t := range templates {
		s.templates = append(s.templates, &template{Template: t})
	}
	c.set.Store(s)
}

// SetRules puts rules in force as Set does, and says which of them, and of the templates, can
// do nothing yet.
func (fs *FS) SetRules(f *rules.File, templates []*rules.Template) {
	fs.IdleRules(f, templates, func(what string, args ...any) { fs.log.Warn(what, args...) })
	fs.checkSettings(templates)
	fs.rules.Set(f, templates)
	fs.log.Info("rules in force", "file", f.Name, "rules", len(f.Rules), "templates", len(templates))
}

// IdleRules tells of the rules and templates that can do nothing, with what is mounted and
// with the users that there are: what they are, and keys and values as a slog.Logger takes
// them.
func (fs *FS) IdleRules(f *rules.File, templates []*rules.Template, tell func(what string, args ...any)) {
	isMounted := func(name string) bool {
		_, err := fs.find(name)
		return err == nil
	}
	for _, r := range f.Unknown(&fs.rules.names) {
		tell("a rule is for somebody who is not known", "file", f.Name, "line", r.Line, "user", r.User)
	}
	for _, r := range f.Rules {
		for _, name := range r.Hierarchies {
			if name != "*" && !isMounted(name) {
				tell("a rule names a hierarchy that is not mounted", "file", f.Name, "line", r.Line, "hierarchy", name)
			}
		}
	}
	for _, t := range templates {
		switch name := t.Hierarchy(); {
		case !t.IsUsed(f.Rules):
			tell("a template that no rule makes containers by", "path", t.Path, "file", f.Name)
		case !isMounted(name):
			tell("a template names a hierarchy that is not mounted", "path", t.Path, "hierarchy", name)
		}
	}
}

// Start begins to classify. With existing all tasks that there are, else those of
// which there was an event.
func (c *Classifier) Start(existing bool) {
	c.queue.begin()
	c.worker.Go(func() {
		c.scan(existing)
		if c.set.Load().file.Name == "" {
			c.work() // there are no rules, and never will be
			return
		}
		c.fs.urgently(c.work)
	})
}

func (c *Classifier) close() {
	c.queue.close()
	c.worker.Wait()
}

// Executed is told, after the Tree was, that a process has executed a program: when, by
// CLOCK_MONOTONIC in nanoseconds, and what was seen of the process since, if anything. It
// does not block.
func (c *Classifier) Executed(t *tree.Tree, tgid int32, seen *rules.Subject, at int64) {
	c.add(t, tgid, seen, at)
}

// Changed is told, likewise, that a thread has changed its user or group. A change of the
// first thread is one of its process: the C library has all threads change.
func (c *Classifier) Changed(t *tree.Tree, tid int32, at int64) { c.add(t, tid, nil, at) }

// Forked is told of a fork, after the Tree was. A child that is forked while its
// forker waits to be moved is where that was, and has to follow. A child made with
// CLONE_PARENT in that time does not: nothing says whose it is.
func (c *Classifier) Forked(t *tree.Tree, e tree.ForkEvent) {
	forker := e.ParentTGID
	if e.TID != e.TGID {
		forker = e.TGID
	}
	if c.queue.has(forker) {
		c.add(t, e.TID, nil, e.Time)
	}
}

func (c *Classifier) add(t *tree.Tree, tid int32, seen *rules.Subject, at int64) {
	if len(c.set.Load().file.Rules) == 0 {
		return
	}
	j := job{seen: seen, at: at}
	noted := at // of a forked one its forker's, which may be older
	t.View(func() {
		if j.task = t.Task(tid); j.task == nil {
			return
		}
		j.tgid = j.task.TGID()
		if p, ok := j.task.Process().Note().(*Program); ok {
			noted = min(noted, p.At)
		}
	})
	if j.task == nil {
		return // it has ended
	}
	j.whole = tid == j.tgid
	c.queue.add(j, noted)
}

// Lost is told that events of the host may be lost, or that there are none: what
// has another program or user than it was noted with is to be found. That is done once
// in a while: without events, moving a task is itself a reason to be told.
func (c *Classifier) Lost() { c.queue.askToCompare() }

func (c *Classifier) work() {
	for {
		todo, ok := c.queue.next()
		if !ok {
			return
		}
		for _, j := range todo.jobs {
			c.queue.begun(j)
			if !c.queue.isClosed() {
				c.classify(j)
			}
			c.queue.done(j.tgid)
		}
		if todo.missed != 0 {
			c.log.Warn("more tasks to classify than the queue holds: looking at all", "tasks", todo.dropped, "queue", c.queue.limit)
			c.fs.recorder.unclassified(c.fs.host.Now(), todo.dropped)
			c.sweep(func(p *Program) bool { return p.At >= todo.missed })
		}
		if todo.compare {
			c.scan(false)
			c.queue.hasCompared()
		}
	}
}

// process is one that a sweep finds.
type process struct {
	p    *tree.Process
	task *tree.Task // its first thread, or another if that has ended
	note *Program
}

func (c *Classifier) processes() (ps []process) {
	t := c.fs.tree
	t.View(func() {
		t.EachProcess(func(p *tree.Process, thread *tree.Task) {
			note, _ := p.Note().(*Program)
			ps = append(ps, process{p, thread, note})
		})
	})
	slices.SortFunc(ps, func(a, b process) int { return cmp.Compare(a.p.TGID(), b.p.TGID()) })
	return ps
}

// each calls f for all processes, also for those that others fork before f comes to
// them: these are where nobody has looked at their forkers.
func (c *Classifier) each(f func(process)) {
	seen := make(map[*tree.Process]bool)
	for range maxRounds {
		c.fs.tree.Drain()
		fresh := false
		for _, p := range c.processes() {
			if c.queue.isClosed() {
				return
			}
			if !seen[p.p] {
				seen[p.p], fresh = true, true
				f(p)
			}
		}
		if !fresh {
			return
		}
	}
}

// maxRounds bounds how often processes are listed again that fork all the time. By
// then what they fork is where they are.
const maxRounds = 8

// sweep classifies the processes whose last event is one that is wanted.
func (c *Classifier) sweep(wanted func(*Program) bool) {
	c.each(func(p process) {
		if p.note != nil && wanted(p.note) {
			c.classifyProcess(p)
		}
	})
}

func (c *Classifier) classifyProcess(p process) {
	j := job{task: p.task, tgid: p.p.TGID(), whole: true}
	c.queue.hold(j.tgid) // its children follow
	c.classify(j)
	c.queue.done(j.tgid)
}

// scan notes the programs of all processes, and classifies those that were noted
// with another program or user before: there was an event that nobody saw. With all,
// every process is classified.
func (c *Classifier) scan(all bool) {
	start := !c.scanned // later on, what has no note is new
	c.scanned = true
	c.each(func(p process) {
		s, err := c.look(p.task.TID())
		if err != nil {
			return
		}
		now := &Program{UID: s.UID, Exe: s.Exe, At: c.fs.host.Now(), GID: s.GID, Name: s.Comm}
		same := p.note != nil && p.note.same(now)
		if same {
			now.At = p.note.At // nothing has happened to it
		}
		if !same || p.note.Name == "" {
			var old any
			if p.note != nil {
				old = p.note
			}
			if !c.fs.tree.ReplaceNote(p.p, old, now) {
				return // there is an event of it
			}
		}
		switch {
		case all || p.note == nil && !start:
			c.classifyProcess(p)
		case p.note != nil && !same:
			if p.note.Exe != now.Exe { // which it did not have from a hand
				c.fs.tree.Update(func() { delete(c.fs.recorder.hands, p.p) })
			}
			c.classifyProcess(p)
		}
	})
}

// classify puts a task where the rules say.
func (c *Classifier) classify(j job) {
	set := c.set.Load()
	if len(set.file.Rules) == 0 || c.fs.isProtected(j.tgid) {
		return
	}
	info, s, err := c.identify(j)
	if err != nil && !errors.Is(err, syscall.ESRCH) {
		c.log.Warn("a task could not be looked at: rules leave it where it is", "tid", j.task.TID(), "err", err)
	}
	if err != nil || info.Kernel {
		return
	}
	matching := set.file.Matching(&s, &c.names)
	if len(matching) == 0 {
		return
	}
	var hs []*tree.Hierarchy
	c.fs.tree.View(func() {
		for h := range c.fs.tree.Hierarchies {
			if h.Published() {
				hs = append(hs, h)
			}
		}
	})
	followed, failed := make(map[*rules.Rule]bool), make(map[*rules.Rule]bool)
	say := func(r *rules.Rule, h *tree.Hierarchy, err error) {
		if err == nil || errors.Is(err, syscall.ESRCH) {
			return
		}
		failed[r] = true
		c.fs.audit.write(slog.LevelWarn, auditKey{rulesOrigin, c.fs.uid, true}, "a rule could not be followed",
			[]any{"file", set.file.Name, "line", r.Line, "hierarchy", h.Name(), "pid", info.TID, "exe", s.Exe, "uid", s.UID, "err", err})
	}
	var all []placement
	for _, h := range hs {
		r, path, err := c.decide(matching, h, j.task, &s)
		if r == nil {
			continue
		}
		followed[r] = true
		if say(r, h, err); err == nil && !r.Ignore {
			all = append(all, placement{h: h, set: set, rule: r, path: path, s: &s})
		}
	}
	moved, err := c.put(j, info, all...)
	if err != nil && len(all) > 1 {
		// Each for itself: one rule that cannot be followed keeps no other back.
		for _, p := range all {
			m, err := c.put(j, info, p)
			say(p.rule, p.h, err)
			moved = moved || m
		}
	} else if err != nil {
		say(all[0].rule, all[0].h, err)
	}
	for r := range followed {
		set.counts[r].matches.Add(1)
	}
	for r := range failed {
		set.counts[r].failures.Add(1)
	}
	if moved && j.at != 0 {
		c.placed.add(time.Duration(c.fs.host.Now() - j.at))
	}
}

// identify finds out what a task is. It is the task of the event before the look and
// after it, so what was seen is its.
func (c *Classifier) identify(j job) (info tree.TaskInfo, s rules.Subject, err error) {
	tid := j.task.TID()
	if j.seen != nil {
		s = *j.seen
	} else if s, err = c.look(tid); err != nil {
		return info, s, err
	}
	if info, err = c.fs.host.Task(tid); err != nil {
		return info, s, err
	}
	live := false
	c.fs.tree.View(func() { live = j.task.Live() && j.task.TID() == tid && j.task.Is(info) })
	if !live {
		return info, s, syscall.ESRCH
	}
	s.PID = info.TGID
	return info, s, nil
}

// decide finds the rule that decides for a hierarchy, and where it puts the task.
func (c *Classifier) decide(matching []*rules.Rule, h *tree.Hierarchy, task *tree.Task, s *rules.Subject) (*rules.Rule, []string, error) {
	for _, r := range matching {
		if !r.Concerns(h.Name()) {
			continue
		}
		path, err := r.Path(s, &c.names)
		if r.Ignore && (err != nil || !c.isBelow(h, task, path)) {
			continue
		}
		return r, path, err
	}
	return nil, nil, nil
}

// isBelow reports whether a task is in a container, or below it.
func (c *Classifier) isBelow(h *tree.Hierarchy, task *tree.Task, path []string) (is bool) {
	c.fs.tree.View(func() {
		to := h.Root()
		for _, name := range path {
			if to = to.Child(name); to == nil {
				return
			}
		}
		is = task.Live() && task.Container(h).IsBelow(to)
	})
	return is
}

// rulesOrigin stands for the rules where a client has its address.
const rulesOrigin = "rules"

// serve has the Classifier work on a name space.
func (c *Classifier) serve(fs *FS) {
	c.fs = fs
	caller := &Caller{UID: fs.uid, GIDs: []uint32{fs.gid}, Local: true, Peer: rulesOrigin, Origin: rulesOrigin}
	c.at = &attachment{fs: fs, caller: caller, root: topDir{}}
	c.at.actor = tree.Actor{UID: fs.uid, Privileged: true, Local: true}
	fs.tree.Update(func() { fs.recorder.ruler = &c.at.actor })
}
