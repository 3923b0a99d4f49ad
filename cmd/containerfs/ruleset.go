package main

import (
	"fmt"

	"containerfs/ops/rules"
	"containerfs/tree/hostproc"
)

// subject tells the rules what a thread is now.
func (e *engine) subject(tid int32) (rules.Subject, error) {
	id, err := e.host.Identity(tid)
	return subjectOf(tid, id), err
}

func subjectOf(pid int32, id hostproc.Identity) rules.Subject {
	return rules.Subject{PID: pid, UID: id.UID, GID: id.GID, Groups: id.Groups, Exe: id.Exe, Comm: id.Comm}
}

// rulesIn prepares rules, read from their file, and the templates of a configuration: they
// are put in force by the function.
func (e *engine) rulesIn(conf *config) (apply func(), err error) {
	if e.rules == "" {
		return func() {}, nil
	}
	f, err := rules.Read(e.rules)
	if err != nil {
		return nil, fmt.Errorf("rules: %w", err)
	}
	return func() { e.fs.SetRules(f, conf.Templates) }, nil
}

// prepareRules is the rules' part of a reload.
func (s *service) prepareRules(next *config) (change, error) {
	apply, err := s.engine.rulesIn(next)
	return change{apply: apply}, err
}
