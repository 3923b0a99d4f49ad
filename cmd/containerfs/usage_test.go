package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hugelgupf/p9/p9"

	"containerfs/p9srv"
)

// scraped is what an exporter tells of a server, to who waits for so many seconds.
func scraped(t *testing.T, server, seconds string) string {
	t.Helper()
	at := p9srv.Addr{Network: "unix", Address: filepath.Join(t.TempDir(), "m")}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	said, stderr := io.Pipe()
	go func() {
		e := &exporter{server: server, path: "/all", depth: -1, stderr: stderr}
		served <- e.serve(ctx, at)
		stderr.Close()
	}()
	io.ReadFull(said, make([]byte, len("listening on "))) // by then it listens
	go io.Copy(io.Discard, said)
	defer func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("the exporter ends with %v", err)
		}
	}()
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", at.Address) }}
	defer transport.CloseIdleConnections()
	ask, err := http.NewRequest("GET", "http://exporter/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	ask.Header.Set("X-Prometheus-Scrape-Timeout-Seconds", seconds)
	answer, err := transport.RoundTrip(ask)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != 200 {
		t.Errorf("%s, %v: %s", answer.Status, err, text)
	}
	return string(text)
}

// TestListedTwice: a container that was removed while a long listing was read, and made anew, is
// one of that name.
func TestListedTwice(t *testing.T) {
	m, addr := serveMemory(t)
	m.mu.Lock()
	for _, dir := range []string{"/all/Zoe", "/all/Abe"} {
		m.add(dir+"/tasks", p9.ModeRegular|0o644, "7\n")
	}
	m.nodes["/all"].names = append(m.nodes["/all"].names, "Zoe")
	m.mu.Unlock()
	if got, want := command(nil, "--server", addr, "ls", "/all").stdout, "tasks\ncpus\nZoe\nAbe\n"; got != want {
		t.Errorf("ls: %q, want %q", got, want)
	}
	text := scraped(t, addr, "60")
	for _, want := range []string{`containerfs_container_tasks{path="/all"} 5`, `containerfs_container_tasks{path="/all/Zoe"} 1`, "containerfs_up 1"} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("the exporter does not tell %s:\n%s", want, text)
		}
	}
}

// TestScrapeOfSilentServer: who asks is told that the server does not answer while he waits.
func TestScrapeOfSilentServer(t *testing.T) {
	if text := scraped(t, "unix://"+silentServer(t), "0.5"); !strings.Contains(text, "containerfs_up 0\n") {
		t.Errorf("the exporter tells\n%s", text)
	}
}

func TestWaits(t *testing.T) {
	for says, want := range map[string]time.Duration{
		"": metricsTime, "x": metricsTime, "NaN": metricsTime, "0": metricsTime, "-1": metricsTime,
		"0.5": 500 * time.Millisecond, "1e-9": shortestScrape, "30.0": 30 * time.Second, "1e300": longestScrape, "+Inf": longestScrape,
	} {
		if got := waits(http.Header{"X-Prometheus-Scrape-Timeout-Seconds": {says}}); got != want {
			t.Errorf("%q: %v, want %v", says, got, want)
		}
	}
}

// TestUsageOfAnother: what a container has used is not taken for that of another which has its
// path by now.
func TestUsageOfAnother(t *testing.T) {
	m, addr := serveMemory(t)
	m.mu.Lock()
	for dir, ns := range map[string]string{"/all": "9000000000\n", "/all/Zoe": "1000000\n", "/all/Abe": "8000000000\n"} {
		if dir != "/all" {
			m.add(dir+"/tasks", p9.ModeRegular|0o644, "")
		}
		m.add(dir+"/cpuacct.usage", p9.ModeRegular|0o644, ns)
	}
	m.mu.Unlock()
	s, err := connect(context.Background(), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	sampler := newSampler(s, "/all")
	known := func() (paths string) {
		t.Helper()
		rows, err := sampler.sample()
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range rows {
			if u.CPU != nil {
				paths += u.Path + " "
			}
		}
		return paths
	}
	if got := known(); got != "" {
		t.Errorf("of %sthe first sample tells", got)
	}
	if got := known(); got != "/all /all/Zoe /all/Abe " {
		t.Errorf("the second tells of %q", got)
	}
	m.mu.Lock()
	for _, file := range []string{"", "/tasks", "/cpuacct.usage"} { // Abe becomes Zoe, whose name was free
		m.nodes["/all/Zoe"+file], m.nodes["/all/Abe"+file] = m.nodes["/all/Abe"+file], m.nodes["/all/Zoe"+file]
	}
	m.mu.Unlock()
	if got := known(); got != "/all " {
		t.Errorf("after a rename it tells of %q", got)
	}
	if got := known(); got != "/all /all/Zoe /all/Abe " {
		t.Errorf("after that it tells of %q", got)
	}
}

// TestMeasureIn: files are found under noprefix, too, and none that is another subsystem's.
func TestMeasureIn(t *testing.T) {
	for _, tt := range []struct {
		files string
		of    []measure
		want  string
	}{
		{"tasks cpuacct.usage", []measure{cpuFile}, "cpuacct.usage"},
		{"tasks usage stat load", []measure{cpuFile}, "usage"},
		{"tasks stat", []measure{cpuFile}, ""},
		{"tasks memory.current memory.high", memoryFiles, "memory.current"},
		{"tasks current high max peak", memoryFiles, "current"},
		{"tasks usage_in_bytes", memoryFiles, "usage_in_bytes"},
		{"tasks current max peak physpages.held", memoryFiles, "physpages.held"}, // that is pids
		{"tasks current high max peak", jobMemoryPeak, "peak"},
		{"tasks current max peak", jobMemoryPeak, ""},
		{"tasks current max peak", jobTasksPeak, "peak"},
		{"tasks current high max peak", jobTasksPeak, ""},
		{"tasks numproc.maxheld physpages.maxheld", jobTasksPeak, "numproc.maxheld"},
		{"tasks numproc.maxheld physpages.maxheld", jobMemoryPeak, "physpages.maxheld"},
	} {
		got := ""
		for i := range tt.of {
			if got == "" {
				got = tt.of[i].in(strings.Fields(tt.files))
			}
		}
		if got != tt.want {
			t.Errorf("of %q: %q, want %q", tt.files, got, tt.want)
		}
	}
}
