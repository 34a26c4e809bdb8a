// Package gen writes the BUILD files of a MediaWiki tree from what the tree says already: the manifests of extensions and skins,
// and the PHP code that asks whether another one is loaded.
//
// A component is a folder extensions/X or skins/X with a manifest, extension*.json or skin.json; several manifests in one folder
// are one component. Its rule gets
//
//   - manifests: those files;
//   - deps: the components that requires.extensions and requires.skins name. Names are those that manifests give themselves, which
//     folders need not have;
//   - soft_deps: the components that its PHP code, tests left out, asks for with isLoaded( 'Name' ), and that are not among deps.
//
// Beside the components there are vendor and, at the root, core, an image of everything and, where core is there, what everything
// says in every language, compiled, in files that are written where there are none. test_deps and all other attributes are people's.
//
// What people wrote stays: see [github.com/mwbuild/mwbuild/starlark/buildfile] for comments that keep things. A rule is matched by its
// manifests, else it is the only one of its kind in the package, so it may have another name; labels follow it. A component that
// has no manifest any more loses its rule, and a BUILD file with nothing left in it but package() is deleted. A component that
// people declare by a macro of their own is left to them.
//
// The package reads and computes; [Generate] returns what is to be written and writes nothing. It does not read composer.json and
// package.json: there are no attributes yet for what they say.
package gen

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/label"
	"github.com/mwbuild/mwbuild/internal/workspace"
	"github.com/mwbuild/mwbuild/starlark/buildfile"
)

// A Tree is the tree that BUILD files are made for; a workspace.Tree is one.
type Tree interface {
	Files() []string
	Lookup(path string) (workspace.File, bool)
	ReadFile(path string) ([]byte, error)
}

// Options say what to generate.
type Options struct {
	// Root is where the tree lies on disk. A file there that the tree does not show, as when git ignores it, is never replaced.
	Root string
	Tree Tree
	// Folders restricts what is written to files in and below them. They are relative to the root, slash-separated; "" is the
	// root. None means everything.
	Folders []string
}

// A Change is a file that is to become another.
type Change struct {
	Path     string
	Old, New []byte // nil: there is no file
}

// A Missing is a name that no component of the tree has.
type Missing struct {
	Name     string
	Required []string // places of the manifests that require it, as file:line:col
	Asked    []string // places of the PHP code that asks for it
}

// A Result is what Generate found.
type Result struct {
	Components int       // extensions, skins and vendor
	Changes    []Change  // sorted by path
	Missing    []Missing // sorted by name
	Notes      []string  // what people should know, sorted
	Errors     []error   // what could not be read; everything else is in Changes all the same. Sorted.
}

// Generate returns what the BUILD files are to become. The error is one that ended it; what is wrong in single files is in the
// result.
func Generate(ctx context.Context, opts Options) (*Result, error) {
	g, err := inspect(ctx, opts)
	if err != nil {
		return nil, err
	}
	for _, c := range g.components {
		if g.selected(c.folder) {
			g.update(c)
		}
	}
	g.root()
	return g.result(), nil
}

// inspect reads everything that the tree says.
func inspect(ctx context.Context, opts Options) (*generator, error) {
	g := &generator{opts: opts, tree: opts.Tree, byFolder: map[string]*component{}, byName: map[string][]*component{}}
	g.list()
	if err := g.parallel(ctx, g.components, func(c *component) error { return g.read(ctx, c) }); err != nil {
		return nil, err
	}
	g.index()
	var scan []*component
	for _, c := range g.components {
		if c.kind != vendorKind && !c.broken && g.selected(c.folder) {
			scan = append(scan, c)
		}
	}
	if err := g.parallel(ctx, scan, func(c *component) error { return g.scan(ctx, c) }); err != nil {
		return nil, err
	}
	return g, nil
}

// A component is a folder that is one, was one, or has a rule that says so.
type component struct {
	kind   string // kind of its rule
	folder string
	files  []string // all, sorted

	manifests []string // names of its manifests in folder
	parsed    []*manifest
	nested    []*manifest // of folders in it: names, and nothing else, that it has too
	broken    bool        // something could not be read: its BUILD file stays as it is
	build     string      // path of its BUILD file, "" if there is none
	source    []byte      // of build
	file      *buildfile.File
	rule      *buildfile.Rule // its own in file, or nil
	theirs    bool            // declared by people, out of reach
	target    string          // name of its target

	uses []want // what its PHP code asks for

	errs  []error
	notes []string
}

const (
	extensionKind = "mw_extension"
	skinKind      = "mw_skin"
	vendorKind    = "mw_vendor"
	coreKind      = "mw_core"
	imageKind     = "mw_image"
	l10nKind      = "mw_l10n"
)

// gone tells whether nothing makes the folder a component any more.
func (c *component) gone() bool {
	if c.kind == vendorKind {
		return len(c.files) == 0 || len(c.files) == 1 && c.files[0] == c.build
	}
	return len(c.manifests) == 0
}

func (c *component) label() string {
	if c.target == path.Base(c.folder) {
		return "//" + c.folder
	}
	return label.Label{Pkg: c.folder, Name: c.target}.String()
}

func (c *component) fail(err error) {
	c.broken = true
	c.errs = append(c.errs, err)
}

type generator struct {
	opts       Options
	tree       Tree
	isCore     bool
	components []*component // sorted as a wiki lists them
	byFolder   map[string]*component
	byName     map[string][]*component
	changes    []Change
	notes      []string
	errs       []error
}

// parallel calls f for several components at once. f touches its own component only.
func (g *generator) parallel(ctx context.Context, cs []*component, f func(*component) error) error {
	var eg errgroup.Group
	eg.SetLimit(runtime.GOMAXPROCS(0))
	for _, c := range cs {
		if ctx.Err() != nil {
			break
		}
		eg.Go(func() error { return f(c) })
	}
	return cmp.Or(eg.Wait(), ctx.Err())
}

// selected tells whether files of a folder are to be written.
func (g *generator) selected(folder string) bool {
	if len(g.opts.Folders) == 0 {
		return true
	}
	return slices.ContainsFunc(g.opts.Folders, func(f string) bool {
		return f == "" || folder == f || strings.HasPrefix(folder, f+"/")
	})
}

// list finds the folders that are or were components, from the names of files.
func (g *generator) list() {
	kinds := map[string]string{"extensions": extensionKind, "skins": skinKind}
	includes, index := false, false
	for _, f := range g.tree.Files() {
		switch {
		case f == "includes/Defines.php":
			g.isCore = true
		case f == "index.php":
			index = true
		case strings.HasPrefix(f, "includes/"):
			includes = true
		}
		top, rest, ok := strings.Cut(f, "/")
		if !ok {
			continue
		}
		name, inside, ok := strings.Cut(rest, "/")
		folder, kind := top+"/"+name, kinds[top]
		if top == "vendor" {
			folder, kind, inside = top, vendorKind, rest
		} else if kind == "" || !ok {
			continue
		}
		c := g.byFolder[folder]
		if c == nil {
			c = &component{kind: kind, folder: folder, target: path.Base(folder)}
			g.byFolder[folder] = c
		}
		c.files = append(c.files, f)
		if kind != vendorKind && isManifest(inside) {
			c.manifests = append(c.manifests, inside)
		}
	}
	g.isCore = g.isCore || includes && index
	g.components = slices.SortedFunc(maps.Values(g.byFolder), func(a, b *component) int { return compareFolders(a.folder, b.folder) })
}

// isManifest tells whether a name is that of a manifest.
func isManifest(name string) bool {
	return name == "skin.json" || strings.HasPrefix(name, "extension") && strings.HasSuffix(name, ".json") && !strings.Contains(name, "/")
}

// compareFolders orders packages as a wiki lists them: extensions, skins, everything else.
func compareFolders(a, b string) int {
	rank := func(s string) int {
		switch {
		case strings.HasPrefix(s, "extensions/"):
			return 0
		case strings.HasPrefix(s, "skins/"):
			return 1
		}
		return 2
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a, b))
}

var buildNames = []string{"BUILD", "BUILD.star"}

// read reads a component's manifests and its BUILD file.
func (g *generator) read(ctx context.Context, c *component) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	names := c.manifests
	c.manifests = nil
	for _, name := range names {
		m, err := g.manifest(c.folder + "/" + name)
		switch {
		case err != nil:
			c.manifests = append(c.manifests, name)
			c.fail(err)
		case m.name == "" && !m.version && name != "extension.json" && name != "skin.json":
			// Some other file, such as extension-schema.json.
		case m.name == "":
			c.manifests = append(c.manifests, name)
			c.fail(&graph.Error{Pos: m.path + ":1:1", Msg: "the manifest has no name", Hints: []string{"MediaWiki wants one too: add \"name\""}})
		default:
			c.manifests = append(c.manifests, name)
			c.parsed = append(c.parsed, m)
		}
	}
	if len(c.manifests) > 0 {
		for _, f := range c.files {
			sub, name := path.Split(strings.TrimPrefix(f, c.folder+"/"))
			if strings.Count(sub, "/") != 1 || !isManifest(name) || passedOver(sub) {
				continue
			}
			m, err := g.manifest(f)
			if err != nil {
				c.errs = append(c.errs, err)
			} else if m.name != "" {
				c.nested = append(c.nested, m)
			}
		}
	}
	g.readBuild(c)
	if err := checkFolder(c.folder, c.target); err != nil && !c.gone() {
		c.fail(err)
	}
	return nil
}

func (g *generator) manifest(file string) (*manifest, error) {
	src, err := g.tree.ReadFile(file)
	if err != nil {
		return nil, &graph.Error{Pos: file, Msg: err.Error(), Err: err}
	}
	return parseManifest(file, src)
}

// readBuild finds the BUILD file and the component's rule in it.
func (g *generator) readBuild(c *component) {
	for _, name := range buildNames {
		p := c.folder + "/" + name
		f, ok := g.tree.Lookup(p)
		if !ok {
			continue
		}
		if f.Mode == workspace.Symlink {
			c.fail(&graph.Error{Pos: p, Msg: "is a symlink, which is never written through", Hints: []string{"put a file in its place"}})
			return
		}
		if c.build != "" {
			c.fail(&graph.Error{Pos: p, Msg: fmt.Sprintf("package //%s has both %s", c.folder, strings.Join(buildNames, " and ")), Hints: []string{"keep one of them"}})
			return
		}
		c.build = p
	}
	if c.build == "" {
		return
	}
	var err error
	if c.source, err = g.tree.ReadFile(c.build); err != nil {
		c.fail(&graph.Error{Pos: c.build, Msg: err.Error(), Err: err})
		return
	}
	if c.file, err = parseBuild(c.build, c.source); err != nil {
		c.fail(err)
		return
	}
	c.match()
}

func parseBuild(file string, src []byte) (*buildfile.File, error) {
	f, err := buildfile.Parse(file, src)
	var serr *buildfile.SyntaxError
	if errors.As(err, &serr) {
		return nil, &graph.Error{Pos: fmt.Sprintf("%s:%d:%d", serr.File, serr.Line, serr.Col), Msg: serr.Msg, Err: err}
	}
	return f, err
}

// ours tells whether a kind of rule can be the component's own.
func (c *component) ours(kind string) bool {
	if c.kind == vendorKind {
		return kind == vendorKind
	}
	return kind == extensionKind || kind == skinKind
}

// match finds the rule that is the component's, by its manifests, else as the only one of its kind.
func (c *component) match() {
	var candidates, named []*buildfile.Rule
	for _, r := range c.file.Rules() {
		if c.ours(r.Kind()) {
			candidates = append(candidates, r)
			if c.shares(r) {
				named = append(named, r)
			}
		}
	}
	for _, rs := range [][]*buildfile.Rule{named, candidates} {
		i := slices.IndexFunc(rs, func(r *buildfile.Rule) bool { return r.Name() == c.target })
		switch {
		case len(rs) > 0 && i >= 0:
			c.rule = rs[i]
		case len(rs) == 1, len(rs) > 1 && len(named) > 0:
			c.rule = rs[0]
		}
		if c.rule != nil {
			break
		}
	}
	if c.rule != nil {
		c.target = cmp.Or(c.rule.Name(), c.target)
		return
	}
	if c.kind == vendorKind {
		return
	}
	// Perhaps people declare it in a way of their own.
	if c.file.Hidden(extensionKind) || c.file.Hidden(skinKind) {
		c.theirs = true
		return
	}
	for _, r := range c.file.Rules() {
		if !c.ours(r.Kind()) && (r.Name() == c.target || c.shares(r) && r.Has("manifests")) {
			c.theirs = true
			c.target = cmp.Or(r.Name(), c.target)
			return
		}
	}
}

// shares tells whether a rule names one of the component's manifests.
func (c *component) shares(r *buildfile.Rule) bool {
	if !r.Has("manifests") {
		return slices.Contains(c.manifests, defaultManifest(r.Kind()))
	}
	return slices.ContainsFunc(r.Strings("manifests"), func(s string) bool {
		return slices.Contains(c.manifests, strings.TrimPrefix(s, ":"))
	})
}

// outlived tells whether all manifests that a rule names are gone.
func (c *component) outlived(r *buildfile.Rule) bool {
	names := r.Strings("manifests")
	return len(names) > 0 && !c.shares(r) && !slices.ContainsFunc(names, func(n string) bool { return strings.ContainsAny(n, "*?[{") })
}

func defaultManifest(kind string) string {
	if kind == skinKind {
		return "skin.json"
	}
	return "extension.json"
}

// index maps names to components. A name that two components have in the same right is that of the one whose folder is called
// so, else of neither.
func (g *generator) index() {
	add := func(name string, c *component) {
		if !slices.Contains(g.byName[name], c) {
			g.byName[name] = append(g.byName[name], c)
		}
	}
	for _, c := range g.components {
		for _, m := range c.parsed {
			add(m.name, c)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(g.byName)) {
		cs := g.byName[name]
		if len(cs) == 1 {
			continue
		}
		var folders []string
		for _, c := range cs {
			folders = append(folders, c.folder)
		}
		note := fmt.Sprintf("%s all have the name %q: what wants it gets no dependency on any", strings.Join(folders, ", "), name)
		if i := slices.IndexFunc(cs, func(c *component) bool { return path.Base(c.folder) == name }); i >= 0 {
			g.byName[name] = cs[i : i+1]
			note = fmt.Sprintf("%s all have the name %q: what wants it gets %s, whose folder is called so", strings.Join(folders, ", "), name, folders[i])
		}
		g.notes = append(g.notes, note)
	}
	// A folder's own name and those of manifests in folders below it come after.
	for _, c := range g.components {
		for _, m := range c.nested {
			if len(g.byName[m.name]) == 0 {
				add(m.name, c)
			}
		}
	}
	for _, c := range g.components {
		// Until it can be read, one may assume that it is called as its folder is.
		if base := path.Base(c.folder); c.broken && len(c.manifests) > 0 && len(g.byName[base]) == 0 {
			add(base, c)
		}
	}
}

// resolve returns the component that a name means; known tells whether there is one at all.
func (g *generator) resolve(name string) (c *component, known bool) {
	cs := g.byName[name]
	if len(cs) == 1 {
		return cs[0], true
	}
	return nil, len(cs) > 0
}

// passedOver tells whether a folder, relative to a component, holds nothing that runs with it: tests, other people's code, and
// hidden folders. dir ends with a slash or is empty.
func passedOver(dir string) bool {
	for elem := range strings.SplitSeq(dir, "/") {
		if elem == "tests" || elem == "vendor" || elem == "node_modules" || strings.HasPrefix(elem, ".") {
			return true
		}
	}
	return false
}

// scan reads what a component's PHP code asks for.
func (g *generator) scan(ctx context.Context, c *component) error {
	for _, f := range c.files {
		dir, name := path.Split(strings.TrimPrefix(f, c.folder+"/"))
		if path.Ext(name) != ".php" || passedOver(dir) {
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		// A symlink shows a file that is read where it lies, or that is none of the component's.
		if file, ok := g.tree.Lookup(f); !ok || file.Mode == workspace.Symlink {
			continue
		}
		src, err := g.tree.ReadFile(f)
		if err != nil {
			c.fail(&graph.Error{Pos: f, Msg: err.Error(), Err: err})
			return nil
		}
		for _, u := range isLoadedCalls(src) {
			c.uses = append(c.uses, want{u.name, position(f, src, u.offset)})
		}
	}
	return nil
}

// hard returns the labels of the components that c requires, sorted.
func (g *generator) hard(c *component) []string {
	var wants []want
	for _, m := range c.parsed {
		wants = append(wants, m.requires...)
	}
	return g.labels(c, wants)
}

func (g *generator) labels(c *component, wants []want) []string {
	var labels []string
	for _, w := range wants {
		to, _ := g.resolve(w.name)
		if to == nil || to == c || to.broken && to.rule == nil {
			continue // the label of what has no rule that could be read is unknown
		}
		labels = append(labels, to.label())
	}
	slices.Sort(labels)
	return slices.Compact(labels)
}

// stale tells whether a label in a list may go. A label of a component that cannot be read may not: what it is called is
// unknown.
func (g *generator) stale(pkg string) func(string) bool {
	return func(s string) bool {
		l, err := label.Parse(s, pkg)
		if err != nil {
			return true
		}
		c := g.byFolder[l.Pkg]
		return c == nil || !c.broken
	}
}

// update brings the BUILD file of a component up to date.
func (g *generator) update(c *component) {
	if c.broken || c.theirs {
		return
	}
	if c.gone() {
		g.retire(c)
		return
	}
	if c.kind == vendorKind && !g.isCore && c.build == "" {
		return
	}
	switch {
	case c.build == "":
		if err := g.create(c); err != nil {
			c.fail(err)
			return
		}
	case c.rule == nil:
		if c.kind == vendorKind {
			return
		}
		if err := g.declare(c, false); err != nil {
			c.fail(err)
			return
		}
	}
	if c.kind != vendorKind {
		g.edit(c)
	}
	g.finish(c)
}

// checkFolder tells why a folder cannot be a package, or its name not that of a component's target.
func checkFolder(folder, target string) error {
	err := &graph.Error{Pos: folder}
	switch {
	case !utf8.ValidString(folder):
		err.Pos, err.Msg = strings.ToValidUTF8(folder, "\ufffd"), "a folder's name that is not UTF-8 cannot be a package's"
	case target == "image" || target == l10nName:
		err.Msg = fmt.Sprintf("a component called %q has no room for its target :%s", target, target)
		err.Hints = []string{"write its rule by hand, under another name"}
	default:
		if _, e := label.Parse("//"+folder+":"+target, ""); e != nil {
			err.Msg, err.Err = e.Error(), e
			break
		}
		return nil
	}
	if err.Hints == nil {
		err.Hints = []string{"rename the folder, or name it in .mwbuildignore"}
	}
	return err
}

// create begins the BUILD file of a component that has none.
func (g *generator) create(c *component) error {
	file, err := g.newBuild(c.folder)
	if err != nil {
		return err
	}
	c.build = file
	if c.file, err = buildfile.Parse(file, nil); err != nil {
		return err
	}
	return g.declare(c, true)
}

const public = "//visibility:public"

// declare adds the component's rule to its file. Where there is no rule yet, the package is public, else the rule alone.
func (g *generator) declare(c *component, create bool) error {
	src := fmt.Sprintf("%s(\n    name = %s,\n)\n", c.kind, quote(c.target))
	if c.kind == vendorKind {
		src = fmt.Sprintf("%s(name = %s)\n", c.kind, quote(c.target))
	}
	if create || c.file.NoRules() {
		if err := c.file.Append(fmt.Sprintf("package(default_visibility = [%q])\n", public)); err != nil {
			return err
		}
	} else if !hasPackage(c.file) {
		src = fmt.Sprintf("%s(\n    name = %s,\n    visibility = [%q],\n)\n", c.kind, quote(c.target), public)
	}
	if err := c.file.Append(src); err != nil {
		return err
	}
	rules := c.file.Rules()
	c.rule = rules[len(rules)-1]
	if c.kind != vendorKind {
		c.rule.EditList("manifests", buildfile.ListEdit{Want: c.manifests})
	}
	return nil
}

func hasPackage(f *buildfile.File) bool {
	return slices.ContainsFunc(f.Rules(), func(r *buildfile.Rule) bool { return r.Kind() == "package" })
}

// quote returns a string in Starlark. A folder's name holds neither quotes nor backslashes, which no label may.
func quote(s string) string { return `"` + s + `"` }

// edit brings the component's rule up to date, and removes rules of manifests that are gone.
func (g *generator) edit(c *component) {
	for _, r := range c.file.Rules() {
		if c.ours(r.Kind()) && !r.Is(c.rule) && !r.Keep() && c.outlived(r) {
			c.file.Remove(r)
		}
	}
	if c.rule.Keep() {
		return
	}
	if c.rule.Kind() != c.kind {
		c.rule.SetKind(c.kind)
	}
	if c.rule.Has("manifests") || !slices.Equal(c.manifests, []string{defaultManifest(c.kind)}) {
		c.rule.EditList("manifests", buildfile.ListEdit{Want: c.manifests})
	}
	hard := g.hard(c)
	soft := slices.DeleteFunc(g.labels(c, c.uses), func(l string) bool { return slices.Contains(hard, l) })
	g.setDeps(c, "soft_deps", soft)
	g.setDeps(c, "deps", hard)
}

func (g *generator) setDeps(c *component, attr string, want []string) {
	if c.rule.EditList(attr, buildfile.ListEdit{Want: want, Stale: g.stale(c.folder)}) == buildfile.Opaque {
		c.notes = append(c.notes, fmt.Sprintf("%s: %s is an expression, which is left as it is; it lacks one of %s",
			c.rule.AttrPos(attr), attr, strings.Join(want, ", ")))
	}
}

// retire removes the rules of a component that went away.
func (g *generator) retire(c *component) {
	if c.file == nil {
		return
	}
	for _, r := range c.file.Rules() {
		if c.ours(r.Kind()) && !r.Keep() {
			c.file.Remove(r)
		}
	}
	g.finish(c)
}

// finish notes what becomes of a component's BUILD file.
func (g *generator) finish(c *component) {
	if !c.file.Changed() {
		return
	}
	if c.gone() && c.file.Bare() {
		g.changes = append(g.changes, Change{c.build, c.source, nil})
		return
	}
	g.change(c.build, c.source, c.file)
}

func (g *generator) change(file string, old []byte, f *buildfile.File) {
	src, err := f.Bytes()
	if err != nil {
		g.errs = append(g.errs, err)
		return
	}
	g.changes = append(g.changes, Change{file, old, src})
}

// newBuild returns the path of the BUILD file that a folder is to have. Where something else has the name BUILD, in any case, it
// is BUILD.star: on disks that fold case the two would be one.
func (g *generator) newBuild(folder string) (string, error) {
	entries, err := os.ReadDir(filepath.Join(g.opts.Root, filepath.FromSlash(folder)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	file := path.Join(folder, "BUILD")
	for _, e := range entries {
		if slices.Contains(buildNames, e.Name()) && !e.IsDir() {
			return "", hidden(path.Join(folder, e.Name()))
		}
		if strings.EqualFold(e.Name(), "BUILD") {
			file = path.Join(folder, "BUILD.star")
		}
	}
	return file, nil
}

// hidden is the error for a file on disk that the tree does not show.
func hidden(file string) error {
	return &graph.Error{
		Pos: file, Msg: "is there, but no part of the workspace, so it is not replaced",
		Hints: []string{"make git and .mwbuildignore not ignore it, or remove it"},
	}
}

func (g *generator) result() *Result {
	r := &Result{Changes: g.changes, Notes: g.notes, Errors: g.errs}
	missing := map[string]*Missing{}
	at := func(name string) *Missing {
		if missing[name] == nil {
			missing[name] = &Missing{Name: name}
		}
		return missing[name]
	}
	for _, c := range g.components {
		if g.inWiki(c) {
			r.Components++
		}
		r.Errors = append(r.Errors, c.errs...)
		r.Notes = append(r.Notes, c.notes...)
		if !g.selected(c.folder) {
			continue
		}
		for _, m := range c.parsed {
			for _, w := range m.requires {
				if _, known := g.resolve(w.name); !known {
					at(w.name).Required = append(at(w.name).Required, w.at)
				}
			}
		}
		for _, w := range c.uses {
			if _, known := g.resolve(w.name); !known {
				at(w.name).Asked = append(at(w.name).Asked, w.at)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		r.Missing = append(r.Missing, *missing[name])
	}
	slices.SortFunc(r.Changes, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	slices.SortFunc(r.Errors, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	slices.Sort(r.Notes)
	return r
}
