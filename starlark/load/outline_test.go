package load

import (
	"context"
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mwbuild/mwbuild/graph/label"
)

var outlineTree = memTree{
	"a/BUILD": `
load("//tools:defs.bzl", "mine")
thing(name = "x", srcs = glob(["*.txt"]) + ["//b:y"], table = {w: w for w in read_json("words.json")})
mine(name = "m", srcs = [":x"])
`,
	"a/one.txt": "1", "a/words.json": `["w"]`, "a/other.md": "",
	"b/BUILD":        `thing(name = "y", visibility = ["//visibility:public"], tags = ["manual"])`,
	"tools/BUILD":    "",
	"tools/defs.bzl": "load(\":more.bzl\", \"attrs\")\n\ndef _impl(ctx):\n    return []\n\nmine = rule(implementation = _impl, attrs = attrs)\n",
	"tools/more.bzl": `attrs = {"srcs": attr.label_list(), "how": attr.string()}`,
}

func outlines(t *testing.T, tree memTree, names ...string) []*Outline {
	t.Helper()
	l := newLoader(t, tree)
	out, errs := l.Outlines(context.Background(), names)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return out
}

func TestOutlines(t *testing.T) {
	got := outlines(t, maps.Clone(outlineTree), "a", "b")
	a := got[0]
	if diff := cmp.Diff([]string{"//tools:defs.bzl", "//tools:more.bzl"}, a.Modules); diff != "" {
		t.Errorf("modules (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"a/words.json"}, a.Reads); diff != "" {
		t.Errorf("reads (-want +got):\n%s", diff)
	}
	type target struct {
		Name, Kind string
		Srcs       []string
		Deps       []OutlineDep
		Tags       []string
	}
	var targets []target
	for _, o := range got {
		for _, t := range o.Targets {
			targets = append(targets, target{t.Name, t.Kind, t.Srcs, t.Deps, t.Tags})
		}
	}
	dep := func(pkg, name string) []OutlineDep {
		return []OutlineDep{{"srcs", label.Label{Pkg: pkg, Name: name}}}
	}
	if diff := cmp.Diff([]target{
		{"m", "mine", nil, dep("a", "x"), nil},
		{"x", "thing", []string{"one.txt"}, dep("b", "y"), nil},
		{"y", "thing", nil, nil, []string{"manual"}},
	}, targets); diff != "" {
		t.Errorf("targets (-want +got):\n%s", diff)
	}
}

// What an outline depends on is in its inputs, and a target's sum tells which of them it is that changed.
func TestOutlineInputs(t *testing.T) {
	was := outlines(t, maps.Clone(outlineTree), "a")[0]
	const defs = "tools/defs.bzl"
	for name, tc := range map[string]struct {
		change  func(tree memTree)
		inputs  bool   // whether they differ
		targets string // which targets' sums differ
	}{
		"nothing":                   {func(memTree) {}, false, ""},
		"a source's text":           {func(t memTree) { t["a/one.txt"] = "2" }, false, ""},
		"another package":           {func(t memTree) { t["b/BUILD"] += "\n" }, false, ""},
		"a comment":                 {func(t memTree) { t["a/BUILD"] += "# more\n" }, true, ""},
		"a comment in a macro":      {func(t memTree) { t[defs] += "# more\n" }, true, "m"}, // the text of its rule
		"in what that loads":        {func(t memTree) { t["tools/more.bzl"] += "# more\n" }, true, "m"},
		"a new file that matches":   {func(t memTree) { t["a/two.txt"] = "" }, true, "x"},
		"a new file that does not":  {func(t memTree) { t["a/two.md"] = "" }, true, ""},
		"a file less":               {func(t memTree) { delete(t, "a/one.txt") }, true, "x"},
		"a symlink":                 {func(t memTree) { t["a/other.md"] = "-> one.txt" }, true, ""},
		"what read_json read":       {func(t memTree) { t["a/words.json"] = `["v"]` }, true, "x"},
		"and to the same effect":    {func(t memTree) { t["a/words.json"] = `[ "w" ]` }, true, ""},
		"an attribute":              {func(t memTree) { t["a/BUILD"] += `thing(name = "z")` }, true, "z"},
		"a package that takes some": {func(t memTree) { t["a/sub/BUILD"] = "" }, false, ""},
		"what WORKSPACE says":       {func(t memTree) { t["WORKSPACE"] = `image_defaults(root = "/w")` }, true, ""},
		"a comment in WORKSPACE":    {func(t memTree) { t["WORKSPACE"] = "# here\n" }, false, ""},
	} {
		tree := maps.Clone(outlineTree)
		tc.change(tree)
		is := outlines(t, tree, "a")[0]
		if (is.Inputs != was.Inputs) != tc.inputs {
			t.Errorf("%s: inputs differ: %v", name, is.Inputs != was.Inputs)
		}
		sums := map[string][16]byte{}
		for _, t := range was.Targets {
			sums[t.Name] = t.Sum
		}
		changed := ""
		for _, t := range is.Targets {
			if sums[t.Name] != t.Sum {
				changed += t.Name
			}
		}
		if changed != tc.targets {
			t.Errorf("%s: targets that differ: %q, want %q", name, changed, tc.targets)
		}
	}
}
