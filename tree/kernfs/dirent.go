package kernfs

import (
	"bytes"
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Where getdents64(2) has what it tells of an entry. The kernel's type for one is
// longer than most are, so it must not be laid over what is left of a buffer.
const (
	direntReclen = unsafe.Offsetof(unix.Dirent{}.Reclen)
	direntType   = unsafe.Offsetof(unix.Dirent{}.Type)
	direntName   = unsafe.Offsetof(unix.Dirent{}.Name)
)

// NextDirent takes the first entry off what getdents64(2) has filled in: its type,
// which is a DT_, and its name.
func NextDirent(b []byte) (kind uint8, name, rest []byte) {
	end := binary.NativeEndian.Uint16(b[direntReclen:])
	name, _, _ = bytes.Cut(b[direntName:end], []byte{0})
	return b[direntType], name, b[end:]
}
