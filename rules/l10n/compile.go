// Package l10n compiles MediaWiki's localisation: the bytes that LocalisationCache writes into its store, without PHP.
//
// A [Compiler] reads the files of one component in one language ([Compiler.Fragment]), core's MessagesXx.php ([Compiler.Core]) and the
// PHP files of extensions ([Compiler.Aliases]). Each has a digest of what it says. [Compiler.Compile] merges those of a language and of
// all that it falls back to, as LocalisationCache::recache() does, and writes a file of LCStoreCDB or LCStoreStaticArray.
//
// Nearly all of an output are messages. So a fragment keeps each as the line or record that it is in the output, under a number
// for its key, and an output is copied from runs of these. A message whose text and language come from different places, which
// MediaWiki's order of reading brings about for PHP files alone, is written one by one.
package l10n

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/mwbuild/mwbuild/rules/l10n/php"
	"github.com/mwbuild/mwbuild/rules/l10n/plural"
)

// A Format is one of MediaWiki's stores of localisation.
type Format int

const (
	CDB         Format = iota // LCStoreCDB
	StaticArray               // LCStoreStaticArray
	formats     = iota + 1
)

// lateArray is StaticArray as from 1.46 on, where messages are an array of their own.
const lateArray Format = formats - 1

// FileName is the name of a language's file in the store's directory.
func (f Format) FileName(language string) string {
	if f == StaticArray {
		return language + ".l10n.php"
	}
	return "l10n_cache-" + language + ".cdb"
}

// An Input is all that one language's file depends on.
type Input struct {
	Language string
	// Links are the language itself and then those that it falls back to ([Chain]). Where the format falls back late, all but
	// Core of the latter is not looked at.
	Links []Link
	// SkipFiles are the keys of ExtensionMessagesFiles that are keys of MessagesDirs or TranslationAliasesDirs too, of any
	// component; MediaWiki does not read these files.
	SkipFiles map[string]bool
	// MessageKeys and AliasKeys are the keys of MessagesDirs and TranslationAliasesDirs in the order in which the components register
	// them, whatever the language; core's may be left out. They are needed only where a key is registered by two manifests: without
	// them a key has the place of the first component that has anything in this language.
	MessageKeys, AliasKeys []string
}

// A Link is one language of a chain.
//
// A file of ExtensionMessagesFiles is replaced by another component's under its key only if both have something in this language.
// In this MediaWiki differs, which passes over one of them in all languages.
type Link struct {
	Language  string
	Core      *Core         // nil if the language has no file
	Plural    *plural.Rules // nil if there are none
	Fragments []*Fragment   // core's first, then the components' in the order of registration; nil for none
	Aliases   []*AliasPart  // in the same order; nil for none
}

// A Compiler compiles localisation for a version of MediaWiki. It is safe for concurrent use. What it reads can be compiled by
// it and by those that its For made.
type Compiler struct {
	version  Version
	family   *family
	keys     *keyTable
	coreKeys map[string]bool // of CoreMessageDirs
	scratch  sync.Pool       // of *scratch

	mu    sync.Mutex
	links map[string]*linkData // the last one of each language
}

// NewCompiler returns a compiler. The zero version is for reading alone, of what any version knows.
func NewCompiler(v Version) *Compiler {
	keys := newKeyTable()
	return newCompiler(v, &family{keys: keys, members: map[Version]*Compiler{}})
}

// For returns the compiler for another version, always the same. What either reads, both can compile.
func (c *Compiler) For(v Version) *Compiler {
	c.family.mu.Lock()
	defer c.family.mu.Unlock()
	if m := c.family.members[v]; m != nil {
		return m
	}
	return newCompiler(v, c.family)
}

// A family is the compilers that share keys, by version.
type family struct {
	keys    *keyTable
	outputs atomic.Uint64 // how many there were
	size    atomic.Int64  // of the latest output: others are of about the same size
	mu      sync.Mutex
	members map[Version]*Compiler
}

func newCompiler(v Version, f *family) *Compiler {
	c := &Compiler{version: v, family: f, keys: f.keys, coreKeys: map[string]bool{}, links: map[string]*linkData{}}
	for _, d := range CoreMessageDirs(v) {
		c.coreKeys[d.Key] = true
	}
	f.members[v] = c
	return c
}

// Compile appends to dst what MediaWiki's store has for a language after rebuildLocalisationCache --force into an empty folder,
// except "deps", which is empty: MediaWiki takes it for fresh.
func (c *Compiler) Compile(dst []byte, f Format, in *Input) ([]byte, error) {
	if (c.version == Version{}) {
		return nil, fmt.Errorf("%s: no version of MediaWiki to compile for", in.Language)
	}
	if len(in.Links) == 0 || in.Links[0].Language != in.Language {
		return nil, fmt.Errorf("%s: the first link of its chain is not it itself", in.Language)
	}
	sequence, original, err := Chain(in.Language, in.Links[0].Core)
	if err != nil {
		return nil, err
	}
	if !slices.EqualFunc(sequence, in.Links[1:], func(s string, l Link) bool { return s == l.Language }) {
		return nil, fmt.Errorf("%s: its chain is not the one that its file tells: %v", in.Language, sequence)
	}
	s, _ := c.scratch.Get().(*scratch)
	if s == nil {
		s = &scratch{}
	}
	defer c.scratch.Put(s)
	if size := int(c.family.size.Load()); cap(dst)-len(dst) < size {
		dst = slices.Grow(dst, size+size/16)
	}
	o := &output{c: c, scratch: s, format: f, in: in, dst: dst, base: len(dst), id: c.family.outputs.Add(1)}
	if f == StaticArray && c.version.LateFallback(f) {
		o.format = lateArray
	}
	o.begin()
	for i := range in.Links {
		link := &in.Links[i]
		if i > 0 && o.format == lateArray {
			link = &Link{Language: link.Language, Core: link.Core}
		}
		o.links = append(o.links, c.data(link, in))
	}
	defer func() { clear(o.links); o.links = o.links[:0] }()
	if err := o.items(); err != nil {
		return nil, fmt.Errorf("%s: %w", in.Language, err)
	}
	o.put("fallbackSequence", stringList(sequence))
	o.put("originalFallbackSequence", stringList(original))
	o.put("deps", &php.Array{})
	if o.format == lateArray {
		o.put("list", &php.Array{})
		o.put("preload", &php.Array{})
	} else {
		o.list()
		if err := o.preload(); err != nil {
			return nil, fmt.Errorf("%s: %w", in.Language, err)
		}
	}
	o.end()
	c.family.size.Store(int64(len(o.dst) - o.base))
	if len(o.dst)-o.base > math.MaxInt32 {
		return nil, fmt.Errorf("%s: its file would be larger than 2 GiB, which no store can hold", in.Language)
	}
	return o.dst, nil
}

func stringList(list []string) *php.Array {
	a := &php.Array{}
	for _, s := range list {
		a.Append(s)
	}
	return a
}

// An output is a file while it is written.
type output struct {
	c *Compiler
	*scratch
	format Format
	in     *Input
	dst    []byte
	base   int // where the file begins in dst
	id     uint64

	namespaces, dates, preloaded php.Value // of these items

	from map[uint32]string // as origins finds it
}

// scratch is memory that outputs use one after the other.
type scratch struct {
	keys    []keyInfo // by number
	lines   []byte    // as keyTable has them
	serials serials
	links   []*linkData

	// stamps has, for each key, now if the message is written, now+1 if it is not but in from, and less otherwise.
	stamps []uint32
	now    uint32

	order   []uint32 // the keys that are written
	starts  []uint32 // where each message begins, from base on, and where the last ends
	at      []uint32 // for each key that is written, its index in order
	entries []cdbEntry
}

func (o *output) begin() {
	s := o.scratch
	s.keys, s.lines, s.serials = o.c.keys.all()
	o.room()
	if s.now > math.MaxUint32-4 {
		clear(s.stamps)
		s.now = 0
	}
	s.now += 2
	s.order, s.starts, s.entries = s.order[:0], s.starts[:0], s.entries[:0]
	if o.format == CDB {
		o.dst = grow(o.dst, cdbHeader)
		return
	}
	o.dst = append(o.dst, "<?php\n// Generated by LCStoreStaticArray.php -- do not edit!\nreturn [\n"...)
}

// room makes room for all keys. Stamps that are there stay.
func (s *scratch) room() {
	if n := len(s.keys) - len(s.stamps); n > 0 {
		n += len(s.keys) / 4
		s.stamps = append(s.stamps, make([]uint32, n)...)
		s.at = append(s.at, make([]uint32, n)...)
	}
}

func (o *output) end() {
	if o.format == CDB {
		o.dst = finishCDB(o.dst, o.base, o.entries)
		return
	}
	o.dst = append(o.dst, "];\n"...)
}

// items writes all items of the version.
func (o *output) items() error {
	for i := range items {
		if !o.c.version.has(i) {
			continue
		}
		if i == itemMessages {
			o.messages()
			continue
		}
		if i == itemPreloaded && o.format == lateArray {
			o.put(items[i].name, &php.Array{})
			continue
		}
		v, only := o.merge(i)
		if i == itemFallback && v == nil && o.in.Language == "en" {
			v, only = false, nil
		}
		switch i {
		case itemNamespaces:
			o.namespaces = final(i, v)
		case itemDates:
			o.dates = v
		case itemPreloaded:
			o.preloaded = v
		}
		if v == nil && (i == itemRTL || o.format != lateArray && (i == itemNamespaces || i == itemAliases || i == itemPreloaded)) {
			return fmt.Errorf("nothing in its chain sets $%s; is MessagesEn.php whole?", items[i].name)
		}
		if only == nil {
			o.put(items[i].name, final(i, v))
			continue
		}
		r := &only.rendered[o.format][i]
		r.once.Do(func() {
			r.data = o.c.appendItem(nil, o.format, items[i].name, final(i, v))
		})
		o.record(items[i].name)
		o.dst = append(o.dst, r.data...)
	}
	return nil
}

// merge merges the item's values along the chain. If it is one link's alone, this link comes with it.
func (o *output) merge(i int) (v php.Value, only *linkData) {
	links := o.links
	if o.format == lateArray && !items[i].coreOnly {
		links = links[:1]
	}
	for _, d := range links {
		next := d.values[i]
		switch {
		case next == nil:
		case v == nil:
			v, only = next, d
		case items[i].merge != firstWins:
			v, only = items[i].merged(v, next), nil
		default:
			return v, only
		}
	}
	return v, only
}

// put writes an item.
func (o *output) put(name string, v php.Value) {
	o.record(name)
	o.dst = o.c.appendItem(o.dst, o.format, name, v)
}

// record notes that a record of CDB's begins here.
func (o *output) record(name string) {
	if o.format == CDB {
		o.entries = append(o.entries, cdbEntry{cdbHash(name), uint32(len(o.dst) - o.base)})
	}
}

// appendItem writes a key of the store and its value.
func (c *Compiler) appendItem(dst []byte, format Format, name string, v php.Value) []byte {
	if format == CDB {
		start := len(dst)
		dst = php.AppendSerialize(beginRecord(dst, name), v)
		return endRecord(dst, start, len(name))
	}
	dst = append(dst, '\t')
	dst = php.AppendExport(dst, name)
	dst = append(dst, " => "...)
	switch v := v.(type) {
	case nil:
		dst = append(dst, "null"...)
	case *php.Array:
		dst = php.AppendStaticArray(dst, php.List("v", v), 1, c.version.lists())
	default:
		dst = php.AppendExport(dst, v)
	}
	return append(dst, ",\n"...)
}
