// Package lint finds what is wrong with BUILD files that build all the same.
//
// Each check has a name, and a section of that name in docs/lint.md. Two read the files as people wrote them; the others compare
// the targets that the files declare with one another and with the tree. A comment "# lint: ignore CHECK" at the end of a line, or
// above what begins on it, silences a check there.
//
// The package reads and computes; [Run] returns what it found and, for what can be fixed without asking, the files as they are to
// become. It writes nothing.
package lint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/graph/label"
	"github.com/mwbuild/mwbuild/internal/workspace"
	"github.com/mwbuild/mwbuild/rules/gen"
	"github.com/mwbuild/mwbuild/starlark/buildfile"
	"github.com/mwbuild/mwbuild/starlark/load"
)

// A Check is one thing that is looked for.
type Check struct {
	Name    string
	Doc     string // in a line
	Fixable bool
}

const (
	deprecatedAttribute = "deprecated-attribute"
	duplicateFile       = "duplicate-file"
	emptyGlob           = "empty-glob"
	missingDep          = "missing-dep"
	unreachableLabel    = "unreachable-label"
	unusedLoad          = "unused-load"
)

// Checks returns all checks, by name.
func Checks() []Check {
	return []Check{
		{deprecatedAttribute, "an attribute that its rule calls deprecated", false},
		{duplicateFile, "files that two components of a package hold", false},
		{emptyGlob, "a pattern of glob() that matches no file", false},
		{missingDep, "a component that a manifest requires or PHP code asks for, and that no attribute names", true},
		{unreachableLabel, "a target that nothing can build but its own name, or visibility for a package that does not exist", false},
		{unusedLoad, "a loaded name that the file does not use", true},
	}
}

// A Tree is the tree that is checked; a workspace.Disk is one.
type Tree interface {
	load.Tree
	Files() []string
}

// Options say what to check.
type Options struct {
	Root     string // of the workspace on disk
	Tree     Tree
	Loader   *load.Loader // of Tree
	Patterns []label.Pattern
	Fix      bool
}

// A Finding is one thing that is wrong.
type Finding struct {
	Check string
	Pos   string // file:line:col
	Label string // the target that it is about, or ""
	Msg   string
	Hint  string // what to do next
	Fixed bool   // by a change of the result
}

// A Change is a file that is to become another.
type Change struct {
	Path     string
	Old, New []byte
}

// A Result is what was found.
type Result struct {
	Findings []Finding // sorted by place
	Changes  []Change  // with Options.Fix: sorted by path
	// Errors are what keeps files from being loaded or read. Where loading failed, only the checks that look at the files alone ran.
	Errors []error
}

// Run checks what the patterns match. Other packages are read too: what uses a target may stand anywhere.
func Run(ctx context.Context, opts Options) (*Result, error) {
	l := &linter{opts: opts, files: map[string]*file{}}
	l.isPkg = map[string]bool{}
	for _, p := range opts.Tree.Packages() {
		l.isPkg[p] = true
	}
	l.parse()
	loaded, err := l.load(ctx)
	if err != nil {
		return nil, err
	}
	l.syntaxChecks()
	if len(l.errs) == 0 {
		l.duplicates(loaded)
		l.declared()
		if err := l.missing(ctx); err != nil {
			return nil, err
		}
	}
	return l.result()
}

// A file is one that people write.
type file struct {
	pkg    string
	build  bool // a BUILD file
	source []byte
	syntax *buildfile.File
}

// A problem is a finding with what fixes it, which tells whether it did, or nil.
type problem struct {
	Finding
	fix func() bool
}

type linter struct {
	opts     Options
	isPkg    map[string]bool
	files    map[string]*file
	targets  []load.Declared
	problems []problem
	errs     []error // of loading
	unread   []error // of .bzl files that cannot be parsed
}

// parse reads all BUILD files, and the .bzl and .star files beside them.
func (l *linter) parse() {
	for pkg := range l.isPkg {
		for _, name := range l.opts.Tree.BuildFiles(pkg) {
			l.files[path.Join(pkg, name)] = &file{pkg: pkg, build: true}
		}
	}
	for _, p := range l.opts.Tree.Files() {
		base := path.Base(p)
		if ext := path.Ext(p); l.files[p] == nil && base != "WORKSPACE.star" && (ext == ".bzl" || ext == ".star") {
			l.files[p] = &file{pkg: l.owner(p)}
		}
	}
	for p, f := range l.files {
		if in, _ := l.opts.Tree.Lookup(p); !f.build && (in.Mode == workspace.Symlink || !l.wantsPackage(f.pkg)) {
			delete(l.files, p)
			continue
		}
		var err error
		if f.source, err = l.opts.Tree.ReadFile(p); err == nil {
			f.syntax, err = buildfile.Parse(p, f.source)
		}
		if err != nil {
			delete(l.files, p)
			// Loading tells of BUILD files that cannot be read.
			if !f.build {
				l.unread = append(l.unread, err)
			}
		}
	}
}

// owner is the package that a file belongs to.
func (l *linter) owner(p string) string {
	for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
		if l.isPkg[dir] {
			return dir
		}
	}
	return ""
}

// load evaluates everything: the targets that patterns build, then those that are manual too.
func (l *linter) load(ctx context.Context) (*graph.Graph, error) {
	if len(l.isPkg) == 0 {
		return graph.New(nil), nil
	}
	all := []label.Pattern{{Below: true}}
	res, errs := l.opts.Loader.Load(ctx, all)
	l.targets = l.opts.Loader.Declared()
	for _, t := range l.targets {
		if t.Manual() {
			all = append(all, label.Pattern{Label: t.Label()})
		}
	}
	if len(errs) == 0 && len(all) > 1 {
		res, errs = l.opts.Loader.Load(ctx, all)
	}
	l.errs = append(l.errs, errs...)
	return res.Graph, ctx.Err()
}

// wantsPackage tells whether the patterns match something of a package.
func (l *linter) wantsPackage(pkg string) bool {
	want := false
	for _, p := range l.opts.Patterns {
		if p.MatchPackage(pkg) && (!p.Negative || !p.One()) {
			want = !p.Negative
		}
	}
	return want
}

// wants tells whether the patterns match a target.
func (l *linter) wants(lab label.Label) bool {
	want := false
	for _, p := range l.opts.Patterns {
		if p.Match(lab) {
			want = !p.Negative
		}
	}
	return want
}

// add notes a problem, unless a comment silences it.
func (l *linter) add(p problem) {
	name, _, _ := splitPos(p.Pos)
	if f := l.files[name]; f != nil && f.syntax.Ignored(p.Check, p.Pos) {
		return
	}
	l.problems = append(l.problems, p)
}

func (l *linter) syntaxChecks() {
	for _, name := range slices.Sorted(maps.Keys(l.files)) {
		f := l.files[name]
		if !l.wantsPackage(f.pkg) {
			continue
		}
		for _, m := range f.syntax.UnusedLoads() {
			l.add(problem{Finding{
				Check: unusedLoad, Pos: m.Pos, Msg: m.Text + " is loaded and not used", Hint: "remove it from the load statement; --fix does",
			}, func() bool { return f.syntax.RemoveLoad(m) }})
		}
		if !f.build {
			continue
		}
		for _, m := range f.syntax.GlobPatterns() {
			// What is wrong with a pattern itself, loading tells.
			if files, err := l.opts.Tree.Glob(f.pkg, []string{m.Text}, nil); err == nil && len(files) == 0 {
				l.add(problem{Finding: Finding{
					Check: emptyGlob, Pos: m.Pos, Msg: fmt.Sprintf("%q matches no file of package //%s", m.Text, f.pkg),
					Hint: "correct it, remove it, or write allow_empty = True if files may come and go",
				}})
			}
		}
		l.visibility(f)
	}
}

// visibility looks for packages that do not exist, in what a BUILD file says itself of who may use a target.
func (l *linter) visibility(f *file) {
	if !f.build {
		return
	}
	for _, r := range f.syntax.Rules() {
		attr := "visibility"
		if r.Kind() == "package" {
			attr = "default_visibility"
		}
		for _, m := range r.StringsAt(attr) {
			lab, err := label.Parse(m.Text, f.pkg)
			if err != nil || lab.Pkg == "visibility" {
				continue
			}
			exists := l.isPkg[lab.Pkg]
			if lab.Name == "__subpackages__" {
				exists = slices.ContainsFunc(slices.Collect(maps.Keys(l.isPkg)), label.Pattern{Label: label.Label{Pkg: lab.Pkg}, Below: true}.MatchPackage)
			} else if lab.Name != "__pkg__" {
				continue // an error of loading
			}
			finding := Finding{
				Check: unreachableLabel, Pos: m.Pos, Msg: fmt.Sprintf("there is no package //%s, so %s lets nobody in", lab.Pkg, m.Text),
				Hint: "correct it or remove it",
			}
			if r.Kind() != "package" && r.Name() != "" {
				self := label.Label{Pkg: f.pkg, Name: r.Name()}
				if finding.Label = self.String(); !l.wants(self) {
					continue
				}
			}
			if !exists {
				l.add(problem{Finding: finding})
			}
		}
	}
}

// componentKind is the rule that makes the layer of a component.
const componentKind = "mw_component"

// duplicates looks for files that two components pack.
func (l *linter) duplicates(g *graph.Graph) {
	pos := map[label.Label]string{}
	for _, t := range l.targets {
		pos[t.Label()] = t.Pos("")
	}
	first := map[string]label.Label{} // file to the component that holds it
	for _, t := range g.Targets() {
		if t.Kind != componentKind {
			continue
		}
		both := map[label.Label][]string{}
		for _, n := range t.Actions {
			layer, ok := n.Do.(*action.Layer)
			if !ok {
				continue
			}
			for _, e := range layer.Entries {
				if e.File == "" {
					continue
				}
				if other, ok := first[e.File]; ok && other != t.Label {
					both[other] = append(both[other], e.File)
				} else {
					first[e.File] = t.Label
				}
			}
		}
		if !l.wants(t.Label) {
			continue
		}
		for _, other := range slices.SortedFunc(maps.Keys(both), label.Label.Compare) {
			files := slices.Sorted(slices.Values(both[other]))
			what := files[0] + " is"
			if len(files) > 1 {
				what = fmt.Sprintf("%s and %d more files are", files[0], len(files)-1)
			}
			l.add(problem{Finding: Finding{
				Check: duplicateFile, Pos: pos[t.Label], Label: t.Label.String(), Msg: fmt.Sprintf("%s in %s too", what, other),
				Hint: "give each its own srcs, or leave files out of one of them with exclude",
			}})
		}
	}
}

// declared looks at what the targets say themselves, and at who uses them.
func (l *linter) declared() {
	used := map[label.Label]bool{}
	for _, t := range l.targets {
		for _, lab := range t.Uses() {
			used[lab] = used[lab] || lab != t.Label()
		}
	}
	type place struct{ pos, attr string }
	seen := map[place]bool{}
	for _, t := range l.targets {
		if !l.wants(t.Label()) {
			continue
		}
		use := t.Deprecated()
		for _, attr := range slices.Sorted(maps.Keys(use)) {
			// A macro may hand one attribute to several targets.
			at := place{t.Pos(attr), attr}
			if seen[at] {
				continue
			}
			seen[at] = true
			l.add(problem{Finding: Finding{
				Check: deprecatedAttribute, Pos: at.pos, Label: t.Label().String(), Msg: fmt.Sprintf("attribute %s of %s is deprecated", attr, t.Kind()), Hint: use[attr],
			}})
		}
		if t.Manual() && !used[t.Label()] && !l.visibleElsewhere(t) {
			l.add(problem{Finding: Finding{
				Check: unreachableLabel, Pos: t.Pos(""), Label: t.Label().String(),
				Msg:  "no target uses it, no other package may, and the tag \"manual\" keeps it out of patterns",
				Hint: "remove it or its tag, or let others use it with visibility",
			}})
		}
	}
}

func (l *linter) visibleElsewhere(t load.Declared) bool {
	for pkg := range l.isPkg {
		if pkg != t.Label().Pkg && t.VisibleFrom(pkg) {
			return true
		}
	}
	return false
}

// missing compares what the tree says that components depend on with what their targets say.
func (l *linter) missing(ctx context.Context) error {
	components, err := gen.Infer(ctx, gen.Options{Root: l.opts.Root, Tree: l.opts.Tree})
	if err != nil {
		return err
	}
	byLabel := map[label.Label]load.Declared{}
	for _, t := range l.targets {
		byLabel[t.Label()] = t
	}
	for _, c := range components {
		t, ok := byLabel[c.Label]
		if !ok || !l.wants(c.Label) || t.Kind() != componentKind {
			continue
		}
		has := map[label.Label]bool{}
		have := func(attr string) {
			for _, s := range t.Strings(attr) {
				if lab, err := label.Parse(s, c.Label.Pkg); err == nil {
					has[lab] = true
				}
			}
		}
		have("deps")
		l.lacking(t, "deps", "required", c.Deps, has)
		have("soft_deps")
		l.lacking(t, "soft_deps", "asked for", c.SoftDeps, has)
	}
	return nil
}

func (l *linter) lacking(t load.Declared, attr, why string, want []gen.Dependency, has map[label.Label]bool) {
	for _, d := range want {
		if has[d.Label] {
			continue
		}
		l.add(problem{Finding{
			Check: missingDep, Pos: t.Pos(attr), Label: t.Label().String(), Msg: fmt.Sprintf("%s lacks %s, which is %s at %s", attr, short(d.Label), why, d.Pos),
			Hint: fmt.Sprintf("add it to %s; --fix does", attr),
		}, func() bool { return l.addDep(t.Label(), attr, short(d.Label)) }})
	}
}

// addDep writes a dependency as gen does.
func (l *linter) addDep(of label.Label, attr, dep string) bool {
	for _, f := range l.files {
		if !f.build || f.pkg != of.Pkg {
			continue
		}
		for _, r := range f.syntax.Rules() {
			if r.Name() != of.Name {
				continue
			}
			if r.EditList(attr, buildfile.ListEdit{Want: []string{dep}, Stale: func(string) bool { return false }}) != buildfile.Current {
				return false
			}
			if attr == "deps" && r.Has("soft_deps") {
				r.EditList("soft_deps", buildfile.ListEdit{Stale: func(s string) bool {
					a, err := label.Parse(s, of.Pkg)
					b, _ := label.Parse(dep, "")
					return err == nil && a == b
				}})
			}
			return true
		}
	}
	return false
}

// short is a label as BUILD files write it.
func short(l label.Label) string {
	if l.Name == path.Base(l.Pkg) {
		return "//" + l.Pkg
	}
	return l.String()
}

// result fixes what is to be fixed and puts everything in order.
func (l *linter) result() (*Result, error) {
	slices.SortStableFunc(l.problems, func(a, b problem) int { return compareFindings(a.Finding, b.Finding) })
	res := &Result{Errors: slices.Clone(l.errs)}
	for _, err := range l.unread {
		// Where something loads the file, loading told.
		name, _, _ := strings.Cut(err.Error(), ":")
		if !slices.ContainsFunc(l.errs, func(e error) bool { return strings.HasPrefix(e.Error(), name+":") }) {
			res.Errors = append(res.Errors, err)
		}
	}
	for _, p := range l.problems {
		if l.opts.Fix && p.fix != nil {
			p.Fixed = p.fix()
		}
		res.Findings = append(res.Findings, p.Finding)
	}
	slices.SortFunc(res.Errors, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(l.files)) {
		f := l.files[name]
		if !f.syntax.Changed() {
			continue
		}
		src, err := f.syntax.Bytes()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		res.Changes = append(res.Changes, Change{name, f.source, src})
	}
	return res, errors.Join(errs...)
}

// compareFindings orders findings by file, line, column and check.
func compareFindings(a, b Finding) int {
	fileA, lineA, colA := splitPos(a.Pos)
	fileB, lineB, colB := splitPos(b.Pos)
	return cmp.Or(strings.Compare(fileA, fileB), cmp.Compare(lineA, lineB), cmp.Compare(colA, colB),
		strings.Compare(a.Check, b.Check), strings.Compare(a.Label, b.Label), strings.Compare(a.Msg, b.Msg))
}

// splitPos takes file:line:col apart.
func splitPos(pos string) (file string, line, col int) {
	parts := strings.Split(pos, ":")
	if n := len(parts); n >= 3 {
		line, _ = strconv.Atoi(parts[n-2])
		col, _ = strconv.Atoi(parts[n-1])
		return strings.Join(parts[:n-2], ":"), line, col
	}
	return pos, 0, 0
}
