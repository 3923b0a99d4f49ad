package p9srv

import (
	"strings"
	"syscall"
)

// classic is 9P2000, what Plan 9 and its ports speak. Bodies are read by the
// decoder of this package, not by UnmarshalFcall of 9fans.net/go/plan9: that
// allocates for each message and prints a line on standard error for each
// malformed one, which lets a client fill a log. It is the tests' other opinion, and
// stat records are its.
var classic = &dialect{version: "9P2000", appendError: appendRerror}

func init() {
	classic.messages = [256]message{
		102: {"Tauth", decodeClassicAuth, quick, (*session).auth},
		104: {"Tattach", decodeClassicAttach, slow, (*session).attach},
		110: {"Twalk", decodeWalk, quick, (*session).walk},
		112: {"Topen", decodeOpen, asks, (*session).open},
		114: {"Tcreate", decodeCreate, slow, (*session).create},
		116: {"Tread", decodeRead, asks, (*session).readAny},
		118: {"Twrite", decodeWrite, writes, (*session).write},
		120: {"Tclunk", decodeFid, asks, (*session).clunk},
		122: {"Tremove", decodeFid, slow, (*session).remove},
		124: {"Tstat", decodeFid, quick, (*session).stat},
		126: {"Twstat", decodeWstat, slow, (*session).wstat},
	}
}

func decodeClassicAuth(r *request, d *decoder) { r.afid, r.name, r.name2 = d.u32(), d.str(), d.str() }

func decodeClassicAttach(r *request, d *decoder) {
	r.fid, r.afid, r.name, r.name2, r.uid = d.u32(), d.u32(), d.str(), d.str(), noUID
}

func decodeOpen(r *request, d *decoder) { r.fid, r.flags = d.u32(), uint32(d.u8()) }

func decodeCreate(r *request, d *decoder) {
	r.fid, r.name, r.mode, r.flags = d.u32(), d.str(), d.u32(), uint32(d.u8())
}

func decodeWstat(r *request, d *decoder) { r.fid, r.data = d.u32(), d.take(int(d.u16())) }

func appendRerror(out []byte, tag uint16, err error) []byte {
	start := len(out)
	out = beginReply(out, 107, tag)
	return endReply(appendString(out, errorText(err)), start)
}

// errorText is what an error is told as where there are no numbers: strerror(3)'s
// words to the letter, since Linux looks them up whole. 9pfuse looks for words
// in them. Both then have the same number, as far as they know of it.
func errorText(err error) string {
	if err == errNoAuth {
		return noAuth
	}
	errno, _ := errnoOf(err)
	text := syscall.Errno(errno).Error()
	return strings.ToUpper(text[:1]) + text[1:]
}
