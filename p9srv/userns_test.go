package p9srv

import "testing"

func TestMapsAll(t *testing.T) {
	for text, want := range map[string]bool{
		"         0          0 4294967295\n":  true,
		"0 0 65536\n65536 65536 4294901759\n": true,
		"         0       1000          1\n":  false,
		"0 1000 1\n1 100000 65536\n":          false,
		"0 0 4294967294\n":                    false,
		"":                                    false,
	} {
		if got := mapsAll(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
