package tests

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/hugelgupf/p9/p9"
)

// twoHosts makes a second host out of a network namespace: 10.177.0.1 is here and
// 10.177.0.2 there. Both ends and the namespace are removed with the test.
func twoHosts(t testing.TB) (run func(args ...string) (int, string)) {
	t.Helper()
	needHost(t)
	name := fmt.Sprintf("cfs%d", os.Getpid())
	ip := func(args string) error {
		out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ip %s: %v: %s", args, err, out)
		}
		return nil
	}
	// The probe: namespaces can be made; the kernel has none, or we may not; or
	// something else is wrong, which is no reason to skip.
	if err := ip("netns add " + name); err != nil {
		why := err.Error()
		switch {
		case strings.Contains(why, "executable file not found"), strings.Contains(why, "not permitted"), strings.Contains(why, "Invalid argument"):
			lacking(t, "netns", "no network namespaces here: "+why)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ip("netns del " + name); err != nil { // and the pair with it
			t.Error(err)
		}
		ip("link del " + name + "a") // if it was not moved there yet
	})
	for _, args := range []string{
		"link add " + name + "a type veth peer name " + name + "b netns " + name,
		"addr add 10.177.0.1/24 dev " + name + "a",
		"link set " + name + "a up",
		"-n " + name + " addr add 10.177.0.2/24 dev " + name + "b",
		"-n " + name + " link set " + name + "b up",
		"-n " + name + " link set lo up",
	} {
		if err := ip(args); err != nil {
			if strings.Contains(err.Error(), "Unknown device type") || strings.Contains(err.Error(), "not supported") {
				lacking(t, "netns", "no veth here: "+err.Error())
			}
			t.Fatal(err)
		}
	}
	return func(args ...string) (int, string) {
		t.Helper()
		c := exec.Command("ip", append([]string{"netns", "exec", name, "containerfs"}, args...)...)
		out, err := c.CombinedOutput()
		if _, exited := err.(*exec.ExitError); err != nil && !exited {
			t.Fatal(err)
		}
		return c.ProcessState.ExitCode(), string(out)
	}
}

// TestTwoHosts: peers from another host are who their listener says, from where it
// allows, in what it exports; this host's loopback is no way in for them.
func TestTwoHosts(t *testing.T) {
	there := twoHosts(t)
	const unavailable = 75
	s := startServer(t,
		"--listen", "tcp://10.177.0.1:5640?as=daemon&access=rw&allow=10.177.0.0/24&attach=/all/vm",
		"--listen", "tcp://10.177.0.1:5641?as=daemon&allow=10.177.0.1",
		"--listen", "tcp://10.177.0.1:5642?trust=uname&access=ro",
		"--listen", "tcp://127.0.0.2:0")
	s.run("mkdir", "/all/vm", "/all/shut")
	s.client("").setAttr("/all/vm", 1, 0o755)
	server := func(port string) string { return "tcp://10.177.0.1:" + port }
	for _, tt := range []struct {
		args []string
		want int
	}{
		{[]string{"--server", server("5640"), "mkdir", "/mine"}, ok},
		{[]string{"--server", server("5640"), "ls", "/mine"}, ok},
		{[]string{"--server", server("5640"), "mkdir", "/../mine"}, ok + 1}, // exists: it is the same place
		{[]string{"--server", server("5640"), "ls", "/all"}, notFound},
		{[]string{"--server", server("5640"), "read", "/ctl"}, notFound},
		{[]string{"--server", server("5640"), "write", "/tasks", "1"}, notPermitted},
		{[]string{"--server", server("5641"), "ls", "/"}, unavailable},
		{[]string{"--server", server("5642"), "ls", "/all"}, ok},
		{[]string{"--server", server("5642"), "mkdir", "/all/x"}, notPermitted},
		{[]string{"--server", s.at("127.0.0.2"), "ls", "/"}, unavailable},
	} {
		if code, output := there(tt.args...); code != tt.want {
			t.Errorf("%v: exit code %d, want %d\n%s", tt.args, code, tt.want, output)
		}
	}
	f, err := s.client("").walk("/all/vm/mine")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, _, attr, err := f.GetAttr(p9.AttrMaskAll); err != nil || attr.UID != 1 {
		t.Errorf("what was made there is uid %d's, %v", attr.UID, err)
	}
	if log := s.log.String(); !strings.Contains(log, `level=WARN msg="connection refused" peer="tcp 10.177.0.2:`) {
		t.Errorf("no line about who came from where he may not")
	}
}
