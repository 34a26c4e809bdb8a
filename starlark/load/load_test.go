package load

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/action"
)

func labels(targets []*graph.Target) []string {
	ls := []string{}
	for _, t := range targets {
		ls = append(ls, t.Label.String())
	}
	return ls
}

func texts(errs []error) []string {
	ss := []string{}
	for _, err := range errs {
		ss = append(ss, err.Error())
	}
	return ss
}

// mustLoad loads targets that have no errors.
func mustLoad(t *testing.T, l *Loader, words ...string) *Result {
	t.Helper()
	res, errs := l.Load(t.Context(), patterns(t, words...))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return res
}

func TestPatterns(t *testing.T) {
	tree := memTree{
		"BUILD":        `thing(name = "root")`,
		"a/BUILD":      `thing(name = "a"); thing(name = "m", tags = ["manual"]); thing(name = "n", deps = ["m"])`,
		"a/b/BUILD":    `thing(name = "b")`,
		"broken/BUILD": `nope()`,
	}
	for _, tc := range []struct {
		words string
		want  []string
		errs  []string
	}{
		{"//... -//broken/...", []string{"//:root", "//a:a", "//a:n", "//a/b:b"}, nil},
		{"//a/...", []string{"//a:a", "//a:n", "//a/b:b"}, nil},
		{"//a:all", []string{"//a:a", "//a:n"}, nil},
		{"//a", []string{"//a:a"}, nil},
		{"//a:m", []string{"//a:m"}, nil},
		{"//a/... -//a:a", []string{"//a:n", "//a/b:b"}, nil},
		{"//a/... -//a/... //a/b", []string{"//a/b:b"}, nil},
		{"//a:a -//a:all", nil, nil},
		{"//a:a //a:a //a:all", []string{"//a:a", "//a:n"}, nil},
		{"//...", []string{"//:root", "//a:a", "//a:n", "//a/b:b"}, []string{"broken/BUILD:1:1: undefined: nope"}},
		{"//c/...", nil, []string{"no package matches //c/..."}},
		{"//a:z", nil, []string{"no target //a:z"}},
		{"//b", nil, []string{"no package //b"}},
	} {
		res, errs := newLoader(t, tree).Load(t.Context(), patterns(t, strings.Fields(tc.words)...))
		if got := labels(res.Targets); !cmp.Equal(got, append([]string{}, tc.want...)) {
			t.Errorf("Load(%s) = %v, want %v", tc.words, got, tc.want)
		}
		var got []string
		for _, s := range texts(errs) {
			first, _, _ := strings.Cut(s, "\n")
			got = append(got, first)
		}
		if diff := cmp.Diff(tc.errs, got); diff != "" {
			t.Errorf("Load(%s) errors (-want +got):\n%s", tc.words, diff)
		}
	}
}

// Only packages that are reached are evaluated and complained about.
func TestReached(t *testing.T) {
	l := newLoader(t, memTree{
		"a/BUILD":     `thing(name = "a", deps = ["//b:good"])`,
		"b/BUILD":     `thing(name = "good", visibility = ["//a:__pkg__"]); thing(name = "bad", deps = ["//c"])`,
		"c/BUILD":     `thing(name = "c", text = 5)`,
		"other/BUILD": `syntax error`,
	})
	mustLoad(t, l, "//a")
	if _, known := l.pkgs["c"]; known {
		t.Error("package c was evaluated, though nothing wanted needs it")
	}
	_, errs := l.Load(t.Context(), patterns(t, "//b:all"))
	want := []string{`b/BUILD:1:81: //b:bad: deps: //c:c is not visible from //b`, `c/BUILD:1:26: //c:c: attribute text: got int 5, want a string`}
	for i, s := range texts(errs) {
		if i >= len(want) || !strings.HasPrefix(s, want[i]) {
			t.Errorf("error %d: %s\nwant %q", i, s, want)
		}
	}
	if len(errs) != len(want) {
		t.Errorf("%d errors, want %d: %v", len(errs), len(want), errs)
	}
}

// A loader answers the same each time that it is asked, from any number of goroutines.
func TestLoadAgain(t *testing.T) {
	tree := memTree{
		"lib/x.bzl": "load(\":y.bzl\", \"y\")\nx = y\ndef m(name):\n    pack(name = name, texts = {\"a\": x})\n",
		"lib/y.bzl": `y = "y"`,
		"bad/BUILD": `thing(name = "b", text = 5, deps = ["//none"]); thing(name = "c", deps = [":none"]); thing(name = "d", deps = ["d"])`,
	}
	for i := range 20 {
		tree[fmt.Sprintf("p%d/BUILD", i)] = fmt.Sprintf(`load("//lib:x.bzl", "m")
m(name = "l")
thing(name = "p%d", deps = ["//p%d"], visibility = ["//visibility:public"])
picture(name = "i", layers = ["l"])
`, i, (i+1)%20)
	}
	tree["p19/BUILD"] = strings.Replace(tree["p19/BUILD"], `["//p0"]`, `[]`, 1)
	words := [][]string{{"//p3/...", "//p7:all"}, {"//..."}, {"//p0"}, {"//bad:all"}, {"//p19:i"}}
	type answer struct{ Targets, Graph, Errors []string }
	ask := func(l *Loader, words []string) answer {
		res, errs := l.Load(t.Context(), patterns(t, words...))
		return answer{labels(res.Targets), labels(res.Graph.Targets()), texts(errs)}
	}
	var want []answer
	for _, w := range words {
		want = append(want, ask(newLoader(t, tree), w))
	}
	if len(want[1].Errors) != 4 || len(want[2].Graph) != 20 {
		t.Fatalf("the fixture is not as meant: %q, %v", want[1].Errors, want[2].Graph)
	}
	l := newLoader(t, tree)
	var wg sync.WaitGroup
	for round := range 3 {
		for i, w := range words {
			wg.Go(func() {
				if diff := cmp.Diff(want[i], ask(l, w)); diff != "" {
					t.Errorf("round %d, Load(%v) (-first loader +this one):\n%s", round, w, diff)
				}
			})
		}
	}
	wg.Wait()
	n := mustLoad(t, l, "//p3:i").Targets[0]
	if len(n.Actions) != 1 || len(n.Deps) != 1 {
		t.Errorf("//p3:i has %d actions and %d dependencies after several loads, want 1 and 1", len(n.Actions), len(n.Deps))
	}
	if bad := l.pkgs["bad"].targets["c"]; len(bad.errs) != 1 || len(l.pkgs["p3"].targets["p3"].deps) != 1 {
		t.Errorf("resolved again: errors %v, dependencies %v", bad.errs, l.pkgs["p3"].targets["p3"].deps)
	}
}

// Whichever file of a load cycle is evaluated first, the error is the same one.
func TestLoadCycleFromManySides(t *testing.T) {
	tree := memTree{}
	const n = 8
	for i := range n {
		tree[fmt.Sprintf("m%d.bzl", i)] = fmt.Sprintf("load(\"//:m%d.bzl\", \"x\")\n", (i+1)%n)
		tree[fmt.Sprintf("p%d/BUILD", i)] = fmt.Sprintf("load(\"//:m%d.bzl\", \"x\")\n", i)
	}
	tree["BUILD"] = ""
	for range 20 {
		_, errs := newLoader(t, tree).Load(t.Context(), patterns(t, "//..."))
		if len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), "m0.bzl:1:1: load cycle\n    m0.bzl:1:1: m0.bzl loads m1.bzl\n") {
			t.Fatalf("got %d errors: %v", len(errs), errs)
		}
	}
}

// None stands for a default, targets know what they were made of, and actions what their rule said.
func TestTargets(t *testing.T) {
	l := newLoader(t, memTree{
		"p/BUILD": `
load("//p:r.bzl", "macro")
macro(
    name = "x",
    deps = [":y"],
)
thing(name = "y", srcs = ["b.txt", "a.txt"], tags = ["manual", "slow"])
pack(name = "l", srcs = ["a.txt"], prefix = "/srv", texts = {"t": "text"}, dirs = ["d"], owner = None)
picture(name = "i", layers = ["l", ":l2"], env = {"A": "b"})
pack(name = "l2", srcs = ["s"])
step(name = "s", image = "i0", srcs = ["b.txt"])
picture(name = "i0")
`,
		"p/r.bzl": "def macro(name, deps, mode = None):\n    thing(name = name, deps = deps, mode = mode)\n",
		"p/a.txt": "", "p/b.txt": "",
	})
	res := mustLoad(t, l, "//p:all", "//p:y")
	if got, want := labels(res.Targets), []string{"//p:i", "//p:i0", "//p:l", "//p:l2", "//p:s", "//p:x", "//p:y"}; !cmp.Equal(got, want) {
		t.Errorf("targets %v, want %v", got, want)
	}
	byName := map[string]*graph.Target{}
	for _, tg := range res.Targets {
		byName[tg.Label.Name] = tg
	}
	x, y := byName["x"], byName["y"]
	if x.Pos != "p/BUILD:3:1" || len(x.Deps) != 1 || x.Deps[0].Pos != "p/BUILD:5:13" || x.Deps[0].Attr != "deps" || x.Kind != "thing" {
		t.Errorf("x is %+v", x)
	}
	if !y.Manual() || !cmp.Equal(y.Srcs, []string{"p/a.txt", "p/b.txt"}) {
		t.Errorf("y is %+v", y)
	}
	layer := byName["l"].Outputs[0].Do.(*action.Layer)
	want := []action.Entry{{Dest: "srv/a.txt", File: "p/a.txt"}, {Dest: "srv/d", Dir: true}, {Dest: "srv/t", Text: new(string)}}
	*want[2].Text = "text"
	if diff := cmp.Diff(want, layer.Entries); diff != "" || layer.Owner != (action.Owner{UID: 1, GID: 2}) {
		t.Errorf("layer of %+v (-want +got):\n%s", layer.Owner, diff)
	}
	image := byName["i"].Outputs[0].Do.(*action.Image)
	if len(image.Layers) != 2 || image.Layers[0] != byName["l"].Outputs[0] || image.Config.Env["A"] != "b" {
		t.Errorf("image is %+v", image)
	}
	step := byName["s"].Outputs[0]
	if e := byName["l2"].Outputs[0].Do.(*action.Layer).Entries[0]; e.From != step || e.Path != "out" || e.Dest != "out" {
		t.Errorf("a made file became entry %+v", e)
	}
	run := step.Do.(*action.Run)
	if run.Dir != "/src/p" || len(run.Mounts) != 1 || !cmp.Equal(run.Outs, []string{"out"}) || run.Root != byName["i0"].Outputs[0] {
		t.Errorf("run is %+v", run)
	}
}

func pictureOf(t *testing.T, build string) *action.Image {
	t.Helper()
	return mustLoad(t, newLoader(t, memTree{"BUILD": build}), "//:all").Graph.Targets()[0].Outputs[0].Do.(*action.Image)
}

// Beyond a hundred layers they are packed in groups that do not move when one comes or goes or is made by a step.
func TestGroups(t *testing.T) {
	build := func(n int, extra string) string {
		return fmt.Sprintf(`
[pack(name = "l%%d" %% i, texts = {"c%%d/f" %% i: "x"}) for i in range(%d)]
%s
picture(name = "a", layers = ["l%%d" %% i for i in range(%d)] + EXTRA)
`, n, extra, n)
	}
	contents := func(im *action.Image) map[string]bool {
		m := map[string]bool{}
		for _, l := range im.Layers {
			var dests []string
			for _, e := range l.Do.(*action.Layer).Entries {
				dests = append(dests, e.Dest)
			}
			m[strings.Join(dests, ",")] = true
		}
		return m
	}
	changed := func(a, b *action.Image) int {
		was, n := contents(a), 0
		for c := range contents(b) {
			if !was[c] {
				n++
			}
		}
		return n
	}
	if n := len(pictureOf(t, build(100, "EXTRA = []")).Layers); n != 100 {
		t.Errorf("100 layers became %d", n)
	}
	many := pictureOf(t, build(250, "EXTRA = []"))
	if n := len(many.Layers); n > 100 || n < 80 {
		t.Errorf("250 layers became %d", n)
	}
	if n := changed(many, pictureOf(t, build(251, "EXTRA = []"))); n != 1 {
		t.Errorf("one more component changed %d layers, want 1", n)
	}
	if n := changed(many, pictureOf(t, build(249, "EXTRA = []"))); n > 1 {
		t.Errorf("one component less changed %d layers, want 1", n)
	}
	made := `picture(name = "zi"); step(name = "zs", image = "zi"); pack(name = "zl", srcs = ["zs"]); EXTRA = ["zl"]`
	if n := changed(many, pictureOf(t, build(250, made))); n != 1 {
		t.Errorf("one more layer, with a made file, changed %d layers, want 1", n)
	}
	// What lies at or below the same place keeps its order: l0, then the two that cover it.
	over := `picture(name = "zi"); step(name = "zs", image = "zi", outs = ["f"]); pack(name = "z1", prefix = "c0", srcs = ["zs"]); pack(name = "z2", texts = {"c0/f/g": ""}); EXTRA = ["z1", "z2"]`
	var order []string
	for _, l := range pictureOf(t, build(250, over)).Layers {
		for _, e := range l.Do.(*action.Layer).Entries {
			if strings.HasPrefix(e.Dest, "c0/") {
				order = append(order, l.Label)
			}
		}
	}
	if want := []string{"//:l0", "//:z1", "//:z2"}; !slices.Equal(order, want) {
		t.Errorf("layers at c0/f come as %v, want %v", order, want)
	}
	var files strings.Builder
	for i := range 101 {
		fmt.Fprintf(&files, "pack(name = \"s%d\", texts = {\"same\": \"%d\"})\n", i, i)
	}
	_, errs := newLoader(t, memTree{"BUILD": files.String() + `picture(name = "a", layers = ["s%d" % i for i in range(101)])`}).Load(t.Context(), patterns(t, "//:a"))
	if len(errs) != 1 || !strings.Contains(errs[0].Error(), "BUILD:102:30: //:a: layers: 101 of 101 cannot be packed together") {
		t.Errorf("101 layers at one place: %v", errs)
	}
}

func TestWorkspace(t *testing.T) {
	for _, tc := range []struct{ text, version, want string }{
		{`workspace(name = "w")`, "", ""},
		{`minimum_version("1.2")`, "1.10.0", ""},
		{`minimum_version("1.2")`, "", ""},
		{`minimum_version("1.2")`, "1.1.9", "WORKSPACE:1:16: this workspace needs mwbuild 1.2 or newer; this is 1.1.9: upgrade it"},
		{`image_defaults(root = "srv")`, "", `WORKSPACE:1:15: root "srv": an absolute path`},
		{`image_defaults(user = "root")`, "", `WORKSPACE:1:15: user "root": want numbers`},
		{`image_defaults(owner = "1")`, "", `WORKSPACE:1:15: owner "1": want numbers`},
		{`image_defaults(platform = "linux")`, "", `WORKSPACE:1:15: platform "linux": want os/arch`},
		{`image_defaults(rot = "/x")`, "", "WORKSPACE:1:15: image_defaults: unexpected keyword argument"},
		{"workspace(name = \"a\")\nworkspace(name = \"b\")", "", "WORKSPACE:2:10: workspace stands twice"},
		{`workspce(name = "a")`, "", "WORKSPACE:1:1: undefined: workspce\n    did you mean workspace?"},
		{`load("//:a.bzl", "a")`, "", "WORKSPACE:1:1: cannot load //:a.bzl: WORKSPACE loads nothing"},
		{`workspace(name =`, "", "WORKSPACE:1:17: syntax error"},
		{`x = [0 for i in range(1<<40) for j in range(1<<40)]`, "", "WORKSPACE:1:30: it ran for more than"},
	} {
		_, errs := New(Options{Tree: memTree{"WORKSPACE": tc.text}, Prelude: os.DirFS("testdata/prelude"), Version: tc.version})
		if got := strings.Join(texts(errs), "\n"); !strings.HasPrefix(got, tc.want) || (got != "") != (tc.want != "") {
			t.Errorf("WORKSPACE %s\n got %s\nwant %s", tc.text, got, tc.want)
		}
	}
	_, errs := New(Options{Tree: memTree{"WORKSPACE": "", "WORKSPACE.star": ""}, Prelude: os.DirFS("testdata/prelude")})
	if len(errs) != 1 || !strings.Contains(errs[0].Error(), "both WORKSPACE and WORKSPACE.star") {
		t.Errorf("two WORKSPACE files: %v", errs)
	}
}

func TestTwoBuildFiles(t *testing.T) {
	_, errs := newLoader(t, memTree{"p/BUILD": "", "p/BUILD.star": ""}).Load(t.Context(), patterns(t, "//p"))
	if got, want := texts(errs), []string{"p/BUILD.star:1:1: package //p has both BUILD and BUILD.star\n    keep one of them"}; !cmp.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A package with ten thousand files and one with five thousand targets load in about a second, also where every file is
// missing.
func TestLarge(t *testing.T) {
	tree := memTree{
		"p/BUILD":    `thing(name = "p", srcs = glob(["**"])); pack(name = "l", srcs = ["p"])`,
		"many/BUILD": `[thing(name = "t%d" % i, deps = ["t%d" % (i - 1)] if i % 50 else []) for i in range(5000)]`,
		"gone/BUILD": `thing(name = "g", srcs = ["f%d.php" % i for i in range(5000)])`,
	}
	for i := range 10_000 {
		tree[fmt.Sprintf("p/dir%d/f%d.php", i%100, i)] = ""
	}
	for _, tc := range []struct {
		pattern string
		errs    int
	}{{"//p:all", 0}, {"//many:all", 0}, {"//gone:g", 5000}} {
		begun := time.Now()
		_, errs := newLoader(t, tree).Load(t.Context(), patterns(t, tc.pattern))
		took := time.Since(begun)
		t.Logf("%s: %v", tc.pattern, took)
		if len(errs) != tc.errs {
			t.Errorf("%s: %d errors, want %d", tc.pattern, len(errs), tc.errs)
		}
		if took > 10*time.Second {
			t.Errorf("%s took %v", tc.pattern, took)
		}
	}
}

// Evaluation that takes up memory step by step ends before the machine's is gone.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("takes up to four gigabytes for a moment")
	}
	_, errs := newLoader(t, memTree{"p/BUILD": `
def f():
    all = []
    for i in range(1000000):
        all.append("a" * 100000000)
f()`}).Load(t.Context(), patterns(t, "//p:all"))
	if len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), "p/BUILD:6:2: it took more than 1024 MB of memory") {
		t.Errorf("got %v", errs)
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	begun := time.Now()
	_, errs := newLoader(t, memTree{"p/BUILD": "x = [0 for i in range(9999999) for j in range(9999999)]"}).Load(ctx, patterns(t, "//p:all"))
	if len(errs) != 1 || errs[0] != context.Canceled {
		t.Errorf("got %v, want %v", errs, context.Canceled)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("ended after %v", took)
	}
}

// FuzzLoad: whatever a BUILD file holds, loading ends, does not panic, and every error has a position.
func FuzzLoad(f *testing.F) {
	for _, s := range []string{
		`thing(name = "a", deps = ["b"])`, `thing(name = "a", srcs = glob(["*"]))`, "load(\"//lib:l.bzl\", \"x\")\nx(name = \"y\")",
		`pack(name = "a", srcs = ["f"], texts = {"/../x": ""})`, `picture(name = "i", layers = [":i"])`, "def f(): f()\nf()",
		`fetch(name = "x", digest = "sha256:0", tar = "t")`, `package(default_visibility = ["//..."])`, "x = \"a\" * (1 << 40)",
		`step(name = "s", image = "s", outs = [""])`, `read_json("f")`, `json.decode("[")`, `depset([depset])`, "\x00", "\xff", `twice(name = None)`,
		`[rule, attr.label(), provider()]`, `thing(**{"name": "a", "": 1})`, `fail()`, `thing(name = "a", visibility = [":x"])`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, src string) {
		if strings.Contains(src, "*") && strings.ContainsAny(src, "0123456789") && len(src) < 2000 && (strings.Contains(src, "range") || strings.Contains(src, "<<")) {
			t.Skip("steps and memory have tests of their own")
		}
		tree := memTree{"p/BUILD": src, "p/f": "", "lib/l.bzl": "def x(name):\n    thing(name = name)\n"}
		_, errs := newLoader(t, tree).Load(t.Context(), patterns(t, "//p:all"))
		for _, err := range errs {
			if !located.MatchString(err.Error()) {
				t.Errorf("%q gives an error without position: %v", src, err)
			}
		}
	})
}
