package l10n

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
)

// A Version is a release line of MediaWiki, as 1.43.
type Version struct{ Major, Minor int }

var (
	oldest = Version{1, 39}
	newest = Version{1, 46} // that is known; later ones are refused, for their format may have changed
)

// firstPatch is the first release of a line that is known: 1.39.6 and 1.40.2 brought the languages' names before messages.
var firstPatch = map[Version]int{{1, 39}: 6, {1, 40}: 2}

var versionNumber = regexp.MustCompile(`^([0-9]+)\.([0-9]+)(?:\.([0-9]+))?(?:-.*)?$`)

// ParseVersion reads MW_VERSION, as "1.43.9" or "1.44.0-alpha", and refuses versions whose localisation is not known here.
func ParseVersion(s string) (Version, error) {
	m := versionNumber.FindStringSubmatch(s)
	if m == nil {
		return Version{}, fmt.Errorf("%q is no version of MediaWiki; want one as 1.43.9", s)
	}
	var v Version
	patch := math.MaxInt
	for i, n := range []*int{&v.Major, &v.Minor, &patch} {
		if m[i+1] == "" {
			continue
		}
		var err error
		if *n, err = strconv.Atoi(m[i+1]); err != nil {
			return Version{}, fmt.Errorf("version %q: %w", s, err)
		}
	}
	if v.before(oldest) || newest.before(v) {
		return Version{}, fmt.Errorf("the localisation of MediaWiki %s cannot be compiled natively, only that of %s to %s", s, oldest, newest)
	}
	if first := firstPatch[v]; patch < first {
		return Version{}, fmt.Errorf("the localisation of MediaWiki %s cannot be compiled natively, that of %s.%d can; update to it", s, v, first)
	}
	return v, nil
}

func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

func (v Version) before(w Version) bool {
	return v.Major < w.Major || v.Major == w.Major && v.Minor < w.Minor
}

// A Dir is a folder of core's messages, one of those that LocalisationCache::getMessagesDirs names.
type Dir struct {
	Key  string
	Path string // relative to MediaWiki's root
}

// CoreMessageDirs returns core's message folders in MediaWiki's order.
func CoreMessageDirs(v Version) []Dir {
	var dirs []Dir
	for _, d := range coreDirs {
		if !v.before(d.since) && (d.until == Version{} || v.before(d.until)) {
			dirs = append(dirs, d.Dir)
		}
	}
	return dirs
}

var coreDirs = []struct {
	Dir
	since, until Version
}{
	{Dir: Dir{"core", "languages/i18n"}},
	{Dir: Dir{"botpasswords", "languages/i18n/botpasswords"}, since: Version{1, 45}},
	{Dir: Dir{"codex", "languages/i18n/codex"}, since: Version{1, 43}},
	{Dir: Dir{"datetime", "languages/i18n/datetime"}, since: Version{1, 44}},
	{Dir: Dir{"exif", "languages/i18n/exif"}},
	{Dir: Dir{"languageconverter", "languages/i18n/languageconverter"}, since: Version{1, 45}},
	{Dir: Dir{"interwiki", "languages/i18n/interwiki"}, since: Version{1, 45}},
	{Dir: Dir{"preferences", "languages/i18n/preferences"}, since: Version{1, 43}},
	{Dir: Dir{"userrights", "languages/i18n/userrights"}, since: Version{1, 46}},
	{Dir: Dir{"nontranslatable", "languages/i18n/nontranslatable"}, since: Version{1, 45}},
	{Dir: Dir{"api", "includes/api/i18n"}, until: Version{1, 46}},
	{Dir: Dir{"api", "includes/Api/i18n"}, since: Version{1, 46}},
	{Dir: Dir{"rest", "includes/Rest/i18n"}},
	{Dir: Dir{"oojs-ui", "resources/lib/ooui/i18n"}},
	{Dir: Dir{"paramvalidator", "includes/libs/ParamValidator/i18n"}},
	{Dir: Dir{"installer", "includes/installer/i18n"}, since: Version{1, 44}, until: Version{1, 46}},
	{Dir: Dir{"installer", "includes/Installer/i18n"}, since: Version{1, 46}},
}

// A merge is what LocalisationCache::mergeItem does with two values of a key.
type merge int

const (
	firstWins  merge = iota // the first that is not null
	mapMerge                // +
	aliasMerge              // array_merge_recursive
	inheritMerge
	wordMerge
)

// An item is a key of LocalisationCache::ALL_KEYS.
type item struct {
	name     string
	merge    merge
	coreOnly bool // from 1.41 on, only core's PHP files may set it
	since    Version
}

// items are the keys of all versions, in MediaWiki's order, which is that of its output.
var items = []item{
	{name: "fallback", coreOnly: true},
	{name: "namespaceNames", merge: mapMerge},
	{name: "bookstoreList", merge: inheritMerge},
	{name: "magicWords", merge: wordMerge},
	{name: "messages", merge: mapMerge},
	{name: "rtl", coreOnly: true},
	{name: "digitTransformTable", coreOnly: true},
	{name: "separatorTransformTable", coreOnly: true},
	{name: "minimumGroupingDigits", coreOnly: true},
	{name: "numberingSystem", coreOnly: true, since: Version{1, 43}},
	{name: "fallback8bitEncoding", coreOnly: true},
	{name: "linkPrefixExtension", coreOnly: true},
	{name: "linkTrail", coreOnly: true},
	{name: "linkPrefixCharset", coreOnly: true},
	{name: "namespaceAliases", merge: mapMerge},
	{name: "dateFormats", merge: mapMerge},
	{name: "jsDateFormats", merge: mapMerge, since: Version{1, 43}},
	{name: "datePreferences", coreOnly: true},
	{name: "datePreferenceMigrationMap", coreOnly: true},
	{name: "defaultDateFormat", coreOnly: true},
	{name: "specialPageAliases", merge: aliasMerge},
	{name: "imageFiles", merge: mapMerge},
	{name: "preloadedMessages", merge: mapMerge},
	{name: "namespaceGenderAliases"},
	{name: "digitGroupingPattern", coreOnly: true},
	{name: "pluralRules"},
	{name: "pluralRuleTypes"},
	{name: "compiledPluralRules"},
	{name: "formalityIndex", coreOnly: true, since: Version{1, 43}},
}

// itemNames are the names of items.
var itemNames = func() []string {
	names := make([]string, len(items))
	for i := range items {
		names[i] = items[i].name
	}
	return names
}()

// itemAt is the index of an item, which must be there.
func itemAt(name string) int {
	i := slices.Index(itemNames, name)
	if i < 0 {
		panic("l10n: no item " + name)
	}
	return i
}

// Indices of items that are more than merged.
var (
	itemFallback   = itemAt("fallback")
	itemNamespaces = itemAt("namespaceNames")
	itemMessages   = itemAt("messages")
	itemRTL        = itemAt("rtl")
	itemDates      = itemAt("dateFormats")
	itemAliases    = itemAt("specialPageAliases")
	itemPreloaded  = itemAt("preloadedMessages")
	itemRules      = itemAt("pluralRules")
	itemTypes      = itemAt("pluralRuleTypes")
	itemCompiled   = itemAt("compiledPluralRules")
)

// has tells whether v's MediaWiki knows item i. The zero Version stands for all, and knows all.
func (v Version) has(i int) bool { return v == Version{} || !v.before(items[i].since) }

// extensionsSet tells whether extensions' PHP files can set item i.
func (v Version) extensionsSet(i int) bool {
	return v.has(i) && (!items[i].coreOnly || v.before(Version{1, 41}))
}

// lists tells whether StaticArrayWriter writes lists without their keys.
func (v Version) lists() bool { return !v.before(Version{1, 42}) }

// LateFallback tells whether a file holds its own language's texts alone, because MediaWiki falls back as it reads: it does for
// StaticArray from 1.46 on. Of the languages of the chain, then only what core alone can set is in the file.
func (v Version) LateFallback(f Format) bool { return f == StaticArray && !v.before(Version{1, 46}) }

// nullsPreloaded tells whether "preload" has nulls for what is not there.
func (v Version) nullsPreloaded() bool { return v.before(Version{1, 46}) }

// jsonAliases tells whether MediaWiki knows TranslationAliasesDirs.
func (v Version) jsonAliases() bool { return !v.before(Version{1, 42}) }

// pluralsFirst tells whether plural rules replace what a MessagesXx.php sets under their keys, or give way to it.
func (v Version) pluralsFirst() bool { return v.before(Version{1, 41}) }
