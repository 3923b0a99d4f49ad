package p9srv

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hugelgupf/p9/linux"
)

// TestErrorTexts has the texts be what clients look them up by: Linux' 9P2000
// whole and to the letter (net/9p/error.c; what it does not know is 526 there), 9pfuse
// the first word of its list that is in it (src/cmd/9pfuse/errstr.c of plan9port).
func TestErrorTexts(t *testing.T) {
	linuxKnows := map[string]linux.Errno{
		"Operation not permitted": linux.EPERM, "No such file or directory": linux.ENOENT, "Input/output error": linux.EIO,
		"Argument list too long": linux.E2BIG, "Bad file descriptor": linux.EBADF, "Resource temporarily unavailable": linux.EAGAIN,
		"Cannot allocate memory": linux.ENOMEM, "Permission denied": linux.EACCES, "Device or resource busy": linux.EBUSY,
		"File exists": linux.EEXIST, "Invalid cross-device link": linux.EXDEV, "No such device": linux.ENODEV,
		"Not a directory": linux.ENOTDIR, "Is a directory": linux.EISDIR, "Invalid argument": linux.EINVAL,
		"Too many open files": linux.EMFILE, "File too large": linux.EFBIG, "No space left on device": linux.ENOSPC,
		"Read-only file system": linux.EROFS, "Numerical result out of range": linux.ERANGE, "File name too long": linux.ENAMETOOLONG,
		"Function not implemented": linux.ENOSYS, "Directory not empty": linux.ENOTEMPTY, "Message too long": linux.EMSGSIZE,
		"Operation not supported": linux.EOPNOTSUPP,
	}
	fuse := func(text string) linux.Errno {
		for _, row := range []struct {
			words string
			errno linux.Errno
		}{
			{"permitted", linux.EPERM}, {"permission", linux.EACCES}, {"access", linux.EACCES}, {"exists", linux.EEXIST},
			{"exist", linux.ENOENT}, {"no such", linux.ENOENT}, {"not found", linux.ENOENT}, {"input/output", linux.EIO},
			{"timeout", linux.ETIMEDOUT}, {"timed out", linux.ETIMEDOUT}, {"i/o", linux.EIO}, {"too long", linux.E2BIG},
			{"interrupt", linux.EINTR}, {"bad file", linux.EBADF}, {" fid ", linux.EBADF}, {"temporar", linux.EAGAIN},
			{"memory", linux.ENOMEM}, {"is a directory", linux.EISDIR}, {"directory", linux.ENOTDIR}, {"argument", linux.EINVAL},
			{"pipe", linux.EPIPE}, {"in use", linux.EBUSY}, {"busy", linux.EBUSY}, {"illegal", linux.EINVAL},
			{"read-only", linux.EROFS}, {"read only", linux.EROFS}, {"proto", linux.EPROTO}, {"entry", linux.ENOENT},
		} {
			if strings.Contains(strings.ToLower(text), row.words) {
				return row.errno
			}
		}
		return linux.ERANGE
	}
	for _, tt := range []struct{ errno, fuse linux.Errno }{
		{linux.EPERM, linux.EPERM}, {linux.ENOENT, linux.ENOENT}, {linux.EIO, linux.EIO}, {linux.E2BIG, linux.E2BIG},
		{linux.EBADF, linux.EBADF}, {linux.EAGAIN, linux.EAGAIN}, {linux.ENOMEM, linux.ENOMEM}, {linux.EACCES, linux.EACCES},
		{linux.EBUSY, linux.EBUSY}, {linux.EEXIST, linux.EEXIST}, {linux.ENOTDIR, linux.ENOTDIR}, {linux.EISDIR, linux.EISDIR},
		{linux.EINVAL, linux.EINVAL}, {linux.EROFS, linux.EROFS}, {linux.ERANGE, linux.ERANGE},
		// What 9pfuse has no word for:
		{linux.ENODEV, linux.ENOENT}, {linux.ENAMETOOLONG, linux.E2BIG}, {linux.EMSGSIZE, linux.E2BIG},
		{linux.ENOTEMPTY, linux.ENOTDIR}, {linux.ENOSPC, linux.ERANGE}, {linux.EMFILE, linux.ERANGE}, {linux.EXDEV, linux.ERANGE},
		{linux.EFBIG, linux.ERANGE}, {linux.EOPNOTSUPP, linux.ERANGE}, {linux.ENOSYS, linux.ERANGE},
	} {
		text := errorText(fmt.Errorf("wrapped: %w", tt.errno))
		if linuxKnows[text] != tt.errno {
			t.Errorf("%v: Linux does not know %q", tt.errno, text)
		}
		if got := fuse(text); got != tt.fuse {
			t.Errorf("%v: %q is %v to 9pfuse", tt.errno, text, got)
		}
	}
	// Linux knows no text for it; people do.
	if text := errorText(linux.ESRCH); text != "No such process" {
		t.Errorf("%q", text)
	}
	if text := errorText(linux.Errno(999)); text != "Errno 999" {
		t.Errorf("%q", text)
	}
}
