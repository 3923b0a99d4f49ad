package tests

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "containerfs"

// mayImport says which of the module's packages each of them may import.
// `x/*` are the packages below x; the first pattern that fits is the rule.
var mayImport = []struct {
	pkg     string
	imports []string
}{
	{"cmd/containerfs", []string{"cmd/containerfs/internal/*", "p9srv", "p9srv/persist", "ops", "ops/*", "tree", "tree/*", "subsys"}}, // it wires
	{"cmd/containerfs/internal/*", nil}, // what the commands see of their own side
	{"tests", []string{"p9srv", "ops", "ops/*", "tree", "tree/*", "subsys", "subsys/*"}},
	{"tests/load", []string{"p9srv/sock", "tree/hostproc/storm", "tree/kernfs"}},
	{"tests/*", nil}, // tests only
	{"p9srv", []string{"ops", "p9srv/sock", "p9srv/wire"}},
	{"p9srv/sock", nil},
	{"p9srv/wire", nil},
	{"p9srv/persist", []string{"p9srv/sock", "p9srv/wire"}},
	{"p9srv/*", []string{"p9srv", "ops"}}, // what its tests need
	{"ops", []string{"ops/*", "tree"}},
	{"ops/*", nil},
	{"tree", nil},
	{"tree/hostproc", []string{"tree", "tree/kernfs"}},
	{"tree/kernfs", nil},
	{"tree/*", []string{"tree"}}, // what tests put in a host's place
	{"subsys", []string{"subsys/*", "tree", "tree/kernfs"}},
	{"subsys/subsystest", []string{"tree", "tree/hostsim"}},
	{"subsys/facts", nil},
	{"subsys/backlog", nil},
	{"subsys/*", []string{"subsys/facts", "subsys/backlog", "tree", "tree/kernfs"}},
}

// standardOnly are the packages that import nothing from outside the module
// but the standard library.
var standardOnly = []string{"tree"}

// fits reports whether a package, named from the module's root, is one of a
// pattern.
func fits(pattern, pkg string) bool {
	dir, below := strings.CutSuffix(pattern, "/*")
	if below {
		return strings.HasPrefix(pkg, dir+"/")
	}
	return pkg == pattern
}

// misdirected returns what is wrong with a package's imports.
func misdirected(pkg string, imports []string) []string {
	var wrong []string
	rule := slices.IndexFunc(mayImport, func(r struct {
		pkg     string
		imports []string
	}) bool {
		return fits(r.pkg, pkg)
	})
	if rule < 0 {
		return []string{pkg + ": no rule says what it may import"}
	}
	for _, path := range imports {
		imported, own := strings.CutPrefix(path, module+"/")
		first, _, _ := strings.Cut(path, "/")
		switch {
		case own:
			if !slices.ContainsFunc(mayImport[rule].imports, func(p string) bool { return fits(p, imported) }) {
				wrong = append(wrong, pkg+" imports "+imported)
			}
		case strings.Contains(first, ".") && slices.Contains(standardOnly, pkg):
			wrong = append(wrong, pkg+" imports "+path)
		}
	}
	return wrong
}

// testsMisdirected is for what a package's tests import. They are free but for
// one thing: the network is no part of what is below it.
func testsMisdirected(pkg string, imports []string) []string {
	above := []string{"p9srv", "cmd/containerfs", "tests"}
	if slices.Contains(imports, module+"/p9srv") && !slices.Contains(above, pkg) {
		return []string{"tests of " + pkg + " import p9srv"}
	}
	return nil
}

// TestImports checks the directions that the layout depends on.
func TestImports(t *testing.T) {
	list := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", module+"/...")
	out, err := list.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := list.Start(); err != nil {
		t.Fatal(err)
	}
	checked := 0
	for dec := json.NewDecoder(out); ; checked++ {
		var p struct {
			ImportPath                         string
			Imports, TestImports, XTestImports []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		pkg := strings.TrimPrefix(p.ImportPath, module+"/")
		for _, wrong := range misdirected(pkg, p.Imports) {
			t.Error(wrong)
		}
		for _, wrong := range testsMisdirected(pkg, slices.Concat(p.TestImports, p.XTestImports)) {
			t.Error(wrong)
		}
	}
	if err := list.Wait(); err != nil || checked < 3 {
		t.Errorf("go list: %v, %d packages", err, checked)
	}
}

// TestMisdirected proves that each rule can fail.
func TestMisdirected(t *testing.T) {
	for _, test := range []struct {
		pkg, imported string
		wrong         bool
	}{
		{"cmd/containerfs", "containerfs/p9srv", false},
		{"cmd/containerfs", "containerfs/tree/hostproc", false},
		{"cmd/containerfs", "containerfs/subsys/cpuset", true}, // subsys lists them
		{"cmd/containerfs", "containerfs/tests", true},
		{"tests/load", "containerfs/tree/hostproc/storm", false},
		{"tests/load", "containerfs/p9srv", true}, // it measures it from outside
		{"p9srv", "containerfs/ops", false},
		{"p9srv", "github.com/hugelgupf/p9/p9", false},
		{"p9srv", "containerfs/tree", true},
		{"p9srv", "containerfs/tree/hostproc", true},
		{"p9srv", "containerfs/subsys", true},
		{"ops", "containerfs/tree", false},
		{"ops", "containerfs/ops/rules", false},
		{"ops/rules", "containerfs/tree", true},
		{"ops", "containerfs/p9srv", true},
		{"ops", "containerfs/tree/hostproc", true},
		{"ops", "containerfs/subsys/cpuset", true},
		{"ops", "containerfs/cmd/containerfs", true},
		{"tree", "sync", false},
		{"tree", "encoding/json", false},
		{"tree", "golang.org/x/sys/unix", true},
		{"tree", "containerfs/ops", true},
		{"tree", "containerfs/tree/kernfs", true},
		{"tree", "containerfs/subsys", true},
		{"tree/hostproc", "containerfs/tree", false},
		{"tree/hostproc", "containerfs/tree/kernfs", false},
		{"tree/hostproc", "golang.org/x/sys/unix", false},
		{"tree/hostproc", "containerfs/ops", true},
		{"tree/kernfs", "containerfs/tree", true},
		{"tree/hostsim", "containerfs/tree", false},
		{"tree/hostsim", "containerfs/tree/hostproc", true},
		{"subsys", "containerfs/subsys/cpuset", false},
		{"subsys", "containerfs/ops", true},
		{"subsys/cpuset", "containerfs/tree", false},
		{"subsys/cpuset", "containerfs/tree/kernfs", false},
		{"subsys/cpuset", "containerfs/subsys/debug", true},
		{"subsys/cpuset", "containerfs/subsys/facts", false},
		{"subsys/facts", "containerfs/tree", true},
		{"subsys/ns", "containerfs/subsys/backlog", false},
		{"subsys/backlog", "containerfs/tree", true},
		{"subsys/cpuset", "containerfs/subsys/subsystest", true}, // its tests may
		{"subsys/subsystest", "containerfs/tree/hostsim", false},
		{"subsys/subsystest", "containerfs/subsys/debug", true},
		{"subsys/cpuset", "containerfs/ops", true},
		{"subsys/cpuset", "containerfs/p9srv", true},
		{"p9srv/p9test", "containerfs/ops", false},
		{"p9srv/p9test", "containerfs/tree", true},
		{"cmd/containerfs", "containerfs/cmd/containerfs/internal/terminal", false},
		{"cmd/containerfs/internal/terminal", "golang.org/x/sys/unix", false},
		{"cmd/containerfs/internal/terminal", "containerfs/p9srv", true},
		{"newcomer", "fmt", true},
	} {
		t.Run(fmt.Sprintf("%s imports %s", test.pkg, test.imported), func(t *testing.T) {
			if wrong := misdirected(test.pkg, []string{test.imported}); (len(wrong) > 0) != test.wrong {
				t.Errorf("got %q", wrong)
			}
		})
	}
	if len(testsMisdirected("ops", []string{"containerfs/p9srv"})) == 0 || len(testsMisdirected("tests", []string{"containerfs/p9srv"})) != 0 {
		t.Error("testsMisdirected does not tell ops from tests")
	}
}
