package workspace

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// Glob returns the files and symlinks of package pkg that match one of include and none of exclude, sorted, relative to pkg.
// Patterns are doublestar's, and relative to pkg; what lies in a package below pkg is never matched, nor are pkg's own BUILD
// and BUILD.star. A pattern that can match nothing is an error: one that starts with a slash, or has "." or ".." for a folder.
func (l *listing) Glob(pkg string, include, exclude []string) ([]string, error) {
	p := l.pkg[pkg]
	if p == nil {
		return nil, fmt.Errorf("glob: %q is no package: it has no BUILD or BUILD.star", pkg)
	}
	var errs []error
	compileAll := func(list []string) []pattern {
		ps := make([]pattern, len(list))
		for i, s := range list {
			var err error
			if ps[i], err = compile(s); err != nil {
				errs = append(errs, fmt.Errorf("glob: pattern %q %w", s, err))
			}
		}
		return ps
	}
	in, ex := newMatcher(compileAll(include)), newMatcher(compileAll(exclude))
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	skip := 0
	if pkg != "" {
		skip = len(pkg) + 1
	}
	var out []string
	for _, i := range p.files {
		name := l.files[i].Path[skip:]
		if in.match(name) && !ex.match(name) && !slices.Contains(p.build, name) {
			out = append(out, name)
		}
	}
	return out, nil
}

// A pattern is a doublestar pattern with what every match starts and ends with, which is quick to compare.
type pattern struct {
	text           string
	prefix, suffix string
	all            bool // matches everything
}

// compile checks a pattern. Its errors complete the sentence "pattern … ".
func compile(text string) (pattern, error) {
	p := pattern{text: text, all: text == "**"}
	switch {
	case text == "":
		return p, errors.New("is empty")
	case text[0] == '/':
		return p, errors.New("starts with a slash: patterns are relative")
	case strings.HasSuffix(text, "/"):
		return p, fmt.Errorf("ends with a slash and matches no file: write %q for all files in a folder", text+"**")
	case !doublestar.ValidatePattern(text):
		return p, errors.New("is malformed: a bracket, brace or backslash does not end")
	}
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune("/{,}", r) }) {
		if part == ".." || part == "." {
			return p, fmt.Errorf("contains %q: patterns stay inside their folder and name it in one way", part)
		}
	}
	if strings.Contains(text, "//") {
		return p, errors.New("contains two slashes in a row and matches no file")
	}
	if strings.Contains(text, `\`) {
		return p, nil
	}
	// The slash beside a ** is none of what every match has: "a/**" matches "a" too.
	if i := strings.IndexAny(text, "*?[{"); i >= 0 {
		p.prefix = strings.TrimSuffix(text[:i], "/")
		p.suffix = strings.TrimPrefix(text[strings.LastIndexAny(text, "*?]}")+1:], "/")
	} else {
		p.prefix = text
	}
	return p, nil
}

func (p *pattern) match(name string) bool {
	return p.all || strings.HasPrefix(name, p.prefix) && strings.HasSuffix(name, p.suffix) && doublestar.MatchUnvalidated(p.text, name)
}

func matchAny(ps []pattern, name string) bool {
	for i := range ps {
		if ps[i].match(name) {
			return true
		}
	}
	return false
}

// A matcher matches names against several patterns. A pattern "P/**" is compared with folders, of which there are fewer than
// files, and each only once.
type matcher struct {
	names  []pattern       // patterns of another form
	below  []pattern       // P of each "P/**"
	whole  []pattern       // "P/**" of each P in below
	within map[string]bool // by folder: it, or one above it, matches a P
}

func newMatcher(ps []pattern) *matcher {
	m := &matcher{within: map[string]bool{"": false}}
	for _, p := range ps {
		dir, ok := strings.CutSuffix(p.text, "/**")
		if c, err := compile(dir); ok && err == nil && !strings.HasSuffix(dir, "**") && !strings.ContainsAny(dir, `\{`) {
			m.below, m.whole = append(m.below, c), append(m.whole, p)
		} else {
			m.names = append(m.names, p)
		}
	}
	return m
}

func (m *matcher) match(name string) bool {
	if folder, _ := split(name); m.folder(folder) || matchAny(m.names, name) {
		return true
	}
	for i := range m.below { // "P/**" can match P, with exceptions that only doublestar knows
		if m.below[i].match(name) && m.whole[i].match(name) {
			return true
		}
	}
	return false
}

func (m *matcher) folder(name string) bool {
	if len(m.below) == 0 {
		return false
	}
	if v, ok := m.within[name]; ok {
		return v
	}
	up, _ := split(name)
	v := m.folder(up) || matchAny(m.below, name)
	m.within[name] = v
	return v
}
