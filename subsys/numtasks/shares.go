package numtasks

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"syscall"

	"containerfs/tree"
)

// Values of shares that are no numbers.
const (
	unchanged = -1
	dontCare  = -3
)

const defaultDivisor = 100

// none is the absolute of who does not care.
const none = -1

// shares are the settings of a container.
type shares struct{ min, max, divisor int32 }

var defaultShares = shares{dontCare, dontCare, defaultDivisor}

// parseShares reads what is written to the file shares. What is not mentioned is
// unchanged. EINVAL, and ERANGE for a number that is too big.
func parseShares(text string) (s shares, err error) {
	s = shares{unchanged, unchanged, unchanged}
	seen := make(map[string]bool)
	for pair := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), ",") {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || seen[key] {
			return s, fmt.Errorf("%q is not KEY=VALUE, or a key is there twice: %w", pair[:min(len(pair), 64)], syscall.EINVAL)
		}
		seen[key] = true
		switch key {
		case "res":
			if value != "numtasks" {
				err = fmt.Errorf("res can only be numtasks: %w", syscall.EINVAL)
			}
		case "min_shares":
			s.min, err = parseShare(value)
		case "max_shares":
			s.max, err = parseShare(value)
		case "child_shares_divisor":
			if s.divisor, err = parseShare(value); s.divisor == dontCare {
				err = fmt.Errorf("a divisor is a number: %w", syscall.EINVAL)
			}
		default:
			err = fmt.Errorf("the keys are res, min_shares, max_shares and child_shares_divisor: %w", syscall.EINVAL)
		}
		if err != nil {
			return s, err
		}
	}
	return s, nil
}

func parseShare(text string) (int32, error) {
	switch text {
	case "-1":
		return unchanged, nil
	case "-3":
		return dontCare, nil
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if errors.Is(err, strconv.ErrRange) {
		return 0, fmt.Errorf("a share is at most %d: %w", math.MaxInt32, syscall.ERANGE)
	}
	if err != nil {
		return 0, fmt.Errorf("%q is not decimal digits, -1 to leave it as it is, or -3 for none; pairs have commas between them: %w", text[:min(len(text), 64)], syscall.EINVAL)
	}
	return int32(n), nil
}

// append is the text of the file shares.
func (s shares) append(b []byte) []byte {
	b = strconv.AppendInt(append(b, "res=numtasks,min_shares="...), int64(s.min), 10)
	b = strconv.AppendInt(append(b, ",max_shares="...), int64(s.max), 10)
	b = strconv.AppendInt(append(b, ",child_shares_divisor="...), int64(s.divisor), 10)
	return append(b, '\n')
}

// changed is s with what c changes.
func (s shares) changed(c shares) shares {
	change := func(share *int32, to int32) {
		if to != unchanged {
			*share = to
		}
	}
	change(&s.min, c.min)
	change(&s.max, c.max)
	change(&s.divisor, c.divisor)
	return s
}

// validate is EINVAL for shares that c cannot have. Under changeMu.
func (s *Subsystem) validate(c *tree.Container, n shares) error {
	if c.IsRoot() {
		if n.min != dontCare || n.max != dontCare {
			return fmt.Errorf("the root has no shares of anything: %w", syscall.EINVAL)
		}
	} else {
		parent := s.state(c.Parent()).shares
		if n.min > 0 && int64(n.min) > int64(parent.divisor)-s.guaranteed(c.Parent(), c) {
			return fmt.Errorf("the parent's child_shares_divisor, %d, is less than its children's min_shares would be in all: %w", parent.divisor, syscall.EINVAL)
		}
		if n.max > parent.divisor {
			return fmt.Errorf("max_shares is over the parent's child_shares_divisor, %d: %w", parent.divisor, syscall.EINVAL)
		}
	}
	if int64(n.divisor) < s.guaranteed(c, nil) {
		return fmt.Errorf("the children's min_shares are more in all: %w", syscall.EINVAL)
	}
	fits := true
	c.Children(0, func(k *tree.Container) bool {
		fits = s.state(k).max <= n.divisor
		return fits
	})
	if !fits {
		return fmt.Errorf("a child's max_shares are more: %w", syscall.EINVAL)
	}
	if n.min >= 0 && n.max >= 0 && n.min > n.max {
		return fmt.Errorf("min_shares over max_shares: %w", syscall.EINVAL)
	}
	return nil
}

// guaranteed is the sum of the min_shares of the children of c, one aside.
func (s *Subsystem) guaranteed(c, aside *tree.Container) (sum int64) {
	c.Children(0, func(k *tree.Container) bool {
		if k != aside {
			sum += int64(max(0, s.state(k).min))
		}
		return true
	})
	return sum
}

// absolute is what a share comes to, of a parent that has so much.
func absolute(parent int64, share, divisor int32) int64 {
	switch {
	case parent == none || share == dontCare:
		return none
	case divisor == 0:
		return 0
	}
	return parent * int64(share) / int64(divisor)
}

// limit is the absolute of c. View or Change.
func (s *Subsystem) limit(c *tree.Container) int64 {
	if c.IsRoot() {
		return s.bound
	}
	return absolute(s.limit(c.Parent()), s.state(c).max, s.state(c.Parent()).divisor)
}
