package p9srv

import (
	"strings"
	"syscall"

	"containerfs/p9srv/wire"
)

// classic is 9P2000, what Plan 9 and its ports speak. Bodies are read by the
// decoder of package wire, not by UnmarshalFcall of 9fans.net/go/plan9: that
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

func decodeClassicAuth(r *request, d *wire.Decoder) {
	r.afid, r.name, r.name2 = d.U32(), d.Str(), d.Str()
}

func decodeClassicAttach(r *request, d *wire.Decoder) {
	r.fid, r.afid, r.name, r.name2, r.uid = d.U32(), d.U32(), d.Str(), d.Str(), wire.NoUID
}

func decodeOpen(r *request, d *wire.Decoder) { r.fid, r.flags = d.U32(), uint32(d.U8()) }

func decodeCreate(r *request, d *wire.Decoder) {
	r.fid, r.name, r.mode, r.flags = d.U32(), d.Str(), d.U32(), uint32(d.U8())
}

func decodeWstat(r *request, d *wire.Decoder) { r.fid, r.data = d.U32(), d.Take(int(d.U16())) }

func appendRerror(out []byte, tag uint16, err error) []byte {
	start := len(out)
	out = wire.Begin(out, 107, tag)
	return wire.End(wire.AppendString(out, errorText(err)), start)
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
