package ops

import (
	"fmt"
	"math/bits"
	"strconv"
	"syscall"
)

// Numbers of control files (SPEC §4): decimal digits, one trailing newline
// allowed, nothing else.

// parseNumber parses a number up to limit: EINVAL for what is no number, ERANGE
// for one above the limit.
func parseNumber(data []byte, limit uint64) (uint64, error) {
	if n := len(data); n > 0 && data[n-1] == '\n' {
		data = data[:n-1]
	}
	if len(data) == 0 {
		return 0, fmt.Errorf("empty, where a number is wanted: %w", syscall.EINVAL)
	}
	var v uint64
	tooLarge := false
	for _, c := range data {
		if c < '0' || c > '9' {
			return 0, fmt.Errorf("%q is not decimal digits: %w", clip(data, 64), syscall.EINVAL)
		}
		hi, lo := bits.Mul64(v, 10)
		sum, carry := bits.Add64(lo, uint64(c-'0'), 0)
		v = sum
		tooLarge = tooLarge || hi > 0 || carry > 0 || v > limit
	}
	if tooLarge {
		return 0, fmt.Errorf("%s is over %d: %w", clip(data, 64), limit, syscall.ERANGE)
	}
	return v, nil
}

// parseFlag parses a flag: 0 clears, any other number sets.
func parseFlag(data []byte) (bool, error) {
	v, err := parseNumber(data, 1<<64-1)
	return v != 0, err
}

func appendNumber(b []byte, v uint64) []byte {
	return append(strconv.AppendUint(b, v, 10), '\n')
}

func appendFlag(b []byte, on bool) []byte {
	if on {
		return append(b, "1\n"...)
	}
	return append(b, "0\n"...)
}
