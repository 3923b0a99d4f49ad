package p9srv

import (
	"errors"
	"fmt"
	"os/user"
	"testing"
	"time"

	"9fans.net/go/plan9"
	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
)

// TestIDs counts how often passwd is asked.
func TestIDs(t *testing.T) {
	asked := 0
	table := ids{
		name: func(id string) (string, error) {
			if asked++; id == "7" {
				return "seven", nil
			}
			return "", user.UnknownUserIdError(8)
		},
		look: func(name string) (string, error) {
			switch name {
			case "seven":
				return "7", nil
			case "broken":
				return "", errors.New("passwd cannot be read")
			}
			return "", user.UnknownUserError(name)
		},
	}
	for range 3 {
		if a, b := table.of(7), table.of(8); a != "seven" || b != "8" {
			t.Errorf("%q %q", a, b)
		}
	}
	if asked != 2 {
		t.Errorf("asked %d times about two", asked)
	}
	table.names[7] = keptName{"old", time.Now().Add(-time.Second)}
	if got := table.of(7); got != "seven" || asked != 3 {
		t.Errorf("%q after its time", got)
	}
	for id := range uint32(3 * namesKept) {
		table.of(id)
		if len(table.names) > namesKept {
			t.Fatalf("%d names are kept", len(table.names))
		}
	}
	for name, want := range map[string]string{"seven": "7 <nil>", "12": "12 <nil>", "who": "0 invalid argument", "-1": "0 invalid argument",
		"4294967295": "0 invalid argument", "4294967296": "0 invalid argument", "broken": "0 passwd cannot be read"} {
		id, err := table.id(name)
		if got := fmt.Sprint(id, " ", err); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// TestChanges compares records field by field.
func TestChanges(t *testing.T) {
	now := plan9.Dir{Mode: plan9.DMDIR | 0o755, Atime: 1, Mtime: 2, Name: "n", Uid: "0", Gid: "0", Muid: "0"}
	for _, tt := range []struct {
		change func(*plan9.Dir)
		valid  p9.SetAttrMask
		set    p9.SetAttr
		err    error
	}{
		{func(d *plan9.Dir) {}, p9.SetAttrMask{}, p9.SetAttr{}, nil},
		{func(d *plan9.Dir) { *d = now }, p9.SetAttrMask{}, p9.SetAttr{}, nil},
		{func(d *plan9.Dir) { d.Mode = plan9.DMDIR | 0o700 }, p9.SetAttrMask{Permissions: true}, p9.SetAttr{Permissions: 0o700}, nil},
		{func(d *plan9.Dir) { d.Uid = "4242" }, p9.SetAttrMask{UID: true}, p9.SetAttr{UID: 4242}, nil},
		{func(d *plan9.Dir) { d.Gid = "4243" }, p9.SetAttrMask{GID: true}, p9.SetAttr{GID: 4243}, nil},
		{func(d *plan9.Dir) { d.Atime = 7 }, p9.SetAttrMask{ATime: true, ATimeNotSystemTime: true}, p9.SetAttr{ATimeSeconds: 7}, nil},
		{func(d *plan9.Dir) { d.Mtime = 8 }, p9.SetAttrMask{MTime: true, MTimeNotSystemTime: true}, p9.SetAttr{MTimeSeconds: 8}, nil},
		{func(d *plan9.Dir) { d.Mode = plan9.DMDIR | plan9.DMTMP | 0o755 }, p9.SetAttrMask{}, p9.SetAttr{}, linux.EPERM},
		{func(d *plan9.Dir) { d.Mode = plan9.DMDIR | plan9.DMSETUID | 0o755 }, p9.SetAttrMask{}, p9.SetAttr{}, linux.EPERM},
		{func(d *plan9.Dir) { d.Mode = 0o755 }, p9.SetAttrMask{}, p9.SetAttr{}, linux.EPERM},
		{func(d *plan9.Dir) { d.Length = 1 }, p9.SetAttrMask{}, p9.SetAttr{}, linux.EINVAL},
	} {
		var d plan9.Dir
		d.Null()
		tt.change(&d)
		valid, set, err := changes(&d, &now)
		if err != tt.err || err == nil && (valid != tt.valid || set != tt.set) {
			t.Errorf("%v: %+v %+v %v", &d, valid, set, err)
		}
	}
}
