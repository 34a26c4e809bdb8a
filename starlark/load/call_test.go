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
		`ctx.call("lok")`:                                                              "did you mean look?",
		`ctx.call("look", x = ctx)`:                                                    "a ctx cannot be handed over",
		`ctx.call("look", x = 1<<70)`:                                                  "too large",
		`ctx.actions.native(kind = "k 1", files = ["a"])`:                              "pairs of role and path",
		`ctx.actions.native(kind = "k 1", files = [("r", "a/none.txt")])`:              "no file of the workspace",
		`ctx.actions.native(kind = "k 1", files = [("r", "a/link")])`:                  "symlink",
		`ctx.actions.native(kind = "k 1", files = [("r", "a/f"), ("r", "a/f")])`:       "each pair once",
		`ctx.actions.native(kind = "k 1", inputs = [("r", ctx.actions.layer(), "p")])`: "native action",
		`ctx.actions.made(ctx.actions.layer(), "p")`:                                   "native action",
		`ctx.actions.image(layers = [ctx.actions.native(kind = "k 1")])`:               "want layers",
	} {
		tree := memTree{"WORKSPACE": "", "a/BUILD": `r(name = "x")`, "a/f": "", "a/link": "-> f"}
		prelude := fstest.MapFS{"r.star": {Data: []byte("def _impl(ctx):\n    " + call + "\n\nr = rule(implementation = _impl)\n")}}
		_, errs := loadAll(t, Options{Tree: tree, Prelude: prelude, Functions: map[string]Function{"look": func(context.Context, Files, map[string]any) (any, error) { return nil, nil }}}, "//a:x")
		if len(errs) != 1 || !strings.Contains(errs[0].Error(), want) {
			t.Errorf("%s: %v, want %q", call, errs, want)
		}
	}
}
