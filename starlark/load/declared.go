package load

import (
	"slices"

	"go.starlark.net/starlark"

	"github.com/mwbuild/mwbuild/graph/label"
)

// A Declared is one target as its BUILD file declared it, analysed or not.
type Declared struct{ t *target }

// Declared returns the targets of every package that was evaluated so far, in order of label.
func (l *Loader) Declared() []Declared {
	l.loading.Lock()
	defer l.loading.Unlock()
	var all []Declared
	for _, p := range l.pkgs {
		for _, t := range p.targets {
			all = append(all, Declared{t})
		}
	}
	slices.SortFunc(all, func(a, b Declared) int { return a.t.label.Compare(b.t.label) })
	return all
}

// Label returns its label.
func (d Declared) Label() label.Label { return d.t.label }

// Kind returns the name of its rule.
func (d Declared) Kind() string { return d.t.rule.Name() }

// Pos returns where it stands in its BUILD file, as file:line:col: the value of an attribute, or, where that is "" or not written
// there, the call.
func (d Declared) Pos(attr string) string { return d.t.attrPos(attr) }

// Manual tells whether patterns leave it out.
func (d Declared) Manual() bool { return d.t.manual() }

// True tells whether a bool attribute is True in every configuration.
func (d Declared) True(attr string) bool { return d.t.attrs[attr] == starlark.True }

// Strings returns the strings that an attribute has in any configuration: of a list its elements.
func (d Declared) Strings(attr string) []string { return d.t.possible(attr) }

// Uses returns the labels that its attributes may name in any configuration, files and conditions among them, as they name
// them.
func (d Declared) Uses() []label.Label {
	var labs []label.Label
	for name, a := range d.t.rule.attrs {
		labs = append(labs, d.t.conditionLabels(name)...)
		if !a.labels() {
			continue
		}
		for _, s := range d.t.possible(name) {
			if lab, err := label.Parse(s, d.t.label.Pkg); err == nil {
				labs = append(labs, lab)
			}
		}
	}
	return labs
}

// VisibleFrom tells whether a target of package pkg may depend on it.
func (d Declared) VisibleFrom(pkg string) bool { return d.t.visibleFrom(pkg) }

// Deprecated returns the deprecated attributes that were given to it, by name, with what to do in place of each.
func (d Declared) Deprecated() map[string]string {
	use := map[string]string{}
	for _, name := range d.t.deprecated {
		use[name] = d.t.rule.attrs[name].deprecated
	}
	return use
}
