// Package message reads MediaWiki's message files, i18n/xx.json, and other JSON, as PHP's json_decode does.
//
// [Read] is for message files: one flat object of strings, read in one pass without building anything else. [ReadValue]
// is for the rest (aliases, manifests). Both accept what json_decode of PHP 8.2 accepts at its default depth, and
// refuse everything else by line and column: invalid UTF-8 and a byte order mark, unpaired surrogates, control characters
// in strings, trailing commas, text after the value, TRUE for true.
package message

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"math/bits"
	"slices"
	"strconv"
	"sync"
)

// A Message is one entry of a message file.
type Message struct {
	Key   string
	Value string // as PHP's string conversion gives it: "1" for true, "" for false and null
	// Null tells that the file says null. MediaWiki writes an empty message then, and looks no further for one.
	Null bool
	// Pos is the byte offset of the key in the file; of a list's entry, of its value. Where the key is there more than
	// once it is the last one's, which gives the value.
	Pos int
}

// An Error is a place in a file that MediaWiki would not read, or not read well.
type Error struct {
	File string
	Line int // from 1
	Col  int // in bytes, from 1
	What string
}

func (e *Error) Error() string { return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Col, e.What) }

// Read returns the messages of a message file in the order of MediaWiki's array, as LocalisationCache::readJSONFile does:
//
//   - A key that is there again keeps its first place and takes the last value.
//   - The empty key and keys that begin with "@" are dropped whatever they hold.
//   - A list has the keys "0", "1" and so on; an empty one is an empty file.
//   - null, booleans and numbers become strings, as PHP makes them.
//
// An integer as a key, which PHP's array keeps as an integer, is its decimal form; no other key looks like it.
// An array or an object as a message is refused, where MediaWiki would warn and write "Array", and so is a file that is
// neither object nor list. Errors are of type *[Error] and begin with name. The messages share data, which must not change
// while they are in use.
func Read(name string, data []byte) ([]Message, error) { return new(Reader).Read(name, data) }

// A Reader reads message files one after the other, in memory that it uses again. The zero Reader is ready.
type Reader struct {
	found []Message
	arena []byte
}

// Read is the function Read, but what it returns is good until the Reader's next call.
func (r *Reader) Read(name string, data []byte) ([]Message, error) {
	s := scanner{name: name, data: data, text: alias(data), arena: r.arena[:0]}
	if err := s.checkUTF8(); err != nil {
		return nil, err
	}
	s.space()
	f := file{scanner: s, found: r.found[:0]}
	defer func() { r.found, r.arena = f.found, f.arena }()
	var err error
	switch f.peek() {
	case '{':
		err = f.object()
	case '[':
		err = f.list()
	default:
		// Whether it is JSON at all is the better complaint.
		if err = f.skip(); err == nil {
			err = f.end()
		}
		if err == nil {
			err = f.fail(0, "a message file is an object of keys and texts; wrap this in { }")
		}
		return nil, err
	}
	if err == nil {
		err = f.end()
	}
	if err != nil {
		return nil, err
	}
	f.unite()
	for _, m := range f.found {
		if len(f.nested) == 0 {
			break
		}
		if _, ok := slices.BinarySearch(f.nested, m.Pos); ok {
			return nil, f.fail(m.Pos, fmt.Sprintf("message %q is an array or an object, of which MediaWiki would show the "+
				"word \"Array\"; make it a string, or begin its key with @ if it is no message", m.Key))
		}
	}
	return f.found, nil
}

// file is a message file while Read reads it.
type file struct {
	scanner
	found  []Message
	nested []int // the Pos of those that hold an array or an object, ascending
}

// object reads the object that is the file.
func (f *file) object() error {
	// A message has a line of its own in any file that a person or a tool has laid out.
	if room := min(bytes.Count(f.data, newline)+1, len(f.data)/8+1); cap(f.found) < room {
		f.found = make([]Message, 0, room)
	}
	return f.members(func() error {
		pos := f.pos
		key, err := f.key()
		if err != nil {
			return err
		}
		if key == "" || key[0] == '@' {
			return f.skip()
		}
		return f.message(key, pos)
	})
}

var newline = []byte{'\n'}

// list reads the list that is the file.
func (f *file) list() error {
	n := 0
	return f.elements(func() error {
		n++
		return f.message(strconv.Itoa(n-1), f.pos)
	})
}

// message reads the value of a message whose key is at pos.
func (f *file) message(key string, pos int) error {
	switch c := f.peek(); c {
	case '"':
		v, err := f.str()
		f.found = append(f.found, Message{Key: key, Value: v, Pos: pos})
		return err
	case '{', '[':
		f.found = append(f.found, Message{Key: key, Pos: pos})
		f.nested = append(f.nested, pos)
		return f.skip()
	default:
		v, err := f.scalar()
		if err != nil {
			return err
		}
		f.found = append(f.found, Message{Key: key, Value: phpString(v), Null: v == nil, Pos: pos})
		return nil
	}
}

// unite makes one message of those that have the same key.
func (f *file) unite() {
	if len(f.found) < 2 {
		return
	}
	t := tables.Get().(*table)
	defer tables.Put(t)
	t.reset(len(f.found))
	kept := f.found[:0]
	for i := range f.found {
		m := &f.found[i]
		if at, ok := t.add(maphash.String(t.seed, m.Key), m.Key, kept); ok {
			kept[at] = *m
		} else {
			kept = append(kept, *m)
		}
	}
	clear(f.found[len(kept):])
	f.found = kept
}

// table is a hash table of keys, with open addressing, that finds messages by key. It holds no strings.
type table struct {
	slots []uint64 // high half: high half of the hash; low half: index + 1, or 0
	mask  uint64
	seed  maphash.Seed
}

var tables = sync.Pool{New: func() any { return &table{seed: maphash.MakeSeed()} }}

// reset empties the table and makes room for n keys.
func (t *table) reset(n int) {
	size := 1 << bits.Len(uint(2*n-1))
	if cap(t.slots) < size {
		t.slots = make([]uint64, size)
	} else {
		t.slots = t.slots[:size]
		clear(t.slots)
	}
	t.mask = uint64(size - 1)
}

// add returns the index in kept of the message with this key and hash, or remembers that the key will be the next in kept.
func (t *table) add(h uint64, key string, kept []Message) (int, bool) {
	const high = 0xffffffff << 32
	for i := h & t.mask; ; i = (i + 1) & t.mask {
		slot := t.slots[i]
		if slot == 0 {
			t.slots[i] = h&high | uint64(len(kept)+1)
			return 0, false
		}
		if at := int(uint32(slot)) - 1; slot&high == h&high && kept[at].Key == key {
			return at, true
		}
	}
}
