//go:build live

package livetest

import (
	"bytes"
	"crypto/sha256"
	bin "encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// spread are the languages that are compared with MediaWiki's own compiler at every commit: fallback chains of all
// lengths, scripts, variants, and a few that have nearly nothing. With MWBUILD_L10N=all it is all of them.
var spread = []string{
	"ar", "be-tarask", "cu", "de", "de-formal", "en", "en-gb", "gan-hant", "he", "kk-cyrl", "ku-arab", "lzh", "ms-arab", "nds-nl", "pt-br",
	"qu", "ru", "sr-ec", "sr-el", "tt-cyrl", "uk", "yue", "zh-hant", "zh-tw",
}

// bookworm is MediaWiki 1.39.
var bookworm = once(func(dir string) (string, error) { return layTree(dir, "bookworm") })

// l10nFormats are mwbuild's targets and what MediaWiki calls them.
var l10nFormats = []struct{ name, target, store, pattern string }{
	{"StaticArray", "//:l10n_php", "LCStoreStaticArray", "%s.l10n.php"},
	{"CDB", "//:l10n", "LCStoreCDB", "l10n_cache-%s.cdb"},
}

// What mwbuild compiles of the real trees is what MediaWiki itself compiles.
func TestLocalisation(t *testing.T) {
	for _, version := range []struct {
		name      string
		tree      func(testing.TB) string
		languages int
	}{{"1.43", mediawiki, 526}, {"1.39", bookworm, 469}} {
		t.Run(version.name, func(t *testing.T) {
			p := newPlace(t, version.tree(t))
			for _, f := range l10nFormats {
				t.Run(f.name, func(t *testing.T) {
					out := filepath.Join(p.tmp, "ours-"+f.name)
					t.Cleanup(func() { os.RemoveAll(out) })
					p.ok(f.target, "-o", "type=dir,dest="+out)
					ours, err := filepath.Glob(filepath.Join(out, "*"))
					if err != nil || len(ours) != version.languages {
						t.Errorf("%d languages, want %d: %v", len(ours), version.languages, err)
					}
					testParity(t, p.dir, out, f.store, f.pattern)
					testServed(t, p.dir, out, f.store)
				})
			}
		})
	}
}

// testParity compiles languages with MediaWiki and compares the files with those in ours.
func testParity(t *testing.T, tree, ours, store, pattern string) {
	t.Helper()
	theirs := t.TempDir()
	languages := spread
	if os.Getenv("MWBUILD_L10N") == "all" {
		languages = nil
	}
	rebuild(t, tree, theirs, store, true, languages)
	compared := 0
	for _, f := range sortedGlob(t, filepath.Join(theirs, "*")) {
		name := filepath.Base(f)
		want, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(ours, name))
		if err != nil {
			t.Error(err)
			continue
		}
		compared++
		if diff := diffStores(want, got, store); diff != "" {
			t.Errorf("%s differs from MediaWiki's:\n%s", name, diff)
		}
	}
	if compared < len(languages) || languages == nil && compared < 400 {
		t.Errorf("%d files were compared", compared)
	}
	// The same said by the tool that all who work on this share, where it is.
	digest := filepath.Join(repo, "../shared/l10n-digest")
	if !isFile(digest) {
		t.Logf("%s is not here: only compared by this test's own reading", digest)
		return
	}
	want := command(t, "/", digest, theirs)
	got := command(t, "/", digest, append([]string{ours}, languages...)...)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("l10n-digest (-MediaWiki +mwbuild):\n%s", diff)
	}
}

func sortedGlob(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	return files
}

// diffStores says where two compiled files differ, but for deps.
func diffStores(want, got []byte, store string) string {
	if store == "LCStoreCDB" {
		w, werr := cdbRecords(want)
		g, gerr := cdbRecords(got)
		if werr != nil || gerr != nil {
			return fmt.Sprintf("reading: %v, %v", werr, gerr)
		}
		for i := range min(len(w), len(g)) {
			if w[i] != g[i] {
				return fmt.Sprintf("record %d:\n  want %.300q\n  got  %.300q", i, w[i], g[i])
			}
		}
		if len(w) != len(g) {
			return fmt.Sprintf("%d records, want %d", len(g), len(w))
		}
		return ""
	}
	w, g := strings.Split(string(want), "\n"), strings.Split(string(got), "\n")
	w, g = withoutDeps(w), withoutDeps(g)
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return fmt.Sprintf("line %d:\n  want %.300q\n  got  %.300q", i+1, w[i], g[i])
		}
	}
	if len(w) != len(g) {
		return fmt.Sprintf("%d lines, want %d", len(g), len(w))
	}
	return ""
}

// withoutDeps leaves out the top entry 'deps' of a StaticArray.
func withoutDeps(lines []string) []string {
	from := slices.Index(lines, "\t'deps' => [")
	if from < 0 {
		return append([]string{"no deps"}, lines...)
	}
	to := from + slices.Index(lines[from:], "\t],")
	return slices.Concat(lines[:from], lines[to+1:])
}

// cdbRecords lists the records of a constant database in their order, each as key, line feed, value; but for deps. Every key
// must be found by its hash.
func cdbRecords(data []byte) ([]string, error) {
	u32 := func(at int) int { return int(bin.LittleEndian.Uint32(data[at:])) }
	if len(data) < 2048 {
		return nil, fmt.Errorf("%d bytes are no database", len(data))
	}
	var records []string
	deps := false
	for at := 2048; at < u32(0); {
		keyLen, valueLen := u32(at), u32(at+4)
		key := data[at+8 : at+8+keyLen]
		value := data[at+8+keyLen : at+8+keyLen+valueLen]
		if string(key) == "deps" {
			deps = true
		} else {
			records = append(records, string(key)+"\n"+string(value))
		}
		h := uint32(5381)
		for _, c := range key {
			h = (h<<5 + h) ^ uint32(c)
		}
		table, slots := u32(int(h&255)*8), u32(int(h&255)*8+4)
		found := false
		for i := 0; i < slots && !found; i++ {
			slot := table + (int(h>>8)+i)%slots*8
			if u32(slot+4) == 0 {
				break
			}
			found = uint32(u32(slot)) == h && u32(slot+4) == at
		}
		if !found {
			return nil, fmt.Errorf("key %q is not found by its hash", key)
		}
		at += 8 + keyLen + valueLen
	}
	if !deps {
		return nil, fmt.Errorf("no deps")
	}
	return records, nil
}

// maintenance runs a maintenance script of MediaWiki over the store in out, and returns what it prints.
func maintenance(t *testing.T, tree, out, store string, args ...string) string {
	t.Helper()
	settings := filepath.Join(repo, "bench/l10n/settings.php")
	script := []string{filepath.Join(tree, "maintenance/run.php")}
	if !isFile(script[0]) { // before 1.40
		script, args = nil, slices.Clone(args)
		if !filepath.IsAbs(args[0]) {
			args[0] = filepath.Join(tree, "maintenance", args[0]+".php")
		}
	}
	cmd := exec.Command("php", slices.Concat([]string{"-d", "error_reporting=E_ALL & ~E_DEPRECATED"}, script, args, []string{"--conf=" + settings})...)
	cmd.Env = append(os.Environ(), "STORE="+store, "OUT="+out, "TREE="+tree)
	b, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s\n    .ci/setup installs PHP", strings.Join(cmd.Args, " "), err, b)
	}
	return string(b)
}

// rebuild has MediaWiki compile languages, all of them if none is named.
func rebuild(t *testing.T, tree, out, store string, force bool, languages []string) string {
	t.Helper()
	args := []string{"rebuildLocalisationCache", "--no-progress", "--no-database", "--skip-message-purge"}
	if force {
		args = append(args, "--force")
	}
	if languages != nil {
		args = append(args, "--lang="+strings.Join(languages, ","))
	}
	return maintenance(t, tree, out, store, args...)
}

// show prints what MediaWiki serves of its compiled localisation.
const show = `<?php
require_once getenv( 'TREE' ) . '/maintenance/Maintenance.php';
class Show extends Maintenance {
	// Without a database MediaWiki would read the sources. It is never asked for anything.
	public function getDbType() {
		return Maintenance::DB_STD;
	}
	public function execute() {
		$factory = MediaWiki\MediaWikiServices::getInstance()->getLanguageFactory();
		$shown = [];
		foreach ( [ 'de', 'de-formal', 'zh-hant', 'sr-el', 'ru' ] as $code ) {
			$language = $factory->getLanguage( $code );
			$forms = [];
			foreach ( [ 0, 1, 2, 5, 11, 21 ] as $n ) {
				$forms[] = $language->convertPlural( $n, [ 'one', 'two', 'three', 'four' ] );
			}
			$shown[$code] = [
				wfMessage( 'mainpage' )->inLanguage( $language )->useDatabase( false )->plain(),
				wfMessage( 'cite-desc' )->inLanguage( $language )->useDatabase( false )->plain(),
				$language->getSpecialPageAliases()['Recentchanges'] ?? null,
				$language->getMagicWords()['redirect'],
				$language->getNsText( NS_TALK ),
				$forms,
			];
		}
		echo json_encode( $shown, JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES );
	}
}
$maintClass = Show::class;
require_once RUN_MAINTENANCE_IF_MAIN;
`

// testServed lets MediaWiki read our files: it serves from them what it serves from its own, and finds nothing stale.
func testServed(t *testing.T, tree, ours, store string) {
	t.Helper()
	script := filepath.Join(t.TempDir(), "Show.php")
	if err := os.WriteFile(script, []byte(show), 0o644); err != nil {
		t.Fatal(err)
	}
	served := func(out string) map[string]json.RawMessage {
		said := maintenance(t, tree, out, store, script)
		from := strings.IndexByte(said, '{')
		shown := map[string]json.RawMessage{}
		if from < 0 || json.Unmarshal([]byte(said[from:]), &shown) != nil {
			t.Fatalf("MediaWiki said\n%s", said)
		}
		return shown
	}
	// MediaWiki's own needs every language that is asked for.
	own := t.TempDir()
	rebuild(t, tree, own, store, true, []string{"de", "de-formal", "en", "ru", "sr-el", "zh-hant"})
	shown := served(ours)
	if diff := cmp.Diff(served(own), shown); diff != "" {
		t.Errorf("served from MediaWiki's files and from ours (-theirs +ours):\n%s", diff)
	}
	for code, says := range map[string][]string{
		"de":      {`"Hauptseite"`, `"Letzte_Änderungen"`, `"#WEITERLEITUNG"`, `"Diskussion"`, `["two","one","two","two","two","two"]`},
		"zh-hant": {`"首頁"`, `"最近變更"`, `["two","one","two","two","two","two"]`},
		"sr-el":   {`"Glavna strana"`, `"Razgovor"`, `["three","one","two","three","three","one"]`},
	} {
		for _, s := range says {
			if !bytes.Contains(shown[code], []byte(s)) {
				t.Errorf("%s: MediaWiki does not serve %s: %s", code, s, shown[code])
			}
		}
	}
	if said := rebuild(t, tree, ours, store, false, nil); !strings.Contains(said, "0 languages rebuilt out of") {
		t.Errorf("MediaWiki finds something stale: %s", said)
	}
}

// A change recompiles what it reaches and nothing else, on the real tree.
func TestLocalisationDirty(t *testing.T) {
	clone := filepath.Join(shortDir(t), "tree")
	command(t, "/", "git", "clone", "-q", mediawiki(t), clone)
	p := newPlace(t, clone)
	out := filepath.Join(p.tmp, "out")
	t.Cleanup(func() { os.RemoveAll(out) })
	files := func() map[string]string {
		t.Helper()
		p.ok("//:l10n", "-o", "type=dir,dest="+out)
		sums := map[string]string{}
		for _, f := range sortedGlob(t, filepath.Join(out, "*")) {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			sums[languageOf(f)] = fmt.Sprintf("%x", sha256.Sum256(b))
		}
		return sums
	}
	changed := func(was, is map[string]string) []string {
		var codes []string
		for code := range maps.Keys(is) {
			if was[code] != is[code] {
				codes = append(codes, code)
			}
		}
		slices.Sort(codes)
		return codes
	}
	edit := func(file, from, to string) {
		t.Helper()
		text := p.read(file)
		if !strings.Contains(text, from) {
			t.Fatalf("%s does not hold %s", file, from)
		}
		p.write(file, strings.Replace(text, from, to, 1))
	}
	// actions are those that ran, by kind.
	actions := func(r report) map[string]int {
		ran := map[string]int{}
		for kind, c := range r.Actions.Kinds {
			if c.Executed > 0 {
				ran[kind] = c.Executed
			}
		}
		return ran
	}
	want := func(what string, r report, want map[string]int) {
		t.Helper()
		if diff := cmp.Diff(want, actions(r)); diff != "" {
			t.Errorf("%s: actions that ran (-want +got):\n%s", what, diff)
		}
	}
	first := p.build("//:l10n")
	was := files()
	want("nothing changed", p.build("//:l10n"), map[string]int{})

	edit("extensions/Cite/src/Cite.php", "<?php", "<?php // changed")
	edit("includes/Setup.php", "<?php", "<?php // changed")
	r := p.build("//:l10n")
	want("PHP code", r, map[string]int{})
	if diff := cmp.Diff(first.Targets, r.Targets, cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Status" }, cmp.Ignore())); diff != "" {
		t.Errorf("PHP code changed layers (-before +after):\n%s", diff)
	}

	again := filepath.Join(shortDir(t), "again")
	command(t, "/", "git", "clone", "-q", p.dir, again)
	there := *p
	there.dir = again
	want("a fresh clone", there.build("//:l10n"), map[string]int{})

	edit("extensions/Cite/i18n/de.json", `"authors": [`, `"authors": [ "A new translator",`)
	want("a new author", p.build("//:l10n"), map[string]int{"l10n fragment": 1})

	edit("extensions/Cite/i18n/de.json", `"cite-desc": "`, `"cite-desc": "Neu: `)
	r = p.build("//:l10n")
	ran := actions(r)
	// 19 languages of 1.43 fall back to German.
	if ran["l10n fragment"] != 1 || ran["l10n output"] != 20 || ran["layer"] != 1 || len(ran) != 3 {
		t.Errorf("de.json: actions that ran: %v", ran)
	}
	is := files()
	if codes := changed(was, is); len(codes) > 20 || !slices.Contains(codes, "de") || !slices.Contains(codes, "de-at") {
		t.Errorf("de.json changed %v", codes)
	}
	was = is

	edit("extensions/Cite/i18n/en.json", `"cite-desc": "`, `"cite-desc": "New: `)
	// Layers none of whose languages lack the translation stay as they are.
	ran = actions(p.build("//:l10n"))
	if layers := countLayers(t, r); ran["l10n fragment"] != 1 || ran["l10n output"] != 526 || ran["layer"] == 0 || ran["layer"] >= layers || len(ran) != 3 {
		t.Errorf("en.json: actions that ran: %v, of %d layers", ran, layers)
	}
	is = files()
	wantEnglish := lacking(t, p, "extensions/Cite/i18n", "cite-desc")
	if diff := cmp.Diff(wantEnglish, changed(was, is)); diff != "" {
		t.Errorf("outputs that an English text changes (-want +got):\n%s", diff)
	}
	was = is

	edit("extensions/Nuke/Nuke.alias.php", "/** German (Deutsch) */", "/** Deutsch */")
	want("a comment among aliases", p.build("//:l10n"), map[string]int{"l10n aliases": 1})
	edit("extensions/Nuke/Nuke.alias.php", "$specialPageAliases['de'] = [\n", "$specialPageAliases['de'] = [ 'Neu' => [ 'Neu' ],\n")
	want("a German alias", p.build("//:l10n"), map[string]int{"l10n aliases": 1, "l10n output": 20, "layer": 1})

	p.write("extensions/Mini/extension.json", `{"name": "Mini", "manifest_version": 2, "MessagesDirs": {"Mini": ["i18n"]}}`)
	p.write("extensions/Mini/i18n/en.json", `{"mini-text": "small"}`)
	p.write("extensions/Mini/i18n/de.json", `{"mini-text": "klein"}`)
	p.ok("gen")
	ran = actions(p.build("//:l10n"))
	if ran["l10n fragment"] != 2 || ran["l10n output"] != 526 || ran["l10n core"]+ran["l10n aliases"]+ran["l10n plurals"] != 0 {
		t.Errorf("a new component: actions that ran: %v", ran)
	}
}

var storeFile = regexp.MustCompile(`^(?:l10n_cache-(.*)\.cdb|(.*)\.l10n\.php)$`)

func languageOf(file string) string {
	m := storeFile.FindStringSubmatch(filepath.Base(file))
	if m == nil {
		return file
	}
	return m[1] + m[2]
}

// countLayers is how many layers of languages the target has: all its outputs, less the one of settings.
func countLayers(t *testing.T, r report) int {
	t.Helper()
	if len(r.Targets) != 1 || len(r.Targets[0].Outputs) < 2 {
		t.Fatalf("targets: %+v", r.Targets)
	}
	return len(r.Targets[0].Outputs) - 1
}

// lacking lists the languages whose chain has the message of a folder in English alone: those that no file of their chain
// before English has.
func lacking(t *testing.T, p *place, dir, key string) []string {
	t.Helper()
	has := map[string]bool{}
	for _, f := range sortedGlob(t, filepath.Join(p.dir, dir, "*.json")) {
		var messages map[string]any
		b, err := os.ReadFile(f)
		if err == nil {
			err = json.Unmarshal(b, &messages)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := messages[key]; ok {
			has[strings.TrimSuffix(filepath.Base(f), ".json")] = true
		}
	}
	fallback := regexp.MustCompile(`(?m)^\$fallback = '([^']*)'`)
	var codes []string
	for _, f := range sortedGlob(t, filepath.Join(p.tmp, "out", "*")) {
		code := languageOf(f)
		chain := []string{code}
		b, err := os.ReadFile(filepath.Join(p.dir, "languages/messages/Messages"+strings.ReplaceAll(strings.ToUpper(code[:1])+code[1:], "-", "_")+".php"))
		if err == nil {
			if m := fallback.FindSubmatch(b); m != nil {
				for _, c := range strings.Split(string(m[1]), ",") {
					chain = append(chain, strings.TrimSpace(c))
				}
			}
		}
		if !slices.ContainsFunc(chain, func(c string) bool { return c != "en" && has[c] }) {
			codes = append(codes, code)
		}
	}
	slices.Sort(codes)
	return codes
}
