//go:build live

package livetest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

// adversarial are the languages that hostile components are compared in: those that they speak, and chains of many lengths.
var adversarial = []string{
	"ar", "de", "de-at", "de-formal", "en", "en-gb", "gan-hant", "gsw", "kk-cyrl", "map-bms", "qu", "sr-el", "tt-cyrl", "zh-hant", "zh-tw",
}

// Components made to differ: what mwbuild compiles of them is what MediaWiki compiles, and what MediaWiki would read with a warning, or
// not at all, mwbuild refuses by its place.
func TestLocalisationAdversarial(t *testing.T) {
	for _, version := range []struct {
		name string
		tree func(testing.TB) string
	}{{"1.43", mediawiki}, {"1.39", bookworm}} {
		t.Run(version.name, func(t *testing.T) {
			p := newPlace(t, smallTree(t, version.tree(t)))
			p.lay(adversary, version.name)
			testHostile(t, p)
			for _, seed := range []uint64{1, 2} {
				t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
					p := *p
					p.t = t
					p.removeHostile()
					for name, text := range randomComponents(rand.New(rand.NewPCG(seed, 4)), version.name) {
						p.write(name, text)
					}
					testHostile(t, &p)
				})
			}
			p.removeHostile()
			testRefused(t, p, version.name)
		})
	}
}

// kept are the real components that hostile ones meet: with magic words, aliases and namespaces of their own.
var kept = []string{"extensions/Cite", "extensions/Gadgets", "extensions/ParserFunctions", "extensions/SpamBlacklist", "skins/MonoBook"}

// smallTree is a copy of a real tree with few components and without BUILD files.
func smallTree(t *testing.T, tree string) string {
	t.Helper()
	clone := filepath.Join(shortDir(t), "tree")
	command(t, "/", "git", "clone", "-q", tree, clone)
	for _, dir := range slices.Concat(sortedGlob(t, filepath.Join(clone, "extensions/*")), sortedGlob(t, filepath.Join(clone, "skins/*"))) {
		if name, _ := filepath.Rel(clone, dir); !slices.Contains(kept, name) {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, f := range append(sortedGlob(t, filepath.Join(clone, "*/*/BUILD")), filepath.Join(clone, "BUILD")) {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	return clone
}

// lay writes the files of a txtar archive; those in a folder VERSION are for one version alone, and lie above it.
func (p *place) lay(archive, version string) {
	p.t.Helper()
	for _, f := range txtar.Parse([]byte(archive)).Files {
		name := f.Name
		if of, rest, ok := strings.Cut(name, "/"); ok && strings.HasPrefix(of, "1.") {
			if of != version {
				continue
			}
			name = rest
		}
		p.write(name, strings.ReplaceAll(string(f.Data), "LONG", strings.Repeat(`Lorem \"ipsum\" 'dolor' `, 9000)))
	}
}

// removeHostile removes all components that are not real.
func (p *place) removeHostile() {
	p.t.Helper()
	for _, pattern := range []string{"extensions/*", "skins/*"} {
		found, err := filepath.Glob(filepath.Join(p.dir, pattern))
		if err != nil {
			p.t.Fatal(err)
		}
		for _, dir := range found {
			if name, _ := filepath.Rel(p.dir, dir); !slices.Contains(kept, name) {
				if err := os.RemoveAll(dir); err != nil {
					p.t.Fatal(err)
				}
			}
		}
	}
}

// testHostile compares what both compilers make of the tree.
func testHostile(t *testing.T, p *place) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(p.dir, "BUILD")); err != nil {
		t.Fatal(err)
	}
	p.ok("gen")
	languages := `["` + strings.Join(adversarial, `", "`) + `"]`
	p.write("BUILD", p.read("BUILD")+`
mw_l10n(name = "few", components = [":l10n"], languages = `+languages+`)
mw_l10n(name = "few_php", components = [":l10n"], languages = `+languages+`, format = "php")
`)
	for _, f := range l10nFormats {
		ours := filepath.Join(p.tmp, "ours")
		target := strings.Replace(f.target, ":l10n", ":few", 1)
		p.ok(target, "-o", "type=dir,dest="+ours)
		theirs := t.TempDir()
		said := rebuild(t, p.dir, theirs, f.store, true, adversarial)
		if strings.Contains(said, "Fatal error") {
			t.Errorf("MediaWiki said\n%.2000s", said)
		}
		var want, got []string
		for _, language := range adversarial {
			want = append(want, fmt.Sprintf(f.pattern, language))
		}
		for _, file := range sortedGlob(t, filepath.Join(ours, "*")) {
			got = append(got, filepath.Base(file))
		}
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: files (-want +got):\n%s", target, diff)
		}
		for _, name := range want {
			w, werr := os.ReadFile(filepath.Join(theirs, name))
			g, gerr := os.ReadFile(filepath.Join(ours, name))
			if werr != nil || gerr != nil {
				t.Errorf("%v, %v", werr, gerr)
				continue
			}
			if diff := diffStores(w, g, f.store); diff != "" {
				t.Errorf("%s differs from MediaWiki's:\n%s", name, diff)
			}
		}
		os.RemoveAll(ours)
	}
}

// testRefused has mwbuild refuse what MediaWiki warns of, or dies of.
func testRefused(t *testing.T, p *place, version string) {
	t.Helper()
	const manifest = `{"name": "Bad", "manifest_version": 2, "MessagesDirs": {"Bad": "i18n"}, "TranslationAliasesDirs": {"Bad2": "aliases"},
"ExtensionMessagesFiles": {"BadAlias": "Bad.php"}}`
	for _, bad := range []struct {
		name, file, text, says string
		since                  string
	}{
		{name: "an array for a message", file: "i18n/de.json", text: "{\n\t\"a\": [\"b\"]\n}", says: "i18n/de.json:2:2"},
		{name: "an object for a message", file: "i18n/de.json", text: "{\n\t\"x\": \"\",\n \"a\": {}\n}", says: "i18n/de.json:3:2"},
		{name: "a string for a file", file: "i18n/de.json", text: `"a"`, says: "i18n/de.json:1:1"},
		{name: "null for a file", file: "i18n/de.json", text: "null", says: "i18n/de.json:1:1"},
		{name: "an empty file", file: "i18n/de.json", text: "", says: "i18n/de.json:1:1"},
		{name: "a trailing comma", file: "i18n/de.json", text: "{\n\"a\": \"b\",\n}", says: "i18n/de.json:3:1"},
		{name: "a byte order mark", file: "i18n/de.json", text: "\ufeff{}", says: "i18n/de.json:1:1"},
		{name: "a line feed in a string", file: "i18n/de.json", text: "{\"a\": \"b\nc\"}", says: "i18n/de.json:1:9"},
		{name: "half of a pair", file: "i18n/de.json", text: `{"a": "\ud800"}`, says: "i18n/de.json:1:8"},
		{name: "no UTF-8", file: "i18n/de.json", text: "{\"a\": \"\xff\"}", says: "i18n/de.json:1:8"},
		{name: "a key of no aliases", file: "aliases/de.json", text: "{\n\"MagicWords\": {}}", says: "aliases/de.json", since: "1.43"},
		{name: "aliases of no object", file: "aliases/de.json", text: `{"SpecialPageAliases": "Bad"}`, says: "aliases/de.json", since: "1.43"},
		{name: "a call", file: "Bad.php", text: "<?php\n$magicWords = [];\n$magicWords['en'] = strrev( 'x' );\n", says: "Bad.php:3:"},
		{name: "an unknown constant", file: "Bad.php", text: "<?php\n\n$namespaceNames = [ 'en' => [ NS_NOWHERE => 'x' ] ];\n", says: "Bad.php:3:31"},
		{name: "a syntax error", file: "Bad.php", text: "<?php\n$magicWords = [\n", says: "Bad.php:3:1"},
		{name: "an undefined variable", file: "Bad.php", text: "<?php\n$specialPageAliases['de'] = $other;\n", says: "Bad.php:2:"},
		{name: "a magic word that is no list", file: "Bad.php", text: "<?php\n$magicWords = [ 'en' => [ 'x' => 'y' ] ];\n", says: "Bad.php: en: $magicWords: x"},
		{name: "aliases that are no array", file: "Bad.php", text: "<?php\n$specialPageAliases = [ 'en' => 'y' ];\n", says: "Bad.php: en: $specialPageAliases"},
		{name: "an array for a message in PHP", file: "Bad.php", text: "<?php\n$messages = [ 'en' => [ 'x' => [ 'y' ] ] ];\n", says: "Bad.php: en: $messages: x"},
	} {
		if bad.since != "" && bad.since != version {
			continue // not read at all
		}
		t.Run(bad.name, func(t *testing.T) {
			p := *p
			p.t = t
			p.removeHostile()
			p.write("extensions/Bad/extension.json", manifest)
			p.write("extensions/Bad/Bad.php", "<?php\n")
			p.write("extensions/Bad/"+bad.file, bad.text)
			p.refuses("extensions/Bad/" + bad.says)
		})
	}
	t.Run("one key of ExtensionMessagesFiles in two components", func(t *testing.T) {
		p := *p
		p.t = t
		p.removeHostile()
		for _, name := range []string{"Bad", "Worse"} {
			p.write("extensions/"+name+"/extension.json", manifest)
			p.write("extensions/"+name+"/Bad.php", "<?php\n")
		}
		p.refuses("both //extensions/Bad:l10n and //extensions/Worse:l10n register a file under key BadAlias")
	})
}

// refuses checks that the tree's localisation cannot be compiled, and that mwbuild says why.
func (p *place) refuses(says string) {
	p.t.Helper()
	if err := os.RemoveAll(filepath.Join(p.dir, "BUILD")); err != nil {
		p.t.Fatal(err)
	}
	p.ok("gen")
	p.write("BUILD", p.read("BUILD")+"\nmw_l10n(name = \"one\", components = [\":l10n\"], languages = [\"de\"])\n")
	if r := p.run("//:one"); r.code == 0 || !strings.Contains(r.stderr, says) {
		p.t.Errorf("exit code %d, want a refusal that says %s:\n%s", r.code, says, r.stderr)
	}
}

// adversary are components of our own. LONG stands for a long text.
const adversary = `
-- extensions/Adversary/extension.json --
{
	"name": "Adversary", "manifest_version": 2,
	"MessagesDirs": {
		"Adversary": ["i18n", "i18n/more", "i18n/nowhere", "i18n/lists"],
		"AdversaryScalar": "i18n/scalar",
		"Adversary spaced key": "i18n/spaced",
		"Cite": ["i18n/cite"],
		"core": ["i18n/core"],
		"123": ["i18n/number"],
		"AdversaryBoth": ["i18n/both"],
		"AdversaryAgain": ["i18n/scalar"],
		"AdversaryEmptyList": []
	},
	"TranslationAliasesDirs": {
		"AdversaryAliasJSON": "aliases",
		"AdversaryBothAliases": ["aliases/more", "aliases/nowhere"]
	},
	"ExtensionMessagesFiles": {
		"AdversaryAlias": "Adversary.alias.php",
		"AdversaryMagic": "Adversary.magic.php",
		"AdversaryNamespaces": "./Adversary.namespaces.php",
		"AdversaryLegacy": "Adversary.i18n.php",
		"AdversaryOdds": "sub/Odds.php",
		"AdversaryScalar": "Adversary.skipped.php",
		"Adversary spaced key": "Adversary.skipped2.php",
		"AdversaryBothAliases": "Adversary.skipped-too.php",
		"LowerOfThree": "Adversary.skipped3.php",
		"api": "Adversary.skipped4.php",
		"45": "Adversary.number.php",
		"AdversaryEmptyList": "Adversary.read.php",
		"Empty": "Empty.php"
	},
	"namespaces": [
		{"id": 4000, "constant": "NS_ADVERSARY", "name": "Adversary"},
		{"id": 4001, "constant": "NS_ADVERSARY_TALK", "name": "Adversary_talk", "conditional": true},
		{"id": 77, "constant": "NS_TALK", "name": "not core's"},
		{"id": 78, "constant": "NS_ADVERSARY", "name": "not the first"}
	]
}
-- extensions/Adversary/i18n/en.json --
{
	"@metadata": {"authors": ["A", "@b"], "nested": [[["x"], {"y": null}]]},
	"adversary-twice": "first",
	"adversary-between": "between",
	"adversary-twice": "last",
	"123": "integer",
	"-5": "negative",
	"-0": "minus nothing",
	"0": "nothing",
	"007": "agent",
	"9223372036854775807": "greatest",
	"9223372036854775808": "beyond",
	"-9223372036854775808": "least",
	"1.5": "no integer",
	" 1": "no integer either",
	"1e3": "nor that",
	"adversary-null": null,
	"adversary-true": true,
	"adversary-false": false,
	"adversary-int": 42,
	"adversary-big": 123456789012345678901234567890,
	"adversary-float": 0.1,
	"adversary-exp": 1e100,
	"adversary-round": 100.0,
	"adversary-minus": -0.0,
	"adversary-digits": 3.14159265358979323846,
	"@x": "dropped",
	"@": ["dropped"],
	"": "dropped",
	"adversary-\u0000nul\u0000": "a\u0000b\u0000",
	"\u0000": "\u0000",
	"adversary-'quote'": "it's \"quoted\" and \\escaped\\ \\' \\\\' '",
	"adversary-\"double\\": "\\",
	"adversary-$dollar {$x} ${y}": "$x {$x} ${x} $1 $$",
	"adversary-?><?php": "?> <?php echo 1; ?>\n// */ /* #",
	"adversary-cr\rlf\ntab\t": "a\r\nb\rc\nd\te\u000b\f\u001b\u007f\u0085\u2028",
	"adversary-𝒳-\ud83d\ude00": "𝒳\ud83d\ude00 e\u0301 é \u202e\ufeff\ufffe",
	"adversary-long": "LONG",
	"adversary-colon": "de: a:b::c",
	"adversary-prefix": "en:en:",
	"adversary-space": "  around  ",
	"adversary-empty": "",
	"adversary-slash\/": "a\/b",
	"ADVERSARY-TWICE": "case matters",
	"messages:adversary": "own prefix",
	"list": "named as an item",
	"deps": "and this",
	"adversary-en": "only here",
	"mainpage": "not core's",
	"adversary-two-dirs": "first folder",
	"adversary-two-keys": "of Adversary",
	"adversary-two-components": "upper"
}
-- extensions/Adversary/i18n/de.json --
{"adversary-de": "de alone", "adversary-twice": "zweimal", "adversary-twice": null, "adversary-null": "gefüllt", "adversary-true": null,
"123": "ganz", "123": "ganz zuletzt", "0": null, "adversary-two-dirs": "erster", "preloaded-adversary": "de:vorgeladen"}
-- extensions/Adversary/i18n/de-formal.json --
{}
-- extensions/Adversary/i18n/de-at.json --
[]
-- extensions/Adversary/i18n/gsw.json --
[ "null", "eins", null, true, 1.0 ]
-- extensions/Adversary/i18n/qqq.json --
{"adversary-twice": "{{doc}}", "adversary-qqq": "no"}
-- extensions/Adversary/i18n/xx-unknown.json --
{"adversary-unknown": "x"}
-- extensions/Adversary/i18n/als.json --
{"adversary-unknown": "als"}
-- extensions/Adversary/i18n/De.json --
{"adversary-unknown": "upper case"}
-- extensions/Adversary/i18n/sr-latn.json --
{"adversary-sr-latn": "of a language that is only fallen back to", "adversary-two-keys": "sr-latn"}
-- extensions/Adversary/i18n/sr.json --
{"adversary-sr-latn": "ср", "adversary-sr": "ср"}
-- extensions/Adversary/i18n/zh.json --
{"adversary-zh": "中", "adversary-chain": "zh"}
-- extensions/Adversary/i18n/zh-hans.json --
{"adversary-zh-hans": "简", "adversary-chain": "zh-hans", "adversary-long": "长"}
-- extensions/Adversary/i18n/zh-hk.json --
{"adversary-chain": "zh-hk"}
-- extensions/Adversary/i18n/qug.json --
{"adversary-chain": "qug", "adversary-null": null}
-- extensions/Adversary/i18n/es.json --
{"adversary-chain": "es", "adversary-null": "es", "adversary-es": "es"}
-- extensions/Adversary/i18n/more/en.json --
{"adversary-two-dirs": "second folder", "adversary-more": "more", "adversary-null": "not null", "123": "no"}
-- extensions/Adversary/i18n/more/de.json --
{"adversary-more": "mehr", "adversary-two-dirs": "zweiter", "adversary-true": "wahr", "adversary-two-keys": "de"}
-- extensions/Adversary/i18n/lists/en.json --
["zero", "one", "two"]
-- extensions/Adversary/i18n/lists/de.json --
  []
-- extensions/Adversary/i18n/scalar/en.json --
{"adversary-two-keys": "of AdversaryScalar", "adversary-scalar": "scalar"}
-- extensions/Adversary/i18n/scalar/de.json --
{"adversary-scalar": "skalar"}
-- extensions/Adversary/i18n/both/en.json --
{"adversary-scalar": "both", "adversary-two-dirs": "both"}
-- extensions/Adversary/i18n/both/map-bms.json --
{"adversary-scalar": "both"}
-- extensions/Adversary/i18n/spaced/en.json --
{"adversary-spaced": "under a key with spaces"}
-- extensions/Adversary/i18n/cite/en.json --
{"cite-desc": "not Cite's", "adversary-in-cite": "behind Cite's"}
-- extensions/Adversary/i18n/cite/de.json --
{"cite-desc": "de, nicht von Cite", "adversary-two-components": "of Cite's key"}
-- extensions/Adversary/i18n/core/en.json --
{"adversary-core": "core's key is core's", "mainpage": "no"}
-- extensions/Adversary/i18n/number/en.json --
{"adversary-number": "a key that is a number", "adversary-twice": "no"}
-- extensions/Adversary/aliases/en.json --
{"@metadata": {"authors": []}, "SpecialPageAliases": {"AdversaryPage": ["Adversary page", "AdversaryPage"], "Recentchanges": ["RC JSON"]}}
-- extensions/Adversary/aliases/de.json --
{"specialPageAliases": {"AdversaryPage": ["Gegner seite"]}, "SpecialPageAliases": {"AdversaryPage": ["Zweiter"], "7": ["Sieben"], "Scalar": "ein Name"}}
-- extensions/Adversary/aliases/zh-hans.json --
{"SpecialPageAliases": {"AdversaryPage": {"0": "对手", "x": "键"}, "AdversaryNull": null}}
-- extensions/Adversary/aliases/ar.json --
{"SpecialPageAliases": null, "": 1}
-- extensions/Adversary/aliases/gsw.json --
[]
-- extensions/Adversary/aliases/more/en.json --
{"SpecialPageAliases": {"AdversaryPage": ["More aliases", "Adversary page"], "AdversaryBoth": ["both json"]}}
-- extensions/Adversary/aliases/more/de.json --
{}
-- extensions/Adversary/Adversary.alias.php --
<?php
/** @file aliases with gaps */
$specialPageAliases = [];

/** English (English) */
$specialPageAliases['en'] = [
	'AdversaryPage' => [ 'Adversary', 'With spaces in it', 'Adversary' ],
	'AdversaryEnglish' => [ 'English only' ],
	'AdversaryScalar' => 'a scalar',
	'AdversaryKeys' => [ 3 => 'three', 'name' => 'by name', 1 => 'one' ],
	'AdversaryNested' => [ 'in' => [ 'deep er' ] ],
	'AdversaryEmpty' => [],
	5 => [ 'a number' ],
	'Recentchanges' => [ 'Adversary changes' ],
	'AdversaryNumbers' => [ 1, 2.5, true, false, null, '' ],
];

$specialPageAliases['de'] = [
	'AdversaryPage' => [ 'Gegner', 'Adversary', 'Mit Leerzeichen' ],
	'AdversaryGerman' => [ 'nur deutsch' ],
	'AdversaryScalar' => [ 'jetzt Liste' ],
	'AdversaryKeys' => [ 'name' => 'mit Namen', 3 => 'drei' ],
	5 => [ 'eine Zahl' ],
	'AdversaryEmpty' => 'nicht leer',
];
$specialPageAliases['de-formal'] = [ 'AdversaryPage' => [ 'Gegner, Sie' ], 'AdversaryScalar' => 'förmlich' ];
$specialPageAliases['qug'] = [ 'AdversaryPage' => [ 'qug' ] ];
$specialPageAliases['sr-latn'] = [ 'AdversaryPage' => [ 'sr latn' ], 'AdversaryLatn' => [ 'x y' ] ];
$specialPageAliases['zh-hk'] = [ 'AdversaryPage' => [ '香 港', '对手' ] ];
$specialPageAliases['qqq'] = [ 'AdversaryPage' => [ 'no' ] ];
$specialPageAliases['ar'] = null;
$specialPageAliases['gsw'] = [];
-- extensions/Adversary/Adversary.magic.php --
<?php
$magicWords = [];
$magicWords['en'] = [
	'adversary' => [ 0, 'adversary', '#ADV', 'adversary', "double\t\u{1F600}" ],
	'adversary-numbers' => [ 1, 1, '1', 1.0, 2.5, '2.5', true, false, '', null ],
	'adversary-only-en' => [ 1, 'only' ],
	'adversary-flag' => [ '1', 'one' ],
	'redirect' => [ 1, '#ADVERSARY' ],
	'notoc' => [ 0, '__NOTOC__', '__ADVERSARY__' ],
	12 => [ 0, 'a number as its name' ],
];
/** German */
$magicWords['de'] = array(
	'adversary' => array( 1, 'gegner', 'adversary', 'GEGNER', 'gegner' ),
	'adversary-numbers' => [ 0, 1, 2, 2.50 ],
	'adversary-only-de' => [ 0, 'nur', 'nur' ],
	'redirect' => [ 0, '#GEGNER', '#WEITERLEITUNG' ],
	'adversary-flag' => [ true, 'one' ],
);
$magicWords['de-formal'] = [ 'adversary' => [ 0, 'Sie' ], 'adversary-only-de' => [ 1 ] ];
$magicWords['kk'] = [ 'adversary' => [ 1, 'қарсылас' ], 'adversary-kk' => [ 1, 'a', 'a', 'b' ] ];
$magicWords['gan'] = [ 'adversary' => [ 1, 'gan' ] ];
$magicWords['zh-hans'] = [ 'adversary' => [ 1, '对' , 'gan', 'adversary' ] ];
-- extensions/Adversary/Adversary.namespaces.php --
<?php
if ( !defined( 'NS_ADVERSARY' ) ) {
	define( 'NS_ADVERSARY', 1 );
	define( 'NS_ADVERSARY_TALK', 2 );
}
if ( !defined( 'NS_ADVERSARY_OWN' ) ) {
	define( 'NS_ADVERSARY_OWN', 4002 );
}
$namespaceNames = [];
$namespaceNames['en'] = [
	NS_ADVERSARY => 'Adversary name space',
	NS_ADVERSARY_TALK => 'Adversary_talk',
	NS_ADVERSARY_OWN => 'Own',
	NS_MAIN => 'not empty',
	NS_TALK => 'Adversarial talk',
];
$namespaceNames['de'] = [ NS_ADVERSARY => 'Gegner raum', NS_PROJECT => 'Projekt', -9 => 9, 4003 => null ];
$namespaceNames['sr-el'] = [ NS_ADVERSARY_OWN => 'Svoj', 'name' => 'a string', 17 => true, 18 => 1.5 ];
$namespaceAliases = [
	'de' => [ 'Gegner raum' => NS_ADVERSARY, 'Bild' => NS_ADVERSARY_OWN, 'Alt' => NS_USER ],
	'en' => [ 'Gegner raum' => NS_TALK, 'A' => NS_ADVERSARY_TALK ],
	'es' => [ 'Ñ o' => NS_ADVERSARY ],
];
$namespaceGenderAliases = [
	'de' => [ NS_ADVERSARY => [ 'male' => 'Gegner m', 'female' => 'Gegnerin' ] ],
	'ar' => [ NS_USER => [ 'male' => 'x', 'female' => 'y' ] ],
	'es' => [ NS_ADVERSARY => [ 'male' => 'es' ] ],
];
-- extensions/Adversary/Adversary.i18n.php --
<?php
$messages = [];
$messages['en'] = [
	'adversary-legacy' => 'legacy en',
	'adversary-legacy-en' => "en: it's \$x",
	'adversary-two-keys' => 'legacy, not first',
	'adversary-de' => 'en legacy',
	'adversary-scalar' => 'legacy scalar',
	'mainpage' => 'legacy main page',
	123 => 'legacy integer',
	'adversary-chain' => 'legacy chain',
	'' => 'an empty key stays',
	'@at' => 'and this',
	'adversary-legacy-null' => null,
	'adversary-legacy-true' => true,
	'adversary-legacy-number' => 1.50,
];
$messages['de'] = [
	'adversary-legacy' => 'legacy de',
	'adversary-legacy-de' => 'de',
	'adversary-en' => 'de legacy for what only English has',
	'adversary-legacy-null' => 'not null',
];
$messages['zh-hans'] = [ 'adversary-chain' => 'legacy zh-hans', 'adversary-zh' => 'legacy', 'adversary-legacy' => 'zh-hans' ];
$messages['qqq'] = [ 'adversary-legacy' => 'doc' ];
$messages['es'] = [ 'adversary-two-components' => 'es legacy', 'adversary-es' => 'es legacy' ];
-- extensions/Adversary/sub/Odds.php --
<?php
$dateFormats = [
	'en' => [ 'adversary time' => 'H:i', 'mdy time' => 'not core' ],
	'de' => [ 'adversary time' => 'G:i', 'dmy both' => 'x' ],
	'zh-hans' => [ 'adversary both' => 'Y年' ],
];
$jsDateFormats = [ 'de' => [ 'dmy' => [ 'x' => 'y' ] ], 'en' => [ 'adversary' => 1 ] ];
$bookstoreList = [
	'de' => [ 'Gegner' => 'https://example.org/$1', 'inherit' => true ],
	'en' => [ 'English' => 'https://example.org/en/$1' ],
	'de-at' => [ 'Wien' => 'x', 'inherit' => false ],
	'zh-tw' => [ 'inherit' => 'yes', 'tw' => '$1', 3 => 'number' ],
	'zh-hans' => [ 'zh-hans' => '1', 5 => 'five', 'inherit' => true ],
	'ar' => [ 'inherit' => 0 ],
	'es' => [],
];
$imageFiles = [ 'en' => [ 'button-bold' => 'adversary.png', 'own' => 'own.png' ], 'de' => [ 'own' => 'eigen.png' ] ];
$preloadedMessages = [
	'en' => [ 'adversary-twice', 'mainpage', 'no such message', '123', 7, 'adversary-twice' ],
	'de' => [ 'preloaded-adversary', 3 => 'adversary-null', 900 => 'adversary-legacy', 'name' => 'adversary-𝒳-😀', 901 => '007' ],
	'sr-latn' => [ 'adversary-sr-latn' ],
];
$pluralRules = [ 'de' => [ 'n = 7' ], 'qu' => [ 'n = 8' ] ];
$pluralRuleTypes = [ 'de' => [ 'seven' ] ];
$compiledPluralRules = [ 'en' => [ 'n 9 is' ], 'zh-hant' => [] ];
$rtl = [ 'de' => true, 'ar' => false ];
$linkTrail = [ 'de' => '/^x/', 'en' => '/^y/' ];
$fallback = [ 'de' => 'fr', 'en' => 'de', 'zh-tw' => 'x' ];
$digitTransformTable = [ 'de' => [ '0' => 'o' ], 'kk' => [ '1' => 'l' ] ];
$separatorTransformTable = [ 'en' => [ ',' => ';' ] ];
$datePreferences = [ 'de' => [ 'default' ], 'en' => false ];
$defaultDateFormat = [ 'gsw' => 'dmy' ];
$fallback8bitEncoding = [ 'en' => 'utf-9' ];
$linkPrefixCharset = [ 'de' => 'a-z' ];
$digitGroupingPattern = [ 'ar' => '#' ];
$minimumGroupingDigits = [ 'de' => 2, 'en' => 3 ];
$formalityIndex = [ 'de-formal' => 9 ];
$unknown = [ 'de' => 1 ];
$namespaceNames = 'no array';
$magicWords = null;
-- extensions/Adversary/Adversary.skipped.php --
<?php
$specialPageAliases = [ 'en' => [ 'Skipped' => [ 'no' ] ], 'de' => [ 'Skipped' => [ 'nein' ] ] ];
$messages = [ 'en' => [ 'adversary-skipped' => 'no' ] ];
-- extensions/Adversary/Adversary.skipped2.php --
<?php
$specialPageAliases = [ 'en' => [ 'Skipped' => [ 'under a key with spaces' ] ] ];
-- extensions/Adversary/Adversary.read.php --
<?php
$specialPageAliases = [ 'en' => [ 'Read' => [ 'its key has no folder' ] ] ];
-- extensions/Adversary/Adversary.skipped3.php --
<?php
$specialPageAliases = [ 'en' => [ 'Skipped' => [ 'no' ] ] ];
-- extensions/Adversary/Adversary.skipped4.php --
<?php
$specialPageAliases = [ 'en' => [ 'Skipped' => [ 'of core\'s key' ] ] ];
-- extensions/Adversary/Adversary.skipped-too.php --
<?php
$specialPageAliases = [ 'en' => [ 'AdversaryBoth' => [ 'php' ] ], 'de' => [ 'AdversaryBoth' => [ 'php de' ] ] ];
-- extensions/Adversary/Adversary.number.php --
<?php

$specialPageAliases = [ 'en' => [ 'AdversaryFortyFive' => [ '45' ] ] ];
?>
-- extensions/Adversary/Empty.php --
<?php
-- extensions/adversary-lower/extension.json --
{
	"name": "adversary lower", "manifest_version": 2,
	"MessagesDirs": {
		"LowerOfThree": ["i18n"],
		"Adversary": ["i18n/behind"]
	},
	"ExtensionMessagesFiles": {
		"LowerMagic": "lower.php",
		"LowerLegacy": "legacy.php"
	}
}
-- extensions/adversary-lower/i18n/en.json --
{"adversary-two-components": "lower", "adversary-lower": "lower"}
-- extensions/adversary-lower/i18n/de.json --
{"adversary-two-components": "klein", "adversary-between": "kleines de", "adversary-legacy-en": "de JSON"}
-- extensions/adversary-lower/i18n/behind/en.json --
{"adversary-two-components": "lower, under Adversary", "adversary-behind": "behind all of Adversary", "adversary-twice": "no"}
-- extensions/adversary-lower/i18n/behind/zh-hant.json --
{"adversary-behind": "後", "adversary-chain": "zh-hant of lower"}
-- extensions/adversary-lower/lower.php --
<?php
$magicWords = [
	'en' => [ 'adversary' => [ 1, 'lower', 'adversary' ], 'lower' => [ 0, 'x' ] ],
	'de' => [ 'adversary' => [ 0, 'unten', 'gegner' ] ],
];
$specialPageAliases = [
	'en' => [ 'AdversaryPage' => [ 'Lower' ], 'AdversaryScalar' => 'lower scalar' ],
	'de' => [ 'AdversaryPage' => [ 'Unten', 'Gegner' ] ],
];
$preloadedMessages = [ 'en' => [ 'lower-0', 'lower-1' ] ];
-- extensions/adversary-lower/legacy.php --
<?php
$messages = [
	'en' => [ 'adversary-legacy' => 'lower en', 'adversary-legacy-de' => 'lower en', 'adversary-lower-legacy' => 'x' ],
	'de' => [ 'adversary-legacy-en' => 'de of lower', 'adversary-lower-legacy' => 'x de' ],
	'gsw' => [ 'adversary-legacy' => 'gsw of lower' ],
];
-- extensions/Zebra/extension.json --
{
	"name": "Zebra", "manifest_version": 2,
	"MessagesDirs": {"Zebra": "i18n"},
	"ExtensionMessagesFiles": {"ZebraAlias": "Zebra.alias.php"}
}
-- extensions/Zebra/extension-other.json --
{
	"name": "Zebra other", "manifest_version": 2,
	"MessagesDirs": {"Zebra": ["other"], "ZebraOther": "i18n/deep"},
	"ExtensionMessagesFiles": {"ZebraOtherAlias": "Other.alias.php"}
}
-- extensions/Zebra/i18n/en.json --
{"adversary-two-components": "zebra", "zebra": "z"}
-- extensions/Zebra/i18n/ar.json --
{"zebra": "ع"}
-- extensions/Zebra/other/en.json --
{"zebra": "other", "zebra-other": "other"}
-- extensions/Zebra/other/ar.json --
{"zebra-other": "آخر"}
-- extensions/Zebra/Zebra.alias.php --
<?php
$specialPageAliases = [ 'ar' => [ 'AdversaryPage' => [ 'ز' ] ], 'de' => [ 'AdversaryPage' => [ 'Zebra' ] ] ];
-- extensions/Zebra/Other.alias.php --
<?php
$specialPageAliases = [ 'ar' => [ 'AdversaryPage' => [ 'ز ز' ] ] ];
-- skins/Adversary/skin.json --
{
	"name": "AdversarySkin", "manifest_version": 2,
	"MessagesDirs": {"Zebra": "i18n", "exif": "exif"},
	"ExtensionMessagesFiles": {"AdversarySkin": "skin.php"}
}
-- skins/Adversary/i18n/en.json --
{"zebra": "skin", "skin-adversary": "skin", "adversary-en": "no"}
-- skins/Adversary/exif/de.json --
{"skin-exif": "core's key is core's"}
-- skins/Adversary/i18n/de.json --
{"adversary-en": "Haut", "zebra": "Haut"}
-- skins/Adversary/skin.php --
<?php
$specialPageAliases = [ 'de-at' => [ 'AdversaryPage' => [ 'Haut' ] ] ];
$namespaceNames = [ 'de' => [ NS_PROJECT => 'Haut' ] ];
`

// randomComponents are the files of some components that say much the same under much the same keys.
func randomComponents(r *rand.Rand, version string) map[string]string {
	files := map[string]string{}
	languages := []string{"ar", "de", "de", "de-at", "de-formal", "en", "en", "es", "gan", "gsw", "id", "kk", "qqq", "qug", "ru", "sr", "sr-latn", "zh", "zh-hans", "zh-hant", "zh-hk"}
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	some := func(n int, each func()) {
		for range r.IntN(n + 1) {
			each()
		}
	}
	number := func() string {
		return pick("0", "1", "-1", "2", "10", "1.5", "1e3", "-0.0", "100000000000000000000", "0.00001", "123456789.123456789", "9223372036854775807")
	}
	json := func(s string) string {
		return strings.NewReplacer("\\", pick(`\\`, `\u005c`), "\"", `\"`, "\n", `\n`, "\r", `\r`, "\x00", `\u0000`, "/", pick("/", `\/`), "é", pick("é", `\u00e9`)).Replace(s)
	}
	php := func(s string) string {
		if r.IntN(2) == 0 {
			return "'" + strings.NewReplacer("\\", "\\\\", "'", "\\'").Replace(s) + "'"
		}
		return `"` + strings.NewReplacer("\\", "\\\\", `"`, `\"`, "$", `\$`, "\n", "\\n", "\r", "\\r", "\x00", pick("\\0", "\\x00")).Replace(s) + `"`
	}
	text := func() string {
		var s strings.Builder
		some(6, func() {
			s.WriteString(pick("a", "b ", "'", "\"", "\\", "\x00", "é", "𝒳", "$x", "{$y}", "?>", "de:", ":", "\n", "\r", "/", "ا", "<b>", "\\'", "_"))
		})
		return s.String()
	}
	key := func() string {
		return pick("k1", "k2", "k3", "k4", "k5", "K1", "0", "1", "7", "-7", "07", "", "@k", "mainpage", "cite-desc", "preferences", "it's", "\x00", "\\", "é", "𝒳", "9223372036854775808", "aboutsite", text())
	}
	message := func() string {
		if r.IntN(4) > 0 {
			return `"` + json(text()) + `"`
		}
		return pick("null", "true", "false", "\"\"", number())
	}
	scalar := func() string {
		if r.IntN(4) > 0 {
			return php(text())
		}
		return pick("null", "true", "false", "''", "'a b'", number())
	}
	// array is PHP's; each adds an entry.
	array := func(n int, entry func() string) string {
		var s strings.Builder
		s.WriteString("[ ")
		some(n, func() { s.WriteString(entry() + ",\n\t") })
		return s.String() + "]"
	}
	namespace := func() string {
		return pick("NS_TALK", "NS_USER", "NS_PROJECT", "NS_HELP_TALK", "NS_OWN", "NS_OWN_TALK", "NS_DEFINED", "5000", "-3", "'x'")
	}
	aliases := func() string {
		return array(5, func() string {
			return pick("'Page'", "'Other'", "'Recentchanges'", "'Block'", "3", "'Third'") + " => " +
				pick(scalar(), array(3, scalar), array(3, scalar), array(3, func() string { return pick("'x'", "'y'", "2") + " => " + scalar() }), "[ 'x' => [ 'a b' ] ]")
		})
	}
	values := map[string]func() string{
		"specialPageAliases": aliases,
		"magicWords": func() string {
			return array(4, func() string {
				return pick("'word'", "'other'", "'redirect'", "'notoc'", "'ns'", "9") + " => [ " + pick("0", "1", "1", "'1'", "true") + ", " +
					strings.Repeat(scalar()+", ", r.IntN(3)) + pick("'same'", "'Same'", "1", "1.0") + " ]"
			})
		},
		"namespaceNames":   func() string { return array(4, func() string { return namespace() + " => " + scalar() }) },
		"namespaceAliases": func() string { return array(4, func() string { return php(text()) + " => " + namespace() }) },
		"namespaceGenderAliases": func() string {
			return array(2, func() string { return namespace() + " => [ 'male' => " + scalar() + " ]" })
		},
		"messages": func() string { return array(5, func() string { return php(key()) + " => " + scalar() }) },
		"dateFormats": func() string {
			return array(3, func() string { return pick("'mdy time'", "'x'", "'y'") + " => " + scalar() })
		},
		"bookstoreList": func() string {
			return array(4, func() string { return pick("'inherit'", "'a'", "'b'", "4", "'AddALL'") + " => " + scalar() })
		},
		"imageFiles": func() string {
			return array(3, func() string { return pick("'button-bold'", "'x'") + " => " + scalar() })
		},
		"preloadedMessages": func() string {
			return array(4, func() string { return pick("", "'n' => ", "2 => ", "99 => ") + php(key()) })
		},
		"pluralRules": func() string { return array(2, scalar) },
		"linkTrail":   scalar,
		"rtl":         func() string { return pick("true", "false") },
	}
	names := []string{"specialPageAliases", "specialPageAliases", "magicWords", "magicWords", "namespaceNames", "namespaceAliases", "namespaceGenderAliases", "messages", "messages", "dateFormats", "bookstoreList", "imageFiles", "preloadedMessages", "pluralRules", "linkTrail", "rtl"}
	quoted := func(list []string) string { return `["` + strings.Join(list, `", "`) + `"]` }
	for _, at := range []string{"extensions/Alpha/extension", "extensions/Alpha/extension-second", "extensions/beta/extension", "extensions/Ω/extension", "skins/Gamma/skin"} {
		dir, folders := filepath.Dir(at), []string{"i18n", "i18n/a", "i18n/b"}
		aliasFolder := "aliases"
		if strings.HasSuffix(at, "second") {
			// A folder is not twice under one key.
			folders, aliasFolder = []string{"second/i18n", "second/i18n/a", "second/b"}, "second/aliases"
		}
		var sections [3][]string // MessagesDirs, TranslationAliasesDirs, ExtensionMessagesFiles
		for _, name := range []string{"One", "Two", "Cite", "rest", filepath.Base(dir), "8"} {
			if r.IntN(2) == 0 {
				continue
			}
			var dirs []string
			for _, i := range r.Perm(4)[:r.IntN(4)] {
				dirs = append(dirs, append(folders, "none")[i])
			}
			sections[0] = append(sections[0], fmt.Sprintf("%q: %s", name, strings.ReplaceAll(quoted(dirs), `[""]`, "[]")))
		}
		for _, name := range []string{"JSON", "JSON2", "File2"} {
			if r.IntN(3) == 0 {
				sections[1] = append(sections[1], fmt.Sprintf("%q: %s", name, quoted([]string{aliasFolder})))
			}
		}
		for _, name := range []string{"File1", "File2", "File3", "One"} {
			// No two components have one name.
			name += strings.NewReplacer("/", "", "extension", "", "skin", "").Replace(at)
			if r.IntN(2) == 0 {
				continue
			}
			sections[2] = append(sections[2], fmt.Sprintf("%q: \"%s.php\"", name, name))
			var s strings.Builder
			s.WriteString("<?php\nif ( !defined( 'NS_DEFINED' ) ) {\n\tdefine( 'NS_DEFINED', 5004 );\n}\n")
			for range 3 + r.IntN(6) {
				v := pick(names...)
				fmt.Fprintf(&s, "$%s['%s'] = %s;\n", v, pick(languages...), values[v]())
			}
			files[dir+"/"+name+".php"] = s.String()
		}
		for _, folder := range folders {
			some(12, func() {
				var lines []string
				some(12, func() { lines = append(lines, `"`+json(key())+`": `+message()) })
				files[dir+"/"+folder+"/"+pick(languages...)+".json"] = "{" + strings.Join(lines, ",\n") + "}"
			})
		}
		some(8, func() {
			files[dir+"/"+aliasFolder+"/"+pick(languages...)+".json"] = fmt.Sprintf(`{%q: {"Page": [%s], "Recentchanges": %s}, "%s": {"4": [%s]}}`,
				pick("SpecialPageAliases", "specialPageAliases"), message(), message(), pick("SpecialPageAliases", "specialPageAliases"), message())
		})
		files[at+".json"] = fmt.Sprintf(`{"name": %q, "manifest_version": 2,
"MessagesDirs": {%s},
"TranslationAliasesDirs": {%s},
"ExtensionMessagesFiles": {%s},
"namespaces": [{"id": 5002, "constant": "NS_OWN", "name": "x"}, {"id": 5003, "constant": "NS_OWN_TALK", "name": "y"}]}`, at,
			strings.Join(sections[0], ", "), strings.Join(sections[1], ", "), strings.Join(sections[2], ", "))
	}
	return files
}
