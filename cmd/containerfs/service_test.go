package main

import (
	"errors"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"containerfs/p9srv"
)

// TestServiceOptions: flags take the place of the file's values, and what is wrong is
// told with its place.
func TestServiceOptions(t *testing.T) {
	metrics := p9srv.Addr{Network: "unix", Address: "/run/m"}
	for _, tt := range []struct {
		text string
		args []string
		want serviceOptions
		err  string
	}{
		{"", nil, serviceOptions{NoHierarchies: true}, ""},
		{"log-format = \"json\"\nlog-level = \"warn\"\nmetrics = \"unix:///run/m\"\nhierarchy = [\"a=b\"]", nil,
			serviceOptions{LogJSON: true, LogLevel: slog.LevelWarn, Metrics: metrics}, ""},
		{"log-format = \"json\"\nlog-level = \"warn\"\nmetrics = \"unix:///run/x\"", []string{"--log-format=text", "--log-level", "debug", "--metrics", "unix!/run/m", "--hierarchy", "a=b"},
			serviceOptions{LogLevel: slog.LevelDebug, Metrics: metrics}, ""},
		{"metrics = \"unix:///run/x\"", []string{"--metrics", ""}, serviceOptions{NoHierarchies: true}, ""},
		{"\nlog-format = \"xml\"", nil, serviceOptions{}, `:2: log-format: "xml": want text or json`},
		{"\nlog-level = \"INFO\"", nil, serviceOptions{}, `:2: log-level: "INFO": want debug, info, warn or error`},
		{"\n\nmetrics = \"here\"", nil, serviceOptions{}, `:3: metrics: address "here"`},
		{"", []string{"--log-format", "xml"}, serviceOptions{}, `log-format "xml": want text or json`},
		{"", []string{"--log-level", ""}, serviceOptions{}, `log-level "": want`},
		{"", []string{"--metrics", "tcp://127.0.0.1:1?as=x"}, serviceOptions{}, `metrics address "tcp://127.0.0.1:1?as=x": unknown option`},
	} {
		path := configFileOf(t, tt.text)
		got, err := serveWith(append([]string{"--config", path}, tt.args...)...)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) || exitCode(err) != exitUsage {
				t.Errorf("%q, %q: %v, want %s", tt.text, tt.args, err, tt.err)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got.serviceOptions, tt.want) {
			t.Errorf("%q, %q: %+v, %v", tt.text, tt.args, got.serviceOptions, err)
		}
	}
}

// TestExportsOfSockets: an address systemd:NAME stands for all sockets of that name,
// with the options that are for their networks.
func TestExportsOfSockets(t *testing.T) {
	file := func() *os.File { return new(os.File) } // never looked into
	list := []socket{
		{"a.socket", file(), p9srv.Addr{Network: "unix", Address: "/run/a"}, nil, nil},
		{"net", file(), p9srv.Addr{Network: "tcp", Address: "[::]:5640"}, nil, nil},
		{"net", file(), p9srv.Addr{Network: "tcp", Address: "127.0.0.1:5640"}, nil, nil},
		{"guests", file(), p9srv.Addr{Network: "vsock", Address: "*:5640"}, nil, nil},
		{"broken", file(), p9srv.Addr{}, errors.New("is no socket"), nil},
	}
	for _, tt := range []struct {
		arg  string
		want []string // addresses with options
		err  string
	}{
		{"systemd:a.socket", []string{"unix:///run/a"}, ""},
		{"systemd:a.socket?access=ro", []string{"unix:///run/a?access=ro"}, ""},
		{"systemd:net?as=daemon&allow=10.0.0.0/8", []string{"tcp://[::]:5640?as=daemon&allow=10.0.0.0/8", "tcp://127.0.0.1:5640?as=daemon&allow=10.0.0.0/8"}, ""},
		{"systemd:net?as=daemon&cert=/c&key=/k&ca=/a", []string{"tls://[::]:5640?cert=/c&key=/k&ca=/a&as=daemon", "tls://127.0.0.1:5640?cert=/c&key=/k&ca=/a&as=daemon"}, ""},
		{"systemd:guests?cid.3.as=daemon", []string{"vsock://*:5640?cid.3.as=daemon"}, ""},
		{"unix:///x?access=ro", []string{"unix:///x?access=ro"}, ""},
		{"systemd:a.socket?allow=10.0.0.0/8", nil, "unknown option of a unix listener"},
		{"systemd:guests", nil, "vsock needs the CIDs"},
		{"systemd:broken", nil, "is no socket"},
		{"systemd:nosuch", nil, "has passed no socket \"nosuch\""},
		{"systemd:", nil, "has passed no socket \"\""},
	} {
		got, err := flagExports(tt.arg, list)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: %v, want %s", tt.arg, err, tt.err)
			}
			continue
		}
		var at []string
		for _, e := range got {
			at = append(at, e.String())
			if strings.HasPrefix(tt.arg, activated) != (e.Socket != nil) {
				t.Errorf("%s: socket %v", tt.arg, e.Socket)
			}
		}
		if err != nil || !reflect.DeepEqual(at, tt.want) {
			t.Errorf("%s: %q, %v", tt.arg, at, err)
		}
	}
	got, err := defaultExports(list[:1], defaultAddr())
	if err != nil || len(got) != 1 || got[0].Socket != list[0].file {
		t.Errorf("what was passed is the default: %v, %v", got, err)
	}
	if got, err := defaultExports(nil, defaultAddr()); err != nil || len(got) != 1 || got[0].Addr != defaultAddr() || got[0].Socket != nil {
		t.Errorf("the default of all: %v, %v", got, err)
	}
	if _, err := defaultExports(list, defaultAddr()); err == nil { // a socket that is of no use is not passed over
		t.Error("a broken socket is passed over")
	}
}

// TestManual: every command that is shown and every flag is in a page; what roff would
// take for its own is escaped.
func TestManual(t *testing.T) {
	a := app(nil, nil, nil)
	all := ""
	for _, p := range manual(a) {
		all += p.text
	}
	eachCommand(a, func(name string, _ *cli.Command) {
		if daemonPage[name] {
			name = "containerfs " + name
		}
		if !strings.Contains(all, "\n.SS "+roff(name)) && !strings.Contains(all, "\n.B "+name+"\n") {
			t.Errorf("the manual lacks %s", name)
		}
	})
	p := newPage("x", "1", "y")
	p.text("one\n.two\n'three\n\n  kept \\ -as ~it\n  is\nmore")
	want := ".PP\none\n\\&.two\n\\&\\(aqthree\n.PP\n.EX\n  kept \\e \\-as \\(tiit\n  is\n.EE\n.PP\nmore\n"
	if got := p.b.String(); !strings.HasSuffix(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
