//go:build live

package livetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// citeDirs are where Cite's messages are, in 1.39 and in 1.43.
var citeDirs = []string{"extensions/Cite/i18n", "extensions/Cite/modules/ve-cite/i18n"}

const updateBuild = `
mw_l10n_update(
    name = "cite",
    base = "//extensions/Cite:l10n",
    %s,
)

[mw_l10n(
    name = name + "_" + format,
    components = ["//:core_l10n", cite],
    format = format,
    tags = ["manual"],
) for name, cite in {"old": "//extensions/Cite:l10n", "new": ":cite"}.items() for format in ["cdb", "php"]]
`

// MediaWiki 1.39 with what 1.43 says in Cite: translations come, but for texts that are other ones in English.
func TestLocalisationUpdate(t *testing.T) {
	newer := mediawiki(t)
	clone := filepath.Join(shortDir(t), "tree")
	command(t, "/", "git", "clone", "-q", "--no-local", bookworm(t), clone)
	p := newPlace(t, clone)
	git := func(args ...string) string {
		t.Helper()
		args = append([]string{"-c", "user.name=t", "-c", "user.email=t@localhost", "-C", clone}, args...)
		return strings.TrimSpace(command(t, "/", "git", args...))
	}

	// A commit has 1.43's messages, the next one 1.39's again.
	for _, d := range citeDirs {
		if err := os.RemoveAll(filepath.Join(clone, d)); err != nil {
			t.Fatal(err)
		}
		copyFolder(t, filepath.Join(newer, d), filepath.Join(clone, d))
	}
	git("add", "-A")
	git("commit", "-qm", "newer")
	id := git("rev-parse", "HEAD")
	git("revert", "--no-edit", id)

	p.write("l10n-updates/BUILD", fmt.Sprintf(updateBuild, fmt.Sprintf("revision = %q", id)))
	base, wanted := messagesIn(t, clone, citeDirs), messagesIn(t, newer, citeDirs)
	kept := 0 // translations that 1.43 has, of texts that it has changed
	taken := map[string]map[string]string{}
	for language, messages := range wanted {
		taken[language] = maps.Clone(base[language])
		if taken[language] == nil {
			taken[language] = map[string]string{}
		}
		for key, text := range messages {
			was, there := base["en"][key]
			is, still := wanted["en"][key]
			switch {
			case language == "en":
			case there && still && was == is:
				taken[language][key] = text
			case there && still && text != base[language][key]:
				kept++
			}
		}
	}
	changed := map[string]bool{}
	for language, messages := range taken {
		if !maps.Equal(messages, base[language]) {
			changed[language] = true
		}
	}
	t.Logf("%d translations are of changed texts; %d languages have others than before", kept, len(changed))
	if kept < 10 || len(changed) < 10 || !changed["de"] {
		t.Fatalf("1.43 has %d translations not to be taken, and changes %d languages: too few to tell anything", kept, len(changed))
	}

	for _, format := range []string{"cdb", "php"} {
		old, updated := p.exportDir(t, "//l10n-updates:old_"+format), p.exportDir(t, "//l10n-updates:new_"+format)
		compared := 0
		for _, file := range sortedGlob(t, filepath.Join(old, "*")) {
			language := languageOf(file)
			if format == "php" && !slices.Contains([]string{"de", "de-at", "en", "fr", "ja", "sr-ec", "zh-hant"}, language) {
				continue
			}
			compared++
			was, is := compiledMessages(t, file, format), compiledMessages(t, filepath.Join(updated, filepath.Base(file)), format)
			want := taken[language]
			if want == nil {
				want = map[string]string{}
			}
			said := map[string]string{} // what is from Cite and in this language
			differ := len(is) != len(was)
			for key, text := range is {
				from, own, _ := strings.Cut(text, ":")
				if _, ok := want[key]; ok && from == language {
					said[key] = own
				}
				if text == was[key] {
					continue
				}
				differ = true
				if !changed[from] || taken[from][key] != own {
					t.Errorf("%s: %s is %q and was %q", language, key, text, was[key])
				}
			}
			if diff := cmp.Diff(want, said); diff != "" {
				t.Errorf("%s, %s: Cite's messages (-computed +compiled):\n%s", language, format, diff)
			}
			if same := sameFiles(t, file, filepath.Join(updated, filepath.Base(file))); same == differ || changed[language] && same {
				t.Errorf("%s: the same file: %v; other messages: %v; other translations: %v", language, same, differ, changed[language])
			}
		}
		if compared < 400 && format == "cdb" || compared < 7 {
			t.Errorf("%d languages were compared", compared)
		}
	}

	// From a folder, it is the same.
	for _, d := range citeDirs {
		copyFolder(t, filepath.Join(newer, d), filepath.Join(clone, "l10n-updates/newer", d))
	}
	p.write("l10n-updates/BUILD", fmt.Sprintf(updateBuild, `newer = "newer"`))
	r := p.build("//l10n-updates:new_cdb", "//l10n-updates:new_php")
	if n := r.Actions.Kinds["l10n output"].Executed; n > 0 {
		t.Errorf("%d outputs were compiled for the same messages from a folder", n)
	}
	if n := r.Actions.Kinds["l10n update"].Executed; n < len(changed) {
		t.Errorf("%d updates from a folder, want one for each of %d languages and more", n, len(changed))
	}
}

func copyFolder(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// messagesIn reads message files, by language and key: of two folders that have a key the first one counts.
func messagesIn(t *testing.T, tree string, dirs []string) map[string]map[string]string {
	t.Helper()
	all := map[string]map[string]string{}
	for _, d := range dirs {
		files, err := fs.Glob(os.DirFS(filepath.Join(tree, d)), "*.json")
		if err != nil || len(files) == 0 {
			t.Fatalf("%s has no messages: %v", d, err)
		}
		for _, f := range files {
			b, err := os.ReadFile(filepath.Join(tree, d, f))
			if err != nil {
				t.Fatal(err)
			}
			var messages map[string]any
			if err := json.Unmarshal(b, &messages); err != nil {
				t.Fatalf("%s/%s: %v", d, f, err)
			}
			language := strings.TrimSuffix(path.Base(f), ".json")
			if all[language] == nil {
				all[language] = map[string]string{}
			}
			for _, key := range slices.Sorted(maps.Keys(messages)) {
				if _, ok := all[language][key]; !ok && !strings.HasPrefix(key, "@") {
					all[language][key] = messages[key].(string)
				}
			}
		}
	}
	delete(all, "qqq")
	return all
}

func sameFiles(t *testing.T, a, b string) bool {
	t.Helper()
	x, xerr := os.ReadFile(a)
	y, yerr := os.ReadFile(b)
	if err := errors.Join(xerr, yerr); err != nil {
		t.Fatal(err)
	}
	return string(x) == string(y)
}

// compiledMessages are the messages of a compiled language, with the languages that they come from.
func compiledMessages(t *testing.T, file, format string) map[string]string {
	t.Helper()
	messages := map[string]string{}
	if format == "php" {
		out := command(t, "/", "php", "-r", `echo json_encode( include $argv[1] );`, file)
		var all map[string]any
		if err := json.Unmarshal([]byte(out), &all); err != nil {
			t.Fatal(err)
		}
		for key, v := range all {
			if key, ok := strings.CutPrefix(key, "messages:"); ok {
				messages[key] = v.(string)
			}
		}
		return messages
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	records, err := cdbRecords(b)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		key, value, _ := strings.Cut(r, "\n")
		if key, ok := strings.CutPrefix(key, "messages:"); ok {
			text := value[strings.Index(value, `"`)+1:] // s:LENGTH:"TEXT";
			messages[key] = strings.TrimSuffix(text, `";`)
		}
	}
	return messages
}
