package load

import (
	"context"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/mwbuild/mwbuild/graph/action"
)

// A rule calls a function over its package's files, and declares native actions.
func TestCallAndNative(t *testing.T) {
	tree := memTree{
		"WORKSPACE": "",
		"a/BUILD":   `letters(name = "x", of = ["q", "r"])`,
		"a/i/b.txt": "B", "a/i/a.txt": "A",
		"a/sub/BUILD": "", "a/sub/i/c.txt": "C",
	}
	var args map[string]any
	functions := map[string]Function{"look": func(_ context.Context, files Files, in map[string]any) (any, error) {
		args = in
		found, err := files.Glob("**/*.txt")
		if err != nil {
			return nil, err
		}
		out := []any{}
		for _, f := range found {
			b, err := files.Read(f)
			if err != nil {
				return nil, err
			}
			out = append(out, []any{string(b), f})
		}
		if _, err := files.Read("a/sub/i/c.txt"); err == nil {
			t.Error("a file of another package could be read")
		}
		return map[string]any{"files": out, "n": int64(2), "yes": true, "none": nil}, nil
	}}
	prelude := fstest.MapFS{"r.star": {Data: []byte(`
def _impl(ctx):
    r = ctx.call("look", of = ctx.attr.of, d = {"k": 1}, n = None, b = True)
    if r["n"] != 2 or r["yes"] != True or r["none"] != None:
        fail("results: %s" % r)
    one = ctx.actions.native(name = "one", kind = "one 1", params = {"p": "v"}, files = [(role, f) for role, f in r["files"]])
    two = ctx.actions.native(name = "two", kind = "two 1", inputs = [("in", one, "x")])
    return [DefaultInfo(files = [ctx.actions.made(two, "out.bin")], outputs = [ctx.actions.layer(files = {"out.bin": ctx.actions.made(two, "out.bin")})])]

letters = rule(implementation = _impl, reads_files = True, attrs = {"of": attr.string_list()})
`)}}
	res, errs := loadAll(t, Options{Tree: tree, Prelude: prelude, Functions: functions}, "//a:x")
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if diff := cmp.Diff(map[string]any{"of": []any{"q", "r"}, "d": map[string]any{"k": int64(1)}, "n": nil, "b": true}, args); diff != "" {
		t.Errorf("arguments (-want +got):\n%s", diff)
	}
	x := res.Targets[0]
	if diff := cmp.Diff([]string{"a/i/a.txt", "a/i/b.txt"}, x.Read); diff != "" {
		t.Errorf("read (-want +got):\n%s", diff)
	}
	one, two := x.Actions[0].Do.(*action.Native), x.Actions[1].Do.(*action.Native)
	if diff := cmp.Diff(&action.Native{
		Kind: "one 1", Params: map[string]string{"p": "v"}, Files: []action.Source{{Role: "A", Path: "a/i/a.txt"}, {Role: "B", Path: "a/i/b.txt"}},
	}, one); diff != "" {
		t.Errorf("first action (-want +got):\n%s", diff)
	}
	if two.Kind != "two 1" || len(two.Inputs) != 1 || two.Inputs[0] != (action.Input{Role: "in", From: x.Actions[0], Path: "x"}) {
		t.Errorf("second action: %+v", two)
	}
	if len(x.Files) != 1 || x.Files[0].From != x.Actions[1] || x.Files[0].Path != "out.bin" {
		t.Errorf("files: %+v", x.Files)
	}
	if e := x.Outputs[0].Do.(*action.Layer).Entries[0]; e.From != x.Actions[1] || e.Path != "out.bin" || e.Dest != "out.bin" {
		t.Errorf("entry: %+v", e)
	}
}

// A native action that makes a layer, and a run that keeps changes, stand where layers do.
func TestNativeLayerAndChanges(t *testing.T) {
	tree := memTree{"WORKSPACE": "", "a/BUILD": `r(name = "x")`}
	prelude := fstest.MapFS{"r.star": {Data: []byte(`
def _impl(ctx):
    unpacked = ctx.actions.native(kind = "debian unpack 1", name = "unpack", params = {"group": "1"}, layer = True, mirrors = ["https://mirror.example/debian"],
        downloads = [{"sha256": "0a" * 32, "size": 7, "name": "a 1", "path": "pool/a.deb"}])
    root = ctx.actions.image(name = "root", layers = [unpacked])
    configured = ctx.actions.run(name = "configure", image = root, argv = ["/c"], changes = True, user = "0:0", mounts = {"/setup": unpacked, "/a": unpacked})
    some = ctx.actions.layer(files = {"one": ctx.actions.made(unpacked, "etc/one"), "two": ctx.actions.made(configured, "etc/two")})
    return [DefaultInfo(outputs = [ctx.actions.image(layers = [unpacked, configured, some])])]

r = rule(implementation = _impl)
`)}}
	res, errs := loadAll(t, Options{Tree: tree, Prelude: prelude}, "//a:x")
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	a := res.Targets[0].Actions
	unpack, configure, some, image := a[0], a[2], a[3], a[4]
	if diff := cmp.Diff(&action.Native{Kind: "debian unpack 1", Params: map[string]string{"group": "1"}, Layer: true, Downloads: []action.Download{
		{SHA256: strings.Repeat("0a", 32), Size: 7, Name: "a 1", Path: "pool/a.deb", Mirrors: []string{"https://mirror.example/debian"}},
	}}, unpack.Do); diff != "" {
		t.Errorf("native action (-want +got):\n%s", diff)
	}
	run := configure.Do.(*action.Run)
	if !run.Changes || run.User != "0:0" || len(run.Mounts) != 2 || run.Mounts[0] != (action.Mount{From: unpack, Dest: "/a"}) || run.Mounts[1] != (action.Mount{From: unpack, Dest: "/setup"}) {
		t.Errorf("run: %+v", run)
	}
	if e := some.Do.(*action.Layer).Entries; e[0].From != unpack || e[0].Path != "etc/one" || e[1].From != configure || e[1].Path != "etc/two" {
		t.Errorf("entries: %+v", e)
	}
	if got := image.Do.(*action.Image).Layers; len(got) != 3 || got[0] != unpack || got[1] != configure || got[2] != some {
		t.Errorf("layers: %v", got)
	}
}

// Too many layers are packed together, but none of those below what a run changed, which may delete files of them.
func TestGroupsBesideChanges(t *testing.T) {
	tree := memTree{"WORKSPACE": "", "a/BUILD": `r(name = "x")`}
	prelude := fstest.MapFS{"r.star": {Data: []byte(`
def _impl(ctx):
    below = [ctx.actions.layer(name = "below-%d" % i, texts = {"below%d" % i: "x"}) for i in range(3)]
    changed = ctx.actions.run(name = "changed", image = ctx.actions.image(name = "root", layers = below), argv = ["/c"], changes = True)
    above = [ctx.actions.layer(name = "above-%d" % i, texts = {"above%d" % i: "x"}) for i in range(120)]
    return [DefaultInfo(outputs = [ctx.actions.image(layers = below + [changed] + above)])]

r = rule(implementation = _impl)
`)}}
	res, errs := loadAll(t, Options{Tree: tree, Prelude: prelude}, "//a:x")
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	layers := res.Targets[0].Outputs[0].Do.(*action.Image).Layers
	var names []string
	for _, n := range layers[:4] {
		names = append(names, n.Name)
	}
	if diff := cmp.Diff([]string{"below-0", "below-1", "below-2", "changed"}, names); diff != "" || len(layers) > 100 {
		t.Errorf("of %d layers the lowest (-want +got):\n%s", len(layers), diff)
	}
}

func loadAll(t *testing.T, opts Options, words ...string) (*Result, []error) {
	t.Helper()
	l, errs := New(opts)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return l.Load(t.Context(), patterns(t, words...))
}

func TestCallErrors(t *testing.T) {
	for call, want := range map[string]string{
		`ctx.call("lok")`:                                                                                                                      "did you mean look?",
		`ctx.call("look", x = ctx)`:                                                                                                            "a ctx cannot be handed over",
		`ctx.call("look", x = 1<<70)`:                                                                                                          "too large",
		`ctx.actions.native(kind = "k 1", files = ["a"])`:                                                                                      "pairs of role and path",
		`ctx.actions.native(kind = "k 1", files = [("r", "a/none.txt")])`:                                                                      "no file of the workspace",
		`ctx.actions.native(kind = "k 1", files = [("r", "a/link")])`:                                                                          "symlink",
		`ctx.actions.native(kind = "k 1", files = [("r", "a/f")])`:                                                                             "is named by a string",
		`ctx.actions.native(kind = "k 1", files = [("r", f) for f in ctx.files.one * 2])`:                                                      "each pair once",
		`ctx.actions.native(kind = "k 1", files = [("r", "b/f")])`:                                                                             "is named by a string",
		`ctx.actions.native(kind = "k 1", inputs = [("r", ctx.actions.layer(), "p")])`:                                                         "native action",
		`ctx.actions.made(ctx.actions.layer(), "p")`:                                                                                           "native action",
		`ctx.actions.image(layers = [ctx.actions.native(kind = "k 1")])`:                                                                       "//a:x native makes files",
		`ctx.actions.image(layers = ["x"])`:                                                                                                    "want layers",
		`ctx.actions.native(kind = "k 1", inputs = [("r", ctx.actions.native(kind = "l 1", name = "l", layer = True), "p")])`:                  "//a:x l makes a layer",
		`ctx.actions.native(kind = "k 1", downloads = [{"sha256": "0" * 64, "size": 1, "name": "n", "path": "p"}])`:                            "set layer = True",
		`ctx.actions.native(kind = "k 1", layer = True, downloads = [{"sha256": "0", "size": 1, "name": "n", "path": "p"}])`:                   "64 hexadecimal digits",
		`ctx.actions.native(kind = "k 1", layer = True, downloads = [{"sha256": "0" * 64, "size": "1", "name": "n", "path": "p"}])`:            "want sha256, size, name and path",
		`ctx.actions.native(kind = "k 1", layer = True, downloads = [{"sha256": "0" * 64, "size": 1, "name": "n", "path": "p", "host": "h"}])`: "and nothing else",
		`ctx.actions.native(kind = "k 1", layer = True, downloads = [{"sha256": "0" * 64, "size": -1, "name": "n", "path": "p"}])`:             "not negative",
		`ctx.actions.native(kind = "k 1", layer = True, downloads = [{"sha256": "0" * 64, "size": 1, "name": "n", "path": "p"}] * 2)`:          "twice",
		`ctx.actions.native(kind = "k 1", layer = True, downloads = ["x"])`:                                                                    "want dicts",
		`ctx.actions.run(image = ctx.actions.image(), argv = ["x"], outs = ["o"], changes = True)`:                                             "leave outs out",
		`ctx.actions.run(image = ctx.actions.image(), argv = ["x"])`:                                                                           "outs: empty",
		`ctx.actions.run(image = ctx.actions.image(), argv = ["x"], changes = True, user = "root")`:                                            "want numbers",
		`ctx.actions.run(image = ctx.actions.image(), argv = ["x"], changes = True, mounts = {"/m": ctx.actions.native(kind = "k 1")})`:        "//a:x native makes files",
		`ctx.actions.run(image = ctx.actions.image(), argv = ["x"], changes = True, mounts = {"/m": ctx.actions.image(name = "i")})`:           "is no layer",
		`ctx.actions.run(image = ctx.actions.image(), argv = ["x"], changes = True, mounts = {"m": ctx.actions.layer()})`:                      "absolute path",
		`ctx.actions.run(image = ctx.actions.image(), argv = ["x"], changes = True, env = {"SOURCE_DATE_EPOCH": "now"})`:                       "seconds since 1970",
		`ctx.actions.run(name = "b", image = ctx.actions.image(), argv = ["x"], outs = ["o"], mounts = {"/m": ctx.actions.run(image = ctx.actions.image(name = "i"), argv = ["x"], changes = True)})`: "changes of its own image",
	} {
		tree := memTree{"WORKSPACE": "", "a/BUILD": `r(name = "x", one = ["f"])`, "a/f": "", "a/link": "-> f", "b/BUILD": "", "b/f": ""}
		reads := "reads_files = " + map[bool]string{true: "True", false: "False"}[strings.Contains(call, "b/f")]
		prelude := fstest.MapFS{"r.star": {Data: []byte("def _impl(ctx):\n    " + call + "\n\nr = rule(implementation = _impl, attrs = {\"one\": attr.label_list(allow_files = True)}, " + reads + ")\n")}}
		_, errs := loadAll(t, Options{Tree: tree, Prelude: prelude, Functions: map[string]Function{"look": func(context.Context, Files, map[string]any) (any, error) { return nil, nil }}}, "//a:x")
		if len(errs) != 1 || !strings.Contains(errs[0].Error(), want) {
			t.Errorf("%s: %v, want %q", call, errs, want)
		}
	}
}
