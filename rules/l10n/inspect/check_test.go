package inspect

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mwbuild/mwbuild/rules/l10n/message"
)

// lines joins lines of a file.
func lines(ss ...string) string { return strings.Join(ss, "\n") + "\n" }

func TestCheck(t *testing.T) {
	tree := memTree{
		"core/i18n/en.json":  lines(`{`, ` "@metadata": {"authors": []},`, ` "ok": "$1 of {{PLURAL:$2|one|$2}} costs US$",`, ` "new": "New",`, ` "space": " both ",`, ` "Upper": "u",`, ` "empty": ""`, `}`),
		"core/i18n/qqq.json": lines(`{`, ` "ok": "Doc",`, ` "gone": "Doc",`, ` "space": "Doc\n",`, ` "Upper": "",`, ` "empty": "Doc"`, `}`),
		"core/i18n/de.json":  lines(`{`, ` "ok": "{{PLURAL:$3|$1|$12}}",`, ` "new": " ",`, ` "gone": "Weg",`, ` "new": "\t",`, ` "empty": ""`, `}`),
		"core/i18n/fr.json":  lines(`{`, ` "ok": 1,`, `}`),
		"core/i18n/it.json":  lines(`{ "new": "New", "ok": "$2 $1" }`),

		"extensions/Foo/extension.json":  `{"MessagesDirs": {"Foo": ["i18n", "i18n/none"]}}`,
		"extensions/Foo/i18n/fr.json":    `{"foo": ""}`,
		"extensions/Foo/i18n/qqq.json":   `{}`,
		"extensions/Foo/i18n/x/en.json":  `{"@metadata": 1, "\u0061": "", "a": "", "@metadata": 1}`,
		"extensions/Bar/i18n/en.json":    `[`,
		"extensions/Bar/i18n/qqq.json":   `[]`,
		"extensions/Bar/i18n/de.json":    `{"a": "b"}`,
		"extensions/Nice/i18n/en.json":   `{"@metadata": {}, "a": "Nice"}`,
		"extensions/Nice/i18n/qqq.json":  `{"@metadata": {}, "a": "Doc"}`,
		"extensions/Nice/i18n/de.json":   `{"a": "Nett"}`,
		"extensions/Nice/i18n/fr.json":   `{}`,
		"extensions/Nice/extension.json": `{"MessagesDirs": {"Nice": "i18n"}}`,
	}
	l := tree.load([]string{"core", "extensions/Foo", "extensions/Bar", "extensions/Nice"}, nil)
	byCheck := map[string][]string{
		duplicateKey: {
			`core/i18n/de.json:5:2: "new" is here again; what line 3 says of it is lost`,
			`extensions/Foo/i18n/x/en.json:1:32: "a" is here again; what line 1 says of it is lost`,
		},
		emptyTranslation: {`core/i18n/de.json:5:2: "new" has no text`},
		invalidFile: {
			`core/i18n/fr.json:3:1: unexpected '}' after a comma; remove the comma`,
			`extensions/Bar/i18n/en.json:1:2: the file ends here; expected a value`,
		},
		leadingSpace: {`core/i18n/en.json:5:2: "space" begins with white space`},
		missingMetadata: {
			`core/i18n/qqq.json:1:1: there is no @metadata`, `extensions/Bar/i18n/qqq.json:1:1: there is no @metadata`, `extensions/Foo/i18n/qqq.json:1:1: there is no @metadata`,
		},
		missingParameter: {`core/i18n/de.json:2:2: "ok" does not use $2, and English does`},
		missingQqq:       {`extensions/Foo/i18n/x/qqq.json:1:1: there is no such file, so translators are told nothing about the messages`},
		missingSource: {
			`extensions/Foo/i18n/en.json:1:1: there is no such file, so the folder has no messages in English`,
			`extensions/Foo/i18n/none/en.json:1:1: there is no such file, so the folder has no messages in English`,
		},
		sameTranslation:     {`core/i18n/de.json:6:2: "empty" is the same as in English`, `core/i18n/it.json:1:3: "new" is the same as in English`},
		trailingSpace:       {`core/i18n/en.json:5:2: "space" ends in white space`, `core/i18n/qqq.json:4:2: "space" ends in white space`},
		undocumented:        {`core/i18n/en.json:4:2: "new" is not documented`},
		unknownParameter:    {`core/i18n/de.json:2:2: "ok" uses $3, and English does not`, `core/i18n/de.json:2:2: "ok" uses $12, and English does not`},
		unusedDocumentation: {`core/i18n/qqq.json:3:2: "gone" is documented, but there is no such message`},
		unusedTranslation:   {`core/i18n/de.json:4:2: "gone" is translated, but there is no such message in English`},
		upperCaseKey:        {`core/i18n/en.json:6:2: the key "Upper" has upper-case letters`},
	}
	show := func(fs []Finding) []string {
		var out []string
		for _, f := range fs {
			if f.Hint == "" || f.Label != "//"+strings.Join(strings.Split(f.Pos(), "/")[:strings.Count(f.Pos()[:strings.Index(f.Pos(), "/i18n")], "/")+1], "/")+":l10n" {
				t.Errorf("%s: label %s, hint %q", f.Pos(), f.Label, f.Hint)
			}
			out = append(out, f.Pos()+": "+f.Msg)
		}
		return out
	}
	var all, defaults []string
	for _, c := range Checks() {
		on, err := SelectChecks([]string{c.Name})
		if err != nil {
			t.Fatal(err)
		}
		found, err := Check(t.Context(), l, on)
		if err != nil {
			t.Fatal(err)
		}
		want := byCheck[c.Name]
		if len(want) == 0 {
			t.Errorf("%s: nothing is tested", c.Name)
		}
		got := show(found)
		slices.Sort(got)
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.Name, diff)
		}
		all = append(all, got...)
		if c.Default {
			defaults = append(defaults, got...)
		}
	}
	for _, test := range []struct {
		names []string
		want  []string
	}{{[]string{"all"}, all}, {nil, defaults}} {
		on, err := SelectChecks(test.names)
		if err != nil {
			t.Fatal(err)
		}
		found, err := Check(t.Context(), l, on)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.IsSortedFunc(found, func(a, b Finding) int { return a.place.compare(b.place) }) {
			t.Errorf("%v: findings are not sorted", test.names)
		}
		got := show(found)
		slices.Sort(got)
		slices.Sort(test.want)
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%v (-want +got):\n%s", test.names, diff)
		}
	}
}

func TestSelectChecks(t *testing.T) {
	count := func(def bool) (n int) {
		for _, c := range Checks() {
			if c.Default || !def {
				n++
			}
		}
		return n
	}
	for _, test := range []struct {
		names   string
		n       int
		on, off string
	}{
		{"", count(true), undocumented, missingParameter},
		{undocumented, 1, undocumented, missingQqq},
		{"+" + missingParameter, count(true) + 1, missingParameter, unknownParameter},
		{"-" + undocumented + ",+" + missingParameter, count(true), missingParameter, undocumented},
		{"all,-" + undocumented, count(false) - 1, missingParameter, undocumented},
		{"-all,+" + undocumented, 1, undocumented, missingQqq},
	} {
		var names []string
		if test.names != "" {
			names = strings.Split(test.names, ",")
		}
		on, err := SelectChecks(names)
		if err != nil || len(on) != test.n || !on[test.on] || on[test.off] {
			t.Errorf("SelectChecks(%s) = %v, %v", test.names, on, err)
		}
	}
	for name, want := range map[string]string{
		"undocumentd": "there is no check \"undocumentd\"\n    did you mean undocumented?",
		"+x":          "there is no check \"x\"\n    --list names them",
		"":            "there is no check \"\"\n    --list names them",
	} {
		if _, err := SelectChecks([]string{name}); err == nil || err.Error() != want {
			t.Errorf("SelectChecks(%q): %v, want %s", name, err, want)
		}
	}
}

func TestChecksAreSorted(t *testing.T) {
	if !slices.IsSortedFunc(Checks(), func(a, b CheckInfo) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("Checks are not in order of name")
	}
}

func TestParameters(t *testing.T) {
	for text, want := range map[string][]int{
		"":                              nil,
		"$":                             nil,
		"$$1":                           {1},
		"$1 {{PLURAL:$2|$3|x}} $1":      {1, 2, 3},
		"$0 $x US$ $10 $63 $64 $999999": {10, 63},
		"$1$2":                          {1, 2},
	} {
		if got := slices.Collect(numbers(parameters(text))); !slices.Equal(got, want) {
			t.Errorf("parameters(%q) = %v, want %v", text, got, want)
		}
	}
}

func TestClip(t *testing.T) {
	if got := clip("a\n\"b\""); got != `"a\n\"b\""` {
		t.Error(got)
	}
	if got := clip(strings.Repeat("ä", 60)); got != `"`+strings.Repeat("ä", 50)+`…"` {
		t.Error(got)
	}
	if got := clip("x" + strings.Repeat("ä", 60)); got != `"x`+strings.Repeat("ä", 49)+`…"` {
		t.Error(got)
	}
}

// TestMembers compares with the keys that encoding/json reads.
func TestMembers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SampledFrom([]string{"", "a", "b{", `c"`, "d\\", "[,:]", "@e", "é", "\t"})
		var value func(depth int) string
		object := func(depth int, keys []string) string {
			var parts []string
			for _, k := range keys {
				b, _ := json.Marshal(k)
				parts = append(parts, string(b)+rapid.SampledFrom([]string{":", " : "}).Draw(t, "colon")+value(depth))
			}
			return "{ " + strings.Join(parts, ",\n") + "}"
		}
		value = func(depth int) string {
			switch n := rapid.IntRange(0, 4).Draw(t, "kind"); {
			case n == 0 && depth > 0:
				return object(depth-1, rapid.SliceOfN(words, 0, 3).Draw(t, "inner"))
			case n == 1 && depth > 0:
				return "[" + value(depth-1) + ", " + value(depth-1) + "]"
			case n == 2:
				return "null"
			}
			b, _ := json.Marshal(words.Draw(t, "text"))
			return string(b)
		}
		keys := rapid.SliceOfN(words, 0, 5).Draw(t, "keys")
		text := object(2, keys)
		if !json.Valid([]byte(text)) {
			t.Fatalf("%s is no JSON", text)
		}
		var got []string
		for _, m := range members([]byte(text)) {
			got = append(got, m.key())
			if !bytes.HasPrefix([]byte(text)[m.pos:], m.raw) {
				t.Errorf("%q is not at %d", m.raw, m.pos)
			}
		}
		if diff := cmp.Diff(append([]string(nil), keys...), got); diff != "" && len(keys)+len(got) > 0 {
			t.Errorf("members(%s) (-want +got):\n%s", text, diff)
		}
	})
	if got := members([]byte(` [ {"a": 1} ]`)); got != nil {
		t.Errorf("a list has members %v", got)
	}
}

// FuzzMembers wants no panic, and the keys that the reader of messages finds.
func FuzzMembers(f *testing.F) {
	for _, s := range []string{`{"a": "b", "a": [{"c": 1}], "@metadata": {"authors": ["x:y", "}"]}}`, `[]`, `{"\u0061\"": "\\"}`, `{`, `{"":{"":""}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		all := members(data)
		list, err := message.Read("x", data)
		if err != nil || len(all) == 0 {
			return
		}
		want, got := map[string]bool{}, map[string]bool{}
		for _, m := range list {
			want[m.Key] = true
		}
		for _, m := range all {
			if k := m.key(); k != "" && k[0] != '@' {
				got[k] = true
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("members(%q) (-want +got):\n%s", data, diff)
		}
	})
}

func TestStats(t *testing.T) {
	tree := memTree{
		"core/i18n/en.json": `{"@metadata": {}, "a": "A", "b": "B", "c": "C", "d": "D"}`, "core/i18n/de.json": `{"a": "A", "b": null, "gone": "G", "a": "A"}`,
		"core/i18n/qqq.json": `{"a": "doc"}`, "core/more/en.json": `{"e": "E", "a": "hidden"}`, "core/more/de.json": `{"e": "E", "a": "A", "c": ""}`,
		"extensions/Foo/i18n/fr.json": `{"foo": "Fou"}`,
		"extensions/Bar/i18n/en.json": `{"bar": "Bar"}`,
	}
	l := tree.load([]string{"core", "extensions/Foo", "extensions/Bar"}, nil)
	got, err := Stats(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, c := range got {
		lines = append(lines, fmt.Sprintf("%s %s %s %d/%d", c.Label, c.Component, c.Language, c.Translated, c.Total))
	}
	want := []string{
		"//core:l10n core de 4/5", "//core:l10n core en 5/5", "//core:l10n core fr 0/5",
		"//extensions/Foo:l10n extensions/Foo de 0/0", "//extensions/Foo:l10n extensions/Foo en 0/0", "//extensions/Foo:l10n extensions/Foo fr 0/0",
		"//extensions/Bar:l10n extensions/Bar de 0/1", "//extensions/Bar:l10n extensions/Bar en 1/1", "//extensions/Bar:l10n extensions/Bar fr 0/1",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("Stats (-want +got):\n%s", diff)
	}
	tree["core/i18n/de.json"], tree["extensions/Foo/i18n/fr.json"] = "x", "y"
	if _, err := Stats(t.Context(), l); err == nil || !strings.HasPrefix(err.Error(), "core/i18n/de.json:1:1: ") || !strings.Contains(err.Error(), "\nextensions/Foo/i18n/fr.json:1:1: ") {
		t.Errorf("error %v, want one of each file", err)
	}
}
