package load

import (
	"fmt"
	"regexp"
	"strings"

	"go.starlark.net/starlark"

	"github.com/mwbuild/mwbuild/graph/label"
)

// A Registry is one registry() of WORKSPACE: where `mwbuild publish` puts images.
type Registry struct {
	Name       string // "" for the only one
	Repository string // with {target} and {path} for what differs by target
	Public     bool   // whoever likes can read it: nothing that is embargoed goes there
	Attest     bool   // images get their bill of materials and their provenance beside them
}

// For returns the repository of a target: {path} stands for its package and name in lower case, without a name that is "image" or that of the folder, and
// {target} for the same with - in place of /.
func (r Registry) For(l label.Label) string {
	p := strings.ToLower(l.Pkg)
	folder := p[strings.LastIndex(p, "/")+1:]
	if name := strings.ToLower(l.Name); p == "" {
		p = name
	} else if name != "image" && name != folder {
		p += "/" + name
	}
	p = outsideName.ReplaceAllString(p, "-")
	return strings.NewReplacer("{path}", p, "{target}", strings.ReplaceAll(p, "/", "-")).Replace(r.Repository)
}

// Holds tells whether a repository, without tag or digest, is one that For can give.
func (r Registry) Holds(repository string) bool {
	fixed, _, varies := strings.Cut(r.Repository, "{")
	if !varies {
		return repository == fixed
	}
	return strings.HasPrefix(repository, fixed)
}

var (
	// outsideName is what the path of a repository cannot have.
	outsideName = regexp.MustCompile(`[^a-z0-9._/-]+|\.\.+|__+`)
	// repositoryPattern is that of the distribution specification, with a registry before it that may have a port.
	repositoryPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+$`)
)

// declareRegistry is registry() of WORKSPACE.
func declareRegistry(b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple, all []Registry) ([]Registry, error) {
	var r Registry
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "repository", &r.Repository, "name?", &r.Name, "public?", &r.Public, "attest?", &r.Attest); err != nil {
		return all, err
	}
	if r.Name != "" && !configPattern.MatchString(r.Name) {
		return all, fmt.Errorf("registry %q: a name has letters, digits, and . _ - after the first of these", r.Name)
	}
	if s := strings.NewReplacer("{path}", "a/b", "{target}", "a").Replace(r.Repository); !repositoryPattern.MatchString(s) {
		return all, fmt.Errorf("registry: repository %q: want a registry and a repository in lower case, with {target} or {path} for what differs, such as registry.example/wiki/{target}", r.Repository)
	}
	for _, o := range all {
		if o.Name == r.Name {
			return all, fmt.Errorf("registry: name: two have the name %q: give each its own", r.Name)
		}
	}
	return append(all, r), nil
}
