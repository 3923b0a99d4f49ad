package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"containerfs/ops/rules"
	"containerfs/p9srv"
	"containerfs/subsys"
)

// configFile is what --config names: the flags of serve as keys, in lists those that
// may be repeated, but for the listeners, which are tables. A nil value was not given.
type configFile struct {
	Hierarchy            []string        `toml:"hierarchy"`
	Enable               []string        `toml:"enable"`
	Mirror               *string         `toml:"mirror"`
	State                *string         `toml:"state"`
	MaxContainers        *int            `toml:"max-containers"`
	MaxContainersPerUser *int            `toml:"max-containers-per-user"`
	AllowReleaseAgent    *bool           `toml:"allow-release-agent"`
	Rules                *string         `toml:"rules"`
	RulesExisting        *bool           `toml:"rules-existing"`
	Listen               []listenTable   `toml:"listen"`
	Template             []templateTable `toml:"template"`
	serviceKeys

	tomlFile
}

// listenTable is a [[listen]]: an address with the options of p9srv.Export as keys.
type listenTable struct {
	termsTable
	Addr         string                `toml:"addr"`
	Allow        []string              `toml:"allow"`
	Users        []string              `toml:"users"`
	NoRootSquash bool                  `toml:"no_root_squash"`
	Cert         *string               `toml:"cert"`
	Key          *string               `toml:"key"`
	CA           *string               `toml:"ca"`
	CID          map[string]termsTable `toml:"cid"`
}

// templateTable is a [[template]]: a rules.Template.
type templateTable struct {
	Path     string            `toml:"path"`
	Delegate bool              `toml:"delegate"`
	Set      map[string]string `toml:"set"`
}

type termsTable struct {
	As     *string `toml:"as"`
	Trust  *string `toml:"trust"`
	Access *string `toml:"access"`
	Attach *string `toml:"attach"`
}

// readConfig reads a config file. Its errors name the line.
func readConfig(name string) (*configFile, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return parseConfig(name, b)
}

func parseConfig(name string, b []byte) (*configFile, error) {
	f := &configFile{}
	var err error
	f.tomlFile, err = decodeTOML(name, b, f)
	return f, err
}

// errorf is about a key, or about what it is in.
func (f *configFile) errorf(key, format string, args ...any) error {
	return usagef("%s: %s: %s", f.at(key), key, fmt.Sprintf(format, args...))
}

// exports are the listeners, some of them on sockets that were passed.
func (f *configFile) exports(passed []socket) ([]p9srv.Export, error) {
	var list []p9srv.Export
	for i, t := range f.Listen {
		table := fmt.Sprintf("listen.%d", i)
		opts := t.options("")
		for _, l := range []struct {
			key    string
			values []string
		}{{"allow", t.Allow}, {"users", t.Users}} {
			if l.values != nil {
				opts = append(opts, p9srv.Option{Key: l.key, Value: strings.Join(l.values, ",")})
			}
		}
		for _, o := range []struct {
			key   string
			value *string
		}{{"cert", t.Cert}, {"key", t.Key}, {"ca", t.CA}} {
			if o.value != nil {
				opts = append(opts, p9srv.Option{Key: o.key, Value: *o.value})
			}
		}
		if t.NoRootSquash {
			opts = append(opts, p9srv.Option{Key: "no_root_squash"})
		}
		for cid, terms := range t.CID {
			own := terms.options("cid." + cid + ".")
			if len(own) == 0 { // let in on the listener's terms
				return nil, f.errorf(table+".cid."+cid, "empty; CIDs on the listener's terms are listed in allow")
			}
			opts = append(opts, own...)
		}
		exports, err := exportsAt(t.Addr, t.Cert != nil, passed, func(addr string) (p9srv.Export, error) { return p9srv.NewExport(addr, opts) })
		if opt := (*p9srv.OptionError)(nil); errors.As(err, &opt) && opt.Key != "" {
			return nil, f.errorf(table+"."+opt.Key, "%v", opt.Err)
		}
		if err != nil {
			return nil, f.errorf(table, "%v", err)
		}
		list = append(list, exports...)
	}
	return list, nil
}

// templates are those of the containers that rules make.
func (f *configFile) templates() (list []*rules.Template, err error) {
	for i, table := range f.Template {
		key := fmt.Sprintf("template.%d", i)
		t, err := rules.NewTemplate(table.Path, table.Set, table.Delegate)
		if err != nil {
			return nil, f.errorf(key+".path", "%v", err)
		}
		if slices.ContainsFunc(list, t.Is) {
			return nil, f.errorf(key+".path", "%q is given twice", table.Path)
		}
		list = append(list, t)
	}
	return list, nil
}

func (t *termsTable) options(prefix string) (opts []p9srv.Option) {
	for _, o := range []struct {
		key   string
		value *string
	}{{"as", t.As}, {"trust", t.Trust}, {"access", t.Access}, {"attach", t.Attach}} {
		if o.value != nil {
			opts = append(opts, p9srv.Option{Key: prefix + o.key, Value: *o.value})
		}
	}
	return opts
}

// serveConfig puts the config file and the flags together: a flag takes the place
// of the file's value, and lists are the file's with the flags' behind it.
func serveConfig(c *cli.Context) (config, error) {
	return serveConfigWith(c, sockets(), defaultAddr())
}

// serveConfigWith is serveConfig where these sockets were passed, and own is the default
// address.
func serveConfigWith(c *cli.Context, passed []socket, own p9srv.Addr) (config, error) {
	conf := config{Stderr: c.App.ErrWriter}
	if c.NArg() > 0 {
		return conf, usagef("serve takes no argument, got %q", c.Args().First())
	}
	file := &configFile{}
	if name := c.String("config"); name != "" {
		var err error
		if file, err = readConfig(name); err != nil {
			return conf, usagef("%v", err)
		}
	}
	if err := conf.setListeners(c, file, passed, own); err != nil {
		return conf, err
	}
	for _, set := range []func(*cli.Context, *configFile) error{
		conf.serviceOptions.set, conf.setHierarchies, conf.setLimits, conf.setRules, conf.setMirror, conf.setState,
	} {
		if err := set(c, file); err != nil {
			return conf, err
		}
	}
	return conf, nil
}

// errorfFunc makes the error of a key of the config file, or of the flag of that name.
type errorfFunc func(key, format string, args ...any) error

func flagErrorf(key, format string, args ...any) error {
	return usagef("%s %s", key, fmt.Sprintf(format, args...))
}

// flagOr is the value of a flag, or the file's where that has one and the flag is not given;
// errorf is for where it is from.
func flagOr[T any](c *cli.Context, file *configFile, key string, flag func(string) T, given *T) (value T, errorf errorfFunc) {
	if given != nil && !c.IsSet(key) {
		return *given, file.errorf
	}
	return flag(key), flagErrorf
}

// setListeners sets the listeners: the file's, the flags', or else those that there are by
// default.
func (conf *config) setListeners(c *cli.Context, file *configFile, passed []socket, own p9srv.Addr) (err error) {
	if conf.Listen, err = file.exports(passed); err != nil {
		return err
	}
	for _, addr := range c.StringSlice("listen") {
		exports, err := flagExports(addr, passed)
		if err != nil {
			return usagef("listen: %v", err)
		}
		conf.Listen = append(conf.Listen, exports...)
	}
	if len(conf.Listen) == 0 {
		if conf.Listen, err = defaultExports(passed, own); err != nil {
			return usagef("listen: %v", err)
		}
	}
	if err := checkSockets(conf.Listen); err != nil {
		return usagef("listen: %v", err)
	}
	return nil
}

func (conf *config) setHierarchies(c *cli.Context, file *configFile) error {
	for _, list := range []struct {
		hierarchies, enable []string
		errorf              errorfFunc
	}{
		{file.Hierarchy, file.Enable, file.errorf},
		{c.StringSlice("hierarchy"), c.StringSlice("enable"), flagErrorf},
	} {
		for _, h := range list.hierarchies {
			name, options, ok := strings.Cut(h, "=")
			if !ok || name == "" || options == "" {
				return list.errorf("hierarchy", "%q: want NAME=OPTIONS", h)
			}
			if slices.ContainsFunc(conf.Hierarchies, func(h hierarchy) bool { return h.Name == name }) {
				return list.errorf("hierarchy", "%q is given twice", name)
			}
			conf.Hierarchies = append(conf.Hierarchies, hierarchy{name, options})
		}
		for _, name := range list.enable {
			if known := slices.Concat(subsys.Optional, subsys.Enforced); !slices.Contains(known, name) {
				return list.errorf("enable", "%q: want one of %s", name, strings.Join(known, " "))
			}
			conf.Enable = append(conf.Enable, name)
		}
	}
	if len(conf.Hierarchies) == 0 {
		conf.Hierarchies = []hierarchy{{"all", "all"}}
	}
	return nil
}

func (conf *config) setLimits(c *cli.Context, file *configFile) (err error) {
	if conf.MaxContainers, err = limit(c, file, "max-containers", file.MaxContainers); err != nil {
		return err
	}
	if conf.MaxContainersPerUser, err = limit(c, file, "max-containers-per-user", file.MaxContainersPerUser); err != nil {
		return err
	}
	conf.AllowReleaseAgent, _ = flagOr(c, file, "allow-release-agent", c.Bool, file.AllowReleaseAgent)
	return nil
}

func (conf *config) setRules(c *cli.Context, file *configFile) (err error) {
	conf.Rules, _ = flagOr(c, file, "rules", c.String, file.Rules)
	conf.RulesExisting, _ = flagOr(c, file, "rules-existing", c.Bool, file.RulesExisting)
	switch {
	case conf.Rules != "":
		if _, err := rules.Read(conf.Rules); err != nil { // before anything is begun
			return usagef("rules: %v", err)
		}
	case conf.RulesExisting:
		return usagef("rules-existing: there are no rules")
	case len(file.Template) > 0:
		return file.errorf("template.0", "there are no rules, which make containers by it")
	}
	conf.Templates, err = file.templates()
	return err
}

// setMirror is called after setHierarchies.
func (conf *config) setMirror(c *cli.Context, file *configFile) error {
	mirror, errorf := flagOr(c, file, "mirror", c.String, file.Mirror)
	if !slices.Contains(mirrors, mirror) {
		return errorf("mirror", "%q: want %s", mirror, strings.Join(mirrors, ", "))
	}
	if slices.Contains(conf.Enable, mirror) {
		return errorf("mirror", "%q: it is a subsystem by enable", mirror)
	}
	conf.Mirror = mirror
	return nil
}

func (conf *config) setState(c *cli.Context, file *configFile) (err error) {
	state, errorf := flagOr(c, file, "state", c.String, file.State)
	switch {
	case state == "none":
		return nil
	case state == "" && (c.IsSet("state") || file.State != nil):
		return errorf("state", "%q: want a directory, or none", state)
	case state == "":
		if state, err = defaultState(); err != nil {
			return usagef("%v: say where by --state", err)
		}
	}
	conf.State = state
	return nil
}

// defaultState is the state directory of a server that is told none.
func defaultState() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib/containerfs", nil
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "containerfs"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(home, ".local", "state", "containerfs"), nil
}

// limit is a limit on a number of containers.
func limit(c *cli.Context, file *configFile, key string, given *int) (int, error) {
	n, errorf := flagOr(c, file, key, c.Int, given)
	if n < 0 {
		return 0, errorf(key, "%d: a limit cannot be negative", n)
	}
	return n, nil
}
