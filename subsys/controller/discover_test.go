package controller

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

const (
	v1Cgroups = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t3\t1\t1\ncpu\t1\t1\t1\ncpuacct\t1\t1\t1\nmemory\t0\t1\t0\nnet_cls\t0\t1\t1\npids\t0\t9\t1\n"
	v1Self    = "9:name=systemd:/\n3:cpuset:/\n1:cpuacct,cpu:/user.slice\n0::/\n"
	v1Mounts  = `31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu\040x rw,relatime - cgroup cgroup rw,cpu,cpuacct
33 31 0:29 /docker/1 /elsewhere rw,relatime - cgroup cgroup rw,cpu,cpuacct
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
`
)

func TestFind(t *testing.T) {
	f := parseFacts([]byte(v1Cgroups), []byte(v1Self), []byte(v1Mounts))
	f.v2 = []string{"pids", "io"}
	for name, want := range map[string]place{
		"cpu":     {version: 1, set: []string{"cpu", "cpuacct"}, mount: "/sys/fs/cgroup/cpu x"},
		"cpuset":  {version: 1, set: []string{"cpuset"}},
		"net_cls": {version: 1, set: []string{"net_cls"}, fresh: true},
		"pids":    {version: 2, mount: "/sys/fs/cgroup/unified"},
		"io":      {version: 2, mount: "/sys/fs/cgroup/unified"},
		Core:      {version: 2, mount: "/sys/fs/cgroup/unified"},
	} {
		got, err := f.find(name)
		if err != nil || got.version != want.version || got.mount != want.mount || got.fresh != want.fresh || !slices.Equal(got.set, want.set) {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, want)
		}
	}
	for name, why := range map[string]string{
		"memory": "cgroup_disable", "rdma": "in version 1 cpu cpuacct cpuset, in version 2 pids io", "name=systemd": "no controller", "": "no controller",
	} {
		if got, err := f.find(name); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %+v, %v, want an error with %q", name, got, err, why)
		}
	}
	blkio := parseFacts([]byte(v1Cgroups+"blkio\t0\t1\t1\n"), []byte(v1Self), []byte(v1Mounts))
	if got, err := blkio.find("blkio"); err != nil || !got.fresh {
		t.Errorf("blkio: %+v, %v", got, err)
	}
	blkio.v2 = []string{"io"}
	if got, err := blkio.find("blkio"); err == nil || !strings.Contains(err.Error(), "io") {
		t.Errorf("blkio of version 2: %+v, %v", got, err)
	}
	// What is in use somewhere else can be had when it is not any more.
	old := parseFacts([]byte(v1Cgroups), []byte("4:blkio:/\n5:pids,name=containerfs-s1:/7\n"), nil)
	for name, want := range map[string]bool{"rdma": true, "memory": true, "io": true, "pids": false, Core: false} {
		_, err := old.find(name)
		if absent := (*AbsentError)(nil); err == nil || errors.As(err, &absent) != want {
			t.Errorf("%s: %v, want it absent: %v", name, err, want)
		}
	}
	mirrored := parseFacts([]byte(v1Cgroups), []byte("4:pids,name=containerfs-s1:/7\n5:cpu,name=containerfs:/\n"), nil)
	mirrored.v2 = []string{"pids"}
	if got, err := mirrored.find("pids"); err == nil || !strings.Contains(err.Error(), "the mirror containerfs-s1") {
		t.Errorf("a mirror's: %+v, %v", got, err)
	}
	if got, err := mirrored.find("cpu"); err != nil || got.fresh {
		t.Errorf("that of another hierarchy with a name: %+v, %v", got, err)
	}
	none := parseFacts(nil, []byte("0::/\n"), nil)
	if _, err := none.find(Core); err == nil || !strings.Contains(err.Error(), "not mounted") {
		t.Errorf("no version 2: %v", err)
	}
}

func TestPathIn(t *testing.T) {
	const text = "9:name=cpu:/no\n4:memory,cpu:/a:b (deleted)\n0::/z\n"
	for _, c := range []struct {
		version int
		set     []string
		want    string
		ok      bool
	}{
		{1, []string{"cpu", "memory"}, "/a:b (deleted)", true},
		{1, []string{"pids"}, "", false},
		{2, nil, "/z", true},
	} {
		if got, ok := pathIn([]byte(text), c.version, c.set); got != c.want || ok != c.ok {
			t.Errorf("%v: %q, %v", c, got, ok)
		}
	}
}

func FuzzParseFacts(f *testing.F) {
	f.Add([]byte(v1Cgroups), []byte(v1Self), []byte(v1Mounts))
	f.Add([]byte("a 1 1 1"), []byte("1:,a,,:\n::"), []byte("1 2 3 / \\999\\04 - cgroup2 x y"))
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		facts := parseFacts(a, b, c)
		for _, name := range append(slices.Clone(Names), "cpuset") {
			if p, err := facts.find(name); err == nil && p.version == 1 && !slices.Contains(p.set, name) {
				t.Errorf("%s is said to be in %v", name, p.set)
			}
		}
	})
}

func TestCut(t *testing.T) {
	long := strings.Repeat("12345/", 2000) + "7"
	var parts []string
	for path := long; path != ""; {
		p := cut(&path)
		if len(p) > maxStep || strings.HasPrefix(p, "/") || strings.HasSuffix(p, "/") {
			t.Fatalf("cut off %d bytes, %.10q", len(p), p)
		}
		parts = append(parts, p)
	}
	if got := strings.Join(parts, "/"); got != long || len(parts) != 4 {
		t.Errorf("%d parts, %d bytes", len(parts), len(got))
	}
}
