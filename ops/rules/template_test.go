package rules

import (
	"fmt"
	"strings"
	"testing"
)

func TestTemplateFor(t *testing.T) {
	f, err := Parse("f", []byte("@9 m,n a/%u/x create\n* n a/\\%u create\n* * b\n"))
	if err != nil {
		t.Fatal(err)
	}
	template := func(path string) *Template {
		t.Helper()
		tmpl, err := NewTemplate(path, map[string]string{"f": "1"}, false)
		if err != nil {
			t.Fatal(err)
		}
		return tmpl
	}
	for path, want := range map[string]string{
		"/m/a":       "0:1",
		"/m//a/%u/":  "0:2",
		"/m/a/%u/x":  "0:3",
		"/n/a/%u":    "0:2",
		"/n/a/\\%u":  "1:2",
		"/m/a/%U":    "",
		"/m/a/alice": "",
		"/m/b":       "2:1", // but its rule makes nothing
		"/o/a":       "",

		"/m/a/%u/x/y": "", // below what a rule makes
	} {
		var got []string
		tmpl := template(path)
		for i, r := range f.Rules {
			for n := 1; n <= len(r.elements); n++ {
				if tmpl.For("other", r, n) {
					t.Errorf("%s is for another hierarchy", path)
				}
				if r.Concerns(tmpl.Hierarchy()) && tmpl.For(tmpl.Hierarchy(), r, n) {
					got = append(got, fmt.Sprintf("%d:%d", i, n))
				}
			}
		}
		if got := strings.Join(got, " "); got != want {
			t.Errorf("%s is for %q, want %q", path, got, want)
		}
		if used := tmpl.IsUsed(f.Rules); used != (want != "" && want != "2:1") {
			t.Errorf("%s: used %v", path, used)
		}
	}
}

// TestTemplateIsUsed: whether there is a rule that can make something by a template.
func TestTemplateIsUsed(t *testing.T) {
	for _, tt := range []struct {
		rules, path string
		used        bool
	}{
		{"9 m a create", "/m/a", true},
		{"9 * a create", "/any/a", true}, // that there is none is not known here
		{"9 m a", "/m/a", false},
		{"9 m a create,ignore", "/m/a", false},
		{"9 m a/%u create", "/m/a/%U", false},
		{"* m b\n9 m a create", "/m/a", false},
		{"* * b\n9 m a create", "/m/a", false},
		{"* n b\n9 m a create", "/m/a", true},
		{"* m b ignore\n9 m a create", "/m/a", true},
		{"*:x m b\n9 m a create", "/m/a", true},
		{"*:x m b\n9:y m a create", "/m/a", true},
		{"*:x m b\n9:x m a create", "/m/a", false},
		{"8 m b\n9 m a create", "/m/a", true},
		{"9 m b\n9:x m a create", "/m/a", false},
		{"9:x m b\n9 m a create", "/m/a", true},
		{"* m b\n9 m a create\n* m a/x create", "/m/a", false},
		{"* m a/x create\n9 m a create", "/m/a", true},
	} {
		f, err := Parse("f", []byte(tt.rules+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		tmpl, err := NewTemplate(tt.path, map[string]string{"f": "1"}, false)
		if err != nil {
			t.Fatal(err)
		}
		if used := tmpl.IsUsed(f.Rules); used != tt.used {
			t.Errorf("%s by\n%s\nis used: %v", tt.path, tt.rules, used)
		}
	}
}

func TestTemplateErrors(t *testing.T) {
	set := map[string]string{"f": "1"}
	for _, c := range []struct {
		path     string
		set      map[string]string
		delegate bool
		want     string
	}{
		{"", set, false, "want /HIERARCHY/CONTAINER"},
		{"/m", set, false, "want /HIERARCHY/CONTAINER"},
		{"m/a", set, false, "want /HIERARCHY/CONTAINER"},
		{"/%u/a", set, false, "the first name is a hierarchy's"},
		{"/m%u/a", set, false, "the first name is a hierarchy's"},
		{"/*/a", set, false, `"*" is no name of a hierarchy`},
		{"/m,n/a", set, false, `"m,n" is no name of a hierarchy`},
		{`/m/a\`, set, false, "ends in a backslash"},
		{"/m/a", set, true, "has %u or %U in its last name"},
		{"/m/%u/a", set, true, "has %u or %U in its last name"},
		{"/m/%g", set, true, "has %u or %U in its last name"},
		{"/m/a", nil, false, "want something to be set, or delegated"},
		// u's program 1-x, or his process 12, would be in what u-1's x or u1's 2 is to have.
		{"/m/%u-%p", nil, true, "is the choice of who"},
		{"/m/%p-%u", nil, true, "is the choice of who"},
		{"/m/%U%p", nil, true, "something between"},
		{"/m/%U0%p", nil, true, "is the choice of who"},
		{"/m/a%U-%p", nil, true, "is the choice of who"},
		{"/m/%u%P", nil, true, "something between"},
		{"/m/%g%U", nil, true, "something between"},
	} {
		if _, err := NewTemplate(c.path, c.set, c.delegate); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q, delegate %v: %v, want %q", c.path, c.delegate, err, c.want)
		}
	}
	a, errA := NewTemplate("/m//a/%u/", set, true)
	b, errB := NewTemplate(`/m/\a/%u`, nil, true)
	c, errC := NewTemplate(`/m/a/\%u`, set, false)
	if errA != nil || errB != nil || errC != nil || !a.Is(b) || a.Is(c) {
		t.Errorf("%v, %v, %v: for the same are %v, %v", errA, errB, errC, a.Is(b), a.Is(c))
	}
	if _, err := NewTemplate("/m/%g-%u", nil, true); err != nil {
		t.Errorf("what is delegated, and nothing set: %v", err)
	}
	for _, path := range []string{"/m/%U-%p", "/m/%U.%p%P", "/m/%p/%u", "/m/%u-%P", "/m/x%g.%U-%P"} {
		if _, err := NewTemplate(path, nil, true); err != nil {
			t.Errorf("what is one user's by its name: %v", err)
		}
	}
	if _, err := NewTemplate("/m/u%U", map[string]string{"b": "", "a_exclusive": "1", "c": ""}, true); err != nil {
		t.Error(err)
	}
}
