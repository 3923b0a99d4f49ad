package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"hash/fnv"

	"go.etcd.io/bbolt"
)

// What is known of bbolt's file, of version 2: two meta pages, then pages of
// trees. A page has a header of 16 bytes, a meta 64 bytes after it.
const (
	headerSize = 16
	metaSize   = 64
	magic      = 0xED0CDAED
	version    = 2

	branchPage = 0x01
	leafPage   = 0x02
	metaPage   = 0x04

	noFreelist = ^uint64(0)
)

// damaged is verify's error, but of a newer format.
func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}

// A verifier looks at all of a file without changing it.
type verifier struct {
	file     []byte
	pageSize uint64
	pages    uint64 // that the file should have
	seen     []bool
	row      func(bucket string, key, value []byte) error
	sum      digest
	stored   []byte // the digest's row
}

// verify looks at every page and every row, and calls f for each row: what it
// gets is a part of file.
func verify(file []byte, f func(bucket string, key, value []byte) error) (digest, error) {
	v := &verifier{file: file, row: f}
	root, err := v.metas()
	if err != nil {
		return digest{}, err
	}
	v.seen = make([]bool, v.pages)
	v.seen[0], v.seen[1] = true, true
	err = v.page(root, "", true, nil, nil)
	if err != nil {
		return digest{}, err
	}
	if !bytes.Equal(v.stored, v.sum.row()) {
		return digest{}, damaged("rows are missing, or are of another time")
	}
	return v.sum, nil
}

// metas finds the root page by the meta pages. Both must be right: the one that is
// wrong may be the newer one.
func (v *verifier) metas() (root uint64, err error) {
	var newest, freelist uint64
	for i := range uint64(2) {
		at := i * v.pageSize
		if at+headerSize+metaSize > uint64(len(v.file)) {
			return 0, damaged("truncated to %d bytes", len(v.file))
		}
		page := v.file[at:]
		if binary.NativeEndian.Uint64(page) != i || binary.NativeEndian.Uint16(page[8:]) != metaPage {
			return 0, damaged("meta page %d", i)
		}
		m := page[headerSize : headerSize+metaSize]
		sum := fnv.New64a()
		sum.Write(m[:metaSize-8])
		size := uint64(binary.NativeEndian.Uint32(m[8:]))
		switch {
		case binary.NativeEndian.Uint32(m) != magic:
			return 0, damaged("meta page %d is of no database", i)
		case sum.Sum64() != binary.NativeEndian.Uint64(m[56:]):
			return 0, damaged("checksum of meta page %d", i)
		case binary.NativeEndian.Uint32(m[4:]) != version:
			return 0, fmt.Errorf("%w: database version %d", ErrNewer, binary.NativeEndian.Uint32(m[4:]))
		case size < 512 || i == 1 && size != v.pageSize:
			return 0, damaged("page size %d", size)
		}
		v.pageSize = size
		if id := binary.NativeEndian.Uint64(m[48:]); i == 0 || id > newest {
			newest = id
			root = binary.NativeEndian.Uint64(m[16:])
			v.pages = binary.NativeEndian.Uint64(m[40:])
			freelist = binary.NativeEndian.Uint64(m[32:])
		}
	}
	if freelist != noFreelist {
		return 0, damaged("there is a list of free pages, which no server writes")
	}
	if have := uint64(len(v.file)) / v.pageSize; v.pages > have || v.pages < 2 {
		return 0, damaged("truncated to %d of %d pages", have, v.pages)
	}
	return root, nil
}

// page looks at a page of the tree of a bucket, or of that of the buckets, and at
// what is below. Its keys are from low on and below high, where these are given.
func (v *verifier) page(id uint64, bucket string, top bool, low, high []byte) error {
	if id < 2 || id >= v.pages {
		return damaged("page %d of %d", id, v.pages)
	}
	page := v.file[id*v.pageSize:]
	overflow := uint64(binary.NativeEndian.Uint32(page[12:]))
	if binary.NativeEndian.Uint64(page) != id || id+overflow >= v.pages {
		return damaged("page %d", id)
	}
	for i := id; i <= id+overflow; i++ {
		if v.seen[i] {
			return damaged("page %d is in two places", i)
		}
		v.seen[i] = true
	}
	return v.elements(page[:(overflow+1)*v.pageSize], bucket, top, low, high)
}

// elements looks at what is in a page.
func (v *verifier) elements(page []byte, bucket string, top bool, low, high []byte) error {
	flags, count := binary.NativeEndian.Uint16(page[8:]), int(binary.NativeEndian.Uint16(page[10:]))
	if flags != branchPage && flags != leafPage || headerSize+count*16 > len(page) || flags == branchPage && count == 0 {
		return damaged("a page of %s", nameOf(bucket))
	}
	if flags == leafPage {
		return v.leaf(page, count, bucket, top, low, high)
	}
	var keys [][]byte
	var ids []uint64
	for i := range count {
		e := page[headerSize+i*16:]
		pos, size := uint64(binary.NativeEndian.Uint32(e)), uint64(binary.NativeEndian.Uint32(e[4:]))
		key, ok := within(e, pos, size)
		if !ok {
			return damaged("a key of %s", nameOf(bucket))
		}
		keys = append(keys, key)
		ids = append(ids, binary.NativeEndian.Uint64(e[8:]))
	}
	for i, key := range keys {
		if i == 0 && low != nil && bytes.Compare(key, low) < 0 || i > 0 && bytes.Compare(keys[i-1], key) >= 0 {
			return damaged("the order of keys of %s", nameOf(bucket))
		}
		end := high
		if i+1 < count {
			end = keys[i+1]
		}
		if err := v.page(ids[i], bucket, top, key, end); err != nil {
			return err
		}
	}
	return nil
}

func (v *verifier) leaf(page []byte, count int, bucket string, top bool, low, high []byte) error {
	var last []byte
	for i := range count {
		e := page[headerSize+i*16:]
		flags := binary.NativeEndian.Uint32(e)
		pos, ksize, vsize := uint64(binary.NativeEndian.Uint32(e[4:])), uint64(binary.NativeEndian.Uint32(e[8:])), uint64(binary.NativeEndian.Uint32(e[12:]))
		both, ok := within(e, pos, ksize+vsize)
		if !ok {
			return damaged("a row of %s", nameOf(bucket))
		}
		key, value := both[:ksize], both[ksize:]
		if i == 0 && low != nil && bytes.Compare(key, low) < 0 ||
			high != nil && bytes.Compare(key, high) >= 0 ||
			i > 0 && bytes.Compare(last, key) >= 0 {
			return damaged("the order of keys of %s", nameOf(bucket))
		}
		last = key
		if flags > 1 || (flags == 1) != top {
			return damaged("a row of %s is of the wrong kind", nameOf(bucket))
		}
		var err error
		if top {
			err = v.bucket(string(key), value)
		} else {
			err = v.leafRow(bucket, key, value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// bucket looks at a bucket, which may be a page inside of its header's row.
func (v *verifier) bucket(name string, value []byte) error {
	if len(value) < 16 {
		return damaged("bucket %q", name)
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return v.page(root, name, false, nil, nil)
	}
	if len(value) < 16+headerSize {
		return damaged("bucket %q", name)
	}
	return v.elements(value[16:], name, false, nil, nil)
}

func (v *verifier) leafRow(bucket string, key, row []byte) error {
	if len(row) < sumSize {
		return damaged("a row of %s", nameOf(bucket))
	}
	value := row[:len(row)-sumSize]
	if checksum(bucket, key, value) != binary.LittleEndian.Uint32(row[len(value):]) {
		return damaged("checksum of a row of %s", nameOf(bucket))
	}
	if bucket == digestBucket {
		v.stored = value
		return nil
	}
	v.sum.add(row)
	return v.row(bucket, key, value)
}

func within(e []byte, pos, size uint64) ([]byte, bool) {
	if pos < 16 || pos+size > uint64(len(e)) {
		return nil, false
	}
	return e[pos : pos+size], true
}

func nameOf(bucket string) string {
	if bucket == "" {
		return "the buckets"
	}
	return fmt.Sprintf("bucket %q", bucket)
}

// sumSize is the length of the checksum at the end of each row.
const sumSize = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(bucket string, key, value []byte) uint32 {
	sum := crc32.Update(0, castagnoli, []byte(bucket))
	sum = crc32.Update(sum, castagnoli, []byte{0})
	sum = crc32.Update(sum, castagnoli, key)
	sum = crc32.Update(sum, castagnoli, []byte{0})
	return crc32.Update(sum, castagnoli, value)
}

// seal makes a row of a value.
func seal(bucket string, key, value []byte) []byte {
	row := append(make([]byte, 0, len(value)+sumSize), value...)
	return binary.LittleEndian.AppendUint32(row, checksum(bucket, key, value))
}

// digest is of all rows together.
type digest struct{ count, sum uint64 }

func (d *digest) add(row []byte) {
	d.count++
	d.sum += mixed(row)
}

func (d *digest) remove(row []byte) {
	d.count--
	d.sum -= mixed(row)
}

// mixed is the checksum of a row, spread over all bits.
func mixed(row []byte) uint64 {
	x := uint64(binary.LittleEndian.Uint32(row[len(row)-sumSize:])) * 0x9E3779B97F4A7C15
	return x ^ x>>29
}

func (d digest) row() []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, d.count), d.sum)
}

const digestBucket = "digest"

var digestKey = []byte("rows")

func (d digest) put(tx *bbolt.Tx) error {
	return tx.Bucket([]byte(digestBucket)).Put(digestKey, seal(digestBucket, digestKey, d.row()))
}
