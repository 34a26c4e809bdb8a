package affected_test

import (
	"context"
	"crypto/sha1"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mwbuild/mwbuild/build/affected"
	"github.com/mwbuild/mwbuild/build/plan"
	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/label"
	"github.com/mwbuild/mwbuild/internal/workspace"
	"github.com/mwbuild/mwbuild/rules"
	"github.com/mwbuild/mwbuild/starlark/load"
)

// A memTree is a tree in memory.
type memTree struct {
	files map[string]string // "x:" before the bytes of an executable, "-> " before a symlink's target
}

func (m *memTree) Files() []string { return slices.Sorted(maps.Keys(m.files)) }

func (m *memTree) Packages() []string {
	var pkgs []string
	for p := range m.files {
		if path.Base(p) == "BUILD" {
			pkgs = append(pkgs, strings.TrimPrefix(path.Dir(p), "."))
		}
	}
	slices.Sort(pkgs)
	return pkgs
}

func (m *memTree) BuildFiles(pkg string) []string {
	if _, ok := m.files[path.Join(pkg, "BUILD")]; ok {
		return []string{"BUILD"}
	}
	return nil
}

func (m *memTree) Lookup(p string) (workspace.File, bool) {
	text, ok := m.files[p]
	f := workspace.File{Path: p}
	if target, link := strings.CutPrefix(text, "-> "); link {
		f.Mode, f.Target = workspace.Symlink, target
	} else if strings.HasPrefix(text, "x:") {
		f.Mode = workspace.Executable
	}
	return f, ok
}

func (m *memTree) ReadFile(p string) ([]byte, error) {
	text, ok := m.files[p]
	if !ok {
		return nil, fmt.Errorf("%s: %w", p, fs.ErrNotExist)
	}
	return []byte(strings.TrimPrefix(text, "x:")), nil
}

func (m *memTree) owner(file string) string {
	for dir := path.Dir(file); dir != "."; dir = path.Dir(dir) {
		if len(m.BuildFiles(dir)) > 0 {
			return dir
		}
	}
	return ""
}

func (m *memTree) Glob(pkg string, include, exclude []string) ([]string, error) {
	var names []string
	for f := range m.Owned(pkg) {
		rel := strings.TrimPrefix(strings.TrimPrefix(f.Path, pkg), "/")
		match := func(p string) bool { return doublestar.MatchUnvalidated(p, rel) }
		if slices.ContainsFunc(include, match) && !slices.ContainsFunc(exclude, match) {
			names = append(names, rel)
		}
	}
	return names, nil
}

func (m *memTree) Owned(pkg string) iter.Seq[workspace.File] {
	return func(yield func(workspace.File) bool) {
		for _, p := range m.Files() {
			if (pkg == "" || strings.HasPrefix(p, pkg+"/")) && m.owner(p) == pkg {
				if f, _ := m.Lookup(p); !yield(f) {
					return
				}
			}
		}
	}
}

func (m *memTree) Digest(string) (workspace.Digest, error) {
	return workspace.Digest{}, fmt.Errorf("nothing reads bytes for this")
}

func (m *memTree) Blob(p string) (string, error) {
	text, ok := m.files[p]
	if !ok {
		return "", fmt.Errorf("%s: %w", p, fs.ErrNotExist)
	}
	return fmt.Sprintf("%x", sha1.Sum([]byte(strings.TrimPrefix(text, "x:")))), nil
}

func newLoader(t workspace.Tree) (*load.Loader, []error) {
	return load.New(load.Options{Tree: t, Prelude: rules.Prelude, Jobs: 1})
}

// A world is a workspace as a model, from which its files are written.
type world struct {
	pkgs     map[string]*pkg
	files    map[string]string
	consts   [3]int // of defs/consts.bzl: the first is used by macros, the second by a rule, the third by nobody
	macro    int    // variant of the macro
	rule     int    // variant of the rule
	user     int    // of image_defaults
	define   int    // default of a define
	comments map[string]int
}

type pkg struct {
	targets []target
	glob    int
	json    bool
}

type target struct {
	name, kind string
	value      int
	ignored    int
	manual     bool
	deps       []label.Label
}

var (
	folders = []string{"", "a", "a/b", "a/b/c", "d", "e/f"}
	kinds   = []string{"filegroup", "layer", "note", "show", "wrap", "shade", "image"}
	names   = []string{"t0", "t1", "t2", "t3"}
	globs   = []string{`["**"]`, `["*.txt"]`, `["**/*.txt"], exclude = ["one.txt"]`, `["sub/**"], allow_empty = True`}
	places  = []string{"one.txt", "two.txt", "sub/three.txt", "sub/four.php", "x.json"}
)

// rank orders targets, so that what depends only on lower ones makes no cycle.
func rank(l label.Label) int {
	return slices.Index(folders, l.Pkg)*len(names) + slices.Index(names, l.Name)
}

func (w *world) find(l label.Label) *target {
	if p := w.pkgs[l.Pkg]; p != nil {
		for i := range p.targets {
			if p.targets[i].name == l.Name {
				return &p.targets[i]
			}
		}
	}
	return nil
}

// tree writes the files of the model.
func (w *world) tree() *memTree {
	m := &memTree{maps.Clone(w.files)}
	comment := func(file string) string { return fmt.Sprintf("# comment %d\n", w.comments[file]) }
	m.files["WORKSPACE"] = comment("WORKSPACE") + fmt.Sprintf("image_defaults(user = \"%d:900\")\ndefine(name = \"mode\", default = \"%d\")\n", 900+w.user, w.define)
	m.files["cfg/BUILD"] = comment("cfg") + `config_setting(name = "one", define_values = {"mode": "1"}, visibility = ["//visibility:public"])` + "\n"
	m.files["defs/BUILD"] = ""
	m.files["defs/consts.bzl"] = comment("consts") + fmt.Sprintf("MACRO = %d\nRULE = %d\nNOBODY = %d\n", w.consts[0], w.consts[1], w.consts[2])
	m.files["defs/macros.bzl"] = comment("macros") + `load("//defs:consts.bzl", "MACRO")
load("//defs:rules.bzl", "note")
def wrap(name, value, deps, tags):
    note(name = name, text = "%d %d" % (MACRO, ` + []string{"value", "value + 1 if value else value"}[w.macro] + `), deps = deps, tags = tags)
`
	m.files["defs/rules.bzl"] = comment("rules") + `load("//defs:consts.bzl", "RULE")
NoteInfo = provider(fields = {"text": ""})
def _texts(ctx):
    return [d[NoteInfo].text for d in ctx.attr.deps if NoteInfo in d]
def _note(ctx):
    return [DefaultInfo(files = []), NoteInfo(text = ctx.attr.text + ` + []string{`""`, `"!"`}[w.rule] + ` + "".join(_texts(ctx)))]
note = rule(implementation = _note, attrs = {"text": attr.string(), "ignored": attr.string(), "deps": attr.label_list()})
def _show(ctx):
    l = ctx.actions.layer(texts = {"said": ctx.attr.text + " ".join(_texts(ctx)) + str(RULE)})
    return [DefaultInfo(outputs = [l]), LayerInfo(layers = [l])]
show = rule(implementation = _show, attrs = {"text": attr.string(), "ignored": attr.string(), "deps": attr.label_list()})
`
	for dir, p := range w.pkgs {
		var b strings.Builder
		b.WriteString(comment(dir) + "load(\"//defs:macros.bzl\", \"wrap\")\nload(\"//defs:rules.bzl\", \"note\", \"show\")\npackage(default_visibility = [\"//visibility:public\"])\n")
		if p.json {
			fmt.Fprintf(&b, "J = read_json(\"x.json\")[\"used\"] if glob([\"x.json\"], allow_empty = True) else \"none\"\n")
		} else {
			b.WriteString("J = \"\"\n")
		}
		for _, t := range p.targets {
			self := label.Label{Pkg: dir, Name: t.name}
			var all, layers []string
			for _, d := range t.deps {
				to := w.find(d)
				if to == nil || rank(d) >= rank(self) {
					continue
				}
				all = append(all, fmt.Sprintf("%q", d.String()))
				if slices.Contains([]string{"layer", "show"}, to.kind) {
					layers = append(layers, fmt.Sprintf("%q", d.String()))
				}
			}
			deps, tags := strings.Join(all, ", "), "[]"
			if t.manual {
				tags = `["manual"]`
			}
			switch t.kind {
			case "filegroup":
				fmt.Fprintf(&b, "filegroup(name = %q, srcs = glob(%s) + [%s], tags = %s)\n", t.name, globs[p.glob], deps, tags)
			case "layer":
				fmt.Fprintf(&b, "layer(name = %q, srcs = glob(%s), prefix = \"p%d\", dirs = [\"d\"], tags = %s)\n", t.name, globs[p.glob], t.value, tags)
			case "image":
				fmt.Fprintf(&b, "layer(name = %q, dirs = [\"%d\"])\nimage(name = %q, layers = [%s], env = {\"V\": \"%d\"}, tags = %s)\n",
					t.name+"_own", t.value, t.name, strings.Join(append(layers, fmt.Sprintf("%q", ":"+t.name+"_own")), ", "), t.ignored, tags)
			case "wrap":
				fmt.Fprintf(&b, "wrap(name = %q, value = %d, deps = [%s], tags = %s)\n", t.name, t.value, deps, tags)
			case "shade":
				fmt.Fprintf(&b, "show(name = %q, text = select({\"//cfg:one\": \"one\", \"//conditions:default\": \"%d\"}), deps = [%s], tags = %s)\n", t.name, t.value, deps, tags)
			default:
				fmt.Fprintf(&b, "%s(name = %q, text = \"%d\" + J, ignored = \"%d\", deps = [%s], tags = %s)\n", t.kind, t.name, t.value, t.ignored, deps, tags)
			}
		}
		m.files[path.Join(dir, "BUILD")] = b.String()
	}
	return m
}

func (w *world) clone() *world {
	c := *w
	c.files, c.comments, c.pkgs = maps.Clone(w.files), maps.Clone(w.comments), map[string]*pkg{}
	for dir, p := range w.pkgs {
		q := *p
		q.targets = nil
		for _, t := range p.targets {
			t.deps = slices.Clone(t.deps)
			q.targets = append(q.targets, t)
		}
		c.pkgs[dir] = &q
	}
	return &c
}

func drawLabel(t *rapid.T) label.Label {
	return label.Label{Pkg: rapid.SampledFrom(folders).Draw(t, "pkg"), Name: rapid.SampledFrom(names).Draw(t, "name")}
}

func drawTarget(t *rapid.T, name string) target {
	return target{
		name: name, kind: rapid.SampledFrom(kinds).Draw(t, "kind"), value: rapid.IntRange(0, 2).Draw(t, "value"),
		manual: rapid.IntRange(0, 4).Draw(t, "manual") == 0, deps: rapid.SliceOfN(rapid.Custom(drawLabel), 0, 3).Draw(t, "deps"),
	}
}

func drawPackage(t *rapid.T) *pkg {
	p := &pkg{glob: rapid.IntRange(0, len(globs)-1).Draw(t, "glob"), json: rapid.Bool().Draw(t, "json")}
	for _, n := range names {
		if rapid.IntRange(0, 2).Draw(t, "there") > 0 {
			p.targets = append(p.targets, drawTarget(t, n))
		}
	}
	return p
}

func drawFile(t *rapid.T) (name, text string) {
	name = path.Join(rapid.SampledFrom(folders).Draw(t, "folder"), rapid.SampledFrom(places).Draw(t, "place"))
	if strings.HasSuffix(name, ".json") {
		return name, fmt.Sprintf(`{"used": "%d", "other": %d}`, rapid.IntRange(0, 1).Draw(t, "used"), rapid.IntRange(0, 3).Draw(t, "other"))
	}
	text = fmt.Sprint(rapid.IntRange(0, 3).Draw(t, "text"))
	if rapid.IntRange(0, 3).Draw(t, "mode") == 0 {
		text = "x:" + text
	}
	return name, text
}

func drawWorld(t *rapid.T) *world {
	w := &world{pkgs: map[string]*pkg{}, files: map[string]string{}, comments: map[string]int{}}
	for _, dir := range folders {
		w.files[path.Join(dir, "one.txt")] = "1"
		if dir == "" || rapid.IntRange(0, 3).Draw(t, "package") > 0 {
			w.pkgs[dir] = drawPackage(t)
		}
	}
	for range rapid.IntRange(0, 12).Draw(t, "files") {
		name, text := drawFile(t)
		w.files[name] = text
	}
	return w
}

// edit changes something.
func (w *world) edit(t *rapid.T) {
	dir := rapid.SampledFrom(folders).Draw(t, "where")
	p := w.pkgs[dir]
	one := func() *target {
		if p == nil || len(p.targets) == 0 {
			return nil
		}
		return &p.targets[rapid.IntRange(0, len(p.targets)-1).Draw(t, "target")]
	}
	switch what := rapid.IntRange(0, 16).Draw(t, "edit"); what {
	case 0, 1, 2:
		name, text := drawFile(t)
		w.files[name] = text
	case 3:
		name, _ := drawFile(t)
		delete(w.files, name)
	case 4: // renamed, maybe into another package
		from, _ := drawFile(t)
		to, _ := drawFile(t)
		if text, ok := w.files[from]; ok && path.Ext(from) == path.Ext(to) {
			delete(w.files, from)
			w.files[to] = text
		}
	case 5:
		w.comments[rapid.SampledFrom(append([]string{"WORKSPACE", "cfg", "consts", "macros", "rules"}, folders...)).Draw(t, "file")]++
	case 6:
		w.consts[rapid.IntRange(0, 2).Draw(t, "constant")]++
	case 7:
		w.macro = 1 - w.macro
	case 8:
		w.rule = 1 - w.rule
	case 9:
		w.user++
	case 10:
		w.define = 1 - w.define
	case 11:
		if dir != "" && p != nil {
			delete(w.pkgs, dir)
		} else if p == nil {
			w.pkgs[dir] = drawPackage(t)
		}
	case 12:
		if x := one(); x != nil {
			x.value++
		}
	case 13:
		if x := one(); x != nil {
			x.ignored++
		}
	case 14:
		if x := one(); x != nil {
			*x = drawTarget(t, x.name)
		}
	case 15:
		if p != nil {
			p.glob, p.json = rapid.IntRange(0, len(globs)-1).Draw(t, "glob"), rapid.Bool().Draw(t, "json")
		}
	case 16: // moved to another package, or gone
		if x := one(); x != nil {
			moved := *x
			p.targets = slices.DeleteFunc(p.targets, func(o target) bool { return o.name == moved.name })
			if to := w.pkgs[rapid.SampledFrom(folders).Draw(t, "to")]; to != nil && !slices.ContainsFunc(to.targets, func(o target) bool { return o.name == moved.name }) {
				to.targets = append(to.targets, moved)
			}
		}
	}
}

// A whole is a tree that was loaded whole.
type whole struct {
	tree *memTree
	keys map[string]plan.Key // source keys of all targets
	deps map[string][]graph.Edge
}

func loadWhole(tree *memTree) (*whole, error) {
	l, errs := newLoader(tree)
	if len(errs) > 0 {
		return nil, errs[0]
	}
	everything := []label.Pattern{{Below: true}}
	declared, errs := l.Survey(context.Background(), everything)
	if len(errs) > 0 {
		return nil, errs[0]
	}
	patterns := everything
	for _, d := range declared { // manual ones too
		patterns = append(patterns, label.Pattern{Label: d.Label()})
	}
	res, errs := l.Load(context.Background(), patterns)
	if len(errs) > 0 {
		return nil, errs[0]
	}
	s, err := plan.SourceKeys(res.Graph, tree)
	if err != nil {
		return nil, err
	}
	all := &whole{tree: tree, keys: map[string]plan.Key{}, deps: map[string][]graph.Edge{}}
	for id, k := range s.Targets {
		all.keys[id.Label.String()] = k
		all.deps[id.Label.String()] = res.Graph.Target(id).Deps
	}
	return all, nil
}

func differences(before, after map[string]plan.Key) map[string]affected.Change {
	diff := map[string]affected.Change{}
	for l, k := range after {
		if was, ok := before[l]; !ok {
			diff[l] = affected.Added
		} else if was != k {
			diff[l] = affected.Changed
		}
	}
	for l := range before {
		if _, ok := after[l]; !ok {
			diff[l] = affected.Removed
		}
	}
	return diff
}

// Whatever the packages and the edits: affected is what differs between the source keys of both trees, loaded whole, with a
// memo and without one, there and back. Why names a file that differs, and a way of real edges from there.
func TestFindIsExact(t *testing.T) {
	found := map[affected.Change]int{}
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		before, err := loadWhole(w.tree())
		if err != nil {
			t.Skip("the first tree does not load")
		}
		memo := &affected.Memo{}
		for range rapid.IntRange(1, 3).Draw(t, "revisions") {
			w = w.clone()
			for range rapid.IntRange(0, 4).Draw(t, "edits") {
				w.edit(t)
			}
			after, err := loadWhole(w.tree())
			if err != nil {
				t.Skip("the second tree does not load: " + err.Error())
			}
			for _, find := range []struct {
				name     string
				from, to *whole
				memo     *affected.Memo
			}{
				{"no memo", before, after, nil},
				{"a memo", before, after, memo},
				{"back, with the memo", after, before, memo},
				{"the same memo once more", before, after, reread(t, memo)},
			} {
				res, errs := affected.Find(context.Background(), affected.Options{
					Before: find.from.tree, After: find.to.tree, Memo: find.memo,
					Loader: func(tree workspace.Tree) (*load.Loader, []error) { return newLoader(tree) },
				})
				if len(errs) > 0 {
					t.Fatalf("%s: %v", find.name, errs)
				}
				got := map[string]affected.Change{}
				for _, r := range res.Targets {
					got[r.Label.String()] = r.Change
				}
				if diff := cmp.Diff(differences(find.from.keys, find.to.keys), got); diff != "" {
					t.Fatalf("%s: (-by full keys +found):\n%s\nbefore %s\nafter %s", find.name, diff, dump(find.from.tree), dump(find.to.tree))
				}
				for _, r := range res.Targets {
					found[r.Change]++
				}
				checkWhy(t, res, find.from, find.to)
			}
			before = after
		}
	})
	t.Logf("%v", found)
	for _, c := range []affected.Change{affected.Added, affected.Changed, affected.Removed} {
		if found[c] == 0 {
			t.Errorf("no target was ever %s: the worlds or the edits are wrong", c)
		}
	}
}

func reread(t *rapid.T, m *affected.Memo) *affected.Memo {
	again, err := affected.DecodeMemo(m.Encode())
	if err != nil {
		t.Fatal(err)
	}
	return again
}

// dump shows what a tree has beside what all have.
func dump(m *memTree) string {
	var b strings.Builder
	for _, f := range m.Files() {
		fmt.Fprintf(&b, "-- %s --\n%s\n", f, m.files[f])
	}
	return b.String()
}

// checkWhy holds the reason of every target against the trees: the file differs, the way from there is one of edges, and
// no target where another way begins is nearer. A target on the way may have no actions, and hand on what it is told: it is
// not affected then.
func checkWhy(t *rapid.T, res *affected.Result, before, after *whole) {
	begins := map[string]bool{}
	far := map[string]int{}
	changes := map[string]affected.Change{}
	for _, r := range res.Targets {
		changes[r.Label.String()] = r.Change
	}
	for _, r := range res.Targets {
		c, err := res.Why(context.Background(), r.Label)
		if err != nil {
			t.Fatalf("why %s: %v", r.Label, err)
		}
		bad := func(what string) {
			t.Helper()
			t.Fatalf("%s is %s for %+v: %s\nbefore %s\nafter %s", r.Label, r.Change, c, what, dump(before.tree), dump(after.tree))
		}
		if before.tree.files[c.File] == after.tree.files[c.File] {
			bad("the file does not differ")
		}
		if len(c.Chain) == 0 || c.Chain[len(c.Chain)-1].Label != r.Label || c.Chain[0].Attr != "" {
			bad("the way does not end at the target")
		}
		for i, link := range c.Chain {
			if i > 0 && !slices.ContainsFunc(after.deps[link.Label.String()], func(e graph.Edge) bool {
				return e.To.Label == c.Chain[i-1].Label && e.Attr == link.Attr
			}) {
				bad(fmt.Sprintf("%s does not depend on %s by %s", link.Label, c.Chain[i-1].Label, link.Attr))
			}
		}
		begins[c.Chain[0].Label.String()], far[r.Label.String()] = true, len(c.Chain)-1
	}
	for lab, d := range far {
		if changes[lab] == affected.Removed {
			continue
		}
		if n := nearest(lab, begins, changes, after.deps); n >= 0 && n < d {
			t.Fatalf("%s is %d from where the way begins, and %d from another one\nbefore %s\nafter %s", lab, d, n, dump(before.tree), dump(after.tree))
		}
	}
}

// nearest is how many edges lie between lab and the nearest target of begins, through affected targets.
func nearest(lab string, begins map[string]bool, changes map[string]affected.Change, deps map[string][]graph.Edge) int {
	seen, row := map[string]bool{lab: true}, []string{lab}
	for d := 0; ; d++ {
		var next []string
		for _, l := range row {
			if begins[l] {
				return d
			}
			for _, e := range deps[l] {
				if to := e.To.Label.String(); changes[to] != "" && !seen[to] {
					seen[to] = true
					next = append(next, to)
				}
			}
		}
		if row = next; len(row) == 0 {
			return -1
		}
	}
}
