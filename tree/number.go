package tree

import (
	"fmt"
	"math/bits"
	"syscall"
)

// Numbers of control files (SPEC §4): decimal digits, one trailing newline allowed, nothing
// else.

// ParseNumber parses a number up to limit: EINVAL for what is no number, ERANGE for one
// above the limit.
func ParseNumber(text []byte, limit uint64) (uint64, error) {
	if n := len(text); n > 0 && text[n-1] == '\n' {
		text = text[:n-1]
	}
	if len(text) == 0 {
		return 0, fmt.Errorf("empty, where a number is wanted: %w", syscall.EINVAL)
	}
	var v uint64
	tooLarge := false
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, fmt.Errorf("%q is not decimal digits: %w", text[:min(len(text), 64)], syscall.EINVAL)
		}
		hi, lo := bits.Mul64(v, 10)
		sum, carry := bits.Add64(lo, uint64(c-'0'), 0)
		v = sum
		tooLarge = tooLarge || hi > 0 || carry > 0 || v > limit
	}
	if tooLarge {
		return 0, fmt.Errorf("%s is over %d: %w", text[:min(len(text), 64)], limit, syscall.ERANGE)
	}
	return v, nil
}

// ParseFlag parses a flag: 0 clears, any other number sets.
func ParseFlag(text []byte) (on bool, err error) {
	n, err := ParseNumber(text, 1<<64-1)
	return n != 0, err
}
