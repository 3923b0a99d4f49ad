package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"syscall"

	"golang.org/x/sync/errgroup"

	"containerfs/p9srv"
)

// service is a server that runs, and what a reload can change of it.
type service struct {
	conf   config // in force
	log    *slog.Logger
	level  *slog.LevelVar
	engine *engine
	srv    *p9srv.Server
	notify notifier

	listeners []*listening
	tasks     errgroup.Group
	stop      context.CancelFunc
}

// listening is a listener with what the configuration has it by: what can stay in
// place when everything else of it changes.
type listening struct {
	*p9srv.Listener
	place  p9srv.Addr
	socket *os.File
}

func listen(e p9srv.Export) (*listening, error) {
	l, err := p9srv.Listen(e)
	if err != nil {
		return nil, err
	}
	return &listening{l, e.Addr.Plain(), e.Socket}, nil
}

// change is what a concern of a reload has prepared: one of the functions is called,
// neither can fail. Nil is nothing to do.
type change struct{ apply, undo func() }

// reload reads the configuration anew and puts it in force as far as it can be while
// the server runs. Each concern checks it and prepares what can fail; when one fails,
// all stays as it was.
func (s *service) reload() {
	s.notify.reloading()
	defer s.notify.ready()
	if s.conf.Reread == nil {
		s.log.Warn("reload: there is nothing to read anew")
		return
	}
	if err := s.tryReload(); err != nil {
		s.log.Error("not reloaded, what was in force stays", "err", err)
		s.notify.status("not reloaded, what was in force stays: " + err.Error())
		return
	}
	s.notify.status("")
	s.log.Info("reloaded")
}

func (s *service) tryReload() error {
	next, err := s.conf.Reread()
	if err != nil {
		return err
	}
	var changes []change
	for _, prepare := range []func(*config) (change, error){
		s.prepareListeners,
		s.prepareHierarchies,
		s.prepareRules,
		s.prepareLimits,
		s.prepareLog,
	} {
		c, err := prepare(&next)
		if err != nil {
			for _, c := range slices.Backward(changes) {
				if c.undo != nil {
					c.undo()
				}
			}
			return err
		}
		changes = append(changes, c)
	}
	for _, c := range changes {
		if c.apply != nil {
			c.apply()
		}
	}
	s.keepFixed(&next)
	s.conf = next
	return nil
}

// prepareListeners makes the listeners that are new and checks the terms of those that
// stay. The others are withdrawn: their connections end, as do those of a listener
// that it would not let in on the same terms again.
func (s *service) prepareListeners(next *config) (change, error) {
	var made, kept []*listening
	var applies []func()
	undo := func() {
		for _, l := range made {
			l.Close()
		}
	}
	for _, e := range next.Listen {
		i := slices.IndexFunc(s.listeners, func(l *listening) bool {
			return l.place == e.Addr.Plain() && l.socket == e.Socket && !slices.Contains(kept, l)
		})
		if i >= 0 {
			l := s.listeners[i]
			apply, err := s.srv.Prepare(l.Listener, e)
			if err != nil {
				undo()
				return change{}, err
			}
			applies = append(applies, func() {
				apply()
				l.Announce(s.log)
			})
			kept = append(kept, l)
			continue
		}
		l, err := listen(e)
		if err != nil {
			undo()
			return change{}, err
		}
		made = append(made, l)
	}
	return change{undo: undo, apply: func() {
		for _, l := range s.listeners {
			if !slices.Contains(kept, l) {
				s.log.Info("listener withdrawn, its connections end", "at", l.Addr().String())
				s.srv.Withdraw(l.Listener)
			}
		}
		for _, apply := range applies {
			apply()
		}
		s.listeners = append(kept, made...)
		for _, l := range made {
			l.Announce(s.log)
			s.serve(l)
		}
		warnUnused(s.log, sockets(), next.Listen)
		s.warnConfined(next.Listen)
	}}, nil
}

// prepareHierarchies mounts what is asked for and not there, as a start does. Clients may have
// mounted, remounted and unmounted since the last reload: what there is decides.
func (s *service) prepareHierarchies(next *config) (change, error) {
	var mounted []string
	undo := func() { s.engine.unmount(mounted) }
	if next.NoHierarchies {
		next.Hierarchies = nil
	}
	all := slices.Clone(s.conf.Hierarchies)
	for _, h := range next.Hierarchies {
		there := s.engine.hierarchy(h.Name) != nil
		asked := slices.ContainsFunc(all, named(h.Name))
		err := s.engine.mount(h)
		switch {
		case err != nil && there && asked && errors.Is(err, syscall.EBUSY):
			s.log.Warn("reload: a hierarchy stays as it is; write remount to ctl", "hierarchy", h.Name, "asked_for", h.Options)
			continue
		case err != nil:
			undo()
			return change{}, err
		case !there:
			mounted = append(mounted, h.Name)
		}
		if !asked {
			all = append(all, h)
		}
	}
	for _, h := range s.conf.Hierarchies {
		if !s.conf.NoHierarchies && !slices.ContainsFunc(next.Hierarchies, named(h.Name)) && s.engine.hierarchy(h.Name) != nil {
			s.log.Warn("reload: a hierarchy that is not asked for any more stays; write umount to ctl", "hierarchy", h.Name)
		}
	}
	next.Hierarchies = all
	return change{undo: undo}, nil
}

// named finds the hierarchy of a name.
func named(name string) func(hierarchy) bool {
	return func(h hierarchy) bool { return h.Name == name }
}

// prepareLimits: what is over a new limit stays.
func (s *service) prepareLimits(next *config) (change, error) {
	n, perUser := next.MaxContainers, next.MaxContainersPerUser
	return change{apply: func() {
		s.engine.tree.SetMaxContainers(n)
		s.engine.fs.SetMaxContainersPerUser(perUser)
	}}, nil
}

func (s *service) prepareLog(next *config) (change, error) {
	level := next.LogLevel
	return change{apply: func() { s.level.Set(level) }}, nil
}

// keepFixed says what of a new configuration needs a restart, and puts what is in force
// in its place.
func (s *service) keepFixed(next *config) {
	for _, f := range []struct {
		key           string
		inForce, want any // pointers
	}{
		{"state", &s.conf.State, &next.State},
		{"mirror", &s.conf.Mirror, &next.Mirror},
		{"enable", &s.conf.Enable, &next.Enable},
		{"allow-release-agent", &s.conf.AllowReleaseAgent, &next.AllowReleaseAgent},
		{"rules", &s.conf.Rules, &next.Rules},
		{"rules-existing", &s.conf.RulesExisting, &next.RulesExisting},
		{"log-format", &s.conf.LogJSON, &next.LogJSON},
		{"metrics", &s.conf.Metrics, &next.Metrics},
	} {
		if !reflect.DeepEqual(f.inForce, f.want) {
			s.log.Warn("reload: this needs a restart", "key", f.key)
			reflect.ValueOf(f.want).Elem().Set(reflect.ValueOf(f.inForce).Elem())
		}
	}
}
