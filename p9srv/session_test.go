package p9srv_test

import (
	"testing"

	"containerfs/p9srv"
	"containerfs/p9srv/p9test"

	"github.com/hugelgupf/p9/p9"
)

func TestLibraryClient(t *testing.T) {
	tree := p9test.NewTree()
	a := p9test.Serve(t, p9srv.Config{Attacher: tree})
	root := p9test.Client(t, p9test.Dial(t, a))
	if _, err := root.Mkdir("d", 0o755, 0, 0); err != nil {
		t.Fatal(err)
	}
	_, d, err := root.Walk([]string{"d"})
	if err != nil {
		t.Fatal(err)
	}
	_, w, _ := d.Walk(nil)
	if _, _, _, err := w.Create("f", p9.ReadWrite, 0o644, 0, 0); err != nil {
		t.Fatal(err)
	}
	if n, err := w.WriteAt([]byte("hello"), 0); n != 5 || err != nil {
		t.Fatal(n, err)
	}
	var buf [10]byte
	if n, err := w.ReadAt(buf[:], 0); n != 5 || err != nil {
		t.Fatal(n, err)
	}
	if _, _, err := d.Open(p9.ReadOnly); err != nil {
		t.Fatal(err)
	}
	list, err := d.Readdir(0, 4096)
	if err != nil || len(list) != 3 {
		t.Fatal(list, err)
	}
	t.Log(list)
}
