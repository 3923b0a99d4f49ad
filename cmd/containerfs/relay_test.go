package main

import (
	"context"
	"net"
	"testing"

	"containerfs/p9srv"
)

// TestRelayOfSilentServer: the process of a mount over TLS or ssh ends with the mount, though its
// server answers no more.
func TestRelayOfSilentServer(t *testing.T) {
	server, err := net.Dial("unix", silentServer(t))
	if err != nil {
		t.Fatal(err)
	}
	kernel, client := net.Pipe()
	kernel.Close()
	if err := keepUp(context.Background(), client, whole{server}, p9srv.Addr{}, 0, nil); err != nil {
		t.Error(err)
	}
}
