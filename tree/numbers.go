package tree

import (
	"encoding/binary"
	"syscall"
)

// What a Saver saves is numbers, mostly: these put them into bytes.

// AppendNumbers appends numbers.
func AppendNumbers(b []byte, numbers ...uint64) []byte {
	for _, n := range numbers {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

// Numbers reads back what AppendNumbers appended. EINVAL where that is not so many
// numbers, and nothing else.
func Numbers(b []byte, numbers ...*uint64) error {
	for _, n := range numbers {
		v, size := binary.Uvarint(b)
		if size <= 0 {
			return syscall.EINVAL
		}
		*n, b = v, b[size:]
	}
	if len(b) > 0 {
		return syscall.EINVAL
	}
	return nil
}

// AllNumbers reads back what AppendNumbers appended, however many.
func AllNumbers(b []byte) (numbers []uint64, err error) {
	for len(b) > 0 {
		n, size := binary.Uvarint(b)
		if size <= 0 {
			return nil, syscall.EINVAL
		}
		numbers, b = append(numbers, n), b[size:]
	}
	return numbers, nil
}
