package main

import (
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mwbuild/mwbuild/starlark/load"
)

var update = flag.Bool("update", false, "rewrite docs/rules.md")

const page = "../../docs/rules.md"

func TestPageIsCurrent(t *testing.T) {
	want, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(page, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("docs/rules.md is not current: run go test ./rules/docgen -update (-want +got):\n%s", diff)
	}
}

// TestEverythingIsDocumented wants a text for every rule, attribute, parameter and field.
func TestEverythingIsDocumented(t *testing.T) {
	want, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(string(want), "\n") {
		if strings.HasPrefix(line, "| `") && strings.HasSuffix(line, "|  |") {
			t.Errorf("docs/rules.md:%d: no text: %s", i+1, line)
		}
	}
}

// heading is the heading of a builtin, with its parameters if it is a function.
var heading = regexp.MustCompile("(?m)^### `([\\w.]+)(\\((.*)\\))?`$")

// documented returns the parameters of each builtin in builtins.md: "name" if it is needed, else "name?".
func documented() map[string][]string {
	d := map[string][]string{}
	for _, m := range heading.FindAllStringSubmatch(builtins, -1) {
		var params []string
		if m[3] != "" {
			for _, p := range strings.Split(m[3], ", ") {
				name, _, optional := strings.Cut(p, " = ")
				if optional {
					name += "?"
				}
				params = append(params, name)
			}
		}
		slices.Sort(params)
		d[m[1]] = params
	}
	return d
}

// TestBuiltinsAreDocumented compares the headings of builtins.md with the names that the loader has.
func TestBuiltinsAreDocumented(t *testing.T) {
	d := documented()
	for kind, names := range load.Builtins() {
		for _, name := range names {
			switch kind {
			case "BUILD and .bzl":
				if name == "attr" {
					continue // by its members
				}
			case "attr", "ctx.actions":
				name = kind + "." + name
			default:
				// In the text.
				if !strings.Contains(builtins, "`"+name+"`") && !strings.Contains(builtins, "."+name) {
					t.Errorf("builtins.md does not tell of %s of %s", name, kind)
				}
				continue
			}
			if _, ok := d[name]; !ok {
				t.Errorf("builtins.md has no heading for %s", name)
			}
		}
	}
}

// TestParametersAreDocumented compares the parameters in builtins.md with those that the loader's source unpacks.
func TestParametersAreDocumented(t *testing.T) {
	d := documented()
	for _, name := range []string{"load", "struct", "DefaultInfo", "WORKSPACE", "json", "ctx", "Target", "File", "config_setting"} { // unpack none
		delete(d, name)
	}
	got := unpacked(t, "../../starlark/load")
	for _, kind := range []string{"string", "int", "bool", "string_list", "string_dict", "label", "label_list"} {
		params := got["attrModule"]
		switch kind {
		case "string":
			params = without(params, "providers?", "allow_files?")
		case "label", "label_list":
			params = without(params, "values?")
		default:
			params = without(params, "values?", "providers?", "allow_files?")
		}
		got["attr."+kind] = params
	}
	delete(got, "attrModule")
	for source, name := range map[string]string{
		"readJSON": "read_json", "declarePackage": "package", "packageName": "package_name", "makeRule": "rule",
		"makeSelect": "select", "declareConfig": "configuration", "declareDefine": "define", "declarePolicy": "policy", "declareRegistry": "registry", "makeProvider": "provider", "makeDepset": "depset", "layer": "ctx.actions.layer", "run": "ctx.actions.run",
		"image": "ctx.actions.image", "importImage": "ctx.actions.import_image", "native": "ctx.actions.native", "made": "ctx.actions.made", "call": "ctx.call",
	} {
		got[name] = got[source]
		delete(got, source)
	}
	delete(got, "Attr") // to_list, of a depset
	if diff := cmp.Diff(got, d); diff != "" {
		t.Errorf("parameters (-in the source +in builtins.md):\n%s", diff)
	}
}

func without(list []string, names ...string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(names, s) })
}

// unpacked returns the names that each function hands to starlark.UnpackArgs; for a statement of WORKSPACE under its name.
func unpacked(t *testing.T, dir string) map[string][]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]map[string]bool{}
	name := regexp.MustCompile(`^[a-z_]+\?{0,2}$`)
	var walk func(n ast.Node, in string)
	walk = func(n ast.Node, in string) {
		ast.Inspect(n, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				// The parameters that all of attr.* have.
				if lit, ok := n.(*ast.BasicLit); ok && in == "attrModule" && strings.HasSuffix(lit.Value, `?"`) {
					found[in][strings.Trim(lit.Value, `"`)] = true
				}
				return true
			}
			if id, ok := call.Fun.(*ast.Ident); ok && id.Name == "statement" && in != "statement" {
				statement, err := strconv.Unquote(call.Args[0].(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				found[statement] = map[string]bool{}
				walk(call.Args[1], statement)
				return false
			}
			if sel, ok := call.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "UnpackArgs" {
				for _, arg := range call.Args[3:] {
					if lit, ok := arg.(*ast.BasicLit); ok {
						if s, err := strconv.Unquote(lit.Value); err == nil && name.MatchString(s) {
							found[in][s] = true
						}
					}
				}
				found[in]["\x00"] = true
			}
			return true
		})
	}
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), f, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			var in string
			switch decl := decl.(type) {
			case *ast.FuncDecl:
				in = decl.Name.Name
			case *ast.GenDecl:
				if spec, ok := decl.Specs[0].(*ast.ValueSpec); ok {
					in = spec.Names[0].Name
				}
			}
			if found[in] == nil {
				found[in] = map[string]bool{}
			}
			walk(decl, in)
		}
	}
	out := map[string][]string{}
	for in, names := range found {
		if len(names) == 0 {
			continue
		}
		delete(names, "\x00")
		out[in] = slices.Sorted(maps.Keys(names))
	}
	return out
}
