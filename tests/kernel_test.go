package tests

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// kernelStep is a step that is done in a hierarchy of the kernel's cgroup v1 and
// in one of ours. Both must answer the same, unless a section of SPEC says why
// not.
type kernelStep struct {
	do  string // as in a scenario, without what is expected
	why string
}

var kernelSteps = []kernelStep{
	{"mkdir /a", ""},
	{"mkdir /a", ""},
	{"mkdir /a/b", ""},
	{"mkdir /x/y", ""},
	{"mkdir /tasks", ""},
	{"mkdir /tasks/x", ""},
	{"mkdir /{n*256}", "§3: at most 255 bytes"},
	{"rmdir /{n*256}", "§3: at most 255 bytes"},
	{"mkdir /{n*255}", ""},
	{"rmdir /{n*255}", ""},
	{`mkdir "/new\nline"`, ""},
	{`mkdir "/tab\t"`, "§3: no control characters"},
	{`rmdir "/tab\t"`, "§3: no control characters"},
	{"mkdir 700 /mode", ""},
	{"stat /mode", ""},
	{"stat /", "the kernel's root has mode 0555, ours is its owner's to change"},
	{"stat /a", ""},
	{"stat /a/tasks", ""},
	{"stat /a/procs", ""},
	{"stat /a/notify_on_release", ""},
	{"stat /release_agent", ""},
	{"stat /a/release_agent", ""},
	{"rmdir /mode", ""},
	{"rmdir /nothing", ""},
	{"rmdir /tasks", ""},
	{"rmdir /a", ""},
	{"create /file", ""},
	{"create /a/file", ""},
	{"unlink /a/tasks", ""},
	{"unlink /a/b", ""},
	{"symlink /a/link", ""},
	{"link /a/tasks /a/hard", ""},
	{"mknod /a/pipe", ""},
	{"read /a", ""},

	{"mv /a/b /a/c", ""},
	{"mv /a/c /a/tasks", ""},
	{"mkdir /a/d", ""},
	{"mv /a/c /a/d", ""},
	{"mv /a/c /c", ""},
	{"mv /a/c /a", ""},
	{"mv /a/tasks /a/chores", ""},
	{"mv /a/nothing /a/e", ""},
	{`busybox mv /a/c "/a/new\nline"`, ""},
	{"rmdir /a/c", ""},
	{"rmdir /a/d", ""},

	{"spawn P", ""},
	{"write /a/tasks $P", ""},
	{"read /a/tasks", ""},
	{"read /a/procs", ""},
	{"fork P C", ""},
	{"read /a/tasks", ""},
	{"write /tasks $P", ""},
	{"read /a/tasks", ""},
	{"fork P D", ""},
	{"read /a/tasks", ""},
	{"rmdir /a", ""},
	{`write /a/tasks "$P"`, ""},
	{`write /a/tasks "00000$P"`, "§4: leading zeros are no octal"},
	{`write /a/tasks " $P"`, "§20: strict numbers"},
	{`write /a/tasks "$P "`, "§20: strict numbers"},
	{`write /a/tasks "$P\n\n"`, "§20: strict numbers"},
	{"write /a/tasks +$P", "§20: strict numbers"},
	{"write /a/tasks 0x7fffffff", "§20: strict numbers"},
	{`write /a/tasks "$P $D"`, ""},
	{"write /a/tasks x", ""},
	{`write /a/tasks "\n"`, ""},
	{"write /a/tasks -1", ""},
	{"write /a/tasks -$P", ""},
	{"write /a/tasks 2147483647", ""},
	{"write /a/tasks 2147483648", "§4: out of range"},
	{"write /a/tasks 2", ""},
	{"dead X", ""},
	{"write /a/tasks $X", ""},
	{"write /a/procs $X", ""},
	{"zombie Z", ""},
	{"write /a/tasks $Z", "§20: ESRCH for zombies"},
	{"write /a/procs $Z", "§20: ESRCH for zombies"},
	{`write /a/tasks "{0*4096}1"`, ""},
	{"read /a/tasks", ""},
	{"threads Q T", ""},
	{"write /a/tasks $T", ""},
	{"read /a/tasks", ""},
	{"read /a/procs", ""},
	{"write /a/procs $T", ""},
	{"read /a/procs", ""},
	{"write /tasks $T", ""},
	{"read /a/procs", ""},
	{"end Q", ""},
	{"read /a/procs", ""},
	{"end P", ""},
	{"read /a/tasks", ""},
	{"rmdir /a", ""},

	{"mkdir /n", ""},
	{"read /n/notify_on_release", ""},
	{"write /n/notify_on_release 1", ""},
	{"read /n/notify_on_release", ""},
	{"mkdir /n/in", ""},
	{"read /n/in/notify_on_release", ""},
	{"write /n/notify_on_release 2", ""},
	{"read /n/notify_on_release", ""},
	{"write /n/notify_on_release 0", ""},
	{"write /n/notify_on_release x", ""},
	{`write /n/notify_on_release "\n"`, ""},
	{"write /n/notify_on_release -1", ""},
	{"write /n/notify_on_release 1x", ""},
	{"write /n/notify_on_release 18446744073709551616", ""},
	{"write /n/notify_on_release 18446744073709551615", ""},
	{`write /n/notify_on_release " 1"`, ""},
	{`write /n/notify_on_release 0x1`, "§20: strict numbers"},
	{"read /n/notify_on_release", ""},
	{"truncate 0 /n/notify_on_release", ""},
	{"read /n/notify_on_release", ""},
	{"open 1 /n/notify_on_release w", ""},
	{"put 1 0", ""},
	{"put 1 1", ""},
	{"close 1", ""},
	{"read /n/notify_on_release", ""},
	{"open 1 /n/in/notify_on_release", ""},
	{"open 2 /n/in/notify_on_release w", ""},
	{"open 3 /n/in/tasks w", ""},
	{"rmdir /n/in", ""},
	{"next 1", ""},
	{"put 2 1", ""},
	{"put 3 1", ""},
	{"close 1", ""},
	{"close 2", ""},
	{"close 3", ""},

	{"read /release_agent", ""},
	{"write /release_agent /bin/true", ""},
	{"read /release_agent", ""},
	{"write /release_agent relative", "§8: an absolute path"},
	{"write /release_agent /bin/true", ""},

	{"chmod 770 /n", ""},
	{"chmod 600 /n/tasks", ""},
	{"chown 1000:1000 /n/procs", ""},
	{"stat /n", ""},
	{"stat /n/tasks", ""},
	{"stat /n/procs", ""},
	{"as 1000 ls /n", ""},
	{"chmod 755 /n", ""},
	{"chmod 644 /n/tasks", ""},
	{"as 1000 mkdir /n/mine", ""},
	{"as 1000 chmod 777 /n", ""},
	{"as 1000 chown 1000:1000 /n", ""},
	{"as 1000 write /n/tasks 1", ""},
	{"as 1000 write /n/notify_on_release 1", ""},
	{"chown 1000:1000 /n", ""},
	{"chown 1000:1000 /n/tasks", ""},
	{"as 1000 mkdir /n/mine", ""},
	{"stat /n/mine", ""},
	{"stat /n/mine/tasks", ""},
	{"as 1000 spawn U", ""},
	{"spawn R", ""},
	{"as 1000 write /n/mine/tasks $U", ""},
	{"as 1000 read /n/mine/tasks", ""},
	{"as 1000 write /n/mine/tasks $R", ""},
	{"as 1000 write /n/mine/procs 1", ""},
	{"as 1000 rmdir /n/mine", ""},
	{"as 1000 write /n/tasks $U", ""},
	{"as 1000 rmdir /n/mine", ""},
	{"as 1000 rmdir /n", ""},
	{"end U", ""},
	{"rmdir /n", ""},
	{"mkdir /z", ""},
	{"write /z/tasks 0", "§5: 0 is nobody's number"},
	{"read /z/tasks", ""},
	{"rmdir /z", ""},
}

// TestKernelCgroup does the same in the kernel's own implementation of what the
// design became, and here.
func TestKernelCgroup(t *testing.T) {
	if !inside {
		runInside(t, "^TestKernelCgroup$")
		return
	}
	ours := newMountSide(t, startServer(t, "--hierarchy", "h=debug", "--allow-release-agent"), "/bin")
	kernel := &kernelSide{mountSide{bin: "/bin", dir: t.TempDir(), held: map[string]*os.File{}}}
	root := kernel.view("")
	if err := os.Chmod(kernel.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("difftest", root, "cgroup", 0, "none,name=difftest"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, 0); err != nil {
			t.Error(err)
		}
	})
	p := &player{t: t, side: &bothSides{ours, kernel}, vars: map[string]string{}, processes: map[string]*spawner{}}
	for _, k := range kernelSteps {
		words, err := splitWords(k.do)
		if err != nil {
			t.Fatal(err)
		}
		st, err := parseStep(words)
		if err != nil {
			t.Fatal(err)
		}
		output, err := p.do(st.uid, st.verb, p.expand(st.args))
		if err != nil {
			t.Errorf("%s: %v", k.do, err)
		}
		p.settled(k.do)
		mine, theirs, _ := strings.Cut(output, "\x00")
		switch same := mine == theirs; {
		case !same && k.why == "":
			t.Errorf("%s: here %q, the kernel's %q", k.do, mine, theirs)
		case same && k.why != "":
			t.Errorf("%s: %q on both sides, though %s", k.do, mine, k.why)
		}
	}
}

// settled waits after the end of a process, as settle does.
func (p *player) settled(do string) {
	if !strings.HasPrefix(do, "end ") {
		return
	}
	both := p.side.(*bothSides)
	p.side = both.ours
	ended := p.ended
	p.ended = nil
	for _, tid := range ended {
		waitFor(p.t, "an exit to be known", func() bool {
			_, err := os.Stat(both.ours.path(fmt.Sprintf("/proc/%d", tid)))
			return err != nil
		})
	}
	p.side = both
}

// bothSides does a step on both sides: its output is what they answered.
type bothSides struct {
	ours   *mountSide
	kernel *kernelSide
}

func (b *bothSides) state(testing.TB) string { return "" }

func (b *bothSides) do(t testing.TB, uid int, verb string, args []word) (string, error) {
	answer := func(s side, prefix string) string {
		below := append([]word(nil), args...)
		for i, a := range below {
			if strings.HasPrefix(a.text, "/") && !(verb == "write" && i == 1) {
				below[i].text = strings.TrimSuffix(prefix+a.text, "/")
			}
		}
		out, err := s.do(t, uid, verb, below)
		if err != nil {
			return err.Error()
		}
		return out
	}
	return answer(b.ours, "/h") + "\x00" + answer(b.kernel, ""), nil
}

// kernelSide is the kernel's hierarchy, where procs has another name.
type kernelSide struct{ mountSide }

func (k *kernelSide) do(t testing.TB, uid int, verb string, args []word) (string, error) {
	args = append([]word(nil), args...)
	for i, a := range args {
		if dir, ok := strings.CutSuffix(a.text, "/procs"); ok {
			args[i].text = dir + "/cgroup.procs"
		}
		if args[i].text == "" && verb != "write" {
			args[i].text = "/"
		}
	}
	return k.mountSide.do(t, uid, verb, args)
}
