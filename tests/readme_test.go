package tests

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestReadme runs each transcript in README as one shell session and compares what it
// prints with what README says.
func TestReadme(t *testing.T) {
	s := startServer(t)
	for _, want := range transcripts(t) {
		var session strings.Builder
		for line := range strings.Lines(want) {
			if command, ok := strings.CutPrefix(line, "# "); ok {
				quoted := "'" + strings.ReplaceAll(strings.TrimSuffix(line, "\n"), "'", `'\''`) + "'"
				session.WriteString("printf '%s\\n' " + quoted + "\n" + command)
			}
		}
		sh := exec.Command("bash", "-c", "exec 2>&1\ntrap 'kill $(jobs -p) 2>/dev/null' EXIT\n"+session.String())
		sh.Env = append(os.Environ(), "CONTAINERFS_SERVER=unix://"+s.sock)
		got, err := sh.Output()
		if err != nil || string(got) != want {
			t.Errorf("%v\ngot:\n%s\nREADME has:\n%s", err, got, want)
		}
	}
}

// TestReadmeRules: the rules in README are rules.
func TestReadmeRules(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(readme), "    # who[:process]")
	rules, _, _ := strings.Cut(rest, "\n\n")
	_, rules, _ = strings.Cut(rules, "\n")
	file := t.TempDir() + "/rules"
	writeFile(t, file, rules+"\n")
	out, err := exec.Command("containerfs", "rules", "check", file).CombinedOutput()
	if !found || err != nil || !strings.HasSuffix(string(out), ": 6 rules\n") {
		t.Errorf("%v\n%s\nof\n%s", err, out, rules)
	}
}

// transcripts are what stands between the markers in README.
func transcripts(t testing.TB) (all []string) {
	t.Helper()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range strings.Split(string(readme), "<!-- transcript")[1:] {
		part, _, ended := strings.Cut(part, "<!-- end of transcript -->")
		_, part, fenced := strings.Cut(part, "```console\n")
		part, _, closed := strings.Cut(part, "```\n")
		if !ended || !fenced || !closed || !strings.Contains(part, "# ") {
			t.Fatalf("a transcript in README does not end: %s", part)
		}
		all = append(all, part)
	}
	if len(all) < 2 {
		t.Fatalf("README has %d transcripts between markers", len(all))
	}
	return all
}
