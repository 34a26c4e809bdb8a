package load

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
	"go.starlark.net/starlark"

	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/graph/label"
)

// A policy is one policy() of WORKSPACE: what images and steps may not be, in all configurations or in some.
type policy struct {
	configurations []string // nil is all
	bases          []basePattern
	anyBase        bool
	root, network  bool // whether they are allowed
	refs           bool // whether tags are
}

// A basePattern is the pattern of image_import targets, or of repositories as in a glob.
type basePattern struct {
	text   string
	target *label.Pattern
}

// declarePolicy is policy() of WORKSPACE.
func (c *configs) declarePolicy(b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) error {
	p := policy{root: true, network: true, refs: true}
	var bases starlark.Value
	var configurations *starlark.List
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "configurations?", &configurations, "bases?", &bases, "root?", &p.root, "network?", &p.network, "mutable_refs?", &p.refs); err != nil {
		return err
	}
	var err error
	if p.configurations, err = stringList(configurations); err != nil {
		return fmt.Errorf("policy: configurations: %w", err)
	}
	for _, name := range p.configurations {
		if _, ok := c.declared[name]; !ok {
			return fmt.Errorf("policy: there is no configuration %q above", name)
		}
	}
	p.anyBase = bases == nil || bases == starlark.None
	if !p.anyBase {
		list, ok := bases.(*starlark.List)
		if !ok {
			return fmt.Errorf("policy: bases: got %s, want a list of strings", bases.Type())
		}
		patterns, err := stringList(list)
		if err != nil {
			return fmt.Errorf("policy: bases: %w", err)
		}
		for _, s := range patterns {
			bp := basePattern{text: s}
			if strings.HasPrefix(s, "//") {
				t, err := label.ParsePattern(s, "")
				if err != nil {
					return fmt.Errorf("policy: bases: %w", err)
				}
				bp.target = &t
			} else if !doublestar.ValidatePattern(s) {
				return fmt.Errorf("policy: bases: %q is no pattern of repositories, such as registry.example/php or registry.example/**", s)
			}
			p.bases = append(p.bases, bp)
		}
	}
	c.policies = append(c.policies, p)
	return nil
}

// inForce leaves the policies that hold in the configuration.
func (c *configs) inForce() {
	c.policies = slices.DeleteFunc(c.policies, func(p policy) bool {
		return p.configurations != nil && !slices.Contains(p.configurations, c.facts["config"])
	})
}

// where says in which configurations p holds.
func (p *policy) where() string {
	if p.configurations == nil {
		return "policy() in WORKSPACE"
	}
	return "policy() in WORKSPACE for configuration " + strings.Join(p.configurations, ", ")
}

var (
	numericUser = regexp.MustCompile(`^[0-9]+(:[0-9]+)?$`)
	rootUser    = regexp.MustCompile(`^(0+|root)(:.*)?$`)
)

// checkUser tells whether an image may run as user, which is not "".
func (l *Loader) checkUser(user string, allowRoot bool) error {
	isRoot := rootUser.MatchString(user)
	switch {
	case isRoot && !allowRoot:
		return fmt.Errorf("user: %s is root, who can change every file of the image\n    name another, such as %s; if it must be root, set allow_root = True", user, defaultWorkspace.User)
	case !isRoot && !numericUser.MatchString(user):
		return fmt.Errorf("user: %q: want numbers, uid or uid:gid: what a name means depends on the image", user)
	}
	for _, p := range l.config.policies {
		if isRoot && !p.root {
			return fmt.Errorf("user: %s is root, which the %s refuses", user, p.where())
		}
	}
	return nil
}

// checkBase tells whether an image may stand on base, which may be nil.
func (l *Loader) checkBase(base *action.Node) error {
	for base != nil && base.Do.(*action.Image).Import == nil {
		base = base.Do.(*action.Image).Base
	}
	if base == nil {
		return nil
	}
	from := base.Do.(*action.Image).Import
	lab, err := label.Parse(base.Label, "")
	if err != nil {
		return err
	}
	for _, p := range l.config.policies {
		allowed := p.anyBase || slices.ContainsFunc(p.bases, func(b basePattern) bool {
			if b.target != nil {
				return b.target.Match(lab)
			}
			return from.Registry != "" && doublestar.MatchUnvalidated(b.text, from.Registry)
		})
		if allowed {
			continue
		}
		var texts []string
		for _, b := range p.bases {
			texts = append(texts, b.text)
		}
		what := base.Label
		if from.Registry != "" {
			what += " (" + from.Registry + ")"
		}
		return fmt.Errorf("base: it stands on %s, which the %s does not allow\n    bases are %s", what, p.where(), strings.Join(append(texts, "scratch"), ", "))
	}
	return nil
}

// checkNetwork tells whether a step may use the network.
func (l *Loader) checkNetwork(uses bool) error {
	for _, p := range l.config.policies {
		if uses && !p.network {
			return fmt.Errorf("network: it uses the network, which the %s refuses", p.where())
		}
	}
	return nil
}
