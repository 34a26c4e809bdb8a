package gen

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/mwbuild/mwbuild/internal/workspace"
	"github.com/mwbuild/mwbuild/starlark/buildfile"
)

var update = flag.Bool("update", false, "rewrite golden files")

// Each fixture is a tree, NAME.in.txtar, and what Generate makes of it, NAME.golden.txtar: the changes, and what there was to
// say. They are archives and not folders, as mwbuild itself would see BUILD files in folders. Then comes a second run, which must
// change nothing and say the same.
func TestGenerate(t *testing.T) {
	fixtures, err := filepath.Glob("testdata/*.in.txtar")
	if err != nil || len(fixtures) == 0 {
		t.Fatal("no fixtures", err)
	}
	for _, in := range fixtures {
		name := strings.TrimSuffix(filepath.Base(in), ".in.txtar")
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			archive, err := txtar.ParseFile(in)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range archive.Files {
				write(t, filepath.Join(root, f.Name), f.Data)
			}
			res := generate(t, root)
			for _, c := range res.Changes {
				if c.New == nil {
					continue
				}
				formatted, err := buildfile.Format(c.Path, c.New)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(string(formatted), string(c.New)); diff != "" {
					t.Errorf("%s is not as fmt would have it (-fmt +gen):\n%s", c.Path, diff)
				}
			}
			got := show(res)
			golden := filepath.Join("testdata", name+".golden.txtar")
			if *update {
				write(t, golden, got)
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("Generate (-want +got):\n%s", diff)
			}

			apply(t, root, res)
			again := generate(t, root)
			if len(again.Changes) > 0 {
				t.Errorf("... but not again: a second run changes\n%s", show(again))
			}
			again.Changes = res.Changes
			if diff := cmp.Diff(string(got), string(show(again))); diff != "" {
				t.Errorf("a second run says something else (-first +second):\n%s", diff)
			}
		})
	}
}

func generate(t *testing.T, root string, folders ...string) *Result {
	t.Helper()
	tree, err := workspace.Open(t.Context(), root, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := Generate(t.Context(), Options{Root: root, Tree: tree, Folders: folders})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func write(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func apply(t *testing.T, root string, res *Result) {
	t.Helper()
	for _, c := range res.Changes {
		file := filepath.Join(root, c.Path)
		if c.New == nil {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			continue
		}
		write(t, file, c.New)
	}
}

// show writes a result as an archive.
func show(res *Result) []byte {
	var said strings.Builder
	for _, err := range res.Errors {
		fmt.Fprintln(&said, "error:", err)
	}
	for _, n := range res.Notes {
		fmt.Fprintln(&said, "note:", n)
	}
	for _, m := range res.Missing {
		fmt.Fprintf(&said, "missing: %q\n", m.Name)
		for _, p := range m.Required {
			fmt.Fprintln(&said, "  required at", p)
		}
		for _, p := range m.Asked {
			fmt.Fprintln(&said, "  asked for at", p)
		}
	}
	fmt.Fprintf(&said, "components: %d\n", res.Components)
	archive := &txtar.Archive{Comment: []byte(said.String())}
	for _, c := range res.Changes {
		f := txtar.File{Name: c.Path, Data: c.New}
		if c.New == nil {
			f.Name += " (deleted)"
		}
		archive.Files = append(archive.Files, f)
	}
	return txtar.Format(archive)
}

// memory is a tree of files that are nowhere, and counts how often each is read.
type memory struct {
	files map[string]string
	reads chan string
}

func (m memory) Files() []string { return slices.Sorted(maps.Keys(m.files)) }

func (m memory) Lookup(path string) (workspace.File, bool) {
	_, ok := m.files[path]
	return workspace.File{Path: path}, ok
}

func (m memory) ReadFile(path string) ([]byte, error) {
	text, ok := m.files[path]
	if !ok {
		return nil, fs.ErrNotExist
	}
	m.reads <- path
	return []byte(text), nil
}

// synthetic is a tree of n components, each of which needs the one before it and knows the one after it.
func synthetic(n int) memory {
	m := memory{files: map[string]string{"includes/Defines.php": "<?php", "vendor/autoload.php": "<?php"}, reads: make(chan string, 10*n+100)}
	for i := range n {
		dir := fmt.Sprintf("extensions/E%04d", i)
		m.files[dir+"/extension.json"] = fmt.Sprintf(`{"name": "Name %d", "manifest_version": 2, "requires": {"extensions": {"Name %d": "*"}}}`, i, max(i-1, 0))
		m.files[dir+"/src/Hooks.php"] = fmt.Sprintf("<?php\n$r->isLoaded( 'Name %d' );\n", i+1)
		m.files[dir+"/src/More.php"] = "<?php\n// nothing\n"
		m.files[dir+"/tests/Test.php"] = "<?php\n$r->isLoaded( 'Name 0' );\n"
		m.files[dir+"/i18n/en.json"] = "{}"
	}
	return m
}

// The work grows with the number of components and no faster: every manifest, every BUILD file and every PHP file that is no test
// is read once, and nothing else.
func TestLinear(t *testing.T) {
	for _, n := range []int{10, 1000} {
		m := synthetic(n)
		opts := Options{Root: t.TempDir(), Tree: m}
		res, err := Generate(t.Context(), opts)
		if err != nil || len(res.Errors) > 0 {
			t.Fatal(err, res.Errors)
		}
		if got := len(m.reads); got != 3*n {
			t.Errorf("%d components: %d files read, want %d", n, got, 3*n)
		}
		if got := len(res.Changes); got != n+3 {
			t.Errorf("%d components: %d changes, want %d", n, got, n+3)
		}
		for _, c := range res.Changes {
			m.files[c.Path] = string(c.New)
		}
		for len(m.reads) > 0 {
			<-m.reads
		}
		if res, err = Generate(t.Context(), opts); err != nil || len(res.Errors) > 0 || len(res.Changes) > 0 {
			t.Fatalf("%d components, again: %v %v, %d changes", n, err, res.Errors, len(res.Changes))
		}
		close(m.reads)
		seen := map[string]int{}
		for p := range m.reads {
			seen[p]++
		}
		for p, times := range seen {
			if times != 1 {
				t.Errorf("%s is read %d times", p, times)
			}
		}
		if len(seen) != 4*n+2 { // and vendor/BUILD, BUILD
			t.Errorf("%d components, again: %d files read, want %d", n, len(seen), 4*n+2)
		}
	}
}

func BenchmarkGenerate(b *testing.B) {
	for _, n := range []int{100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			root := b.TempDir()
			for b.Loop() {
				m := synthetic(n)
				if _, err := Generate(b.Context(), Options{Root: root, Tree: m}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestFolders(t *testing.T) {
	m := synthetic(12)
	paths := func(folders ...string) []string {
		res, err := Generate(t.Context(), Options{Root: t.TempDir(), Tree: m, Folders: folders})
		if err != nil || len(res.Errors) > 0 {
			t.Fatal(err, res.Errors)
		}
		var paths []string
		for _, c := range res.Changes {
			paths = append(paths, c.Path)
		}
		return paths
	}
	for _, tc := range []struct {
		folders []string
		want    []string
	}{
		{[]string{"extensions/E0003", "extensions/E0001/src"}, []string{"extensions/E0003/BUILD"}},
		{[]string{"vendor", "extensions/E000"}, []string{"vendor/BUILD"}},
	} {
		if diff := cmp.Diff(tc.want, paths(tc.folders...)); diff != "" {
			t.Errorf("folders %v (-want +got):\n%s", tc.folders, diff)
		}
	}
	if got := len(paths("extensions")); got != 12 {
		t.Errorf("folder extensions: %d changes, want 12", got)
	}
	if got := len(paths("")); got != 12+3 {
		t.Errorf("the root: %d changes, want 15", got)
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Generate(ctx, Options{Tree: synthetic(3)}); err != context.Canceled {
		t.Errorf("Generate: %v, want %v", err, context.Canceled)
	}
}

// A BUILD file that git or .mwbuildignore hides is not replaced, and neither is one that a symlink leads to.
func TestHidden(t *testing.T) {
	root := t.TempDir()
	manifest := []byte(`{"name": "A", "manifest_version": 2}`)
	for _, name := range []string{"A", "B", "C", "D"} {
		write(t, filepath.Join(root, "extensions", name, "extension.json"), bytes.ReplaceAll(manifest, []byte("A"), []byte(name)))
	}
	write(t, filepath.Join(root, "extensions/A/BUILD"), []byte("mine\n"))
	write(t, filepath.Join(root, "WORKSPACE"), nil)
	write(t, filepath.Join(root, "elsewhere"), []byte("mine\n"))
	write(t, filepath.Join(root, ".mwbuildignore"), []byte("extensions/A/BUILD\nextensions/D/build\nWORKSPACE\n"))
	// On a disk that folds case, this is in the way, ignored or not.
	write(t, filepath.Join(root, "extensions/D/build/out.js"), nil)
	if err := os.Symlink("../../elsewhere", filepath.Join(root, "extensions/B/BUILD")); err != nil {
		t.Fatal(err)
	}
	res := generate(t, root)
	var got []string
	for _, err := range res.Errors {
		got = append(got, strings.Split(err.Error(), "\n")[0])
	}
	for _, c := range res.Changes {
		got = append(got, c.Path)
	}
	want := []string{
		"WORKSPACE: is there, but no part of the workspace, so it is not replaced",
		"extensions/A/BUILD: is there, but no part of the workspace, so it is not replaced",
		"extensions/B/BUILD: is a symlink, which is never written through",
		"BUILD",
		"extensions/C/BUILD",
		"extensions/D/BUILD.star",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
