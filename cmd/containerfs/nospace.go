package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hugelgupf/p9/linux"
)

// whyNotWritten says more of an error of a write than its number does: of one that moves a
// task, to tasks or procs or by the attach of ctl, and of one that names a release agent.
func (s *session) whyNotWritten(path string, value []byte, err error) error {
	lines := strings.Split(strings.TrimSuffix(string(value), "\n"), "\n")
	names := split(path)
	if len(names) == 0 {
		return err
	}
	switch last := names[len(names)-1]; {
	case last == "tasks" || last == "procs":
		return s.whyNoSpace([]string{parent(clean(path))}, err)
	case last == "release_agent" && errors.Is(err, linux.EPERM):
		return fmt.Errorf("%w: the server has to be started with --allow-release-agent, and only root on its host can name one", err)
	case last == "ctl" && len(names) == 1 && strings.HasPrefix(lines[0], "attach "):
		return s.whyNoSpace(lines[1:], err)
	}
	return err
}

// whyNoSpace names the setting that a container lacks before tasks can be in it, where
// that is what an error is about.
func (s *session) whyNoSpace(dirs []string, err error) error {
	if !errors.Is(err, linux.ENOSPC) {
		return err
	}
	for _, dir := range dirs {
		files, _, listErr := s.list(dir)
		if listErr != nil {
			continue
		}
		for _, name := range []string{"cpuset.cpus", "cpuset.mems", "cpus", "mems"} {
			if !slices.Contains(files, name) {
				continue
			}
			if text, readErr := s.readFile(join(dir, name)); readErr == nil && strings.TrimSpace(text) == "" {
				return fmt.Errorf("%w: %s is empty", err, join(dir, name))
			}
		}
	}
	return err
}
