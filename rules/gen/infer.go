package gen

import (
	"context"
	"slices"

	"github.com/mwbuild/mwbuild/graph/label"
)

// An Inferred is a component that has a rule of its own, with what the tree says it depends on.
type Inferred struct {
	Label label.Label
	// Deps and SoftDeps are what [Generate] would write, in order of label. What a comment keeps as it is, is left out.
	Deps, SoftDeps []Dependency
}

// A Dependency is a component that another one wants.
type Dependency struct {
	Label label.Label
	Pos   string // the first place that wants it, as file:line:col
}

// Infer returns what the tree says about its components, in order. It reads what Generate reads and leaves out what cannot be read.
func Infer(ctx context.Context, opts Options) ([]Inferred, error) {
	g, err := inspect(ctx, opts)
	if err != nil {
		return nil, err
	}
	var all []Inferred
	for _, c := range g.components {
		if c.kind == vendorKind || c.rule == nil || c.broken || c.gone() || c.rule.Keep() || !g.selected(c.folder) {
			continue
		}
		in := Inferred{Label: label.Label{Pkg: c.folder, Name: c.target}}
		var required []want
		for _, m := range c.parsed {
			required = append(required, m.requires...)
		}
		if !c.rule.KeepAttr("deps") {
			in.Deps = g.dependencies(c, required)
		}
		if !c.rule.KeepAttr("soft_deps") {
			hard := g.hard(c)
			soft := slices.DeleteFunc(slices.Clone(c.uses), func(w want) bool {
				ls := g.labels(c, []want{w})
				return len(ls) == 1 && slices.Contains(hard, ls[0])
			})
			in.SoftDeps = g.dependencies(c, soft)
		}
		all = append(all, in)
	}
	return all, nil
}

func (g *generator) dependencies(c *component, wants []want) []Dependency {
	var deps []Dependency
	for _, w := range wants {
		for _, s := range g.labels(c, []want{w}) {
			l, err := label.Parse(s, "")
			if err == nil && !slices.ContainsFunc(deps, func(d Dependency) bool { return d.Label == l }) {
				deps = append(deps, Dependency{l, w.at})
			}
		}
	}
	slices.SortFunc(deps, func(a, b Dependency) int { return a.Label.Compare(b.Label) })
	return deps
}
