package p9srv_test

import (
	"flag"
	"testing"

	"containerfs/p9srv"
	"containerfs/p9srv/p9test"
)

var oracleRuns = flag.Int("oracle", 20, "how many random sequences to compare with the library's server")

// TestOracle compares the dispatcher with the library's over two trees.
func TestOracle(t *testing.T) {
	for seed := range uint64(*oracleRuns) {
		_, a := start(t, p9srv.Config{})
		theirs := p9test.NewTree()
		theirs.Put("d", nil)
		theirs.Put("f", []byte("0-3\n"))
		p9test.Oracle{
			Names:   []string{"a", "b", "c", "d", "f"},
			Files:   []string{"f", "a"},
			Values:  []string{"1\n", "", "some longer text\n"},
			Differs: p9test.LibraryDiffers,
		}.Run(t, seed, 500, p9test.Client(t, p9test.Dial(t, a)), p9test.Client(t, p9test.ServeLibrary(t, theirs.Library())))
	}
}
