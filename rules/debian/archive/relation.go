package archive

import (
	"fmt"
	"slices"
	"strings"
)

// A Relation is a name with an optional version, as in "libc6 (>= 2.36)".
type Relation struct {
	Name    string
	Op      string // "<<", "<=", "=", ">=", ">>", or "" for any version
	Version string
}

func (r Relation) String() string {
	if r.Op == "" {
		return r.Name
	}
	return fmt.Sprintf("%s (%s %s)", r.Name, r.Op, r.Version)
}

// Holds tells whether version is one that r names.
func (r Relation) Holds(version string) bool {
	if r.Op == "" {
		return true
	}
	c := CompareVersions(version, r.Version)
	switch r.Op {
	case "<<":
		return c < 0
	case "<=":
		return c <= 0
	case "=":
		return c == 0
	case ">=":
		return c >= 0
	}
	return c > 0
}

// ParseRelations reads a field such as Depends: all of the groups are wanted, of each group one. Fields without alternatives
// have groups of one. What names another architecture than arch, in brackets or after a colon, is left out.
func ParseRelations(field, arch string) ([][]Relation, error) {
	var all [][]Relation
	for _, group := range strings.Split(field, ",") {
		if strings.TrimSpace(group) == "" {
			continue
		}
		var alternatives []Relation
		for _, text := range strings.Split(group, "|") {
			r, ok, err := parseRelation(text, arch)
			if err != nil {
				return nil, err
			}
			if ok {
				alternatives = append(alternatives, r)
			}
		}
		if len(alternatives) > 0 {
			all = append(all, alternatives)
		}
	}
	return all, nil
}

// parseRelation is not ok where the relation is for another architecture.
func parseRelation(text, arch string) (r Relation, ok bool, err error) {
	bad := func() (Relation, bool, error) {
		return Relation{}, false, fmt.Errorf("%q is no relation to a package", strings.TrimSpace(text))
	}
	rest := strings.TrimSpace(text)
	i := strings.IndexAny(rest, " \t\n([<")
	if i < 0 {
		i = len(rest)
	}
	r.Name, rest = rest[:i], strings.TrimSpace(rest[i:])
	name, qualifier, qualified := strings.Cut(r.Name, ":")
	if r.Name = name; name == "" {
		return bad()
	}
	ok = !qualified || slices.Contains([]string{"any", "native", "all", arch}, qualifier)
	if strings.HasPrefix(rest, "(") {
		inside, after, closed := strings.Cut(rest[1:], ")")
		inside = strings.TrimSpace(inside)
		n := 0
		for n < len(inside) && strings.IndexByte("<>=", inside[n]) >= 0 {
			n++
		}
		r.Op, r.Version = inside[:n], strings.TrimSpace(inside[n:])
		switch r.Op {
		case "<":
			r.Op = "<=" // as dpkg reads these old forms
		case ">":
			r.Op = ">="
		}
		if !closed || r.Version == "" || !slices.Contains([]string{"<<", "<=", "=", ">=", ">>"}, r.Op) {
			return bad()
		}
		rest = strings.TrimSpace(after)
	}
	if strings.HasPrefix(rest, "[") {
		inside, after, closed := strings.Cut(rest[1:], "]")
		if !closed {
			return bad()
		}
		architectures := strings.Fields(inside)
		negative := len(architectures) > 0 && strings.HasPrefix(architectures[0], "!")
		named := slices.ContainsFunc(architectures, func(a string) bool {
			a = strings.TrimPrefix(a, "!")
			return a == arch || a == "any" || a == "linux-any"
		})
		ok = ok && named != negative
		rest = strings.TrimSpace(after)
	}
	for strings.HasPrefix(rest, "<") { // build profiles: of packages to build only
		_, after, closed := strings.Cut(rest, ">")
		if !closed {
			return bad()
		}
		rest = strings.TrimSpace(after)
	}
	if rest != "" {
		return bad()
	}
	return r, ok, nil
}
