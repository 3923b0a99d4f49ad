package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hugelgupf/p9/linux"
	"golang.org/x/sys/unix"
)

// A scenario in scenario/ is a list of steps, one a line, that are tried over the
// wire (TestScenario) and with plain commands on a v9fs mount (TestMounted):
//
//	[wire|mount|busybox|gnu] [eventually] [as UID] VERB ARG... [-> LINE... | ~ RE... | !~ RE... | ! ERRNO]
//
// `serve FLAG...` is the first: the server that the others talk to; `cpus N` before
// it says how many CPUs the machine must have, from 0 on. A step must
// succeed, and print exactly the lines after ->, or at least a line for each
// expression after ~ and none for one after !~. After ! it must be refused with
// that errno, and over the wire nothing may have changed. Numbers that a control
// file lists are compared as a list in ascending order.
//
// A step that begins with wire or mount is for that side alone: what a kernel
// decides by itself, or cannot be made to ask; likewise busybox and gnu, for a
// mount with these commands. One that begins with eventually
// may take its time to come true. One with `as` is another user's.
//
// Words are split at spaces; "..." is a Go string; $NAME is a pid, or what let read; {x*9} is nine
// times x. A value of write in quotes is written as it is, another one like echo
// does it, with a newline. A path is that in the served name space, or V:/path in
// what `attach V ANAME` made.
//
//	spawn P, fork P C, end P    a process; a child of it; their end
//	threads P T                 a process with threads, and one of them that is not the first
//	zombie P, dead P            a pid of nobody that can be moved
//	affinity $P, narrow $P LIST    the CPUs that a thread may run on; has the thread ask for some of them
//	let N PATH                  what a file says, as $N
//	mkdir [MODE] PATH, rmdir PATH, mv PATH PATH, unlink PATH, create PATH, symlink PATH, link PATH PATH, mknod PATH
//	read PATH, write PATH VALUE, ls PATH, stat PATH (mode uid gid links)
//	chmod MODE PATH, chown UID:GID PATH, touch SECONDS PATH, mtime PATH, truncate SIZE PATH, statfs PATH
//	open N PATH r|w|rw, next N [COUNT], from N, put N VALUE, close N    a file that stays open; from reads at 0
//	walk N PATH, reopen N r|w|rw    the two halves of open
//	attach V ANAME, detach V
//	sh COMMAND                  a command line, on a mount
//	log                         the server's log
type scenario struct {
	name  string
	flags []string // serve's
	cpus  int      // that it needs
	steps []step
}

type step struct {
	line       int
	text       string
	side       string // "" or one of sideNames
	eventually bool
	uid        int
	verb       string
	args       []word
	op         string // "", ->, ~, !~ or !
	want       []word
}

var sideNames = []string{"wire", "mount", "busybox", "gnu"}

// word is one of a step's, as it is written or from between quotes.
type word struct {
	text   string
	quoted bool
}

// side is a way to execute steps.
type side interface {
	// do executes a verb as a user. What was refused is a linux.Errno.
	do(t testing.TB, uid int, verb string, args []word) (output string, err error)

	// state is everything that a refused request must leave alone; "" if the
	// side cannot tell.
	state(t testing.TB) string
}

func scenarios(t testing.TB) []*scenario {
	t.Helper()
	paths, err := filepath.Glob("scenario/*.scn")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	var all []*scenario
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		s := &scenario{name: strings.TrimSuffix(filepath.Base(path), ".scn")}
		for i, line := range strings.Split(string(text), "\n") {
			words, err := splitWords(line)
			if err != nil {
				t.Fatalf("%s:%d: %v", path, i+1, err)
			}
			if len(words) == 0 {
				continue
			}
			st, err := parseStep(words)
			if err != nil {
				t.Fatalf("%s:%d: %v", path, i+1, err)
			}
			st.line, st.text = i+1, line
			if st.verb == "cpus" {
				s.cpus = number(t, st.args[0].text)
				continue
			}
			if st.verb == "serve" {
				for _, a := range st.args {
					s.flags = append(s.flags, a.text)
				}
				continue
			}
			s.steps = append(s.steps, st)
		}
		all = append(all, s)
	}
	return all
}

var repeated = regexp.MustCompile(`\{([^{}]+)\*([0-9]+)\}`)

func splitWords(line string) (words []word, err error) {
	for {
		line = strings.TrimLeft(line, " \t")
		if line == "" || line[0] == '#' {
			break
		}
		var w word
		if line[0] == '"' {
			quoted, err := strconv.QuotedPrefix(line)
			if err != nil {
				return nil, fmt.Errorf("a bad string: %s", line)
			}
			w.text, _ = strconv.Unquote(quoted)
			w.quoted = true
			line = line[len(quoted):]
		} else {
			w.text, line, _ = strings.Cut(line, " ")
		}
		for repeated.MatchString(w.text) { // from within
			w.text = repeated.ReplaceAllStringFunc(w.text, func(s string) string {
				m := repeated.FindStringSubmatch(s)
				n, _ := strconv.Atoi(m[2])
				return strings.Repeat(m[1], n)
			})
		}
		words = append(words, w)
	}
	return words, nil
}

func parseStep(words []word) (st step, err error) {
	next := func() (w word) {
		if len(words) > 0 {
			w, words = words[0], words[1:]
		}
		return w
	}
	w := next()
	if slices.Contains(sideNames, w.text) {
		st.side = w.text
		w = next()
	}
	if w.text == "eventually" {
		st.eventually = true
		w = next()
	}
	if w.text == "as" {
		if st.uid, err = strconv.Atoi(next().text); err != nil {
			return st, err
		}
		w = next()
	}
	st.verb = w.text
	for len(words) > 0 {
		w := next()
		if !w.quoted && slices.Contains([]string{"->", "~", "!~", "!"}, w.text) {
			st.op = w.text
			break
		}
		st.args = append(st.args, w)
	}
	st.want = words
	if st.op == "!" && (len(words) != 1 || errnoNamed(words[0].text) == 0) {
		return st, fmt.Errorf("%v is no errno", words)
	}
	if st.op == "~" && len(words) == 0 {
		return st, fmt.Errorf("no expression")
	}
	return st, nil
}

func errnoNamed(name string) linux.Errno {
	if name == "EOPNOTSUPP" { // ENOTSUP to the library
		return linux.EOPNOTSUPP
	}
	for e := syscall.Errno(1); e < 134; e++ {
		if unix.ErrnoName(e) == name {
			return linux.Errno(e)
		}
	}
	return 0
}

// play executes a scenario on a side, with the steps that are for it by any of
// its names, and reports every step that goes another way.
func (s *scenario) play(t *testing.T, on side, names ...string) {
	if n := runtime.NumCPU(); n < s.cpus {
		t.Skipf("this needs %d CPUs, the process may use %d", s.cpus, n)
	}
	p := &player{t: t, side: on, vars: map[string]string{}, processes: map[string]*spawner{}}
	for _, st := range s.steps {
		if st.side != "" && !slices.Contains(names, st.side) {
			continue
		}
		fail := p.step(st)
		for deadline := time.Now().Add(10 * time.Second); st.eventually && fail != "" && time.Now().Before(deadline); {
			time.Sleep(20 * time.Millisecond)
			fail = p.step(st)
		}
		if fail != "" {
			t.Errorf("scenario/%s.scn:%d: %s\n%s", s.name, st.line, st.text, fail)
		}
	}
}

// player has what the steps of one scenario share.
type player struct {
	t         *testing.T
	side      side
	vars      map[string]string
	processes map[string]*spawner
	ended     []int // threads that have ended and may still be shown
}

var variable = regexp.MustCompile(`\$[A-Z][A-Z0-9]*`)

func (p *player) expand(words []word) []word {
	words = slices.Clone(words)
	for i, w := range words {
		words[i].text = variable.ReplaceAllStringFunc(w.text, func(name string) string {
			if v, ok := p.vars[name[1:]]; ok {
				return v
			}
			return name
		})
	}
	return words
}

// step executes a step and returns what is wrong with it.
func (p *player) step(st step) (fail string) {
	args, want := p.expand(st.args), p.expand(st.want)
	if st.verb != "rmdir" { // which finds out for itself
		p.settle()
	}
	before := ""
	if st.op == "!" {
		before = p.side.state(p.t)
	}
	output, err := p.do(st.uid, st.verb, args)
	if st.op == "!" {
		if after := p.side.state(p.t); after != before {
			fail = "changed the state:\n" + difference(before, after)
		}
		if err != errnoNamed(want[0].text) {
			fail += fmt.Sprintf("got %v, printed %q", err, output)
		}
		return fail
	}
	if err != nil {
		return fmt.Sprintf("got %v, printed %q", err, output)
	}
	return compare(st.op, output, want)
}

// difference is the lines that two texts do not share.
func difference(before, after string) string {
	var b strings.Builder
	for _, side := range []struct{ sign, text, other string }{{"-", before, after}, {"+", after, before}} {
		other := strings.Split(side.other, "\n")
		for line := range strings.SplitSeq(side.text, "\n") {
			if !slices.Contains(other, line) {
				b.WriteString(side.sign + line + "\n")
			}
		}
	}
	return b.String()
}

func compare(op, output string, want []word) string {
	lines := strings.Split(strings.TrimSuffix(output, "\n"), "\n")
	if output == "" {
		lines = nil
	}
	switch op {
	case "->":
		var wanted []string
		for _, w := range want {
			wanted = append(wanted, w.text)
		}
		ascending(wanted)
		if !slices.Equal(lines, wanted) {
			return fmt.Sprintf("got\n%s", output)
		}
	case "~", "!~":
		for _, w := range want {
			re, err := regexp.Compile(w.text)
			if err != nil {
				return err.Error()
			}
			if slices.ContainsFunc(lines, re.MatchString) != (op == "~") {
				return fmt.Sprintf("%q: got\n%s", w.text, output)
			}
		}
	}
	return ""
}

// ascending sorts lines that are all numbers: pids come in any order.
func ascending(lines []string) {
	var n []int
	for _, l := range lines {
		i, err := strconv.Atoi(l)
		if err != nil {
			return
		}
		n = append(n, i)
	}
	slices.Sort(n)
	for i := range n {
		lines[i] = strconv.Itoa(n[i])
	}
}

// do executes the verbs that are about processes, which are the same on all
// sides, and leaves the others to the side.
func (p *player) do(uid int, verb string, args []word) (string, error) {
	arg := func(i int) string {
		if i >= len(args) {
			p.t.Fatalf("%s lacks an argument; see scenario", verb)
		}
		return args[i].text
	}
	set := func(name string, pid int) { p.vars[name] = strconv.Itoa(pid) }
	switch verb {
	case "spawn":
		s := startSpawnerAs(p.t, uid)
		p.processes[arg(0)] = s
		set(arg(0), s.pid())
	case "threads":
		s := startThreadedSpawner(p.t)
		p.processes[arg(0)] = s
		set(arg(0), s.pid())
		tids := threads(p.t, s.pid())
		set(arg(1), tids[len(tids)-1])
	case "fork":
		set(arg(1), p.process(arg(0)).fork())
	case "end":
		s := p.process(arg(0))
		p.ended = append(append(p.ended, s.children...), threads(p.t, s.pid())...)
		s.kill()
	case "zombie":
		pid := zombie(p.t)
		p.ended = append(p.ended, pid)
		set(arg(0), pid)
	case "dead":
		s := startSpawner(p.t)
		s.kill()
		set(arg(0), s.pid())
	case "affinity":
		pid := number(p.t, arg(0))
		return cpusAllowed(p.t, pid, pid) + "\n", nil
	case "narrow":
		return "", narrow(p.t, number(p.t, arg(0)), arg(1))
	case "let":
		text, err := p.side.do(p.t, uid, "read", args[1:])
		p.vars[arg(0)] = strings.TrimSuffix(text, "\n")
		return "", err
	default:
		return p.side.do(p.t, uid, verb, args)
	}
	return "", nil
}

// settle waits until the server knows of the ends of processes: the kernel can
// tell a parent that a child is gone before it makes the event of it.
func (p *player) settle() {
	for _, tid := range p.ended {
		waitFor(p.t, "an exit to be known", func() bool {
			_, err := p.side.do(p.t, 0, "stat", []word{{text: fmt.Sprintf("/proc/%d", tid)}})
			return err == linux.ENOENT || err == linux.ESRCH // as long as somebody has it open
		})
	}
	p.ended = nil
}

func (p *player) process(name string) *spawner {
	s := p.processes[name]
	if s == nil {
		p.t.Fatalf("no process %s", name)
	}
	return s
}
