package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/starlark/load"
)

// embargoed is the tag of targets that no public registry may have.
const embargoed = "embargoed"

// embargoedPackages are the packages in which a target is embargoed, with that target.
func embargoedPackages(l *load.Loader) map[string]string {
	secret := map[string]string{}
	for _, d := range l.Declared() {
		if tags, _ := d.Attr("tags"); slices.Contains(stringsOf(tags), embargoed) {
			if was, name := secret[d.Label().Pkg], d.Label().String(); was == "" || name < was {
				secret[d.Label().Pkg] = name
			}
		}
	}
	return secret
}

// embargo tells which of the targets may not go to a registry, and why: whoever can read it would see what is embargoed.
//
// Everything counts of a package in which a target has the tag, whoever names it, and so do images of the workspace's own registries that are not
// public. What hands a target on is its dependencies, in any attribute; a target that a macro only mentions in a string is in no image.
func embargo(l *load.Loader, g *graph.Graph, targets []*graph.Target, r load.Registry) (errs []error) {
	if !r.Public {
		return nil
	}
	secret := embargoedPackages(l)
	private := func(t *graph.Target) (repository string) {
		for _, n := range t.Actions {
			if im, ok := n.Do.(*action.Image); ok && im.Import != nil && im.Import.Registry != "" {
				for _, own := range l.Workspace().Registries {
					if !own.Public && own.Holds(im.Import.Registry) {
						return im.Import.Registry
					}
				}
			}
		}
		return ""
	}
	for _, t := range targets {
		path := g.PathTo(t.ID, func(t *graph.Target) bool { return secret[t.Label.Pkg] != "" || private(t) != "" })
		if path == nil {
			continue
		}
		var names []string
		for _, p := range path {
			names = append(names, p.Label.String())
		}
		last := path[len(path)-1]
		why := fmt.Sprintf("%s is embargoed", last.Label)
		if by := secret[last.Label.Pkg]; by == "" {
			why = fmt.Sprintf("%s is an image of %s, which is not public", last.Label, private(last))
		} else if !slices.Contains(last.Tags, embargoed) {
			why = fmt.Sprintf("%s is embargoed, since %s is", last.Label, by)
		}
		errs = append(errs, &graph.Error{
			Pos: t.Pos, Label: t.Label.String(), Msg: fmt.Sprintf("%s, and %s is public", why, strings.NewReplacer("{path}", "…", "{target}", "…").Replace(r.Repository)),
			Hints: []string{"it is in there by way of " + strings.Join(names, " -> ")},
		})
	}
	return errs
}

// embargoOf is embargo for what is pushed to a reference, which may be in a registry of the workspace.
func embargoOf(l *load.Loader, g *graph.Graph, targets []*graph.Target, refs []string) (errs []error) {
	for _, ref := range refs {
		to, err := name.ParseReference(ref)
		if err != nil {
			continue // it was looked at before
		}
		for _, r := range l.Workspace().Registries {
			if r.Holds(to.Context().Name()) {
				errs = append(errs, embargo(l, g, targets, r)...)
			}
		}
	}
	return errs
}

func stringsOf(v any) []string {
	s, _ := v.([]string)
	return s
}
