package main

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/urfave/cli/v2"

	"containerfs/p9srv"
)

// serviceKeys are the keys of a config file that are about being a service.
type serviceKeys struct {
	LogFormat *string `toml:"log-format"`
	LogLevel  *string `toml:"log-level"`
	Metrics   *string `toml:"metrics"`
}

// serviceOptions are what they, and the flags of the same names, come to.
type serviceOptions struct {
	LogJSON  bool
	LogLevel slog.Level
	Metrics  p9srv.Addr // zero: none

	// NoHierarchies: none were asked for, and those that there are by default need not
	// be there after a reload.
	NoHierarchies bool

	// Reread reads flags and file anew, for a reload. Nil: there is no reload.
	Reread func() (config, error)
}

func serviceFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "log-format", Usage: "write the log in `FORMAT`: text or json", Value: "text"},
		&cli.StringFlag{Name: "log-level", Usage: "leave out of the log what is below `LEVEL`: debug, info, warn or error", Value: "info"},
		&cli.StringFlag{Name: "metrics", Usage: "answer /metrics (for Prometheus) and /healthz by HTTP on `ADDR`: unix:///PATH, or TCP on a loopback address"},
	}
}

func (o *serviceOptions) set(c *cli.Context, file *configFile) error {
	o.NoHierarchies = len(file.Hierarchy)+len(c.StringSlice("hierarchy")) == 0
	for _, opt := range []struct {
		key   string
		given *string
		set   func(string) error
	}{
		{"log-format", file.LogFormat, func(s string) error {
			if o.LogJSON = s == "json"; !o.LogJSON && s != "text" {
				return fmt.Errorf("%q: want text or json", s)
			}
			return nil
		}},
		{"log-level", file.LogLevel, func(s string) error {
			level, ok := logLevels[s]
			if !ok {
				return fmt.Errorf("%q: want debug, info, warn or error", s)
			}
			o.LogLevel = level
			return nil
		}},
		{"metrics", file.Metrics, func(s string) (err error) {
			if s != "" {
				o.Metrics, err = p9srv.ParseAddr(s)
			}
			return err
		}},
	} {
		value, errorf := flagOr(c, file, opt.key, c.String, opt.given)
		if err := opt.set(value); err != nil {
			return errorf(opt.key, "%v", err)
		}
	}
	return nil
}

var logLevels = map[string]slog.Level{
	"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
}

// newLogger makes the log, and what its level is changed by.
func newLogger(w io.Writer, o serviceOptions) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	level.Set(o.LogLevel)
	opts := &slog.HandlerOptions{Level: level}
	if o.LogJSON {
		return slog.New(slog.NewJSONHandler(w, opts)), level
	}
	return slog.New(slog.NewTextHandler(w, opts)), level
}
