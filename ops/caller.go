package ops

import "slices"

// Caller is who requests are made for. It is fixed when a client attaches and
// every file reached from that attach keeps it (SPEC §17). The transport fills
// it in from what the kernel says of the connection; nothing here believes a
// client.
type Caller struct {
	UID  uint32
	GIDs []uint32 // the primary group first, then the supplementary ones

	// Local is set for a peer on a unix socket. Only local callers can be
	// given what must not cross a network (release agents, protected tasks).
	Local bool

	// ReadOnly makes whatever would change something EROFS.
	ReadOnly bool

	// Confined is the attach name of a hierarchy, or of a container in one, that
	// all attaches are inside of; "" if they are not confined.
	Confined string

	// Peer names the connection in logs and audit lines, and Origin where it
	// comes from, the same for all connections from there. They decide nothing.
	Peer, Origin string
}

// InGroup reports whether gid is one of the caller's groups.
func (c *Caller) InGroup(gid uint32) bool { return slices.Contains(c.GIDs, gid) }

// gid is the group that what the caller makes belongs to.
func (c *Caller) gid() uint32 {
	if len(c.GIDs) == 0 {
		return nobody
	}
	return c.GIDs[0]
}

// nobody is the uid and gid of who has none.
const nobody = 65534
