package archive

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// A Package is what a Packages list, or the control file of a .deb, says of one package.
type Package struct {
	Name, Version, Architecture string
	Source                      string // name of its source package
	Essential                   bool
	Priority                    string
	MultiArch                   string

	PreDepends, Depends [][]Relation
	Conflicts, Breaks   [][]Relation
	Replaces, Provides  [][]Relation

	// In a list only.
	SHA256 string
	Size   int64
	Path   string // below a mirror
}

func (p *Package) String() string { return p.Name + " " + p.Version }

// Provided tells in which version, "" for none, p stands for the name of r, if it is in one that r names.
func (p *Package) Provided(r Relation) bool {
	for _, g := range p.Provides {
		if g[0].Name == r.Name && (r.Op == "" || g[0].Op == "=" && r.Holds(g[0].Version)) {
			return true
		}
	}
	return false
}

// Satisfies tells whether p is, or stands for, what r names.
func (p *Package) Satisfies(r Relation) bool {
	return p.Name == r.Name && r.Holds(p.Version) || p.Provided(r)
}

// PackageOf reads a stanza for machines of the architecture arch.
func PackageOf(s Stanza, arch string) (*Package, error) {
	p := &Package{
		Name: s.Get("Package"), Version: s.Get("Version"), Architecture: s.Get("Architecture"), Priority: s.Get("Priority"),
		Essential: s.Get("Essential") == "yes", MultiArch: s.Get("Multi-Arch"),
		SHA256: strings.ToLower(s.Get("SHA256")), Path: s.Get("Filename"),
	}
	p.Source, _, _ = strings.Cut(s.Get("Source"), " ") // its version may follow
	if p.Source == "" {
		p.Source = p.Name
	}
	if p.Name == "" || p.Version == "" || p.Architecture == "" {
		return nil, fmt.Errorf("package %q has no name, version or architecture", p.Name)
	}
	if size := s.Get("Size"); size != "" {
		var err error
		if p.Size, err = strconv.ParseInt(size, 10, 64); err != nil {
			return nil, fmt.Errorf("package %s: size: %w", p, err)
		}
	}
	for name, to := range map[string]*[][]Relation{
		"Pre-Depends": &p.PreDepends, "Depends": &p.Depends, "Conflicts": &p.Conflicts, "Breaks": &p.Breaks, "Replaces": &p.Replaces, "Provides": &p.Provides,
	} {
		var err error
		if *to, err = ParseRelations(s.Get(name), arch); err != nil {
			return nil, fmt.Errorf("package %s: %s: %w", p, name, err)
		}
	}
	return p, nil
}

// ReadPackages reads a Packages list: what can be installed on machines of the architecture arch.
func ReadPackages(r io.Reader, arch string) ([]*Package, error) {
	var all []*Package
	err := ReadControl(r, func(s Stanza) error {
		p, err := PackageOf(s, arch)
		if err == nil && (p.Architecture == arch || p.Architecture == "all") {
			all = append(all, p)
		}
		return err
	})
	return all, err
}
