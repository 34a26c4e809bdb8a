//go:build live

package livetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
)

// phpBase is a base with this machine's own PHP, its extensions, and a shell.
var phpBase = once(func(dir string) (base, error) {
	said, err := exec.Command("php", "-r", `echo json_encode( [ PHP_BINARY, php_ini_loaded_file(), ini_get( 'extension_dir' ), PHP_CONFIG_FILE_SCAN_DIR ] );`).Output()
	var php []string
	if err == nil {
		err = json.Unmarshal(said, &php)
	}
	if err != nil {
		return base{}, fmt.Errorf("php: %w\n%s\n    .ci/setup installs PHP", err, said)
	}
	files := []string{"/bin/sh", "/usr/bin/php", "/etc/passwd", "/usr/share/zoneinfo"}
	files = append(files, php[1:]...)
	programs := []string{"/bin/sh", php[0]}
	modules, err := filepath.Glob(filepath.Join(php[2], "*.so"))
	if err != nil {
		return base{}, err
	}
	// What the loader loads for them all.
	libraries := map[string]bool{}
	for _, program := range append(programs, modules...) {
		b, err := exec.Command("ldd", program).Output()
		if err != nil {
			return base{}, fmt.Errorf("ldd %s: %w", program, err)
		}
		for _, m := range regexp.MustCompile(`(?m)(?:=>|^)\s*(/\S+) \(0x`).FindAllSubmatch(b, -1) {
			libraries[string(m[1])] = true
		}
	}
	files = slices.AppendSeq(files, maps.Keys(libraries))
	slices.Sort(files)
	for i, f := range files {
		files[i] = strings.TrimPrefix(f, "/")
	}
	out := filepath.Join(dir, "php.tar")
	args := []string{"-C", "/", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "-h", "--hard-dereference", "-cf", out}
	if b, err := exec.Command("tar", append(args, files...)...).CombinedOutput(); err != nil {
		return base{}, fmt.Errorf("tar: %w\n%s", err, b)
	}
	f, err := os.Open(out)
	if err != nil {
		return base{}, err
	}
	defer f.Close()
	d, err := digest.FromReader(f)
	return base{out, d}, err
})

// copyMediaWiki is a copy of the real tree, for a test to change. Its git history stays behind, which git may still be packing.
func copyMediaWiki(t *testing.T) *place { return copyTree(t, mediawiki(t)) }

func copyTree(t *testing.T, tree string) *place {
	t.Helper()
	dir := filepath.Join(shortDir(t), "tree")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	command(t, tree, "sh", "-c", `tar --exclude=./.git -cf - . | tar -C "$0" -xf -`, dir)
	return newPlace(t, dir)
}

// replace replaces what a file of the workspace must hold.
func (p *place) replace(name, from, to string) {
	p.t.Helper()
	text := p.read(name)
	if !strings.Contains(text, from) {
		p.t.Fatalf("%s does not hold %q", name, from)
	}
	p.write(name, strings.Replace(text, from, to, 1))
}

var wikiComponents = regexp.MustCompile(`(?s)name = "wiki",\s*components = (\[.*?\]),`)

// exportDir exports a target to a folder that is gone when the test ends.
func (p *place) exportDir(t *testing.T, target string) string {
	t.Helper()
	out := filepath.Join(shortDir(t), "out")
	p.ok(target, "-o", "type=dir,dest="+out)
	return out
}

// changer is an extension that changes a message by code, and computes an alias.
var changer = map[string]string{
	"extension.json": `{
	"name": "Changer",
	"manifest_version": 2,
	"AutoloadNamespaces": {"MediaWiki\\Extension\\Changer\\": "src/"},
	"HookHandlers": {"main": {"class": "MediaWiki\\Extension\\Changer\\Hooks"}},
	"Hooks": {"LocalisationCacheRecache": "main"},
	"MessagesDirs": {"Changer": ["i18n"]},
	"ExtensionMessagesFiles": {"ChangerAlias": "Changer.alias.php"}
}
`,
	"Changer.alias.php": `<?php
$specialPageAliases = [ 'en' => [ 'Changer' => [ ucfirst( 'computed' ) ] ] ];
`,
	"src/Hooks.php": `<?php
namespace MediaWiki\Extension\Changer;

class Hooks {
	public function onLocalisationCacheRecache( $cache, $code, &$data, $unused ) {
		$data['messages']['changer-text'] .= " ($code, changed)";
	}
}
`,
	"i18n/en.json": `{"changer-text": "text", "cite-desc": "first", "abusefilter-desc": "second"}`,
	"i18n/de.json": `{"changer-text": "Wortlaut", "cite-desc": "first", "abusefilter-desc": "second"}`,
}

// MediaWiki's own compiler, in an image with PHP, makes what the native one makes; and what that refuses.
func TestLocalisationByPHP(t *testing.T) {
	p := copyMediaWiki(t)
	plain := p.read("BUILD")
	// declare writes the root's BUILD file: a wiki with PHP of what //:wiki holds, and localisation compiled in it.
	declare := func(build string) {
		t.Helper()
		m := wikiComponents.FindStringSubmatch(build)
		if m == nil {
			t.Fatalf("no components in\n%s", build)
		}
		b := phpBase(t)
		build += fmt.Sprintf("\nimage_import(name = \"php\", tar = %q, digest = %q)\n", b.tar, b.digest)
		build += "mw_image(name = \"php_wiki\", base = \":php\", core = \":core\", components = " + m[1] + ")\n"
		for name, attrs := range map[string]string{
			"few_php": `languages = ["de", "en", "zh-hant"], format = "php"`,
			"few_cdb": `languages = ["de", "zh-hant"], format = "cdb"`,
		} {
			build += fmt.Sprintf("mw_l10n(name = %q, components = [\":l10n\"], %s)\n", name, attrs)
			build += fmt.Sprintf("mw_l10n(name = %q, components = [\":l10n\"], compiler = \":php_wiki\", %s)\n", "by_"+name, attrs)
		}
		p.write("BUILD", build)
	}
	declare(plain)
	const below = "srv/mediawiki/cache/l10n"
	for _, f := range []struct {
		target, store string
		files         []string
	}{
		{"few_php", "LCStoreStaticArray", []string{"de.l10n.php", "en.l10n.php", "zh-hant.l10n.php"}},
		{"few_cdb", "LCStoreCDB", []string{"l10n_cache-de.cdb", "l10n_cache-zh-hant.cdb"}},
	} {
		ours, theirs := p.exportDir(t, "//:"+f.target), p.exportDir(t, "//:by_"+f.target)
		var got []string
		for _, name := range sortedGlob(t, filepath.Join(theirs, below, "*")) {
			got = append(got, filepath.Base(name))
		}
		if diff := cmp.Diff(slices.Sorted(slices.Values(append(f.files, "settings.php"))), got); diff != "" {
			t.Errorf("%s: files (-want +got):\n%s", f.target, diff)
		}
		for _, name := range f.files {
			native, err := os.ReadFile(filepath.Join(ours, name))
			made, err2 := os.ReadFile(filepath.Join(theirs, below, name))
			if err := errors.Join(err, err2); err != nil {
				t.Fatal(err)
			}
			if diff := diffStores(made, native, f.store); diff != "" {
				t.Errorf("%s: MediaWiki in the image made other things:\n%s", name, diff)
			}
		}
	}
	both := []string{"//:by_few_php", "//:by_few_cdb"}
	built := p.build(both...)
	built.wantActions(t, 0, false)

	// Any change to PHP may change what it computes. Here it does not, but for times: the layers are the same.
	p.replace("extensions/Cite/src/Cite.php", "<?php", "<?php // changed")
	r := p.build(both...)
	if ran := r.Actions.Kinds["run"]; ran.Executed != 5 {
		t.Errorf("after a change of PHP %d of %d steps ran, want 5; in all %+v", ran.Executed, ran.Total, r.Actions)
	}
	if diff := cmp.Diff(built.digests(), r.digests()); diff != "" {
		t.Errorf("a comment in PHP changed compiled localisation (-before +after):\n%s", diff)
	}

	t.Run("hook", func(t *testing.T) {
		p.write("BUILD", plain)
		for name, text := range changer {
			p.write("extensions/Changer/"+name, text)
		}
		p.ok("gen")
		grown := p.read("BUILD")
		r := p.fails(1, []string{
			"//:l10n: components: //extensions/Changer:l10n changes localisation by code, in hook LocalisationCacheRecache: ",
			"set compiler to an image with PHP",
		}, "//:l10n")
		if !regexp.MustCompile(`(?m)^(error: |mwbuild: )?BUILD:\d+:\d+: //:l10n: components: `).MatchString(r.stderr) {
			t.Errorf("the error names no place:\n%s", r.stderr)
		}
		declare(grown)
		p.replace("BUILD", "name = \"l10n\",\n", "name = \"l10n\",\n    compiler = \":php_wiki\",\n    languages = [\"de\"],\n    format = \"php\",\n")
		// What says the same as //:l10n has the same hook.
		p.fails(1, []string{"//:few_php: components: //extensions/Changer:l10n changes localisation by code"}, "//:few_php")
		out := p.exportDir(t, "//:l10n")
		compiled, err := os.ReadFile(filepath.Join(out, below, "de.l10n.php"))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			"'messages:changer-text' => 'de:Wortlaut (de, changed)',",
			"'Computed',",
			// Changer registers before Cite and after AbuseFilter.
			"'messages:cite-desc' => 'de:first',",
			"'messages:abusefilter-desc' => 'de:Wendet",
			"'messages:cite_error' => 'de:Referenzfehler: $1',",
		} {
			if !bytes.Contains(compiled, []byte(want)) {
				t.Errorf("what MediaWiki compiled does not hold %s", want)
			}
		}
	})
}

// imageSettings are LocalSettings.php of a wiki that has no database.
const imageSettings = `<?php
$wgServer = 'http://localhost';
$wgDBtype = 'sqlite';
$wgSQLiteDataDir = sys_get_temp_dir();
$wgSecretKey = 'none';
$wgMainCacheType = CACHE_NONE;
$wgLanguageCode = 'de';
wfLoadExtension( 'Cite' );
`

// An image with compiled localisation: its MediaWiki finds it by itself, serves from it and finds nothing stale.
func TestLocalisationImage(t *testing.T) {
	p := copyMediaWiki(t)
	plain := p.read("BUILD")
	m := wikiComponents.FindStringSubmatch(plain)
	if m == nil {
		t.Fatalf("no components in\n%s", plain)
	}
	p.write("LocalSettings.wiki.php", imageSettings)
	p.write("BUILD", plain+`
COMPONENTS = `+m[1]+`
mw_image(name = "cdb", core = ":core", components = COMPONENTS, settings = "LocalSettings.wiki.php", l10n = ":l10n")
mw_image(name = "array", core = ":core", components = COMPONENTS, settings = "LocalSettings.wiki.php", l10n = ":few_php")
mw_image(name = "owned", settings = "LocalSettings.wiki.php", l10n = ":few_php", user = "33:33", writable_dirs = ["cache", "images"])
mw_image(name = "bare", core = ":core", l10n = ":few_php")
mw_image(name = "elsewhere", root = "/var/www/html", core = ":core", l10n = ":few_php")
mw_l10n(name = "few_php", components = [":l10n"], languages = ["de", "de-formal", "en", "ru", "sr-el", "zh-hant"], format = "php")
`)

	t.Run("served", func(t *testing.T) {
		for _, test := range []struct{ target, lang string }{{"//:cdb", ""}, {"//:array", "de,de-formal,en,ru,sr-el,zh-hant"}} {
			out := p.exportDir(t, test.target)
			testServedFromImage(t, filepath.Join(out, "srv/mediawiki"), test.lang)
			os.RemoveAll(out)
		}
	})
	t.Run("owners", func(t *testing.T) { testOwners(t, p, "//:owned") })
	t.Run("accepted", func(t *testing.T) {
		reg := registry(t)
		name := reg.addr + "/wiki:l10n"
		p.ok("//:cdb", "--push", name)
		command(t, "", tool(t, "crane"), "validate", "--fast", "--remote", name)
		if n := len(layersOf(t, name)); n > 100 {
			t.Errorf("%d layers", n)
		} else {
			t.Logf("%d layers", n)
		}
	})
	t.Run("without settings", func(t *testing.T) {
		out := p.exportDir(t, "//:bare")
		if !isFile(filepath.Join(out, "srv/mediawiki/cache/l10n/settings.php")) {
			t.Error("there is no cache/l10n/settings.php")
		}
		if isFile(filepath.Join(out, "srv/mediawiki/LocalSettings.php")) {
			t.Error("there is a LocalSettings.php that nobody gave")
		}
	})
	p.fails(1, []string{"//:elsewhere: l10n: it was packed for a MediaWiki at /srv/mediawiki, and this one lies at /var/www/html: give both the same root"}, "//:elsewhere")

	t.Run("code", func(t *testing.T) {
		reg := registry(t)
		name := reg.addr + "/wiki"
		p.ok("//:cdb", "--push", name+":before")
		before := layersOf(t, name+":before")
		p.replace("extensions/Cite/src/Cite.php", "<?php", "<?php // changed")
		r := p.build("//:cdb")
		r.wantActions(t, 2, false)
		p.ok("//:cdb", "--push", name+":after")
		after := layersOf(t, name+":after")
		changed := 0
		for i := range min(len(before), len(after)) {
			if before[i] != after[i] {
				changed++
			}
		}
		if len(before) != len(after) || changed != 1 {
			t.Errorf("a line of PHP changed %d of %d layers to %d, want 1: its component's", changed, len(before), len(after))
		}
		inImage := map[string]bool{}
		for _, d := range after {
			inImage[d] = true
		}
		missing := 0
		for _, target := range p.build("//:l10n").Targets {
			for _, o := range target.Outputs {
				if !inImage[o.Digest] {
					missing++
				}
			}
		}
		if missing > 0 {
			t.Errorf("%d layers of //:l10n are not in the image", missing)
		}
	})
}

// layersOf lists the layers of an image in a registry, lowest first.
func layersOf(t *testing.T, name string) (digests []string) {
	t.Helper()
	var manifest struct{ Layers []struct{ Digest string } }
	if err := json.Unmarshal([]byte(command(t, "", tool(t, "crane"), "manifest", name)), &manifest); err != nil {
		t.Fatal(err)
	}
	for _, l := range manifest.Layers {
		digests = append(digests, l.Digest)
	}
	return digests
}

// testOwners checks that who runs the wiki may write to its writable folders, and not to its compiled localisation.
func testOwners(t *testing.T, p *place, target string) {
	t.Helper()
	dir := t.TempDir()
	layout, bundle := filepath.Join(dir, "layout"), filepath.Join(dir, "bundle")
	p.ok(target, "-o", "type=oci,compression=gzip,dest="+layout)
	command(t, "", tool(t, "umoci"), "unpack", "--image", layout+":latest", bundle)
	root := filepath.Join(bundle, "rootfs/srv/mediawiki")
	for name, want := range map[string]uint32{"cache": 33, "images": 33, "cache/l10n": 65533, "cache/l10n/de.l10n.php": 65533, "cache/l10n/settings.php": 65533, "LocalSettings.php": 65533} {
		fi, err := os.Stat(filepath.Join(root, name))
		if err != nil {
			t.Error(err)
			continue
		}
		if st := fi.Sys().(*syscall.Stat_t); st.Uid != want || st.Gid != want {
			t.Errorf("%s belongs to %d:%d, want %d:%[4]d", name, st.Uid, st.Gid, want)
		}
	}
}

// testServedFromImage runs the MediaWiki of an exported image with its own LocalSettings.php.
func testServedFromImage(t *testing.T, root, languages string) {
	t.Helper()
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("php", append([]string{"-d", "error_reporting=E_ALL & ~E_DEPRECATED", "maintenance/run.php"}, args...)...)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "TREE="+root)
		b, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s\n    .ci/setup installs PHP", strings.Join(cmd.Args, " "), err, b)
		}
		return string(b)
	}
	args := []string{"rebuildLocalisationCache", "--no-progress", "--no-database", "--skip-message-purge"}
	if languages != "" {
		args = append(args, "--lang="+languages)
	}
	if said := run(args...); !strings.Contains(said, "0 languages rebuilt out of") {
		t.Errorf("MediaWiki finds something stale: %s", said)
	}
	// What is served comes from the compiled files: those that they were compiled from say other things by now.
	for _, f := range []string{"languages/i18n/de.json", "extensions/Cite/i18n/de.json", "languages/messages/MessagesDe.php"} {
		name := filepath.Join(root, f)
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.NewReplacer("Hauptseite", "Gelogen", "Letzte_Änderungen", "Gelogen", "#WEITERLEITUNG", "#GELOGEN", "Ermöglicht", "Gelogen").Replace(string(b))
		if text == string(b) {
			t.Errorf("%s holds nothing to replace", f)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	script := filepath.Join(t.TempDir(), "Show.php")
	// Without a database MediaWiki would not use compiled localisation at all. With one that is never asked it does.
	stored := strings.Replace(show, "Maintenance::DB_NONE", "Maintenance::DB_STD", 1)
	if err := os.WriteFile(script, []byte(stored), 0o644); err != nil {
		t.Fatal(err)
	}
	said := run(script)
	from := strings.IndexByte(said, '{')
	shown := map[string]json.RawMessage{}
	if from < 0 || json.Unmarshal([]byte(said[from:]), &shown) != nil {
		t.Fatalf("MediaWiki said\n%s", said)
	}
	for code, says := range map[string][]string{
		"de":      {`"Hauptseite"`, `"Letzte_Änderungen"`, `"#WEITERLEITUNG"`, `"Diskussion"`, `Ermöglicht`, `["two","one","two","two","two","two"]`},
		"zh-hant": {`"首頁"`, `"最近變更"`, `["two","one","two","two","two","two"]`}, // its own rules are none: English is heard
		"sr-el":   {`"Glavna strana"`, `"Razgovor"`, `["three","one","two","three","three","one"]`},
	} {
		for _, s := range says {
			if !bytes.Contains(shown[code], []byte(s)) {
				t.Errorf("%s: MediaWiki does not serve %s: %s", code, s, shown[code])
			}
		}
	}
	if strings.Contains(said, "elogen") || strings.Contains(said, "GELOGEN") {
		t.Errorf("MediaWiki reads what is not compiled:\n%s", said)
	}
}
