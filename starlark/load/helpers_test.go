package load

import (
	"crypto/sha1"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/mwbuild/mwbuild/graph/label"
	"github.com/mwbuild/mwbuild/internal/workspace"
)

// A memTree is a tree in memory: path to content. What begins with "-> " is a symlink.
type memTree map[string]string

func (m memTree) Packages() []string {
	var pkgs []string
	for p := range m {
		if base := path.Base(p); base == "BUILD" || base == "BUILD.star" {
			pkgs = append(pkgs, strings.TrimPrefix(path.Dir(p), "."))
		}
	}
	slices.Sort(pkgs)
	return slices.Compact(pkgs)
}

func (m memTree) BuildFiles(pkg string) []string {
	var names []string
	for _, n := range []string{"BUILD", "BUILD.star"} {
		if _, ok := m[path.Join(pkg, n)]; ok {
			names = append(names, n)
		}
	}
	return names
}

func (m memTree) Lookup(p string) (workspace.File, bool) {
	text, ok := m[p]
	f := workspace.File{Path: p}
	if target, link := strings.CutPrefix(text, "-> "); link {
		f.Mode, f.Target = workspace.Symlink, strings.TrimSpace(target)
	}
	return f, ok
}

func (m memTree) ReadFile(p string) ([]byte, error) {
	text, ok := m[p]
	if !ok {
		return nil, fmt.Errorf("%s: %w", p, fs.ErrNotExist)
	}
	return []byte(text), nil
}

func (m memTree) Glob(pkg string, include, exclude []string) ([]string, error) {
	for _, p := range slices.Concat(include, exclude) {
		if !doublestar.ValidatePattern(p) {
			return nil, fmt.Errorf("bad pattern %s", p)
		}
	}
	owner := func(file string) string {
		for dir := path.Dir(file); dir != "."; dir = path.Dir(dir) {
			if len(m.BuildFiles(dir)) > 0 {
				return dir
			}
		}
		return ""
	}
	var files []string
	for f := range maps.Keys(m) {
		rel := strings.TrimPrefix(strings.TrimPrefix(f, pkg), "/")
		match := func(p string) bool { return doublestar.MatchUnvalidated(p, rel) }
		if inside(f, pkg) && slices.ContainsFunc(include, match) && !slices.ContainsFunc(exclude, match) && owner(f) == pkg {
			files = append(files, rel)
		}
	}
	slices.Sort(files)
	return files, nil
}

func (m memTree) Owned(pkg string) iter.Seq[workspace.File] {
	return func(yield func(workspace.File) bool) {
		names, err := m.Glob(pkg, []string{"**"}, nil)
		if err != nil {
			panic(err)
		}
		for _, n := range names {
			if f, _ := m.Lookup(path.Join(pkg, n)); !yield(f) {
				return
			}
		}
	}
}

func (m memTree) Blob(p string) (string, error) {
	text, ok := m[p]
	if !ok {
		return "", fmt.Errorf("%s: %w", p, fs.ErrNotExist)
	}
	return fmt.Sprintf("%x", sha1.Sum([]byte(text))), nil
}

func newLoader(t testing.TB, tree memTree) *Loader {
	t.Helper()
	if _, ok := tree["WORKSPACE"]; !ok {
		tree["WORKSPACE"] = ""
	}
	l, errs := New(Options{Tree: tree, Prelude: os.DirFS("testdata/prelude")})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return l
}

func patterns(t testing.TB, words ...string) []label.Pattern {
	t.Helper()
	var ps []label.Pattern
	for _, w := range words {
		p, err := label.ParsePattern(w, "")
		if err != nil {
			t.Fatal(err)
		}
		ps = append(ps, p)
	}
	return ps
}
