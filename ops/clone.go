package ops

import (
	"os"

	"containerfs/tree"
)

// CloneData makes what a container that tree.Clone made carries: it belongs to
// the server's user, so that whom it was made for cannot change what limits it.
// It is tree.Config's CloneData.
func CloneData(*tree.Container) any {
	return newAttrs(uint32(os.Geteuid()), uint32(os.Getegid()), 0o755)
}
