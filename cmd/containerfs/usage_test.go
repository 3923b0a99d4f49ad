package main

import (
	"bufio"
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

// pipes is a listener on connections that hold nothing: what one end writes the other has read.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if conn, ok := <-p; ok {
		return conn, nil
	}
	return nil, net.ErrClosed
}
func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return nil }

// TestScraperThatDoesNotRead: who asks and takes no answer is hung up on, and keeps nobody from
// asking; who takes his has it, also where the server was asked for longer than that takes.
func TestScraperThatDoesNotRead(t *testing.T) {
	defer func(d time.Duration) { metricsTime = d }(metricsTime)
	metricsTime = 300 * time.Millisecond
	e := &exporter{server: "unix://" + silentServer(t), path: "/all", depth: -1, stderr: io.Discard}
	l := make(pipes)
	server := boundedHTTP(e.handler())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		server.Serve(l)
	}()
	defer func() {
		server.Close()
		<-ended
	}()
	ask := func() net.Conn {
		conn, theirs := net.Pipe()
		l <- theirs
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(conn, "GET /metrics HTTP/1.1\r\nHost: x\r\nX-Prometheus-Scrape-Timeout-Seconds: 1\r\n\r\n")
		return conn
	}
	var lazy []net.Conn
	for range 4 {
		lazy = append(lazy, ask())
	}
	for _, conn := range lazy {
		var err error
		for err == nil {
			_, err = conn.Write([]byte("x"))
		}
		if err != io.ErrClosedPipe {
			t.Errorf("who does not read has %v, want his connection closed", err)
		}
	}
	conn := ask()
	defer conn.Close()
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != 200 || !strings.Contains(string(text), "containerfs_up 0\n") {
		t.Errorf("%s, %v: %s", answer.Status, err, text)
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
