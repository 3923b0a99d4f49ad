package cpuset

import (
	"errors"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestParseSet(t *testing.T) {
	const bad = "EINVAL"
	for _, tc := range []struct{ text, want string }{
		{"", ""},
		{"\n", ""},
		{"0", "0"},
		{"0\n", "0"},
		{"0,\n", "0"},
		{"0-0", "0"},
		{"7,3,1-2", "1-3,7"},
		{"0-3,2-5,5", "0-5"},
		{"0-1,", "0-1"},
		{"007", "7"},
		{"62-65", "62-65"},
		{"0-63", "0-63"},
		{"63-64,127-128", "63-64,127-128"},
		{"0-199", "0-199"},
		{"64-127", "64-127"},

		{",", bad},
		{",0", bad},
		{"0,,", bad},
		{"0,,1", bad},
		{"0\n\n", bad},
		{"\n0", bad},
		{" 0", bad},
		{"0 ", bad},
		{"0, 1", bad},
		{"3-1", bad},
		{"-1", bad},
		{"1-", bad},
		{"-", bad},
		{"0-1-2", bad},
		{"+1", bad},
		{"0x1", bad},
		{"0-10:2/4", bad},
		{"all", bad},
		{"0\x00", bad},
		{"٣", bad},
		{"200", bad},
		{"0-200", bad},
		{"0-20000000", bad},
		{"99999999999999999999999999", bad},
		{strings.Repeat("0", 4000) + "x", bad},
	} {
		set, err := ParseSet([]byte(tc.text), 200)
		if tc.want == bad {
			if !errors.Is(err, syscall.EINVAL) || set != nil {
				t.Errorf("%q: %v, %v, want EINVAL", tc.text, set, err)
			}
			continue
		}
		if err != nil || set.String() != tc.want {
			t.Errorf("%q: %q, %v, want %q", tc.text, set, err, tc.want)
		}
	}
	for c := range 256 { // on a machine of more CPUs than there are bytes
		text := []byte{byte(c)}
		if set, err := ParseSet(text, 1024); err == nil && set != nil && (c < '0' || c > '9') {
			t.Errorf("%q is %v", text, set)
		}
	}
}

// TestParseSetCost: what numbers that the machine lacks cost in memory does not grow
// with them. Bytes, since how many allocations an error takes is the pools' affair,
// which drop at random with -race.
func TestParseSetCost(t *testing.T) {
	const runs, bound = 10, 4 << 10
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		_, _ = ParseSet([]byte("0-20000000"), 64)
	}
	runtime.ReadMemStats(&after)
	if got := (after.TotalAlloc - before.TotalAlloc) / runs; got > bound {
		t.Errorf("%d bytes for a list of 20 million numbers, more than %d", got, bound)
	}
}

// members is the naive form of a Set.
func members(s Set, limit int) (ns []int) {
	for n := range limit {
		if n/wordBits < len(s) && s[n/wordBits]>>(n%wordBits)&1 != 0 {
			ns = append(ns, n)
		}
	}
	return ns
}

// naiveList says which numbers a list means, slowly.
func naiveList(text string, limit int) ([]int, bool) {
	text = strings.TrimSuffix(text, "\n")
	if text == "" {
		return nil, true
	}
	in := make(map[int]bool)
	for _, element := range strings.Split(strings.TrimSuffix(text, ","), ",") {
		ends := strings.Split(element, "-")
		var at []int
		for _, digits := range ends {
			if strings.Trim(digits, "0123456789") != "" {
				return nil, false
			}
			n, err := strconv.Atoi(digits)
			if err != nil || n >= limit {
				return nil, false
			}
			at = append(at, n)
		}
		if len(at) > 2 || at[0] > at[len(at)-1] {
			return nil, false
		}
		for n := at[0]; n <= at[len(at)-1]; n++ {
			in[n] = true
		}
	}
	var ns []int
	for n := range limit {
		if in[n] {
			ns = append(ns, n)
		}
	}
	return ns, true
}

func FuzzParseSet(f *testing.F) {
	for _, text := range []string{"", "0", "0-3,7\n", "3-1", "0-20000000", ",", "63-64,", "1-2-3", "0,,1", "-"} {
		f.Add(text, uint16(100))
	}
	f.Add("0", uint16(0))
	f.Add("64", uint16(64))
	f.Fuzz(func(t *testing.T, text string, limit uint16) {
		set, err := ParseSet([]byte(text), int(limit))
		want, ok := naiveList(text, int(limit))
		if ok != (err == nil) {
			t.Fatalf("%q below %d: %v, naively %v", text, limit, err, ok)
		}
		if !slices.Equal(members(set, int(limit)), want) {
			t.Fatalf("%q: %v, naively %v", text, set, want)
		}
		if len(set) > 0 && set[len(set)-1] == 0 || set.Limit() > int(limit) {
			t.Fatalf("%q: words %v of %d", text, []uint64(set), limit)
		}
		again, err := ParseSet(set.Append(nil), int(limit))
		if err != nil || !again.Equal(set) {
			t.Fatalf("%q: %q reads as %q, %v", text, set, again, err)
		}
		if n := len(members(set, int(limit))); n > 0 && !set.Equal(NewSet(members(set, int(limit))...)) {
			t.Fatalf("%q: NewSet makes something else", text)
		}
	})
}

func FuzzSetAlgebra(f *testing.F) {
	f.Add([]byte{0, 1, 200}, []byte{1, 64})
	f.Add([]byte{}, []byte{63})
	f.Fuzz(func(t *testing.T, as, bs []byte) {
		set := func(ns []byte) Set {
			var ints []int
			for _, n := range ns {
				ints = append(ints, int(n))
			}
			return NewSet(ints...)
		}
		a, b := set(as), set(bs)
		var and, or []int
		for n := range 256 {
			inA, inB := slices.Contains(as, byte(n)), slices.Contains(bs, byte(n))
			if inA && inB {
				and = append(and, n)
			}
			if inA || inB {
				or = append(or, n)
			}
		}
		if got := a.And(b); !got.Equal(NewSet(and...)) || a.Intersects(b) != (len(and) > 0) {
			t.Errorf("%v and %v: %v, want %v", a, b, got, and)
		}
		if got := a.Or(b); !got.Equal(NewSet(or...)) {
			t.Errorf("%v or %v: %v, want %v", a, b, got, or)
		}
		if got, want := a.SubsetOf(b), a.And(b).Equal(a); got != want {
			t.Errorf("%v within %v: %v", a, b, got)
		}
		if a.Empty() != (len(as) == 0) {
			t.Errorf("%v empty: %v", a, a.Empty())
		}
	})
}
