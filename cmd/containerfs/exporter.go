package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/urfave/cli/v2"
	"golang.org/x/net/netutil"

	"containerfs/p9srv"
)

func exporterCommand() *cli.Command {
	return &cli.Command{
		Name:      "exporter",
		Usage:     "tell Prometheus what containers use",
		ArgsUsage: "ADDR [PATH]",
		Description: `Answers /metrics at ADDR, tcp://HOST:PORT or unix:///SOCKET, to whoever can connect: the
CPU time, the tasks and the memory of PATH and of all containers below it, / if
there is no PATH, as top shows them: with what is below each. The server is asked as
who runs this: what he may not read is not there. 0.0.0.0 is all of this host's IPv4
addresses; [::], or no HOST, those of IPv6 as well.

Each time the server is asked anew, for every container, in nine tenths of the time that
Prometheus says it waits (scrape_timeout, a minute at most), or of 10 s. If it cannot be,
containerfs_up is 0 and the rest is not there. A server that was killed has lost up to 10 s of
what was measured: a counter can be less by that, which Prometheus takes for a beginning at 0.

  containerfs exporter tcp://127.0.0.1:9475 /all
  containerfs --server tcp://lab:5640 exporter --depth 1 tcp://:9475 /all/users`,
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "depth", Usage: "leave out what is more than `N` levels below PATH", Value: -1, DefaultText: "all"},
		},
		Action: func(c *cli.Context) error {
			args, err := paths(c, 1, 2)
			if err != nil {
				return err
			}
			addr, err := p9srv.ParseAddr(args[0])
			if err == nil && addr.Network != "tcp" && addr.Network != "unix" {
				err = fmt.Errorf("address %q: want tcp or unix", args[0])
			}
			if err != nil {
				return usagef("%v", err)
			}
			path := append(args, "/")[1]
			if err := checkPath(path); err != nil {
				return err
			}
			if c.IsSet("depth") && c.Int("depth") < 0 {
				return usagef("depth: want 0 or more")
			}
			ctx, stop := signal.NotifyContext(c.Context, syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			e := &exporter{server: c.String("server"), path: path, depth: c.Int("depth"), stderr: c.App.ErrWriter}
			return e.serve(ctx, addr)
		},
	}
}

// exporter measures containers when Prometheus asks.
type exporter struct {
	server string
	path   string
	depth  int // negative: all
	stderr io.Writer

	mu   sync.Mutex
	said string // the last failure
}

var (
	descUp     = desc("up", "Whether the server could be asked about all containers.")
	descCPU    = desc("container_cpu_seconds_total", "CPU time of the container and all below it (cpuacct).", "path")
	descIn     = desc("container_tasks", "Tasks in the container and all below it.", "path")
	descMemory = desc("container_memory_bytes", "Memory of the container and all below it (the kernel's memory, or bc).", "path")
)

// Describe is prometheus.Collector's.
func (e *exporter) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descUp, descCPU, descIn, descMemory} {
		ch <- d
	}
}

// scrape is one time that Prometheus asks: the server is asked until ctx is done.
type scrape struct {
	*exporter
	ctx    context.Context
	answer *http.ResponseController
}

// Collect is prometheus.Collector's.
func (e scrape) Collect(ch chan<- prometheus.Metric) {
	rows, times, err := e.measure(e.ctx)
	_ = e.answer.SetWriteDeadline(time.Now().Add(metricsTime)) // measuring was no writing
	e.report(err)
	up := 1.0
	if err != nil {
		up = 0
	}
	ch <- prometheus.MustNewConstMetric(descUp, prometheus.GaugeValue, up)
	for i := range rows {
		u := &rows[i]
		path := label(u.Path)
		if t, ok := times[u.Path]; ok {
			ch <- prometheus.MustNewConstMetric(descCPU, prometheus.CounterValue, time.Duration(t.ns).Seconds(), path)
		}
		if u.Tasks != nil {
			ch <- prometheus.MustNewConstMetric(descIn, prometheus.GaugeValue, float64(*u.Tasks), path)
		}
		if u.Memory != nil {
			ch <- prometheus.MustNewConstMetric(descMemory, prometheus.GaugeValue, float64(*u.Memory), path)
		}
	}
}

// measure asks the server until ctx is done.
func (e *exporter) measure(ctx context.Context) (rows []usage, times map[string]cpuTime, err error) {
	s, err := connect(ctx, e.server)
	if err != nil {
		return nil, nil, err
	}
	defer s.close()
	defer s.closeWith(ctx)()
	m := newSampler(s, e.path)
	all, err := m.sample()
	if ctx.Err() != nil {
		err = errors.New("the server was not done in time: set Prometheus' scrape_timeout to more")
	}
	if err != nil {
		return nil, nil, err
	}
	for _, u := range all {
		if e.depth < 0 || u.depth <= e.depth {
			rows = append(rows, u)
		}
	}
	return rows, m.last, nil
}

// label is a path as a label, which is UTF-8. No two paths have the same.
func label(path string) string {
	if utf8.ValidString(path) {
		return path
	}
	return strconv.Quote(path) // begins with what no path does
}

// report says a failure once.
func (e *exporter) report(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	says := ""
	if err != nil {
		says = errorText(err)
	}
	if says != "" && says != e.said {
		report(e.stderr, err)
	}
	e.said = says
}

// serve answers until ctx is done.
func (e *exporter) serve(ctx context.Context, addr p9srv.Addr) error {
	l, err := p9srv.ListenOpen(addr)
	if err != nil {
		return &pathError{"listen", addr.String(), err}
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", e.handler())
	server := boundedHTTP(mux)
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	fmt.Fprintf(e.stderr, "listening on %s\nready\n", p9srv.Addr{Network: addr.Network, Address: l.Addr().String()})
	if err := server.Serve(netutil.LimitListener(l, metricsConns)); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// handler answers who asks, four at a time.
func (e *exporter) handler() http.Handler {
	asking := make(chan struct{}, 4)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case asking <- struct{}{}:
			defer func() { <-asking }()
		default:
			http.Error(w, "too many ask at once", http.StatusServiceUnavailable)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), waits(r.Header)*9/10)
		defer cancel()
		registry := prometheus.NewRegistry()
		registry.MustRegister(scrape{e, ctx, http.NewResponseController(w)})
		promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, r)
	})
}

// Bounds of the time that Prometheus says it waits.
const (
	shortestScrape = 100 * time.Millisecond
	longestScrape  = time.Minute
)

// waits is how long who asks waits for the answer: what Prometheus says, or what it waits for if
// nobody has set that.
func waits(h http.Header) time.Duration {
	seconds, err := strconv.ParseFloat(h.Get("X-Prometheus-Scrape-Timeout-Seconds"), 64)
	if err != nil || !(seconds > 0) {
		return metricsTime
	}
	return min(max(time.Duration(min(seconds, longestScrape.Seconds())*float64(time.Second)), shortestScrape), longestScrape)
}
