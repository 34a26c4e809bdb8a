package workspace

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"maps"
	"slices"
)

// A memoEntry is a digest and the stat of the file it is of.
type memoEntry struct {
	stat   stat
	sha256 [32]byte
	blob   [20]byte
}

func (e memoEntry) digest() Digest { return Digest{e.sha256, e.blob, e.stat.size} }

// The value of one directory in a memo: a version byte, the entries sorted by name, and a CRC-32C of it all, least significant
// byte first. An entry is the name's length and the name, size, mtime and ctime as seconds and nanoseconds, inode, SHA-256 and
// blob id. Numbers are varints, seconds signed ones.
const memoVersion = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func encodeMemo(entries map[string]memoEntry) []byte {
	b := make([]byte, 0, 1+len(entries)*100+4)
	b = append(b, memoVersion)
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		e := entries[name]
		b = binary.AppendUvarint(b, uint64(len(name)))
		b = append(b, name...)
		b = e.stat.append(b)
		b = append(b, e.sha256[:]...)
		b = append(b, e.blob[:]...)
	}
	return appendSum(b)
}

func (s stat) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(s.size))
	for _, t := range [...]timespec{s.mtime, s.ctime} {
		b = binary.AppendVarint(b, t.sec)
		b = binary.AppendUvarint(b, uint64(t.nsec))
	}
	return binary.AppendUvarint(b, s.inode)
}

func appendSum(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// checkSum returns what appendSum was given, if that is what it returned.
func checkSum(b []byte) (body []byte, ok bool) {
	if len(b) < 4 {
		return nil, false
	}
	body, sum := b[:len(b)-4], b[len(b)-4:]
	return body, crc32.Checksum(body, castagnoli) == binary.LittleEndian.Uint32(sum)
}

var errMemo = errors.New("broken memo")

func decodeMemo(b []byte) (map[string]memoEntry, error) {
	b, ok := checkSum(b)
	if !ok || len(b) == 0 || b[0] != memoVersion {
		return nil, errMemo
	}
	r := memoReader{b: b[1:]}
	entries := make(map[string]memoEntry, len(b)/100)
	for len(r.b) > 0 && !r.bad {
		name := string(r.take(r.uvarint()))
		var e memoEntry
		e.stat = r.stat()
		copy(e.sha256[:], r.take(32))
		copy(e.blob[:], r.take(20))
		entries[name] = e
	}
	if r.bad {
		return nil, errMemo
	}
	return entries, nil
}

// A memoReader reads until something is missing, and then zeros.
type memoReader struct {
	b   []byte
	bad bool
}

func (r *memoReader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	p := r.b[:n]
	r.b = r.b[n:]
	return p
}

// stat is what [stat.append] appended.
func (r *memoReader) stat() (s stat) {
	s.size = int64(r.uvarint())
	for _, t := range [...]*timespec{&s.mtime, &s.ctime} {
		t.sec = r.varint()
		t.nsec = int32(r.uvarint())
	}
	s.inode = r.uvarint()
	return s
}

func (r *memoReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	r.take(width(n))
	return v
}

func (r *memoReader) varint() int64 {
	v, n := binary.Varint(r.b)
	r.take(width(n))
	return v
}

// width turns a count of bytes, of which none or less means a bad number, into one to take.
func width(n int) uint64 {
	if n <= 0 {
		return 1 << 63
	}
	return uint64(n)
}
