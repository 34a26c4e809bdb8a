package load

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mwbuild/mwbuild/graph/label"
)

var describeTree = memTree{
	"d/rules.bzl": `
load("//d:deep.bzl", "DEEP")

def _impl(ctx):
    return [DefaultInfo(files = [])]

r = rule(implementation = _impl, attrs = {
    "s": attr.string(default = DEEP),
    "i": attr.int(),
    "b": attr.bool(),
    "d": attr.string_dict(),
    "srcs": attr.label_list(allow_files = True),
    "one": attr.label(default = "//p:default"),
    "more": attr.label_list(),
})
reader = rule(implementation = _impl, reads_files = True)

def m(name, base = "//p:base", **kwargs):
    r(name = name + "_lib", srcs = glob(["*.php"]))
    r(name = name, one = base, more = [":" + name + "_lib", "//p:extra"], **kwargs)
`,
	"d/deep.bzl": `DEEP = "deep"`,
	"a/BUILD": `load("//d:rules.bzl", "m", "r", "reader")
package(default_visibility = ["//p:__pkg__"])
EXTRA = ["//p:extra"]
read_json("x.json")
r(name = "full", s = "t", i = 3, b = True, d = {"k": "v"}, srcs = ["x.php", ":q"], more = EXTRA)
r(name = "bare", tags = ["manual"], visibility = ["//visibility:public"])
r(name = "q")
reader(name = "reader")
m(name = "m")
m(name = "n", base = "//p:other")
`,
	"a/x.php": "", "a/x.json": "{}",
	"p/BUILD": `[thing(name = n, visibility = ["//visibility:public"]) for n in ["default", "base", "extra", "other"]]`,
	"c/BUILD": "load(\"//d:rules.bzl\", \"r\")\nr(name = \"one\", more = [\":two\"])\nr(name = \"two\", more = [\":one\", \":gone\"])",
	"e/BUILD": `thing(name = "e")
config_setting(name = "linux", values = {"os": "linux"})
thing(name = "chosen", deps = select({":linux": [":e"], "//conditions:default": ["//p:base"]}))
`,
	"bad/BUILD": "nonsense(",
}

func survey(t *testing.T, l *Loader, words ...string) ([]Declared, []error) {
	t.Helper()
	return l.Survey(t.Context(), patterns(t, words...))
}

func surveyed1(t *testing.T, l *Loader, lab string) Declared {
	t.Helper()
	ts, errs := survey(t, l, lab)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	for _, d := range ts {
		if d.Label().String() == lab {
			return d
		}
	}
	t.Fatalf("no %s in the survey", lab)
	return Declared{}
}

// A survey reaches manual targets, and no package that nothing leads to; it goes round cycles and past what is broken.
func TestSurvey(t *testing.T) {
	for _, c := range []struct{ patterns, want, errs string }{
		{"//a:q", "//a:q //p:default", ""},
		{"//a:bare", "//a:bare //p:default", ""},
		{"//a:all", "//a:bare //a:full //a:m //a:m_lib //a:n //a:n_lib //a:q //a:reader //p:base //p:default //p:extra //p:other", ""},
		{"//a:all -//a:m -//a:n -//a:m_lib -//a:n_lib -//a:full", "//a:bare //a:q //a:reader //p:default", ""},
		{"//a:none //nowhere/...", "", ""},
		{"//c:one", "//c:one //c:two //p:default", "//c:two: more: no target //c:gone"},
		{"//bad:all //p:base", "//p:base", "bad/BUILD:1:"},
	} {
		ts, errs := survey(t, newLoader(t, describeTree), strings.Fields(c.patterns)...)
		var got []string
		for _, d := range ts {
			got = append(got, d.Label().String())
		}
		if diff := cmp.Diff(c.want, strings.Join(got, " ")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.patterns, diff)
		}
		if c.errs == "" && len(errs) > 0 || c.errs != "" && (len(errs) != 1 || !strings.Contains(errs[0].Error(), c.errs)) {
			t.Errorf("%s: errors %v, want one with %q", c.patterns, errs, c.errs)
		}
	}
	l := newLoader(t, describeTree)
	survey(t, l, "//a:q")
	if l.pkg("c") != nil || l.pkg("bad") != nil {
		t.Error("a survey of //a:q evaluated packages that it does not need")
	}
	if _, errs := survey(t, newLoader(t, describeTree), "//c:one"); len(errs) != 1 || strings.Contains(errs[0].Error(), "cycle") {
		t.Errorf("cycle: %v", errs)
	}
}

func TestMissing(t *testing.T) {
	l := newLoader(t, describeTree)
	survey(t, l, "//a:all")
	for pattern, want := range map[string]string{
		"//a:q": "", "//a/...": "", "//a:qq": "no target //a:qq [did you mean //a:q?]",
		"//aa:x": "no package //aa [did you mean //a?]", "//nowhere/...": "no package matches //nowhere/... ",
	} {
		msg, hints := l.Missing(patterns(t, pattern)[0])
		if want == "" && msg != "" || !strings.HasPrefix(fmt.Sprint(msg, " ", hints), want) {
			t.Errorf("Missing(%s) = %s %s, want %s", pattern, msg, hints, want)
		}
	}
}

func TestPackageFiles(t *testing.T) {
	l := newLoader(t, describeTree)
	for name, want := range map[string]PackageFiles{
		"a": {Build: "a/BUILD", Loads: []string{"d/deep.bzl", "d/rules.bzl"}, Reads: []string{"a/x.json"}},
		"p": {Build: "p/BUILD"}, "nowhere": {}, "d": {},
	} {
		if diff := cmp.Diff(want, l.PackageFiles(t.Context(), name)); diff != "" {
			t.Errorf("PackageFiles(%s) (-want +got):\n%s", name, diff)
		}
	}
	if !l.IsPackage("a") || l.IsPackage("d") || l.Owner("a/x/y") != "a" || l.Owner("d/deep.bzl") != "" || !l.HasFile("d/deep.bzl") || l.HasFile("d") {
		t.Error("packages and files are not told apart")
	}
}

func TestAttr(t *testing.T) {
	l := newLoader(t, describeTree)
	d := surveyed1(t, l, "//a:full")
	if want := []string{"name", "s", "i", "b", "d", "srcs", "one", "more", "visibility", "tags"}; !slices.Equal(d.Attrs(), want) {
		t.Errorf("Attrs = %q, want %q", d.Attrs(), want)
	}
	for name, want := range map[string]struct {
		value   any
		literal string
		given   bool
	}{
		"name": {"full", `"full"`, true}, "s": {"t", `"t"`, true}, "i": {int64(3), "3", true}, "b": {true, "True", true},
		"d":          {map[string]string{"k": "v"}, `{"k": "v"}`, true},
		"srcs":       {[]string{"//a:x.php", "//a:q"}, `["x.php", ":q"]`, true},
		"one":        {"//p:default", `"//p:default"`, false},
		"more":       {[]string{"//p:extra"}, `["//p:extra"]`, true},
		"visibility": {[]string{"//p:__pkg__"}, "", false},
		"tags":       {[]string{}, "[]", false},
	} {
		got, ok := d.Attr(name)
		if diff := cmp.Diff(want.value, got); diff != "" || !ok {
			t.Errorf("Attr(%s), %v (-want +got):\n%s", name, ok, diff)
		}
		if got := d.Literal(name); got != want.literal || d.Given(name) != want.given {
			t.Errorf("%s: literal %s, given %v; want %s, %v", name, got, d.Given(name), want.literal, want.given)
		}
	}
	if v, ok := d.Attr("none"); ok || d.Given("none") {
		t.Errorf("Attr(none) = %v, want nothing", v)
	}
	if v, _ := surveyed1(t, l, "//a:bare").Attr("visibility"); !cmp.Equal(v, []string{"//visibility:public"}) {
		t.Errorf("visibility of its own = %v", v)
	}
	if v, _ := surveyed1(t, l, "//e:e").Attr("visibility"); !cmp.Equal(v, []string{"//visibility:private"}) {
		t.Errorf("visibility of nobody = %v", v)
	}
	if d.ReadsFiles() || !surveyed1(t, l, "//a:reader").ReadsFiles() {
		t.Error("ReadsFiles does not tell reader from r")
	}
}

// What the BUILD file says, in whatever way, is written; the defaults of rules and macros are not.
func TestWritten(t *testing.T) {
	l := newLoader(t, describeTree)
	for lab, want := range map[string]string{
		"//a:full":  "srcs a/x.php true, srcs //a:q true, one //p:default false, more //p:extra true",
		"//a:m":     "one //p:base false, more //a:m_lib true, more //p:extra true", // the string stands in EXTRA
		"//a:m_lib": "srcs a/x.php true, one //p:default false",
		"//a:n":     "one //p:other true, more //a:n_lib true, more //p:extra true",
	} {
		d := surveyed1(t, l, lab)
		var got []string
		for _, e := range d.Edges() {
			to := e.File
			if to == "" {
				to = e.To.String()
			}
			got = append(got, fmt.Sprint(e.Attr, " ", to, " ", d.Written(e)))
		}
		if diff := cmp.Diff(want, strings.Join(got, ", ")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", lab, diff)
		}
	}
	if d := surveyed1(t, l, "//a:m"); d.Callee() != "m" || d.Kind() != "r" {
		t.Errorf("//a:m is called as %s and is a %s", d.Callee(), d.Kind())
	}
}

// What select() chose is an edge, and its condition another of its own kind.
func TestSurveySelect(t *testing.T) {
	l := newLoader(t, describeTree)
	d := surveyed1(t, l, "//e:chosen")
	want := []DeclaredEdge{
		{Attr: "deps", Text: ":linux", To: label.Label{Pkg: "e", Name: "linux"}, Condition: true},
		{Attr: "deps", Text: ":e", To: label.Label{Pkg: "e", Name: "e"}},
	}
	if diff := cmp.Diff(want, d.Edges()); diff != "" {
		t.Errorf("Edges (-want +got):\n%s", diff)
	}
	if v, _ := d.Attr("deps"); !cmp.Equal(v, []string{"//e:e"}) || d.Literal("deps") != `[":e"]` || !d.Written(want[0]) || !d.Given("deps") {
		t.Errorf("deps = %v, %s", v, d.Literal("deps"))
	}
}
