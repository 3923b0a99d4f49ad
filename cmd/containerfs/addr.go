package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// defaultAddr is the unix socket of serve: the host's for root, the user's own
// for others.
func defaultAddr() string {
	dir := "/run"
	if runtime := os.Getenv("XDG_RUNTIME_DIR"); os.Geteuid() != 0 && filepath.IsAbs(runtime) {
		dir = runtime
	}
	return "unix://" + filepath.Join(dir, "containerfs/9p.sock")
}

// parseAddr reads tcp://HOST:PORT, unix:///PATH, tcp!HOST!PORT and unix!PATH.
func parseAddr(addr string) (network, address string, err error) {
	if network, rest, ok := strings.Cut(addr, "!"); ok && !strings.Contains(network, ":") {
		switch network {
		case "tcp":
			host, port, ok := strings.Cut(rest, "!")
			if ok && port != "" {
				return network, host + ":" + port, nil
			}
		case "unix":
			if rest != "" {
				return network, rest, nil
			}
		}
		return "", "", errors.New("want tcp!HOST!PORT or unix!PATH")
	}
	u, err := url.Parse(addr)
	switch {
	case err != nil:
		return "", "", errors.New("not an address")
	case u.Scheme == "tcp" && u.Port() != "" && u.Path == "":
		return "tcp", u.Host, nil
	case u.Scheme == "unix" && u.Host == "" && strings.HasPrefix(u.Path, "/"):
		return "unix", u.Path, nil
	}
	return "", "", fmt.Errorf("want tcp://HOST:PORT or unix:///PATH")
}
