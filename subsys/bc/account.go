package bc

import "math"

// resource is one that is counted.
type resource int

const (
	numproc resource = iota
	numfile
	physpages
	lockedpages
	resources
)

// names are the resources' as UserBeanCounters has them.
var names = [resources]string{"numproc", "numfile", "physpages", "lockedpages"}

// unlimited is the barrier and the limit of what nobody has set: the most that
// UserBeanCounters can count.
const unlimited = math.MaxInt64

// account is what a container has of one resource.
type account struct {
	held, maxheld int64
	minheld       int64 // unknown as long as nothing was measured
	barrier       int64 // never over limit
	limit         int64
	failcnt       uint64
}

const unknown = -1

var opened = account{minheld: unknown, barrier: unlimited, limit: unlimited}

// hold notes what is held now. It returns which bound that has crossed, "" for
// none: the limit where it has crossed both.
func (a *account) hold(held int64, populated bool) (crossed string) {
	was := a.held
	a.held = held
	a.maxheld = max(a.maxheld, held)
	if populated && (a.minheld == unknown || held < a.minheld) {
		a.minheld = held
	}
	switch {
	case was <= a.limit && held > a.limit:
		crossed = "limit"
	case was <= a.barrier && held > a.barrier:
		crossed = "barrier"
	default:
		return ""
	}
	a.failcnt++
	return crossed
}

// bounded reports whether somebody has set a bound.
func (a *account) bounded() bool { return a.barrier != unlimited || a.limit != unlimited }

// field is a column of an account, and the control file that shows it.
type field struct {
	name string
	get  func(*account) int64
	set  func(*account, int64) // nil for what is only read
}

var fields = []field{
	{"held", func(a *account) int64 { return a.held }, nil},
	{"maxheld", func(a *account) int64 { return a.maxheld }, nil},
	{"minheld", func(a *account) int64 { return max(0, a.minheld) }, nil},
	{"barrier", func(a *account) int64 { return a.barrier }, func(a *account, v int64) { a.barrier = v }},
	{"limit", func(a *account) int64 { return a.limit }, func(a *account, v int64) { a.limit = v }},
	{"failcnt", func(a *account) int64 { return int64(a.failcnt) }, nil},
}
