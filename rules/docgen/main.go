// Command docgen writes docs/rules.md: the built-in rules from their docstrings, the builtins from builtins.md beside it.
//
//	go run ./rules/docgen > docs/rules.md
//
// `go test ./rules/docgen -update` does the same, and without -update tells whether the file is current.
package main

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"iter"
	"os"
	"regexp"
	"strings"

	"github.com/mwbuild/mwbuild/internal/workspace"
	"github.com/mwbuild/mwbuild/rules"
	"github.com/mwbuild/mwbuild/starlark/load"
)

//go:embed builtins.md
var builtins string

func main() {
	page, err := generate()
	if err == nil {
		_, err = os.Stdout.Write(page)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "docgen:", err)
		os.Exit(1)
	}
}

// emptyTree is a workspace with nothing but an empty WORKSPACE file.
type emptyTree struct{}

func (emptyTree) Packages() []string         { return nil }
func (emptyTree) BuildFiles(string) []string { return nil }
func (emptyTree) Lookup(path string) (workspace.File, bool) {
	return workspace.File{}, path == "WORKSPACE"
}
func (emptyTree) ReadFile(string) ([]byte, error)                   { return nil, nil }
func (emptyTree) Owned(string) iter.Seq[workspace.File]             { return func(func(workspace.File) bool) {} }
func (emptyTree) Blob(string) (string, error)                       { return "", nil }
func (emptyTree) Glob(string, []string, []string) ([]string, error) { return nil, nil }

// generate returns docs/rules.md.
func generate() ([]byte, error) {
	l, errs := load.New(load.Options{Tree: emptyTree{}, Prelude: rules.Prelude})
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	docs, err := l.Docs()
	if err != nil {
		return nil, err
	}
	byName := map[string]load.Doc{}
	for _, d := range docs {
		byName[d.Name] = d
	}
	var b bytes.Buffer
	b.WriteString(`<!-- Made by go run ./rules/docgen from rules/*.star and rules/docgen/builtins.md. Edit those. -->

# Rules and builtins

Everything here can be used in BUILD and ` + "`.bzl`" + ` files without loading it.

`)
	for _, section := range []struct{ title, intro, kind string }{
		{"MediaWiki", "Macros that declare a component: `:NAME`, its files, and `:image`, its scratch image.", "macro"},
		{"Rules", "", "rule"},
		{"Providers", "What targets tell those that depend on them, for rules of your own.", "provider"},
		{"Constants", "", "constant"},
	} {
		fmt.Fprintf(&b, "- [%s](#%s):", section.title, strings.ToLower(section.title))
		sep := " "
		for _, d := range docs {
			if d.Kind == section.kind {
				fmt.Fprintf(&b, "%s[`%s`](#%s)", sep, d.Name, strings.ToLower(d.Name))
				sep = ", "
			}
		}
		b.WriteString("\n")
	}
	b.WriteString("- [Builtins](#builtins)\n- [What an implementation sees](#what-an-implementation-sees)\n- [The WORKSPACE file](#the-workspace-file)\n\n")

	b.WriteString("## MediaWiki\n\nMacros that declare a component: `:NAME`, its files, and `:image`, its scratch image.\n\n")
	for _, d := range docs {
		if d.Kind == "macro" {
			fmt.Fprintf(&b, "### %s\n\n%s\n\n| parameter | default | |\n|---|---|---|\n", d.Name, d.Doc)
			for _, p := range d.Params {
				fmt.Fprintf(&b, "| `%s` | %s | %s |\n", p.Name, defaultOf(p), cell(paramDoc(byName, d, p.Name)))
			}
			b.WriteString("\n")
		}
	}
	b.WriteString("## Rules\n\nEvery rule has these attributes:\n\n")
	attributes(&b, load.CommonParams())
	for _, d := range docs {
		if d.Kind == "rule" {
			fmt.Fprintf(&b, "### %s\n\n%s\n\n", d.Name, d.Doc)
			attributes(&b, d.Params)
		}
	}
	b.WriteString("## Providers\n\nWhat targets tell those that depend on them, for rules of your own.\n\n")
	for _, d := range docs {
		if d.Kind == "provider" {
			fmt.Fprintf(&b, "### %s\n\n%s\n\n| field | |\n|---|---|\n", d.Name, d.Doc)
			for _, p := range d.Params {
				fmt.Fprintf(&b, "| `%s` | %s |\n", p.Name, cell(p.Doc))
			}
			b.WriteString("\n")
		}
	}
	b.WriteString("## Constants\n\n")
	for _, d := range docs {
		if d.Kind == "constant" {
			fmt.Fprintf(&b, "### %s\n\n```python\n%s\n```\n\n", d.Name, d.Source)
		}
	}
	b.WriteString(builtins)
	return b.Bytes(), nil
}

func attributes(b *bytes.Buffer, params []load.ParamDoc) {
	b.WriteString("| attribute | type | default | |\n|---|---|---|---|\n")
	for _, p := range params {
		doc := p.Doc
		if len(p.Values) > 0 {
			doc += " One of `" + strings.Join(p.Values, "`, `") + "`."
		}
		if len(p.Providers) > 0 {
			doc += " Must provide `" + strings.Join(p.Providers, "`, `") + "`."
		}
		if p.Deprecated != "" {
			doc += " Deprecated: " + p.Deprecated + "."
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", p.Name, typeOf(p), defaultOf(p), cell(strings.TrimSpace(doc)))
	}
	b.WriteString("\n")
}

func typeOf(p load.ParamDoc) string {
	if p.Files {
		return map[string]string{"label": "label or file", "label_list": "list of labels and files"}[p.Type]
	}
	if t, ok := map[string]string{"string_list": "list of strings", "string_dict": "dict of strings", "label_list": "list of labels"}[p.Type]; ok {
		return t
	}
	return p.Type
}

func defaultOf(p load.ParamDoc) string {
	switch {
	case p.Required:
		return "*required*"
	case p.Default == "":
		return ""
	}
	return "`" + cell(p.Default) + "`"
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

var as = regexp.MustCompile("as `(\\w+)`")

// paramDoc is what a macro's docstring says of a parameter, else what that of the macro says which it is "as", else what
// every rule says.
func paramDoc(byName map[string]load.Doc, d load.Doc, name string) string {
	for _, p := range d.Params {
		if p.Name == name && p.Doc != "" {
			return p.Doc
		}
	}
	if m := as.FindStringSubmatch(d.Doc); m != nil {
		return paramDoc(byName, byName[m[1]], name)
	}
	for _, p := range load.CommonParams() {
		if p.Name == name {
			return p.Doc
		}
	}
	return ""
}
