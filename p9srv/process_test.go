package p9srv_test

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"containerfs/ops"
	"containerfs/p9srv"
	"containerfs/p9srv/p9test"
)

// peerProcess attaches in a process of another user and returns what it was answered.
func peerProcess(t *testing.T, addr p9srv.Addr, cred *syscall.Credential, uname, nuname string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to become somebody else")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestPeerProcess$", "-test.v")
	cmd.Env = []string{"P9SRV_PEER=" + addr.String(), fmt.Sprintf("P9SRV_ATTACH=Tattach 1 0 ~ %q \"\" %s", uname, nuname)}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	out, err := cmd.CombinedOutput()
	_, answer, ok := strings.Cut(string(out), "answer: ")
	if err != nil || !ok {
		t.Fatalf("peer: %v\n%s", err, out)
	}
	answer, _, _ = strings.Cut(answer, "\n")
	return answer
}

// TestPeerProcess is what peerProcess runs.
func TestPeerProcess(t *testing.T) {
	addr := os.Getenv("P9SRV_PEER")
	if addr == "" {
		t.Skip("is run by others")
	}
	a, err := p9srv.ParseAddr(addr)
	if err != nil {
		t.Fatal(err)
	}
	w := dial(t, a)
	w.Send("Tversion ~ 8192 9P2000.L")
	w.Receive()
	w.Send(os.Getenv("P9SRV_ATTACH"))
	fmt.Printf("answer: %s\n", w.Receive())
}

// listen serves an export given as text, whose unix socket, if it is one, is in a
// directory that everybody can reach.
func listen(t testing.TB, tree *p9test.Tree, export string) p9srv.Addr {
	t.Helper()
	if strings.HasPrefix(export, "unix:") {
		dir, err := os.MkdirTemp("", "p9")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		os.Chmod(dir, 0o755)
		export = strings.Replace(export, "unix:", "unix://"+dir+"/s", 1)
	}
	e, err := p9srv.ParseExport(export)
	if err != nil {
		t.Fatal(err)
	}
	_, a := p9test.ServeExport(t, p9srv.Config{Attacher: tree}, e)
	return a
}

// TestIdentities is the table of SPEC §17 over sockets: who a process of a user is on
// a listener, by what it says.
func TestIdentities(t *testing.T) {
	const (
		self     = "~" // no uid in Tattach
		stranger = 4321
		accessNo = "EACCES"
		permNo   = "EPERM"
	)
	for _, tt := range []struct {
		export        string
		uid           uint32
		uname, nuname string
		want          string // uid, or why not
	}{
		{"unix:", 0, "nobody", self, "0"},
		{"unix:", 0, "", self, "0"},
		{"unix:", 0, "daemon", self, "1"},
		{"unix:", 0, "", "1", "1"},
		{"unix:", 0, "", "4321", permNo}, // nobody of the passwd
		{"unix:", 0, "no-such-user", self, permNo},
		{"unix:", stranger, "nobody", self, "4321"},
		{"unix:", stranger, "", "4321", "4321"},
		{"unix:", stranger, "root", self, permNo},
		{"unix:", stranger, "", "0", permNo},
		{"unix:", stranger, "", "1", permNo},
		{"unix:?as=daemon", 0, "root", self, "1"},
		{"unix:?as=daemon", stranger, "", "0", "1"},
		{"unix:?as=root", stranger, "nobody", self, "0"},
		{"unix:?trust=uname", stranger, "daemon", self, "1"},
		{"unix:?trust=uname", stranger, "", self, "4321"},
		{"unix:?trust=uname", stranger, "root", self, "65534"},

		{"tcp://127.0.0.1:0", 0, "nobody", self, "65534"},
		{"tcp://127.0.0.1:0", 0, "root", self, permNo},
		{"tcp://127.0.0.1:0", 0, "", "0", permNo},
		{"tcp://127.0.0.1:0", 0, "", "1", permNo},
		{"tcp://127.0.0.1:0", stranger, "nobody", self, "4321"},
		{"tcp://127.0.0.1:0", stranger, "", "0", permNo},
		{"tcp://127.0.0.1:0", 1, "daemon", self, "1"},
		{"tcp://[::1]:0", stranger, "", self, "4321"},
		{"tcp://127.0.0.1:0?no_root_squash", 0, "nobody", self, "0"},
		{"tcp://127.0.0.1:0?no_root_squash", 0, "daemon", self, "1"},
		{"tcp://127.0.0.1:0?no_root_squash", stranger, "root", self, permNo},
		{"tcp://127.0.0.1:0?as=daemon", 0, "root", "0", "1"},
		{"tcp://127.0.0.1:0?as=daemon", stranger, "root", self, "1"},
		{"tcp://127.0.0.1:0?as=daemon&no_root_squash", 0, "", self, "1"},
		{"tcp://0.0.0.0:0?as=daemon", 0, "", "0", "1"},
		{"tcp://127.0.0.1:0?trust=uname", stranger, "daemon", self, "1"},
		{"tcp://127.0.0.1:0?trust=uname", stranger, "root", "1", "1"}, // n_uname wins
		{"tcp://127.0.0.1:0?trust=uname", stranger, "", self, "65534"},
		{"tcp://127.0.0.1:0?trust=uname", stranger, "nobody", self, "65534"},
		{"tcp://127.0.0.1:0?trust=uname", 0, "nobody", self, "65534"},
		{"tcp://127.0.0.1:0?trust=uname", 0, "root", self, "65534"},
		{"tcp://127.0.0.1:0?trust=uname", stranger, "", "0", "65534"},
		{"tcp://127.0.0.1:0?trust=uname", stranger, "no-such-user", self, accessNo},
		{"tcp://127.0.0.1:0?trust=uname", stranger, "", "4321", accessNo},
		{"tcp://127.0.0.1:0?trust=uname", stranger, "root\x00x", self, accessNo},
		{"tcp://127.0.0.1:0?trust=uname&no_root_squash", stranger, "root", self, "0"},
		{"tcp://127.0.0.1:0?trust=uname&no_root_squash", stranger, "", "0", "0"},
		{"tcp://0.0.0.0:0?trust=uname", stranger, "daemon", self, "1"},
	} {
		name := fmt.Sprintf("%s/uid%d/%q/%s", strings.ReplaceAll(tt.export, "/", ""), tt.uid, tt.uname, tt.nuname)
		t.Run(name, func(t *testing.T) {
			tree := p9test.NewTree()
			a := listen(t, tree, tt.export)
			answer := peerProcess(t, a, &syscall.Credential{Uid: tt.uid, Gid: 4322, Groups: []uint32{4323}}, tt.uname, tt.nuname)
			got, refused := strings.CutPrefix(answer, "Rlerror 1 ")
			c := tree.Caller()
			if !refused && c != nil {
				got = fmt.Sprint(c.UID)
			}
			if got != tt.want {
				t.Fatalf("is %s (%s), want %s", got, answer, tt.want)
			}
			if refused {
				if c != nil {
					t.Errorf("the tree was attached to by %+v", c)
				}
				return
			}
			checkCaller(t, c, a, tt.uid)
		})
	}
}

func checkCaller(t *testing.T, c *ops.Caller, a p9srv.Addr, uid uint32) {
	t.Helper()
	if c.Local != (a.Network == "unix") {
		t.Errorf("local is %v on %s", c.Local, a.Network)
	}
	if len(c.GIDs) == 0 || c.Peer == "" || c.Origin == "" {
		t.Errorf("caller is %+v", c)
	}
	switch {
	case c.UID == 65534 && !slices.Equal(c.GIDs, []uint32{65534}):
		t.Errorf("nobody's groups are %v", c.GIDs)
	case c.UID == uid && c.Local && (c.GIDs[0] != 4322 || !slices.Contains(c.GIDs, 4323)):
		t.Errorf("groups are %v, not those that the process has", c.GIDs)
	case c.UID == 1 && !slices.Contains(c.GIDs, 1):
		t.Errorf("daemon's groups are %v", c.GIDs)
	}
}

// TestManyGroups has a peer with more groups than are first asked for.
func TestManyGroups(t *testing.T) {
	cred := &syscall.Credential{Uid: 4321, Gid: 4322}
	for i := range uint32(100) {
		cred.Groups = append(cred.Groups, 5000+i)
	}
	tree := p9test.NewTree()
	peerProcess(t, listen(t, tree, "unix:"), cred, "", "~")
	if c := tree.Caller(); c == nil || len(c.GIDs) != 101 {
		t.Errorf("caller is %+v", c)
	}
}

// TestKeptByFids: who a fid's requests are made for is told at its attach.
func TestKeptByFids(t *testing.T) {
	tree := p9test.NewTree()
	w := dial(t, listen(t, tree, "tcp://127.0.0.1:0?trust=uname"))
	w.Script(`
		Tversion ~ 8192 9P2000.L
		Rversion ~ 8192 "9P2000.L"
		Tattach 1 0 ~ daemon "" ~
		Rattach 1 d1`)
	first := tree.Caller()
	w.Script(`
		Tattach 1 1 ~ sys "" ~
		Rattach 1 d1
		Twalk 1 0 2
		Rwalk 1`)
	if second := tree.Caller(); first == second || first.UID != 1 || second.UID == 1 {
		t.Errorf("callers are %+v and %+v", first, second)
	}
}
