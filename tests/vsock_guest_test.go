package tests

import (
	"strings"
	"testing"

	"github.com/hugelgupf/p9/p9"
)

// TestVsock: a listener on vsock lets in the CIDs that it lists, each on its own
// terms. Its peers come over vsock's loopback, which is CID 1.
func TestVsock(t *testing.T) {
	if !inside {
		runInside(t, "^TestVsock$")
		return
	}
	s := startServer(t,
		"--listen", "vsock://:5640?cid.1.as=user&cid.1.attach=/all/vm&cid.3.as=root",
		"--listen", "vsock://*:5641?as=user&allow=2,3,4",
		"--listen", "vsock://1:5642?as=user&allow=1&access=ro",
		"--listen", "vsock://:5643?trust=uname&cid.1.access=rw",
		"--listen", "vsock://:0?as=user&allow=1")
	s.run("mkdir", "/all/vm", "/all/other")
	c := s.client("")
	c.setAttr("/all/vm", 1000, 0o755)
	c.setAttr("/all/other", 1000, 0o755)
	const unavailable = 75
	for _, tt := range []struct {
		port string
		args []string
		want int
	}{
		{"5640", []string{"mkdir", "/mine"}, ok},
		{"5640", []string{"ls", "/all"}, notFound},
		{"5640", []string{"read", "/ctl"}, notFound},
		{"5640", []string{"write", "/tasks", "1"}, notPermitted},
		{"5641", []string{"ls", "/"}, unavailable},
		{"5642", []string{"ls", "/all/other"}, ok},
		{"5642", []string{"mkdir", "/all/other/x"}, notPermitted},
		{"5643", []string{"mkdir", "/all/other/x"}, notPermitted}, // who says nothing is nobody
	} {
		if code, output := commandAs(t, 0, "vsock://1:"+tt.port, tt.args...); code != tt.want {
			t.Errorf("%s: %v: exit code %d, want %d\n%s", tt.port, tt.args, code, tt.want, output)
		}
	}
	f, err := c.walk("/all/vm/mine")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, _, attr, err := f.GetAttr(p9.AttrMaskAll); err != nil || attr.UID != 1000 {
		t.Errorf("what CID 1 made is uid %d's, %v", attr.UID, err)
	}
	log := s.log.String()
	for _, line := range []string{
		`lets_in="CID 1 as user, to read and write, in /all/vm; CID 3 as root, to read and write"`,
		`msg="listener: as=root" at=vsock://`,
		`msg="connection refused" peer="vsock local(1):`,
		`err="not from a CID that the listener lists"`,
		`msg=change op=mkdir path=/all/vm/mine uid=1000 peer="vsock local(1):`,
	} {
		if !strings.Contains(log, line) {
			t.Errorf("no line with %s", line)
		}
	}
	if !strings.Contains(log, "listening on vsock://*:") || strings.Contains(log, "listening on vsock://*:0\n") {
		t.Error("no port was chosen for port 0")
	}
}
