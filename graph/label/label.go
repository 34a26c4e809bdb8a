// Package label names targets: //pkg:name and the patterns over them.
//
//	//extensions/Cite:image    target image of package extensions/Cite
//	//extensions/Cite          short for //extensions/Cite:Cite
//	:image                     in the package one stands in
//	//extensions/...           every target below extensions
//	//extensions/Cite:all      every target of one package
//	-//extensions/Cite/...     taken out of what the patterns before it matched
//
// The package imports nothing of mwbuild, so that everything may use it.
package label

import (
	"fmt"
	"path"
	"strings"
)

// A Label names one target. The zero Label names none.
type Label struct {
	Pkg  string // slash-separated folder relative to the workspace root; "" is the root
	Name string
}

// String is the canonical form //pkg:name, which Parse reads back.
func (l Label) String() string { return "//" + l.Pkg + ":" + l.Name }

// Compare orders labels by package, then by name.
func (l Label) Compare(o Label) int {
	if c := strings.Compare(l.Pkg, o.Pkg); c != 0 {
		return c
	}
	return strings.Compare(l.Name, o.Name)
}

// Parse reads a label as it stands in a BUILD file of package pkg: //p:n, //p, :n or n. "//p" means //p:<last element of p>.
func Parse(s, pkg string) (Label, error) {
	rest, absolute := strings.CutPrefix(s, "//")
	if !absolute {
		name := strings.TrimPrefix(s, ":")
		if err := checkName(s, name); err != nil {
			return Label{}, err
		}
		return Label{pkg, name}, nil
	}
	p, name, colon := strings.Cut(rest, ":")
	if err := checkPackage(s, p); err != nil {
		return Label{}, err
	}
	if !colon {
		if p == "" {
			return Label{}, fmt.Errorf("label %q names no target: write //:NAME", s)
		}
		name = path.Base(p)
	}
	if err := checkName(s, name); err != nil {
		return Label{}, err
	}
	return Label{p, name}, nil
}

func checkPackage(label, p string) error {
	if p == "" {
		return nil
	}
	for _, elem := range strings.Split(p, "/") {
		switch elem {
		case "":
			return fmt.Errorf("label %q has an empty folder name", label)
		case ".", "..":
			return fmt.Errorf("label %q holds %q: labels start at the workspace root and never climb", label, elem)
		case "...":
			return fmt.Errorf("%q is a pattern; one target is wanted here", label)
		}
	}
	if i := strings.IndexFunc(p, forbidden); i >= 0 {
		return fmt.Errorf("label %q holds %q, which no package name may", label, p[i:i+1])
	}
	return nil
}

func checkName(label, name string) error {
	if name == "" {
		return fmt.Errorf("label %q names no target", label)
	}
	if name == "..." {
		return fmt.Errorf("%q is a pattern; one target is wanted here", label)
	}
	if strings.HasPrefix(name, "/") || strings.HasSuffix(name, "/") {
		return fmt.Errorf("label %q: a target name neither starts nor ends with a slash", label)
	}
	for _, elem := range strings.Split(name, "/") {
		if elem == "." || elem == ".." {
			return fmt.Errorf("label %q holds %q: it must stay inside its package", label, elem)
		}
	}
	if i := strings.IndexFunc(name, forbidden); i >= 0 {
		return fmt.Errorf("label %q holds %q, which no target name may", label, name[i:i+1])
	}
	return nil
}

// CheckName tells whether name may name a target.
func CheckName(name string) error { return checkName(":"+name, name) }

func forbidden(r rune) bool { return r < ' ' || r == 0x7f || strings.ContainsRune(`:\*?[]{}"'`, r) }

// A Pattern matches a set of targets.
type Pattern struct {
	Label    Label // with Recursive or All: only Pkg is set
	All      bool  // every target of Label.Pkg
	Below    bool  // every target of Label.Pkg and of all packages below it
	Negative bool  // takes out what it matches
}

// ParsePattern reads a pattern as it stands on a command line in folder pkg of the workspace. "..." stands for
// everything below that folder.
func ParsePattern(s, pkg string) (Pattern, error) {
	rest, negative := strings.CutPrefix(s, "-")
	p := Pattern{Negative: negative}
	if rest == "..." || strings.HasSuffix(rest, "/...") {
		dir, absolute := strings.CutPrefix(rest, "//")
		dir = strings.TrimSuffix(strings.TrimSuffix(dir, "..."), "/")
		if err := checkPackage(rest, dir); err != nil {
			return Pattern{}, err
		}
		if !absolute {
			dir = join(pkg, dir)
		}
		p.Below, p.Label.Pkg = true, dir
		return p, nil
	}
	if !strings.HasPrefix(rest, "//") && !strings.HasPrefix(rest, ":") {
		// a/b:c on a command line means the package below the folder one stands in.
		dir, name, colon := strings.Cut(rest, ":")
		if !colon {
			name = path.Base(dir)
		}
		rest = "//" + join(pkg, dir) + ":" + name
	}
	if pkgPart, ok := strings.CutSuffix(rest, ":all"); ok {
		if dir, absolute := strings.CutPrefix(pkgPart, "//"); absolute {
			pkg = dir
		}
		if err := checkPackage(rest, pkg); err != nil {
			return Pattern{}, err
		}
		p.All, p.Label.Pkg = true, pkg
		return p, nil
	}
	var err error
	p.Label, err = Parse(rest, pkg)
	return p, err
}

func join(a, b string) string {
	if j := path.Join(a, b); j != "." {
		return j
	}
	return ""
}

// String is the canonical form of p, which ParsePattern reads back.
func (p Pattern) String() string {
	s := p.Label.String()
	switch {
	case p.Below && p.Label.Pkg == "":
		s = "//..."
	case p.Below:
		s = "//" + p.Label.Pkg + "/..."
	case p.All:
		s = "//" + p.Label.Pkg + ":all"
	}
	if p.Negative {
		return "-" + s
	}
	return s
}

// One tells whether p names a single target.
func (p Pattern) One() bool { return !p.Below && !p.All }

// MatchPackage tells whether p can match targets of pkg.
func (p Pattern) MatchPackage(pkg string) bool {
	if p.Below {
		return p.Label.Pkg == "" || pkg == p.Label.Pkg || strings.HasPrefix(pkg, p.Label.Pkg+"/")
	}
	return pkg == p.Label.Pkg
}

// Match tells whether p matches l, whatever its sign.
func (p Pattern) Match(l Label) bool {
	return p.MatchPackage(l.Pkg) && (!p.One() || p.Label.Name == l.Name)
}
