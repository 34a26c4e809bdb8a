// Package resolve chooses the packages of a Debian image: what was asked for, what is essential, and what these need.
//
// It follows apt where that matters (of each name the highest version; of alternatives the first that can be had; a package
// of the name before one that provides it) and does not search: where a choice turns out wrong, it says so, and asks for a
// package by name to settle it.
package resolve

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/mwbuild/mwbuild/internal/spell"
	"github.com/mwbuild/mwbuild/rules/debian/archive"
)

// slimRoots stand in for larger packages that provide the same.
var slimRoots = []string{"usr-is-merged", "systemd-standalone-tmpfiles"}

// A Request is what is wanted.
type Request struct {
	Packages []string // by name
	// Slim leaves out packages of priority required that nothing needs, and takes the smaller ones of some that provide the same.
	Slim bool
	// Keep are versions that are preferred to higher ones, by name, where they are still to be had.
	Keep map[string]string
}

// A Problem is one reason why a request cannot be met.
type Problem struct {
	Msg  string
	Next string // what may help; may be ""
}

func (p *Problem) Error() string {
	if p.Next == "" {
		return p.Msg
	}
	return p.Msg + "\n    " + p.Next
}

// Resolve returns the chosen packages, sorted by name, and what each of these depends on among them. Errors are [*Problem], all that there are.
func Resolve(available []*archive.Package, req Request) (chosen []*archive.Package, depends map[string][]string, problems []error) {
	r := newResolver(available, req.Keep)
	roots := slices.Clone(req.Packages)
	if req.Slim {
		roots = append(roots, slimRoots...)
	}
	for name, p := range r.candidate {
		if p.Essential || !req.Slim && p.Priority == "required" {
			roots = append(roots, name)
		}
	}
	slices.Sort(roots)
	for _, name := range slices.Compact(roots) {
		if p := r.candidate[name]; p != nil {
			r.add(p, nil)
			continue
		}
		r.missing(name)
	}
	for len(r.problems) == 0 && (len(r.work) > 0 || len(r.deferred) > 0) {
		if len(r.work) > 0 {
			p := r.work[0]
			r.work = r.work[1:]
			r.follow(p)
			continue
		}
		d := r.deferred[0]
		r.deferred = r.deferred[1:]
		r.choose(d)
	}
	if len(r.problems) == 0 {
		r.check()
	}
	if len(r.problems) > 0 {
		return nil, nil, r.problems
	}
	depends = map[string][]string{}
	for _, p := range r.chosen {
		chosen = append(chosen, p)
		depends[p.Name] = r.edges(p)
	}
	slices.SortFunc(chosen, func(a, b *archive.Package) int { return strings.Compare(a.Name, b.Name) })
	return chosen, depends, nil
}

type resolver struct {
	candidate map[string]*archive.Package   // the one of each name that may be chosen
	providers map[string][]*archive.Package // of each name that candidates provide, best first

	chosen   map[string]*archive.Package
	because  map[string]*archive.Package // who wanted it first; nil for roots
	work     []*archive.Package
	deferred []wish
	problems []error
}

// A wish is a group of alternatives that a package depends on.
type wish struct {
	of    *archive.Package
	group []archive.Relation
}

func newResolver(available []*archive.Package, keep map[string]string) *resolver {
	r := &resolver{
		candidate: map[string]*archive.Package{}, providers: map[string][]*archive.Package{},
		chosen: map[string]*archive.Package{}, because: map[string]*archive.Package{},
	}
	for _, p := range available {
		if was := r.candidate[p.Name]; was == nil || better(p, was, keep[p.Name]) {
			r.candidate[p.Name] = p
		}
	}
	for _, p := range r.candidate {
		for _, g := range p.Provides {
			if !slices.Contains(r.providers[g[0].Name], p) {
				r.providers[g[0].Name] = append(r.providers[g[0].Name], p)
			}
		}
	}
	for _, all := range r.providers {
		slices.SortFunc(all, func(a, b *archive.Package) int {
			return cmp.Or(cmp.Compare(priority(a), priority(b)), strings.Compare(a.Name, b.Name))
		})
	}
	return r
}

// better tells whether p is rather taken than was: the version to keep, else the higher one, else, of one version in two
// lists, always the same.
func better(p, was *archive.Package, keep string) bool {
	if keep != "" && (p.Version == keep) != (was.Version == keep) {
		return p.Version == keep
	}
	if c := archive.CompareVersions(p.Version, was.Version); c != 0 {
		return c > 0
	}
	return cmp.Or(strings.Compare(p.Path, was.Path), strings.Compare(p.SHA256, was.SHA256)) < 0
}

func priority(p *archive.Package) int {
	i := slices.Index([]string{"required", "important", "standard", "optional"}, p.Priority)
	if i < 0 {
		return 4
	}
	return i
}

func (r *resolver) add(p, because *archive.Package) {
	if r.chosen[p.Name] == nil {
		r.chosen[p.Name], r.because[p.Name] = p, because
		r.work = append(r.work, p)
	}
}

// follow adds what p needs where there is no choice and nothing that was chosen provides it, and puts off what there is.
func (r *resolver) follow(p *archive.Package) {
	for _, group := range slices.Concat(p.PreDepends, p.Depends) {
		if len(group) == 1 && !r.met(group) {
			if c := r.candidate[group[0].Name]; c != nil && group[0].Holds(c.Version) {
				r.add(c, p)
				continue
			}
		}
		r.deferred = append(r.deferred, wish{p, group})
	}
}

// choose adds the first that meets a wish and conflicts with nothing, if nothing that was chosen meets it.
func (r *resolver) choose(w wish) {
	var clash string
	if r.met(w.group) {
		return
	}
	for _, alternative := range w.group {
		for _, c := range r.candidates(alternative) {
			other := r.conflict(c)
			if other == nil {
				r.add(c, w.of)
				return
			}
			clash = fmt.Sprintf("; %s conflicts with %s, %s", c, other, r.reason(other))
		}
	}
	r.problem(fmt.Sprintf("%s depends on %s, which cannot be had%s%s", w.of, text(w.group), r.there(w.group), clash),
		fmt.Sprintf("%s is here because %s", w.of.Name, r.reason(w.of)))
}

// candidates are what alternative can be met by: the package of that name, then those that provide it.
func (r *resolver) candidates(alternative archive.Relation) []*archive.Package {
	var all []*archive.Package
	if c := r.candidate[alternative.Name]; c != nil && alternative.Holds(c.Version) {
		all = append(all, c)
	}
	for _, c := range r.providers[alternative.Name] {
		if c.Name != alternative.Name && c.Provided(alternative) {
			all = append(all, c)
		}
	}
	return all
}

func (r *resolver) met(group []archive.Relation) bool {
	return slices.ContainsFunc(group, func(rel archive.Relation) bool {
		return slices.ContainsFunc(r.candidates(rel), func(c *archive.Package) bool { return r.chosen[c.Name] != nil })
	})
}

// edges are the chosen packages that meet what p depends on.
func (r *resolver) edges(p *archive.Package) []string {
	var names []string
	for _, group := range slices.Concat(p.PreDepends, p.Depends) {
		for _, rel := range group {
			for _, c := range r.candidates(rel) {
				if r.chosen[c.Name] != nil && c != p {
					names = append(names, c.Name)
				}
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// conflict returns a chosen package that cannot be together with p, or nil.
func (r *resolver) conflict(p *archive.Package) *archive.Package {
	for _, other := range r.sorted() {
		if excludes(p, other) || excludes(other, p) {
			return other
		}
	}
	return nil
}

// excludes tells whether a cannot be together with b. A package may conflict with a name that it provides itself.
func excludes(a, b *archive.Package) bool {
	if a.Name == b.Name {
		return false
	}
	for _, group := range slices.Concat(a.Conflicts, a.Breaks) {
		if b.Satisfies(group[0]) {
			return true
		}
	}
	return false
}

func (r *resolver) sorted() []*archive.Package {
	all := make([]*archive.Package, 0, len(r.chosen))
	for _, p := range r.chosen {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *archive.Package) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// check holds all that was chosen against each other.
func (r *resolver) check() {
	all := r.sorted()
	for i, a := range all {
		for _, b := range all[i+1:] {
			if excludes(a, b) || excludes(b, a) {
				r.problem(fmt.Sprintf("%s and %s exclude one another", a, b),
					fmt.Sprintf("%s is here because %s, %s because %s", a.Name, r.reason(a), b.Name, r.reason(b)))
			}
		}
	}
}

func (r *resolver) problem(msg, next string) {
	r.problems = append(r.problems, &Problem{msg, next})
}

// missing reports a name that was asked for and is none of a package.
func (r *resolver) missing(name string) {
	if providers := r.providers[name]; len(providers) > 0 {
		var names []string
		for _, p := range providers {
			names = append(names, p.Name)
		}
		r.problem(fmt.Sprintf("%s is no package, several provide it", name), "ask for one of "+strings.Join(names, ", "))
		return
	}
	next := ""
	if near := spell.Nearest(name, slices.Sorted(maps.Keys(r.candidate))); near != "" {
		next = "did you mean " + near + "?"
	}
	r.problem(fmt.Sprintf("there is no package %s", name), next)
}

// reason says how p came here: the chain of those that wanted it.
func (r *resolver) reason(p *archive.Package) string {
	var chain []string
	for at := r.because[p.Name]; at != nil && len(chain) < 10; at = r.because[at.Name] {
		chain = append(chain, at.Name)
	}
	if len(chain) == 0 {
		return "it was asked for, or is essential"
	}
	return strings.Join(chain, " for ") + " needs it"
}

// there says in which version the packages of a group are to be had.
func (r *resolver) there(group []archive.Relation) string {
	var found []string
	for _, rel := range group {
		if c := r.candidate[rel.Name]; c != nil {
			found = append(found, c.String())
		}
	}
	if len(found) == 0 {
		return ": there is no such package"
	}
	return ": there is " + strings.Join(found, ", ")
}

func text(group []archive.Relation) string {
	var all []string
	for _, rel := range group {
		all = append(all, rel.String())
	}
	return strings.Join(all, " | ")
}
