package workspace

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// fake is a Disk of files that do not exist.
func fake(paths ...string) *Disk {
	paths = slices.Clone(paths)
	slices.Sort(paths)
	paths = slices.Compact(paths)
	var files []File
	for _, p := range paths {
		files = append(files, File{Path: p})
	}
	return &Disk{listing: newListing(files)}
}

func TestPackages(t *testing.T) {
	root := t.TempDir()
	write(t, root, map[string]string{
		"BUILD": "", "a/BUILD.star": "", "a.b/BUILD": "#! executable", "both/BUILD": "", "both/BUILD.star": "", "deep/er/BUILD": "",
		"link/BUILD": "-> ../BUILD", "folder/BUILD/f": "", "ignored/BUILD": "", ".mwbuildignore": "ignored/",
	})
	d := open(t, root, nil)
	if diff := cmp.Diff([]string{"", "a", "a.b", "both", "deep/er"}, d.Packages()); diff != "" {
		t.Errorf("Packages (-want +got):\n%s", diff)
	}
	for pkg, want := range map[string][]string{"": {"BUILD"}, "a": {"BUILD.star"}, "both": {"BUILD", "BUILD.star"}, "link": nil, "deep": nil} {
		if diff := cmp.Diff(want, d.BuildFiles(pkg)); diff != "" {
			t.Errorf("BuildFiles(%q) (-want +got):\n%s", pkg, diff)
		}
	}
}

func TestGlob(t *testing.T) {
	d := fake("BUILD", "f.php", "tests/T.php", "includes/a.php", "includes/b/c.php", "includes/b/tests/d.php", "includes/b/README.md",
		"ext/Cite/BUILD.star", "ext/Cite/src/x.php", "ext/Cite/BUILD.md", "ext/Cite/sub/BUILD/x.php", "ext/Cite/sub/pkg/BUILD", "ext/Cite/sub/pkg/y.php",
		"ext/other.php", "languages/Ä.php", "languages/zh-hant.json", ".gitignore", "a,b")
	for _, tt := range []struct {
		pkg              string
		include, exclude []string
		want             []string
	}{
		{"", []string{"*.php"}, nil, []string{"f.php"}},
		{"", []string{"**/*.php"}, []string{"tests/**"}, []string{"ext/other.php", "f.php", "includes/a.php", "includes/b/c.php", "includes/b/tests/d.php", "languages/Ä.php"}},
		{"", []string{"**/*.php"}, []string{"**/tests/**", "languages/?.php", "ext"}, []string{"ext/other.php", "f.php", "includes/a.php", "includes/b/c.php"}},
		{"", []string{"includes/**"}, []string{"**/*.md"}, []string{"includes/a.php", "includes/b/c.php", "includes/b/tests/d.php"}},
		{"", []string{"{f,g}.php", "languages/*-{hant,hans}.json", "[.]git*"}, nil, []string{".gitignore", "f.php", "languages/zh-hant.json"}},
		{"", []string{"f.php", "f.php", "**"}, []string{"**"}, nil},
		{"", []string{"f.php/**"}, nil, []string{"f.php"}},
		{"", []string{"ext/Cite/**"}, nil, nil},
		{"", []string{"BUILD", "*"}, []string{"*.php"}, []string{".gitignore", "a,b"}},
		{"", []string{`a\,b`}, nil, []string{"a,b"}},
		{"", nil, nil, nil},
		{"ext/Cite", []string{"**"}, nil, []string{"BUILD.md", "src/x.php", "sub/BUILD/x.php"}},
		{"ext/Cite", []string{"**"}, []string{"src/**", "ext/Cite/**"}, []string{"BUILD.md", "sub/BUILD/x.php"}},
		{"ext/Cite/sub/pkg", []string{"*"}, nil, []string{"y.php"}},
	} {
		got, err := d.Glob(tt.pkg, tt.include, tt.exclude)
		if err != nil {
			t.Errorf("Glob(%q, %q, %q): %v", tt.pkg, tt.include, tt.exclude, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("Glob(%q, %q, %q) (-want +got):\n%s", tt.pkg, tt.include, tt.exclude, diff)
		}
	}
}

func TestGlobErrors(t *testing.T) {
	d := fake("BUILD", "f")
	for pattern, want := range map[string]string{
		"": "empty", "/f": "slash", "../f": `".."`, "a/../f": `".."`, "./f": `"."`, "a//b": "two slashes", "a/": `"a/**"`,
		"[a": "malformed", "{a": "malformed", `a\`: "malformed", "{..,a}/f": `".."`,
	} {
		_, err := d.Glob("", []string{"*", pattern}, nil)
		_, xerr := d.Glob("", []string{"*"}, []string{pattern})
		for _, err := range []error{err, xerr} {
			if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", pattern)) || !strings.Contains(err.Error(), want) {
				t.Errorf("pattern %q: %v, want an error with it and %q", pattern, err, want)
			}
		}
	}
	if _, err := d.Glob("", []string{"[x", "/y"}, []string{"{z"}); err == nil || strings.Count(err.Error(), "pattern") < 3 {
		t.Errorf("not all errors in one pass: %v", err)
	}
	if _, err := d.Glob("nopkg", []string{"*"}, nil); err == nil {
		t.Error("Glob in a folder that is no package: no error")
	}
	if _, err := d.Glob("", []string{"a..b", "...", "*..*"}, nil); err != nil {
		t.Errorf("two dots inside a name: %v", err)
	}
}

// Glob is what a loop over all files with doublestar.Match would be.
func TestGlobOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		segment := rapid.SampledFrom([]string{"a", "b", "ab", "BUILD", "BUILD.star", "a.b", "ü", ".x"})
		paths := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string {
			return path.Join(rapid.SliceOfN(segment, 1, 4).Draw(t, "segments")...)
		}), 1, 30).Draw(t, "paths")
		paths = append(paths, "BUILD")
		d := fake(paths...)
		part := rapid.SampledFrom([]string{"a", "b", "ab", "*", "**", "?", "a*", "*b", "**/*.b", "{a,b}", "{a/b,ü}", "{**,a}", "{*,a/**}", "[ab]", "[^a]*", "BUILD*", `\a`, ".*", "***", "a**"})
		pattern := rapid.Custom(func(t *rapid.T) string {
			return strings.Join(rapid.SliceOfN(part, 1, 4).Draw(t, "parts"), "/")
		})
		include := rapid.SliceOfN(pattern, 0, 3).Draw(t, "include")
		exclude := rapid.SliceOfN(pattern, 0, 3).Draw(t, "exclude")
		pkg := rapid.SampledFrom(d.Packages()).Draw(t, "pkg")

		matches := func(patterns []string, name string) bool {
			for _, p := range patterns {
				ok, err := doublestar.Match(p, name)
				if err != nil {
					t.Fatal(err)
				}
				if ok {
					return true
				}
			}
			return false
		}
		isPackage := func(dir string) bool {
			return slices.Contains(d.Files(), path.Join(dir, "BUILD")) || slices.Contains(d.Files(), path.Join(dir, "BUILD.star"))
		}
		var want []string
		for _, p := range d.Files() {
			dir := path.Dir(p)
			for dir != "." && !isPackage(dir) {
				dir = path.Dir(dir)
			}
			if dir == "." {
				dir = ""
			}
			if dir != pkg {
				continue
			}
			name := strings.TrimPrefix(strings.TrimPrefix(p, pkg), "/")
			if name != "BUILD" && name != "BUILD.star" && matches(include, name) && !matches(exclude, name) {
				want = append(want, name)
			}
		}
		got, err := d.Glob(pkg, include, exclude)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("Glob(%q, %q, %q) of %q (-want +got):\n%s", pkg, include, exclude, d.Files(), diff)
		}
	})
}

func BenchmarkGlob(b *testing.B) {
	var paths []string
	for i := range 27000 {
		paths = append(paths, fmt.Sprintf("dir%d/sub%d/file%d.php", i%40, i%700, i))
	}
	d := fake(append(paths, "BUILD")...)
	for name, exclude := range map[string][]string{
		"all":      nil,
		"excludes": {"**/tests/**", "**/.git*", "**/node_modules/**", "**/*.md", "docs/**", "**/{package,composer}.json"},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if got, err := d.Glob("", []string{"**"}, exclude); len(got) != 27000 || err != nil {
					b.Fatal(len(got), err)
				}
			}
		})
	}
}
