package l10n

import (
	"encoding/binary"
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// lookup finds a key in a CDB file as its specification says: through the tables.
func lookup(data []byte, key string) ([]byte, bool) {
	h := cdbHash(key)
	le := binary.LittleEndian
	table, slots := le.Uint32(data[h%256*8:]), le.Uint32(data[h%256*8+4:])
	for i := range slots {
		slot := data[table+(h>>8+i)%slots*8:]
		pos := le.Uint32(slot[4:])
		if pos == 0 {
			break
		}
		if le.Uint32(slot) != h {
			continue
		}
		k, v := le.Uint32(data[pos:]), le.Uint32(data[pos+4:])
		if string(data[pos+8:pos+8+k]) == key {
			return data[pos+8+k : pos+8+k+v], true
		}
	}
	return nil, false
}

// cdbRecord is a record as it lies in a file.
type cdbRecord struct {
	key, value string
}

// cdbRecords reads the records of a CDB file in their order, and where they end.
func cdbRecords(data []byte) (all []cdbRecord, end int) {
	le := binary.LittleEndian
	at, end := 2048, int(le.Uint32(data))
	for at < end {
		key := at + 8 + int(le.Uint32(data[at:]))
		value := key + int(le.Uint32(data[at+4:]))
		all = append(all, cdbRecord{string(data[at+8 : key]), string(data[key:value])})
		at = value
	}
	return all, end
}

// checkCDB finds each record through the tables, and that these hold nothing else. It returns the records' bytes.
func checkCDB(t fataler, data []byte) []byte {
	records, end := cdbRecords(data)
	for _, r := range records {
		if got, ok := lookup(data, r.key); !ok || string(got) != r.value {
			t.Fatal(fmt.Sprintf("key %q has %q, %v; want %q", r.key, got, ok, r.value))
		}
	}
	if _, ok := lookup(data, "no such key"); ok {
		t.Fatal("found a key that is not there")
	}
	if want := end + len(records)*16; len(data) != want {
		t.Fatal(fmt.Sprintf("%d records in %d bytes, want %d", len(records), len(data), want))
	}
	return data[2048:end]
}

// rewriteCDB writes records as Compile does.
func rewriteCDB(records []cdbRecord) []byte {
	dst := grow(nil, cdbHeader)
	var entries []cdbEntry
	for _, r := range records {
		entries = append(entries, cdbEntry{cdbHash(r.key), uint32(len(dst))})
		start := len(dst)
		dst = endRecord(append(beginRecord(dst, r.key), r.value...), start, len(r.key))
	}
	return finishCDB(dst, 0, entries)
}

func TestCDB(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var records []cdbRecord
		for i := range rapid.IntRange(0, 2000).Draw(t, "records") {
			records = append(records, cdbRecord{fmt.Sprint("key", i*rapid.IntRange(1, 1).Draw(t, "step")), fmt.Sprint(i)})
		}
		checkCDB(t, rewriteCDB(records))
	})
}
