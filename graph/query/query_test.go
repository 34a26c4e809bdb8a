package query

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mwbuild/mwbuild/graph/label"
)

// wiki is the workspace that the expressions below are about:
//
//	//wiki:image → //ext/a:img → //ext/a:a → //core:core → //core:files
//	             → //ext/b:img → //ext/b:b → //core:core, //lib:util → //lib:deep
//	             → //base:base (no one wrote it)
const wiki = `
file ext/a/ext.json ext/a/a.php ext/a/sub/x.txt ext/b/b.php core/index.php lib/util.php tools/defs.bzl tools/sub/more.bzl lib/own.bzl docs/readme.md ext/a/we:ird
load ext/a tools/defs.bzl tools/sub/more.bzl
load lib lib/own.bzl
package tools
package empty
//wiki:image mw_image components=//ext/a:img,//ext/b:img core=//core _base=//base:base tags=prod,wiki
//wiki:dev mw_image components=//ext/a:img core=//core tags=manual
//ext/a:img component_image component=:a
//ext/a:a component srcs=a.php,sub/x.txt manifests=ext.json core=//core
//ext/a:a_test php_test lib=:a srcs=a.php tags=fast,php size=small
//ext/a:slow_test php_test lib=:a tags=slow,php
//ext/a:manual_test php_test lib=:a tags=manual
//ext/b:img component_image component=:b
//ext/b:b component srcs=b.php deps=//core,//lib:util
//ext/b:b_test php_test lib=:b tags=php
//ext/b:suite test_suite tests=:b_test,//ext/a:all_tests
//ext/a:all_tests test_suite tests= tags=
//ext/a:fast test_suite tests=:a_test,:slow_test tags=fast
//ext/a:notslow test_suite tests= tags=-slow,manual
//core:core component srcs=index.php files=:files
//core:files filegroup +core
//lib:util filegroup srcs=util.php deps=:deep +ext/b
//lib:deep filegroup tags=
//base:base image_import
`

func run(t *testing.T, src Source, query string, opts Options) (*Result, error) {
	t.Helper()
	x, err := Parse(query)
	if err != nil {
		return nil, err
	}
	return Eval(t.Context(), query, x, src, opts)
}

func names(nodes []Node) string {
	var out []string
	for _, n := range nodes {
		out = append(out, n.Label.String())
	}
	return strings.Join(out, " ")
}

// expressions and what they give, by the semantics that Bazel documents; "!" is an error. Options are "files", "explicit", "in FOLDER" and
// "universe PATTERN…".
var expressions = []struct{ query, options, want string }{
	// Target patterns.
	{"//wiki:image", "", "//wiki:image"},
	{"//core", "", "//core:core"},
	{"//wiki:all", "", "//wiki:dev //wiki:image"}, // manual targets are no exception
	{"//wiki:*", "", "//wiki:dev //wiki:image"},
	{"//wiki:all-targets", "", "//wiki:dev //wiki:image"},
	{"//ext/a:* - //ext/a:all", "files", "//ext/a:a.php //ext/a:ext.json //ext/a:sub/x.txt"},
	{"//lib/...", "", "//lib:deep //lib:util"},
	{"//lib/...:all", "", "//lib:deep //lib:util"},
	{"//lib/...:*", "files", "//lib:deep //lib:util //lib:util.php"},
	{"kind(component, ext/...)", "", "//ext/a:a //ext/a:img //ext/b:b //ext/b:img"},
	{"//empty:all", "", ""},
	{"wiki:image", "", "//wiki:image"},
	{"wiki:all", "", "//wiki:dev //wiki:image"},
	{"base", "", "//base:base"},
	{"ext/a/img", "", "//ext/a:img"},
	{":img", "in ext/a", "//ext/a:img"},
	{"img", "in ext/a", "//ext/a:img"},
	{"a", "in ext", "//ext/a:a"},
	{"a/...", "in ext", "//ext/a:a //ext/a:a_test //ext/a:all_tests //ext/a:fast //ext/a:img //ext/a:manual_test //ext/a:notslow //ext/a:slow_test"},
	{"kind(component_image, ...)", "in ext", "//ext/a:img //ext/b:img"},
	{"//ext/a:ext.json", "", "//ext/a:ext.json"},
	{"ext/a/sub/x.txt", "", "//ext/a:sub/x.txt"},
	{"sub/x.txt", "in ext/a", "//ext/a:sub/x.txt"},
	{"'//ext/a:we:ird'", "", "//ext/a:we:ird"},
	{"//ext/a:BUILD", "", "//ext/a:BUILD"},
	{"docs/readme.md", "", "//:docs/readme.md"},

	// Sets.
	{"set()", "", ""},
	{"set(//core //base //core)", "", "//base:base //core:core"},
	{"//core + //base", "", "//base:base //core:core"},
	{"//core union //base", "", "//base:base //core:core"},
	{"//wiki:all - //wiki:dev", "", "//wiki:image"},
	{"//wiki:all except //wiki:dev", "", "//wiki:image"},
	{"//wiki:all ^ //wiki:dev", "", "//wiki:dev"},
	{"//wiki:all intersect //wiki:dev", "", "//wiki:dev"},
	{"//core ^ //base + //lib:deep", "", "//lib:deep"},                   // (core ^ base) + deep
	{"//core ^ (//base + //core)", "", "//core:core"},                    //
	{"//core + //base - //core + //core", "", "//base:base //core:core"}, // from left to right
	{"//core - //base ^ //base", "", ""},
	{"let v = //wiki:all in $v - //wiki:dev", "", "//wiki:image"},
	{"let v = //core in let v = //base + $v in $v", "", "//base:base //core:core"},
	{"(let v = //core in $v) + //base", "", "//base:base //core:core"},
	{"let a = //core in let b = //base in $a + $b - $a", "", "//base:base"},
	{`"//core" + '//base'`, "", "//base:base //core:core"},

	// deps.
	{"deps(//ext/a:img)", "", "//core:core //core:files //ext/a:a //ext/a:img"},
	{"deps(//ext/a:img, 0)", "", "//ext/a:img"},
	{"deps(//ext/a:img, 1)", "", "//ext/a:a //ext/a:img"},
	{"deps(//ext/a:img, 2)", "", "//core:core //ext/a:a //ext/a:img"},
	{"deps(//ext/a:img + //lib:util, 1)", "", "//ext/a:a //ext/a:img //lib:deep //lib:util"},
	{"deps(//ext/a:a)", "files", "//core:core //core:files //core:index.php //ext/a:a //ext/a:a.php //ext/a:ext.json //ext/a:sub/x.txt"},
	{"deps(//ext/a:a, 1)", "files", "//core:core //ext/a:a //ext/a:a.php //ext/a:ext.json //ext/a:sub/x.txt"},
	{"kind('source file', deps(//ext/a:img))", "files", "//core:index.php //ext/a:a.php //ext/a:ext.json //ext/a:sub/x.txt"},
	{"deps(//ext/a:img) ^ //ext/a:ext.json", "", "//ext/a:ext.json"}, // named, so it takes part
	{"deps(//ext/b:img) ^ //ext/a:ext.json", "", ""},
	{"deps(//base + //wiki:image, 1) - //ext/...", "", "//base:base //core:core //wiki:image"},
	{"deps(//wiki:image, 1) - //ext/...", "explicit", "//core:core //wiki:image"},
	{"deps(set())", "", ""},

	// rdeps and allrdeps.
	{"rdeps(//wiki:image, //core:files)", "", "//core:core //core:files //ext/a:a //ext/a:img //ext/b:b //ext/b:img //wiki:image"},
	{"rdeps(//wiki:image, //core:files, 1)", "", "//core:core //core:files"},
	{"rdeps(//wiki:image, //core:files, 0)", "", "//core:files"},
	{"rdeps(//ext/a:img, //lib:deep)", "", ""}, // not in the closure
	{"rdeps(//lib/... + //ext/b:img, //lib:deep)", "", "//ext/b:b //ext/b:img //lib:deep //lib:util"},
	{"rdeps(//..., //ext/a:ext.json)", "", "//ext/a:a //ext/a:a_test //ext/a:ext.json //ext/a:fast //ext/a:img //ext/a:manual_test //ext/a:slow_test //wiki:dev //wiki:image"},
	{"rdeps(//wiki:..., //core)", "", "!"},
	{"rdeps(//wiki/..., ext/a/ext.json, 1)", "", "//ext/a:a //ext/a:ext.json"},
	{"rdeps(//wiki/..., //ext/a:BUILD)", "", ""}, // nothing depends on a BUILD file
	{"rdeps(//wiki/..., //docs:x)", "", "!"},
	{"rdeps(//wiki:image, //base)", "", "//base:base //wiki:image"},
	{"rdeps(//wiki:image, //base)", "explicit", ""},
	{"allrdeps(//lib:deep)", "", "//ext/b:b //ext/b:b_test //ext/b:img //ext/b:suite //lib:deep //lib:util //wiki:image"},
	{"allrdeps(//lib:deep, 2)", "", "//ext/b:b //lib:deep //lib:util"},
	{"allrdeps(//lib:deep)", "universe //wiki/... -//wiki:image", ""},
	{"allrdeps(//core:files)", "universe //ext/a:img", "//core:core //core:files //ext/a:a //ext/a:img"},

	// Paths.
	{"somepath(//ext/a:img, //core:files)", "", "//core:core //core:files //ext/a:a //ext/a:img"},
	{"somepath(//ext/a:img, //lib:deep)", "", ""},
	{"somepath(//core, //core + //core:files)", "", "//core:core"},     // of length nought
	{"somepath(//wiki:image, //core)", "", "//core:core //wiki:image"}, // a shortest one
	{"somepath(//ext/a:img, //ext/a:ext.json)", "", "//ext/a:a //ext/a:ext.json //ext/a:img"},
	{"allpaths(//wiki:image, //lib:deep)", "", "//ext/b:b //ext/b:img //lib:deep //lib:util //wiki:image"},
	{"allpaths(//wiki:image, //core)", "", "//core:core //ext/a:a //ext/a:img //ext/b:b //ext/b:img //wiki:image"},
	{"allpaths(//ext/a:img, //lib:deep)", "", ""},
	{"allpaths(//core, //core)", "", "//core:core"},

	// Filters.
	{"kind(filegroup, //...)", "", "//core:files //lib:deep //lib:util"},
	{"kind('^component rule$', //...)", "", "//core:core //ext/a:a //ext/b:b"},
	{"kind('.*_test rule', //ext/b/...)", "", "//ext/b:b_test"},
	{"kind('source file', //ext/a:ext.json + //core)", "", "//ext/a:ext.json"},
	{"filter('//ext/b', deps(//wiki:image))", "", "//ext/b:b //ext/b:img"},
	{"filter('img$', //...)", "", "//ext/a:img //ext/b:img"},
	{"filter(//core, deps(//wiki:image))", "", "//core:core //core:files"},
	{`attr("tags", "[\[ ]wiki[,\]]", //...)`, "", "//wiki:image"},
	{`attr(tags, '\[\]', //lib:all)`, "", "//lib:deep //lib:util"},
	{"attr(components, '//ext/b:img', //wiki/...)", "", "//wiki:image"},
	{"attr(srcs, '//ext/a:a.php', //ext/...)", "", "//ext/a:a //ext/a:a_test"},
	{"attr(none, '', //...)", "", ""},
	{"attr(name, '^img$', //... + //ext/a:ext.json)", "", "//ext/a:img //ext/b:img"},
	{"visible(//ext/b:b, //lib:all)", "", "//lib:deep //lib:util"},
	{"visible(//ext/a:a + //ext/b:b, //lib:all)", "", "//lib:deep"},
	{"visible(//lib:deep, //core:all)", "", "//core:core"},
	{"visible(set(), //core:all)", "", "//core:core //core:files"},
	{"visible(//ext/a:a, //ext/a:ext.json + //core:index.php)", "", "//ext/a:ext.json"},

	// labels, tests.
	{"labels(srcs, //ext/a:a)", "", "//ext/a:a.php //ext/a:sub/x.txt"},
	{"labels(components, //wiki/...)", "", "//ext/a:img //ext/b:img"},
	{"labels(tags, //wiki/...)", "", ""},
	{"labels(base, //wiki/...)", "", "//base:base"},
	{"rdeps(//ext/a:img, labels(srcs, //ext/a:a))", "", "//ext/a:a //ext/a:a.php //ext/a:img //ext/a:sub/x.txt"},
	{"tests(//ext/b:all)", "", "//ext/a:a_test //ext/a:slow_test //ext/b:b_test"},
	{"tests(//ext/a:fast)", "", "//ext/a:a_test"},
	{"tests(//ext/a:notslow)", "", "//ext/a:a_test"},
	{"tests(//ext/a:manual_test + //core)", "", "//ext/a:manual_test"},

	// Packages.
	{"buildfiles(//ext/a:img)", "", "//ext/a:BUILD //tools:BUILD //tools:defs.bzl //tools:sub/more.bzl"},
	{"buildfiles(deps(//lib:util))", "", "//lib:BUILD //lib:own.bzl"},
	{"loadfiles(//ext/a:img + //lib:deep)", "", "//lib:own.bzl //tools:defs.bzl //tools:sub/more.bzl"},
	{"loadfiles(//core)", "", ""},
	{"siblings(//core)", "", "//core:core //core:files"},
	{"siblings(//lib:util.php)", "", "//lib:deep //lib:util"},
	{"siblings(//core)", "files", "//core:core //core:files //core:index.php"},
	{"siblings(deps(//lib:util))", "", "//lib:deep //lib:util"},
	{"same_pkg_direct_rdeps(//ext/a:a)", "", "//ext/a:a_test //ext/a:img //ext/a:manual_test //ext/a:slow_test"},
	{"same_pkg_direct_rdeps(//core)", "", ""},
	{"same_pkg_direct_rdeps(//ext/a:a.php)", "", "//ext/a:a //ext/a:a_test"},

	// some.
	{"some(//wiki:all)", "", "//wiki:dev"},
	{"some(//wiki:all, 5)", "", "//wiki:dev //wiki:image"},
	{"some(set())", "", "!"},
}

func TestExpressions(t *testing.T) {
	for _, c := range expressions {
		t.Run(c.query, func(t *testing.T) {
			opts := Options{Files: c.options == "files", NoImplicit: c.options == "explicit"}
			opts.Folder, _ = strings.CutPrefix(c.options, "in ")
			if opts.Folder == c.options {
				opts.Folder = ""
			}
			if scope, ok := strings.CutPrefix(c.options, "universe "); ok {
				for _, s := range strings.Fields(scope) {
					p, err := label.ParsePattern(s, "")
					if err != nil {
						t.Fatal(err)
					}
					opts.Universe = append(opts.Universe, p)
				}
			}
			res, err := run(t, parseFake(wiki), c.query, opts)
			if c.want == "!" {
				if err == nil {
					t.Fatalf("= %s, want an error", names(res.Nodes(Auto)))
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := strings.Fields(c.want)
			got := strings.Fields(names(res.Nodes(Auto)))
			if !strings.Contains(c.query, "somepath") && !slices.IsSortedFunc(res.Nodes(Auto), func(a, b Node) int { return a.Label.Compare(b.Label) }) {
				t.Errorf("not in order of label: %q", got)
			}
			slices.Sort(want)
			slices.Sort(got)
			if diff := cmp.Diff(want, got, cmp.Transformer("nil", func(s []string) []string { return append([]string{}, s...) })); diff != "" && len(want)+len(got) > 0 {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestLazy wants only the packages loaded that an expression needs.
func TestLazy(t *testing.T) {
	for query, want := range map[string]string{
		"deps(//lib:util)":                         "lib",
		"deps(//ext/a:img, 1)":                     "core ext/a",
		"rdeps(//ext/b:img, //lib:deep)":           "core ext/b lib",
		"siblings(//base)":                         "base",
		"filter(ext, //lib:all)":                   "lib",
		"kind('//wiki:image', set())":              "",
		"allrdeps(//base)":                         "base core ext/a ext/b lib wiki",
		"same_pkg_direct_rdeps(//core:index.php)":  "core",
		"let v = //lib:util in attr(name, x, $v)":  "lib",
		"rdeps(//core:all, core/index.php)":        "core",
		"labels(components, //wiki:dev) + //base":  "base core ext/a wiki",
		"somepath(//lib:deep, //base) + //lib:all": "base lib",
	} {
		src := parseFake(wiki)
		if _, err := run(t, src, query, Options{}); err != nil {
			t.Errorf("%s: %v", query, err)
		}
		var got []string
		for p := range src.loaded {
			got = append(got, p)
		}
		slices.Sort(got)
		if strings.Join(got, " ") != want {
			t.Errorf("%s loaded %q, want %q", query, got, want)
		}
	}
}

// TestErrors wants the place of what is wrong under a caret.
func TestErrors(t *testing.T) {
	for _, c := range []struct{ query, want string }{
		{"", "want an expression, not end of the expression\n    \n    ^"},
		{"dep(//core)", "there is no function dep\n    dep(//core)\n    ^^^\n    functions are allpaths, "},
		{"deps(//core", "this parenthesis is not closed\n    deps(//core\n        ^"},
		{"(//core", "this parenthesis is not closed\n    (//core\n    ^"},
		{"//core)", "unexpected ) after the expression\n    //core)\n          ^"},
		{"//core //base", "unexpected //base after the expression\n    //core //base\n           ^^^^^^\n    join expressions with +, - or ^"},
		{"//core +", "want an expression, not end of the expression\n    //core +\n            ^"},
		{"//core + *x", "unexpected character \"*\"\n    //core + *x\n             ^\n    quote words that hold it"},
		{"-//core", "want an expression, not -\n    -//core\n    ^\n    quote a word that begins with it"},
		{"'-//core'", `"-//core" begins with a dash`},
		{"//a:b=c", "unexpected = after the expression\n    //a:b=c\n         ^\n    quote words"},
		{"'//core", "this quote is not closed\n    '//core\n    ^^^^^^^\n    end the word with '"},
		{"deps()", "deps needs an expression\n    deps()\n         ^\n    write deps(EXPR[, DEPTH])"},
		{"rdeps(//core)", "rdeps needs an expression\n    rdeps(//core)\n                ^\n    write rdeps(EXPR, EXPR[, DEPTH])"},
		{"deps(//core, x)", "want a depth, not x\n    deps(//core, x)\n                 ^"},
		{"deps(//core, -1)", "want a depth, not -"},
		{"deps(//core, 1, 2)", "deps takes no more arguments\n    deps(//core, 1, 2)\n                  ^"},
		{"deps(//core //base)", "want a comma or ), not //base"},
		{"kind((a), //core)", "want a regular expression, not (\n    kind((a), //core)\n         ^"},
		{"kind('(', //core)", "\"(\" is no regular expression: missing closing ): `(`\n    kind('(', //core)\n         ^^^"},
		{"set(//core, //base)", "the words of set() stand without commas between them"},
		{"set //core", "want ( after set, not //core"},
		{"let 1a = //core in $a", `"1a" is no name for a variable`},
		{"let a = //core $a", "want in, not $a"},
		{"$x", "there is no variable $x here\n    $x\n    ^^\n    define it: let x = EXPR in EXPR"},
		{"(let x = //core in $x) + $x", "there is no variable $x here"},
		{"//core +\n  deps(//none:x)\n  - //base", "nothing is //none:x\n      deps(//none:x)\n           ^^^^^^^^\n    look elsewhere"},
		{"filter('ä', //none/...)", "nothing is //none/...\n    filter('ä', //none/...)\n                ^^^^^^^^^^"},
		{"//ext:a/a.php", "file ext/a/a.php belongs to package //ext/a\n    //ext:a/a.php\n    ^^^^^^^^^^^^^\n    did you mean //ext/a:a.php"},
		{"//a:..", `label "//a:.." holds ".."`},
		{"some(//core - //core)", "some() of nothing: this is empty\n    some(//core - //core)\n         ^^^^^^^^^^^^^^^"},
		{"//a\x00", "unexpected character"},
		{"\xff", "not valid UTF-8"},
		{strings.Repeat("(", 600) + "//core", "more than 500 deep"},
		{strings.Repeat("//core + ", 50) + "none", "…"},
	} {
		_, err := run(t, parseFake(wiki), c.query, Options{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q:\n%v\nwant\n%s", c.query, err, c.want)
		}
		if e := (*Error)(nil); err != nil && !errors.As(err, &e) {
			t.Errorf("%q: %T", c.query, err)
		}
	}
	_, err := Parse("rdepss(//a, //b)")
	if e := (*Error)(nil); !errors.As(err, &e) || e.Unknown != "rdepss" || !slices.Contains(e.Candidates, "rdeps") || !e.Syntax {
		t.Errorf("unknown function: %#v", err)
	}
}

func TestKeepGoing(t *testing.T) {
	res, err := run(t, parseFake(wiki), "//core + //none:x - //nowhere/...", Options{KeepGoing: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := names(res.Nodes(Auto)); got != "//core:core" || len(res.Errors) != 2 {
		t.Errorf("= %s, errors %v", got, res.Errors)
	}
}

func TestCancelled(t *testing.T) {
	x, err := Parse("deps(//wiki:image)")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Eval(ctx, "", x, parseFake(wiki), Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Eval = %v, want context.Canceled", err)
	}
}

func TestOrders(t *testing.T) {
	for _, c := range []struct {
		query string
		order Order
		want  string
	}{
		{"deps(//ext/a:img)", Auto, "//core:core //core:files //ext/a:a //ext/a:img"},
		{"deps(//ext/a:img)", Deps, "//ext/a:img //ext/a:a //core:core //core:files"},
		{"deps(//ext/a:img)", Full, "//ext/a:img //ext/a:a //core:core //core:files"},
		// Order goes through what is not in the result.
		{"deps(//ext/a:img) - //ext/a:a - //core", Deps, "//ext/a:img //core:files"},
		{"set(//core:files //lib:deep //ext/b:b //wiki:dev)", Full, "//wiki:dev //ext/b:b //lib:deep //core:files"},
		{"somepath(//ext/b:img, //lib:deep)", Auto, "//ext/b:img //ext/b:b //lib:util //lib:deep"},
		{"somepath(//ext/a:img, //ext/a:ext.json)", Auto, "//ext/a:img //ext/a:a //ext/a:ext.json"},
	} {
		res, err := run(t, parseFake(wiki), c.query, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if got := names(res.Nodes(c.order)); got != c.want {
			t.Errorf("%s in order %s:\n got %s\nwant %s", c.query, c.order, got, c.want)
		}
	}
	res, err := run(t, parseFake(wiki), "//wiki:all", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(names(res.Nodes(Free))); len(got) != 2 || res.Len() != 2 {
		t.Errorf("in no order: %q", got)
	}
}

// ranks is Bazel's own example.
const ranks = `
//c:c x deps=//b:b,//a:a
//b:b x deps=//a:a,:b.cc
//b:b.cc x
//a:a x deps=:a.cc
//a:a.cc x
//r:loop x deps=:pool
//r:pool x deps=:loop,//c:c
`

func TestRanks(t *testing.T) {
	for _, c := range []struct {
		query   string
		longest bool
		want    string
	}{
		{"deps(//c)", false, "0 //c:c 1 //a:a 1 //b:b 2 //a:a.cc 2 //b:b.cc"},
		{"deps(//c)", true, "0 //c:c 1 //b:b 2 //a:a 2 //b:b.cc 3 //a:a.cc"},
		{"deps(//c) - //a:a", true, "0 //c:c 1 //b:b 2 //a:a.cc 2 //b:b.cc"},
		{"deps(//r:pool) - //b/... - //a/...", true, "0 //r:loop 0 //r:pool 1 //c:c"},
		{"set(//a:a.cc //b:b.cc)", false, "0 //a:a.cc 0 //b:b.cc"},
		{"set()", true, ""},
	} {
		res, err := run(t, parseFake(ranks), c.query, Options{})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range res.Ranks(c.longest) {
			got = append(got, string(rune('0'+r.Rank)), r.Label.String())
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s (longest: %v):\n got %s\nwant %s", c.query, c.longest, strings.Join(got, " "), c.want)
		}
	}
}

func TestDot(t *testing.T) {
	for _, c := range []struct {
		query string
		opts  DotOptions
		want  string
	}{
		{"deps(//c) - //a:a", DotOptions{}, `digraph mygraph {
  node [shape=box];
  "//a:a.cc"
  "//b:b"
  "//b:b" -> "//a:a.cc"
  "//b:b" -> "//b:b.cc"
  "//b:b.cc"
  "//c:c"
  "//c:c" -> "//a:a.cc"
  "//c:c" -> "//b:b"
}
`},
		{"deps(//b:b) - //a:a", DotOptions{Factored: true}, `digraph mygraph {
  node [shape=box];
  "//a:a.cc\n//b:b.cc"
  "//b:b"
  "//b:b" -> "//a:a.cc\n//b:b.cc"
}
`},
		{"deps(//b:b) - //a:a", DotOptions{Factored: true, Limit: 10}, `digraph mygraph {
  node [shape=box];
  "//a:a.cc\n...and 1 more items"
  "//b:b"
  "//b:b" -> "//a:a.cc\n...and 1 more items"
}
`},
	} {
		res, err := run(t, parseFake(ranks), c.query, Options{})
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if err := res.Dot(&b, c.opts); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, b.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.query, diff)
		}
	}
}
