package l10n

import (
	"cmp"
	"slices"
	"strings"
	"sync"

	"github.com/mwbuild/mwbuild/rules/l10n/php"
	"github.com/mwbuild/mwbuild/rules/l10n/plural"
)

// A linkData is what a link of a chain gives to the items, whichever language's chain it is in: what extensions set, merged
// with core's. The messages are only those of PHP files.
type linkData struct {
	values       values
	fileMessages []fileMessages // of ExtensionMessagesFiles
	coreMessages *php.Array     // of MessagesXx.php
	from         linkSources

	rendered [formats][]rendered // by item: the value alone, as the language's own
}

type rendered struct {
	once sync.Once
	data []byte
}

// fileMessages are the messages of one of ExtensionMessagesFiles; places order such files as they are registered.
type fileMessages struct {
	place    place
	messages *php.Array
}

type place struct{ component, file int }

func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(p.component, q.component), cmp.Compare(p.file, q.file))
}

// linkSources is all that a linkData is made of.
type linkSources struct {
	core   *Core
	plural *plural.Rules
	files  []placedFile
	arrays []*aliasSection
}

type placedFile struct {
	place place
	*aliasValues
}

func (a linkSources) equal(b linkSources) bool {
	return a.core == b.core && a.plural == b.plural && slices.Equal(a.files, b.files) && slices.Equal(a.arrays, b.arrays)
}

// sourcesOf collects what the link's items are made of, in the order of merging.
func (c *Compiler) sourcesOf(link *Link, in *Input) linkSources {
	from := linkSources{core: link.Core, plural: link.Plural}
	for component, part := range link.Aliases {
		if part == nil {
			continue
		}
		for _, f := range part.files {
			if in.SkipFiles[f.key] {
				continue
			}
			// A file under a key that is there already takes its place.
			at := slices.IndexFunc(from.files, func(g placedFile) bool { return g.key == f.key })
			if at >= 0 {
				from.files[at].aliasValues = f
			} else {
				from.files = append(from.files, placedFile{place{component, f.index}, f})
			}
		}
	}
	if c.version.jsonAliases() {
		for _, f := range link.Fragments {
			if f != nil {
				from.arrays = append(from.arrays, f.aliases...)
			}
		}
		from.arrays = together(from.arrays, in.AliasKeys, func(s *aliasSection) string { return s.key })
	}
	return from
}

// together sorts sections by the places of their keys in registered; without it, it moves them behind the first of the same key.
func together[S any](sections []S, registered []string, key func(S) string) []S {
	first := make(map[string]int, max(len(sections), len(registered)))
	for i, k := range registered {
		if _, ok := first[k]; !ok {
			first[k] = i
		}
	}
	moved := len(registered) > 0
	for i, s := range sections {
		if at, ok := first[key(s)]; ok {
			moved = moved || at != i-1
			continue
		}
		first[key(s)] = len(registered) + i
	}
	if !moved {
		return sections
	}
	sections = slices.Clone(sections)
	slices.SortStableFunc(sections, func(a, b S) int { return cmp.Compare(first[key(a)], first[key(b)]) })
	return sections
}

// data returns the link's data. The last one of each language is kept: English is a link of every chain.
func (c *Compiler) data(link *Link, in *Input) *linkData {
	from := c.sourcesOf(link, in)
	c.mu.Lock()
	d := c.links[link.Language]
	c.mu.Unlock()
	if d != nil && d.from.equal(from) {
		return d
	}
	d = c.newLinkData(from)
	c.mu.Lock()
	c.links[link.Language] = d
	c.mu.Unlock()
	return d
}

func (c *Compiler) newLinkData(from linkSources) *linkData {
	d := &linkData{values: make(values, len(items)), from: from}
	for f := range d.rendered {
		d.rendered[f] = make([]rendered, len(items))
	}
	for _, f := range from.files {
		for i, v := range f.values {
			if v == nil || !c.version.extensionsSet(i) {
				continue
			}
			if i == itemMessages {
				d.fileMessages = append(d.fileMessages, fileMessages{f.place, v.(*php.Array)})
				continue
			}
			d.values[i] = items[i].merged(d.values[i], v)
		}
	}
	for _, s := range from.arrays {
		for _, v := range s.values {
			d.values[itemAliases] = items[itemAliases].merged(d.values[itemAliases], v)
		}
	}
	core := make(values, len(items))
	if from.core != nil {
		copy(core, from.core.values)
	}
	if p := from.plural; p != nil {
		for i, list := range map[int][]string{itemRules: p.Rules, itemTypes: p.Types, itemCompiled: p.Compiled} {
			if core[i] == nil || c.version.pluralsFirst() {
				core[i] = stringList(list)
			}
		}
	} else if c.version.pluralsFirst() {
		core[itemRules], core[itemTypes], core[itemCompiled] = nil, nil, nil
	}
	for i, v := range core {
		switch {
		case !c.version.has(i) || v == nil:
		case i == itemMessages:
			d.coreMessages = v.(*php.Array)
		default:
			d.values[i] = items[i].merged(d.values[i], v)
		}
	}
	return d
}

// merged is what LocalisationCache::mergeItem makes of a value and the one that it falls back to. Both stay as they are.
func (i item) merged(value, fallback php.Value) php.Value {
	if value == nil {
		return fallback
	}
	if fallback == nil || i.merge == firstWins {
		return value
	}
	own, other := value.(*php.Array), fallback.(*php.Array)
	switch i.merge {
	case mapMerge:
		return php.Plus(own, other)
	case aliasMerge:
		return php.MergeRecursive(own, other)
	case inheritMerge:
		inherit := php.StringKey("inherit")
		v, ok := own.Get(inherit)
		if !ok {
			return own
		}
		if truthy(v) {
			own = php.Merge(other, own)
		} else {
			own = own.Clone()
		}
		own.Delete(inherit)
		return own
	case wordMerge:
		return mergedWords(own, other)
	}
	panic("l10n: unknown merge")
}

// mergedWords is LocalisationCache::mergeMagicWords: of a word in both, the fallback's first element, which tells whether case
// matters, then own synonyms and the fallback's, each once.
func mergedWords(own, other *php.Array) *php.Array {
	sum := own.Clone()
	var word []php.Value
	for name, v := range other.All() {
		was, ok := own.Get(name)
		if !ok {
			sum.Set(name, v)
			continue
		}
		fallback := v.(*php.Array)
		first, _ := fallback.Get(php.IntKey(0))
		word = append(word[:0], first)
		word = appendSynonyms(word, was.(*php.Array))
		word = appendSynonyms(word, fallback)
		sum.Set(name, php.List(word...))
	}
	return sum
}

// appendSynonyms appends to a word those synonyms of another that it does not have, compared as strings.
func appendSynonyms(word []php.Value, from *php.Array) []php.Value {
synonyms:
	for k, v := range from.All() {
		if k.Int == 0 {
			continue // whether case matters
		}
		for _, w := range word[1:] {
			if sameText(v, w) {
				continue synonyms
			}
		}
		word = append(word, v)
	}
	return word
}

// sameText tells whether PHP's conversion to strings makes the same of two scalars.
func sameText(v, w php.Value) bool {
	a, ok := v.(string)
	b, both := w.(string)
	if !ok || !both {
		a, _ = php.ToString(v)
		b, _ = php.ToString(w)
	}
	return a == b
}

// truthy is PHP's conversion to a boolean.
func truthy(v php.Value) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case int64:
		return v != 0
	case float64:
		return v != 0
	case string:
		return v != "" && v != "0"
	}
	return v.(*php.Array).Len() > 0
}

// underscored is PHP's str_replace( ' ', '_', v ): all elements become strings, arrays the word "Array", with a warning.
func underscored(v php.Value) php.Value {
	a, ok := v.(*php.Array)
	if !ok {
		s, _ := php.ToString(v)
		return strings.ReplaceAll(s, " ", "_")
	}
	out := &php.Array{}
	for k, v := range a.All() {
		s, ok := php.ToString(v)
		if !ok {
			s = "Array"
		}
		out.Set(k, strings.ReplaceAll(s, " ", "_"))
	}
	return out
}

// final is the value of item i as it is stored: with underscores in names, and [] for no plural rules.
func final(i int, v php.Value) php.Value {
	switch i {
	case itemNamespaces:
		if v != nil {
			return underscored(v)
		}
	case itemAliases:
		if a, ok := v.(*php.Array); ok {
			out := &php.Array{}
			for k, v := range a.All() {
				out.Set(k, underscored(v))
			}
			return out
		}
	case itemRules, itemTypes, itemCompiled:
		if v == nil {
			return &php.Array{}
		}
	}
	return v
}
