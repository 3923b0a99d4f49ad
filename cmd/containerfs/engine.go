package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"containerfs/cmd/containerfs/internal/localhost"
	"containerfs/ops"
	"containerfs/ops/store"
	"containerfs/subsys"
	"containerfs/tree"
	"containerfs/tree/hostproc"
	"containerfs/tree/kernfs"
)

// Periods of what is done again and again.
const (
	enforceEvery = time.Second       // SPEC §11
	auditFor     = enforceEvery / 50 // of each: the model against the mirror
	idleFor      = 2 * time.Second   // until the directory of a css group is removed
	retireWithin = 5 * time.Second   // the mirror, at the end
	measureEvery = 10                // enforceEverys: until what was measured is kept
	checkUpTo    = 100_000           // containers, for which a check at the start takes no time
	maxSaid      = 20                // tasks that a line of the log names
)

// engine is the host with its model and what is served of it.
type engine struct {
	host       *hostproc.Host
	mirror     *hostproc.Mirror // nil without
	journal    *ops.Journal     // nil without
	tree       *tree.Tree
	subsystems []tree.Subsystem
	fs         *ops.FS
	auditor    *tree.Auditor
	started    bool        // the model is what the state and the host say
	behind     atomic.Bool // see model
	audit      *ops.Audit
	limit      *ops.LogLimit // of log
	rules      string        // the file; "" without
	state      string        // the directory; "" without
	id         string        // of the mirror and the kernel directories
	facts      []string      // about the host, for ctl
	log        *slog.Logger
}

// newEngine opens the host and makes its model, with the hierarchies asked for.
func newEngine(conf config, log *slog.Logger) (_ *engine, err error) {
	e := &engine{audit: ops.NewAudit(log), limit: ops.NewLogLimit(log.Handler()), rules: conf.Rules, state: conf.State}
	e.log = slog.New(e.limit)
	defer func() {
		if err != nil {
			e.close()
		}
	}()
	if err := e.openHost(conf); err != nil {
		return nil, err
	}
	exists := e.sayHost(conf.Mirror)
	m, err := e.makeModel(conf)
	if err != nil {
		return nil, err
	}
	if err := e.restore(conf, exists); err != nil {
		return nil, err
	}
	kept := keptIn(e.tree)
	e.host.Start(m)
	e.started = true
	e.tree.Drain()
	var mounted []string
	defer func() {
		if err != nil {
			e.unmount(mounted)
			e.renounce()
		}
	}()
	for _, h := range conf.Hierarchies {
		if conf.NoHierarchies && e.journal != nil && !e.journal.State().Fresh {
			break // what the state holds is all that there should be
		}
		there := e.hierarchy(h.Name) != nil
		if err := e.mount(h); err != nil {
			return nil, inTheWay(err, e.state, h.Name, kept, conf.Hierarchies)
		}
		if !there {
			mounted = append(mounted, h.Name)
		}
	}
	if e.journal == nil || e.journal.State().Fresh {
		e.tree.RestoreNext(tree.Next{Container: firstNumber(time.Now())})
	}
	applyRules, err := e.rulesIn(&conf)
	if err != nil {
		return nil, err
	}
	if e.journal != nil {
		if err := e.journal.Begin(); err != nil {
			return nil, stateError(err)
		}
	}
	applyRules()
	m.rules.Start(conf.RulesExisting)
	return e, nil
}

// firstNumber is the number of the first container of a server that knows of none before.
// Clients that outlive servers tell files by it: those of an earlier one had lower numbers,
// unless it made more than 32 containers in each millisecond. It is below 2^47, for which
// there is room in a qid, until 2109.
func firstNumber(now time.Time) uint64 { return uint64(now.UnixMilli()) << 5 }

// openHost opens the state directory and the host.
func (e *engine) openHost(conf config) (err error) {
	if conf.State != "" {
		if e.journal, err = ops.OpenJournal(conf.State, e.log); err != nil {
			return stateError(err)
		}
	}
	if e.host, err = hostproc.Open(hostproc.Options{Urgent: conf.Rules != ""}); err != nil {
		return fmt.Errorf("host: %w", err)
	}
	e.id, err = e.identity()
	return err
}

// say keeps a fact about the host for ctl, and logs it.
func (e *engine) say(level slog.Level, fact string) {
	e.facts = append(e.facts, fact)
	e.log.Log(context.Background(), level, fact)
}

// sayHost opens the mirror that is wanted, if it can be had, and says how the host is
// watched. See adopt for what it returns.
func (e *engine) sayHost(mirror string) (exists map[uint64]bool) {
	source, level := e.host.Source(), slog.LevelInfo
	if !source.Connector {
		level = slog.LevelWarn
	}
	e.say(level, "events: "+source.String())
	if !source.Connector && e.rules != "" {
		e.log.Warn("rules are followed by polling: what ends before the next look is not classified, and who executes its own program again is not seen to")
	}
	e.say(slog.LevelInfo, "mirror: "+e.openMirror(mirror))
	if !kernfs.ProcIsOwn() {
		e.say(slog.LevelWarn, "proc: shared with all, of whom each can hold up the server by the directory of a process of his (an own one takes Linux 5.8 and CAP_SYS_ADMIN)")
	}
	// By this the commands know whether pids mean the same to them.
	if id, err := localhost.Identity(); err == nil {
		e.facts = append(e.facts, hostFact+id)
	}
	return e.adopt()
}

// makeModel makes the model of the host, with nothing in it, and what is served of it.
func (e *engine) makeModel(conf config) (m model, err error) {
	if e.subsystems, err = subsys.All(e.subsysConfig(conf)); err != nil {
		return m, err
	}
	for _, s := range e.subsystems {
		if f, ok := s.(subsys.Factual); ok { // which has said so in the log
			for _, fact := range f.Facts() {
				e.facts = append(e.facts, s.Name()+": "+fact)
			}
		}
	}
	recorder := ops.NewRecorder(ops.DefaultEventLog)
	cfg := tree.Config{
		Host: e.host, Subsystems: e.subsystems, Observer: recorder, Log: e.log,
		MaxContainers: conf.MaxContainers,
		CloneData:     ops.CloneData,
	}
	if e.mirror != nil {
		cfg.Mirror = e.mirror
		cfg.Prompt = func() bool { return kernfs.MovesAtOnce() && e.host.Prompt() }
	}
	if e.journal != nil {
		cfg.Keeper = e.journal
	}
	if e.tree, err = tree.New(cfg); err != nil {
		return m, err
	}
	e.auditor = e.tree.Auditor()
	classifier := ops.NewClassifier(ops.DefaultRuleQueue, e.subject, e.log)
	e.fs = ops.New(ops.Config{
		Tree: e.tree, Host: e.host, Recorder: recorder, Log: e.log, Audit: e.audit, Rules: classifier,
		Signal:               e.host.Signal,
		Urgently:             hostproc.Urgently,
		AllowReleaseAgent:    conf.AllowReleaseAgent,
		MaxContainersPerUser: conf.MaxContainersPerUser,
		Apart:                subsys.Optional,
		Facts:                e.facts,
		Journal:              e.journal,
	})
	return model{e.tree, e.host, recorder, classifier, e.log, &e.behind}, nil
}

// stateMistakes are what is wrong with a state directory and does not pass.
var stateMistakes = []error{store.ErrOpen, store.ErrDamaged, store.ErrNewer}

// stateError is an error of a state directory: that there can be none of that name does not
// pass either.
func stateError(err error) error {
	if slices.ContainsFunc(stateMistakes, func(target error) bool { return errors.Is(err, target) }) {
		return mistake(err)
	}
	var path *os.PathError
	if errors.As(err, &path) && path.Op == "mkdir" &&
		slices.ContainsFunc([]error{syscall.ENOTDIR, syscall.ENOENT, syscall.ENAMETOOLONG, syscall.EINVAL}, func(errno error) bool { return errors.Is(err, errno) }) {
		return mistake(err)
	}
	return err
}

// mount mounts a hierarchy that is asked for. That the state cannot be written may pass;
// what is wrong with the hierarchy itself, or beside the others, does not.
func (e *engine) mount(h hierarchy) error { return mountIn(e.fs, h) }

// hierarchy is the mounted one of a name.
func (e *engine) hierarchy(name string) (h *tree.Hierarchy) {
	e.tree.View(func() { h = e.tree.Published(name) })
	return h
}

// unmount takes back mounts, when what they were a part of cannot be.
func (e *engine) unmount(mounted []string) {
	for _, name := range slices.Backward(mounted) {
		h := e.hierarchy(name)
		if h == nil {
			continue // a client was faster
		}
		if err := e.tree.Unmount(h); err != nil {
			e.log.Error("a hierarchy that was mounted stays", "hierarchy", name, "err", err)
		}
	}
}

// renounce leaves a state directory that was new as new as it was.
func (e *engine) renounce() {
	if e.journal == nil || !e.journal.State().Fresh {
		return
	}
	if err := e.journal.Renounce(); err != nil {
		e.log.Error("the state directory is not new any more", "err", err)
	}
}

func mountIn(fs *ops.FS, h hierarchy) error {
	err := fs.Mount(h.Name, h.Options)
	if err == nil {
		return nil
	}
	wrong := slices.ContainsFunc(mountMistakes, func(errno syscall.Errno) bool { return errors.Is(err, errno) })
	err = fmt.Errorf("hierarchy %s=%s: %w", h.Name, h.Options, err)
	if wrong {
		return mistake(err)
	}
	return err
}

// checkHierarchies refuses those that no server can have, before anything is made for them: in
// a model that is on no host they are mounted beside each other.
func checkHierarchies(conf config) error {
	fs, _, err := bareModel(conf)
	if err != nil {
		return err
	}
	defer fs.Close()
	for _, h := range conf.Hierarchies {
		if err := mountIn(fs, h); err != nil {
			return err
		}
	}
	return nil
}

// inTheWay adds to an error which hierarchies that the state directory keeps it may be about:
// those that are not asked for, or are of this name.
func inTheWay(err error, state, name string, kept []string, asked []hierarchy) error {
	kept = slices.DeleteFunc(kept, func(k string) bool {
		return k != name && slices.ContainsFunc(asked, func(h hierarchy) bool { return h.Name == k })
	})
	if len(kept) == 0 || !errors.Is(err, syscall.EBUSY) {
		return err
	}
	unmount := kept[0]
	if len(kept) > 1 {
		unmount = "NAME"
	}
	return fmt.Errorf("%w; the state directory %s keeps %s: in a server that is started without --hierarchy, `containerfs save` it, empty and remove its containers, and `containerfs write /ctl 'umount %s'`; or move the directory away to begin anew", err, state, strings.Join(kept, ", "), unmount)
}

// keptIn are the names of those that there are.
func keptIn(t *tree.Tree) (names []string) {
	t.View(func() {
		for h := range t.Hierarchies {
			names = append(names, h.Name())
		}
	})
	return names
}

// mountMistakes are what SPEC §1 has for options that cannot be.
var mountMistakes = []syscall.Errno{syscall.EINVAL, syscall.ENOENT, syscall.EBUSY, syscall.EPERM, syscall.ENAMETOOLONG}

// subsysConfig is what the subsystems are given.
func (e *engine) subsysConfig(conf config) subsys.Config {
	c := subsys.Config{Log: e.log, Enable: conf.Enable, Tasks: e.host}
	c.Kernel.ID = e.id
	c.Kernel.Gone = hostproc.ServerGone
	if !e.host.Source().Connector {
		c.FoundSince = e.host.Tick()
	}
	if e.journal == nil {
		return c
	}
	c.CpusetRows = e.journal.Own("cpuset")
	c.CpuacctRows = e.journal.Own("cpuacct")
	c.BCRows = e.journal.Own("bc")
	c.OriginRows = e.journal.Own("origins")
	c.Kernel.Keep = true
	return c
}

// mirrors are what there may be of a mirror: the last ones have a controller of cgroup
// version 1, which does nothing to a task that is moved.
var mirrors = []string{"auto", "off", "hugetlb", "misc", "rdma"}

// openMirror opens the mirror, if that is wanted and possible, and says what is
// in force.
func (e *engine) openMirror(wanted string) string {
	controller := wanted
	switch wanted {
	case "off":
		return "off, " + e.unanchored()
	case "auto":
		controller = ""
	}
	removed, err := hostproc.RemoveLeftovers(retireWithin)
	for _, name := range removed {
		e.log.Info("removed the mirror of a server that was killed", "name", name)
	}
	if err != nil {
		e.log.Warn("a mirror of a server that was killed is left over", "err", err)
	}
	e.mirror, err = hostproc.OpenMirror(e.id, controller)
	why := errors.New("it is the one of the server before")
	if err != nil && controller != "" && !errors.Is(err, kernfs.ErrRefused) {
		why = err
		e.mirror, err = hostproc.OpenMirror(e.id, "")
	}
	if err != nil {
		if !errors.Is(err, kernfs.ErrRefused) {
			e.log.Warn("the mirror could not be opened", "err", err)
		}
		return fmt.Sprintf("none (%v), %s", err, e.unanchored())
	}
	has, err := e.mirror.Controllers()
	switch {
	case err != nil:
		e.log.Warn("the controllers of the mirror are not known", "err", err)
	case controller != "" && !slices.Contains(has, controller):
		e.log.Warn("the mirror lacks the controller that is wanted: it can get one when it is made anew, by a start after a server that ended with no task in a container",
			"wanted", controller, "err", why)
	}
	if len(has) > 0 {
		return "on, " + e.mirror.Name() + " with " + strings.Join(has, " ")
	}
	return "on, " + e.mirror.Name()
}

// unanchored says how far places are right without a mirror.
func (e *engine) unanchored() string {
	if !e.host.Source().Connector {
		return "placement by polling alone: a child whose parent ends before the next look is where its next parent is"
	}
	return "placement by events alone: children made with CLONE_PARENT can be misplaced"
}

// identity is one for each state directory, so that what the kernel has of it is found
// again, or without one this process's.
func (e *engine) identity() (string, error) {
	if e.journal != nil {
		return e.journal.State().Mirror, nil
	}
	return hostproc.ServerID()
}

// adopt takes the mirror over as the server before has left it, and says what will
// be known of where tasks were.
func (e *engine) adopt() (exists map[uint64]bool) {
	if e.journal == nil {
		e.say(slog.LevelInfo, "state: none, everything ends with the server")
		return nil
	}
	e.journal.Anchor(e.mirror != nil)
	switch s := e.journal.State(); {
	case s.Fresh:
		e.say(slog.LevelInfo, "state: new")
	case s.Rebooted:
		e.say(slog.LevelInfo, "state: of another boot of the host, tasks are in the roots")
	case s.Copied:
		e.say(slog.LevelInfo, "state: a copy of another directory's, tasks are in the roots")
	case s.Unanchored:
		e.say(slog.LevelInfo, "state: the server before saw tasks in another way, by a mirror or by a list: they are in the roots")
	case e.mirror != nil:
		e.say(slog.LevelInfo, "state: tasks are where the mirror has them")
	default:
		e.say(slog.LevelInfo, "state: tasks are where a list has them that is as of a second ago or less, by pid and start time, and those born since where their parents are")
	}
	if e.mirror == nil {
		return nil
	}
	exists, strangers, err := e.mirror.Adopt(e.journal.KeptGroups())
	if len(strangers) > 0 {
		e.log.Warn("tasks were in directories of the mirror that are no css group's: they are in the roots", "tasks", len(strangers), "tids", strangers[:min(len(strangers), maxSaid)])
	}
	if err != nil {
		e.log.Warn("directories of the mirror that are nobody's could not be removed", "err", err)
	}
	if exists == nil {
		exists = make(map[uint64]bool)
	}
	return exists
}

// restore makes the tree what the state directory says.
func (e *engine) restore(conf config, exists map[uint64]bool) error {
	if e.journal == nil {
		return nil
	}
	began := time.Now()
	done, err := e.fs.Restore(exists)
	if err := restoreError(conf.State, e.tree, done, err); err != nil {
		return err
	}
	said := []any{"hierarchies", done.Hierarchies, "containers", done.Containers, "groups", done.Groups}
	if e.mirror == nil { // which shows itself where tasks are
		said = append(said, "tasks", done.Tasks)
	}
	e.log.Info("restored", append(said, "in", time.Since(began).Round(time.Millisecond))...)
	return nil
}

// restoreError says what is wrong with what was restored of a state directory, if anything. A
// server that is started again without a subsystem will lack it again, and one that does not
// understand a row, as an older one may not, will understand it no better.
func restoreError(dir string, t *tree.Tree, done ops.Restored, err error) error {
	if err == nil && done.Containers <= checkUpTo {
		if err = t.Check(); err != nil {
			err = fmt.Errorf("what is kept does not fit together: %w", err)
		}
	}
	if err == nil {
		return nil
	}
	err = fmt.Errorf("state directory %s: %w", dir, err)
	if errors.As(err, new(*ops.LacksError)) || errors.Is(err, syscall.EINVAL) {
		return mistake(err)
	}
	return err
}

// maintain does what has to be done again and again, until ctx is done. With rules it
// is done ahead of the host's processes: who holds the lock of changes and waits for a
// CPU has those wait that are to be placed.
func (e *engine) maintain(ctx context.Context) {
	tick := time.NewTicker(enforceEvery)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if e.rules != "" {
			hostproc.Urgently(func() { e.look(n) })
		} else {
			e.look(n)
		}
	}
}

// look puts right what others have changed, and tidies up, for the n-th time.
func (e *engine) look(n int) {
	if e.behind.Swap(false) {
		e.host.Resync()
	}
	for _, s := range e.subsystems {
		if s, ok := s.(subsys.Enforcer); ok {
			s.Enforce()
		}
	}
	if n := e.auditor.Audit(auditFor); n > 0 {
		e.log.Warn("tasks were not where the model had them", "tasks", n)
	}
	e.tree.Sweep(idleFor)
	if e.journal != nil {
		if e.mirror == nil {
			e.journal.SaveTasks()
		}
		if n%measureEvery == 0 {
			e.checkpoint()
		}
	}
	e.audit.Flush()
	e.limit.Flush()
}

// checkpoint keeps what can be measured until now.
func (e *engine) checkpoint() {
	for _, s := range e.subsystems {
		if s, ok := s.(subsys.Measurer); ok {
			s.Measure()
		}
	}
	e.journal.Checkpoint()
}

// keepLast keeps what was measured until now, and where tasks are.
func (e *engine) keepLast() {
	if e.journal == nil {
		return
	}
	e.tree.Drain()
	if e.mirror == nil {
		e.journal.SaveTasks()
	}
	e.checkpoint()
}

// close ends what newEngine began, in reverse.
func (e *engine) close() {
	defer e.limit.Flush()
	defer e.audit.Flush()
	if e.fs != nil {
		e.fs.Close()
	}
	if e.started {
		e.keepLast()
	}
	for _, s := range e.subsystems {
		if s, ok := s.(interface{ Close() error }); ok {
			if err := s.Close(); err != nil {
				e.log.Warn("a subsystem did not close", "err", err)
			}
		}
	}
	if e.host != nil {
		if err := e.host.Close(); err != nil {
			e.log.Warn("the host did not close", "err", err)
		}
	}
	if e.journal != nil {
		if err := e.journal.Close(); err != nil {
			e.log.Error("what was changed last is not kept", "err", err)
		}
	}
	if e.mirror != nil && e.journal != nil {
		// It is found again, and has where the tasks are.
		if err := e.mirror.Close(retireWithin); err != nil {
			e.log.Warn("the mirror did not close", "err", err)
		}
	} else if e.mirror != nil {
		if err := e.mirror.Retire(retireWithin); err != nil {
			e.log.Warn("the mirror is left over, for the next server to remove", "err", err)
		}
	}
}
