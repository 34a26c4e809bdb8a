// Package php holds PHP values and reads them from PHP source, as far as that is made of literals.
//
// MediaWiki keeps what is no message in PHP files that assign literal arrays to variables. [Parse] evaluates these, and
// refuses by file and line what is more than a literal. [AppendExport] and [AppendSerialize] write values as PHP's
// var_export and serialize do; [Plus], [Merge] and their like join arrays as PHP does. All of it follows PHP 8.2.
package php

import (
	"hash/maphash"
	"iter"
	"math"
	"slices"
	"strconv"
)

// A Value is nil, a bool, an int64, a float64, a string of bytes, or an *[Array].
type Value = any

// A Key is a key of an [Array]: an integer, or a string that does not look like one.
type Key struct {
	Str   string
	Int   int64
	IsInt bool
}

// StringKey is the key that a string becomes: an integer where it is the decimal form of one that PHP can hold.
func StringKey(s string) Key {
	if n, ok := integer(s); ok {
		return Key{Int: n, IsInt: true}
	}
	return Key{Str: s}
}

// IntKey is an integer as a key.
func IntKey(n int64) Key { return Key{Int: n, IsInt: true} }

// String is the key as PHP shows it.
func (k Key) String() string {
	if k.IsInt {
		return strconv.FormatInt(k.Int, 10)
	}
	return k.Str
}

// integer tells whether PHP takes s, as a key, for an integer: its shortest decimal form, without "-0".
func integer(s string) (int64, bool) {
	if s == "" || len(s) > 20 || s[0] != '-' && (s[0] < '0' || s[0] > '9') {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, false
	}
	digits := s
	if s[0] == '-' {
		digits = s[1:]
	}
	if digits[0] == '0' && len(s) > 1 {
		return 0, false
	}
	return n, true
}

// An Array is PHP's ordered map. The zero Array is empty. It may be read by many at once while none changes it.
type Array struct {
	vals []Value
	keys *keys // nil while they are 0, 1, 2 … and nothing was deleted
	next int64 // the integer that Append uses
	low  bool  // the first integer key sets next, even if it is negative
}

// keys are those of an array's values, and where to find them.
type keys struct {
	list  []Key
	index []int32 // a hash table of positions in list plus one, 0 where empty; nil while keys are few
	gone  []bool  // marks deleted positions; nil where there are none
	left  int     // how many are not deleted
}

const (
	// fewKeys is how many keys are searched one by one.
	fewKeys = 8
	// Twice this many positions fit an int32 plus one.
	maxEntries = 1 << 29
)

var seed = maphash.MakeSeed()

// List is an array of vs with keys from 0.
func List(vs ...Value) *Array {
	return &Array{vals: slices.Clone(vs), next: int64(len(vs))}
}

// An entry is one of an array.
type entry struct {
	key Key
	val Value
}

// arrayOf is an array of entries, of which later ones replace the values of earlier ones; next and low are as in it.
func arrayOf(entries []entry, next int64, low bool) *Array {
	a := &Array{vals: make([]Value, 0, len(entries)), next: next, low: low}
	a.keys = &keys{list: make([]Key, 0, len(entries))}
	if len(entries) > fewKeys {
		a.keys.index = make([]int32, indexSize(len(entries)))
	}
	for i := range entries {
		e := &entries[i]
		if at := a.keys.find(e.key); at >= 0 {
			a.vals[at] = e.val
			continue
		}
		a.vals = append(a.vals, e.val)
		a.keys.add(e.key)
	}
	return a
}

// Len is the number of entries; nil has none.
func (a *Array) Len() int {
	switch {
	case a == nil:
		return 0
	case a.keys == nil:
		return len(a.vals)
	}
	return a.keys.left
}

// find returns the position of k, or -1.
func (a *Array) find(k Key) int {
	if a.keys != nil {
		return a.keys.find(k)
	}
	if k.IsInt && k.Int >= 0 && k.Int < int64(len(a.vals)) {
		return int(k.Int)
	}
	return -1
}

func (ks *keys) find(k Key) int {
	if ks.index == nil {
		for i := range ks.list {
			if ks.list[i] == k && !ks.deleted(i) {
				return i
			}
		}
		return -1
	}
	mask := uint64(len(ks.index) - 1)
	for h := hash(k) & mask; ks.index[h] != 0; h = (h + 1) & mask {
		if i := int(ks.index[h] - 1); ks.list[i] == k && !ks.deleted(i) {
			return i
		}
	}
	return -1
}

func (ks *keys) deleted(i int) bool { return ks.gone != nil && ks.gone[i] }

// add puts k, which is not there, at the end.
func (ks *keys) add(k Key) {
	ks.list = append(ks.list, k)
	ks.left++
	if ks.gone != nil {
		ks.gone = append(ks.gone, false)
	}
	switch n := len(ks.list); {
	case n <= fewKeys && ks.index == nil:
	case n*4 > len(ks.index)*3:
		ks.rehash()
	default:
		ks.place(n - 1)
	}
}

// rehash makes the index anew.
func (ks *keys) rehash() {
	if len(ks.list) > maxEntries {
		panic("php: an array of more than 2^29 entries")
	}
	ks.index = make([]int32, indexSize(len(ks.list)))
	for i := range ks.list {
		ks.place(i)
	}
}

// indexSize is the size of an index that n keys fill to no more than two thirds.
func indexSize(n int) int {
	size := 16
	for size*2 < n*3 {
		size *= 2
	}
	return size
}

// place enters the key at i into the index.
func (ks *keys) place(i int) {
	mask := uint64(len(ks.index) - 1)
	h := hash(ks.list[i]) & mask
	for ks.index[h] != 0 {
		h = (h + 1) & mask
	}
	ks.index[h] = int32(i + 1)
}

func hash(k Key) uint64 {
	if k.IsInt {
		h := uint64(k.Int) * 0x9e3779b97f4a7c15
		return h ^ h>>32
	}
	return maphash.String(seed, k.Str)
}

// Get returns the value at k.
func (a *Array) Get(k Key) (Value, bool) {
	if a == nil {
		return nil, false
	}
	if i := a.find(k); i >= 0 {
		return a.vals[i], true
	}
	return nil, false
}

// Set puts v at k: in k's place if it is there, else at the end.
func (a *Array) Set(k Key, v Value) {
	if i := a.find(k); i >= 0 {
		a.vals[i] = v
		return
	}
	a.add(k, v)
}

// add puts v at the end, at k, which is not there.
func (a *Array) add(k Key, v Value) {
	if a.keys == nil && !(k.IsInt && k.Int == int64(len(a.vals))) {
		a.unpack()
	}
	a.vals = append(a.vals, v)
	if a.keys != nil {
		a.keys.add(k)
	}
	if k.IsInt {
		a.next, a.low = following(k.Int, a.next, a.low)
	}
}

// following is next and low of an array behind the integer key k.
func following(k, next int64, low bool) (int64, bool) {
	switch {
	case !low && k < next:
		return next, low
	case k == math.MaxInt64:
		return k, false
	}
	return k + 1, false
}

// unpack gives a list its keys.
func (a *Array) unpack() {
	a.keys = &keys{list: make([]Key, 0, len(a.vals)+4)}
	for i := range a.vals {
		a.keys.add(IntKey(int64(i)))
	}
}

// Append puts v at the integer after the greatest that the array ever had. It is false, and nothing changes, where that was
// PHP's greatest; PHP throws there. After negative keys alone that is 0 for an array that began as the zero Array, as of
// one that began as [] in PHP 8.2.
func (a *Array) Append(v Value) bool {
	k := IntKey(a.next)
	if a.next == math.MaxInt64 && a.find(k) >= 0 {
		return false
	}
	a.add(k, v)
	return true
}

// Delete removes k; the next Append is not affected.
func (a *Array) Delete(k Key) {
	i := a.find(k)
	if i < 0 {
		return
	}
	if a.keys == nil {
		a.unpack()
	}
	if a.keys.gone == nil {
		a.keys.gone = make([]bool, len(a.vals))
	}
	a.keys.gone[i] = true
	a.keys.left--
	a.vals[i] = nil
}

// All yields the entries in order. The array must not change meanwhile.
func (a *Array) All() func(yield func(Key, Value) bool) {
	return func(yield func(Key, Value) bool) {
		if a == nil {
			return
		}
		for i, v := range a.vals {
			k := Key{Int: int64(i), IsInt: true}
			if a.keys != nil {
				if a.keys.deleted(i) {
					continue
				}
				k = a.keys.list[i]
			}
			if !yield(k, v) {
				return
			}
		}
	}
}

// IsList tells whether the keys are 0, 1, 2 … in this order, as array_is_list does.
func (a *Array) IsList() bool {
	if a == nil || a.keys == nil {
		return true
	}
	n := int64(0)
	for k := range a.All() {
		if !k.IsInt || k.Int != n {
			return false
		}
		n++
	}
	return true
}

// Clone is a copy that shares values: arrays within it are the same.
func (a *Array) Clone() *Array {
	if a == nil {
		return &Array{}
	}
	c := *a
	c.vals = slices.Clone(a.vals)
	if ks := a.keys; ks != nil {
		c.keys = &keys{slices.Clone(ks.list), slices.Clone(ks.index), slices.Clone(ks.gone), ks.left}
	}
	return &c
}

// Equal tells whether both have the same keys in the same order, at equal values ([Equal]). A nil Array is empty.
func (a *Array) Equal(b *Array) bool {
	if a.Len() != b.Len() {
		return false
	}
	if a == b || a.Len() == 0 {
		return true
	}
	next, stop := iter.Pull2(b.All())
	defer stop()
	for k, v := range a.All() {
		if bk, bv, _ := next(); k != bk || !Equal(v, bv) {
			return false
		}
	}
	return true
}

// Equal tells whether a and b are of one type and value, so that all writers write the same for both. Other than for PHP's ===,
// NAN equals itself and 0.0 is not -0.0.
func Equal(a, b Value) bool {
	switch a := a.(type) {
	case *Array:
		b, ok := b.(*Array)
		return ok && a.Equal(b)
	case float64:
		b, ok := b.(float64)
		return ok && (math.Float64bits(a) == math.Float64bits(b) || a != a && b != b)
	}
	if _, ok := b.(*Array); ok {
		return false
	}
	return a == b
}
