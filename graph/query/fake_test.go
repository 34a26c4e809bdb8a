package query

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/mwbuild/mwbuild/graph/label"
)

// fakeTarget is a target of a made-up workspace.
type fakeTarget struct {
	label      label.Label
	kind       string
	edges      []Edge
	attrs      map[string][]string // lists
	visibility string              // "public", "private" or a package
}

func (t *fakeTarget) Label() label.Label { return t.label }
func (t *fakeTarget) Kind() string       { return t.kind }
func (t *fakeTarget) Edges() []Edge      { return t.edges }
func (t *fakeTarget) VisibleFrom(pkg string) bool {
	return t.visibility == "public" || pkg == t.label.Pkg || pkg == t.visibility
}
func (t *fakeTarget) Attr(name string) []Value {
	if name == "name" {
		return []Value{{Text: t.label.Name}}
	}
	if l, ok := t.attrs[name]; ok {
		return []Value{{"[" + strings.Join(l, ", ") + "]", l}}
	}
	return nil
}

// fakeSource is a made-up workspace.
type fakeSource struct {
	targets  map[label.Label]*fakeTarget
	packages map[string]bool
	files    map[string]bool
	loads    map[string][]string
	loaded   map[string]bool // packages that were evaluated
}

// parseFake reads a workspace: lines "label kind attr=value,value … +visibility", where a value is a label, a file of the package or
// a word; "load package file…", "file path…" and "package name".
func parseFake(text string) *fakeSource {
	s := &fakeSource{map[label.Label]*fakeTarget{}, map[string]bool{}, map[string]bool{}, map[string][]string{}, map[string]bool{}}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for _, line := range lines {
		if f := strings.Fields(line); f[0] == "file" {
			for _, name := range f[1:] {
				s.files[name] = true
			}
		}
	}
	for _, line := range lines {
		f := strings.Fields(line)
		switch f[0] {
		case "file":
			continue
		case "package":
			s.addPackage(f[1])
			continue
		case "load":
			s.addPackage(f[1])
			s.loads[f[1]] = f[2:]
			continue
		}
		lab, err := label.Parse(f[0], "")
		if err != nil {
			panic(err)
		}
		t := &fakeTarget{label: lab, kind: f[1], attrs: map[string][]string{"tags": {}}, visibility: "public"}
		for _, a := range f[2:] {
			if v, ok := strings.CutPrefix(a, "+"); ok {
				t.visibility = v
				continue
			}
			name, values, _ := strings.Cut(a, "=")
			name, implicit := strings.CutPrefix(name, "_")
			t.attrs[name] = []string{}
			for _, v := range strings.Split(values, ",") {
				switch {
				case v == "":
					continue
				case s.files[path.Join(lab.Pkg, v)]:
					t.edges = append(t.edges, Edge{Attr: name, File: path.Join(lab.Pkg, v), Implicit: implicit})
					v = "//" + lab.Pkg + ":" + v
				case strings.HasPrefix(v, "/") || strings.HasPrefix(v, ":"):
					to, err := label.Parse(v, lab.Pkg)
					if err != nil {
						panic(err)
					}
					t.edges = append(t.edges, Edge{Attr: name, To: to, Implicit: implicit})
					v = to.String()
				}
				t.attrs[name] = append(t.attrs[name], v)
			}
		}
		s.targets[lab] = t
		s.addPackage(lab.Pkg)
	}
	return s
}

func (s *fakeSource) addPackage(name string) {
	s.packages[name] = true
	s.files[path.Join(name, "BUILD")] = true
}

func (s *fakeSource) Load(_ context.Context, patterns []label.Pattern) ([]Target, error) {
	var out []Target
	seen := map[label.Label]bool{}
	var add func(t *fakeTarget)
	add = func(t *fakeTarget) {
		if t == nil || seen[t.label] {
			return
		}
		seen[t.label] = true
		s.loaded[t.label.Pkg] = true
		for _, e := range t.edges {
			if e.File == "" {
				add(s.targets[e.To])
			}
		}
		out = append(out, t)
	}
	for _, lab := range slices.SortedFunc(maps.Keys(s.targets), label.Label.Compare) {
		for _, p := range slices.Backward(patterns) {
			if p.Match(lab) {
				if !p.Negative {
					add(s.targets[lab])
				}
				break
			}
		}
	}
	return out, nil
}

func (s *fakeSource) Missing(p label.Pattern) (string, []string) {
	for name := range s.packages {
		if !p.One() && p.MatchPackage(name) {
			return "", nil
		}
	}
	return fmt.Sprintf("nothing is %s", p), []string{"look elsewhere"}
}

func (s *fakeSource) IsPackage(name string) bool { return s.packages[name] }
func (s *fakeSource) HasFile(file string) bool   { return s.files[file] }
func (s *fakeSource) Owner(file string) string {
	for dir := path.Dir(file); dir != "."; dir = path.Dir(dir) {
		if s.packages[dir] {
			return dir
		}
	}
	return ""
}

func (s *fakeSource) PackageFiles(_ context.Context, name string) (string, []string) {
	return path.Join(name, "BUILD"), s.loads[name]
}
