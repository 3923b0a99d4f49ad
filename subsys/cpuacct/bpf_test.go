package cpuacct

import (
	"testing"

	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// TestStateOf: the state of a task is found in the kernels that there are.
func TestStateOf(t *testing.T) {
	member := func(name string, size uint32) *btf.Struct {
		return &btf.Struct{Name: "task_struct", Members: []btf.Member{
			{Name: "flags", Type: &btf.Int{Size: 4}},
			{Name: name, Type: &btf.Volatile{Type: &btf.Int{Size: size}}, Offset: 24 * 8},
		}}
	}
	for _, tt := range []struct {
		in   *btf.Struct
		size asm.Size
	}{
		{member("__state", 4), asm.Word},
		{member("state", 8), asm.DWord}, // before 5.14
	} {
		if at, size, err := stateOf(tt.in); at != 24 || size != tt.size || err != nil {
			t.Errorf("%v: at %d of size %v, %v", tt.in.Members, at, size, err)
		}
	}
	for _, in := range []*btf.Struct{member("state", 4), member("__state", 8), member("condition", 4)} {
		if at, _, err := stateOf(in); err == nil {
			t.Errorf("%v: at %d", in.Members, at)
		}
	}
}
