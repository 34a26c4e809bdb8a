package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mwbuild/mwbuild/internal/workspace"
	"github.com/mwbuild/mwbuild/rules"
	"github.com/mwbuild/mwbuild/starlark/load"
)

// repository is the root of this repository.
const repository = "../.."

func readDoc(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(repository, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func evalWorkspace(t *testing.T, text string) (load.Workspace, error) {
	t.Helper()
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "WORKSPACE"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	tree, err := workspace.Open(t.Context(), root, nil)
	if err != nil {
		t.Fatal(err)
	}
	l, errs := load.New(load.Options{Tree: tree, Prelude: rules.Prelude, Version: version()})
	if len(errs) > 0 {
		return load.Workspace{}, errors.Join(errs...)
	}
	return l.Workspace(), nil
}

// TestWorkspaceExample evaluates WORKSPACE.example, which shows defaults and every statement.
func TestWorkspaceExample(t *testing.T) {
	example := readDoc(t, "WORKSPACE.example")
	got, err := evalWorkspace(t, example)
	if err != nil {
		t.Fatal(err)
	}
	want, err := evalWorkspace(t, "")
	if err != nil {
		t.Fatal(err)
	}
	want.Name, want.Defines = "mediawiki", map[string]string{"debug": "off"}
	want.Registries = []load.Registry{{Name: "private", Repository: "registry.example/mediawiki/{target}", Attest: true}, {Name: "public", Repository: "public.example/{path}", Public: true}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("WORKSPACE.example does not show the defaults (-defaults +example):\n%s", diff)
	}

	source := readDoc(t, "starlark/load/workspace.go") + readDoc(t, "starlark/load/config.go") + readDoc(t, "starlark/load/registry.go")
	statements := regexp.MustCompile(`statement\("(\w+)"`).FindAllStringSubmatch(source, -1)
	if len(statements) < 3 {
		t.Fatalf("found only %d statements in the source", len(statements))
	}
	for _, s := range statements {
		if !strings.Contains(example, "\n"+s[1]+"(") {
			t.Errorf("WORKSPACE.example lacks %s()", s[1])
		}
	}
	for _, p := range regexp.MustCompile(`"(\w+)\?"`).FindAllStringSubmatch(source, -1) {
		if !strings.Contains(example, p[1]+" = ") {
			t.Errorf("WORKSPACE.example lacks parameter %s", p[1])
		}
	}
}

// declared returns what the module's Go files declare at top level, as "package/path.Name" and "package/path.Type.Method",
// tests and modules of their own left out.
func declared(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	err := filepath.WalkDir(repository, func(file string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && (e.Name() == ".git" || e.Name() == "testdata" || e.Name() == "tools") {
			return fs.SkipDir
		}
		if _, err := os.Stat(filepath.Join(file, "go.mod")); err == nil && file != repository {
			return fs.SkipDir
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(repository, filepath.Dir(file))
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(rel)
		names[pkg] = true
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				name := d.Name.Name
				if d.Recv != nil {
					recv := d.Recv.List[0].Type
					if star, ok := recv.(*ast.StarExpr); ok {
						recv = star.X
					}
					name = fmt.Sprint(recv) + "." + name
				}
				names[pkg+"."+name] = true
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch spec := spec.(type) {
					case *ast.TypeSpec:
						names[pkg+"."+spec.Name.Name] = true
					case *ast.ValueSpec:
						for _, id := range spec.Names {
							names[pkg+"."+id.Name] = true
						}
					}
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// In ARCHITECTURE.md code in backquotes that looks like `plan.New`, `store.Store.Put` or `graph/label.Parse` is a Go name:
// the last part of a package's path, or more of it, and what the package declares.
var goName = regexp.MustCompile("`((?:[a-z0-9]+/)*[a-z0-9]+)\\.([A-Za-z_]\\w*(?:\\.[A-Za-z_]\\w*)?)(?:\\(\\))?`")

// TestArchitectureNames wants every Go name in ARCHITECTURE.md to exist.
func TestArchitectureNames(t *testing.T) {
	names := declared(t)
	pkgs := map[string][]string{} // by the last part of their paths
	for n := range names {
		if !strings.Contains(n, ".") {
			pkgs[path.Base(n)] = append(pkgs[path.Base(n)], n)
		}
	}
	found := 0
	for i, line := range strings.Split(readDoc(t, "ARCHITECTURE.md"), "\n") {
		for _, m := range goName.FindAllStringSubmatch(line, -1) {
			var candidates []string
			for _, p := range pkgs[path.Base(m[1])] {
				if p == m[1] || strings.HasSuffix(p, "/"+m[1]) {
					candidates = append(candidates, p)
				}
			}
			if len(candidates) == 0 {
				continue // not one of our packages: a file's name, ctx.actions, another module
			}
			found++
			ok := false
			for _, p := range candidates {
				ok = ok || names[p+"."+m[2]]
			}
			if !ok {
				t.Errorf("ARCHITECTURE.md:%d: there is no %s.%s", i+1, m[1], m[2])
			}
		}
	}
	if found < 50 {
		t.Errorf("found only %d Go names: does the pattern still match?", found)
	}
}

// TestArchitecturePackages wants every package in ARCHITECTURE.md's table.
func TestArchitecturePackages(t *testing.T) {
	text := readDoc(t, "ARCHITECTURE.md")
	for n := range declared(t) {
		if !strings.Contains(n, ".") && !strings.Contains(text, "\n| `"+n+"` |") {
			t.Errorf("ARCHITECTURE.md's table lacks %s", n)
		}
	}
}

// TestReadmeFlags wants every flag and every command of the program in README.md, and no other flag.
func TestReadmeFlags(t *testing.T) {
	text := readDoc(t, "README.md")
	root := (&app{}).command()
	known := map[string]bool{"help": true}
	for _, c := range append(root.Commands(), root) {
		if c.Hidden || c.Name() == "help" {
			continue
		}
		if c != root && !strings.Contains(text, "`mwbuild "+c.Name()) {
			t.Errorf("README.md does not tell of mwbuild %s", c.Name())
		}
		for _, line := range strings.Split(c.LocalFlags().FlagUsages()+c.PersistentFlags().FlagUsages(), "\n") {
			if m := regexp.MustCompile(`--([a-z-]+)`).FindStringSubmatch(line); m != nil {
				known[m[1]] = true
				if c.Name() != "completion" && m[1] != "help" && !strings.Contains(text, "`--"+m[1]) {
					t.Errorf("README.md does not tell of --%s of mwbuild %s", m[1], c.Name())
				}
			}
		}
	}
	for _, m := range regexp.MustCompile("mwbuild[^\n`|]* --([a-z-]+)").FindAllStringSubmatch(text, -1) {
		if !known[m[1]] {
			t.Errorf("README.md has --%s, which is no flag", m[1])
		}
	}
}
