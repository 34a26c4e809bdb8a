package affected

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"maps"
	"slices"

	"github.com/mwbuild/mwbuild/graph/label"
	"github.com/mwbuild/mwbuild/starlark/load"
)

// A Memo is what is known of packages from trees that were looked at before. It decides nothing: an outline is used only
// where its inputs are the same. The zero Memo is empty.
type Memo struct {
	outlines map[string]*load.Outline // by package
	fresh    bool                     // holds what it did not when it was decoded
}

// Fresh tells whether the memo learned anything since it was decoded.
func (m *Memo) Fresh() bool { return m.fresh }

// The form of a memo: the version, then all strings that repeat (packages, rules, attributes, tags, visibilities), then the packages, and
// a CRC-32C of it all, least significant byte first. Numbers are varints; a string is its length and its bytes, or the
// number of one that repeats. Of the lists of a kind there is one slice for all packages, whose length comes first.
const memoVersion = 2

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode returns the memo as bytes, the same for the same memo.
func (m *Memo) Encode() []byte {
	numbers := map[string]uint64{}
	var table []string
	number := func(s string) uint64 {
		n, ok := numbers[s]
		if !ok {
			n = uint64(len(table))
			numbers[s] = n
			table = append(table, s)
		}
		return n
	}
	var b []byte
	text := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	count := func(n int) { b = binary.AppendUvarint(b, uint64(n)) }
	ref := func(s string) { b = binary.AppendUvarint(b, number(s)) }
	var targets, tags, srcs, deps int
	pkgs := slices.Sorted(maps.Keys(m.outlines))
	pkgs = slices.DeleteFunc(pkgs, func(pkg string) bool { return m.outlines[pkg].Volatile })
	for _, pkg := range pkgs {
		o := m.outlines[pkg]
		targets += len(o.Targets)
		ref(pkg)
		b = append(b, o.Inputs[:]...)
		text(o.File)
		for _, list := range [][]string{o.Modules, o.Reads} {
			count(len(list))
			for _, s := range list {
				ref(s)
			}
		}
		count(len(o.Targets))
		for _, t := range o.Targets {
			text(t.Name)
			ref(t.Kind)
			reads := 0
			if t.Reads {
				reads = 1
			}
			count(reads)
			b = append(b, t.Sum[:]...)
			ref(t.Seen)
			count(len(t.Tags))
			tags += len(t.Tags)
			for _, s := range t.Tags {
				ref(s)
			}
			count(len(t.Srcs))
			srcs += len(t.Srcs)
			for _, s := range t.Srcs {
				text(s)
			}
			count(len(t.Deps))
			deps += len(t.Deps)
			for _, d := range t.Deps {
				ref(d.Attr)
				ref(d.To.Pkg)
				text(d.To.Name)
			}
		}
	}
	body := b
	b = []byte{memoVersion}
	count(len(table))
	for _, s := range table {
		text(s)
	}
	for _, n := range []int{len(pkgs), targets, tags, srcs, deps} {
		count(n)
	}
	b = append(b, body...)
	return appendSum(b)
}

func appendSum(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

var errMemo = errors.New("broken memo")

// DecodeMemo reads what [Memo.Encode] wrote. What is not that is an error.
func DecodeMemo(data []byte) (*Memo, error) {
	if len(data) < 5 || data[0] != memoVersion {
		return nil, errMemo
	}
	body, sum := data[:len(data)-4], data[len(data)-4:]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(sum) {
		return nil, errMemo
	}
	r := &memoReader{s: string(body[1:])} // which all strings share
	table := make([]string, min(r.count(), len(r.s)))
	for i := range table {
		table[i] = r.text()
	}
	r.table = table
	pkgs, targets, tags, srcs, deps := r.count(), r.count(), r.count(), r.count(), r.count()
	if pkgs+targets+tags+srcs+deps > len(r.s) {
		return nil, errMemo // each takes a byte at least
	}
	m := &Memo{outlines: make(map[string]*load.Outline, pkgs)}
	outlines := make([]load.Outline, pkgs)
	allTargets := make([]load.OutlineTarget, targets)
	allStrings := make([]string, tags+srcs)
	allDeps := make([]load.OutlineDep, deps)
	for i := range outlines {
		o := &outlines[i]
		m.outlines[r.ref()] = o
		copy(o.Inputs[:], r.take(32))
		o.File = r.text()
		for _, list := range []*[]string{&o.Modules, &o.Reads} {
			if n := r.count(); n > 0 {
				*list = make([]string, n)
				for i := range *list {
					(*list)[i] = r.ref()
				}
			}
		}
		o.Targets = part(r, &allTargets)
		for i := range o.Targets {
			t := &o.Targets[i]
			t.Name, t.Kind, t.Reads = r.text(), r.ref(), r.count() == 1
			copy(t.Sum[:], r.take(16))
			t.Seen = r.ref()
			t.Tags = part(r, &allStrings)
			for i := range t.Tags {
				t.Tags[i] = r.ref()
			}
			t.Srcs = part(r, &allStrings)
			for i := range t.Srcs {
				t.Srcs[i] = r.text()
			}
			t.Deps = part(r, &allDeps)
			for i := range t.Deps {
				t.Deps[i] = load.OutlineDep{Attr: r.ref(), To: label.Label{Pkg: r.ref(), Name: r.text()}}
			}
		}
	}
	if r.bad || r.s != "" {
		return nil, errMemo
	}
	return m, nil
}

// part takes as many elements from all as the next number says.
func part[T any](r *memoReader, all *[]T) []T {
	n := r.count()
	if n > len(*all) {
		r.bad = true
		return nil
	}
	if n == 0 {
		return nil
	}
	p := (*all)[:n:n]
	*all = (*all)[n:]
	return p
}

// A memoReader reads until something is missing, and then zeros.
type memoReader struct {
	s     string
	table []string
	bad   bool
}

func (r *memoReader) take(n int) string {
	if n > len(r.s) {
		r.bad, r.s = true, ""
		return ""
	}
	p := r.s[:n]
	r.s = r.s[n:]
	return p
}

// count reads a number of things that take a byte each at least.
func (r *memoReader) count() int {
	var n uint64
	for shift := 0; ; shift += 7 {
		if r.s == "" || shift > 28 {
			r.bad, r.s = true, ""
			return 0
		}
		c := r.s[0]
		r.s = r.s[1:]
		n |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return int(n)
		}
	}
}

func (r *memoReader) text() string { return r.take(r.count()) }

func (r *memoReader) ref() string {
	n := r.count()
	if n >= len(r.table) {
		r.bad, r.s = true, ""
		return ""
	}
	return r.table[n]
}
