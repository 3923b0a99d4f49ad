package main

import (
	"fmt"
	"io"
	"strings"

	"containerfs/ops/rules"
	"containerfs/tree/hostproc"
)

// verdict is what the rules say of a task in one hierarchy; without a line it stays
// because none decides. With IfIn it is said only of a task that is there.
type verdict struct {
	Hierarchy string  `json:"hierarchy"`
	Line      *int    `json:"line"`
	Rule      *string `json:"rule"`
	Why       *string `json:"why"`
	Path      *string `json:"path"`
	Stays     bool    `json:"stays"`
	Error     *string `json:"error"`
	Missing   bool    `json:"missing,omitempty"` // Path is not there, and not made
	IfIn      string  `json:"if_in,omitempty"`
	Never     string  `json:"never_moved,omitempty"` // why none of this is done
}

// lineage is the server with its ancestors, and words for each.
func lineage(server int) map[int32]string {
	found := make(map[int32]string)
	for at, what := int32(server), "the server"; at > 0; what = "of which the server is a descendant" {
		info, err := hostproc.TaskOf(at)
		if err != nil {
			break
		}
		found[info.TGID] = what
		at = info.PPID
	}
	return found
}

// neverMoved says why a process is never moved unless somebody names it: pid 1, the server
// and its ancestors (see lineage), kernel threads. "" for any other.
func neverMoved(pid int32, server map[int32]string) (string, error) {
	info, err := hostproc.TaskOf(pid)
	switch {
	case err != nil:
		return "", err
	case info.TGID == 1:
		return "pid 1", nil
	case info.Kernel:
		return fmt.Sprintf("%d, a kernel thread,", pid), nil
	case server[info.TGID] != "":
		return fmt.Sprintf("%d, %s,", pid, server[info.TGID]), nil
	}
	return "", nil
}

// explain says which rule decides for a hierarchy.
func (t *trial) explain(out io.Writer, hierarchy string) error {
	say := func(v verdict, text string) (err error) {
		if v.Hierarchy, v.Never = hierarchy, t.never; t.json {
			return writeJSON(out, v)
		}
		_, err = fmt.Fprintln(out, printable(hierarchy+": "+text))
		return err
	}
	return t.decide(hierarchy, say, func(text string) error {
		if !t.verbose || t.json {
			return nil
		}
		return say(verdict{}, text)
	})
}

// decide finds the rule that decides for a hierarchy. It is said as a verdict and in words,
// after those that decide if the task is in a place that is not known; passed is told of the
// others before it.
func (t *trial) decide(hierarchy string, say func(v verdict, text string) error, passed func(text string) error) error {
	for _, r := range t.file.Rules {
		if !r.Concerns(hierarchy) {
			continue
		}
		rule := strings.ReplaceAll(r.String(), "\t", " ")
		line := fmt.Sprintf("line %d (%s)", r.Line, rule)
		why, fits := r.Why(&t.subject, &t.names)
		if !fits {
			if err := passed(fmt.Sprintf("%s does not fit: %s", line, why)); err != nil {
				return err
			}
			continue
		}
		v := verdict{Line: &r.Line, Rule: &rule, Why: &why}
		to, err := t.destination(r)
		place, known := t.places[hierarchy]
		inside := place == to || strings.HasPrefix(place, strings.TrimSuffix(to, "/")+"/")
		switch {
		case err != nil && r.Ignore: // nothing is in there
			err = passed(fmt.Sprintf("%s does not fit: %v", line, err))
		case err != nil:
			text := err.Error()
			v.Error, v.Stays = &text, true
			return say(v, fmt.Sprintf("%s decides, but cannot be followed: %v", line, err))
		case r.Ignore && known && inside:
			v.Path, v.Stays = &place, true
			return say(v, fmt.Sprintf("%s decides: %s; it stays in %s", line, why, place))
		case r.Ignore && known:
			err = passed(fmt.Sprintf("%s does not fit: it is in %s", line, place))
		case r.Ignore:
			v.Path, v.Stays, v.IfIn = &to, true, to
			err = say(v, fmt.Sprintf("%s decides if it is in %s: %s; it stays there; else", line, to, why))
		default:
			v.Path, v.Missing = &to, !r.Create && t.isMissing(hierarchy, to)
			missing := ""
			if v.Missing {
				missing = ", which is not there, and the rule does not create it"
			}
			return say(v, fmt.Sprintf("%s decides: %s; it goes to %s%s", line, why, to, missing))
		}
		if err != nil {
			return err
		}
	}
	return say(verdict{Stays: true}, "no line decides: it stays where it is")
}

// isMissing reports whether a container is known not to be there.
func (t *trial) isMissing(hierarchy, path string) bool {
	if t.s == nil {
		return false
	}
	_, err := t.s.attr(join("/"+hierarchy, strings.TrimPrefix(path, "/")))
	return isGone(err)
}

// destination is the path that a rule gives.
func (t *trial) destination(r *rules.Rule) (string, error) {
	names, err := r.Path(&t.subject, &t.names)
	return "/" + strings.Join(names, "/"), err
}
