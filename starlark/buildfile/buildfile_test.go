package buildfile

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "rewrite golden files")

// The name of a fixture is NAME.FILE.in: FILE is what Format takes it for.
func TestFormat(t *testing.T) {
	fixtures, err := filepath.Glob("testdata/format/*.in")
	if err != nil || len(fixtures) == 0 {
		t.Fatal("no fixtures", err)
	}
	for _, in := range fixtures {
		base := strings.TrimSuffix(filepath.Base(in), ".in")
		_, file, _ := strings.Cut(base, ".")
		if !slices.Contains([]string{"BUILD", "BUILD.star", "WORKSPACE"}, file) {
			file = base
		}
		t.Run(base, func(t *testing.T) {
			src, err := os.ReadFile(in)
			if err != nil {
				t.Fatal(err)
			}
			before := bytes.Clone(src)
			got, err := Format("some/folder/"+file, src)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(src, before) {
				t.Error("Format changed what it was given")
			}
			golden := strings.TrimSuffix(in, ".in") + ".golden"
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("Format(%s) (-want +got):\n%s", file, diff)
			}
			again, err := Format("some/folder/"+file, got)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(got), string(again)); diff != "" {
				t.Errorf("Format(Format(%s)) (-once +twice):\n%s", file, diff)
			}
		})
	}
}

func TestSyntaxError(t *testing.T) {
	for _, tc := range []struct {
		src       string
		line, col int
	}{
		{"mw_skin(name = \"ä\" \"\n", 1, 21},
		{"a = [\n    1,\n", 3, 1},
		{"a = )\n", 1, 6},
		{"x\n  y\n", 2, 3},
	} {
		_, err := Format("skins/X/BUILD", []byte(tc.src))
		var serr *SyntaxError
		if !errors.As(err, &serr) {
			t.Errorf("Format(%q): %v, want a SyntaxError", tc.src, err)
			continue
		}
		if serr.File != "skins/X/BUILD" || serr.Line != tc.line || serr.Col != tc.col || serr.Msg == "" {
			t.Errorf("Format(%q): %v, want it at %d:%d", tc.src, serr, tc.line, tc.col)
		}
		if _, err := Parse("skins/X/BUILD", []byte(tc.src)); !errors.As(err, &serr) {
			t.Errorf("Parse(%q): %v, want a SyntaxError", tc.src, err)
		}
	}
}

// Strings that are not ASCII stay readable, however they were quoted, and mean the same to Starlark.
func TestNotASCII(t *testing.T) {
	for in, want := range map[string]string{
		`x = 'Größe'`:        `x = "Größe"`,
		`x = "拡張 機能"`:        `x = "拡張 機能"`,
		`x = '"é"'`:          `x = '"é"'`,
		`x = 'it\'s é\t\\'`:  `x = "it's é\t\\"`,
		`x = r'é\d'`:         `x = r"é\d"`,
		`x = '\u00e9'`:       `x = "é"`,
		`x = "\u00e9"`:       `x = "\u00e9"`,
		`x = "\é \日"`:        `x = "\\é \\日"`,
		"x = '''é\n\\x01'''": "x = \"\"\"é\n\\x01\"\"\"",
		`f(deps = ["//extensions/Größe:Größe"])`: `f(deps = ["//extensions/Größe"])`,
	} {
		got, err := Format("BUILD", []byte(in))
		if err != nil || string(got) != want+"\n" {
			t.Errorf("Format(%s) = %s, %v; want %s", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"x = 1\ny = \"é\xff\"":            "BUILD:2:7: not UTF-8",
		"x = 1\n# \xff":                   "BUILD:2:3: not UTF-8",
		`x = '\xffé'`:                     "BUILD:1:5: the string is not UTF-8",
		`load(":a.bzl", "größe")`:         "BUILD:1:17: the name of what is loaded is not ASCII, which cannot be formatted",
		`load(":a.bzl", größe = "gross")`: "BUILD:1:16: the name of what is loaded is not ASCII, which cannot be formatted",
	} {
		if _, err := Format("BUILD", []byte(in)); err == nil || err.Error() != want {
			t.Errorf("Format(%q): %v, want %s", in, err, want)
		}
	}
}

// FuzzFormat holds what is formatted once, and that the result says the same.
func FuzzFormat(f *testing.F) {
	fixtures, _ := filepath.Glob("testdata/format/*.in")
	for _, in := range fixtures {
		src, err := os.ReadFile(in)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		for _, file := range []string{"BUILD", "WORKSPACE", "a.bzl", "a.star"} {
			once, err := Format(file, src)
			var serr *SyntaxError
			if err != nil && !errors.As(err, &serr) {
				t.Fatal(err)
			}
			if err != nil {
				continue
			}
			twice, err := Format(file, once)
			if err != nil {
				t.Fatalf("%s: what Format wrote cannot be parsed: %v\n%s", file, err, once)
			}
			if !bytes.Equal(once, twice) {
				t.Fatalf("%s: formatted twice it is another:\n%s\nthen:\n%s", file, once, twice)
			}
		}
	})
}

const keepFile = `# keep: not a rule's, it stands alone

# keep
mw_extension(name = "A")

mw_extension(  # keep
    name = "B",
    # keep: because
    deps = ["//x"],
)

mw_extension(
    name = "C",
    srcs = [  # keep
        "a",
    ],
    soft_deps = ["//x"],
    tags = [
        "a",
    ],  # keep
    # keep sorted
    test_deps = [
        "//x",
        "//y",  # keep
        # keep
        "//z",
    ],
    deps = ["//x"],  # keep
)

mw_extension(
    name = "D",
    deps = ["//x"],
)  # keep

mw_extension(
    name = "E",  # keep
    deps = ["//x"],
)

mw_extension(
    name = "F",  # keeps nothing
    deps = ["//x"],
)
`

// Comments keep the same things before and after formatting.
func TestKeep(t *testing.T) {
	formatted, err := Format("BUILD", []byte(keepFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, src := range []string{keepFile, string(formatted)} {
		f, err := Parse("BUILD", []byte(src))
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]bool{}
		for _, r := range f.Rules() {
			got[r.Name()] = r.Keep()
			for _, attr := range []string{"deps", "soft_deps", "test_deps", "srcs", "tags"} {
				if r.Has(attr) {
					got[r.Name()+"."+attr] = r.KeepAttr(attr)
				}
			}
		}
		want := map[string]bool{
			"A": true, "B": true, "B.deps": true,
			"C": false, "C.deps": true, "C.soft_deps": false, "C.test_deps": false, "C.srcs": false, "C.tags": true,
			"D": true, "D.deps": false, "E": true, "E.deps": false, "F": false, "F.deps": false,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("kept in\n%s(-want +got):\n%s", src, diff)
		}
	}
}

func TestEditList(t *testing.T) {
	for name, tc := range map[string]struct {
		in, want string // attributes after the name
		edit     ListEdit
		outcome  Outcome
	}{
		"absent stays absent": {"", "", ListEdit{}, Current},
		"absent":              {"", "    l = [\n        \"//b\",\n        \"//a\",\n    ],\n", ListEdit{Want: []string{"//b", "//a"}}, Current},
		"one":                 {"", "    l = [\"//b\"],\n", ListEdit{Want: []string{"//b"}}, Current},
		"the same label in other words": {
			"    l = [\"//p:p\", \":x\"],\n", "    l = [\"//p:p\", \":x\"],\n", ListEdit{Want: []string{"//p", "//pkg:x"}}, Current,
		},
		"empty stays empty":   {"    l = [],\n", "    l = [],\n", ListEdit{}, Current},
		"empties":             {"    l = [\"//a\"],\n", "", ListEdit{}, Current},
		"a comment holds it":  {"    # Why.\n    l = [\"//a\"],\n", "    # Why.\n    l = [],\n", ListEdit{}, Current},
		"a comment in it too": {"    l = [\n        \"//a\",\n        # Why.\n    ],\n", "    l = [\n        # Why.\n    ],\n", ListEdit{}, Current},
		"order stays": {
			"    l = [\n        # C.\n        \"//c\",\n        \"//a\",  # A.\n    ],\n",
			"    l = [\n        \"//b\",\n        # C.\n        \"//c\",\n        \"//a\",  # A.\n        \"//d\",\n    ],\n",
			ListEdit{Want: []string{"//a", "//b", "//c", "//d"}}, Current,
		},
		"kept elements": {
			"    l = [\n        \"//a\",  # keep\n        \"//b\",\n        # keep: why\n        \"//c\",\n    ],\n",
			"    l = [\n        \"//a\",  # keep\n        # keep: why\n        \"//c\",\n    ],\n",
			ListEdit{}, Current,
		},
		"kept attribute": {"    l = [\"//a\"],  # keep\n", "    l = [\"//a\"],  # keep\n", ListEdit{Want: []string{"//b"}}, Kept},
		"twice": {
			"    l = [\n        \"//a\",\n        \"//a:a\",\n    ],\n", "    l = [\"//a\"],\n", ListEdit{Want: []string{"//a"}}, Current,
		},
		"renamed": {
			"    l = [\n        # Why.\n        \"//a:old\",\n        \"//b\",\n    ],\n", "    l = [\n        # Why.\n        \"//a:new\",\n        \"//b\",\n    ],\n",
			ListEdit{Want: []string{"//b", "//a:new"}}, Current,
		},
		"not ASCII": {"", "    l = [\"//ä b:拡張\"],\n", ListEdit{Want: []string{"//ä b:拡張"}}, Current},
		"not strings": {
			"    l = [\n        X,\n        \"//a\",\n    ],\n", "    l = [\n        X,\n        \"//b\",\n    ],\n", ListEdit{Want: []string{"//b"}}, Current,
		},
		"stale only": {
			"    l = [\n        \"//a\",\n        \"//z\",\n    ],\n", "    l = [\n        \"//b\",\n        \"//z\",\n    ],\n",
			ListEdit{Want: []string{"//b"}, Stale: func(s string) bool { return s == "//a" }}, Current,
		},
		"opaque, lacking":      {"    l = [\"//a\"] + X,\n", "    l = [\"//a\"] + X,\n", ListEdit{Want: []string{"//b"}}, Opaque},
		"opaque, with all":     {"    l = [\"//a\"] + X,\n", "    l = [\"//a\"] + X,\n", ListEdit{Want: []string{"//a"}}, Current},
		"opaque, not emptied":  {"    l = X,\n", "    l = X,\n", ListEdit{}, Current},
		"one line becomes two": {"    l = [\"//a\"],\n", "    l = [\n        \"//a\",\n        \"//b\",\n    ],\n", ListEdit{Want: []string{"//a", "//b"}}, Current},
	} {
		t.Run(name, func(t *testing.T) {
			src := "# Head.\n\nr(\n    name = \"n\",\n" + tc.in + "    z = 1,\n)\n"
			f, err := Parse("pkg/BUILD", []byte(src))
			if err != nil {
				t.Fatal(err)
			}
			if got := f.Rules()[0].EditList("l", tc.edit); got != tc.outcome {
				t.Errorf("outcome %v, want %v", got, tc.outcome)
			}
			if f.Changed() != (tc.in != tc.want) {
				t.Errorf("Changed() = %v", f.Changed())
			}
			if !f.Changed() {
				return
			}
			got, err := f.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			want := "# Head.\n\nr(\n    name = \"n\",\n" + tc.want + "    z = 1,\n)\n"
			if diff := cmp.Diff(want, string(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// After an edit, a list holds what is wanted and what is kept, each once, what was there in the order that it had; a second edit
// changes nothing.
func TestEditListProperties(t *testing.T) {
	label := rapid.SampledFrom([]string{"//a", "//b", "//c:x", "//d", "//e"})
	rapid.Check(t, func(t *rapid.T) {
		old := rapid.SliceOfNDistinct(label, 0, 5, rapid.ID).Draw(t, "old")
		want := rapid.SliceOfNDistinct(label, 0, 5, rapid.ID).Draw(t, "want")
		var src strings.Builder
		src.WriteString("r(\n    name = \"n\",\n    l = [\n")
		var kept []string
		for _, s := range old {
			src.WriteString("        \"" + s + "\",")
			if rapid.Bool().Draw(t, "keep") {
				src.WriteString("  # keep")
				kept = append(kept, s)
			}
			src.WriteString("\n")
		}
		src.WriteString("    ],\n)\n")
		f, err := Parse("BUILD", []byte(src.String()))
		if err != nil {
			t.Fatal(err)
		}
		f.Rules()[0].EditList("l", ListEdit{Want: want})
		out, err := f.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		f, err = Parse("BUILD", out)
		if err != nil {
			t.Fatal(err)
		}
		got := f.Rules()[0].Strings("l")
		all := slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(want), kept...))))
		if diff := cmp.Diff(all, slices.Sorted(slices.Values(got))); diff != "" && len(all)+len(got) > 0 {
			t.Fatalf("holds (-want +got):\n%s", diff)
		}
		were := slices.DeleteFunc(slices.Clone(got), func(s string) bool { return !slices.Contains(old, s) })
		stay := slices.DeleteFunc(slices.Clone(old), func(s string) bool { return !slices.Contains(got, s) })
		if !slices.Equal(were, stay) {
			t.Fatalf("order %v became %v", stay, were)
		}
		f.Rules()[0].EditList("l", ListEdit{Want: want})
		if f.Changed() {
			t.Fatal("a second edit changed it again")
		}
	})
}

func TestStatements(t *testing.T) {
	f, err := Parse("p/BUILD", []byte("a(name = \"x\")\n\n# About b.\nb(name = \"y\")\n\n[c(name = n) for n in [\"z\"]]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if f.Hidden("a") || f.Hidden("b") || !f.Hidden("c") {
		t.Errorf("Hidden: a %v, b %v, c %v; want c only", f.Hidden("a"), f.Hidden("b"), f.Hidden("c"))
	}
	if got := f.Rules()[1].Pos(); got != "p/BUILD:4:1" {
		t.Errorf("Pos() = %s", got)
	}
	f.Remove(f.Rules()[1])
	if err := f.Append("package(x = 1)\n\n# About d.\nd(name = 'z')\n"); err != nil {
		t.Fatal(err)
	}
	f.Rules()[0].SetKind("aa")
	got, err := f.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	want := "aa(name = \"x\")\n\n[c(name = n) for n in [\"z\"]]\n\npackage(x = 1)\n\n# About d.\nd(name = \"z\")\n"
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestBare(t *testing.T) {
	for src, want := range map[string]struct{ bare, noRules bool }{
		"":                          {true, true},
		"package()\n":               {true, false},
		"# People's.\npackage()\n":  {false, false},
		"package(  # why\n)\n":      {false, false},
		"# People's.\n":             {false, true},
		"load(\":a.bzl\", \"a\")\n": {false, true},
		"x = 1\n":                   {false, false},
		"a(name = \"a\")\n":         {false, false},
	} {
		f, err := Parse("BUILD", []byte(src))
		if err != nil {
			t.Fatal(err)
		}
		if f.Bare() != want.bare || f.NoRules() != want.noRules {
			t.Errorf("%q: Bare() %v, NoRules() %v; want %v", src, f.Bare(), f.NoRules(), want)
		}
	}
}
