package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"

	"containerfs/ops"
	"containerfs/p9srv"
	"containerfs/tree"
	"containerfs/tree/hostproc"
)

// Bounds on who asks for metrics, since every user of the host can.
const (
	metricsConns = 32
	healthTime   = 5 * time.Second
)

// metricsTime is what who asks has to send all of it, and to take an answer. Tests shorten it.
var metricsTime = 10 * time.Second

// sources is where the metrics come from: they are pulled when they are asked for.
type sources struct {
	host  func() (hostproc.Stats, error)
	tree  func() tree.Totals
	srv   func() p9srv.Stats
	rules func() ops.RuleStats
	audit *ops.Audit
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("containerfs_"+name, help, labels, nil)
}

var (
	descEvents      = desc("events_total", "Events of the host's tasks that the model was told of.", "kind")
	descLost        = desc("events_lost_total", "Events that the kernel made and that were not received.")
	descResyncs     = desc("resyncs_total", "Comparisons of the model with all tasks of the host; the first is at start.")
	descRequests    = desc("requests_total", "Requests answered, by message and result: ok, or the errno.", "verb", "result")
	descLatency     = desc("request_duration_seconds", "From taking up the batch that a request came in to its reply being ready.", "verb")
	descConnections = desc("connections", "Connections that are open.", "network")
	descAccepted    = desc("connections_total", "Connections that were let in.", "network")
	descRefused     = desc("connections_refused_total", "Connections that were not let in, or were too many.")
	descDenials     = desc("denials_total", "Denials (EACCES, EPERM, EROFS, and connections refused), whether a line was logged or not.")
	descMatches     = desc("rule_matches_total", "Classifications in which the line of the rules file decided for a hierarchy or more; from 0 when rules are read anew.", "line")
	descFailures    = desc("rule_failures_total", "Those of them in which the line could not be followed; from 0 when rules are read anew.", "line")
	descWaiting     = desc("rules_waiting", "Tasks that wait to be classified.")
	descOverflows   = desc("rules_overflows_total", "Tasks that found no room in the queue, and were looked for among all processes.")
	descPlacement   = desc("rule_placement_duration_seconds", "From the kernel's event to the placement, of tasks that rules have moved.")
	descHierarchies = desc("hierarchies", "Hierarchies that are active.")
	descContainers  = desc("containers", "Containers of all hierarchies, their roots included.")
	descGroups      = desc("css_groups", "Css groups with tasks, and the root's.")
	descTasks       = desc("tasks", "Tasks of the host.")
)

// Describe is prometheus.Collector's.
func (s *sources) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descEvents, descLost, descResyncs, descRequests, descLatency, descConnections, descAccepted,
		descRefused, descDenials, descMatches, descFailures, descWaiting, descOverflows, descPlacement, descHierarchies, descContainers, descGroups, descTasks,
	} {
		ch <- d
	}
}

// Collect is prometheus.Collector's.
func (s *sources) Collect(ch chan<- prometheus.Metric) {
	count := func(d *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge := func(d *prometheus.Desc, n int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	host, _ := s.host() // that it has failed is what /healthz says
	count(descEvents, host.Forks, "fork")
	count(descEvents, host.Execs, "exec")
	count(descEvents, host.Exits, "exit")
	count(descEvents, host.IDs, "id")
	count(descLost, host.Lost)
	count(descResyncs, host.Resyncs)

	served := s.srv()
	for network, n := range served.Connections {
		gauge(descConnections, n, network)
	}
	for network, n := range served.Accepted {
		count(descAccepted, n, network)
	}
	count(descRefused, served.Refused)
	for _, v := range served.Requests {
		for errno, n := range v.Errors {
			count(descRequests, n, v.Verb, errno)
		}
		count(descRequests, v.OK, v.Verb, "ok")
		buckets := make(map[float64]uint64, p9srv.LatencyBuckets)
		var below uint64
		for i, n := range v.Buckets {
			below += n
			buckets[p9srv.LatencyBound(i).Seconds()] = below
		}
		ch <- prometheus.MustNewConstHistogram(descLatency, v.Count, v.Sum.Seconds(), buckets, v.Verb)
	}
	count(descDenials, s.audit.Denials())

	done := s.rules()
	for _, n := range done.Lines {
		line := strconv.Itoa(n.Line)
		count(descMatches, n.Matches, line)
		count(descFailures, n.Failures, line)
	}
	gauge(descWaiting, int(done.Waiting))
	count(descOverflows, done.Overflows)
	within := make(map[float64]uint64, len(done.Within))
	for _, n := range done.Within {
		within[n.Less.Seconds()] = n.Count
	}
	ch <- prometheus.MustNewConstHistogram(descPlacement, done.Placed, done.Waited.Seconds(), within)

	totals := s.tree()
	gauge(descHierarchies, totals.Hierarchies)
	gauge(descContainers, totals.Containers)
	gauge(descGroups, totals.CSSGroups)
	gauge(descTasks, totals.Tasks)
}

// metricsHandler answers /metrics and /healthz.
func metricsHandler(s *sources, alive func(context.Context) error) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(s, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), healthTime)
		defer cancel()
		w.Header().Set("Cache-Control", "no-store")
		if err := alive(ctx); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, err)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}

// listenMetrics listens for who asks for metrics, if that is wanted; else it is nil.
func listenMetrics(conf config) (net.Listener, error) {
	if conf.Metrics == (p9srv.Addr{}) {
		return nil, nil
	}
	l, err := p9srv.ListenLocal(conf.Metrics)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	return l, nil
}

// boundedHTTP is a server that nobody can keep busy for long.
func boundedHTTP(handler http.Handler) *http.Server {
	return &http.Server{
		Handler: handler, ReadTimeout: metricsTime, WriteTimeout: metricsTime, IdleTimeout: 3 * metricsTime, MaxHeaderBytes: 8 << 10,
	}
}

// serveMetrics answers until ctx is done.
func (s *service) serveMetrics(ctx context.Context, l net.Listener, alive *liveness) {
	if l == nil {
		return
	}
	handler := metricsHandler(&sources{s.engine.host.Stats, s.engine.tree.Totals, s.srv.Stats, s.engine.fs.RuleStats, s.engine.audit}, alive.check)
	server := boundedHTTP(handler)
	s.log.Info("metrics", "network", l.Addr().Network(), "at", l.Addr().String())
	s.tasks.Go(func() error {
		<-ctx.Done()
		return server.Close()
	})
	s.tasks.Go(func() error {
		defer s.stop()
		if err := server.Serve(netutil.LimitListener(l, metricsConns)); err != http.ErrServerClosed {
			return fmt.Errorf("metrics: %w", err)
		}
		return nil
	})
}
