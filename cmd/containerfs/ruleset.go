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

// reloadRules reads the rules and puts them in force. When they are bad, those that
// were in force stay.
func (e *engine) reloadRules() error {
	if e.rules == "" {
		return nil
	}
	f, err := rules.Read(e.rules)
	if err != nil {
		return fmt.Errorf("rules: %w", err)
	}
	e.fs.SetRules(f)
	return nil
}

// prepareRules is the rules' part of a reload.
func (s *service) prepareRules(*config) (change, error) {
	if s.engine.rules == "" {
		return change{}, nil
	}
	f, err := rules.Read(s.engine.rules)
	if err != nil {
		return change{}, fmt.Errorf("rules: %w", err)
	}
	return change{apply: func() { s.engine.fs.SetRules(f) }}, nil
}
