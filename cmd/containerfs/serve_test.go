package main

import (
	"io"
	"reflect"
	"testing"

	"github.com/urfave/cli/v2"

	"containerfs/p9srv"
)

func errText(_ any, err error) string { return err.Error() }

func TestServeConfig(t *testing.T) {
	t.Setenv("CONTAINERFS_STATE", "none")
	standard := []p9srv.Export{{Addr: defaultAddr()}}
	all := []hierarchy{{"all", "all"}}
	for _, test := range []struct {
		name string
		args []string
		want config
		err  string
	}{
		{"nothing", nil, config{Listen: standard, Hierarchies: all, Mirror: "auto"}, ""},
		{"commas stay in a hierarchy", []string{"--hierarchy", "cpu=cpuset,cpuacct", "--hierarchy=x=debug,name=y"},
			config{Listen: standard, Hierarchies: []hierarchy{{"cpu", "cpuset,cpuacct"}, {"x", "debug,name=y"}}, Mirror: "auto"}, ""},
		{"listeners", []string{"--listen", "tcp://127.0.0.1:0?no_root_squash", "--listen", "unix!/x", "--mirror", "off"},
			config{Listen: []p9srv.Export{{Addr: p9srv.Addr{Network: "tcp", Address: "127.0.0.1:0"}, NoRootSquash: true}, {Addr: p9srv.Addr{Network: "unix", Address: "/x"}}}, Hierarchies: all, Mirror: "off"}, ""},
		{"no address", []string{"--listen", "here"}, config{}, "listen: " + errText(p9srv.ParseExport("here"))},
		{"no options", []string{"--hierarchy", "cpu"}, config{}, `hierarchy "cpu": want NAME=OPTIONS`},
		{"empty options", []string{"--hierarchy", "cpu="}, config{}, `hierarchy "cpu=": want NAME=OPTIONS`},
		{"no name", []string{"--hierarchy", "=cpu"}, config{}, `hierarchy "=cpu": want NAME=OPTIONS`},
		{"twice", []string{"--hierarchy", "a=b", "--hierarchy", "a=c"}, config{}, `hierarchy "a" is given twice`},
		{"mirror", []string{"--mirror", "on"}, config{}, `mirror "on": want auto, off, hugetlb, misc, rdma`},
		{"mirror with a controller", []string{"--mirror", "misc"}, config{Listen: standard, Hierarchies: all, Mirror: "misc"}, ""},
		{"mirror with a subsystem", []string{"--mirror", "misc", "--enable", "misc"}, config{}, `mirror "misc": it is a subsystem by enable`},
		{"enable", []string{"--enable", "ns"}, config{Listen: standard, Hierarchies: all, Enable: []string{"ns"}, Mirror: "auto"}, ""},
		{"enable what there is anyhow", []string{"--enable", "debug"}, config{}, `enable "debug": want one of ns cpu memory blkio io devices freezer net_cls net_prio pids hugetlb perf_event rdma misc cgroup cpuset cpuacct`},
		{"state", []string{"--state", "/x"}, config{Listen: standard, Hierarchies: all, Mirror: "auto", State: "/x"}, ""},
		{"no state", []string{"--state="}, config{}, `state "": want a directory, or none`},
		{"limit", []string{"--max-containers", "-1"}, config{}, "max-containers -1: a limit cannot be negative"},
		{"argument", []string{"x"}, config{}, `serve takes no argument, got "x"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got config
			var err error
			a := app(nil, io.Discard, io.Discard)
			a.Command("serve").Action = func(c *cli.Context) error {
				got, err = serveConfig(c)
				return err
			}
			a.Run(append([]string{"containerfs", "serve"}, test.args...))
			if test.err != "" {
				if err == nil || err.Error() != test.err || exitCode(err) != exitUsage {
					t.Fatalf("got %v, want %s", err, test.err)
				}
				return
			}
			if err == nil && (got.MaxContainers != 1_000_000 || got.MaxContainersPerUser != 10_000) {
				t.Errorf("limits %d and %d, want those of SPEC §3", got.MaxContainers, got.MaxContainersPerUser)
			}
			got.Stderr, got.MaxContainers, got.MaxContainersPerUser, got.NoHierarchies = nil, 0, 0, false
			if err != nil || !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, %v, want %+v", got, err, test.want)
			}
		})
	}
}
