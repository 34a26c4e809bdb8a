package load

import (
	"io/fs"
	"maps"
	"slices"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// A Doc describes one public name of the prelude: a rule, a macro, a provider or a list of words.
type Doc struct {
	Kind   string // "rule", "macro", "provider" or "constant"
	Name   string
	File   string // of the prelude
	Doc    string // docstring; of a macro without its list of arguments
	Params []ParamDoc
	Source string // of a constant: its definition, as it stands in the file
}

// A ParamDoc describes an attribute of a rule, a parameter of a macro or a field of a provider.
type ParamDoc struct {
	Name      string
	Type      string   // of an attribute: "string", "label_list", …
	Default   string   // as Starlark, or the name of a constant; "" where there is none
	Doc       string   // "" where it has none
	Required  bool     // it has no default
	Values    []string // what a string may be
	Providers []string // what a target must provide
	Files     bool     // a file of the package will do
	// Deprecated says what to do in its place, "" while it is current.
	Deprecated string
}

// Docs describes the public names of the prelude, in the order in which they stand there.
func (l *Loader) Docs() ([]Doc, error) {
	files, err := fs.Glob(l.opts.Prelude, "*.star")
	if err != nil {
		return nil, err
	}
	var docs []Doc
	constants := map[*starlark.List]string{}
	for _, name := range files {
		src, err := fs.ReadFile(l.opts.Prelude, name)
		if err != nil {
			return nil, err
		}
		file, err := fileOptions.Parse(name, src, 0)
		if err != nil {
			return nil, err
		}
		globals := l.modules["@mwbuild//rules:"+name].globals
		for _, stmt := range file.Stmts {
			var name string
			var right syntax.Node
			switch stmt := stmt.(type) {
			case *syntax.AssignStmt:
				if id, ok := stmt.LHS.(*syntax.Ident); ok {
					name, right = id.Name, stmt.RHS
				}
			case *syntax.DefStmt:
				name = stmt.Name.Name
			}
			if name == "" || strings.HasPrefix(name, "_") {
				continue
			}
			d := Doc{Name: name, File: file.Path}
			switch v := globals[name].(type) {
			case *rule:
				d.Kind, d.Doc, d.Params = "rule", v.doc, v.params()
			case *provider:
				d.Kind, d.Doc = "provider", v.doc
				texts := fieldDocs(right)
				for _, f := range v.fields {
					d.Params = append(d.Params, ParamDoc{Name: f, Doc: texts[f]})
				}
			case *starlark.Function:
				d.Kind = "macro"
				d.Doc, d.Params = macroParams(v, constants)
			default:
				d.Kind = "constant"
				start, end := stmt.Span()
				lines := strings.Split(string(src), "\n")
				d.Source = strings.Join(lines[start.Line-1:end.Line], "\n")
				if l, ok := v.(*starlark.List); ok {
					constants[l] = name
				}
			}
			docs = append(docs, d)
		}
	}
	return docs, nil
}

// CommonParams describes the attributes that every rule has.
func CommonParams() []ParamDoc {
	r := &rule{attrs: commonAttrs, order: []string{"name", "visibility", "tags"}}
	return r.describe(r.order)
}

// params describes the attributes of a rule, those that every rule has left out.
func (r *rule) params() []ParamDoc {
	return r.describe(slices.DeleteFunc(slices.Clone(r.order), func(name string) bool { return commonAttrs[name] != nil }))
}

func (r *rule) describe(names []string) []ParamDoc {
	var params []ParamDoc
	for _, name := range names {
		a := r.attrs[name]
		p := ParamDoc{Name: name, Type: a.kind, Doc: a.doc, Required: a.mandatory, Values: a.values, Files: a.allowFiles, Deprecated: a.deprecated}
		if !a.mandatory {
			p.Default = a.def.String()
		}
		for _, v := range a.providers {
			p.Providers = append(p.Providers, v.Name())
		}
		params = append(params, p)
	}
	return params
}

// macroParams takes a macro's docstring apart: what it does, and its parameters with what "Args:" says of them.
func macroParams(f *starlark.Function, constants map[*starlark.List]string) (doc string, params []ParamDoc) {
	doc, args, _ := strings.Cut(f.Doc(), " Args:\n")
	texts := map[string]string{}
	last := ""
	for _, line := range strings.Split(args, "\n") {
		line = strings.TrimSpace(line)
		if name, text, ok := strings.Cut(line, ": "); ok && !strings.ContainsAny(name, " `") {
			last, texts[name] = name, text
		} else if last != "" && line != "" {
			texts[last] += " " + line
		}
	}
	var lines []string
	for _, line := range strings.Split(doc, "\n") {
		lines = append(lines, strings.TrimSpace(line))
	}
	doc = strings.TrimSpace(strings.Join(lines, "\n"))
	for i := range f.NumParams() {
		name, _ := f.Param(i)
		p := ParamDoc{Name: name, Doc: texts[name]}
		def := f.ParamDefault(i)
		list, _ := def.(*starlark.List)
		switch {
		case f.HasKwargs() && i == f.NumParams()-1:
			p.Name = "**" + name
		case def == nil:
			p.Required = true
		case constants[list] != "":
			p.Default = constants[list]
		default:
			p.Default = def.String()
		}
		params = append(params, p)
	}
	return doc, params
}

// fieldDocs reads what provider(fields = {…}) says of each field.
func fieldDocs(call syntax.Node) map[string]string {
	texts := map[string]string{}
	syntax.Walk(call, func(n syntax.Node) bool {
		if e, ok := n.(*syntax.DictEntry); ok {
			key, isKey := e.Key.(*syntax.Literal)
			value, isValue := e.Value.(*syntax.Literal)
			if isKey && isValue {
				k, _ := key.Value.(string)
				texts[k], _ = value.Value.(string)
			}
		}
		return true
	})
	return texts
}

// Builtins returns the names that the language has beside Starlark's own and the prelude's: under "BUILD and .bzl" those
// of all files, under WORKSPACE that file's, and the members of each kind of value under its name.
func Builtins() map[string][]string {
	names := func(d starlark.StringDict) []string { return slices.Sorted(maps.Keys(d)) }
	c := &ruleContext{}
	return map[string][]string{
		"BUILD and .bzl": names((&Loader{}).base()),
		"attr":           names(attrModule.Members),
		"ctx":            c.AttrNames(),
		"ctx.actions":    c.actions().AttrNames(),
		"File":           (&fileValue{}).AttrNames(),
		"Target":         (&targetValue{}).AttrNames(),
		"depset":         (&depset{}).AttrNames(),
		"DefaultInfo":    defaultInfo.fields,
		"WORKSPACE":      (&Loader{}).base()["WORKSPACE"].(*instance).AttrNames(),
	}
}
