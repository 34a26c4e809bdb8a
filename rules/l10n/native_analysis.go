package l10n

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/mwbuild/mwbuild/rules/l10n/message"
	"github.com/mwbuild/mwbuild/rules/l10n/php"
)

// Files is the package that a component is, as analysis sees it. Paths are the workspace's.
type Files interface {
	Glob(patterns ...string) ([]string, error) // relative to the package
	Has(file string) bool
	Read(file string) ([]byte, error)
}

// hooks change localisation by code, so that no compiler but MediaWiki's own can do it.
var hooks = []string{"LocalisationCacheRecache", "LocalisationCacheRecacheFallback"}

// AnalyseComponent finds what an extension or skin says: args has "manifests", its extension.json or skin.json files.
//
// The result, for the built-in rules: "fragments", the files of each language as pairs of role and path; "dirs", the folders
// that these are in; "files", those of ExtensionMessagesFiles; "message_keys" and "alias_keys", under which messages and aliases in JSON are
// registered, in their order, and "file_keys", under which PHP files are; "constants", the namespaces' numbers; "hooks", those that change localisation by code.
//
// It follows ExtensionProcessor: folders and files are relative to their manifest.
func AnalyseComponent(_ context.Context, files Files, pkg string, args map[string]any) (any, error) {
	a := newAnalysis(files, pkg)
	manifests, _ := args["manifests"].([]any)
	for _, m := range manifests {
		name, _ := m.(string)
		if err := a.manifest(name); err != nil {
			return nil, err
		}
	}
	return a.result(), nil
}

// AnalyseCore finds what MediaWiki's core says; args may have "extra_languages", codes that are no languages of Names.php.
//
// Beside what [AnalyseComponent] tells the result has "version"; "late_fallback", the formats in which MediaWiki looks up what
// a language lacks when it reads the file; "json_aliases", whether it knows TranslationAliasesDirs; "core", the PHP file of each language that has one;
// "plurals", the files of plural rules; and "chains", for each language that MediaWiki compiles those whose texts it
// reads: itself, what it falls back to, English.
func AnalyseCore(_ context.Context, files Files, pkg string, args map[string]any) (any, error) {
	a := newAnalysis(files, pkg)
	version, err := a.version()
	if err != nil {
		return nil, err
	}
	if err := a.knowsItems(version); err != nil {
		return nil, err
	}
	for _, d := range CoreMessageDirs(version) {
		if err := a.messages("messages "+d.Key, path.Join(pkg, d.Path)); err != nil {
			return nil, err
		}
		a.messageKeys = append(a.messageKeys, d.Key)
	}
	core := map[string]string{}
	names, err := files.Glob("languages/messages/Messages*.php")
	if err != nil {
		return nil, err
	}
	for _, f := range names {
		code := strings.TrimSuffix(strings.TrimPrefix(path.Base(f), "Messages"), ".php")
		code = strings.ReplaceAll(strings.ToLower(code[:1])+code[1:], "_", "-")
		if code != "" && languageCode.MatchString(code) {
			core[code] = f
		}
	}
	languages, err := a.languages(args)
	if err != nil {
		return nil, err
	}
	chains := map[string]any{}
	for _, code := range languages {
		i18n := path.Join(pkg, "languages/i18n", code+".json")
		if core[code] == "" && !files.Has(i18n) {
			continue
		}
		var fallback string
		var ok bool
		if f := core[code]; f != "" {
			src, err := files.Read(f)
			if err != nil {
				return nil, err
			}
			if fallback, ok, err = ReadFallback(f, src); err != nil {
				return nil, err
			}
		}
		sequence, _, err := sequenceOf(core[code], code, fallback, ok)
		if err != nil {
			return nil, err
		}
		languages := []any{code}
		for _, c := range sequence {
			languages = append(languages, c)
		}
		chains[code] = languages
	}
	res := a.result()
	res["version"] = version.String()
	late := []any{}
	for _, name := range sortedKeys(formatNames) {
		if version.LateFallback(formatNames[name]) {
			late = append(late, name)
		}
	}
	res["late_fallback"] = late
	res["json_aliases"] = version.jsonAliases()
	res["chains"] = chains
	res["core"] = anyMap(core)
	plurals := []any{}
	for _, f := range []string{"languages/data/plurals.xml", "languages/data/plurals-mediawiki.xml"} {
		if f = path.Join(pkg, f); !files.Has(f) {
			return nil, fmt.Errorf("%s is missing: is this MediaWiki's core?", f)
		}
		plurals = append(plurals, f)
	}
	res["plurals"] = plurals
	return res, nil
}

// languageCode is LanguageNameUtils::isValidBuiltInCode.
var languageCode = regexp.MustCompile(`^[a-z0-9-]{2,128}$`)

type analysis struct {
	files     Files
	pkg       string
	fragments map[string][]any // by language: pairs of role and path
	dirs      []any            // pairs of role and folder
	php       []any
	fileKeys  map[string]bool

	messageKeys, aliasKeys []string
	constants              map[string]string
	hooks                  []string
}

func newAnalysis(files Files, pkg string) *analysis {
	return &analysis{files: files, pkg: pkg, fragments: map[string][]any{}, dirs: []any{}, php: []any{}, fileKeys: map[string]bool{}, constants: map[string]string{}}
}

func (a *analysis) result() map[string]any {
	fragments := map[string]any{}
	for code, files := range a.fragments {
		fragments[code] = files
	}
	list := func(ss []string) []any {
		out := make([]any, len(ss))
		for i, s := range ss {
			out[i] = s
		}
		return out
	}
	return map[string]any{
		"fragments": fragments, "dirs": a.dirs, "files": a.php, "constants": anyMap(a.constants), "hooks": list(a.hooks),
		"message_keys": list(a.messageKeys), "alias_keys": list(a.aliasKeys), "file_keys": list(slices.Sorted(maps.Keys(a.fileKeys))),
	}
}

func anyMap(m map[string]string) map[string]any {
	out := make(map[string]any, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

// messages adds the message files of one folder.
func (a *analysis) messages(role, dir string) error {
	rel := dir
	if a.pkg != "" {
		var ok bool
		if rel, ok = strings.CutPrefix(dir, a.pkg+"/"); !ok {
			return fmt.Errorf("%s lies outside of the component", dir)
		}
	}
	if strings.ContainsAny(rel, `*?[{\`) {
		return fmt.Errorf("%s: a folder of messages with such a name cannot be read", dir)
	}
	a.dirs = append(a.dirs, []any{role, dir})
	found, err := a.files.Glob(rel + "/*.json")
	if err != nil {
		return err
	}
	for _, f := range found {
		if code, ok := messageLanguage(f); ok {
			a.fragments[code] = append(a.fragments[code], []any{role, f})
		}
	}
	return nil
}

// messageLanguage is the language of a message file. qqq is documentation, which MediaWiki does not compile.
func messageLanguage(file string) (string, bool) {
	code, ok := strings.CutSuffix(path.Base(file), ".json")
	return code, ok && languageCode.MatchString(code) && code != "qqq"
}

// manifest adds what one extension.json or skin.json registers.
func (a *analysis) manifest(name string) error {
	src, err := a.files.Read(name)
	if err != nil {
		return err
	}
	v, err := message.ReadValue(name, src)
	if err != nil {
		return err
	}
	m, ok := v.(*php.Array)
	if !ok {
		return fmt.Errorf("%s: want an object", name)
	}
	dir := path.Dir(name)
	section := func(key string) (*php.Array, error) {
		v, _ := m.Get(php.StringKey(key))
		if v == nil {
			return nil, nil
		}
		s, ok := v.(*php.Array)
		if !ok {
			return nil, fmt.Errorf("%s: %s: want an object", name, key)
		}
		return s, nil
	}
	for _, s := range []struct {
		section, role string
		keys          *[]string
	}{{"MessagesDirs", "messages ", &a.messageKeys}, {"TranslationAliasesDirs", "aliases ", &a.aliasKeys}} {
		dirs, err := section(s.section)
		if err != nil {
			return err
		}
		for key, v := range dirs.All() {
			list, ok := v.(*php.Array)
			if !ok {
				list = php.List(v)
			}
			if list.Len() > 0 {
				*s.keys = append(*s.keys, key.String())
			}
			for _, v := range list.All() {
				to, ok := v.(string)
				if !ok {
					return fmt.Errorf("%s: %s: %s: want a folder, or a list of some", name, s.section, key)
				}
				if err := a.messages(s.role+key.String(), path.Join(dir, to)); err != nil {
					return fmt.Errorf("%s: %s: %s: %w", name, s.section, key, err)
				}
			}
		}
	}
	files, err := section("ExtensionMessagesFiles")
	if err != nil {
		return err
	}
	for key, v := range files.All() {
		to, ok := v.(string)
		if !ok {
			return fmt.Errorf("%s: ExtensionMessagesFiles: %s: want a file", name, key)
		}
		file := path.Join(dir, to)
		if !a.files.Has(file) {
			return fmt.Errorf("%s: ExtensionMessagesFiles: %s: there is no file %s in the component", name, key, file)
		}
		a.fileKeys[key.String()] = true
		a.php = append(a.php, []any{"file " + key.String(), file})
	}
	namespaces, err := section("namespaces")
	if err != nil {
		return err
	}
	for _, v := range namespaces.All() {
		ns, ok := v.(*php.Array)
		if !ok {
			return fmt.Errorf("%s: namespaces: want a list of objects", name)
		}
		constant, _ := ns.Get(php.StringKey("constant"))
		id, _ := ns.Get(php.StringKey("id"))
		if c, ok := constant.(string); ok {
			n, ok := id.(int64)
			if !ok {
				return fmt.Errorf("%s: namespaces: %s has no number as its id", name, c)
			}
			if _, ok := a.constants[c]; !ok {
				a.constants[c] = strconv.FormatInt(n, 10)
			}
		}
	}
	registered, err := section("Hooks")
	if err != nil {
		return err
	}
	for _, h := range hooks {
		if _, ok := registered.Get(php.StringKey(h)); ok && !slices.Contains(a.hooks, h) {
			a.hooks = append(a.hooks, h)
		}
	}
	return nil
}

var versionPattern = regexp.MustCompile(`define\(\s*'MW_VERSION'\s*,\s*'([^']*)'\s*\)`)

// version reads MediaWiki's version from where it defines it.
func (a *analysis) version() (Version, error) {
	file := path.Join(a.pkg, "includes/Defines.php")
	src, err := a.files.Read(file)
	if err != nil {
		return Version{}, fmt.Errorf("%w; MediaWiki's version stands there", err)
	}
	m := versionPattern.FindSubmatch(src)
	if m == nil {
		return Version{}, fmt.Errorf("%s does not define MW_VERSION", file)
	}
	v, err := ParseVersion(string(m[1]))
	if err != nil {
		return v, fmt.Errorf("%s: %w", file, err)
	}
	return v, nil
}

// knowsItems refuses a MediaWiki whose LocalisationCache has other items than those known of its version: some came in
// between two patches. A tree without that class is not looked at.
func (a *analysis) knowsItems(v Version) error {
	for _, place := range []string{"includes/language/LocalisationCache.php", "includes/Language/LocalisationCache.php"} {
		file := path.Join(a.pkg, place)
		if !a.files.Has(file) {
			continue
		}
		src, err := a.files.Read(file)
		if err != nil {
			return err
		}
		for i := range items {
			if has := bytes.Contains(src, []byte("'"+items[i].name+"'")); has != v.has(i) {
				verb := "lacks"
				if has {
					verb = "has"
				}
				return fmt.Errorf("%s %s the item %s, other than is known of MediaWiki %s, so its localisation cannot be compiled natively: update it to the latest patch, or set compiler of mw_l10n", file, verb, items[i].name, v)
			}
		}
	}
	return nil
}

// languages are the codes that MediaWiki knows, and args' extra ones, sorted.
func (a *analysis) languages(args map[string]any) ([]string, error) {
	for _, place := range []string{"includes/languages/data/Names.php", "includes/Languages/Data/Names.php", "languages/data/Names.php"} {
		file := path.Join(a.pkg, place)
		if !a.files.Has(file) {
			continue
		}
		src, err := a.files.Read(file)
		if err != nil {
			return nil, err
		}
		codes, err := ReadNames(file, src)
		if err != nil {
			return nil, err
		}
		extra, _ := args["extra_languages"].([]any)
		for _, e := range extra {
			code, _ := e.(string)
			if !languageCode.MatchString(code) {
				return nil, fmt.Errorf("extra_languages: %q is no code of a language", code)
			}
			codes = append(codes, code)
		}
		// MediaWiki leaves Pig Latin out unless it is asked for.
		codes = slices.DeleteFunc(codes, func(c string) bool { return c == "en-x-piglatin" && !slices.Contains(extra, any(c)) })
		slices.Sort(codes)
		return slices.Compact(codes), nil
	}
	return nil, fmt.Errorf("package //%s has no Names.php, the list of languages: is this MediaWiki's core?", a.pkg)
}

// Sizes of the groups that [AnalyseFamilies] makes.
const (
	ownLayer = 8  // a family of at least so many languages has a layer of its own
	shared   = 16 // layers for the others
)

// AnalyseFamilies groups languages into layers: args has "chains", as AnalyseCore returns them. A family is a language and
// those that read its texts; English, which all read, makes none. Of the families that a language belongs to it lies with the
// largest, so that an edit of a language that many read changes one layer, and of others seldom more. Small families
// share layers, each placed by its name alone, so that one that comes or goes moves no other.
func AnalyseFamilies(_ context.Context, _ Files, _ string, args map[string]any) (any, error) {
	chains, _ := args["chains"].(map[string]any)
	readers := map[string][]string{} // sorted
	for _, code := range sortedKeys(chains) {
		chain, _ := chains[code].([]any)
		for _, c := range chain {
			if c, _ := c.(string); c != "en" || code == "en" {
				readers[c] = append(readers[c], code)
			}
		}
	}
	names := sortedKeys(readers)
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(len(readers[b]), len(readers[a])) })
	layers := map[string]any{}
	placed := map[string]bool{}
	for _, name := range names {
		family := slices.DeleteFunc(readers[name], func(code string) bool { return placed[code] })
		if len(family) == 0 {
			continue
		}
		if len(family) < ownLayer {
			h := uint32(2166136261) // FNV-1a
			for i := range len(name) {
				h = (h ^ uint32(name[i])) * 16777619
			}
			name = fmt.Sprintf("shared-%02d", h%shared)
		}
		list, _ := layers[name].([]any)
		for _, code := range family {
			placed[code] = true
			list = append(list, code)
		}
		layers[name] = list
	}
	for _, l := range layers {
		slices.SortFunc(l.([]any), func(a, b any) int { return cmp.Compare(a.(string), b.(string)) })
	}
	return layers, nil
}
