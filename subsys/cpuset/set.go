package cpuset

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/bits"
	"slices"
	"strconv"
	"syscall"
)

// Set is a set of small numbers: of CPUs, or of memory nodes. Its content never
// changes, so sets are shared freely; the zero Set is empty. The last word is
// never 0: equal sets have equal words.
type Set []uint64

const wordBits = 64

// NewSet makes a set of the numbers given.
func NewSet(numbers ...int) Set {
	var words []uint64
	for _, n := range numbers {
		if grow := n/wordBits + 1 - len(words); grow > 0 {
			words = append(words, make([]uint64, grow)...)
		}
		words[n/wordBits] |= 1 << (n % wordBits)
	}
	return trim(words)
}

// trim makes a Set of words, which nobody else may have.
func trim(words []uint64) Set {
	n := len(words)
	for n > 0 && words[n-1] == 0 {
		n--
	}
	if n == 0 {
		return nil
	}
	if n < cap(words) {
		return slices.Clone(words[:n])
	}
	return words
}

// ParseSet reads a list as SPEC §4 has it: a or a-b, joined by commas, with one
// trailing comma and one trailing newline allowed; empty is the empty set. A
// number of limit or more is EINVAL as any other error is, however long it is:
// it names what the machine lacks. Time and memory are bounded by limit and the
// length of the text, not by the numbers in it.
func ParseSet(text []byte, limit int) (Set, error) {
	text, _ = bytes.CutSuffix(text, []byte("\n"))
	if len(text) == 0 {
		return nil, nil
	}
	text, _ = bytes.CutSuffix(text, []byte(","))
	words := make([]uint64, (limit+wordBits-1)/wordBits)
	for more := true; more; {
		var element []byte
		element, text, more = bytes.Cut(text, []byte(","))
		first, last, isRange := bytes.Cut(element, []byte("-"))
		if !isRange {
			last = first
		}
		a, okA := parseNumber(first, limit)
		b, okB := parseNumber(last, limit)
		if !okA || !okB || a > b {
			return nil, fmt.Errorf("%q is no number or range up to %d: %w", element[:min(len(element), 64)], limit-1, syscall.EINVAL)
		}
		fill(words, a, b)
	}
	return trim(words), nil
}

// parseNumber reads digits that make a number below limit.
func parseNumber(digits []byte, limit int) (n int, ok bool) {
	for _, d := range digits {
		if d < '0' || d > '9' {
			return 0, false
		}
		if n = n*10 + int(d-'0'); n >= limit {
			return 0, false
		}
	}
	return n, len(digits) > 0
}

// fill sets the bits a to b, both included.
func fill(words []uint64, a, b int) {
	for w := a / wordBits; w <= b/wordBits; w++ {
		mask := ^uint64(0)
		if w == a/wordBits {
			mask &= ^uint64(0) << (a % wordBits)
		}
		if w == b/wordBits {
			mask &= ^uint64(0) >> (wordBits - 1 - b%wordBits)
		}
		words[w] |= mask
	}
}

// Append appends the list that ParseSet reads, ascending and merged.
func (s Set) Append(b []byte) []byte {
	start := len(b)
	for n := s.next(0, true); n >= 0; {
		end := s.next(n, false)
		if len(b) > start {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, int64(n), 10)
		if end-n > 1 {
			b = append(b, '-')
			b = strconv.AppendInt(b, int64(end-1), 10)
		}
		n = s.next(end, true)
	}
	return b
}

// String is the list.
func (s Set) String() string { return string(s.Append(nil)) }

// LogValue is the list, in any form of log.
func (s Set) LogValue() slog.Value { return slog.StringValue(s.String()) }

// next is the first number from n on that is in the set, or is not. A set ends
// nowhere with a number that is in it: then -1.
func (s Set) next(n int, in bool) int {
	for w := n / wordBits; w < len(s); w++ {
		word := s[w]
		if !in {
			word = ^word
		}
		if w == n/wordBits {
			word &= ^uint64(0) << (n % wordBits)
		}
		if word != 0 {
			return w*wordBits + bits.TrailingZeros64(word)
		}
	}
	if in {
		return -1
	}
	return max(n, len(s)*wordBits)
}

// Empty reports whether nothing is in s.
func (s Set) Empty() bool { return len(s) == 0 }

// Limit is one more than the highest number in s, 0 for the empty set.
func (s Set) Limit() int {
	if len(s) == 0 {
		return 0
	}
	return (len(s)-1)*wordBits + bits.Len64(s[len(s)-1])
}

// Equal reports whether s and o have the same numbers.
func (s Set) Equal(o Set) bool { return slices.Equal(s, o) }

// SubsetOf reports whether all of s is in o.
func (s Set) SubsetOf(o Set) bool {
	if len(s) > len(o) {
		return false
	}
	for i, w := range s {
		if w&^o[i] != 0 {
			return false
		}
	}
	return true
}

// Intersects reports whether s and o have a number in common.
func (s Set) Intersects(o Set) bool {
	for i := range min(len(s), len(o)) {
		if s[i]&o[i] != 0 {
			return true
		}
	}
	return false
}

// And is what s and o have in common.
func (s Set) And(o Set) Set {
	words := make([]uint64, min(len(s), len(o)))
	for i := range words {
		words[i] = s[i] & o[i]
	}
	return trim(words)
}

// Or is what is in s or in o.
func (s Set) Or(o Set) Set {
	if len(s) < len(o) {
		s, o = o, s
	}
	words := slices.Clone(s)
	for i, w := range o {
		words[i] |= w
	}
	return words
}
