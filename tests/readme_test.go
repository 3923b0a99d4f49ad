package tests

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestReadme runs the transcript in README as one shell session and compares
// what it prints with what README says.
func TestReadme(t *testing.T) {
	want := transcript(t)
	s := startServer(t)

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

// transcript is what stands between the markers in README.
func transcript(t testing.TB) string {
	t.Helper()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, begun := strings.Cut(string(readme), "<!-- transcript")
	rest, _, ended := strings.Cut(rest, "<!-- end of transcript -->")
	_, rest, fenced := strings.Cut(rest, "```console\n")
	rest, _, closed := strings.Cut(rest, "```\n")
	if !begun || !ended || !fenced || !closed || !strings.Contains(rest, "# ") {
		t.Fatal("README has no transcript between its markers")
	}
	return rest
}
