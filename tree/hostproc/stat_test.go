package hostproc

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
)

const statTail = " 7 1 1 0 -1 4194560 93 9 0 0 0 1 0 0 20 0 3 0 8241 2412544 210 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n"

func TestParseStat(t *testing.T) {
	for _, comm := range []string{"", "cat", ") (", "a) Z 1 1 (b", "new\nline", ")", "(", "((sd-pam))", "a) S 1"} {
		s, ok := parseStat([]byte("4362 (" + comm + ") R" + statTail))
		want := stat{pid: 4362, state: 'R', ppid: 7, flags: 4194560, threads: 3, start: 8241}
		if !ok || s != want {
			t.Errorf("comm %q: %v %+v", comm, ok, s)
		}
	}
	whole := "1 (x) R" + statTail
	cut := strings.Index(whole, "8241") // a start time that is cut off is not noticed
	for n := range cut {
		if s, ok := parseStat([]byte(whole[:n])); ok {
			t.Errorf("accepted %q as %+v", whole[:n], s)
		}
	}
}

func TestLive(t *testing.T) {
	for _, c := range []struct {
		s    stat
		live bool
	}{
		{stat{state: 'R'}, true}, {stat{state: 'D'}, true}, {stat{state: 'T'}, true}, {stat{state: 'I', flags: flagKernel}, true},
		{stat{state: 'Z'}, false}, {stat{state: 'X'}, false}, {stat{state: 'x'}, false}, {stat{state: 'R', flags: flagExiting}, false},
	} {
		if c.s.live() != c.live {
			t.Errorf("%+v", c.s)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("4362 (a) R (b) S" + statTail))
	f.Add([]byte("1 () R 1 1 1"))
	self, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(self)
	f.Fuzz(func(t *testing.T, data []byte) {
		s, ok := parseStat(data)
		if !ok {
			return
		}
		// Whatever the name is, the rest says the same.
		end := bytes.LastIndexByte(data, ')')
		other := fmt.Appendf(nil, "%d () (", s.pid)
		if again, ok := parseStat(append(other, data[end:]...)); !ok || again != s {
			t.Fatalf("%+v became %+v", s, again)
		}
	})
}

func TestParseStatus(t *testing.T) {
	text := "Name:\tUid:\\n\tx\nUmask:\t0022\nState:\tZ (zombie)\nTgid:\t12\nNgid:\t0\nPid:\t13\nUid:\t1\t2\t4294967295\t4\nGid:\t0\n"
	s, ok := parseStatus([]byte(text))
	if want := (status{'Z', 12, 1, 4294967295}); !ok || s != want {
		t.Fatalf("%v %+v", ok, s)
	}
	for _, bad := range []string{"", "State:\tR\nTgid:\t1\n", strings.Replace(text, "4294967295", "4294967296", 1), strings.Replace(text, "12\n", "-1\n", 1)} {
		if s, ok := parseStatus([]byte(bad)); ok {
			t.Errorf("accepted %q as %+v", bad, s)
		}
	}
}

func FuzzParseStatus(f *testing.F) {
	self, err := os.ReadFile("/proc/self/status")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(self)
	f.Add([]byte("State:\tR\nTgid:\t1\nUid:\t0\t0\t0\t0\n"))
	f.Fuzz(func(t *testing.T, data []byte) { parseStatus(data) })
}

func TestParseCgroup(t *testing.T) {
	text := []byte("12:cpu,hugetlb,name=with:/a:b\n11:name=containerfs-1-22:/5\n10:name=containerfs-1-2:/77\n9:name=systemd:/name=x:/y\n4:memory:/a:name=x:/z\n0::/\n")
	for name, want := range map[string]string{
		"containerfs-1-2": "/77", "containerfs-1-22": "/5", "systemd": "/name=x:/y", "x": "-", "containerfs": "-", "": "-", "with": "/a:b", "hugetlb": "-",
	} {
		path, ok := parseCgroup(text, name)
		if !ok {
			path = []byte("-")
		}
		if string(path) != want {
			t.Errorf("%s: %q, want %q", name, path, want)
		}
	}
	for path, want := range map[string]int64{
		"/": 0, "/1": 1, "/18446744073709551620": -1, "/1000000000000": 1000000000000, "/01": -1, "/0": -1, "": -1, "1": -1,
		"/1/2": -1, "/1/": -1, "/a": -1, "/..": -1, "/../1": -1, "/ 1": -1, "/1 ": -1, "/1 (deleted)": -1, "/+1": -1,
	} {
		group, ok := parseGroup([]byte(path))
		if ok != (want >= 0) || ok && group != uint64(want) {
			t.Errorf("%q: %d %v", path, group, ok)
		}
	}
}

func TestInCgroup(t *testing.T) {
	for text, want := range map[string]bool{
		"": false, "4:memory:/\n1:name=x:/\n0::/\n": false, "4:memory:/..\n0::/../a\n": false, "4:memory\n": false,
		"4:memory:/\n1:name=x:/\n0::/init.scope\n": true, "1:name=a:b:/x\n": false, "2:cpu,cpuacct:/a:b\n0::/\n": true,
	} {
		if got := inCgroup([]byte(text)); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestRanAtAll(t *testing.T) {
	for text, want := range map[string]bool{"": false, "0 0 0\n": false, "0 0 1\n": true, "338323 0 0\n": true} {
		if got := ranAtAll([]byte(text)); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func FuzzParseCgroup(f *testing.F) {
	f.Add([]byte("11:name=x:/5\n0::/\n"), "x")
	f.Add([]byte(":name=:::/0"), "")
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		path, ok := parseCgroup(data, name)
		if !ok {
			return
		}
		if name == "" || !bytes.Contains(data, []byte("name="+name+":"+string(path)+"\n")) {
			t.Fatalf("%q is not what %q says of %q", path, data, name)
		}
		if group, ok := parseGroup(path); ok && groupDir(group) != "." && "/"+groupDir(group) != string(path) {
			t.Fatalf("%q became group %d", path, group)
		}
	})
}
