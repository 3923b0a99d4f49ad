package ops

import "strconv"

func appendNumber(b []byte, v uint64) []byte {
	return append(strconv.AppendUint(b, v, 10), '\n')
}

func appendFlag(b []byte, on bool) []byte {
	if on {
		return append(b, "1\n"...)
	}
	return append(b, "0\n"...)
}
