package rules

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// documented is what the manual page of libcgroup 0.41 and 2.0 has as examples, with
// its words between as comments.
const documented = `
# comment
student         devices         /usergroup/students
student:cp       devices         /usergroup/students/cp
@admin           *              admingroup/
peter           cpu             test1/
%               memory          test2/
@root            cpu,memory     /administrators/%u/\%p    # another
*:/usr/bin/x     cpu            default/%g-%G.%p.%P.%U
peter:           cpu,,memory,cpu    /
*	*		default/
* cpu rest/ ignore
` + "\v% a+b,C_d-e.9\fx\tcreate,ignore\r\n"

func TestParse(t *testing.T) {
	f, err := Parse("cgrules.conf", []byte(documented))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range f.Rules {
		got = append(got, fmt.Sprintf("%d %s:%s %s %v %v", r.Line, r.User, r.Process, r.Hierarchies, r.Ignore, r.Create))
	}
	want := `3 student: [devices] false false
4 student:cp [devices] false false
5 @admin: [*] false false
6 peter: [cpu] false false
7 peter: [memory] false false
8 @root: [cpu memory] false false
9 *:/usr/bin/x [cpu] false false
10 peter: [cpu memory] false false
11 *: [*] false false
12 *: [cpu] true false
13 *: [a+b C_d-e.9] true true`
	if got := strings.Join(got, "\n"); got != want {
		t.Errorf("got\n%s", got)
	}
	// What is shown of rules is rules, and the same.
	var shown strings.Builder
	for _, r := range f.Rules {
		shown.WriteString(r.String() + "\n")
	}
	if want := "@root\tcpu,memory\t/administrators/%u/\\%p\n"; !strings.Contains(shown.String(), want) {
		t.Errorf("shown are\n%s", &shown)
	}
	if want := "\n*\tcpu\trest/\tignore\n%\ta+b,C_d-e.9\tx\tignore,create\n"; !strings.HasSuffix(shown.String(), want) {
		t.Errorf("shown are\n%s", &shown)
	}
	again, err := Parse("shown", []byte(shown.String()))
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range again.Rules {
		if r.String() != f.Rules[i].String() || r.User != f.Rules[i].User || r.Process != f.Rules[i].Process {
			t.Errorf("%v is shown as %v", f.Rules[i], r)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"a b":                              "f:1: 2 fields",
		"a b c d e":                        "f:1: 5 fields",
		"a h c\n\n# x\na":                  "f:4: 1 fields",
		"% h c":                            "f:1: % continues a line",
		"a h c\n%:p h d":                   "f:2: % has the user",
		"%a h c":                           "f:1: \"%a\": % stands alone",
		"*a h c":                           "f:1: \"*a\": * stands alone",
		":p h c":                           "f:1: \":p\" names no user",
		"@ h c":                            "f:1: \"@\" names no user",
		"@:p h c":                          "f:1: \"@:p\" names no user",
		"a:bin/p h c":                      "f:1: process \"bin/p\"",
		"a:p*q h c":                        "f:1: process \"p*q\"",
		"a:** h c":                         "f:1: process \"**\"",
		"a , c":                            "f:1: \",\" names no hierarchy",
		"a h/x c":                          "f:1: \"h/x\" is no name",
		"a h/x c ignore":                   "f:1: \"h/x\" is no name",
		"a é c":                            "f:1: \"é\" is no name",
		"a h ../x":                         "destination \"../x\"",
		"a h x/./y":                        "destination \"x/./y\"",
		"a h x\\":                          "ends in a backslash",
		"a h c ignore,no":                  "unknown option \"no\"",
		"a h c ignore_rt":                  "ignore_rt",
		"a h c\x01":                        "cannot be printed",
		"a\xff h c":                        "cannot be printed",
		"a h c\x00":                        "cannot be printed",
		"a h " + strings.Repeat("a", 4095): "f:1: longer than 4096 bytes",
		"a h " + strings.Repeat("%u", 2040) + strings.Repeat("x", 0) + "\n" + strings.Repeat("a h c\n", MaxRules): fmt.Sprintf("f:%d: more than", MaxRules+1),
		strings.Repeat("#\n", MaxFile/2) + "#": "f: longer than",
	} {
		_, err := Parse("f", []byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", text, err, want)
		}
	}
	for what, text := range map[string]string{
		"line": "a h c" + strings.Repeat(" ", MaxLine-5), "file": strings.Repeat("#\n", MaxFile/2),
	} {
		if _, err := Parse("f", []byte(text)); err != nil {
			t.Errorf("a %s of as many bytes as may be: %v", what, err)
		}
	}
	if _, err := Read(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a file that is not there was read")
	}
	if _, err := Read(t.TempDir()); err == nil {
		t.Error("a directory was read")
	}
	name := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(name, make([]byte, MaxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(name); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("a large file: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(documented))
	f.Add([]byte("a:p* h,* %u\\%\\x ignore,create\n% * /"))
	f.Fuzz(func(t *testing.T, text []byte) {
		file, err := Parse("f", text)
		if err != nil {
			return
		}
		s := &Subject{PID: 7, UID: 4000000001, GID: 4000000002, Exe: "/bin/p", Comm: "p"}
		var n Names
		for _, r := range file.Rules {
			if strings.ContainsAny(r.String(), "\n#") {
				t.Fatalf("%q would forge a line", r)
			}
			if names, err := r.Path(s, &n); err == nil {
				for _, name := range names {
					if name == "" || name == "." || name == ".." || strings.Contains(name, "/") {
						t.Fatalf("%q leads to %q", r, names)
					}
				}
			}
			if _, fits := r.Why(s, &n); fits != (len((&File{Rules: []*Rule{r}}).Matching(s, &n)) == 1) {
				t.Fatalf("%q fits, and does not", r)
			}
		}
	})
}
