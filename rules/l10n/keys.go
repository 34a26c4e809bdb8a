package l10n

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/mwbuild/mwbuild/rules/l10n/message"
	"github.com/mwbuild/mwbuild/rules/l10n/php"
)

// messagePrefix is before a message's key in a store.
const messagePrefix = "messages:"

// A keyInfo is a message key with what outputs need of it.
type keyInfo struct {
	key    string
	line   string // \t'messages:key' => , in PHP
	export string // the key of an array as var_export writes it: 'key', or an integer
	hash   uint32 // CDB's, of messages:key
	end    uint32 // of the key's line in lines
}

// A keyTable numbers message keys. Numbers and what is known of them never change.
type keyTable struct {
	mu      sync.RWMutex
	numbers map[string]uint32
	infos   []keyInfo
	lines   []byte // of all keys, one behind the other, as a list in PHP has them: \t\t\t\t'key',\n
	serials serials
	// next is which key followed a key last time, plus one. Most languages have a component's messages in one order.
	next []uint32
}

// serials are all keys as serialize writes the key of an array, one behind the other.
type serials struct {
	text []byte
	ends []uint32 // by number
}

func (s serials) from(n uint32) uint32 {
	if n == 0 {
		return 0
	}
	return s.ends[n-1]
}

func (s serials) of(n uint32) []byte { return s.text[s.from(n):s.ends[n]] }

func newKeyTable() *keyTable { return &keyTable{numbers: map[string]uint32{}} }

// all returns the keys by number, those that are there by now, and their lines and serials.
func (t *keyTable) all() ([]keyInfo, []byte, serials) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.infos, t.lines, t.serials
}

// missing is no key's number.
const missing = 1<<32 - 1

// appendNumbers appends the numbers of messages' keys.
func (t *keyTable) appendNumbers(dst []uint32, messages []message.Message) []uint32 {
	start, lacking := len(dst), false
	t.mu.RLock()
	previous := uint32(missing)
	for i := range messages {
		key := messages[i].Key
		if previous != missing {
			if n := atomic.LoadUint32(&t.next[previous]); n > 0 && t.infos[n-1].key == key {
				previous = n - 1
				dst = append(dst, previous)
				continue
			}
		}
		n, ok := t.numbers[key]
		if !ok {
			n, lacking = missing, true
		} else if previous != missing {
			atomic.StoreUint32(&t.next[previous], n+1)
		}
		previous = n
		dst = append(dst, n)
	}
	t.mu.RUnlock()
	if lacking {
		t.mu.Lock()
		for i, n := range dst[start:] {
			if n == missing {
				dst[start+i] = t.add(messages[i].Key)
			}
		}
		t.mu.Unlock()
	}
	return dst
}

// number returns the number of one key.
func (t *keyTable) number(key string) uint32 {
	t.mu.RLock()
	n, ok := t.numbers[key]
	t.mu.RUnlock()
	if ok {
		return n
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.add(key)
}

// add numbers a key that may be there by now. The table is locked.
func (t *keyTable) add(key string) uint32 {
	if n, ok := t.numbers[key]; ok {
		return n
	}
	key = strings.Clone(key)
	n := uint32(len(t.infos))
	var name php.Value = key
	if k := php.StringKey(key); k.IsInt {
		name = k.Int
	}
	export := php.AppendExport(nil, name)
	t.lines = append(t.lines, "\t\t\t\t"...)
	t.lines = append(t.lines, export...)
	t.lines = append(t.lines, ",\n"...)
	t.infos = append(t.infos, keyInfo{
		key:    key,
		line:   string(append(php.AppendExport([]byte("\t"), messagePrefix+key), " => "...)),
		export: string(export),
		hash:   cdbHash(messagePrefix + key),
		end:    uint32(len(t.lines)),
	})
	t.serials.text = php.AppendSerialize(t.serials.text, name)
	t.serials.ends = append(t.serials.ends, uint32(len(t.serials.text)))
	t.next = append(t.next, 0)
	t.numbers[key] = n
	return n
}
