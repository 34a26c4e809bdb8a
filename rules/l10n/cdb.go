package l10n

import (
	"encoding/binary"
	"slices"
)

// cdbHash is CDB's hash of a key.
func cdbHash(key string) uint32 {
	h := uint32(5381)
	for i := range len(key) {
		h = h<<5 + h ^ uint32(key[i])
	}
	return h
}

// cdbHeader is the size of the table of tables that a CDB file begins with.
const cdbHeader = 2048

// A cdbEntry is where a record is, from the file's beginning, and the hash of its key.
type cdbEntry struct{ hash, pos uint32 }

// finishCDB writes the hash tables behind the records that begin at dst[start+cdbHeader], and their places into the header, as
// class Cdb\Writer\PHP does: 256 tables with twice as many slots as entries, filled in the order of the records.
func finishCDB(dst []byte, start int, entries []cdbEntry) []byte {
	var counts, at [256]uint32
	for _, e := range entries {
		counts[e.hash&255]++
	}
	tables := len(dst)
	dst = grow(dst, len(entries)*16)
	clear(dst[tables:])
	header, pos := dst[start:], uint32(tables-start)
	for i := range counts {
		binary.LittleEndian.PutUint32(header[i*8:], pos)
		binary.LittleEndian.PutUint32(header[i*8+4:], counts[i]*2)
		at[i] = pos
		pos += counts[i] * 16
	}
	for _, e := range entries {
		t := e.hash & 255
		slots := counts[t] * 2
		table := header[at[t]:][:slots*8]
		where := e.hash >> 8 % slots * 8
		for binary.LittleEndian.Uint32(table[where+4:]) != 0 {
			if where += 8; where == slots*8 {
				where = 0
			}
		}
		binary.LittleEndian.PutUint32(table[where:], e.hash)
		binary.LittleEndian.PutUint32(table[where+4:], e.pos)
	}
	return dst
}

// beginRecord begins a record: its value is to come behind it, and then endRecord.
func beginRecord(dst []byte, key string) []byte {
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0)
	return append(dst, key...)
}

// endRecord sets the lengths of the record that begins at start.
func endRecord(dst []byte, start, key int) []byte {
	binary.LittleEndian.PutUint32(dst[start:], uint32(key))
	binary.LittleEndian.PutUint32(dst[start+4:], uint32(len(dst)-start-8-key))
	return dst
}

// grow makes dst n bytes longer; their contents are undefined.
func grow(dst []byte, n int) []byte {
	return slices.Grow(dst, n)[:len(dst)+n]
}
