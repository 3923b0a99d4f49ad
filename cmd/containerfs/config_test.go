package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"containerfs/p9srv"
)

const wholeConfig = `# of one host
mirror = "off"
max-containers = 5
max-containers-per-user = 0
allow-release-agent = true
hierarchy = ["cpu=cpuset,cpuacct", "x=debug"]
enable = ["ns"]
state = "/srv/state"

[[listen]]
addr = "unix:///run/x.sock"

[[listen]]
addr = "tcp://0.0.0.0:5640"
as = "batch"
access = "ro"
allow = ["10.0.0.0/8", "::1"]
attach = "/cpu/vm42"

[[listen]]
addr = "vsock://:5640"
as = "batch"
allow = ["3"]
no_root_squash = true
[listen.cid.4]
trust = "uname"
[listen.cid.5]
attach = "cpu/vm5"

[[listen]]
addr = "tls://:5641"
cert = "/c"
key = "/k"
ca = "/a"
users = ["alice", "root"]
`

// TestInstalledConfig: each example in the config file that is installed can be put in force as
// it stands.
func TestInstalledConfig(t *testing.T) {
	text, err := os.ReadFile("systemd/containerfs.toml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	rules, file := filepath.Join(dir, "rules"), filepath.Join(dir, "containerfs.toml")
	example := strings.ReplaceAll(regexp.MustCompile(`(?m)^#([a-z"[])`).ReplaceAllString(string(text), "$1"), "/etc/containerfs.rules", rules)
	for name, text := range map[string]string{rules: "@students all students/%u create\n", file: example} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	passed := []socket{{asked: func(string) {}}} // by a service manager, which is not looked at
	conf, _, err := servedConfig([]string{"containerfs", "serve", "--config", file}, passed, defaultAddr())
	if err != nil {
		t.Fatalf("%v of\n%s", err, example)
	}
	if got := fmt.Sprint(len(conf.Hierarchies), len(conf.Enable), len(conf.Listen), len(conf.Templates)); got != "1 2 1 1" {
		t.Errorf("it has %s hierarchies, subsystems, listeners and templates of\n%s", got, example)
	}
}

// serveWith is what serve makes of its arguments.
func serveWith(args ...string) (got config, err error) {
	a := app(nil, io.Discard, io.Discard)
	a.Command("serve").Action = func(c *cli.Context) error {
		got, err = serveConfig(c)
		return err
	}
	if e := a.Run(append([]string{"containerfs", "serve"}, args...)); err == nil {
		err = e
	}
	return got, err
}

func configFileOf(t testing.TB, text string) string {
	path := filepath.Join(t.TempDir(), "c.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func mustExports(t testing.TB, list ...string) (out []p9srv.Export) {
	for _, s := range list {
		e, err := p9srv.ParseExport(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

var wholeListeners = []string{
	"unix:///run/x.sock",
	"tcp://0.0.0.0:5640?as=batch&access=ro&allow=10.0.0.0/8,::1&attach=/cpu/vm42",
	"vsock://:5640?as=batch&allow=3&no_root_squash&cid.4.trust=uname&cid.5.attach=cpu/vm5",
	"tls://:5641?cert=/c&key=/k&ca=/a&users=alice,root",
}

func TestConfigFile(t *testing.T) {
	path := configFileOf(t, wholeConfig)
	got, err := serveWith("--config", path)
	if err != nil {
		t.Fatal(err)
	}
	want := config{
		Listen: mustExports(t, wholeListeners...), Hierarchies: []hierarchy{{"cpu", "cpuset,cpuacct"}, {"x", "debug"}},
		Enable: []string{"ns"}, Mirror: "off", State: "/srv/state", MaxContainers: 5, AllowReleaseAgent: true,
	}
	if got.Stderr = nil; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}

	// Flags take the place of values and add to lists.
	got, err = serveWith("--config", path, "--mirror", "auto", "--max-containers=7", "--allow-release-agent=false",
		"--max-containers-per-user", "9", "--state", "none", "--hierarchy", "y=cpuset", "--listen", "tcp://127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	want = config{
		Listen:      mustExports(t, append(wholeListeners, "tcp://127.0.0.1:0")...),
		Hierarchies: []hierarchy{{"cpu", "cpuset,cpuacct"}, {"x", "debug"}, {"y", "cpuset"}},
		Enable:      []string{"ns"}, Mirror: "auto", MaxContainers: 7, MaxContainersPerUser: 9,
	}
	if got.Stderr = nil; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}

	// An empty file is no file.
	got, err = serveWith("--config", configFileOf(t, ""))
	standard, _ := serveWith()
	if got.Stderr, standard.Stderr = nil, nil; err != nil || !reflect.DeepEqual(got, standard) {
		t.Errorf("empty: %+v, %v", got, err)
	}
}

// TestConfigRules: the file of rules is read before anything is begun.
func TestConfigRules(t *testing.T) {
	rules := configFileOf(t, "alice cpu a\n")
	got, err := serveWith("--config", configFileOf(t, fmt.Sprintf("rules = %q\nrules-existing = true", rules)))
	if err != nil || got.Rules != rules || !got.RulesExisting {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = serveWith("--config", configFileOf(t, "rules = \"/none\"\nrules-existing = true"), "--rules", rules, "--rules-existing=false")
	if err != nil || got.Rules != rules || got.RulesExisting {
		t.Errorf("%+v, %v", got, err)
	}
	for _, args := range [][]string{
		{"--rules", configFileOf(t, "alice cpu\n")},
		{"--config", configFileOf(t, "rules = \"/none\"")},
		{"--rules-existing"},
		{"--config", configFileOf(t, "rules-existing = true")},
	} {
		if _, err := serveWith(args...); exitCode(err) != exitUsage || !strings.Contains(err.Error(), "rules") {
			t.Errorf("%q: %v", args, err)
		}
	}
}

// TestConfigErrors: what is wrong is told with its line.
func TestConfigErrors(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"frob = 1", `:1: unknown key "frob"`},
		{"mirror = \"off\"\n\n[[listen]]\naddr = \"unix:///x\"\naccss = \"ro\"", `:5: unknown key "listen.accss"`},
		{"[[listen]]\naddr = \"vsock://:1\"\n[listen.cid.3]\nas = \"a\"\nallow = \"x\"", `:5: unknown key "listen.cid.3.allow"`},
		{"max-containers = \"many\"", `:1: "max-containers" wants a number`},
		{"max-containers = 99999999999999999999", `:1: "max-containers": decimal number is too large`},
		{"hierarchy = \"a=debug\"", `:1: "hierarchy" wants a list of strings`},
		{"\nhierarchy = [1]", `:2: "hierarchy" wants a list of strings`},
		{"[mirror]\nx = 1", `:1: "mirror" wants a string`},
		{"mirror = [\"off\"]", `:1: "mirror" wants a string`},
		{"allow-release-agent = \"yes\"", `:1: "allow-release-agent" wants true or false`},
		{"log-level = 1", `:1: "log-level" wants a string`},
		{"listen = \"unix:///x\"", `:1: "listen" wants tables, each in [[ ]]`},
		{"[[listen]]\ncid = 3", `:2: "listen.cid" wants a table`},
		{"[[listen]]\n[listen.cid]\n3 = \"x\"", `:3: "listen.cid.3" wants a table`},
		{"[[listen]]\n[listen.cid.3]\nas = 3", `:3: "listen.cid.3.as" wants a string`},
		{"\nmirror = on", ":2: "},
		{"mirror = \"off\"\nmirror = \"off\"", ":2: "},
		{"# x\nmirror = \"on\"", `:2: mirror: "on": want auto, off, hugetlb, misc, rdma`},
		{"\n\nmax-containers = -1", ":3: max-containers: -1: a limit cannot be negative"},
		{"\nstate = \"\"", `:2: state: "": want a directory, or none`},
		{"hierarchy = [\"a=b\", \"a=c\"]", `:1: hierarchy: "a" is given twice`},
		{"hierarchy = [\"a\"]", `:1: hierarchy: "a": want NAME=OPTIONS`},
		{"\nenable = [\"frob\"]", `:2: enable: "frob": want one of`},
		{"[[listen]]\naddr = \"unix:///x\"\n[[listen]]\n\naddr = \"here\"", `:5: listen.1.addr: address "here"`},
		{"[[listen]]\naddr = \"tcp://127.0.0.1:1?as=x\"", `:2: listen.0.addr: `},
		{"\n[[listen]]\nas = \"x\"", `:2: listen.0.addr: `},
		{"[[listen]]\naddr = \"tcp://127.0.0.1:1\"\naccess = \"r\"", `:3: listen.0.access: want ro or rw`},
		{"[[listen]]\naddr = \"tcp://127.0.0.1:1\"\nas = \"\"", `:3: listen.0.as: `},
		{"[[listen]]\naddr = \"tcp://127.0.0.1:1\"\nallow = []", `:3: listen.0.allow: `},
		{"[[listen]]\naddr = \"tcp://127.0.0.1:1\"\nallow = [\n\"10.0.0.1/8\"]", `:3: listen.0.allow: `},
		{"[[listen]]\naddr = \"tcp://127.0.0.1:1\"\nallow = \"10.0.0.0/8\"", `:3: "listen.allow" wants a list of strings`},
		{"[[listen]]\naddr = \"tcp://127.0.0.1:1\"\nas = \"a\"\ntrust = \"uname\"", `:1: listen.0: as= and trust= exclude each other`},
		{"[[listen]]\naddr = \"vsock://:1\"\n[listen.cid.3]\nas = \"a\"\n[listen.cid.4]\nas = \"-\"", `:6: listen.0.cid.4.as: `},
		{"[[listen]]\naddr = \"vsock://:1\"\n[listen.cid.3]\n", `:3: listen.0.cid.3: empty`},
		{"[[listen]]\naddr = \"vsock://:1\"\ncid.x.as = \"a\"", `:3: listen.0.cid.x.as: `},
		{"[[listen]]\naddr = \"tcp://127.0.0.1:1\"\ncid.3.as = \"a\"", `:3: listen.0.cid.3.as: `},
		{"[[listen]]\naddr = \"tls://:1\"\ncert = \"\"", `:3: listen.0.cert: `},
		{"listen = [\"unix:///x\"]", `:1: "listen" wants tables, each in [[ ]]`},
		{"[[template]]\npath = \"/m/a\"\ndelegate = true", `:1: template.0: there are no rules`},
		{"rules = \"/dev/null\"\n[[template]]\npath = \"/*/a\"\nset = {f = \"1\"}", `:3: template.0.path: "/*/a": "*" is no name of a hierarchy`},
		{"rules = \"/dev/null\"\n[[template]]\npath = \"/m/a\"\nset = {f = \"1\"}\n[[template]]\npath = \"/m//a/\"\nset = {f = \"2\"}", `:6: template.1.path: "/m//a/" is given twice`},
	} {
		path := configFileOf(t, tt.text)
		got, err := serveWith("--config", path)
		if err == nil || !strings.HasPrefix(err.Error(), path+tt.want) || exitCode(err) != exitUsage {
			t.Errorf("%q: %+v, %v: want %s", tt.text, got, err, tt.want)
		}
	}
	if _, err := serveWith("--config", "/nonexistent"); exitCode(err) != exitUsage || err.Error() != "open /nonexistent: no such file or directory" {
		t.Errorf("no file: %v", err)
	}
}

// TestOpenListener: an export to strangers ends the server before the host is touched.
func TestOpenListener(t *testing.T) {
	for _, listener := range []string{"tcp://0.0.0.0:0", "tcp://:0", "tcp://[::]:0?no_root_squash", "tcp://0.0.0.0:0?access=ro&allow=127.0.0.1"} {
		conf := config{Listen: mustExports(t, listener), Stderr: io.Discard}
		if err := run(context.Background(), conf); err == nil || !strings.Contains(err.Error(), "peers from elsewhere have no identity") {
			t.Errorf("%s: %v", listener, err)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(wholeConfig)
	f.Add("[[listen]]\naddr = \"unix:///x\"\n[[listen]]\naddr='tcp!::1!1'\nas='''\na'''\n")
	f.Add("listen = [{addr = \"unix:///x\", cid = {3 = {as = \"a\"}}}]")
	f.Add("[listen]\n[a.b.c]\n\"\".x=1")
	f.Fuzz(func(t *testing.T, text string) {
		file, err := parseConfig("c", []byte(text))
		if err != nil {
			return
		}
		exports, err := file.exports(nil)
		if err != nil {
			return
		}
		for _, e := range exports {
			if again, err := p9srv.ParseExport(e.String()); err != nil || !reflect.DeepEqual(again, e) {
				t.Errorf("%#v is parsed as %#v, %v", e, again, err)
			}
		}
	})
}
