package l10n

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mwbuild/mwbuild/graph/action"
)

// A said is one section of a fragment: its key, then keys and texts of messages.
type said []string

func fragmentOf(t interface{ Fatal(...any) }, c *Compiler, sections ...said) *Fragment {
	var in FragmentInput
	for _, s := range sections {
		var b strings.Builder
		for i := 1; i < len(s); i += 2 {
			key, _ := json.Marshal(s[i])
			text, _ := json.Marshal(s[i+1])
			fmt.Fprintf(&b, "%s%s:%s", map[bool]string{true: "{", false: ","}[i == 1], key, text)
		}
		if len(s) == 1 {
			b.WriteString("{")
		}
		in.add("messages "+s[0], Source{"x.json", []byte(b.String() + "}")})
	}
	f, err := c.Fragment("de", in)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func whatSays(f *Fragment) []said {
	if f == nil {
		return nil
	}
	keys, _, _ := f.keys.all()
	var all []said
	for _, s := range f.sections {
		one := said{s.key}
		for i := s.from; i < s.to; i++ {
			one = append(one, keys[f.numbers[i]].key, string(f.value(i)))
		}
		all = append(all, one)
	}
	return all
}

func TestUpdate(t *testing.T) {
	for _, tc := range []struct {
		name                               string
		base, english, newer, newerEnglish []said
		want                               []said
	}{
		{"the same English", []said{{"A", "a", "alt", "b", "be"}}, []said{{"A", "a", "x", "b", "y"}}, []said{{"A", "b", "neu", "a", "neu"}}, []said{{"A", "a", "x", "b", "y"}},
			[]said{{"A", "a", "neu", "b", "neu"}}},
		{"another English", []said{{"A", "a", "alt"}}, []said{{"A", "a", "x", "b", "y"}}, []said{{"A", "a", "neu", "b", "neu"}}, []said{{"A", "a", "X", "b", "y "}},
			[]said{{"A", "a", "alt"}}},
		{"lacking here", []said{{"A", "a", "alt", "b", "be"}}, []said{{"A", "a", "x", "c", "z"}}, []said{{"A", "c", "neu", "a", "neu", "b", "neu"}}, []said{{"A", "c", "z", "a", "x", "b", "y"}},
			[]said{{"A", "a", "neu", "b", "be", "c", "neu"}}},
		{"English lacking there", []said{{"A", "a", "alt"}}, []said{{"A", "a", "x"}}, []said{{"A", "a", "neu"}}, []said{{"A", "b", "x"}},
			[]said{{"A", "a", "alt"}}},
		{"English is empty in both", nil, []said{{"A", "a", ""}}, []said{{"A", "a", "neu"}}, []said{{"A", "a", ""}},
			[]said{{"A", "a", "neu"}}},
		{"translated to nothing", []said{{"A", "a", "alt"}}, []said{{"A", "a", "x"}}, []said{{"A", "a", ""}}, []said{{"A", "a", "x"}},
			[]said{{"A", "a", ""}}},
		{"a new language", nil, []said{{"A", "a", "x"}, {"B", "b", "y"}}, []said{{"A", "b", "neu"}, {"B", "b", "neu"}}, []said{{"A", "a", "x", "b", "y"}, {"B", "b", "y"}},
			[]said{{"B", "b", "neu"}}},
		{"nothing of a new language", nil, []said{{"A", "a", "x"}}, []said{{"A", "a", "neu"}}, []said{{"A", "a", "z"}}, nil},
		{"of another section", []said{{"A", "a", "alt"}}, []said{{"A", "a", "x"}, {"B", "b", "y"}}, []said{{"B", "a", "neu"}}, []said{{"A", "a", "x"}, {"B", "b", "y"}},
			[]said{{"A", "a", "alt"}}},
		{"sections in the order of English", []said{{"B", "b", "alt"}, {"D", "d", "alt"}}, []said{{"A", "a", "x"}, {"B", "b", "x"}, {"C", "c", "x"}, {"D", "d", "x"}, {"E", "e", "x"}},
			[]said{{"E", "e", "neu"}, {"C", "c", "neu"}, {"A", "a", "neu"}}, []said{{"A", "a", "x"}, {"C", "c", "x"}, {"E", "e", "x"}},
			[]said{{"A", "a", "neu"}, {"B", "b", "alt"}, {"C", "c", "neu"}, {"D", "d", "alt"}, {"E", "e", "neu"}}},
		{"more in the first of two sections", []said{{"A", "a", "alt"}, {"B", "b", "alt", "c", "alt"}}, []said{{"A", "a", "x", "d", "x"}, {"B", "b", "x"}}, []said{{"A", "d", "neu"}}, []said{{"A", "d", "x"}},
			[]said{{"A", "a", "alt", "d", "neu"}, {"B", "b", "alt", "c", "alt"}}},
		{"a section without English", []said{{"Z", "z", "alt"}}, []said{{"A", "a", "x"}}, []said{{"Z", "z", "neu"}, {"A", "a", "neu"}}, []said{{"A", "a", "x"}},
			[]said{{"Z", "z", "alt"}, {"A", "a", "neu"}}},
		{"no newer English", []said{{"A", "a", "alt"}}, []said{{"A", "a", "x"}}, []said{{"A", "a", "neu"}}, nil, []said{{"A", "a", "alt"}}},
	} {
		c := NewCompiler(Version{})
		var base *Fragment
		if tc.base != nil {
			base = fragmentOf(t, c, tc.base...)
		}
		got := c.Update(base, fragmentOf(t, c, tc.english...), fragmentOf(t, c, tc.newer...), fragmentOf(t, c, tc.newerEnglish...))
		if diff := cmp.Diff(tc.want, whatSays(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
		// It is a fragment like any other.
		if again := fragmentOf(t, c, tc.want...); again.Digest() != got.Digest() || again.Size() != got.Size() {
			t.Errorf("%s: an update differs from a fragment that says the same: size %d, want %d", tc.name, got.Size(), again.Size())
		}
		if got.component {
			t.Errorf("%s: core became a component", tc.name)
		}
		if diff := cmp.Diff(tc.base, whatSays(base)); diff != "" {
			t.Errorf("%s: base was changed:\n%s", tc.name, diff)
		}
	}
}

// An update of a component is one of a component, and in the language of what is newer.
func TestUpdateOfComponent(t *testing.T) {
	c := NewCompiler(Version{})
	english, err := c.Fragment("en", FragmentInput{Component: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Update(nil, english, fragmentOf(t, c), fragmentOf(t, c)); !got.component || got.language != "de" {
		t.Errorf("component: %v, language %q", got.component, got.language)
	}
}

// TestUpdateIsMap compares with maps: of one section, each message is the newer one if it may be taken, else the base's.
func TestUpdateIsMap(t *testing.T) {
	c := NewCompiler(Version{})
	messages := func(t *rapid.T, name string) map[string]string {
		return rapid.MapOf(rapid.SampledFrom([]string{"a", "b", "c", "d", "7"}), rapid.SampledFrom([]string{"", "x", "y", "<ü\x00"})).Draw(t, name)
	}
	rapid.Check(t, func(t *rapid.T) {
		texts := map[string]map[string]string{}
		fragments := map[string]*Fragment{}
		for _, name := range []string{"base", "english", "newer", "newer english"} {
			texts[name] = messages(t, name)
			s := said{"A"}
			for k, v := range texts[name] {
				s = append(s, k, v)
			}
			fragments[name] = fragmentOf(t, c, s)
		}
		got := map[string]string{}
		for _, s := range whatSays(c.Update(fragments["base"], fragments["english"], fragments["newer"], fragments["newer english"])) {
			for i := 1; i < len(s); i += 2 {
				got[s[i]] = s[i+1]
			}
		}
		want := map[string]string{}
		for k, v := range texts["base"] {
			want[k] = v
		}
		for k, v := range texts["newer"] {
			old, ok := texts["english"][k]
			if now, still := texts["newer english"][k]; ok && still && old == now {
				want[k] = v
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func gitIn(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "protocol.file.allow=always"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_NOSYSTEM=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func commitFiles(t *testing.T, dir string, files map[string]string) string {
	t.Helper()
	for name, text := range files {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	gitIn(t, dir, "init", "-q")
	gitIn(t, dir, "add", "-A")
	gitIn(t, dir, "commit", "-qm", "c")
	return gitIn(t, dir, "rev-parse", "HEAD")
}

func TestCommits(t *testing.T) {
	dir := t.TempDir()
	first := commitFiles(t, dir, map[string]string{
		"e/i18n/de.json": `{"a": "eins"}`, "e/i18n/en.json": `{"a": "one"}`, "e/i18n/qqq.json": `{"a": "a number"}`, "e/i18n/api/de.json": `{"b": "zwei"}`,
		"e/i18n/de.txt": "x", "e/i18n/De.json": "x", "e/i18nx/de.json": "x", "e/aliases/de.json": "{}",
	})
	second := commitFiles(t, dir, map[string]string{"other": "x"})
	third := commitFiles(t, dir, map[string]string{"e/i18n/de.json": `{"a": "EINS"}`})
	commits := NewCommits(t.Context(), dir)
	analyse := func(id string) map[string]any {
		t.Helper()
		v, err := commits.Analyse(t.Context(), nil, "", map[string]any{"revision": id, "dirs": []any{
			[]any{"messages E", "e/i18n/api"}, []any{"aliases E", "e/aliases"}, []any{"messages E", "e/i18n"}, []any{"messages X", "e/none"},
		}})
		if err != nil {
			t.Fatal(err)
		}
		return v.(map[string]any)["files"].(map[string]any)
	}
	// A commit is not what counts, and folders keep their order.
	got := analyse(first)
	if diff := cmp.Diff(got, analyse(second)); diff != "" {
		t.Errorf("another commit with the same files (-first +second):\n%s", diff)
	}
	if cmp.Equal(got, analyse(third)) {
		t.Error("another text changed nothing")
	}
	if diff := cmp.Diff([]string{"de", "en"}, sortedKeys(got)); diff != "" {
		t.Errorf("languages (-want +got):\n%s", diff)
	}
	var texts []string
	params := map[string]string{"language": "de"}
	for i, f := range got["de"].([]any) {
		pair := f.([]any)
		s, err := commits.read(pair[1].(string))
		if err != nil {
			t.Fatal(err)
		}
		_, file, _ := strings.Cut(s.Name, ":")
		texts = append(texts, fmt.Sprint(pair[0], " ", file, " ", string(s.Data)))
		params[fmt.Sprint(10000+i, " ", pair[0])] = pair[1].(string)
	}
	want := []string{`messages E e/i18n/api/de.json {"b": "zwei"}`, `messages E e/i18n/de.json {"a": "eins"}`}
	if diff := cmp.Diff(want, texts); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}

	// The natives read the same.
	n := NewNatives(nil)
	n.Commits = commits
	do := &action.Native{Kind: NewerKind, Params: params}
	made, err := n.Functions()[NewerKind](t.Context(), do)
	if err != nil || len(made) != 1 {
		t.Fatalf("made %v, %v", made, err)
	}
	v, err := n.parse(do)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]said{{"E", "b", "zwei", "a", "eins"}}, whatSays(v.(*Fragment))); diff != "" {
		t.Errorf("fragment (-want +got):\n%s", diff)
	}
	// What was not analysed is not known, and what has other bytes is no such file.
	if _, err := NewNatives(nil).parse(&action.Native{Kind: NewerKind, Params: params}); err == nil || !strings.Contains(err.Error(), "e/i18n/api/de.json: no commit is known") {
		t.Errorf("without commits: %v", err)
	}
	ref := strings.Repeat("0", 64) + " e/i18n/de.json"
	commits.files[ref] = commits.open[first].revision
	if _, err := commits.read(ref); err == nil || !strings.Contains(err.Error(), first+":e/i18n/de.json has SHA-256 ") {
		t.Errorf("other bytes: %v", err)
	}
}

func TestCommitErrors(t *testing.T) {
	dir := t.TempDir()
	id := commitFiles(t, dir, map[string]string{"a": "x"})
	gitIn(t, dir, "branch", strings.Repeat("e", 64))
	tree := gitIn(t, dir, "rev-parse", "HEAD^{tree}")
	none := strings.Repeat("1", 40)
	commitFiles(t, dir, map[string]string{"b": "x"})
	shallow := filepath.Join(t.TempDir(), "shallow")
	gitIn(t, dir, "clone", "-q", "--depth=1", "file://"+dir, shallow)
	for _, tc := range []struct{ root, id, want string }{
		{dir, "HEAD", `revision: "HEAD" is no full id of a commit: give 40 hexadecimal digits, as git rev-parse HEAD prints them`},
		{dir, id[:12], "is no full id of a commit"},
		{dir, id + "0", "is no full id of a commit"},
		{dir, none, "revision: " + none + ": git knows no such revision\n    fetch the commit: git fetch origin " + none},
		{dir, tree, "git knows no such revision"},
		{dir, strings.Repeat("e", 64), "git knows no such revision"}, // a branch
		{shallow, id, "git knows no such revision in this shallow clone\n    git fetch --unshallow fetches all that it lacks\n    fetch the commit: git fetch origin " + id},
		{t.TempDir(), id, "is no git checkout"},
	} {
		_, err := NewCommits(t.Context(), tc.root).Analyse(t.Context(), nil, "", map[string]any{"revision": tc.id})
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %s", tc.id, err, tc.want)
		}
	}
}
