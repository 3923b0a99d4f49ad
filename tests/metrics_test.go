package tests

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// get asks a server for a path by HTTP, at an address of network and address.
func get(t testing.TB, network, address, method, path string) (code int, body string) {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}}
	req, err := http.NewRequest(method, "http://containerfs"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: transport, Timeout: time.Minute}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// samples are the values of metrics by name and labels.
func samples(t testing.TB, network, address string) map[string]float64 {
	t.Helper()
	code, body := get(t, network, address, "GET", "/metrics")
	if code != 200 {
		t.Fatalf("/metrics: %d\n%s", code, body)
	}
	all := make(map[string]float64)
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		v, err := strconv.ParseFloat(strings.TrimSpace(line[i+1:]), 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all[line[:i]] = v
	}
	return all
}

// TestMetrics: what the server has done and has is counted.
func TestMetrics(t *testing.T) {
	s := startServer(t, "--metrics", "tcp://127.0.0.1:0")
	_, at, ok := strings.Cut(s.log.String(), "msg=metrics network=tcp at=")
	if !ok {
		t.Fatalf("the log does not say where metrics are:\n%s", s.log.String())
	}
	at, _, _ = strings.Cut(at, "\n")
	os.Chmod(filepath.Dir(s.sock), 0o755) // others must reach it
	before := samples(t, "tcp", at)

	p := startSpawner(t)
	s.run("mkdir", "/all/a", "/all/b")
	s.run("rmdir", "/all/b")
	if code, _ := commandAs(t, stranger, "unix://"+s.sock, "mkdir", "/all/c"); code != notPermitted {
		t.Fatalf("a stranger's mkdir: exit code %d", code)
	}
	if code, _, _ := s.command("write", "/all/a/tasks", "x"); code != 1 {
		t.Fatalf("exit code %d", code)
	}
	c := s.client("")
	child := p.fork()
	s.tasks("/all") // the server knows of the fork by then

	after := samples(t, "tcp", at)
	waitFor(t, "the end of the commands' connections", func() bool {
		after = samples(t, "tcp", at)
		return after[`containerfs_connections{network="unix"}`] <= before[`containerfs_connections{network="unix"}`]+1
	})
	if _, ok := after["containerfs_events_lost_total"]; !ok {
		t.Error("losses are not told")
	}
	for name, want := range map[string]float64{
		`containerfs_requests_total{result="ok",verb="mkdir"}`:                2,
		`containerfs_requests_total{result="EACCES",verb="mkdir"}`:            1,
		`containerfs_requests_total{result="EINVAL",verb="write"}`:            1,
		`containerfs_request_duration_seconds_count{verb="mkdir"}`:            3,
		`containerfs_request_duration_seconds_bucket{verb="mkdir",le="+Inf"}`: 3,
		`containerfs_denials_total`:                                           1,
		`containerfs_containers`:                                              1,
		`containerfs_connections{network="unix"}`:                             1,
		`containerfs_connections_total{network="unix"}`:                       6,
	} {
		if got := after[name] - before[name]; got != want {
			t.Errorf("%s went up by %v, want %v", name, got, want)
		}
	}
	for _, name := range []string{`containerfs_events_total{kind="fork"}`, `containerfs_events_total{kind="exec"}`, `containerfs_events_total{kind="exit"}`} {
		if after[name] <= before[name] {
			t.Errorf("%s is %v, was %v", name, after[name], before[name])
		}
	}
	for name, least := range map[string]float64{
		"containerfs_tasks": 2, "containerfs_hierarchies": 1, "containerfs_css_groups": 1, "containerfs_resyncs_total": 1, "go_goroutines": 1, "process_open_fds": 3,
	} {
		if after[name] < least {
			t.Errorf("%s is %v", name, after[name])
		}
	}
	if sum := after[`containerfs_request_duration_seconds_sum{verb="mkdir"}`]; sum <= 0 {
		t.Errorf("three mkdirs took %v s", sum)
	}
	s.run("write", "/all/a/cpuset.cpus", "0")
	s.run("write", "/all/a/cpuset.mems", "0")
	s.run("write", "/all/a/tasks", fmt.Sprint(child))
	if got := samples(t, "tcp", at)["containerfs_css_groups"]; got != after["containerfs_css_groups"]+1 {
		t.Errorf("css groups: %v, then %v", after["containerfs_css_groups"], got)
	}
	if !c.alive() {
		t.Error("the connection that was counted is gone")
	}

	if code, body := get(t, "tcp", at, "GET", "/healthz"); code != 200 || body != "ok\n" {
		t.Errorf("/healthz: %d %q", code, body)
	}
	for _, tt := range []struct {
		method, path string
		code         int
	}{{"POST", "/healthz", 405}, {"POST", "/metrics", 405}, {"GET", "/", 404}, {"GET", "/debug/pprof/", 404}} {
		if code, _ := get(t, "tcp", at, tt.method, tt.path); code != tt.code {
			t.Errorf("%s %s: %d", tt.method, tt.path, code)
		}
	}
	s.run("write", "/all/tasks", fmt.Sprint(child))
	s.run("rmdir", "/all/a")
}

// TestMetricsRules: what rules have done is counted by their lines, with how long what
// they moved has waited.
func TestMetricsRules(t *testing.T) {
	path := t.TempDir() + "/m"
	r := startRuled(t, "# rules\n64001:tool cpu tools create\n64001:tool net missing\n", "--metrics", "unix://"+path)
	tool := r.program("tool")
	sh := startShell(t, professor)
	for range 3 {
		r.in(sh.start(tool+" 1000"), "/", "/tools")
	}
	r.settled()
	got := samples(t, "unix", path)
	m := regexp.MustCompile(`# placements: count=(\d+) `).FindStringSubmatch(r.run("read", "/rules"))
	if m == nil || number(t, m[1]) == 0 {
		t.Fatalf("no placements: %q", m)
	}
	placed := float64(number(t, m[1]))
	for name, want := range map[string]float64{
		`containerfs_rule_placement_duration_seconds_count`:                   placed,
		`containerfs_rule_placement_duration_seconds_bucket{le="1.6384e-05"}`: 0, // a move takes longer
		`containerfs_rule_placement_duration_seconds_bucket{le="+Inf"}`:       placed,
		`containerfs_rules_waiting`:                                           0,
		`containerfs_rules_overflows_total`:                                   0,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v, %v; want %v", name, v, ok, want)
		}
	}
	for line := 2; line <= 3; line++ {
		matches, failures := r.counts(line)
		if matches < 3 || (failures > 0) != (line == 3) {
			t.Fatalf("line %d: %d matches, %d failures", line, matches, failures)
		}
		label := fmt.Sprintf(`_total{line="%d"}`, line)
		if m, f := got["containerfs_rule_matches"+label], got["containerfs_rule_failures"+label]; m != float64(matches) || f != float64(failures) {
			t.Errorf("line %d: %v matches and %v failures, not %d and %d", line, m, f, matches, failures)
		}
	}
	if sum := got["containerfs_rule_placement_duration_seconds_sum"]; sum <= 0 {
		t.Errorf("placements waited %v s", sum)
	}

	// With other rules there are other lines.
	writeFile(t, r.file, "64001:tool cpu tools create\n")
	r.cmd.Process.Signal(syscall.SIGHUP)
	waitFor(t, "the new rules", func() bool {
		got = samples(t, "unix", path)
		_, fresh := got[`containerfs_rule_matches_total{line="1"}`]
		return fresh
	})
	if _, old := got[`containerfs_rule_matches_total{line="3"}`]; old || got["containerfs_rule_placement_duration_seconds_count"] != placed {
		t.Errorf("after a reload: line 3 is there: %v, and %v placements, not %v", old, got["containerfs_rule_placement_duration_seconds_count"], placed)
	}
}

// TestMetricsSocket: on a unix socket, which goes with the server.
func TestMetricsSocket(t *testing.T) {
	path := t.TempDir() + "/m"
	s := startServer(t, "--metrics", "unix://"+path)
	if code, body := get(t, "unix", path, "GET", "/healthz"); code != 200 || body != "ok\n" {
		t.Errorf("/healthz: %d %q", code, body)
	}
	if samples(t, "unix", path)["containerfs_tasks"] < 1 {
		t.Error("no tasks")
	}
	s.stop()
	if _, err := net.Dial("unix", path); err == nil {
		t.Error("the socket has outlived the server")
	}
}

// TestMetricsRefused: no address that others can reach, and none without sense.
func TestMetricsRefused(t *testing.T) {
	needHost(t)
	for addr, says := range map[string]string{
		"tcp://0.0.0.0:0": "not a loopback address", "tcp://:0": "not a loopback address", "tcp://[::]:0": "not a loopback address",
		"vsock://2:1": "want unix or tcp", "here": `metrics`, "tcp://127.0.0.1:0?as=daemon": "unknown option",
	} {
		c := exec.Command("containerfs", "serve", "--listen", "unix://"+t.TempDir()+"/s", "--metrics", addr)
		out, err := c.CombinedOutput()
		if err == nil || c.ProcessState.ExitCode() != usage || !strings.Contains(string(out), says) || strings.Count(string(out), "\n") != 1 {
			t.Errorf("%s: %v\n%s", addr, err, out) // and before anything on the host is touched
		}
	}
}
