package controller

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"containerfs/tree"
	"containerfs/tree/hostsim"
)

// TestSettings: what was set comes back when the kernel has lost it, and is not set
// again where it has it.
func TestSettings(t *testing.T) {
	b := newBench(t, Config{Names: []string{"memory", "devices", "pids"}, ID: fmt.Sprintf("test-s%d", os.Getpid())})
	id := b.SubsystemID
	sub := func(name string) *Subsystem { return b.subs[id(name)] }
	write := func(c *tree.Container, controller, file, text string) {
		t.Helper()
		if err := b.WriteFile(&tree.Actor{}, c, b.file(id(controller), file), []byte(text)); err != nil {
			t.Errorf("%s.%s: %v", controller, file, err)
		}
	}
	read := func(c *tree.Container, controller, file string) string {
		t.Helper()
		v, err := b.ReadFile(c, b.file(id(controller), file), nil)
		if err != nil {
			t.Errorf("%s.%s: %v", controller, file, err)
		}
		return string(v)
	}
	save := func(c *tree.Container, name string) (saved []byte) {
		b.View(func() { saved = sub(name).Save(c, nil) })
		return saved
	}
	a := b.mkdir(b.root, "a")
	if got := save(a, "memory"); got != nil {
		t.Errorf("nothing was set, saved is %q", got)
	}
	write(a, "memory", "limit_in_bytes", "64M\n")
	write(a, "memory", "force_empty", "0")
	write(a, "pids", "max", "12")
	write(b.root, "pids", "max", "1000")
	write(a, "devices", "deny", "a")
	write(a, "devices", "allow", "c 1:3 rwm\n")
	write(a, "devices", "allow", "c 1:5 r")
	list := read(a, "devices", "list")
	saved := map[string][]byte{}
	for _, name := range []string{"memory", "devices", "pids"} {
		saved[name] = save(a, name)
	}
	root := save(b.root, "pids")
	if !bytes.Contains(saved["memory"], []byte("67108864")) || bytes.Contains(saved["memory"], []byte("force_empty")) {
		t.Errorf("saved are %s", saved["memory"])
	}

	// Another life, in which the kernel has nothing.
	n := b.mkdir(b.root, "n")
	for name, text := range saved {
		if err := b.Change(func() error { return sub(name).Restore(n, text) }); err != nil {
			t.Error(err)
		}
		if again := save(n, name); !bytes.Equal(again, text) {
			t.Errorf("%s: saved again it is %s, was %s", name, again, text)
		}
	}
	if got := read(n, "memory", "limit_in_bytes"); got != "67108864\n" {
		t.Errorf("the limit is %q", got)
	}
	if got := read(n, "pids", "max"); got != "12\n" {
		t.Errorf("pids.max is %q", got)
	}
	if got := read(n, "devices", "list"); got != list {
		t.Errorf("devices are %q, want %q", got, list)
	}
	if err := b.Change(func() error { return sub("pids").Restore(b.root, root) }); err != nil || read(b.root, "pids", "max") != "1000\n" {
		t.Errorf("of the root: %v", err)
	}
	// It is set again where a change could not be kept.
	b.subs[0].Enforce()
	sub("pids").t.adopted = true
	write(n, "pids", "max", "6")
	if err := b.Change(func() error { return sub("pids").Restore(n, saved["pids"]) }); err != nil || read(n, "pids", "max") != "12\n" {
		t.Errorf("a change is taken back: %v, %s", err, read(n, "pids", "max"))
	}
	if err := b.Change(func() error { return sub("pids").Restore(n, nil) }); err != nil || read(n, "pids", "max") != "12\n" {
		t.Errorf("nobody knows what it was before that life: %v, %s", err, read(n, "pids", "max"))
	}
	first := b.mkdir(b.root, "first")
	write(first, "pids", "max", "6")
	write(first, "pids", "max", "7")
	if err := b.Change(func() error { return sub("pids").Restore(first, nil) }); err != nil || read(first, "pids", "max") != "max\n" {
		t.Errorf("what was set first is taken back: %v, %s", err, read(first, "pids", "max"))
	}
	sub("pids").t.adopted = false
	// A life in which the kernel has something else by now.
	b.Update(func() { sub("pids").node(n).adopted = true })
	write(n, "pids", "max", "5")
	if err := b.Change(func() error { return sub("pids").Restore(n, saved["pids"]) }); err != nil || read(n, "pids", "max") != "5\n" {
		t.Errorf("the kernel has it: %v, %s", err, read(n, "pids", "max"))
	}
	for _, bad := range []string{"{", `{"values":{"memory.max":"1"}}`, `{"values":{"../x":"1"}}`} {
		if err := b.Change(func() error { return sub("pids").Restore(n, []byte(bad)) }); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

// TestDevicesTakenBack: so is what was allowed or denied of devices, with all that was before,
// whether the kernel shows it or not.
func TestDevicesTakenBack(t *testing.T) {
	b := newBench(t, Config{Names: []string{"devices"}, ID: fmt.Sprintf("test-t%d", os.Getpid())})
	s := b.subs[0]
	s.t.adopted = true
	set := func(c *tree.Container, line string) error {
		file, value, _ := strings.Cut(line, " ")
		for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			err := b.WriteFile(&tree.Actor{}, c, b.file(0, file), []byte(value))
			// Where there are children, or were until a moment ago, not all is taken.
			if value != "a" || !errors.Is(err, syscall.EINVAL) || time.Now().After(end) {
				return err
			}
		}
	}
	shows := func(c *tree.Container) string {
		list, err := s.Get(c, "devices.list")
		if err != nil {
			t.Error(err)
		}
		if !strings.HasPrefix(list, "a ") {
			return strings.Join(slices.Sorted(strings.Lines(list+"\n")), "")
		}
		// What is denied to a container cannot be allowed below it.
		probe := b.mkdir(c, "probe")
		denied := ""
		for _, device := range []string{"c 1:3 r", "c 1:3 w", "c 1:5 r", "c 1:5 w"} {
			if set(probe, "allow "+device) != nil {
				denied += device + " "
			}
		}
		if err := b.Rmdir(probe, nil); err != nil {
			t.Error(err)
		}
		return "all but " + denied
	}
	for i, tt := range []struct {
		above, kept, refused []string
		child                bool // there is one
	}{
		{refused: []string{"deny c 1:5 rw"}},
		{refused: []string{"deny c 1:5 rw"}, child: true},
		{refused: []string{"deny c 1:5 rw", "allow c 1:5 r"}},
		{refused: []string{"deny a"}},
		{refused: []string{"deny a", "allow c 1:5 r"}},
		{kept: []string{"deny c 1:3 w"}, refused: []string{"deny c 1:3 rw"}},
		{kept: []string{"deny c 1:3 w"}, refused: []string{"allow c 1:3 rw"}, child: true},
		{kept: []string{"deny c 1:3 w", "allow c 1:3 w"}, refused: []string{"deny c 1:3 w"}},
		{above: []string{"deny c 1:3 w"}, refused: []string{"deny c 1:3 r"}},
		{above: []string{"deny c 1:3 w"}, refused: []string{"deny a"}},
		{kept: []string{"deny a", "allow c 1:3 rw"}, refused: []string{"allow c 1:5 r"}},
		{kept: []string{"deny a", "allow c 1:3 rw"}, refused: []string{"deny c 1:3 r"}},
		{kept: []string{"deny a", "allow c 1:3 rw"}, refused: []string{"allow a"}},
		{kept: []string{"deny a", "allow c 1:3 rw"}, refused: []string{"allow c 1:3 r", "allow c 1:5 r"}, child: true},
		{kept: []string{"deny a", "allow c 1:3 rw"}, refused: []string{"deny c 1:3 r"}, child: true},
		{kept: []string{"deny a", "allow c 1:3 r"}, refused: []string{"deny c 1:3 rw"}},
		{kept: []string{"deny c 1:5 r"}, refused: []string{"allow a", "deny c 1:3 r"}},
		{above: []string{"deny a", "allow c 1:3 r"}, refused: []string{"deny c 1:3 rw"}},
		{above: []string{"deny a", "allow c 1:3 rw", "allow c 1:5 rw"}, refused: []string{"deny a"}},
		{above: []string{"deny a", "allow c 1:3 rw", "allow c 1:5 rw"}, refused: []string{"allow c 1:3 rw"}},
		{above: []string{"deny a", "allow c 1:3 rw", "allow c 1:5 rw"}, refused: []string{"deny c 1:3 rw"}, child: true},
		{above: []string{"deny a", "allow c 1:3 rw", "allow c 1:5 rw"}, kept: []string{"deny c 1:5 w"}, refused: []string{"deny c 1:3 rw"}},
	} {
		above := b.mkdir(b.root, fmt.Sprint("above", i))
		for _, line := range tt.above {
			if err := set(above, line); err != nil {
				t.Fatal(line, err)
			}
		}
		c := b.mkdir(above, "c")
		for _, line := range tt.kept {
			if err := set(c, line); err != nil {
				t.Fatal(line, err)
			}
		}
		want := shows(c)
		var saved []byte
		b.View(func() { saved = s.Save(c, nil) })
		if tt.child {
			b.mkdir(c, "child")
		}
		for _, line := range tt.refused {
			if err := set(c, line); err != nil {
				t.Fatal(line, err)
			}
		}
		if err := b.Change(func() error { return s.Restore(c, saved) }); err != nil {
			t.Error(err)
		}
		if strings.Contains(b.log.String(), "cannot be taken back") {
			t.Fatalf("%+v:\n%s", tt, b.log.String())
		}
		if got := shows(c); got != want {
			t.Errorf("%+v: it shows %q, want %q\n%s", tt, got, want, b.log.String())
		}
	}
}

// TestShownOtherwise: a file that shows more than it takes is set again, too.
func TestShownOtherwise(t *testing.T) {
	b := newBench(t, Config{Names: []string{"memory"}, ID: fmt.Sprintf("test-o%d", os.Getpid())})
	s := b.subs[0]
	a, n := b.mkdir(b.root, "a"), b.mkdir(b.root, "n")
	if err := b.WriteFile(&tree.Actor{}, a, b.file(0, "oom_control"), []byte("1")); err != nil {
		t.Fatal(err)
	}
	var saved []byte
	b.View(func() { saved = s.Save(a, nil) })
	if err := b.Change(func() error { return s.Restore(n, saved) }); err != nil {
		t.Error(err)
	}
	want, err1 := s.Get(a, "memory.oom_control")
	got, err2 := s.Get(n, "memory.oom_control")
	if got != want || err1 != nil || err2 != nil {
		t.Errorf("it shows %q, want %q\n%s", got, want, b.log.String())
	}
}

// TestOrderOfSettings: that one setting has to be there before another does not make
// any be lost.
func TestOrderOfSettings(t *testing.T) {
	b := newBench(t, Config{Names: []string{"memory"}, ID: fmt.Sprintf("test-p%d", os.Getpid())})
	s := b.subs[0]
	a := b.mkdir(b.root, "a")
	set := func(text string) {
		t.Helper()
		for _, name := range []string{"limit_in_bytes", "memsw.limit_in_bytes"} {
			if err := b.WriteFile(&tree.Actor{}, a, b.file(0, name), []byte(text)); err != nil {
				t.Fatal(name, err)
			}
		}
	}
	set("256M")
	var saved []byte
	b.View(func() { saved = s.Save(a, nil) })
	s.t.adopted = true
	set("64M")
	if err := b.Change(func() error { return s.Restore(a, saved) }); err != nil {
		t.Error(err)
	}
	if got, err := s.Get(a, "memory.limit_in_bytes"); got != "268435456" || err != nil {
		t.Errorf("the limit is %q, %v\n%s", got, err, b.log.String())
	}
}

func TestOriginsIn(t *testing.T) {
	r := hostsim.NewRows()
	o := OriginsIn(r, "boot\n")
	a, b := Origin{"cpu,cpuacct", 7, 100, "/x \n\"y", 9}, Origin{"v2", 7, 100, "/", 1}
	if err := o.Put(a, b); err != nil {
		t.Fatal(err)
	}
	a.Path = "/z"
	if err := o.Put(a); err != nil {
		t.Fatal(err)
	}
	all, err := o.All()
	if err != nil || len(all) != 2 || !slices.Contains(all, a) || !slices.Contains(all, b) {
		t.Errorf("kept are %v, %v", all, err)
	}
	if err := o.Delete(Origin{Trunk: "v2", TID: 7}); err != nil {
		t.Fatal(err)
	}
	if all, err := o.All(); err != nil || !slices.Equal(all, []Origin{a}) {
		t.Errorf("kept are %v, %v", all, err)
	}
	// Those of another boot are none.
	for k, v := range r.M {
		r.M[k] = []byte(strings.Replace(string(v), `"boot":"`, `"boot":"x`, 1))
	}
	if all, err := o.All(); err != nil || len(all) != 0 || len(r.M) != 0 {
		t.Errorf("of another boot: %v, %v, %v", all, err, r.M)
	}
	r.M["v2 7"] = []byte("{")
	if _, err := o.All(); !errors.Is(err, syscall.EIO) {
		t.Errorf("damaged: %v", err)
	}
}

// TestSettingsAtOnce: of values that are written at once, the one is kept that the kernel
// has in the end.
func TestSettingsAtOnce(t *testing.T) {
	b := newBench(t, Config{Names: []string{"devices", "pids"}, ID: fmt.Sprintf("test-o%d", os.Getpid())})
	a := b.mkdir(b.root, "a")
	write := func(file *tree.File, text string) {
		if err := b.WriteFile(&tree.Actor{}, a, file, []byte(text)); err != nil {
			t.Errorf("%s: %v", file.Name, err)
		}
	}
	read := func(file *tree.File) string {
		t.Helper()
		v, err := b.ReadFile(a, file, nil)
		if err != nil {
			t.Fatal(err)
		}
		return string(v)
	}
	devices, pids := b.SubsystemID("devices"), b.SubsystemID("pids")
	allow, deny, max := b.file(devices, "allow"), b.file(devices, "deny"), b.file(pids, "max")
	limits, access := &b.subs[pids].node(a).set, &b.subs[devices].node(a).set
	write(deny, "a")
	for round := range 1000 {
		var writers sync.WaitGroup
		writers.Go(func() { write(max, "10") })
		writers.Go(func() { write(max, "20") })
		writers.Wait()
		shown := read(max)
		var kept string
		b.View(func() { kept = limits.Values["pids.max"] })
		if kept != shown {
			t.Fatalf("round %d: %q is kept, and the kernel has %q", round, kept, shown)
		}
		writers.Go(func() { write(allow, "c 1:3 r") })
		writers.Go(func() { write(deny, "c 1:3 r") })
		writers.Wait()
		shown = read(b.file(devices, "list"))
		b.View(func() { kept = access.Devices[len(access.Devices)-1] })
		if (kept == "devices.allow c 1:3 r") != strings.Contains(shown, "c 1:3 r") {
			t.Fatalf("round %d: %q is kept last, and the kernel has %q", round, kept, shown)
		}
	}
}

// TestCommands: what is written for a file to show something.
func TestCommands(t *testing.T) {
	for _, tt := range []struct {
		name, now, want string
		all             []string
	}{
		{"pids.max", "max\n", "9", []string{"9"}},
		{"cpuset.cpus", "0-1\n", "", []string{""}},
		{"io.max", "", "8:0 rbps=1 wbps=max\n8:16 rbps=max wbps=2", []string{"8:0 rbps=1 wbps=max", "8:16 rbps=max wbps=2"}},
		{"io.max", "8:0 rbps=1\n8:16 rbps=2\n", "8:16 rbps=3\n", []string{"8:0 rbps=max wbps=max riops=max wiops=max", "8:16 rbps=3"}},
		{"io.max", "8:0 rbps=1\n", "", []string{"8:0 rbps=max wbps=max riops=max wiops=max"}},
		{"io.weight", "default 100\n8:0 50\n", "default 200\n", []string{"8:0 default", "default 200"}},
		{"rdma.max", "rxe0 hca_handle=2 hca_object=max\n", "", []string{"rxe0 hca_handle=max hca_object=max"}},
		{"blkio.throttle.read_bps_device", "8:0 1\n", "8:16 2", []string{"8:0 0", "8:16 2"}},
		{"memory.oom_control", "", "oom_kill_disable 1\nunder_oom 0\n", []string{"1"}},
		{"net_prio.ifpriomap", "lo 0\neth0 1\n", "lo 2\neth0 0", []string{"lo 2", "eth0 0"}},
	} {
		if got := Commands(tt.name, tt.now, tt.want); !slices.Equal(got, tt.all) {
			t.Errorf("%s from %q to %q: %q, want %q", tt.name, tt.now, tt.want, got, tt.all)
		}
	}
}

// TestTakenBackByDevice: of a file with a line for each device a change that could not be
// kept is taken back as well.
func TestTakenBackByDevice(t *testing.T) {
	disks, _ := filepath.Glob("/sys/block/*/dev")
	if len(disks) == 0 {
		t.Skip("this host has no disk")
	}
	number, err := os.ReadFile(disks[0])
	if err != nil {
		t.Fatal(err)
	}
	disk := strings.TrimSpace(string(number))
	b := newBench(t, Config{Names: []string{"blkio"}, ID: fmt.Sprintf("test-d%d", os.Getpid())})
	s := b.subs[0]
	s.Enforce()
	s.t.adopted = true
	const file = "throttle.read_bps_device"
	a := b.mkdir(b.root, "a")
	if err := b.WriteFile(&tree.Actor{}, a, b.file(0, file), []byte(disk+" 1048576")); err != nil {
		t.Fatal(err)
	}
	if got, err := b.ReadFile(a, b.file(0, file), nil); err != nil || string(got) != disk+" 1048576\n" {
		t.Fatalf("it shows %q, %v", got, err)
	}
	if err := b.Change(func() error { return s.Restore(a, nil) }); err != nil {
		t.Error(err)
	}
	if got, err := b.ReadFile(a, b.file(0, file), nil); err != nil || len(got) != 0 {
		t.Errorf("taken back it shows %q, %v", got, err)
	}
}

// TestElsewhereIsALine: serve ends with it on standard error, which is a line for each error.
func TestElsewhereIsALine(t *testing.T) {
	if text := errElsewhere.Error(); strings.Contains(text, "\n") || !strings.HasSuffix(text, ": "+syscall.EBUSY.Error()) {
		t.Errorf("it is %q", text)
	}
}
