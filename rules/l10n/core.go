package l10n

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/mwbuild/mwbuild/rules/l10n/php"
)

// coreConstants are those of includes/Defines.php that files of localisation use.
var coreConstants = map[string]php.Value{
	"NS_MEDIA": int64(-2), "NS_SPECIAL": int64(-1),
	"NS_MAIN": int64(0), "NS_TALK": int64(1), "NS_USER": int64(2), "NS_USER_TALK": int64(3),
	"NS_PROJECT": int64(4), "NS_PROJECT_TALK": int64(5), "NS_FILE": int64(6), "NS_FILE_TALK": int64(7),
	"NS_MEDIAWIKI": int64(8), "NS_MEDIAWIKI_TALK": int64(9), "NS_TEMPLATE": int64(10), "NS_TEMPLATE_TALK": int64(11),
	"NS_HELP": int64(12), "NS_HELP_TALK": int64(13), "NS_CATEGORY": int64(14), "NS_CATEGORY_TALK": int64(15),
}

// values are those of the items, nil where there is none.
type values []php.Value

// wanted are the items' names that v knows, of all or of those that extensions can set.
func wanted(v Version, extension bool) []string {
	var names []string
	for i := range items {
		if v.has(i) && (!extension || v.extensionsSet(i)) {
			names = append(names, items[i].name)
		}
	}
	return names
}

// check refuses a value of which MediaWiki's merging would make a fatal error or nonsense.
func (i item) check(where string, v php.Value) error {
	a, ok := v.(*php.Array)
	if i.merge == firstWins || v == nil {
		return nil
	}
	if !ok {
		return fmt.Errorf("%s: $%s: want an array", where, i.name)
	}
	for k, v := range a.All() {
		inner, nested := v.(*php.Array)
		switch {
		case i.merge == wordMerge:
			if !nested || !inner.IsList() || hasArrays(inner) {
				return fmt.Errorf("%s: $%s: %s: want a list of a number and words", where, i.name, k)
			}
		case i.name == "messages" && nested:
			return fmt.Errorf("%s: $%s: %s is an array, of which MediaWiki would show the word \"Array\"; make it a string", where, i.name, k)
		}
	}
	return nil
}

func hasArrays(a *php.Array) bool {
	for _, v := range a.All() {
		if _, ok := v.(*php.Array); ok {
			return true
		}
	}
	return false
}

// A Core is what a MessagesXx.php of MediaWiki's sets.
type Core struct {
	name   string
	values values

	digestOnce sync.Once
	digest     [32]byte
}

// Core reads a MessagesXx.php. A file that is more than literals is an error with its name and line.
func (c *Compiler) Core(name string, data []byte) (*Core, error) {
	f, err := php.Parse(name, data, php.Options{Constants: coreConstants, Only: wanted(c.version, false)})
	if err != nil {
		return nil, err
	}
	core := &Core{name: name, values: make(values, len(items))}
	for i := range items {
		v, ok := f.Vars.Get(php.StringKey(items[i].name))
		if !ok || !c.version.has(i) {
			continue
		}
		if err := items[i].check(name, v); err != nil {
			return nil, err
		}
		core.values[i] = v
	}
	if _, _, err := fallbackOf(name, core.values[itemFallback]); err != nil {
		return nil, err
	}
	return core, nil
}

// Digest is of the values, of those variables that the compiler's version knows.
func (c *Core) Digest() [32]byte {
	c.digestOnce.Do(func() {
		w := digester{h: sha256.New()}
		w.items(c.values)
		c.digest = w.sum()
	})
	return c.digest
}

// items writes those values that are there.
func (d *digester) items(vs values) {
	for i, v := range vs {
		if v != nil {
			d.text(items[i].name)
			d.value(v)
		}
	}
	d.count(0)
}

// fallbackOf is $fallback; false and null are none.
func fallbackOf(name string, v php.Value) (string, bool, error) {
	switch v := v.(type) {
	case nil:
		return "", false, nil
	case bool:
		if !v {
			return "", false, nil
		}
	case string:
		return v, true, nil
	}
	return "", false, fmt.Errorf("%s: $fallback: want a string", name)
}

// ReadFallback returns $fallback of a MessagesXx.php, and whether it is set to a string.
func ReadFallback(name string, data []byte) (fallback string, ok bool, err error) {
	f, err := php.Parse(name, data, php.Options{Constants: coreConstants, Only: []string{"fallback"}})
	if err != nil {
		return "", false, err
	}
	v, _ := f.Vars.Get(php.StringKey("fallback"))
	return fallbackOf(name, v)
}

// Chain returns the languages that a language falls back to, in their order, as recache() does: $fallback of its own file,
// then English unless that is the last; original is the same without the English that was added. core is nil where the
// language has no file. It is not recursive: what the others fall back to is nothing to it.
func Chain(language string, core *Core) (sequence, original []string, err error) {
	name, v := language, php.Value(nil)
	if core != nil {
		name, v = core.name, core.values[itemFallback]
	}
	fallback, ok, err := fallbackOf(name, v)
	if err != nil {
		return nil, nil, err
	}
	if v != nil && !ok && language != "en" {
		return nil, nil, fmt.Errorf("%s: $fallback is false, which MediaWiki takes for a language without a name; remove it", name)
	}
	return sequenceOf(name, language, fallback, ok)
}

// sequenceOf is Chain for a language whose file says fallback, if ok.
func sequenceOf(name, language, fallback string, ok bool) (sequence, original []string, err error) {
	if !ok && language == "en" {
		return nil, nil, nil
	}
	seen := map[string]bool{language: true}
	if ok {
		for code := range strings.SplitSeq(fallback, ",") {
			code = strings.Trim(code, " \t\n\r\x00\x0b")
			if !languageCode.MatchString(code) {
				return nil, nil, fmt.Errorf("%s: $fallback names %q, which is no code of a language", name, code)
			}
			if seen[code] {
				return nil, nil, fmt.Errorf("%s: $fallback names %s, which is the language itself or there before; name it once", name, code)
			}
			seen[code] = true
			original = append(original, code)
		}
	}
	sequence = slices.Clone(original)
	if len(sequence) == 0 || sequence[len(sequence)-1] != "en" {
		if seen["en"] {
			return nil, nil, fmt.Errorf("%s: $fallback names en, but not as the last; MediaWiki would read it twice", name)
		}
		sequence = append(sequence, "en")
	}
	return sequence, original, nil
}

// ReadNames returns the codes of the languages in Names.php, in its order.
func ReadNames(name string, data []byte) ([]string, error) {
	f, err := php.Parse(name, data, php.Options{Only: []string{"names", "NAMES"}})
	if err != nil {
		return nil, err
	}
	v, ok := f.Vars.Get(php.StringKey("NAMES"))
	if !ok {
		v, _ = f.Vars.Get(php.StringKey("names"))
	}
	a, ok := v.(*php.Array)
	if !ok {
		return nil, fmt.Errorf("%s: no array of names, NAMES or $names", name)
	}
	var codes []string
	for k := range a.All() {
		codes = append(codes, k.String())
	}
	return codes, nil
}

// An AliasFile is a file of ExtensionMessagesFiles, under its key there.
type AliasFile struct {
	Key, Name string
	Data      []byte
}

// Aliases are what the ExtensionMessagesFiles of one component set, by language.
type Aliases struct {
	parts map[string]*AliasPart
}

// An AliasPart is what these files set for one language, file by file.
type AliasPart struct {
	files []*aliasValues

	digestOnce sync.Once
	digest     [32]byte
}

type aliasValues struct {
	key    string // of ExtensionMessagesFiles
	index  int    // of the file in its component
	values values
}

// Aliases reads the ExtensionMessagesFiles of one component in the order of registration. constants are those of the namespaces
// that extensions define; core's need not be there. What is no array by language, MediaWiki passes over, and so does Aliases.
func (c *Compiler) Aliases(files []AliasFile, constants map[string]php.Value) (*Aliases, error) {
	all := maps.Clone(coreConstants)
	for k, v := range constants {
		if _, ok := all[k]; !ok {
			all[k] = v
		}
	}
	out := &Aliases{parts: map[string]*AliasPart{}}
	for index, file := range files {
		f, err := php.Parse(file.Name, file.Data, php.Options{Constants: all, Only: wanted(c.version, true)})
		if err != nil {
			return nil, err
		}
		of := map[string]*aliasValues{} // by language
		for i := range items {
			v, _ := f.Vars.Get(php.StringKey(items[i].name))
			a, ok := v.(*php.Array)
			if !ok || !c.version.extensionsSet(i) {
				continue
			}
			for k, v := range a.All() {
				if v == nil {
					continue
				}
				language := k.String()
				if err := items[i].check(file.Name+": "+language, v); err != nil {
					return nil, err
				}
				if of[language] == nil {
					of[language] = &aliasValues{file.Key, index, make(values, len(items))}
					if out.parts[language] == nil {
						out.parts[language] = &AliasPart{}
					}
					out.parts[language].files = append(out.parts[language].files, of[language])
				}
				of[language].values[i] = v
			}
		}
	}
	return out, nil
}

// Languages are those that the files set something for, sorted.
func (a *Aliases) Languages() []string { return slices.Sorted(maps.Keys(a.parts)) }

// Part is what the files set for a language, nil where that is nothing.
func (a *Aliases) Part(language string) *AliasPart { return a.parts[language] }

// Digest is of the files' keys and values, in their order.
func (p *AliasPart) Digest() [32]byte {
	p.digestOnce.Do(func() {
		w := digester{h: sha256.New()}
		for _, f := range p.files {
			w.text(f.key)
			w.items(f.values)
		}
		p.digest = w.sum()
	})
	return p.digest
}
