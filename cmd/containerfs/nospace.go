package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hugelgupf/p9/linux"
)

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
