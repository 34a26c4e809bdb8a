package l10n

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// packageFiles is Files in memory, of a package that holds them all.
type packageFiles map[string]string

func (p packageFiles) Has(file string) bool { _, ok := p[file]; return ok }

func (p packageFiles) Read(file string) ([]byte, error) {
	text, ok := p[file]
	if !ok {
		return nil, fmt.Errorf("%s: %w", file, fs.ErrNotExist)
	}
	return []byte(text), nil
}

func (p packageFiles) Glob(patterns ...string) ([]string, error) {
	var found []string
	for file := range p {
		for _, pattern := range patterns {
			for _, prefix := range []string{"", "ext/"} {
				if ok, _ := path.Match(prefix+pattern, file); ok {
					found = append(found, file)
				}
			}
		}
	}
	slices.Sort(found)
	return found, nil
}

func chain(codes ...any) any { return codes }

func TestFamilies(t *testing.T) {
	chains := map[string]any{"en": chain("en"), "lonely": chain("lonely", "en")}
	for _, l := range []string{"a", "b", "c", "d", "e", "f", "g"} {
		chains["de-"+l] = chain("de-"+l, "de", "en")
		chains["it-"+l] = chain("it-"+l, "it", "en")
	}
	chains["de"], chains["it"] = chain("de", "en"), chain("it", "en")
	chains["both"] = chain("both", "it", "de", "en")
	chains["nl"], chains["vls"] = chain("nl", "en"), chain("vls", "nl", "en")
	group := func() map[string]string {
		t.Helper()
		got, err := AnalyseFamilies(t.Context(), nil, "", map[string]any{"chains": chains})
		if err != nil {
			t.Fatal(err)
		}
		layers := map[string]string{}
		for layer, codes := range got.(map[string]any) {
			for _, c := range codes.([]any) {
				if layers[c.(string)] != "" {
					t.Errorf("%s lies in two layers", c)
				}
				layers[c.(string)] = layer
			}
		}
		return layers
	}
	was := group()
	if len(was) != len(chains) {
		t.Errorf("%d of %d languages have a layer", len(was), len(chains))
	}
	for code, want := range map[string]string{"de": "de", "de-a": "de", "both": "de", "it": "it", "it-g": "it"} {
		if was[code] != want {
			t.Errorf("%s lies in layer %s, want %s", code, was[code], want)
		}
	}
	if was["nl"] != was["vls"] || !strings.HasPrefix(was["nl"], "shared-") || was["en"] == "" {
		t.Errorf("small families: %v", was)
	}
	// A new language moves no other.
	chains["new"] = chain("new", "en")
	is := group()
	delete(is, "new")
	if diff := cmp.Diff(was, is); diff != "" {
		t.Errorf("a new language moved others (-before +after):\n%s", diff)
	}
}

func TestAnalyseComponent(t *testing.T) {
	files := packageFiles{
		"ext/extension.json": `{"MessagesDirs": {"One": ["i18n", "./i18n/api/"], "Two": "more", "None": []},
			"ExtensionMessagesFiles": {"OneAlias": "One.alias.php"}, "TranslationAliasesDirs": {"OneJson": "aliases"},
			"namespaces": [{"id": 100, "constant": "NS_ONE"}, {"id": 101}], "Hooks": {"ParserFirstCallInit": "x"}}`,
		"ext/i18n/de.json": "{}", "ext/i18n/qqq.json": "{}", "ext/i18n/NOT.json": "{}", "ext/i18n/api/de.json": "{}", "ext/more/de.json": "{}",
		"ext/aliases/fr.json": "{}", "ext/One.alias.php": "<?php",
	}
	got, err := AnalyseComponent(t.Context(), files, "ext", map[string]any{"manifests": []any{"ext/extension.json"}})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"fragments": map[string]any{
			"de": []any{[]any{"messages One", "ext/i18n/de.json"}, []any{"messages One", "ext/i18n/api/de.json"}, []any{"messages Two", "ext/more/de.json"}},
			"fr": []any{[]any{"aliases OneJson", "ext/aliases/fr.json"}},
		},
		"dirs":         []any{[]any{"messages One", "ext/i18n"}, []any{"messages One", "ext/i18n/api"}, []any{"messages Two", "ext/more"}, []any{"aliases OneJson", "ext/aliases"}},
		"files":        []any{[]any{"file OneAlias", "ext/One.alias.php"}},
		"message_keys": []any{"One", "Two"}, "alias_keys": []any{"OneJson"}, "file_keys": []any{"OneAlias"},
		"constants": map[string]any{"NS_ONE": "100"}, "hooks": []any{},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("AnalyseComponent (-want +got):\n%s", diff)
	}
	for manifest, says := range map[string]string{
		`[1`:                              "ext/extension.json:1:",
		`"x"`:                             "want an object",
		`{"MessagesDirs": 1}`:             "MessagesDirs: want an object",
		`{"MessagesDirs": {"A": [1]}}`:    "want a folder",
		`{"MessagesDirs": {"A": "../x"}}`: "outside of the component",
		`{"MessagesDirs": {"A": "i*n"}}`:  "cannot be read",
		`{"ExtensionMessagesFiles": {"A": "none.php"}}`:     "there is no file ext/none.php",
		`{"ExtensionMessagesFiles": {"A": 1}}`:              "want a file",
		`{"namespaces": [1]}`:                               "want a list of objects",
		`{"namespaces": [{"constant": "NS_A", "id": "x"}]}`: "NS_A has no number",
	} {
		_, err := AnalyseComponent(t.Context(), packageFiles{"ext/extension.json": manifest}, "ext", map[string]any{"manifests": []any{"ext/extension.json"}})
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", manifest, err, says)
		}
	}
	got, err = AnalyseComponent(t.Context(), packageFiles{"ext/extension.json": `{"Hooks": {"LocalisationCacheRecache": "x"}}`}, "ext", map[string]any{"manifests": []any{"ext/extension.json"}})
	if err != nil || cmp.Diff([]any{"LocalisationCacheRecache"}, got.(map[string]any)["hooks"]) != "" {
		t.Errorf("hooks: %v %v", got, err)
	}
}

func coreFiles() packageFiles {
	return packageFiles{
		"includes/Defines.php":                         "<?php\ndefine( 'MW_VERSION', '1.43.9' );\n",
		"includes/languages/data/Names.php":            "<?php class Names { public const NAMES = [ 'de' => 'Deutsch', 'de-at' => 'x', 'en' => 'English', 'en-x-piglatin' => 'x', 'gone' => 'x', 'nds' => 'x' ]; }",
		"languages/messages/MessagesEn.php":            "<?php $fallback = false;",
		"languages/messages/MessagesDe.php":            "<?php $rtl = false;",
		"languages/messages/MessagesNds.php":           "<?php $fallback = 'nds-nl, de';",
		"languages/messages/MessagesDe_at.php":         "<?php $fallback = 'de';",
		"languages/messages/MessagesEn_x_piglatin.php": "<?php $fallback = 'en';",
		"languages/i18n/en.json":                       "{}", "languages/i18n/de.json": "{}", "includes/api/i18n/de.json": "{}", "languages/i18n/extra.json": "{}",
		"languages/data/plurals.xml": "<x/>", "languages/data/plurals-mediawiki.xml": "<x/>",
	}
}

func TestAnalyseCore(t *testing.T) {
	files := coreFiles()
	got, err := AnalyseCore(t.Context(), files, "", map[string]any{"extra_languages": []any{"extra"}})
	if err != nil {
		t.Fatal(err)
	}
	res := got.(map[string]any)
	if diff := cmp.Diff(map[string]any{
		"de": chain("de", "en"), "de-at": chain("de-at", "de", "en"), "en": chain("en"), "nds": chain("nds", "nds-nl", "de", "en"), "extra": chain("extra", "en"),
	}, res["chains"]); diff != "" {
		t.Errorf("chains (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]any{[]any{"messages core", "languages/i18n/de.json"}, []any{"messages api", "includes/api/i18n/de.json"}}, res["fragments"].(map[string]any)["de"]); diff != "" {
		t.Errorf("German fragment (-want +got):\n%s", diff)
	}
	if res["version"] != "1.43" || res["core"].(map[string]any)["de-at"] != "languages/messages/MessagesDe_at.php" || len(res["late_fallback"].([]any)) != 0 {
		t.Errorf("result: %v", res)
	}
	for what, change := range map[string]func(packageFiles){
		"MediaWiki's version stands there": func(f packageFiles) { delete(f, "includes/Defines.php") },
		"does not define MW_VERSION":       func(f packageFiles) { f["includes/Defines.php"] = "<?php" },
		"no Names.php":                     func(f packageFiles) { delete(f, "includes/languages/data/Names.php") },
		"plurals.xml is missing":           func(f packageFiles) { delete(f, "languages/data/plurals.xml") },
		"no code of a language":            func(f packageFiles) { f["languages/messages/MessagesDe.php"] = "<?php $fallback = 'A B';" },
		"MessagesDe.php:1:":                func(f packageFiles) { f["languages/messages/MessagesDe.php"] = "<?php $fallback = f();" },
		"lacks the item":                   func(f packageFiles) { f["includes/language/LocalisationCache.php"] = "<?php 'fallback'" },
	} {
		f := coreFiles()
		change(f)
		if _, err := AnalyseCore(t.Context(), f, "", nil); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%v, want %q", err, what)
		}
	}
}
