package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"containerfs/cmd/containerfs/internal/localhost"
	"containerfs/ops"
	"containerfs/subsys"
	"containerfs/tree"
	"containerfs/tree/hostproc"
	"containerfs/tree/kernfs"
)

// Periods of what is done again and again.
const (
	enforceEvery = time.Second     // SPEC §11
	auditEvery   = time.Second     // the model against the mirror
	idleFor      = 2 * time.Second // until the directory of a css group is removed
	retireWithin = 5 * time.Second // the mirror, at the end
)

// engine is the host with its model and what is served of it.
type engine struct {
	host       *hostproc.Host
	mirror     *hostproc.Mirror // nil without
	tree       *tree.Tree
	subsystems []tree.Subsystem
	fs         *ops.FS
	audit      *ops.Audit
	rules      string // the file; "" without
	id         string // of the mirror and the kernel directories
	log        *slog.Logger
}

// newEngine opens the host and makes its model, with the hierarchies asked for.
func newEngine(conf config, log *slog.Logger) (_ *engine, err error) {
	e := &engine{log: log, audit: ops.NewAudit(log), rules: conf.Rules}
	defer func() {
		if err != nil {
			e.close()
		}
	}()
	if e.host, err = hostproc.Open(hostproc.Options{}); err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	if e.id, err = hostproc.ServerID(); err != nil {
		return nil, err
	}
	var facts []string
	say := func(fact string) {
		facts = append(facts, fact)
		log.Info(fact)
	}
	say("events: " + e.host.Source().String())
	say("mirror: " + e.openMirror(conf.Mirror))
	// By this the commands know whether pids mean the same to them.
	if id, err := localhost.Identity(); err == nil {
		facts = append(facts, hostFact+id)
	}

	if e.subsystems, err = subsys.All(e.subsysConfig(conf)); err != nil {
		return nil, err
	}
	recorder := ops.NewRecorder(ops.DefaultEventLog)
	cfg := tree.Config{
		Host: e.host, Subsystems: e.subsystems, Observer: recorder, Log: log,
		MaxContainers: conf.MaxContainers,
		CloneData:     ops.CloneData,
	}
	if e.mirror != nil {
		cfg.Mirror = e.mirror
	}
	if e.tree, err = tree.New(cfg); err != nil {
		return nil, err
	}
	classifier := ops.NewClassifier(ops.DefaultRuleQueue, e.subject, log)
	e.host.Start(model{e.tree, e.host, recorder, classifier, log})
	e.tree.Drain()
	e.fs = ops.New(ops.Config{
		Tree: e.tree, Host: e.host, Recorder: recorder, Log: log, Audit: e.audit, Rules: classifier,
		Signal:               e.host.Signal,
		AllowReleaseAgent:    conf.AllowReleaseAgent,
		MaxContainersPerUser: conf.MaxContainersPerUser,
		Apart:                subsys.Optional,
		Facts:                facts,
	})
	for _, h := range conf.Hierarchies {
		if err := e.fs.Mount(h.Name, h.Options); err != nil {
			return nil, fmt.Errorf("hierarchy %s=%s: %w", h.Name, h.Options, err)
		}
	}
	if err := e.reloadRules(); err != nil {
		return nil, err
	}
	classifier.Start(conf.RulesExisting)
	return e, nil
}

// subsysConfig is what the subsystems are given.
func (e *engine) subsysConfig(conf config) subsys.Config {
	c := subsys.Config{Log: e.log, Enable: conf.Enable, Tasks: e.host}
	c.Kernel.ID = e.id
	c.Kernel.Gone = hostproc.ServerGone
	return c
}

// openMirror opens the mirror, if that is wanted and possible, and says what is
// in force.
func (e *engine) openMirror(wanted bool) string {
	if !wanted {
		return "off, placement by events alone: children made with CLONE_PARENT can be misplaced"
	}
	removed, err := hostproc.RemoveLeftovers(retireWithin)
	for _, name := range removed {
		e.log.Info("removed the mirror of a server that was killed", "name", name)
	}
	if err != nil {
		e.log.Warn("a mirror of a server that was killed is left over", "err", err)
	}
	if e.mirror, err = hostproc.OpenMirror(e.id); err != nil {
		if !errors.Is(err, kernfs.ErrRefused) {
			e.log.Warn("the mirror could not be opened", "err", err)
		}
		return fmt.Sprintf("none (%v), placement by events alone: children made with CLONE_PARENT can be misplaced", err)
	}
	return "on, " + e.mirror.Name()
}

// maintain does what has to be done again and again, until ctx is done.
func (e *engine) maintain(ctx context.Context) {
	tick := time.NewTicker(enforceEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, s := range e.subsystems {
			if s, ok := s.(subsys.Enforcer); ok {
				s.Enforce()
			}
		}
		if n := e.tree.Audit(); n > 0 {
			e.log.Warn("tasks were not where the model had them", "tasks", n)
		}
		e.tree.Sweep(idleFor)
		e.audit.Flush()
	}
}

// close ends what newEngine began, in reverse.
func (e *engine) close() {
	defer e.audit.Flush()
	if e.fs != nil {
		e.fs.Close()
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
	if e.mirror != nil {
		if err := e.mirror.Retire(retireWithin); err != nil {
			e.log.Warn("the mirror is left over, for the next server to remove", "err", err)
		}
	}
}
