//go:build live

package l10n

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mwbuild/mwbuild/rules/l10n/message"
	"github.com/mwbuild/mwbuild/rules/l10n/php"
	"github.com/mwbuild/mwbuild/rules/l10n/plural"
)

// realTrees are the trees that the tests compile, by the Debian suite that has them, and the digests of what MediaWiki
// itself makes of them.
var realTrees = []struct{ suite, variable, digests string }{
	{"trixie", "MEDIAWIKI_TREE", "mediawiki-1.43.9"},
	{"bookworm", "MEDIAWIKI_TREE_BOOKWORM", "mediawiki-1.39.17"},
}

// sharedFile is a file beside the repository.
func sharedFile(t testing.TB, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../../../shared", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// layTree returns the tree of a suite: the one that the environment names, or one that is laid now.
func layTree(t testing.TB, suite, variable string) string {
	t.Helper()
	if dir := os.Getenv(variable); dir != "" {
		return dir
	}
	dir := filepath.Join(t.TempDir(), "mediawiki")
	if out, err := exec.Command(sharedFile(t, "mediawiki-tree"), dir, suite).CombinedOutput(); err != nil {
		t.Fatalf("mediawiki-tree: %v\n%s", err, out)
	}
	return dir
}

// A testTree is what localisation is in a tree.
type testTree struct {
	root       string
	version    Version
	components []*testComponent // core first
	languages  []string         // that are compiled
	skip       map[string]bool
	constants  map[string]php.Value
}

type testComponent struct {
	messages, aliases []testDir
	files             [][2]string // of ExtensionMessagesFiles: key and path
	// Once read:
	fragments map[string]*Fragment
	parts     *Aliases
}

type testDir struct{ key, path string }

// gather finds the components as l10n-settings.php does.
func gather(t testing.TB, root string) *testTree {
	t.Helper()
	tree := &testTree{root: root, skip: map[string]bool{}, constants: map[string]php.Value{}}
	m := regexp.MustCompile(`'MW_VERSION', '([^']*)'`).FindSubmatch(tree.read(t, "includes/Defines.php"))
	var err error
	if tree.version, err = ParseVersion(string(m[1])); err != nil {
		t.Fatal(err)
	}
	core := &testComponent{}
	for _, d := range CoreMessageDirs(tree.version) {
		core.messages = append(core.messages, testDir{d.Key, d.Path})
	}
	tree.components = append(tree.components, core)
	manifests, err := filepath.Glob(filepath.Join(root, "extensions/*/extension*.json"))
	if err != nil {
		t.Fatal(err)
	}
	skins, err := filepath.Glob(filepath.Join(root, "skins/*/skin.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(manifests, skins...) {
		path, err := filepath.Rel(root, path)
		if err != nil {
			t.Fatal(err)
		}
		v, err := message.ReadValue(path, tree.read(t, path))
		if err != nil {
			t.Fatal(err)
		}
		c := &testComponent{}
		dir := filepath.Dir(path)
		part := func(name string) *php.Array {
			v, _ := v.(*php.Array).Get(php.StringKey(name))
			a, _ := v.(*php.Array)
			return a
		}
		dirs := func(name string) (all []testDir) {
			for k, v := range part(name).All() {
				tree.skip[k.String()] = true
				list, ok := v.(*php.Array)
				if !ok {
					list = php.List(v)
				}
				for _, v := range list.All() {
					all = append(all, testDir{k.String(), filepath.Join(dir, v.(string))})
				}
			}
			return all
		}
		c.messages, c.aliases = dirs("MessagesDirs"), dirs("TranslationAliasesDirs")
		for k, v := range part("ExtensionMessagesFiles").All() {
			c.files = append(c.files, [2]string{k.String(), filepath.Join(dir, v.(string))})
		}
		for _, v := range part("namespaces").All() {
			ns := v.(*php.Array)
			if name, ok := ns.Get(php.StringKey("constant")); ok {
				id, _ := ns.Get(php.StringKey("id"))
				tree.constants[name.(string)] = id
			}
		}
		tree.components = append(tree.components, c)
	}
	names := "includes/languages/data/Names.php"
	codes, err := ReadNames(names, tree.read(t, names))
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range codes {
		if code != "en-x-piglatin" && (tree.has(coreFile(code)) || tree.has("languages/i18n/"+code+".json")) {
			tree.languages = append(tree.languages, code)
		}
	}
	slices.Sort(tree.languages)
	return tree
}

func coreFile(code string) string {
	return "languages/messages/Messages" + strings.ReplaceAll(strings.ToUpper(code[:1])+code[1:], "-", "_") + ".php"
}

func (tree *testTree) has(path string) bool {
	_, err := os.Stat(filepath.Join(tree.root, path))
	return err == nil
}

func (tree *testTree) read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(tree.root, path))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// sections reads the files of one language below dirs.
func (tree *testTree) sections(t testing.TB, dirs []testDir, code string) (sections []Section) {
	for _, d := range dirs {
		path := filepath.Join(d.path, code+".json")
		if !tree.has(path) {
			continue
		}
		if n := len(sections); n == 0 || sections[n-1].Key != d.key {
			sections = append(sections, Section{Key: d.key})
		}
		s := &sections[len(sections)-1]
		s.Files = append(s.Files, Source{path, tree.read(t, path)})
	}
	return sections
}

// spent is the CPU time that this process has used.
func spent(t testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// compileTree compiles all languages in all formats, and gives each file to got.
func compileTree(t testing.TB, tree *testTree, got func(f Format, language string, data []byte)) {
	t.Helper()
	c := NewCompiler(tree.version)
	cores, links := map[string]*Core{}, map[string]*Link{}
	chains := map[string][]string{}
	var plurals []plural.File
	for _, name := range []string{"languages/data/plurals.xml", "languages/data/plurals-mediawiki.xml"} {
		plurals = append(plurals, plural.File{Name: name, Data: tree.read(t, name)})
	}
	rules, err := plural.Load(plurals...)
	if err != nil {
		t.Fatal(err)
	}
	wanted := map[string]bool{}
	core := func(code string) *Core {
		if !tree.has(coreFile(code)) {
			return nil
		}
		if cores[code] == nil {
			if cores[code], err = c.Core(coreFile(code), tree.read(t, coreFile(code))); err != nil {
				t.Fatal(err)
			}
		}
		return cores[code]
	}
	start := spent(t)
	for _, code := range tree.languages {
		sequence, _, err := Chain(code, core(code))
		if err != nil {
			t.Fatal(err)
		}
		chains[code] = append([]string{code}, sequence...)
		for _, link := range chains[code] {
			wanted[link] = true
		}
	}
	for code := range wanted {
		links[code] = &Link{Language: code, Core: core(code), Plural: rules[code]}
	}
	t.Logf("core: %d files, %v", len(cores), spent(t)-start)

	type job struct {
		code      string
		component *testComponent
		in        FragmentInput
	}
	var jobs []job
	size, files := 0, 0
	for i, component := range tree.components {
		component.fragments = map[string]*Fragment{}
		for code := range wanted {
			j := job{code, component, FragmentInput{
				Messages:  tree.sections(t, component.messages, code),
				Aliases:   tree.sections(t, component.aliases, code),
				Component: i > 0,
			}}
			for _, s := range append(slices.Clone(j.in.Messages), j.in.Aliases...) {
				for _, f := range s.Files {
					size += len(f.Data)
					files++
				}
			}
			if len(j.in.Messages)+len(j.in.Aliases) > 0 {
				jobs = append(jobs, j)
			}
		}
	}
	runtime.GC()
	start = spent(t)
	for i, j := range jobs {
		f, err := c.Fragment(j.code, j.in)
		if err != nil {
			t.Fatal(err)
		}
		j.component.fragments[j.code] = f
		jobs[i].in = FragmentInput{}
	}
	used := spent(t) - start
	t.Logf("fragments: %d of %d files, %d MB, %v, %.0f MB/s", len(jobs), files, size>>20, used, float64(size)/1e6/used.Seconds())
	runtime.GC()
	start = spent(t)
	held := 0
	for _, j := range jobs {
		f := j.component.fragments[j.code]
		f.Digest()
		held += f.Size()
	}
	t.Logf("digests: %v; they hold %d MB", spent(t)-start, held>>20)
	start = spent(t)
	for _, component := range tree.components {
		var files []AliasFile
		for _, f := range component.files {
			files = append(files, AliasFile{f[0], f[1], tree.read(t, f[1])})
		}
		if component.parts, err = c.Aliases(files, tree.constants); err != nil {
			t.Fatal(err)
		}
		for code, link := range links {
			link.Fragments = append(link.Fragments, component.fragments[code])
			link.Aliases = append(link.Aliases, component.parts.Part(code))
		}
	}
	t.Logf("aliases: %v", spent(t)-start)
	for _, f := range []Format{StaticArray, CDB} {
		var dst []byte
		for _, round := range []string{"first", "second"} {
			runtime.GC()
			var used time.Duration
			written := 0
			for _, code := range tree.languages {
				in := &Input{Language: code, SkipFiles: tree.skip}
				for _, link := range chains[code] {
					in.Links = append(in.Links, *links[link])
				}
				start := spent(t)
				if dst, err = c.Compile(dst[:0], f, in); err != nil {
					t.Fatal(err)
				}
				used += spent(t) - start
				written += len(dst)
				if round == "first" {
					got(f, code, dst)
				}
			}
			t.Logf("%s, %s time: %d languages, %d MB, %v, %v each", f.FileName("xx"), round, len(tree.languages), written>>20, used,
				used/time.Duration(len(tree.languages)))
		}
	}
}

var depsEntry = regexp.MustCompile("\t'deps' => \\[\n\t\t(?:0 => )?'.',\n(?:\t\t(?:1 => )?'.*',\n|\t\t(?:1 => )?\\[\n\t\t\\],\n)\t\\],\n")

// fileDigest is what l10n-digest prints: of all but "deps", and not of CDB's tables.
func fileDigest(t testing.TB, f Format, data []byte) string {
	t.Helper()
	h := sha256.New()
	if f == StaticArray {
		at := depsEntry.FindIndex(data)
		if at == nil {
			t.Fatal("no deps")
		}
		h.Write(data[:at[0]])
		h.Write(data[at[1]:])
	} else {
		for at := 2048; at < int(binary.LittleEndian.Uint32(data)); {
			key := int(binary.LittleEndian.Uint32(data[at:]))
			end := at + 8 + key + int(binary.LittleEndian.Uint32(data[at+4:]))
			if string(data[at+8:at+8+key]) != "deps" {
				h.Write(data[at:end])
			}
			at = end
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// parseDigests reads what l10n-digest prints.
func parseDigests(text []byte) map[string]string {
	digests := map[string]string{}
	for line := range strings.Lines(string(text)) {
		digest, language, _ := strings.Cut(strings.TrimSpace(line), " ")
		digests[language] = digest
	}
	return digests
}

// reference is what MediaWiki made: the digests by language.
func (tree *testTree) reference(t testing.TB, f Format, languages []string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	command := []string{"maintenance/run.php", "rebuildLocalisationCache"}
	if tree.version.before(Version{1, 40}) {
		command = []string{"maintenance/rebuildLocalisationCache.php"}
	}
	command = append(command, "--conf="+sharedFile(t, "l10n-settings.php"), "--force", "--no-progress", "--no-database",
		"--skip-message-purge", "--lang="+strings.Join(languages, ","))
	run := exec.Command("php", command...)
	run.Dir = tree.root
	run.Env = append(os.Environ(), "LCDIR="+dir, "LCSTORE="+map[Format]string{CDB: "cdb", StaticArray: "array"}[f])
	if out, err := run.CombinedOutput(); err != nil {
		t.Fatalf("MediaWiki: %v\n%s", err, out)
	}
	if f == CDB {
		for _, code := range languages {
			data, err := os.ReadFile(filepath.Join(dir, f.FileName(code)))
			if err != nil {
				t.Fatal(err)
			}
			records, _ := cdbRecords(data)
			if !bytes.Equal(rewriteCDB(records), data) {
				t.Errorf("%s: the same records give other tables than MediaWiki's", f.FileName(code))
			}
		}
	}
	out, err := exec.Command(sharedFile(t, "l10n-digest"), dir).Output()
	if err != nil {
		t.Fatal("l10n-digest:", err)
	}
	return parseDigests(out)
}

// spread are languages of many kinds: right to left, fallbacks of their own in several languages, no file of their own, none
// but one, most of everything.
var spread = []string{"ar", "de", "de-formal", "en", "kk-cyrl", "pt-br", "sr-el", "zh-hant",
	"arz", "ca", "crh-latn", "gom-deva", "ks-arab", "ml", "sr-ec", "tt-cyrl", "uz", "yi", "zh-tw"}

// readCDB is a PHP script that finds each record of a CDB file by its key, with MediaWiki's readers: the one in PHP, and that of
// PHP's own if there is one.
const readCDB = `
require 'vendor/autoload.php';
foreach (array_filter(['Cdb\\Reader\\PHP', Cdb\Reader::haveExtension() ? 'Cdb\\Reader\\DBA' : '']) as $class) {
	$all = new $class($argv[1]);
	$one = new $class($argv[1]);
	for ($n = 0, $key = $all->firstkey(); $key !== false; $key = $all->nextkey(), $n++) {
		if (!is_string($one->get($key))) { exit("no $key\n"); }
		if (unserialize($one->get($key)) === false && !in_array($key, ['rtl', 'fallback', 'linkPrefixExtension'])) { exit("$key: {$one->get($key)}\n"); }
	}
	echo $n, "\n";
}`

// found counts the records of a CDB file that PHP finds.
func (tree *testTree) found(t testing.TB, data []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "test.cdb")
	if err := os.WriteFile(file, data, 0o666); err != nil {
		t.Fatal(err)
	}
	run := exec.Command("php", "-r", readCDB, "--", file)
	run.Dir = tree.root
	out, err := run.CombinedOutput()
	if err != nil {
		t.Fatalf("php: %v\n%s", err, out)
	}
	return string(out)
}

// The real trees' languages, in both formats, are what MediaWiki makes of them: it compiles those of the spread in this run, all if
// $L10N_ALL is set; others are compared if they have a digest in l10n-reference.
func TestAgainstMediaWiki(t *testing.T) {
	for _, tt := range realTrees {
		t.Run(tt.suite, func(t *testing.T) {
			tree := gather(t, layTree(t, tt.suite, tt.variable))
			languages := slices.DeleteFunc(slices.Clone(spread), func(code string) bool { return !slices.Contains(tree.languages, code) })
			want := map[Format]map[string]string{}
			for f, name := range map[Format]string{StaticArray: "array", CDB: "cdb"} {
				text, err := os.ReadFile(sharedFile(t, fmt.Sprintf("l10n-reference/%s-%s.txt", tt.digests, name)))
				if err != nil {
					t.Fatal(err)
				}
				want[f] = parseDigests(text)
				if os.Getenv("L10N_ALL") != "" {
					languages = tree.languages
				}
				for language, digest := range tree.reference(t, f, languages) {
					if was, ok := want[f][language]; ok && was != digest {
						t.Errorf("MediaWiki's own %s is %s, was %s", f.FileName(language), digest, was)
					}
					want[f][language] = digest
				}
			}
			compared, different := 0, 0
			compileTree(t, tree, func(f Format, language string, data []byte) {
				if f == CDB && (language == "de" || language == "zh-hant") {
					records, _ := cdbRecords(data)
					if got, want := tree.found(t, data), fmt.Sprintln(len(records)); strings.ReplaceAll(got, want, "") != "" || got == "" {
						t.Errorf("%s: PHP finds %s records, want %s", f.FileName(language), got, want)
					}
				}
				if want[f][language] == "" {
					return
				}
				compared++
				if got := fileDigest(t, f, data); got != want[f][language] {
					if different++; different < 20 {
						t.Errorf("%s: digest %s, MediaWiki's is %s", f.FileName(language), got, want[f][language])
					}
				}
				delete(want[f], language)
			})
			for f, left := range want {
				for language := range left {
					t.Errorf("%s was not made", f.FileName(language))
				}
			}
			t.Logf("MediaWiki %s: compared %d files, %d differ", tree.version, compared, different)
		})
	}
}
