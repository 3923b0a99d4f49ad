package main

import (
	"errors"
	"fmt"
	"slices"
)

// undoList is what has been done of a change that is to be whole, and how to take it
// back.
type undoList struct {
	steps []undoStep
}

type undoStep struct {
	what string
	undo func() error
}

func (l *undoList) add(what string, undo func() error) {
	l.steps = append(l.steps, undoStep{what, undo})
}

// after takes everything back, the last step first, because of a failure. It
// returns the failure, or one with exitPartly that says what could not be taken back.
func (l *undoList) after(failure error) error {
	var left []error
	for _, step := range slices.Backward(l.steps) {
		if err := step.undo(); err != nil {
			left = append(left, fmt.Errorf("%s: %w", step.what, err))
		}
	}
	l.steps = nil
	if len(left) == 0 {
		return failure
	}
	text := fmt.Sprintf("%v; and could not be put back: %v", failure, left[0])
	for _, err := range left[1:] {
		text += ", " + err.Error()
	}
	return &exitError{exitPartly, errors.New(text)}
}
