package ops

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"containerfs/ops/rules"
	"containerfs/tree"
)

// forceWith puts rules and templates in force.
func (r *ruled) forceWith(text string, templates ...*rules.Template) {
	r.t().Helper()
	f, err := rules.Parse("f", []byte(text))
	r.must(err)
	r.fs.SetRules(f, templates)
}

func (r *ruled) template(path string, delegate bool, set ...string) *rules.Template {
	r.t().Helper()
	m := make(map[string]string)
	for i := 0; i < len(set); i += 2 {
		m[set[i]] = set[i+1]
	}
	t, err := rules.NewTemplate(path, m, delegate)
	r.must(err)
	return t
}

// TestTemplates: what a rule makes has what the template of its path says, before anybody
// is in it, and nothing else has.
func TestTemplates(t *testing.T) {
	r := newRuled(t, 100, "")
	r.forceWith("2000 m users/%U/x create\n1000 m,n users/%U create\n1000 * users/%U create\n",
		r.template("/m/users", false, "alpha.value", "all", "max.depth", "3"),
		r.template("/m/users/%U", true, "alpha.value", "one's", "notify_on_release", "1"),
		r.template("/n/users", false, "beta.value", "n's"),
		r.template("/n/other", false, "beta.value", "x"), r.template("/o/users", false, "beta.value", "x"))
	r.must(r.mkdir("n/users"))
	r.c.Start(false)
	p, q := r.fork(1000), r.fork(2000)
	r.mu.Lock()
	r.gid[p] = 100
	r.mu.Unlock()
	r.exec(p, "/x")
	r.settle()
	r.exec(q, "/x")
	r.settle()
	r.at(p, "/users/1000", "/users/1000")
	r.at(q, "/users/2000/x", "/")
	r.want("m/users/alpha.value", "all\n")
	r.want("m/users/max.depth", "3\n")
	r.want("m/users/1000/alpha.value", "one's\n")
	r.want("m/users/1000/notify_on_release", "1\n")
	r.want("m/users/2000/x/alpha.value", "0\n")
	r.want("n/users/beta.value", "0\n") // it was there
	for path, owner := range map[string]string{
		"m/users":                        "0:0",
		"m/users/1000":                   "1000:100",
		"m/users/1000/tasks":             "1000:100",
		"m/users/1000/alpha.sum":         "1000:100",
		"m/users/1000/alpha.value":       "0:0",
		"m/users/1000/notify_on_release": "0:0",
		"m/users/2000":                   "2000:0",
		"m/users/2000/x":                 "0:0",
	} {
		attr, err := r.attr(path)
		r.must(err)
		if got := fmt.Sprintf("%d:%d", attr.UID, attr.GID); got != owner {
			t.Errorf("%s is %s's, want %s", path, got, owner)
		}
	}
	text, err := r.read("rules")
	r.must(err)
	for _, want := range []string{`# template="/m/users" made=1`, `# template="/m/users/%U" made=2`, `# template="/n/users" made=0`} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("rules has no %q:\n%s", want, text)
		}
	}
	if _, err := rules.Parse("rules", []byte(text)); err != nil {
		t.Error(err)
	}
	if log := r.log.String(); !strings.Contains(log, `msg="a template that no rule makes containers by" path=/n/other`) ||
		!strings.Contains(log, `msg="a template names a hierarchy that is not mounted" path=/o/users hierarchy=o`) || strings.Count(log, "a template") != 2 {
		t.Errorf("log\n%s", log)
	}
}

// TestTemplateOfItsRules: what a rule makes is made by the template that was in force with the
// rule, whatever is in force by then.
func TestTemplateOfItsRules(t *testing.T) {
	const text = "1000 m a create\n"
	r := newRuled(t, 100, "")
	r.forceWith(text, r.template("/m/a", false, "alpha.value", "old"))
	r.c.Start(false)
	r.settle() // it looks at who is there
	r.unseen = true
	r.atLook(func() { r.forceWith(text) })
	p := r.fork(1000)
	r.exec(p, "/x")
	r.settle()
	r.at(p, "/a", "/")
	r.want("m/a/alpha.value", "old\n")
}

// TestTemplateKeepsCpuset: who is given a container cannot have it take no process by its
// cpuset, and be where no limit is.
func TestTemplateKeepsCpuset(t *testing.T) {
	r := newRuled(t, 100, "")
	r.mount("mount o cpuset,delta")
	r.forceWith("1000 o %U create\n", r.template("/o/%U", true))
	r.c.Start(false)
	p := r.fork(1000)
	r.exec(p, "/x")
	r.settle()
	for file, want := range map[string]p9.UID{"": 1000, "/tasks": 1000, "/delta.kill": 1000, "/cpuset.weight": 0} {
		attr, err := r.attr("o/1000" + file)
		r.must(err)
		if attr.UID != want {
			t.Errorf("%q is %d's, want %d", file, attr.UID, want)
		}
	}
}

// TestTemplateFails: a container that cannot have what its template says is not made, and
// nobody is moved.
func TestTemplateFails(t *testing.T) {
	r := newRuled(t, 100, "")
	r.c.Start(false)
	for file, why := range map[string]string{
		"alpha.none":        "no such file",
		"alpha.sum":         "invalid argument",
		"max.depth":         "invalid argument",
		"notify_on_release": "argument list too long",
	} {
		value := "bad"
		if file == "notify_on_release" {
			value = strings.Repeat("1", MaxWrite)
		}
		before := len(r.log.String())
		r.forceWith("1000 m a/%u create\n", r.template("/m/a/%u", false, "alpha.value", "x", file, value))
		p := r.fork(1000)
		r.exec(p, "/x")
		r.settle()
		r.at(p, "/", "/")
		children, err := r.list("m/a", 1000)
		r.must(err)
		for _, d := range children {
			if d.Type == p9.TypeDir && !strings.HasPrefix(d.Name, ".") || d.Name == makingName {
				t.Errorf("%s: there is a %s", file, d.Name)
			}
		}
		r.counted("1:1/1")
		if log := r.log.String()[before:]; !strings.Contains(log, "template /m/a/%u: "+file+": ") || !strings.Contains(log, why) {
			t.Errorf("%s: log\n%s", file, log)
		}
	}
}

// TestTemplateOrder: a value that wants another to be there is written once that is, and each
// line by itself.
func TestTemplateOrder(t *testing.T) {
	r := newRuled(t, 100, "")
	r.forceWith("1000 m a create\n", r.template("/m/a", false, "alpha.poke", "second", "alpha.value", "first\nof two"))
	var wrote []string
	for _, s := range r.subs {
		s.write = func(data string) error {
			if data == "second\n" && len(wrote) == 0 {
				return syscall.EBUSY
			}
			wrote = append(wrote, data)
			return nil
		}
	}
	r.c.Start(false)
	p := r.fork(1000)
	r.exec(p, "/x")
	r.settle()
	r.at(p, "/a", "/")
	if got := strings.Join(wrote, ","); got != "first\n,of two\n,second\n" {
		t.Errorf("written in the order %q", got)
	}
}

// TestTemplateLeft: what a server that was killed has left is made anew, unless somebody is
// in it.
func TestTemplateLeft(t *testing.T) {
	r := newRuled(t, 100, "")
	r.forceWith("1000 m a create\n", r.template("/m/a", false, "alpha.value", "x"))
	r.c.Start(false)
	r.must(r.mkdir("m/" + makingName))
	in := r.fork(3000)
	r.must(r.write("m/"+makingName+"/tasks", fmt.Sprint(in)))
	p := r.fork(1000)
	r.exec(p, "/x")
	r.settle()
	r.at(p, "/", "/")
	if err := r.write("m/a/tasks", "1"); errno(err) != linux.ENOENT {
		t.Errorf("made: %v", err)
	}
	r.must(r.write("m/tasks", fmt.Sprint(in)))
	r.exec(p, "/y")
	r.settle()
	r.at(p, "/a", "/")
	r.want("m/a/alpha.value", "x\n")
}

// TestTemplateDelegatesAtTheEnd: nobody but the server has a container before it has its name.
// Else who has it could keep it there with a process, when it is not to be kept, or the server is
// killed, and no other were made in that place.
func TestTemplateDelegatesAtTheEnd(t *testing.T) {
	r := newRuled(t, 100, "", keepIn(t, t.TempDir()))
	if _, err := r.fs.Restore(nil); err != nil {
		t.Fatal(err)
	}
	r.forceWith("1000 m users/%U create\n", r.template("/m/users/%U", true, "alpha.value", "x"))
	r.must(r.mkdir("m/users"))
	r.c.Start(false)
	r.settle()
	users := r.container("m/users")
	refuse := true
	var making, named []uint32 // owners in commits
	r.fs.journal.store.InCommit = func() (err error) {
		r.tree.View(func() {
			users.Children(0, func(c *tree.Container) bool {
				if uid := attrsOf(c).dir.uid; c.Name() == makingName {
					making = append(making, uid)
				} else if named = append(named, uid); refuse {
					refuse, err = false, syscall.ENOSPC
				}
				return true
			})
		})
		return err
	}
	p := r.fork(1000)
	for _, where := range []string{"/", "/users/1000"} {
		r.exec(p, "/x")
		r.settle()
		r.at(p, where, "/")
		if names := r.names("m/users"); slices.Contains(names, makingName) {
			t.Errorf("left are %q", names)
		}
	}
	r.fs.journal.store.InCommit = nil
	if slices.ContainsFunc(making, func(uid uint32) bool { return uid != 0 }) || len(named) < 2 || slices.Min(named) != 1000 {
		t.Errorf("before it has its name it is kept as %d's, and with it as %d's", making, named)
	}
	if log := r.log.String(); !strings.Contains(log, `op=setattr path=/m/users/1000 uid=0 peer=rules set="uid=1000 gid=0"`) {
		t.Errorf("the log does not tell whose it is:\n%s", log)
	}
}

// TestTemplateNames: no name of a program keeps what others are to have from being made, nor is
// anything made for a name that it cannot have.
func TestTemplateNames(t *testing.T) {
	r := newRuled(t, 100, "")
	r.forceWith("1000 m %p create\n2000 m .%p create\n", r.template("/m/%p", false, "alpha.value", "x"))
	r.c.Start(false)
	r.settle()
	p, q := r.fork(1000), r.fork(2000)
	r.exec(q, "/bin/"+strings.TrimPrefix(makingName, "."))
	for i, name := range []string{makingName, "tasks", "a\nb", strings.Repeat("x", maxName+1)} {
		r.exec(p, "/bin/"+name)
		r.settle()
		r.at(p, "/", "/")
		r.counted(fmt.Sprintf("1:%d/%[1]d 2:1/1", i+1))
	}
	r.at(q, "/", "/")
	if log := r.log.String(); strings.Contains(log, "op=mkdir") {
		t.Errorf("something was made:\n%s", log)
	}
	r.exec(p, "/bin/x")
	r.settle()
	r.at(p, "/x", "/")
	r.want("m/x/alpha.value", "x\n")
}

// TestTemplateFiles: what a template sets that no container there has, or that cannot be set, is
// told when the template comes into force.
func TestTemplateFiles(t *testing.T) {
	r := newRuled(t, 100, "")
	before := len(r.log.String())
	r.forceWith("1000 m,n a create\n", r.template("/m/a", false, "alpha.value", "1", "alpha.valeu", "1", "populated", "1", "max.depth", "1"),
		r.template("/n/a", false, "alpha.value", "1", "release_agent", "/x"))
	var got []string
	for line := range strings.Lines(r.log.String()[before:]) {
		if _, what, ok := strings.Cut(line, "level=WARN "); ok {
			got = append(got, what)
		}
	}
	want := `msg="a template sets a file that there is not" path=/m/a file=alpha.valeu
msg="a template sets a file that cannot be written" path=/m/a file=populated
msg="a template sets a file that there is not" path=/n/a file=alpha.value
msg="a template sets a file that there is not" path=/n/a file=release_agent
`
	if got := strings.Join(got, ""); got != want {
		t.Errorf("the log says\n%swant\n%s", got, want)
	}
}

func TestSettingOrder(t *testing.T) {
	if got := SettingOrder(map[string]string{"b": "", "a_exclusive": "1", "c": ""}); !slices.Equal(got, []string{"b", "c", "a_exclusive"}) {
		t.Errorf("files in the order %q", got)
	}
}

// able is through by another name, whose files come before all others.
type able struct{ *through }

func (able) Name() string { return "able" }

// TestTemplateNotKept: a container of which a setting is undone, since that could not be kept, does
// not get its name, though what is done to it after that is kept; and no line tells of that setting.
func TestTemplateNotKept(t *testing.T) {
	s := &through{pass: make(chan error), entered: make(chan bool)}
	r := newRuled(t, 100, "", keepIn(t, t.TempDir()), func(_ *Config, tc *tree.Config) { tc.Subsystems = append(tc.Subsystems, able{s}, s) })
	if _, err := r.fs.Restore(nil); err != nil {
		t.Fatal(err)
	}
	r.mount("mount o able,through")
	r.forceWith("1000 o a create\n", r.template("/o/a", false, "able.in", "1", "max.depth", "3", "through.in", "1"))
	r.c.Start(false)
	r.settle()
	store, o := r.fs.journal.store, r.container("o")
	p := r.fork(1000)
	r.exec(p, "/x")
	r.tree.Drain()
	<-s.entered
	r.must(store.Wait(store.Last())) // it is made
	refuse, named := true, 0
	store.InCommit = func() (err error) {
		r.tree.View(func() {
			if o.Child("a") != nil {
				named++
			}
		})
		if refuse {
			refuse, err = false, syscall.ENOSPC
		}
		return err
	}
	s.pass <- nil
	<-s.entered // it has its depth
	if err := store.Wait(store.Last()); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v, want ENOSPC", err)
	}
	s.pass <- nil
	r.settle()
	if names := r.names("o"); named > 0 || slices.Contains(names, "a") || slices.Contains(names, makingName) {
		t.Errorf("there are %q, and in %d commits a had its name", names, named)
	}
	if log := r.log.String(); regexp.MustCompile("msg=change op=write path=.*max.depth").MatchString(log) || !strings.Contains(log, "no space left") {
		t.Errorf("log\n%s", log)
	}
	if t.Failed() {
		return
	}
	r.exec(p, "/y")
	r.tree.Drain()
	for range 2 {
		<-s.entered
		s.pass <- nil
	}
	r.settle()
	r.want("o/a/max.depth", "3\n")
	if log := r.log.String(); !strings.Contains(log, "msg=change op=write path=/o/a/max.depth") {
		t.Errorf("log\n%s", log)
	}
}
