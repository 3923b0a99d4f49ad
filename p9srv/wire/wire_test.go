package wire

import (
	"fmt"
	"testing"
)

func TestDecoder(t *testing.T) {
	d := Decode([]byte{1, 2, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 2, 0, 'h', 'i', 3, 0, 0, 0, 'a', 'b', 'c', 2, 0, 1, 0, 'x', 1, 0, 'y', 1, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0})
	got := fmt.Sprintf("%d %d %d %d %s %s %s %v", d.U8(), d.U16(), d.U32(), d.U64(), d.Str(), d.Data(), d.Names(make([]string, 2)), d.QID())
	if got != "1 2 3 4 hi abc [x y] QID{Type: 1, Version: 2, Path: 3}" || !d.Finish() {
		t.Errorf("%s, bad %v, rest %d", got, d.bad, len(d.b))
	}
	for name, take := range map[string]func(*Decoder){
		"u8": func(d *Decoder) { d.U8() }, "u16": func(d *Decoder) { d.U16() }, "u32": func(d *Decoder) { d.U32() },
		"u64": func(d *Decoder) { d.U64() }, "str": func(d *Decoder) { d.Str() }, "data": func(d *Decoder) { d.Data() },
		"names": func(d *Decoder) { d.Names(make([]string, 3)) }, "qid": func(d *Decoder) { d.QID() },
	} {
		for _, b := range [][]byte{{}, {1}, {255, 255, 1}, {255, 255, 255, 255, 1}, {8, 0, 0, 0, 1, 2, 3}} {
			d := Decode(b)
			if take(&d); d.Finish() && !(name == "u8" && len(b) == 1) {
				t.Errorf("%s of %x is whole", name, b)
			}
			if d.bad && (d.U8() != 0 || d.Str() != "" || d.Data() != nil) {
				t.Errorf("%s of %x: something follows the end", name, b)
			}
		}
	}
}
