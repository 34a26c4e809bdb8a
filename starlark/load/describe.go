package load

import (
	"context"
	"maps"
	"path"
	"slices"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"github.com/mwbuild/mwbuild/graph/label"
)

// What a query sees of packages and targets.

// Survey evaluates the packages that patterns can match and returns the targets in them that patterns match, manual ones
// too, and all that these need, in order of label. No implementation runs, a cycle is no error, and neither is a pattern that
// matches nothing: see [Loader.Missing]. Errors come sorted by position; a target that has some is among the result, with
// what could be found of it.
func (l *Loader) Survey(ctx context.Context, patterns []label.Pattern) ([]Declared, []error) {
	l.loading.Lock()
	defer l.loading.Unlock()
	var errs errorList
	entered := map[string]bool{}
	for p := range l.isPkg {
		if wants(patterns, p) {
			entered[p] = true
		}
	}
	l.packages(ctx, slices.Sorted(maps.Keys(entered)))
	var wanted []*target
	for name := range entered {
		for _, t := range l.pkg(name).targets {
			if surveyed(patterns, t.label) {
				wanted = append(wanted, t)
			}
		}
	}
	reached := l.closure(ctx, wanted, entered)
	if err := ctx.Err(); err != nil {
		return nil, []error{err}
	}
	for name := range entered {
		for _, err := range l.pkg(name).errs.all() {
			errs.add(err)
		}
	}
	all := make([]Declared, 0, len(reached))
	for t := range reached {
		for _, err := range t.errs {
			errs.add(err)
		}
		all = append(all, Declared{t})
	}
	slices.SortFunc(all, func(a, b Declared) int { return a.t.label.Compare(b.t.label) })
	return all, errs.sorted()
}

// surveyed tells whether the last of patterns that matches lab is no negative one.
func surveyed(patterns []label.Pattern, lab label.Label) bool {
	for _, p := range slices.Backward(patterns) {
		if p.Match(lab) {
			return !p.Negative
		}
	}
	return false
}

// Missing says why a pattern, after a [Loader.Survey] of it, matches nothing. The message is empty where it does match, or
// where errors that were reported explain it.
func (l *Loader) Missing(p label.Pattern) (msg string, hints []string) {
	l.loading.Lock()
	defer l.loading.Unlock()
	if p.One() {
		_, msg, hints = l.find(p.Label)
		return msg, hints
	}
	for name := range l.isPkg {
		if p.MatchPackage(name) {
			return "", nil
		}
	}
	return "no package matches " + p.String(), l.packageHints(p.Label.Pkg)
}

// PackageFiles are the files that make a package what it is.
type PackageFiles struct {
	Build string   // the BUILD file, or "" if there is none that counts
	Loads []string // the .bzl files that it loads and that these load, sorted; built-in ones are none
	Reads []string // what read_json read, sorted
}

// PackageFiles evaluates a package and returns its files. Of a package that is broken or absent it returns what is known.
func (l *Loader) PackageFiles(ctx context.Context, name string) PackageFiles {
	l.loading.Lock()
	defer l.loading.Unlock()
	if !l.isPkg[name] {
		return PackageFiles{}
	}
	l.packages(ctx, []string{name})
	p := l.pkg(name)
	files := PackageFiles{Build: p.file, Reads: slices.Compact(slices.Sorted(slices.Values(p.reads)))}
	for m := range closure(p.loads) {
		if m.file != "" && !strings.HasPrefix(m.id, "@") {
			files.Loads = append(files.Loads, m.file)
		}
	}
	slices.Sort(files.Loads)
	files.Loads = slices.Compact(files.Loads)
	return files
}

// IsPackage tells whether there is a package of that name.
func (l *Loader) IsPackage(name string) bool { return l.isPkg[name] }

// Owner returns the package that a file belongs to: the nearest folder above it that is one, or "" where none is.
func (l *Loader) Owner(file string) string { return l.owner(file) }

// HasFile tells whether the tree holds a file of that path.
func (l *Loader) HasFile(file string) bool {
	_, ok := l.opts.Tree.Lookup(file)
	return ok
}

// A DeclaredEdge is one string of a label attribute, resolved.
type DeclaredEdge struct {
	Attr string
	Text string      // as it is in the attribute
	To   label.Label // or
	File string      // a file of the workspace
	// Condition: it is a config_setting that select() asks in the attribute, and no value of it.
	Condition bool
}

// Edges returns what its label attributes name and is there, in order of attributes, then of values. It is known after a
// survey that reached the target.
func (d Declared) Edges() []DeclaredEdge {
	edges := make([]DeclaredEdge, 0, len(d.t.deps))
	for _, e := range d.t.deps {
		edge := DeclaredEdge{Attr: e.attr, Text: e.text, File: e.file, Condition: e.condition}
		if e.to != nil {
			edge.To = e.to.label
		}
		edges = append(edges, edge)
	}
	return edges
}

// Attrs returns the names of its attributes in the order in which its rule declares them.
func (d Declared) Attrs() []string { return d.t.rule.order }

// Given tells whether an attribute was given a value, by the BUILD file or a macro, other than the rule's own default.
func (d Declared) Given(attr string) bool {
	a, v := d.t.rule.attrs[attr], d.t.value(attr)
	if a == nil || v == nil {
		return false
	}
	if a.mandatory {
		return true
	}
	same, err := starlark.Equal(v, a.def)
	return err != nil || !same
}

// Written tells whether the BUILD file names what e leads to: as an attribute of the call that declares the target, or, where
// a macro stands between, as an argument of that name, or as a string anywhere in the file. What one call of a macro declares is
// taken to be written too where it refers to each other. Not written are the defaults of rules and of macros.
func (d Declared) Written(e DeclaredEdge) bool {
	t := d.t
	a := t.rule.attrs[e.Attr]
	if a == nil {
		return false
	}
	call := t.pkg.callAt(t.call)
	if call == nil {
		return d.Given(e.Attr)
	}
	for _, arg := range call.Args {
		if b, ok := arg.(*syntax.BinaryExpr); ok && b.Op == syntax.EQ {
			if id, ok := b.X.(*syntax.Ident); ok && id.Name == e.Attr {
				return true
			}
		}
	}
	if t.callee() == t.rule.Name() {
		// No macro stands between; what is not an argument of the call may still come from **kwargs.
		return d.Given(e.Attr)
	}
	if e.File != "" || e.Condition {
		return true // a macro finds the files of its package by itself; the BUILD file's being there is what names them
	}
	if to := t.pkg.targets[e.To.Name]; e.To.Pkg == t.label.Pkg && to != nil && to.call == t.call {
		return true
	}
	written := false
	syntax.Walk(t.pkg.syntax, func(n syntax.Node) bool {
		if lit, ok := n.(*syntax.Literal); ok && !written {
			if s, ok := lit.Value.(string); ok {
				lab, err := label.Parse(s, t.label.Pkg)
				written = err == nil && lab == e.To
			}
		}
		return !written
	})
	return written
}

// Literal returns the value of an attribute as a BUILD file has it, globs and macros expanded, or "" where it is None.
func (d Declared) Literal(attr string) string {
	if v := d.t.value(attr); v != nil && v != starlark.None {
		return v.String()
	}
	return ""
}

// Callee returns what the BUILD file calls to declare it: its rule, or a macro.
func (d Declared) Callee() string { return d.t.callee() }

// ReadsFiles tells whether its rule reads files of its package beyond those that attributes name.
func (d Declared) ReadsFiles() bool { return d.t.rule.reads }

// Attr returns the value that an attribute has in the configuration in force, as nil, bool, int64, string, []string or
// map[string]string, labels in their full form, files among them as //package:path. It is not ok where its rule has no such
// attribute. A visibility that is not set is that of the package.
func (d Declared) Attr(name string) (value any, ok bool) {
	a := d.t.rule.attrs[name]
	v := d.t.value(name)
	if a == nil || v == nil {
		return nil, false
	}
	if name == "visibility" && v == starlark.None {
		if d.t.pkg.visibility == nil {
			return []string{"//visibility:private"}, true
		}
		return slices.Clone(d.t.pkg.visibility), true
	}
	full := func(s string) string { return s }
	if a.labels() {
		full = func(s string) string {
			if d.t.namesFile(s) {
				return label.Label{Pkg: d.t.label.Pkg, Name: path.Clean(s)}.String()
			}
			if lab, err := label.Parse(s, d.t.label.Pkg); err == nil {
				return lab.String()
			}
			return s
		}
	}
	switch v := v.(type) {
	case starlark.NoneType:
		return nil, true
	case starlark.Bool:
		return bool(v), true
	case starlark.Int:
		if n, ok := v.Int64(); ok {
			return n, true
		}
		return v.String(), true
	case starlark.String:
		return full(string(v)), true
	case *starlark.List:
		list := make([]string, 0, v.Len())
		for _, s := range d.t.strings(name) {
			list = append(list, full(s))
		}
		return list, true
	case *starlark.Dict:
		dict := make(map[string]string, v.Len())
		for _, kv := range v.Items() {
			key, _ := starlark.AsString(kv[0])
			val, isString := starlark.AsString(kv[1])
			if !isString {
				val = kv[1].String()
			}
			dict[key] = val
		}
		return dict, true
	}
	return v.String(), true
}
