// Package affected finds the targets that differ between two trees, and why.
//
// A target is affected when its source key ([plan.SourceKeys]) differs. The key of a target holds those of its
// dependencies, so most targets need no key at all to be decided: one that names a file whose bytes differ is affected, and
// so is what depends on an affected one without having changed itself. Keys are computed, in both trees, for what is left:
// targets whose attributes or rule differ, or whose rule reads files, and what these may reach without being affected.
//
// Packages are evaluated only where their inputs differ between the trees, or from what is remembered ([load.Outline]).
package affected

import (
	"cmp"
	"context"
	"errors"
	"path"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/mwbuild/mwbuild/build/plan"
	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/graph/label"
	"github.com/mwbuild/mwbuild/internal/workspace"
	"github.com/mwbuild/mwbuild/starlark/load"
)

// Options are the trees to compare and how to load them.
type Options struct {
	Before, After workspace.Tree
	// Unknown are paths of which only this is known: something at or below them differs. A submodule that is not checked
	// out is one.
	Unknown []string
	// Loader makes a loader of one of the trees.
	Loader func(tree workspace.Tree) (*load.Loader, []error)
	// Memo holds what Find learned before, or nothing, and then what it knows now. It may be nil.
	Memo *Memo
}

// A Change is what happened to a target.
type Change string

const (
	Added   Change = "added"
	Changed Change = "changed"
	Removed Change = "removed"
)

// A Target is one that differs.
type Target struct {
	Label  label.Label
	Kind   string
	Tags   []string
	Change Change
}

// Result is what [Find] found.
type Result struct {
	Targets []Target // sorted by label
	Loaded  int      // how many packages were evaluated, in either tree

	find *finder
}

// Find returns the targets that differ between the trees. A package of the tree before that cannot be evaluated counts as
// empty; one of the tree after is an error, and so is a target there that cannot be analysed, unless it is tagged manual.
func Find(ctx context.Context, opts Options) (*Result, []error) {
	if opts.Memo == nil {
		opts.Memo = &Memo{}
	}
	f := &finder{ctx: ctx, opts: opts, before: &side{tree: opts.Before}, after: &side{tree: opts.After}}
	f.before.make, f.after.make = opts.Loader, opts.Loader
	if errs := f.outline(); len(errs) > 0 {
		return nil, errs
	}
	if err := f.compareFiles(); err != nil {
		return nil, []error{err}
	}
	f.compareTargets()
	if errs := f.order(); len(errs) > 0 {
		return nil, errs
	}
	if errs := f.decide(); len(errs) > 0 {
		return nil, errs
	}
	return f.result(), nil
}

// A side is one of the two trees.
type side struct {
	tree     workspace.Tree
	make     func(workspace.Tree) (*load.Loader, []error)
	loader   *load.Loader // once something had to be evaluated
	errs     []error
	env      [32]byte
	outlines map[string]*load.Outline
	nodes    []node
	first    map[string]int32              // by package: its first node
	targets  map[label.Label]*graph.Target // those whose keys were wanted
}

func (s *side) load() (*load.Loader, []error) {
	if s.loader == nil && s.errs == nil {
		s.loader, s.errs = s.make(s.tree)
	}
	return s.loader, s.errs
}

// A node is a target of one tree.
type node struct {
	pkg string
	*load.OutlineTarget
}

func (n node) manual() bool { return slices.Contains(n.Tags, "manual") }

func (n node) label() label.Label { return label.Label{Pkg: n.pkg, Name: n.Name} }

// flatten numbers the targets, in order of label.
func (s *side) flatten() {
	s.first = make(map[string]int32, len(s.outlines))
	n := 0
	for _, o := range s.outlines {
		n += len(o.Targets)
	}
	s.nodes = make([]node, 0, n)
	for _, pkg := range s.tree.Packages() {
		o := s.outlines[pkg]
		if o == nil {
			continue
		}
		s.first[pkg] = int32(len(s.nodes))
		for i := range o.Targets {
			s.nodes = append(s.nodes, node{pkg, &o.Targets[i]})
		}
	}
}

// find returns the number of a target, or -1.
func (s *side) find(lab label.Label) int32 {
	o := s.outlines[lab.Pkg]
	if o == nil {
		return -1
	}
	i, ok := slices.BinarySearchFunc(o.Targets, lab.Name, func(t load.OutlineTarget, name string) int { return cmp.Compare(t.Name, name) })
	if !ok {
		return -1
	}
	return s.first[lab.Pkg] + int32(i)
}

// owner is the package that the file at p belongs to; ok is false if it is in none.
func (s *side) owner(p string) (pkg string, ok bool) {
	for dir := path.Dir(p); ; dir = path.Dir(dir) {
		if dir == "." {
			dir = ""
		}
		if _, ok := s.outlines[dir]; ok {
			return dir, true
		}
		if dir == "" {
			return "", false
		}
	}
}

// states of a target of the tree after.
type state uint8

const (
	same    state = iota
	suspect       // its attributes, rule or files that its rule reads differ: the key decides
	certain       // affected
	fresh         // the tree before has no such target
	equal         // a suspect whose key is the same, though what it hands to others differs
	waiting       // a suspect, or behind one, whose key is not known yet
)

type finder struct {
	ctx           context.Context
	opts          Options
	before, after *side
	loaded        int
	sameEnv       bool

	changed map[string]string       // what happened to a file, by path
	links   map[string]string       // what link returned
	files   map[string][]fileChange // those by the package that a file belongs to, in either tree
	own     []state                 // of the nodes after, by themselves
	shown   []bool                  // of the nodes after: others may depend on it than before
	sorted  []int32                 // nodes after, dependencies first
	deps    [][]int32               // of nodes after
	state   []state                 // at the end
	removed []node
	parent  []int32 // of nodes after: see [Result.Why]
	causes  map[int32]Cause
}

// A fileChange is a file that differs between the trees.
type fileChange struct {
	path string // of the workspace
	what string // "added", "deleted", "changed", "changed in mode", "moved"
}

// outline gets the outlines of both trees.
func (f *finder) outline() []error {
	after, errs := f.after.load()
	if len(errs) > 0 {
		return errs
	}
	f.after.env = after.Environment()
	remembered := f.opts.Memo.outlines
	if errs := f.outlineSide(f.after, remembered); len(errs) > 0 {
		return errs
	}
	f.opts.Memo.outlines, f.opts.Memo.fresh = f.after.outlines, f.opts.Memo.fresh || f.loaded > 0 || len(remembered) != len(f.after.outlines)
	f.before.outlines = map[string]*load.Outline{}
	same, errs := f.sameEnvironment()
	if f.sameEnv = same; len(errs) == 0 {
		// What cannot be evaluated there counts as nothing.
		f.outlineSide(f.before, f.after.outlines, remembered)
	}
	f.before.flatten()
	f.after.flatten()
	if err := f.ctx.Err(); err != nil {
		return []error{err}
	}
	return nil
}

// sameEnvironment tells whether both trees' WORKSPACE files and locks say the same. The errors are those of the tree before.
func (f *finder) sameEnvironment() (bool, []error) {
	same := true
	for _, name := range load.RootFiles {
		was, _ := load.TextID(f.before.tree, name)
		is, _ := load.TextID(f.after.tree, name) // "" where there is none
		same = same && was == is
	}
	if same {
		f.before.env = f.after.env
		return true, nil
	}
	before, errs := f.before.load()
	if len(errs) > 0 {
		return false, errs
	}
	f.before.env = before.Environment()
	return f.before.env == f.after.env, nil
}

// outlineSide gets the outlines of one tree: those known of which the inputs are the same, and the others by evaluation.
func (f *finder) outlineSide(s *side, known ...map[string]*load.Outline) []error {
	pkgs := s.tree.Packages()
	found := make([]*load.Outline, len(pkgs))
	err := each(f.ctx, len(pkgs), func(i int) error {
		for _, m := range known {
			o := m[pkgs[i]]
			if o == nil || o.Volatile {
				continue
			}
			inputs, err := load.Inputs(s.tree, s.env, pkgs[i], o.Modules, o.Reads)
			if err != nil {
				return err
			}
			if inputs == o.Inputs {
				found[i] = o
				break
			}
		}
		return nil
	})
	if err != nil {
		return []error{err}
	}
	s.outlines = make(map[string]*load.Outline, len(pkgs))
	var missing []string
	for i, pkg := range pkgs {
		if found[i] != nil {
			s.outlines[pkg] = found[i]
		} else {
			missing = append(missing, pkg)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	loader, errs := s.load()
	if len(errs) > 0 {
		return errs
	}
	f.loaded += len(missing)
	made, errs := loader.Outlines(f.ctx, missing)
	for i, o := range made {
		if o != nil {
			s.outlines[missing[i]] = o
		}
	}
	return errs
}

// each calls do for 0 to n-1, several at once.
func each(ctx context.Context, n int, do func(i int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	jobs := runtime.GOMAXPROCS(0)
	for j := range jobs {
		g.Go(func() error {
			for i := n * j / jobs; i < n*(j+1)/jobs; i++ {
				if err := cmp.Or(ctx.Err(), do(i)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// compareFiles finds the files that differ.
func (f *finder) compareFiles() error {
	f.files, f.changed = map[string][]fileChange{}, map[string]string{}
	note := func(s *side, path, what string) {
		f.changed[path] = what
		if pkg, ok := s.owner(path); ok {
			f.files[pkg] = append(f.files[pkg], fileChange{path, what})
		}
	}
	was, is := f.before.tree.Files(), f.after.tree.Files()
	for len(was) > 0 || len(is) > 0 {
		switch {
		case len(is) == 0 || len(was) > 0 && was[0] < is[0]:
			note(f.before, was[0], "deleted")
			note(f.after, was[0], "deleted")
			was = was[1:]
		case len(was) == 0 || is[0] < was[0]:
			note(f.before, is[0], "added")
			note(f.after, is[0], "added")
			is = is[1:]
		default:
			what, err := f.compareFile(is[0])
			if err != nil {
				return err
			}
			if what != "" {
				note(f.after, is[0], what)
			}
			was, is = was[1:], is[1:]
		}
	}
	for pkg, files := range f.files {
		slices.SortFunc(files, func(a, b fileChange) int { return cmp.Compare(a.path, b.path) })
		f.files[pkg] = slices.Compact(files)
	}
	return nil
}

// compareFile tells what happened to a file that both trees have, "" if nothing did.
func (f *finder) compareFile(path string) (string, error) {
	was, err := f.before.tree.Blob(path)
	if err != nil {
		return "", err
	}
	is, err := f.after.tree.Blob(path)
	if err != nil {
		return "", err
	}
	a, _ := f.before.tree.Lookup(path)
	b, _ := f.after.tree.Lookup(path)
	switch {
	case was != is:
		return "changed", nil
	case a.Mode != b.Mode:
		return "changed in mode", nil
	}
	return "", nil
}

// compareTargets finds what happened to each target by itself.
func (f *finder) compareTargets() {
	f.own, f.shown = make([]state, len(f.after.nodes)), make([]bool, len(f.after.nodes))
	f.links = map[string]string{}
	unknown := map[string]bool{}
	for _, p := range f.opts.Unknown {
		if pkg, ok := f.after.owner(p); ok {
			unknown[pkg] = true
			f.files[pkg] = append(f.files[pkg], fileChange{p, "moved"})
			f.changed[p] = "moved"
		}
	}
	for i, t := range f.after.nodes {
		j := f.before.find(t.label())
		if j < 0 {
			f.own[i] = fresh
			continue
		}
		was := f.before.nodes[j]
		f.shown[i] = was.Seen != t.Seen
		switch {
		case unknown[t.pkg] || !slices.Equal(was.Srcs, t.Srcs) && !t.Reads && !was.Reads:
			f.own[i] = certain
		case len(f.files[t.pkg]) > 0 && f.source(t) != nil && !t.Reads:
			f.own[i] = certain
		case was.Sum != t.Sum || !slices.Equal(was.Deps, t.Deps) || !f.sameEnv || t.Reads && (len(f.files[t.pkg]) > 0 || f.link(t.pkg) != ""):
			f.own[i] = suspect
		}
	}
	for _, was := range f.before.nodes {
		if f.after.find(was.label()) < 0 {
			f.removed = append(f.removed, was)
		}
	}
}

// link returns the first symlink of a package that leads to another text than before, which may be anywhere in the tree, or "".
func (f *finder) link(pkg string) string {
	found, ok := f.links[pkg]
	if ok {
		return found
	}
	for file := range f.after.tree.Owned(pkg) {
		if file.Mode != workspace.Symlink {
			continue
		}
		was, werr := load.TextID(f.before.tree, file.Path)
		is, err := load.TextID(f.after.tree, file.Path)
		if was != is || werr != nil || err != nil {
			found = file.Path
			break
		}
	}
	f.links[pkg] = found
	return found
}

// source returns the first file among the target's sources that differs, or nil.
func (f *finder) source(t node) *fileChange {
	for i, c := range f.files[t.pkg] {
		name := strings.TrimPrefix(strings.TrimPrefix(c.path, t.pkg), "/")
		if _, ok := slices.BinarySearch(t.Srcs, name); ok {
			return &f.files[t.pkg][i]
		}
	}
	return nil
}

// order finds the edges of the tree after, and an order in which dependencies come first. Where it fails, its errors are
// those of the loader.
func (f *finder) order() []error {
	nodes := f.after.nodes
	f.deps = make([][]int32, len(nodes))
	n := 0
	for _, t := range nodes {
		n += len(t.Deps)
	}
	edges := make([]int32, 0, n)
	sound := true
	for i, t := range nodes {
		from := len(edges)
		for _, d := range t.Deps {
			to := f.after.find(d.To)
			if to < 0 {
				sound = false
				if f.own[i] == same {
					f.own[i] = suspect
				}
				continue
			}
			if f.shown[to] && f.own[i] == same {
				f.own[i] = suspect // it may not depend on that any more: loading it tells
			}
			edges = append(edges, to)
		}
		f.deps[i] = edges[from:len(edges):len(edges)]
	}
	const open, done = 1, 2
	mark := make([]uint8, len(nodes))
	f.sorted = make([]int32, 0, len(nodes))
	type frame struct{ at, next int32 }
	var stack []frame
	for root := range nodes {
		if mark[root] != 0 {
			continue
		}
		stack = append(stack, frame{int32(root), 0})
		mark[root] = open
		for len(stack) > 0 {
			top := &stack[len(stack)-1]
			if int(top.next) == len(f.deps[top.at]) {
				mark[top.at] = done
				f.sorted = append(f.sorted, top.at)
				stack = stack[:len(stack)-1]
				continue
			}
			to := f.deps[top.at][top.next]
			top.next++
			switch mark[to] {
			case open:
				sound = false
			case 0:
				mark[to] = open
				stack = append(stack, frame{to, 0})
			}
		}
	}
	if sound {
		return nil
	}
	loader, errs := f.after.load()
	if len(errs) > 0 {
		return errs
	}
	var all []label.Pattern
	for _, t := range nodes {
		if !t.manual() {
			all = append(all, label.Pattern{Label: t.label()})
		}
	}
	if _, errs = loader.Resolve(f.ctx, all); len(errs) == 0 && len(all) == len(nodes) {
		errs = []error{errors.New("the dependencies of some targets lead nowhere, or in a circle: mwbuild query //... may tell more")}
	}
	return errs
}

// decide finds which targets are affected, and asks for keys where they decide.
func (f *finder) decide() []error {
	f.state = make([]state, len(f.after.nodes))
	known := map[int32]state{} // same, equal or certain
	for round := 0; ; round++ {
		var ask []int32
		for _, i := range f.sorted {
			own := f.own[i]
			changed, tainted, behind := false, false, false
			for _, d := range f.deps[i] {
				switch f.state[d] {
				case certain, fresh:
					changed = true
				case equal:
					tainted = true
				case waiting:
					behind = true
				}
			}
			found, asked := known[i]
			switch {
			case own == fresh || own == certain:
				f.state[i] = own
			case own == same && changed:
				f.state[i] = certain
			case own == same && !tainted && !behind:
				f.state[i] = same
			case asked:
				f.state[i] = found
			default:
				// At first only what differs by itself: mostly its key does too, and then decides for all above it.
				f.state[i] = waiting
				if own == suspect || tainted || round > 0 {
					ask = append(ask, i)
				}
			}
		}
		if len(ask) == 0 {
			return nil
		}
		if errs := f.compareKeys(ask, known); len(errs) > 0 {
			return errs
		}
	}
}

// compareKeys finds out whether targets differ between the trees: certain, where their source keys do, equal, where only
// what they hand to others does, else same.
func (f *finder) compareKeys(ask []int32, known map[int32]state) []error {
	var labels []label.Label
	for _, i := range ask {
		labels = append(labels, f.after.nodes[i].label())
	}
	is, errs := f.after.keys(f.ctx, labels)
	if len(errs) > 0 && is == nil {
		return errs
	}
	for n, i := range ask {
		// What is tagged manual may be broken: a build of //... does not mind.
		if _, ok := is[labels[n]]; !ok && !f.after.nodes[i].manual() {
			return errs
		}
	}
	was, _ := f.before.keys(f.ctx, labels)
	if err := f.ctx.Err(); err != nil {
		return []error{err}
	}
	for n, i := range ask {
		w, wok := was[labels[n]]
		k, ok := is[labels[n]]
		switch {
		case w.key != k.key || wok != ok: // what cannot be analysed has no key
			known[i] = certain
		case ok && w.told && k.told && w.handed == k.handed:
			known[i] = same
		default:
			known[i] = equal
		}
	}
	return nil
}

// A standing is what a target is, and what those that depend on it see of it.
type standing struct {
	key    plan.Key
	handed [32]byte
	told   bool // handed is known
}

// keys returns the standing of targets.
func (s *side) keys(ctx context.Context, labels []label.Label) (map[label.Label]standing, []error) {
	loader, errs := s.load()
	if len(errs) > 0 {
		return nil, errs
	}
	patterns := make([]label.Pattern, len(labels))
	for i, lab := range labels {
		patterns[i] = label.Pattern{Label: lab}
	}
	res, errs := loader.Load(ctx, patterns)
	keys, err := plan.SourceKeys(res.Graph, s.tree)
	if err != nil {
		return nil, append(errs, err)
	}
	out := make(map[label.Label]standing, len(labels))
	names := load.Names{File: keys.File, Node: func(n *action.Node) (string, error) {
		k, err := keys.Node(n)
		return k.String(), err
	}}
	if s.targets == nil {
		s.targets = map[label.Label]*graph.Target{}
	}
	for _, t := range res.Targets {
		one := standing{key: keys.Targets[t.ID]}
		one.handed, one.told = loader.Handed(t.Label, names)
		out[t.Label] = one
		s.targets[t.Label] = t
	}
	return out, errs
}

// result lists what is affected.
func (f *finder) result() *Result {
	r := &Result{Loaded: f.loaded, find: f}
	for i, t := range f.after.nodes {
		switch f.state[i] {
		case certain:
			r.Targets = append(r.Targets, Target{t.label(), t.Kind, t.Tags, Changed})
		case fresh:
			r.Targets = append(r.Targets, Target{t.label(), t.Kind, t.Tags, Added})
		}
	}
	for _, t := range f.removed {
		r.Targets = append(r.Targets, Target{t.label(), t.Kind, t.Tags, Removed})
	}
	slices.SortFunc(r.Targets, func(a, b Target) int { return a.Label.Compare(b.Label) })
	return r
}

// Match tells whether either tree has a target that p matches.
func (r *Result) Match(p label.Pattern) bool {
	for _, s := range []*side{r.find.after, r.find.before} {
		if p.One() && s.find(p.Label) >= 0 || slices.ContainsFunc(s.nodes, func(t node) bool { return p.Match(t.label()) }) {
			return true
		}
	}
	return false
}
