package l10n

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mwbuild/mwbuild/rules/l10n/message"
	"github.com/mwbuild/mwbuild/rules/l10n/php"
	"github.com/mwbuild/mwbuild/rules/l10n/plural"
)

// A world is all that localisation is made of, as sources.
type world struct {
	version    Version
	core       map[string]string // MessagesXx.php by language, without <?php
	plural     map[string]*plural.Rules
	components []component // core first
	ordered    bool        // whether inputs have MessageKeys and AliasKeys
}

type component struct {
	messages, aliases []folder
	files             [][2]string // of ExtensionMessagesFiles: key and source without <?php
}

// A folder is the JSON of each language, under a key of MessagesDirs or TranslationAliasesDirs.
type folder struct {
	key   string
	files map[string]string
}

func sectionsOf(folders []folder, language string) (sections []Section) {
	for _, f := range folders {
		src, ok := f.files[language]
		if !ok {
			continue
		}
		if n := len(sections); n == 0 || sections[n-1].Key != f.key {
			sections = append(sections, Section{Key: f.key})
		}
		s := &sections[len(sections)-1]
		s.Files = append(s.Files, Source{f.key + "/" + language + ".json", []byte(src)})
	}
	return sections
}

// A reader reads a world's files, each once.
type reader struct {
	*world
	*Compiler
	links   map[string]*Link
	aliases []*Aliases // by component
}

func (w *world) reader(c *Compiler) (*reader, error) {
	r := &reader{world: w, Compiler: c, links: map[string]*Link{}}
	for _, component := range w.components {
		var files []AliasFile
		for _, f := range component.files {
			files = append(files, AliasFile{f[0], f[0] + ".php", []byte("<?php\n" + f[1])})
		}
		aliases, err := c.Aliases(files, nil)
		if err != nil {
			return nil, err
		}
		r.aliases = append(r.aliases, aliases)
	}
	return r, nil
}

// link reads what a language's link is made of.
func (r *reader) link(language string) (*Link, error) {
	if link := r.links[language]; link != nil {
		return link, nil
	}
	link := &Link{Language: language, Plural: r.plural[language]}
	var err error
	if src, ok := r.core[language]; ok {
		if link.Core, err = r.Core("Messages-"+language+".php", []byte("<?php\n"+src)); err != nil {
			return nil, err
		}
	}
	for i, component := range r.components {
		link.Aliases = append(link.Aliases, r.aliases[i].Part(language))
		in := FragmentInput{sectionsOf(component.messages, language), sectionsOf(component.aliases, language), i > 0}
		var f *Fragment
		if len(in.Messages)+len(in.Aliases) > 0 {
			if f, err = r.Fragment(language, in); err != nil {
				return nil, err
			}
		}
		link.Fragments = append(link.Fragments, f)
	}
	r.links[language] = link
	return link, nil
}

// input reads what a language's file is made of.
func (r *reader) input(language string) (*Input, error) {
	in := &Input{Language: language, SkipFiles: map[string]bool{}}
	for _, d := range CoreMessageDirs(r.world.version) {
		in.SkipFiles[d.Key] = true
	}
	for i, component := range r.components {
		for _, f := range component.messages {
			in.SkipFiles[f.key] = true
			if r.ordered && i > 0 {
				in.MessageKeys = append(in.MessageKeys, f.key)
			}
		}
		for _, f := range component.aliases {
			in.SkipFiles[f.key] = true
			if r.ordered {
				in.AliasKeys = append(in.AliasKeys, f.key)
			}
		}
	}
	own, err := r.link(language)
	if err != nil {
		return nil, err
	}
	sequence, _, err := Chain(language, own.Core)
	if err != nil {
		return nil, err
	}
	for _, code := range append([]string{language}, sequence...) {
		link, err := r.link(code)
		if err != nil {
			return nil, err
		}
		in.Links = append(in.Links, *link)
	}
	return in, nil
}

// input reads what a language's file is made of.
func (w *world) input(c *Compiler, language string) (*Input, error) {
	r, err := w.reader(c)
	if err != nil {
		return nil, err
	}
	return r.input(language)
}

// recache is LocalisationCache::recache step by step, without any of what makes the compiler fast: the arrays that it hands to the
// store, in order. late is whether the store falls back late; the messages are an array of their own then.
func (w *world) recache(t fataler, code string, late bool) *php.Array {
	// Properties of the class.
	newer := !w.version.before(Version{1, 41})
	allKeys := wanted(w.version, false)
	null := func() *php.Array {
		a := &php.Array{}
		for _, k := range allKeys {
			a.Set(php.StringKey(k), nil)
		}
		return a
	}
	get := func(a *php.Array, key string) php.Value {
		v, _ := a.Get(php.StringKey(key))
		return v
	}
	readPHP := func(name, src string, keys []string) *php.Array {
		f, err := php.Parse(name, []byte("<?php\n"+src), php.Options{Constants: coreConstants})
		if err != nil {
			t.Fatal(err)
		}
		data := &php.Array{}
		for _, k := range keys {
			if v := get(f.Vars, k); v != nil {
				data.Set(php.StringKey(k), v)
			}
		}
		return data
	}
	readJSON := func(src string, ok bool) *php.Array {
		data := &php.Array{}
		if !ok {
			return data
		}
		v, err := message.ReadValue("json", []byte(src))
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range v.(*php.Array).All() {
			if s := k.String(); s != "" && s[0] != '@' {
				data.Set(k, v)
			}
		}
		return data
	}
	plurals := func(code string) *php.Array {
		data := &php.Array{}
		for _, k := range []string{"pluralRules", "compiledPluralRules", "pluralRuleTypes"} {
			data.Set(php.StringKey(k), nil)
		}
		if r := w.plural[code]; r != nil {
			data.Set(php.StringKey("pluralRules"), stringList(r.Rules))
			data.Set(php.StringKey("compiledPluralRules"), stringList(r.Compiled))
			data.Set(php.StringKey("pluralRuleTypes"), stringList(r.Types))
		}
		return data
	}
	readSource := func(code string) *php.Array {
		data := &php.Array{}
		if src, ok := w.core[code]; ok {
			data = readPHP(code, src, allKeys)
		}
		if !newer {
			for k, v := range plurals(code).All() {
				data.Set(k, v)
			}
		}
		return data
	}
	mapKeys := []string{"messages", "namespaceNames", "namespaceAliases", "dateFormats", "jsDateFormats", "imageFiles", "preloadedMessages"}
	mergeable := func(key string) bool {
		return slices.Contains(append(mapKeys, "specialPageAliases", "bookstoreList", "magicWords"), key)
	}
	mergeItem := func(to *php.Array, k php.Key, fallback php.Value) {
		value, _ := to.Get(k)
		if value == nil {
			to.Set(k, fallback)
			return
		}
		if fallback == nil {
			return
		}
		key := k.String()
		switch {
		case slices.Contains(mapKeys, key):
			value = php.Plus(value.(*php.Array), fallback.(*php.Array))
		case key == "specialPageAliases":
			value = php.MergeRecursive(value.(*php.Array), fallback.(*php.Array))
		case key == "bookstoreList":
			a := value.(*php.Array).Clone()
			if truthy(get(a, "inherit")) {
				a = php.Merge(fallback.(*php.Array), a)
			}
			a.Delete(php.StringKey("inherit"))
			value = a
		case key == "magicWords":
			a := value.(*php.Array).Clone()
			for name, info := range fallback.(*php.Array).All() {
				info := info.(*php.Array)
				was, _ := a.Get(name)
				if was == nil {
					a.Set(name, info)
					continue
				}
				first, _ := info.Get(php.IntKey(0))
				word := php.List(first)
				for _, v := range php.UniqueValues(php.Merge(php.Slice1(was.(*php.Array)), php.Slice1(info))).All() {
					word.Append(v)
				}
				a.Set(name, word)
			}
			value = a
		}
		to.Set(k, value)
	}

	// The core's data, with its fallback sequence.
	coreData := &php.Array{}
	if newer {
		for i, k := range itemNames {
			if items[i].coreOnly && w.version.has(i) {
				coreData.Set(php.StringKey(k), nil)
			}
		}
	} else {
		coreData = null()
	}
	for k, v := range readSource(code).All() {
		mergeItem(coreData, k, v)
	}
	sequence, original := []string{}, []string{}
	if fallback := get(coreData, "fallback"); (fallback == nil || fallback == false) && code == "en" {
		coreData.Set(php.StringKey("fallback"), false)
	} else {
		if fallback != nil {
			for part := range strings.SplitSeq(fallback.(string), ",") {
				sequence = append(sequence, strings.TrimSpace(part))
			}
		}
		original = slices.Clone(sequence)
		if len(sequence) == 0 || sequence[len(sequence)-1] != "en" {
			sequence = append(sequence, "en")
		}
	}
	coreData.Set(php.StringKey("fallbackSequence"), stringList(sequence))
	coreData.Set(php.StringKey("originalFallbackSequence"), stringList(original))
	if newer {
		for _, fb := range sequence {
			for i, k := range itemNames {
				if v := get(readSource(fb), k); items[i].coreOnly && v != nil && get(coreData, k) == nil {
					coreData.Set(php.StringKey(k), v)
				}
			}
		}
		coreData.Set(php.StringKey("deps"), &php.Array{})
		coreData = php.Plus(coreData, plurals(code))
	}

	// Folders by key, as PHP's arrays have them.
	type dirs struct {
		key     string
		folders []folder
	}
	collect := func(of func(component) []folder, core int) (all []dirs) {
		for i, c := range w.components[core:] {
			for _, f := range of(c) {
				at := slices.IndexFunc(all, func(d dirs) bool { return d.key == f.key })
				switch {
				case at < 0:
					all = append(all, dirs{f.key, []folder{f}})
				default:
					all[at].folders = append(all[at].folders, f)
				}
			}
			if i == 0 && core == 0 {
				break
			}
		}
		return all
	}
	messageDirs := collect(func(c component) []folder { return c.messages }, 0)
	for _, d := range CoreMessageDirs(w.version) {
		if !slices.ContainsFunc(messageDirs, func(e dirs) bool { return e.key == d.Key }) {
			messageDirs = append(messageDirs, dirs{key: d.Key})
		}
	}
	for _, d := range collect(func(c component) []folder { return c.messages }, 1) {
		if !slices.ContainsFunc(messageDirs, func(e dirs) bool { return e.key == d.key }) {
			messageDirs = append(messageDirs, d)
		}
	}
	aliasDirs := collect(func(c component) []folder { return c.aliases }, 1)
	skipped := func(key string) bool {
		is := func(d dirs) bool { return d.key == key }
		return slices.ContainsFunc(messageDirs, is) || slices.ContainsFunc(aliasDirs, is)
	}
	files := &php.Array{}
	for _, c := range w.components {
		for _, f := range c.files {
			files.Set(php.Key{Str: f[0]}, f[1])
		}
	}

	codeSequence := append([]string{code}, sequence...)
	if late {
		codeSequence = codeSequence[:1]
	}
	sourceLanguage := map[php.Key]string{}
	extensionData := map[string]*php.Array{}
	for _, cs := range codeSequence {
		extensionData[cs] = null()
	}
	for name, src := range files.All() {
		if skipped(name.Str) {
			continue
		}
		for key, item := range readPHP(name.Str, src.(string), wanted(w.version, true)).All() {
			item, _ := item.(*php.Array)
			for _, cs := range codeSequence {
				v := get(item, cs)
				if v == nil {
					continue
				}
				if key.Str == "messages" {
					for k := range v.(*php.Array).All() {
						if _, ok := sourceLanguage[k]; !ok {
							sourceLanguage[k] = cs
						}
					}
				}
				mergeItem(extensionData[cs], key, v)
			}
		}
	}

	allData := null()
	for _, cs := range codeSequence {
		csData := null()
		for _, d := range messageDirs {
			for _, f := range d.folders {
				src, ok := f.files[cs]
				messages := readJSON(src, ok)
				for k := range messages.All() {
					if _, ok := sourceLanguage[k]; !ok {
						sourceLanguage[k] = cs
					}
				}
				mergeItem(csData, php.StringKey("messages"), messages)
			}
		}
		for _, d := range aliasDirs {
			for _, f := range d.folders {
				src, ok := f.files[cs]
				for _, v := range readJSON(src, ok).All() {
					mergeItem(extensionData[cs], php.StringKey("specialPageAliases"), v)
				}
			}
		}
		for k, v := range extensionData[cs].All() {
			mergeItem(csData, k, v)
		}
		if cs == code {
			for k, v := range coreData.All() {
				mergeItem(csData, k, v)
			}
			allData = csData
			continue
		}
		fbData := readSource(cs)
		if newer {
			fbData = php.Plus(fbData, plurals(cs))
		}
		for _, key := range allKeys {
			if v := get(fbData, key); v != nil && (get(coreData, key) == nil || mergeable(key)) {
				mergeItem(csData, php.StringKey(key), v)
			}
		}
		for _, key := range allKeys {
			if v := get(csData, key); v != nil && (get(allData, key) == nil || mergeable(key)) {
				mergeItem(allData, php.StringKey(key), v)
			}
		}
	}

	set := func(key string, v php.Value) { allData.Set(php.StringKey(key), v) }
	set("deps", &php.Array{})
	if v := get(allData, "namespaceNames"); v != nil {
		set("namespaceNames", underscored(v))
	}
	if v := get(allData, "specialPageAliases"); v != nil {
		pages := &php.Array{}
		for k, v := range v.(*php.Array).All() {
			pages.Set(k, underscored(v))
		}
		set("specialPageAliases", pages)
	}
	for _, k := range []string{"pluralRules", "compiledPluralRules", "pluralRuleTypes"} {
		if get(allData, k) == nil {
			set(k, &php.Array{})
		}
	}
	keys, messages := &php.Array{}, &php.Array{}
	for k, v := range get(allData, "messages").(*php.Array).All() {
		if k.IsInt {
			keys.Append(k.Int)
		} else {
			keys.Append(k.Str)
		}
		language, ok := sourceLanguage[k]
		if !ok {
			language = code
		}
		text, _ := php.ToString(v)
		messages.Set(k, language+":"+text)
	}
	if late {
		for _, k := range []string{"preloadedMessages", "list", "preload"} {
			set(k, &php.Array{})
		}
		stored := &php.Array{}
		for k, v := range allData.All() {
			if k.Str != "messages" {
				stored.Set(k, v)
			} else if messages.Len() > 0 {
				stored.Set(k, messages)
			}
		}
		return stored
	}
	list := &php.Array{}
	list.Set(php.StringKey("messages"), keys)
	set("list", list)
	loaded := &php.Array{}
	for _, k := range get(allData, "preloadedMessages").(*php.Array).All() {
		text, _ := php.ToString(k)
		v, _ := messages.Get(php.StringKey(text))
		if v == nil && !w.version.before(Version{1, 46}) {
			continue
		}
		loaded.Set(php.StringKey(text), v)
	}
	preload := &php.Array{}
	preload.Set(php.StringKey("messages"), loaded)
	for _, k := range []string{"dateFormats", "namespaceNames"} {
		if v := get(allData, k); v != nil || w.version.before(Version{1, 46}) {
			preload.Set(php.StringKey(k), v)
		}
	}
	set("preload", preload)

	stored := &php.Array{}
	for k, v := range allData.All() {
		if k.Str != "messages" {
			stored.Set(k, v)
			continue
		}
		for k, v := range messages.All() {
			stored.Set(php.StringKey("messages:"+k.String()), v)
		}
	}
	return stored
}

// storedAs is what the stores make of recache's array: a StaticArray file, or CDB's records without the tables.
func storedAs(f Format, v Version, stored *php.Array) string {
	if f == CDB {
		var out []byte
		for k, v := range stored.All() {
			start := len(out)
			out = php.AppendSerialize(beginRecord(out, k.String()), v)
			out = endRecord(out, start, len(k.String()))
		}
		return string(out)
	}
	encoded := &php.Array{}
	for k, v := range stored.All() {
		if a, ok := v.(*php.Array); ok && k.Str != "messages" {
			v = php.List("v", a)
		}
		encoded.Set(k, v)
	}
	out := php.AppendStaticArray([]byte("<?php\n// Generated by LCStoreStaticArray.php -- do not edit!\nreturn "), encoded, 0, v.lists())
	return string(out) + ";\n"
}

// fataler is a *testing.T or *rapid.T.
type fataler interface{ Fatal(...any) }

// drawWorld makes a world in which much collides.
func drawWorld(t *rapid.T) *world {
	versions := []Version{{1, 39}, {1, 41}, {1, 43}, {1, 46}}
	w := &world{version: rapid.SampledFrom(versions).Draw(t, "version"), core: map[string]string{}, plural: map[string]*plural.Rules{}}
	languages := []string{"en", "de", "de-at", "als"}
	text := rapid.SampledFrom([]string{"", "a", "it's", `back\slash\`, "nul\x00", "two\nlines", "schön 🦄", "a b c", "',\n"})
	key := rapid.SampledFrom([]string{"k1", "k2", "0", "1", "12", "012", "-7", "q'uote", "k\\", "ü", "k 4"})
	quoted := func(v php.Value) string { return string(php.AppendExport(nil, v)) }
	pairs := func(value func() php.Value) *php.Array {
		a := &php.Array{}
		for range rapid.IntRange(0, 4).Draw(t, "size") {
			a.Set(php.StringKey(key.Draw(t, "key")), value())
		}
		return a
	}
	texts := func() *php.Array { return pairs(func() php.Value { return text.Draw(t, "text") }) }
	scalar := func() php.Value {
		return rapid.SampledFrom([]php.Value{nil, true, false, int64(3), 1.5, "s", "t u"}).Draw(t, "scalar")
	}
	list := func() *php.Array {
		a := &php.Array{}
		for range rapid.IntRange(0, 3).Draw(t, "size") {
			a.Append(text.Draw(t, "text"))
		}
		return a
	}
	value := func(i int) php.Value {
		switch name := items[i].name; {
		case i == itemMessages:
			return pairs(scalar)
		case name == "bookstoreList":
			a := texts()
			if rapid.Bool().Draw(t, "inherit") {
				a.Set(php.StringKey("inherit"), scalar())
			}
			return a
		case name == "magicWords":
			return pairs(func() php.Value {
				word := php.List(int64(rapid.IntRange(0, 1).Draw(t, "case")))
				for _, v := range list().All() {
					word.Append(v)
				}
				return word
			})
		case i == itemAliases:
			return pairs(func() php.Value {
				if rapid.Bool().Draw(t, "scalar page") {
					return scalar()
				}
				a := list()
				if rapid.Bool().Draw(t, "strange page") {
					a.Set(php.StringKey("x"), list())
				}
				return a
			})
		case i == itemNamespaces:
			return pairs(scalar)
		case i == itemPreloaded:
			a := &php.Array{}
			for range rapid.IntRange(0, 3).Draw(t, "size") {
				a.Append(key.Draw(t, "key"))
			}
			return a
		case items[i].merge == mapMerge:
			return texts()
		}
		return rapid.SampledFrom([]php.Value{nil, false, int64(1), "x", php.List("a", php.List("b"))}).Draw(t, "value")
	}
	for _, language := range languages {
		if language != "en" && rapid.IntRange(0, 4).Draw(t, "file") == 0 {
			continue
		}
		var src strings.Builder
		for i := range items {
			needed := language == "en" && (i == itemRTL || i == itemNamespaces || i == itemAliases || i == itemPreloaded)
			if i == itemFallback || !needed && rapid.IntRange(0, 2).Draw(t, "set") > 0 {
				continue
			}
			v := value(i)
			if i == itemRTL && v == nil {
				v = false
			}
			fmt.Fprintf(&src, "$%s = %s;\n", items[i].name, quoted(v))
		}
		if language != "en" {
			fallback := rapid.SampledFrom([]string{"", "", "de", "als", "als , de", "de-at,als,en"}).Draw(t, "fallback")
			if fallback != "" && !strings.Contains(","+strings.ReplaceAll(fallback, " ", "")+",", ","+language+",") {
				fmt.Fprintf(&src, "$fallback = %s;\n", quoted(fallback))
			}
		}
		w.core[language] = src.String()
		if rapid.Bool().Draw(t, "plural") {
			w.plural[language] = &plural.Rules{Rules: []string{"n = 1"}, Types: []string{"one"}, Compiled: []string{"n 1 is"}}
		}
	}
	jsonMessages := func() string {
		var b strings.Builder
		b.WriteString(`{"@metadata": [], "": "no"`)
		for k, v := range pairs(func() php.Value {
			if rapid.IntRange(0, 5).Draw(t, "kind") == 0 {
				return scalar()
			}
			return text.Draw(t, "text")
		}).All() {
			name, _ := json.Marshal(k.String())
			val, _ := json.Marshal(v)
			fmt.Fprintf(&b, ",%s:%s", name, val)
		}
		return b.String() + "}"
	}
	jsonAliases := func() string {
		var b strings.Builder
		for k, v := range pairs(func() php.Value { return list() }).All() {
			name, _ := json.Marshal(k.String())
			words := []string{}
			for _, v := range v.(*php.Array).All() {
				words = append(words, v.(string))
			}
			val, _ := json.Marshal(words)
			if b.Len() > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, "%s:%s", name, val)
		}
		return `{"@metadata":{},"SpecialPageAliases":{` + b.String() + `}}`
	}
	// A key that two components share has all languages in both, unless the order of keys is known: see Input.
	w.ordered = rapid.Bool().Draw(t, "ordered")
	folders := func(keys []string, src func() string) (all []folder) {
		for _, k := range keys {
			f := folder{k, map[string]string{}}
			for _, language := range languages {
				if strings.HasPrefix(k, "shared") && !w.ordered || rapid.Bool().Draw(t, "file") {
					f.files[language] = src()
				}
			}
			all = append(all, f)
		}
		return all
	}
	for i := range 4 {
		var c component
		if i == 0 {
			c.messages = folders([]string{"core", "exif"}, jsonMessages)
		} else {
			own := fmt.Sprint("own", i)
			keys := rapid.SampledFrom([][]string{{own}, {own, own, own + "b"}, {"shared1", own}, {own, "shared2", "shared1"}, {"exif"}, nil})
			c.messages = folders(keys.Draw(t, "keys"), jsonMessages)
			keys = rapid.SampledFrom([][]string{nil, nil, {own}, {"shared3", own}})
			c.aliases = folders(keys.Draw(t, "alias keys"), jsonAliases)
			if !w.version.jsonAliases() {
				c.aliases = nil
			}
			for j := range rapid.IntRange(0, 2).Draw(t, "files") {
				name := rapid.SampledFrom([]string{fmt.Sprint("file", i, j), own, "twice"}).Draw(t, "name")
				var src strings.Builder
				for k := range items {
					// The one that several components have sets something for each language, as the shared folders do.
					all := name == "twice" && items[k].name == "imageFiles"
					if !all && rapid.IntRange(0, 4).Draw(t, "set") > 0 {
						continue
					}
					fmt.Fprintf(&src, "$%s = [];\n", items[k].name)
					for _, language := range languages {
						if v := value(k); all || rapid.Bool().Draw(t, "in") {
							fmt.Fprintf(&src, "$%s['%s'] = %s;\n", items[k].name, language, quoted(v))
						}
					}
				}
				if !slices.ContainsFunc(c.files, func(f [2]string) bool { return f[0] == name }) {
					c.files = append(c.files, [2]string{name, src.String()})
				}
			}
		}
		w.components = append(w.components, c)
	}
	return w
}

// Every language of any world is compiled to what the steps of recache(), taken one by one, give, in both formats; with one
// compiler after another and all languages, so that nothing of one leaks into the next.
func TestCompileIsRecache(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		c := NewCompiler(w.version)
		r, err := w.reader(c)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			for _, language := range slices.Sorted(maps.Keys(w.core)) {
				in, err := r.input(language)
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range []Format{StaticArray, CDB} {
					want := storedAs(f, w.version, w.recache(t, language, w.version.LateFallback(f)))
					got, err := c.Compile([]byte("before"), f, in)
					if err != nil {
						t.Fatal(err)
					}
					got = got[len("before"):]
					if f == CDB {
						got = checkCDB(t, got)
					}
					if string(got) != want {
						t.Fatalf("%s of %s (-want +got):\n%s", f.FileName(language), w.version, cmp.Diff(want, string(got)))
					}
				}
			}
		}
	})
}
