package inspect

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mwbuild/mwbuild/graph/action"
)

var testChains = map[string][]string{
	"en": {"en"}, "de": {"de", "en"}, "bar": {"bar", "de", "en"}, "fr": {"fr", "en"},
}

func TestDiff(t *testing.T) {
	components := []string{"core", "extensions/Foo"}
	base := memTree{
		"core/i18n/en.json":            `{"a": "A", "b": "B"}`,
		"core/i18n/de.json":            `{"a": "Ä"}`,
		"core/i18n/bar.json":           `{}`,
		"core/alias.php":               "de x=1\nen x=2\n",
		"extensions/Foo/i18n/en.json":  "{\n\t\"foo\": \"Foo\",\n\t\"a\": \"lost\"\n}",
		"extensions/Foo/i18n/qqq.json": `{"foo": "Doc"}`,
		"extensions/Foo/i18n/fr.json":  `{"foo": "Fou"}`,
	}
	p := func(s string) *string { return &s }
	foo := func(c MessageChange) MessageChange {
		c.Label, c.Component = "//extensions/Foo:l10n", "extensions/Foo"
		return c
	}
	tests := map[string]struct {
		change   func(memTree)
		messages []MessageChange
		outputs  []OutputChange
	}{
		"nothing": {change: func(memTree) {}},
		"layout and documentation": {change: func(t memTree) {
			t["core/i18n/de.json"] = `{ "@metadata": {}, "a": "Ä" }`
			t["extensions/Foo/i18n/qqq.json"] = `{"foo": "Doc", "more": "Doc"}`
		}},
		"English text that French has": {
			change: func(t memTree) { t["extensions/Foo/i18n/en.json"] = "{\n\t\"foo\": \"Bar\",\n\t\"a\": \"lost\"\n}" },
			messages: []MessageChange{
				foo(MessageChange{Language: "en", Key: "foo", Change: Changed, Old: p("Foo"), New: p("Bar"), Pos: "extensions/Foo/i18n/en.json:2:2"}),
			},
			outputs: []OutputChange{
				{"//:l10n", "bar", Changed, 1, false, false}, {"//:l10n", "de", Changed, 1, false, false}, {"//:l10n", "en", Changed, 1, false, false},
			},
		},
		"text that another component hides": {
			change: func(t memTree) { t["extensions/Foo/i18n/en.json"] = "{\n\t\"foo\": \"Foo\",\n\t\"a\": \"changed\"\n}" },
			messages: []MessageChange{
				foo(MessageChange{Language: "en", Key: "a", Change: Changed, Old: p("lost"), New: p("changed"), Pos: "extensions/Foo/i18n/en.json:3:2"}),
			},
		},
		"translation that is the English text": {
			change: func(t memTree) { t["extensions/Foo/i18n/bar.json"] = `{"foo": "Foo"}` },
			messages: []MessageChange{
				foo(MessageChange{Language: "bar", Key: "foo", Change: Added, New: p("Foo"), Pos: "extensions/Foo/i18n/bar.json:1:2"}),
			},
			outputs: []OutputChange{{"//:l10n", "bar", Changed, 1, false, false}},
		},
		"removed file": {
			change: func(t memTree) { delete(t, "extensions/Foo/i18n/fr.json") },
			messages: []MessageChange{
				foo(MessageChange{Language: "fr", Key: "foo", Change: Removed, Old: p("Fou"), Pos: "extensions/Foo/i18n/fr.json:1:2"}),
			},
			outputs: []OutputChange{{"//:l10n", "fr", Changed, 1, false, false}},
		},
		"order": {
			change: func(t memTree) { t["core/i18n/en.json"] = `{"b": "B", "a": "A"}` },
			outputs: []OutputChange{
				{"//:l10n", "en", Changed, 0, true, false}, {"//:l10n", "fr", Changed, 0, true, false},
			},
		},
		"alias that German hides": {
			change:  func(t memTree) { t["core/alias.php"] = "de x=1\nen x=3\n" },
			outputs: []OutputChange{{"//:l10n", "en", Changed, 0, false, true}, {"//:l10n", "fr", Changed, 0, false, true}},
		},
		"message in PHP that hides another": {
			change: func(t memTree) {
				t["core/alias.php"] = "de x=1\nen x=2\nde $messages.b=Be\n"
			},
			outputs: []OutputChange{{"//:l10n", "bar", Changed, 0, false, true}, {"//:l10n", "de", Changed, 0, false, true}},
		},
		"both": {
			change: func(t memTree) {
				t["core/alias.php"] = "de x=1\nen x=2\nfr x=3\n"
				t["extensions/Foo/i18n/fr.json"] = `{"foo": "Oui"}`
			},
			messages: []MessageChange{
				foo(MessageChange{Language: "fr", Key: "foo", Change: Changed, Old: p("Fou"), New: p("Oui"), Pos: "extensions/Foo/i18n/fr.json:1:2"}),
			},
			outputs: []OutputChange{{"//:l10n", "fr", Changed, 1, false, true}},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			now := maps.Clone(base)
			test.change(now)
			got, err := Diff(t.Context(), base.side("HEAD", components, testChains), now.side("", components, testChains))
			if err != nil {
				t.Fatal(err)
			}
			want := &Difference{test.messages, test.outputs, map[string]int{"//:l10n": len(testChains)}}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("Diff (-want +got):\n%s", diff)
			}
		})
	}

	t.Run("languages and components", func(t *testing.T) {
		chains := maps.Clone(testChains)
		delete(chains, "fr")
		chains["it"] = []string{"it", "fr", "en"}
		chains["bar"] = []string{"bar", "en"}
		got, err := Diff(t.Context(), base.side("HEAD", components, testChains), base.side("", components[:1], chains))
		if err != nil {
			t.Fatal(err)
		}
		var messages []string
		for _, m := range got.Messages {
			messages = append(messages, m.Language+" "+m.Key+" "+m.Change)
		}
		if diff := cmp.Diff([]string{"en a removed", "en foo removed", "fr foo removed"}, messages); diff != "" {
			t.Errorf("messages (-want +got):\n%s", diff)
		}
		want := []OutputChange{
			{"//:l10n", "bar", Changed, 2, false, true}, {"//:l10n", "de", Changed, 1, false, false}, {"//:l10n", "en", Changed, 1, false, false},
			{"//:l10n", "fr", Removed, 0, false, false}, {"//:l10n", "it", Added, 0, false, false},
		}
		if diff := cmp.Diff(want, got.Outputs); diff != "" || got.Compared["//:l10n"] != 5 {
			t.Errorf("outputs, of %v (-want +got):\n%s", got.Compared, diff)
		}
	})

	t.Run("the same text of another language", func(t *testing.T) {
		tree := maps.Clone(base)
		tree["core/i18n/fr.json"] = tree["core/i18n/de.json"]
		tree["core/alias.php"] = "fr x=1\n"
		delete(tree, "extensions/Foo/i18n/fr.json")
		chains := maps.Clone(testChains)
		chains["bar"] = []string{"bar", "fr", "en"}
		got, err := Diff(t.Context(), tree.side("HEAD", components, testChains), tree.side("", components, chains))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]OutputChange{{"//:l10n", "bar", Changed, 1, false, true}}, got.Outputs); diff != "" {
			t.Errorf("outputs (-want +got):\n%s", diff)
		}
	})

	t.Run("aliases of another language", func(t *testing.T) {
		tree := memTree{"core/i18n/en.json": "{}", "core/alias.php": "de x=1\nfr x=2\n"}
		chains := maps.Clone(testChains)
		chains["bar"] = []string{"bar", "fr", "en"}
		got, err := Diff(t.Context(), tree.side("HEAD", components[:1], testChains), tree.side("", components[:1], chains))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]OutputChange{{"//:l10n", "bar", Changed, 0, false, true}}, got.Outputs); diff != "" {
			t.Errorf("outputs (-want +got):\n%s", diff)
		}
	})

	t.Run("another version", func(t *testing.T) {
		from, to := base.side("HEAD", components, testChains), base.side("", components, testChains)
		to.outputs[0].do.Params["version"] = "2"
		got, err := Diff(t.Context(), from, to)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]OutputChange{{"//:l10n", "bar", Changed, 0, false, true}}, got.Outputs); diff != "" {
			t.Errorf("outputs (-want +got):\n%s", diff)
		}
	})

	t.Run("keys of folders that components share", func(t *testing.T) {
		// Foo's i18n stands before core's more, which so does not give c its text.
		from := memTree{"shared": "yes", "core/i18n/en.json": "{}", "core/more/en.json": `{"c": "1"}`, "extensions/Foo/i18n/en.json": `{"c": "Foo"}`}
		to := maps.Clone(from)
		to["core/more/en.json"] = `{"c": "2"}`
		got, err := Diff(t.Context(), from.side("HEAD", components, testChains), to.side("", components, testChains))
		if err != nil || len(got.Messages) != 1 || len(got.Outputs) != 0 {
			t.Errorf("%+v, %v, want one message and no compiled language", got, err)
		}
	})

	t.Run("errors", func(t *testing.T) {
		now := maps.Clone(base)
		now["core/i18n/de.json"] = `{"a": }`
		for _, side := range []string{"", "HEAD"} {
			from, to := base.side("HEAD", components, testChains), now.side("", components, testChains)
			want := "core/i18n/de.json:1:7: "
			if side == "HEAD" {
				from, to = now.side("HEAD", components, testChains), base.side("", components, testChains)
				want = "at HEAD: " + want
			}
			if _, err := Diff(t.Context(), from, to); err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("error %v, want one that begins with %q", err, want)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := Diff(ctx, base.side("", components, testChains), now.side("", components, testChains)); err != context.Canceled {
			t.Errorf("error %v, want that it was cancelled", err)
		}
	})
}

// countTree counts how often files are read.
type countTree struct {
	memTree
	mu    *sync.Mutex
	reads map[string]int
}

func (t countTree) ReadFile(p string) ([]byte, error) {
	t.mu.Lock()
	t.reads[p]++
	t.mu.Unlock()
	return t.memTree.ReadFile(p)
}

func TestDiffReadsWhatChanged(t *testing.T) {
	components := []string{"core"}
	base := memTree{"core/i18n/en.json": `{"a": "A"}`, "core/i18n/de.json": `{"a": "Ä"}`, "core/i18n/fr.json": `{"a": "À"}`, "core/alias.php": "de x=1"}
	now := maps.Clone(base)
	now["core/i18n/fr.json"] = `{"a": "Â"}`
	from, to := base.side("", components, testChains), now.side("", components, testChains)
	var mu sync.Mutex
	counts := map[string]int{}
	from.Localisation.tree, to.Localisation.tree = countTree{base, &mu, counts}, countTree{now, &mu, counts}
	got, err := Diff(t.Context(), from, to)
	if err != nil || len(got.Outputs) != 1 {
		t.Fatal(got, err)
	}
	// Both versions for the messages, and for the compiled language; English once, as it is the same.
	want := map[string]int{"core/i18n/fr.json": 4, "core/i18n/en.json": 1}
	delete(counts, "core/alias.php") // looked at for $messages
	if diff := cmp.Diff(want, counts); diff != "" {
		t.Errorf("reads (-want +got):\n%s", diff)
	}
}

// TestDiffAgainstOracle compares with what compiling everything on both sides tells.
func TestDiffAgainstOracle(t *testing.T) {
	codes := []string{"en", "de", "bar", "fr"}
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.SampledFrom([]string{"a", "b", "c", "1"})
		texts := rapid.SampledFrom([]string{"", "x", "y"})
		all := []string{"core", "extensions/A", "extensions/B"}
		file := rapid.Custom(func(t *rapid.T) string {
			var b strings.Builder
			b.WriteString("{")
			for i, k := range rapid.SliceOfN(keys, 0, 4).Draw(t, "keys") {
				if i > 0 {
					b.WriteString(",")
				}
				v, _ := json.Marshal(texts.Draw(t, "text"))
				fmt.Fprintf(&b, "%q:%s", k, v)
			}
			return b.String() + "}"
		})
		edit := func(tree memTree, n int) {
			for range n {
				p := rapid.SampledFrom(all).Draw(t, "component") + rapid.SampledFrom([]string{"/i18n/", "/i18n/", "/more/"}).Draw(t, "folder") +
					rapid.SampledFrom(codes).Draw(t, "code") + ".json"
				switch rapid.IntRange(0, 5).Draw(t, "what") {
				case 0:
					delete(tree, p)
				case 1:
					php := rapid.SampledFrom(all).Draw(t, "php") + "/alias.php"
					name := rapid.SampledFrom([]string{"x", "x", "y", "$messages.a"}).Draw(t, "name")
					line := rapid.SampledFrom(codes).Draw(t, "of") + " " + name + "=" + texts.Draw(t, "value") + "\n"
					if rapid.Bool().Draw(t, "append") {
						line = tree[php] + line
					}
					tree[php] = line
				default:
					tree[p] = file.Draw(t, "file")
				}
			}
		}
		from := memTree{}
		if rapid.IntRange(0, 3).Draw(t, "shared") == 0 {
			from["shared"] = "yes"
		}
		edit(from, rapid.IntRange(0, 12).Draw(t, "before"))
		to := maps.Clone(from)
		edit(to, rapid.IntRange(0, 3).Draw(t, "edits"))
		sideOf := func(tree memTree, name string) Side {
			order := slices.Clone(all)
			if rapid.IntRange(0, 4).Draw(t, name+" swapped") == 0 {
				order[1], order[2] = order[2], order[1]
			}
			chains := maps.Clone(testChains)
			if rapid.IntRange(0, 4).Draw(t, name+" chain") == 0 {
				chains["bar"] = []string{"bar", "en"}
			}
			return tree.side(name, order, chains)
		}
		a, b := sideOf(from, "from"), sideOf(to, "to")
		got, err := Diff(context.Background(), a, b)
		if err != nil {
			t.Fatal(err)
		}
		changed := map[string]OutputChange{}
		for _, o := range got.Outputs {
			changed[o.Language] = o
		}
		for i, o := range a.outputs {
			was, err := from.compile(o.do)
			if err != nil {
				t.Fatal(err)
			}
			is, err := to.compile(b.outputs[i].do)
			if err != nil {
				t.Fatal(err)
			}
			if o, found := changed[o.language]; found == bytes.Equal(was, is) {
				t.Errorf("%s: %+v, but compiled it is\n%s\nand\n%s", a.outputs[i].language, o, was, is)
			}
		}
		// Messages: each side's own, by component and language.
		own := func(tree memTree, side Side) map[string]string {
			texts := map[string]string{}
			for _, c := range side.Components {
				for _, f := range c.fragments {
					compiled, err := tree.compile(&action.Native{Inputs: []action.Input{{Role: "fragment x x", From: &action.Node{Do: f.do}}}})
					if err != nil {
						t.Fatal(err)
					}
					for line := range strings.Lines(string(compiled)) {
						if key, value, ok := strings.Cut(line, "=x:"); ok {
							texts[c.Label+" "+f.language+" "+strings.TrimPrefix(key, "message ")] = strings.TrimSpace(value)
						}
					}
				}
			}
			return texts
		}
		old, now := own(from, a), own(to, b)
		want := maps.Clone(old)
		maps.Copy(want, now)
		maps.DeleteFunc(want, func(k, _ string) bool {
			was, had := old[k]
			is, has := now[k]
			return had == has && was == is
		})
		found := map[string]bool{}
		for _, m := range got.Messages {
			found[m.Label+" "+m.Language+" "+m.Key] = true
		}
		if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(found))); diff != "" {
			t.Errorf("messages (-want +got):\n%s", diff)
		}
	})
}
