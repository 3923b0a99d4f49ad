package ops

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"containerfs/ops/rules"
	"containerfs/tree"
)

// placement is what a rule says for a hierarchy.
type placement struct {
	h    *tree.Hierarchy
	set  *ruleSet // that the rule is of, which need not be in force any more
	rule *rules.Rule
	path []string
	s    *rules.Subject // for whom

	to *tree.Container // that of path, when it was found
}

// put moves a task to where rules say, in one move, and reports whether it was
// elsewhere. A hierarchy in which a client has put it where it is stays as it is.
func (c *Classifier) put(j job, info tree.TaskInfo, all ...placement) (moved bool, err error) {
	for range maxPuts {
		var todo []*placement
		var to []*tree.Container
		for i := range all {
			p := &all[i]
			if p.to, err = c.container(p); err != nil {
				break
			}
			if c.isToMove(j, p) {
				todo, to = append(todo, p), append(to, p.to)
			}
		}
		if errors.Is(err, syscall.ENODEV) {
			continue // what it was to be made in was removed meanwhile
		}
		if err != nil || len(to) == 0 {
			return false, err
		}
		changed := make(map[*tree.Container]bool)
		resolved := c.fs.resolved()
		err = c.fs.tree.Attach(tree.AttachRequest{
			Actor: &c.at.actor, To: to[0], Also: to[1:], ID: info.TID, Process: j.whole,
			Allow: func(task tree.TaskInfo, from, to *tree.Container) error {
				if task.TGID != info.TGID || task.TID == info.TID && task.Start != info.Start {
					return syscall.ESRCH
				}
				if c.isByHand(j, to.Hierarchy()) {
					return errByHand
				}
				if from != to {
					changed[to] = true
				}
				return nil
			},
		})
		if errors.Is(err, errByHand) || errors.Is(err, syscall.ENODEV) {
			continue // or a container was removed meanwhile
		}
		if err != nil {
			return false, err
		}
		for _, p := range todo {
			if changed[p.to] {
				moved = true
				c.at.told(deed{op: "move", node: containerDir{p.to}, data: strconv.AppendInt(nil, int64(info.TID), 10),
					set: "line=" + strconv.Itoa(p.rule.Line), resolved: resolved}, nil)
			}
		}
		return moved, nil
	}
	return false, err
}

// errByHand says that a client has put a task where it is.
var errByHand = errors.New("a client has put it where it is")

func (c *Classifier) isByHand(j job, h *tree.Hierarchy) (is bool) {
	c.fs.tree.View(func() { is = c.fs.recorder.hands.has(j.task.Process(), h) })
	return is
}

// isToMove reports whether a task may be elsewhere than a rule says, and not by hand.
func (c *Classifier) isToMove(j job, p *placement) (is bool) {
	c.fs.tree.View(func() {
		there := j.task.Live() && j.task.Container(p.h) == p.to && (!j.whole || j.task.Process().NumThreads() == 1)
		is = !there && !c.fs.recorder.hands.has(j.task.Process(), p.h)
	})
	return is
}

// maxPuts is how often a container is looked for again that was removed after it was found.
const maxPuts = 8

// errNotMade is for who has to make it, or to say create.
var errNotMade = fmt.Errorf("its rule has no option create, and it is not there: %w", syscall.ENOENT)

// container finds the container of a placement, and makes what is missing if its rule says so.
func (c *Classifier) container(p *placement) (to *tree.Container, err error) {
	to = p.h.Root()
	for i, name := range p.path {
		failed := func(err error) error {
			return &tree.OpError{Op: "find", Name: "/" + strings.Join(p.path[:i+1], "/"), Err: err}
		}
		if name == makingName {
			return nil, failed(errMaking)
		}
		for range maxPuts {
			var child *tree.Container
			c.fs.tree.View(func() { child = to.Child(name) })
			err = nil
			if child == nil && !p.rule.Create {
				err = errNotMade
				break
			}
			if child == nil {
				child, err = c.make(to, name, p.set.templateFor(p.h, p.rule, i+1), p.s)
			}
			if err == nil {
				to = child
				break
			}
			if !errors.Is(err, syscall.EEXIST) {
				break
			}
		}
		if err != nil {
			return nil, failed(err)
		}
	}
	return to, nil
}
